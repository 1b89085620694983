/* linear  y = x W^T + b         dx = dy W,  dW = dy^T x,  db = column sums of dy
 * conv2d  the same over windows of images; by oneDNN
 *
 * In a training pass of a plan with bf16 products, x, W and dy are rounded to bf16 before each product; every other
 * pass multiplies in fp32. */
#include <math.h>

#include "base/error.h"
#include "nn/dense.h"
#include "nn/op.h"
#include "nn/op_shapes.h"
#include "nn/op_weights.h"
#include "nn/parts.h"

tern_status tern_linear_shape(tern_graph *graph, tern_node *node, tern_error *err) {
    tern_shape s = tern_node_input(graph, node, 0)->shape;
    const tern_attrs *at = &node->at;
    TERN_CHECK_ARGUMENT(at->outputs, err, "%s: outputs is 0", node->name);
    /* Groups tell a convolution from a linear product everywhere behind this. */
    TERN_CHECK_ARGUMENT(!at->kernel && !at->stride && !at->padding && !at->groups, err,
                        "%s: a linear product has no window: kernel, stride, padding and groups must be 0",
                        node->name);
    s.dim[s.rank - 1] = node->at.outputs;
    return tern_node_set_shape(node, s.rank, s.dim[0], s.dim[1], s.dim[2], err);
}

tern_status tern_conv_shape(tern_graph *graph, tern_node *node, tern_error *err) {
    tern_attrs *at = &node->at;
    size_t ci = tern_node_input(graph, node, 0)->channels;
    if (!at->groups) at->groups = 1;
    TERN_CHECK_ARGUMENT(at->outputs, err, "%s: outputs is 0", node->name);
    TERN_CHECK_ARGUMENT(ci % at->groups == 0 && at->outputs % at->groups == 0, err,
                        "%s: %zu groups do not divide %zu inputs and %zu outputs", node->name, at->groups, ci,
                        at->outputs);
    return tern_shape_of_window(graph, node, at->outputs, 0, err);
}

size_t tern_weight_columns(const tern_graph *graph, const tern_node *node) {
    if (node->at.width) return node->at.width; /* of a table */
    size_t ci = tern_node_input(graph, node, 0)->channels;
    return node->at.groups ? node->at.kernel * node->at.kernel * ci / node->at.groups : ci;
}

tern_status tern_add_weights(tern_graph *graph, tern_node *node, tern_role role, tern_error *err) {
    size_t k = tern_weight_columns(graph, node), side = node->at.kernel;
    float gain = node->at.init_gain == 0 ? 1 : node->at.init_gain < 0 ? 0 : node->at.init_gain;
    float sigma = gain / sqrtf((float)k);
    if (node->at.frozen) role = TERN_ROLE_FROZEN;
    if (node->at.groups) {
        size_t dim[4] = {node->at.outputs, side, side, k / (side * side)};
        TERN_TRY(tern_node_add_param(graph, node, "weight", role, 4, dim, 0, sigma, err));
    } else {
        TERN_TRY(tern_node_add_param(graph, node, "weight", role, 2, (size_t[]){node->at.outputs, k}, 0, sigma, err));
    }
    return node->at.bias ? tern_node_add_vector(graph, node, "bias", TERN_ROLE_BIAS, node->at.outputs, 0, err)
                         : TERN_OK;
}

tern_conv_desc tern_node_conv(const tern_graph *graph, const tern_node *node, tern_dtype dtype) {
    const tern_shape *in = &tern_node_input(graph, node, 0)->shape;
    return (tern_conv_desc){.dtype = dtype,
                            .h = in->dim[0],
                            .w = in->dim[1],
                            .ci = in->dim[2],
                            .oh = node->shape.dim[0],
                            .ow = node->shape.dim[1],
                            .co = node->shape.dim[2],
                            .kernel = node->at.kernel,
                            .stride = node->at.stride,
                            .padding = node->at.padding,
                            .groups = node->at.groups};
}

static tern_status linear_shape(tern_graph *graph, tern_node *node, tern_error *err) {
    TERN_TRY(tern_linear_shape(graph, node, err));
    return tern_add_weights(graph, node, TERN_ROLE_WEIGHT, err);
}

static tern_status conv2d_shape(tern_graph *graph, tern_node *node, tern_error *err) {
    TERN_TRY(tern_conv_shape(graph, node, err));
    return tern_add_weights(graph, node, TERN_ROLE_WEIGHT, err);
}

/* fp32 convolution for passes without training, another for training where that is in bf16. */
typedef struct dense_state {
    tern_conv *exact, *training;
} dense_state;

/* Elements of x, W and dy (or y) of a batch. */
typedef struct dense_sizes {
    size_t x, w, y, rows, n, k;
} dense_sizes;

static dense_sizes sizes_of(const tern_plan *plan, size_t i, size_t batch) {
    const tern_node *node = tern_plan_graph_node(plan, i);
    dense_sizes s = {.rows = batch * node->rows, .n = node->channels, .k = tern_weight_columns(plan->graph, node)};
    s.x = batch * tern_node_input(plan->graph, node, 0)->elements;
    s.w = s.n * s.k;
    s.y = s.rows * s.n;
    return s;
}

static size_t operand_room(size_t elements, tern_dtype dtype) {
    return dtype == TERN_BF16 ? tern_round_up(elements * 2, 64) : 0;
}

static tern_status dense_prepare(tern_plan *plan, size_t i, tern_error *err) {
    dense_sizes s = sizes_of(plan, i, plan->batch_max);
    size_t operands =
        operand_room(s.x, plan->products) + operand_room(s.w, plan->products) + operand_room(s.y, plan->products);
    size_t added = plan->node[i].add_to[0] ? s.x * sizeof(float) : 0;
    tern_plan_want_scratch(plan, operands + added + tern_column_sums_scratch(s.n));
    (void)err;
    return TERN_OK;
}

static tern_status conv2d_prepare(tern_plan *plan, size_t i, tern_error *err) {
    TERN_TRY(dense_prepare(plan, i, err));
    void *memory;
    TERN_TRY(tern_plan_keep(plan, &memory, sizeof(dense_state), err));
    plan->node[i].state = memory;
    dense_state *state = memory;
    tern_conv_desc d = tern_node_conv(plan->graph, tern_plan_graph_node(plan, i), TERN_F32);
    TERN_TRY(tern_conv_create(&state->exact, plan->dnn, &d, err));
    d.dtype = plan->products;
    return tern_conv_create(&state->training, plan->dnn, &d, err);
}

static void conv2d_release(tern_plan *plan, size_t i) {
    dense_state *state = plan->node[i].state;
    tern_conv_free(&state->exact);
    tern_conv_free(&state->training);
}

/* `from` as operand of a training product: itself in fp32, else converted into *room, which moves on. */
static const void *operand(const tern_plan *plan, char **room, const float *from, size_t elements) {
    if (plan->products == TERN_F32) return from;
    void *to = *room;
    *room += operand_room(elements, TERN_BF16);
    tern_bf16_from_f32(plan->threads, to, from, elements);
    return to;
}

static tern_linear linear_of(const tern_plan *plan, const dense_sizes *s, tern_dtype dtype) {
    return (tern_linear){plan->dnn, dtype, s->rows, s->n, s->k};
}

static void linear_forward(tern_plan *plan, size_t i) {
    dense_sizes s = sizes_of(plan, i, plan->batch);
    const float *x = tern_plan_in(plan, i, 0), *w = tern_plan_param(plan, i, 0);
    float *y = plan->node[i].value;
    char *room = plan->scratch.data;
    tern_linear l = linear_of(plan, &s, plan->train_mode ? plan->products : TERN_F32);
    if (plan->train_mode) {
        const void *x_operand = operand(plan, &room, x, s.x);
        tern_linear_forward(&l, y, x_operand, operand(plan, &room, w, s.w));
    } else {
        tern_linear_forward(&l, y, x, w);
    }
    if (tern_plan_graph_node(plan, i)->at.bias)
        tern_scale_and_bias(plan->threads, y, s.rows, s.n, NULL, 1, tern_plan_param(plan, i, 1));
}

static void linear_backward(tern_plan *plan, size_t i) {
    dense_sizes s = sizes_of(plan, i, plan->batch);
    tern_linear l = linear_of(plan, &s, plan->products);
    char *room = plan->scratch.data;
    const float *dy32 = plan->node[i].grad;
    const void *dy = operand(plan, &room, dy32, s.y);
    float *dx = tern_plan_in_grad(plan, i, 0), *dw = tern_plan_param_grad(plan, i, 0);
    if (dw) {
        char *here = room;
        tern_linear_weight_gradient(&l, dw, dy, operand(plan, &here, tern_plan_in(plan, i, 0), s.x));
    }
    if (dx) {
        char *here = room;
        tern_linear_input_gradient(&l, dx, dy, operand(plan, &here, tern_plan_param(plan, i, 0), s.w),
                                   plan->node[i].add_to[0]);
    }
    if (tern_plan_graph_node(plan, i)->at.bias)
        tern_column_sums(plan->threads, tern_plan_param_grad(plan, i, 1), dy32, s.rows, s.n, plan->scratch.data);
}

static void conv2d_forward(tern_plan *plan, size_t i) {
    dense_sizes s = sizes_of(plan, i, plan->batch);
    const tern_node *node = tern_plan_graph_node(plan, i);
    const dense_state *state = plan->node[i].state;
    const float *x = tern_plan_in(plan, i, 0), *w = tern_plan_param(plan, i, 0);
    float *y = plan->node[i].value;
    char *room = plan->scratch.data;
    if (plan->train_mode) {
        const void *x_operand = operand(plan, &room, x, s.x);
        tern_conv_forward(state->training, plan->batch, y, x_operand, operand(plan, &room, w, s.w));
    } else {
        tern_conv_forward(state->exact, plan->batch, y, x, w);
    }
    if (node->at.bias) tern_scale_and_bias(plan->threads, y, s.rows, s.n, NULL, 1, tern_plan_param(plan, i, 1));
}

static void conv2d_backward(tern_plan *plan, size_t i) {
    dense_sizes s = sizes_of(plan, i, plan->batch);
    const tern_node *node = tern_plan_graph_node(plan, i);
    const dense_state *state = plan->node[i].state;
    char *room = plan->scratch.data;
    const float *dy32 = plan->node[i].grad;
    const void *dy = operand(plan, &room, dy32, s.y);
    float *dx = tern_plan_in_grad(plan, i, 0), *dw = tern_plan_param_grad(plan, i, 0);
    if (dw) {
        char *here = room;
        tern_conv_backward_weights(state->training, plan->batch, dw,
                                   operand(plan, &here, tern_plan_in(plan, i, 0), s.x), dy);
    }
    if (dx) {
        const void *w = operand(plan, &room, tern_plan_param(plan, i, 0), s.w);
        float *to = plan->node[i].add_to[0] ? (float *)(void *)room : dx;
        tern_conv_backward_data(state->training, plan->batch, to, dy, w);
        if (to != dx) tern_add_into(plan->threads, dx, to, s.x);
    }
    if (node->at.bias)
        tern_column_sums(plan->threads, tern_plan_param_grad(plan, i, 1), dy32, s.rows, s.n, plan->scratch.data);
}

const tern_op tern_op_linear = {.name = "linear",
                                .inputs = 1,
                                .shape = linear_shape,
                                .needs_input = 1,
                                .prepare = dense_prepare,
                                .forward = linear_forward,
                                .backward = linear_backward};

const tern_op tern_op_conv2d = {.name = "conv2d",
                                .inputs = 1,
                                .shape = conv2d_shape,
                                .needs_input = 1,
                                .prepare = conv2d_prepare,
                                .forward = conv2d_forward,
                                .backward = conv2d_backward,
                                .release = conv2d_release};
