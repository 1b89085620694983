/* Chains of small launches that do not wait for one another, side by side on streams of their own: branches of the
 * graph where a step is captured. Which chain runs on which never changes a result. */
#ifndef TERN_GPU_GPU_BRANCHES_CUH
#define TERN_GPU_GPU_BRANCHES_CUH

#include "gpu/gpu_plan.cuh"

enum { GPU_BRANCHES = 4 };

struct gpu_branches {
    cudaStream_t trunk, stream[GPU_BRANCHES]; /* trunk: the plan's, between begin and end */
    cudaEvent_t begun, done[GPU_BRANCHES];
    void *trunk_workspace, *workspace[GPU_BRANCHES]; /* of cuBLASLt */
};

/* plan->trainer->branches, freed with the trainer. */
tern_status gpu_branches_create(tern_gpu_plan *plan, tern_error *err);
void gpu_branches_free(gpu_branches *b);

/* Launches between begin and end go to branch i % GPU_BRANCHES after gpu_branch(plan, i). They must not use
 * plan->scratch. end makes the plan's stream wait for all of them; it is called after an error too, and hands on
 * `status`. */
tern_status gpu_branches_begin(tern_gpu_plan *plan, tern_error *err);
void gpu_branch(tern_gpu_plan *plan, size_t i);
tern_status gpu_branches_end(tern_gpu_plan *plan, tern_status status, tern_error *err);

#endif
