/* Shape rules that several ops share. */
#ifndef TERN_NN_OP_SHAPES_H
#define TERN_NN_OP_SHAPES_H

#include "nn/nodes.h"

/* The value has the first input's shape. */
tern_status tern_shape_of_input(tern_graph *graph, tern_node *node, tern_error *err);

/* A window sliding over an image: checks that the input is one, fills in the defaults of kernel, stride and padding
 * (`all`: kernel 0 means the whole image, and stride 0 the kernel) and sets the shape to `channels` deep. */
tern_status tern_shape_of_window(tern_graph *graph, tern_node *node, size_t channels, int all, tern_error *err);

/* A table of `outputs` rows (default: the vocabulary) of `width`, read by the input of tokens. */
tern_status tern_embedding_shape(tern_graph *graph, tern_node *node, tern_error *err);

#endif
