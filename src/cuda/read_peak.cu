/* How fast memory is read: every thread has eight loads of 16 bytes under way. */
#include "cuda/device_memory.cuh"
#include "cuda/peaks.cuh"

static const char op[] = "reading";

enum { THREADS = 256, LOADS = 8, PASSES = 2, TIMINGS = 5 };
static const size_t MOST_BYTES = (size_t)2 << 30;

__global__ static void __launch_bounds__(THREADS) read_all(const uint4 *from, size_t count, uint4 *out) {
    uint4 sum = {};
    const size_t step = (size_t)gridDim.x * blockDim.x;
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < count; i += LOADS * step) {
        uint4 v[LOADS] = {};
#pragma unroll
        for (int u = 0; u < LOADS; u++)
            if (i + u * step < count) v[u] = __ldcg(from + i + u * step);
#pragma unroll
        for (int u = 0; u < LOADS; u++) {
            sum.x ^= v[u].x;
            sum.y ^= v[u].y;
            sum.z ^= v[u].z;
            sum.w ^= v[u].w;
        }
    }
    if ((sum.x ^ sum.y ^ sum.z ^ sum.w) == 0x12345678) *out = sum; /* practically never */
}

tern_status tern_cuda_read(tern_cuda_context *context, const void *memory, size_t bytes, int blocks_each,
                           tern_error *err) {
    read_all<<<(unsigned)(context->multiprocessors * blocks_each), THREADS, 0, context->stream>>>(
        (const uint4 *)memory, bytes / sizeof(uint4), (uint4 *)memory);
    CUDA_TRY(cudaGetLastError(), op, err);
    return TERN_OK;
}

struct two_events {
    cudaEvent_t begin = NULL, end = NULL;
    ~two_events() {
        if (begin) cudaEventDestroy(begin);
        if (end) cudaEventDestroy(end);
    }
};

static tern_status time_reads(double *best, tern_cuda_context *context, void *buffer, size_t bytes, tern_error *err) {
    two_events events;
    float ms;
    CUDA_TRY(cudaEventCreate(&events.begin), op, err);
    CUDA_TRY(cudaEventCreate(&events.end), op, err);
    for (int i = 0; i < 3 * TIMINGS; i++) {
        CUDA_TRY(cudaEventRecord(events.begin, context->stream), op, err);
        for (int pass = 0; pass < PASSES; pass++) {
            const tern_status status = tern_cuda_read(context, buffer, bytes, 2 << i % 3, err);
            if (status) return status;
        }
        CUDA_TRY(cudaEventRecord(events.end, context->stream), op, err);
        CUDA_TRY(cudaEventSynchronize(events.end), op, err);
        CUDA_TRY(cudaEventElapsedTime(&ms, events.begin, events.end), op, err);
        const double now = PASSES * (double)bytes / (ms * 1e-3);
        if (now > *best) *best = now;
    }
    return TERN_OK;
}

tern_status tern_cuda_measure_read(double *per_second, tern_cuda_context *context, tern_error *err) {
    size_t free = 0, total = 0;
    void *buffer;
    *per_second = 0;
    CUDA_TRY(cudaSetDevice(context->device), op, err);
    CUDA_TRY(cudaMemGetInfo(&free, &total), op, err);
    const size_t bytes = (free / 4 < MOST_BYTES ? free / 4 : MOST_BYTES) / 256 * 256;
    tern_status status = tern_cuda_alloc(&buffer, context, bytes, op, err);
    if (status) return status;
    const cudaError_t code = cudaMemsetAsync(buffer, 0x5a, bytes, context->stream);
    status =
        code == cudaSuccess ? time_reads(per_second, context, buffer, bytes, err) : tern_cuda_failed(err, code, op);
    tern_cuda_free(context, buffer);
    return status;
}
