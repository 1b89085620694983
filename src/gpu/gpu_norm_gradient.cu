/* Gradients of norms of rows (gpu_norm.cuh): of the rows and the gain together where registers hold whole rows, else of
 * gain and bias by sums of columns. */
#include "gpu/gpu_norm.cuh"

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

/* ---- launches */

tern_status gpu_norm_gradient(tern_gpu_plan *plan, size_t node, const row_norm &m, float *parts,
                              const head_sums &of_heads, tern_error *err) {
    void *dx = gpu_in_grad(plan, node, 0);
    const void *x = gpu_in(plan, node, 0), *dy = plan->node[node].grad;
    const int add = plan->node[node].add_to[0];
    if (!dx && !parts) return TERN_OK;
    BY_RULE(m,
            GPU_BY_TYPE(plan->type,
                        GPU_BY_PACK(T, m.n,
                                    BY_WIDTH(m.n, N,
                                             norm_gradient<R, T, N, WIDTH, EXACT>
                                             <<<norm_blocks(m, NORM_PARTS), NORM_THREADS(WIDTH), 0, plan->stream>>>(
                                                 (T *)dx, (const T *)x, (const T *)dy, m, add, parts, of_heads)))));
    GPU_LAUNCHED(plan, node, err);
    return TERN_OK;
}

tern_status gpu_norm_add_parts(tern_gpu_plan *plan, size_t node, const row_norm &m, float *gain, const float *parts,
                               tern_error *err) {
    const unsigned blocks = (unsigned)((m.n + FINISH - 1) / FINISH);
    add_gain_parts<<<blocks, dim3(FINISH, FINISH), 0, plan->stream>>>(gain, parts, norm_blocks(m, NORM_PARTS), m.n);
    GPU_LAUNCHED(plan, node, err);
    return TERN_OK;
}

tern_status gpu_norm_sum_gradients(tern_gpu_plan *plan, size_t node, const row_norm &m, float *dgain, float *dbias,
                                   tern_error *err) {
    GPU_BY_TYPE(plan->type, return gpu_pair_sums<T>(plan, node, (const T *)gpu_in(plan, node, 0),
                                                    (const T *)plan->node[node].grad, m.rows, m.n, plan->scratch,
                                                    along_rows{m}, add_gradients{dgain, dbias}, err));
}
