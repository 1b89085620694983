/* Windows over images as operands of Hopper's warpgroup tensor cores, for gpu_conv_wgmma.cu and gpu_conv_int8.cu (9.0a).
 *
 * Tiles have rows of 128 bytes in the copy engine's 128-byte swizzle, gathered from images where they lie: the bytes of a
 * copy belong to one pixel. Stage after stage of them passes through shared memory, brought by all threads while the two
 * warpgroups of a block multiply the one before. A pixel is asked for once for each place of the window, most times from
 * L1. */
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
    THREADS = 2 * GROUP,
    PLACES = 2 * TILE_ROWS, /* of a block */
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
        ROWS_AT_ONCE = THREADS / PACKS,
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
template <int N> __device__ inline void wait_products() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}
/* As pin() of hopper.cuh. */
template <int N> __device__ inline void pin_sums(float (&c)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+f"(c[i])::"memory");
}
template <int N> __device__ inline void pin_sums(int32_t (&c)[N]) { pin(c); }

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
/* From one instruction's operand to the next, by rows and by columns of a tile of bf16. Descriptors count 16 bytes. */
enum { BY_ROW = STEP_BYTES >> 4, BY_COLUMN = STEP_BYTES / 2 * ROW_BYTES >> 4 };

extern __shared__ __align__(16) char conv_room[];

__device__ inline uint32_t aligned_room() {
    return ((uint32_t)__cvta_generic_to_shared(conv_room) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* ---- windows */

/* Images [images][h][w][c], and the windows over them: places [images][oh][ow], each [kernel][kernel][c] = k values. */
struct windows {
    gpu_divisor ow, oh, kernel, c;
    uint32_t h, w, k, places;
    int32_t padding;
    /* Values that instructions read. */
    template <class O> __device__ uint32_t read() const { return (k + O::STEP - 1) / O::STEP * O::STEP; }
};

static inline windows windows_over(size_t images, size_t h, size_t w, size_t c, size_t oh, size_t ow, size_t kernel,
                                   size_t padding) {
    return {gpu_divisor_of(ow), gpu_divisor_of(oh), gpu_divisor_of(kernel),          gpu_divisor_of(c),
            (uint32_t)h,        (uint32_t)w,        (uint32_t)(kernel * kernel * c), (uint32_t)(images * oh * ow),
            (int32_t)padding};
}

/* The first pixel of a place's window, may lie outside of the image. */
struct corner {
    int32_t at, y, x; /* at: in elements */
};

enum : int32_t { NOWHERE = -(1 << 20) }; /* outside of every image */

__device__ inline corner corner_of(const windows &g, uint32_t place) {
    uint32_t image = place < g.places ? place : 0;
    const int32_t x = (int32_t)gpu_split(&image, g.ow) - g.padding, y = (int32_t)gpu_split(&image, g.oh) - g.padding;
    const int32_t line = (int32_t)(image * g.h) + y;
    return {(line * (int32_t)g.w + x) * (int32_t)g.c.d, place < g.places ? y : NOWHERE, x};
}

/* Value k of a window from its first pixel on. */
struct within_window {
    int32_t at, y, x;
};

__device__ inline within_window within(const windows &g, uint32_t k) {
    uint32_t tap = k;
    const uint32_t c = gpu_split(&tap, g.c), x = gpu_split(&tap, g.kernel);
    return {(int32_t)((tap * g.w + x) * g.c.d + c), k < g.k ? (int32_t)tap : NOWHERE, (int32_t)x};
}

template <class O>
__device__ inline void copy_from(uint32_t to, const typename O::value *images, const windows &g, const corner &from,
                                 const within_window &v) {
    const bool inside = (uint32_t)(from.y + v.y) < g.h && (uint32_t)(from.x + v.x) < g.w;
    copy_pack<O::COPY>(to, images + (inside ? from.at + v.at : 0), inside);
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

template <int N> struct place_room {
    enum {
        STAGES = N == 128 ? 3 : 4, /* so that two blocks fit */
        STAGE_BYTES = 2 * TILE_BYTES + (N < TILE_ROWS ? TILE_ROWS : N) / TILE_ROWS * TILE_BYTES,
        BYTES = ALIGNMENT + STAGES * STAGE_BYTES
    };
};

/* b[n][k], as filters lie. */
template <class O, int N> struct filters {
    enum { TURNED = 0 };
    __device__ static void bring(uint32_t to, const place_product<O> &p, uint32_t k0, uint32_t n0) {
        const uint32_t pack = threadIdx.x % O::PACKS, k = k0 + pack * O::PACK;
        if (k >= p.g.template read<O>()) return;
#pragma unroll
        for (uint32_t i = 0; i < N / O::ROWS_AT_ONCE; i++) {
            const uint32_t row = threadIdx.x / O::PACKS + i * O::ROWS_AT_ONCE, n = n0 + row;
            const bool valid = n < p.n && k < p.g.k;
            copy_pack<O::COPY>(to + place_of<O::COPY>(row, pack), p.b + (valid ? (size_t)n * p.ldb + k : 0), valid);
        }
    }
};

/* The block's outputs, PLACES from `first` on and N from n0 on: c += their sums. O::multiply<turned>(c, a, b) does a step. */
template <class O, int N, class B, class Sum>
__device__ inline void multiply_windows(Sum (&c)[N / 2], const place_product<O> &p, uint32_t n0, uint32_t first) {
    enum {
        STAGES = place_room<N>::STAGES,
        AHEAD = STAGES - 2,
        STAGE_BYTES = place_room<N>::STAGE_BYTES,
        MINE = PLACES / O::ROWS_AT_ONCE
    };
    const uint32_t stages = aligned_room(), steps = (p.g.k + O::WIDE - 1) / O::WIDE;
    const uint32_t pack = threadIdx.x % O::PACKS, row = threadIdx.x / O::PACKS;
    corner from[MINE];
#pragma unroll
    for (uint32_t i = 0; i < MINE; i++) from[i] = corner_of(p.g, first + row + i * O::ROWS_AT_ONCE);
    const auto bring = [&](uint32_t step) {
        const uint32_t to = stages + step % STAGES * STAGE_BYTES, k = step * O::WIDE + pack * O::PACK;
        const within_window v = within(p.g, k);
        if (k < p.g.template read<O>())
#pragma unroll
            for (uint32_t i = 0; i < MINE; i++)
                copy_from<O>(to + place_of<O::COPY>(row + i * O::ROWS_AT_ONCE, pack), p.images, p.g, from[i], v);
        B::bring(to + 2 * TILE_BYTES, p, step * O::WIDE, n0);
    };
    for (uint32_t step = 0; step < AHEAD; step++) {
        if (step < steps) bring(step);
        commit_copies();
    }
    for (uint32_t step = 0; step < steps; step++) {
        wait_copies<AHEAD - 1>();
        __syncthreads(); /* this stage is there, and the one before the last is free */
        const uint32_t at = stages + step % STAGES * STAGE_BYTES;
        const uint64_t a = swizzled_rows(at + threadIdx.x / GROUP * TILE_BYTES);
        const uint64_t b = B::TURNED ? turned_tile(at + 2 * TILE_BYTES) : swizzled_rows(at + 2 * TILE_BYTES);
        const auto multiply_step = [&](uint32_t k) {
            O::template multiply<B::TURNED>(c, a + k * BY_ROW, b + k * (B::TURNED ? BY_COLUMN : BY_ROW));
        };
        pin_sums(c);
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
        wait_products<1>();
    }
    wait_products<0>();
    pin_sums(c);
    __syncthreads(); /* the stages are no longer read */
}

/* The block's outputs by way of shared memory, whole rows of packs, of which `room` has N and one more to spread rows over
 * the banks. f(i, half, column): output i of this thread, of its lower or upper row. */
template <int N, class O, class F>
__device__ inline void write_places(const place_product<O> &p, uint32_t n0, uint32_t first, F f) {
    enum { PACK = 16 / sizeof(bf16), PITCH = N + PACK, ROW_PACKS = N / PACK };
    bf16 *room = (bf16 *)conv_room;
    const uint32_t lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane / 4, column = lane % 4 * 2;
#pragma unroll
    for (uint32_t i = 0; i < N / 2; i += 2) {
        const uint32_t half = i / 2 % 2, at = i / 4 * 8 + column;
        *(__nv_bfloat162 *)(room + (row + half * 8) * PITCH + at) =
            __floats2bfloat162_rn(f(i, half, at), f(i + 1, half, at + 1));
    }
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < PLACES * ROW_PACKS; i += THREADS) {
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

/* The tile of outputs and the first place of this block. */
template <int N, class O> __device__ inline uint32_t first_output(const place_product<O> &p) {
    return blockIdx.x % p.tiles_n * N;
}
template <class O> __device__ inline uint32_t first_place(const place_product<O> &p) {
    return blockIdx.x / p.tiles_n * PLACES;
}

static inline unsigned place_blocks(const windows &g, uint32_t tiles_n) {
    return (g.places + PLACES - 1) / PLACES * tiles_n;
}

#endif
