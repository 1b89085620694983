#include "model/float_twin.h"

#include <string.h>

#include "base/error.h"
#include "nn/op.h"
#include "nn/ternary_weights.h"

static const char *float_op(const tern_node *node, int ternary) {
    if (!ternary) return node->op->name;
    return node->at.groups ? "conv2d" : "linear";
}

static tern_value add_node(tern_graph *to, const tern_plan *plan, size_t i) {
    const tern_node *node = &plan->graph->node[i];
    tern_attrs at = node->at;
    if (node->inputs == 2) return tern_graph_add2(to, node->op->name, node->name, node->input[0], node->input[1]);
    return tern_graph_add(to, float_op(node, tern_plan_ternary(plan, i) != NULL), node->name, node->input[0], &at);
}

static void fill_node(tern_graph *to, const tern_plan *plan, size_t i) {
    const tern_node *from = &plan->graph->node[i], *node = &to->node[i];
    const tern_ternary_weights *w = tern_plan_ternary(plan, i);
    for (int p = 0; p < node->params; p++) {
        const tern_param *old = &plan->graph->param[from->param[p]], *param = &to->param[node->param[p]];
        memcpy(param->value, old->value, param->count * sizeof *param->value);
    }
    for (size_t j = 0; w && j < w->rows * w->cols; j++)
        to->param[node->param[0]].value[j] =
            (float)w->trits[j] * w->scales[w->granularity == TERN_PER_ROW ? j / w->cols : 0];
}

tern_status tern_float_twin(tern_graph **out, const tern_plan *plan, tern_error *err) {
    const tern_graph *graph = plan->graph;
    for (size_t i = 1; i < graph->nodes; i++) {
        const tern_ternary_weights *w = tern_plan_ternary(plan, i);
        TERN_CHECK_ARGUMENT(!w || w->trits, err, "%s is packed; the twin is made from a checkpoint",
                            graph->node[i].name);
    }
    TERN_TRY(tern_graph_create(out, err));
    const tern_node *in = &graph->node[0];
    if (graph->vocabulary)
        tern_graph_input_tokens(*out, in->elements, graph->vocabulary);
    else
        tern_graph_input(*out, in->shape);
    for (size_t i = 1; i < graph->nodes; i++) add_node(*out, plan, i);
    tern_status status = tern_graph_check(*out, err);
    if (!status) status = tern_graph_place(*out, err);
    for (size_t i = 1; !status && i < graph->nodes; i++) fill_node(*out, plan, i);
    if (status) tern_graph_free(out);
    return status;
}
