/* Weights to trits, 32 at a time; the last few by the scalar step. Comparing with m/2 is dividing and rounding: see
 * ternarize_avx512.c. */
#include <immintrin.h>
#include <math.h>

#include "kern/x86/kernels_avx2.h"
#include "quant/weights.h"

static inline __m256d add_magnitudes(__m256d sum, const float *w) {
    return _mm256_add_pd(sum, _mm256_andnot_pd(_mm256_set1_pd(-0.0), _mm256_cvtps_pd(_mm_loadu_ps(w))));
}

double tern_sum_magnitudes_avx2(const float *w, size_t n) {
    __m256d p0 = _mm256_setzero_pd(), p4 = p0, p8 = p0, p12 = p0; /* named by their first partial sum */
    size_t i = 0;
    for (; n - i >= 16; i += 16) {
        p0 = add_magnitudes(p0, w + i);
        p4 = add_magnitudes(p4, w + i + 4);
        p8 = add_magnitudes(p8, w + i + 8);
        p12 = add_magnitudes(p12, w + i + 12);
    }
    double partials[TERN_SUM_PARTIALS];
    _mm256_storeu_pd(partials, p0);
    _mm256_storeu_pd(partials + 4, p4);
    _mm256_storeu_pd(partials + 8, p8);
    _mm256_storeu_pd(partials + 12, p12);
    for (; i < n; i++) partials[i % TERN_SUM_PARTIALS] += (double)fabsf(w[i]);
    return tern_add_partials(partials);
}

/* 8 trits in dwords: a comparison that holds is -1. */
static inline __m256i ternary(const float *w, __m256 above, __m256 below) {
    __m256 v = _mm256_loadu_ps(w);
    __m256i plus = _mm256_castps_si256(_mm256_cmp_ps(v, above, _CMP_GT_OQ));
    __m256i minus = _mm256_castps_si256(_mm256_cmp_ps(v, below, _CMP_LT_OQ));
    return _mm256_sub_epi32(minus, plus);
}

void tern_ternarize_avx2(int8_t *trits, const float *w, size_t n, float m) {
    const __m256 above = _mm256_set1_ps(m / 2), below = _mm256_set1_ps(-m / 2);
    /* The packs work within 128 bits: dword 4 l + v of their result is dword l of vector v. */
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    size_t i = 0;
    for (; n - i >= 32; i += 32) {
        __m256i low = _mm256_packs_epi32(ternary(w + i, above, below), ternary(w + i + 8, above, below));
        __m256i high = _mm256_packs_epi32(ternary(w + i + 16, above, below), ternary(w + i + 24, above, below));
        __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), order);
        _mm256_storeu_si256((__m256i *)(void *)(trits + i), bytes);
    }
    tern_ternarize_scalar(trits + i, w + i, n - i, m);
}
