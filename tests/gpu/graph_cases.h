/* Small graphs, one or more for each operation that a GPU has: graph_test.c. */
#ifndef TERN_TESTS_GRAPH_CASES_H
#define TERN_TESTS_GRAPH_CASES_H

#include "tern/graph.h"

typedef struct graph_case {
    const char *name;
    void (*build)(tern_graph *graph);
    size_t batch;
    double tolerance, tolerance_bf16; /* of the difference's length over the value's */
    float lambda;                     /* weights mixed with their latents; 0: 1 */
    int fp32_only;
    int training_only; /* evaluation is not compared */
} graph_case;

typedef struct graph_case_list {
    const graph_case *cases;
    size_t count;
    int inference; /* plans are not for training, and only evaluation is compared */
} graph_case_list;

#define GRAPH_CASES(name) const graph_case_list name = {name##_array, sizeof name##_array / sizeof *name##_array, 0}
#define INFERENCE_CASES(name) \
    const graph_case_list name = {name##_array, sizeof name##_array / sizeof *name##_array, 1}

/* One a file graph_cases_*.c. */
/* clang-format off */
#define GRAPH_CASE_LISTS(list) \
    list(dense_cases) \
    list(conv_cases) \
    list(norm_cases) \
    list(attention_cases) \
    list(ternary_cases) \
    list(packed_cases) \
    list(trit_cases)
/* clang-format on */

#define GRAPH_CASE_LIST_DECLARED(name) extern const graph_case_list name;
GRAPH_CASE_LISTS(GRAPH_CASE_LIST_DECLARED)

#endif
