/* What settings make of the networks: how wide later blocks are, and what is dropped where. */
#include "model/networks.h"
#include "nn/op.h"
#include "testing.h"

static tern_error err;

static const tern_data_shape images = {32, 32, 3, 10, 0}, text = {0, 0, 0, 0, 65};

/* "key=value key=value ..." */
static tern_graph *network(const char *preset, const char *changes, const tern_data_shape *data) {
    tern_config *config;
    tern_graph *graph;
    char key[32], value[32];
    int read;
    OK(tern_config_create(&config, preset, &err));
    for (; sscanf(changes, " %31[^=]=%31s%n", key, value, &read) == 2; changes += read)
        OK(tern_config_set(config, key, value, &err));
    OK(tern_network_build(&graph, config, data, &err));
    tern_config_free(&config);
    return graph;
}

static const tern_node *node_of(const tern_graph *graph, const char *name) {
    for (size_t i = 1; i < graph->nodes; i++)
        if (!strcmp(graph->node[i].name, name)) return &graph->node[i];
    return NULL;
}

static void check_outputs(const char *changes, size_t first, size_t later) {
    static const char *const blocks[] = {"block1", "block2", "block3"};
    tern_graph *graph = network("cifar10-fast", changes, &images);
    char name[32];
    for (size_t i = 0; i < 3; i++)
        for (int layer = 1; layer <= 2; layer++) {
            snprintf(name, sizeof name, "%s.conv%d", blocks[i], layer);
            const tern_node *conv = node_of(graph, name);
            assert_non_null(conv);
            assert_int_equal(conv->at.outputs, i ? later : first);
        }
    tern_graph_free(&graph);
}

static void test_later_blocks(void **state) {
    (void)state;
    check_outputs("", 64, 256);
    check_outputs("width=96", 96, 384);
    check_outputs("width=128 width_later=384", 128, 384);
}

/* The last two of three convolutions are a branch beside what the first ones give. */
static void test_residual_branch(void **state) {
    (void)state;
    tern_graph *graph = network("cifar10-fast", "convolutions=3", &images);
    const tern_node *sum = node_of(graph, "block2.add"), *last = node_of(graph, "block2.gelu3");
    assert_non_null(sum);
    assert_string_equal(graph->node[sum->input[0]].name, "block2.gelu1");
    assert_string_equal(graph->node[sum->input[1]].name, "block2.norm3");
    assert_string_equal(graph->node[last->input[0]].name, "block2.add");
    assert_string_equal(graph->node[node_of(graph, "block2.conv2")->input[0]].name, "block2.gelu1");
    assert_string_equal(graph->node[node_of(graph, "block3.conv1")->input[0]].name, "block2.gelu3");
    tern_graph_free(&graph);
    graph = network("cifar10-fast", "", &images);
    assert_null(node_of(graph, "block2.conv3"));
    tern_graph_free(&graph);
}

static size_t dropouts(const tern_graph *graph) {
    size_t count = 0;
    for (size_t i = 1; i < graph->nodes; i++) count += !strcmp(graph->node[i].op->name, "dropout");
    return count;
}

/* `name` drops what `from` gives, with this rate; nothing of that name where the rate is 0. */
static void check_dropout(const tern_graph *graph, const char *name, const char *from, float rate) {
    const tern_node *node = node_of(graph, name);
    if (rate > 0) {
        assert_non_null(node);
        assert_string_equal(graph->node[node->input[0]].name, from);
        assert_true(node->at.rate == rate);
    } else {
        assert_null(node);
    }
}

static void check_dropouts(const char *changes, float residual, float embedding, float inner) {
    tern_graph *graph = network("charlm-fp", changes, &text);
    const size_t blocks = 4;
    size_t wanted = embedding > 0;
    if (residual > 0) wanted += 2 * blocks;
    if (inner > 0) wanted += 2 * blocks;
    check_dropout(graph, "drop", "embedding", embedding);
    check_dropout(graph, "block2.inner1", "block2.subnorm1", inner);
    check_dropout(graph, "block2.inner2", "block2.subnorm2", inner);
    check_dropout(graph, "block2.drop1", "block2.out", residual);
    check_dropout(graph, "block2.drop2", "block2.down", residual);
    assert_int_equal(dropouts(graph), wanted);
    tern_graph_free(&graph);
}

static void test_dropouts(void **state) {
    (void)state;
    check_dropouts("", 0, 0, 0);
    check_dropouts("dropout=0.5", 0.5f, 0, 0);
    check_dropouts("dropout_embedding=0.25", 0, 0.25f, 0);
    check_dropouts("dropout_inner=0.125", 0, 0, 0.125f);
    check_dropouts("dropout=0.5 dropout_embedding=0.25 dropout_inner=0.125", 0.5f, 0.25f, 0.125f);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_later_blocks), cmocka_unit_test(test_residual_branch),
                                       cmocka_unit_test(test_dropouts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
