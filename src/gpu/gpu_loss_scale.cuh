/* How gradients in fp16 keep clear of 0 and of infinity: that of the output is multiplied by a scale, those of
 * parameters are divided by it before anything is made of them. Scales are powers of two, so that nothing but the
 * range changes.
 *
 * A step whose gradients are not finite though its loss is was too much for the scale: it changes nothing, and the
 * next one has half of it. Many good steps in a row double it. At the least scale such a step is what it is in other
 * types: one that is skipped, and too many of those end the training. */
#ifndef TERN_GPU_GPU_LOSS_SCALE_CUH
#define TERN_GPU_GPU_LOSS_SCALE_CUH

#include "gpu/gpu_plan.cuh"

enum { GPU_SCALE_START = 1 << 16, GPU_SCALE_LEAST = 1, GPU_SCALE_PATIENCE = 1000 /* good steps, then it doubles */ };
/* Where gradients are all 0 it would grow for ever. */
static constexpr double GPU_SCALE_MOST = 4294967296.0;

/* Of a plan before its first step; `saved`: of the run that goes on, or zeros. */
static inline tern_gpu_loss_scale gpu_loss_scale_of(const tern_gpu_plan *plan, const tern_gpu_loss_scale &saved) {
    if (plan->type != TERN_F16) return {};
    if (saved.scale > 0) return saved;
    return {GPU_SCALE_START, 0, 0};
}

__device__ inline double gpu_scale_value(const tern_gpu_loss_scale &s) { return s.scale > 0 ? s.scale : 1; }

/* A step whose gradients are not finite: true where a smaller scale may mend that. */
__device__ inline bool gpu_scale_halve(tern_gpu_loss_scale *s) {
    if (s->scale <= GPU_SCALE_LEAST) return false;
    s->scale /= 2;
    s->good_in_row = 0;
    s->overflowed++;
    return true;
}

__device__ inline void gpu_scale_good_step(tern_gpu_loss_scale *s) {
    if (s->scale <= 0 || ++s->good_in_row < GPU_SCALE_PATIENCE) return;
    s->good_in_row = 0;
    if (s->scale < GPU_SCALE_MOST) s->scale *= 2;
}

#endif
