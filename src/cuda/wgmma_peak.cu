#include "cuda/hopper.cuh"
#include "cuda/peaks.cuh"

enum { GROUPS = 2, COLUMNS = 256, TILE_BYTES = COLUMNS * 128 };

__global__ void __launch_bounds__(GROUPS * 128) tern_busy_wgmma_cuda(int repeats, int32_t *out) {
    extern __shared__ __align__(1024) uint8_t shared[];
    for (int i = (int)threadIdx.x; i < TILE_BYTES; i += GROUPS * 128) shared[i] = (uint8_t)(i * 37 + (i >> 8) * 11);
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    __syncthreads();
    uint32_t a[4];
    int32_t c[COLUMNS / 2] = {};
    for (int i = 0; i < 4; i++) a[i] = threadIdx.x * 2654435761u + (uint32_t)i * 40503u;
    const uint64_t b = swizzled_rows((uint32_t)__cvta_generic_to_shared(shared));
    pin(a);
    pin(c);
    for (int r = 0; r < repeats; r += 4) {
        wgmma_fence();
        for (int k = 0; k < 4; k++) wgmma_i8(c, a, b + (uint64_t)(k * 32 >> 4));
        wgmma_commit();
        wgmma_wait();
    }
    pin(c);
    int32_t sum = 0;
    for (int i = 0; i < COLUMNS / 2; i++) sum ^= c[i];
    if (sum == 0x12345678) *out = sum; /* practically never */
}

tern_status tern_cuda_busy_wgmma(tern_cuda_context *context, int repeats, double *operations, tern_error *err) {
    static const char op[] = "int8 peak";
    *operations = 2.0 * 64 * COLUMNS * 32 * GROUPS * context->multiprocessors * repeats;
    CUDA_TRY(cudaFuncSetAttribute(tern_busy_wgmma_cuda, cudaFuncAttributeMaxDynamicSharedMemorySize, TILE_BYTES), op,
             err);
    tern_busy_wgmma_cuda<<<(unsigned)context->multiprocessors, GROUPS * 128, TILE_BYTES, context->stream>>>(
        repeats, (int32_t *)context->scratch);
    CUDA_TRY(cudaGetLastError(), op, err);
    return TERN_OK;
}
