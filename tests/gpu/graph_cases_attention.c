#include "graph_cases.h"

/* ---- attention behind an embedding and a dense product, whose gradients see dx */

enum { WIDTH = 48, VOCABULARY = 64 };

typedef struct shape {
    size_t tokens, heads, kv_heads, width; /* of a head */
    float rope_base;
} shape;

static tern_value attend(tern_graph *g, shape s) {
    size_t slices = s.heads + 2 * s.kv_heads;
    tern_value x = tern_graph_input_tokens(g, s.tokens, VOCABULARY);
    /* Rows of some length, so that scores differ and the weights are no mere means. */
    x = tern_graph_add(g, "embedding", "table", x, &(tern_attrs){.width = WIDTH, .init_gain = 1.2f});
    x = tern_graph_add(g, "linear", "qkv", x, &(tern_attrs){.outputs = slices * s.width});
    return tern_graph_add(g, "attention", "attention", x,
                          &(tern_attrs){.heads = s.heads, .kv_heads = s.kv_heads, .rope_base = s.rope_base});
}

#define ATTENTION(f, ...) \
    static void f(tern_graph *g) { attend(g, (shape){__VA_ARGS__}); }
ATTENTION(small, 5, 2, 2, 4, 0)
ATTENTION(one_token, 1, 2, 1, 32, 10000)
ATTENTION(odd_width, 37, 3, 3, 7, 0)
ATTENTION(narrow, 37, 4, 2, 2, 100)
ATTENTION(middle, 70, 2, 1, 48, 10000)
ATTENTION(wide, 65, 2, 1, 160, 10000)
ATTENTION(very_wide, 20, 2, 2, 257, 0)
ATTENTION(d32, 37, 4, 4, 32, 0)
ATTENTION(d32_rope, 130, 4, 2, 32, 10000)
ATTENTION(d64, 64, 2, 2, 64, 0)
ATTENTION(d64_rope, 193, 4, 2, 64, 10000)
ATTENTION(d64_groups, 37, 6, 1, 64, 500)
ATTENTION(d128, 37, 2, 1, 128, 0)
ATTENTION(d128_rope, 161, 3, 1, 128, 10000)
ATTENTION(d128_whole, 128, 2, 2, 128, 10000)

/* The norm behind is the only reader of attention, and gives what its gradient begins with. */
#define NORMED(f, norm, ...) \
    static void f(tern_graph *g) { tern_graph_add(g, norm, "norm", attend(g, (shape){__VA_ARGS__}), NULL); }
NORMED(d32_normed, "rmsnorm", 37, 8, 8, 32, 0)
NORMED(d64_normed, "rmsnorm", 150, 4, 2, 64, 10000)
NORMED(d128_normed, "layernorm", 70, 2, 1, 128, 10000)

/* Others use the input of attention too, so that it adds to a gradient. */
static void added(tern_graph *g, size_t tokens, size_t heads, size_t width) {
    tern_value x = tern_graph_input_tokens(g, tokens, VOCABULARY), y;
    x = tern_graph_add(g, "embedding", "table", x, &(tern_attrs){.width = WIDTH, .init_gain = 1.2f});
    x = tern_graph_add(g, "linear", "qkv", x, &(tern_attrs){.outputs = 3 * heads * width});
    y = tern_graph_add(g, "attention", "attention", x, &(tern_attrs){.heads = heads, .rope_base = 10000});
    x = tern_graph_add(g, "linear", "aside", x, &(tern_attrs){.outputs = heads * width});
    tern_graph_add2(g, "add", "sum", x, y);
}
/* The product aside is the later node and sets the gradient. */
static void added_plain(tern_graph *g) { added(g, 37, 2, 20); }
static void added_tensor(tern_graph *g) { added(g, 75, 2, 64); }

/* A layer of a transformer. */
static void layer(tern_graph *g) {
    tern_value x = tern_graph_input_tokens(g, 50, VOCABULARY), y;
    x = tern_graph_add(g, "embedding", "table", x, &(tern_attrs){.width = 64, .init_gain = 1});
    y = tern_graph_add(g, "rmsnorm", "norm", x, NULL);
    y = tern_graph_add(g, "linear", "qkv", y, &(tern_attrs){.outputs = 128});
    y = tern_graph_add(g, "attention", "attention", y, &(tern_attrs){.heads = 2, .kv_heads = 1, .rope_base = 10000});
    y = tern_graph_add(g, "linear", "out", y, &(tern_attrs){.outputs = 64});
    y = tern_graph_add(g, "dropout", "dropout", y, &(tern_attrs){.rate = 0.1f});
    x = tern_graph_add2(g, "add", "sum", x, y);
    tern_graph_add(g, "rmsnorm", "last", x, NULL);
}

static const graph_case attention_cases_array[] = {
    {"attention, small", small, 3, 2e-5, 3e-2, 0, 0, 0},
    {"attention, one token", one_token, 2, 2e-5, 3e-2, 0, 0, 0},
    {"attention, odd width", odd_width, 2, 2e-5, 4e-2, 0, 0, 0},
    {"attention, narrow", narrow, 3, 2e-5, 4e-2, 0, 0, 0},
    {"attention, middle", middle, 2, 2e-5, 4e-2, 0, 0, 0},
    {"attention, wide", wide, 1, 2e-5, 4e-2, 0, 0, 0},
    {"attention, very wide", very_wide, 2, 2e-5, 4e-2, 0, 0, 0},
    {"attention, 32", d32, 2, 2e-5, 4e-2, 0, 0, 0},
    {"attention, 32 rope", d32_rope, 2, 2e-5, 4e-2, 0, 0, 0},
    {"attention, 64", d64, 1, 2e-5, 4e-2, 0, 0, 0},
    {"attention, 64 rope", d64_rope, 2, 2e-5, 4e-2, 0, 0, 0},
    {"attention, 64 groups", d64_groups, 3, 2e-5, 4e-2, 0, 0, 0},
    {"attention, 128", d128, 2, 2e-5, 4e-2, 0, 0, 0},
    {"attention, 128 rope", d128_rope, 2, 2e-5, 4e-2, 0, 0, 0},
    {"attention, 128 whole", d128_whole, 1, 2e-5, 4e-2, 0, 0, 0},
    {"attention, 32 normed", d32_normed, 2, 2e-5, 4e-2, 0, 0, 0},
    {"attention, 64 normed", d64_normed, 3, 2e-5, 4e-2, 0, 0, 0},
    {"attention, 128 normed", d128_normed, 2, 2e-5, 4e-2, 0, 0, 0},
    {"attention, added", added_plain, 2, 2e-5, 4e-2, 0, 0, 0},
    {"attention, 64 added", added_tensor, 2, 2e-5, 4e-2, 0, 0, 0},
    {"transformer layer", layer, 3, 3e-5, 4e-2, 0, 0, 0},
};
GRAPH_CASES(attention_cases);
