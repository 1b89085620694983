/* rmsnorm, layernorm: nn/op_norm.c's formulas, with mean 0 for rmsnorm. A row is a warp's, or a block's where it is
 * long; a thread keeps its values in registers, and those beyond KEPT are read again.
 *
 * Two neighbours are taken in, as they would only pass the row on. An activation in front of the norm alone (layout.h) is
 * applied to values as they are read. Where a product of int8 activations is the only reader, the norm gives it these,
 * and no value of its own: they are of the fp32 values, as on the CPU. */
#include "gpu/gpu_columns.cuh"
#include "gpu/gpu_quantize.cuh"

enum { KEPT = 24, WARP_PARTS = 264, BLOCK_PARTS = 528 /* blocks of a gradient */ };

/* Of a row; kept for the backward pass. */
struct row_moments {
    float mean, r;
};

struct norm_state {
    row_moments *moments;
    bool squares;       /* relu2 is within */
    size_t int8_reader; /* the product that takes int8, 0: none */
};

static norm_state *state_of(const tern_gpu_plan *plan, size_t i) { return (norm_state *)plan->node[i].state; }

struct row_norm {
    size_t rows, n;
    const float *gain, *bias; /* NULL: 1 and 0 */
    row_moments *moments;
    float epsilon;
    int centred, squares;
};

/* What a norm does to a value as it is read, `of`, and the slope of that; only centred ones have a mean and a bias. */
struct rms_rule {
    enum { CENTRED = 0 };
    __device__ static float of(float v) { return v; }
    __device__ static float slope(float) { return 1; }
};
struct rms_of_squares_rule {
    enum { CENTRED = 0 };
    __device__ static float of(float v) {
        const float most = fmaxf(v, 0.0f);
        return most * most;
    }
    __device__ static float slope(float v) { return 2 * fmaxf(v, 0.0f); }
};
struct layer_rule {
    enum { CENTRED = 1 };
    __device__ static float of(float v) { return v; }
    __device__ static float slope(float) { return 1; }
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

static row_norm norm_of(const tern_gpu_plan *plan, size_t i, int centred) {
    const tern_node *node = gpu_graph_node(plan, i);
    row_norm m = {};
    m.rows = plan->batch * node->rows;
    m.n = node->channels;
    m.gain = node->params > 0 ? gpu_node_param(plan, i, 0)->value : NULL;
    m.bias = node->params > 1 ? gpu_node_param(plan, i, 1)->value : NULL;
    m.moments = state_of(plan, i)->moments;
    m.epsilon = node->at.epsilon;
    m.centred = centred;
    m.squares = state_of(plan, i)->squares;
    return m;
}

/* ---- rows in registers */

/* One thread's share of a row of x and, with ROWS = 2, of dy: packs of N elements, WIDTH threads apart. They stay as
 * they are stored. */
template <class T, int N, int WIDTH, int ROWS> struct norm_share {
    enum { PACKS = KEPT / N };
    typedef gpu_columns_pack<T, N> pack;
    const T *from[ROWS];
    size_t n, lane;
    pack kept[ROWS][PACKS];

    __device__ void load(const T *x, const T *dy) {
        from[0] = x;
        from[ROWS - 1] = ROWS > 1 ? dy : x;
#pragma unroll
        for (int k = 0; k < PACKS; k++)
#pragma unroll
            for (int row = 0; row < ROWS; row++)
                if ((k * WIDTH + lane) * N < n) kept[row][k] = *(const pack *)(from[row] + (k * WIDTH + lane) * N);
    }
    template <class F> __device__ static void give(const pack &x, const pack &dy, int k, size_t column, F f) {
        float v[N], g[N];
#pragma unroll
        for (int j = 0; j < N; j++) {
            v[j] = to_float(x.v[j]);
            g[j] = ROWS > 1 ? to_float(dy.v[j]) : 0.0f;
        }
        f(k, column, v, g);
    }
    /* f(pack's number, column, N values of x, N of dy) for all packs; the number is -1 of those that are not kept. */
    template <class F> __device__ void each(F f) const {
#pragma unroll
        for (int k = 0; k < PACKS; k++)
            if ((k * WIDTH + lane) * N < n) give(kept[0][k], kept[ROWS - 1][k], k, (k * WIDTH + lane) * N, f);
        for (size_t column = (PACKS * WIDTH + lane) * N; column < n; column += WIDTH * N)
            give(*(const pack *)(from[0] + column), *(const pack *)(from[ROWS - 1] + column), -1, column, f);
    }
};

template <int WIDTH> __device__ static float share_sum(float v) {
    if constexpr (WIDTH == 32) return warp_sum(v);
    return block_sum(v);
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

enum { WARP_ROWS = GPU_THREADS / 32 };

/* Of this thread: WARP_ROWS rows a block, or one. */
template <int WIDTH> __device__ static size_t my_row() {
    return WIDTH == 32 ? (size_t)blockIdx.x * WARP_ROWS + threadIdx.x / 32 : blockIdx.x;
}

/* Threads of a block. */
#define NORM_THREADS(WIDTH) (WIDTH == 32 ? (int)GPU_THREADS : WIDTH)
/* Blocks that a multiprocessor is to have at once, of bf16 values: with more of them sums leave the registers. */
#define NORM_BLOCKS(T, WIDTH) (sizeof(T) == 4 || WIDTH == 512 ? 1 : WIDTH == 32 ? 2 : 4)

template <int WIDTH> __device__ static unsigned share_max(unsigned v) {
    for (int step = 16; step; step /= 2) v = max(v, __shfl_xor_sync(0xffffffffu, v, step));
    if constexpr (WIDTH > 32) {
        __shared__ unsigned room[WIDTH / 32];
        __syncthreads();
        if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = v;
        __syncthreads();
        for (int i = 0; i < WIDTH / 32; i++) v = max(v, room[i]);
    }
    return v;
}

/* N neighbours of the result. */
template <class R, int N>
__device__ static void normalised(float (&out)[N], const row_norm &m, const row_moments &at, size_t column,
                                  const float *v) {
    const gpu_columns_pack<float, N> gain = factors<N>(m.gain, column, 1);
    gpu_columns_pack<float, N> bias;
    if (R::CENTRED) bias = factors<N>(m.bias, column, 0);
#pragma unroll
    for (int j = 0; j < N; j++)
        out[j] =
            R::CENTRED ? fmaf((R::of(v[j]) - at.mean) * at.r, gain.v[j], bias.v[j]) : R::of(v[j]) * at.r * gain.v[j];
}

template <class R, class T, int N, int WIDTH>
__device__ static row_moments find_moments(const norm_share<T, N, WIDTH, 1> &share, const row_norm &m) {
    float mean = 0, square = 0;
    if (R::CENTRED) {
        share.each([&](int, size_t, const float *v, const float *) {
#pragma unroll
            for (int j = 0; j < N; j++) mean += R::of(v[j]);
        });
        mean = share_sum<WIDTH>(mean) / (float)m.n;
    }
    share.each([&](int, size_t, const float *v, const float *) {
#pragma unroll
        for (int j = 0; j < N; j++) {
            const float far = R::CENTRED ? R::of(v[j]) - mean : R::of(v[j]);
            square = fmaf(far, far, square);
        }
    });
    return {mean, 1.0f / sqrtf(share_sum<WIDTH>(square) / (float)m.n + m.epsilon)};
}

/* A row by quantize_rows.cu's rule. Below 2^22 a sum with 3 * 2^22 has the nearest whole number in its last bits. */
template <class R, class T, int N, int WIDTH>
__device__ static void give_int8(int8_t *q, float *inv_scale, const norm_share<T, N, WIDTH, 1> &share,
                                 const row_norm &m, const row_moments &at) {
    unsigned most = 0;
    share.each([&](int, size_t column, const float *v, const float *) {
        float f[N];
        normalised<R, N>(f, m, at, column, v);
#pragma unroll
        for (int j = 0; j < N; j++) most = max(most, __float_as_uint(f[j]) & 0x7fffffffu);
    });
    most = share_max<WIDTH>(most);
    const bool finite = most < 0x7f800000u;
    const float s = __fdiv_rn(127.0f, fmaxf(__uint_as_float(most), 1e-5f));
    share.each([&](int, size_t column, const float *v, const float *) {
        float f[N];
        gpu_columns_pack<int8_t, N> out;
        normalised<R, N>(f, m, at, column, v);
#pragma unroll
        for (int j = 0; j < N; j++)
            out.v[j] = finite ? (int8_t)__float_as_int(__fadd_rn(__fmul_rn(f[j], s), 12582912.0f)) : (int8_t)0;
        *(gpu_columns_pack<int8_t, N> *)(q + column) = out;
    });
    if (threadIdx.x % WIDTH == 0) *inv_scale = finite ? __fdiv_rn(1.0f, s) : __uint_as_float(0x7fc00000u);
}

/* y, or with q int8 activations. */
template <class R, class T, int N, int WIDTH>
__global__ static void __launch_bounds__(NORM_THREADS(WIDTH))
    norm_forward(T *y, int8_t *q, float *inv_scale, const T *x, row_norm m) {
    const size_t row = my_row<WIDTH>();
    if (row >= m.rows) return;
    norm_share<T, N, WIDTH, 1> share = {};
    share.n = m.n;
    share.lane = threadIdx.x % WIDTH;
    share.load(x + row * m.n, NULL);
    const row_moments at = find_moments<R, T, N, WIDTH>(share, m);
    if (threadIdx.x % WIDTH == 0) m.moments[row] = at;
    if (q) {
        give_int8<R, T, N, WIDTH>(q + row * m.n, inv_scale + row, share, m, at);
        return;
    }
    share.each([&](int, size_t column, const float *v, const float *) {
        float f[N];
        gpu_columns_pack<T, N> out;
        normalised<R, N>(f, m, at, column, v);
#pragma unroll
        for (int j = 0; j < N; j++) out.v[j] = from_float<T>(f[j]);
        *(gpu_columns_pack<T, N> *)(y + row * m.n + column) = out;
    });
}

/* A block's sums of the gain's gradient, [n] of parts: of its warps in their order, or its threads' own. */
template <int N, int WIDTH> __device__ static void give_part(float *part, const float (&sum)[KEPT], size_t n) {
    enum { COLUMNS = WIDTH == 32 ? 32 * KEPT : 1 };
    __shared__ float room[COLUMNS];
    const size_t lane = threadIdx.x % WIDTH;
    if constexpr (WIDTH > 32) {
#pragma unroll
        for (int k = 0; k < KEPT; k++) {
            const size_t column = ((size_t)(k / N) * WIDTH + lane) * N + k % N;
            if (column < n) part[column] = sum[k];
        }
    } else {
        for (unsigned warp = 0; warp < blockDim.x / 32; warp++) {
            if (threadIdx.x / 32 == warp)
#pragma unroll
                for (int k = 0; k < KEPT; k++) {
                    const size_t column = ((size_t)(k / N) * 32 + lane) * N + k % N;
                    if (column < n) room[column] = (warp ? room[column] : 0.0f) + sum[k];
                }
            __syncthreads();
        }
        for (size_t column = threadIdx.x; column < n; column += blockDim.x) part[column] = room[column];
    }
}

/* dx (+)= ..., and with `parts`, [blocks][n], sums of the gain's gradient: for rows that registers hold whole. */
template <class R, class T, int N, int WIDTH>
__global__ static void __launch_bounds__(NORM_THREADS(WIDTH), NORM_BLOCKS(T, WIDTH))
    norm_gradient(T *dx, const T *x, const T *dy, row_norm m, int add, float *parts) {
    const size_t step = (size_t)gridDim.x * (WIDTH == 32 ? WARP_ROWS : 1);
    norm_share<T, N, WIDTH, 2> share = {};
    float sum[KEPT] = {};
    share.n = m.n;
    share.lane = threadIdx.x % WIDTH;
    for (size_t row = my_row<WIDTH>(); row < m.rows; row += step) {
        share.load(x + row * m.n, dy + row * m.n);
        const row_moments at = m.moments[row];
        float flat = 0, along = 0;
        share.each([&](int k, size_t column, const float *v, const float *g) {
            const gpu_columns_pack<float, N> gain = factors<N>(m.gain, column, 1);
#pragma unroll
            for (int j = 0; j < N; j++) {
                const float hat = (R::CENTRED ? R::of(v[j]) - at.mean : R::of(v[j])) * at.r;
                const float through = g[j] * gain.v[j];
                if (R::CENTRED) flat += through;
                along = fmaf(through, hat, along);
                if (k >= 0) sum[k * N + j] = fmaf(g[j], hat, sum[k * N + j]);
            }
        });
        along = share_sum<WIDTH>(along) / (float)m.n;
        if (R::CENTRED) flat = share_sum<WIDTH>(flat) / (float)m.n;
        if (!dx) continue;
        share.each([&](int, size_t column, const float *v, const float *g) {
            const gpu_columns_pack<float, N> gain = factors<N>(m.gain, column, 1);
            gpu_columns_pack<T, N> *to = (gpu_columns_pack<T, N> *)(dx + row * m.n + column), out;
            if (add) out = *to;
#pragma unroll
            for (int j = 0; j < N; j++) {
                const float hat = (R::CENTRED ? R::of(v[j]) - at.mean : R::of(v[j])) * at.r;
                const float through = R::CENTRED ? g[j] * gain.v[j] - flat : g[j] * gain.v[j];
                const float d = at.r * fmaf(-hat, along, through) * R::slope(v[j]);
                out.v[j] = from_float<T>(add ? to_float(out.v[j]) + d : d);
            }
            *to = out;
        });
    }
    if (parts) give_part<N, WIDTH>(parts + (size_t)blockIdx.x * m.n, sum, m.n);
}

enum { FINISH = 32 };

/* gain[c] += the sum of parts[p][c], by a block of FINISH x FINISH for as many columns. */
__global__ static void __launch_bounds__(FINISH *FINISH)
    add_gain_parts(float *gain, const float *parts, unsigned count, size_t n) {
    __shared__ float room[FINISH][FINISH + 1];
    const size_t column = (size_t)blockIdx.x * FINISH + threadIdx.x;
    float sum = 0;
    if (column < n)
        for (unsigned part = threadIdx.y; part < count; part += FINISH) sum += parts[(size_t)part * n + column];
    room[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    sum = warp_sum(room[threadIdx.x][threadIdx.y]); /* a warp a column */
    const size_t own = (size_t)blockIdx.x * FINISH + threadIdx.y;
    if (threadIdx.x == 0 && own < n) gain[own] += sum;
}

/* Runs the statement with WIDTH = the threads of a row of n elements, and `blocks` and `threads` to launch. */
#define BY_WIDTH(n, rows, ...)                                                        \
    do {                                                                              \
        if ((n) <= 32 * KEPT) {                                                       \
            constexpr int WIDTH = 32, threads = GPU_THREADS;                          \
            const unsigned blocks = (unsigned)(((rows) + WARP_ROWS - 1) / WARP_ROWS); \
            __VA_ARGS__;                                                              \
        } else if ((n) <= 128 * KEPT) {                                               \
            constexpr int WIDTH = 128, threads = WIDTH;                               \
            const unsigned blocks = (unsigned)(rows);                                 \
            __VA_ARGS__;                                                              \
        } else {                                                                      \
            constexpr int WIDTH = 512, threads = WIDTH;                               \
            const unsigned blocks = (unsigned)(rows);                                 \
            __VA_ARGS__;                                                              \
        }                                                                             \
    } while (0)

/* ---- gradients of gain and bias */

struct along_rows {
    struct column {};
    struct row {
        float mean, r;
    };
    row_norm m;
    __device__ column at(size_t) const { return {}; }
    __device__ row of(size_t r) const { return {m.moments[r].mean, m.moments[r].r}; }
    __device__ void add(float &sum, float &along, float x, float dy, column, row at) const {
        sum += dy;
        along += dy * (((m.squares ? rms_of_squares_rule::of(x) : x) - at.mean) * at.r);
    }
};

struct add_gradients {
    float *dgain, *dbias; /* NULL: not wanted */
    __device__ void operator()(size_t c, double sum, double along) const {
        if (dbias) dbias[c] += (float)sum;
        if (dgain) dgain[c] += (float)along;
    }
};

/* ---- the operations */

/* Rows of so many columns are whole in the registers of a block. */
static bool fits(size_t n) { return n <= 512 * KEPT; }
static unsigned gradient_parts(const row_norm &m) {
    const size_t most = m.n <= 32 * KEPT ? WARP_PARTS : BLOCK_PARTS;
    const size_t blocks = m.n <= 32 * KEPT ? (m.rows + WARP_ROWS - 1) / WARP_ROWS : m.rows;
    return (unsigned)(blocks < most ? blocks : most);
}

/* The only reader of node i if it takes int8 of its rows; else 0. */
static size_t find_int8_reader(const tern_gpu_plan *plan, size_t i) {
    size_t reader = 0, count = 0;
    for (size_t r = i + 1; r < plan->graph->nodes; r++)
        for (int k = 0; k < plan->graph->node[r].inputs; k++)
            if ((size_t)plan->graph->node[r].input[k] == i) {
                reader = r;
                count++;
            }
    return count == 1 && gpu_takes_int8_rows(gpu_graph_node(plan, reader)) ? reader : 0;
}

static tern_status prepare(tern_gpu_plan *plan, size_t i, tern_error *err) {
    const tern_node *node = gpu_graph_node(plan, i);
    GPU_CHECK(gpu_state(plan, i, sizeof(norm_state), err));
    norm_state *state = state_of(plan, i);
    state->squares = plan->node[node->input[0]].within != 0;
    state->int8_reader = find_int8_reader(plan, i);
    plan->node[i].gives_int8 = state->int8_reader != 0;
    const size_t pairs = gpu_pair_sums_scratch(plan->type, node->channels);
    const size_t parts = BLOCK_PARTS * node->channels * sizeof(float);
    if (plan->training) gpu_want_scratch(plan, pairs > parts ? pairs : parts);
    return gpu_keep(plan, (void **)&state->moments, plan->batch_max * node->rows * sizeof(row_moments), node->name,
                    err);
}

template <int CENTRED> static tern_status forward(tern_gpu_plan *plan, size_t i, tern_error *err) {
    const row_norm m = norm_of(plan, i, CENTRED);
    const size_t reader = state_of(plan, i)->int8_reader;
    int8_t *q = reader ? plan->node[reader].q : NULL;
    float *inv_scale = reader ? plan->node[reader].inv_scale : NULL;
    void *y = plan->node[i].value;
    const void *x = gpu_in(plan, i, 0);
    BY_RULE(m, GPU_BY_TYPE(plan->type,
                           GPU_BY_PACK(T, m.n,
                                       BY_WIDTH(m.n, m.rows,
                                                norm_forward<R, T, N, WIDTH><<<blocks, threads, 0, plan->stream>>>(
                                                    (T *)y, q, inv_scale, (const T *)x, m)))));
    GPU_LAUNCHED(plan, i, err);
    return TERN_OK;
}

/* parts: of the gain's gradient, [gradient_parts][n]; NULL: not wanted. */
static tern_status pass_gradient(tern_gpu_plan *plan, size_t i, const row_norm &m, float *parts, tern_error *err) {
    void *dx = gpu_in_grad(plan, i, 0);
    const void *x = gpu_in(plan, i, 0), *dy = plan->node[i].grad;
    const int add = plan->node[i].add_to[0];
    if (!dx && !parts) return TERN_OK;
    BY_RULE(m, GPU_BY_TYPE(plan->type,
                           GPU_BY_PACK(T, m.n,
                                       BY_WIDTH(m.n, m.rows,
                                                norm_gradient<R, T, N, WIDTH>
                                                <<<parts ? gradient_parts(m) : blocks, threads, 0, plan->stream>>>(
                                                    (T *)dx, (const T *)x, (const T *)dy, m, add, parts)))));
    GPU_LAUNCHED(plan, i, err);
    return TERN_OK;
}

static tern_status add_parts(tern_gpu_plan *plan, size_t i, const row_norm &m, float *gain, const float *parts,
                             tern_error *err) {
    const unsigned blocks = (unsigned)((m.n + FINISH - 1) / FINISH);
    add_gain_parts<<<blocks, dim3(FINISH, FINISH), 0, plan->stream>>>(gain, parts, gradient_parts(m), m.n);
    GPU_LAUNCHED(plan, i, err);
    return TERN_OK;
}

template <int CENTRED> static tern_status backward(tern_gpu_plan *plan, size_t i, tern_error *err) {
    const row_norm m = norm_of(plan, i, CENTRED);
    const add_gradients finish = {m.gain ? gpu_node_param(plan, i, 0)->grad : NULL,
                                  m.bias ? gpu_node_param(plan, i, 1)->grad : NULL};
    const bool with_dx = finish.dgain && !finish.dbias && fits(m.n);
    float *parts = with_dx ? (float *)plan->scratch : NULL;
    GPU_CHECK(pass_gradient(plan, i, m, parts, err));
    if (with_dx) return add_parts(plan, i, m, finish.dgain, parts, err);
    if (!finish.dgain && !finish.dbias) return TERN_OK;
    GPU_BY_TYPE(plan->type,
                return gpu_pair_sums<T>(plan, i, (const T *)gpu_in(plan, i, 0), (const T *)plan->node[i].grad, m.rows,
                                        m.n, plan->scratch, along_rows{m}, finish, err));
}

extern const gpu_op gpu_op_rmsnorm = {"rmsnorm", prepare, NULL, forward<0>, backward<0>};
/* Its gain is a view of integers, which the optimiser steps. */
extern const gpu_op gpu_op_trit_rmsnorm = {"trit_rmsnorm", prepare, NULL, forward<0>, backward<0>};
extern const gpu_op gpu_op_layernorm = {"layernorm", prepare, NULL, forward<1>, backward<1>};
