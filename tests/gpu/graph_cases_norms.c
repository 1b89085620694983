#include "graph_cases.h"

/* ---- norms, elementwise operations of two inputs, dropout, embeddings. A dense product in front of each makes the
 * gradient of its input seen. */

static tern_value dense(tern_graph *g, size_t inputs, size_t outputs) {
    tern_value x = tern_graph_input(g, (tern_shape){1, {inputs}});
    return tern_graph_add(g, "linear", "first", x, &(tern_attrs){.outputs = outputs});
}

static tern_value image(tern_graph *g, size_t h, size_t w, size_t c) {
    tern_value x = dense(g, 20, h * w * c);
    return tern_graph_add(g, "reshape", "image", x, &(tern_attrs){.dim = {h, w, c}});
}

static void batch_norm(tern_graph *g) { tern_graph_add(g, "batch_norm", "norm", dense(g, 24, 40), NULL); }
static void batch_norm_odd(tern_graph *g) {
    tern_graph_add(g, "batch_norm", "norm", dense(g, 24, 37), &(tern_attrs){.plain = 1, .momentum = 0.3f});
}
static void batch_norm_wide(tern_graph *g) { tern_graph_add(g, "batch_norm", "norm", dense(g, 24, 1024), NULL); }
static void batch_norm_image(tern_graph *g) { tern_graph_add(g, "batch_norm", "norm", image(g, 9, 7, 16), NULL); }
static void batch_norm_plain(tern_graph *g) {
    tern_graph_add(g, "batch_norm", "norm", image(g, 5, 6, 3), &(tern_attrs){.plain = 1, .epsilon = 1e-3f});
}
/* So many places that every thread adds more than one stripe. */
static void batch_norm_long(tern_graph *g) { tern_graph_add(g, "batch_norm", "norm", image(g, 160, 128, 8), NULL); }
static void affine(tern_graph *g) { tern_graph_add(g, "affine", "affine", image(g, 6, 5, 24), NULL); }
static void affine_odd(tern_graph *g) { tern_graph_add(g, "affine", "affine", dense(g, 10, 13), NULL); }

#define NORM(f, op, width, attrs) \
    static void f(tern_graph *g) { tern_graph_add(g, op, "norm", dense(g, 20, width), attrs); }
NORM(rmsnorm, "rmsnorm", 64, NULL)
NORM(rmsnorm_plain, "rmsnorm", 64, (&(tern_attrs){.plain = 1, .epsilon = 1e-3f}))
NORM(rmsnorm_odd, "rmsnorm", 37, NULL)
NORM(rmsnorm_medium, "rmsnorm", 1536, NULL)
NORM(rmsnorm_long, "rmsnorm", 8329, NULL)
NORM(layernorm, "layernorm", 96, NULL)
NORM(layernorm_odd, "layernorm", 19, NULL)
NORM(layernorm_medium, "layernorm", 777, NULL)
NORM(layernorm_long, "layernorm", 10240, NULL)

/* Places of a sequence are rows; the norm's input is used twice. */
static void layernorm_rows(tern_graph *g) {
    tern_value x = tern_graph_add(g, "reshape", "rows", dense(g, 20, 30 * 24), &(tern_attrs){.dim = {30, 24}});
    tern_value y = tern_graph_add(g, "layernorm", "norm", x, NULL);
    tern_graph_add2(g, "add", "sum", x, y);
}
static void rmsnorm_rows(tern_graph *g) {
    tern_value x = tern_graph_add(g, "reshape", "rows", dense(g, 20, 30 * 17), &(tern_attrs){.dim = {30, 17}});
    tern_value y = tern_graph_add(g, "rmsnorm", "norm", x, NULL);
    tern_graph_add2(g, "add", "sum", y, x);
}
static void batch_norm_rest(tern_graph *g) {
    tern_value x = image(g, 5, 5, 16), y = tern_graph_add(g, "batch_norm", "norm", x, NULL);
    tern_graph_add2(g, "add", "sum", x, y);
}

/* An activation that is one pass with its batch norm, in the middle and at the end; and one that is not, because the
 * norm has two readers. */
#define NORM_THEN(f, op, input)                                               \
    static void f(tern_graph *g) {                                            \
        tern_value x = tern_graph_add(g, "batch_norm", "norm", input, NULL);  \
        x = tern_graph_add(g, op, "activation", x, NULL);                     \
        x = tern_graph_add(g, "flatten", "flat", x, NULL);                    \
        tern_graph_add(g, "linear", "last", x, &(tern_attrs){.outputs = 12}); \
    }
NORM_THEN(norm_relu, "relu", dense(g, 24, 40))
NORM_THEN(norm_relu2, "relu2", dense(g, 24, 37))
NORM_THEN(norm_gelu, "gelu", image(g, 7, 5, 16))
NORM_THEN(norm_silu, "silu", image(g, 5, 5, 3))
/* A pool of quarters takes both in; one whose windows leave a line out, or see the activation's second reader, does
 * not. */
#define NORM_POOL(f, op, ...)                                                      \
    static void f(tern_graph *g) {                                                 \
        tern_value x = tern_graph_add(g, "batch_norm", "norm", __VA_ARGS__, NULL); \
        x = tern_graph_add(g, op, "activation", x, NULL);                          \
        x = tern_graph_add(g, "max_pool", "pool", x, &(tern_attrs){.kernel = 2});  \
        x = tern_graph_add(g, "flatten", "flat", x, NULL);                         \
        tern_graph_add(g, "linear", "last", x, &(tern_attrs){.outputs = 12});      \
    }
NORM_POOL(norm_pool_relu, "relu", image(g, 8, 6, 16))
NORM_POOL(norm_pool_gelu, "gelu", image(g, 4, 10, 24))
NORM_POOL(norm_pool_odd, "silu", image(g, 6, 4, 5))
NORM_POOL(norm_pool_rest, "relu", image(g, 7, 6, 8))
/* The second pool is one of its own. */
static void norm_pools(tern_graph *g) {
    tern_value x = tern_graph_add(g, "batch_norm", "norm", image(g, 8, 8, 16), NULL);
    x = tern_graph_add(g, "relu", "relu", x, NULL);
    x = tern_graph_add(g, "max_pool", "pool", x, &(tern_attrs){.kernel = 2});
    tern_graph_add(g, "max_pool", "second_pool", x, &(tern_attrs){.kernel = 2});
}
static void norm_pool_last(tern_graph *g) {
    tern_value x = tern_graph_add(g, "batch_norm", "norm", image(g, 8, 8, 40), &(tern_attrs){.plain = 1});
    tern_graph_add(g, "max_pool", "pool", tern_graph_add(g, "relu", "relu", x, NULL), &(tern_attrs){.kernel = 2});
}
static void norm_pool_added(tern_graph *g) {
    tern_value first = image(g, 6, 6, 8), x = tern_graph_add(g, "batch_norm", "norm", first, NULL);
    x = tern_graph_add(g, "max_pool", "pool", tern_graph_add(g, "relu", "relu", x, NULL), &(tern_attrs){.kernel = 2});
    tern_graph_add2(g, "add", "sum", x, tern_graph_add(g, "avg_pool", "mean", first, &(tern_attrs){.kernel = 2}));
}

static void norm_gelu_last(tern_graph *g) {
    tern_value x = tern_graph_add(g, "batch_norm", "norm", image(g, 6, 7, 8), &(tern_attrs){.plain = 1});
    tern_graph_add(g, "gelu", "gelu", x, NULL);
}
static void norm_twice(tern_graph *g) {
    tern_value x = tern_graph_add(g, "batch_norm", "norm", image(g, 5, 5, 8), NULL);
    x = tern_graph_add2(g, "add", "sum", x, tern_graph_add(g, "gelu", "gelu", x, NULL));
    tern_value y = tern_graph_add(g, "silu", "silu", tern_graph_add(g, "batch_norm", "norm2", x, NULL), NULL);
    tern_graph_add2(g, "add", "sum2", y, x);
}

static void add(tern_graph *g) {
    tern_value x = dense(g, 20, 45), y = tern_graph_add(g, "relu", "relu", x, NULL);
    y = tern_graph_add2(g, "add", "sum", x, y);
    tern_graph_add2(g, "add", "twice", y, y);
}
static void mul(tern_graph *g) {
    tern_value x = dense(g, 20, 45), y = tern_graph_add(g, "silu", "silu", x, NULL);
    y = tern_graph_add2(g, "mul", "product", x, y);
    tern_graph_add2(g, "mul", "square", y, y);
}
static void scale(tern_graph *g) {
    tern_value x = dense(g, 20, 45), y = tern_graph_add(g, "scale", "scale", x, &(tern_attrs){.factor = -0.37f});
    tern_graph_add2(g, "add", "sum", x, y);
}
static void dropout(tern_graph *g) {
    tern_value x = dense(g, 20, 45), y = tern_graph_add(g, "dropout", "dropout", x, &(tern_attrs){.rate = 0.3f});
    y = tern_graph_add2(g, "add", "sum", x, y);
    tern_graph_add(g, "dropout", "another", y, &(tern_attrs){.rate = 0.1f});
}
static void dropout_none(tern_graph *g) { tern_graph_add(g, "dropout", "dropout", dense(g, 20, 33), NULL); }

static void table(tern_graph *g, size_t tokens, size_t vocabulary, size_t rows, size_t width) {
    tern_value x = tern_graph_input_tokens(g, tokens, vocabulary);
    tern_graph_add(g, "embedding", "table", x, &(tern_attrs){.outputs = rows, .width = width});
}
static void embedding(tern_graph *g) { table(g, 37, 50, 0, 24); }
static void embedding_odd(tern_graph *g) { table(g, 61, 300, 321, 19); }
/* Runs of equal tokens that go through several chunks, and one that takes all of them. */
static void embedding_runs(tern_graph *g) { table(g, 100, 3, 0, 40); }
static void embedding_one(tern_graph *g) { table(g, 100, 1, 2, 17); }
static void embedding_wide(tern_graph *g) { table(g, 33, 256, 0, 1160); }

/* Blocks in which a norm takes in the activation in front of it, additions share a gradient's memory, and with int8
 * products norms make the activations of their readers. */
static void blocks(tern_graph *g, const char *product, size_t width) {
    tern_value x = tern_graph_input_tokens(g, 9, 40), y;
    x = tern_graph_add(g, "embedding", "table", x, &(tern_attrs){.width = width, .init_gain = 1});
    for (int i = 0; i < 2; i++) {
        static const char *const names[2][6] = {{"norm1", "up1", "relu1", "sub1", "down1", "sum1"},
                                                {"norm2", "up2", "relu2", "sub2", "down2", "sum2"}};
        y = tern_graph_add(g, "rmsnorm", names[i][0], x, NULL);
        y = tern_graph_add(g, product, names[i][1], y, &(tern_attrs){.outputs = 4 * width});
        y = tern_graph_add(g, "relu2", names[i][2], y, NULL);
        y = tern_graph_add(g, "rmsnorm", names[i][3], y, NULL);
        y = tern_graph_add(g, product, names[i][4], y, &(tern_attrs){.outputs = width});
        x = tern_graph_add2(g, "add", names[i][5], x, y);
    }
    x = tern_graph_add(g, "rmsnorm", "last", x, NULL);
    tern_graph_add(g, "linear", "head", x, &(tern_attrs){.outputs = 40});
}
/* A norm whose int8 reader is not the only one, behind a sum that it therefore does not make. */
static void norm_read_twice(tern_graph *g) {
    tern_value x = dense(g, 20, 256), y = tern_graph_add(g, "relu", "relu", x, NULL);
    x = tern_graph_add(g, "rmsnorm", "norm", tern_graph_add2(g, "add", "sum", x, y), NULL);
    y = tern_graph_add(g, "bit_linear", "second", x, &(tern_attrs){.outputs = 256});
    tern_graph_add2(g, "add", "last", x, y);
}
static void blocks_float(tern_graph *g) { blocks(g, "linear", 48); }
static void blocks_odd(tern_graph *g) { blocks(g, "linear", 37); }
static void blocks_int8(tern_graph *g) { blocks(g, "bit_linear", 256); }

static const graph_case norm_cases_array[] = {
    {"batch_norm", batch_norm, 10, 5e-5, 4e-2, 0, 0, 0},
    {"batch_norm, odd", batch_norm_odd, 33, 5e-5, 4e-2, 0, 0, 0},
    {"batch_norm, wide", batch_norm_wide, 5, 5e-5, 4e-2, 0, 0, 0},
    {"batch_norm, image", batch_norm_image, 5, 5e-5, 4e-2, 0, 0, 0},
    {"batch_norm, plain", batch_norm_plain, 7, 5e-5, 4e-2, 0, 0, 0},
    {"batch_norm, long", batch_norm_long, 16, 5e-5, 4e-2, 0, 0, 0},
    {"batch_norm, added", batch_norm_rest, 4, 5e-5, 4e-2, 0, 0, 0},
    {"batch_norm, relu", norm_relu, 12, 5e-5, 4e-2, 0, 0, 0},
    {"batch_norm, relu2", norm_relu2, 9, 5e-5, 4e-2, 0, 0, 0},
    {"batch_norm, gelu", norm_gelu, 6, 5e-5, 4e-2, 0, 0, 0},
    {"batch_norm, silu", norm_silu, 11, 5e-5, 4e-2, 0, 0, 0},
    {"batch_norm, gelu, last", norm_gelu_last, 6, 5e-5, 4e-2, 0, 0, 0},
    {"batch_norm, relu, pool", norm_pool_relu, 6, 5e-5, 0.25, 0, 0, 0},
    {"batch_norm, gelu, pool", norm_pool_gelu, 5, 5e-5, 0.25, 0, 0, 0},
    {"batch_norm, silu, pool, odd", norm_pool_odd, 4, 5e-5, 0.25, 0, 0, 0},
    {"batch_norm, relu, pool, rest", norm_pool_rest, 3, 5e-5, 0.25, 0, 0, 0},
    {"batch_norm, relu, two pools", norm_pools, 3, 5e-5, 0.25, 0, 0, 0},
    {"batch_norm, relu, pool, last", norm_pool_last, 7, 5e-5, 0.25, 0, 0, 0},
    {"batch_norm, relu, pool, added", norm_pool_added, 4, 5e-5, 0.25, 0, 0, 0},
    {"batch_norm, two readers", norm_twice, 6, 5e-5, 4e-2, 0, 0, 0},
    {"affine", affine, 6, 2e-5, 3e-2, 0, 0, 0},
    {"affine, odd", affine_odd, 1, 2e-5, 3e-2, 0, 0, 0},
    {"rmsnorm", rmsnorm, 9, 2e-5, 3e-2, 0, 0, 0},
    {"rmsnorm, plain", rmsnorm_plain, 9, 2e-5, 3e-2, 0, 0, 0},
    {"rmsnorm, odd", rmsnorm_odd, 11, 2e-5, 3e-2, 0, 0, 0},
    {"rmsnorm, medium", rmsnorm_medium, 3, 2e-5, 3e-2, 0, 0, 0},
    {"rmsnorm, long", rmsnorm_long, 2, 2e-5, 3e-2, 0, 0, 0},
    {"rmsnorm, added", rmsnorm_rows, 5, 2e-5, 3e-2, 0, 0, 0},
    {"layernorm", layernorm, 9, 2e-5, 3e-2, 0, 0, 0},
    {"layernorm, odd", layernorm_odd, 1, 2e-5, 3e-2, 0, 0, 0},
    {"layernorm, medium", layernorm_medium, 4, 2e-5, 3e-2, 0, 0, 0},
    {"layernorm, long", layernorm_long, 2, 2e-5, 3e-2, 0, 0, 0},
    {"layernorm, added", layernorm_rows, 5, 2e-5, 3e-2, 0, 0, 0},
    {"add", add, 7, 2e-5, 2e-2, 0, 0, 0},
    {"mul", mul, 7, 2e-5, 4e-2, 0, 0, 0},
    {"scale", scale, 7, 2e-5, 2e-2, 0, 0, 0},
    {"dropout", dropout, 7, 2e-5, 2e-2, 0, 0, 0},
    {"dropout, none", dropout_none, 3, 2e-5, 2e-2, 0, 0, 0},
    {"embedding", embedding, 3, 2e-5, 2e-2, 0, 0, 0},
    {"embedding, odd", embedding_odd, 1, 2e-5, 2e-2, 0, 0, 0},
    {"embedding, runs", embedding_runs, 7, 2e-5, 2e-2, 0, 0, 0},
    {"embedding, one token", embedding_one, 5, 2e-5, 2e-2, 0, 0, 0},
    {"embedding, wide", embedding_wide, 4, 2e-5, 2e-2, 0, 0, 0},
    {"blocks", blocks_float, 3, 1e-4, 6e-2, 0, 0, 0},
    {"blocks, odd width", blocks_odd, 2, 1e-4, 6e-2, 0, 0, 0},
    /* Of int8 activations a last bit of the norm turns one over now and then. */
    {"blocks, int8", blocks_int8, 3, 3e-2, 0, 0, 1, 0},
    {"rmsnorm, two readers", norm_read_twice, 9, 1e-2, 0, 0, 1, 0},
};
GRAPH_CASES(norm_cases);
