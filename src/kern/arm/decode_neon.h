/* Unpacking one block of a panel in registers, with NEON. A quad is four vectors of 4 rows x 4 columns. */
#ifndef TERN_KERN_ARM_DECODE_NEON_H
#define TERN_KERN_ARM_DECODE_NEON_H

#include <arm_neon.h>
#include <string.h>

#include "kern/panel16.h"

enum { TERN_VECTORS = 4 }; /* of a quad */

/* 4 rows of a t2p16 block: their part of four quads. */
static inline void tern_decode_t2_neon(uint8x16_t quad[TERN_T2P16_QUADS], const uint8_t *block) {
    const uint8x16_t b = vld1q_u8(block), two_bits = vdupq_n_u8(3);
    quad[0] = vandq_u8(b, two_bits);
    quad[1] = vandq_u8(vshrq_n_u8(b, 2), two_bits);
    quad[2] = vandq_u8(vshrq_n_u8(b, 4), two_bits);
    quad[3] = vshrq_n_u8(b, 6);
}

/* Look-up tables of the layout t5p16-lut (panel16.h). */
typedef struct tern_t5_tables_neon {
    uint8x16x4_t c0, c1, r4; /* by the low six bits */
    uint8x16x2_t c2, c3, c4; /* by r */
} tern_t5_tables_neon;

static inline tern_t5_tables_neon tern_t5_tables_make_neon(void) {
    uint8_t low[3][64], rest[3][32];
    for (unsigned i = 0; i < 64; i++) {
        low[0][i] = (uint8_t)(i / 7 % 3);
        low[1][i] = (uint8_t)(i / 7 / 3 % 3);
        low[2][i] = (uint8_t)(i % 7 * 4);
    }
    for (unsigned i = 0; i < 32; i++) {
        rest[0][i] = (uint8_t)(i % 3);
        rest[1][i] = (uint8_t)(i / 3 % 3);
        rest[2][i] = (uint8_t)(i / 9 % 3);
    }
    return (tern_t5_tables_neon){vld1q_u8_x4(low[0]),  vld1q_u8_x4(low[1]),  vld1q_u8_x4(low[2]),
                                 vld1q_u8_x2(rest[0]), vld1q_u8_x2(rest[1]), vld1q_u8_x2(rest[2])};
}

/* 4 rows of a t5p16-lut block: their part of five quads. tbl gives 0 past its table, so the index is masked first. */
static inline void tern_decode_t5_neon(uint8x16_t quad[TERN_T5P16_QUADS], const uint8_t *block,
                                       const tern_t5_tables_neon *t) {
    const uint8x16_t b = vld1q_u8(block), low = vandq_u8(b, vdupq_n_u8(63));
    const uint8x16_t rest = vorrq_u8(vqtbl4q_u8(t->r4, low), vshrq_n_u8(b, 6));
    quad[0] = vqtbl4q_u8(t->c0, low);
    quad[1] = vqtbl4q_u8(t->c1, low);
    quad[2] = vqtbl2q_u8(t->c2, rest);
    quad[3] = vqtbl2q_u8(t->c3, rest);
    quad[4] = vqtbl2q_u8(t->c4, rest);
}

/* Four int8 activations to every row. */
static inline int8x16_t tern_broadcast_quad_neon(const int8_t *x) {
    int32_t four;
    memcpy(&four, x, sizeof four);
    return vreinterpretq_s8_s32(vdupq_n_s32(four));
}

#endif
