/* Convolutions with one filter a channel, which are too small for dense products. */
#ifndef TERN_GPU_GPU_DEPTHWISE_CUH
#define TERN_GPU_GPU_DEPTHWISE_CUH

#include "gpu/gpu_patches.cuh"

/* True of a node that they can compute: as many groups as channels and outputs, a window of at most 16 x 16. */
bool gpu_depthwise_fits(const tern_gpu_plan *plan, size_t node);
size_t gpu_depthwise_scratch(const tern_gpu_plan *plan, size_t node);

/* Values and gradients are of the plan's type, weights[channels][kernel][kernel] fp32. Operands are rounded to
 * `type`. Scratch of gpu_depthwise_scratch bytes; bias may be NULL. */
tern_status gpu_depthwise_forward(tern_gpu_plan *plan, size_t node, tern_dtype type, void *y, const void *x,
                                  const float *weights, const float *bias, void *scratch, tern_error *err);
tern_status gpu_depthwise_input_gradient(tern_gpu_plan *plan, size_t node, tern_dtype type, void *dx, const void *dy,
                                         const float *weights, int add, void *scratch, tern_error *err);
/* Added to dw[channels][kernel][kernel]. */
tern_status gpu_depthwise_weight_gradient(tern_gpu_plan *plan, size_t node, tern_dtype type, float *dw,
                                          const void *dy, const void *x, void *scratch, tern_error *err);

#endif
