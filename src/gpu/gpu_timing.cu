/* How long a forward pass takes: replays of a CUDA graph between two events. */
#include <algorithm>

#include "gpu/gpu_plan.cuh"

#include "cuda/device_memory.cuh"
#include "cuda/peaks.cuh"

static const char op[] = "timing a forward pass";

enum { WARM_REPLAYS = 2, MAX_REPLAYS = 256, EVICTING_BLOCKS = 4 };

/* What must be given back whatever happens. */
struct clock_of_graphs {
    tern_cuda_context *context;
    void *evicted = NULL;
    cudaGraph_t graph = NULL;
    cudaGraphExec_t exec = NULL;
    cudaEvent_t begin = NULL, end = NULL;

    explicit clock_of_graphs(tern_cuda_context *c) : context(c) {}
    void forget() {
        if (exec) cudaGraphExecDestroy(exec);
        if (graph) cudaGraphDestroy(graph);
        exec = NULL;
        graph = NULL;
    }
    ~clock_of_graphs() {
        cudaStreamSynchronize(context->stream);
        forget();
        if (begin) cudaEventDestroy(begin);
        if (end) cudaEventDestroy(end);
        if (evicted) tern_cuda_free(context, evicted);
    }
};

static tern_status put_passes(const clock_of_graphs *c, tern_gpu_plan *plan, const tern_gpu_timing *t, bool forward,
                              tern_error *err) {
    for (int i = 0; i < t->passes; i++) {
        if (t->evict) GPU_CHECK(tern_cuda_read(plan->context, c->evicted, t->evict, EVICTING_BLOCKS, err));
        if (forward) GPU_CHECK(gpu_run_forward(plan, err));
    }
    return TERN_OK;
}

static tern_status capture(clock_of_graphs *c, tern_gpu_plan *plan, const tern_gpu_timing *t, bool forward,
                           tern_error *err) {
    CUDA_TRY(cudaStreamBeginCapture(plan->stream, cudaStreamCaptureModeThreadLocal), op, err);
    const tern_status status = put_passes(c, plan, t, forward, err);
    const cudaError_t code = cudaStreamEndCapture(plan->stream, &c->graph); /* always: it ends the capture */
    if (status) {
        cudaGetLastError();
        return status;
    }
    CUDA_TRY(code, op, err);
    CUDA_TRY(cudaGraphInstantiate(&c->exec, c->graph, 0), op, err);
    return TERN_OK;
}

static tern_status replay(double *seconds, const clock_of_graphs *c, tern_error *err) {
    float ms;
    CUDA_TRY(cudaEventRecord(c->begin, c->context->stream), op, err);
    CUDA_TRY(cudaGraphLaunch(c->exec, c->context->stream), op, err);
    CUDA_TRY(cudaEventRecord(c->end, c->context->stream), op, err);
    CUDA_TRY(cudaEventSynchronize(c->end), op, err);
    CUDA_TRY(cudaEventElapsedTime(&ms, c->begin, c->end), op, err);
    *seconds = ms * 1e-3;
    return TERN_OK;
}

/* The median of a graph of all passes, with or without what is timed. */
static tern_status time_graph(double *seconds, clock_of_graphs *c, tern_gpu_plan *plan, const tern_gpu_timing *t,
                              bool forward, tern_error *err) {
    double times[MAX_REPLAYS], unused;
    const int replays = t->replays < 1 ? 1 : t->replays < MAX_REPLAYS ? t->replays : MAX_REPLAYS;
    GPU_CHECK(capture(c, plan, t, forward, err));
    for (int i = 0; i < WARM_REPLAYS; i++) GPU_CHECK(replay(&unused, c, err));
    for (int i = 0; i < replays; i++) GPU_CHECK(replay(&times[i], c, err));
    c->forget();
    std::sort(times, times + replays);
    *seconds = times[replays / 2];
    return TERN_OK;
}

tern_status gpu_time_forward(tern_gpu_plan *plan, double *seconds, const tern_gpu_timing *timing, tern_error *err) {
    clock_of_graphs c(plan->context);
    double all, evicting = 0;
    tern_gpu_timing t = *timing;
    t.evict = gpu_round_up(t.evict, 256);
    if (t.passes < 1) t.passes = 1;
    CUDA_TRY(cudaSetDevice(plan->context->device), op, err);
    CUDA_TRY(cudaEventCreate(&c.begin), op, err);
    CUDA_TRY(cudaEventCreate(&c.end), op, err);
    if (t.evict) {
        GPU_CHECK(tern_cuda_alloc(&c.evicted, plan->context, t.evict, op, err));
        CUDA_TRY(cudaMemsetAsync(c.evicted, 0, t.evict, plan->stream), op, err);
    }
    plan->batch = t.pass.batch;
    plan->train_mode = t.pass.train_mode != 0;
    GPU_CHECK(gpu_run_forward(plan, err)); /* chooses algorithms of products, which a capture cannot */
    CUDA_TRY(cudaStreamSynchronize(plan->stream), op, err);
    GPU_CHECK(time_graph(&all, &c, plan, &t, true, err));
    if (t.evict) GPU_CHECK(time_graph(&evicting, &c, plan, &t, false, err));
    *seconds = (all > evicting ? all - evicting : 0) / t.passes;
    return TERN_OK;
}
