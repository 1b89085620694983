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
template <class Sum, int Sums>
__device__ inline void leave_sums(Sum *sums, const Sum (&c)[Sums], const epilogue &out) {
    const place in_block = my_place(out, 0, 0);
#pragma unroll
    for (int i = 0; i < Sums; i++) sums[in_block.m(i) * SUM_PITCH + in_block.n(i)] = c[i];
}

/* Four neighbouring outputs of a row of activations. */
struct four_outputs {
    int row, n0, m_end, n_end;
    __device__ int m(int) const { return row; }
    __device__ int n(int i) const { return n0 + i; }
    __device__ bool valid(int i) const { return row < m_end && n0 + i < n_end; }
};

/* Four sums of one load, what finishes a sum, and what scales all of a row's: of int8, and of halves. */
template <class Sum> struct four_of;
template <> struct four_of<int32_t> { typedef int4 type; };
template <> struct four_of<float> { typedef float4 type; };
template <class Density> __device__ inline int32_t finished(Density, int32_t sum) { return Density::finish(sum); }
template <class Density> __device__ inline float finished(Density d, float sum) { return sum * half_scale(d); }
__device__ inline float scale_of_row(const epilogue &out, int32_t, int m) { return out.inv_scale[min(m, out.m - 1)]; }
__device__ inline float scale_of_row(const epilogue &, float, int) { return 1; }

/* A multiplier's share of what the blocks of a cluster add up: each block has some of the activations' rows, a thread
 * four outputs of each. What scales them is asked for ahead, and all sums at once. */
template <class Sum, int MTile, int Splits> struct cluster_share {
    typedef typename four_of<Sum>::type four;
    enum {
        THREADS_A_ROW = BLOCK_ROWS / 4,
        ROWS = MTile / Splits,
        AT_ONCE = MULTIPLIERS / THREADS_A_ROW,
        COUNT = (ROWS + AT_ONCE - 1) / AT_ONCE
    };
    int n0, m0;
    float inv_scale[COUNT], scale[4], bias[4];

    __device__ cluster_share(const epilogue &out, int n_block, int m_block) {
        n0 = n_block + column();
        m0 = m_block;
#pragma unroll
        for (int j = 0; j < COUNT; j++) inv_scale[j] = scale_of_row(out, Sum(), m0 + row(j));
#pragma unroll
        for (int i = 0; i < 4; i++) {
            scale[i] = scale_of(out, min(n0 + i, out.rows - 1));
            bias[i] = bias_of(out, min(n0 + i, out.rows - 1));
        }
    }
    __device__ static int column() { return (int)threadIdx.x % THREADS_A_ROW * 4; }
    __device__ static int row(int j) {
        return (int)cooperative_groups::this_cluster().block_rank() * ROWS + (int)threadIdx.x / THREADS_A_ROW +
               j * AT_ONCE;
    }
    __device__ static bool has(int j) { return (int)threadIdx.x / THREADS_A_ROW + j * AT_ONCE < ROWS; }

    __device__ static void load(four (&parts)[COUNT][Splits], Sum *sums) {
        const cooperative_groups::cluster_group cluster = cooperative_groups::this_cluster();
#pragma unroll
        for (int j = 0; j < COUNT; j++)
#pragma unroll
            for (int s = 0; s < Splits; s++)
                if (has(j))
                    parts[j][s] =
                        *(const four *)(cluster.map_shared_rank(sums, (unsigned)s) + row(j) * SUM_PITCH + column());
    }

    template <class Density> __device__ void put(Sum *sums, const epilogue &out) const {
        const cooperative_groups::cluster_group cluster = cooperative_groups::this_cluster();
        four parts[COUNT][Splits];
        cluster.sync();
        load(parts, sums);
        cluster.barrier_arrive();
#pragma unroll
        for (int j = 0; j < COUNT; j++) {
            Sum sum[4] = {};
            float v[4];
#pragma unroll
            for (int s = 0; s < Splits; s++) {
                sum[0] += parts[j][s].x;
                sum[1] += parts[j][s].y;
                sum[2] += parts[j][s].z;
                sum[3] += parts[j][s].w;
            }
#pragma unroll
            for (int i = 0; i < 4; i++)
                v[i] = product_of(finished(Density(), sum[i]), __fmul_rn(scale[i], inv_scale[j]), bias[i]);
            if (has(j)) put_products(v, out, four_outputs{m0 + row(j), n0, out.m, out.rows});
        }
        cluster.barrier_wait(); /* nobody leaves while its sums are read */
    }
};

/* What the threads of a block that have no sums do meanwhile. */
__device__ inline void sync_cluster_twice() {
    for (int i = 0; i < 2; i++) cooperative_groups::this_cluster().sync();
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

/* `op` is for messages. */
tern_status tern_cuda_describe_boxes(CUtensorMap *map, const boxes &b, const char *op, tern_error *err);

/* The kernel for halves. */
tern_status tern_cuda_wgmma_half(tern_cuda_context *context, const product &p, tern_dtype x_type, int variant,
                                 tern_error *err);
/* The kernel of the shapes whose `ring` is nonzero. */
tern_status tern_cuda_wgmma_ring(tern_cuda_context *context, const product &p, int variant, tern_error *err);

#endif
