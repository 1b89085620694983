/* Behind dense products: scales and biases of what they made, and the gradient of a bias. */
#include "gpu/gpu_columns.cuh"
#include "gpu/gpu_gemm.cuh"
#include "gpu/gpu_kernels.cuh"

/* N values of one row at a time, as columns are a multiple of N. */
template <class T, int N> __global__ static void finish(T *y, gpu_epilogue e) {
    GPU_FOR(i, e.rows * e.columns / N) {
        const size_t row = i * N / e.columns, column = i * N - row * e.columns;
        const float by_row = e.row_scale ? e.row_scale[row / e.rows_per_scale] : 1;
        gpu_few<T, N> v = ((gpu_few<T, N> *)y)[i];
#pragma unroll
        for (int j = 0; j < N; j++) {
            float f = to_float(v.v[j]);
            if (e.column_scale) f *= e.column_scale[e.one_column_scale ? 0 : column + (size_t)j];
            f *= by_row;
            v.v[j] = from_float<T>(e.bias ? f + e.bias[column + (size_t)j] : f);
        }
        ((gpu_few<T, N> *)y)[i] = v;
    }
}

tern_status gpu_finish(tern_gpu_plan *plan, size_t node, const gpu_epilogue *e, void *y, tern_error *err) {
    if (!e->column_scale && !e->row_scale && !e->bias) return TERN_OK;
    const size_t n = e->rows * e->columns;
    GPU_BY_TYPE(plan->type, constexpr int N = gpu_pack<T>::N; if (e->columns % N || (uintptr_t)y % 16)
                    finish<T, 1><<<gpu_blocks(plan, n, 4), GPU_THREADS, 0, plan->stream>>>((T *)y, *e);
                else finish<T, N><<<gpu_blocks(plan, n, N), GPU_THREADS, 0, plan->stream>>>((T *)y, *e));
    GPU_LAUNCHED(plan, node, err);
    return TERN_OK;
}

tern_status gpu_add_bias(tern_gpu_plan *plan, size_t node, void *y, const float *bias, size_t rows, size_t columns,
                         tern_error *err) {
    gpu_epilogue e = {};
    e.rows = rows;
    e.columns = columns;
    e.bias = bias;
    return gpu_finish(plan, node, &e, y, err);
}

/* ---- sums of columns: the first of a pair */

struct column_values {
    struct column {};
    struct row {};
    __device__ column at(size_t) const { return {}; }
    __device__ row of(size_t) const { return {}; }
    __device__ void add(float &sum, float &, float x, float, column, row) const { sum += x; }
};

struct add_column {
    float *sum;
    __device__ void operator()(size_t c, double total, double) const { sum[c] += (float)total; }
};

size_t gpu_column_sums_scratch(const tern_gpu_plan *plan, size_t columns) {
    return gpu_pair_sums_scratch(plan->type, columns);
}

tern_status gpu_column_sums(tern_gpu_plan *plan, size_t node, float *sum, const void *x, size_t rows, size_t columns,
                            void *scratch, tern_error *err) {
    GPU_BY_TYPE(plan->type, return gpu_pair_sums<T>(plan, node, (const T *)x, NULL, rows, columns, scratch,
                                                    column_values(), add_column{sum}, err));
    return TERN_OK;
}
