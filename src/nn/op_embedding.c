/* embedding  y[token] = table[token number]; the gradient of a row is the sum of dy over the places that took it, in
 *            their order. The table stays fp32: it is read, not multiplied. */
#include <string.h>

#include "base/error.h"
#include "nn/op.h"
#include "nn/op_shapes.h"
#include "nn/parts.h"

tern_status tern_embedding_shape(tern_graph *graph, tern_node *node, tern_error *err) {
    const tern_node *in = tern_node_input(graph, node, 0);
    TERN_CHECK_ARGUMENT(graph->vocabulary && node->input[0] == 0, err, "%s: an embedding reads the input of tokens",
                        node->name);
    if (!node->at.outputs) node->at.outputs = graph->vocabulary;
    TERN_CHECK_ARGUMENT(node->at.outputs >= graph->vocabulary, err, "%s: %zu rows for a vocabulary of %zu",
                        node->name, node->at.outputs, graph->vocabulary);
    TERN_CHECK_ARGUMENT(node->at.width, err, "%s: width is 0", node->name);
    return tern_node_set_shape(node, 2, in->elements, node->at.width, 0, err);
}

static tern_status embedding_shape(tern_graph *graph, tern_node *node, tern_error *err) {
    TERN_TRY(tern_embedding_shape(graph, node, err));
    float sigma = node->at.init_gain > 0 ? node->at.init_gain : 0.02f;
    return tern_node_add_param(graph, node, "weight", TERN_ROLE_WEIGHT, 2,
                               (size_t[]){node->at.outputs, node->at.width}, 0, sigma, err);
}

static void embedding_forward(tern_plan *plan, size_t i) {
    const tern_node *node = tern_plan_graph_node(plan, i);
    size_t width = node->channels;
    const int32_t *token = (const int32_t *)(const void *)tern_plan_in(plan, i, 0);
    const float *table = tern_plan_param(plan, i, 0);
    float *y = plan->node[i].value;
    TERN_FOR_PARTS(plan->threads, plan->batch * node->rows, tern_rows_a_part(width), begin, end)
    for (size_t row = begin; row < end; row++)
        memcpy(y + row * width, table + (size_t)token[row] * width, width * sizeof *y);
}

static void embedding_backward(tern_plan *plan, size_t i) {
    const tern_node *node = tern_plan_graph_node(plan, i);
    size_t width = node->channels, rows = plan->batch * node->rows;
    const int32_t *token = (const int32_t *)(const void *)tern_plan_in(plan, i, 0);
    const float *dy = plan->node[i].grad;
    float *dtable = tern_plan_param_grad(plan, i, 0);
    /* Columns are cut, not rows: two places may take the same row of the table. */
    TERN_FOR_PARTS(plan->threads, width, 32, begin, end)
    for (size_t row = 0; row < rows; row++)
        for (size_t c = begin; c < end; c++) dtable[(size_t)token[row] * width + c] += dy[row * width + c];
}

const tern_op tern_op_embedding = {.name = "embedding",
                                   .inputs = 1,
                                   .shape = embedding_shape,
                                   .needs_input = 1,
                                   .forward = embedding_forward,
                                   .backward = embedding_backward};
