/* packed_embedding: nn/op_trit_embedding.c's forward pass. The table stays packed; a thread makes one number. */
#include "gpu/gpu_kernels.cuh"
#include "gpu/gpu_weights.cuh"

#include "cuda/tile_trit.cuh"

static gpu_weights *weights_of(const tern_gpu_plan *plan, size_t i) { return (gpu_weights *)plan->node[i].state; }

static tern_status prepare(tern_gpu_plan *plan, size_t i, tern_error *err) {
    const tern_node *node = gpu_graph_node(plan, i);
    if (!node->packed.bytes)
        return tern_fail(err, TERN_E_DATA, TERN_NO_PLACE, "%s: its packed weights are missing", node->name);
    if (plan->training)
        return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE, "%s: packed weights cannot be trained", node->name);
    GPU_CHECK(gpu_state(plan, i, sizeof(gpu_weights), err));
    return gpu_weights_prepare(weights_of(plan, i), plan, i, err);
}

__device__ static float scale_at(const tern_cuda_weights &w, size_t row, size_t column) {
    if (w.exponents) return exp2_of(w.exponents[row * (size_t)w.groups + column / (size_t)w.group]);
    return w.scale[w.scale_per_row ? row : 0];
}

template <class T> __global__ static void take_rows(T *y, const int32_t *token, tern_cuda_weights w, size_t places) {
    const size_t width = (size_t)w.cols, tiles_bytes = (size_t)w.k_tiles * TERN_TILE_BYTES;
    GPU_FOR(i, places * width) {
        const size_t place = i / width, column = i - place * width, row = (size_t)token[place];
        const int trit =
            trit_at(w.tiles + row / TERN_TILE_ROWS * tiles_bytes, (int)(row % TERN_TILE_ROWS), (int)column, w.t5);
        y[i] = from_float<T>((float)trit * scale_at(w, row, column));
    }
}

static tern_status forward(tern_gpu_plan *plan, size_t i, tern_error *err) {
    const tern_cuda_weights w = gpu_weights_matrix(weights_of(plan, i), 0);
    const size_t places = plan->batch * gpu_graph_node(plan, i)->rows;
    const unsigned blocks = gpu_blocks(plan, places * (size_t)w.cols);
    GPU_BY_TYPE(plan->type, take_rows<<<blocks, GPU_THREADS, 0, plan->stream>>>(
                                (T *)plan->node[i].value, (const int32_t *)gpu_in(plan, i, 0), w, places));
    GPU_LAUNCHED(plan, i, err);
    return TERN_OK;
}

extern const gpu_op gpu_op_packed_embedding = {"packed_embedding", prepare, NULL, forward, NULL};
