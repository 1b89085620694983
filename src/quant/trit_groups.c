#include "quant/trit_groups.h"

#include <math.h>
#include <stdlib.h>

#include "base/checked.h"
#include "quant/trit_rules.h"

/* g times `factor`; returns the sum of squares of what it was. */
static double scale_gradients(float *g, size_t n, float factor) {
    double squares = 0;
    for (size_t i = 0; i < n; i++) {
        squares += (double)g[i] * (double)g[i];
        g[i] *= factor;
    }
    return squares;
}

void tern_group_rates_step(int8_t *rates, float *g, size_t n, size_t group, int gradient_exp) {
    for (size_t c = 0; c < n; c += group, rates++) {
        size_t count = tern_min_size(group, n - c);
        int k = *rates, e = tern_gradient_exponent(scale_gradients(g + c, count, ldexpf(1, k)) / (double)count);
        if (e == TERN_NO_GRADIENT_EXP) continue;
        k += (gradient_exp - e > k) - (gradient_exp - e < k);
        *rates = (int8_t)(abs(k) > TERN_GROUP_RATE_MAX ? *rates : k);
    }
}

static int64_t zeros_of(const int8_t *c, size_t n, int h) {
    int64_t zeros = 0;
    for (size_t i = 0; i < n; i++) zeros += abs(c[i]) <= h;
    return zeros;
}

static int moved_threshold(int h, const int8_t *c, size_t n, int percent) {
    int64_t wanted = (int64_t)n * percent, off = 100 * zeros_of(c, n, h) - wanted;
    int next = h + (off < 0) - (off > 0);
    if (next < 1 || next > 126) return h;
    int64_t then = 100 * zeros_of(c, n, next) - wanted;
    return then == off || llabs(then) < llabs(off) ? next : h;
}

void tern_group_thresholds_step(uint8_t *thresholds, const int8_t *c, size_t n, size_t group, int percent) {
    for (size_t at = 0; at < n; at += group, thresholds++)
        *thresholds = (uint8_t)moved_threshold(*thresholds, c + at, tern_min_size(group, n - at), percent);
}

void tern_group_trits(int8_t *trits, const int8_t *c, const uint8_t *thresholds, size_t n, size_t group) {
    for (size_t at = 0; at < n; at += group, thresholds++)
        tern_trits_of_counters(trits + at, c + at, tern_min_size(group, n - at), *thresholds);
}
