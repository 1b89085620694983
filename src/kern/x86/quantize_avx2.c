/* Activations to int8, 32 columns at a time, then 8; the last few by the scalar steps.
 *
 * Conversions use the rounding mode of the thread, which must be the default. |v * s| is at most 127 and a rounding
 * error, so the saturating packs only narrow. */
#include <immintrin.h>

#include "kern/quantize_rows.h"
#include "quant/activations.h"

#define INLINE static inline __attribute__((always_inline))

/* Where the values of a row come from: v = x, or v = (x * r) * gain. Passed to inlined functions with a constant
 * `norm`, so that each caller gets its own loop. */
typedef struct row {
    const float *x, *gain;
    float r;
    int norm;
} row;

INLINE __m256 values(const row *in, size_t c) {
    __m256 v = _mm256_loadu_ps(in->x + c);
    if (in->norm) v = _mm256_mul_ps(v, _mm256_set1_ps(in->r));
    if (in->norm && in->gain) v = _mm256_mul_ps(v, _mm256_loadu_ps(in->gain + c));
    return v;
}

INLINE float value(const row *in, size_t c) {
    return in->norm ? tern_rmsnorm_value(in->x[c], in->r, in->gain, c) : in->x[c];
}

INLINE __m256i max_magnitude(__m256i absmax, __m256 v) {
    __m256i magnitude = _mm256_and_si256(_mm256_castps_si256(v), _mm256_set1_epi32(0x7fffffff));
    return _mm256_max_epu32(absmax, magnitude);
}

INLINE uint32_t reduce_max(__m256i v) {
    __m128i m = _mm_max_epu32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0xb1));
    return (uint32_t)_mm_cvtsi128_si32(m);
}

INLINE uint32_t absmax_of(const row *in, size_t cols) {
    __m256i m0 = _mm256_setzero_si256(), m1 = m0, m2 = m0, m3 = m0;
    size_t c = 0;
    for (; cols - c >= 32; c += 32) {
        m0 = max_magnitude(m0, values(in, c));
        m1 = max_magnitude(m1, values(in, c + 8));
        m2 = max_magnitude(m2, values(in, c + 16));
        m3 = max_magnitude(m3, values(in, c + 24));
    }
    for (; cols - c >= 8; c += 8) m0 = max_magnitude(m0, values(in, c));
    uint32_t absmax = reduce_max(_mm256_max_epu32(_mm256_max_epu32(m0, m1), _mm256_max_epu32(m2, m3)));
    for (; c < cols; c++) absmax = tern_max_magnitude(absmax, tern_magnitude(value(in, c)));
    return absmax;
}

INLINE __m256i rounded(__m256 v, __m256 s) { return _mm256_cvtps_epi32(_mm256_mul_ps(v, s)); }

INLINE void quantize_by(int8_t *q, const row *in, size_t cols, float scale) {
    const __m256 s = _mm256_set1_ps(scale);
    /* The packs work within 128 bits: lane l of their result holds columns 4l .. 4l+3 of each of the four vectors. */
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    size_t c = 0;
    for (; cols - c >= 32; c += 32) {
        __m256i low = _mm256_packs_epi32(rounded(values(in, c), s), rounded(values(in, c + 8), s));
        __m256i high = _mm256_packs_epi32(rounded(values(in, c + 16), s), rounded(values(in, c + 24), s));
        __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), order);
        _mm256_storeu_si256((__m256i *)(void *)(q + c), bytes);
    }
    for (; cols - c >= 8; c += 8) {
        __m256i v = rounded(values(in, c), s);
        __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
        _mm_storel_epi64((__m128i *)(void *)(q + c), _mm_packs_epi16(words, words));
    }
    for (; c < cols; c++) q[c] = tern_round_i8(value(in, c) * scale);
}

INLINE float quantize(int8_t *q, const row *in, size_t cols) {
    const uint32_t absmax = absmax_of(in, cols);
    if (!tern_magnitude_is_finite(absmax)) return tern_quantize_row_not_finite(q, cols);
    const float s = tern_activation_scale(absmax);
    quantize_by(q, in, cols, s);
    return 1.0f / s;
}

float tern_quantize_row_avx2(int8_t *q, const float *x, size_t cols) {
    const row in = {.x = x};
    return quantize(q, &in, cols);
}

/* The square of a float is exact in double, so that a fused multiply-add rounds as a multiply and an add do. */
INLINE __m256d add_square(__m256d sum, const float *x) {
    __m256d d = _mm256_cvtps_pd(_mm_loadu_ps(x));
    return _mm256_fmadd_pd(d, d, sum);
}

static float rms_factor(const float *x, float epsilon, size_t cols) {
    __m256d p0 = _mm256_setzero_pd(), p4 = p0, p8 = p0, p12 = p0; /* named by their first partial sum */
    size_t c = 0;
    for (; cols - c >= 16; c += 16) {
        p0 = add_square(p0, x + c);
        p4 = add_square(p4, x + c + 4);
        p8 = add_square(p8, x + c + 8);
        p12 = add_square(p12, x + c + 12);
    }
    double partials[TERN_RMS_PARTIALS];
    _mm256_storeu_pd(partials, p0);
    _mm256_storeu_pd(partials + 4, p4);
    _mm256_storeu_pd(partials + 8, p8);
    _mm256_storeu_pd(partials + 12, p12);
    for (; c < cols; c++) partials[c % TERN_RMS_PARTIALS] += (double)x[c] * (double)x[c];
    return tern_rms_factor(partials, epsilon, cols);
}

float tern_quantize_row_rmsnorm_avx2(int8_t *q, const float *x, const float *gain, float epsilon, size_t cols) {
    const row in = {.x = x, .gain = gain, .r = rms_factor(x, epsilon, cols), .norm = 1};
    return quantize(q, &in, cols);
}
