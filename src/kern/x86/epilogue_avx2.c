/* Around the integer products: sums of activations, sums to floats, products with a scale per group or lane. */
#include "kern/x86/decode_avx2.h"
#include "kern/x86/kernels_avx2.h"

int32_t tern_row_sum_avx2(const int8_t *x, size_t n) {
    const __m256i ones8 = _mm256_set1_epi8(1), ones16 = _mm256_set1_epi16(1);
    __m256i acc = _mm256_setzero_si256();
    int32_t lane[8], sum = 0;
    for (size_t i = 0; i < n; i += 32) {
        const __m256i pairs = _mm256_maddubs_epi16(ones8, _mm256_load_si256((const __m256i *)(x + i)));
        acc = _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, ones16));
    }
    _mm256_storeu_si256((__m256i *)lane, acc);
    for (int i = 0; i < 8; i++) sum += lane[i];
    return sum;
}

static void epilogue_tail(float *y, const int32_t *c, size_t n, int32_t correction, const float *scale,
                          float inv_scale, const float *bias) {
    for (size_t j = 0; j < n; j++) {
        const float value = (float)(c[j] - correction) * (scale[j] * inv_scale);
        y[j] = bias ? value + bias[j] : value;
    }
}

void tern_epilogue_avx2(float *y, size_t ldy, const int32_t *c, size_t ld_c, size_t m, size_t n,
                        const int32_t *x_sums, const float *scale, const float *inv_scale, const float *bias) {
    const size_t whole = n / 8 * 8;
    for (size_t i = 0; i < m; i++) {
        const int32_t correction = x_sums ? x_sums[i] : 0;
        const __m256 inv = _mm256_set1_ps(inv_scale[i]);
        for (size_t j = 0; j < whole; j += 8) {
            __m256i sum = _mm256_loadu_si256((const __m256i *)(c + i * ld_c + j));
            sum = _mm256_sub_epi32(sum, _mm256_set1_epi32(correction));
            __m256 value = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_mul_ps(_mm256_loadu_ps(scale + j), inv));
            if (bias) value = _mm256_add_ps(value, _mm256_loadu_ps(bias + j));
            _mm256_storeu_ps(y + i * ldy + j, value);
        }
        epilogue_tail(y + i * ldy + whole, c + i * ld_c + whole, n - whole, correction, scale + whole, inv_scale[i],
                      bias ? bias + whole : NULL);
    }
}

/* The group [k0, k1) of columns, as in groups of the AVX-512 tier; any length, so each quad is widened at once. */
static void group_sum(__m256i acc[2], const uint8_t *codes, const int8_t *x, size_t k0, size_t k1) {
    const __m256i ones = _mm256_set1_epi16(1);
    acc[0] = acc[1] = _mm256_setzero_si256();
    for (size_t q = k0 / TERN_QUAD; q * TERN_QUAD < k1; q++) {
        int32_t four;
        memcpy(&four, x + q * TERN_QUAD, sizeof four);
        if (q * TERN_QUAD < k0) four &= (int32_t)(~0u << 8 * (k0 - q * TERN_QUAD));
        if (k1 < (q + 1) * TERN_QUAD) four &= (int32_t)(~0u >> 8 * ((q + 1) * TERN_QUAD - k1));
        for (int half = 0; half < 2; half++) {
            const __m256i code = _mm256_load_si256((const __m256i *)(codes + q * TERN_P16_QUAD + 32 * half));
            const __m256i pairs = _mm256_maddubs_epi16(code, _mm256_set1_epi32(four));
            acc[half] = _mm256_add_epi32(acc[half], _mm256_madd_epi16(pairs, ones));
        }
    }
}

/* 2^e for e in -64..63. */
static __m256 power_of_two(__m256i e) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(e, _mm256_set1_epi32(127)), 23));
}

/* value * 2^e as two factors: the first product is exact, so the second rounds once, denormal results included. */
static __m256 scale_by(__m256 value, __m256i e) {
    const __m256i low = _mm256_srai_epi32(e, 1);
    return _mm256_mul_ps(_mm256_mul_ps(value, power_of_two(low)), power_of_two(_mm256_sub_epi32(e, low)));
}

void tern_groups_i8_avx2(float *acc, const uint8_t *codes, const int8_t *x, const int32_t *group_sums, size_t k,
                         size_t group, const int8_t *exponents) {
    __m256 total[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    __m256i sum[2];
    for (size_t g = 0, k0 = 0; k0 < k; g++, k0 += group) {
        group_sum(sum, codes, x, k0, k - k0 < group ? k : k0 + group);
        for (int half = 0; half < 2; half++) {
            const __m128i bytes = _mm_loadl_epi64((const __m128i *)(exponents + g * TERN_P16_ROWS + 8 * half));
            const __m256i exact = _mm256_sub_epi32(sum[half], _mm256_set1_epi32(group_sums[g]));
            const __m256 term = scale_by(_mm256_cvtepi32_ps(exact), _mm256_cvtepi8_epi32(bytes));
            total[half] = _mm256_add_ps(total[half], term);
        }
    }
    _mm256_storeu_ps(acc, total[0]);
    _mm256_storeu_ps(acc + 8, total[1]);
}

void tern_lanes_f32_avx2(float *acc, const uint8_t *codes, const float *v, size_t k) {
    const __m256i three = _mm256_set1_epi32(3), two = _mm256_set1_epi32(2), zero = _mm256_setzero_si256();
    __m256 total[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (size_t i = 0; i < k; i++, v += TERN_P16_ROWS)
        for (int half = 0; half < 2; half++) {
            __m256i code = _mm256_load_si256((const __m256i *)(codes + i / TERN_QUAD * TERN_P16_QUAD + 32 * half));
            code = _mm256_and_si256(_mm256_srli_epi32(code, 8 * (int)(i % TERN_QUAD)), three);
            const __m256 plus = _mm256_castsi256_ps(_mm256_cmpeq_epi32(code, two));
            const __m256 minus = _mm256_castsi256_ps(_mm256_cmpeq_epi32(code, zero));
            const __m256 value = _mm256_load_ps(v + 8 * half);
            total[half] = _mm256_add_ps(total[half], _mm256_and_ps(plus, value));
            total[half] = _mm256_sub_ps(total[half], _mm256_and_ps(minus, value));
        }
    _mm256_storeu_ps(acc, total[0]);
    _mm256_storeu_ps(acc + 8, total[1]);
}
