/* Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC
 * 2011). The value is a pure function of key and counter, so any thread can draw any number, on the CPU and on the
 * GPU. */
#ifndef TERN_BASE_RANDOM_H
#define TERN_BASE_RANDOM_H

#include <math.h>
#include <stdint.h>

/* nvcc compiles these functions for the device as well. */
#ifdef __CUDACC__
#define TERN_RANDOM static inline __host__ __device__
#else
#define TERN_RANDOM static inline
#endif

typedef struct tern_random4 {
    uint32_t v[4];
} tern_random4;

TERN_RANDOM tern_random4 tern_philox(uint64_t key, uint64_t counter_low, uint64_t counter_high) {
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    uint32_t c0 = (uint32_t)counter_low, c1 = (uint32_t)(counter_low >> 32);
    uint32_t c2 = (uint32_t)counter_high, c3 = (uint32_t)(counter_high >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53u * c0, b = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(b >> 32) ^ c1 ^ k0, n2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)b;
        c3 = (uint32_t)a;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return (tern_random4){{c0, c1, c2, c3}};
}

/* The key of stream number `stream` of a seed. */
TERN_RANDOM uint64_t tern_stream(uint64_t seed, uint64_t stream) {
    return seed * UINT64_C(0x9E3779B97F4A7C15) + stream;
}

/* The index-th 32-bit number of the stream `key`. */
TERN_RANDOM uint32_t tern_random_u32(uint64_t key, uint64_t index) {
    return tern_philox(key, index / 4, 0).v[index % 4];
}

/* Uniform in [-1, 1), 24 bits. */
TERN_RANDOM float tern_random_signed(uint64_t key, uint64_t index) {
    return (float)((int32_t)(tern_random_u32(key, index) >> 8) - (1 << 23)) * 0x1p-23f;
}

/* Uniform in (0, 1), 24 bits; never 0. */
TERN_RANDOM float tern_random_uniform(uint64_t key, uint64_t index) {
    return ((float)(tern_random_u32(key, index) >> 8) + 0.5f) * 0x1p-24f;
}

/* Standard normal (Box and Muller), from two uniforms of its own. */
TERN_RANDOM float tern_random_normal(uint64_t key, uint64_t index) {
    tern_random4 r = tern_philox(key, index, 1);
    double u = ((double)r.v[0] + 0.5) * 0x1p-32, v = (double)r.v[1] * 0x1p-32;
    return (float)(sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v));
}

/* A trit, each value with probability 1/3 (to 2^-32). */
TERN_RANDOM int8_t tern_random_trit(uint64_t key, uint64_t index) {
    return (int8_t)((int)((uint64_t)tern_random_u32(key, index) * 3 >> 32) - 1);
}

#endif
