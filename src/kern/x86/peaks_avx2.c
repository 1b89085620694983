#include <immintrin.h>

#include "kern/x86/peaks_x86.h"

enum { CHAINS = 12 }; /* independent accumulators: more than latency times throughput */

/* Without VNNI the fastest exact int8 product is vpmaddubsw with a 16-bit add, widened now and then. */
double tern_peak_i8_avx2(size_t rounds, volatile int *sink) {
    __m256i acc[CHAINS], a = _mm256_set1_epi8(1), b = _mm256_set1_epi8((char)(rounds & 1));
    for (int i = 0; i < CHAINS; i++) acc[i] = _mm256_setzero_si256();
    for (size_t r = 0; r < rounds; r++)
        for (int i = 0; i < CHAINS; i++) {
            __asm__ volatile("" : "+x"(a)); /* the product is not loop-invariant */
            acc[i] = _mm256_add_epi16(acc[i], _mm256_maddubs_epi16(a, b));
        }
    for (int i = 1; i < CHAINS; i++) acc[0] = _mm256_add_epi16(acc[0], acc[i]);
    *sink = _mm256_extract_epi16(acc[0], 0);
    return (double)rounds * CHAINS * 32 * 2;
}

double tern_peak_f32_avx2(size_t rounds, volatile int *sink) {
    __m256 acc[CHAINS], a = _mm256_set1_ps(0.5f), b = _mm256_set1_ps((float)(rounds & 1));
    for (int i = 0; i < CHAINS; i++) acc[i] = _mm256_set1_ps((float)i);
    for (size_t r = 0; r < rounds; r++)
        for (int i = 0; i < CHAINS; i++) acc[i] = _mm256_fmadd_ps(acc[i], a, b);
    for (int i = 1; i < CHAINS; i++) acc[0] = _mm256_add_ps(acc[0], acc[i]);
    *sink = (int)_mm256_cvtss_f32(acc[0]);
    return (double)rounds * CHAINS * 8 * 2;
}
