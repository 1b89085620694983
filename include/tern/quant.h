/* Quantizers: float weights to trits and scales, float activations to int8.
 *
 * Shapes: matrices are row-major, `rows` x `cols`; a trit is an int8_t of value -1, 0 or +1. All outputs are owned
 * by the caller and must not overlap the inputs. On failure nothing is written. A trit outside -1..1 given to any of
 * these but tern_sparsity is TERN_E_DATA with its index as the place, and so is a scale that is NaN, Inf or negative.
 * Rounding is to nearest, ties to even, everywhere. */
#ifndef TERN_QUANT_H
#define TERN_QUANT_H

#include <stddef.h>
#include <stdint.h>

#include "tern/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* How many weights share one scale. */
typedef enum tern_granularity {
    TERN_PER_TENSOR = 0, /* one scale */
    TERN_PER_ROW = 1     /* one scale per row (output channel) */
} tern_granularity;

/* The centre m of |w| that absmean quantization divides by. */
typedef enum tern_center {
    TERN_MEAN = 0,  /* mean |w|, summed in double in the order below */
    TERN_MEDIAN = 1 /* median |w|; for an even count the mean of the two middle values */
} tern_center;

/* Absmean (BitNet b1.58, arXiv:2402.17764, eq. 1-3): m = max(center|w|, 1e-5),
 * trit = clamp(round(w / m), -1, 1), scale = m.
 * trits: rows*cols. scales: 1 or rows. An all-zero matrix or row gives zeros and the scale 1e-5.
 * A NaN or Inf weight is TERN_E_DATA with its index as the place.
 * The sum of |w| over a tensor or row is that of its blocks of 2^14 weights (the last may be shorter), added in
 * ascending order; the sum of a block is that of sixteen interleaved partial sums (partial j takes the weights i of
 * the block with i % 16 == j), added in ascending order. It does not depend on the tier or the number of threads. */
TERN_API tern_status tern_quantize_absmean(int8_t *trits, float *scales, const float *w, size_t rows, size_t cols,
                                           tern_center center, tern_granularity granularity, tern_error *err);

/* The same with `threads` threads (0, as above: every processor this process may use), for a training step; see
 * tern_matrix_set_trits. */
TERN_API tern_status tern_quantize_weights(int8_t *trits, float *scales, const float *w, size_t rows, size_t cols,
                                           tern_center center, tern_granularity granularity, int threads,
                                           tern_error *err);

/* TWN (Ternary Weight Networks, arXiv:1605.04711): delta = 0.7 mean|w|, trit = sign(w) where |w| > delta, else 0;
 * scale = mean |w| over the kept weights (|w| > delta), 0 where none is kept. Means and delta stay in double; only
 * the scale is rounded to fp32. */
TERN_API tern_status tern_quantize_twn(int8_t *trits, float *scales, const float *w, size_t rows, size_t cols,
                                       tern_granularity granularity, tern_error *err);

/* As TWN with a delta given by the caller (finite, not negative). */
TERN_API tern_status tern_quantize_threshold(int8_t *trits, float *scales, const float *w, size_t rows, size_t cols,
                                             float delta, tern_granularity granularity, tern_error *err);

/* True for 6 and for every multiple of 4 from 4 up to the row length rounded up to a multiple of 4. */
TERN_API int tern_group_is_valid(size_t group, size_t cols);

/* Groups per row: ceil(cols / group). Exponent arrays hold rows * tern_groups_per_row() values, row-major. */
TERN_API size_t tern_groups_per_row(size_t group, size_t cols);

/* One power-of-two exponent per group of `group` neighbouring columns:
 * e = clamp(round(log2(mean |w|)), -128, 127), rounded to nearest and decided exactly (no libm). The mean is over
 * the kept weights of the group (trit != 0) when `trits` is given and the group keeps any, else over all its
 * weights; a short last group divides by its own size. A group whose mean is zero gets exponent 0.
 * trits may be NULL. */
TERN_API tern_status tern_group_exponents(int8_t *exponents, const float *w, const int8_t *trits, size_t rows,
                                          size_t cols, size_t group, tern_error *err);

/* Moves a ternary matrix with group exponents to another group size without changing what it computes beyond
 * rounding: each new exponent is the rounded log2 of the mean old effective scale (2^e) over the kept weights of the
 * new group (over all of them where none is kept). Splitting groups is exact. The trits stay as they are. */
TERN_API tern_status tern_regroup_exponents(int8_t *to, size_t to_group, const int8_t *from, size_t from_group,
                                            const int8_t *trits, size_t rows, size_t cols, tern_error *err);

/* out[r][c] = trit * scale. `scales` is 1 or rows values by granularity. */
TERN_API tern_status tern_dequantize(float *out, const int8_t *trits, const float *scales, size_t rows, size_t cols,
                                     tern_granularity granularity, tern_error *err);

/* out[r][c] = trit * 2^e of its group. */
TERN_API tern_status tern_dequantize_groups(float *out, const int8_t *trits, const int8_t *exponents, size_t rows,
                                            size_t cols, size_t group, tern_error *err);

/* Share of zero trits, 0..1; 0 for an empty matrix. NULL or an overflowing size gives NaN. */
TERN_API double tern_sparsity(const int8_t *trits, size_t rows, size_t cols);

/* Activations to int8, per row (token): s = 127 / max(max|x|, 1e-5), q = clamp(round(x * s), -128, 127);
 * inv_scale[row] = 1 / s, in fp32, multiplies integer sums back. A zero row gives zeros (and 1 / s of the floor,
 * about 1e-5 / 127). A row that holds a NaN or an Inf gives zeros and the inv_scale NaN, so that every product of
 * that row is NaN. */
TERN_API tern_status tern_quantize_activations(int8_t *q, float *inv_scale, const float *x, size_t rows, size_t cols,
                                               tern_error *err);

/* The same after RMSNorm: v = x * r * gain with r = 1 / sqrt(mean(x^2) + epsilon), where the mean is summed in
 * double over sixteen interleaved partial sums (partial j takes the columns c with c % 16 == j) that are added in
 * ascending order, r is rounded once to fp32, and v = (x * r) * gain in fp32. gain: cols values, or NULL for ones.
 * epsilon: finite, not negative (0 with a zero row is an all-zero result by rule: r = 0 where the mean + epsilon is
 * 0). A row in which some v overflows counts as one that holds an Inf. */
TERN_API tern_status tern_quantize_activations_rmsnorm(int8_t *q, float *inv_scale, const float *x, const float *gain,
                                                       float epsilon, size_t rows, size_t cols, tern_error *err);

#ifdef __cplusplus
}
#endif
#endif
