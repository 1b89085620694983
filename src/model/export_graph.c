/* From a trained graph to a deployed one. The walk copies nodes in their order:
 *     bit_linear, bit_conv2d, ternary_linear, ternary_conv2d  ->  packed_linear, packed_conv2d (unless skipped)
 *     batch_norm                                              ->  affine, or into the product in front (fold)
 *     dropout                                                 ->  nothing
 *     everything else                                         ->  itself */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "model/open_model.h"
#include "nn/batch_norm.h"
#include "nn/op.h"
#include "nn/ternary_weights.h"

typedef struct export {
    const tern_model *from;
    const tern_graph *old;
    const tern_export_options *options;
    tern_graph *graph;
    tern_value *value; /* of the old nodes in the new graph */
    int *folded;       /* old batch norm that node i takes up, or 0 */
    void **owned;      /* packed bytes and scales */
    size_t owned_count;
}
export;

static int is_op(const tern_node *node, const char *name) { return !strcmp(node->op->name, name); }

static int is_skipped(const export *x, const tern_node *node) {
    for (size_t i = 0; i < x->options->skip_count; i++)
        if (!strcmp(x->options->skip[i], node->name)) return 1;
    return x->options->keep && x->options->keep(x->options->context, node->name);
}

static int is_packed_here(const export *x, size_t i) {
    return tern_plan_ternary(x->from->plan, i) && !is_skipped(x, &x->old->node[i]);
}

static tern_status check_names(const export *x, tern_error *err) {
    for (size_t s = 0; s < x->options->skip_count; s++) {
        size_t i = 1;
        while (i < x->old->nodes &&
               !(tern_plan_ternary(x->from->plan, i) && !strcmp(x->old->node[i].name, x->options->skip[s])))
            i++;
        TERN_CHECK_ARGUMENT(i < x->old->nodes, err, "skip: there is no ternary layer '%.60s'", x->options->skip[s]);
    }
    return TERN_OK;
}

/* A batch norm folds into a packed product that feeds nothing else. */
static void find_folds(export *x) {
    for (size_t i = 1; i < x->old->nodes; i++) {
        const tern_node *node = &x->old->node[i];
        size_t in = (size_t)node->input[0], uses = 0;
        /* Exponents of groups take no factor of a row. */
        if (!is_op(node, "batch_norm") || !is_packed_here(x, in) || x->old->node[in].at.group) continue;
        for (size_t j = 1; j < x->old->nodes; j++)
            for (int k = 0; k < x->old->node[j].inputs; k++) uses += (size_t)x->old->node[j].input[k] == in;
        if (uses == 1) x->folded[in] = (int)i;
    }
}

static void *own(export *x, size_t bytes) {
    void *memory = calloc(1, bytes ? bytes : 1);
    if (memory) x->owned[x->owned_count++] = memory;
    return memory;
}

static tern_value add_node(export *x, const tern_node *node, const char *op, const tern_attrs *at) {
    if (node->inputs == 2)
        return tern_graph_add2(x->graph, op, node->name, x->value[node->input[0]], x->value[node->input[1]]);
    return tern_graph_add(x->graph, op, node->name, x->value[node->input[0]], at);
}

/* The attributes of a node without those that only training knows. */
static tern_attrs deployed_attrs(const tern_node *node) {
    tern_attrs at = node->at;
    at.rule = at.frozen = at.update = at.floats = at.slow_exponents = at.integers = 0;
    at.group_rates = at.group_thresholds = at.zeros = 0;
    at.same_as = 0;
    at.init_gain = 0;
    return at;
}

static const char *packed_op(const tern_node *node) {
    if (node->at.width) return "packed_embedding";
    return node->at.groups ? "packed_conv2d" : "packed_linear";
}

static tern_value add_packed(export *x, size_t i) {
    const tern_node *node = &x->old->node[i];
    tern_attrs at = deployed_attrs(node);
    at.acts = tern_plan_has_sums(x->from->plan, i) ? TERN_I8 : TERN_F32;
    if (x->folded[i]) {
        at.bias = 1;
        at.granularity = TERN_PER_ROW;
        at.group = 0;
    }
    return add_node(x, node, packed_op(node), &at);
}

/* Whole-number weights that stay so. Where the node that they are shared with is packed, they are its own. */
static tern_value add_skipped(export *x, const tern_node *node) {
    tern_attrs at = node->at;
    if (at.same_as) at.same_as = is_packed_here(x, at.same_as) ? 0 : (size_t)x->value[at.same_as];
    return add_node(x, node, node->op->name, &at);
}

static tern_value add_other(export *x, const tern_node *node) {
    tern_attrs at = deployed_attrs(node);
    if (is_op(node, "trit_rmsnorm")) return add_node(x, node, "rmsnorm", &at);
    if (!strncmp(node->op->name, "trit_", 5)) return add_skipped(x, node);
    return add_node(x, node, node->op->name, &at);
}

static void add_nodes(export *x) {
    const tern_node *in = &x->old->node[0];
    x->value[0] = x->old->vocabulary ? tern_graph_input_tokens(x->graph, in->elements, x->old->vocabulary)
                                     : tern_graph_input(x->graph, in->shape);
    for (size_t i = 1; i < x->old->nodes; i++) {
        const tern_node *node = &x->old->node[i];
        size_t source = (size_t)node->input[0];
        if (is_op(node, "dropout") || (is_op(node, "batch_norm") && x->folded[source] == (int)i))
            x->value[i] = x->value[source];
        else if (is_packed_here(x, i))
            x->value[i] = add_packed(x, i);
        else if (is_op(node, "batch_norm"))
            x->value[i] = add_node(x, node, "affine", NULL);
        else
            x->value[i] = add_other(x, node);
    }
}

/* scale and shift of an old batch norm: [channels] each. */
static void fold_norm(const export *x, size_t i, float *scale, float *shift) {
    const tern_node *node = &x->old->node[i];
    const tern_param *gain = node->params > 3 ? tern_node_param(x->old, node, 3) : NULL;
    tern_batch_norm_fold(scale, shift, tern_node_param(x->old, node, 0)->value,
                         tern_node_param(x->old, node, 1)->value, gain ? gain->value : NULL,
                         tern_node_param(x->old, node, 2)->value, node->at.epsilon, node->channels);
}

/* Takes a batch norm into trits, scales and bias. A negative factor turns its row's trits over: scales are
 * positive. */
static void fold_into(const export *x, size_t i, int8_t *trits, float *scales, float *bias, const float *old_scales,
                      const float *old_bias, size_t rows, size_t cols, int per_row) {
    fold_norm(x, (size_t)x->folded[i], scales, bias);
    for (size_t r = 0; r < rows; r++) {
        float factor = scales[r];
        if (old_bias) bias[r] += old_bias[r] * factor;
        scales[r] = fabsf(factor) * old_scales[per_row ? r : 0];
        for (size_t c = 0; factor < 0 && c < cols; c++) trits[r * cols + c] = (int8_t)-trits[r * cols + c];
    }
}

static tern_status pack_node(export *x, size_t i, tern_error *err) {
    const tern_ternary_weights *w = tern_plan_ternary(x->from->plan, i);
    const tern_node *old = &x->old->node[i];
    tern_node *node = &x->graph->node[x->value[i]];
    const tern_param *old_bias = old->at.bias ? tern_node_param(x->old, old, old->params - 1) : NULL;
    float *bias = node->at.bias ? tern_node_param(x->graph, node, 0)->value : NULL;
    int per_row = w->granularity == TERN_PER_ROW;
    size_t n = w->rows * w->cols, rows = w->rows / w->groups, bytes;
    TERN_TRY(tern_packed_bytes(&bytes, x->options->packing, rows, w->cols, err));
    size_t scale_count = x->folded[i] ? w->rows : w->scale_count;
    int8_t *trits = malloc(n);
    uint8_t *packed = own(x, bytes * w->groups);
    float *scales = own(x, scale_count * sizeof *scales);
    if (!trits || !packed || !scales) {
        free(trits);
        return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "%s: no memory to pack %zu weights", node->name, n);
    }
    tern_status status = tern_ternary_take_trits(w, old, trits, err);
    if (x->folded[i]) {
        fold_into(x, i, trits, scales, bias, w->scales, old_bias ? old_bias->value : NULL, w->rows, w->cols, per_row);
    } else {
        if (w->group)
            memcpy(scales, w->rule.exponent, scale_count);
        else
            memcpy(scales, w->scales, scale_count * sizeof *scales);
        if (old_bias) memcpy(bias, old_bias->value, w->rows * sizeof *bias);
    }
    for (size_t g = 0; !status && g < w->groups; g++)
        status =
            tern_pack(packed + g * bytes, bytes, x->options->packing, trits + g * rows * w->cols, rows, w->cols, err);
    free(trits);
    node->packed = (tern_packed){.packing = x->options->packing,
                                 .rows = rows,
                                 .cols = w->cols,
                                 .matrices = w->groups,
                                 .bytes = packed,
                                 .byte_count = bytes * w->groups,
                                 .scales = w->group ? NULL : scales,
                                 .exponents = w->group ? (const int8_t *)scales : NULL,
                                 .scale_count = tern_max_size(1, scale_count / w->groups),
                                 .group = w->group,
                                 .scale_kind = x->folded[i] ? TERN_SCALE_ROW : tern_ternary_scale_kind(w)};
    return status;
}

/* Fixed-point ones become floats, as which they were read all along. */
static void copy_params(const export *x, const tern_node *old, const tern_node *node) {
    for (int p = 0; p < node->params; p++) {
        const tern_param *from = tern_node_param(x->old, old, p), *to = tern_node_param(x->graph, node, p);
        if (to->value) memcpy(to->value, from->value, to->count * sizeof *to->value);
        if (to->integers) memcpy(to->integers, from->integers, to->count * tern_store_bytes(to->store));
    }
}

static tern_status fill(export *x, tern_error *err) {
    TERN_TRY(tern_graph_place(x->graph, err));
    for (size_t i = 1; i < x->old->nodes; i++) {
        const tern_node *old = &x->old->node[i], *node = &x->graph->node[x->value[i]];
        if (is_packed_here(x, i))
            TERN_TRY(pack_node(x, i, err));
        else if (is_op(old, "batch_norm") && is_op(node, "affine") && !strcmp(old->name, node->name))
            fold_norm(x, i, tern_node_param(x->graph, node, 0)->value, tern_node_param(x->graph, node, 1)->value);
        else if (!strcmp(old->name, node->name))
            copy_params(x, old, node);
    }
    return TERN_OK;
}

static tern_status write_graph(const export *x, const char *path, tern_error *err) {
    tern_safetensors_writer *writer;
    TERN_TRY(tern_safetensors_writer_create(&writer, err));
    tern_status status = tern_model_add(writer, x->graph, &x->from->file.input, &x->from->file.config, 1, err);
    if (!status) status = tern_safetensors_writer_write(writer, path, err);
    tern_safetensors_writer_free(&writer);
    return status;
}

static tern_status run_export(export *x, const char *path, tern_error *err) {
    TERN_TRY(check_names(x, err));
    if (x->options->fold_batch_norm) find_folds(x);
    add_nodes(x);
    TERN_TRY(tern_graph_check(x->graph, err));
    TERN_TRY(fill(x, err));
    return write_graph(x, path, err);
}

tern_status tern_model_export(const tern_model *checkpoint, const char *path, const tern_export_options *options,
                              tern_error *err) {
    TERN_CHECK_ARGUMENT(checkpoint && path && options, err, "an argument is NULL");
    TERN_CHECK_ARGUMENT(options->packing == TERN_PACK_T2 || options->packing == TERN_PACK_T5, err,
                        "packing %d; t2 and t5 are possible", (int)options->packing);
    TERN_CHECK_ARGUMENT(!checkpoint->file.packed, err, "the model is deployed already; export takes a checkpoint");
    size_t nodes = checkpoint->file.graph->nodes;
    export x = {.from = checkpoint, .old = checkpoint->file.graph, .options = options};
    TERN_TRY(tern_graph_create(&x.graph, err));
    x.value = calloc(nodes, sizeof *x.value);
    x.folded = calloc(nodes, sizeof *x.folded);
    x.owned = calloc(2 * nodes, sizeof *x.owned);
    tern_status status = x.value && x.folded && x.owned
                             ? run_export(&x, path, err)
                             : tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory to export %zu nodes", nodes);
    for (size_t i = 0; i < x.owned_count; i++) free(x.owned[i]);
    free(x.owned);
    free(x.folded);
    free(x.value);
    tern_graph_free(&x.graph);
    return status;
}
