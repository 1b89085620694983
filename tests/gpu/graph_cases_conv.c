#include "graph_cases.h"

/* ---- convolutions and pools. What is tested stands behind a convolution whose gradient shows that of its input. */

static tern_value image(tern_graph *g, size_t h, size_t w, size_t c) {
    return tern_graph_input(g, (tern_shape){3, {h, w, c}});
}

/* A 1 x 1 convolution from 3 channels. */
static tern_value first(tern_graph *g, size_t h, size_t w, size_t c) {
    return tern_graph_add(g, "conv2d", "first", image(g, h, w, 3), &(tern_attrs){.outputs = c, .bias = 1});
}

#define CONV(name, h, w, c, ...)                                                              \
    static void name(tern_graph *g) {                                                         \
        tern_graph_add(g, "conv2d", "tested", first(g, h, w, c), &(tern_attrs){__VA_ARGS__}); \
    }
CONV(conv, 8, 8, 16, .outputs = 24, .kernel = 3, .padding = 1)
CONV(conv_bias, 9, 7, 8, .outputs = 16, .kernel = 3, .padding = 1, .bias = 1)
CONV(conv_frozen, 8, 6, 8, .outputs = 8, .kernel = 2, .frozen = 1, .bias = 1)
CONV(conv_stride, 9, 10, 16, .outputs = 8, .kernel = 3, .stride = 2, .padding = 1)
CONV(conv_gaps, 11, 8, 8, .outputs = 8, .kernel = 2, .stride = 3)
CONV(conv_far, 5, 7, 8, .outputs = 8, .kernel = 5, .stride = 100, .padding = 4)
CONV(conv_fours, 7, 7, 4, .outputs = 12, .kernel = 3, .padding = 1, .bias = 1)
CONV(conv_odd, 7, 5, 3, .outputs = 5, .kernel = 3, .padding = 1, .bias = 1)
CONV(conv_large, 12, 12, 5, .outputs = 7, .kernel = 7, .stride = 2, .padding = 3)
CONV(conv_1x1, 6, 5, 16, .outputs = 24, .bias = 1)
CONV(conv_1x1_stride, 7, 5, 16, .outputs = 8, .stride = 2)
CONV(conv_1x1_padding, 6, 6, 8, .outputs = 8, .kernel = 2, .padding = 1, .stride = 2)
CONV(conv_groups, 8, 8, 16, .outputs = 32, .kernel = 3, .padding = 1, .groups = 2, .bias = 1)
CONV(conv_groups_odd, 6, 7, 9, .outputs = 6, .kernel = 3, .stride = 2, .padding = 1, .groups = 3)
CONV(conv_groups_1x1, 6, 6, 16, .outputs = 16, .groups = 2)
CONV(depthwise, 9, 9, 32, .outputs = 32, .kernel = 3, .padding = 1, .groups = 32, .bias = 1)
CONV(depthwise_wide, 5, 6, 136, .outputs = 136, .kernel = 3, .groups = 136)
CONV(depthwise_odd, 9, 7, 5, .outputs = 5, .kernel = 5, .stride = 2, .padding = 2, .groups = 5, .bias = 1)
CONV(depthwise_twice, 6, 6, 4, .outputs = 8, .kernel = 3, .padding = 1, .groups = 4)

/* More than one tile of outputs, of inputs and of places; windows without padding, and with as much as there can
 * be. */
CONV(conv_wide, 9, 7, 24, .outputs = 136, .kernel = 3, .padding = 1)
CONV(conv_deep, 7, 6, 200, .outputs = 72, .kernel = 2, .padding = 1, .bias = 1)
CONV(conv_even, 11, 12, 64, .outputs = 256, .kernel = 3)
CONV(conv_padded, 4, 5, 40, .outputs = 48, .kernel = 5, .padding = 4)

/* Patches of a batch take several chunks, of fp32 and of bf16 values. */
CONV(conv_chunks, 64, 64, 64, .outputs = 8, .kernel = 3, .padding = 1)

/* No gradient passes to the image. */
static void conv_only(tern_graph *g) {
    tern_graph_add(g, "conv2d", "tested", image(g, 8, 8, 3),
                   &(tern_attrs){.outputs = 16, .kernel = 3, .padding = 1, .bias = 1});
}

#define IMAGE_CONV(name, h, w, c, ...)                                                        \
    static void name(tern_graph *g) {                                                         \
        tern_graph_add(g, "conv2d", "tested", image(g, h, w, c), &(tern_attrs){__VA_ARGS__}); \
    }
IMAGE_CONV(conv_small, 9, 8, 3, .outputs = 24, .kernel = 2, .bias = 1)
IMAGE_CONV(conv_small_stride, 11, 9, 3, .outputs = 32, .kernel = 3, .padding = 1, .stride = 2)
IMAGE_CONV(conv_small_wide, 10, 7, 3, .outputs = 56, .kernel = 3, .padding = 1, .bias = 1)
IMAGE_CONV(conv_small_gray, 7, 6, 1, .outputs = 128, .kernel = 5, .padding = 2, .bias = 1)

IMAGE_CONV(conv_small_lines, 7, 16, 3, .outputs = 40, .kernel = 3, .padding = 1)
IMAGE_CONV(conv_small_image, 32, 32, 3, .outputs = 32, .kernel = 3, .padding = 1, .bias = 1)
IMAGE_CONV(conv_small_even, 5, 33, 2, .outputs = 16, .kernel = 2, .padding = 0)

#define POOL(name, op, h, w, c, ...)                                                    \
    static void name(tern_graph *g) {                                                   \
        tern_graph_add(g, op, "tested", first(g, h, w, c), &(tern_attrs){__VA_ARGS__}); \
    }
POOL(max_pool, "max_pool", 8, 8, 16, .kernel = 2)
POOL(max_pool_rest, "max_pool", 7, 9, 8, .kernel = 2)
POOL(max_pool_overlap, "max_pool", 9, 8, 16, .kernel = 3, .stride = 2, .padding = 1)
POOL(max_pool_odd, "max_pool", 9, 8, 5, .kernel = 3, .stride = 2, .padding = 1)
POOL(max_pool_all, "max_pool", 6, 6, 16, .kernel = 0)
POOL(max_pool_large, "max_pool", 20, 20, 3, .kernel = 17, .stride = 3, .padding = 9)
POOL(avg_pool, "avg_pool", 8, 8, 16, .kernel = 2)
POOL(avg_pool_rest, "avg_pool", 7, 9, 8, .kernel = 2, .stride = 3)
POOL(avg_pool_overlap, "avg_pool", 9, 8, 16, .kernel = 3, .stride = 2)
POOL(avg_pool_all, "avg_pool", 6, 6, 5, .kernel = 0)
POOL(avg_pool_all_wide, "avg_pool", 33, 33, 16, .kernel = 0)

/* All values of a channel are the same: gradients go to the first place of each window. */
static void max_pool_ties(tern_graph *g) {
    tern_value x = tern_graph_add(g, "conv2d", "zeros", image(g, 9, 9, 3),
                                  &(tern_attrs){.outputs = 8, .bias = 1, .init_gain = -1});
    tern_graph_add(g, "max_pool", "tested", x, &(tern_attrs){.kernel = 3, .stride = 2, .padding = 1});
}

static void small_cnn(tern_graph *g) {
    tern_value x = image(g, 16, 16, 3);
    x = tern_graph_add(g, "conv2d", "conv1", x, &(tern_attrs){.outputs = 16, .kernel = 3, .padding = 1, .bias = 1});
    x = tern_graph_add(g, "avg_pool", "pool1", x, &(tern_attrs){.kernel = 2});
    x = tern_graph_add(g, "relu", "relu1", x, NULL);
    x = tern_graph_add(g, "conv2d", "conv2", x, &(tern_attrs){.outputs = 32, .kernel = 3, .padding = 1});
    x = tern_graph_add(g, "avg_pool", "pool2", x, NULL);
    tern_graph_add(g, "linear", "out", x, &(tern_attrs){.outputs = 10, .bias = 1});
}

static void small_cnn_max(tern_graph *g) {
    tern_value x = image(g, 16, 16, 1);
    x = tern_graph_add(g, "conv2d", "conv1", x, &(tern_attrs){.outputs = 8, .kernel = 5, .padding = 2, .bias = 1});
    x = tern_graph_add(g, "max_pool", "pool1", x, &(tern_attrs){.kernel = 2});
    x = tern_graph_add(g, "relu", "relu1", x, NULL);
    x = tern_graph_add(g, "conv2d", "conv2", x, &(tern_attrs){.outputs = 16, .kernel = 3});
    x = tern_graph_add(g, "max_pool", "pool2", x, &(tern_attrs){.kernel = 3, .stride = 2});
    x = tern_graph_add(g, "reshape", "flat", x, &(tern_attrs){.dim = {2 * 2 * 16}});
    tern_graph_add(g, "linear", "out", x, &(tern_attrs){.outputs = 10, .bias = 1});
}

/* Every gradient of an input is added to one that is there already. */
static void residual(tern_graph *g) {
    static const struct {
        const char *op;
        tern_attrs at;
    } steps[] = {{"conv2d", {.outputs = 16, .kernel = 3, .padding = 1}},
                 {"conv2d", {.outputs = 16}},
                 {"conv2d", {.outputs = 16, .kernel = 3, .padding = 1, .groups = 2}},
                 {"conv2d", {.outputs = 16, .kernel = 3, .padding = 1, .groups = 16}},
                 {"avg_pool", {.kernel = 1}},
                 {"max_pool", {.kernel = 3, .stride = 1, .padding = 1}}};
    static const char *const name[][2] = {{"a", "a_sum"}, {"b", "b_sum"}, {"c", "c_sum"},
                                          {"d", "d_sum"}, {"e", "e_sum"}, {"f", "f_sum"}};
    tern_value x = first(g, 7, 8, 16);
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
        x = tern_graph_add2(g, "add", name[i][1], x, tern_graph_add(g, steps[i].op, name[i][0], x, &steps[i].at));
}

/* Behind max_pool in bf16: rounding values makes some of them equal, and a gradient then goes to another place. One
 * window in some two hundred is a distance of a tenth. */
#define MOVED 0.25

static const graph_case conv_cases_array[] = {
    {"conv2d", conv, 3, 2e-5, 2e-2, 0, 0, 0},
    {"conv2d, bias", conv_bias, 5, 2e-5, 2e-2, 0, 0, 0},
    {"conv2d, frozen, bias", conv_frozen, 4, 2e-5, 2e-2, 0, 0, 0},
    {"conv2d, stride 2", conv_stride, 4, 2e-5, 2e-2, 0, 0, 0},
    {"conv2d, unseen pixels", conv_gaps, 3, 2e-5, 2e-2, 0, 0, 0},
    {"conv2d, one window", conv_far, 3, 2e-5, 2e-2, 0, 0, 0},
    {"conv2d, 4 channels", conv_fours, 3, 2e-5, 2e-2, 0, 0, 0},
    {"conv2d, 3 to 5", conv_odd, 1, 2e-5, 2e-2, 0, 0, 0},
    {"conv2d, 7 x 7", conv_large, 6, 2e-5, 2e-2, 0, 0, 0},
    {"conv2d, 1 x 1", conv_1x1, 3, 2e-5, 2e-2, 0, 0, 0},
    {"conv2d, 1 x 1, stride 2", conv_1x1_stride, 3, 2e-5, 2e-2, 0, 0, 0},
    {"conv2d, 2 x 2, padding", conv_1x1_padding, 1, 2e-5, 2e-2, 0, 0, 0},
    {"conv2d, groups", conv_groups, 3, 2e-5, 2e-2, 0, 0, 0},
    {"conv2d, groups, odd", conv_groups_odd, 4, 2e-5, 2e-2, 0, 0, 0},
    {"conv2d, groups, 1 x 1", conv_groups_1x1, 2, 2e-5, 2e-2, 0, 0, 0},
    {"conv2d, depthwise", depthwise, 4, 2e-5, 2e-2, 0, 0, 0},
    {"conv2d, depthwise, wide", depthwise_wide, 70, 2e-5, 2e-2, 0, 0, 0},
    {"conv2d, depthwise, odd", depthwise_odd, 3, 2e-5, 2e-2, 0, 0, 0},
    {"conv2d, depthwise, twice", depthwise_twice, 3, 2e-5, 2e-2, 0, 0, 0},
    {"conv2d, image", conv_only, 2, 2e-5, 2e-2, 0, 0, 0},
    {"conv2d, small patches", conv_small, 5, 2e-5, 2e-2, 0, 0, 0},
    {"conv2d, small, stride", conv_small_stride, 4, 2e-5, 2e-2, 0, 0, 0},
    {"conv2d, small, 56 outputs", conv_small_wide, 2, 2e-5, 2e-2, 0, 0, 0},
    {"conv2d, small, 1 channel", conv_small_gray, 3, 2e-5, 2e-2, 0, 0, 0},
    {"conv2d, small, lines", conv_small_lines, 5, 2e-5, 2e-2, 0, 0, 0},
    {"conv2d, small, image", conv_small_image, 600, 5e-5, 2e-2, 0, 0, 0},
    {"conv2d, small, 2 channels", conv_small_even, 3, 2e-5, 2e-2, 0, 0, 0},
    {"conv2d, 24 to 136", conv_wide, 7, 2e-5, 2e-2, 0, 0, 0},
    {"conv2d, 200 to 72", conv_deep, 5, 2e-5, 2e-2, 0, 0, 0},
    {"conv2d, 64 to 256", conv_even, 9, 2e-5, 2e-2, 0, 0, 0},
    {"conv2d, 5 x 5, padded", conv_padded, 3, 2e-5, 2e-2, 0, 0, 0},
    /* Weight gradients are sums over a hundred thousand places. */
    {"conv2d, chunks", conv_chunks, 30, 5e-5, 2e-2, 0, 0, 0},
    {"max_pool", max_pool, 3, 2e-5, MOVED, 0, 0, 0},
    {"max_pool, rest", max_pool_rest, 1, 2e-5, MOVED, 0, 0, 0},
    {"max_pool, overlap", max_pool_overlap, 3, 2e-5, MOVED, 0, 0, 0},
    {"max_pool, odd", max_pool_odd, 5, 2e-5, MOVED, 0, 0, 0},
    {"max_pool, image", max_pool_all, 4, 2e-5, MOVED, 0, 0, 0},
    {"max_pool, 17 x 17", max_pool_large, 3, 2e-5, MOVED, 0, 0, 0},
    {"max_pool, ties", max_pool_ties, 3, 2e-5, 2e-2, 0, 0, 0},
    {"avg_pool", avg_pool, 3, 2e-5, 2e-2, 0, 0, 0},
    {"avg_pool, rest", avg_pool_rest, 1, 2e-5, 2e-2, 0, 0, 0},
    {"avg_pool, overlap", avg_pool_overlap, 3, 2e-5, 2e-2, 0, 0, 0},
    {"avg_pool, image", avg_pool_all, 5, 2e-5, 2e-2, 0, 0, 0},
    {"avg_pool, large image", avg_pool_all_wide, 2, 2e-5, 2e-2, 0, 0, 0},
    {"small CNN", small_cnn, 6, 2e-5, 4e-2, 0, 0, 0},
    {"small CNN, max_pool", small_cnn_max, 6, 2e-5, MOVED, 0, 0, 0},
    {"conv2d and pools, added", residual, 3, 2e-5, MOVED, 0, 0, 0},
};
GRAPH_CASES(conv_cases);
