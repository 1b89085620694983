#include "nn/layout.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "nn/arena.h"
#include "nn/op.h"

/* The node that owns the memory of a value: an alias shares its input's. */
static size_t owner(const tern_graph *graph, size_t node) {
    while (graph->node[node].op->alias) node = (size_t)graph->node[node].input[0];
    return node;
}

static int is_op(const tern_graph *graph, size_t node, const char *name) {
    return !strcmp(graph->node[node].op->name, name);
}

/* How many times the node is read. */
static size_t readers(const tern_graph *graph, size_t node) {
    size_t count = 0;
    for (size_t i = node + 1; i < graph->nodes; i++)
        for (int k = 0; k < graph->node[i].inputs; k++) count += (size_t)graph->node[i].input[k] == node;
    return count;
}

static int is_activation(const tern_graph *graph, size_t node) {
    return is_op(graph, node, "relu") || is_op(graph, node, "relu2") || is_op(graph, node, "gelu") ||
           is_op(graph, node, "silu");
}

/* Windows of 2 x 2 pixels that tile the image, and of a batch not more than gpu_op_norm_pool.cu counts. */
static int pools_quarters(const tern_graph *graph, size_t node, size_t batch) {
    const tern_node *pool = &graph->node[node];
    if (pool->rows > TERN_LAYOUT_WINDOWS / batch) return 0;
    const tern_shape *in = &tern_node_input(graph, pool, 0)->shape;
    return is_op(graph, node, "max_pool") && pool->at.kernel == 2 && pool->at.stride == 2 && !pool->at.padding &&
           in->dim[0] % 2 == 0 && in->dim[1] % 2 == 0;
}

/* An activation in front of a norm alone is the norm's work, and a batch norm in front of an activation alone is that
 * one's; or both are the work of a pool behind them. Deployed, an affine is what a batch norm was. */
static void find_sources(const tern_graph *graph, size_t batch, int purpose, tern_layout_node *at) {
    for (size_t i = 1; i < graph->nodes; i++) {
        const tern_node *node = &graph->node[i];
        for (int k = 0; k < node->inputs; k++) at[i].from[k] = node->input[k];
        const size_t in = (size_t)node->input[0];
        const int scales = purpose == TERN_LAYOUT_FUSED && is_activation(graph, i) && is_op(graph, in, "affine");
        const int is_bare = !at[in].normed && !at[in].scaled;
        const int fits = scales || (is_op(graph, i, "rmsnorm") && is_op(graph, in, "relu2") && is_bare) ||
                         (is_activation(graph, i) && is_op(graph, in, "batch_norm")) ||
                         (pools_quarters(graph, i, batch) && is_activation(graph, in) && at[in].normed);
        if (!(purpose & TERN_LAYOUT_FUSED) || !in || !fits || readers(graph, in) != 1) continue;
        at[i].normed = is_op(graph, in, "batch_norm") || at[in].normed;
        at[i].scaled = scales;
        at[in].within = 1;
        at[i].from[0] = at[in].from[0];
    }
}

/* True where a gradient arrives: some parameter at or before the node is trained. */
static void find_gradients(const tern_graph *graph, int training, tern_layout_node *at) {
    for (size_t i = 0; training && i < graph->nodes; i++) {
        const tern_node *node = &graph->node[i];
        for (int p = 0; p < node->params; p++)
            if (tern_param_is_trained(&graph->param[node->param[p]])) at[i].has_grad = 1;
        for (int k = 0; k < node->inputs; k++) at[i].has_grad |= at[node->input[k]].has_grad;
    }
}

/* The last node but `except` that reads the node's memory; 0 where there is none. */
static size_t last_reader(const tern_graph *graph, const tern_layout_node *at, size_t node, size_t except) {
    for (size_t i = graph->nodes; i-- > 1;)
        for (int k = 0; i != except && !at[i].within && k < graph->node[i].inputs; k++)
            if (owner(graph, (size_t)at[i].from[k]) == node) return i;
    return 0;
}

static int can_share(const tern_graph *graph, const tern_layout_node *at, size_t node) {
    return node && owner(graph, node) == node && at[node].has_grad && !at[node].within;
}

/* whose[i]: the node whose gradient's memory that of i is. An addition is the first in a backward pass to set the
 * gradient of u where nobody later reads u, and then it is the same numbers. Its other input v may have them too if
 * only the addition reads it, and its backward pass comes before all that adds to u's. */
static void find_shared(const tern_graph *graph, int purpose, const tern_layout_node *at, size_t *whose) {
    for (size_t i = 0; i < graph->nodes; i++) whose[i] = i;
    if (!(purpose & TERN_LAYOUT_FUSED)) return;
    for (size_t a = graph->nodes; a-- > 1;) {
        if (!is_op(graph, a, "add") || !at[a].has_grad) continue;
        size_t u = (size_t)at[a].from[0], v = (size_t)at[a].from[1];
        if (u > v) {
            const size_t later = u;
            u = v;
            v = later;
        }
        if (u == v || !can_share(graph, at, u) || last_reader(graph, at, u, a) > a) continue;
        whose[u] = whose[a];
        if (can_share(graph, at, v) && !last_reader(graph, at, v, a) && v > last_reader(graph, at, u, a))
            whose[v] = whose[a];
    }
}

typedef struct spans {
    tern_span *value, *grad;
    size_t *whose;
} spans;

/* A deployed product may compute the norm in front of it, and then reads what the norm would. */
static int may_normalise(const tern_graph *graph, size_t node, int purpose) {
    return purpose == TERN_LAYOUT_FUSED && is_op(graph, node, "packed_linear") &&
           is_op(graph, (size_t)graph->node[node].input[0], "rmsnorm");
}

/* Lives of values and gradients in the time of plan.h. */
static void find_spans(const tern_graph *graph, size_t sample_bytes, int purpose, const tern_layout_node *at,
                       const spans *s) {
    const int training = (purpose & TERN_LAYOUT_TRAINING) != 0;
    size_t n = graph->nodes;
    tern_span *value = s->value, *grad = s->grad;
    for (size_t i = 0; i < n; i++) {
        size_t bytes = graph->node[i].elements * sample_bytes;
        value[i] = (tern_span){.bytes = i ? bytes : 0, .first = i, .last = i};
        grad[i] = (tern_span){.bytes = at[i].has_grad && s->whose[i] == i ? bytes : 0, .first = 2 * n, .last = 0};
        if (graph->node[i].op->alias || at[i].within) value[i].bytes = grad[i].bytes = 0;
    }
    for (size_t i = 1; i < n; i++) {
        const tern_node *node = &graph->node[i];
        size_t back = 2 * n - 1 - i;
        if (at[i].within) continue;
        for (int k = 0; k < node->inputs; k++) {
            size_t in = owner(graph, (size_t)at[i].from[k]), shared = s->whose[in];
            value[in].last = tern_max_size(value[in].last, i);
            if (may_normalise(graph, i, purpose)) {
                const size_t behind = owner(graph, (size_t)at[in].from[0]);
                value[behind].last = tern_max_size(value[behind].last, i);
            }
            if (!training) continue;
            if (node->op->needs_input || at[i].normed) value[in].last = tern_max_size(value[in].last, back);
            grad[shared].first = tern_min_size(grad[shared].first, back);
            grad[shared].last = tern_max_size(grad[shared].last, 2 * n - 1 - in);
        }
        if (training) {
            size_t self = owner(graph, i), shared = s->whose[self];
            if (node->op->needs_output) value[self].last = tern_max_size(value[self].last, back);
            grad[shared].last = tern_max_size(grad[shared].last, 2 * n - 1 - self);
        }
    }
    /* The output outlives the pass; its gradient is set between the passes. */
    size_t out = owner(graph, n - 1), shared = s->whose[out];
    value[out].last = 2 * n;
    grad[shared].first = n - 1;
    grad[shared].last = tern_max_size(grad[shared].last, n);
}

/* The gradient of the output may overwrite it: nobody reads the one behind the loss, nor shares the other. */
static int is_in_place(const tern_graph *graph, int purpose) {
    const tern_node *out = &graph->node[graph->nodes - 1];
    return (purpose & TERN_LAYOUT_FUSED) && !out->op->needs_output && !out->op->alias && strcmp(out->op->name, "add");
}

static void take_offsets(const tern_graph *graph, tern_layout_node *at, const spans *s, int in_place) {
    for (size_t i = 0; i < graph->nodes; i++) {
        size_t own = owner(graph, i);
        at[i].has_value = own != 0;
        at[i].value = s->value[own].offset;
        at[i].grad = s->grad[s->whose[own]].offset;
    }
    tern_layout_node *out = &at[graph->nodes - 1];
    if (in_place) out->grad = out->value;
}

/* In the order of the backward pass: who comes first sets, who comes later adds. */
static void find_adders(const tern_graph *graph, tern_layout_node *at, char *is_set) {
    for (size_t i = graph->nodes; i-- > 1;) {
        const tern_node *node = &graph->node[i];
        if (at[i].within) continue;
        for (int k = 0; k < node->inputs; k++) {
            size_t in = (size_t)at[i].from[k], own = owner(graph, in);
            at[i].wants_grad[k] = at[in].has_grad;
            at[i].add_to[k] = is_set[own];
            if (!node->op->alias) is_set[own] = 1;
        }
    }
}

tern_status tern_layout_make(tern_layout *out, const tern_graph *graph, size_t batch, size_t element_bytes,
                             int purpose, tern_error *err) {
    const size_t n = graph->nodes;
    const int training = (purpose & TERN_LAYOUT_TRAINING) != 0, in_place = is_in_place(graph, purpose);
    *out = (tern_layout){.node = calloc(n, sizeof *out->node)};
    tern_span *span = calloc(2 * n, sizeof *span);
    size_t *whose = calloc(n, sizeof *whose);
    char *is_set = calloc(n, 1);
    const spans s = {span, span ? span + n : NULL, whose};
    int ok = out->node && span && whose && is_set;
    if (ok) {
        find_sources(graph, batch, purpose, out->node);
        find_gradients(graph, training, out->node);
        find_shared(graph, purpose, out->node, whose);
        find_spans(graph, batch * element_bytes, purpose, out->node, &s);
        if (in_place) s.grad[n - 1].bytes = 0;
        out->bytes = tern_arena_plan(span, 2 * n);
        ok = out->bytes != SIZE_MAX;
    }
    if (ok) {
        take_offsets(graph, out->node, &s, in_place);
        find_adders(graph, out->node, is_set);
    }
    free(span);
    free(whose);
    free(is_set);
    if (ok) return TERN_OK;
    tern_layout_free(out);
    return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory to plan %zu nodes", n);
}

void tern_layout_free(tern_layout *layout) {
    free(layout->node);
    *layout = (tern_layout){0};
}

tern_status tern_graph_fits(const tern_graph *graph, size_t batch, tern_error *err) {
    for (size_t i = 0; i < graph->nodes; i++) {
        size_t bytes;
        if (!tern_checked_mul(&bytes, graph->node[i].elements * sizeof(float), batch) || bytes > SIZE_MAX / 64)
            return tern_fail(err, TERN_E_SIZE, TERN_NO_PLACE, "%s: %zu samples do not fit into memory",
                             graph->node[i].name, batch);
    }
    return TERN_OK;
}
