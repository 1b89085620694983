/* Matrices [rows][columns] whose columns are channels: two sums per column over all rows, and maps with numbers per
 * column. A thread keeps to its columns (16 bytes of them where they divide a row) and walks down the rows.
 *
 * Sums: fp32 over up to 64 rows of a thread, double above; which rows meet in which order follows from the shape. */
#ifndef TERN_GPU_GPU_COLUMNS_CUH
#define TERN_GPU_GPU_COLUMNS_CUH

#include "gpu/gpu_kernels.cuh"

enum { GPU_PAIR_PARTS = 256, GPU_PAIR_STRIPE = 64, GPU_ROWS_AT_ONCE = 4 };

/* Rows whose loads are under way together: of two operands fewer, so that two blocks fit a multiprocessor. */
template <bool TWO> struct gpu_rows_at_once {
    enum { COUNT = TWO ? GPU_ROWS_AT_ONCE / 2 : GPU_ROWS_AT_ONCE };
};

/* A condition that is known where the code is made. */
struct gpu_yes {
    __device__ constexpr operator bool() const { return true; }
};
struct gpu_no {
    __device__ constexpr operator bool() const { return false; }
};

/* N neighbours of a row. */
template <class T, int N> struct alignas(sizeof(T) * N) gpu_columns_pack { T v[N]; };

/* Runs the statement with N = the columns that a thread takes: 16 bytes of T, or 1 where those divide no row. */
#define GPU_BY_PACK(T, columns, ...)           \
    do {                                       \
        if ((columns) % gpu_pack<T>::N == 0) { \
            constexpr int N = gpu_pack<T>::N;  \
            __VA_ARGS__;                       \
        } else {                               \
            constexpr int N = 1;               \
            __VA_ARGS__;                       \
        }                                      \
    } while (0)

/* Blocks of GPU_THREADS threads: block.x packs of columns beside one another, block.y rows. */
struct gpu_columns {
    size_t rows, columns;
    unsigned packs, tiles; /* of a row; of block.x packs */
    dim3 block;
};

static inline gpu_columns gpu_columns_cut(size_t rows, size_t columns, int n) {
    gpu_columns m = {rows, columns, (unsigned)(columns / n), 1, dim3(1)};
    while (m.block.x < 32 && m.block.x < m.packs) m.block.x *= 2;
    m.block.y = GPU_THREADS / m.block.x;
    m.tiles = (m.packs + m.block.x - 1) / m.block.x;
    return m;
}

/* ---- two sums per column */

static inline unsigned gpu_pair_parts_most(const gpu_columns &m) {
    return m.tiles < GPU_PAIR_PARTS / 8 ? GPU_PAIR_PARTS / m.tiles : 8;
}
static inline unsigned gpu_pair_parts(const gpu_columns &m) {
    const size_t each = GPU_ROWS_AT_ONCE * m.block.y, wanted = (m.rows + each - 1) / each;
    const unsigned most = gpu_pair_parts_most(m);
    return wanted < 1 ? 1 : wanted < most ? (unsigned)wanted : most;
}
static inline size_t gpu_pair_sums_scratch(tern_dtype type, size_t columns) {
    size_t most = 0;
    GPU_BY_TYPE(type, GPU_BY_PACK(T, columns, most = gpu_pair_parts_most(gpu_columns_cut(1, columns, N))));
    return gpu_round_up(most * 2 * columns * sizeof(double), 256);
}

/* parts[part][2][columns]. F: column at(c) and row of(r) bring what it needs per column and row, add(a, b, x, dy,
 * column, row) adds to the two sums. dy may be NULL: it arrives as 0. */
template <bool TWO, class T, int N, class F>
__global__ static void __launch_bounds__(GPU_THREADS, 2)
    gpu_pair_parts_kernel(double *parts, const T *x, const T *dy, gpu_columns m, size_t length, F f) {
    using P = gpu_columns_pack<T, N>;
    enum { AT_ONCE = gpu_rows_at_once<TWO>::COUNT };
    __shared__ double room[N * GPU_THREADS];
    const unsigned pack = blockIdx.x * blockDim.x + threadIdx.x, me = threadIdx.y * blockDim.x + threadIdx.x;
    const size_t begin = blockIdx.y * length, stop = begin + length < m.rows ? begin + length : m.rows;
    double sum[2][N] = {};
    if (pack < m.packs) {
        typename F::column column[N];
        for (int j = 0; j < N; j++) column[j] = f.at((size_t)pack * N + j);
        const size_t step = blockDim.y;
        for (size_t row = begin + threadIdx.y; row < stop;) {
            float a[N] = {}, b[N] = {};
            const auto add_rows =
                [&](auto all) { /* all of them are rows: loads without conditions */
                                P px[AT_ONCE], pg[AT_ONCE];
#pragma unroll
                                for (int r = 0; r < AT_ONCE; r++)
                                    if (all || row + r * step < stop) {
                                        px[r] = *(const P *)(x + (row + r * step) * m.columns + (size_t)pack * N);
                                        if (TWO)
                                            pg[r] =
                                                *(const P *)(dy + (row + r * step) * m.columns + (size_t)pack * N);
                                    }
#pragma unroll
                                for (int r = 0; r < AT_ONCE; r++)
                                    if (all || row + r * step < stop) {
                                        const typename F::row per_row = f.of(row + r * step);
#pragma unroll
                                        for (int j = 0; j < N; j++)
                                            f.add(a[j], b[j], to_float(px[r].v[j]), TWO ? to_float(pg[r].v[j]) : 0.0f,
                                                  column[j], per_row);
                                    }
                };
            for (int stripe = 0; stripe < GPU_PAIR_STRIPE && row < stop; stripe += AT_ONCE) {
                if (row + (AT_ONCE - 1) * step < stop)
                    add_rows(gpu_yes());
                else
                    add_rows(gpu_no());
                row += AT_ONCE * step;
            }
            for (int j = 0; j < N; j++) {
                sum[0][j] += (double)a[j];
                sum[1][j] += (double)b[j];
            }
        }
    }
#pragma unroll
    for (int which = 0; which < 2; which++) {
        __syncthreads();
        for (int j = 0; j < N; j++) room[j * GPU_THREADS + me] = sum[which][j];
        for (unsigned half = blockDim.y / 2; half; half /= 2) {
            __syncthreads();
            if (threadIdx.y < half)
                for (int j = 0; j < N; j++)
                    room[j * GPU_THREADS + me] += room[j * GPU_THREADS + me + half * blockDim.x];
        }
        if (threadIdx.y == 0 && pack < m.packs)
            for (int j = 0; j < N; j++)
                parts[((size_t)blockIdx.y * 2 + which) * m.columns + (size_t)pack * N + j] =
                    room[j * GPU_THREADS + me];
    }
}

/* finish(column, first sum, second sum), by one thread a column: a warp adds its parts, a lane's are asked for
 * together. */
template <class G>
__global__ static void __launch_bounds__(GPU_THREADS)
    gpu_pair_finish_kernel(const double *parts, unsigned count, size_t columns, G finish) {
    const size_t column = (size_t)blockIdx.x * (GPU_THREADS / 32) + threadIdx.x / 32;
    if (column >= columns) return;
    double sum[2] = {};
#pragma unroll 8
    for (unsigned part = threadIdx.x % 32; part < count; part += 32)
#pragma unroll
        for (int which = 0; which < 2; which++) sum[which] += parts[((size_t)part * 2 + which) * columns + column];
    sum[0] = warp_sum(sum[0]);
    sum[1] = warp_sum(sum[1]);
    if (threadIdx.x % 32 == 0) finish(column, sum[0], sum[1]);
}

template <class T, class F, class G>
static tern_status gpu_pair_sums(tern_gpu_plan *plan, size_t node, const T *x, const T *dy, size_t rows,
                                 size_t columns, void *scratch, F f, G finish, tern_error *err) {
    unsigned parts = 0;
    GPU_BY_PACK(T, columns, {
        const gpu_columns m = gpu_columns_cut(rows, columns, N);
        parts = gpu_pair_parts(m);
        const dim3 grid(m.tiles, parts);
        const size_t length = (rows + parts - 1) / parts;
        if (dy)
            gpu_pair_parts_kernel<true, T, N>
                <<<grid, m.block, 0, plan->stream>>>((double *)scratch, x, dy, m, length, f);
        else
            gpu_pair_parts_kernel<false, T, N>
                <<<grid, m.block, 0, plan->stream>>>((double *)scratch, x, dy, m, length, f);
    });
    GPU_LAUNCHED(plan, node, err);
    const unsigned blocks = (unsigned)((columns + GPU_THREADS / 32 - 1) / (GPU_THREADS / 32));
    gpu_pair_finish_kernel<<<blocks, GPU_THREADS, 0, plan->stream>>>((const double *)scratch, parts, columns, finish);
    GPU_LAUNCHED(plan, node, err);
    return TERN_OK;
}

/* ---- maps */

/* y[row][c] (+)= f.value(a[row][c], b[row][c], f.at(c)); b may be NULL: it arrives as 0. */
template <bool TWO, class T, int N, class F>
__global__ static void __launch_bounds__(GPU_THREADS, 2)
    gpu_columns_map_kernel(T *y, const T *a, const T *b, gpu_columns m, int add, F f) {
    using P = gpu_columns_pack<T, N>;
    enum { AT_ONCE = gpu_rows_at_once<TWO>::COUNT };
    const unsigned pack = blockIdx.x * blockDim.x + threadIdx.x;
    if (pack >= m.packs) return;
    typename F::column column[N];
    for (int j = 0; j < N; j++) column[j] = f.at((size_t)pack * N + j);
    const size_t step = (size_t)gridDim.y * blockDim.y;
    for (size_t row = (size_t)blockIdx.y * blockDim.y + threadIdx.y; row < m.rows; row += AT_ONCE * step) {
        const auto map_rows = [&](auto all) {
            P pa[AT_ONCE], pb[AT_ONCE], py[AT_ONCE];
#pragma unroll
            for (int r = 0; r < AT_ONCE; r++)
                if (all || row + r * step < m.rows) {
                    const size_t at = (row + r * step) * m.columns + (size_t)pack * N;
                    pa[r] = *(const P *)(a + at);
                    if (TWO) pb[r] = *(const P *)(b + at);
                    if (add) py[r] = *(const P *)(y + at);
                }
#pragma unroll
            for (int r = 0; r < AT_ONCE; r++)
                if (all || row + r * step < m.rows) {
#pragma unroll
                    for (int j = 0; j < N; j++) {
                        const float v = f.value(to_float(pa[r].v[j]), TWO ? to_float(pb[r].v[j]) : 0.0f, column[j]);
                        py[r].v[j] = from_float<T>(add ? to_float(py[r].v[j]) + v : v);
                    }
                    *(P *)(y + (row + r * step) * m.columns + (size_t)pack * N) = py[r];
                }
        };
        if (row + (AT_ONCE - 1) * step < m.rows)
            map_rows(gpu_yes());
        else
            map_rows(gpu_no());
    }
}

/* Blocks that share the rows of a map. */
static inline unsigned gpu_columns_blocks(const tern_gpu_plan *plan, const gpu_columns &m) {
    const size_t each = GPU_ROWS_AT_ONCE * m.block.y, wanted = (m.rows + each - 1) / each;
    const size_t most = (size_t)plan->context->multiprocessors * 32 / m.tiles + 1;
    return (unsigned)(wanted < 1 ? 1 : wanted < most ? wanted : most);
}

template <class F>
static tern_status gpu_columns_map(tern_gpu_plan *plan, size_t node, void *y, const void *a, const void *b,
                                   size_t rows, size_t columns, int add, F f, tern_error *err) {
    GPU_BY_TYPE(plan->type, GPU_BY_PACK(T, columns, {
                    const gpu_columns m = gpu_columns_cut(rows, columns, N);
                    const dim3 grid(m.tiles, gpu_columns_blocks(plan, m));
                    if (b)
                        gpu_columns_map_kernel<true, T, N>
                            <<<grid, m.block, 0, plan->stream>>>((T *)y, (const T *)a, (const T *)b, m, add, f);
                    else
                        gpu_columns_map_kernel<false, T, N>
                            <<<grid, m.block, 0, plan->stream>>>((T *)y, (const T *)a, (const T *)b, m, add, f);
                }));
    GPU_LAUNCHED(plan, node, err);
    return TERN_OK;
}

#endif
