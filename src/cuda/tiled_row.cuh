/* Few rows of activations and an exponent per group: the sum over groups has an order, so one thread adds up an
 * output's terms, but others make them.
 *
 * A block has one row of tiles. In a round each of its workers (warps) takes a tile: it leaves the sums of units of 4
 * or 16 columns in shared memory, the workers turn them into the terms float(group sum) * 2^e, and while they make
 * those of the next round, the last warp adds this round's, a lane an output: a quarter while sums are left, the rest
 * while terms are made, which takes longer. Both ends are barriers of the whole block; one of the workers alone in the
 * midst is what racecheck takes for none. Groups divide a round's columns, so that none spans two. */
#ifndef TERN_CUDA_TILED_ROW_CUH
#define TERN_CUDA_TILED_ROW_CUH

#include "cuda/epilogue.cuh"
#include "cuda/tile_trit.cuh"
#include "cuda/unpack.cuh"

enum {
    TILED_ROW_WORKERS = TERN_TILED_ROW_TILES,
    TILED_ROW_THREADS = (TILED_ROW_WORKERS + 1) * 32,
    TILED_ROW_AHEAD = 2, /* tiles that a worker has on their way */
};

/* From memory to the L2 cache, so that what a block needs later waits there. */
__device__ inline void bring_near(const void *from, size_t bytes) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    const uintptr_t begin = (uintptr_t)from / 16 * 16, end = ((uintptr_t)from + bytes) / 16 * 16;
    if (begin < end)
        asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(begin), "r"((uint32_t)(end - begin)));
#endif
}

template <class Density, int Unit> struct tiled_row {
    enum {
        N = Density::Chunks,
        UNITS = TILED_ROW_WORKERS * Density::Cols / Unit, /* a round */
        UNITS_PER_TILE = Density::Cols / Unit,
        PITCH = UNITS + 4,                        /* rows start in other banks, on 16 bytes */
        TERMS = (UNITS + 31) / 32,                /* a lane's, of one row */
        ROWS = TERN_TILE_ROWS / TILED_ROW_WORKERS /* whose terms a worker makes */
    };

    struct memory {
        __align__(16) int32_t sum[2][TERN_TILE_ROWS][PITCH]; /* then, as floats, terms */
        float value[TERN_TILED_ROW_MAX_M][TERN_TILE_ROWS];   /* of the rounds so far */
    };

    /* ---- workers ---- */

    const product &p;
    int lane, warp, units_per_group, groups_per_round;
    uint4 tile[TILED_ROW_AHEAD];
    uint32_t codes[4][N]; /* of the words of this round's tile */
    int exponent[ROWS][TERMS];

    __device__ explicit tiled_row(const product &product) : p(product) {
        lane = (int)threadIdx.x % 32;
        warp = (int)threadIdx.x / 32;
        units_per_group = p.w.group / Unit;
        groups_per_round = UNITS / units_per_group;
    }

    /* Rounds are short, and each would wait for memory. */
    __device__ void bring_weights_near() const {
        const size_t row_bytes = (size_t)p.w.k_tiles * TERN_TILE_BYTES, first = (size_t)blockIdx.x * TERN_TILE_ROWS;
        bring_near(p.w.exponents + first * (size_t)p.w.groups,
                   (size_t)min(TERN_TILE_ROWS, p.w.rows - (int)first) * (size_t)p.w.groups);
        bring_near(p.w.tiles + (size_t)blockIdx.x * row_bytes, row_bytes);
    }

    __device__ int rounds() const { return (p.w.k_tiles + TILED_ROW_WORKERS - 1) / TILED_ROW_WORKERS; }
    __device__ int terms_of(int round) const { return min(groups_per_round, p.w.groups - round * groups_per_round); }

    __device__ void ask_tile(uint4 &to, int round) const {
        const int k = round * TILED_ROW_WORKERS + warp;
        if (k < p.w.k_tiles)
            to = load_tile_part(p.w.tiles + ((size_t)blockIdx.x * (size_t)p.w.k_tiles + (size_t)k) * TERN_TILE_BYTES,
                                lane);
    }

    __device__ void ask_exponents(int round) {
        const int first = round * groups_per_round, terms = terms_of(round);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            const int n = min((int)blockIdx.x * TERN_TILE_ROWS + warp * ROWS + r, p.w.rows - 1);
            const int8_t *from = p.w.exponents + (size_t)n * (size_t)p.w.groups + first;
#pragma unroll
            for (int i = 0; i < TERMS; i++)
                if (lane + 32 * i < terms) exponent[r][i] = __ldg(from + lane + 32 * i);
        }
    }

    __device__ void ask_x(uint32_t (&to)[2 * N], int round, int m) const {
        const int first = (round * TILED_ROW_WORKERS + warp) * Density::Cols;
        const int8_t *x = (const int8_t *)p.x + (size_t)m * (size_t)p.ldx + lane % 4 * 4;
#pragma unroll
        for (int c = 0; c < 2 * N; c++)
            to[c] = *(const uint32_t *)(x + min(first + c * TERN_TILE_CHUNK, p.ldx - TERN_TILE_CHUNK));
    }

    /* A worker without a tile in the last round has zero trits. */
    __device__ void unpack(int round) {
        const uint32_t words[4] = {tile[0].x, tile[0].y, tile[0].z, tile[0].w};
        const bool there = round * TILED_ROW_WORKERS + warp < p.w.k_tiles;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int8_codes(Density(), words[i], codes[i]);
#pragma unroll
            for (int c = 0; c < N; c++) codes[i][c] = there ? codes[i][c] : 0;
        }
    }

    /* sums[row][chunk] of the lane's four columns of each chunk, rows lane / 4 and 8 more. */
    __device__ void multiply(int32_t (&sums)[2][2 * N], const uint32_t (&x)[2 * N]) const {
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int c = 0; c < N; c++)
                sums[i % 2][i / 2 * N + c] = __dp4a((int)codes[i][c], (int)x[i / 2 * N + c], 0);
    }

    /* A unit is the four columns of a lane, or the sixteen of the four lanes of a row: of those each lane adds up its
     * part of the chunks, N of one row. */
    __device__ void leave_sums(int32_t (*to)[PITCH], const int32_t (&sums)[2][2 * N]) const {
        const int row = lane / 4, first = warp * UNITS_PER_TILE;
        if constexpr (Unit == 4) {
#pragma unroll
            for (int c = 0; c < 4 * N; c++)
                to[row + c / (2 * N) * 8][first + c % (2 * N) * 4 + lane % 4] = sums[c / (2 * N)][c % (2 * N)];
        } else {
            const bool low_row = lane % 4 < 2, low_half = lane % 2 == 0;
            int32_t row_sums[2 * N];
#pragma unroll
            for (int c = 0; c < 2 * N; c++)
                row_sums[c] = (low_row ? sums[0][c] : sums[1][c]) +
                              __shfl_xor_sync(0xffffffffu, low_row ? sums[1][c] : sums[0][c], 2);
#pragma unroll
            for (int c = 0; c < N; c++)
                to[row + (low_row ? 0 : 8)][first + (low_half ? 0 : N) + c] =
                    (low_half ? row_sums[c] : row_sums[N + c]) +
                    __shfl_xor_sync(0xffffffffu, low_half ? row_sums[N + c] : row_sums[c], 1);
        }
    }

    /* Terms take the place of the sums from the left, and zeros fill the last four of them. */
    __device__ void make_terms(int32_t (*sums)[PITCH], int terms) const {
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            int32_t *row = sums[warp * ROWS + r];
            float term[TERMS];
#pragma unroll
            for (int i = 0; i < TERMS; i++) {
                const int g = lane + 32 * i;
                int32_t sum = 0;
                term[i] = 0;
                if (g >= terms) continue;
                for (int u = 0; u < units_per_group; u++) sum += row[g * units_per_group + u];
                term[i] = __fmul_rn(__int2float_rn(sum), exp2_of(exponent[r][i] - Density::Shift));
            }
            __syncwarp();
#pragma unroll
            for (int i = 0; i < TERMS; i++)
                if (lane + 32 * i < (terms + 3) / 4 * 4) row[lane + 32 * i] = __float_as_int(term[i]);
        }
    }

    /* ---- the last warp: a lane an output ---- */

    /* Terms of the quads [begin, end) of four. */
    __device__ float add_quads(float v, const float4 *from, int begin, int end) const {
#pragma unroll 4
        for (int g = begin; g < end; g++) {
            const float4 t = from[g];
            v = __fadd_rn(__fadd_rn(__fadd_rn(__fadd_rn(v, t.x), t.y), t.z), t.w);
        }
        return v;
    }

    /* Part 0 while the workers leave sums, part 1 while they make terms. */
    __device__ void add_terms(memory &s, int half, int round, int m, int part) const {
        const int quads = (terms_of(round) + 3) / 4, cut = quads / 4;
        if (lane >= TERN_TILE_ROWS) return;
        const float v = round || part ? s.value[m][lane] : 0;
        s.value[m][lane] = add_quads(v, (const float4 *)s.sum[half][lane], part ? cut : 0, part ? quads : cut);
    }

    __device__ void put_outputs(const memory &s) const {
        const int n = (int)blockIdx.x * TERN_TILE_ROWS + lane;
        if (lane >= TERN_TILE_ROWS || n >= p.w.rows) return;
        for (int m = 0; m < p.out.m; m++)
            put_product(p.out, m, n, product_of(s.value[m][lane], p.out.inv_scale[m], bias_of(p.out, n)));
    }
};

template <class Density, int Unit>
__global__ void __launch_bounds__(TILED_ROW_THREADS, Unit == 4 || Density::T5 ? 2 : 3)
    tern_matmul_tiled_row_cuda(product p) {
    typedef tiled_row<Density, Unit> block;
    __shared__ typename block::memory shared;
    block mine(p);
    const int rounds = mine.rounds(), steps = rounds * p.out.m;
    const bool worker = mine.warp < TILED_ROW_WORKERS;
    uint32_t x[2 * block::N];
    if (threadIdx.x == TILED_ROW_WORKERS * 32) mine.bring_weights_near();
    if (worker) {
#pragma unroll
        for (int i = 0; i < TILED_ROW_AHEAD; i++) mine.ask_tile(mine.tile[i], i);
        mine.ask_exponents(0);
    }
    let_next_kernel_start();
    wait_for_last_kernel();
    if (worker) mine.ask_x(x, 0, 0);
    for (int step = 0, round = 0, m = 0; step <= steps; step++) {
        const bool makes = worker && step < steps, adds = !worker && step > 0, last = m + 1 == p.out.m;
        const int half = step % 2, added_round = m ? round : round - 1, added_m = m ? m - 1 : p.out.m - 1;
        if (makes) {
            if (m == 0) {
                mine.unpack(round);
#pragma unroll
                for (int i = 0; i + 1 < TILED_ROW_AHEAD; i++) mine.tile[i] = mine.tile[i + 1];
                mine.ask_tile(mine.tile[TILED_ROW_AHEAD - 1], round + TILED_ROW_AHEAD);
            }
            int32_t sums[2][2 * block::N];
            mine.multiply(sums, x);
            if (step + 1 < steps) mine.ask_x(x, last ? round + 1 : round, last ? 0 : m + 1);
            mine.leave_sums(shared.sum[half], sums);
        }
        if (adds) mine.add_terms(shared, 1 - half, added_round, added_m, 0);
        __syncthreads();
        if (makes) {
            mine.make_terms(shared.sum[half], mine.terms_of(round));
            if (last && round + 1 < rounds) mine.ask_exponents(round + 1);
        }
        if (adds) mine.add_terms(shared, 1 - half, added_round, added_m, 1);
        __syncthreads();
        if (++m == p.out.m) m = 0, round++;
    }
    if (!worker) mine.put_outputs(shared);
}

#endif
