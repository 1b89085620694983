#include <arm_neon.h>

#include "kern/arm/peaks_arm.h"

enum { CHAINS = 16 }; /* independent accumulators: more than latency times throughput */

double tern_peak_i8_neondot(size_t rounds, volatile int *sink) {
    int32x4_t acc[CHAINS];
    const int8x16_t a = vdupq_n_s8(1), b = vdupq_n_s8((int8_t)(rounds & 1));
    for (int i = 0; i < CHAINS; i++) acc[i] = vdupq_n_s32(0);
    for (size_t r = 0; r < rounds; r++)
        for (int i = 0; i < CHAINS; i++) acc[i] = vdotq_s32(acc[i], a, b);
    for (int i = 1; i < CHAINS; i++) acc[0] = vaddq_s32(acc[0], acc[i]);
    *sink = vaddvq_s32(acc[0]);
    return (double)rounds * CHAINS * 16 * 2;
}
