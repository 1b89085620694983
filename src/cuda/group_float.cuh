/* From the sum of a group to the float that its exponent multiplies. */
#ifndef TERN_CUDA_GROUP_FLOAT_CUH
#define TERN_CUDA_GROUP_FLOAT_CUH

#include "cuda/tile_trit.cuh"

/* Added to an integer below 2^22 in magnitude it makes the bits of the float 1.5 * 2^23 + integer: one subtraction is
 * the conversion, for which devices have few units. */
enum { FLOAT_START = 0x4b400000 };

/* What sums of 2^shift * trit * x of a group begin with: FLOAT_START where they stay small enough, else 0. */
__device__ inline int32_t float_start(int group, int shift) {
    return (int64_t)group << (shift + 7) < 1 << 22 ? FLOAT_START : 0;
}
__device__ inline float float_of(int32_t sum, int32_t start) {
    return start ? __fsub_rn(__int_as_float(sum), 12582912.0f) : __int2float_rn(sum);
}

/* Sums of floats are what they are. */
__device__ inline float float_of(float sum, float) { return sum; }

/* 2^e for sums that are 2^shift too large; zero behind the last group, so that what ends there adds nothing. */
__device__ inline float group_power(const tern_cuda_weights &w, int row, int group, int shift) {
    return group < w.groups ? exp2_of(__ldg(w.exponents + (size_t)row * (size_t)w.groups + group) - shift) : 0.0f;
}

#endif
