/* Gradients of inputs by int8 products: dx = dy W with dy rounded to int8 by the row and the trits packed a second
 * time, turned, so that the kernels of the forward pass make this product too.
 *
 *     g[m][n] = dy[m][n] scale[n]    where rows of W have scales of their own, else dy
 *     q = round(g s),  s = 127 / max |g| of the row
 *     dx[m][k] = (sum over n of q[m][n] t[n][k]) / s    (times the one scale, where there is one)
 *
 * The rule is that of activations without their least maximum of 1e-5: gradients of a mean are far smaller. */
#ifndef TERN_GPU_GPU_TURNED_WEIGHTS_CUH
#define TERN_GPU_GPU_TURNED_WEIGHTS_CUH

#include "gpu/gpu_plan.cuh"
#include "gpu/gpu_weights.cuh"

struct gpu_turned_weights {
    tern_cuda_weights matrix;  /* W^T: a row for each column of W. tiles NULL: there is none */
    uint8_t *tiles;            /* the matrix's */
    const float *column_scale; /* of columns of dy; NULL: one for all, which is the matrix's */
};

/* For weights that have been prepared: latent ones, of one group. */
tern_status gpu_turned_prepare(gpu_turned_weights *t, tern_gpu_plan *plan, size_t node, const gpu_weights *w,
                               tern_error *err);
/* Behind that of the weights. */
tern_status gpu_turned_refresh(const gpu_turned_weights *t, tern_gpu_plan *plan, size_t node, const gpu_weights *w,
                               tern_error *err);

/* q[rows][ld] and 1/s, from dy[rows][columns] of the plan's type; zeros behind the columns. ld: a multiple of 16. */
tern_status gpu_quantize_gradient(tern_gpu_plan *plan, size_t node, int8_t *q, float *inv_scale, size_t ld,
                                  const void *dy, const float *column_scale, size_t rows, size_t columns,
                                  tern_error *err);

#endif
