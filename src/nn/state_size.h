/* How much persists of what is trained: what a checkpoint holds, over the weights that it is for.
 *
 * Weights are those that learn: of a whole-number layer rows * columns whatever its rule keeps, of the rest gains,
 * biases and matrices. What persists are their integers or floats, the exponents and sums of their rule, running
 * statistics, and the optimiser's state. Frozen weights are neither. */
#ifndef TERN_NN_STATE_SIZE_H
#define TERN_NN_STATE_SIZE_H

#include "nn/nodes.h"

typedef struct tern_state_size {
    size_t weights, bytes;
} tern_state_size;

/* The optimiser's bytes for a parameter, 0 for those that it does not step. */
typedef size_t (*tern_optimizer_bytes)(const void *context, const tern_graph *graph, size_t param);

/* Of what node i owns: parameters that it shares are counted with their owner. */
tern_state_size tern_node_state_size(const tern_graph *graph, size_t i, tern_optimizer_bytes optimizer,
                                     const void *context);
tern_state_size tern_graph_state_size(const tern_graph *graph, tern_optimizer_bytes optimizer, const void *context);

/* 0 where nothing is trained. */
static inline double tern_state_bits(const tern_state_size *size) {
    return size->weights ? 8.0 * (double)size->bytes / (double)size->weights : 0;
}

#endif
