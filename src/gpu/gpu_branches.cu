#include "gpu/gpu_branches.cuh"

#include <stdlib.h>

#include "gpu/gpu_gemm.cuh"
#include "gpu/gpu_trainer.cuh"

static const char op[] = "branches";

tern_status gpu_branches_create(tern_gpu_plan *plan, tern_error *err) {
    gpu_branches *b = (gpu_branches *)calloc(1, sizeof *b);
    if (!b) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for training");
    plan->trainer->branches = b;
    /* Memory first: a device that has none left says so with numbers. */
    for (int i = 0; i < GPU_BRANCHES; i++) GPU_CHECK(gpu_keep(plan, &b->workspace[i], GPU_LT_WORKSPACE, op, err));
    CUDA_TRY(cudaEventCreateWithFlags(&b->begun, cudaEventDisableTiming), op, err);
    for (int i = 0; i < GPU_BRANCHES; i++) {
        CUDA_TRY(cudaStreamCreateWithFlags(&b->stream[i], cudaStreamNonBlocking), op, err);
        CUDA_TRY(cudaEventCreateWithFlags(&b->done[i], cudaEventDisableTiming), op, err);
    }
    return TERN_OK;
}

void gpu_branches_free(gpu_branches *b) {
    if (!b) return;
    if (b->begun) cudaEventDestroy(b->begun);
    for (int i = 0; i < GPU_BRANCHES; i++) {
        if (b->stream[i]) cudaStreamDestroy(b->stream[i]);
        if (b->done[i]) cudaEventDestroy(b->done[i]);
    }
    free(b);
}

tern_status gpu_branches_begin(tern_gpu_plan *plan, tern_error *err) {
    gpu_branches *b = plan->trainer->branches;
    CUDA_TRY(cudaEventRecord(b->begun, plan->stream), op, err);
    for (int i = 0; i < GPU_BRANCHES; i++) CUDA_TRY(cudaStreamWaitEvent(b->stream[i], b->begun, 0), op, err);
    b->trunk = plan->stream;
    b->trunk_workspace = gpu_lt_workspace(plan, b->workspace[0]);
    return TERN_OK;
}

void gpu_branch(tern_gpu_plan *plan, size_t i) {
    gpu_branches *b = plan->trainer->branches;
    plan->stream = b->stream[i % GPU_BRANCHES];
    gpu_lt_workspace(plan, b->workspace[i % GPU_BRANCHES]);
}

tern_status gpu_branches_end(tern_gpu_plan *plan, tern_status status, tern_error *err) {
    gpu_branches *b = plan->trainer->branches;
    plan->stream = b->trunk;
    gpu_lt_workspace(plan, b->trunk_workspace);
    for (int i = 0; i < GPU_BRANCHES; i++) {
        const cudaError_t recorded = cudaEventRecord(b->done[i], b->stream[i]);
        const cudaError_t waits = cudaStreamWaitEvent(plan->stream, b->done[i], 0);
        if (!status && recorded != cudaSuccess) status = tern_cuda_failed(err, recorded, op);
        if (!status && waits != cudaSuccess) status = tern_cuda_failed(err, waits, op);
    }
    return status;
}
