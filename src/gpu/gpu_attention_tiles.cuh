/* What attention on Hopper's warpgroup tensor cores is made of (9.0a), for values V, bf16 or fp16, and heads of 64. A
 * warpgroup has 64 queries (or keys), 16 a warp, and tiles of 64 of the others pass through shared memory, brought by
 * the copy engine. Rows of 64 values are 128 bytes, swizzled as the tensor cores read them: the same tile serves as
 * operand by its rows (scores) and by its columns (what is multiplied by scores). These never leave registers but on
 * their way from one gradient to another.
 *
 * Tokens past the end are read as zeros, as in gpu_attention_mma.cu. */
#ifndef TERN_GPU_GPU_ATTENTION_TILES_CUH
#define TERN_GPU_GPU_ATTENTION_TILES_CUH

#include "cuda/hopper.cuh"
#include "gpu/gpu_attention_rows.cuh"

enum {
    TILE = GPU_ATTENTION_TILE,
    D = 64,
    ROW_BYTES = 2 * D,
    TILE_BYTES = TILE * ROW_BYTES,
    GROUP = 128,      /* threads of a warpgroup */
    STEP_BYTES = 32,  /* 16 columns of a row */
    ALIGNMENT = 1024, /* of a swizzled tile */
    STAGES = 3        /* pairs of tiles: one that comes, one that is multiplied, one that was */
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

/* multiply_step: c[64][64] (+)= Sign a[64][16] b[64][16]^T, both by rows in shared memory.
 * add_step: c[64][64] += a[64][16] b[16][64], a in registers, b by rows in shared memory: its columns are
 * multiplied. */
#define STEPS(V, type)                                                                                      \
    template <int Sign> __device__ static void multiply_step(V, sums &c, uint64_t a, uint64_t b, int add) { \
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"                                           \
                     "wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type " " ALL_SUMS               \
                     ", %32, %33, p, %35, 1, 0, 0;\n}"                                                      \
                     : ALL_ROWS                                                                             \
                     : "l"(a), "l"(b), "r"(add), "n"(Sign));                                                \
    }                                                                                                       \
    __device__ static void add_step(V, sums &c, const uint32_t(&a)[4], uint64_t b) {                        \
        asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type " " ALL_SUMS               \
                     ", {%32, %33, %34, %35}, %36, 1, 1, 1, 1;"                                             \
                     : ALL_ROWS                                                                             \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                                 \
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

/* s = a b^T, or s -= it, as one group of products; behind a fence. */
template <class V, int Sign> __device__ static void row_steps(sums &s, uint32_t a, uint32_t b) {
    const uint64_t left = swizzled_rows(a), right = swizzled_rows(b);
#pragma unroll
    for (int k = 0; k < D / 16; k++)
        multiply_step<Sign>(V(), s, left + (k * STEP_BYTES >> 4), right + (k * STEP_BYTES >> 4), Sign < 0 || k);
    wgmma_commit();
}

/* Starts s = a b^T. */
template <class V> __device__ static void multiply_rows(sums &s, uint32_t a, uint32_t b) {
    pin_sums(s);
    wgmma_fence();
    row_steps<V, 1>(s, a, b);
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

/* The number of a block's head, and of its keys': columns of it in `turned` or x. */
__device__ static int query_column(size_t h) { return (int)h * D; }
__device__ static int key_column(const gpu_attention &a, size_t g) { return (int)(a.h + g) * D; }
__device__ static int value_column(const gpu_attention &a, size_t g) { return (int)(a.h + a.g + g) * D; }

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

/* As much shared memory as several blocks take: left to itself the driver keeps some of it as cache. */
static tern_status allow_shared(const void *kernel, int bytes, const char *name, tern_error *err) {
    CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), name, err);
    CUDA_TRY(
        cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared),
        name, err);
    return TERN_OK;
}

#endif
