/* The two steps of absmean quantization against their definitions in kern/kernels.h, to the bit. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "kern_test.h"

enum { COLUMNS = 2560 };

/* ---- inputs ---------------------------------------------------------------------------------------------------- */

typedef enum weights_fill {
    UNIFORM,
    WIDE,
    GREATEST,
    DENORMAL,
    MINUS_ZERO,
    NEAR_HALF,
    NAN_IN_IT,
    INF_IN_IT,
    FILLS
} weights_fill;

/* m / 2 and its neighbours, where the quotient is a tie or next to one. */
static float near_half(uint32_t noise, float m) {
    const float half = m / 2, around[5] = {half, nextafterf(half, 0), nextafterf(half, INFINITY), m, half * 3};
    return noise % 2 ? around[noise / 2 % 5] : -around[noise / 2 % 5];
}

static void draw_weights(kern_test *t, float *w, size_t n, weights_fill how, float m) {
    draw_floats(t, w, n);
    for (size_t i = 0; i < n; i++) switch (how) {
        case WIDE: w[i] = ldexpf(w[i], (int)(draw(t) % 200) - 100); break;
        case GREATEST: w[i] = draw(t) % 2 ? FLT_MAX : -FLT_MAX; break;
        case DENORMAL: w[i] = tern_f32_from_bits(draw(t) & 0x807fffffu); break;
        case MINUS_ZERO: w[i] = draw(t) % 2 ? -0.0f : 0.0f; break;
        case NEAR_HALF: w[i] = near_half(draw(t), m); break;
        default: break;
        }
    if (n && how == NAN_IN_IT) w[draw(t) % n] = draw(t) % 2 ? NAN : -NAN;
    if (n && how == INF_IN_IT) w[draw(t) % n] = draw(t) % 2 ? INFINITY : -INFINITY;
}

/* ---- the definitions ------------------------------------------------------------------------------------------- */

static double naive_sum(const float *w, size_t n) {
    double sum = 0;
    for (size_t j = 0; j < 16; j++) {
        double partial = 0;
        for (size_t i = j; i < n; i += 16) partial += fabs((double)w[i]);
        sum += partial;
    }
    return sum;
}

static int naive_trit(float w, float m) {
    if (isnan(w)) return 0;
    float v = rintf(w / m);
    return v > 1 ? 1 : v < -1 ? -1 : (int)v;
}

/* ---- checks ---------------------------------------------------------------------------------------------------- */

static void check_sum(kern_test *t, const float *w, size_t n) {
    const double want = naive_sum(w, n), got = t->tier->sum_magnitudes.fn(w, n);
    if (isfinite(want) ? memcmp(&want, &got, sizeof got) != 0 : isfinite(got))
        fail_kernel(t, "n %zu: %a, should be %a", n, got, want);
}

static void check_trits(kern_test *t, const float *w, size_t n, float m) {
    enum { MARGIN = 64 };
    int8_t *fence = fenced(n + MARGIN), *trits = fence + MARGIN * (draw(t) % 2); /* at the fence, or margin after */
    memset(fence, POISON, n + MARGIN);
    t->tier->ternarize.fn(trits, w, n, m);
    for (size_t i = 0; i < n; i++)
        if (trits[i] != naive_trit(w[i], m)) {
            fail_kernel(t, "n %zu weight %zu: %a / %a gives %d", n, i, (double)w[i], (double)m, trits[i]);
            break;
        }
    for (int8_t *p = fence; p < fence + n + MARGIN; p++)
        if ((p < trits || p >= trits + n) && *p != POISON) {
            fail_kernel(t, "n %zu: a write outside", n);
            break;
        }
    unfence(fence, n + MARGIN);
}

static void check_length(kern_test *t, size_t n, int sum, int trits) {
    for (int how = 0; how < FILLS; how++) {
        const float floors[4] = {1e-5f, 0x1p-100f, 0x1.fffffep-3f, FLT_MAX};
        float m = draw(t) % 2 ? floors[draw(t) % 4] : tern_f32_from_bits(0x38000000u + draw(t) % 0x08000000u);
        float *w = fenced(n * sizeof *w), *copy = malloc(n * sizeof *w + 1);
        draw_weights(t, w, n, (weights_fill)how, m);
        memcpy(copy, w, n * sizeof *w);
        if (sum) {
            t->kernel = t->tier->sum_magnitudes.name;
            check_sum(t, w, n);
        }
        if (trits) {
            t->kernel = t->tier->ternarize.name;
            check_trits(t, w, n, m);
        }
        if (memcmp(copy, w, n * sizeof *w)) fail_kernel(t, "the weights were written to");
        unfence(w, n * sizeof *w);
        free(copy);
    }
}

/* Mantissas of m, both ends among them, with the floats around m / 2 in every lane of whole vectors: where comparing
 * instead of dividing could go wrong. */
static void check_mantissas(kern_test *t) {
    enum { LANES = 64, STEP = 127 };
    for (uint32_t i = 0; i < 1u << 23; i += i + STEP < 1u << 23 ? STEP : 1) {
        const float m = tern_f32_from_bits(0x3f800000u | i), around[2] = {m / 2, nextafterf(m / 2, 9)};
        float w[LANES];
        int8_t trits[LANES];
        for (size_t j = 0; j < LANES; j++) w[j] = j / 2 % 2 ? around[j % 2] : -around[j % 2];
        t->tier->ternarize.fn(trits, w, LANES, m);
        for (size_t j = 0; j < LANES; j++)
            if (trits[j] != naive_trit(w[j], m)) {
                fail_kernel(t, "%a / %a gives %d", (double)w[j], (double)m, trits[j]);
                return;
            }
    }
}

static void time_weights(kern_test *t) {
    float *w = fenced(COLUMNS * sizeof *w);
    int8_t *trits = fenced(COLUMNS);
    double sink = 0;
    draw_floats(t, w, COLUMNS);
    t->kernel = t->tier->sum_magnitudes.name;
    CALL(t, COLUMNS, sink += t->tier->sum_magnitudes.fn(w, COLUMNS));
    t->kernel = t->tier->ternarize.name;
    CALL(t, COLUMNS, t->tier->ternarize.fn(trits, w, COLUMNS, 1));
    if (sink == 0) fail_kernel(t, "the sum is zero");
    unfence(w, COLUMNS * sizeof *w);
    unfence(trits, COLUMNS);
}

void check_weights(kern_test *t) {
    const int sum = begin_kernel(t, t->tier->sum_magnitudes.name), trits = begin_kernel(t, t->tier->ternarize.name);
    if (!sum && !trits) return;
    if (t->bench) {
        time_weights(t);
        return;
    }
    for (size_t n = 0; n <= 200; n++) check_length(t, n, sum, trits);
    check_length(t, 1 << 14, sum, trits);
    if (trits) check_mantissas(t);
}
