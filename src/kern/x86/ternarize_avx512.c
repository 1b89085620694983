/* Weights to trits, 64 at a time; the end by masks.
 *
 * fl(w / m) > 1/2 exactly where w > m/2: the float next to m/2 is more than 2^-24 of it away, so that its quotient is
 * past the tie between 1/2 and the next float. Thus nothing is divided. */
#include <immintrin.h>

#include "kern/x86/kernels_avx512.h"
#include "quant/weights.h"

/* The lanes of weights i .. i + 15 that are among n. */
static inline __mmask16 mask_at(size_t i, size_t n) {
    return (__mmask16)(n - i >= 16 ? 0xffffu : (1u << (n - i)) - 1u);
}

double tern_sum_magnitudes_avx512(const float *w, size_t n) {
    __m512d low = _mm512_setzero_pd(), high = low; /* partial sums 0 .. 7 and 8 .. 15 */
    size_t i = 0;
    for (; n - i >= 16; i += 16) {
        low = _mm512_add_pd(low, _mm512_abs_pd(_mm512_cvtps_pd(_mm256_loadu_ps(w + i))));
        high = _mm512_add_pd(high, _mm512_abs_pd(_mm512_cvtps_pd(_mm256_loadu_ps(w + i + 8))));
    }
    if (i < n) {
        __m512 v = _mm512_abs_ps(_mm512_maskz_loadu_ps(mask_at(i, n), w + i));
        low = _mm512_add_pd(low, _mm512_cvtps_pd(_mm512_castps512_ps256(v)));
        high = _mm512_add_pd(high, _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1)));
    }
    double partials[TERN_SUM_PARTIALS];
    _mm512_storeu_pd(partials, low);
    _mm512_storeu_pd(partials + 8, high);
    return tern_add_partials(partials);
}

void tern_ternarize_avx512(int8_t *trits, const float *w, size_t n, float m) {
    const __m512 above = _mm512_set1_ps(m / 2), below = _mm512_set1_ps(-m / 2);
    const __m512i one = _mm512_set1_epi8(1), minus_one = _mm512_set1_epi8(-1);
    size_t i = 0;
    for (; n - i >= 64; i += 64) {
        __mmask64 plus = 0, minus = 0;
        for (int q = 3; q >= 0; q--) {
            __m512 v = _mm512_loadu_ps(w + i + 16 * q);
            plus = plus << 16 | _mm512_cmp_ps_mask(v, above, _CMP_GT_OQ);
            minus = minus << 16 | _mm512_cmp_ps_mask(v, below, _CMP_LT_OQ);
        }
        _mm512_storeu_si512(trits + i, _mm512_mask_mov_epi8(_mm512_maskz_mov_epi8(plus, one), minus, minus_one));
    }
    for (; i < n; i += 16) {
        __mmask16 inside = mask_at(i, n);
        __m512 v = _mm512_maskz_loadu_ps(inside, w + i);
        __m128i plus = _mm_movm_epi8(_mm512_cmp_ps_mask(v, above, _CMP_GT_OQ));
        __m128i minus = _mm_movm_epi8(_mm512_cmp_ps_mask(v, below, _CMP_LT_OQ));
        _mm_mask_storeu_epi8(trits + i, inside, _mm_sub_epi8(minus, plus));
    }
}
