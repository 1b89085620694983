/* Division of numbers below 2^31 by one that stays the same for a launch: a multiplication and a shift. */
#ifndef TERN_GPU_GPU_DIVIDE_CUH
#define TERN_GPU_GPU_DIVIDE_CUH

#include "cuda/common.cuh"

enum : uint32_t { GPU_DIVIDE_MOST = 0x7fffffff };

/* With d <= 2^bits and factor = ceil(2^(31 + bits) / d), factor d is less than 2^bits above 2^(31 + bits): for n <
 * 2^31 the product is less than one d-th above n / d, too little to reach the next integer. factor fits 32 bits. */
struct gpu_divisor {
    uint32_t d, factor, shift;
};

/* 1 <= d <= GPU_DIVIDE_MOST. */
static inline gpu_divisor gpu_divisor_of(size_t d) {
    uint32_t bits = 0;
    while (((size_t)1 << bits) < d) bits++;
    const uint64_t power = (uint64_t)1 << (31 + bits);
    return {(uint32_t)d, (uint32_t)((power + d - 1) / d), 31 + bits};
}

/* n becomes the quotient; returns the rest. */
__device__ inline uint32_t gpu_split(uint32_t *n, const gpu_divisor &by) {
    const uint32_t quotient = (uint32_t)(((uint64_t)*n * by.factor) >> by.shift);
    const uint32_t rest = *n - quotient * by.d;
    *n = quotient;
    return rest;
}

#endif
