/* The weights of a ternary node in a plan: trits, scales, matrices for the products, and what training adds. */
#ifndef TERN_NN_TERNARY_WEIGHTS_H
#define TERN_NN_TERNARY_WEIGHTS_H

#include "nn/plan.h"

typedef struct tern_ternary_weights {
    size_t rows, cols; /* of W, all groups of a convolution together */
    size_t groups;     /* matrices of rows / groups rows each */
    tern_matrix **matrix;
    tern_granularity granularity;

    /* Only of latent weights; NULL for packed ones. */
    int8_t *trits, *counted; /* [rows][cols]; and those of the last count */
    float *scales;           /* 1 or rows */

    /* Only in training: what the float products of a pass multiply by, in plan->products. While lambda < 1 it is the
     * mixed weights, afterwards the trits, with the scales apart. */
    void *operand;
    int mixed;

    /* Counted in a refresh with plan->count_trits; flips: trits that changed since the count before. */
    size_t minus, zero, plus, flips, counts;
} tern_ternary_weights;

/* For latent weights [rows][cols] of parameter 0, or packed ones of the node. */
tern_status tern_ternary_prepare(tern_ternary_weights *w, tern_plan *plan, size_t node, tern_error *err);
tern_status tern_ternary_refresh(tern_ternary_weights *w, tern_plan *plan, size_t node, tern_error *err);
void tern_ternary_release(tern_ternary_weights *w);

/* The weights of node i of a plan, NULL where it has none. */
tern_ternary_weights *tern_plan_ternary(const tern_plan *plan, size_t i);

#endif
