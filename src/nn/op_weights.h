/* Shapes and weights of the ops that multiply: linear, conv2d and their ternary kin. */
#ifndef TERN_NN_OP_WEIGHTS_H
#define TERN_NN_OP_WEIGHTS_H

#include "nn/dnn.h"
#include "nn/nodes.h"

tern_status tern_linear_shape(tern_graph *graph, tern_node *node, tern_error *err);
/* Also gives at.groups its default; zero groups mark a node that is no convolution. */
tern_status tern_conv_shape(tern_graph *graph, tern_node *node, tern_error *err);

/* Weights of one output: C, or kernel * kernel * C / groups. */
size_t tern_weight_columns(const tern_graph *graph, const tern_node *node);

/* "weight" [outputs][C] or [outputs][kernel][kernel][C / groups], and "bias" where the node has one. */
tern_status tern_add_weights(tern_graph *graph, tern_node *node, tern_role role, tern_error *err);

tern_conv_desc tern_node_conv(const tern_graph *graph, const tern_node *node, tern_dtype dtype);

#endif
