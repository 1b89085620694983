/* The specification: one thread an output, every type, scale and shape, columns in ascending order. */
#include "cuda/epilogue.cuh"
#include "cuda/tile_trit.cuh"

__device__ static int32_t sum_i8(const tern_cuda_weights &w, const uint8_t *tiles, int row, const int8_t *x,
                                 int begin, int end) {
    int32_t sum = 0;
    for (int k = begin; k < end; k++) sum += trit_at(tiles, row, k, w.t5) * x[k];
    return sum;
}

/* y = sum over groups, ascending, of float(group sum) * 2^e */
__device__ static float sum_groups_i8(const tern_cuda_weights &w, const uint8_t *tiles, int row, const int8_t *x,
                                      const int8_t *exponents) {
    float v = 0;
    for (int g = 0; g < w.groups; g++) {
        const int32_t sum = sum_i8(w, tiles, row, x, g * w.group, min((g + 1) * w.group, w.cols));
        v = __fadd_rn(v, __fmul_rn(__int2float_rn(sum), exp2_of(exponents[g])));
    }
    return v;
}

__device__ static float sum_float(const tern_cuda_weights &w, const uint8_t *tiles, int row, const void *x,
                                  tern_dtype x_type, size_t x_row, const int8_t *exponents) {
    float v = 0;
    for (int k = 0; k < w.cols; k++) {
        const int trit = trit_at(tiles, row, k, w.t5);
        float value = load_value(x, x_type, x_row + (size_t)k);
        if (exponents) value = __fmul_rn(value, exp2_of(exponents[k / w.group]));
        if (trit) v = trit > 0 ? __fadd_rn(v, value) : __fsub_rn(v, value);
    }
    return v;
}

__global__ void __launch_bounds__(128) tern_matmul_plain_cuda(product p, tern_dtype x_type) {
    const int n = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (n >= p.w.rows) return;
    const uint8_t *tiles = p.w.tiles + (size_t)(n / TERN_TILE_ROWS) * (size_t)p.w.k_tiles * TERN_TILE_BYTES;
    const int8_t *exponents = p.w.exponents ? p.w.exponents + (size_t)n * (size_t)p.w.groups : NULL;
    const int row = n % TERN_TILE_ROWS;
    for (int m = (int)blockIdx.y; m < p.out.m; m += (int)gridDim.y) {
        const size_t x_row = (size_t)m * (size_t)p.ldx;
        const int8_t *x = (const int8_t *)p.x + x_row;
        if (x_type != TERN_I8) {
            const float sum = sum_float(p.w, tiles, row, p.x, x_type, x_row, exponents);
            if (exponents)
                put_product(p.out, m, n, __fadd_rn(sum, bias_of(p.out, n)));
            else
                put_sum(p.out, m, n, sum);
        } else if (exponents) {
            put_product(
                p.out, m, n,
                product_of(sum_groups_i8(p.w, tiles, row, x, exponents), p.out.inv_scale[m], bias_of(p.out, n)));
        } else {
            put_sum(p.out, m, n, sum_i8(p.w, tiles, row, x, 0, p.w.cols));
        }
    }
}

tern_status tern_cuda_plain(tern_cuda_context *context, const product &p, tern_dtype x_type, int, tern_error *err) {
    const int threads = 128, most = 65535;
    const dim3 grid((unsigned)ceil_div(p.w.rows, threads), (unsigned)(p.out.m < most ? p.out.m : most));
    tern_matmul_plain_cuda<<<grid, threads, 0, context->stream>>>(p, x_type);
    CUDA_TRY(cudaGetLastError(), "cuda-plain", err);
    return TERN_OK;
}
