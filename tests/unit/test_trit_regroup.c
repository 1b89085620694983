/* Other scale groups for trained layers: against a naive reference, and in what the layer computes. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/random.h"
#include "nn/plan.h"
#include "nn/trit_regroup.h"
#include "nn/trit_weights.h"

static tern_error err;
#define OK(call)                                                                            \
    do {                                                                                    \
        tern_status status_ = (call);                                                       \
        if (status_) fail_msg("%s: %s: %s", #call, tern_status_text(status_), err.message); \
    } while (0)

enum { ROWS = 10, COLS = 54, BATCH = 5 };

/* A graph of one layer whose exponents are spread, as training would leave them. */
static tern_graph *make_graph(tern_attrs at, int layers) {
    tern_graph *g;
    at.outputs = layers > 1 ? COLS : ROWS;
    OK(tern_graph_create(&g, &err));
    tern_value x = tern_graph_input(g, (tern_shape){1, {COLS}});
    x = tern_graph_add(g, "trit_linear", "first", x, &at);
    at.same_as = 1;
    if (layers > 1) x = tern_graph_add(g, "trit_linear", "again", x, &at);
    OK(tern_graph_check(g, &err));
    OK(tern_graph_place(g, &err));
    tern_graph_initialise(g, 11, 0);
    tern_param *e = tern_graph_find_param(g, "first.exponent");
    for (size_t i = 0; i < e->count; i++) ((int8_t *)e->integers)[i] = (int8_t)(tern_random_u32(17, i) % 5) - 6;
    return g;
}

/* The floats that the layer stands for. */
static void take_weights(float *to, const tern_graph *g, size_t rows) {
    tern_ternary_weights w = {0};
    int8_t trits[COLS];
    tern_trit_view(&w, g, 1);
    size_t group = w.group ? w.group : COLS, a_row = (COLS + group - 1) / group;
    for (size_t r = 0; r < rows; r++) {
        tern_trit_stored_rows(&w, trits, r, 1);
        for (size_t c = 0; c < COLS; c++)
            to[r * COLS + c] = ldexpf(trits[c], w.rule.exponent[w.scale_count == 1 ? 0 : r * a_row + c / group]);
    }
}

static void run(float *y, tern_graph *g, size_t outputs) {
    tern_plan *plan;
    float x[BATCH * COLS];
    for (size_t i = 0; i < BATCH * COLS; i++) x[i] = tern_random_normal(4, i);
    OK(tern_plan_create(&plan, g, &(tern_plan_desc){.batch_max = BATCH, .threads = 1}, &err));
    OK(tern_plan_refresh(plan, &err));
    memcpy(y, tern_plan_forward(plan, x, BATCH), BATCH * outputs * sizeof *y);
    tern_plan_free(&plan);
}

/* round(log2(mean of kept scales)) of the new group of a weight, from the weights before. */
static int naive_exponent(const float *before, size_t row, size_t column, tern_granularity granularity,
                          size_t group) {
    size_t r0 = row, r1 = row + 1, c0 = 0, c1 = COLS;
    if (group) {
        c0 = column / group * group;
        c1 = c0 + group < COLS ? c0 + group : COLS;
    } else if (granularity == TERN_PER_TENSOR) {
        r0 = 0;
        r1 = ROWS;
    }
    double sum = 0, kept = 0;
    for (size_t r = r0; r < r1; r++)
        for (size_t c = c0; c < c1; c++) {
            sum += (double)fabsf(before[r * COLS + c]);
            kept += before[r * COLS + c] != 0;
        }
    return (int)lrint(log2(sum / kept));
}

typedef struct kind {
    tern_granularity granularity;
    size_t group;
} kind;
static const kind kinds[] = {{TERN_PER_TENSOR, 0},  {TERN_PER_ROW, 0},    {TERN_PER_TENSOR, 4},
                             {TERN_PER_TENSOR, 6},  {TERN_PER_TENSOR, 8}, {TERN_PER_TENSOR, 16},
                             {TERN_PER_TENSOR, 32}, {TERN_PER_TENSOR, 56}};
enum { KINDS = sizeof kinds / sizeof *kinds };

/* Every new group lies within an old one. */
static int is_split(const kind *old, const kind *new) {
    if (!old->group && old->granularity == TERN_PER_TENSOR) return 1;
    if (!old->group) return new->group || new->granularity == TERN_PER_ROW;
    if (!new->group) return old->group >= COLS && new->granularity == TERN_PER_ROW;
    return old->group >= COLS || old->group % new->group == 0;
}

static void check_pair(const kind *old, const kind *new, int update) {
    static float before[ROWS * COLS], after[ROWS * COLS], y0[BATCH * ROWS], y1[BATCH * ROWS];
    int8_t counters[ROWS * COLS];
    tern_graph *g = make_graph((tern_attrs){.update = update,
                                            .granularity = (int)old->granularity,
                                            .group = old->group,
                                            .bias = 1,
                                            .slow_exponents = 1},
                               1);
    tern_param *bias = tern_graph_find_param(g, "first.bias");
    for (size_t i = 0; i < ROWS; i++) ((int16_t *)bias->integers)[i] = (int16_t)(100 * i);
    tern_param_view(bias);
    *(int64_t *)tern_graph_find_param(g, "first.exponent_sum")->integers = 77;
    memcpy(counters, tern_graph_find_param(g, "first.counter")->integers, sizeof counters);
    take_weights(before, g, ROWS);
    run(y0, g, ROWS);
    OK(tern_trit_regroup(g, 1, new->granularity, new->group, &err));
    OK(tern_trit_check(g, 1, &err));
    assert_int_equal(g->node[1].at.group, new->group);
    take_weights(after, g, ROWS);
    run(y1, g, ROWS);
    assert_memory_equal(counters, tern_graph_find_param(g, "first.counter")->integers, sizeof counters);
    assert_int_equal(((int16_t *)tern_graph_find_param(g, "first.bias")->integers)[3], 300);
    assert_int_equal(*(int64_t *)tern_graph_find_param(g, "first.exponent_sum")->integers, 0);
    for (size_t i = 0; i < ROWS * COLS; i++) {
        float expected = before[i] == 0
                             ? 0
                             : ldexpf(before[i] > 0 ? 1 : -1,
                                      naive_exponent(before, i / COLS, i % COLS, new->granularity, new->group));
        if (after[i] != expected)
            fail_msg("from %zu to %zu, weight %zu: %g, not %g (%g before)", old->group, new->group, i,
                     (double)after[i], (double)expected, (double)before[i]);
    }
    if (is_split(old, new)) {
        assert_memory_equal(before, after, sizeof before);
        assert_memory_equal(y0, y1, sizeof y0);
    }
    /* What merges stays within the largest ratio of scales, 16 here; and it trains on. */
    for (size_t i = 0; i < ROWS * COLS; i++)
        assert_true(before[i] == 0 || (after[i] / before[i] <= 16 && after[i] / before[i] >= 1.0f / 16));
    tern_plan *plan;
    OK(tern_plan_create(&plan, g, &(tern_plan_desc){.batch_max = BATCH, .training = 1, .threads = 1}, &err));
    OK(tern_plan_refresh(plan, &err));
    tern_plan_free(&plan);
    tern_graph_free(&g);
}

static void test_every_pair(void **state) {
    (void)state;
    for (size_t a = 0; a < KINDS; a++)
        for (size_t b = 0; b < KINDS; b++)
            for (int update = TERN_UPDATE_R1; update <= TERN_UPDATE_VOTE; update++)
                check_pair(&kinds[a], &kinds[b], update);
}

static void test_shared(void **state) {
    (void)state;
    static float before[COLS * COLS], after[COLS * COLS], y0[BATCH * COLS], y1[BATCH * COLS];
    tern_graph *g = make_graph((tern_attrs){.granularity = TERN_PER_ROW}, 2);
    take_weights(before, g, COLS);
    run(y0, g, COLS);
    OK(tern_trit_regroup(g, 2, TERN_PER_TENSOR, 8, &err));
    assert_int_equal(g->node[1].at.group, 8);
    assert_int_equal(g->node[2].at.group, 8);
    take_weights(after, g, COLS);
    run(y1, g, COLS);
    assert_memory_equal(before, after, sizeof before);
    assert_memory_equal(y0, y1, sizeof y0);
    tern_graph_free(&g);
}

/* Rates go along with their columns; thresholds only where trits do not notice. */
static void test_group_integers(void **state) {
    (void)state;
    tern_graph *g = make_graph((tern_attrs){.group = 16, .group_rates = 1, .group_thresholds = 1}, 1);
    static float before[ROWS * COLS], after[ROWS * COLS];
    uint8_t *h = tern_graph_find_param(g, "first.group_threshold")->integers;
    int8_t *k = tern_graph_find_param(g, "first.group_rate")->integers;
    for (size_t b = 0; b < ROWS * 4; b++) {
        h[b] = (uint8_t)(30 + b);
        k[b] = (int8_t)(b % 9) - 4;
    }
    take_weights(before, g, ROWS);
    assert_int_equal(tern_trit_regroup(g, 1, TERN_PER_TENSOR, 32, &err), TERN_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "thresholds differ"));
    assert_int_equal(tern_trit_regroup(g, 1, TERN_PER_TENSOR, 0, &err), TERN_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "rates of groups"));
    assert_int_equal(g->node[1].at.group, 16);
    OK(tern_trit_regroup(g, 1, TERN_PER_TENSOR, 8, &err));
    take_weights(after, g, ROWS);
    assert_memory_equal(before, after, sizeof before);
    h = tern_graph_find_param(g, "first.group_threshold")->integers;
    k = tern_graph_find_param(g, "first.group_rate")->integers;
    for (size_t b = 0; b < ROWS * 7; b++) {
        size_t old = b / 7 * 4 + b % 7 / 2;
        assert_int_equal(h[b], 30 + old);
        assert_int_equal(k[b], (int)(old % 9) - 4);
    }
    memset(h, 50, ROWS * 7);
    OK(tern_trit_regroup(g, 1, TERN_PER_ROW, 0, &err));
    h = tern_graph_find_param(g, "first.group_threshold")->integers;
    assert_int_equal(tern_graph_find_param(g, "first.group_threshold")->count, ROWS);
    for (size_t r = 0; r < ROWS; r++) assert_int_equal(h[r], 50);
    tern_graph_free(&g);
}

static void expect_refused(tern_attrs at, tern_granularity granularity, size_t group, const char *text) {
    tern_graph *g = make_graph(at, 1);
    size_t count = g->param[0].count;
    assert_true(tern_trit_regroup(g, 1, granularity, group, &err) != TERN_OK);
    if (!strstr(err.message, text)) fail_msg("'%s' is not in '%s'", text, err.message);
    assert_int_equal(g->node[1].at.group, at.group);
    assert_int_equal(g->param[0].count, count);
    tern_graph_free(&g);
}

static void test_refused(void **state) {
    (void)state;
    expect_refused((tern_attrs){.update = TERN_UPDATE_SEED_CORR}, TERN_PER_ROW, 0, "seed-corr's scales");
    expect_refused((tern_attrs){0}, TERN_PER_TENSOR, 64, "multiples of 4 up to 56");
    expect_refused((tern_attrs){0}, TERN_PER_TENSOR, 10, "groups of 10 columns");
    expect_refused((tern_attrs){0}, (tern_granularity)2, 0, "granularity 2");
    tern_graph *g;
    OK(tern_graph_create(&g, &err));
    tern_graph_add(g, "bit_linear", "latent", tern_graph_input(g, (tern_shape){1, {COLS}}),
                   &(tern_attrs){.outputs = 4});
    OK(tern_graph_place(g, &err));
    assert_int_equal(tern_trit_regroup(g, 1, TERN_PER_ROW, 0, &err), TERN_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "latent has no whole-number weights"));
    tern_graph_free(&g);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_pair), cmocka_unit_test(test_shared),
                                       cmocka_unit_test(test_group_integers), cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
