/* The parameters of a plan: from the graph to the device and back, and what layers make of them when they have
 * changed. */
#include <string.h>

#include "gpu/gpu_branches.cuh"
#include "gpu/gpu_functions.cuh"
#include "gpu/gpu_kernels.cuh"
#include "gpu/gpu_trainer.cuh"
#include "gpu/gpu_trits.cuh"
#include "gpu/gpu_weights.cuh"

#include "cuda/device_memory.cuh"

/* Weights behind latents: a few small launches that take no scratch. */
static bool refreshes_apart(const tern_gpu_plan *plan, size_t i) {
    const char *name = gpu_graph_node(plan, i)->op->name;
    return !strncmp(name, "bit_", 4) || !strncmp(name, "ternary_", 8);
}

static tern_status refresh_apart(tern_gpu_plan *plan, tern_error *err) {
    tern_status status = TERN_OK;
    GPU_CHECK(gpu_weights_list_refresh(&plan->trainer->weights, plan, err));
    GPU_CHECK(gpu_branches_begin(plan, err));
    for (size_t i = 1, next = 0; i < plan->graph->nodes && !status; i++) {
        if (!plan->node[i].op || !plan->node[i].op->refresh || !refreshes_apart(plan, i)) continue;
        gpu_branch(plan, next++);
        status = plan->node[i].op->refresh(plan, i, err);
    }
    return gpu_branches_end(plan, status, err);
}

static tern_status turn_weights(tern_gpu_plan *plan, bool branches, tern_error *err) {
    tern_status status = TERN_OK;
    if (branches) GPU_CHECK(gpu_branches_begin(plan, err));
    for (size_t i = 1; i < plan->graph->nodes && !status; i++) {
        if (branches) gpu_branch(plan, i);
        status = gpu_ternary_turn(plan, i, err);
    }
    return branches ? gpu_branches_end(plan, status, err) : status;
}

tern_status gpu_refresh(tern_gpu_plan *plan, tern_error *err) {
    const bool branches = plan->trainer && plan->trainer->branches;
    if (branches) GPU_CHECK(refresh_apart(plan, err));
    for (size_t i = 1; i < plan->graph->nodes; i++)
        if (plan->node[i].op && plan->node[i].op->refresh && !(branches && refreshes_apart(plan, i)))
            GPU_CHECK(plan->node[i].op->refresh(plan, i, err));
    return plan->int8_gradients ? turn_weights(plan, branches, err) : TERN_OK;
}

void *gpu_node_integers(const tern_gpu_plan *plan, size_t i, const char *suffix) {
    const tern_node *node = gpu_graph_node(plan, i);
    for (int k = 0; k < node->params; k++) {
        const char *dot = strrchr(plan->graph->param[node->param[k]].name, '.');
        if (dot && !strcmp(dot + 1, suffix)) return plan->param[node->param[k]].integers;
    }
    return NULL;
}

tern_status gpu_plan_send(tern_gpu_plan *plan, float lambda, tern_error *err) {
    CUDA_TRY(cudaSetDevice(plan->context->device), "parameters", err);
    for (size_t p = 0; p < plan->graph->params; p++) {
        const tern_param *param = &plan->graph->param[p];
        if (plan->param[p].integers)
            GPU_CHECK(tern_cuda_upload(plan->context, plan->param[p].integers, param->integers,
                                       param->count * tern_store_bytes(param->store), err));
        if (plan->param[p].value)
            GPU_CHECK(tern_cuda_upload(plan->context, plan->param[p].value, param->value,
                                       param->count * sizeof(float), err));
    }
    const gpu_now now = {0, -1, lambda};
    GPU_CHECK(tern_cuda_upload(plan->context, plan->now, &now, sizeof now, err));
    plan->lambda = lambda;
    plan->mixed = plan->training && lambda < 1;
    GPU_CHECK(gpu_refresh(plan, err));
    return tern_cuda_synchronize(plan->context, err);
}

tern_status gpu_plan_fetch(tern_gpu_plan *plan, tern_error *err) {
    CUDA_TRY(cudaSetDevice(plan->context->device), "parameters", err);
    for (size_t p = 0; p < plan->graph->params; p++) {
        const tern_param *param = &plan->graph->param[p];
        if (plan->param[p].integers)
            GPU_CHECK(tern_cuda_download(plan->context, param->integers, plan->param[p].integers,
                                         param->count * tern_store_bytes(param->store), err));
        if (plan->param[p].value)
            GPU_CHECK(tern_cuda_download(plan->context, param->value, plan->param[p].value,
                                         param->count * sizeof(float), err));
    }
    return TERN_OK;
}

tern_status gpu_step_fixed(tern_gpu_plan *plan, size_t p, float lr, uint64_t step, tern_error *err) {
    struct {
        tern_gpu_rule rule;
        uint64_t step;
    } host = {{0, 0, lr, 0}, step};
    void *memory;
    CUDA_TRY(cudaSetDevice(plan->context->device), "a step", err);
    GPU_CHECK(tern_cuda_alloc(&memory, plan->context, sizeof host, "a step", err));
    const char *device = (const char *)memory;
    tern_status status = tern_cuda_upload(plan->context, memory, &host, sizeof host, err);
    if (!status)
        status = gpu_fixed_step(plan, p, (const tern_gpu_rule *)memory,
                                (const uint64_t *)(device + offsetof(decltype(host), step)), 1, NULL, err);
    if (!status) status = tern_cuda_synchronize(plan->context, err);
    tern_cuda_free(plan->context, memory);
    return status;
}

tern_status gpu_read_trits(tern_gpu_plan *plan, tern_gpu_trits *out, size_t node, tern_error *err) {
    const gpu_weights *w = gpu_node_weights(plan, node);
    CUDA_TRY(cudaSetDevice(plan->context->device), "reading", err);
    TERN_CHECK_ARGUMENT(w && w->counts, err, "%s: there are no trits to count", gpu_graph_node(plan, node)->name);
    return tern_cuda_download(plan->context, out, w->counts, sizeof *out, err);
}
