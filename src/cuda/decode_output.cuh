/* The end of a decoding kernel. The next kernel waits for what lies between the last sum and the store: what an output
 * takes beside its sum is asked for before the products, and what most products skip is out of the way. With all of
 * epilogue.cuh in line it is 0.1 to 0.2 us more. */
#ifndef TERN_CUDA_DECODE_OUTPUT_CUH
#define TERN_CUDA_DECODE_OUTPUT_CUH

#include "cuda/epilogue.cuh"

struct output_terms {
    float scale, inverse, bias, residual; /* the first two meet at the end: nobody waits for them before */
};

__device__ inline float inverse_of(const epilogue &e, int32_t, int m) { return e.inv_scale[m]; }
__device__ inline float inverse_of(const epilogue &, float, int) { return 1.0f; }

template <class Sum> __device__ static output_terms terms_of(const epilogue &e, Sum sum, int m, int n) {
    output_terms terms = {scale_of(e, n), inverse_of(e, sum, m), bias_of(e, n), -0.0f};
    if (e.residual) terms.residual = load_value(e.residual, e.y_type, index_of(e, one_place{m, n}, 0));
    return terms;
}

/* Activations and outputs of 16 bits. A function of its own, so that products without them do not jump over it. */
__device__ static __noinline__ void put_other(float product, float residual, tern_device_activation activation,
                                              tern_dtype y_type, void *y, int rows, int m, int n) {
    epilogue e = {};
    float v[1] = {product};
    e.y = y;
    e.y_type = y_type;
    e.rows = rows;
    activate(v, activation);
    v[0] = __fadd_rn(v[0], residual);
    store_values(v, e, one_place{m, n});
}

template <class Sum> __device__ static void put_sum(const epilogue &e, int m, int n, Sum sum, const output_terms &t) {
    const float product = product_of(sum, __fmul_rn(t.scale, t.inverse), t.bias);
    if (e.y_type == TERN_F32 && e.activation == TERN_DEVICE_IDENTITY)
        ((float *)e.y)[index_of(e, one_place{m, n}, 0)] = __fadd_rn(product, t.residual);
    else
        put_other(product, t.residual, e.activation, e.y_type, e.y, e.rows, m, n);
}

#endif
