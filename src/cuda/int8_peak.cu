#include "cuda/peaks.cuh"
#include "cuda/unpack.cuh"

enum { WARPS = 8, SUMS = 8 /* independent products of a warp */ };

__global__ void __launch_bounds__(WARPS * 32) tern_busy_mma_cuda(int repeats, int32_t *out) {
    uint32_t a[4], b[SUMS][2];
    int32_t c[SUMS][4] = {};
    for (int i = 0; i < 4; i++) a[i] = threadIdx.x * 2654435761u + (uint32_t)i * 40503u;
    for (int i = 0; i < SUMS; i++) b[i][0] = a[i % 4] * 2246822519u, b[i][1] = ~b[i][0];
    for (int r = 0; r < repeats; r++)
#pragma unroll
        for (int i = 0; i < SUMS; i++) mma_i8(c[i], a[0], a[1], a[2], a[3], b[i][0], b[i][1]);
    int32_t sum = 0;
    for (int i = 0; i < SUMS; i++) sum ^= c[i][0] ^ c[i][1] ^ c[i][2] ^ c[i][3];
    if (sum == 0x12345678) *out = sum; /* practically never */
}

static tern_status busy_mma(tern_cuda_context *context, int repeats, double *operations, tern_error *err) {
    const int blocks = context->multiprocessors * 2;
    *operations = 2.0 * 16 * 8 * 32 * SUMS * WARPS * blocks * repeats;
    tern_busy_mma_cuda<<<(unsigned)blocks, WARPS * 32, 0, context->stream>>>(repeats, (int32_t *)context->scratch);
    CUDA_TRY(cudaGetLastError(), "int8 peak", err);
    return TERN_OK;
}

typedef tern_status (*busy)(tern_cuda_context *context, int repeats, double *operations, tern_error *err);

static tern_status time_once(double *per_second, tern_cuda_context *context, busy run, cudaEvent_t begin,
                             cudaEvent_t end, tern_error *err) {
    static const char op[] = "int8 peak";
    double operations;
    float ms;
    CUDA_TRY(cudaEventRecord(begin, context->stream), op, err);
    tern_status status = run(context, 1 << 15, &operations, err);
    if (status) return status;
    CUDA_TRY(cudaEventRecord(end, context->stream), op, err);
    CUDA_TRY(cudaEventSynchronize(end), op, err);
    CUDA_TRY(cudaEventElapsedTime(&ms, begin, end), op, err);
    *per_second = operations / (ms * 1e-3);
    return TERN_OK;
}

tern_status tern_cuda_measure_int8(double *per_second, tern_cuda_context *context, tern_error *err) {
    static const char op[] = "int8 peak";
    enum { TIMINGS = 5 };
    cudaEvent_t begin, end;
    if (context->major < 8)
        return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE, "%s: it takes compute capability 8.0 or newer", op);
    tern_status status = tern_cuda_reserve(context, 4096, err);
    if (status) return status;
    CUDA_TRY(cudaEventCreate(&begin), op, err);
    CUDA_TRY(cudaEventCreate(&end), op, err);
    const busy run = context->major == 9 && context->minor == 0 ? tern_cuda_busy_wgmma : busy_mma;
    *per_second = 0;
    for (int i = 0; i < TIMINGS && !status; i++) {
        double once = 0;
        status = time_once(&once, context, run, begin, end, err);
        if (once > *per_second) *per_second = once;
    }
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
    return status;
}
