/* A stand-in for cuBLASLt, as much of it as src/gpu/gpu_gemm.cu calls: one thread a number, sums in fp32.
 *
 * racecheck fails inside cuBLASLt's own kernels, so that no graph could be checked with them. With this library found
 * first (LD_LIBRARY_PATH; its name is cuBLASLt's) every other kernel of a graph can: scripts/gpu_tests.sh. It also
 * tells whether a wrong result is cuBLASLt's. */
#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdlib.h>
#include <string.h>

struct plain_desc {
    cublasOperation_t a, b;
    int pointers; /* cublasLtPointerMode_t */
};

struct plain_layout {
    cudaDataType_t type;
    uint64_t rows, columns; /* column-major */
    int64_t ld, apart;
    int32_t count;
};

/* ---- the product */

struct operand {
    const void *data;
    cudaDataType_t type;
    int64_t row, column, apart; /* steps, in elements */
};

__device__ static float number_at(const operand &o, int64_t row, int64_t column, int64_t batch) {
    const int64_t i = row * o.row + column * o.column + batch * o.apart;
    switch (o.type) {
    case CUDA_R_16BF: return __bfloat162float(((const __nv_bfloat16 *)o.data)[i]);
    case CUDA_R_16F: return __half2float(((const __half *)o.data)[i]);
    default: return ((const float *)o.data)[i];
    }
}

__device__ static void put_number(void *to, cudaDataType_t type, int64_t i, float v) {
    switch (type) {
    case CUDA_R_16BF: ((__nv_bfloat16 *)to)[i] = __float2bfloat16_rn(v); break;
    case CUDA_R_16F: ((__half *)to)[i] = __float2half_rn(v); break;
    default: ((float *)to)[i] = v;
    }
}

struct factors {
    const float *alpha, *beta; /* on the device; NULL: the numbers below */
    float alpha_value, beta_value;
};

__global__ static void multiply(void *d, operand c, operand a, operand b, int64_t m, int64_t n, int64_t k,
                                factors f) {
    const float alpha = f.alpha ? *f.alpha : f.alpha_value, beta = f.beta ? *f.beta : f.beta_value;
    const int64_t batch = blockIdx.y, step = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < m * n; i += step) {
        const int64_t row = i % m, column = i / m;
        float sum = 0;
        for (int64_t j = 0; j < k; j++) sum += number_at(a, row, j, batch) * number_at(b, j, column, batch);
        sum *= alpha;
        if (beta != 0) sum += beta * number_at(c, row, column, batch);
        put_number(d, c.type, row * c.row + column * c.column + batch * c.apart, sum);
    }
}

static operand operand_of(const void *data, const plain_layout *l, bool turned) {
    return {data, l->type, turned ? l->ld : 1, turned ? 1 : l->ld, l->apart};
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t desc, const void *alpha, const void *a,
                              cublasLtMatrixLayout_t a_layout, const void *b, cublasLtMatrixLayout_t b_layout,
                              const void *beta, const void *c, cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t, const cublasLtMatmulAlgo_t *, void *, size_t,
                              cudaStream_t stream) {
    const plain_desc *p = (const plain_desc *)desc;
    const plain_layout *la = (const plain_layout *)a_layout, *lb = (const plain_layout *)b_layout;
    const plain_layout *lc = (const plain_layout *)c_layout;
    const bool a_turned = p->a != CUBLAS_OP_N, b_turned = p->b != CUBLAS_OP_N;
    factors f = {};
    if (p->pointers == CUBLASLT_POINTER_MODE_DEVICE) {
        f.alpha = (const float *)alpha;
        f.beta = (const float *)beta;
    } else {
        f.alpha_value = *(const float *)alpha;
        f.beta_value = *(const float *)beta;
    }
    const int64_t m = (int64_t)lc->rows, n = (int64_t)lc->columns, k = (int64_t)(a_turned ? la->rows : la->columns);
    const int64_t blocks = (m * n + 255) / 256;
    const dim3 grid((unsigned)(blocks < 65535 ? blocks : 65535), (unsigned)lc->count);
    multiply<<<grid, 256, 0, stream>>>(d, operand_of(c, lc, false), operand_of(a, la, a_turned),
                                       operand_of(b, lb, b_turned), m, n, k, f);
    return cudaGetLastError() == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

/* ---- descriptions */

template <class T> static cublasStatus_t create(void **out, const T &value) {
    T *made = (T *)malloc(sizeof *made);
    if (!made) return CUBLAS_STATUS_ALLOC_FAILED;
    *made = value;
    *out = made;
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t destroy(void *p) {
    free(p);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle) { return create((void **)handle, 0); }
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) { return destroy((void *)handle); }

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *desc, cublasComputeType_t compute,
                                        cudaDataType_t scale) {
    if (compute != CUBLAS_COMPUTE_32F || scale != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
    return create((void **)desc, plain_desc{CUBLAS_OP_N, CUBLAS_OP_N, CUBLASLT_POINTER_MODE_HOST});
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc) { return destroy(desc); }
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t which,
                                              const void *value, size_t bytes) {
    plain_desc *p = (plain_desc *)desc;
    void *to = which == CUBLASLT_MATMUL_DESC_TRANSA         ? (void *)&p->a
               : which == CUBLASLT_MATMUL_DESC_TRANSB       ? (void *)&p->b
               : which == CUBLASLT_MATMUL_DESC_POINTER_MODE ? (void *)&p->pointers
                                                            : NULL;
    if (!to || bytes != sizeof(int)) return CUBLAS_STATUS_NOT_SUPPORTED;
    memcpy(to, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, cudaDataType_t type, uint64_t rows,
                                          uint64_t columns, int64_t ld) {
    if (type != CUDA_R_32F && type != CUDA_R_16BF && type != CUDA_R_16F) return CUBLAS_STATUS_NOT_SUPPORTED;
    return create((void **)layout, plain_layout{type, rows, columns, ld, 0, 1});
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) { return destroy(layout); }
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout, cublasLtMatrixLayoutAttribute_t which,
                                                const void *value, size_t bytes) {
    plain_layout *l = (plain_layout *)layout;
    if (which == CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT && bytes == sizeof l->count)
        memcpy(&l->count, value, bytes);
    else if (which == CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET && bytes == sizeof l->apart)
        memcpy(&l->apart, value, bytes);
    else
        return CUBLAS_STATUS_NOT_SUPPORTED;
    return CUBLAS_STATUS_SUCCESS;
}

/* ---- there is nothing to choose */

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference) {
    return create((void **)preference, 0);
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) { return destroy(preference); }
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t, cublasLtMatmulPreferenceAttributes_t,
                                                    const void *, size_t) {
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t, cublasLtMatrixLayout_t,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                              cublasLtMatmulPreference_t, int wanted,
                                              cublasLtMatmulHeuristicResult_t *found, int *count) {
    *count = wanted < 1 ? wanted : 1;
    memset(found, 0, (size_t)*count * sizeof *found);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t *,
                                                    cublasLtMatmulAlgoConfigAttributes_t, void *value, size_t bytes,
                                                    size_t *written) {
    memset(value, 0, bytes);
    *written = bytes;
    return CUBLAS_STATUS_SUCCESS;
}
