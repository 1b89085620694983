#include "nn/plan.h"

#include <omp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "nn/layout.h"
#include "nn/op.h"

static tern_status plan_memory(tern_plan *plan, tern_error *err) {
    tern_layout layout;
    TERN_TRY(tern_layout_make(&layout, plan->graph, plan->batch_max, sizeof(float),
                              plan->training ? TERN_LAYOUT_TRAINING : 0, err));
    plan->arena_bytes = layout.bytes;
    tern_status status = TERN_OK;
    if (!tern_block_alloc(&plan->arena, plan->arena_bytes))
        status = tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE,
                           "no memory for the activations of %zu samples (%zu MiB); try a smaller batch",
                           plan->batch_max, plan->arena_bytes >> 20);
    char *base = plan->arena.data;
    for (size_t i = 1; !status && i < plan->graph->nodes; i++) {
        const tern_layout_node *at = &layout.node[i];
        tern_plan_node *node = &plan->node[i];
        if (at->has_value) node->value = (float *)(void *)(base + at->value);
        if (at->has_grad) node->grad = (float *)(void *)(base + at->grad);
        memcpy(node->wants_grad, at->wants_grad, sizeof node->wants_grad);
        memcpy(node->add_to, at->add_to, sizeof node->add_to);
    }
    tern_layout_free(&layout);
    return status;
}

static tern_status plan_gradients(tern_plan *plan, tern_error *err) {
    const tern_graph *graph = plan->graph;
    plan->param_grad = calloc(graph->params + 1, sizeof *plan->param_grad);
    if (!plan->param_grad) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for gradients");
    if (!plan->training) return TERN_OK;
    for (size_t p = 0; p < graph->params; p++)
        if (tern_param_has_gradient(&graph->param[p])) plan->gradients += tern_round_up(graph->param[p].count, 16);
    if (!tern_block_alloc(&plan->grads, plan->gradients * sizeof(float)))
        return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for %zu gradients", plan->gradients);
    float *next = plan->grads.data;
    for (size_t p = 0; p < graph->params; p++) {
        if (!tern_param_has_gradient(&graph->param[p])) continue;
        plan->param_grad[p] = next;
        next += tern_round_up(graph->param[p].count, 16);
    }
    return TERN_OK;
}

static tern_status build(tern_plan *plan, const tern_plan_desc *desc, tern_error *err) {
    tern_graph *graph = plan->graph;
    TERN_TRY(tern_graph_check(graph, err));
    TERN_CHECK_ARGUMENT(desc->batch_max, err, "a plan for batches of no samples");
    TERN_CHECK_ARGUMENT(desc->products == TERN_F32 || desc->products == TERN_BF16, err,
                        "products of type %d; fp32 and bf16 are possible", (int)desc->products);
    TERN_TRY(tern_graph_fits(graph, desc->batch_max, err));
    plan->node = calloc(graph->nodes, sizeof *plan->node);
    plan->rules.rate = calloc(graph->nodes, sizeof *plan->rules.rate);
    if (!plan->node || !plan->rules.rate) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for a plan");
    TERN_TRY(tern_dnn_create(&plan->dnn, plan->threads, err));
    TERN_TRY(plan_memory(plan, err));
    TERN_TRY(plan_gradients(plan, err));
    for (size_t i = 1; i < graph->nodes; i++)
        if (graph->node[i].op->prepare) TERN_TRY(graph->node[i].op->prepare(plan, i, err));
    if (!tern_block_alloc(&plan->scratch, plan->scratch_bytes))
        return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for %zu bytes of scratch",
                         plan->scratch_bytes);
    return TERN_OK;
}

tern_status tern_plan_create(tern_plan **out, tern_graph *graph, const tern_plan_desc *desc, tern_error *err) {
    TERN_CHECK_ARGUMENT(out && graph && desc, err, "%s is NULL", !out ? "out" : graph ? "desc" : "graph");
    *out = NULL;
    tern_plan *plan = calloc(1, sizeof *plan);
    if (!plan) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for a plan");
    plan->graph = graph;
    plan->batch_max = desc->batch_max;
    plan->training = desc->training;
    plan->threads = desc->threads > 0 ? desc->threads : omp_get_num_procs();
    plan->products = desc->products;
    plan->tier = desc->tier;
    plan->lambda = 1;
    tern_status status = build(plan, desc, err);
    if (status)
        tern_plan_free(&plan);
    else
        *out = plan;
    return status;
}

void tern_plan_free(tern_plan **plan) {
    if (!plan || !*plan) return;
    tern_plan *p = *plan;
    for (size_t i = 0; p->node && i < p->graph->nodes; i++)
        if (p->graph->node[i].op->release && p->node[i].state) p->graph->node[i].op->release(p, i);
    for (size_t i = 0; i < p->kepts; i++) tern_block_free(&p->kept[i]);
    free(p->kept);
    tern_block_free(&p->arena);
    tern_block_free(&p->grads);
    tern_block_free(&p->scratch);
    tern_dnn_free(&p->dnn);
    free(p->param_grad);
    free(p->rules.rate);
    free(p->node);
    free(p);
    *plan = NULL;
}

tern_status tern_plan_keep(tern_plan *plan, void **memory, size_t bytes, tern_error *err) {
    *memory = NULL;
    if (plan->kepts == plan->kept_room) {
        size_t room = plan->kept_room ? 2 * plan->kept_room : 32;
        tern_block *grown = realloc(plan->kept, room * sizeof *grown);
        if (!grown) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for a plan");
        plan->kept = grown;
        plan->kept_room = room;
    }
    tern_block *block = &plan->kept[plan->kepts];
    *block = (tern_block){0};
    if (!tern_block_alloc(block, bytes))
        return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for %zu bytes that a layer keeps", bytes);
    plan->kepts++;
    *memory = block->data;
    return TERN_OK;
}

void tern_plan_want_scratch(tern_plan *plan, size_t bytes) {
    plan->scratch_bytes = tern_max_size(plan->scratch_bytes, bytes);
}

tern_status tern_plan_refresh(tern_plan *plan, tern_error *err) {
    for (size_t i = 1; i < plan->graph->nodes; i++)
        if (plan->graph->node[i].op->refresh) TERN_TRY(plan->graph->node[i].op->refresh(plan, i, err));
    return TERN_OK;
}

float *tern_plan_forward(tern_plan *plan, const void *x, size_t batch) {
    const tern_graph *graph = plan->graph;
    plan->batch = batch;
    plan->node[0].value = (float *)x;
    for (size_t i = 1; i < graph->nodes; i++) {
        if (graph->node[i].op->alias)
            plan->node[i].value = tern_plan_in(plan, i, 0);
        else
            graph->node[i].op->forward(plan, i);
    }
    return plan->node[graph->nodes - 1].value;
}

void tern_plan_backward(tern_plan *plan) {
    const tern_graph *graph = plan->graph;
    plan->rules.squares = 0;
    plan->rules.trouble = 0;
    for (size_t i = graph->nodes; i-- > tern_max_size(1, plan->first_trained);)
        if (!graph->node[i].op->alias && graph->node[i].op->backward && plan->node[i].grad)
            graph->node[i].op->backward(plan, i);
}

float *tern_plan_output_grad(tern_plan *plan) { return plan->node[plan->graph->nodes - 1].grad; }

void tern_plan_zero_grad(tern_plan *plan) { memset(plan->grads.data, 0, plan->gradients * sizeof(float)); }
