/* rmsnorm, layernorm: nn/op_norm.c's formulas, with mean 0 for rmsnorm; the kernels are gpu_norm_forward.cu and
 * gpu_norm_gradient.cu.
 *
 * Some neighbours are taken in, as they would only pass the row on. An activation in front of the norm alone
 * (layout.h) is applied to values as they are read. Where a product of int8 activations is the only reader, the norm
 * gives it these, and no value of its own: they are of the fp32 values, as on the CPU. Such a norm also makes the sum
 * that it reads. Behind attention the gradient gives the row sums of dy y that attention's gradient begins with. */
#include <string.h>

#include "gpu/gpu_attention.cuh"
#include "gpu/gpu_norm.cuh"
#include "gpu/gpu_norm_of_rows.cuh"
#include "gpu/gpu_quantize.cuh"

struct norm_state {
    row_moments *moments;
    bool squares;       /* relu2 is within */
    size_t int8_reader; /* the product that takes int8, 0: none */
    size_t addition;    /* the node whose value is made here, 0: none */
    float *delta;       /* of the attention in front, made here; NULL: none */
};

static norm_state *state_of(const tern_gpu_plan *plan, size_t i) { return (norm_state *)plan->node[i].state; }

static row_norm norm_of(const tern_gpu_plan *plan, size_t i, int centred) {
    const tern_node *node = gpu_graph_node(plan, i);
    row_norm m = {};
    m.rows = plan->batch * node->rows;
    m.n = node->channels;
    m.gain = node->params > 0 ? gpu_node_param(plan, i, 0)->value : NULL;
    m.bias = node->params > 1 ? gpu_node_param(plan, i, 1)->value : NULL;
    m.moments = state_of(plan, i)->moments;
    m.epsilon = node->at.epsilon;
    m.centred = centred;
    m.squares = state_of(plan, i)->squares;
    return m;
}

/* ---- neighbours that are taken in */

/* The only reader of node i; else 0. */
static size_t find_reader(const tern_gpu_plan *plan, size_t i) {
    size_t reader = 0, count = 0;
    for (size_t r = i + 1; r < plan->graph->nodes; r++)
        for (int k = 0; k < plan->graph->node[r].inputs; k++)
            if ((size_t)plan->graph->node[r].input[k] == i) {
                reader = r;
                count++;
            }
    return count == 1 ? reader : 0;
}

/* That reader if it takes int8 of the rows; else 0. */
static size_t find_int8_reader(const tern_gpu_plan *plan, size_t i) {
    const size_t reader = find_reader(plan, i);
    return reader && gpu_takes_int8_rows(gpu_graph_node(plan, reader)) ? reader : 0;
}

/* In training, the addition right in front of node i, which is its input: what it adds is there still when the norm's
 * turn comes, and the norm, which has no value, takes no memory of it. Else 0. Deployed, a product may make the norm
 * instead, and reads the sum itself. */
static size_t find_addition(const tern_gpu_plan *plan, size_t i) {
    const size_t in = (size_t)plan->node[i].from[0];
    const bool is_added = in + 1 == i && plan->node[in].op && !strcmp(gpu_graph_node(plan, in)->op->name, "add");
    return plan->training && plan->node[i].gives_int8 && is_added ? in : 0;
}

/* Sums over the heads of attention in front, whose only reader this norm is: neighbours of whole packs have a head,
 * and all threads of a warp have heads. */
static head_sums heads_in_front(const tern_gpu_plan *plan, size_t i) {
    enum { PACK = 8 };
    const size_t in = (size_t)gpu_graph_node(plan, i)->input[0];
    const tern_node *node = gpu_graph_node(plan, in);
    head_sums s = {};
    if (!plan->training || plan->type == TERN_F32 || strcmp(node->op->name, "attention") ||
        find_reader(plan, in) != i)
        return s;
    const size_t width = node->channels / node->at.heads, lanes = width / PACK;
    const bool divides =
        width % PACK == 0 && lanes && lanes <= 32 && 32 % lanes == 0 && node->channels % (32 * PACK) == 0;
    if (!divides || !gpu_norm_fits(node->channels)) return s;
    s.heads = (unsigned)node->at.heads;
    s.tokens = (unsigned)node->shape.dim[0];
    s.lanes = (unsigned)lanes;
    return s;
}

/* ---- the operations */

static tern_status prepare(tern_gpu_plan *plan, size_t i, tern_error *err) {
    const tern_node *node = gpu_graph_node(plan, i);
    GPU_CHECK(gpu_state(plan, i, sizeof(norm_state), err));
    norm_state *state = state_of(plan, i);
    state->squares = plan->node[node->input[0]].within != 0;
    state->int8_reader = find_int8_reader(plan, i);
    plan->node[i].gives_int8 = state->int8_reader != 0;
    state->addition = find_addition(plan, i);
    if (state->addition) GPU_CHECK(gpu_state(plan, state->addition, 1, err)); /* tells it so */
    if (heads_in_front(plan, i).lanes)
        GPU_CHECK(gpu_attention_take_delta(plan, (size_t)node->input[0], &state->delta, err));
    const size_t pairs = gpu_pair_sums_scratch(plan->type, node->channels);
    const size_t parts = NORM_PARTS * node->channels * sizeof(float);
    if (plan->training) gpu_want_scratch(plan, pairs > parts ? pairs : parts);
    return gpu_keep(plan, (void **)&state->moments, plan->batch_max * node->rows * sizeof(row_moments), node->name,
                    err);
}

template <int CENTRED> static tern_status forward(tern_gpu_plan *plan, size_t i, tern_error *err) {
    const size_t reader = state_of(plan, i)->int8_reader, addition = state_of(plan, i)->addition;
    if (reader && gpu_reader_normalises(plan, reader)) return TERN_OK;
    norm_arrays a = {};
    a.x = addition ? gpu_in(plan, addition, 0) : gpu_in(plan, i, 0);
    a.other = addition ? gpu_in(plan, addition, 1) : NULL;
    a.sum = addition ? gpu_in(plan, i, 0) : NULL;
    a.y = plan->node[i].value;
    a.q = reader ? plan->node[reader].q : NULL;
    a.inv_scale = reader ? plan->node[reader].inv_scale : NULL;
    return gpu_norm_forward(plan, i, norm_of(plan, i, CENTRED), a, err);
}

bool gpu_norm_of_rows(const tern_gpu_plan *plan, size_t i, tern_row_norm *norm) {
    const row_norm m = norm_of(plan, i, 0);
    *norm = {1, m.squares, m.epsilon, m.gain};
    return !strcmp(gpu_graph_node(plan, i)->op->name, "rmsnorm");
}

template <int CENTRED> static tern_status backward(tern_gpu_plan *plan, size_t i, tern_error *err) {
    const row_norm m = norm_of(plan, i, CENTRED);
    float *dgain = m.gain ? gpu_node_param(plan, i, 0)->grad : NULL;
    float *dbias = m.bias ? gpu_node_param(plan, i, 1)->grad : NULL;
    const bool with_dx = dgain && !dbias && gpu_norm_fits(m.n);
    float *parts = with_dx ? (float *)plan->scratch : NULL;
    head_sums of_heads = heads_in_front(plan, i);
    of_heads.delta = state_of(plan, i)->delta;
    GPU_CHECK(gpu_norm_gradient(plan, i, m, parts, of_heads, err));
    if (with_dx) return gpu_norm_add_parts(plan, i, m, dgain, parts, err);
    return dgain || dbias ? gpu_norm_sum_gradients(plan, i, m, dgain, dbias, err) : TERN_OK;
}

extern const gpu_op gpu_op_rmsnorm = {"rmsnorm", prepare, NULL, forward<0>, backward<0>};
/* Its gain is a view of integers, which the optimiser steps. */
extern const gpu_op gpu_op_trit_rmsnorm = {"trit_rmsnorm", prepare, NULL, forward<0>, backward<0>};
extern const gpu_op gpu_op_layernorm = {"layernorm", prepare, NULL, forward<1>, backward<1>};
