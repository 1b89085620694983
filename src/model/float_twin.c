#include "model/float_twin.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "nn/op.h"
#include "nn/ternary_weights.h"

static const char *float_op(const tern_node *node, int ternary) {
    if (!strcmp(node->op->name, "trit_rmsnorm")) return "rmsnorm";
    if (!ternary) return node->op->name;
    if (node->at.width) return "embedding";
    return node->at.groups ? "conv2d" : "linear";
}

static tern_value add_node(tern_graph *to, const tern_plan *plan, size_t i) {
    const tern_node *node = &plan->graph->node[i];
    tern_attrs at = node->at;
    at.integers = at.update = at.floats = at.slow_exponents = 0;
    at.group = at.same_as = 0;
    if (node->inputs == 2) return tern_graph_add2(to, node->op->name, node->name, node->input[0], node->input[1]);
    return tern_graph_add(to, float_op(node, tern_plan_ternary(plan, i) != NULL), node->name, node->input[0], &at);
}

/* Parameters of the same name; those behind trits have none in the twin. */
static void copy_params(tern_graph *to, const tern_graph *from, const tern_node *node, const tern_node *old) {
    for (int p = 0; p < node->params; p++) {
        const tern_param *param = &to->param[node->param[p]];
        const tern_param *source = tern_node_find_param(from, old, strrchr(param->name, '.') + 1);
        if (source && source->value) memcpy(param->value, source->value, param->count * sizeof *param->value);
    }
}

static tern_status fill_node(tern_graph *to, const tern_plan *plan, size_t i, tern_error *err) {
    const tern_node *from = &plan->graph->node[i], *node = &to->node[i];
    const tern_ternary_weights *w = tern_plan_ternary(plan, i);
    copy_params(to, plan->graph, node, from);
    if (!w) return TERN_OK;
    size_t group = w->group ? w->group : w->cols, groups = tern_ceil_div(w->cols, group);
    float *value = to->param[node->param[0]].value;
    int8_t *trits = malloc(w->rows * w->cols);
    if (!trits) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "%s: no memory for its trits", from->name);
    tern_status status = tern_ternary_take_trits(w, from, trits, err);
    for (size_t j = 0; !status && j < w->rows * w->cols; j++) {
        size_t scale = w->scale_count > 1 ? j / w->cols * groups + j % w->cols / group : 0;
        value[j] = (float)trits[j] * tern_ternary_scale(w, from, scale);
    }
    free(trits);
    return status;
}

tern_status tern_float_twin(tern_graph **out, const tern_plan *plan, tern_error *err) {
    const tern_graph *graph = plan->graph;
    for (size_t i = 1; i < graph->nodes; i++) {
        const tern_ternary_weights *w = tern_plan_ternary(plan, i);
        TERN_CHECK_ARGUMENT(!w || w->trits || w->used, err, "%s is packed; the twin is made from a checkpoint",
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
    for (size_t i = 1; !status && i < graph->nodes; i++) status = fill_node(*out, plan, i, err);
    if (status) tern_graph_free(out);
    return status;
}
