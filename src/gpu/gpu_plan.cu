#include "gpu/gpu_plan.cuh"

#include <stdlib.h>
#include <string.h>

#include "gpu/gpu_branches.cuh"
#include "gpu/gpu_gemm.cuh"
#include "gpu/gpu_kernels.cuh"
#include "gpu/gpu_trainer.cuh"
#include "gpu/gpu_trits.cuh"
#include "gpu/gpu_weights.cuh"

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
        plan->node[i].op = gpu_op_find(layout->node[i].normed   ? pool_or_not
                                       : layout->node[i].scaled ? "affine"
                                                                : node->op->name);
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
    GPU_CHECK(gpu_keep(plan, &memory, GPU_STAGED * sizeof(float), "input", err));
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

static void plan_release(tern_gpu_plan *plan) {
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

static tern_status plan_create(tern_gpu_plan **out, tern_cuda_context *context, const tern_gpu_plan_desc *desc,
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
        plan_release(plan);
    else
        *out = plan;
    return status;
}

static size_t plan_bytes(const tern_gpu_plan *plan) {
    return plan->kept_bytes + (plan->trainer ? plan->trainer->block_room : 0);
}

/* ---- parameters */

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

static tern_status plan_send(tern_gpu_plan *plan, float lambda, tern_error *err) {
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

static tern_status plan_fetch(tern_gpu_plan *plan, tern_error *err) {
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

/* ---- passes */

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
    for (size_t at = 0; at < n; at += GPU_STAGED) {
        const size_t count = n - at < GPU_STAGED ? n - at : (size_t)GPU_STAGED;
        GPU_CHECK(tern_cuda_upload(plan->context, plan->staging, from + at, count * sizeof(float), err));
        GPU_BY_TYPE(plan->type, convert<<<gpu_blocks(plan, count), GPU_THREADS, 0, plan->stream>>>(
                                    (T *)to + at, plan->staging, count));
        CUDA_TRY(cudaGetLastError(), name, err);
    }
    return TERN_OK;
}

static tern_status give_out(tern_gpu_plan *plan, float *to, const void *from, size_t n, const char *name,
                            tern_error *err) {
    for (size_t at = 0; at < n; at += GPU_STAGED) {
        const size_t count = n - at < GPU_STAGED ? n - at : (size_t)GPU_STAGED;
        GPU_BY_TYPE(plan->type, convert<<<gpu_blocks(plan, count), GPU_THREADS, 0, plan->stream>>>(
                                    plan->staging, (const T *)from + at, count));
        CUDA_TRY(cudaGetLastError(), name, err);
        GPU_CHECK(tern_cuda_download(plan->context, to + at, plan->staging, count * sizeof(float), err));
    }
    return TERN_OK;
}

static tern_status plan_forward(tern_gpu_plan *plan, float *y, const void *x, const tern_gpu_pass *pass,
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

static tern_status plan_backward(tern_gpu_plan *plan, const float *dy, tern_error *err) {
    const size_t last = plan->graph->nodes - 1;
    CUDA_TRY(cudaSetDevice(plan->context->device), "a backward pass", err);
    CUDA_TRY(cudaMemsetAsync(plan->grads, 0, plan->floats * sizeof(float), plan->stream), "gradients", err);
    GPU_CHECK(gpu_begin_rules(plan, err));
    GPU_CHECK(take_in(plan, plan->node[last].grad, dy, gpu_elements(plan, last), "output", err));
    plan->first_trained = 0;
    GPU_CHECK(gpu_run_backward(plan, err));
    return tern_cuda_synchronize(plan->context, err);
}

static tern_status read_node(tern_gpu_plan *plan, float *out, size_t node, int which, tern_error *err) {
    const void *from = which ? plan->node[node].grad : plan->node[node].value;
    CUDA_TRY(cudaSetDevice(plan->context->device), "reading", err);
    TERN_CHECK_ARGUMENT(from && !plan->node[node].gives_int8, err, "%s is computed within another node",
                        gpu_graph_node(plan, node)->name);
    return give_out(plan, out, from, gpu_elements(plan, node), gpu_graph_node(plan, node)->name, err);
}

static tern_status read_gradient(tern_gpu_plan *plan, float *out, size_t p, tern_error *err) {
    CUDA_TRY(cudaSetDevice(plan->context->device), "reading", err);
    return tern_cuda_download(plan->context, out, plan->param[p].grad, plan->graph->param[p].count * sizeof(float),
                              err);
}

static tern_status step_fixed(tern_gpu_plan *plan, size_t p, float lr, uint64_t step, tern_error *err) {
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

static tern_status read_trits(tern_gpu_plan *plan, tern_gpu_trits *out, size_t node, tern_error *err) {
    const gpu_weights *w = gpu_node_weights(plan, node);
    CUDA_TRY(cudaSetDevice(plan->context->device), "reading", err);
    TERN_CHECK_ARGUMENT(w && w->counts, err, "%s: there are no trits to count", gpu_graph_node(plan, node)->name);
    return tern_cuda_download(plan->context, out, w->counts, sizeof *out, err);
}

static void plan_memory(tern_gpu_memory *out, const tern_gpu_plan *plan) {
    out->bytes = plan->kept_bytes;
    out->workspace = plan->lt ? GPU_LT_WORKSPACE : 0;
}

static tern_status keep_sums(tern_gpu_plan *plan, tern_error *err) {
    CUDA_TRY(cudaSetDevice(plan->context->device), "keeping sums", err);
    TERN_CHECK_ARGUMENT(plan->type == TERN_F32 && !plan->training, err,
                        "sums are kept by plans of fp32 values that are not for training");
    for (size_t i = 1; i < plan->graph->nodes; i++) GPU_CHECK(gpu_ternary_keep_sums(plan, i, err));
    return TERN_OK;
}

static tern_status read_sums(tern_gpu_plan *plan, int32_t *sums, int8_t *q, size_t node, tern_error *err) {
    CUDA_TRY(cudaSetDevice(plan->context->device), "reading", err);
    return gpu_ternary_read_sums(plan, sums, q, node, err);
}

const tern_gpu_table tern_gpu_functions = {plan_create,
                                           plan_release,
                                           plan_bytes,
                                           plan_send,
                                           plan_fetch,
                                           plan_forward,
                                           plan_backward,
                                           read_node,
                                           read_gradient,
                                           read_trits,
                                           plan_memory,
                                           gpu_time_forward,
                                           keep_sums,
                                           read_sums,
                                           gpu_trainer_set_optimizer,
                                           gpu_trainer_images,
                                           gpu_trainer_tokens,
                                           gpu_trainer_send_state,
                                           gpu_trainer_fetch_state,
                                           gpu_trainer_set_counts,
                                           gpu_trainer_step,
                                           gpu_trainer_result,
                                           gpu_trainer_recalibrate,
                                           step_fixed};
