#include "nn/ternary_weights.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/half.h"
#include "nn/dense.h"
#include "nn/op.h"
#include "nn/op_weights.h"
#include "nn/parts.h"
#include "nn/trit_weights.h"
#include "tern/pack.h"

/* Matrices of zero trits, for tern_matrix_set_trits to fill. */
static tern_status make_matrices(tern_ternary_weights *w, tern_tier tier, tern_error *err) {
    size_t rows = w->rows / w->groups, scales = tern_max_size(1, w->scale_count / w->groups), bytes;
    TERN_TRY(tern_packed_bytes(&bytes, TERN_PACK_T2, rows, w->cols, err));
    uint8_t *zeros = calloc(bytes + scales, 1);
    if (!zeros) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for %zu packed bytes", bytes);
    tern_matrix_desc desc = {.rows = rows,
                             .cols = w->cols,
                             .packing = TERN_PACK_T2,
                             .packed = zeros,
                             .packed_bytes = bytes,
                             .scale_kind = tern_ternary_scale_kind(w),
                             .scales = w->scales,
                             .exponents = (int8_t *)zeros + bytes,
                             .scale_count = scales,
                             .group = w->group,
                             .tier = tier};
    tern_status status = TERN_OK;
    for (size_t g = 0; !status && g < w->groups; g++) status = tern_matrix_create(&w->matrix[g], &desc, err);
    free(zeros);
    return status;
}

static tern_status keep_scales(tern_ternary_weights *w, tern_plan *plan, tern_error *err) {
    void *memory = NULL;
    if (!w->group) TERN_TRY(tern_plan_keep(plan, &memory, w->rows * sizeof(float), err));
    w->scales = memory;
    return TERN_OK;
}

static tern_status keep_latent(tern_ternary_weights *w, tern_plan *plan, tern_error *err) {
    void *memory;
    size_t count = w->rows * w->cols;
    TERN_TRY(tern_plan_keep(plan, &memory, count, err));
    w->trits = memory;
    TERN_TRY(tern_plan_keep(plan, &memory, count, err));
    w->counted = memory;
    TERN_TRY(keep_scales(w, plan, err));
    if (plan->training) TERN_TRY(tern_plan_keep(plan, &w->operand, count * tern_operand_bytes(plan->products), err));
    return make_matrices(w, plan->tier, err);
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
                                 .scales = p->scales ? p->scales + (p->scale_kind == TERN_SCALE_ROW ? g * scales : 0)
                                                     : NULL,
                                 .exponents = p->exponents ? p->exponents + g * scales : NULL,
                                 .scale_count = scales,
                                 .group = p->group,
                                 .tier = tier};
        TERN_TRY(tern_matrix_create(&w->matrix[g], &desc, err));
    }
    return TERN_OK;
}

static tern_status describe(tern_ternary_weights *w, const tern_plan *plan, size_t i, tern_error *err) {
    const tern_node *node = tern_plan_graph_node(plan, i);
    w->rows = node->at.outputs;
    w->cols = tern_weight_columns(plan->graph, node);
    w->groups = tern_max_size(1, node->at.groups);
    w->granularity = (tern_granularity)node->at.granularity;
    w->group = node->at.group;
    w->scale_count = tern_trit_scale_count(node, w->rows, w->cols);
    w->matrix = calloc(w->groups, sizeof *w->matrix);
    return w->matrix ? TERN_OK
                     : tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "%s: no memory for its matrices", node->name);
}

tern_status tern_ternary_prepare(tern_ternary_weights *w, tern_plan *plan, size_t i, tern_error *err) {
    const tern_node *node = tern_plan_graph_node(plan, i);
    TERN_TRY(describe(w, plan, i, err));
    if (node->packed.bytes) return make_packed(w, &node->packed, plan->tier, err);
    if (!tern_node_find_param(plan->graph, node, "exponent")) return keep_latent(w, plan, err);
    TERN_TRY(keep_scales(w, plan, err));
    TERN_TRY(tern_trit_prepare(w, plan, i, err));
    return make_matrices(w, plan->tier, err);
}

tern_status tern_ternary_prepare_table(tern_ternary_weights *w, tern_plan *plan, size_t i, tern_error *err) {
    const tern_node *node = tern_plan_graph_node(plan, i);
    TERN_TRY(describe(w, plan, i, err));
    if (tern_node_find_param(plan->graph, node, "exponent")) {
        TERN_TRY(keep_scales(w, plan, err));
        return tern_trit_prepare(w, plan, i, err);
    }
    if (!node->packed.bytes)
        return tern_fail(err, TERN_E_DATA, TERN_NO_PLACE, "%s: its packed weights are missing", node->name);
    void *memory;
    TERN_TRY(tern_plan_keep(plan, &memory, (size_t)plan->threads * w->cols, err));
    w->room = memory;
    return tern_validate(node->packed.packing, node->packed.bytes, node->packed.byte_count, w->rows, w->cols, err);
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

static void count_latent(tern_ternary_weights *w) {
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

/* Flips were counted by the updates since the last time. */
static void count_whole(tern_ternary_weights *w, const tern_plan *plan) {
    const int8_t *trits = plan->scratch.data; /* as the refresh left them */
    size_t n = w->rows * w->cols, minus = 0, plus = 0;
    for (size_t i = 0; i < n; i++) {
        minus += trits[i] < 0;
        plus += trits[i] > 0;
    }
    w->minus = minus;
    w->plus = plus;
    w->zero = n - minus - plus;
    w->flips = w->flipping;
    w->flipping = 0;
}

tern_status tern_ternary_take_trits(const tern_ternary_weights *w, const tern_node *node, int8_t *trits,
                                    tern_error *err) {
    const tern_packed *p = &node->packed;
    if (w->trits) memcpy(trits, w->trits, w->rows * w->cols);
    if (w->used) tern_trit_rows(w, trits, 0, w->rows);
    for (size_t g = 0; p->bytes && g < p->matrices; g++) {
        size_t bytes = p->byte_count / p->matrices;
        TERN_TRY(tern_unpack(trits + g * p->rows * p->cols, p->packing, p->bytes + g * bytes, bytes, p->rows, p->cols,
                             err));
    }
    return TERN_OK;
}

float tern_ternary_scale(const tern_ternary_weights *w, const tern_node *node, size_t s) {
    const tern_packed *p = &node->packed;
    if (w->group) return ldexpf(1, (p->bytes ? p->exponents : w->used_exponent)[s]);
    return (p->bytes ? p->scales : w->scales)[s];
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
    if (w->used) {
        TERN_TRY(tern_trit_refresh(w, plan, i, err));
        if (plan->count_trits) count_whole(w, plan);
        return TERN_OK;
    }
    if (!w->trits) return TERN_OK;
    tern_status status = quantize(w, plan, i, err); /* which leaves the trits as they are when it fails */
    if (status == TERN_E_DATA)
        return tern_fail(err, status, err ? err->place : TERN_NO_PLACE, "%s.weight holds a NaN or an Inf",
                         tern_plan_graph_node(plan, i)->name);
    if (status) return status;
    if (plan->count_trits) count_latent(w);
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
