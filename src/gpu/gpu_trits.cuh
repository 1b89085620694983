/* Whole-number weights on the device: the integers of nn/trit_weights.h lie there as parameters, a refresh makes
 * trits and scales of them, and a backward pass steps them while the layer's gradient passes through the scratch.
 *
 * What the rules make of a gradient is what the CPU makes of it, to the bit (gpu_trit_rules.h). The gradient itself
 * is summed by cuBLASLt in an order of its own: where sums are not exact, it differs from the CPU's as floats do. The
 * whole layer's is made at once, which is the only memory that a step takes; where the CPU makes it in tiles, their
 * sums of squares and their part in `trouble` are kept apart here too.
 *
 * Of `ortho` the momentum is exact; the steps that make it orthogonal are float products, and so its counters are not
 * promised to be the CPU's. */
#ifndef TERN_GPU_GPU_TRITS_CUH
#define TERN_GPU_GPU_TRITS_CUH

#include "gpu/gpu_plan.cuh"

/* One step of a rule, settled on the device. */
struct gpu_rule_step {
    uint64_t step;
    int32_t rate, gradient_exp;
    int32_t whole; /* every row is stepped, and what is once a step follows */
};

/* How rows are stepped: all by step[0], or each by its own; of tiles of rows, those that `go`. Device memory. */
struct gpu_rule_rows {
    const gpu_rule_step *step;
    size_t each; /* 1: step[rows], else 0 */
    const int32_t *go;
    size_t tile_rows;
    __device__ bool goes(size_t row) const { return go[row / tile_rows] != 0; }
    __device__ const gpu_rule_step &of(size_t row) const { return step[row * each]; }
};

/* The integers of a node, device memory; NULL where its rule has none. */
struct gpu_trits {
    int update;
    size_t scales;    /* one a tensor, a row or a group */
    size_t group;     /* columns that share one: all of a row without groups */
    size_t per_row;   /* scales of a row; 0: one for all */
    size_t tile_rows; /* of nn/trit_backward.c */
    int8_t *counter, *momentum, *exponent, *gradient_exponent, *rates;
    uint8_t *packed, *thresholds;
    int64_t *correlation, *exponent_sum;
    int32_t *steps;
    int8_t *used_exponent;        /* of this pass; NULL without groups */
    gpu_rule_step *step;          /* [2]: of the gradient, and of ortho's second step */
    unsigned long long *flipping; /* flips since the last count */
};

struct gpu_weights;

bool gpu_trits_are_in(const tern_gpu_plan *plan, size_t node);
/* Beside what gpu_weights_prepare has filled in: sizes. */
tern_status gpu_trits_prepare(gpu_weights *w, tern_gpu_plan *plan, size_t node, tern_error *err);
tern_status gpu_trits_refresh(gpu_weights *w, tern_gpu_plan *plan, size_t node, tern_error *err);
/* w, [rows][cols] of the products' type: the trits of this pass times their scales. */
tern_status gpu_trits_operand(const gpu_weights *w, tern_gpu_plan *plan, size_t node, void *to, tern_error *err);
/* One step with the gradient g [rows][cols], which is no longer needed. Scratch of gpu_trits_scratch bytes. */
size_t gpu_trits_scratch(const gpu_weights *w, const tern_gpu_plan *plan);
tern_status gpu_trits_update(const gpu_weights *w, tern_gpu_plan *plan, size_t node, float *g, void *scratch,
                             tern_error *err);

/* Parts of that: the rule of the rows that go, with their gradients; and what is once a step. */
tern_status gpu_trits_step(const gpu_weights *w, tern_gpu_plan *plan, size_t node, float *g,
                           const gpu_rule_rows *rows, void *scratch, tern_error *err);
tern_status gpu_trits_finish(const gpu_weights *w, tern_gpu_plan *plan, size_t node, tern_error *err);

/* What the step does, decided from the gradient's squares: w->trits.step and go[tiles of rows]; `part` is scratch of
 * gpu_trits_parts_bytes bytes. */
size_t gpu_trits_parts_bytes(const gpu_weights *w);
tern_status gpu_trits_settle(const gpu_weights *w, tern_gpu_plan *plan, size_t node, const float *g, double *part,
                             int32_t *go, tern_error *err);

/* The trit (row, col) of tiles in t2, rows of all groups (cuda/tiles.h). */
struct gpu_tile_reader {
    const uint32_t *tiles;
    size_t rows, row_tiles, k_tiles; /* of a group */
    /* Columns col ... + 3, col a multiple of 4: a byte each, the trit in the two bits from `shift` on. */
    __device__ uint32_t word(size_t row, size_t col, int *shift) const {
        const size_t group = row / rows, in_group = row - group * rows;
        const size_t tile = (group * row_tiles + in_group / 16) * k_tiles + col / 128;
        const size_t lane = in_group % 8 * 4 + col % 16 / 4, word = col % 128 / 64 * 2 + in_group % 16 / 8;
        *shift = (int)(col % 64 / 16 * 2);
        return tiles[tile * 128 + lane * 4 + word];
    }
    __device__ static int trit(uint32_t word, int shift, int j) {
        const int code = (int)(word >> (8 * j + shift) & 3);
        return (code & 1) - (code & 2);
    }
    __device__ int at(size_t row, size_t col) const {
        int shift;
        const uint32_t four = word(row, col & ~(size_t)3, &shift);
        return trit(four, shift, (int)(col & 3));
    }
};
gpu_tile_reader gpu_trits_reader(const gpu_weights *w);

/* ---- parameters in fixed point */

/* A step along the gradient of parameter p over its root mean square, as train/trainer.c's step_fixed. All in device
 * memory: the parameter's rule (of which lr and frozen are read), `parts` times the number of the step and less than
 * `parts` besides, and whether the step is good: NULL or not 0. Uses the plan's scratch. */
tern_status gpu_fixed_step(tern_gpu_plan *plan, size_t p, const tern_gpu_rule *rule, const uint64_t *step,
                           uint64_t parts, const int32_t *good, tern_error *err);
/* The integers of a FIXED parameter from its floats, then the floats from them: tern_param_round. */
tern_status gpu_fixed_round(tern_gpu_plan *plan, size_t p, const int32_t *good, tern_error *err);
/* Scratch of both; in prepare of the plan. */
size_t gpu_fixed_scratch(const tern_graph *graph);

#endif
