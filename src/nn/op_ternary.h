/* What the files of the ternary products share: op_ternary.c has forms and the forward pass, trit_backward.c the
 * backward pass of whole-number weights. */
#ifndef TERN_NN_OP_TERNARY_H
#define TERN_NN_OP_TERNARY_H

#include "nn/depthwise.h"
#include "nn/ternary_weights.h"

typedef struct tern_ternary_state {
    tern_ternary_weights w;
    int int8; /* activations are quantized */
    int8_t *q;
    float *inv_scale;       /* 1/s, one for each of the batch's `scales` */
    tern_conv *conv;        /* float products of a convolution, in training: gradients, and mixed weights forward */
    size_t part_rows;       /* of a convolution: output rows of one part */
    size_t product_scratch; /* of one thread's part of a convolution, or of the whole linear product */
    tern_depthwise depthwise;
    size_t tile_rows; /* of whole-number weights: outputs whose gradients are made at once */
    tern_conv
        *tile_conv[2]; /* of a convolution in more than one tile: a whole tile, and the last where it is shorter */
} tern_ternary_state;

typedef struct tern_ternary_sizes {
    size_t x, y;           /* elements of input and output */
    size_t rows, n, k;     /* output rows and columns, weights of an output */
    size_t scales;         /* activation scales: rows, or images */
    size_t scale_elements; /* input elements that share one */
    size_t rows_per_scale; /* output rows that share one */
} tern_ternary_sizes;

tern_ternary_sizes tern_ternary_sizes_of(const tern_plan *plan, size_t node, size_t batch);
static inline int tern_node_is_conv(const tern_node *node) { return node->at.groups != 0; }

/* The activations as operand of a float product, without their scales; made in `room` unless they are one already. */
const void *tern_ternary_activations(tern_plan *plan, size_t node, const tern_ternary_state *state,
                                     const tern_ternary_sizes *s, void *room);

/* Of trit_linear and trit_conv2d. */
tern_status tern_trit_backward_prepare(tern_plan *plan, size_t node, tern_ternary_state *state, tern_error *err);
void tern_trit_backward(tern_plan *plan, size_t node);

#endif
