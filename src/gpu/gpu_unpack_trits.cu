#include "gpu/gpu_unpack_trits.cuh"

#include "cuda/tile_trit.cuh"
#include "gpu/gpu_kernels.cuh"

/* Once a model, so each trit by itself. */
__global__ static void unpack(int8_t *trits, tern_cuda_weights w) {
    const size_t row_bytes = (size_t)w.k_tiles * TERN_TILE_BYTES;
    GPU_FOR(i, (size_t)w.rows * (size_t)w.cols) {
        const int row = (int)(i / (size_t)w.cols), column = (int)(i % (size_t)w.cols);
        trits[i] =
            (int8_t)trit_at(w.tiles + (size_t)(row / TERN_TILE_ROWS) * row_bytes, row % TERN_TILE_ROWS, column, w.t5);
    }
}

tern_status gpu_unpack_trits(tern_gpu_plan *plan, size_t node, int8_t *trits, const tern_cuda_weights &w,
                             tern_error *err) {
    unpack<<<gpu_blocks(plan, (size_t)w.rows * (size_t)w.cols), GPU_THREADS, 0, plan->stream>>>(trits, w);
    GPU_LAUNCHED(plan, node, err);
    return TERN_OK;
}
