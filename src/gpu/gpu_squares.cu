#include "gpu/gpu_squares.cuh"

#include "gpu/gpu_kernels.cuh"
#include "gpu/gpu_trit_rules.h"

enum { STAGE = 2048, AHEAD = STAGE / GPU_THREADS };

/* All threads bring squares, sixteen add them; zeros behind the end change no sum. */
__global__ static void __launch_bounds__(GPU_THREADS) square_parts(double *part, gpu_square_tiles t) {
    __shared__ double squares[STAGE], lane[GPU_SUM_LANES];
    const int thread = (int)threadIdx.x;
    const size_t tile = blockIdx.x / t.parts, first = tile * t.tile;
    const size_t tile_end = first + t.tile < t.count ? first + t.tile : t.count;
    const size_t begin = first + blockIdx.x % t.parts * GPU_SUM_PART;
    const size_t end = begin + GPU_SUM_PART < tile_end ? begin + GPU_SUM_PART : tile_end;
    float next[AHEAD];
    double sum = 0;
#pragma unroll
    for (int j = 0; j < AHEAD; j++) {
        const size_t i = begin + (size_t)(thread + j * GPU_THREADS);
        next[j] = i < end ? t.g[i] : 0;
    }
    for (size_t at = begin; at < end; at += STAGE) {
#pragma unroll
        for (int j = 0; j < AHEAD; j++) squares[thread + j * GPU_THREADS] = (double)next[j] * (double)next[j];
        __syncthreads();
#pragma unroll
        for (int j = 0; j < AHEAD; j++) {
            const size_t i = at + STAGE + (size_t)(thread + j * GPU_THREADS);
            next[j] = i < end ? t.g[i] : 0;
        }
        if (thread < GPU_SUM_LANES) {
#pragma unroll 16
            for (int c = 0; c < STAGE; c += GPU_SUM_LANES) sum += squares[c + thread];
        }
        __syncthreads();
    }
    if (thread < GPU_SUM_LANES) lane[thread] = sum;
    __syncthreads();
    if (thread) return;
    double total = 0;
    for (int l = 0; l < GPU_SUM_LANES; l++) total += lane[l];
    part[blockIdx.x] = total;
}

tern_status gpu_sum_squares(tern_gpu_plan *plan, const char *name, double *part, const gpu_square_tiles &t,
                            tern_error *err) {
    square_parts<<<(unsigned)(gpu_tiles_in(t) * t.parts), GPU_THREADS, 0, plan->stream>>>(part, t);
    CUDA_TRY(cudaGetLastError(), name, err);
    return TERN_OK;
}
