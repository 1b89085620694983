/* Attention of values V, bf16 or fp16, with heads of 64 on Hopper's warpgroup tensor cores (9.0a). A warpgroup has 64
 * queries (or keys), 16 a warp, and tiles of 64 of the others pass through shared memory, brought by the copy engine:
 * the next one is on its way while one is multiplied, and the last product of the one before ends meanwhile. Rows of
 * 64 values are 128 bytes, swizzled as the tensor cores read them: the same tile serves as operand by its rows
 * (scores) and by its columns (what is multiplied by scores). These never leave registers.
 *
 * Tokens past the end are read as zeros, as in gpu_attention_mma.cu. */
#include <stdio.h>

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
    STAGES = 3,         /* pairs of tiles: one that comes, one that is multiplied, one that was */
    FORWARD_BYTES = ALIGNMENT + (FORWARD_GROUPS + 2 * STAGES) * TILE_BYTES,
    BACKWARD_BYTES = ALIGNMENT + (2 + 2 * STAGES) * TILE_BYTES
};

/* ---- instructions */

/* The tile of a sample at (column, token) to shared memory; its bytes arrive at the barrier. */
__device__ static void copy_tile(uint32_t to, const CUtensorMap *map, int column, int token, int sample,
                                 uint32_t barrier) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], "
        "[%5];" ::"r"(to),
        "l"(map), "r"(column), "r"(token), "r"(sample), "r"(barrier)
        : "memory");
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
 * add_step: c[64][64] += a[64][16] b[16][64], a in registers, b by rows in shared memory: its columns are
 * multiplied. */
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

/* The barriers of a block: one of its own tiles, then one of each stage. */
struct tile_barriers {
    uint64_t own, full[STAGES];
};

/* Pairs of tiles that take turns in STAGES places. All threads know which pair is next to be read; one thread asks
 * for the pair behind it. */
struct tile_ring {
    uint32_t tiles, barriers;
    int stage, parity; /* of the pair to be read */

    __device__ tile_ring(uint32_t tiles, tile_barriers *room) : tiles(tiles), stage(0), parity(0) {
        const uint32_t own = (uint32_t)__cvta_generic_to_shared(&room->own);
        barriers = (uint32_t)__cvta_generic_to_shared(room->full);
        if (threadIdx.x == 0) {
            barrier_init(own, 1);
            for (int i = 0; i < STAGES; i++) barrier_init(barriers + 8 * i, 1);
            barrier_init_fence();
        }
        __syncthreads();
    }
    __device__ uint32_t place(int i) const { return tiles + (uint32_t)(i * 2 * TILE_BYTES); }
    __device__ uint32_t barrier(int i) const { return barriers + (uint32_t)(i * 8); }
    __device__ int after() const { return stage + 1 < STAGES ? stage + 1 : 0; }
    __device__ void wait() const { barrier_wait(barrier(stage), parity); }
    __device__ void step() {
        stage = after();
        if (stage == 0) parity ^= 1;
    }
};

/* What a pair of tiles is made of: the same tokens of two matrices. */
struct tile_pair {
    const CUtensorMap *first, *second;
    int first_column, second_column, sample;
    __device__ void ask(uint32_t to, int token, uint32_t barrier) const {
        barrier_arrive_expecting(barrier, 2 * TILE_BYTES);
        copy_tile(to, first, first_column, token, sample, barrier);
        copy_tile(to + TILE_BYTES, second, second_column, token, sample, barrier);
    }
};

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

__device__ static void pin_weights(uint32_t (&p)[TILE / 16][4]) {
#pragma unroll
    for (int k = 0; k < TILE / 16; k++) pin(p[k]);
}

/* Starts sum += p b. Until the products are done p may not change: pin_weights behind the wait. */
template <class V> __device__ static void add_product(sums &sum, uint32_t (&p)[TILE / 16][4], uint32_t b) {
    const uint64_t right = swizzled_rows(b);
    pin_weights(p);
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

/* Which rows of which head a block has: blocks of one head are neighbours in time, so that the head's tiles are read
 * from L2, and those with the most tiles to pass come first. */
struct block_place {
    size_t b, h, number; /* sample, head of it, the rows' number from the end with fewest tiles */
};

__device__ static block_place my_place(const gpu_attention &a, size_t heads, size_t rows) {
    const unsigned parts = (unsigned)((a.t + rows - 1) / rows), head = blockIdx.x / parts;
    return {head / heads, head % heads, parts - 1 - blockIdx.x % parts};
}

/* The number of a block's head, and of its keys': columns of it in `turned` or x. */
__device__ static int query_column(size_t h) { return (int)h * D; }
__device__ static int key_column(const gpu_attention &a, size_t g) { return (int)(a.h + g) * D; }
__device__ static int value_column(const gpu_attention &a, size_t g) { return (int)(a.h + a.g + g) * D; }

/* ---- forward */

template <class V>
__global__ static void __launch_bounds__(FORWARD_GROUPS *GROUP, 2)
    wgmma_forward(gpu_attention a, const __grid_constant__ CUtensorMap turned,
                  const __grid_constant__ CUtensorMap x) {
    __shared__ tile_barriers barriers;
    enum { QUERIES = FORWARD_GROUPS * TILE };
    const uint32_t queries = aligned_room(), own_barrier = (uint32_t)__cvta_generic_to_shared(&barriers.own);
    tile_ring ring(queries + FORWARD_GROUPS * TILE_BYTES, &barriers);
    const int lane = (int)threadIdx.x % 32, group = (int)threadIdx.x / GROUP, column = lane % 4 * 2;
    const int own = (int)threadIdx.x % GROUP / 32 * 16 + lane / 4;
    const block_place at_work = my_place(a, a.h, QUERIES);
    const size_t b = at_work.b, h = at_work.h, g = h / a.r, first = at_work.number * QUERIES;
    const int mine = (int)first / TILE + group; /* the last tile of keys that my queries see */
    const int tiles = (int)(((first + QUERIES < a.t ? first + QUERIES : a.t) + TILE - 1) / TILE);
    const tile_pair pair = {&turned, &x, key_column(a, g), value_column(a, g), (int)b};
    sums o = {};
    uint32_t p[TILE / 16][4] = {};
    float largest[2] = {-INFINITY, -INFINITY}, sum[2] = {};
    if (threadIdx.x == 0) {
        barrier_arrive_expecting(own_barrier, FORWARD_GROUPS * TILE_BYTES);
        for (int i = 0; i < FORWARD_GROUPS; i++)
            copy_tile(queries + i * TILE_BYTES, &turned, query_column(h), (int)first + i * TILE, (int)b, own_barrier);
        pair.ask(ring.place(0), 0, ring.barrier(0));
    }
    barrier_wait(own_barrier, 0);
    for (int i = 0; i < tiles; i++, ring.step()) {
        const uint32_t at = ring.place(ring.stage);
        ring.wait();
        __syncthreads(); /* the tile before the last is free */
        if (threadIdx.x == 0 && i + 1 < tiles)
            pair.ask(ring.place(ring.after()), (i + 1) * TILE, ring.barrier(ring.after()));
        if (i > mine) break; /* all of these keys come later, and they are the last */
        sums s;
        multiply_rows<V>(s, queries + group * TILE_BYTES, at);
        wgmma_wait<0>(); /* of the tile before, too */
        pin_weights(p);
        pin_sums(o);
        pin_sums(s);
        take_weights<D>(s, o, largest, sum, a.scale2, i == mine, own, column);
        make_left<V>(p, s);
        add_product<V>(o, p, at + TILE_BYTES);
    }
    wgmma_wait<0>();
    pin_weights(p);
    pin_sums(o);
    write_rows<V, D>(a, o, largest, sum, b, h, first + group * TILE + own, column);
}

/* ---- backward */

template <class V>
__global__ static void __launch_bounds__(GROUP, 3)
    wgmma_queries(gpu_attention a, const __grid_constant__ CUtensorMap turned, const __grid_constant__ CUtensorMap x,
                  const __grid_constant__ CUtensorMap dy) {
    __shared__ tile_barriers barriers;
    const uint32_t queries = aligned_room(), dys = queries + TILE_BYTES;
    const uint32_t own_barrier = (uint32_t)__cvta_generic_to_shared(&barriers.own);
    tile_ring ring(dys + TILE_BYTES, &barriers);
    const int lane = (int)threadIdx.x % 32, column = lane % 4 * 2;
    const int own = (int)threadIdx.x / 32 * 16 + lane / 4;
    const block_place at_work = my_place(a, a.h, TILE);
    const size_t b = at_work.b, h = at_work.h, g = h / a.r;
    const size_t first = at_work.number * TILE, row = first + own;
    const int tile = (int)at_work.number;
    const tile_pair mine = {&turned, &dy, query_column(h), query_column(h), (int)b};
    const tile_pair pair = {&turned, &x, key_column(a, g), value_column(a, g), (int)b};
    sums dq = {};
    uint32_t p[TILE / 16][4] = {};
    float lse[2], delta[2];
    if (threadIdx.x == 0) {
        mine.ask(queries, (int)first, own_barrier);
        pair.ask(ring.place(0), 0, ring.barrier(0));
    }
    for (int half = 0; half < 2; half++) {
        const size_t number = (b * a.h + h) * a.t + row + 8 * half;
        lse[half] = row + 8 * half < a.t ? a.lse[number] : 0;
        delta[half] = row + 8 * half < a.t ? a.delta[number] : 0;
    }
    barrier_wait(own_barrier, 0);
    for (int i = 0; i <= tile; i++, ring.step()) {
        const uint32_t at = ring.place(ring.stage);
        sums s, dp;
        ring.wait();
        __syncthreads(); /* the tile before the last is free */
        if (threadIdx.x == 0 && i < tile)
            pair.ask(ring.place(ring.after()), (i + 1) * TILE, ring.barrier(ring.after()));
        multiply_rows<V>(s, queries, at);
        multiply_rows<V>(dp, dys, at + TILE_BYTES);
        wgmma_wait<1>(); /* of the tile before, too */
        pin_weights(p);
        pin_sums(dq);
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
        wgmma_wait<0>();
        pin_sums(dp);
#pragma unroll
        for (int n = 0; n < TILE / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) dp[n][e] = s[n][e] * (dp[n][e] - delta[e / 2]);
        make_left<V>(p, dp);
        add_product<V>(dq, p, at);
    }
    wgmma_wait<0>();
    pin_weights(p);
    pin_sums(dq);
    give<V, D>(a, dq, b, h, row, column, a.scale, true);
}

/* Starts to bring lse and delta of a tile of queries: one number a thread. */
__device__ static void bring_rows(uint32_t to, const gpu_attention &a, size_t head, int first) {
    const int number = first + (int)threadIdx.x % TILE;
    const bool valid = number < (int)a.t;
    const float *from = (threadIdx.x < TILE ? a.lse : a.delta) + head * a.t + (valid ? number : 0);
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to + threadIdx.x * 4), "l"(from),
                 "r"(valid ? 4 : 0)
                 : "memory");
}

/* The tile behind this one of those that a block of keys passes: of all queries from its own on, of all heads. */
struct query_walk {
    int first, tiles; /* its own tile, and how many there are from it on */
    int tile, head;
    __device__ void step() {
        if (++tile < first + tiles) return;
        tile = first;
        head++;
    }
};

template <class V>
__global__ static void __launch_bounds__(GROUP, 3)
    wgmma_keys(gpu_attention a, const __grid_constant__ CUtensorMap turned, const __grid_constant__ CUtensorMap x,
               const __grid_constant__ CUtensorMap dy) {
    __shared__ tile_barriers barriers;
    __shared__ __align__(8) float rows[STAGES][2 * TILE];
    const uint32_t keys = aligned_room(), own_barrier = (uint32_t)__cvta_generic_to_shared(&barriers.own);
    const uint32_t values = keys + TILE_BYTES, row_room = (uint32_t)__cvta_generic_to_shared(rows);
    tile_ring ring(values + TILE_BYTES, &barriers);
    const int lane = (int)threadIdx.x % 32, column = lane % 4 * 2;
    const int own = (int)threadIdx.x / 32 * 16 + lane / 4;
    const block_place at_work = my_place(a, a.g, TILE);
    const size_t b = at_work.b, g = at_work.h;
    const int tiles = (int)at_work.number + 1, tile = (int)gpu_attention_tiles(&a) - tiles;
    const size_t first = (size_t)tile * TILE;
    const int count = tiles * (int)a.r;
    query_walk ahead = {tile, tiles, tile, (int)(g * a.r)};
    sums dk = {}, dv = {};
    const auto ask = [&](int stage) {
        const int column_of_head = query_column((size_t)ahead.head);
        const tile_pair pair = {&turned, &dy, column_of_head, column_of_head, (int)b};
        if (threadIdx.x == 0) pair.ask(ring.place(stage), ahead.tile * TILE, ring.barrier(stage));
        bring_rows(row_room + (uint32_t)(stage * (int)sizeof rows[0]), a, b * a.h + (size_t)ahead.head,
                   ahead.tile * TILE);
        ahead.step();
    };
    if (threadIdx.x == 0) {
        const tile_pair mine = {&turned, &x, key_column(a, g), value_column(a, g), (int)b};
        mine.ask(keys, (int)first, own_barrier);
    }
    ask(0);
    barrier_wait(own_barrier, 0);
    for (int i = 0; i < count; i++, ring.step()) {
        const bool diagonal = i % tiles == 0;
        const uint32_t at = ring.place(ring.stage);
        const float *lse = rows[ring.stage], *delta = lse + TILE;
        sums s, dp;
        uint32_t p[TILE / 16][4];
        asm volatile("cp.async.wait_all;" ::: "memory");
        ring.wait();
        __syncthreads(); /* all rows are there, and the tile before the last is free */
        if (i + 1 < count) ask(ring.after());
        multiply_rows<V>(s, keys, at);
        multiply_rows<V>(dp, values, at + TILE_BYTES);
        wgmma_wait<1>();
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
        wgmma_wait<0>(); /* of p, too: three blocks at once are worth more than what could overlap */
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
        wgmma_wait<0>();
        pin_sums(dk);
    }
    give<V, D>(a, dk, b, a.h + g, first + own, column, a.scale, true);
    give<V, D>(a, dv, b, a.h + a.g + g, first + own, column, 1, false);
}

/* ---- launches */

typedef CUresult (*encode_fn)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *,
                              const cuuint64_t *, const cuuint32_t *, const cuuint32_t *, CUtensorMapInterleave,
                              CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

/* Tiles of [batch][t][columns] values; outside of a sample's tokens there are zeros. */
static tern_status describe_tokens(CUtensorMap *map, tern_gpu_plan *plan, size_t node, const gpu_attention *a,
                                   const void *values, size_t columns, tern_error *err) {
    const char *name = gpu_graph_node(plan, node)->name;
    void *encode = NULL;
    cudaDriverEntryPointQueryResult found;
    CUDA_TRY(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &encode, 12000, cudaEnableDefault, &found),
             name, err);
    if (found != cudaDriverEntryPointSuccess)
        return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE, "%s: this driver makes no tensor maps", name);
    const cuuint64_t size[3] = {columns, a->t, a->batch}, stride[2] = {columns * 2, columns * 2 * a->t};
    const cuuint32_t box[3] = {D, TILE, 1}, step[3] = {1, 1, 1};
    const CUresult result = ((encode_fn)encode)(
        map, plan->type == TERN_BF16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 3,
        (void *)values, size, stride, box, step, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
        CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (result != CUDA_SUCCESS)
        return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE,
                         "%s: the driver refuses a tensor map of %zu x %zu x %zu values (error %d)", name, a->batch,
                         a->t, columns, (int)result);
    return TERN_OK;
}

int gpu_attention_has_wgmma(const tern_gpu_plan *plan, size_t d) {
    return plan->type != TERN_F32 && plan->context->major == 9 && plan->context->minor == 0 && d == D;
}

/* As much shared memory as several blocks take: left to itself the driver keeps some of it as cache. */
static tern_status allow_shared(const void *kernel, int bytes, const char *name, tern_error *err) {
    CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), name, err);
    CUDA_TRY(
        cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared),
        name, err);
    return TERN_OK;
}

tern_status gpu_attention_wgmma_prepare(tern_gpu_plan *plan, size_t node, tern_error *err) {
    const char *name = gpu_graph_node(plan, node)->name;
    GPU_BY_HALF(plan->type, {
        GPU_CHECK(allow_shared((const void *)wgmma_forward<V>, FORWARD_BYTES, name, err));
        GPU_CHECK(allow_shared((const void *)wgmma_queries<V>, BACKWARD_BYTES, name, err));
        GPU_CHECK(allow_shared((const void *)wgmma_keys<V>, BACKWARD_BYTES, name, err));
    });
    return TERN_OK;
}

static unsigned tile_grid(const gpu_attention *a, size_t heads, size_t rows) {
    return (unsigned)(a->batch * heads * ((a->t + rows - 1) / rows));
}

tern_status gpu_attention_wgmma_forward(tern_gpu_plan *plan, size_t node, const gpu_attention *a, tern_error *err) {
    const unsigned blocks = tile_grid(a, a->h, FORWARD_GROUPS * TILE);
    CUtensorMap turned, x;
    GPU_CHECK(describe_tokens(&turned, plan, node, a, a->turned, a->ld, err));
    GPU_CHECK(describe_tokens(&x, plan, node, a, a->x, a->in, err));
    GPU_BY_HALF(plan->type,
                wgmma_forward<V><<<blocks, FORWARD_GROUPS * GROUP, FORWARD_BYTES, plan->stream>>>(*a, turned, x));
    GPU_LAUNCHED(plan, node, err);
    return TERN_OK;
}

tern_status gpu_attention_wgmma_backward(tern_gpu_plan *plan, size_t node, const gpu_attention *a, tern_error *err) {
    const unsigned of_queries = tile_grid(a, a->h, TILE), of_keys = tile_grid(a, a->g, TILE);
    CUtensorMap turned, x, dy;
    GPU_CHECK(describe_tokens(&turned, plan, node, a, a->turned, a->ld, err));
    GPU_CHECK(describe_tokens(&x, plan, node, a, a->x, a->in, err));
    GPU_CHECK(describe_tokens(&dy, plan, node, a, a->dy, a->out, err));
    GPU_BY_HALF(plan->type, wgmma_queries<V><<<of_queries, GROUP, BACKWARD_BYTES, plan->stream>>>(*a, turned, x, dy));
    GPU_LAUNCHED(plan, node, err);
    GPU_BY_HALF(plan->type, wgmma_keys<V><<<of_keys, GROUP, BACKWARD_BYTES, plan->stream>>>(*a, turned, x, dy));
    GPU_LAUNCHED(plan, node, err);
    return TERN_OK;
}
