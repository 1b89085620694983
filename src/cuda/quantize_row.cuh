/* Activations to int8 by tern/quant.h's rule, in packs of 16 bytes: what a thread does with its packs of a row. */
#ifndef TERN_CUDA_QUANTIZE_ROW_CUH
#define TERN_CUDA_QUANTIZE_ROW_CUH

#include "cuda/common.cuh"

/* Words as they are loaded: values are made of them twice, which takes fewer registers than keeping them. */
template <class T> struct alignas(16) row_pack {
    enum { N = 16 / sizeof(T) };
    uint32_t word[4];
};
/* As many int8. */
template <class T> struct alignas(row_pack<T>::N) int8_pack { uint32_t word[row_pack<T>::N / 4]; };

__device__ inline float value_at(const row_pack<float> &p, int j) { return __uint_as_float(p.word[j]); }
__device__ inline float value_at(const row_pack<__nv_bfloat16> &p, int j) {
    return __uint_as_float(j % 2 ? p.word[j / 2] & 0xffff0000u : p.word[j / 2] << 16);
}
__device__ inline float value_at(const row_pack<__half> &p, int j) {
    return __half2float(__ushort_as_half((unsigned short)(p.word[j / 2] >> 16 * (j % 2))));
}
/* What is computed of it before is not kept for behind. */
template <class T> __device__ inline void forget_values(row_pack<T> &p) {
#pragma unroll
    for (int i = 0; i < 4; i++) asm volatile("" : "+r"(p.word[i]));
}

/* Bits of |x| order as |x| does, with Inf and NaN on top. */
__device__ inline unsigned magnitude_of(float v) { return __float_as_uint(v) & 0x7fffffffu; }
template <class T> __device__ inline unsigned largest_of(const row_pack<T> &p) {
    unsigned most = 0;
#pragma unroll
    for (int j = 0; j < row_pack<T>::N; j++) most = max(most, magnitude_of(value_at(p, j)));
    return most;
}

/* In all lanes. */
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
__device__ inline unsigned warp_largest(unsigned v) { return __reduce_max_sync(0xffffffffu, v); }
#else
__device__ inline unsigned warp_largest(unsigned v) {
    for (int step = 16; step; step /= 2) v = max(v, __shfl_xor_sync(0xffffffffu, v, step));
    return v;
}
#endif

/* Of a row whose largest magnitude has those bits: s, and what its products are multiplied by. A row that is not
 * finite is zeros, times NaN. */
struct row_scale {
    float s;
    bool finite;

    __device__ explicit row_scale(unsigned most) {
        finite = most < 0x7f800000u;
        s = __fdiv_rn(127.0f, fmaxf(__uint_as_float(most), 1e-5f));
    }
    __device__ float inverse() const { return finite ? __fdiv_rn(1.0f, s) : __uint_as_float(0x7fc00000u); }
};

/* No |x| s is above 127.5, and below 2^22 a sum with 3 * 2^22 has the nearest whole number in its last bits. */
__device__ inline uint32_t quantized_bits(float v, float s) {
    return __float_as_uint(__fadd_rn(__fmul_rn(v, s), 12582912.0f));
}
__device__ inline uint32_t four_quantized(float a, float b, float c, float d, const row_scale &scale) {
    const uint32_t low = __byte_perm(quantized_bits(a, scale.s), quantized_bits(b, scale.s), 0x0040);
    const uint32_t high = __byte_perm(quantized_bits(c, scale.s), quantized_bits(d, scale.s), 0x0040);
    return scale.finite ? __byte_perm(low, high, 0x5410) : 0;
}
template <class T> __device__ inline int8_pack<T> quantized(row_pack<T> p, const row_scale &scale) {
    int8_pack<T> q;
    forget_values(p);
#pragma unroll
    for (int j = 0; j < row_pack<T>::N; j += 4)
        q.word[j / 4] =
            four_quantized(value_at(p, j), value_at(p, j + 1), value_at(p, j + 2), value_at(p, j + 3), scale);
    return q;
}

#endif
