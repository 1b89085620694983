/* Where the values of a graph and their gradients lie in one arena, and which gradients a backward pass makes: the
 * same for a plan on the CPU and one on a GPU. The time of spans is plan.h's. */
#ifndef TERN_NN_LAYOUT_H
#define TERN_NN_LAYOUT_H

#include "nn/nodes.h"

/* What a layout is for. FUSED, on a GPU: nodes that are computed within their reader have no value and no gradient of
 * their own, an addition's gradient is its inputs' where nobody else needs that memory meanwhile, and the gradient of
 * the output takes the output's place. */
enum { TERN_LAYOUT_TRAINING = 1, TERN_LAYOUT_FUSED = 2 };
enum { TERN_LAYOUT_WINDOWS = 1 << 29 /* of a batch, at most, where a pool computes what is in front of it */ };

typedef struct tern_layout_node {
    size_t value, grad; /* offsets into the arena; of an alias: its input's */
    int from[2];        /* nodes whose values are read: the inputs, or those of an input that is within */
    int within;         /* computed by its only reader */
    int normed;         /* an activation that computes the batch norm in front of it, or a pool that computes both */
    int scaled;         /* an activation that computes the affine in front of it */
    int has_value;      /* 0: the caller's input, under whatever shape */
    int has_grad;
    int wants_grad[2]; /* input i has a gradient */
    int add_to[2];     /* backward adds to it instead of setting it */
} tern_layout_node;

typedef struct tern_layout {
    tern_layout_node *node; /* [graph->nodes] */
    size_t bytes;           /* of the arena */
} tern_layout;

/* For batches of up to `batch` samples whose elements take element_bytes each; purpose: TERN_LAYOUT_. Checks nothing
 * but memory: sizes must fit (tern_graph_fits). */
tern_status tern_layout_make(tern_layout *out, const tern_graph *graph, size_t batch, size_t element_bytes,
                             int purpose, tern_error *err);
void tern_layout_free(tern_layout *layout);

/* Fails where one value of a batch would not fit into the address space. */
tern_status tern_graph_fits(const tern_graph *graph, size_t batch, tern_error *err);

#endif
