/* Attention of values V, bf16 or fp16, with heads of 64 on Hopper's warpgroup tensor cores (9.0a). A warpgroup has 64
 * queries (or keys), 16 a warp, and tiles of 64 of the others pass through shared memory, the next one on its way while
 * one is multiplied. Rows of 64 values are 128 bytes, swizzled as the tensor cores read them: the same tile serves as
 * operand by its rows (scores) and by its columns (what is multiplied by scores). These never leave registers.
 *
 * Tokens past the end are read as zeros, as in gpu_attention_mma.cu. */
#include "cuda/hopper.cuh"
#include "gpu/gpu_attention_rows.cuh"

enum {
    TILE = GPU_ATTENTION_TILE,
    D = 64,
    ROW_BYTES = 2 * D,
    TILE_BYTES = TILE * ROW_BYTES,
    GROUP = 128,        /* threads of a warpgroup */
    FORWARD_GROUPS = 2, /* they share keys and values */
    STEP_BYTES = 32,    /* 16 columns of a row */
    ALIGNMENT = 1024,   /* of a swizzled tile */
    FORWARD_BYTES = ALIGNMENT + (FORWARD_GROUPS + 4) * TILE_BYTES,
    BACKWARD_BYTES = ALIGNMENT + 6 * TILE_BYTES + 4 * TILE * 4
};

/* ---- instructions */

__device__ static void copy_async(uint32_t to, const void *from, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(valid ? 16 : 0)
                 : "memory");
}
/* What this thread's copies brought is there, for the tensor cores too. */
__device__ static void wait_copies() {
    asm volatile("cp.async.wait_all;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/* All but the last N groups of products are done. */
template <int N> __device__ static void wait_products() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

typedef float sums[TILE / 8][4];

/* As pin() of hopper.cuh. */
__device__ static void pin_sums(sums &c) {
#pragma unroll
    for (int n = 0; n < TILE / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) asm volatile("" : "+f"(c[n][e])::"memory");
}

#define ROW(n) "+f"(c[n][0]), "+f"(c[n][1]), "+f"(c[n][2]), "+f"(c[n][3])
#define ALL_ROWS ROW(0), ROW(1), ROW(2), ROW(3), ROW(4), ROW(5), ROW(6), ROW(7)
#define ALL_SUMS                                                              \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}"

/* multiply_step: c[64][64] (+)= a[64][16] b[64][16]^T, both by rows in shared memory.
 * add_step: c[64][64] += a[64][16] b[16][64], a in registers, b by rows in shared memory: its columns are multiplied. */
#define STEPS(V, type)                                                                        \
    __device__ static void multiply_step(V, sums &c, uint64_t a, uint64_t b, int add) {       \
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"                             \
                     "wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type " " ALL_SUMS \
                     ", %32, %33, p, 1, 1, 0, 0;\n}"                                          \
                     : ALL_ROWS                                                               \
                     : "l"(a), "l"(b), "r"(add));                                             \
    }                                                                                         \
    __device__ static void add_step(V, sums &c, const uint32_t(&a)[4], uint64_t b) {          \
        asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type " " ALL_SUMS \
                     ", {%32, %33, %34, %35}, %36, 1, 1, 1, 1;"                               \
                     : ALL_ROWS                                                               \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                   \
    }
STEPS(__nv_bfloat16, "bf16")
STEPS(__half, "f16")
#undef STEPS
#undef ROW
#undef ALL_ROWS
#undef ALL_SUMS

/* ---- tiles */

/* Starts to bring ROWS tokens from `first` of one head, by THREADS threads. */
template <int ROWS, int THREADS, class V>
__device__ static void bring(uint32_t to, const V *from, size_t ld, size_t first, size_t tokens) {
#pragma unroll
    for (int i = 0; i < ROWS * 8 / THREADS; i++) {
        const int number = i * THREADS + (int)threadIdx.x, row = number / 8, chunk = number % 8;
        const bool valid = first + row < tokens;
        copy_async(to + row * ROW_BYTES + ((chunk ^ row % 8) << 4), from + (valid ? first + row : 0) * ld + chunk * 8,
                   valid);
    }
}

/* Starts s = a b^T. */
template <class V> __device__ static void multiply_rows(sums &s, uint32_t a, uint32_t b) {
    const uint64_t left = swizzled_rows(a), right = swizzled_rows(b);
    pin_sums(s);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < D / 16; k++)
        multiply_step(V(), s, left + (k * STEP_BYTES >> 4), right + (k * STEP_BYTES >> 4), k);
    wgmma_commit();
}

/* The weights p[64][64] as left operands, 16 columns each. */
template <class V> __device__ static void make_left(uint32_t (&a)[TILE / 16][4], const sums &p) {
#pragma unroll
    for (int k = 0; k < TILE / 16; k++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            a[k][i] = two<V>(p[2 * k + i / 2][2 * (i % 2)], p[2 * k + i / 2][2 * (i % 2) + 1]);
}

/* Starts sum += p b. */
template <class V> __device__ static void add_product(sums &sum, uint32_t (&p)[TILE / 16][4], uint32_t b) {
    const uint64_t right = swizzled_rows(b);
#pragma unroll
    for (int k = 0; k < TILE / 16; k++) pin(p[k]);
    pin_sums(sum);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < TILE / 16; k++) add_step(V(), sum, p[k], right + (k * 16 * ROW_BYTES >> 4));
    wgmma_commit();
}

__device__ static uint32_t aligned_room() {
    extern __shared__ __align__(16) char attention_room[];
    return ((uint32_t)__cvta_generic_to_shared(attention_room) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* The tiles of stage i of two. */
__device__ static uint32_t stage_of(uint32_t stages, size_t i) { return stages + (uint32_t)(i % 2) * 2 * TILE_BYTES; }

/* ---- forward */

template <class V> __global__ static void __launch_bounds__(FORWARD_GROUPS *GROUP, 2) wgmma_forward(gpu_attention a) {
    enum { THREADS = FORWARD_GROUPS * GROUP, QUERIES = FORWARD_GROUPS * TILE };
    const uint32_t queries = aligned_room(), stages = queries + FORWARD_GROUPS * TILE_BYTES;
    const int lane = (int)threadIdx.x % 32, group = (int)threadIdx.x / GROUP, column = lane % 4 * 2;
    const int own = (int)threadIdx.x % GROUP / 32 * 16 + lane / 4;
    const size_t b = blockIdx.x / a.h, h = blockIdx.x % a.h, g = h / a.r;
    const size_t first = (size_t)(gridDim.y - 1 - blockIdx.y) * QUERIES, mine = first + (size_t)group * TILE;
    const size_t keys = first + QUERIES < a.t ? first + QUERIES : a.t, tiles = (keys + TILE - 1) / TILE;
    const V *k = attention_key<V>(a, b, g), *v = attention_value<V>(a, b, g);
    sums o = {};
    float largest[2] = {-INFINITY, -INFINITY}, sum[2] = {};
    bring<QUERIES, THREADS>(queries, attention_query<V>(a, b, h), a.ld, first, a.t);
    bring<TILE, THREADS>(stages, k, a.ld, 0, a.t);
    bring<TILE, THREADS>(stages + TILE_BYTES, v, a.in, 0, a.t);
    for (size_t i = 0; i < tiles; i++) {
        const uint32_t at = stage_of(stages, i), next = stage_of(stages, i + 1);
        wait_copies();
        __syncthreads(); /* this tile is there, and the one before is free */
        if (i + 1 < tiles) {
            bring<TILE, THREADS>(next, k, a.ld, (i + 1) * TILE, a.t);
            bring<TILE, THREADS>(next + TILE_BYTES, v, a.in, (i + 1) * TILE, a.t);
        }
        if (i * TILE > mine) continue; /* all of these keys come later */
        sums s;
        uint32_t p[TILE / 16][4];
        multiply_rows<V>(s, queries + group * TILE_BYTES, at);
        wait_products<0>();
        pin_sums(s);
        take_weights<D>(s, o, largest, sum, a.scale2, i * TILE == mine, own, column);
        make_left<V>(p, s);
        add_product<V>(o, p, at + TILE_BYTES);
        wait_products<0>();
        pin_sums(o);
    }
    write_rows<V, D>(a, o, largest, sum, b, h, mine + own, column);
}

/* ---- backward */

template <class V> __global__ static void __launch_bounds__(GROUP, 3) wgmma_queries(gpu_attention a) {
    const uint32_t queries = aligned_room(), dys = queries + TILE_BYTES, stages = dys + TILE_BYTES;
    const int lane = (int)threadIdx.x % 32, column = lane % 4 * 2;
    const int own = (int)threadIdx.x / 32 * 16 + lane / 4;
    const size_t b = blockIdx.x / a.h, h = blockIdx.x % a.h, g = h / a.r;
    const size_t tile = gridDim.y - 1 - blockIdx.y, first = tile * TILE, row = first + own;
    const V *k = attention_key<V>(a, b, g), *v = attention_value<V>(a, b, g);
    sums dq = {};
    float lse[2], delta[2];
    for (int half = 0; half < 2; half++) {
        const size_t number = (b * a.h + h) * a.t + row + 8 * half;
        lse[half] = row + 8 * half < a.t ? a.lse[number] : 0;
        delta[half] = row + 8 * half < a.t ? a.delta[number] : 0;
    }
    bring<TILE, GROUP>(queries, attention_query<V>(a, b, h), a.ld, first, a.t);
    bring<TILE, GROUP>(dys, (const V *)a.dy + b * a.t * a.out + h * D, a.out, first, a.t);
    bring<TILE, GROUP>(stages, k, a.ld, 0, a.t);
    bring<TILE, GROUP>(stages + TILE_BYTES, v, a.in, 0, a.t);
    for (size_t i = 0; i <= tile; i++) {
        const uint32_t at = stage_of(stages, i), next = stage_of(stages, i + 1);
        sums s, dp;
        uint32_t p[TILE / 16][4];
        wait_copies();
        __syncthreads();
        if (i < tile) {
            bring<TILE, GROUP>(next, k, a.ld, (i + 1) * TILE, a.t);
            bring<TILE, GROUP>(next + TILE_BYTES, v, a.in, (i + 1) * TILE, a.t);
        }
        multiply_rows<V>(s, queries, at);
        multiply_rows<V>(dp, dys, at + TILE_BYTES);
        wait_products<1>();
        pin_sums(s);
#pragma unroll
        for (int n = 0; n < TILE / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) s[n][e] = exp2_fast(fmaf(s[n][e], a.scale2, -lse[e / 2]));
        if (i == tile)
#pragma unroll
            for (int n = 0; n < TILE / 8; n++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    if (8 * n + column + e % 2 > own + e / 2 * 8) s[n][e] = 0;
        wait_products<0>();
        pin_sums(dp);
#pragma unroll
        for (int n = 0; n < TILE / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) dp[n][e] = s[n][e] * (dp[n][e] - delta[e / 2]);
        make_left<V>(p, dp);
        add_product<V>(dq, p, at);
        wait_products<0>();
        pin_sums(dq);
    }
    give<V, D>(a, dq, b, h, row, column, a.scale, true);
}

/* lse and delta of a tile of queries. */
__device__ static void bring_rows(float *to, const gpu_attention &a, size_t head, size_t first) {
    const size_t number = first + threadIdx.x % TILE;
    const float *from = threadIdx.x < TILE ? a.lse : a.delta;
    to[threadIdx.x] = number < a.t ? from[head * a.t + number] : 0;
}

template <class V> __global__ static void __launch_bounds__(GROUP, 3) wgmma_keys(gpu_attention a) {
    __shared__ __align__(8) float rows[2][2 * TILE];
    const uint32_t keys = aligned_room(), values = keys + TILE_BYTES, stages = values + TILE_BYTES;
    const int lane = (int)threadIdx.x % 32, column = lane % 4 * 2;
    const int own = (int)threadIdx.x / 32 * 16 + lane / 4;
    const size_t b = blockIdx.x / a.g, g = blockIdx.x % a.g, tile = blockIdx.y, first = tile * TILE;
    const int tiles = (int)(gridDim.y - tile), count = tiles * (int)a.r; /* of queries, of all heads */
    int asked_head = (int)(g * a.r), asked_tile = 0;
    sums dk = {}, dv = {};
    const auto ask = [&](int i) {
        const size_t h = (size_t)asked_head, q0 = (tile + (size_t)asked_tile) * TILE;
        const uint32_t to = stage_of(stages, (size_t)i);
        bring<TILE, GROUP>(to, attention_query<V>(a, b, h), a.ld, q0, a.t);
        bring<TILE, GROUP>(to + TILE_BYTES, (const V *)a.dy + b * a.t * a.out + h * D, a.out, q0, a.t);
        bring_rows(rows[i % 2], a, b * a.h + h, q0);
        if (++asked_tile == tiles) {
            asked_tile = 0;
            asked_head++;
        }
    };
    bring<TILE, GROUP>(keys, attention_key<V>(a, b, g), a.ld, first, a.t);
    bring<TILE, GROUP>(values, attention_value<V>(a, b, g), a.in, first, a.t);
    ask(0);
    for (int i = 0; i < count; i++) {
        const bool diagonal = asked_tile == 1 % tiles; /* the tile behind this one is the next to ask for */
        const uint32_t at = stage_of(stages, (size_t)i);
        const float *lse = rows[i % 2], *delta = lse + TILE;
        sums s, dp;
        uint32_t p[TILE / 16][4];
        wait_copies();
        __syncthreads();
        if (i + 1 < count) ask(i + 1);
        multiply_rows<V>(s, keys, at);
        multiply_rows<V>(dp, values, at + TILE_BYTES);
        wait_products<1>();
        pin_sums(s);
#pragma unroll
        for (int n = 0; n < TILE / 8; n++) {
            const float2 of_two = *(const float2 *)(lse + 8 * n + column);
#pragma unroll
            for (int e = 0; e < 4; e++) s[n][e] = exp2_fast(fmaf(s[n][e], a.scale2, e % 2 ? -of_two.y : -of_two.x));
        }
        if (diagonal)
#pragma unroll
            for (int n = 0; n < TILE / 8; n++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    if (own + e / 2 * 8 > 8 * n + column + e % 2) s[n][e] = 0;
        make_left<V>(p, s);
        add_product<V>(dv, p, at + TILE_BYTES);
        wait_products<0>(); /* of p, too: three blocks at once are worth more than what could overlap */
        pin_sums(dp);
        pin_sums(dv);
#pragma unroll
        for (int k = 0; k < TILE / 16; k++)
#pragma unroll
            for (int j = 0; j < 4; j++) { /* dS in place of P, which as V takes half the registers */
                const int n = 2 * k + j / 2, e = 2 * (j % 2);
                const float2 of_two = *(const float2 *)(delta + 8 * n + column);
                const float2 weights = both_of(V(), p[k][j]);
                p[k][j] = two<V>(weights.x * (dp[n][e] - of_two.x), weights.y * (dp[n][e + 1] - of_two.y));
            }
        add_product<V>(dk, p, at);
        wait_products<0>();
        pin_sums(dk);
    }
    give<V, D>(a, dk, b, a.h + g, first + own, column, a.scale, true);
    give<V, D>(a, dv, b, a.h + a.g + g, first + own, column, 1, false);
}

/* ---- launches */

int gpu_attention_has_wgmma(const tern_gpu_plan *plan, size_t d) {
    return plan->type != TERN_F32 && plan->context->major == 9 && plan->context->minor == 0 && d == D;
}

tern_status gpu_attention_wgmma_prepare(tern_gpu_plan *plan, size_t node, tern_error *err) {
    const char *name = gpu_graph_node(plan, node)->name;
    const cudaFuncAttribute shared = cudaFuncAttributeMaxDynamicSharedMemorySize;
    GPU_BY_HALF(plan->type, {
        CUDA_TRY(cudaFuncSetAttribute((const void *)wgmma_forward<V>, shared, FORWARD_BYTES), name, err);
        CUDA_TRY(cudaFuncSetAttribute((const void *)wgmma_queries<V>, shared, BACKWARD_BYTES), name, err);
        CUDA_TRY(cudaFuncSetAttribute((const void *)wgmma_keys<V>, shared, BACKWARD_BYTES), name, err);
    });
    return TERN_OK;
}

static dim3 tile_grid(const gpu_attention *a, size_t heads, size_t rows) {
    return dim3((unsigned)(a->batch * heads), (unsigned)((a->t + rows - 1) / rows));
}

tern_status gpu_attention_wgmma_forward(tern_gpu_plan *plan, size_t node, const gpu_attention *a, tern_error *err) {
    const dim3 grid = tile_grid(a, a->h, FORWARD_GROUPS * TILE);
    GPU_BY_HALF(plan->type, wgmma_forward<V><<<grid, FORWARD_GROUPS * GROUP, FORWARD_BYTES, plan->stream>>>(*a));
    GPU_LAUNCHED(plan, node, err);
    return TERN_OK;
}

tern_status gpu_attention_wgmma_backward(tern_gpu_plan *plan, size_t node, const gpu_attention *a, tern_error *err) {
    GPU_BY_HALF(plan->type, wgmma_queries<V><<<tile_grid(a, a->h, TILE), GROUP, BACKWARD_BYTES, plan->stream>>>(*a));
    GPU_LAUNCHED(plan, node, err);
    GPU_BY_HALF(plan->type, wgmma_keys<V><<<tile_grid(a, a->g, TILE), GROUP, BACKWARD_BYTES, plan->stream>>>(*a));
    GPU_LAUNCHED(plan, node, err);
    return TERN_OK;
}
