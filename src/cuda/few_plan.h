/* How few.cu runs a product. */
#ifndef TERN_CUDA_FEW_PLAN_H
#define TERN_CUDA_FEW_PLAN_H

#include "cuda/launch_shapes.h"

enum {
    TERN_FEW_VARIANTS = 1,
    TERN_FEW_MAX_M = 64,
    TERN_FEW_WARPS = 16,
    TERN_FEW_TEAM = 4,       /* warps: a warpgroup */
    TERN_FEW_BLOCKS = 2,     /* that share the columns */
    TERN_FEW_BOX_COLS = 128, /* of activations, in rows that the copy engine swizzles whole */
};

/* `groups` pairs of blocks; a group has `rows` rows of tiles, the first `more` of them one more. In a block, teams of
 * warps, which have a row of tiles each, take one set of rows of tiles after another, and 2^parts_log2 teams share the
 * columns of a set. The rings of the warps come first in shared memory; the others are bytes from its start. */
typedef struct tern_few_plan {
    int groups, rows, more, parts_log2;
    int depth; /* of a warp's ring, in tiles */
    int slots; /* pieces of sums that a block finishes */
    int x, inbox, barriers;
    int meet; /* nonzero: the inbox takes the place of what is multiplied */
    int bytes;
} tern_few_plan;

/* 0: shared memory has no room for it. */
int tern_few_plan_make(tern_few_plan *plan, const tern_cuda_limits *limits, const tern_cuda_weights *w, size_t m);

#endif
