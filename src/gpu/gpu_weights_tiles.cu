#include "gpu/gpu_weights_tiles.cuh"

#include "gpu/gpu_trainer.cuh"

template <class T, gpu_operand_form Form, bool Whole>
__global__ static void __launch_bounds__(GPU_THREADS) make_tiles(gpu_tiling p, T *operand) {
    const size_t warps = (size_t)gridDim.x * GPU_TILES_AT_ONCE;
    const float lambda = Form == MIXED ? p.now->lambda : 1;
    for (size_t tile = (size_t)blockIdx.x * GPU_TILES_AT_ONCE + threadIdx.x / 32; tile < p.count; tile += warps)
        gpu_make_tile<T, Form, Whole>(p, operand, tile, lambda);
}

template <class T, gpu_operand_form Form>
static void launch_tiles(tern_gpu_plan *plan, const gpu_tiling &p, void *operand) {
    const unsigned blocks = gpu_blocks(plan, p.count * 32);
    if (p.cols % 4)
        make_tiles<T, Form, false><<<blocks, GPU_THREADS, 0, plan->stream>>>(p, (T *)operand);
    else
        make_tiles<T, Form, true><<<blocks, GPU_THREADS, 0, plan->stream>>>(p, (T *)operand);
}

tern_status gpu_weights_tile(const gpu_weights *w, tern_gpu_plan *plan, size_t i, tern_error *err) {
    const gpu_tiling p = gpu_tiling_of(w, plan, i);
    GPU_BY_TYPE(plan->products, if (!w->operand) launch_tiles<T, NO_OPERAND>(plan, p, NULL);
                else if (plan->mixed) launch_tiles<T, MIXED>(plan, p, w->operand);
                else if (w->scaled) launch_tiles<T, SCALED>(plan, p, w->operand);
                else launch_tiles<T, TRITS>(plan, p, w->operand));
    GPU_LAUNCHED(plan, i, err);
    return TERN_OK;
}
