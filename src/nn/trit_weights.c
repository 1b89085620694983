#include "nn/trit_weights.h"

#include <assert.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/random.h"
#include "nn/dense.h"
#include "nn/op_weights.h"
#include "nn/orthogonal.h"
#include "nn/parts.h"
#include "quant/exponents.h"
#include "quant/packing.h"
#include "quant/trit_groups.h"
#include "quant/trit_rules.h"
#include "tern/pack.h"
#include "tern/quant.h"

/* ---- parameters */

static tern_status check_group_attributes(tern_node *node, tern_error *err) {
    tern_attrs *at = &node->at;
    if (at->group_thresholds && !at->zeros) at->zeros = TERN_GROUP_ZEROS;
    TERN_CHECK_ARGUMENT(!(at->group_rates || at->group_thresholds) || at->update <= TERN_UPDATE_R2, err,
                        "%s: group_rates and group_thresholds are for the rules r1 and r2", node->name);
    TERN_CHECK_ARGUMENT(!at->group_rates || at->group || at->granularity == TERN_PER_ROW, err,
                        "%s: group_rates take a scale a row or a group: one a tensor has nothing to differ from",
                        node->name);
    TERN_CHECK_ARGUMENT(at->zeros >= 0 && at->zeros <= 99, err, "%s: zeros %d; 1 to 99 per cent are possible",
                        node->name, at->zeros);
    return TERN_OK;
}

tern_status tern_check_scales(const tern_node *node, size_t cols, tern_error *err) {
    const tern_attrs *at = &node->at;
    TERN_CHECK_ARGUMENT(at->granularity == TERN_PER_TENSOR || at->granularity == TERN_PER_ROW, err,
                        "%s: granularity %d; 0 (tensor) and 1 (row) are possible", node->name, at->granularity);
    TERN_CHECK_ARGUMENT(!at->group || tern_group_is_valid(at->group, cols), err,
                        "%s: groups of %zu columns; 6 and the multiples of 4 up to %zu are possible", node->name,
                        at->group, tern_round_up(cols, 4));
    return TERN_OK;
}

static tern_status check_attributes(tern_node *node, size_t cols, tern_error *err) {
    tern_attrs *at = &node->at;
    if (at->update == TERN_UPDATE_DEFAULT) at->update = TERN_UPDATE_R2;
    TERN_CHECK_ARGUMENT(at->update >= TERN_UPDATE_R1 && at->update <= TERN_UPDATE_ORTHO, err,
                        "%s: update %d; 1 (r1), 2 (r2), 3 (vote), 4 (seed-corr) and 5 (ortho) are possible",
                        node->name, at->update);
    TERN_TRY(tern_check_scales(node, cols, err));
    TERN_TRY(check_group_attributes(node, err));
    TERN_CHECK_ARGUMENT(!at->frozen, err, "%s: frozen is for weights that are floats", node->name);
    TERN_CHECK_ARGUMENT(!at->group || at->update != TERN_UPDATE_SEED_CORR, err,
                        "%s: seed-corr's scales are no powers of two: it takes one a row or a tensor, not groups",
                        node->name);
    return TERN_OK;
}

size_t tern_trit_scale_count(const tern_node *node, size_t rows, size_t cols) {
    if (node->at.group) return rows * tern_groups_per_row(node->at.group, cols);
    return node->at.granularity == TERN_PER_ROW ? rows : 1;
}

static size_t row_bytes_t5(size_t cols) { return tern_ceil_div(cols, 5); }

tern_status tern_trit_add_params(tern_graph *graph, tern_node *node, size_t rows, size_t cols, float sigma,
                                 tern_error *err) {
    TERN_TRY(check_attributes(node, cols, err));
    const tern_role counter = TERN_ROLE_COUNTER, rule = TERN_ROLE_RULE;
    int update = node->at.update, packs = update == TERN_UPDATE_VOTE || update == TERN_UPDATE_SEED_CORR;
    size_t scales = tern_trit_scale_count(node, rows, cols);
    /* The first parameter is the one that says by its role that a gradient is wanted. */
    if (packs)
        TERN_TRY(
            tern_node_add_integers(graph, node, "trits", counter, TERN_STORE_U8, rows, row_bytes_t5(cols), 0, err));
    if (update != TERN_UPDATE_SEED_CORR)
        TERN_TRY(tern_node_add_integers(graph, node, "counter", counter, TERN_STORE_I8, rows, cols, 0, err));
    if (update == TERN_UPDATE_R2 || update == TERN_UPDATE_ORTHO)
        TERN_TRY(tern_node_add_integers(graph, node, "momentum", rule, TERN_STORE_I8, rows, cols, 0, err));
    if (update == TERN_UPDATE_SEED_CORR) {
        TERN_TRY(tern_node_add_integers(graph, node, "correlation", rule, TERN_STORE_I64, scales, 0, 0, err));
        TERN_TRY(tern_node_add_integers(graph, node, "steps", rule, TERN_STORE_I32, 1, 0, 0, err));
    }
    TERN_TRY(tern_node_add_integers(graph, node, "exponent", rule, TERN_STORE_I8, scales, 0, 0, err));
    graph->param[graph->params - 1].init_sigma = sigma;
    TERN_TRY(tern_node_add_integers(graph, node, "gradient_exponent", rule, TERN_STORE_I8, 1, 0, TERN_NO_GRADIENT_EXP,
                                    err));
    if (node->at.group_rates)
        TERN_TRY(tern_node_add_integers(graph, node, "group_rate", rule, TERN_STORE_I8, scales, 0, 0, err));
    if (node->at.group_thresholds)
        TERN_TRY(tern_node_add_integers(graph, node, "group_threshold", rule, TERN_STORE_U8, scales, 0,
                                        TERN_TRIT_THRESHOLD, err));
    if (node->at.slow_exponents)
        TERN_TRY(tern_node_add_integers(graph, node, "exponent_sum", rule, TERN_STORE_I64, scales, 0, 0, err));
    return TERN_OK;
}

/* ---- first values */

/* Row `row` as counts of deviation 50; a weight is count * sigma / 50. */
static void draw_counts(int8_t *counts, uint64_t key, size_t row, size_t cols) {
    for (size_t c = 0; c < cols; c++) {
        float v = rintf(TERN_TRIT_SPREAD * tern_random_normal(key, row * cols + c));
        counts[c] = (int8_t)fminf(fmaxf(v, -127), 127);
    }
}

/* One row of them. */
typedef struct first_values {
    int8_t *counts, *trits;
    float *weights;
} first_values;

static double mean_kept(const first_values *v, size_t cols) {
    double sum = 0;
    size_t kept = 0;
    for (size_t c = 0; c < cols; c++) {
        if (!v->trits[c]) continue;
        sum += (double)fabsf(v->weights[c]);
        kept++;
    }
    return kept ? sum / (double)kept : 0;
}

void tern_trit_initialise(tern_graph *graph, size_t i, uint64_t seed) {
    const tern_node *node = &graph->node[i];
    if (node->at.same_as) return;
    const tern_param *counter = tern_node_find_param(graph, node, "counter"),
                     *trits = tern_node_find_param(graph, node, "trits"),
                     *exponent = tern_node_find_param(graph, node, "exponent");
    size_t rows = node->at.outputs, cols = tern_weight_columns(graph, node), group = node->at.group;
    uint64_t key = tern_stream(seed, (uint64_t)node->param[0]);
    first_values v = {malloc(cols), malloc(cols), malloc(cols * sizeof *v.weights)};
    int8_t *e = exponent->integers;
    double tensor = 0;
    for (size_t row = 0; v.counts && v.trits && v.weights && row < rows; row++) {
        draw_counts(v.counts, key, row, cols);
        tern_trits_of_counters(v.trits, v.counts, cols, TERN_TRIT_THRESHOLD);
        for (size_t c = 0; c < cols; c++) v.weights[c] = (float)v.counts[c] * exponent->init_sigma / TERN_TRIT_SPREAD;
        if (!trits)
            memcpy((int8_t *)counter->integers + row * cols, v.counts, cols);
        else
            tern_pack((uint8_t *)trits->integers + row * row_bytes_t5(cols), row_bytes_t5(cols), TERN_PACK_T5,
                      v.trits, 1, cols, NULL);
        tensor += mean_kept(&v, cols) / (double)rows;
        if (group)
            tern_group_exponents(e + row * tern_groups_per_row(group, cols), v.weights, v.trits, 1, cols, group,
                                 NULL);
        else if (exponent->count == rows)
            e[row] = tern_rounded_log2(mean_kept(&v, cols));
    }
    if (exponent->count == 1) e[0] = tern_rounded_log2(tensor);
    free(v.counts);
    free(v.trits);
    free(v.weights);
}

/* Sums of 64 bits start each pass within 2^62: what passes add stays far from 2^63. */
static const int64_t most_of_a_sum = (int64_t)1 << 62;

static tern_status check_sums(const tern_param *p, tern_error *err) {
    const int64_t *v = p ? p->integers : NULL;
    for (size_t i = 0; p && i < p->count; i++)
        if (v[i] < -most_of_a_sum || v[i] > most_of_a_sum)
            return tern_fail(err, TERN_E_DATA, i, "%s[%zu] is beyond 2^62", p->name, i);
    return TERN_OK;
}

static tern_status check_counts(const tern_param *p, tern_error *err) {
    const int32_t *v = p ? p->integers : NULL;
    for (size_t i = 0; p && i < p->count; i++)
        if (v[i] < 0) return tern_fail(err, TERN_E_DATA, i, "%s[%zu] is negative", p->name, i);
    return TERN_OK;
}

static tern_status check_range(const tern_param *p, int least, int most, int also, tern_error *err) {
    const int8_t *v = p ? p->integers : NULL;
    for (size_t i = 0; p && i < p->count; i++)
        if ((v[i] < least || v[i] > most) && v[i] != also)
            return tern_fail(err, TERN_E_DATA, i, "%s[%zu] is %d; %d to %d are possible", p->name, i, v[i], least,
                             most);
    return TERN_OK;
}

tern_status tern_trit_check(const tern_graph *graph, size_t i, tern_error *err) {
    const tern_node *node = &graph->node[i];
    const tern_param *trits = tern_node_find_param(graph, node, "trits");
    if (!tern_node_find_param(graph, node, "exponent")) return TERN_OK;
    TERN_TRY(check_range(tern_node_find_param(graph, node, "exponent"), -100, 100, 0, err));
    TERN_TRY(
        check_range(tern_node_find_param(graph, node, "gradient_exponent"), -100, 100, TERN_NO_GRADIENT_EXP, err));
    TERN_TRY(check_range(tern_node_find_param(graph, node, "counter"), -127, 127, 0, err));
    TERN_TRY(check_range(tern_node_find_param(graph, node, "momentum"), -127, 127, 0, err));
    TERN_TRY(check_range(tern_node_find_param(graph, node, "group_rate"), -TERN_GROUP_RATE_MAX, TERN_GROUP_RATE_MAX,
                         0, err));
    TERN_TRY(check_range(tern_node_find_param(graph, node, "group_threshold"), 1, 126, 1, err));
    TERN_TRY(check_counts(tern_node_find_param(graph, node, "steps"), err));
    TERN_TRY(check_counts(tern_node_find_param(graph, node, "row_steps"), err));
    TERN_TRY(check_sums(tern_node_find_param(graph, node, "correlation"), err));
    TERN_TRY(check_sums(tern_node_find_param(graph, node, "exponent_sum"), err));
    if (!trits) return TERN_OK;
    return tern_validate(TERN_PACK_T5, trits->integers, trits->count, node->at.outputs,
                         tern_weight_columns(graph, node), err);
}

/* ---- in a plan */

static void *integers_of(const tern_graph *graph, size_t i, const char *suffix) {
    const tern_param *p = tern_node_find_param(graph, &graph->node[i], suffix);
    return p ? p->integers : NULL;
}

void tern_trit_view(tern_ternary_weights *w, const tern_graph *graph, size_t i) {
    const tern_node *node = &graph->node[i];
    w->rows = node->at.outputs;
    w->cols = tern_weight_columns(graph, node);
    w->group = node->at.group;
    w->granularity = (tern_granularity)node->at.granularity;
    w->scale_count = tern_trit_scale_count(node, w->rows, w->cols);
    w->rule = (tern_trit_state){.counter = integers_of(graph, i, "counter"),
                                .momentum = integers_of(graph, i, "momentum"),
                                .exponent = integers_of(graph, i, "exponent"),
                                .gradient_exponent = integers_of(graph, i, "gradient_exponent"),
                                .trits = integers_of(graph, i, "trits"),
                                .correlation = integers_of(graph, i, "correlation"),
                                .exponent_sum = integers_of(graph, i, "exponent_sum"),
                                .steps = integers_of(graph, i, "steps"),
                                .rates = integers_of(graph, i, "group_rate"),
                                .thresholds = integers_of(graph, i, "group_threshold")};
}

tern_status tern_trit_prepare(tern_ternary_weights *w, tern_plan *plan, size_t i, tern_error *err) {
    void *memory;
    size_t bytes;
    tern_trit_view(w, plan->graph, i);
    TERN_TRY(tern_packed_bytes(&bytes, TERN_PACK_T2, w->rows, w->cols, err));
    TERN_TRY(tern_plan_keep(plan, &memory, bytes, err));
    w->used = memory;
    if (w->group) {
        TERN_TRY(tern_plan_keep(plan, &memory, w->scale_count, err));
        w->used_exponent = memory;
    }
    TERN_TRY(tern_plan_keep(plan, &memory, (size_t)plan->threads * w->cols, err));
    w->room = memory;
    tern_plan_want_scratch(plan, w->rows * w->cols);
    if (plan->training && tern_plan_graph_node(plan, i)->at.update == TERN_UPDATE_ORTHO)
        tern_plan_want_scratch(
            plan, (tern_round_up(w->rows * w->cols, 16) + tern_orthogonal_floats(w->rows, w->cols, plan->products)) *
                      sizeof(float));
    return TERN_OK;
}

/* 2^(e + 4 k / (steps group)), the exponent held between -14 and 15: the seed's scale. */
static float corrected_scale(const tern_trit_state *s, size_t scale, double group) {
    double shift = s->steps[0] ? 4 * (double)s->correlation[scale] / ((double)s->steps[0] * group) : 0;
    return (float)exp2(fmin(fmax((double)s->exponent[scale] + shift, -14), 15));
}

static void make_scales(tern_ternary_weights *w) {
    double group = w->scale_count == 1 ? (double)(w->rows * w->cols) : (double)w->cols;
    for (size_t s = 0; w->scales && s < w->scale_count; s++)
        w->scales[s] = w->rule.correlation ? corrected_scale(&w->rule, s, group) : ldexpf(1, w->rule.exponent[s]);
}

static size_t group_columns(const tern_ternary_weights *w) { return w->group ? w->group : w->cols; }

/* The first scale of a row. */
static size_t first_scale(const tern_ternary_weights *w, size_t row) {
    return w->scale_count == 1 ? 0 : row * tern_ceil_div(w->cols, group_columns(w));
}

/* Of r1 and r2, and ortho. */
static void counters_to_trits(const tern_ternary_weights *w, size_t row, int8_t *trits) {
    const int8_t *c = w->rule.counter + row * w->cols;
    if (w->rule.thresholds)
        tern_group_trits(trits, c, w->rule.thresholds + first_scale(w, row), w->cols, group_columns(w));
    else
        tern_trits_of_counters(trits, c, w->cols, TERN_TRIT_THRESHOLD);
}

void tern_trit_stored_rows(const tern_ternary_weights *w, int8_t *trits, size_t first, size_t rows) {
    size_t cols = w->cols;
    for (size_t row = first; row < first + rows; row++, trits += cols)
        if (w->rule.trits)
            tern_unpack_row(trits, TERN_PACK_T5, w->rule.trits + row * row_bytes_t5(cols), 0, cols);
        else
            counters_to_trits(w, row, trits);
}

static void hold_sums(int64_t *sum, size_t n) {
    for (size_t i = 0; sum && i < n; i++) {
        assert(sum[i] / 3 < most_of_a_sum / 2 && sum[i] / 3 > -(most_of_a_sum / 2));
        sum[i] = sum[i] > most_of_a_sum ? most_of_a_sum : sum[i] < -most_of_a_sum ? -most_of_a_sum : sum[i];
    }
}

tern_status tern_trit_refresh(tern_ternary_weights *w, tern_plan *plan, size_t i, tern_error *err) {
    (void)i;
    int8_t *trits = plan->scratch.data;
    size_t cols = w->cols, packed = tern_ceil_div(cols, 4);
    TERN_FOR_PARTS(plan->threads, w->rows, tern_rows_a_part(cols), begin, end) {
        tern_trit_stored_rows(w, trits + begin * cols, begin, end - begin);
        tern_pack(w->used + begin * packed, (end - begin) * packed, TERN_PACK_T2, trits + begin * cols, end - begin,
                  cols, NULL);
    }
    make_scales(w);
    if (w->group) memcpy(w->used_exponent, w->rule.exponent, w->scale_count);
    hold_sums(w->rule.correlation, w->scale_count);
    hold_sums(w->rule.exponent_sum, w->scale_count);
    size_t rows = w->rows / w->groups, scales = w->scale_count / w->groups;
    for (size_t g = 0; g < w->groups && w->matrix[g]; g++)
        TERN_TRY(tern_matrix_set_trits(w->matrix[g], trits + g * rows * cols,
                                       w->scales ? w->scales + (w->scale_count > 1 ? g * scales : 0) : NULL,
                                       w->scales ? NULL : w->rule.exponent + g * scales, plan->threads, err));
    return TERN_OK;
}

void tern_trit_rows(const tern_ternary_weights *w, int8_t *trits, size_t first, size_t rows) {
    for (size_t row = 0; row < rows; row++)
        tern_unpack_row(trits + row * w->cols, TERN_PACK_T2, w->used, first + row, w->cols);
}

/* ---- updates */

/* 8-bit fractions of a normalised gradient, at most 2^18 a weight: with fewer than 2^33 weights below 2^51 a pass. */
static void add_exponent_gradients(const tern_ternary_weights *w, size_t row, const int8_t *trits, const float *g,
                                   int gradient_exp) {
    float f = ldexpf(256, -gradient_exp);
    size_t group = w->group ? w->group : w->cols, groups = tern_ceil_div(w->cols, group);
    for (size_t b = 0, c = 0; b < groups; b++) {
        int64_t sum = 0;
        for (size_t end = tern_min_size(c + group, w->cols); c < end; c++)
            sum += (int64_t)llrintf(fminf(fmaxf(g[c] * f, -0x1p18f), 0x1p18f)) * trits[c];
        assert(sum < (int64_t)1 << 51 && sum > -((int64_t)1 << 51));
        int64_t *to = &w->rule.exponent_sum[w->scale_count == 1 ? 0 : row * groups + b];
#pragma omp atomic
        *to += sum;
    }
}

static size_t update_packed(const tern_ternary_weights *w, int update, size_t row, int8_t *trits, const float *g,
                            const tern_trit_step *step) {
    const tern_trit_state *s = &w->rule;
    size_t cols = w->cols, bytes = row_bytes_t5(cols), flips;
    if (update == TERN_UPDATE_SEED_CORR) {
        int64_t *to = &s->correlation[w->scale_count == 1 ? 0 : row], sum = tern_trit_correlation(trits, g, cols);
#pragma omp atomic
        *to -= sum;
        return 0;
    }
    flips = tern_trit_vote(trits, s->counter + row * cols, g, cols, step);
    tern_pack(s->trits + row * bytes, bytes, TERN_PACK_T5, trits, 1, cols, NULL);
    return flips;
}

static size_t count_differences(const tern_ternary_weights *w, size_t row, const int8_t *before) {
    const int8_t *c = w->rule.counter + row * w->cols;
    const uint8_t *h = w->rule.thresholds + first_scale(w, row);
    size_t group = group_columns(w), flips = 0;
    for (size_t i = 0; i < w->cols; i++) flips += (c[i] > h[i / group]) - (c[i] < -h[i / group]) != before[i];
    return flips;
}

/* r1 and r2. Those count flips at one threshold for all; with thresholds of groups they are counted here. */
static size_t update_counters(const tern_ternary_weights *w, int update, size_t row, int8_t *room, float *g,
                              const tern_trit_step *step) {
    const tern_trit_state *s = &w->rule;
    size_t cols = w->cols, first = row * tern_round_up(cols, 8), flips;
    int8_t *c = s->counter + row * cols;
    if (s->rates)
        tern_group_rates_step(s->rates + first_scale(w, row), g, cols, group_columns(w), step->gradient_exp);
    if (s->thresholds) counters_to_trits(w, row, room);
    flips = update == TERN_UPDATE_R1 ? tern_trit_r1(c, g, first, cols, step)
                                     : tern_trit_r2(c, s->momentum + row * cols, g, first, cols, step);
    return s->thresholds ? count_differences(w, row, room) : flips;
}

static size_t update_row(const tern_ternary_weights *w, int update, size_t row, int8_t *room, float *g,
                         const tern_trit_step *step) {
    const tern_trit_state *s = &w->rule;
    size_t cols = w->cols, first = row * tern_round_up(cols, 8);
    if (s->exponent_sum) {
        tern_unpack_row(room, TERN_PACK_T2, w->used, row, cols);
        add_exponent_gradients(w, row, room, g, step->gradient_exp);
    }
    if (s->trits) {
        tern_unpack_row(room, TERN_PACK_T5, s->trits + row * row_bytes_t5(cols), 0, cols);
        return update_packed(w, update, row, room, g, step);
    }
    if (update == TERN_UPDATE_ORTHO) {
        tern_trit_momentum(s->momentum + row * cols, g, first, cols, step);
        return 0;
    }
    return update_counters(w, update, row, room, g, step);
}

static tern_trit_step step_of(const tern_plan *plan, size_t i, int gradient_exp, uint64_t number) {
    int vote = tern_plan_graph_node(plan, i)->at.update == TERN_UPDATE_VOTE;
    return (tern_trit_step){.key = tern_stream(plan->seed, ((uint64_t)1 << 32) + i),
                            .step = number,
                            .rate = plan->rules.rate[i],
                            .gradient_exp = gradient_exp,
                            .threshold = vote ? TERN_VOTE_THRESHOLD : TERN_TRIT_THRESHOLD};
}

size_t tern_trit_update_row(const tern_ternary_weights *w, const tern_plan *plan, size_t i, size_t row, float *g,
                            int gradient_exp, uint64_t number, int8_t *room) {
    tern_trit_step step = step_of(plan, i, gradient_exp, number);
    return update_row(w, tern_plan_graph_node(plan, i)->at.update, row, room, g, &step);
}

void tern_trit_update(tern_ternary_weights *w, tern_plan *plan, size_t i, size_t first, size_t rows, float *g) {
    int update = tern_plan_graph_node(plan, i)->at.update;
    tern_trit_step step = step_of(plan, i, w->rule.gradient_exponent[0], plan->step);
    size_t flips = 0, cols = w->cols;
#pragma omp parallel for schedule(static) reduction(+ : flips) num_threads(tern_team(plan->threads, rows * cols, TERN_PART))
    for (size_t row = 0; row < rows; row++)
        flips +=
            update_row(w, update, first + row, w->room + (size_t)omp_get_thread_num() * cols, g + row * cols, &step);
    w->flipping += flips;
}

enum { NEWTON_STEPS = 4 };

/* The counters' part of ortho: the whole momentum as floats, made orthogonal, in scratch that the tiles no longer
 * need. Its singular values are near 1, so its mean square is near 1 / the longer side. */
static void step_along_orthogonal(tern_ternary_weights *w, tern_plan *plan, size_t i) {
    size_t n = w->rows * w->cols, cols = w->cols, flips = 0;
    float *x = plan->scratch.data;
    double square = 1 / (double)tern_max_size(w->rows, cols);
    tern_trit_step step = step_of(plan, i, tern_gradient_exponent(square), plan->step);
    step.key = tern_stream(plan->seed, ((uint64_t)3 << 32) + i);
    tern_operand_from_i8(plan->threads, TERN_F32, x, w->rule.momentum, n);
    tern_newton newton = {plan->dnn, plan->threads, NEWTON_STEPS, plan->products};
    tern_orthogonalise(&newton, x, x + tern_round_up(n, 16), w->rows, cols);
#pragma omp parallel for schedule(static) reduction(+ : flips) num_threads(tern_team(plan->threads, n, TERN_PART))
    for (size_t row = 0; row < w->rows; row++)
        flips +=
            tern_trit_r1(w->rule.counter + row * cols, x + row * cols, row * tern_round_up(cols, 8), cols, &step);
    w->flipping += flips;
}

enum { EXPONENT_PERIOD = 1000 };

/* Once in EXPONENT_PERIOD steps each exponent moves by one against its summed gradient, where that is four deviations
 * of a sum of as many independent gradients. */
static void step_exponents(tern_ternary_weights *w, uint64_t step) {
    if (!w->rule.exponent_sum || (step + 1) % EXPONENT_PERIOD) return;
    double weights = (double)(w->rows * w->cols) / (double)w->scale_count;
    int64_t least = (int64_t)(4 * 256 * sqrt(EXPONENT_PERIOD * weights));
    for (size_t s = 0; s < w->scale_count; s++) {
        int64_t sum = w->rule.exponent_sum[s];
        int e = w->rule.exponent[s] + (sum < -least) - (sum > least);
        w->rule.exponent[s] = (int8_t)(e < -30 ? -30 : e > 30 ? 30 : e);
        w->rule.exponent_sum[s] = 0;
    }
}

/* One exponent a tensor: one group of all rows. */
static void step_thresholds(tern_ternary_weights *w, int percent, uint64_t step) {
    if (!w->rule.thresholds || (step + 1) % TERN_GROUP_PERIOD) return;
    size_t row = w->scale_count == 1 ? w->rows * w->cols : w->cols;
    for (size_t at = 0; at < w->rows * w->cols; at += row)
        tern_group_thresholds_step(w->rule.thresholds + first_scale(w, at / w->cols), w->rule.counter + at, row,
                                   w->scale_count == 1 ? row : group_columns(w), percent);
}

void tern_trit_finish(tern_ternary_weights *w, tern_plan *plan, size_t i, double squares) {
    int e = tern_gradient_exponent(squares / (double)(w->rows * w->cols));
    if (e != TERN_NO_GRADIENT_EXP) w->rule.gradient_exponent[0] = (int8_t)e;
    if (w->rule.steps) w->rule.steps[0] += w->rule.steps[0] < INT32_MAX;
    if (tern_plan_graph_node(plan, i)->at.update == TERN_UPDATE_ORTHO) step_along_orthogonal(w, plan, i);
    step_exponents(w, plan->step);
    step_thresholds(w, tern_plan_graph_node(plan, i)->at.zeros, plan->step);
}
