/* Rates and thresholds of scale groups against naive references in 64 bits, and in the updates of a layer. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/random.h"
#include "nn/trit_weights.h"
#include "quant/trit_groups.h"
#include "quant/trit_rules.h"

static tern_error err;
#define OK(call)                                                                            \
    do {                                                                                    \
        tern_status status_ = (call);                                                       \
        if (status_) fail_msg("%s: %s: %s", #call, tern_status_text(status_), err.message); \
    } while (0)

/* ---- the integers alone */

/* round(log2(rms)), ties up, by comparing squares: the least e with mean of squares < 2^(2e + 1). */
static int naive_log2(const float *g, size_t n) {
    double squares = 0;
    for (size_t i = 0; i < n; i++) squares += (double)g[i] * (double)g[i];
    int e = -100;
    while (e < 100 && squares >= ldexp((double)n, 2 * e + 1)) e++;
    return e;
}

static int naive_rate(int k, const float *g, size_t n, int tensor) {
    int zero = 1;
    for (size_t i = 0; i < n; i++) zero &= g[i] == 0;
    if (zero) return k;
    int64_t wanted = (int64_t)tensor - naive_log2(g, n);
    if (wanted > k) return k < 4 ? k + 1 : 4;
    return wanted < k ? (k > -4 ? k - 1 : -4) : k;
}

static void test_rates(void **state) {
    (void)state;
    enum { N = 50 };
    static const size_t groups[] = {4, 6, 8, 16, 32, N};
    for (size_t trial = 0; trial < 600; trial++) {
        size_t group = groups[trial % 6], count = (N + group - 1) / group;
        float g[N], scaled[N];
        int8_t k[N], rates[N];
        int tensor = (int)(trial % 11) - 5;
        for (size_t b = 0; b < count; b++) k[b] = (int8_t)((int)((trial + 3 * b) % 9) - 4);
        for (size_t i = 0; i < N; i++) {
            int lift = (int)((trial * 7 + i / group * 5) % 13) - 6;
            g[i] = i / group == trial % 5 ? 0 : ldexpf(tern_random_normal(trial, i), lift);
        }
        memcpy(rates, k, sizeof rates);
        memcpy(scaled, g, sizeof scaled);
        tern_group_rates_step(rates, scaled, N, group, tensor);
        for (size_t b = 0; b < count; b++) {
            size_t n = b * group + group > N ? N - b * group : group;
            assert_int_equal(rates[b], naive_rate(k[b], g + b * group, n, tensor));
            for (size_t i = b * group; i < b * group + n; i++) assert_true(scaled[i] == g[i] * exp2f(k[b]));
        }
    }
}

/* Shares as fractions over 100 n, every quantity in 64 bits. */
static int naive_threshold(int h, const int8_t *c, size_t n, int percent) {
    int64_t off[3];
    for (int side = -1; side <= 1; side++) {
        int64_t zeros = 0;
        for (size_t i = 0; i < n; i++) zeros += c[i] <= h + side && -c[i] <= h + side;
        off[side + 1] = 100 * zeros - percent * (int64_t)n;
    }
    int side = off[1] < 0 ? 1 : off[1] > 0 ? -1 : 0;
    if (!side || h + side < 1 || h + side > 126) return h;
    int64_t now = off[1] < 0 ? -off[1] : off[1], then = off[side + 1] < 0 ? -off[side + 1] : off[side + 1];
    return off[side + 1] == off[1] || then < now ? h + side : h;
}

static void test_thresholds(void **state) {
    (void)state;
    enum { N = 70 };
    static const size_t groups[] = {4, 6, 8, 16, 32, 64, N};
    static const int firsts[] = {1, 2, 41, 42, 43, 100, 126};
    size_t moves = 0;
    for (size_t trial = 0; trial < 700; trial++) {
        size_t group = groups[trial % 7];
        int8_t c[N], trits[N];
        uint8_t h[N], before[N];
        for (size_t i = 0; i < N; i++)
            c[i] = (int8_t)(trial % 3 ? fmaxf(-127, fminf(127, 50 * tern_random_normal(trial, i)))
                            : i % 2   ? 127
                                      : -127);
        memset(h, firsts[trial / 7 % 7], sizeof h);
        for (int repeat = 0; repeat < 60; repeat++) {
            int percent = 1 + (int)(trial % 99);
            memcpy(before, h, sizeof h);
            tern_group_thresholds_step(h, c, N, group, percent);
            for (size_t at = 0, b = 0; at < N; at += group, b++) {
                size_t n = at + group > N ? N - at : group;
                assert_int_equal(h[b], naive_threshold(before[b], c + at, n, percent));
                moves += h[b] != before[b];
            }
        }
        tern_group_trits(trits, c, h, N, group);
        for (size_t i = 0; i < N; i++) assert_int_equal(trits[i], (c[i] > h[i / group]) - (c[i] < -h[i / group]));
    }
    assert_true(moves > 10000);
}

/* A large group of normal counters comes to rest within a count's share of what is wanted. */
static void test_thresholds_come_to_rest(void **state) {
    (void)state;
    enum { N = 4096 };
    static int8_t c[N];
    for (size_t i = 0; i < N; i++) c[i] = (int8_t)fmaxf(-127, fminf(127, rintf(50 * tern_random_normal(3, i))));
    uint8_t h = TERN_TRIT_THRESHOLD;
    for (int step = 0; step < 30; step++) tern_group_thresholds_step(&h, c, N, N, 45);
    uint8_t rested = h;
    tern_group_thresholds_step(&h, c, N, N, 45);
    assert_int_equal(h, rested);
    int zeros = 0;
    for (size_t i = 0; i < N; i++) zeros += abs(c[i]) <= h;
    assert_true(abs(100 * zeros - 45 * N) < N);
    assert_true(h < TERN_TRIT_THRESHOLD);
}

/* ---- in a layer */

enum { ROWS = 12, COLS = 30 };

typedef struct layer {
    tern_graph *graph;
    tern_plan *plan;
    tern_ternary_weights *w;
} layer;

static layer make_layer(tern_attrs at) {
    layer l = {0};
    at.outputs = ROWS;
    OK(tern_graph_create(&l.graph, &err));
    tern_graph_add(l.graph, "trit_linear", "l", tern_graph_input(l.graph, (tern_shape){1, {COLS}}), &at);
    OK(tern_graph_check(l.graph, &err));
    OK(tern_graph_place(l.graph, &err));
    tern_graph_initialise(l.graph, 5, 0);
    OK(tern_plan_create(&l.plan, l.graph, &(tern_plan_desc){.batch_max = 1, .training = 1, .threads = 2}, &err));
    OK(tern_plan_refresh(l.plan, &err));
    l.w = tern_plan_ternary(l.plan, 1);
    l.plan->rules.rate[1] = 6 * TERN_RATE_ONE;
    return l;
}

static void free_layer(layer *l) {
    tern_plan_free(&l->plan);
    tern_graph_free(&l->graph);
}

static void draw_gradient(float *g, uint64_t step) {
    for (size_t i = 0; i < ROWS * COLS; i++) g[i] = ldexpf(tern_random_normal(step, i), (int)(i / COLS % 7) - 3);
}

/* One update of the layer against the rules on gradients that are scaled by hand, row by row. */
static void check_layer(tern_attrs at) {
    layer l = make_layer(at);
    size_t group = at.group ? at.group : COLS, groups = (COLS + group - 1) / group;
    tern_trit_state *s = &l.w->rule;
    int8_t *c = calloc(2, ROWS * COLS), *m = c + ROWS * COLS, trits[2][COLS];
    static float g[ROWS * COLS], room[COLS];
    size_t flips = 0;
    s->gradient_exponent[0] = 1;
    for (size_t b = 0; b < ROWS * groups; b++) s->thresholds[b] = (uint8_t)(20 + 7 * b % 60);
    memcpy(c, s->counter, ROWS * COLS);
    for (l.plan->step = 0; l.plan->step < 12; l.plan->step++) {
        draw_gradient(g, l.plan->step);
        for (size_t row = 0; row < ROWS; row++) {
            tern_trit_step step = {.key = tern_stream(l.plan->seed, ((uint64_t)1 << 32) + 1),
                                   .step = l.plan->step,
                                   .rate = l.plan->rules.rate[1],
                                   .gradient_exp = 1,
                                   .threshold = TERN_TRIT_THRESHOLD};
            for (size_t i = 0; i < COLS; i++) room[i] = g[row * COLS + i] * exp2f(s->rates[row * groups + i / group]);
            size_t first = row * 32;
            tern_group_trits(trits[0], c + row * COLS, s->thresholds + row * groups, COLS, group);
            if (at.update == TERN_UPDATE_R1)
                tern_trit_r1(c + row * COLS, room, first, COLS, &step);
            else
                tern_trit_r2(c + row * COLS, m + row * COLS, room, first, COLS, &step);
            tern_group_trits(trits[1], c + row * COLS, s->thresholds + row * groups, COLS, group);
            for (size_t i = 0; i < COLS; i++) flips += trits[0][i] != trits[1][i];
        }
        tern_trit_update(l.w, l.plan, 1, 0, ROWS, g);
        assert_memory_equal(s->counter, c, ROWS * COLS);
        if (s->momentum) assert_memory_equal(s->momentum, m, ROWS * COLS);
    }
    assert_true(flips > 0);
    assert_int_equal(l.w->flipping, flips);
    /* Rows of seven sizes: rates have gone their ways. */
    assert_int_equal(s->rates[0], 4);
    assert_true(s->rates[6 * groups] < 0);
    OK(tern_plan_refresh(l.plan, &err));
    for (size_t row = 0; row < ROWS; row++) {
        tern_trit_rows(l.w, trits[0], row, 1);
        tern_group_trits(trits[1], c + row * COLS, s->thresholds + row * groups, COLS, group);
        assert_memory_equal(trits[0], trits[1], COLS);
    }
    free(c);
    free_layer(&l);
}

static void test_layers(void **state) {
    (void)state;
    for (int update = TERN_UPDATE_R1; update <= TERN_UPDATE_R2; update++) {
        check_layer(
            (tern_attrs){.update = update, .granularity = TERN_PER_ROW, .group_rates = 1, .group_thresholds = 1});
        check_layer((tern_attrs){.update = update, .group = 6, .group_rates = 1, .group_thresholds = 1});
        check_layer((tern_attrs){.update = update, .group = 16, .group_rates = 1, .group_thresholds = 1});
    }
}

/* Thresholds step once in a period and no sooner, of a tensor as one group. */
static void test_period(void **state) {
    (void)state;
    const tern_attrs kinds[] = {{.group_thresholds = 1, .zeros = 80},
                                {.group = 8, .group_thresholds = 1, .zeros = 80}};
    for (int kind = 0; kind < 2; kind++) {
        layer l = make_layer(kinds[kind]);
        l.plan->step = TERN_GROUP_PERIOD - 2;
        tern_trit_finish(l.w, l.plan, 1, 1);
        for (size_t b = 0; b < l.w->scale_count; b++) assert_int_equal(l.w->rule.thresholds[b], TERN_TRIT_THRESHOLD);
        l.plan->step++;
        tern_trit_finish(l.w, l.plan, 1, 1);
        size_t group = kind ? 8 : ROWS * COLS, row = kind ? COLS : ROWS * COLS, b = 0, moved = 0;
        for (size_t at = 0; at < ROWS * COLS; at += row)
            for (size_t c = 0; c < row; c += group, b++) {
                size_t n = c + group > row ? row - c : group;
                assert_int_equal(l.w->rule.thresholds[b],
                                 naive_threshold(TERN_TRIT_THRESHOLD, l.w->rule.counter + at + c, n, 80));
                moved += l.w->rule.thresholds[b] != TERN_TRIT_THRESHOLD;
            }
        assert_int_equal(b, l.w->scale_count);
        assert_true(moved > 0);
        free_layer(&l);
    }
}

static void expect_refused(tern_attrs at, const char *text) {
    tern_graph *graph;
    at.outputs = ROWS;
    OK(tern_graph_create(&graph, &err));
    tern_graph_add(graph, "trit_linear", "l", tern_graph_input(graph, (tern_shape){1, {COLS}}), &at);
    assert_int_equal(tern_graph_check(graph, &err), TERN_E_ARGUMENT);
    if (!strstr(err.message, text)) fail_msg("'%s' is not in '%s'", text, err.message);
    tern_graph_free(&graph);
}

static void test_refused(void **state) {
    (void)state;
    expect_refused((tern_attrs){.update = TERN_UPDATE_VOTE, .group_thresholds = 1}, "rules r1 and r2");
    expect_refused((tern_attrs){.update = TERN_UPDATE_SEED_CORR, .granularity = TERN_PER_ROW, .group_rates = 1},
                   "rules r1 and r2");
    expect_refused((tern_attrs){.group_rates = 1}, "a scale a row or a group");
    expect_refused((tern_attrs){.group_thresholds = 1, .zeros = 100}, "zeros 100");
    expect_refused((tern_attrs){.group_thresholds = 1, .zeros = -1}, "zeros -1");
    layer l = make_layer((tern_attrs){.group = 8, .group_rates = 1, .group_thresholds = 1});
    OK(tern_trit_check(l.graph, 1, &err));
    static const struct {
        int8_t rate;
        uint8_t threshold;
    } bad[] = {{5, 42}, {-5, 42}, {0, 0}, {0, 127}, {0, 200}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        l.w->rule.rates[7] = bad[i].rate;
        l.w->rule.thresholds[7] = bad[i].threshold;
        assert_int_equal(tern_trit_check(l.graph, 1, &err), TERN_E_DATA);
        assert_int_equal(err.place, 7);
    }
    free_layer(&l);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rates),
        cmocka_unit_test(test_thresholds),
        cmocka_unit_test(test_thresholds_come_to_rest),
        cmocka_unit_test(test_layers),
        cmocka_unit_test(test_period),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
