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

/* The same of a value where activations may be fused: theirs is their batch norm's. */
static size_t value_owner(const tern_graph *graph, const tern_layout_node *at, size_t node) {
    while (graph->node[node].op->alias || at[node].fused) node = (size_t)graph->node[node].input[0];
    return node;
}

static int is_activation(const tern_op *op) {
    static const char *const names[] = {"relu", "relu2", "gelu", "silu"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(op->name, names[i])) return 1;
    return 0;
}

static void find_fused(const tern_graph *graph, tern_layout_node *at) {
    for (size_t i = 1; i < graph->nodes; i++) {
        const tern_node *node = &graph->node[i];
        if (!is_activation(node->op)) continue;
        size_t in = (size_t)node->input[0], readers = 0;
        for (size_t j = i; j < graph->nodes; j++)
            for (int k = 0; k < graph->node[j].inputs; k++) readers += (size_t)graph->node[j].input[k] == in;
        at[i].fused = !strcmp(graph->node[in].op->name, "batch_norm") && readers == 1;
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

/* Lives of values and gradients in the time of plan.h. */
static void find_spans(const tern_graph *graph, size_t sample_bytes, int training, const tern_layout_node *at,
                       tern_span *value, tern_span *grad) {
    size_t n = graph->nodes;
    for (size_t i = 0; i < n; i++) {
        size_t bytes = graph->node[i].elements * sample_bytes;
        value[i] = (tern_span){.bytes = i ? bytes : 0, .first = i, .last = i};
        grad[i] = (tern_span){.bytes = at[i].has_grad ? bytes : 0, .first = 2 * n, .last = 0};
        if (graph->node[i].op->alias) value[i].bytes = grad[i].bytes = 0;
        if (at[i].fused) value[i].bytes = grad[graph->node[i].input[0]].bytes = 0;
    }
    for (size_t i = 1; i < n; i++) {
        const tern_node *node = &graph->node[i];
        size_t back = 2 * n - 1 - i;
        for (int k = 0; k < node->inputs; k++) {
            size_t in = owner(graph, (size_t)node->input[k]), of = value_owner(graph, at, in);
            value[of].last = tern_max_size(value[of].last, i);
            if (!training) continue;
            if (node->op->needs_input) value[of].last = tern_max_size(value[of].last, back);
            grad[in].first = tern_min_size(grad[in].first, back);
            grad[in].last = tern_max_size(grad[in].last, 2 * n - 1 - in);
        }
        if (training) {
            size_t self = owner(graph, i), of = value_owner(graph, at, i);
            if (node->op->needs_output) value[of].last = tern_max_size(value[of].last, back);
            size_t reader = at[self].fused ? (size_t)graph->node[self].input[0] : self;
            grad[self].last = tern_max_size(grad[self].last, 2 * n - 1 - reader);
        }
    }
    /* The output outlives the pass; its gradient is set between the passes. */
    size_t out = owner(graph, n - 1);
    value[value_owner(graph, at, out)].last = 2 * n;
    grad[out].first = n - 1;
    grad[out].last = tern_max_size(grad[out].last, n);
}

static void take_offsets(const tern_graph *graph, tern_layout_node *at, const tern_span *value,
                         const tern_span *grad) {
    for (size_t i = 0; i < graph->nodes; i++) {
        size_t own = owner(graph, i), of = value_owner(graph, at, i);
        at[i].has_value = of != 0;
        at[i].value = value[of].offset;
        at[i].grad = grad[own].offset;
    }
    for (size_t i = 0; i < graph->nodes; i++)
        if (at[i].fused) at[graph->node[i].input[0]].grad = at[i].grad;
}

/* In the order of the backward pass: who comes first sets, who comes later adds. */
static void find_adders(const tern_graph *graph, tern_layout_node *at, char *is_set) {
    for (size_t i = graph->nodes; i-- > 1;) {
        const tern_node *node = &graph->node[i];
        for (int k = 0; k < node->inputs; k++) {
            size_t in = (size_t)node->input[k], own = owner(graph, in);
            at[i].wants_grad[k] = at[in].has_grad;
            at[i].add_to[k] = is_set[own];
            if (!node->op->alias) is_set[own] = 1;
        }
    }
}

static tern_status make(tern_layout *out, const tern_graph *graph, size_t batch, size_t element_bytes, int training,
                        int fuse, tern_error *err) {
    size_t n = graph->nodes;
    *out = (tern_layout){.node = calloc(n, sizeof *out->node)};
    tern_span *span = calloc(2 * n, sizeof *span);
    char *is_set = calloc(n, 1);
    int ok = out->node && span && is_set;
    if (ok) {
        if (fuse) find_fused(graph, out->node);
        find_gradients(graph, training, out->node);
        find_spans(graph, batch * element_bytes, training, out->node, span, span + n);
        out->bytes = tern_arena_plan(span, 2 * n);
        ok = out->bytes != SIZE_MAX;
    }
    if (ok) {
        take_offsets(graph, out->node, span, span + n);
        find_adders(graph, out->node, is_set);
    }
    free(span);
    free(is_set);
    if (ok) return TERN_OK;
    tern_layout_free(out);
    return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory to plan %zu nodes", n);
}

tern_status tern_layout_make(tern_layout *out, const tern_graph *graph, size_t batch, size_t element_bytes,
                             int training, tern_error *err) {
    return make(out, graph, batch, element_bytes, training, 0, err);
}

tern_status tern_layout_make_fused(tern_layout *out, const tern_graph *graph, size_t batch, size_t element_bytes,
                                   int training, tern_error *err) {
    return make(out, graph, batch, element_bytes, training, training, err);
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
