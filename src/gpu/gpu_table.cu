/* The functions of gpu_table.h, and those that are too small for a file of their own. */
#include "gpu/gpu_functions.cuh"
#include "gpu/gpu_gemm.cuh"
#include "gpu/gpu_trainer.cuh"

#include "cuda/device_memory.cuh"

static void plan_memory(tern_gpu_memory *out, const tern_gpu_plan *plan) {
    out->bytes = plan->kept_bytes;
    out->workspace = plan->lt ? GPU_LT_WORKSPACE : 0;
}

static tern_status keep_sums(tern_gpu_plan *plan, tern_error *err) {
    CUDA_TRY(cudaSetDevice(plan->context->device), "keeping sums", err);
    TERN_CHECK_ARGUMENT(plan->type == TERN_F32 && !plan->training, err,
                        "sums are kept by plans of fp32 values that are not for training");
    for (size_t i = 1; i < plan->graph->nodes; i++) GPU_CHECK(gpu_ternary_keep_sums(plan, i, err));
    return TERN_OK;
}

static tern_status read_sums(tern_gpu_plan *plan, int32_t *sums, int8_t *q, size_t node, tern_error *err) {
    CUDA_TRY(cudaSetDevice(plan->context->device), "reading", err);
    return gpu_ternary_read_sums(plan, sums, q, node, err);
}

const tern_gpu_table tern_gpu_functions = {gpu_plan_create,
                                           gpu_plan_release,
                                           gpu_plan_bytes,
                                           gpu_plan_send,
                                           gpu_plan_fetch,
                                           gpu_plan_forward,
                                           gpu_plan_backward,
                                           gpu_read_node,
                                           gpu_read_gradient,
                                           gpu_read_trits,
                                           plan_memory,
                                           gpu_time_forward,
                                           keep_sums,
                                           read_sums,
                                           gpu_trainer_set_optimizer,
                                           gpu_trainer_images,
                                           gpu_trainer_tokens,
                                           gpu_trainer_send_state,
                                           gpu_trainer_fetch_state,
                                           gpu_trainer_set_counts,
                                           gpu_trainer_step,
                                           gpu_trainer_result,
                                           gpu_trainer_recalibrate,
                                           gpu_step_fixed};
