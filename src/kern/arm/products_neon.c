/* Integer products without the dot product: 8-bit products in 16 bits, added pairwise into 32. */
#include <arm_neon.h>

#include "kern/arm/kernels_arm.h"

#define TERN_ARM(name) name##_neon

/* Lanes 2r and 2r + 1 belong to row r of the low half's two rows, and of the high half's. */
typedef struct quad_acc {
    int32x4_t low, high;
} quad_acc;

static inline quad_acc acc_zero(void) { return (quad_acc){vdupq_n_s32(0), vdupq_n_s32(0)}; }

static inline quad_acc acc_add(quad_acc acc, uint8x16_t codes, int8x16_t four) {
    const int8x16_t c = vreinterpretq_s8_u8(codes);
    acc.low = vpadalq_s16(acc.low, vmull_s8(vget_low_s8(c), vget_low_s8(four)));
    acc.high = vpadalq_s16(acc.high, vmull_high_s8(c, four));
    return acc;
}

static inline int32x4_t acc_sums(quad_acc acc) { return vpaddq_s32(acc.low, acc.high); }

#include "kern/arm/products_arm.h"
