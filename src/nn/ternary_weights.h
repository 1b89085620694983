/* The weights of a ternary node in a plan: trits, scales, matrices for the products, and what training adds. */
#ifndef TERN_NN_TERNARY_WEIGHTS_H
#define TERN_NN_TERNARY_WEIGHTS_H

#include "nn/plan.h"

/* What a rule keeps: the parameters of a trit_ node (nn/trit_weights.h), NULL where its rule has none. */
typedef struct tern_trit_state {
    int8_t *counter, *momentum, *exponent, *gradient_exponent;
    uint8_t *trits;
    int64_t *correlation, *exponent_sum;
    int32_t *steps;
    int8_t *rates;
    uint8_t *thresholds;
} tern_trit_state;

typedef struct tern_ternary_weights {
    size_t rows, cols; /* of W, all groups of a convolution together */
    size_t groups;     /* matrices of rows / groups rows each */
    tern_matrix **matrix;
    tern_granularity granularity;
    size_t group;       /* columns that share an exponent; 0: scales are per tensor or row, as granularity says */
    size_t scale_count; /* 1, rows, or rows * groups a row */
    float *scales;      /* of latent and whole-number weights: 1 or rows; NULL with groups */

    /* Only of latent weights; NULL for others. */
    int8_t *trits, *counted; /* [rows][cols]; and those of the last count */

    /* Only of whole-number weights; NULL for others. */
    uint8_t *used;         /* t2 [rows][cols]: the trits of this pass, whatever its updates do to the counters */
    int8_t *used_exponent; /* [scale_count]: likewise; NULL without groups */
    int8_t *room;          /* [threads][cols] */
    tern_trit_state rule;

    /* Only in training: what the float products of a pass multiply by, in plan->products. While lambda < 1 it is the
     * mixed weights, afterwards the trits, with the scales apart. */
    void *operand;
    int mixed;

    /* Counted in a refresh with plan->count_trits; flips: trits that changed since the count before. */
    size_t minus, zero, plus, flips, counts;
    size_t flipping; /* of whole-number weights: flips since that count */
} tern_ternary_weights;

static inline tern_scale_kind tern_ternary_scale_kind(const tern_ternary_weights *w) {
    return w->group ? TERN_SCALE_GROUP_EXP : w->granularity == TERN_PER_ROW ? TERN_SCALE_ROW : TERN_SCALE_TENSOR;
}

/* For latent weights [rows][cols] of parameter 0, or packed ones of the node. */
tern_status tern_ternary_prepare(tern_ternary_weights *w, tern_plan *plan, size_t node, tern_error *err);
/* The same for a table whose rows are read and not multiplied: without matrices. */
tern_status tern_ternary_prepare_table(tern_ternary_weights *w, tern_plan *plan, size_t node, tern_error *err);
tern_status tern_ternary_refresh(tern_ternary_weights *w, tern_plan *plan, size_t node, tern_error *err);
void tern_ternary_release(tern_ternary_weights *w);

/* trits [rows][cols] of this pass, whatever they are kept as. */
tern_status tern_ternary_take_trits(const tern_ternary_weights *w, const tern_node *node, int8_t *trits,
                                    tern_error *err);
/* Scale number s of scale_count. */
float tern_ternary_scale(const tern_ternary_weights *w, const tern_node *node, size_t s);
/* Bytes of all scales as they are deployed: floats, or int8 exponents. */
static inline size_t tern_ternary_scale_bytes(const tern_ternary_weights *w) {
    return w->scale_count * (w->group ? 1 : sizeof(float));
}

/* The weights of node i of a plan, NULL where it has none. */
tern_ternary_weights *tern_plan_ternary(const tern_plan *plan, size_t i);

#endif
