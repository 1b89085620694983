/* Float weights to trits with float scales: absmean, TWN, a given threshold. */
#include "quant/shape_checks.h"

#include <math.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/half.h"
#include "tern/quant.h"

static uint32_t magnitude_bits(float f) { return tern_f32_bits(f) & 0x7fffffffu; }

/* The matrix as runs of weights that share a scale. */
typedef struct slices {
    size_t n, length;
} slices;

static tern_status check_arguments(slices *s, const int8_t *trits, const float *scales, const float *w, size_t rows,
                                   size_t cols, tern_granularity granularity, tern_error *err) {
    TERN_CHECK_ARGUMENT(trits, err, "trits is NULL");
    TERN_CHECK_ARGUMENT(scales, err, "scales is NULL");
    TERN_CHECK_ARGUMENT(w, err, "w is NULL");
    TERN_CHECK_ARGUMENT(granularity == TERN_PER_TENSOR || granularity == TERN_PER_ROW, err,
                        "granularity %d is neither TERN_PER_TENSOR nor TERN_PER_ROW", (int)granularity);
    size_t count = 0;
    TERN_TRY(tern_check_shape(&count, rows, cols, err));
    *s = granularity == TERN_PER_ROW ? (slices){rows, cols} : (slices){1, count};
    return tern_check_weights(w, count, err);
}

/* ---- centres of |w| ------------------------------------------------------------------------------------------ */

/* 0 for n = 0. The order of this sum is part of the contract. */
static double mean_magnitude(const float *w, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)fabsf(w[i]);
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

static double median_magnitude(const float *w, size_t n) {
    if (!n) return 0;
    double upper = (double)select_magnitude(w, n, n / 2);
    if (n % 2) return upper;
    return ((double)select_magnitude(w, n, n / 2 - 1) + upper) / 2;
}

/* ---- absmean ------------------------------------------------------------------------------------------------- */

/* clamp(round(v), -1, 1) with ties to even is the sign of v where |v| > 1/2, and 0 elsewhere: 1/2 itself goes to the
 * even 0. The comparison is with the rounded quotient; comparing |w| with m/2 would differ in its last bit. */
static void divide_and_round(int8_t *trits, const float *w, size_t n, float m) {
    for (size_t i = 0; i < n; i++) {
        float v = w[i] / m;
        trits[i] = (int8_t)((v > 0.5f) - (v < -0.5f));
    }
}

tern_status tern_quantize_absmean(int8_t *trits, float *scales, const float *w, size_t rows, size_t cols,
                                  tern_center center, tern_granularity granularity, tern_error *err) {
    TERN_CHECK_ARGUMENT(center == TERN_MEAN || center == TERN_MEDIAN, err,
                        "center %d is neither TERN_MEAN nor TERN_MEDIAN", (int)center);
    slices s;
    TERN_TRY(check_arguments(&s, trits, scales, w, rows, cols, granularity, err));
    for (size_t i = 0; i < s.n; i++) {
        const float *slice = w + i * s.length;
        double middle = center == TERN_MEAN ? mean_magnitude(slice, s.length) : median_magnitude(slice, s.length);
        scales[i] = fmaxf((float)middle, 1e-5f);
        divide_and_round(trits + i * s.length, slice, s.length, scales[i]);
    }
    return TERN_OK;
}

/* ---- thresholds ---------------------------------------------------------------------------------------------- */

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
    slices s;
    TERN_TRY(check_arguments(&s, trits, scales, w, rows, cols, granularity, err));
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
    slices s;
    TERN_TRY(check_arguments(&s, trits, scales, w, rows, cols, granularity, err));
    for (size_t i = 0; i < s.n; i++)
        scales[i] = keep_above(trits + i * s.length, w + i * s.length, s.length, (double)delta);
    return TERN_OK;
}
