/* How long products take: replays of a CUDA graph between two events. */
#include <algorithm>

#include "cuda/common.cuh"

static const char op[] = "timing products";

enum { WARM_REPLAYS = 1, MAX_REPLAYS = 64 };

/* What must be given back whatever happens. */
struct stopwatch {
    cudaGraph_t graph = NULL;
    cudaGraphExec_t exec = NULL;
    cudaEvent_t begin = NULL, end = NULL;
    ~stopwatch() {
        if (begin) cudaEventDestroy(begin);
        if (end) cudaEventDestroy(end);
        if (exec) cudaGraphExecDestroy(exec);
        if (graph) cudaGraphDestroy(graph);
    }
};

static tern_status capture(stopwatch *s, tern_cuda_context *context, const tern_cuda_weights *weights, size_t count,
                           const tern_device_product *product, int calls, tern_error *err) {
    tern_status status = TERN_OK;
    CUDA_TRY(cudaStreamBeginCapture(context->stream, cudaStreamCaptureModeThreadLocal), op, err);
    for (int i = 0; i < calls && !status; i++)
        status = tern_cuda_multiply(context, &weights[(size_t)i % count], product, 0, err);
    const cudaError_t code = cudaStreamEndCapture(context->stream, &s->graph); /* always: it ends the capture */
    if (status) {
        cudaGetLastError();
        return status;
    }
    CUDA_TRY(code, op, err);
    CUDA_TRY(cudaGraphInstantiate(&s->exec, s->graph, 0), op, err);
    return TERN_OK;
}

static tern_status replay(double *seconds, const stopwatch *s, cudaStream_t stream, tern_error *err) {
    float ms;
    CUDA_TRY(cudaEventRecord(s->begin, stream), op, err);
    CUDA_TRY(cudaGraphLaunch(s->exec, stream), op, err);
    CUDA_TRY(cudaEventRecord(s->end, stream), op, err);
    CUDA_TRY(cudaEventSynchronize(s->end), op, err);
    CUDA_TRY(cudaEventElapsedTime(&ms, s->begin, s->end), op, err);
    *seconds = ms * 1e-3;
    return TERN_OK;
}

tern_status tern_cuda_time_products(double *seconds, tern_cuda_context *context, const tern_cuda_weights *weights,
                                    size_t count, const tern_device_product *product, int calls, int replays,
                                    tern_error *err) {
    double times[MAX_REPLAYS], unused;
    stopwatch s;
    replays = std::min<int>(replays, MAX_REPLAYS);
    /* Once outside of the capture, where scratch may grow and the kernel is loaded. */
    tern_status status = tern_cuda_multiply(context, weights, product, 0, err);
    if (status) return status;
    CUDA_TRY(cudaStreamSynchronize(context->stream), op, err);
    CUDA_TRY(cudaEventCreate(&s.begin), op, err);
    CUDA_TRY(cudaEventCreate(&s.end), op, err);
    status = capture(&s, context, weights, count, product, calls, err);
    for (int i = 0; i < WARM_REPLAYS && !status; i++) status = replay(&unused, &s, context->stream, err);
    for (int i = 0; i < replays && !status; i++) status = replay(&times[i], &s, context->stream, err);
    if (status) return status;
    std::sort(times, times + replays);
    *seconds = times[replays / 2] / calls;
    return TERN_OK;
}
