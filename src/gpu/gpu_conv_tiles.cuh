/* Windows over images as operands of Hopper's warpgroup tensor cores, for gpu_conv_wgmma.cu and gpu_conv_int8.cu
 * (9.0a).
 *
 * Tiles have rows of 128 bytes in the copy engine's 128-byte swizzle, gathered from images where they lie: the bytes
 * of a copy belong to one pixel. Stage after stage of them passes through shared memory, brought by all threads while
 * their warpgroups multiply the one before. A pixel is asked for once for each place of the window: where its
 * channels are rows of a tile or more, all those places come one after the other, so that most of them find it in L1.
 * Asking is what takes the time of the threads; a copy is a bit of a mask, an addition and the copy. */
#ifndef TERN_GPU_GPU_CONV_TILES_CUH
#define TERN_GPU_GPU_CONV_TILES_CUH

#include "gpu/gpu_conv_wgmma.cuh"

#include "cuda/hopper.cuh"
#include "gpu/gpu_divide.cuh"
#include "gpu/gpu_kernels.cuh"

typedef __nv_bfloat16 bf16;

enum {
    ROW_BYTES = 128,
    TILE_ROWS = 64,
    TILE_BYTES = TILE_ROWS * ROW_BYTES,
    STEP_BYTES = 32, /* of a row, in one instruction */
    GROUP = 128,     /* threads of a warpgroup */
    ALIGNMENT = 1024
};

/* Values, copied so many bytes at a time. */
template <class Value, int COPY_BYTES> struct operand_of {
    typedef Value value;
    enum {
        COPY = COPY_BYTES,
        WIDE = ROW_BYTES / sizeof(Value), /* values of a row */
        PACK = COPY_BYTES / sizeof(Value),
        PACKS = ROW_BYTES / COPY_BYTES,
        STEP = STEP_BYTES / sizeof(Value)
    };
};

/* ---- instructions */

template <int BYTES> __device__ inline void copy_pack(uint32_t to, const void *from, bool valid) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %3, %2;" ::"r"(to), "l"(from), "r"(valid ? BYTES : 0),
                 "n"(BYTES)
                 : "memory");
}
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/* All but the last N groups of this thread's copies are there, for the tensor cores too. */
template <int N> __device__ inline void wait_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/* ---- tiles */

/* Where copy `pack` of a row lies in a tile. */
template <int BYTES> __device__ inline uint32_t place_of(uint32_t row, uint32_t pack) {
    constexpr uint32_t EACH = 16 / BYTES;
    return row * ROW_BYTES + ((pack / EACH ^ row % 8) << 4) + pack % EACH * BYTES;
}

/* Rows of a tile are what is summed over; columns beyond the first 64 (bf16) are in the tile behind it. */
__device__ inline uint64_t turned_tile(uint32_t address) {
    return (swizzled_rows(address) & ~((uint64_t)0xffff << 16)) | (uint64_t)(TILE_BYTES >> 4) << 16;
}
/* From one instruction's operand to the next, by rows and by columns of a tile of bf16. Descriptors count 16
 * bytes. */
enum { BY_ROW = STEP_BYTES >> 4, BY_COLUMN = STEP_BYTES / 2 * ROW_BYTES >> 4 };

extern __shared__ __align__(16) char conv_room[];

__device__ inline uint32_t aligned_room() {
    return ((uint32_t)__cvta_generic_to_shared(conv_room) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* ---- windows */

/* Images [images][h][w][c], and the windows over them: places [images][oh][ow], each [kernel][kernel][c] = k values,
 * in tiles of rows of `wide` of them. */
struct windows {
    gpu_divisor ow, oh, kernel, c, taps;
    uint32_t h, w, k, places, rows; /* rows: of tiles, as many as have all values */
    int32_t padding;
    int whole; /* a row is of one tap, and the taps of the same channels follow one another */
};

enum { GPU_CONV_TAPS = 25, NO_TAP = 31 };

static inline windows windows_over(size_t images, size_t h, size_t w, size_t c, size_t oh, size_t ow, size_t kernel,
                                   size_t padding, size_t wide) {
    windows g = {gpu_divisor_of(ow), gpu_divisor_of(oh), gpu_divisor_of(kernel), gpu_divisor_of(c),
                 gpu_divisor_of(kernel * kernel)};
    g.h = (uint32_t)h;
    g.w = (uint32_t)w;
    g.k = (uint32_t)(kernel * kernel * c);
    g.places = (uint32_t)(images * oh * ow);
    g.rows = (uint32_t)((g.k + wide - 1) / wide);
    g.padding = (int32_t)padding;
    g.whole = c % wide == 0;
    return g;
}

/* Row `row` of all a window's values. */
struct window_row {
    uint32_t k;            /* its first value, windows.k behind the last row */
    uint32_t tap, channel; /* of that one, where rows are whole */
};

template <class O> __device__ inline window_row row_of(const windows &g, uint32_t row) {
    if (!g.whole) return {row < g.rows ? row * O::WIDE : g.k, 0, 0};
    uint32_t channels = row;
    const uint32_t tap = gpu_split(&channels, g.taps);
    return {row < g.rows ? tap * g.c.d + channels * O::WIDE : g.k, tap, channels * O::WIDE};
}

/* Where value k lies from the first pixel of a window on. */
struct value_at {
    int32_t at; /* in elements */
    uint32_t tap, y, x;
};

__device__ inline value_at value_of(const windows &g, uint32_t k) {
    uint32_t y = k;
    const uint32_t c = gpu_split(&y, g.c), tap = y, x = gpu_split(&y, g.kernel);
    return {(int32_t)((y * g.w + x) * g.c.d + c), k < g.k ? tap : NO_TAP, y, x};
}

/* A place's window: its first pixel, which may lie outside of the image, and a bit for each of its pixels that do
 * not. */
struct window_at {
    const char *first;
    uint32_t taps;
};

/* A bit for each of `count` pixels from `at` on that lies within 0 ... size. */
__device__ inline uint32_t bits_inside(int32_t at, uint32_t size, uint32_t count) {
    const uint32_t from = (uint32_t)max(0, -at), to = (uint32_t)max(0, min((int32_t)count, (int32_t)size - at));
    return ((1u << to) - 1) & ~((1u << from) - 1);
}

template <class Value> __device__ inline window_at window_of(const windows &g, const Value *images, uint32_t place) {
    uint32_t image = place < g.places ? place : 0, taps = 0;
    const int32_t x = (int32_t)gpu_split(&image, g.ow) - g.padding, y = (int32_t)gpu_split(&image, g.oh) - g.padding;
    const uint32_t columns = bits_inside(x, g.w, g.kernel.d), lines = bits_inside(y, g.h, g.kernel.d);
    for (uint32_t ky = 0; ky < g.kernel.d; ky++) taps |= lines >> ky & 1 ? columns << (ky * g.kernel.d) : 0;
    const int64_t line = (int64_t)(image * g.h) + y;
    return {(const char *)(images + (line * g.w + x) * (int64_t)g.c.d), place < g.places ? taps : 0};
}

/* ---- products of windows: y[places][n] = windows times b */

template <class O> struct place_product {
    windows g;
    const typename O::value *images, *b;
    bf16 *y;
    uint32_t n, tiles_n;
    uint32_t ldb; /* elements between rows of b */
    int add;      /* y += */
};

/* A block of so many warpgroups has 64 places of each, and N outputs. */
template <int GROUPS, int N, int STAGES_> struct place_block {
    enum {
        THREADS = GROUPS * GROUP,
        PLACES = GROUPS * TILE_ROWS,
        BLOCKS = GROUPS > 2                ? 1
                 : STAGES_ == 2 && N == 32 ? 4
                                           : 2, /* a multiprocessor's */
        STAGES = STAGES_,
        AHEAD = STAGES - 2,
        ROWS_BYTES = GROUPS * TILE_BYTES, /* of a stage, b behind them */
        STAGE_BYTES = ROWS_BYTES + (N < TILE_ROWS ? TILE_ROWS : N) / TILE_ROWS * TILE_BYTES,
        BYTES = ALIGNMENT + STAGES * STAGE_BYTES,
        OUTPUTS = N
    };
};

/* b[n][k], as filters lie: what a thread brings of them. */
template <class O, class Block> struct filters {
    enum {
        TURNED = 0,
        N = Block::OUTPUTS,
        ROWS_AT_ONCE = Block::THREADS / O::PACKS,
        MINE = (N + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE
    };
    const char *from; /* of the first row */
    uint32_t pack, row, n;
    __device__ filters(const place_product<O> &p, uint32_t n0)
        : pack(threadIdx.x % O::PACKS), row(threadIdx.x / O::PACKS), n(n0 + row) {
        from = (const char *)(p.b + (size_t)n * p.ldb + pack * O::PACK);
    }
    __device__ void bring(uint32_t to, const place_product<O> &p, const window_row &r) const {
        const bool inside = r.k + pack * O::PACK < p.g.k;
        const char *at = from + r.k * sizeof(typename O::value);
#pragma unroll
        for (uint32_t i = 0; i < MINE; i++)
            if (row + i * ROWS_AT_ONCE < N)
                copy_pack<O::COPY>(to + place_of<O::COPY>(row + i * ROWS_AT_ONCE, pack),
                                   at + (size_t)(i * ROWS_AT_ONCE) * p.ldb * sizeof(typename O::value),
                                   inside && n + i * ROWS_AT_ONCE < p.n);
    }
};

/* The block's outputs from place `first` and output n0 on: c += their sums. O::multiply<turned>(c, a, b) does a
 * step. */
template <class O, class block, class B, class Sum, int SUMS>
__device__ inline void multiply_windows(Sum (&c)[SUMS], const place_product<O> &p, uint32_t n0, uint32_t first) {
    enum { AHEAD = block::AHEAD, ROWS_AT_ONCE = block::THREADS / O::PACKS, MINE = block::PLACES / ROWS_AT_ONCE };
    const uint32_t stages = aligned_room(), steps = p.g.rows;
    const uint32_t pack = threadIdx.x % O::PACKS, row = threadIdx.x / O::PACKS;
    const B b_rows(p, n0);
    window_at from[MINE];
#pragma unroll
    for (uint32_t i = 0; i < MINE; i++) {
        from[i] = window_of(p.g, p.images, first + row + i * ROWS_AT_ONCE);
        if (p.g.whole) from[i].first += pack * O::COPY;
    }
    const auto copy_rows = [&](uint32_t to, int32_t at, uint32_t tap) {
#pragma unroll
        for (uint32_t i = 0; i < MINE; i++)
            copy_pack<O::COPY>(to + place_of<O::COPY>(row + i * ROWS_AT_ONCE, pack),
                               from[i].first + (int64_t)at * (int64_t)sizeof(typename O::value),
                               from[i].taps >> tap & 1);
    };
    const auto bring = [&](uint32_t step) {
        const uint32_t to = stages + step % block::STAGES * block::STAGE_BYTES;
        const window_row r = row_of<O>(p.g, step);
        if (p.g.whole) {
            uint32_t y = r.tap;
            const uint32_t x = gpu_split(&y, p.g.kernel);
            copy_rows(to, (int32_t)((y * p.g.w + x) * p.g.c.d + r.channel), r.tap);
        } else if (r.k + pack * O::PACK < (p.g.k + O::STEP - 1) / O::STEP * O::STEP) { /* else nobody reads it */
            const value_at v = value_of(p.g, r.k + pack * O::PACK);
            copy_rows(to, v.at, v.tap);
        }
        b_rows.bring(to + block::ROWS_BYTES, p, r);
    };
    for (uint32_t step = 0; step < AHEAD; step++) {
        if (step < steps) bring(step);
        commit_copies();
    }
    for (uint32_t step = 0; step < steps; step++) {
        wait_copies<AHEAD - 1>();
        __syncthreads(); /* this stage is there, and the one before the last is free */
        const uint32_t at = stages + step % block::STAGES * block::STAGE_BYTES;
        const uint64_t a = swizzled_rows(at + threadIdx.x / GROUP * TILE_BYTES);
        const uint64_t b = B::TURNED ? turned_tile(at + block::ROWS_BYTES) : swizzled_rows(at + block::ROWS_BYTES);
        const auto multiply_step = [&](uint32_t k) {
            O::template multiply<B::TURNED>(c, a + k * BY_ROW, b + k * (B::TURNED ? BY_COLUMN : BY_ROW));
        };
        pin(c);
        if ((step + 1) * O::WIDE <= p.g.k) {
            wgmma_fence();
#pragma unroll
            for (uint32_t k = 0; k < O::WIDE / O::STEP; k++) multiply_step(k);
            wgmma_commit();
        } else {
#pragma unroll 1
            for (uint32_t k = 0; step * O::WIDE + k * O::STEP < p.g.k; k++) {
                wgmma_fence();
                multiply_step(k);
                wgmma_commit();
            }
        }
        if (step + AHEAD < steps) bring(step + AHEAD);
        commit_copies();
        wgmma_wait<1>();
    }
    wgmma_wait<0>();
    pin(c);
    __syncthreads(); /* the stages are no longer read */
}

/* The block's outputs by way of shared memory, whole rows of packs, of which `room` has N and one more to spread rows
 * over the banks. f(i, half, column): output i of this thread, of its lower or upper row. */
template <class block, class O, class F>
__device__ inline void write_places(const place_product<O> &p, uint32_t n0, uint32_t first, F f) {
    enum { N = block::OUTPUTS, PACK = 16 / sizeof(bf16), PITCH = N + PACK, ROW_PACKS = N / PACK };
    bf16 *room = (bf16 *)conv_room;
    const uint32_t lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane / 4, column = lane % 4 * 2;
#pragma unroll
    for (uint32_t i = 0; i < N / 2; i += 2) {
        const uint32_t half = i / 2 % 2, at = i / 4 * 8 + column;
        *(__nv_bfloat162 *)(room + (row + half * 8) * PITCH + at) =
            __floats2bfloat162_rn(f(i, half, at), f(i + 1, half, at + 1));
    }
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < block::PLACES * ROW_PACKS; i += block::THREADS) {
        const uint32_t place = first + i / ROW_PACKS, n = n0 + i % ROW_PACKS * PACK;
        if (place >= p.g.places || n >= p.n) continue;
        gpu_pack<bf16> v = *(const gpu_pack<bf16> *)(room + i / ROW_PACKS * PITCH + i % ROW_PACKS * PACK);
        gpu_pack<bf16> *to = (gpu_pack<bf16> *)(p.y + (size_t)place * p.n + n);
        if (p.add) {
            const gpu_pack<bf16> before = *to;
#pragma unroll
            for (int j = 0; j < PACK; j++) v.v[j] = from_float<bf16>(to_float(before.v[j]) + to_float(v.v[j]));
        }
        *to = v;
    }
}

/* The first output and place of this block. */
template <class Block, class O> __device__ inline uint32_t first_output(const place_product<O> &p) {
    return blockIdx.x % p.tiles_n * Block::OUTPUTS;
}
template <class Block, class O> __device__ inline uint32_t first_place(const place_product<O> &p) {
    return blockIdx.x / p.tiles_n * Block::PLACES;
}

/* Launches kernel(p, more) of blocks `B`. */
template <class B, class O, class More>
static tern_status run_places(tern_gpu_plan *plan, size_t node, void (*kernel)(place_product<O>, More),
                              place_product<O> p, const More &more, tern_error *err) {
    p.tiles_n = (p.n + B::OUTPUTS - 1) / B::OUTPUTS;
    const unsigned blocks = (p.g.places + B::PLACES - 1) / B::PLACES * p.tiles_n;
    CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, B::BYTES),
             gpu_graph_node(plan, node)->name, err);
    kernel<<<blocks, B::THREADS, B::BYTES, plan->stream>>>(p, more);
    GPU_LAUNCHED(plan, node, err);
    return TERN_OK;
}

/* run(block) with the block for so many outputs; of four warpgroups where those are enough for all
 * multiprocessors. */
template <class O, class F>
static tern_status choose_block(const tern_gpu_plan *plan, const place_product<O> &p, F run) {
    if (p.n <= 32) return run(place_block<2, 32, 4>());
    if (p.n <= 64) return run(place_block<2, 64, 4>());
    const size_t tiles = (p.n + 127) / 128, large = p.g.places / (4 * TILE_ROWS) * tiles;
    if (large >= (size_t)plan->context->multiprocessors) return run(place_block<4, 128, 4>());
    return run(place_block<2, 128, 3>()); /* so that two fit */
}

#endif
