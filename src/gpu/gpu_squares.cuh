/* Sums of squares in the order of tern_sum_of_squares, tile by tile: sixteen interleaved sums of every part, each in
 * ascending order, then these, then the parts. Squares of floats are exact in double. */
#ifndef TERN_GPU_GPU_SQUARES_CUH
#define TERN_GPU_GPU_SQUARES_CUH

#include "gpu/gpu_plan.cuh"
#include "gpu/gpu_trit_rules.h"

struct gpu_square_tiles {
    const float *g;
    size_t count, tile; /* gradients; of a tile, of which the last may have fewer */
    size_t parts;       /* of a tile */
};

static inline gpu_square_tiles gpu_square_tiles_of(const float *g, size_t count, size_t tile) {
    return {g, count, tile, tern_ceil_div(tile, GPU_SUM_PART)};
}
static inline size_t gpu_tiles_in(const gpu_square_tiles &t) { return tern_ceil_div(t.count, t.tile); }

/* part[gpu_tiles_in(t) * t.parts], device memory. */
tern_status gpu_sum_squares(tern_gpu_plan *plan, const char *name, double *part, const gpu_square_tiles &t,
                            tern_error *err);

__device__ inline double gpu_tile_sum(const double *part, size_t parts, size_t tile) {
    double sum = 0;
    for (size_t p = 0; p < parts; p++) sum += part[tile * parts + p];
    return sum;
}

#endif
