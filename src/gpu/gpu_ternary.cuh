/* What the parts of a ternary node share: its state, its sizes, and scratch. Its weights are gpu_weights.cuh's; its
 * products are gpu_ternary_products.cuh's; gpu_op_ternary.cu has the op, gpu_ternary_backward.cu its gradients. */
#ifndef TERN_GPU_GPU_TERNARY_CUH
#define TERN_GPU_GPU_TERNARY_CUH

#include "gpu/gpu_conv_wgmma.cuh"
#include "gpu/gpu_plan.cuh"
#include "gpu/gpu_turned_weights.cuh"
#include "gpu/gpu_weights.cuh"

/* Of every such node, behind plan->node[i].state; weights first, as gpu_node_weights wants them. Memory is the plan's. */
struct gpu_ternary {
    gpu_weights w;
    bool int8;           /* activations */
    bool plain_gradient; /* dy takes no scales: the activations have theirs, and so have the weights */
    bool windows;        /* patches are made; else rows of the input are those of the product */
    bool direct;         /* gradients are made without patches: gpu_conv_wgmma.cuh */
    int8_t *trits;       /* [rows][columns of weights], where outputs are too: gpu_conv_int8.cuh */
    int8_t *q;           /* [batch][elements of the input], kept for the backward pass; else in scratch */
    float *inv_scale;    /* 1/s, one for each of the batch's `scales` */
    size_t packed_images, float_images; /* of a chunk, in products of trits and of floats */
    gpu_turned_weights turned;          /* where gradients of the input are int8 products */
    /* Where sums are kept: [batch_max][elements of the output], a scale of 1, and the q behind them. */
    float *sums, *one;
    int8_t *seen;
};

static inline gpu_ternary *gpu_ternary_of(const tern_gpu_plan *plan, size_t i) {
    return (gpu_ternary *)plan->node[i].state;
}

/* NULL where the node is none of these. gpu_op_ternary.cu. */
gpu_ternary *gpu_ternary_find(const tern_gpu_plan *plan, size_t node);

struct gpu_ternary_sizes {
    size_t x, y;                   /* elements of input and output */
    size_t rows, n, k;             /* output rows; outputs and their weights, of one group */
    size_t groups, columns;        /* columns: outputs of all groups */
    size_t scales, scale_elements; /* activation scales: rows, or images; input elements that share one */
    size_t rows_per_scale;         /* output rows that share one */
    size_t places;                 /* output rows of a sample */
};

static inline gpu_ternary_sizes gpu_ternary_sizes_of(const tern_gpu_plan *plan, size_t i, size_t batch) {
    const tern_node *node = gpu_graph_node(plan, i);
    const gpu_weights *w = &gpu_ternary_of(plan, i)->w;
    const bool conv = node->at.groups != 0;
    gpu_ternary_sizes s = {};
    s.places = node->rows;
    s.rows = batch * node->rows;
    s.columns = node->channels;
    s.groups = w->groups;
    s.n = w->rows / w->groups;
    s.k = w->cols;
    s.x = batch * tern_node_input(plan->graph, node, 0)->elements;
    s.y = s.rows * s.columns;
    s.scales = conv ? batch : s.rows;
    s.scale_elements = s.x / s.scales;
    s.rows_per_scale = conv ? node->rows : 1;
    return s;
}

static inline tern_dtype gpu_ternary_acts(const tern_gpu_plan *plan, const gpu_ternary *state) {
    return state->int8 ? TERN_I8 : plan->type;
}

/* NULL where it has none. */
static inline const float *gpu_ternary_bias(const tern_gpu_plan *plan, size_t i) {
    const tern_node *node = gpu_graph_node(plan, i);
    return node->at.bias ? gpu_node_param(plan, i, node->params - 1)->value : NULL;
}

/* Scratch is taken a piece behind the other: what one of so many bytes takes, and the next. */
static inline size_t gpu_room(size_t bytes) { return gpu_round_up(bytes, 256); }

static inline char *gpu_take(char **room, size_t bytes) {
    char *taken = *room;
    *room += gpu_room(bytes);
    return taken;
}

/* gpu_ternary_backward.cu. Scratch of a plan for training, its float product in the forward pass included. */
size_t gpu_ternary_training_scratch(const tern_gpu_plan *plan, size_t node, const gpu_ternary *state,
                                    const gpu_ternary_sizes &s);
tern_status gpu_ternary_backward(tern_gpu_plan *plan, size_t node, tern_error *err);
tern_status gpu_trit_backward(tern_gpu_plan *plan, size_t node, tern_error *err);

#endif
