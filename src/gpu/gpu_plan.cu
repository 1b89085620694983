#include "gpu/gpu_functions.cuh"

#include <stdlib.h>
#include <string.h>

#include "gpu/gpu_gemm.cuh"
#include "gpu/gpu_kernels.cuh"
#include "gpu/gpu_trainer.cuh"

#include "cuda/device_memory.cuh"

/* ---- memory */

tern_status gpu_keep(tern_gpu_plan *plan, void **memory, size_t bytes, const char *op, tern_error *err) {
    *memory = NULL;
    if (plan->kepts == plan->kept_room) {
        const size_t room = plan->kept_room ? 2 * plan->kept_room : 64;
        void **grown = (void **)realloc(plan->kept, room * sizeof *grown);
        if (!grown) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for a plan");
        plan->kept = grown;
        plan->kept_room = room;
    }
    GPU_CHECK(tern_cuda_alloc(memory, plan->context, bytes, op, err));
    plan->kept[plan->kepts++] = *memory;
    plan->kept_bytes += bytes;
    return TERN_OK;
}

tern_status gpu_state(tern_gpu_plan *plan, size_t node, size_t bytes, tern_error *err) {
    plan->node[node].state = calloc(1, bytes);
    if (plan->node[node].state) return TERN_OK;
    return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "%s: no memory for a plan", gpu_graph_node(plan, node)->name);
}

/* ---- making one */

/* Rules step whole numbers while their gradient streams past, before anyone knows whether one overflows in front. */
static tern_status check_values(const tern_gpu_plan_desc *desc, tern_error *err) {
    TERN_CHECK_ARGUMENT(desc->values == TERN_F32 || desc->products == desc->values, err,
                        "values of 16 bits take products of their own type");
    TERN_CHECK_ARGUMENT(desc->products != TERN_F16 || desc->values == TERN_F16, err,
                        "products of fp16 take values of fp16, whose loss is scaled");
    for (size_t p = 0; p < desc->graph->params; p++)
        if (desc->graph->param[p].integers && desc->training && desc->values == TERN_F16)
            return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE,
                             "%s: whole numbers are trained with values of fp32 or bf16, not with fp16, whose "
                             "overflows would be seen too late",
                             desc->graph->param[p].name);
    return TERN_OK;
}

static tern_status find_ops(tern_gpu_plan *plan, const tern_layout *layout, tern_error *err) {
    for (size_t i = 1; i < plan->graph->nodes; i++) {
        const tern_node *node = gpu_graph_node(plan, i);
        plan->node[i].within = layout->node[i].within;
        memcpy(plan->node[i].from, layout->node[i].from, sizeof plan->node[i].from);
        if (node->op->alias || plan->node[i].within) continue;
        const char *pool_or_not = !strcmp(node->op->name, "max_pool") ? "batch_norm_pool" : "batch_norm";
        plan->node[i].op = gpu_op_find(layout->node[i].normed ? pool_or_not : node->op->name);
        if (!plan->node[i].op)
            return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE,
                             "%s: the operation %s does not run on a GPU yet; take the CPU", node->name,
                             node->op->name);
    }
    return TERN_OK;
}

static tern_status place_params(tern_gpu_plan *plan, tern_error *err) {
    const tern_graph *graph = plan->graph;
    for (size_t p = 0; p < graph->params; p++)
        if (graph->param[p].value) plan->floats += gpu_round_up(graph->param[p].count, 64);
    void *values, *grads = NULL;
    GPU_CHECK(gpu_keep(plan, &values, plan->floats * sizeof(float), "parameters", err));
    if (plan->training) GPU_CHECK(gpu_keep(plan, &grads, plan->floats * sizeof(float), "gradients", err));
    CUDA_TRY(cudaMemsetAsync(values, 0, plan->floats * sizeof(float), plan->stream), "parameters", err);
    plan->values = (float *)values;
    plan->grads = (float *)grads;
    size_t next = 0;
    for (size_t p = 0; p < graph->params; p++) {
        if (!graph->param[p].value) continue;
        plan->param[p].value = plan->values + next;
        if (plan->training && tern_param_has_gradient(&graph->param[p])) plan->param[p].grad = plan->grads + next;
        next += gpu_round_up(graph->param[p].count, 64);
    }
    return TERN_OK;
}

static tern_status place_integers(tern_gpu_plan *plan, tern_error *err) {
    const tern_graph *graph = plan->graph;
    size_t bytes = 0;
    void *memory;
    for (int pass = 0; pass < 2; pass++) {
        size_t next = 0;
        for (size_t p = 0; p < graph->params; p++) {
            const tern_param *param = &graph->param[p];
            if (!param->integers) continue;
            if (pass) plan->param[p].integers = plan->integers + next;
            next += gpu_round_up(param->count * tern_store_bytes(param->store), 256);
        }
        bytes = next;
        if (pass || !bytes) return TERN_OK;
        GPU_CHECK(gpu_keep(plan, &memory, bytes, "parameters", err));
        plan->integers = (char *)memory;
    }
    return TERN_OK;
}

static tern_status place_values(tern_gpu_plan *plan, const tern_layout *layout, tern_error *err) {
    const tern_graph *graph = plan->graph;
    plan->arena_bytes = layout->bytes;
    GPU_CHECK(gpu_keep(plan, &plan->arena, layout->bytes, "activations", err));
    for (size_t i = 1; i < graph->nodes; i++) {
        const tern_layout_node *at = &layout->node[i];
        gpu_node *node = &plan->node[i];
        if (at->within) continue;
        if (at->has_value) node->value = (char *)plan->arena + at->value;
        if (at->has_grad) node->grad = (char *)plan->arena + at->grad;
        memcpy(node->wants_grad, at->wants_grad, sizeof node->wants_grad);
        memcpy(node->add_to, at->add_to, sizeof node->add_to);
    }
    const size_t in = graph->node[0].elements;
    void *memory;
    GPU_CHECK(gpu_keep(plan, &plan->input, in * plan->batch_max * sizeof(float), "input", err));
    const size_t out = graph->node[graph->nodes - 1].elements, most = (in > out ? in : out) * plan->batch_max;
    plan->staged = most < GPU_MOST_STAGED ? most : GPU_MOST_STAGED;
    GPU_CHECK(gpu_keep(plan, &memory, plan->staged * sizeof(float), "input", err));
    plan->staging = (float *)memory;
    plan->node[0].value = plan->input;
    for (size_t i = 1; i < graph->nodes; i++) /* of the input under other shapes */
        if (!layout->node[i].has_value) plan->node[i].value = plan->input;
    return TERN_OK;
}

static tern_status build(tern_gpu_plan *plan, const tern_gpu_plan_desc *desc, tern_error *err) {
    const tern_graph *graph = desc->graph;
    void *memory;
    plan->node = (gpu_node *)calloc(graph->nodes, sizeof *plan->node);
    plan->param = (gpu_param *)calloc(graph->params + 1, sizeof *plan->param);
    if (!plan->node || !plan->param) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for a plan");
    GPU_CHECK(find_ops(plan, desc->layout, err));
    GPU_CHECK(place_params(plan, err));
    GPU_CHECK(place_integers(plan, err));
    GPU_CHECK(place_values(plan, desc->layout, err));
    GPU_CHECK(gpu_keep(plan, &memory, sizeof *plan->now, "a plan", err));
    plan->now = (gpu_now *)memory;
    GPU_CHECK(gpu_keep(plan, &memory, sizeof *plan->rules, "a plan", err));
    plan->rules = (gpu_rules *)memory;
    GPU_CHECK(gpu_begin_rules(plan, err));
    if (plan->training) gpu_want_scratch(plan, gpu_fixed_scratch(graph));
    for (size_t i = 1; i < graph->nodes; i++)
        if (plan->node[i].op && plan->node[i].op->prepare) GPU_CHECK(plan->node[i].op->prepare(plan, i, err));
    if (plan->wants_lt || plan->training) GPU_CHECK(gpu_lt_create(plan, err));
    return gpu_keep(plan, &plan->scratch, plan->scratch_bytes, "scratch", err);
}

void gpu_plan_release(tern_gpu_plan *plan) {
    if (!plan) return;
    cudaSetDevice(plan->context->device);
    cudaStreamSynchronize(plan->stream);
    gpu_trainer_free(plan);
    gpu_lt_free(plan);
    for (size_t i = 0; i < plan->kepts; i++) cudaFree(plan->kept[i]);
    for (size_t i = 0; plan->node && i < plan->graph->nodes; i++) free(plan->node[i].state);
    free(plan->kept);
    free(plan->node);
    free(plan->param);
    free(plan);
}

tern_status gpu_plan_create(tern_gpu_plan **out, tern_cuda_context *context, const tern_gpu_plan_desc *desc,
                            tern_error *err) {
    *out = NULL;
    CUDA_TRY(cudaSetDevice(context->device), "a plan", err);
    GPU_CHECK(check_values(desc, err));
    tern_gpu_plan *plan = (tern_gpu_plan *)calloc(1, sizeof *plan);
    if (!plan) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for a plan");
    plan->context = context;
    plan->stream = context->stream;
    plan->graph = desc->graph;
    plan->batch_max = desc->batch_max;
    plan->type = desc->values;
    plan->products = desc->products;
    plan->training = desc->training != 0;
    if (plan->training) context->serial = true; /* its kernels write weights, which products read ahead */
    plan->int8_gradients = desc->int8_gradients != 0;
    plan->seed = desc->seed;
    plan->pinned = desc->pinned;
    plan->measured = desc->measured;
    const tern_status status = build(plan, desc, err);
    if (status)
        gpu_plan_release(plan);
    else
        *out = plan;
    return status;
}

size_t gpu_plan_bytes(const tern_gpu_plan *plan) {
    return plan->kept_bytes + (plan->trainer ? plan->trainer->block_room : 0);
}
