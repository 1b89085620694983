/* Passes of a plan, and values on their way to the host and back. */
#include "gpu/gpu_functions.cuh"
#include "gpu/gpu_kernels.cuh"

#include "cuda/device_memory.cuh"

tern_status gpu_run_forward(tern_gpu_plan *plan, tern_error *err) {
    for (size_t i = 1; i < plan->graph->nodes; i++)
        if (plan->node[i].op) GPU_CHECK(plan->node[i].op->forward(plan, i, err));
    return TERN_OK;
}

tern_status gpu_begin_rules(tern_gpu_plan *plan, tern_error *err) {
    CUDA_TRY(cudaMemsetAsync(plan->rules, 0, sizeof *plan->rules, plan->stream), "rules", err);
    return TERN_OK;
}

tern_status gpu_run_backward(tern_gpu_plan *plan, tern_error *err) {
    const size_t first = plan->first_trained ? plan->first_trained : 1;
    for (size_t i = plan->graph->nodes; i-- > first;)
        if (plan->node[i].op && plan->node[i].op->backward && plan->node[i].grad)
            GPU_CHECK(plan->node[i].op->backward(plan, i, err));
    return TERN_OK;
}

template <class To, class From> __global__ static void convert(To *to, const From *from, size_t n) {
    GPU_FOR(i, n) to[i] = from_float<To>(to_float(from[i]));
}

/* Between the plan's type on the device and fp32 on the host, by the staging memory. */
static tern_status take_in(tern_gpu_plan *plan, void *to, const float *from, size_t n, const char *name,
                           tern_error *err) {
    for (size_t at = 0; at < n; at += plan->staged) {
        const size_t count = n - at < plan->staged ? n - at : plan->staged;
        GPU_CHECK(tern_cuda_upload(plan->context, plan->staging, from + at, count * sizeof(float), err));
        GPU_BY_TYPE(plan->type, convert<<<gpu_blocks(plan, count), GPU_THREADS, 0, plan->stream>>>(
                                    (T *)to + at, plan->staging, count));
        CUDA_TRY(cudaGetLastError(), name, err);
    }
    return TERN_OK;
}

static tern_status give_out(tern_gpu_plan *plan, float *to, const void *from, size_t n, const char *name,
                            tern_error *err) {
    for (size_t at = 0; at < n; at += plan->staged) {
        const size_t count = n - at < plan->staged ? n - at : plan->staged;
        GPU_BY_TYPE(plan->type, convert<<<gpu_blocks(plan, count), GPU_THREADS, 0, plan->stream>>>(
                                    plan->staging, (const T *)from + at, count));
        CUDA_TRY(cudaGetLastError(), name, err);
        GPU_CHECK(tern_cuda_download(plan->context, to + at, plan->staging, count * sizeof(float), err));
    }
    return TERN_OK;
}

tern_status gpu_plan_forward(tern_gpu_plan *plan, float *y, const void *x, const tern_gpu_pass *pass,
                             tern_error *err) {
    const tern_graph *graph = plan->graph;
    CUDA_TRY(cudaSetDevice(plan->context->device), "a forward pass", err);
    plan->batch = pass->batch;
    plan->train_mode = pass->train_mode != 0;
    const gpu_now now = {pass->step, pass->recalibrating ? 1.0f / (float)pass->recalibrating : -1, 1};
    /* lambda is what the last refresh used. */
    GPU_CHECK(tern_cuda_upload(plan->context, plan->now, &now, offsetof(gpu_now, lambda), err));
    GPU_CHECK(tern_cuda_upload(plan->context, &plan->now->rate, &pass->rate, sizeof pass->rate, err));
    const size_t n = gpu_elements(plan, 0);
    if (graph->vocabulary)
        GPU_CHECK(tern_cuda_upload(plan->context, plan->input, x, n * sizeof(int32_t), err));
    else
        GPU_CHECK(take_in(plan, plan->input, (const float *)x, n, "input", err));
    GPU_CHECK(gpu_run_forward(plan, err));
    const size_t last = graph->nodes - 1;
    return y ? give_out(plan, y, plan->node[last].value, gpu_elements(plan, last), graph->node[last].name, err)
             : TERN_OK;
}

tern_status gpu_plan_backward(tern_gpu_plan *plan, const float *dy, tern_error *err) {
    const size_t last = plan->graph->nodes - 1;
    CUDA_TRY(cudaSetDevice(plan->context->device), "a backward pass", err);
    CUDA_TRY(cudaMemsetAsync(plan->grads, 0, plan->floats * sizeof(float), plan->stream), "gradients", err);
    GPU_CHECK(gpu_begin_rules(plan, err));
    GPU_CHECK(take_in(plan, plan->node[last].grad, dy, gpu_elements(plan, last), "output", err));
    plan->first_trained = 0;
    GPU_CHECK(gpu_run_backward(plan, err));
    return tern_cuda_synchronize(plan->context, err);
}

tern_status gpu_read_node(tern_gpu_plan *plan, float *out, size_t node, int which, tern_error *err) {
    const void *from = which ? plan->node[node].grad : plan->node[node].value;
    CUDA_TRY(cudaSetDevice(plan->context->device), "reading", err);
    TERN_CHECK_ARGUMENT(from && !plan->node[node].gives_int8, err, "%s is computed within another node",
                        gpu_graph_node(plan, node)->name);
    return give_out(plan, out, from, gpu_elements(plan, node), gpu_graph_node(plan, node)->name, err);
}

tern_status gpu_read_gradient(tern_gpu_plan *plan, float *out, size_t p, tern_error *err) {
    CUDA_TRY(cudaSetDevice(plan->context->device), "reading", err);
    return tern_cuda_download(plan->context, out, plan->param[p].grad, plan->graph->param[p].count * sizeof(float),
                              err);
}
