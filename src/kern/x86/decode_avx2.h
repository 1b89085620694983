/* Unpacking one block of a panel in registers, with AVX2. A quad is two vectors: rows 0-7 and rows 8-15. */
#ifndef TERN_KERN_X86_DECODE_AVX2_H
#define TERN_KERN_X86_DECODE_AVX2_H

#include <immintrin.h>
#include <string.h>

#include "kern/panel16.h"

/* Half a t2p16 block: its rows' part of four quads. */
static inline void tern_decode_t2_avx2(__m256i quad[TERN_T2P16_QUADS], __m256i b) {
    const __m256i two_bits = _mm256_set1_epi8(3);
    quad[0] = _mm256_and_si256(b, two_bits);
    quad[1] = _mm256_and_si256(_mm256_srli_epi16(b, 2), two_bits);
    quad[2] = _mm256_and_si256(_mm256_srli_epi16(b, 4), two_bits);
    quad[3] = _mm256_and_si256(_mm256_srli_epi16(b, 6), two_bits);
}

/* Half a t5p16-fixed block. The leading digit of the fraction b / 256 is floor(3 b / 256), the top two bits of
 * floor((b + floor(b / 2)) / 2). The byte average rounds up, and rounds down on complements, so all runs on ~b: the
 * digit is the complement of the top bits, and ~(3 b) = 3 ~b + 2. */
static inline void tern_decode_t5_avx2(__m256i quad[TERN_T5P16_QUADS], __m256i b) {
    const __m256i two_bits = _mm256_set1_epi8(3), ones = _mm256_set1_epi8(-1), two = _mm256_set1_epi8(2);
    __m256i not_b = _mm256_xor_si256(b, ones);
    for (int q = 0; q < TERN_T5P16_QUADS; q++) {
        const __m256i three_quarters = _mm256_avg_epu8(not_b, _mm256_avg_epu8(not_b, ones));
        quad[q] = _mm256_andnot_si256(_mm256_srli_epi16(three_quarters, 6), two_bits);
        not_b = _mm256_add_epi8(_mm256_add_epi8(not_b, two), _mm256_add_epi8(not_b, not_b));
    }
}

/* Four int8 activations to every row of half a quad. */
static inline __m256i tern_broadcast_quad_avx2(const int8_t *x) {
    int32_t four;
    memcpy(&four, x, sizeof four);
    return _mm256_set1_epi32(four);
}

#endif
