#include <stdint.h>
#include <stdlib.h>

#include "graph_cases.h"
#include "nn/nodes.h"
#include "tern/pack.h"

/* ---- ternary products. Inputs of the op under test come from a bit_linear, whose values are the same to the bit on
 * both sides: what is quantized again behind anything else can fall to the other side of a rounding. */

static tern_value vector(tern_graph *g, size_t n) { return tern_graph_input(g, (tern_shape){1, {n}}); }

static tern_value images(tern_graph *g, size_t h, size_t w, size_t c) {
    tern_value x = tern_graph_add(g, "bit_linear", "images", vector(g, 20), &(tern_attrs){.outputs = h * w * c});
    return tern_graph_add(g, "reshape", "shape", x, &(tern_attrs){.dim = {h, w, c}});
}

/* Two layers, so that gradients of inputs are compared too. */
static void pair(tern_graph *g, const char *op, size_t k, size_t middle, size_t n, tern_attrs at) {
    at.outputs = middle;
    tern_value x = tern_graph_add(g, op, "first", vector(g, k), &at);
    x = tern_graph_add(g, "relu", "relu", x, NULL);
    at.outputs = n;
    tern_graph_add(g, op, "second", x, &at);
}

#define ABSMEAN .rule = TERN_RULE_ABSMEAN
#define MEDIAN .rule = TERN_RULE_ABSMEDIAN
#define TWN .rule = TERN_RULE_TWN
#define PER_ROW .granularity = TERN_PER_ROW

#define PAIR(name, op, k, middle, n, ...) \
    static void name(tern_graph *g) { pair(g, op, k, middle, n, (tern_attrs){__VA_ARGS__}); }
PAIR(bit, "bit_linear", 48, 32, 24, .bias = 1)
PAIR(bit_odd, "bit_linear", 37, 19, 3, .bias = 0)
PAIR(bit_row, "bit_linear", 70, 33, 10, .bias = 1, PER_ROW)
PAIR(bit_large, "bit_linear", 256, 384, 144, .bias = 1)
PAIR(bit_large_row, "bit_linear", 384, 272, 128, PER_ROW)
PAIR(bit_wide, "bit_linear", 20000, 17, 9, .bias = 1)
PAIR(bit_wide_row, "bit_linear", 20001, 5, 4, PER_ROW)
PAIR(bit_median, "bit_linear", 48, 31, 10, .bias = 1, MEDIAN)
PAIR(bit_median_large, "bit_linear", 301, 129, 10, MEDIAN)
PAIR(bit_median_row, "bit_linear", 50, 31, 10, .bias = 1, MEDIAN, PER_ROW)
PAIR(bit_median_wide_row, "bit_linear", 9000, 6, 10, MEDIAN, PER_ROW)
PAIR(bit_twn, "bit_linear", 120, 97, 10, .bias = 1, TWN)
PAIR(bit_twn_row, "bit_linear", 33, 40, 10, TWN, PER_ROW)
PAIR(ternary, "ternary_linear", 48, 32, 24, .bias = 1)
PAIR(ternary_odd, "ternary_linear", 37, 19, 3, .bias = 0)
PAIR(ternary_row, "ternary_linear", 72, 33, 10, .bias = 1, PER_ROW)
PAIR(ternary_mean, "ternary_linear", 160, 72, 8, ABSMEAN)
PAIR(ternary_median, "ternary_linear", 51, 20, 8, .bias = 1, MEDIAN, PER_ROW)

/* Rows are tokens. */
static void tokens(tern_graph *g) {
    tern_value x = tern_graph_input(g, (tern_shape){2, {7, 40}});
    x = tern_graph_add(g, "bit_linear", "first", x, &(tern_attrs){.outputs = 64, .bias = 1});
    x = tern_graph_add(g, "relu2", "relu2", x, NULL);
    tern_graph_add(g, "bit_linear", "second", x, &(tern_attrs){.outputs = 40});
}

#define CONV(name, op, h, w, c, ...) \
    static void name(tern_graph *g) { tern_graph_add(g, op, "conv", images(g, h, w, c), &(tern_attrs){__VA_ARGS__}); }
CONV(bit_conv, "bit_conv2d", 8, 8, 16, .outputs = 24, .kernel = 3, .padding = 1, .bias = 1)
CONV(bit_conv_odd, "bit_conv2d", 9, 7, 3, .outputs = 5, .kernel = 3, .padding = 1, .stride = 2)
CONV(bit_conv_row, "bit_conv2d", 10, 11, 6, .outputs = 20, .kernel = 5, .padding = 2, .bias = 1, PER_ROW)
CONV(bit_conv_even, "bit_conv2d", 8, 8, 8, .outputs = 12, .kernel = 2, .stride = 2)
CONV(bit_conv_groups, "bit_conv2d", 9, 9, 32, .outputs = 16, .kernel = 3, .padding = 1, .groups = 2, .bias = 1)
CONV(bit_conv_groups_row, "bit_conv2d", 6, 7, 12, .outputs = 9, .kernel = 3, .groups = 3, .bias = 1, PER_ROW)
CONV(bit_conv_depthwise, "bit_conv2d", 8, 8, 10, .outputs = 10, .kernel = 3, .padding = 1, .groups = 10, .bias = 1)
CONV(bit_conv_point, "bit_conv2d", 7, 7, 32, .outputs = 48, .kernel = 1, .bias = 1)
CONV(bit_conv_point_stride, "bit_conv2d", 7, 7, 20, .outputs = 16, .kernel = 1, .stride = 2)
CONV(bit_conv_whole, "bit_conv2d", 4, 4, 16, .outputs = 10, .kernel = 4, .bias = 1)
CONV(bit_conv_large, "bit_conv2d", 24, 24, 32, .outputs = 16, .kernel = 3, .padding = 1)
CONV(bit_conv_large_odd, "bit_conv2d", 23, 23, 33, .outputs = 8, .kernel = 3, .padding = 1, .bias = 1)
CONV(bit_conv_wide, "bit_conv2d", 9, 8, 72, .outputs = 136, .kernel = 3, .padding = 1, PER_ROW)
CONV(bit_conv_median, "bit_conv2d", 6, 6, 8, .outputs = 8, .kernel = 3, .padding = 1, MEDIAN)
CONV(ternary_conv, "ternary_conv2d", 8, 8, 16, .outputs = 24, .kernel = 3, .padding = 1, .bias = 1)
CONV(ternary_conv_odd, "ternary_conv2d", 9, 7, 3, .outputs = 5, .kernel = 3, .padding = 1, .stride = 2, .bias = 1)
CONV(ternary_conv_groups, "ternary_conv2d", 9, 9, 32, .outputs = 16, .kernel = 3, .padding = 1, .groups = 2, PER_ROW)
CONV(ternary_conv_point, "ternary_conv2d", 5, 5, 24, .outputs = 40, .kernel = 1, .bias = 1, PER_ROW)
CONV(ternary_conv_mean, "ternary_conv2d", 5, 6, 7, .outputs = 11, .kernel = 3, .padding = 1, .groups = 1, ABSMEAN)

static void network(tern_graph *g) {
    tern_value x = images(g, 12, 12, 16);
    x = tern_graph_add(g, "bit_conv2d", "one", x, &(tern_attrs){.outputs = 32, .kernel = 3, .padding = 1, .bias = 1});
    x = tern_graph_add(g, "relu", "relu1", x, NULL);
    x = tern_graph_add(g, "bit_conv2d", "two", x,
                       &(tern_attrs){.outputs = 48, .kernel = 3, .padding = 1, .stride = 2, PER_ROW});
    x = tern_graph_add(g, "relu", "relu2", x, NULL);
    x = tern_graph_add(g, "bit_conv2d", "three", x, &(tern_attrs){.outputs = 24, .kernel = 1, .bias = 1});
    x = tern_graph_add(g, "flatten", "flat", x, NULL);
    tern_graph_add(g, "bit_linear", "head", x, &(tern_attrs){.outputs = 10, .bias = 1});
}

/* The block of airbench96: what a norm and its GELU give goes into a branch of two products and is added to it. */
static void branch(tern_graph *g) {
    const tern_attrs conv = {.outputs = 64, .kernel = 3, .padding = 1, PER_ROW}, norm = {.plain = 1};
    tern_value x = tern_graph_add(g, "batch_norm", "norm1", images(g, 7, 7, 64), &norm);
    x = tern_graph_add(g, "gelu", "gelu1", x, NULL);
    tern_value y = tern_graph_add(g, "bit_conv2d", "conv2", x, &conv);
    y = tern_graph_add(g, "gelu", "gelu2", tern_graph_add(g, "batch_norm", "norm2", y, &norm), NULL);
    y = tern_graph_add(g, "batch_norm", "norm3", tern_graph_add(g, "bit_conv2d", "conv3", y, &conv), &norm);
    tern_graph_add(g, "gelu", "gelu3", tern_graph_add2(g, "add", "sum", x, y), NULL);
}

/* ---- packed weights, any trits with any scales: what they lie in is freed with the graph */

static void attach(tern_graph *g, tern_value value, size_t matrices, size_t cols, tern_packing packing) {
    if (value < 0) return;
    tern_node *node = &g->node[value];
    const size_t all = node->at.outputs, rows = all / matrices, group = node->at.group;
    const size_t scales = group ? rows * tern_groups_per_row(group, cols) : node->at.granularity ? rows : 1;
    size_t bytes = 0;
    tern_packed_bytes(&bytes, packing, rows, cols, NULL);
    const size_t floats = scales * matrices * sizeof(float), count = rows * cols;
    char *room = malloc(floats + matrices * (bytes + scales) + count);
    if (!room) abort();
    float *scale = (float *)(void *)room;
    int8_t *exponents = (int8_t *)room + floats, *trits = exponents + matrices * scales;
    uint8_t *packed = (uint8_t *)trits + count;
    for (size_t i = 0; i < scales * matrices; i++) {
        scale[i] = 0.01f + 0.003f * (float)(i * 7 % 11);
        exponents[i] = (int8_t)(-6 + (int)(i * 5 % 4));
    }
    uint32_t state = 12345;
    for (size_t m = 0; m < matrices; m++) {
        for (size_t i = 0; i < count; i++) {
            state = state * 1664525u + 1013904223u;
            trits[i] = (int8_t)((int)((state >> 16) % 3) - 1);
        }
        tern_pack(packed + m * bytes, bytes, packing, trits, rows, cols, NULL);
    }
    node->packed = (tern_packed){.packing = packing,
                                 .rows = rows,
                                 .cols = cols,
                                 .matrices = matrices,
                                 .bytes = packed,
                                 .byte_count = bytes * matrices,
                                 .scales = group ? NULL : scale,
                                 .exponents = group ? exponents : NULL,
                                 .scale_count = scales,
                                 .group = group,
                                 .scale_kind = group                  ? TERN_SCALE_GROUP_EXP
                                               : node->at.granularity ? TERN_SCALE_ROW
                                                                      : TERN_SCALE_TENSOR};
    g->release = free;
    g->owner = room;
}

#define PACKED(name, k, packing, ...)                                                                          \
    static void name(tern_graph *g) {                                                                          \
        tern_value x = tern_graph_add(g, "packed_linear", "packed", vector(g, k), &(tern_attrs){__VA_ARGS__}); \
        attach(g, x, 1, k, packing);                                                                           \
    }
PACKED(packed_t2, 96, TERN_PACK_T2, .outputs = 40, .bias = 1, .acts = TERN_I8)
PACKED(packed_t5, 325, TERN_PACK_T5, .outputs = 33, .acts = TERN_I8, PER_ROW)
PACKED(packed_flat, 37, TERN_PACK_T5_FLAT, .outputs = 19, .bias = 1, .acts = TERN_I8)
PACKED(packed_exponents, 96, TERN_PACK_T2, .outputs = 20, .bias = 1, .acts = TERN_I8, .group = 32)
/* Rows that one kernel quantizes and multiplies on a GPU: uneven, of t5, and of whole tiles that fill the device. */
PACKED(packed_rows, 776, TERN_PACK_T2, .outputs = 300, .bias = 1, .acts = TERN_I8)
PACKED(packed_rows_t5, 1280, TERN_PACK_T5, .outputs = 136, .acts = TERN_I8, PER_ROW)
PACKED(packed_rows_many, 264, TERN_PACK_T2, .outputs = 1032, .bias = 1, .acts = TERN_I8, PER_ROW)
/* Behind a norm, and behind one of squares, that the same kernel computes. */
static void packed_normed(tern_graph *g) {
    tern_value x = tern_graph_add(g, "rmsnorm", "norm", vector(g, 384), NULL);
    x = tern_graph_add(g, "packed_linear", "packed", x, &(tern_attrs){.outputs = 200, .bias = 1, .acts = TERN_I8});
    attach(g, x, 1, 384, TERN_PACK_T2);
}
static void packed_squares(tern_graph *g) {
    tern_value x = tern_graph_add(g, "relu2", "squares", vector(g, 768), NULL);
    x = tern_graph_add(g, "rmsnorm", "norm", x, NULL);
    x = tern_graph_add(g, "packed_linear", "packed", x, &(tern_attrs){.outputs = 136, .acts = TERN_I8, PER_ROW});
    attach(g, x, 1, 768, TERN_PACK_T5);
}
PACKED(packed_float, 64, TERN_PACK_T2, .outputs = 48, .bias = 1, PER_ROW)
PACKED(packed_float_odd, 45, TERN_PACK_T5, .outputs = 7)

#define PACKED_CONV(name, h, w, c, matrices, cols, packing, ...)                         \
    static void name(tern_graph *g) {                                                    \
        tern_value x = tern_graph_input(g, (tern_shape){3, {h, w, c}});                  \
        x = tern_graph_add(g, "packed_conv2d", "packed", x, &(tern_attrs){__VA_ARGS__}); \
        attach(g, x, matrices, cols, packing);                                           \
    }
PACKED_CONV(packed_conv, 9, 8, 16, 1, 144, TERN_PACK_T2, .outputs = 24, .kernel = 3, .padding = 1, .bias = 1,
            .acts = TERN_I8)
PACKED_CONV(packed_conv_t5, 9, 8, 24, 1, 216, TERN_PACK_T5, .outputs = 40, .kernel = 3, .padding = 1, .acts = TERN_I8,
            PER_ROW)
PACKED_CONV(packed_conv_groups, 7, 8, 12, 3, 36, TERN_PACK_T5, .outputs = 15, .kernel = 3, .stride = 2, .groups = 3,
            .bias = 1, .acts = TERN_I8, PER_ROW)
PACKED_CONV(packed_conv_exponents, 7, 8, 8, 2, 36, TERN_PACK_T2, .outputs = 6, .kernel = 3, .groups = 2,
            .acts = TERN_I8, .group = 12)
PACKED_CONV(packed_conv_float, 7, 6, 5, 1, 45, TERN_PACK_T5_FLAT, .outputs = 10, .kernel = 3, .padding = 1, .bias = 1)
PACKED_CONV(packed_conv_depthwise, 8, 8, 6, 6, 9, TERN_PACK_T2, .outputs = 6, .kernel = 3, .padding = 1, .groups = 6)

/* Integers are the same, and what follows them: distances are those of float sums in the gradients. Behind a bf16
 * value, or a float product, some activations fall to the next integer. */
#define CASE(name, build, batch) \
    { name, build, batch, 2e-5, 4e-2, 0, 0, 0 }
#define MIXED_CASE(name, build, batch, lambda) \
    { name, build, batch, 2e-3, 4e-2, lambda, 0, 0 }
#define PACKED_CASE(name, build, batch) \
    { name, build, batch, 2e-5, 2e-2, 0, 0, 0 }
/* Sums of a norm are in another order, and few activations fall to the next integer. */
#define NORMED_CASE(name, build, batch) \
    { name, build, batch, 1e-3, 2e-2, 0, 0, 0 }

static const graph_case ternary_cases_array[] = {
    CASE("bit_linear", bit, 16),
    CASE("bit_linear, one row", bit, 1),
    CASE("bit_linear, odd sizes", bit_odd, 7),
    CASE("bit_linear, a scale a row", bit_row, 12),
    CASE("bit_linear, large", bit_large, 200),
    CASE("bit_linear, large, rows", bit_large_row, 150),
    CASE("bit_linear, wide", bit_wide, 5),
    CASE("bit_linear, wide rows", bit_wide_row, 4),
    CASE("bit_linear, tokens", tokens, 5),
    CASE("bit_linear, median", bit_median, 9),
    CASE("bit_linear, median, large", bit_median_large, 9),
    CASE("bit_linear, median, rows", bit_median_row, 9),
    CASE("bit_linear, median, wide", bit_median_wide_row, 3),
    CASE("bit_linear, twn", bit_twn, 9),
    CASE("bit_linear, twn, rows", bit_twn_row, 9),
    MIXED_CASE("bit_linear, mixed", bit, 16, 0.3f),
    MIXED_CASE("bit_linear, mixed, rows", bit_row, 7, 0.75f),
    CASE("ternary_linear", ternary, 16),
    CASE("ternary_linear, odd", ternary_odd, 7),
    CASE("ternary_linear, rows", ternary_row, 12),
    CASE("ternary_linear, absmean", ternary_mean, 12),
    CASE("ternary_linear, median", ternary_median, 12),
    MIXED_CASE("ternary_linear, mixed", ternary_row, 12, 0.5f),
    CASE("bit_conv2d", bit_conv, 6),
    CASE("bit_conv2d, one image", bit_conv, 1),
    CASE("bit_conv2d, odd", bit_conv_odd, 5),
    CASE("bit_conv2d, rows", bit_conv_row, 3),
    CASE("bit_conv2d, even", bit_conv_even, 3),
    CASE("bit_conv2d, groups", bit_conv_groups, 4),
    CASE("bit_conv2d, groups, rows", bit_conv_groups_row, 3),
    CASE("bit_conv2d, depthwise", bit_conv_depthwise, 3),
    CASE("bit_conv2d, 1 x 1", bit_conv_point, 4),
    CASE("bit_conv2d, 1 x 1, stride", bit_conv_point_stride, 4),
    CASE("bit_conv2d, whole image", bit_conv_whole, 11),
    CASE("bit_conv2d, large", bit_conv_large, 3),
    CASE("bit_conv2d, 72 to 136", bit_conv_wide, 5),
    CASE("bit_conv2d, large, odd", bit_conv_large_odd, 2),
    CASE("bit_conv2d, median", bit_conv_median, 4),
    MIXED_CASE("bit_conv2d, mixed", bit_conv, 5, 0.4f),
    MIXED_CASE("bit_conv2d, mixed, groups", bit_conv_groups_row, 4, 0.4f),
    CASE("ternary_conv2d", ternary_conv, 6),
    CASE("ternary_conv2d, odd", ternary_conv_odd, 5),
    CASE("ternary_conv2d, groups", ternary_conv_groups, 4),
    CASE("ternary_conv2d, 1 x 1", ternary_conv_point, 4),
    CASE("ternary_conv2d, absmean", ternary_conv_mean, 4),
    MIXED_CASE("ternary_conv2d, mixed", ternary_conv, 4, 0.9f),
    /* In bf16 a value on the edge between two integers falls to one side here and to the other on the CPU; behind
     * several layers that is a tenth of a gradient. */
    {"ternary network", network, 8, 2e-5, 0.25, 0, 0, 0},
    /* Norms' sums, and so values on that edge, differ in fp32 too. */
    {"ternary branch", branch, 8, 5e-3, 0.1, 0, 0, 0},
};
GRAPH_CASES(ternary_cases);

#define PACKED_TABLE(name, packing, ...)                                                                             \
    static void name(tern_graph *g) {                                                                                \
        const tern_attrs at = {__VA_ARGS__};                                                                         \
        attach(g, tern_graph_add(g, "packed_embedding", "table", tern_graph_input_tokens(g, 9, at.outputs), &at), 1, \
               at.width, packing);                                                                                   \
    }
PACKED_TABLE(packed_table, TERN_PACK_T2, .outputs = 40, .width = 37)
PACKED_TABLE(packed_table_rows, TERN_PACK_T5, .outputs = 65, .width = 128, PER_ROW)
PACKED_TABLE(packed_table_exponents, TERN_PACK_T2, .outputs = 19, .width = 96, .group = 32)

/* What batch norm and its activation are in a deployed network: one pass. */
static void affine_gelu(tern_graph *g) {
    tern_value x = tern_graph_add(g, "affine", "affine", tern_graph_input(g, (tern_shape){3, {6, 5, 24}}), NULL);
    tern_graph_add(g, "gelu", "gelu", x, NULL);
}

static const graph_case packed_cases_array[] = {
    PACKED_CASE("packed affine, gelu", affine_gelu, 4),
    PACKED_CASE("packed_embedding", packed_table, 3),
    PACKED_CASE("packed_embedding, t5", packed_table_rows, 5),
    PACKED_CASE("packed_embedding, exponents", packed_table_exponents, 2),
    PACKED_CASE("packed_linear, t2", packed_t2, 20),
    PACKED_CASE("packed_linear, t2, one", packed_t2, 1),
    PACKED_CASE("packed_linear, t5", packed_t5, 33),
    PACKED_CASE("packed_linear, t5-flat", packed_flat, 6),
    PACKED_CASE("packed_linear, exponents", packed_exponents, 6),
    PACKED_CASE("packed_linear, rows", packed_rows, 77),
    PACKED_CASE("packed_linear, rows, t5", packed_rows_t5, 50),
    PACKED_CASE("packed_linear, many rows", packed_rows_many, 1100),
    NORMED_CASE("packed_linear, norm", packed_normed, 100),
    NORMED_CASE("packed_linear, squares", packed_squares, 33),
    PACKED_CASE("packed_linear, float", packed_float, 40),
    PACKED_CASE("packed_linear, float, odd", packed_float_odd, 3),
    PACKED_CASE("packed_conv2d", packed_conv, 5),
    PACKED_CASE("packed_conv2d, t5", packed_conv_t5, 5),
    PACKED_CASE("packed_conv2d, groups", packed_conv_groups, 4),
    PACKED_CASE("packed_conv2d, exponents", packed_conv_exponents, 4),
    PACKED_CASE("packed_conv2d, float", packed_conv_float, 4),
    PACKED_CASE("packed_conv2d, depthwise", packed_conv_depthwise, 4),
};
INFERENCE_CASES(packed_cases);
