/* batch_norm_pool: a batch norm, its activation and a max_pool of 2 x 2 pixels that tiles the image, in the place of
 * the pool (nn/layout.h). What lies between them is never written: the backward pass computes it again, and finds the
 * largest of a window where the forward pass did. The sums of gradients want nothing but the input there, which is
 * kept. */
#include "gpu/gpu_batch_norm.cuh"
#include "gpu/gpu_divide.cuh"

struct norm_pool_state {
    gpu_channel_state channels;
    void *kept; /* of the plan's type, [batch][elements]: the input at the largest value of each window */
};

enum { WINDOW = 4 }; /* pixels */

/* Window `row` of all images, in rows of `ow`: the numbers of its first pixel, and of the one below it. */
struct windows {
    gpu_divisor ow;
    __device__ uint2 first_of(size_t row) const {
        uint32_t line = (uint32_t)row;
        const uint32_t ox = gpu_split(&line, ow), at = 4 * line * ow.d + 2 * ox;
        return make_uint2(at, at + 2 * ow.d);
    }
};

/* A window's pixels in ascending order, some channels of them. */
template <class T, int N> struct window_packs {
    gpu_columns_pack<T, N> v[WINDOW];
    __device__ static size_t pixel(uint2 first, int i) { return (i < 2 ? first.x : first.y) + (unsigned)i % 2; }
    __device__ window_packs(const T *x, uint2 first, const gpu_columns &m, unsigned pack) {
#pragma unroll
        for (int i = 0; i < WINDOW; i++)
            v[i] = *(const gpu_columns_pack<T, N> *)(x + pixel(first, i) * m.columns + (size_t)pack * N);
    }
    /* Which pixel has the largest F(x scale + shift) in channel j, rounded as a value is; a NaN wins, as in
     * max_pool. */
    template <class F> __device__ int largest(int j, float scale, float shift, T *value) const {
        float most = 0;
        int where = 0;
#pragma unroll
        for (int i = 0; i < WINDOW; i++) {
            const float y = to_float(from_float<T>(F::value(to_float(v[i].v[j]) * scale + shift)));
            const bool larger = i == 0 || y > most || y != y;
            most = larger ? y : most;
            where = larger ? i : where;
        }
        *value = from_float<T>(most);
        return where;
    }
    __device__ T at(int where, int j) const {
        const T low = where % 2 ? v[1].v[j] : v[0].v[j], high = where % 2 ? v[3].v[j] : v[2].v[j];
        return where / 2 ? high : low;
    }
};

/* m: of the windows. kept may be NULL. */
template <class T, int N, class F>
__global__ static void __launch_bounds__(GPU_THREADS)
    norm_pool(T *y, T *kept, const T *x, gpu_columns m, windows w, const float *scale, const float *shift) {
    using P = gpu_columns_pack<T, N>;
    const unsigned pack = blockIdx.x * blockDim.x + threadIdx.x;
    if (pack >= m.packs) return;
    float by[N], plus[N];
    for (int j = 0; j < N; j++) {
        by[j] = scale[(size_t)pack * N + j];
        plus[j] = shift[(size_t)pack * N + j];
    }
    for (size_t row = (size_t)blockIdx.y * blockDim.y + threadIdx.y; row < m.rows;
         row += (size_t)gridDim.y * blockDim.y) {
        const window_packs<T, N> in(x, w.first_of(row), m, pack);
        P out, seen;
#pragma unroll
        for (int j = 0; j < N; j++) seen.v[j] = in.at(in.template largest<F>(j, by[j], plus[j], &out.v[j]), j);
        const size_t to = row * m.columns + (size_t)pack * N;
        *(P *)(y + to) = out;
        if (kept) *(P *)(kept + to) = seen;
    }
}

template <class T, int N, class F>
__global__ static void __launch_bounds__(GPU_THREADS)
    norm_pool_back(T *dx, const T *dy, const T *x, gpu_columns m, windows w, int add, gpu_gradient_rows<F> f) {
    using P = gpu_columns_pack<T, N>;
    const unsigned pack = blockIdx.x * blockDim.x + threadIdx.x;
    if (pack >= m.packs) return;
    typename gpu_gradient_rows<F>::column column[N];
    for (int j = 0; j < N; j++) column[j] = f.at((size_t)pack * N + j);
    for (size_t row = (size_t)blockIdx.y * blockDim.y + threadIdx.y; row < m.rows;
         row += (size_t)gridDim.y * blockDim.y) {
        const uint2 first = w.first_of(row);
        const window_packs<T, N> in(x, first, m, pack);
        const P dys = *(const P *)(dy + row * m.columns + (size_t)pack * N);
        int where[N];
        T unused;
#pragma unroll
        for (int j = 0; j < N; j++) where[j] = in.template largest<F>(j, column[j].scale, column[j].shift, &unused);
#pragma unroll
        for (int i = 0; i < WINDOW; i++) {
            P *to = (P *)(dx + in.pixel(first, i) * m.columns + (size_t)pack * N);
            P out;
            if (add) out = *to;
#pragma unroll
            for (int j = 0; j < N; j++) {
                const float v = f.value(where[j] == i ? to_float(dys.v[j]) : 0, to_float(in.v[i].v[j]), column[j]);
                out.v[j] = from_float<T>(add ? to_float(out.v[j]) + v : v);
            }
            *to = out;
        }
    }
}

static norm_pool_state *state_of(const tern_gpu_plan *plan, size_t i) {
    return (norm_pool_state *)plan->node[i].state;
}

/* The activation in front of the pool. */
static const char *activation_of(const tern_gpu_plan *plan, size_t i) {
    return gpu_graph_node(plan, gpu_graph_node(plan, i)->input[0])->op->name;
}

static tern_status prepare(tern_gpu_plan *plan, size_t i, tern_error *err) {
    const tern_node *node = gpu_graph_node(plan, i);
    if (node->rows > GPU_DIVIDE_MOST / WINDOW / plan->batch_max)
        return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE, "%s: the images are too large for a GPU",
                         node->name);
    GPU_CHECK(gpu_norm_prepare(plan, i, sizeof(norm_pool_state), err));
    if (!plan->training) return TERN_OK;
    return gpu_keep(plan, &state_of(plan, i)->kept, gpu_elements_max(plan, i) * gpu_bytes(plan->type), node->name,
                    err);
}

static windows windows_of(const tern_gpu_plan *plan, size_t i) {
    return {gpu_divisor_of(gpu_graph_node(plan, i)->shape.dim[1])};
}

static tern_status forward(tern_gpu_plan *plan, size_t i, tern_error *err) {
    const tern_node *node = gpu_graph_node(plan, i);
    const gpu_batch_norm n = gpu_batch_norm_of(plan, i);
    const size_t rows = plan->batch * node->rows;
    GPU_CHECK(gpu_norm_statistics(plan, i, n, err));
    GPU_BY_ACTIVATION(activation_of(plan, i),
                      GPU_BY_TYPE(plan->type, GPU_BY_PACK(T, node->channels, {
                                      const gpu_columns m = gpu_columns_cut(rows, node->channels, N);
                                      const dim3 grid(m.tiles, gpu_columns_blocks(plan, m));
                                      norm_pool<T, N, F><<<grid, m.block, 0, plan->stream>>>(
                                          (T *)plan->node[i].value, (T *)state_of(plan, i)->kept,
                                          (const T *)gpu_in(plan, i, 0), m, windows_of(plan, i), n.s.scale,
                                          n.s.shift);
                                  })));
    GPU_LAUNCHED(plan, i, err);
    return TERN_OK;
}

static tern_status backward(tern_gpu_plan *plan, size_t i, tern_error *err) {
    const tern_node *node = gpu_graph_node(plan, i);
    const gpu_batch_norm n = gpu_batch_norm_of(plan, i);
    const size_t rows = plan->batch * node->rows;
    void *dx = gpu_in_grad(plan, i, 0);
    GPU_BY_ACTIVATION(activation_of(plan, i), {
        const gpu_norm_products<F> p = {n.s.mean, n.s.r, n.s.scale, n.s.shift};
        const gpu_gradient_rows<F> f = {n.s.scale, n.s.shift, n.s.a, n.s.b};
        GPU_CHECK(
            gpu_norm_sum_gradients(plan, i, state_of(plan, i)->kept, rows, p, gpu_norm_gradients(plan, i, n), err));
        if (!dx) return TERN_OK;
        GPU_BY_TYPE(plan->type, GPU_BY_PACK(T, node->channels, {
                        const gpu_columns m = gpu_columns_cut(rows, node->channels, N);
                        const dim3 grid(m.tiles, gpu_columns_blocks(plan, m));
                        norm_pool_back<T, N, F><<<grid, m.block, 0, plan->stream>>>(
                            (T *)dx, (const T *)plan->node[i].grad, (const T *)gpu_in(plan, i, 0), m,
                            windows_of(plan, i), plan->node[i].add_to[0], f);
                    }));
    });
    GPU_LAUNCHED(plan, i, err);
    return TERN_OK;
}

extern const gpu_op gpu_op_batch_norm_pool = {"batch_norm_pool", prepare, NULL, forward, backward};
