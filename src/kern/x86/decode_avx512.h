/* Unpacking one block of a panel in registers, with AVX-512 VBMI. */
#ifndef TERN_KERN_X86_DECODE_AVX512_H
#define TERN_KERN_X86_DECODE_AVX512_H

#include <immintrin.h>
#include <string.h>

#include "kern/panel16.h"

/* t2p16: four quads. Shifts move whole 16-bit lanes; the mask drops what came from the neighbour byte. */
static inline void tern_decode_t2_avx512(__m512i quad[TERN_T2P16_QUADS], __m512i b) {
    const __m512i two_bits = _mm512_set1_epi8(3);
    quad[0] = _mm512_and_si512(b, two_bits);
    quad[1] = _mm512_and_si512(_mm512_srli_epi16(b, 2), two_bits);
    quad[2] = _mm512_and_si512(_mm512_srli_epi16(b, 4), two_bits);
    quad[3] = _mm512_and_si512(_mm512_srli_epi16(b, 6), two_bits);
}

/* Look-up tables of the layout t5p16-lut (panel16.h). vpermb reads the low six bits of an index byte and ignores the
 * rest, which is what makes c0 and c1 cost one instruction each. */
typedef struct tern_t5_tables_avx512 {
    __m512i c0, c1, pair, r4, c2, c3, c4, two_bits;
} tern_t5_tables_avx512;

static inline __m512i tern_table_avx512(unsigned divisor, unsigned divide, unsigned modulo, unsigned times) {
    uint8_t t[64];
    for (unsigned i = 0; i < 64; i++) t[i] = (uint8_t)(i / divisor / divide % modulo * times);
    return _mm512_loadu_si512(t);
}

static inline tern_t5_tables_avx512 tern_t5_tables_make_avx512(void) {
    uint8_t r4[64];
    for (unsigned i = 0; i < 64; i++) r4[i] = (uint8_t)(i % 7 * 4);
    return (tern_t5_tables_avx512){
        .c0 = tern_table_avx512(7, 1, 3, 1),
        .c1 = tern_table_avx512(7, 3, 3, 1),
        .pair = tern_table_avx512(7, 1, 9, 1),
        .r4 = _mm512_loadu_si512(r4),
        .c2 = tern_table_avx512(1, 1, 3, 1),
        .c3 = tern_table_avx512(1, 3, 3, 1),
        .c4 = tern_table_avx512(1, 9, 3, 1),
        .two_bits = _mm512_set1_epi8(3),
    };
}

/* r of panel16.h, 0..26, in each byte. */
static inline __m512i tern_decode_t5_rest_avx512(__m512i b, const tern_t5_tables_avx512 *t) {
    enum { A_OR_B_AND_C = 0xf8 };
    __m512i r4 = _mm512_permutexvar_epi8(b, t->r4);
    return _mm512_ternarylogic_epi32(r4, _mm512_srli_epi16(b, 6), t->two_bits, A_OR_B_AND_C);
}

/* t5p16-lut: five quads in eight instructions. */
static inline void tern_decode_t5_avx512(__m512i quad[TERN_T5P16_QUADS], __m512i b, const tern_t5_tables_avx512 *t) {
    __m512i rest = tern_decode_t5_rest_avx512(b, t);
    quad[0] = _mm512_permutexvar_epi8(b, t->c0);
    quad[1] = _mm512_permutexvar_epi8(b, t->c1);
    quad[2] = _mm512_permutexvar_epi8(rest, t->c2);
    quad[3] = _mm512_permutexvar_epi8(rest, t->c3);
    quad[4] = _mm512_permutexvar_epi8(rest, t->c4);
}

/* Four int8 activations to every row of a quad. */
static inline __m512i tern_broadcast_quad_avx512(const int8_t *x) {
    int32_t four;
    memcpy(&four, x, sizeof four);
    return _mm512_set1_epi32(four);
}

#endif
