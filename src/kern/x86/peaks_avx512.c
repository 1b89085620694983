#include <immintrin.h>

#include "kern/x86/peaks_x86.h"

enum { CHAINS = 16 }; /* independent accumulators: more than latency times throughput */

double tern_peak_i8_avx512(size_t rounds, volatile int *sink) {
    __m512i acc[CHAINS], a = _mm512_set1_epi8(1), b = _mm512_set1_epi8((char)(rounds & 1));
    for (int i = 0; i < CHAINS; i++) acc[i] = _mm512_setzero_si512();
    for (size_t r = 0; r < rounds; r++)
        for (int i = 0; i < CHAINS; i++) acc[i] = _mm512_dpbusd_epi32(acc[i], a, b);
    for (int i = 1; i < CHAINS; i++) acc[0] = _mm512_add_epi32(acc[0], acc[i]);
    *sink = _mm512_reduce_add_epi32(acc[0]);
    return (double)rounds * CHAINS * 64 * 2;
}

double tern_peak_f32_avx512(size_t rounds, volatile int *sink) {
    __m512 acc[CHAINS], a = _mm512_set1_ps(0.5f), b = _mm512_set1_ps((float)(rounds & 1));
    for (int i = 0; i < CHAINS; i++) acc[i] = _mm512_set1_ps((float)i);
    for (size_t r = 0; r < rounds; r++)
        for (int i = 0; i < CHAINS; i++) acc[i] = _mm512_fmadd_ps(acc[i], a, b);
    for (int i = 1; i < CHAINS; i++) acc[0] = _mm512_add_ps(acc[0], acc[i]);
    *sink = (int)_mm512_reduce_add_ps(acc[0]);
    return (double)rounds * CHAINS * 16 * 2;
}

/* Lines in order, prefetched further ahead than the hardware dares: across page ends. */
uint64_t tern_read_avx512(const void *buffer, size_t bytes) {
    enum { LINES = 8, AHEAD = 4096 };
    const char *p = buffer;
    __m512i acc[LINES];
    for (int i = 0; i < LINES; i++) acc[i] = _mm512_setzero_si512();
    for (size_t at = 0; at < bytes; at += LINES * 64, p += LINES * 64)
        for (int i = 0; i < LINES; i++) {
            _mm_prefetch(p + AHEAD + 64 * i, _MM_HINT_T0);
            acc[i] = _mm512_xor_si512(acc[i], _mm512_load_si512(p + 64 * i));
        }
    for (int i = 1; i < LINES; i++) acc[0] = _mm512_xor_si512(acc[0], acc[i]);
    return (uint64_t)_mm512_reduce_add_epi64(acc[0]);
}
