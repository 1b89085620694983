/* The functions of gpu_table.h that have files of their own: gpu_plan.cu, gpu_parameters.cu, gpu_passes.cu. */
#ifndef TERN_GPU_GPU_FUNCTIONS_CUH
#define TERN_GPU_GPU_FUNCTIONS_CUH

#include "gpu/gpu_plan.cuh"

tern_status gpu_plan_create(tern_gpu_plan **out, tern_cuda_context *context, const tern_gpu_plan_desc *desc,
                            tern_error *err);
void gpu_plan_release(tern_gpu_plan *plan);
size_t gpu_plan_bytes(const tern_gpu_plan *plan);

tern_status gpu_plan_send(tern_gpu_plan *plan, float lambda, tern_error *err);
tern_status gpu_plan_fetch(tern_gpu_plan *plan, tern_error *err);
tern_status gpu_read_trits(tern_gpu_plan *plan, tern_gpu_trits *out, size_t node, tern_error *err);
tern_status gpu_step_fixed(tern_gpu_plan *plan, size_t param, float lr, uint64_t step, tern_error *err);

tern_status gpu_plan_forward(tern_gpu_plan *plan, float *y, const void *x, const tern_gpu_pass *pass,
                             tern_error *err);
tern_status gpu_plan_backward(tern_gpu_plan *plan, const float *dy, tern_error *err);
tern_status gpu_read_node(tern_gpu_plan *plan, float *out, size_t node, int which, tern_error *err);
tern_status gpu_read_gradient(tern_gpu_plan *plan, float *out, size_t param, tern_error *err);

#endif
