/* base/random.h's generator on the device: the same numbers from the same key and counter. */
#ifndef TERN_GPU_GPU_RANDOM_CUH
#define TERN_GPU_GPU_RANDOM_CUH

#include <stdint.h>

struct gpu_random4 {
    uint32_t v[4];
};

__device__ inline gpu_random4 gpu_philox(uint64_t key, uint64_t counter_low, uint64_t counter_high) {
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    uint32_t c0 = (uint32_t)counter_low, c1 = (uint32_t)(counter_low >> 32);
    uint32_t c2 = (uint32_t)counter_high, c3 = (uint32_t)(counter_high >> 32);
#pragma unroll
    for (int round = 0; round < 10; round++) {
        const uint32_t n0 = __umulhi(0xCD9E8D57u, c2) ^ c1 ^ k0, n2 = __umulhi(0xD2511F53u, c0) ^ c3 ^ k1;
        c1 = 0xCD9E8D57u * c2;
        c3 = 0xD2511F53u * c0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
}

#endif
