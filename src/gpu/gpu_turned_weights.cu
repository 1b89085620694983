#include "gpu/gpu_turned_weights.cuh"

#include "gpu/gpu_kernels.cuh"

#include "cuda/device_memory.cuh"

/* ---- turned trits: a warp makes a tile, as in gpu_weights.cu. Eight lanes that read neighbouring columns of a row
 * of W have whole sectors between them. */

struct turning {
    const float *w, *threshold; /* w[rows][cols] */
    uint4 *tiles;
    size_t rows, cols, k_tiles, count;
    int threshold_per_row;
};

enum { HALF = TERN_TILE_CHUNKS_T2 * TERN_TILE_CHUNK };

/* The word of a lane's row of W^T, which is a column of W, for one half of a tile from row `first` of W. All weights
 * are asked for before the first is looked at. */
__device__ static uint32_t turned_word(const turning &p, size_t first, size_t column, float threshold) {
    float w[TERN_TILE_CHUNKS_T2][4], limit[TERN_TILE_CHUNKS_T2][4];
    uint32_t word = 0;
#pragma unroll
    for (int chunk = 0; chunk < TERN_TILE_CHUNKS_T2; chunk++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const size_t row = first + (size_t)(chunk * TERN_TILE_CHUNK + j), inside = row < p.rows ? row : 0;
            w[chunk][j] = __ldg(p.w + inside * p.cols + column);
            limit[chunk][j] = row >= p.rows ? INFINITY : p.threshold_per_row ? __ldg(p.threshold + row) : threshold;
        }
#pragma unroll
    for (int chunk = 0; chunk < TERN_TILE_CHUNKS_T2; chunk++)
#pragma unroll
        for (int j = 0; j < 4; j++)
            word |= (uint32_t)(gpu_trit_of(w[chunk][j], limit[chunk][j]) & 3) << (8 * j + 2 * chunk);
    return word;
}

__global__ static void __launch_bounds__(GPU_THREADS) turn_tiles(turning p) {
    const size_t warps = (size_t)gridDim.x * (GPU_THREADS / 32);
    const size_t lane = threadIdx.x % 32;
    const float threshold = p.threshold[0];
    for (size_t tile = (size_t)blockIdx.x * (GPU_THREADS / 32) + threadIdx.x / 32; tile < p.count; tile += warps) {
        const size_t first = tile % p.k_tiles * (2 * HALF) + lane % 4 * 4;
        uint32_t words[4] = {};
#pragma unroll
        for (int r = 0; r < 2; r++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const size_t column = tile / p.k_tiles * TERN_TILE_ROWS + lane / 4 + (size_t)r * 8;
                if (column < p.cols)
                    words[2 * half + r] = turned_word(p, first + (size_t)(half * HALF), column, threshold);
            }
        p.tiles[tile * 32 + lane] = make_uint4(words[0], words[1], words[2], words[3]);
    }
}

tern_status gpu_turned_prepare(gpu_turned_weights *t, tern_gpu_plan *plan, size_t i, const gpu_weights *w,
                               tern_error *err) {
    const char *name = gpu_graph_node(plan, i)->name;
    const float one = 1;
    void *memory;
    if (w->rows > GPU_WEIGHTS_MOST_COLUMNS)
        return tern_fail(err, TERN_E_SIZE, TERN_NO_PLACE, "%s: int8 gradients of %zu outputs; %d are possible", name,
                         w->rows, GPU_WEIGHTS_MOST_COLUMNS);
    t->matrix = {};
    t->matrix.rows = (int32_t)w->cols;
    t->matrix.cols = (int32_t)w->rows;
    t->matrix.row_tiles = (int32_t)tern_ceil_div(w->cols, TERN_TILE_ROWS);
    t->matrix.k_tiles = (int32_t)tern_ceil_div(w->rows, tern_tile_cols(0));
    GPU_CHECK(gpu_keep(plan, &memory, (size_t)t->matrix.row_tiles * (size_t)t->matrix.k_tiles * TERN_TILE_BYTES, name,
                       err));
    t->matrix.tiles = t->tiles = (uint8_t *)memory;
    t->matrix.scale = w->scale;
    if (w->slices == 1) return TERN_OK;
    t->column_scale = w->scale;
    GPU_CHECK(gpu_keep(plan, &memory, sizeof one, name, err));
    t->matrix.scale = (const float *)memory;
    return tern_cuda_upload(plan->context, memory, &one, sizeof one, err);
}

tern_status gpu_turned_refresh(const gpu_turned_weights *t, tern_gpu_plan *plan, size_t i, const gpu_weights *w,
                               tern_error *err) {
    turning p = {};
    p.w = gpu_node_param(plan, i, 0)->value;
    p.threshold = w->threshold;
    p.tiles = (uint4 *)t->tiles;
    p.rows = w->rows;
    p.cols = w->cols;
    p.k_tiles = (size_t)t->matrix.k_tiles;
    p.count = (size_t)t->matrix.row_tiles * p.k_tiles;
    p.threshold_per_row = w->slices > 1;
    turn_tiles<<<gpu_blocks(plan, p.count * 32), GPU_THREADS, 0, plan->stream>>>(p);
    GPU_LAUNCHED(plan, i, err);
    return TERN_OK;
}

/* ---- gradients to int8: a warp has a row, all of it in registers where KEPT packs a lane are enough, else read
 * twice */

struct gradient_rows {
    int8_t *q;
    float *inv_scale;
    const float *column_scale;
    size_t rows;
    uint32_t columns, ld;
};

template <class T, int N> __device__ static gpu_few<T, N> few_at(const T *row, uint32_t c) {
    return *(const gpu_few<T, N> *)(row + c);
}

/* N gradients from column c, times their scales. */
template <class T, int N>
__device__ static void scaled(float (&v)[N], const gpu_few<T, N> &from, const gradient_rows &g, uint32_t c) {
#pragma unroll
    for (int j = 0; j < N; j++)
        v[j] = g.column_scale ? to_float(from.v[j]) * g.column_scale[c + (uint32_t)j] : to_float(from.v[j]);
}

/* Bits of |x| order as |x| does, with Inf and NaN on top. */
template <int N> __device__ static unsigned largest_of(unsigned most, const float (&v)[N]) {
#pragma unroll
    for (int j = 0; j < N; j++) most = max(most, __float_as_uint(v[j]) & 0x7fffffffu);
    return most;
}

struct gradient_scale {
    float s, inverse;
    bool finite;
    /* Of a warp's largest. Below 1e-30 there is nothing left to tell apart, and s would be no number. */
    __device__ explicit gradient_scale(unsigned most) {
        for (int step = 16; step; step /= 2) most = max(most, __shfl_xor_sync(0xffffffffu, most, step));
        finite = most < 0x7f800000u;
        s = __fdiv_rn(127.0f, fmaxf(__uint_as_float(most), 1e-30f));
        inverse = finite ? __fdiv_rn(1.0f, s) : __uint_as_float(0x7fc00000u);
    }
    template <int N> __device__ void store(int8_t *to, const float (&v)[N]) const {
        gpu_few<int8_t, N> out;
#pragma unroll
        for (int j = 0; j < N; j++)
            out.v[j] = (int8_t)max(-128, min(127, finite ? __float2int_rn(__fmul_rn(v[j], s)) : 0));
        *(gpu_few<int8_t, N> *)to = out;
    }
};

template <class T, int N, int KEPT>
__global__ static void __launch_bounds__(GPU_THREADS, 2) quantize_gradients(const T *dy, gradient_rows g) {
    const uint32_t lane = threadIdx.x % 32 * N;
    const size_t warps = (size_t)gridDim.x * (GPU_THREADS / 32);
    for (size_t row = (size_t)blockIdx.x * (GPU_THREADS / 32) + threadIdx.x / 32; row < g.rows; row += warps) {
        const T *from = dy + row * g.columns;
        int8_t *to = g.q + row * g.ld;
        gpu_few<T, N> kept[KEPT ? KEPT : 1];
        float v[N];
        unsigned most = 0;
        if constexpr (KEPT > 0) {
#pragma unroll
            for (int i = 0; i < KEPT; i++)
                if (lane + i * 32 * N < g.columns) kept[i] = few_at<T, N>(from, lane + i * 32 * N);
        }
#pragma unroll
        for (uint32_t i = 0, c = lane; KEPT ? i < KEPT : c < g.columns; i++, c += 32 * N) {
            if (c >= g.columns) continue;
            scaled(v, KEPT ? kept[i] : few_at<T, N>(from, c), g, c);
            most = largest_of(most, v);
        }
        const gradient_scale scale(most);
#pragma unroll
        for (uint32_t i = 0, c = lane; KEPT ? i < KEPT : c < g.columns; i++, c += 32 * N) {
            if (c >= g.columns) continue;
            scaled(v, KEPT ? kept[i] : few_at<T, N>(from, c), g, c);
            scale.store(to + c, v);
        }
        for (uint32_t c = g.columns + threadIdx.x % 32; c < g.ld; c += 32) to[c] = 0;
        if (threadIdx.x % 32 == 0) g.inv_scale[row] = scale.inverse;
    }
}

template <class T, int N> static void launch_gradients(tern_gpu_plan *plan, const T *dy, const gradient_rows &g) {
    enum { FEW = 4, MANY = 12 };
    const unsigned blocks = gpu_blocks(plan, g.rows * 32);
    if (g.columns <= FEW * 32 * N)
        quantize_gradients<T, N, FEW><<<blocks, GPU_THREADS, 0, plan->stream>>>(dy, g);
    else if (g.columns <= MANY * 32 * N)
        quantize_gradients<T, N, MANY><<<blocks, GPU_THREADS, 0, plan->stream>>>(dy, g);
    else
        quantize_gradients<T, N, 0><<<blocks, GPU_THREADS, 0, plan->stream>>>(dy, g);
}

tern_status gpu_quantize_gradient(tern_gpu_plan *plan, size_t i, int8_t *q, float *inv_scale, size_t ld,
                                  const void *dy, const float *column_scale, size_t rows, size_t columns,
                                  tern_error *err) {
    const gradient_rows g = {q, inv_scale, column_scale, rows, (uint32_t)columns, (uint32_t)ld};
    GPU_BY_TYPE(plan->type, constexpr int N = gpu_pack<T>::N;
                if (columns % N) launch_gradients<T, 1>(plan, (const T *)dy, g);
                else launch_gradients<T, N>(plan, (const T *)dy, g));
    GPU_LAUNCHED(plan, i, err);
    return TERN_OK;
}
