/* Integer products with the dot product of ARMv8.2: four columns of a row in one lane. */
#include <arm_neon.h>

#include "kern/arm/kernels_arm.h"

#define TERN_ARM(name) name##_neondot

typedef int32x4_t quad_acc;

static inline quad_acc acc_zero(void) { return vdupq_n_s32(0); }

static inline quad_acc acc_add(quad_acc acc, uint8x16_t codes, int8x16_t four) {
    return vdotq_s32(acc, vreinterpretq_s8_u8(codes), four);
}

static inline int32x4_t acc_sums(quad_acc acc) { return acc; }

#include "kern/arm/products_arm.h"
