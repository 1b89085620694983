/* Absmean quantization of weights in steps, for those that run them with vectors and threads: the scalar
 * specification, and the written order of the sum. The rules stand in tern/quant.h. */
#ifndef TERN_QUANT_WEIGHTS_H
#define TERN_QUANT_WEIGHTS_H

#include <stddef.h>
#include <stdint.h>

#include "tern/quant.h"

/* A matrix as runs of weights that share a scale. */
typedef struct tern_slices {
    size_t n, length;
} tern_slices;

/* Everything but the weights themselves. */
tern_status tern_check_slices(tern_slices *s, const int8_t *trits, const float *scales, const float *w, size_t rows,
                              size_t cols, tern_granularity granularity, tern_error *err);

/* The sum of |w| over a slice is added up block by block from its start, in ascending order, so that threads can
 * share the work without a say in the result. Each block is summed as TERN_SUM_PARTIALS interleaved partial sums. No
 * sum of finite weights overflows a double. */
enum { TERN_SUM_BLOCK = 1 << 14, TERN_SUM_PARTIALS = 16 };

/* One block of n <= TERN_SUM_BLOCK weights; tern_sum_magnitudes_fn of kern/kernels.h. */
double tern_sum_magnitudes_scalar(const float *w, size_t n);
/* How partial sums become the sum of a block. */
double tern_add_partials(const double partials[TERN_SUM_PARTIALS]);

/* max(center, 1e-5), rounded to fp32. */
float tern_absmean_scale(double center);

/* median |w|, for an even count the mean of the two in the middle; 0 for n = 0. */
double tern_median_magnitude(const float *w, size_t n);

/* tern_ternarize_fn of kern/kernels.h. */
void tern_ternarize_scalar(int8_t *trits, const float *w, size_t n, float m);

#endif
