/* max_pool  y = max over the window (places outside the image do not count); dy goes to the first of the largest
 * avg_pool  y = mean over the window; no padding */
#include "gpu/gpu_windows.cuh"

/* ---- max_pool keeps, for each element, which place of its window was largest */

template <class T, class W, int N> struct largest {
    struct seen {
        float v[N];
        W tap[N];
        bool any;
    };
    T *y;
    W *where; /* NULL without training */
    const T *x;
    size_t c;
    __device__ void see(seen &s, size_t pixel, uint32_t tap, uint32_t channel) const {
        const auto in = *(const gpu_few<T, N> *)(x + pixel * c + channel);
#pragma unroll
        for (int j = 0; j < N; j++) {
            const float v = to_float(in.v[j]);
            const bool larger = !s.any || v > s.v[j] || v != v; /* a NaN wins, so that it is seen */
            s.v[j] = larger ? v : s.v[j];
            s.tap[j] = larger ? (W)tap : s.tap[j];
        }
        s.any = true;
    }
    __device__ void give(const seen &s, size_t place, uint32_t channel) const {
        gpu_few<T, N> out;
        gpu_few<W, N> taps;
#pragma unroll
        for (int j = 0; j < N; j++) {
            out.v[j] = from_float<T>(s.v[j]);
            taps.v[j] = s.tap[j];
        }
        *(gpu_few<T, N> *)(y + place * c + channel) = out;
        if (where) *(gpu_few<W, N> *)(where + place * c + channel) = taps;
    }
};

template <class T, class W, int N> struct largest_back {
    using seen = gpu_sums<N>;
    T *dx;
    const W *where;
    const T *dy;
    size_t c;
    int add;
    __device__ void see(seen &s, size_t place, uint32_t tap, uint32_t channel) const {
        const auto taps = *(const gpu_few<W, N> *)(where + place * c + channel);
        const auto in = *(const gpu_few<T, N> *)(dy + place * c + channel);
#pragma unroll
        for (int j = 0; j < N; j++) s.v[j] += taps.v[j] == tap ? to_float(in.v[j]) : 0.0f;
    }
    __device__ void give(const seen &s, size_t pixel, uint32_t channel) const {
        gpu_give_sums(dx + pixel * c + channel, s, add);
    }
};

/* ---- avg_pool */

template <class T, int N> struct mean {
    using seen = gpu_sums<N>;
    T *to;
    const T *from;
    size_t c;
    float factor;
    int add;
    __device__ void see(seen &s, size_t at, uint32_t, uint32_t channel) const {
        const auto in = *(const gpu_few<T, N> *)(from + at * c + channel);
#pragma unroll
        for (int j = 0; j < N; j++) s.v[j] += to_float(in.v[j]) * factor;
    }
    __device__ void give(const seen &s, size_t at, uint32_t channel) const {
        gpu_give_sums(to + at * c + channel, s, add);
    }
};

/* ---- */

static gpu_patches windows_of(const tern_gpu_plan *plan, size_t i) {
    return gpu_patches_of(plan->graph, gpu_graph_node(plan, i), 0);
}

/* Numbers of places in small windows fit a byte. */
static bool small(const gpu_patches *p) { return p->kernel <= 16; }

struct pool_state {
    void *where;
};

static tern_status max_prepare(tern_gpu_plan *plan, size_t i, tern_error *err) {
    if (!plan->training) return TERN_OK;
    const gpu_patches p = windows_of(plan, i);
    GPU_CHECK(gpu_state(plan, i, sizeof(pool_state), err));
    return gpu_keep(plan, &((pool_state *)plan->node[i].state)->where,
                    gpu_elements_max(plan, i) * (small(&p) ? sizeof(uint8_t) : sizeof(uint32_t)),
                    gpu_graph_node(plan, i)->name, err);
}

static void *where_of(const tern_gpu_plan *plan, size_t i) {
    return plan->node[i].state ? ((const pool_state *)plan->node[i].state)->where : NULL;
}

template <class T, class W, int N>
static tern_status max_pass(tern_gpu_plan *plan, size_t i, const gpu_patches *p, bool back, tern_error *err) {
    if (!back) {
        const largest<T, W, N> f = {(T *)plan->node[i].value, (W *)where_of(plan, i), (const T *)gpu_in(plan, i, 0),
                                    p->c};
        return gpu_windows_run<N, false>(plan, i, p, plan->batch, f, err);
    }
    const largest_back<T, W, N> f = {(T *)gpu_in_grad(plan, i, 0), (const W *)where_of(plan, i),
                                     (const T *)plan->node[i].grad, p->c, plan->node[i].add_to[0]};
    return gpu_windows_run<N, true>(plan, i, p, plan->batch, f, err);
}

template <class T, int N>
static tern_status max_by_width(tern_gpu_plan *plan, size_t i, const gpu_patches *p, bool back, tern_error *err) {
    return small(p) ? max_pass<T, uint8_t, N>(plan, i, p, back, err)
                    : max_pass<T, uint32_t, N>(plan, i, p, back, err);
}

template <class T, int N>
static tern_status mean_pass(tern_gpu_plan *plan, size_t i, const gpu_patches *p, bool back, tern_error *err) {
    const float factor = 1.0f / (float)(p->kernel * p->kernel);
    if (!back) {
        const mean<T, N> f = {(T *)plan->node[i].value, (const T *)gpu_in(plan, i, 0), p->c, factor, 0};
        return gpu_windows_run<N, false>(plan, i, p, plan->batch, f, err);
    }
    const mean<T, N> f = {(T *)gpu_in_grad(plan, i, 0), (const T *)plan->node[i].grad, p->c, factor,
                          plan->node[i].add_to[0]};
    return gpu_windows_run<N, true>(plan, i, p, plan->batch, f, err);
}

template <class T> static tern_status pass_by(tern_gpu_plan *plan, size_t i, bool max, bool back, tern_error *err) {
    constexpr int N = 16 / sizeof(T);
    const gpu_patches p = windows_of(plan, i);
    const auto run =
        p.c % N == 0 ? (max ? max_by_width<T, N> : mean_pass<T, N>) : (max ? max_by_width<T, 1> : mean_pass<T, 1>);
    return run(plan, i, &p, back, err);
}

template <bool MAX> static tern_status forward(tern_gpu_plan *plan, size_t i, tern_error *err) {
    GPU_BY_TYPE(plan->type, return pass_by<T>(plan, i, MAX, false, err));
}

template <bool MAX> static tern_status backward(tern_gpu_plan *plan, size_t i, tern_error *err) {
    if (!gpu_in_grad(plan, i, 0)) return TERN_OK;
    GPU_BY_TYPE(plan->type, return pass_by<T>(plan, i, MAX, true, err));
}

extern const gpu_op gpu_op_max_pool = {"max_pool", max_prepare, NULL, forward<true>, backward<true>};
extern const gpu_op gpu_op_avg_pool = {"avg_pool", NULL, NULL, forward<false>, backward<false>};
