/* How few.cu runs a product. */
#ifndef TERN_CUDA_FEW_PLAN_H
#define TERN_CUDA_FEW_PLAN_H

#include "cuda/launch_shapes.h"

/* Clusters of `splits` blocks, `each` of them a multiprocessor, which has room for `room`. */
typedef struct tern_few_shape {
    int splits, each, room, team;
} tern_few_shape;

#define TERN_FEW_SHAPES                                                                                       \
    {                                                                                                         \
        {1, 1, 2, 1}, {2, 1, 2, 1}, {4, 1, 2, 1}, {1, 2, 2, 1}, {2, 2, 2, 1}, {1, 1, 2, 4}, {2, 1, 2, 4},     \
            {4, 1, 2, 4}, {8, 1, 2, 4}, {2, 2, 2, 4}, {4, 2, 2, 4}, {4, 1, 1, 4}, {8, 1, 1, 4}, {8, 1, 2, 1}, \
            {2, 1, 1, 4}, {                                                                                   \
            1, 1, 1, 1                                                                                        \
        }                                                                                                     \
    }

enum {
    TERN_FEW_BOX_COLS = 128, /* of activations, in rows that the copy engine swizzles whole */
    TERN_FEW_VARIANTS = 16,
    TERN_FEW_MAX_M = 64,
    TERN_FEW_WARPS = 16,
    TERN_FEW_PHASES = 4, /* in which the activations arrive */
};

/* `groups` clusters of `splits` blocks; a group has `rows` rows of tiles, the first `more` of them one more, and its
 * blocks share their columns. In a block, teams of `team` warps, which have a row of tiles each, take one set of rows
 * of tiles after another, and 2^parts_log2 teams share the columns of a set. The rings of the warps come first in
 * shared memory; the others are bytes from its start. */
typedef struct tern_few_plan {
    int groups, splits, splits_log2, rows, more, team, parts_log2;
    int depth; /* of a warp's ring, in tiles */
    int slots; /* pieces of sums that a block of the cluster finishes */
    int pitch; /* of rows of activations, where they are not in boxes */
    int x, inbox, barriers;
    int meet; /* nonzero: the inbox takes the place of what is multiplied */
    int bytes;
} tern_few_plan;

/* 0: the shape has no room for it. */
int tern_few_plan_make(tern_few_plan *plan, int variant, const tern_cuda_limits *limits, const tern_cuda_weights *w,
                       size_t m);

#endif
