/* From a sum to an output, in the order that docs/numerics.md writes down: nothing is contracted. */
#ifndef TERN_CUDA_EPILOGUE_CUH
#define TERN_CUDA_EPILOGUE_CUH

#include "cuda/common.cuh"

/* ---- values in memory ------------------------------------------------------------------------------------------ */

__device__ inline float load_value(const void *values, tern_dtype type, size_t i) {
    if (type == TERN_BF16) return __bfloat162float(((const __nv_bfloat16 *)values)[i]);
    if (type == TERN_F16) return __half2float(((const __half *)values)[i]);
    return ((const float *)values)[i];
}

/* ---- the product ----------------------------------------------------------------------------------------------- */

/* What multiplies the sum of output n and row m. */
__device__ inline float scale_of(const epilogue &e, int n) { return e.scale[e.scale_per_row ? n : 0]; }
__device__ inline float factor_of(const epilogue &e, int32_t, int m, int n) {
    return __fmul_rn(scale_of(e, n), e.inv_scale[m]);
}
__device__ inline float factor_of(const epilogue &e, float, int, int n) { return scale_of(e, n); }

/* Minus zero is what addition leaves alone. */
__device__ inline float bias_of(const epilogue &e, int n) { return e.bias ? e.bias[n] : -0.0f; }

__device__ inline float product_of(int32_t sum, float factor, float bias) {
    return __fadd_rn(__fmul_rn(__int2float_rn(sum), factor), bias);
}
__device__ inline float product_of(float sum, float factor, float bias) {
    return __fadd_rn(__fmul_rn(sum, factor), bias);
}

/* ---- what follows: passes over all outputs of a thread, so that what to do is asked once for all of them, and the
 * loads of a pass are under way together. A Place knows m(i), n(i) of output i, and whether it is one at all:
 * valid(i). ---- */

struct one_place {
    int row, output;
    __device__ int m(int) const { return row; }
    __device__ int n(int) const { return output; }
    __device__ bool valid(int) const { return true; }
};

__device__ inline float relu(float v) { return v > 0 ? v : 0; }
__device__ inline float sigmoid_of(float x) { return 1.0f / (1.0f + expf(-x)); }

#define PASS(i) _Pragma("unroll") for (int i = 0; i < N; i++)

template <int N> __device__ inline void activate(float (&v)[N], tern_device_activation activation) {
    switch (activation) {
    case TERN_DEVICE_RELU: PASS(i) v[i] = relu(v[i]); break;
    case TERN_DEVICE_RELU2: PASS(i) v[i] = __fmul_rn(relu(v[i]), relu(v[i])); break;
    /* The sigmoid of x (a + b x^2), a = sqrt(8 / pi), b = 0.044715 a. */
    case TERN_DEVICE_GELU:
        PASS(i) v[i] = v[i] * sigmoid_of(v[i] * (1.5957691216f + 0.0713548162726f * (v[i] * v[i])));
        break;
    case TERN_DEVICE_SILU: PASS(i) v[i] = v[i] * sigmoid_of(v[i]); break;
    default: break;
    }
}

template <class Place> __device__ inline size_t index_of(const epilogue &e, const Place &at, int i) {
    return (size_t)at.m(i) * (size_t)e.rows + (size_t)at.n(i);
}

template <int N, class Place> __device__ inline void add_residual(float (&v)[N], const epilogue &e, const Place &at) {
    if (!e.residual) return;
    if (e.y_type == TERN_F32) {
        PASS(i) if (at.valid(i)) v[i] = __fadd_rn(v[i], load_value(e.residual, TERN_F32, index_of(e, at, i)));
    } else {
        PASS(i) if (at.valid(i)) v[i] = __fadd_rn(v[i], load_value(e.residual, e.y_type, index_of(e, at, i)));
    }
}

template <int N, class Place>
__device__ inline void store_values(const float (&v)[N], const epilogue &e, const Place &at) {
    if (e.y_type == TERN_F32) {
        PASS(i) if (at.valid(i))((float *)e.y)[index_of(e, at, i)] = v[i];
    } else if (e.y_type == TERN_BF16) {
        PASS(i) if (at.valid(i))((__nv_bfloat16 *)e.y)[index_of(e, at, i)] = __float2bfloat16_rn(v[i]);
    } else {
        PASS(i) if (at.valid(i))((__half *)e.y)[index_of(e, at, i)] = __float2half_rn(v[i]);
    }
}

#undef PASS

/* v: products, bias included. */
template <int N, class Place> __device__ inline void put_products(float (&v)[N], const epilogue &e, const Place &at) {
    activate(v, e.activation);
    add_residual(v, e, at);
    store_values(v, e, at);
}

__device__ inline void put_product(const epilogue &e, int m, int n, float product) {
    float v[1] = {product};
    put_products(v, e, one_place{m, n});
}

/* The sum of trit * x, int32 or fp32, with tensor or row scales. */
template <class Sum> __device__ inline void put_sum(const epilogue &e, int m, int n, Sum sum) {
    put_product(e, m, n, product_of(sum, factor_of(e, sum, m, n), bias_of(e, n)));
}

#endif
