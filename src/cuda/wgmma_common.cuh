/* What the two kernels of cuda-wgmma share: where a thread's sums belong, how the blocks of a cluster add up theirs,
 * and what the copy engine is told. */
#ifndef TERN_CUDA_WGMMA_COMMON_CUH
#define TERN_CUDA_WGMMA_COMMON_CUH

#include <cooperative_groups.h>

#include "cuda/epilogue.cuh"
#include "cuda/hopper.cuh"
#include "cuda/unpack.cuh"

extern "C" {
#include "cuda/wgmma_shapes.h"
}

enum {
    MULTIPLIERS = 256, /* threads: two warpgroups */
    BLOCK_ROWS = 128,
    SUM_PITCH = TERN_WGMMA_SUM_PITCH
};

/* ---- sums ------------------------------------------------------------------------------------------------------ */

/* Sum i of a thread is that of output n0 + 8 (i / 2 % 2), activations m0 + 8 (i / 4) + i % 2. */
struct place {
    int m0, n0, m_end, n_end;
    __device__ int m(int i) const { return m0 + i / 4 * 8 + i % 2; }
    __device__ int n(int i) const { return n0 + i / 2 % 2 * 8; }
    __device__ bool valid(int i) const { return m(i) < m_end && n(i) < n_end; }
};

__device__ inline place my_place(const epilogue &out, int n0, int m0) {
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    return {m0 + lane % 4 * 2, n0 + warp * TERN_TILE_ROWS + lane / 4, out.m, out.rows};
}

/* To [activation][output] of the block's own shared memory. */
template <int Sums> __device__ inline void leave_sums(int32_t *sums, const int32_t (&c)[Sums], const epilogue &out) {
    const place in_block = my_place(out, 0, 0);
#pragma unroll
    for (int i = 0; i < Sums; i++) sums[in_block.m(i) * SUM_PITCH + in_block.n(i)] = c[i];
}

/* Adds up what the blocks of the cluster left in their shared memory, each block a share of the activations' rows.
 * All threads of the cluster come here. */
template <class Density>
__device__ inline void put_shared(int32_t *sums, const epilogue &out, int n0, int m0, int m_tile) {
    const cooperative_groups::cluster_group cluster = cooperative_groups::this_cluster();
    cluster.sync();
    const int splits = (int)cluster.num_blocks(), share = m_tile / splits, first = (int)cluster.block_rank() * share;
    if (threadIdx.x < MULTIPLIERS)
        for (int i = (int)threadIdx.x; i < share * BLOCK_ROWS; i += MULTIPLIERS) {
            const int column = first + i / BLOCK_ROWS, row = i % BLOCK_ROWS, m = m0 + column, n = n0 + row;
            int32_t sum = 0;
            for (int s = 0; s < splits; s++)
                sum += cluster.map_shared_rank(sums, (unsigned)s)[column * SUM_PITCH + row];
            if (m < out.m && n < out.rows) put_sum(out, m, n, Density::finish(sum));
        }
    cluster.sync(); /* nobody leaves while its sums are read */
}

/* Outputs of two bytes that can be written in packs of 16. */
enum { OUTPUT_PACK = 8 };
__device__ inline bool can_stage(const epilogue &out) {
    return out.y_type != TERN_F32 && out.rows % OUTPUT_PACK == 0 && (uintptr_t)out.y % 16 == 0;
}
__device__ inline uint16_t half_of(float v, tern_dtype type) {
    return type == TERN_BF16 ? __bfloat16_as_ushort(__float2bfloat16_rn(v)) : __half_as_ushort(__float2half_rn(v));
}

/* ---- tensor maps ----------------------------------------------------------------------------------------------- */

/* Boxes of `columns` values x `rows` of a matrix; outside of it there are zeros. */
struct boxes {
    CUtensorMapDataType type;
    CUtensorMapSwizzle swizzle;
    const void *from;
    size_t width, height, pitch; /* values, rows, bytes */
    int columns, rows;
};

/* Boxes of rows of activations. */
inline boxes act_boxes(const product &p, CUtensorMapSwizzle swizzle, int columns, int rows) {
    return {
        CU_TENSOR_MAP_DATA_TYPE_UINT8, swizzle, p.x, (size_t)p.w.cols, (size_t)p.out.m, (size_t)p.ldx, columns, rows};
}

tern_status tern_cuda_describe_boxes(CUtensorMap *map, const boxes &b, tern_error *err);

/* The kernel of the shapes whose `ring` is nonzero. */
tern_status tern_cuda_wgmma_ring(tern_cuda_context *context, const product &p, int variant, tern_error *err);

#endif
