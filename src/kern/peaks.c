#include "kern/peaks.h"

#include <string.h>

#include "base/tiers.h"

#if defined(__x86_64__)
#include "kern/x86/peaks_x86.h"
#elif defined(__aarch64__)
#include "kern/arm/peaks_arm.h"
#endif

/* For machines without a better loop: what the compiler makes of plain adds. */
static uint64_t read_plain(const void *buffer, size_t bytes) {
    const uint64_t *p = buffer;
    uint64_t sum[8] = {0};
    for (size_t i = 0; i < bytes / sizeof *p; i += 8)
        for (size_t j = 0; j < 8; j++) sum[j] += p[i + j];
    return sum[0] + sum[1] + sum[2] + sum[3] + sum[4] + sum[5] + sum[6] + sum[7];
}

void tern_peak_kernels_fill(tern_peak_kernels *kernels) {
    memset(kernels, 0, sizeof *kernels);
    kernels->read = read_plain;
#if defined(__x86_64__)
    if (tern_machine_has(TERN_TIER_AVX2)) {
        kernels->compute[TERN_PEAK_AVX2_I8] = tern_peak_i8_avx2;
        kernels->compute[TERN_PEAK_F32] = tern_peak_f32_avx2;
    }
    if (tern_machine_has(TERN_TIER_AVX512)) {
        kernels->compute[TERN_PEAK_VNNI_I8] = tern_peak_i8_avx512;
        kernels->compute[TERN_PEAK_F32] = tern_peak_f32_avx512;
        kernels->read = tern_read_avx512;
    }
    if (tern_machine_has(TERN_TIER_AMX)) kernels->compute[TERN_PEAK_AMX_I8] = tern_peak_i8_amx;
#elif defined(__aarch64__)
    if (tern_machine_has(TERN_TIER_NEON)) {
        kernels->compute[TERN_PEAK_NEON_I8] = tern_peak_i8_neon;
        kernels->compute[TERN_PEAK_F32] = tern_peak_f32_neon;
    }
    if (tern_machine_has(TERN_TIER_NEONDOT)) kernels->compute[TERN_PEAK_NEON_I8] = tern_peak_i8_neondot;
#endif
}
