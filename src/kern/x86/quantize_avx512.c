/* Activations to int8, 64 columns at a time; the end of a row by masks.
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

INLINE __m512 values(const row *in, size_t c) {
    __m512 v = _mm512_loadu_ps(in->x + c);
    if (in->norm) v = _mm512_mul_ps(v, _mm512_set1_ps(in->r));
    if (in->norm && in->gain) v = _mm512_mul_ps(v, _mm512_loadu_ps(in->gain + c));
    return v;
}

/* Lanes past the row are 0; or NaN where r is not finite, but then the whole row is not finite. */
INLINE __m512 values_masked(const row *in, size_t c, __mmask16 mask) {
    __m512 v = _mm512_maskz_loadu_ps(mask, in->x + c);
    if (in->norm) v = _mm512_mul_ps(v, _mm512_set1_ps(in->r));
    if (in->norm && in->gain) v = _mm512_mul_ps(v, _mm512_maskz_loadu_ps(mask, in->gain + c));
    return v;
}

/* The lanes of columns c .. c + 15 that are inside the row. */
INLINE __mmask16 mask_at(size_t c, size_t cols) {
    return (__mmask16)(cols - c >= 16 ? 0xffffu : (1u << (cols - c)) - 1u);
}

INLINE __m512i max_magnitude(__m512i absmax, __m512 v) {
    __m512i magnitude = _mm512_and_si512(_mm512_castps_si512(v), _mm512_set1_epi32(0x7fffffff));
    return _mm512_max_epu32(absmax, magnitude);
}

INLINE uint32_t absmax_of(const row *in, size_t cols) {
    __m512i m0 = _mm512_setzero_si512(), m1 = m0, m2 = m0, m3 = m0;
    size_t c = 0;
    for (; cols - c >= 64; c += 64) {
        m0 = max_magnitude(m0, values(in, c));
        m1 = max_magnitude(m1, values(in, c + 16));
        m2 = max_magnitude(m2, values(in, c + 32));
        m3 = max_magnitude(m3, values(in, c + 48));
    }
    for (; c < cols; c += 16) m0 = max_magnitude(m0, values_masked(in, c, mask_at(c, cols)));
    return _mm512_reduce_max_epu32(_mm512_max_epu32(_mm512_max_epu32(m0, m1), _mm512_max_epu32(m2, m3)));
}

INLINE __m512i rounded(__m512 v, __m512 s) { return _mm512_cvtps_epi32(_mm512_mul_ps(v, s)); }

INLINE void quantize_by(int8_t *q, const row *in, size_t cols, float scale) {
    const __m512 s = _mm512_set1_ps(scale);
    /* The packs work within 128 bits: lane l of their result holds columns 4l .. 4l+3 of each of the four vectors. */
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    size_t c = 0;
    for (; cols - c >= 64; c += 64) {
        __m512i low = _mm512_packs_epi32(rounded(values(in, c), s), rounded(values(in, c + 16), s));
        __m512i high = _mm512_packs_epi32(rounded(values(in, c + 32), s), rounded(values(in, c + 48), s));
        __m512i bytes = _mm512_permutexvar_epi32(order, _mm512_packs_epi16(low, high));
        _mm512_storeu_si512(q + c, bytes);
    }
    for (; c < cols; c += 16) {
        __mmask16 mask = mask_at(c, cols);
        __m128i bytes = _mm512_cvtsepi32_epi8(rounded(values_masked(in, c, mask), s));
        _mm_mask_storeu_epi8(q + c, mask, bytes);
    }
}

INLINE float quantize(int8_t *q, const row *in, size_t cols) {
    const uint32_t absmax = absmax_of(in, cols);
    if (!tern_magnitude_is_finite(absmax)) return tern_quantize_row_not_finite(q, cols);
    const float s = tern_activation_scale(absmax);
    quantize_by(q, in, cols, s);
    return 1.0f / s;
}

float tern_quantize_row_avx512(int8_t *q, const float *x, size_t cols) {
    const row in = {.x = x};
    return quantize(q, &in, cols);
}

/* The square of a float is exact in double, so that a fused multiply-add rounds as a multiply and an add do. */
INLINE __m512d add_square(__m512d sum, __m256 x) {
    __m512d d = _mm512_cvtps_pd(x);
    return _mm512_fmadd_pd(d, d, sum);
}

static float rms_factor(const float *x, float epsilon, size_t cols) {
    __m512d low = _mm512_setzero_pd(), high = low; /* partial sums 0 .. 7 and 8 .. 15 */
    size_t c = 0;
    for (; cols - c >= 16; c += 16) {
        low = add_square(low, _mm256_loadu_ps(x + c));
        high = add_square(high, _mm256_loadu_ps(x + c + 8));
    }
    if (c < cols) {
        __m512 v = _mm512_maskz_loadu_ps(mask_at(c, cols), x + c);
        low = add_square(low, _mm512_castps512_ps256(v));
        high = add_square(high, _mm512_extractf32x8_ps(v, 1));
    }
    double partials[TERN_RMS_PARTIALS];
    _mm512_storeu_pd(partials, low);
    _mm512_storeu_pd(partials + 8, high);
    return tern_rms_factor(partials, epsilon, cols);
}

float tern_quantize_row_rmsnorm_avx512(int8_t *q, const float *x, const float *gain, float epsilon, size_t cols) {
    const row in = {.x = x, .gain = gain, .r = rms_factor(x, epsilon, cols), .norm = 1};
    return quantize(q, &in, cols);
}
