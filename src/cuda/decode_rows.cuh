/* Two to eight rows of int8 activations: the columns of a tensor core's product. A warp brings what meets its tiles
 * itself, rows as they lie in memory, through a ring in shared memory that no other warp looks at, so that there is no
 * barrier before the sums; ldmatrix gives it to the lanes that multiply it. Blocks of a multiprocessor share it in L1.
 *
 * Weights are codes that take one instruction each: one product has the same chunk of both halves of a tile, codes of
 * one scale have sums of their own, and what all codes are too large by is put right at the end. */
#ifndef TERN_CUDA_DECODE_ROWS_CUH
#define TERN_CUDA_DECODE_ROWS_CUH

#include "cuda/decode_row.cuh"

/* ---- activations ------------------------------------------------------------------------------------------------- */

/* A warp's ring: slots of 8 rows of a tile's columns. Rows start in different banks. */
template <class Density, int Depth> struct act_ring {
    enum {
        N = Density::Chunks,
        PACKS = Density::Cols / 16, /* of a row */
        ALL = 8 * PACKS,
        EACH = (ALL + 31) / 32, /* that a lane asks for */
        PITCH = Density::Cols + TERN_DECODE_ROWS_GAP,
        SLOT = 8 * PITCH,
        BYTES = Depth * SLOT
    };
    const int8_t *x;
    uint32_t first; /* where ldmatrix finds what it gives to this lane, in the first slot */
    uint32_t to[EACH];
    int row[EACH], column[EACH], last; /* where a pack comes from */

    __device__ act_ring(const product &p, uint32_t ring, int lane) : x((const int8_t *)p.x), last(p.ldx - 16) {
        first = ring + (uint32_t)(lane % 8 * PITCH + lane / 8 * 16);
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            const int pack = i * 32 + lane, m = pack / PACKS, at = pack % PACKS * 16;
            to[i] = ring + (uint32_t)(m * PITCH + at);
            row[i] = min(m, p.out.m - 1) * p.ldx; /* of eight rows: no overflow */
            column[i] = at;
        }
    }
    /* Columns past the end are read as the last ones: they meet zero trits. */
    __device__ void ask(int slot, int tile, int lane) const {
#pragma unroll
        for (int i = 0; i < EACH; i++)
            if (i * 32 + 32 <= ALL || i * 32 + lane < ALL)
                asm volatile("cp.async.ca.shared.global [%0], [%1], 16;" ::"r"(to[i] + (uint32_t)(slot * SLOT)),
                             "l"(x + row[i] + min(tile * Density::Cols + column[i], last))
                             : "memory");
    }
    __device__ static void asked() { asm volatile("cp.async.commit_group;" ::: "memory"); }
    /* The oldest slot that is on its way: of its row lane / 4, part[i] is what the lane has of chunk i. */
    __device__ void read(uint32_t (&part)[2 * N], int slot) const {
        const uint32_t from = first + (uint32_t)(slot * SLOT);
        asm volatile("cp.async.wait_group %0;" ::"n"(Depth - 1) : "memory");
        __syncwarp();
#pragma unroll
        for (int i = 0; i + 4 <= 2 * N; i += 4)
            asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                         : "=r"(part[i]), "=r"(part[i + 1]), "=r"(part[i + 2]), "=r"(part[i + 3])
                         : "r"(from + (uint32_t)(i * 16))
                         : "memory");
        if constexpr (N % 2)
            asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                         : "=r"(part[2 * N - 2]), "=r"(part[2 * N - 1])
                         : "r"(from + (uint32_t)((2 * N - 2) * 16))
                         : "memory");
    }
};

/* ---- products ---------------------------------------------------------------------------------------------------- */

/* The operands that a lane's four words of a tile are. */
template <class Density>
__device__ inline void tile_codes(Density, const uint4 &tile, uint32_t (&a)[4][Density::Chunks]) {
    masked_codes(Density(), tile.x, a[0]);
    masked_codes(Density(), tile.y, a[1]);
    masked_codes(Density(), tile.z, a[2]);
    masked_codes(Density(), tile.w, a[3]);
}

/* Sums of a row of tiles: of (trit + zero_code) * x. */
template <class Density> struct rows_sums;

template <> struct rows_sums<t2> {
    enum { N = t2::Chunks };
    int32_t c[N][4];

    __device__ void add(const uint4 &tile, const uint32_t (&x)[2 * N]) {
        uint32_t a[4][N];
        tile_codes(t2(), tile, a);
#pragma unroll
        for (int i = 0; i < N; i++) mma_u8(c[i], a[0][i], a[1][i], a[2][i], a[3][i], x[i], x[N + i]);
    }
    __device__ int32_t sum(int at) const {
        int32_t all = 0;
#pragma unroll
        for (int i = 0; i < N; i++) all += c[i][at] >> 2 * i;
        return all;
    }
};

/* A digit is the number that the chunks up to its own make, less three times the one before: each chunk of x meets
 * both. Sums may go round 2^32, where what is made of them does not. */
template <> struct rows_sums<t5> {
    enum { N = t5::Chunks };
    int32_t c[2][4];

    __device__ void add(const uint4 &tile, const uint32_t (&x)[2 * N]) {
        uint32_t a[4][N];
        tile_codes(t5(), tile, a);
#pragma unroll
        for (int i = 0; i < 4; i++) a[i][0] >>= 5; /* the first digit is where the others are */
#pragma unroll
        for (int i = 0; i < 2 * N - 1; i++)
            mma_u8(c[i % 2], a[0][i / 2], a[1][i / 2], a[2][i / 2], a[3][i / 2], x[(i + 1) / 2], x[N + (i + 1) / 2]);
    }
    __device__ int32_t sum(int at) const { return (int32_t)((uint32_t)c[0][at] - 3 * (uint32_t)c[1][at]); }
};

/* ---- the kernel -------------------------------------------------------------------------------------------------- */

/* Blocks of 16 warps are for matrices that leave multiprocessors idle, and a block of 12 has its multiprocessor alone: they
 * ask for all at once, or at t5 for as much as was fastest (lab/cuda-decode.md). Elsewhere what the last kernel still
 * reads, and its outputs, would wait behind all that this one asks for. */
template <class Density, int Warps> struct rows_shape {
    enum {
        Ahead = TERN_DECODE_ROWS_AHEAD(Warps, Density::T5),
        AtOnce = Warps == 16   ? Ahead
                 : Warps != 12 ? 2
                 : Density::T5 ? 3
                               : Ahead
    };
};

/* A block has R rows of tiles, its warps share their columns as in tern_matmul_decode_cuda, each of them with some
 * tiles and what meets them on their way all the time. A multiprocessor has 16 warps, or one block of 12. */
template <class Density, int Warps, int R>
__global__ void __launch_bounds__(Warps * 32, 16 / Warps) tern_matmul_decode_rows_cuda(product p) {
    typedef rows_shape<Density, Warps> shape;
    enum { ROWS = R * TERN_TILE_ROWS, N = Density::Chunks, U = shape::Ahead, PITCH = ROWS + 4 };
    /* A thread's outputs: of one n, and every STEP-th row of x. */
    enum { MAX_M = TERN_DECODE_ROWS_MAX_M, STEP = Warps * 32 / ROWS, EACH = STEP < MAX_M ? MAX_M / STEP : 1 };
    static_assert(Warps * 32 == STEP * ROWS, "as many threads for each row of x");
    typedef act_ring<Density, U> ring;
    static_assert((int)ring::BYTES >= 8 * PITCH * 4, "sums take the place of the ring");
    extern __shared__ __align__(16) uint8_t shared[];
    const int mine = (int)threadIdx.x, lane = mine % 32, warp = mine / 32;
    const int row_tile = (int)blockIdx.x * R, n0 = row_tile * TERN_TILE_ROWS, end = p.w.k_tiles;
    const size_t row_bytes = (size_t)end * TERN_TILE_BYTES;
    const uint8_t *tiles = p.w.tiles + (size_t)row_tile * row_bytes;
    const int rows = p.w.row_tiles - row_tile; /* the last block may have fewer: it computes its first again */
    const ring acts(p, (uint32_t)__cvta_generic_to_shared(shared) + (uint32_t)(warp * ring::BYTES), lane);

    uint4 tile[U][R];
    const auto load_tiles = [&](uint4(&to)[R], int k) {
#pragma unroll
        for (int r = 0; r < R; r++)
            to[r] = load_tile_part(tiles + (r < rows ? r * row_bytes : 0) + (size_t)k * TERN_TILE_BYTES, lane);
    };
#pragma unroll
    for (int u = 0; u < U; u++) {
        /* Nothing is added, blockIdx.y is 0, but the compiler does not know and so waits for the tile. */
        if (u >= shape::AtOnce) tiles += tile[u - (u >= shape::AtOnce ? shape::AtOnce : 0)][R - 1].w & blockIdx.y;
        if (warp + u * Warps < end) load_tiles(tile[u], warp + u * Warps);
    }
    let_next_kernel_start();
    wait_for_last_kernel();
#pragma unroll
    for (int u = 0; u < U; u++) {
        if (warp + u * Warps < end) acts.ask(u, warp + u * Warps, lane);
        ring::asked();
    }
    const int n = n0 + mine % ROWS, m = mine / ROWS;
    output_terms terms[EACH];
#pragma unroll
    for (int i = 0; i < EACH; i++)
        terms[i] = terms_of(p.out, int32_t(), min(m + i * STEP, p.out.m - 1), min(n, p.w.rows - 1));

    rows_sums<Density> sums[R] = {};
    int32_t zeros = 0; /* what the codes of zero trits add: of x's row lane / 4 */
    for (int k0 = warp; k0 < end; k0 += U * Warps)
#pragma unroll
        for (int u = 0; u < U; u++) {
            const int k = k0 + u * Warps, next = k + U * Warps;
            if (k >= end) break;
            uint32_t x[2 * N];
            acts.read(x, u);
#pragma unroll
            for (int i = 0; i < 2 * N; i++) zeros = __dp4a((int)x[i], 0x01010101 * zero_code(Density()), zeros);
#pragma unroll
            for (int r = 0; r < R; r++) sums[r].add(tile[u][r], x);
            __syncwarp();
            if (next < end) {
                load_tiles(tile[u], next);
                acts.ask(u, next, lane);
            }
            ring::asked();
        }

    /* [row of x][output], in the place of the warp's ring */
    int32_t *partial = (int32_t *)(shared + warp * ring::BYTES);
    asm volatile("cp.async.wait_all;" ::: "memory");
    __syncwarp();
    zeros += __shfl_xor_sync(0xffffffffu, zeros, 1);
    zeros += __shfl_xor_sync(0xffffffffu, zeros, 2);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int x_row = lane % 4 * 2 + i % 2, row = lane / 4 + i / 2 * 8;
        const int32_t zero = __shfl_sync(0xffffffffu, zeros, x_row * 4);
#pragma unroll
        for (int r = 0; r < R; r++) partial[x_row * PITCH + r * TERN_TILE_ROWS + row] = sums[r].sum(i) - zero;
    }
    __syncthreads();
    if (m >= p.out.m || n >= p.w.rows) return;
    int32_t total[EACH] = {};
#pragma unroll
    for (int i = 0; i < EACH; i++)
#pragma unroll
        for (int v = 0; v < Warps; v++)
            total[i] += ((const int32_t *)(shared + v * ring::BYTES))[(m + i * STEP) * PITCH + mine % ROWS];
#pragma unroll
    for (int i = 0; i < EACH; i++)
        if (m + i * STEP < p.out.m) put_sum(p.out, m + i * STEP, n, total[i], terms[i]);
}

#endif
