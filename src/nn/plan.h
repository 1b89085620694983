/* A plan: a graph made ready to run on the CPU for batches up to a size, for training or for inference. All memory is
 * taken when it is made; running allocates nothing.
 *
 * Values and their gradients live in one arena each of them for as long as it is needed: the forward pass is time
 * 0 .. nodes - 1, the backward pass of node i is time 2 * nodes - 1 - i, and what does not overlap in time may
 * overlap in memory. Threads never change a result: loops are cut into parts by shape alone, and sums over parts are
 * taken in order. */
#ifndef TERN_NN_PLAN_H
#define TERN_NN_PLAN_H

#include "base/memory.h"
#include "nn/dnn.h"
#include "nn/nodes.h"

typedef struct tern_plan_node {
    float *value;      /* [batch][elements]; of the input: the caller's */
    float *grad;       /* the same shape, NULL where no gradient is wanted */
    void *state;       /* what the op keeps */
    int add_to[2];     /* backward adds to the gradient of input i instead of setting it */
    int wants_grad[2]; /* input i has a gradient */
} tern_plan_node;

/* What the rules of whole-number weights do in a backward pass. plan->step numbers it in their random streams. */
typedef struct tern_plan_rules {
    int32_t *rate;  /* per node, Q12 counts (quant/trit_rules.h); all 0: nothing changes */
    double squares; /* of all gradients that streamed past in this pass, summed */
    size_t trouble; /* the node whose gradient was not finite: from there on nothing changed in this pass. Else 0 */
} tern_plan_rules;

typedef struct tern_plan {
    tern_graph *graph;
    size_t batch_max, batch;
    int training;      /* made for training */
    int train_mode;    /* this pass: dropout drops, batch norm takes the batch's statistics */
    int recalibrating; /* this pass: batch norm averages statistics over `recalibrating` passes so far */
    int threads;       /* 1 .. */
    tern_tier tier;
    tern_dtype products;  /* TERN_F32 or TERN_BF16: operands of dense float products in training; sums are fp32 */
    uint64_t seed, step;  /* of random numbers in this pass */
    float lambda;         /* weights are w + lambda (q(w) - w); 1: ternary */
    int count_trits;      /* the next refresh counts them */
    size_t first_trained; /* node: a backward pass ends there, gradients in front of it stay as they are; 0: none */
    tern_plan_rules rules;

    tern_plan_node *node;
    float **param_grad; /* per parameter [count], NULL where it is not trained */
    size_t gradients;   /* floats in all param_grad, which lie one behind the other */
    tern_block grads;   /* ... in this block */
    tern_block arena;
    size_t arena_bytes;
    tern_block *kept; /* what ops keep */
    size_t kepts, kept_room;
    tern_block scratch;
    size_t scratch_bytes;
    tern_dnn *dnn;
} tern_plan;

typedef struct tern_plan_desc {
    size_t batch_max;
    int training;
    int threads;         /* 0: all processors */
    tern_dtype products; /* TERN_F32 or TERN_BF16 */
    tern_tier tier;      /* of the ternary products' kernels; TERN_TIER_AUTO unless pinned */
} tern_plan_desc;

tern_status tern_plan_create(tern_plan **out, tern_graph *graph, const tern_plan_desc *desc, tern_error *err);
void tern_plan_free(tern_plan **plan);

/* After the parameters have changed. */
tern_status tern_plan_refresh(tern_plan *plan, tern_error *err);

/* x: [batch][elements] floats, or int32 tokens. Returns the output [batch][elements], valid until the next pass. */
float *tern_plan_forward(tern_plan *plan, const void *x, size_t batch);

/* True when node i is a product of int8 activations: after a forward pass its integer sums can be had. */
int tern_plan_has_sums(const tern_plan *plan, size_t i);
/* Integers in them, for the last pass's batch. */
size_t tern_plan_sums_count(const tern_plan *plan, size_t i);
/* sums[rows][outputs] of the last pass, computed again from the activations that the op kept. */
tern_status tern_plan_sums(int32_t *sums, const tern_plan *plan, size_t i, tern_error *err);
/* The int8 activations behind them, tern_plan_activations_count of them, replaced by others: sums are then of
 * those. */
size_t tern_plan_activations_count(const tern_plan *plan, size_t i);
void tern_plan_set_activations(tern_plan *plan, size_t i, const int8_t *q);

/* The gradient of the output must be set (tern_plan_output_grad). Parameter gradients are added to. */
void tern_plan_backward(tern_plan *plan);
float *tern_plan_output_grad(tern_plan *plan);
void tern_plan_zero_grad(tern_plan *plan);

/* For ops, in prepare: zeroed memory that lives as long as the plan. */
tern_status tern_plan_keep(tern_plan *plan, void **memory, size_t bytes, tern_error *err);
/* For ops, in prepare: scratch of at least so many bytes in every pass, 64-byte aligned. */
void tern_plan_want_scratch(tern_plan *plan, size_t bytes);

static inline const tern_node *tern_plan_graph_node(const tern_plan *plan, size_t node) {
    return &plan->graph->node[node];
}
static inline float *tern_plan_in(const tern_plan *plan, size_t node, int i) {
    return plan->node[plan->graph->node[node].input[i]].value;
}
/* The gradient of input i, NULL where none is wanted. */
static inline float *tern_plan_in_grad(const tern_plan *plan, size_t node, int i) {
    size_t in = (size_t)plan->graph->node[node].input[i];
    return plan->node[node].wants_grad[i] && in >= plan->first_trained ? plan->node[in].grad : 0;
}
static inline const float *tern_plan_param(const tern_plan *plan, size_t node, int i) {
    return plan->graph->param[plan->graph->node[node].param[i]].value;
}
static inline float *tern_plan_param_grad(const tern_plan *plan, size_t node, int i) {
    return plan->param_grad[plan->graph->node[node].param[i]];
}

#endif
