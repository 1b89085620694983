/* How much persists of each kind of layer, counted by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "nn/state_size.h"

static size_t none(const void *context, const tern_graph *graph, size_t p) {
    (void)context, (void)graph, (void)p;
    return 0;
}

/* As AdamW: two floats beside each float that has a gradient. */
static size_t two_floats(const void *context, const tern_graph *graph, size_t p) {
    (void)context;
    return tern_param_has_gradient(&graph->param[p]) && !graph->param[p].integers ? 8 * graph->param[p].count : 0;
}

static void expect(const tern_graph *g, tern_value node, size_t weights, size_t bytes) {
    assert_true(node > 0);
    tern_state_size size = tern_node_state_size(g, (size_t)node, none, NULL);
    assert_int_equal(size.weights, weights);
    assert_int_equal(size.bytes, bytes);
}

enum { COLS = 26, OUT = 6 };

static void test_rules(void **state) {
    (void)state;
    tern_graph *g;
    assert_false(tern_graph_create(&g, NULL));
    tern_value x = tern_graph_input(g, (tern_shape){1, {COLS}});
    static const struct {
        tern_update update;
        size_t group, bytes; /* beside one exponent a scale, and that of the gradient */
    } rules[] = {{TERN_UPDATE_R1, 0, OUT * COLS},
                 {TERN_UPDATE_R2, 0, 2 * OUT * COLS},
                 {TERN_UPDATE_R2, 8, 2 * OUT * COLS},
                 {TERN_UPDATE_VOTE, 0, OUT * COLS + OUT * 6},        /* t5: 6 bytes a row of 26 */
                 {TERN_UPDATE_SEED_CORR, 0, OUT * 6 + OUT * 8 + 4}}; /* a sum a row, and the steps */
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        char name[8] = {'l', (char)('0' + i)};
        size_t scales = rules[i].group ? OUT * 4 : OUT; /* 26 columns: 4 groups of 8 */
        tern_value v = tern_graph_add(g, "trit_linear", name, x,
                                      &(tern_attrs){.outputs = OUT,
                                                    .bias = 1,
                                                    .update = (int)rules[i].update,
                                                    .granularity = rules[i].group ? TERN_PER_TENSOR : TERN_PER_ROW,
                                                    .group = rules[i].group});
        expect(g, v, OUT * COLS + OUT, rules[i].bytes + scales + 1 + 2 * OUT); /* the bias: int16 */
    }
    tern_graph_free(&g);
}

static void test_other_layers(void **state) {
    (void)state;
    tern_graph *g;
    assert_false(tern_graph_create(&g, NULL));
    tern_value x = tern_graph_input(g, (tern_shape){1, {COLS}});
    x = tern_graph_add(g, "bit_linear", "latent", x, &(tern_attrs){.outputs = COLS});
    expect(g, x, COLS * COLS, 4 * COLS * COLS);
    tern_state_size adam = tern_node_state_size(g, (size_t)x, two_floats, NULL);
    assert_true(tern_state_bits(&adam) == 96);
    /* Used once more: counted once. */
    x = tern_graph_add(g, "bit_linear", "again", x, &(tern_attrs){.outputs = COLS, .same_as = 1});
    expect(g, x, 0, 0);
    x = tern_graph_add(g, "batch_norm", "norm", x, &(tern_attrs){.integers = 1});
    expect(g, x, 2 * COLS, 2 * 2 * COLS + 2 * 4 * COLS);
    x = tern_graph_add(g, "linear", "frozen", x, &(tern_attrs){.outputs = OUT, .frozen = 1, .bias = 1});
    expect(g, x, OUT, 4 * OUT);
    x = tern_graph_add(g, "relu", "relu", x, NULL);
    expect(g, x, 0, 0);
    tern_state_size sum = tern_graph_state_size(g, none, NULL);
    assert_int_equal(sum.weights, COLS * COLS + 2 * COLS + OUT);
    assert_int_equal(sum.bytes, 4 * COLS * COLS + 12 * COLS + 4 * OUT);
    tern_graph_free(&g);

    /* A table: its rows count their steps. */
    assert_false(tern_graph_create(&g, NULL));
    x = tern_graph_input_tokens(g, 4, 10);
    x = tern_graph_add(g, "trit_embedding", "table", x, &(tern_attrs){.width = COLS, .granularity = TERN_PER_ROW});
    expect(g, x, 10 * COLS, 2 * 10 * COLS + 10 + 1 + 4 * 10);
    tern_graph_free(&g);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rules), cmocka_unit_test(test_other_layers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
