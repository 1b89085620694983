/* rmsnorm, layernorm: nn/op_norm.c's formulas, with mean 0 for rmsnorm. A row is a warp's, or a block's where it is
 * long; a thread keeps its values in registers, and those beyond KEPT are read again. */
#include "gpu/gpu_columns.cuh"

enum { KEPT = 16 };

/* Of a row; kept for the backward pass. */
struct row_moments {
    float mean, r;
};

struct row_norm {
    size_t rows, n;
    const float *gain, *bias; /* NULL: 1 and 0 */
    row_moments *moments;
    float epsilon;
    int centred;
};

static row_norm norm_of(const tern_gpu_plan *plan, size_t i, int centred) {
    const tern_node *node = gpu_graph_node(plan, i);
    row_norm m = {};
    m.rows = plan->batch * node->rows;
    m.n = node->channels;
    m.gain = node->params > 0 ? gpu_node_param(plan, i, 0)->value : NULL;
    m.bias = node->params > 1 ? gpu_node_param(plan, i, 1)->value : NULL;
    m.moments = *(row_moments **)plan->node[i].state;
    m.epsilon = node->at.epsilon;
    m.centred = centred;
    return m;
}

/* ---- rows in registers */

/* One thread's share of a row of x and, with ROWS = 2, of dy: packs of N elements, WIDTH threads apart. */
template <class T, int N, int WIDTH, int ROWS> struct norm_share {
    enum { PACKS = KEPT / N };
    const T *from[ROWS];
    size_t n, lane;
    float v[ROWS][KEPT];

    __device__ void read(float *to, int row, size_t column) const {
        const gpu_columns_pack<T, N> p = *(const gpu_columns_pack<T, N> *)(from[row] + column);
#pragma unroll
        for (int j = 0; j < N; j++) to[j] = to_float(p.v[j]);
    }
    __device__ void load() {
#pragma unroll
        for (int k = 0; k < PACKS; k++)
#pragma unroll
            for (int row = 0; row < ROWS; row++)
                if ((k * WIDTH + lane) * N < n) read(v[row] + k * N, row, (k * WIDTH + lane) * N);
    }
    /* f(column, N values of x, N of dy) for all packs. */
    template <class F> __device__ void each(F f) const {
#pragma unroll
        for (int k = 0; k < PACKS; k++)
            if ((k * WIDTH + lane) * N < n) f((k * WIDTH + lane) * N, v[0] + k * N, v[ROWS - 1] + k * N);
        for (size_t column = (PACKS * WIDTH + lane) * N; column < n; column += WIDTH * N) {
            float w[ROWS][N];
            for (int row = 0; row < ROWS; row++) read(w[row], row, column);
            f(column, w[0], w[ROWS - 1]);
        }
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

template <class T, int N, int WIDTH>
__global__ static void __launch_bounds__(WIDTH == 32 ? (int)GPU_THREADS : WIDTH)
    norm_forward(T *y, const T *x, row_norm m) {
    const size_t row = my_row<WIDTH>();
    if (row >= m.rows) return;
    norm_share<T, N, WIDTH, 1> share = {{x + row * m.n}, m.n, threadIdx.x % WIDTH, {}};
    share.load();
    float mean = 0, square = 0;
    if (m.centred) {
        share.each([&](size_t, const float *v, const float *) {
#pragma unroll
            for (int j = 0; j < N; j++) mean += v[j];
        });
        mean = share_sum<WIDTH>(mean) / (float)m.n;
    }
    share.each([&](size_t, const float *v, const float *) {
#pragma unroll
        for (int j = 0; j < N; j++) square += (v[j] - mean) * (v[j] - mean);
    });
    const float r = 1.0f / sqrtf(share_sum<WIDTH>(square) / (float)m.n + m.epsilon);
    if (threadIdx.x % WIDTH == 0) m.moments[row] = {mean, r};
    share.each([&](size_t column, const float *v, const float *) {
        const gpu_columns_pack<float, N> gain = factors<N>(m.gain, column, 1), bias = factors<N>(m.bias, column, 0);
        gpu_columns_pack<T, N> out;
#pragma unroll
        for (int j = 0; j < N; j++) out.v[j] = from_float<T>((v[j] - mean) * r * gain.v[j] + bias.v[j]);
        *(gpu_columns_pack<T, N> *)(y + row * m.n + column) = out;
    });
}

template <class T, int N, int WIDTH>
__global__ static void __launch_bounds__(WIDTH == 32 ? (int)GPU_THREADS : WIDTH)
    norm_gradient(T *dx, const T *x, const T *dy, row_norm m, int add) {
    const size_t row = my_row<WIDTH>();
    if (row >= m.rows) return;
    norm_share<T, N, WIDTH, 2> share = {{x + row * m.n, dy + row * m.n}, m.n, threadIdx.x % WIDTH, {}};
    share.load();
    const row_moments at = m.moments[row];
    float flat = 0, along = 0;
    share.each([&](size_t column, const float *v, const float *g) {
        const gpu_columns_pack<float, N> gain = factors<N>(m.gain, column, 1);
#pragma unroll
        for (int j = 0; j < N; j++) {
            const float through = g[j] * gain.v[j];
            flat += through;
            along += through * ((v[j] - at.mean) * at.r);
        }
    });
    along = share_sum<WIDTH>(along) / (float)m.n;
    flat = m.centred ? share_sum<WIDTH>(flat) / (float)m.n : 0;
    share.each([&](size_t column, const float *v, const float *g) {
        const gpu_columns_pack<float, N> gain = factors<N>(m.gain, column, 1);
        gpu_columns_pack<T, N> *to = (gpu_columns_pack<T, N> *)(dx + row * m.n + column), out;
        if (add) out = *to;
#pragma unroll
        for (int j = 0; j < N; j++) {
            const float d = at.r * (g[j] * gain.v[j] - flat - (v[j] - at.mean) * at.r * along);
            out.v[j] = from_float<T>(add ? to_float(out.v[j]) + d : d);
        }
        *to = out;
    });
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
    const row_moments *moments;
    __device__ column at(size_t) const { return {}; }
    __device__ row of(size_t r) const { return {moments[r].mean, moments[r].r}; }
    __device__ void add(float &sum, float &along, float x, float dy, column, row m) const {
        sum += dy;
        along += dy * ((x - m.mean) * m.r);
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

static tern_status prepare(tern_gpu_plan *plan, size_t i, tern_error *err) {
    const tern_node *node = gpu_graph_node(plan, i);
    GPU_CHECK(gpu_state(plan, i, sizeof(row_moments *), err));
    gpu_want_scratch(plan, gpu_pair_sums_scratch(plan->type, node->channels));
    return gpu_keep(plan, (void **)plan->node[i].state, plan->batch_max * node->rows * sizeof(row_moments),
                    node->name, err);
}

template <int CENTRED> static tern_status forward(tern_gpu_plan *plan, size_t i, tern_error *err) {
    const row_norm m = norm_of(plan, i, CENTRED);
    void *y = plan->node[i].value;
    const void *x = gpu_in(plan, i, 0);
    GPU_BY_TYPE(plan->type, GPU_BY_PACK(T, m.n,
                                        BY_WIDTH(m.n, m.rows,
                                                 norm_forward<T, N, WIDTH>
                                                 <<<blocks, threads, 0, plan->stream>>>((T *)y, (const T *)x, m))));
    GPU_LAUNCHED(plan, i, err);
    return TERN_OK;
}

static tern_status pass_gradient(tern_gpu_plan *plan, size_t i, const row_norm &m, tern_error *err) {
    void *dx = gpu_in_grad(plan, i, 0);
    const void *x = gpu_in(plan, i, 0), *dy = plan->node[i].grad;
    const int add = plan->node[i].add_to[0];
    if (!dx) return TERN_OK;
    GPU_BY_TYPE(plan->type, GPU_BY_PACK(T, m.n,
                                        BY_WIDTH(m.n, m.rows,
                                                 norm_gradient<T, N, WIDTH><<<blocks, threads, 0, plan->stream>>>(
                                                     (T *)dx, (const T *)x, (const T *)dy, m, add))));
    GPU_LAUNCHED(plan, i, err);
    return TERN_OK;
}

template <int CENTRED> static tern_status backward(tern_gpu_plan *plan, size_t i, tern_error *err) {
    const row_norm m = norm_of(plan, i, CENTRED);
    GPU_CHECK(pass_gradient(plan, i, m, err));
    const add_gradients finish = {m.gain ? gpu_node_param(plan, i, 0)->grad : NULL,
                                  m.bias ? gpu_node_param(plan, i, 1)->grad : NULL};
    if (!finish.dgain && !finish.dbias) return TERN_OK;
    GPU_BY_TYPE(plan->type,
                return gpu_pair_sums<T>(plan, i, (const T *)gpu_in(plan, i, 0), (const T *)plan->node[i].grad, m.rows,
                                        m.n, plan->scratch, along_rows{m.moments}, finish, err));
}

extern const gpu_op gpu_op_rmsnorm = {"rmsnorm", prepare, NULL, forward<0>, backward<0>};
/* Its gain is a view of integers, which the optimiser steps. */
extern const gpu_op gpu_op_trit_rmsnorm = {"trit_rmsnorm", prepare, NULL, forward<0>, backward<0>};
extern const gpu_op gpu_op_layernorm = {"layernorm", prepare, NULL, forward<1>, backward<1>};
