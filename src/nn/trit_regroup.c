#include "nn/trit_regroup.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "nn/trit_weights.h"

/* Which scale a weight has: one for all, or one for each `group` columns of a row. */
typedef struct scales {
    int tensor;
    size_t group; /* columns; a whole row rounded up to 4, so that it is a group as any other */
    size_t a_row; /* groups */
} scales;

static scales scales_of(tern_granularity granularity, size_t group, size_t cols) {
    scales s = {.tensor = !group && granularity == TERN_PER_TENSOR, .group = group ? group : tern_round_up(cols, 4)};
    s.a_row = tern_ceil_div(cols, s.group);
    return s;
}

static size_t scale_at(const scales *s, size_t row, size_t column) {
    return s->tensor ? 0 : row * s->a_row + column / s->group;
}

static size_t scale_count(const scales *s, size_t rows) { return s->tensor ? 1 : rows * s->a_row; }

/* One exponent for all of W: rows end to end, each padded with zeros to whole groups, are one row with one group. */
static tern_status one_exponent(int8_t *to, const int8_t *from, const scales *old, const int8_t *trits, size_t rows,
                                size_t cols, tern_error *err) {
    size_t padded = old->a_row * old->group;
    int8_t *room = calloc(rows, padded);
    if (!room) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for %zu trits", rows * padded);
    for (size_t r = 0; r < rows; r++) memcpy(room + r * padded, trits + r * cols, cols);
    tern_status status =
        tern_regroup_exponents(to, tern_round_up(rows * padded, 4), from, old->group, room, 1, rows * padded, err);
    free(room);
    return status;
}

/* from: of `old`, to: of `new`. */
static tern_status exponents_to(int8_t *to, const scales *new, const int8_t *from, const scales *old,
                                const int8_t *trits, size_t rows, size_t cols, tern_error *err) {
    if (old->tensor) { /* the same everywhere */
        memset(to, from[0], scale_count(new, rows));
        return TERN_OK;
    }
    if (new->tensor) return one_exponent(to, from, old, trits, rows, cols, err);
    return tern_regroup_exponents(to, new->group, from, old->group, trits, rows, cols, err);
}

/* to: one byte a new scale, that of the old scale of its first column. Returns 0 where a later column's differs. */
static int bytes_to(uint8_t *to, const scales *new, const uint8_t *from, const scales *old, size_t rows,
                    size_t cols) {
    int same = 1;
    for (size_t r = rows; r-- > 0;)
        for (size_t c = cols; c-- > 0;) to[scale_at(new, r, c)] = from[scale_at(old, r, c)];
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < cols; c++) same &= to[scale_at(new, r, c)] == from[scale_at(old, r, c)];
    return same;
}

static tern_status check(const tern_graph *graph, size_t i, tern_granularity granularity, size_t group,
                         tern_error *err) {
    const tern_node *node = &graph->node[i];
    if (!tern_node_find_param(graph, node, "exponent"))
        return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE,
                         "%s has no whole-number weights, and its scales are no powers of two", node->name);
    if (node->at.update == TERN_UPDATE_SEED_CORR)
        return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE, "%s: seed-corr's scales are no powers of two",
                         node->name);
    tern_ternary_weights w = {0};
    tern_trit_view(&w, graph, i);
    TERN_CHECK_ARGUMENT(granularity == TERN_PER_TENSOR || granularity == TERN_PER_ROW, err,
                        "%s: granularity %d; 0 (tensor) and 1 (row) are possible", node->name, (int)granularity);
    TERN_CHECK_ARGUMENT(!group || tern_group_is_valid(group, w.cols), err,
                        "%s: groups of %zu columns; 6 and the multiples of 4 up to %zu are possible", node->name,
                        group, tern_round_up(w.cols, 4));
    if (w.rule.rates && !group && granularity == TERN_PER_TENSOR)
        return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE,
                         "%s has rates of groups, which one scale a tensor has no place for", node->name);
    return TERN_OK;
}

/* What is made before anything changes. */
typedef struct regrouped {
    int8_t *trits, *exponents;
    uint8_t *rates, *thresholds;
} regrouped;

static tern_status make(regrouped *to, const tern_ternary_weights *w, const scales *old, const scales *new,
                        const char *name, tern_error *err) {
    size_t count = scale_count(new, w->rows);
    to->trits = malloc(w->rows * w->cols);
    to->exponents = malloc(count);
    to->rates = malloc(count);
    to->thresholds = malloc(count);
    if (!to->trits || !to->exponents || !to->rates || !to->thresholds)
        return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "%s: no memory for its scales", name);
    if (w->rule.rates) bytes_to(to->rates, new, (const uint8_t *)w->rule.rates, old, w->rows, w->cols);
    if (w->rule.thresholds && !bytes_to(to->thresholds, new, w->rule.thresholds, old, w->rows, w->cols))
        return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE,
                         "%s: its groups' thresholds differ within the new groups; only smaller groups are possible",
                         name);
    tern_trit_stored_rows(w, to->trits, 0, w->rows);
    return exponents_to(to->exponents, new, w->rule.exponent, old, to->trits, w->rows, w->cols, err);
}

/* The parameters of one value a scale, resized and filled; those without new values begin at 0. */
static tern_status replace(tern_graph *graph, size_t i, const regrouped *to, size_t count, tern_error *err) {
    const tern_node *node = &graph->node[i];
    static const char *const suffix[] = {"exponent", "group_rate", "group_threshold", "exponent_sum"};
    const void *values[] = {to->exponents, to->rates, to->thresholds, NULL}, *filled[4];
    size_t numbers[4], n = 0;
    for (int k = 0; k < 4; k++) {
        const tern_param *p = tern_node_find_param(graph, node, suffix[k]);
        if (!p) continue;
        filled[n] = values[k];
        numbers[n++] = (size_t)(p - graph->param);
    }
    TERN_TRY(tern_graph_resize_params(graph, numbers, n, count, err));
    for (size_t k = 0; k < n; k++)
        if (filled[k]) memcpy(graph->param[numbers[k]].integers, filled[k], count);
    return TERN_OK;
}

tern_status tern_trit_regroup(tern_graph *graph, size_t i, tern_granularity granularity, size_t group,
                              tern_error *err) {
    TERN_TRY(check(graph, i, granularity, group, err));
    const tern_node *node = &graph->node[i];
    int first = node->param[0];
    tern_ternary_weights w = {0};
    tern_trit_view(&w, graph, i);
    scales old = scales_of(w.granularity, w.group, w.cols), new = scales_of(granularity, group, w.cols);
    regrouped to = {0};
    tern_status status = make(&to, &w, &old, &new, node->name, err);
    if (!status) status = replace(graph, i, &to, scale_count(&new, w.rows), err);
    for (size_t k = 1; !status && k < graph->nodes; k++)
        if (graph->node[k].params && graph->node[k].param[0] == first) {
            graph->node[k].at.group = group;
            graph->node[k].at.granularity = group ? TERN_PER_TENSOR : (int)granularity;
        }
    free(to.trits);
    free(to.exponents);
    free(to.rates);
    free(to.thresholds);
    return status;
}
