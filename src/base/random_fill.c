#include "base/random_fill.h"

#include "base/random.h"

#if defined(__x86_64__)
#include <immintrin.h>

enum { LANES = 8 };

/* The 64-bit products of eight words and a constant: even words and odd ones apart, then halves side by side. */
__attribute__((target("avx2"))) static inline void multiply(__m256i *high, __m256i *low, __m256i a, uint32_t by) {
    __m256i m = _mm256_set1_epi32((int)by), even = _mm256_mul_epu32(a, m),
            odd = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), m);
    *high = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
    *low = _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
}

/* Eight counters side by side; the compiler finds no such products in plain C. */
__attribute__((target("avx2"))) static void fill_lanes(uint32_t *out, uint64_t key, uint64_t first, uint64_t high) {
    __m256i c0 = _mm256_add_epi32(_mm256_set1_epi32((int)(uint32_t)first), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    __m256i c1 = _mm256_set1_epi32((int)(uint32_t)(first >> 32)), c2 = _mm256_set1_epi32((int)(uint32_t)high);
    __m256i c3 = _mm256_set1_epi32((int)(uint32_t)(high >> 32)), h0, h2, l0, l2;
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    for (int round = 0; round < 10; round++) {
        multiply(&h0, &l0, c0, 0xD2511F53u);
        multiply(&h2, &l2, c2, 0xCD9E8D57u);
        c0 = _mm256_xor_si256(_mm256_xor_si256(h2, c1), _mm256_set1_epi32((int)k0));
        c2 = _mm256_xor_si256(_mm256_xor_si256(h0, c3), _mm256_set1_epi32((int)k1));
        c1 = l2;
        c3 = l0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    /* Four rows of eight words to eight rows of four. */
    __m256i a = _mm256_unpacklo_epi32(c0, c1), b = _mm256_unpackhi_epi32(c0, c1);
    __m256i c = _mm256_unpacklo_epi32(c2, c3), d = _mm256_unpackhi_epi32(c2, c3);
    __m256i r04 = _mm256_unpacklo_epi64(a, c), r15 = _mm256_unpackhi_epi64(a, c);
    __m256i r26 = _mm256_unpacklo_epi64(b, d), r37 = _mm256_unpackhi_epi64(b, d);
    _mm256_storeu_si256((__m256i *)(void *)out, _mm256_permute2x128_si256(r04, r15, 0x20));
    _mm256_storeu_si256((__m256i *)(void *)(out + 8), _mm256_permute2x128_si256(r26, r37, 0x20));
    _mm256_storeu_si256((__m256i *)(void *)(out + 16), _mm256_permute2x128_si256(r04, r15, 0x31));
    _mm256_storeu_si256((__m256i *)(void *)(out + 24), _mm256_permute2x128_si256(r26, r37, 0x31));
}

/* The lower half of the first counter must not overflow within the lanes. */
static size_t fill_most(uint32_t *out, uint64_t key, uint64_t first, uint64_t high, size_t blocks) {
    size_t b = 0;
    if (!__builtin_cpu_supports("avx2")) return 0;
    for (; b + LANES <= blocks && (uint32_t)(first + b) <= UINT32_MAX - LANES; b += LANES)
        fill_lanes(out + 4 * b, key, first + b, high);
    return b;
}
#else
static size_t fill_most(uint32_t *out, uint64_t key, uint64_t first, uint64_t high, size_t blocks) {
    (void)out, (void)key, (void)first, (void)high, (void)blocks;
    return 0;
}
#endif

void tern_random_fill(uint32_t *out, uint64_t key, uint64_t first, uint64_t high, size_t blocks) {
    for (size_t b = fill_most(out, key, first, high, blocks); b < blocks; b++) {
        tern_random4 r = tern_philox(key, first + b, high);
        for (size_t i = 0; i < 4; i++) out[4 * b + i] = r.v[i];
    }
}
