/* rmsnorm, layernorm: nn/op_norm.c's formulas, with mean 0 for rmsnorm. A row is a warp's, or a block's where it is
 * long; a thread keeps its values in registers, and those beyond KEPT are read again.
 *
 * Some neighbours are taken in, as they would only pass the row on. An activation in front of the norm alone
 * (layout.h) is applied to values as they are read. Where a product of int8 activations is the only reader, the norm
 * gives it these, and no value of its own: they are of the fp32 values, as on the CPU. Such a norm also makes the sum
 * that it reads. Behind attention the gradient gives the row sums of dy y that attention's gradient begins with. */
#include <string.h>

#include "gpu/gpu_async.cuh"
#include "gpu/gpu_attention.cuh"
#include "gpu/gpu_columns.cuh"
#include "gpu/gpu_norm_of_rows.cuh"
#include "gpu/gpu_quantize.cuh"

enum {
    KEPT = 24,
    FORWARD_BLOCKS = 6, /* of a multiprocessor, where rows are staged */
    PARTS = 528         /* blocks of a gradient at most */
};

/* Of a row; kept for the backward pass. */
struct row_moments {
    float mean, r;
};

struct norm_state {
    row_moments *moments;
    bool squares;       /* relu2 is within */
    size_t int8_reader; /* the product that takes int8, 0: none */
    size_t addition;    /* the node whose value is made here, 0: none */
    float *delta;       /* of the attention in front, made here; NULL: none */
};

static norm_state *state_of(const tern_gpu_plan *plan, size_t i) { return (norm_state *)plan->node[i].state; }

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

/* ---- forward */

template <class T, int N>
__device__ static gpu_columns_pack<T, N> added(const gpu_columns_pack<T, N> &a, const gpu_columns_pack<T, N> &b) {
    gpu_columns_pack<T, N> sum;
#pragma unroll
    for (int j = 0; j < N; j++) sum.v[j] = from_float<T>(to_float(a.v[j]) + to_float(b.v[j]));
    return sum;
}

/* A thread's values of a row, as the rule reads them. */
template <class R, class T, int N, int WIDTH> struct norm_values {
    enum { PACKS = KEPT / N };
    float kept[PACKS][N];
    const T *row;
    size_t n;

    /* The row, or with `sum` the row of that, which becomes share's plus other's. */
    __device__ void take(const norm_share<T, N, WIDTH> &share, const norm_share<T, N, WIDTH> &other, T *sum,
                         size_t number, int stage) {
        typedef gpu_columns_pack<T, N> pack;
        pack p[PACKS];
        n = share.n;
        row = (sum ? sum : share.from) + number * n;
#pragma unroll
        for (int k = 0; k < PACKS; k++)
            if (share.column(k) < n) p[k] = share.get(number, stage, k);
        if (sum) {
            T *to = sum + number * n;
#pragma unroll
            for (int k = 0; k < PACKS; k++)
                if (share.column(k) < n) {
                    p[k] = added(p[k], other.get(number, stage, k));
                    *(pack *)(to + share.column(k)) = p[k];
                }
            for (size_t at = (PACKS * WIDTH + threadIdx.x % WIDTH) * N; at < n; at += WIDTH * N)
                *(pack *)(to + at) = added(*(const pack *)(share.from + number * n + at),
                                           *(const pack *)(other.from + number * n + at));
        }
#pragma unroll
        for (int k = 0; k < PACKS; k++)
#pragma unroll
            for (int j = 0; j < N; j++) kept[k][j] = share.column(k) < n ? R::of(to_float(p[k].v[j])) : 0;
    }
    /* f(is kept, column, N values) for all packs. Of those that are kept f may change the values. */
    template <class F> __device__ void each(F f) {
#pragma unroll
        for (int k = 0; k < PACKS; k++) {
            const size_t column = ((size_t)k * WIDTH + threadIdx.x % WIDTH) * N;
            if (column < n) f(gpu_yes(), column, kept[k]);
        }
        for (size_t column = (PACKS * WIDTH + threadIdx.x % WIDTH) * N; column < n; column += WIDTH * N) {
            const auto p = *(const gpu_columns_pack<T, N> *)(row + column);
            float v[N];
#pragma unroll
            for (int j = 0; j < N; j++) v[j] = R::of(to_float(p.v[j]));
            f(gpu_no(), column, v);
        }
    }
};

/* What sums of a block take, for three of them a row. */
template <int WIDTH> union norm_room {
    float sum[NORM_THREADS(WIDTH) / 32];
    unsigned most[NORM_THREADS(WIDTH) / 32];
};

/* N neighbours become the result. */
template <class R, int N>
__device__ static void normalise(float (&v)[N], const row_norm &m, const row_moments &at, size_t column) {
    const gpu_columns_pack<float, N> gain = factors<N>(m.gain, column, 1);
    gpu_columns_pack<float, N> bias;
    if (R::CENTRED) bias = factors<N>(m.bias, column, 0);
#pragma unroll
    for (int j = 0; j < N; j++)
        v[j] = R::CENTRED ? fmaf((v[j] - at.mean) * at.r, gain.v[j], bias.v[j]) : v[j] * at.r * gain.v[j];
}

template <class R, int N, int WIDTH, class Values>
__device__ static row_moments find_moments(Values &values, const row_norm &m, norm_room<WIDTH> (&room)[3]) {
    float mean = 0, square = 0;
    if (R::CENTRED) {
        values.each([&](auto, size_t, float(&v)[N]) {
#pragma unroll
            for (int j = 0; j < N; j++) mean += v[j];
        });
        mean = team_sum<WIDTH>(mean, room[0].sum) / (float)m.n;
    }
    values.each([&](auto, size_t, float(&v)[N]) {
#pragma unroll
        for (int j = 0; j < N; j++) {
            const float far = R::CENTRED ? v[j] - mean : v[j];
            square = fmaf(far, far, square);
        }
    });
    return {mean, 1.0f / sqrtf(team_sum<WIDTH>(square, room[1].sum) / (float)m.n + m.epsilon)};
}

/* The nearest whole number of v s is the last byte: below 2^22 a sum with 3 * 2^22 has it there. */
__device__ static uint32_t whole_bits(float v, float s) {
    return __float_as_uint(__fadd_rn(__fmul_rn(v, s), 12582912.0f));
}

/* N of them to q, zeros where the row is not finite; four neighbours are put together at once. */
template <int N> __device__ static void store_whole(int8_t *q, const float (&v)[N], float s, bool finite) {
    if constexpr (N % 4 == 0) {
        gpu_columns_pack<uint32_t, N / 4> out;
#pragma unroll
        for (int j = 0; j < N; j += 4) {
            const uint32_t low = __byte_perm(whole_bits(v[j], s), whole_bits(v[j + 1], s), 0x0040);
            const uint32_t high = __byte_perm(whole_bits(v[j + 2], s), whole_bits(v[j + 3], s), 0x0040);
            out.v[j / 4] = finite ? __byte_perm(low, high, 0x5410) : 0;
        }
        *(gpu_columns_pack<uint32_t, N / 4> *)q = out;
    } else {
        gpu_columns_pack<int8_t, N> out;
#pragma unroll
        for (int j = 0; j < N; j++) out.v[j] = finite ? (int8_t)whole_bits(v[j], s) : (int8_t)0;
        *(gpu_columns_pack<int8_t, N> *)q = out;
    }
}

/* A row by quantize_rows.cu's rule. */
template <class R, int N, int WIDTH, class Values>
__device__ static void give_int8(int8_t *q, float *inv_scale, Values &values, const row_norm &m,
                                 const row_moments &at, norm_room<WIDTH> &room) {
    unsigned most = 0;
    values.each([&](auto, size_t column, float(&v)[N]) {
        normalise<R, N>(v, m, at, column);
#pragma unroll
        for (int j = 0; j < N; j++) most = max(most, __float_as_uint(v[j]) & 0x7fffffffu);
    });
    most = team_max<WIDTH>(most, room.most);
    const bool finite = most < 0x7f800000u;
    const float s = __fdiv_rn(127.0f, fmaxf(__uint_as_float(most), 1e-5f));
    values.each([&](auto is_kept, size_t column, float(&v)[N]) {
        if (!is_kept) normalise<R, N>(v, m, at, column);
        store_whole(q + column, v, s, finite);
    });
    if (threadIdx.x % WIDTH == 0) *inv_scale = finite ? __fdiv_rn(1.0f, s) : __uint_as_float(0x7fc00000u);
}

/* y, or with q int8 activations; of x, or with `sum` of that, which becomes x + other. */
template <class R, class T, int N, int WIDTH, bool EXACT>
__global__ static void __launch_bounds__(NORM_THREADS(WIDTH),
                                         norm_staging<T, N, WIDTH>::STAGED ? (int)FORWARD_BLOCKS : 1)
    norm_forward(T *y, int8_t *q, float *inv_scale, const T *x, const T *other, T *sum, row_norm m) {
    if (EXACT) m.n = WIDTH * KEPT;
    __shared__ typename norm_staging<T, N, WIDTH>::room staged[2];
    __shared__ norm_room<WIDTH> sums[2][3]; /* rows take turns */
    const norm_share<T, N, WIDTH> share = {staged[0], x, m.n}, of_other = {staged[1], other, m.n};
    const auto ask = [&](size_t row, int stage) {
        if (row < m.rows) {
            share.ask(row, stage);
            if (sum) of_other.ask(row, stage);
        }
        gpu_copies_commit();
    };
    const size_t step = (size_t)gridDim.x * NORM_TEAMS(WIDTH);
    size_t row = (size_t)blockIdx.x * NORM_TEAMS(WIDTH) + threadIdx.x / WIDTH;
    ask(row, 0);
    for (int turn = 0; row < m.rows; row += step, turn ^= 1) {
        ask(row + step, turn ^ 1);
        gpu_copies_wait<1>();
        norm_values<R, T, N, WIDTH> values;
        values.take(share, of_other, sum, row, turn);
        const row_moments at = find_moments<R, N, WIDTH>(values, m, sums[turn]);
        if (threadIdx.x % WIDTH == 0) m.moments[row] = at;
        if (q) {
            give_int8<R, N, WIDTH>(q + row * m.n, inv_scale + row, values, m, at, sums[turn][2]);
            continue;
        }
        values.each([&](auto, size_t column, float(&v)[N]) {
            gpu_columns_pack<T, N> out;
            normalise<R, N>(v, m, at, column);
#pragma unroll
            for (int j = 0; j < N; j++) out.v[j] = from_float<T>(v[j]);
            *(gpu_columns_pack<T, N> *)(y + row * m.n + column) = out;
        });
    }
}

/* ---- gradients of rows, and of the gain */

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

/* Blocks that a multiprocessor is to have at once, of rows that are staged: as many registers as there are then. */
#define GRADIENT_BLOCKS(T, N, WIDTH) (norm_staging<T, N, WIDTH>::STAGED ? 4 : 1)

/* A row's x and dy, as they are stored: f(pack's number, column, N values of x, N of dy) for all packs. The number is
 * -1 of those that registers do not hold. */
template <class T, int N, int WIDTH> struct gradient_values {
    enum { PACKS = KEPT / N };
    gpu_columns_pack<T, N> x[PACKS], dy[PACKS];
    const T *x_row, *dy_row;
    size_t n;

    __device__ void take(const norm_share<T, N, WIDTH> &of_x, const norm_share<T, N, WIDTH> &of_dy, size_t row,
                         int stage) {
        n = of_x.n;
        x_row = of_x.from + row * n;
        dy_row = of_dy.from + row * n;
#pragma unroll
        for (int k = 0; k < PACKS; k++)
            if (of_x.column(k) < n) {
                x[k] = of_x.get(row, stage, k);
                dy[k] = of_dy.get(row, stage, k);
            }
    }
    template <class F>
    __device__ static void give(const gpu_columns_pack<T, N> &x, const gpu_columns_pack<T, N> &dy, int k,
                                size_t column, F f) {
        float v[N], g[N];
#pragma unroll
        for (int j = 0; j < N; j++) {
            v[j] = to_float(x.v[j]);
            g[j] = to_float(dy.v[j]);
        }
        f(k, column, v, g);
    }
    template <class F> __device__ void each(F f) const {
        const size_t lane = threadIdx.x % WIDTH;
#pragma unroll
        for (int k = 0; k < PACKS; k++)
            if ((k * WIDTH + lane) * N < n) give(x[k], dy[k], k, (k * WIDTH + lane) * N, f);
        for (size_t column = (PACKS * WIDTH + lane) * N; column < n; column += WIDTH * N)
            give(*(const gpu_columns_pack<T, N> *)(x_row + column),
                 *(const gpu_columns_pack<T, N> *)(dy_row + column), -1, column, f);
    }
};

/* Where sums of dx x over the heads of a row go: delta of gpu_attention.cuh. */
struct head_sums {
    float *delta;                  /* NULL: not wanted */
    unsigned heads, tokens, lanes; /* lanes: threads that share a head, a power of two up to a warp */
};

template <class T, int N>
__device__ static void give_head_sum(const head_sums &s, size_t row, size_t column, const float *v,
                                     const gpu_columns_pack<T, N> &dx) {
    float sum = 0;
#pragma unroll
    for (int j = 0; j < N; j++) sum += v[j] * to_float(dx.v[j]);
    for (unsigned step = s.lanes / 2; step; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, (int)step);
    const unsigned sample = (unsigned)row / s.tokens, token = (unsigned)row % s.tokens;
    const unsigned head = (unsigned)column / (s.lanes * N);
    if (threadIdx.x % s.lanes == 0) s.delta[((size_t)sample * s.heads + head) * s.tokens + token] = sum;
}

/* dx (+)= ..., and with `parts`, [blocks][n], sums of the gain's gradient: for rows that registers hold whole. With
 * v = x - mean and w = dy gain:  dx = r (w - mean of w - v r^2 mean of w v). */
template <class R, class T, int N, int WIDTH, bool EXACT>
__global__ static void __launch_bounds__(NORM_THREADS(WIDTH), GRADIENT_BLOCKS(T, N, WIDTH))
    norm_gradient(T *dx, const T *x, const T *dy, row_norm m, int add, float *parts, head_sums of_heads) {
    if (EXACT) m.n = WIDTH * KEPT;
    typedef norm_share<T, N, WIDTH> share;
    __shared__ typename norm_staging<T, N, WIDTH>::room staged[3];
    __shared__ norm_room<WIDTH> sums[2][2]; /* rows take turns */
    const share of_x = {staged[0], x, m.n}, of_dy = {staged[1], dy, m.n}, of_dx = {staged[2], dx, m.n};
    const auto ask = [&](size_t row, int stage) {
        if (row < m.rows) {
            of_x.ask(row, stage);
            of_dy.ask(row, stage);
            if (add && dx) of_dx.ask(row, stage);
        }
        gpu_copies_commit();
    };
    const size_t step = (size_t)gridDim.x * NORM_TEAMS(WIDTH);
    size_t row = (size_t)blockIdx.x * NORM_TEAMS(WIDTH) + threadIdx.x / WIDTH;
    float sum[KEPT] = {};
    row_moments next = {};
    if (row < m.rows) next = m.moments[row];
    ask(row, 0);
    for (int turn = 0; row < m.rows; row += step, turn ^= 1) {
        const row_moments at = next;
        if (row + step < m.rows) next = m.moments[row + step];
        ask(row + step, turn ^ 1);
        gpu_copies_wait<1>();
        gradient_values<T, N, WIDTH> values;
        values.take(of_x, of_dy, row, turn);
        float flat = 0, along = 0;
        values.each([&](int k, size_t column, const float *v, const float *g) {
            const gpu_columns_pack<float, N> gain = factors<N>(m.gain, column, 1);
#pragma unroll
            for (int j = 0; j < N; j++) {
                const float product = g[j] * (R::CENTRED ? R::of(v[j]) - at.mean : R::of(v[j]));
                if (R::CENTRED) flat = fmaf(g[j], gain.v[j], flat);
                along = fmaf(product, gain.v[j], along);
                if (k >= 0) sum[k * N + j] = fmaf(product, at.r, sum[k * N + j]);
            }
        });
        along = team_sum<WIDTH>(along, sums[turn][0].sum) / (float)m.n;
        if (R::CENTRED) flat = team_sum<WIDTH>(flat, sums[turn][1].sum) / (float)m.n;
        if (!dx) continue;
        const float back = -along * at.r * at.r;
        values.each([&](int k, size_t column, const float *v, const float *g) {
            const gpu_columns_pack<float, N> gain = factors<N>(m.gain, column, 1);
            gpu_columns_pack<T, N> *to = (gpu_columns_pack<T, N> *)(dx + row * m.n + column), out;
            if (add) out = k >= 0 ? of_dx.get(row, turn, k) : *to;
#pragma unroll
            for (int j = 0; j < N; j++) {
                const float far = R::CENTRED ? R::of(v[j]) - at.mean : R::of(v[j]);
                const float through = R::CENTRED ? g[j] * gain.v[j] - flat : g[j] * gain.v[j];
                const float d = fmaf(far, back, through) * R::slope(v[j], at.r);
                out.v[j] = from_float<T>(add ? to_float(out.v[j]) + d : d);
            }
            *to = out;
            if (of_heads.delta) give_head_sum<T, N>(of_heads, row, column, v, out);
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
static unsigned blocks_of(const row_norm &m, size_t most) {
    const size_t teams = m.n <= 32 * KEPT ? NORM_TEAMS(32) : 1, blocks = tern_ceil_div(m.rows, teams);
    return (unsigned)(blocks < most ? blocks : most);
}

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
/* The only reader of node i; else 0. */
static size_t find_reader(const tern_gpu_plan *plan, size_t i) {
    size_t reader = 0, count = 0;
    for (size_t r = i + 1; r < plan->graph->nodes; r++)
        for (int k = 0; k < plan->graph->node[r].inputs; k++)
            if ((size_t)plan->graph->node[r].input[k] == i) {
                reader = r;
                count++;
            }
    return count == 1 ? reader : 0;
}

/* That reader if it takes int8 of the rows; else 0. */
static size_t find_int8_reader(const tern_gpu_plan *plan, size_t i) {
    const size_t reader = find_reader(plan, i);
    return reader && gpu_takes_int8_rows(gpu_graph_node(plan, reader)) ? reader : 0;
}

/* In training, the addition right in front of node i, which is its input: what it adds is there still when the norm's
 * turn comes, and the norm, which has no value, takes no memory of it. Else 0. Deployed, a product may make the norm
 * instead, and reads the sum itself. */
static size_t find_addition(const tern_gpu_plan *plan, size_t i) {
    const size_t in = (size_t)plan->node[i].from[0];
    const bool is_added = in + 1 == i && plan->node[in].op && !strcmp(gpu_graph_node(plan, in)->op->name, "add");
    return plan->training && plan->node[i].gives_int8 && is_added ? in : 0;
}

/* Sums over the heads of attention in front, whose only reader this norm is: neighbours of whole packs have a head,
 * and all threads of a warp have heads. */
static head_sums heads_in_front(const tern_gpu_plan *plan, size_t i) {
    enum { PACK = 8 };
    const size_t in = (size_t)gpu_graph_node(plan, i)->input[0];
    const tern_node *node = gpu_graph_node(plan, in);
    head_sums s = {};
    if (!plan->training || plan->type == TERN_F32 || strcmp(node->op->name, "attention") ||
        find_reader(plan, in) != i)
        return s;
    const size_t width = node->channels / node->at.heads, lanes = width / PACK;
    const bool divides =
        width % PACK == 0 && lanes && lanes <= 32 && 32 % lanes == 0 && node->channels % (32 * PACK) == 0;
    if (!divides || !fits(node->channels)) return s;
    s.heads = (unsigned)node->at.heads;
    s.tokens = (unsigned)node->shape.dim[0];
    s.lanes = (unsigned)lanes;
    return s;
}

static tern_status prepare(tern_gpu_plan *plan, size_t i, tern_error *err) {
    const tern_node *node = gpu_graph_node(plan, i);
    GPU_CHECK(gpu_state(plan, i, sizeof(norm_state), err));
    norm_state *state = state_of(plan, i);
    state->squares = plan->node[node->input[0]].within != 0;
    state->int8_reader = find_int8_reader(plan, i);
    plan->node[i].gives_int8 = state->int8_reader != 0;
    state->addition = find_addition(plan, i);
    if (state->addition) GPU_CHECK(gpu_state(plan, state->addition, 1, err)); /* tells it so */
    if (heads_in_front(plan, i).lanes)
        GPU_CHECK(gpu_attention_take_delta(plan, (size_t)node->input[0], &state->delta, err));
    const size_t pairs = gpu_pair_sums_scratch(plan->type, node->channels);
    const size_t parts = PARTS * node->channels * sizeof(float);
    if (plan->training) gpu_want_scratch(plan, pairs > parts ? pairs : parts);
    return gpu_keep(plan, (void **)&state->moments, plan->batch_max * node->rows * sizeof(row_moments), node->name,
                    err);
}

template <int CENTRED> static tern_status forward(tern_gpu_plan *plan, size_t i, tern_error *err) {
    const row_norm m = norm_of(plan, i, CENTRED);
    const size_t reader = state_of(plan, i)->int8_reader;
    if (reader && gpu_reader_normalises(plan, reader)) return TERN_OK;
    int8_t *q = reader ? plan->node[reader].q : NULL;
    float *inv_scale = reader ? plan->node[reader].inv_scale : NULL;
    void *y = plan->node[i].value;
    const size_t addition = state_of(plan, i)->addition;
    const void *x = addition ? gpu_in(plan, addition, 0) : gpu_in(plan, i, 0);
    const void *other = addition ? gpu_in(plan, addition, 1) : NULL;
    void *sum = addition ? gpu_in(plan, i, 0) : NULL;
    const unsigned blocks = blocks_of(m, (size_t)plan->context->multiprocessors * FORWARD_BLOCKS);
    BY_RULE(m, GPU_BY_TYPE(plan->type, GPU_BY_PACK(T, m.n,
                                                   BY_WIDTH(m.n, N,
                                                            norm_forward<R, T, N, WIDTH, EXACT>
                                                            <<<blocks, NORM_THREADS(WIDTH), 0, plan->stream>>>(
                                                                (T *)y, q, inv_scale, (const T *)x, (const T *)other,
                                                                (T *)sum, m)))));
    GPU_LAUNCHED(plan, i, err);
    return TERN_OK;
}

bool gpu_norm_of_rows(const tern_gpu_plan *plan, size_t i, tern_row_norm *norm) {
    const row_norm m = norm_of(plan, i, 0);
    *norm = {1, m.squares, m.epsilon, m.gain};
    return !strcmp(gpu_graph_node(plan, i)->op->name, "rmsnorm");
}

/* parts: of the gain's gradient, [blocks][n]; NULL: not wanted. */
static tern_status pass_gradient(tern_gpu_plan *plan, size_t i, const row_norm &m, float *parts, tern_error *err) {
    void *dx = gpu_in_grad(plan, i, 0);
    const void *x = gpu_in(plan, i, 0), *dy = plan->node[i].grad;
    const int add = plan->node[i].add_to[0];
    if (!dx && !parts) return TERN_OK;
    head_sums of_heads = heads_in_front(plan, i);
    of_heads.delta = state_of(plan, i)->delta;
    BY_RULE(m,
            GPU_BY_TYPE(plan->type,
                        GPU_BY_PACK(T, m.n,
                                    BY_WIDTH(m.n, N,
                                             norm_gradient<R, T, N, WIDTH, EXACT>
                                             <<<blocks_of(m, PARTS), NORM_THREADS(WIDTH), 0, plan->stream>>>(
                                                 (T *)dx, (const T *)x, (const T *)dy, m, add, parts, of_heads)))));
    GPU_LAUNCHED(plan, i, err);
    return TERN_OK;
}

static tern_status add_parts(tern_gpu_plan *plan, size_t i, const row_norm &m, float *gain, const float *parts,
                             tern_error *err) {
    const unsigned blocks = (unsigned)((m.n + FINISH - 1) / FINISH);
    add_gain_parts<<<blocks, dim3(FINISH, FINISH), 0, plan->stream>>>(gain, parts, blocks_of(m, PARTS), m.n);
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
