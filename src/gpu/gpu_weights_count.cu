/* Trits are counted a word of sixteen at a time. Fields of counted words that are 10, which is no trit, were never
 * counted: that is what they all hold at first. */
#include "gpu/gpu_kernels.cuh"
#include "gpu/gpu_weights.cuh"

__global__ static void count_trits(tern_gpu_trits *counts, const uint4 *tiles, uint4 *counted, size_t n,
                                   unsigned long long all) {
    const uint32_t fields = 0x55555555u;
    unsigned long long minus = 0, plus = 0, flips = 0;
    GPU_FOR(i, n) {
        const uint4 now = tiles[i], before = counted[i];
        const uint32_t a[4] = {now.x, now.y, now.z, now.w}, b[4] = {before.x, before.y, before.z, before.w};
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const uint32_t changed = a[j] ^ b[j], never = b[j] >> 1 & ~b[j];
            minus += (unsigned)__popc(a[j] >> 1 & fields);
            plus += (unsigned)__popc(a[j] & ~(a[j] >> 1) & fields);
            flips += (unsigned)__popc((changed | changed >> 1) & ~never & fields);
        }
        counted[i] = now;
    }
    minus = block_sum(minus);
    plus = block_sum(plus);
    flips = block_sum(flips);
    if (threadIdx.x) return;
    unsigned long long *sum = (unsigned long long *)counts;
    atomicAdd(&sum[0], minus);
    atomicAdd(&sum[1], (blockIdx.x ? 0 : all) - minus - plus); /* zeros, modulo 2^64 */
    atomicAdd(&sum[2], plus);
    atomicAdd(&sum[3], flips);
}

tern_status gpu_weights_count(const gpu_weights *w, tern_gpu_plan *plan, size_t i, tern_error *err) {
    const size_t n = w->groups * w->tile_bytes / sizeof(uint4);
    CUDA_TRY(cudaMemsetAsync(w->counts, 0, sizeof *w->counts, plan->stream), gpu_graph_node(plan, i)->name, err);
    count_trits<<<gpu_blocks(plan, n, 4), GPU_THREADS, 0, plan->stream>>>(
        w->counts, (const uint4 *)w->tiles, (uint4 *)w->counted, n, (unsigned long long)(w->rows * w->cols));
    GPU_LAUNCHED(plan, i, err);
    return TERN_OK;
}
