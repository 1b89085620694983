/* All nodes of a kind in two launches. */
#include <stdlib.h>

#include "cuda/device_memory.cuh"
#include "gpu/gpu_trainer.cuh"
#include "gpu/gpu_weights_scales.cuh"
#include "gpu/gpu_weights_tiles.cuh"

struct gpu_weights_job {
    gpu_slices s;
    gpu_tiling t;
    void *operand;
    int scaled;
    unsigned first_part, first_block; /* of the blocks that sum and that make tiles, those of the jobs before */
};

/* The last job whose `first` is not above the block. */
__device__ static const gpu_weights_job &find_job(const gpu_weights_job *job, unsigned jobs,
                                                  unsigned gpu_weights_job::*first) {
    unsigned low = 0;
    for (unsigned high = jobs; high - low > 1;) {
        const unsigned middle = (low + high) / 2;
        if (job[middle].*first <= blockIdx.x)
            low = middle;
        else
            high = middle;
    }
    return job[low];
}

__global__ static void __launch_bounds__(GPU_THREADS) sum_jobs(const gpu_weights_job *list, unsigned jobs) {
    const gpu_weights_job &job = find_job(list, jobs, &gpu_weights_job::first_part);
    const gpu_slices s = job.s;
    gpu_sum_part<absmean>(s, blockIdx.x - job.first_part);
}

template <class T, bool Mixed>
__global__ static void __launch_bounds__(GPU_THREADS) tile_jobs(const gpu_weights_job *list, unsigned jobs) {
    const gpu_weights_job &job = find_job(list, jobs, &gpu_weights_job::first_block);
    const gpu_tiling p = job.t;
    const size_t tile = (size_t)(blockIdx.x - job.first_block) * GPU_TILES_AT_ONCE + threadIdx.x / 32;
    if (tile >= p.count) return;
    if (Mixed)
        gpu_make_tile<T, MIXED, true>(p, (T *)job.operand, tile, p.now->lambda);
    else if (job.scaled)
        gpu_make_tile<T, SCALED, true>(p, (T *)job.operand, tile, 1);
    else
        gpu_make_tile<T, TRITS, true>(p, (T *)job.operand, tile, 1);
}

bool gpu_weights_are_listed(const gpu_weights *w) {
    return w && !w->trits.exponent && w->tiles && w->operand && w->rule == TERN_RULE_ABSMEAN && w->cols % 4 == 0;
}

/* Fills `job` unless it is NULL. */
static void list_jobs(gpu_weights_list *list, gpu_weights_job *job, const tern_gpu_plan *plan) {
    *list = {};
    for (size_t i = 1; i < plan->graph->nodes; i++) {
        const gpu_weights *w = plan->node[i].op ? gpu_node_weights(plan, i) : NULL;
        if (!gpu_weights_are_listed(w)) continue;
        const gpu_slices s = gpu_slices_of(w, plan, i);
        const gpu_tiling t = gpu_tiling_of(w, plan, i);
        if (job) job[list->jobs] = {s, t, w->operand, w->scaled, list->parts, list->blocks};
        list->node = i;
        list->jobs++;
        list->parts += (unsigned)w->slices * s.parts;
        list->blocks += (unsigned)tern_ceil_div(t.count, GPU_TILES_AT_ONCE);
    }
}

tern_status gpu_weights_list_make(gpu_weights_list *list, tern_gpu_plan *plan, tern_error *err) {
    static const char op[] = "weights";
    list_jobs(list, NULL, plan);
    if (!list->jobs) return TERN_OK;
    gpu_weights_job *job = (gpu_weights_job *)calloc(list->jobs, sizeof *job);
    if (!job) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for training");
    list_jobs(list, job, plan);
    void *memory;
    tern_status status = gpu_keep(plan, &memory, list->jobs * sizeof *job, op, err);
    if (!status) status = tern_cuda_upload(plan->context, memory, job, list->jobs * sizeof *job, err);
    list->job = (const gpu_weights_job *)memory;
    free(job);
    return status;
}

tern_status gpu_weights_list_refresh(const gpu_weights_list *list, tern_gpu_plan *plan, tern_error *err) {
    if (!list->jobs) return TERN_OK;
    sum_jobs<<<list->parts, GPU_THREADS, 0, plan->stream>>>(list->job, list->jobs);
    GPU_LAUNCHED(plan, list->node, err);
    GPU_BY_TYPE(plan->products, if (plan->mixed) tile_jobs<T, true>
                <<<list->blocks, GPU_THREADS, 0, plan->stream>>>(list->job, list->jobs);
                else tile_jobs<T, false><<<list->blocks, GPU_THREADS, 0, plan->stream>>>(list->job, list->jobs));
    GPU_LAUNCHED(plan, list->node, err);
    return TERN_OK;
}
