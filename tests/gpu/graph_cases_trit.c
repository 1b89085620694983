#include "graph_cases.h"

/* ---- whole-number weights: values, and what passes back through them. What their rules do is rules_test.c's. A
 * dense layer in front shows the gradient of the input by its own. */

static tern_value front(tern_graph *g, size_t inputs, size_t outputs) {
    tern_value x = tern_graph_input(g, (tern_shape){1, {inputs}});
    return tern_graph_add(g, "linear", "front", x, &(tern_attrs){.outputs = outputs});
}

#define LINEAR(name, inputs, ...)                                                                \
    static void name(tern_graph *g) {                                                            \
        tern_value x = front(g, inputs, inputs);                                                 \
        x = tern_graph_add(g, "trit_linear", "first", x, &(tern_attrs){__VA_ARGS__});            \
        tern_graph_add(g, "trit_linear", "second", x, &(tern_attrs){.outputs = 9, .floats = 1}); \
    }
LINEAR(trit_linear, 64, .outputs = 48, .bias = 1)
LINEAR(trit_linear_odd, 37, .outputs = 19)
LINEAR(trit_linear_floats, 40, .outputs = 24, .bias = 1, .floats = 1)
LINEAR(trit_linear_rows, 40, .outputs = 24, .granularity = TERN_PER_ROW)
LINEAR(trit_linear_groups, 40, .outputs = 24, .group = 16)
LINEAR(trit_linear_group_floats, 37, .outputs = 24, .group = 8, .floats = 1)
LINEAR(trit_linear_vote, 37, .outputs = 24, .update = TERN_UPDATE_VOTE)
LINEAR(trit_linear_corr, 40, .outputs = 24, .update = TERN_UPDATE_SEED_CORR, .granularity = TERN_PER_ROW)
LINEAR(trit_linear_thresholds, 40, .outputs = 24, .group = 8, .group_thresholds = 1)
LINEAR(trit_linear_ortho, 40, .outputs = 24, .update = TERN_UPDATE_ORTHO)

#define CONV(name, channels, ...)                                                                     \
    static void name(tern_graph *g) {                                                                 \
        tern_value x = tern_graph_input(g, (tern_shape){3, {9, 7, 4}});                               \
        x = tern_graph_add(g, "conv2d", "front", x, &(tern_attrs){.outputs = channels, .kernel = 1}); \
        tern_graph_add(g, "trit_conv2d", "conv", x, &(tern_attrs){__VA_ARGS__});                      \
    }
CONV(trit_conv, 16, .outputs = 24, .kernel = 3, .padding = 1, .bias = 1)
CONV(trit_conv_stride, 6, .outputs = 11, .kernel = 3, .stride = 2)
CONV(trit_conv_floats, 6, .outputs = 11, .kernel = 3, .padding = 1, .floats = 1)
CONV(trit_conv_grouped, 8, .outputs = 12, .kernel = 3, .padding = 1, .groups = 2, .granularity = TERN_PER_ROW)
CONV(trit_conv_depthwise, 8, .outputs = 8, .kernel = 3, .padding = 1, .groups = 8)
CONV(trit_conv_one, 16, .outputs = 24, .kernel = 1, .group = 8)

/* Of two uses of one layer, the second adds to the gradient of what the first reads too. */
static void trit_shared(tern_graph *g) {
    tern_value x = front(g, 24, 24), a, b;
    a = tern_graph_add(g, "trit_linear", "first", x, &(tern_attrs){.outputs = 20});
    b = tern_graph_add(g, "trit_linear", "again", x, &(tern_attrs){.outputs = 20, .same_as = (size_t)a});
    tern_graph_add2(g, "add", "sum", a, b);
}

static void trit_rmsnorm(tern_graph *g) {
    tern_value x = front(g, 37, 37);
    x = tern_graph_add(g, "trit_rmsnorm", "norm", x, NULL);
    tern_graph_add(g, "trit_linear", "second", x, &(tern_attrs){.outputs = 9, .floats = 1, .bias = 1});
}

#define TABLE(name, columns, ...)                                                        \
    static void name(tern_graph *g) {                                                    \
        tern_value x = tern_graph_input_tokens(g, 11, 50);                               \
        x = tern_graph_add(g, "trit_embedding", "table", x,                              \
                           &(tern_attrs){.outputs = 50, .width = columns, __VA_ARGS__}); \
        tern_graph_add(g, "linear", "head", x, &(tern_attrs){.outputs = 9});             \
    }
TABLE(trit_table, 24, .update = TERN_UPDATE_R1)
TABLE(trit_table_groups, 37, .group = 8)
TABLE(trit_table_rows, 37, .granularity = TERN_PER_ROW, .update = TERN_UPDATE_VOTE)

/* Activations at a rounding's edge may fall to the other side, as those of bit_ layers: one of 127 steps of one
 * value. */
#define TRIT 2e-3, 6e-2, 0, 1, 0
static const graph_case trit_cases_array[] = {
    {"trit_linear", trit_linear, 16, TRIT},
    {"trit_linear, odd sizes", trit_linear_odd, 7, TRIT},
    {"trit_linear, one row", trit_linear, 1, TRIT},
    {"trit_linear, floats", trit_linear_floats, 9, 2e-5, 4e-2, 0, 0, 0},
    {"trit_linear, rows", trit_linear_rows, 9, TRIT},
    {"trit_linear, groups", trit_linear_groups, 9, TRIT},
    {"trit_linear, groups, floats", trit_linear_group_floats, 9, 2e-5, 4e-2, 0, 1, 0},
    {"trit_linear, vote", trit_linear_vote, 9, TRIT},
    {"trit_linear, seed-corr", trit_linear_corr, 9, TRIT},
    {"trit_linear, thresholds", trit_linear_thresholds, 9, TRIT},
    {"trit_linear, ortho", trit_linear_ortho, 9, TRIT},
    {"trit_linear, shared", trit_shared, 9, TRIT},
    {"trit_rmsnorm", trit_rmsnorm, 9, 2e-5, 4e-2, 0, 0, 0},
    {"trit_embedding", trit_table, 6, 2e-5, 4e-2, 0, 0, 0},
    {"trit_embedding, groups", trit_table_groups, 6, 2e-5, 4e-2, 0, 0, 0},
    {"trit_embedding, rows", trit_table_rows, 1, 2e-5, 4e-2, 0, 0, 0},
    {"trit_conv2d", trit_conv, 3, TRIT},
    {"trit_conv2d, stride 2", trit_conv_stride, 2, TRIT},
    {"trit_conv2d, floats", trit_conv_floats, 3, 2e-5, 4e-2, 0, 1, 0},
    {"trit_conv2d, groups", trit_conv_grouped, 3, TRIT},
    {"trit_conv2d, depthwise", trit_conv_depthwise, 3, TRIT},
    {"trit_conv2d, 1x1", trit_conv_one, 1, TRIT},
};
GRAPH_CASES(trit_cases);
