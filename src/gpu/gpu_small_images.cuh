/* Convolutions of small images of few channels, as those of colours, in bf16: an image lies in shared memory, and
 * patches are read from there into operands of matrix instructions. For one step of all windows, 8.0 and newer. */
#ifndef TERN_GPU_GPU_SMALL_IMAGES_CUH
#define TERN_GPU_GPU_SMALL_IMAGES_CUH

#include "gpu/gpu_plan.cuh"

/* y = patches W^T + bias, operands rounded to bf16. bias may be NULL. */
bool gpu_small_images_fit(const tern_gpu_plan *plan, size_t node);
tern_status gpu_small_images_forward(tern_gpu_plan *plan, size_t node, const float *bias, tern_error *err);

/* dw += dy^T patches, with scratch; for lines of whole steps of 16 places. */
bool gpu_small_filters_fit(const tern_gpu_plan *plan, size_t node);
size_t gpu_small_filters_scratch(const tern_gpu_plan *plan, size_t node);
tern_status gpu_small_filters_gradient(tern_gpu_plan *plan, size_t node, float *dw, void *scratch, tern_error *err);

#endif
