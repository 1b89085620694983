/* Which nodes a layout computes within others. */
#include "nn/layout.h"

#include <stdint.h>

#include "tern/tern.h"
#include "testing.h"

static tern_error err;

/* 1 conv2d, 2 batch_norm, 3 relu, then pools of 2 x 2. */
static tern_graph *normed(size_t side, int pools) {
    tern_graph *g;
    OK(tern_graph_create(&g, &err));
    tern_value x = tern_graph_input(g, (tern_shape){3, {side, side, 3}});
    x = tern_graph_add(g, "conv2d", "conv", x, &(tern_attrs){.outputs = 8, .kernel = 3, .padding = 1});
    x = tern_graph_add(g, "batch_norm", "norm", x, NULL);
    x = tern_graph_add(g, "relu", "relu", x, NULL);
    static const char *const names[] = {"first", "second"};
    for (int p = 0; p < pools; p++) x = tern_graph_add(g, "max_pool", names[p], x, &(tern_attrs){.kernel = 2});
    OK(tern_graph_check(g, &err));
    return g;
}

static tern_layout fused(const tern_graph *g, size_t batch) {
    tern_layout layout;
    OK(tern_layout_make(&layout, g, batch, 2, TERN_LAYOUT_FUSED | TERN_LAYOUT_TRAINING, &err));
    return layout;
}

static void test_pool(void **state) {
    (void)state;
    tern_graph *g = normed(16, 1);
    tern_layout l = fused(g, 4);
    assert_true(l.node[2].within && l.node[3].within && !l.node[4].within && l.node[4].normed);
    assert_int_equal(l.node[4].from[0], 1);
    tern_layout_free(&l);
    tern_graph_free(&g);
}

/* Only the pool behind the activation takes it in; the next one pools that pool's values. */
static void test_two_pools(void **state) {
    (void)state;
    tern_graph *g = normed(16, 2);
    tern_layout l = fused(g, 4);
    assert_true(l.node[2].within && l.node[3].within && l.node[4].normed);
    assert_true(!l.node[4].within && !l.node[5].normed);
    assert_int_equal(l.node[5].from[0], 4);
    tern_layout_free(&l);
    tern_graph_free(&g);
}

/* More windows than the pool's kernel counts: the activation does the norm, and the pool is one of its own. */
static void test_many_windows(void **state) {
    (void)state;
    tern_graph *g = normed(1 << 10, 1);
    tern_layout l = fused(g, 1 << 12);
    assert_true(l.node[2].within && l.node[3].normed && !l.node[3].within && !l.node[4].normed);
    tern_layout_free(&l);
    tern_graph_free(&g);
}

/* A deployed activation does the affine in front of it; a norm leaves such squares alone, and in training nobody does
 * another's. What a deployed product may read behind a norm lives as long as the product's input. */
static void test_deployed(void **state) {
    (void)state;
    tern_graph *g;
    OK(tern_graph_create(&g, &err));
    tern_value x = tern_graph_add(g, "flatten", "flat", tern_graph_input(g, (tern_shape){3, {64, 1, 1}}), NULL);
    x = tern_graph_add(g, "affine", "affine", x, NULL);
    x = tern_graph_add(g, "relu2", "relu2", x, NULL);
    x = tern_graph_add(g, "rmsnorm", "norm", x, NULL);
    tern_graph_add(g, "packed_linear", "packed", x, &(tern_attrs){.outputs = 64, .acts = TERN_I8});
    OK(tern_graph_check(g, &err));
    tern_layout l;
    OK(tern_layout_make(&l, g, 4, 2, TERN_LAYOUT_FUSED, &err));
    assert_true(l.node[2].within && l.node[3].scaled && !l.node[3].within && !l.node[3].normed);
    assert_int_equal(l.node[3].from[0], 1);
    assert_int_not_equal(l.node[5].value, l.node[3].value);
    tern_layout_free(&l);
    l = fused(g, 4);
    assert_true(!l.node[2].within && !l.node[3].scaled && l.node[3].within);
    tern_layout_free(&l);
    tern_graph_free(&g);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_pool), cmocka_unit_test(test_two_pools),
                                       cmocka_unit_test(test_many_windows), cmocka_unit_test(test_deployed)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
