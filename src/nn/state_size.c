#include "nn/state_size.h"

#include "nn/op_weights.h"

/* Counters stand for weights of one number each; gains and the like are weights themselves. */
static size_t weights_of(const tern_graph *graph, const tern_node *node) {
    size_t sum = 0;
    int counted = 0;
    for (int k = 0; k < node->params; k++) {
        const tern_param *p = tern_node_param(graph, node, k);
        counted |= p->role == TERN_ROLE_COUNTER;
        if (tern_param_has_gradient(p)) sum += p->count;
    }
    return counted ? sum + node->at.outputs * tern_weight_columns(graph, node) : sum;
}

tern_state_size tern_node_state_size(const tern_graph *graph, size_t i, tern_optimizer_bytes optimizer,
                                     const void *context) {
    const tern_node *node = &graph->node[i];
    tern_state_size size = {0};
    if (!node->params || graph->param[node->param[0]].node != (int)i) return size;
    size.weights = weights_of(graph, node);
    for (int k = 0; k < node->params; k++) {
        const tern_param *p = tern_node_param(graph, node, k);
        if (p->role == TERN_ROLE_FROZEN) continue;
        size.bytes += p->count * tern_store_bytes(p->store) + optimizer(context, graph, (size_t)node->param[k]);
    }
    return size;
}

tern_state_size tern_graph_state_size(const tern_graph *graph, tern_optimizer_bytes optimizer, const void *context) {
    tern_state_size sum = {0};
    for (size_t i = 1; i < graph->nodes; i++) {
        tern_state_size size = tern_node_state_size(graph, i, optimizer, context);
        sum.weights += size.weights;
        sum.bytes += size.bytes;
    }
    return sum;
}
