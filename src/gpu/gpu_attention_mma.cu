/* Attention of values V, bf16 or fp16, on the tensor cores of 8.0 and newer, for head widths of 32, 64 and 128. A
 * block of four warps has 64 queries (or keys), 16 a warp; tiles of the others pass through shared memory. Fragments
 * are those of mma.m16n8k16: of a 16 x 8 result a thread has rows lane / 4 and + 8, columns 2 (lane % 4) and + 1 -
 * just where the next product wants its left operand, so that P and dS never leave registers. The backward pass by
 * keys makes S^T and dP^T for the same reason.
 *
 * Tokens past the end are read as zeros. They change nothing: as keys they come after every query that counts, as
 * queries their dy is 0. */
#include <type_traits>

#include "gpu/gpu_attention_rows.cuh"

#include "cuda/mma_sync.cuh"

enum { TILE = GPU_ATTENTION_TILE, MMA_THREADS = 128 };

/* Sizes for a head width. Rows in shared memory are 16 bytes longer than they hold: eight of them, one below another,
 * then lie in different banks. */
template <int D> struct mma_sizes {
    enum {
        PITCH = D + 8,
        OTHERS = D == 128 ? 32 : 64, /* keys (or queries) at a time in the backward pass: registers are scarce */
        FORWARD_BYTES = 2 * TILE * PITCH * 2,
        QUERIES_BYTES = 2 * (TILE + OTHERS) * PITCH * 2,
        KEYS_BYTES = QUERIES_BYTES + 2 * OTHERS * 4
    };
};

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800

/* ---- instructions */

__device__ static uint32_t shared_address(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }

__device__ static void copy_async(void *to, const void *from, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from),
                 "r"(valid ? 16 : 0)
                 : "memory");
}
__device__ static void wait_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

/* Four 8 x 8 matrices; lane l gives the address of row l % 8 of matrix l / 8. */
template <bool TURNED> __device__ static void load_matrices(uint32_t (&v)[4], const void *at) {
    if constexpr (TURNED)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3])
                     : "r"(shared_address(at))
                     : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3])
                     : "r"(shared_address(at))
                     : "memory");
}

template <class V> constexpr bool is_bf16 = std::is_same_v<V, __nv_bfloat16>;

/* ---- products of a warp's 16 rows */

/* A 16 x 16 left operand: rows of a from the warp's first, columns from `column`. */
template <int D, class V> __device__ static void left_of(uint32_t (&v)[4], const V *a, int column) {
    const int lane = (int)threadIdx.x % 32;
    load_matrices<false>(v, a + lane % 16 * mma_sizes<D>::PITCH + column + lane / 16 * 8);
}

/* s[16][8 N] = rows times the rows of b; left(k) brings the left operand of columns 16 k. */
template <int D, int N, class V, class F> __device__ static void multiply_rows(float (&s)[N][4], const V *b, F left) {
    const int lane = (int)threadIdx.x % 32;
    const V *from = b + (lane / 16 * 8 + lane % 8) * mma_sizes<D>::PITCH + lane / 8 % 2 * 8;
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) s[n][e] = 0;
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        uint32_t a[4], v[4];
        left(a, k);
#pragma unroll
        for (int n = 0; n < N; n += 2) {
            load_matrices<false>(v, from + n * 8 * mma_sizes<D>::PITCH + k * 16);
            mma_half<is_bf16<V>>(s[n], a, v[0], v[1]);
            mma_half<is_bf16<V>>(s[n + 1], a, v[2], v[3]);
        }
    }
}

/* sum[16][D] += p[16][8 N] b[8 N][D]. */
template <int D, int N, class V>
__device__ static void add_product(float (&sum)[D / 8][4], const float (&p)[N][4], const V *b) {
    const int lane = (int)threadIdx.x % 32;
    const V *from = b + lane % 16 * mma_sizes<D>::PITCH + lane / 16 * 8;
#pragma unroll
    for (int k = 0; k < N / 2; k++) {
        const uint32_t a[4] = {two<V>(p[2 * k][0], p[2 * k][1]), two<V>(p[2 * k][2], p[2 * k][3]),
                               two<V>(p[2 * k + 1][0], p[2 * k + 1][1]), two<V>(p[2 * k + 1][2], p[2 * k + 1][3])};
#pragma unroll
        for (int n = 0; n < D / 8; n += 2) {
            uint32_t v[4];
            load_matrices<true>(v, from + k * 16 * mma_sizes<D>::PITCH + n * 8);
            mma_half<is_bf16<V>>(sum[n], a, v[0], v[1]);
            mma_half<is_bf16<V>>(sum[n + 1], a, v[2], v[3]);
        }
    }
}

/* Starts to bring ROWS tokens from `first` of one head. */
template <int D, int ROWS, class V>
__device__ static void bring(V *to, const V *from, size_t ld, size_t first, size_t tokens) {
    enum { CHUNKS = D / 8 };
#pragma unroll
    for (int i = (int)threadIdx.x; i < ROWS * CHUNKS; i += MMA_THREADS) {
        const int row = i / CHUNKS, column = i % CHUNKS * 8;
        const bool valid = first + row < tokens;
        copy_async(to + row * mma_sizes<D>::PITCH + column, from + (valid ? first + row : 0) * ld + column, valid);
    }
}

/* ---- forward */

/* While scores are made the values arrive, while these are multiplied the next keys do. */
template <class V, int D> __device__ static void forward_block(const gpu_attention &a, V *room) {
    V *keys = room, *values = room + TILE * mma_sizes<D>::PITCH;
    const int lane = (int)threadIdx.x % 32, own = (int)threadIdx.x / 32 * 16, column = lane % 4 * 2;
    const size_t b = blockIdx.x / a.h, h = blockIdx.x % a.h, g = h / a.r;
    const size_t first = (size_t)(gridDim.y - 1 - blockIdx.y) * TILE;
    const V *k = attention_key<V>(a, b, g), *v = attention_value<V>(a, b, g);
    float o[D / 8][4] = {}, largest[2] = {-INFINITY, -INFINITY}, sum[2] = {};
    uint32_t q[D / 16][4];

    bring<D, TILE>(values, attention_query<V>(a, b, h), a.ld, first, a.t);
    bring<D, TILE>(keys, k, a.ld, 0, a.t);
    wait_copies();
    __syncthreads();
#pragma unroll
    for (int c = 0; c < D / 16; c++) left_of<D>(q[c], values + own * mma_sizes<D>::PITCH, 16 * c);
    for (size_t key0 = 0; key0 <= first; key0 += TILE) {
        float s[TILE / 8][4];
        __syncthreads(); /* keys are there, values are free */
        bring<D, TILE>(values, v, a.in, key0, a.t);
        multiply_rows<D, TILE / 8>(s, keys, [&](uint32_t(&left)[4], int c) {
#pragma unroll
            for (int e = 0; e < 4; e++) left[e] = q[c][e];
        });
        take_weights<D>(s, o, largest, sum, a.scale2, key0 == first, own + lane / 4, column);
        wait_copies();
        __syncthreads(); /* values are there, keys are free */
        if (key0 < first) bring<D, TILE>(keys, k, a.ld, key0 + TILE, a.t);
        add_product<D, TILE / 8>(o, s, values);
        wait_copies();
    }
    write_rows<V, D>(a, o, largest, sum, b, h, first + own + lane / 4, column);
}

/* ---- backward */

template <class V, int D> __device__ static void queries_block(const gpu_attention &a, V *room) {
    enum { PITCH = mma_sizes<D>::PITCH, OTHERS = mma_sizes<D>::OTHERS };
    V *queries = room, *dys = queries + TILE * PITCH, *keys = dys + TILE * PITCH, *values = keys + OTHERS * PITCH;
    const int lane = (int)threadIdx.x % 32, own = (int)threadIdx.x / 32 * 16, column = lane % 4 * 2;
    const size_t b = blockIdx.x / a.h, h = blockIdx.x % a.h, g = h / a.r;
    const size_t first = (size_t)(gridDim.y - 1 - blockIdx.y) * TILE, row = first + own + lane / 4;
    const V *k = attention_key<V>(a, b, g), *v = attention_value<V>(a, b, g);
    float dq[D / 8][4] = {}, lse[2], delta[2];
    for (int half = 0; half < 2; half++) {
        const size_t number = (b * a.h + h) * a.t + row + 8 * half;
        lse[half] = row + 8 * half < a.t ? a.lse[number] : 0;
        delta[half] = row + 8 * half < a.t ? a.delta[number] : 0;
    }
    bring<D, TILE>(queries, attention_query<V>(a, b, h), a.ld, first, a.t);
    bring<D, TILE>(dys, (const V *)a.dy + b * a.t * a.out + h * D, a.out, first, a.t);
    for (size_t key0 = 0; key0 < first + TILE && key0 < a.t; key0 += OTHERS) {
        float s[OTHERS / 8][4], dp[OTHERS / 8][4];
        __syncthreads();
        bring<D, OTHERS>(keys, k, a.ld, key0, a.t);
        bring<D, OTHERS>(values, v, a.in, key0, a.t);
        wait_copies();
        __syncthreads();
        multiply_rows<D, OTHERS / 8>(
            s, keys, [&](uint32_t(&left)[4], int c) { left_of<D>(left, queries + own * PITCH, 16 * c); });
        multiply_rows<D, OTHERS / 8>(dp, values,
                                     [&](uint32_t(&left)[4], int c) { left_of<D>(left, dys + own * PITCH, 16 * c); });
#pragma unroll
        for (int n = 0; n < OTHERS / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const bool seen = key0 + 8 * n + column + e % 2 <= row + e / 2 * 8;
                const float p = exp2_fast(fmaf(s[n][e], a.scale2, -lse[e / 2]));
                dp[n][e] = seen ? p * (dp[n][e] - delta[e / 2]) : 0.0f;
            }
        add_product<D, OTHERS / 8>(dq, dp, keys);
    }
    give<V, D>(a, dq, b, h, row, column, a.scale, true);
}

template <class V, int D> __device__ static void keys_block(const gpu_attention &a, V *room) {
    enum { PITCH = mma_sizes<D>::PITCH, OTHERS = mma_sizes<D>::OTHERS };
    V *keys = room, *values = keys + TILE * PITCH, *queries = values + TILE * PITCH, *dys = queries + OTHERS * PITCH;
    float *lse = (float *)(dys + OTHERS * PITCH), *delta = lse + OTHERS;
    const int lane = (int)threadIdx.x % 32, own = (int)threadIdx.x / 32 * 16, column = lane % 4 * 2;
    const size_t b = blockIdx.x / a.g, g = blockIdx.x % a.g, first = (size_t)blockIdx.y * TILE;
    const size_t key = first + own + lane / 4;
    float dk[D / 8][4] = {}, dv[D / 8][4] = {};
    bring<D, TILE>(keys, attention_key<V>(a, b, g), a.ld, first, a.t);
    bring<D, TILE>(values, attention_value<V>(a, b, g), a.in, first, a.t);
    for (size_t h = g * a.r; h < (g + 1) * a.r; h++)
        for (size_t q0 = first; q0 < a.t; q0 += OTHERS) {
            float s[OTHERS / 8][4], dp[OTHERS / 8][4];
            const size_t number = (b * a.h + h) * a.t + q0 + threadIdx.x;
            __syncthreads();
            bring<D, OTHERS>(queries, attention_query<V>(a, b, h), a.ld, q0, a.t);
            bring<D, OTHERS>(dys, (const V *)a.dy + b * a.t * a.out + h * D, a.out, q0, a.t);
            if (threadIdx.x < OTHERS) {
                const bool inside = q0 + threadIdx.x < a.t;
                lse[threadIdx.x] = inside ? a.lse[number] : 0;
                delta[threadIdx.x] = inside ? a.delta[number] : 0;
            }
            wait_copies();
            __syncthreads();
            multiply_rows<D, OTHERS / 8>(
                s, queries, [&](uint32_t(&left)[4], int c) { left_of<D>(left, keys + own * PITCH, 16 * c); });
            multiply_rows<D, OTHERS / 8>(
                dp, dys, [&](uint32_t(&left)[4], int c) { left_of<D>(left, values + own * PITCH, 16 * c); });
#pragma unroll
            for (int n = 0; n < OTHERS / 8; n++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    const int q = 8 * n + column + e % 2;
                    const bool seen = key + e / 2 * 8 <= q0 + q;
                    s[n][e] = seen ? exp2_fast(fmaf(s[n][e], a.scale2, -lse[q])) : 0.0f;
                    dp[n][e] = s[n][e] * (dp[n][e] - delta[q]);
                }
            add_product<D, OTHERS / 8>(dv, s, dys);
            add_product<D, OTHERS / 8>(dk, dp, queries);
        }
    give<V, D>(a, dk, b, a.h + g, key, column, a.scale, true);
    give<V, D>(a, dv, b, a.h + a.g + g, key, column, 1, false);
}

#else
template <class V, int D> __device__ static void forward_block(const gpu_attention &, V *) {}
template <class V, int D> __device__ static void queries_block(const gpu_attention &, V *) {}
template <class V, int D> __device__ static void keys_block(const gpu_attention &, V *) {}
#endif

extern __shared__ __align__(16) char mma_room[];

template <class V, int D> __global__ static void __launch_bounds__(MMA_THREADS) mma_forward(gpu_attention a) {
    forward_block<V, D>(a, (V *)mma_room);
}
template <class V, int D> __global__ static void __launch_bounds__(MMA_THREADS) mma_queries(gpu_attention a) {
    queries_block<V, D>(a, (V *)mma_room);
}
template <class V, int D> __global__ static void __launch_bounds__(MMA_THREADS) mma_keys(gpu_attention a) {
    keys_block<V, D>(a, (V *)mma_room);
}

/* ---- launches */

int gpu_attention_has_mma(const tern_gpu_plan *plan, size_t d) {
    return plan->type != TERN_F32 && plan->context->major >= 8 && (d == 32 || d == 64 || d == 128);
}

/* Runs the statement with V = the values' type and D = d. */
#define BY_HEAD_WIDTH(plan, d, ...)               \
    do {                                          \
        if ((d) == 32) {                          \
            constexpr int D = 32;                 \
            GPU_BY_HALF(plan->type, __VA_ARGS__); \
        } else if ((d) == 64) {                   \
            constexpr int D = 64;                 \
            GPU_BY_HALF(plan->type, __VA_ARGS__); \
        } else {                                  \
            constexpr int D = 128;                \
            GPU_BY_HALF(plan->type, __VA_ARGS__); \
        }                                         \
    } while (0)

static cudaError_t let_have(const void *kernel, int bytes) {
    return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
}

tern_status gpu_attention_mma_prepare(tern_gpu_plan *plan, size_t node, size_t d, tern_error *err) {
    const char *name = gpu_graph_node(plan, node)->name;
    BY_HEAD_WIDTH(plan, d, {
        CUDA_TRY(let_have((const void *)mma_forward<V, D>, mma_sizes<D>::FORWARD_BYTES), name, err);
        CUDA_TRY(let_have((const void *)mma_queries<V, D>, mma_sizes<D>::QUERIES_BYTES), name, err);
        CUDA_TRY(let_have((const void *)mma_keys<V, D>, mma_sizes<D>::KEYS_BYTES), name, err);
    });
    return TERN_OK;
}

static dim3 mma_grid(const gpu_attention *a, size_t heads) {
    return dim3((unsigned)(a->batch * heads), gpu_attention_tiles(a));
}

tern_status gpu_attention_mma_forward(tern_gpu_plan *plan, size_t node, const gpu_attention *a, tern_error *err) {
    BY_HEAD_WIDTH(plan, a->d,
                  mma_forward<V, D>
                  <<<mma_grid(a, a->h), MMA_THREADS, mma_sizes<D>::FORWARD_BYTES, plan->stream>>>(*a));
    GPU_LAUNCHED(plan, node, err);
    return TERN_OK;
}

tern_status gpu_attention_mma_backward(tern_gpu_plan *plan, size_t node, const gpu_attention *a, tern_error *err) {
    BY_HEAD_WIDTH(plan, a->d,
                  mma_queries<V, D>
                  <<<mma_grid(a, a->h), MMA_THREADS, mma_sizes<D>::QUERIES_BYTES, plan->stream>>>(*a));
    GPU_LAUNCHED(plan, node, err);
    BY_HEAD_WIDTH(plan, a->d,
                  mma_keys<V, D><<<mma_grid(a, a->g), MMA_THREADS, mma_sizes<D>::KEYS_BYTES, plan->stream>>>(*a));
    GPU_LAUNCHED(plan, node, err);
    return TERN_OK;
}
