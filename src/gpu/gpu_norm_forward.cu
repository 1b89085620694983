/* Norms of rows, forward (gpu_norm.cuh). Activations in int8 are of the fp32 values, as on the CPU. */
#include "gpu/gpu_norm.cuh"

enum { FORWARD_BLOCKS = 6 /* of a multiprocessor, where rows are staged */ };

/* ---- a row, as it is read */

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

/* ---- what is made of it */

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

/* ---- launches */

tern_status gpu_norm_forward(tern_gpu_plan *plan, size_t node, const row_norm &m, const norm_arrays &a,
                             tern_error *err) {
    const unsigned blocks = norm_blocks(m, (size_t)plan->context->multiprocessors * FORWARD_BLOCKS);
    BY_RULE(m, GPU_BY_TYPE(plan->type, GPU_BY_PACK(T, m.n,
                                                   BY_WIDTH(m.n, N,
                                                            norm_forward<R, T, N, WIDTH, EXACT>
                                                            <<<blocks, NORM_THREADS(WIDTH), 0, plan->stream>>>(
                                                                (T *)a.y, a.q, a.inv_scale, (const T *)a.x,
                                                                (const T *)a.other, (T *)a.sum, m)))));
    GPU_LAUNCHED(plan, node, err);
    return TERN_OK;
}
