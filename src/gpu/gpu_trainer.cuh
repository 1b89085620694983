/* Training on the device: data, loss, optimiser, whole steps. The manual of the functions is gpu_table.h. */
#ifndef TERN_GPU_GPU_TRAINER_CUH
#define TERN_GPU_GPU_TRAINER_CUH

#include "gpu/gpu_plan.cuh"

void gpu_trainer_free(tern_gpu_plan *plan);
tern_status gpu_trainer_set_optimizer(tern_gpu_plan *plan, const tern_gpu_optimizer_desc *desc, tern_error *err);
tern_status gpu_trainer_images(tern_gpu_plan *plan, const tern_gpu_images *images, tern_error *err);
tern_status gpu_trainer_tokens(tern_gpu_plan *plan, const int32_t *token, size_t count, tern_error *err);
tern_status gpu_trainer_send_state(tern_gpu_plan *plan, size_t param, const float *first, const float *second,
                                   tern_error *err);
tern_status gpu_trainer_fetch_state(tern_gpu_plan *plan, size_t param, float *first, float *second, tern_error *err);
tern_status gpu_trainer_set_counts(tern_gpu_plan *plan, const tern_gpu_result *counts, tern_error *err);
tern_status gpu_trainer_step(tern_gpu_plan *plan, const tern_gpu_step *step, tern_error *err);
tern_status gpu_trainer_result(tern_gpu_plan *plan, tern_gpu_result *out, tern_error *err);
tern_status gpu_trainer_recalibrate(tern_gpu_plan *plan, const tern_gpu_step *step, int number, tern_error *err);

#endif
