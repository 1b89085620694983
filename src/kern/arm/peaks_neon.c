#include <arm_neon.h>

#include "base/unroll.h"
#include "kern/arm/peaks_arm.h"

enum { CHAINS = 16 }; /* independent accumulators: more than latency times throughput */

double tern_peak_i8_neon(size_t rounds, volatile int *sink) {
    int16x8_t acc[CHAINS];
    int8x8_t a = vdup_n_s8(1);
    const int8x8_t b = vdup_n_s8((int8_t)(rounds & 1));
    TERN_UNROLL
    for (int i = 0; i < CHAINS; i++) acc[i] = vdupq_n_s16(0);
    for (size_t r = 0; r < rounds; r++) {
        TERN_UNROLL
        for (int i = 0; i < CHAINS; i++) {
            __asm__ volatile("" : "+w"(a)); /* not a known 1, nor loop-invariant */
            acc[i] = vmlal_s8(acc[i], a, b);
        }
    }
    TERN_UNROLL
    for (int i = 1; i < CHAINS; i++) acc[0] = vaddq_s16(acc[0], acc[i]);
    *sink = vaddvq_s16(acc[0]);
    return (double)rounds * CHAINS * 8 * 2;
}

double tern_peak_f32_neon(size_t rounds, volatile int *sink) {
    float32x4_t acc[CHAINS];
    const float32x4_t a = vdupq_n_f32(0.5f), b = vdupq_n_f32((float)(rounds & 1));
    TERN_UNROLL
    for (int i = 0; i < CHAINS; i++) acc[i] = vdupq_n_f32((float)i);
    for (size_t r = 0; r < rounds; r++) {
        TERN_UNROLL
        for (int i = 0; i < CHAINS; i++) acc[i] = vfmaq_f32(acc[i], a, b); /* fmla overwrites its addend */
    }
    TERN_UNROLL
    for (int i = 1; i < CHAINS; i++) acc[0] = vaddq_f32(acc[0], acc[i]);
    *sink = (int)vaddvq_f32(acc[0]);
    return (double)rounds * CHAINS * 4 * 2;
}
