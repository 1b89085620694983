/* Around the integer products: sums of activations, sums to floats, products with a scale per group. */
#include "kern/x86/decode_avx512.h"
#include "kern/x86/kernels_avx512.h"

int32_t tern_row_sum_avx512(const int8_t *x, size_t n) {
    const __m512i ones = _mm512_set1_epi8(1);
    __m512i acc = _mm512_setzero_si512();
    for (size_t i = 0; i < n; i += 64) acc = _mm512_dpbusd_epi32(acc, ones, _mm512_load_si512(x + i));
    return _mm512_reduce_add_epi32(acc);
}

void tern_epilogue_avx512(float *y, size_t ldy, const int32_t *c, size_t ld_c, size_t m, size_t n,
                          const int32_t *x_sums, const float *scale, const float *inv_scale, const float *bias) {
    for (size_t j = 0; j < n; j += 16) {
        const __mmask16 live = (__mmask16)(n - j < 16 ? (1u << (n - j)) - 1 : 0xffffu);
        const __m512 row_scale = _mm512_maskz_loadu_ps(live, scale + j);
        const __m512 row_bias = bias ? _mm512_maskz_loadu_ps(live, bias + j) : _mm512_setzero_ps();
        for (size_t i = 0; i < m; i++) {
            __m512i sum = _mm512_maskz_loadu_epi32(live, c + i * ld_c + j);
            sum = _mm512_sub_epi32(sum, _mm512_set1_epi32(x_sums ? x_sums[i] : 0));
            __m512 factor = _mm512_mul_ps(row_scale, _mm512_set1_ps(inv_scale[i]));
            __m512 value = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), factor);
            if (bias) value = _mm512_add_ps(value, row_bias); /* not "+ 0": that would turn -0 into +0 */
            _mm512_mask_storeu_ps(y + i * ldy + j, live, value);
        }
    }
}

/* The group [k0, k1) of columns: whole quads, and at either end the part of a quad that belongs to the group, its
 * other activations masked to zero. */
static __m512i group_sum(const uint8_t *codes, const int8_t *x, size_t k0, size_t k1) {
    __m512i acc = _mm512_setzero_si512();
    for (size_t q = k0 / TERN_QUAD; q * TERN_QUAD < k1; q++) {
        int32_t four;
        memcpy(&four, x + q * TERN_QUAD, sizeof four);
        if (q * TERN_QUAD < k0) four &= (int32_t)(~0u << 8 * (k0 - q * TERN_QUAD));
        if (k1 < (q + 1) * TERN_QUAD) four &= (int32_t)(~0u >> 8 * ((q + 1) * TERN_QUAD - k1));
        acc = _mm512_dpbusd_epi32(acc, _mm512_load_si512(codes + q * TERN_P16_QUAD), _mm512_set1_epi32(four));
    }
    return acc;
}

/* vscalefps multiplies by a power of two exactly, denormal results included. */
void tern_groups_i8_avx512(float *acc, const uint8_t *codes, const int8_t *x, const int32_t *group_sums, size_t k,
                           size_t group, const int8_t *exponents) {
    __m512 total = _mm512_setzero_ps();
    for (size_t g = 0, k0 = 0; k0 < k; g++, k0 += group) {
        __m512i sum = group_sum(codes, x, k0, k - k0 < group ? k : k0 + group);
        sum = _mm512_sub_epi32(sum, _mm512_set1_epi32(group_sums[g]));
        __m512i e = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(exponents + g * TERN_P16_ROWS)));
        total = _mm512_add_ps(total, _mm512_scalef_ps(_mm512_cvtepi32_ps(sum), _mm512_cvtepi32_ps(e)));
    }
    _mm512_storeu_ps(acc, total);
}

void tern_lanes_f32_avx512(float *acc, const uint8_t *codes, const float *v, size_t k) {
    const __m512i plus0 = _mm512_set1_epi32(2), any0 = _mm512_set1_epi32(3);
    __m512 total = _mm512_setzero_ps();
    for (size_t i = 0; i < k; i++, v += TERN_P16_ROWS) {
        const unsigned shift = 8 * (unsigned)(i % TERN_QUAD);
        __m512i quad = _mm512_load_si512(codes + i / TERN_QUAD * TERN_P16_QUAD);
        quad = _mm512_srli_epi32(quad, shift);
        __m512 value = _mm512_load_ps(v);
        total = _mm512_mask_add_ps(total, _mm512_test_epi32_mask(quad, plus0), total, value);
        total = _mm512_mask_sub_ps(total, _mm512_testn_epi32_mask(quad, any0), total, value);
    }
    _mm512_storeu_ps(acc, total);
}
