#include "nn/ternary_weights.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/half.h"
#include "nn/dense.h"
#include "nn/op.h"
#include "nn/op_weights.h"
#include "nn/parts.h"
#include "tern/pack.h"

/* Matrices of zero trits, for tern_matrix_set_trits to fill. */
static tern_status make_latent(tern_ternary_weights *w, tern_tier tier, tern_error *err) {
    size_t rows = w->rows / w->groups, bytes;
    TERN_TRY(tern_packed_bytes(&bytes, TERN_PACK_T2, rows, w->cols, err));
    uint8_t *zeros = calloc(bytes, 1);
    if (!zeros) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for %zu packed bytes", bytes);
    tern_matrix_desc desc = {.rows = rows,
                             .cols = w->cols,
                             .packing = TERN_PACK_T2,
                             .packed = zeros,
                             .packed_bytes = bytes,
                             .scale_kind = w->granularity == TERN_PER_ROW ? TERN_SCALE_ROW : TERN_SCALE_TENSOR,
                             .scales = w->scales,
                             .scale_count = w->granularity == TERN_PER_ROW ? rows : 1,
                             .tier = tier};
    tern_status status = TERN_OK;
    for (size_t g = 0; !status && g < w->groups; g++) status = tern_matrix_create(&w->matrix[g], &desc, err);
    free(zeros);
    return status;
}

static tern_status keep_latent(tern_ternary_weights *w, tern_plan *plan, tern_error *err) {
    void *memory;
    size_t count = w->rows * w->cols;
    TERN_TRY(tern_plan_keep(plan, &memory, count, err));
    w->trits = memory;
    TERN_TRY(tern_plan_keep(plan, &memory, count, err));
    w->counted = memory;
    TERN_TRY(tern_plan_keep(plan, &memory, w->rows * sizeof(float), err));
    w->scales = memory;
    if (plan->training) TERN_TRY(tern_plan_keep(plan, &w->operand, count * tern_operand_bytes(plan->products), err));
    return make_latent(w, plan->tier, err);
}

static tern_status make_packed(tern_ternary_weights *w, const tern_packed *p, tern_tier tier, tern_error *err) {
    size_t bytes = p->byte_count / p->matrices, scales = p->scale_count;
    for (size_t g = 0; g < p->matrices; g++) {
        tern_matrix_desc desc = {.rows = p->rows,
                                 .cols = p->cols,
                                 .packing = p->packing,
                                 .packed = p->bytes + g * bytes,
                                 .packed_bytes = bytes,
                                 .scale_kind = p->scale_kind,
                                 .scales = p->scales + (p->scale_kind == TERN_SCALE_ROW ? g * scales : 0),
                                 .scale_count = scales,
                                 .tier = tier};
        TERN_TRY(tern_matrix_create(&w->matrix[g], &desc, err));
    }
    return TERN_OK;
}

tern_status tern_ternary_prepare(tern_ternary_weights *w, tern_plan *plan, size_t i, tern_error *err) {
    const tern_node *node = tern_plan_graph_node(plan, i);
    w->rows = node->at.outputs;
    w->cols = tern_weight_columns(plan->graph, node);
    w->groups = tern_max_size(1, node->at.groups);
    w->granularity = (tern_granularity)node->at.granularity;
    w->matrix = calloc(w->groups, sizeof *w->matrix);
    if (!w->matrix) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "%s: no memory for its matrices", node->name);
    return node->packed.bytes ? make_packed(w, &node->packed, plan->tier, err) : keep_latent(w, plan, err);
}

static tern_status quantize(tern_ternary_weights *w, const tern_plan *plan, size_t i, tern_error *err) {
    const tern_node *node = tern_plan_graph_node(plan, i);
    const float *latent = tern_plan_param(plan, i, 0);
    if (node->at.rule == TERN_RULE_TWN)
        return tern_quantize_twn(w->trits, w->scales, latent, w->rows, w->cols, w->granularity, err);
    return tern_quantize_weights(w->trits, w->scales, latent, w->rows, w->cols,
                                 node->at.rule == TERN_RULE_ABSMEDIAN ? TERN_MEDIAN : TERN_MEAN, w->granularity,
                                 plan->threads, err);
}

static void count(tern_ternary_weights *w) {
    size_t n = w->rows * w->cols, minus = 0, plus = 0, flips = 0;
    for (size_t i = 0; i < n; i++) {
        minus += w->trits[i] < 0;
        plus += w->trits[i] > 0;
        flips += w->trits[i] != w->counted[i];
    }
    w->minus = minus;
    w->plus = plus;
    w->zero = n - minus - plus;
    w->flips = w->counts++ ? flips : 0;
    memcpy(w->counted, w->trits, n);
}

static tern_status fill_matrices(tern_ternary_weights *w, const tern_plan *plan, tern_error *err) {
    size_t rows = w->rows / w->groups;
    for (size_t g = 0; g < w->groups; g++)
        TERN_TRY(tern_matrix_set_trits(w->matrix[g], w->trits + g * rows * w->cols,
                                       w->scales + (w->granularity == TERN_PER_ROW ? g * rows : 0), NULL,
                                       plan->threads, err));
    return TERN_OK;
}

/* Mixed weights w + lambda (q(w) - w), in the products' type. */
static void mix(const tern_ternary_weights *w, const tern_plan *plan, const float *latent) {
    float lambda = plan->lambda;
    uint16_t *half = w->operand;
    float *full = w->operand;
    size_t cols = w->cols;
    TERN_FOR_PARTS(plan->threads, w->rows, tern_rows_a_part(cols), begin, end)
    for (size_t j = begin * cols; j < end * cols; j++) {
        float q = (float)w->trits[j] * w->scales[w->granularity == TERN_PER_ROW ? j / cols : 0];
        float v = latent[j] + lambda * (q - latent[j]);
        if (plan->products == TERN_BF16)
            half[j] = tern_f32_to_bf16(v);
        else
            full[j] = v;
    }
}

tern_status tern_ternary_refresh(tern_ternary_weights *w, tern_plan *plan, size_t i, tern_error *err) {
    if (!w->trits) return TERN_OK;
    tern_status status = quantize(w, plan, i, err); /* which leaves the trits as they are when it fails */
    if (status == TERN_E_DATA)
        return tern_fail(err, status, err ? err->place : TERN_NO_PLACE, "%s.weight holds a NaN or an Inf",
                         tern_plan_graph_node(plan, i)->name);
    if (status) return status;
    if (plan->count_trits) count(w);
    w->mixed = plan->training && plan->lambda < 1;
    if (w->mixed)
        mix(w, plan, tern_plan_param(plan, i, 0));
    else if (plan->training)
        tern_operand_from_i8(plan->threads, plan->products, w->operand, w->trits, w->rows * w->cols);
    return fill_matrices(w, plan, err);
}

void tern_ternary_release(tern_ternary_weights *w) {
    for (size_t g = 0; w->matrix && g < w->groups; g++) tern_matrix_free(&w->matrix[g]);
    free(w->matrix);
    w->matrix = NULL;
}
