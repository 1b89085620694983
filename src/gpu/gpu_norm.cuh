/* Norms of rows, rmsnorm and layernorm: what the operation (gpu_op_norm.cu) and its kernels share. A row is a warp's, or
 * a block's where it is long; a thread keeps its values in registers, and those beyond KEPT are read again. */
#ifndef TERN_GPU_GPU_NORM_CUH
#define TERN_GPU_GPU_NORM_CUH

#include "gpu/gpu_async.cuh"
#include "gpu/gpu_columns.cuh"

enum {
    KEPT = 24,
    NORM_PARTS = 528 /* blocks of a gradient at most */
};

/* Of a row; kept for the backward pass. */
struct row_moments {
    float mean, r;
};

struct row_norm {
    size_t rows, n;
    const float *gain, *bias; /* NULL: 1 and 0 */
    row_moments *moments;
    float epsilon;
    int centred, squares;
};

/* What a norm does to a value as it is read, `of`, and the slope of that times r; only centred ones have a mean and a
 * bias. */
struct rms_rule {
    enum { CENTRED = 0 };
    __device__ static float of(float v) { return v; }
    __device__ static float slope(float, float r) { return r; }
};
struct rms_of_squares_rule {
    enum { CENTRED = 0 };
    __device__ static float of(float v) {
        const float most = fmaxf(v, 0.0f);
        return most * most;
    }
    __device__ static float slope(float v, float r) { return fmaxf(v, 0.0f) * (2 * r); }
};
struct layer_rule {
    enum { CENTRED = 1 };
    __device__ static float of(float v) { return v; }
    __device__ static float slope(float, float r) { return r; }
};

/* Runs the statement with R = the rule. */
#define BY_RULE(m, ...)                    \
    do {                                   \
        if ((m).centred) {                 \
            using R = layer_rule;          \
            __VA_ARGS__;                   \
        } else if ((m).squares) {          \
            using R = rms_of_squares_rule; \
            __VA_ARGS__;                   \
        } else {                           \
            using R = rms_rule;            \
            __VA_ARGS__;                   \
        }                                  \
    } while (0)

/* What a forward pass reads and makes: y, or with q int8 activations; of x, or with `sum` of that, which becomes
 * x + other. */
struct norm_arrays {
    const void *x, *other;
    void *sum, *y;
    int8_t *q;
    float *inv_scale;
};

/* Where sums of dx x over the heads of a row go: delta of gpu_attention.cuh. */
struct head_sums {
    float *delta;                  /* NULL: not wanted */
    unsigned heads, tokens, lanes; /* lanes: threads that share a head, a power of two up to a warp */
};

/* gpu_norm_forward.cu */
tern_status gpu_norm_forward(tern_gpu_plan *plan, size_t node, const row_norm &m, const norm_arrays &a,
                             tern_error *err);
/* gpu_norm_gradient.cu. That of the rows, and with `parts` [NORM_PARTS][n], sums of the gain's gradient: for rows that
 * registers hold whole. add_parts adds these to it. */
tern_status gpu_norm_gradient(tern_gpu_plan *plan, size_t node, const row_norm &m, float *parts,
                              const head_sums &of_heads, tern_error *err);
tern_status gpu_norm_add_parts(tern_gpu_plan *plan, size_t node, const row_norm &m, float *gain, const float *parts,
                               tern_error *err);
/* Gradients of gain and bias by a pass of their own; NULL: not wanted. */
tern_status gpu_norm_sum_gradients(tern_gpu_plan *plan, size_t node, const row_norm &m, float *dgain, float *dbias,
                                   tern_error *err);

/* Rows of so many columns are whole in the registers of a block. */
static inline bool gpu_norm_fits(size_t n) { return n <= 512 * KEPT; }

/* ---- rows in registers */

/* Threads of a block, WIDTH a row, and rows that it has at once. */
#define NORM_THREADS(WIDTH) (WIDTH < 128 ? 128 : WIDTH)
#define NORM_TEAMS(WIDTH) (NORM_THREADS(WIDTH) / WIDTH)

/* Rows of bf16 in whole packs come by way of shared memory, the next one while one is worked at: two stages of three
 * rows are all that every GPU lets a block have. */
template <class T, int N, int WIDTH> struct norm_staging {
    enum { PACKS = KEPT / N, STAGED = sizeof(T) == 2 && N > 1 && WIDTH <= 128, STAGES = STAGED ? 2 : 1 };
    typedef gpu_columns_pack<T, N> pack;
    typedef pack room[STAGES][STAGED ? PACKS : 1]
                     [STAGED ? NORM_THREADS(WIDTH) : 1]; /* each thread has its own places */
};

/* One thread's share of rows of one array: packs of N elements, WIDTH threads apart. */
template <class T, int N, int WIDTH> struct norm_share {
    typedef norm_staging<T, N, WIDTH> staging;
    typedef typename staging::pack pack;
    enum { PACKS = staging::PACKS };
    typename staging::room &room;
    const T *from;
    size_t n;

    __device__ size_t column(int k) const { return ((size_t)k * WIDTH + threadIdx.x % WIDTH) * N; }
    __device__ void ask(size_t row, int stage) const {
        if constexpr (staging::STAGED)
#pragma unroll
            for (int k = 0; k < PACKS; k++)
                if (column(k) < n) gpu_copy_async(&room[stage][k][threadIdx.x], from + row * n + column(k));
    }
    __device__ pack get(size_t row, int stage, int k) const {
        if constexpr (staging::STAGED) return room[stage][k][threadIdx.x];
        return *(const pack *)(from + row * n + column(k));
    }
};

/* The sum of v over the threads of a row, and the largest. `room` has a place for each warp, and is not written again
 * before another one has been used. */
template <int WIDTH> __device__ static float team_sum(float v, float *room) {
    v = warp_sum(v);
    if constexpr (WIDTH > 32) {
        if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = v;
        __syncthreads();
        v = 0;
        for (int i = 0; i < WIDTH / 32; i++) v += room[i];
    }
    return v;
}
template <int WIDTH> __device__ static unsigned team_max(unsigned v, unsigned *room) {
    for (int step = 16; step; step /= 2) v = max(v, __shfl_xor_sync(0xffffffffu, v, step));
    if constexpr (WIDTH > 32) {
        if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = v;
        __syncthreads();
        for (int i = 0; i < WIDTH / 32; i++) v = max(v, room[i]);
    }
    return v;
}

/* N neighbours of a parameter. */
template <int N>
__device__ static gpu_columns_pack<float, N> factors(const float *p, size_t column, float otherwise) {
    gpu_columns_pack<float, N> f;
    if (p) return *(const gpu_columns_pack<float, N> *)(p + column);
#pragma unroll
    for (int j = 0; j < N; j++) f.v[j] = otherwise;
    return f;
}

/* What sums of a block take. */
template <int WIDTH> union norm_room {
    float sum[NORM_THREADS(WIDTH) / 32];
    unsigned most[NORM_THREADS(WIDTH) / 32];
};

/* Runs the statement with WIDTH = the threads of a row of n elements, and EXACT where they hold just as many: code
 * without conditions, for packs of N. */
#define BY_WIDTH(n, N, ...)               \
    do {                                  \
        if ((n) == 32 * KEPT) {           \
            constexpr int WIDTH = 32;     \
            constexpr bool EXACT = N > 1; \
            __VA_ARGS__;                  \
        } else if ((n) < 32 * KEPT) {     \
            constexpr int WIDTH = 32;     \
            constexpr bool EXACT = false; \
            __VA_ARGS__;                  \
        } else if ((n) == 128 * KEPT) {   \
            constexpr int WIDTH = 128;    \
            constexpr bool EXACT = N > 1; \
            __VA_ARGS__;                  \
        } else if ((n) < 128 * KEPT) {    \
            constexpr int WIDTH = 128;    \
            constexpr bool EXACT = false; \
            __VA_ARGS__;                  \
        } else {                          \
            constexpr int WIDTH = 512;    \
            constexpr bool EXACT = false; \
            __VA_ARGS__;                  \
        }                                 \
    } while (0)

/* Blocks for all rows, and at most so many. */
static inline unsigned norm_blocks(const row_norm &m, size_t most) {
    const size_t teams = m.n <= 32 * KEPT ? NORM_TEAMS(32) : 1, blocks = tern_ceil_div(m.rows, teams);
    return (unsigned)(blocks < most ? blocks : most);
}

#endif
