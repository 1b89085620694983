/* The outputs of a convolution whose patches are a few values, as those of an image of three colours: a product too
 * small for cuBLASLt, and all of it memory traffic were its patches written. Patches are gathered into registers. */
#ifndef TERN_GPU_GPU_SMALL_PATCHES_CUH
#define TERN_GPU_GPU_SMALL_PATCHES_CUH

#include "gpu/gpu_plan.cuh"

bool gpu_small_patches_fit(const tern_gpu_plan *plan, size_t node);
/* y = patches W^T + bias in fp32, of operands rounded to `type`. bias may be NULL. */
tern_status gpu_small_patches_forward(tern_gpu_plan *plan, size_t node, tern_dtype type, const float *bias,
                                      tern_error *err);

#endif
