#include <immintrin.h>
#include <stdint.h>

#include "kern/x86/kernels_avx512.h"

#define LANES 4
#define V(op) _mm512_##op
#define VS(op) _mm512_##op##_si512
typedef __m512i vec;

static inline vec load(const int8_t *p) { return _mm512_loadu_si512(p); }

/* From dwords 0 .. 15 and, as 16 .. 31, dwords 4 .. 19 of p. */
static inline void load_twenties(vec *low, vec *high, const int8_t *p) {
    const vec low_of = _mm512_setr_epi32(0, 1, 2, 3, 5, 6, 7, 8, 10, 11, 12, 13, 15, 28, 29, 30);
    const vec high_of = _mm512_setr_epi32(1, 2, 3, 4, 6, 7, 8, 9, 11, 12, 13, 14, 28, 29, 30, 31);
    const vec first = load(p), last = load(p + 16);
    *low = _mm512_permutex2var_epi32(first, low_of, last);
    *high = _mm512_permutex2var_epi32(first, high_of, last);
}

static inline void store_blocks(uint8_t *to, size_t stride, const vec part[4]) {
    const vec even01 = _mm512_shuffle_i32x4(part[0], part[1], 0x88),
              odd01 = _mm512_shuffle_i32x4(part[0], part[1], 0xdd);
    const vec even23 = _mm512_shuffle_i32x4(part[2], part[3], 0x88),
              odd23 = _mm512_shuffle_i32x4(part[2], part[3], 0xdd);
    _mm512_storeu_si512(to, _mm512_shuffle_i32x4(even01, even23, 0x88));
    _mm512_storeu_si512(to + stride, _mm512_shuffle_i32x4(odd01, odd23, 0x88));
    _mm512_storeu_si512(to + 2 * stride, _mm512_shuffle_i32x4(even01, even23, 0xdd));
    _mm512_storeu_si512(to + 3 * stride, _mm512_shuffle_i32x4(odd01, odd23, 0xdd));
}

#include "kern/x86/pack_lanes.h"

PACK(tern_pack_rows_t2_avx512, rows, T2)
PACK(tern_pack_columns_t2_avx512, columns, T2)
PACK(tern_pack_rows_t5_avx512, rows, T5_LUT)
PACK(tern_pack_columns_t5_avx512, columns, T5_LUT)
