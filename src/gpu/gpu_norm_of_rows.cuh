/* A norm that the product behind it may compute: gpu_op_norm.cu knows it, gpu_ternary_packed.cu asks. */
#ifndef TERN_GPU_GPU_NORM_OF_ROWS_CUH
#define TERN_GPU_GPU_NORM_OF_ROWS_CUH

#include "cuda/wgmma_floats.cuh"
#include "gpu/gpu_plan.cuh"

/* What the norm of node i does to rows, in *norm; false where it takes the mean away too. */
bool gpu_norm_of_rows(const tern_gpu_plan *plan, size_t node, tern_row_norm *norm);
/* Whether the product `reader` computes the norm in front of it in this pass, which then has nothing to do. */
bool gpu_reader_normalises(const tern_gpu_plan *plan, size_t reader);

#endif
