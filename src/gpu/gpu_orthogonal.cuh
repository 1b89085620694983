/* The momentum of the rule `ortho` made orthogonal: the direction of its step. */
#ifndef TERN_GPU_GPU_ORTHOGONAL_CUH
#define TERN_GPU_GPU_ORTHOGONAL_CUH

#include "gpu/gpu_plan.cuh"

struct gpu_weights;

size_t gpu_orthogonal_scratch(const gpu_weights *w, const tern_gpu_plan *plan);
/* x [rows][cols] of the weights' int8 momentum. */
tern_status gpu_orthogonalise(const gpu_weights *w, tern_gpu_plan *plan, size_t node, float *x, void *scratch,
                              tern_error *err);

#endif
