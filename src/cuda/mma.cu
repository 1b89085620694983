/* Many rows of int8 activations on the tensor cores of 8.0 and newer. A block's activations pass through shared memory in
 * stages of one tile's columns; its weights go from packed words straight into registers, so they are unpacked once for
 * each of the block's warps beside one another. */
#include "cuda/epilogue.cuh"
#include "cuda/unpack.cuh"

enum { STAGES = TERN_MMA_STAGES };

/* 16 bytes to shared memory, or zeros. */
__device__ static void copy_async(uint32_t to, const void *from, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(valid ? 16 : 0));
}
__device__ static void close_stage() { asm volatile("cp.async.commit_group;"); }
/* All but the `pending` newest stages have arrived. */
template <int Pending> __device__ static void wait_stages() {
    asm volatile("cp.async.wait_group %0;" ::"n"(Pending));
}

/* Four 8 x 16-byte matrices; lane l gives the address of row l % 8 of matrix l / 8. */
__device__ static void load_matrices(uint32_t (&v)[4], uint32_t at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3])
                 : "r"(at));
}

template <class Density, int WN, int WM, int R, int MT> struct mma_block {
    enum {
        THREADS = 32 * WN * WM,
        ROWS = 8 * MT * WM,         /* of activations */
        PITCH = Density::Cols + 16, /* bytes from one of them to the next */
        STAGE_BYTES = ROWS * PITCH,
        CHUNKS = Density::Cols / 16,
        N = Density::Chunks
    };

    /* The activations of tile k. */
    __device__ static void load_acts(uint32_t stage, const product &p, int m0, int k) {
        const int8_t *x = (const int8_t *)p.x;
        for (int i = (int)threadIdx.x; i < ROWS * CHUNKS; i += THREADS) {
            const int row = i / CHUNKS, column = k * Density::Cols + i % CHUNKS * 16;
            const bool valid = m0 + row < p.out.m && column < p.ldx;
            const size_t from = valid ? (size_t)(m0 + row) * (size_t)p.ldx + (size_t)column : 0;
            copy_async(stage + (uint32_t)(row * PITCH + i % CHUNKS * 16), x + from, valid);
        }
    }

    /* c += tiles * activations of one stage; acts: this lane's address in the warp's rows of it. */
    __device__ static void multiply(int32_t (&c)[R][MT][4], const uint4 (&tile)[R], uint32_t acts) {
        uint32_t a[R][2][2][N];
#pragma unroll
        for (int r = 0; r < R; r++) {
            int8_codes(Density(), tile[r].x, a[r][0][0]);
            int8_codes(Density(), tile[r].y, a[r][0][1]);
            int8_codes(Density(), tile[r].z, a[r][1][0]);
            int8_codes(Density(), tile[r].w, a[r][1][1]);
        }
#pragma unroll
        for (int k = 0; k < N; k++) {
            const int one = 2 * k, two = 2 * k + 1;
#pragma unroll
            for (int t = 0; t < MT; t += 2) {
                uint32_t b[4];
                load_matrices(b, acts + (uint32_t)(t * 8 * PITCH + one * 16));
#pragma unroll
                for (int r = 0; r < R; r++)
#pragma unroll
                    for (int i = 0; i < 2; i++)
                        mma_i8(c[r][t + i], a[r][one / N][0][one % N], a[r][one / N][1][one % N],
                               a[r][two / N][0][two % N], a[r][two / N][1][two % N], b[2 * i], b[2 * i + 1]);
            }
        }
    }

    /* A lane's sums of one row of tiles: row n0 + 8 (i / 2 % 2), activations m0 + 8 (i / 4) + i % 2. */
    struct place {
        int m0, n0, m_end, n_end;
        __device__ int m(int i) const { return m0 + i / 4 * 8 + i % 2; }
        __device__ int n(int i) const { return n0 + i / 2 % 2 * 8; }
        __device__ bool valid(int i) const { return m(i) < m_end && n(i) < n_end; }
    };

    __device__ static void put(const int32_t (&c)[R][MT][4], const epilogue &out, int n0, int m0) {
        const int lane = (int)threadIdx.x % 32;
#pragma unroll
        for (int r = 0; r < R; r++) {
            const place at = {m0 + lane % 4 * 2, n0 + r * TERN_TILE_ROWS + lane / 4, out.m, out.rows};
            float v[4 * MT], bias[2];
            for (int i = 0; i < 2; i++) bias[i] = bias_of(out, min(at.n(2 * i), out.rows - 1));
#pragma unroll
            for (int i = 0; i < 4 * MT; i++) {
                const int m = min(at.m(i), out.m - 1), n = min(at.n(i), out.rows - 1);
                v[i] = product_of(Density::finish(c[r][i / 4][i % 4]), factor_of(out, 0, m, n), bias[i / 2 % 2]);
            }
            put_products(v, out, at);
        }
    }
};

template <class Density, int WN, int WM, int R, int MT>
__global__ void __launch_bounds__(32 * WN * WM) tern_matmul_mma_cuda(product p) {
    typedef mma_block<Density, WN, WM, R, MT> block;
    extern __shared__ __align__(16) uint8_t shared[];
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, warp_n = warp % WN, warp_m = warp / WN;
    const int m0 = (int)blockIdx.y * block::ROWS, row_tile = ((int)blockIdx.x * WN + warp_n) * R;
    const int k_tiles = p.w.k_tiles;
    const size_t row_bytes = (size_t)k_tiles * TERN_TILE_BYTES;
    const uint8_t *tiles[R]; /* rows of tiles past the end are read as the last one */
#pragma unroll
    for (int r = 0; r < R; r++) tiles[r] = p.w.tiles + (size_t)min(row_tile + r, p.w.row_tiles - 1) * row_bytes;
    const uint32_t stages = (uint32_t)__cvta_generic_to_shared(shared);
    const uint32_t in_stage =
        (uint32_t)((warp_m * 8 * MT + lane / 16 * 8 + lane % 8) * block::PITCH + lane / 8 % 2 * 16);

    uint4 next[R];
#pragma unroll
    for (int r = 0; r < R; r++) next[r] = load_tile_part(tiles[r], lane);
    let_next_kernel_start();
    wait_for_last_kernel();
    for (int s = 0; s < STAGES - 1; s++) {
        if (s < k_tiles) block::load_acts(stages + (uint32_t)(s * block::STAGE_BYTES), p, m0, s);
        close_stage();
    }
    int32_t c[R][MT][4] = {};
    for (int k = 0; k < k_tiles; k++) {
        uint4 tile[R];
#pragma unroll
        for (int r = 0; r < R; r++) {
            tile[r] = next[r];
            if (k + 1 < k_tiles) next[r] = load_tile_part(tiles[r] + (size_t)(k + 1) * TERN_TILE_BYTES, lane);
        }
        wait_stages<STAGES - 2>();
        __syncthreads(); /* everybody's part of stage k is there, and nobody reads stage k - 1 any more */
        if (k + STAGES - 1 < k_tiles)
            block::load_acts(stages + (uint32_t)((k + STAGES - 1) % STAGES * block::STAGE_BYTES), p, m0,
                             k + STAGES - 1);
        close_stage();
        block::multiply(c, tile, stages + (uint32_t)(k % STAGES * block::STAGE_BYTES) + in_stage);
    }
    block::put(c, p.out, row_tile * TERN_TILE_ROWS, m0 + warp_m * 8 * MT);
}

/* ---- launching --------------------------------------------------------------------------------------------------- */

template <class Density, int WN, int WM, int R, int MT>
static tern_status launch(tern_cuda_context *context, const product &p, int variant, tern_error *err) {
    typedef mma_block<Density, WN, WM, R, MT> block;
    const auto kernel = tern_matmul_mma_cuda<Density, WN, WM, R, MT>;
    const int shared = (int)tern_mma_shared_bytes(variant, Density::T5);
    CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared), "cuda-mma", err);
    const dim3 grid((unsigned)ceil_div(p.w.row_tiles, WN * R), (unsigned)ceil_div(p.out.m, block::ROWS));
    CUDA_TRY(tern_cuda_launch(context, kernel, grid, block::THREADS, shared, 1, p), "cuda-mma", err);
    return TERN_OK;
}

/* In the order of TERN_MMA_SHAPES. */
template <class Density>
static tern_status launch_variant(tern_cuda_context *context, const product &p, int variant, tern_error *err) {
    switch (variant) {
    case 1: return launch<Density, 4, 2, 2, 8>(context, p, variant, err);
    case 2: return launch<Density, 2, 2, 2, 4>(context, p, variant, err);
    default: return launch<Density, 4, 1, 1, 4>(context, p, variant, err);
    }
}

tern_status tern_cuda_mma(tern_cuda_context *context, const product &p, tern_dtype, int variant, tern_error *err) {
    return p.w.t5 ? launch_variant<t5>(context, p, variant, err) : launch_variant<t2>(context, p, variant, err);
}
