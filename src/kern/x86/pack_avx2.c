#include <immintrin.h>
#include <stdint.h>

#include "kern/x86/kernels_avx2.h"

#define LANES 2
#define V(op) _mm256_##op
#define VS(op) _mm256_##op##_si256
typedef __m256i vec;

static inline vec load(const int8_t *p) { return _mm256_loadu_si256((const __m256i *)(const void *)p); }

static inline vec load_two(const int8_t *lane0, const int8_t *lane1) {
    return _mm256_loadu2_m128i((const __m128i *)(const void *)lane1, (const __m128i *)(const void *)lane0);
}

static inline void load_twenties(vec *low, vec *high, const int8_t *p) {
    *low = load_two(p, p + 20);
    *high = load_two(p + 4, p + 24);
}

static inline void store(uint8_t *to, vec v) { _mm256_storeu_si256((__m256i *)(void *)to, v); }

static inline void store_blocks(uint8_t *to, size_t stride, const vec part[4]) {
    store(to, _mm256_permute2x128_si256(part[0], part[1], 0x20));
    store(to + 32, _mm256_permute2x128_si256(part[2], part[3], 0x20));
    store(to + stride, _mm256_permute2x128_si256(part[0], part[1], 0x31));
    store(to + stride + 32, _mm256_permute2x128_si256(part[2], part[3], 0x31));
}

#include "kern/x86/pack_lanes.h"

PACK(tern_pack_rows_t2_avx2, rows, T2)
PACK(tern_pack_columns_t2_avx2, columns, T2)
PACK(tern_pack_rows_t5_avx2, rows, T5_FIXED)
PACK(tern_pack_columns_t5_avx2, columns, T5_FIXED)
