#include "graph_cases.h"

/* ---- dense products and elementwise ops */

static tern_value vector(tern_graph *g, size_t n) { return tern_graph_input(g, (tern_shape){1, {n}}); }

static void linear(tern_graph *g) {
    tern_value x = vector(g, 40);
    x = tern_graph_add(g, "linear", "first", x, &(tern_attrs){.outputs = 24, .bias = 1});
    x = tern_graph_add(g, "relu", "relu", x, NULL);
    tern_graph_add(g, "linear", "second", x, &(tern_attrs){.outputs = 10});
}

/* Sizes that are multiples of nothing. */
static void linear_odd(tern_graph *g) {
    tern_value x = vector(g, 37);
    x = tern_graph_add(g, "linear", "first", x, &(tern_attrs){.outputs = 19, .bias = 1});
    x = tern_graph_add(g, "gelu", "gelu", x, NULL);
    tern_graph_add(g, "linear", "second", x, &(tern_attrs){.outputs = 3, .bias = 1});
}

#define ACTIVATION(f)                                                              \
    static void f(tern_graph *g) {                                                 \
        tern_value x = vector(g, 33);                                              \
        x = tern_graph_add(g, "linear", "first", x, &(tern_attrs){.outputs = 33}); \
        tern_graph_add(g, #f, #f, x, NULL);                                        \
    }
ACTIVATION(relu)
ACTIVATION(relu2)
ACTIVATION(gelu)
ACTIVATION(silu)

static const graph_case dense_cases_array[] = {
    {"linear", linear, 16, 2e-5, 2e-2, 0, 0, 0}, {"linear, odd sizes", linear_odd, 7, 2e-5, 2e-2, 0, 0, 0},
    {"relu", relu, 9, 2e-5, 2e-2, 0, 0, 0},      {"relu2", relu2, 9, 2e-5, 2e-2, 0, 0, 0},
    {"gelu", gelu, 9, 2e-5, 2e-2, 0, 0, 0},      {"silu", silu, 9, 2e-5, 2e-2, 0, 0, 0},
};
GRAPH_CASES(dense_cases);
