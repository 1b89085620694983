/* Float weights to trits with float scales: the steps of absmean; TWN and a given threshold. */
#include "quant/weights.h"

#include <math.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/half.h"
#include "quant/shape_checks.h"

static uint32_t magnitude_bits(float f) { return tern_f32_bits(f) & 0x7fffffffu; }

tern_status tern_check_slices(tern_slices *s, const int8_t *trits, const float *scales, const float *w, size_t rows,
                              size_t cols, tern_granularity granularity, tern_error *err) {
    TERN_CHECK_ARGUMENT(trits, err, "trits is NULL");
    TERN_CHECK_ARGUMENT(scales, err, "scales is NULL");
    TERN_CHECK_ARGUMENT(w, err, "w is NULL");
    TERN_CHECK_ARGUMENT(granularity == TERN_PER_TENSOR || granularity == TERN_PER_ROW, err,
                        "granularity %d is neither TERN_PER_TENSOR nor TERN_PER_ROW", (int)granularity);
    size_t count = 0;
    TERN_TRY(tern_check_shape(&count, rows, cols, err));
    *s = granularity == TERN_PER_ROW ? (tern_slices){rows, cols} : (tern_slices){1, count};
    return TERN_OK;
}

/* ---- centres of |w| ------------------------------------------------------------------------------------------ */

double tern_add_partials(const double partials[TERN_SUM_PARTIALS]) {
    double sum = partials[0];
    for (size_t j = 1; j < TERN_SUM_PARTIALS; j++) sum += partials[j];
    return sum;
}

double tern_sum_magnitudes_scalar(const float *w, size_t n) {
    double partials[TERN_SUM_PARTIALS] = {0};
    for (size_t i = 0; i < n; i++) partials[i % TERN_SUM_PARTIALS] += (double)fabsf(w[i]);
    return tern_add_partials(partials);
}

/* 0 for n = 0. */
static double mean_magnitude(const float *w, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i += TERN_SUM_BLOCK)
        sum += tern_sum_magnitudes_scalar(w + i, tern_min_size(TERN_SUM_BLOCK, n - i));
    return n ? sum / (double)n : 0;
}

/* The k-th smallest |w|, from 0. Magnitudes order as their 31 bits do, so three counting passes settle 11, 10 and
 * 10 bits of the answer from the top: linear in n whatever the data, and without scratch. */
static float select_magnitude(const float *w, size_t n, size_t k) {
    static const unsigned shifts[] = {20, 10, 0};
    uint32_t found = 0, settled = 0; /* bits of the answer; which of them are known */
    for (size_t pass = 0; pass < 3; pass++) {
        const unsigned shift = shifts[pass];
        const uint32_t digits = pass == 0 ? 0x7ffu : 0x3ffu;
        size_t histogram[0x800] = {0};
        for (size_t i = 0; i < n; i++) {
            uint32_t u = magnitude_bits(w[i]);
            if ((u & settled) == found) histogram[u >> shift & digits]++;
        }
        uint32_t digit = 0;
        while (k >= histogram[digit]) k -= histogram[digit++];
        found |= digit << shift;
        settled |= digits << shift;
    }
    return tern_f32_from_bits(found);
}

double tern_median_magnitude(const float *w, size_t n) {
    if (!n) return 0;
    double upper = (double)select_magnitude(w, n, n / 2);
    if (n % 2) return upper;
    return ((double)select_magnitude(w, n, n / 2 - 1) + upper) / 2;
}

/* ---- absmean ------------------------------------------------------------------------------------------------- */

float tern_absmean_scale(double center) { return fmaxf((float)center, 1e-5f); }

/* clamp(round(v), -1, 1) with ties to even is the sign of v where |v| > 1/2, and 0 elsewhere: 1/2 itself goes to the
 * even 0. */
void tern_ternarize_scalar(int8_t *trits, const float *w, size_t n, float m) {
    for (size_t i = 0; i < n; i++) {
        float v = w[i] / m;
        trits[i] = (int8_t)((v > 0.5f) - (v < -0.5f));
    }
}

/* ---- thresholds ---------------------------------------------------------------------------------------------- */

static tern_status check_weights(tern_slices *s, const int8_t *trits, const float *scales, const float *w,
                                 size_t rows, size_t cols, tern_granularity granularity, tern_error *err) {
    TERN_TRY(tern_check_slices(s, trits, scales, w, rows, cols, granularity, err));
    return tern_check_weights(w, s->n * s->length, err);
}

/* Trits by |w| > delta; returns the mean of the kept |w|. delta is a double so that TWN's 0.7 mean|w| is not rounded
 * to fp32 before it decides. */
static float keep_above(int8_t *trits, const float *w, size_t n, double delta) {
    double sum = 0;
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        double magnitude = (double)fabsf(w[i]);
        int keep = magnitude > delta;
        trits[i] = (int8_t)(keep ? (w[i] > 0) - (w[i] < 0) : 0);
        sum += keep ? magnitude : 0;
        kept += (size_t)keep;
    }
    return kept ? (float)(sum / (double)kept) : 0;
}

tern_status tern_quantize_twn(int8_t *trits, float *scales, const float *w, size_t rows, size_t cols,
                              tern_granularity granularity, tern_error *err) {
    tern_slices s;
    TERN_TRY(check_weights(&s, trits, scales, w, rows, cols, granularity, err));
    for (size_t i = 0; i < s.n; i++) {
        const float *slice = w + i * s.length;
        scales[i] = keep_above(trits + i * s.length, slice, s.length, 0.7 * mean_magnitude(slice, s.length));
    }
    return TERN_OK;
}

tern_status tern_quantize_threshold(int8_t *trits, float *scales, const float *w, size_t rows, size_t cols,
                                    float delta, tern_granularity granularity, tern_error *err) {
    TERN_CHECK_ARGUMENT(tern_f32_is_finite(delta) && delta >= 0, err,
                        "delta is %g; it must be finite and not negative", (double)delta);
    tern_slices s;
    TERN_TRY(check_weights(&s, trits, scales, w, rows, cols, granularity, err));
    for (size_t i = 0; i < s.n; i++)
        scales[i] = keep_above(trits + i * s.length, w + i * s.length, s.length, (double)delta);
    return TERN_OK;
}
