#include "gpu/gpu_trainer.cuh"

struct gpu_trainer {
    int unused;
};
void gpu_trainer_free(tern_gpu_plan *plan) { (void)plan; }
#define TODO(name, ...)                                                  \
    tern_status name(tern_gpu_plan *, __VA_ARGS__, tern_error *err) {    \
        return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE, #name); \
    }
TODO(gpu_trainer_set_optimizer, const tern_gpu_optimizer_desc *)
TODO(gpu_trainer_images, const tern_gpu_images *)
TODO(gpu_trainer_tokens, const int32_t *, size_t)
TODO(gpu_trainer_send_state, size_t, const float *, const float *)
TODO(gpu_trainer_fetch_state, size_t, float *, float *)
TODO(gpu_trainer_set_counts, const tern_gpu_result *)
TODO(gpu_trainer_step, const tern_gpu_step *)
TODO(gpu_trainer_result, tern_gpu_result *)
TODO(gpu_trainer_recalibrate, const tern_gpu_step *, int)
