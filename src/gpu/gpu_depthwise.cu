#include "gpu/gpu_depthwise.cuh"

#include "gpu/gpu_windows.cuh"

enum { LARGEST_KERNEL = 16, PARTS = 64, PACKS = 8, ROWS = 32 };

static gpu_patches windows_of(const tern_gpu_plan *plan, size_t node) {
    gpu_patches p = gpu_patches_of(plan->graph, gpu_graph_node(plan, node), 0);
    p.channels = p.c;
    return p;
}

bool gpu_depthwise_fits(const tern_gpu_plan *plan, size_t node) {
    const tern_node *n = gpu_graph_node(plan, node);
    const gpu_patches p = windows_of(plan, node);
    return n->at.groups > 1 && n->at.groups == p.c && n->at.outputs == p.c && p.kernel <= LARGEST_KERNEL &&
           p.oh * p.ow <= GPU_DIVIDE_MOST / plan->batch_max;
}

static size_t weights_of(const gpu_patches *p) { return p->kernel * p->kernel * p->c; }

size_t gpu_depthwise_scratch(const tern_gpu_plan *plan, size_t node) {
    const gpu_patches p = windows_of(plan, node);
    return (plan->training ? PARTS : 1) * weights_of(&p) * sizeof(float);
}

/* What values become as operands of `type`; TERN_F32: they stay as they are. */
static tern_dtype rounding_of(const tern_gpu_plan *plan, tern_dtype type) {
    return type == plan->type ? TERN_F32 : type;
}

/* to[tap][channel]: what threads of neighbouring channels read together lies together. */
__global__ static void turn(float *to, const float *weights, size_t taps, size_t channels, tern_dtype type) {
    GPU_FOR(i, taps * channels) to[i] = rounded_to(type, weights[i % channels * taps + i / channels]);
}

/* Forward and, with the windows that saw a pixel, backward. */
template <class T, int N> struct filter {
    using seen = gpu_sums<N>;
    T *to;
    const T *from;
    const float *weights, *bias;
    size_t c;
    tern_dtype rounded;
    int add;
    __device__ void see(seen &s, size_t at, uint32_t tap, uint32_t channel) const {
        const auto v = *(const gpu_few<T, N> *)(from + at * c + channel);
        const auto w = *(const gpu_few<float, N> *)(weights + tap * c + channel);
#pragma unroll
        for (int j = 0; j < N; j++) s.v[j] += rounded_to(rounded, to_float(v.v[j])) * w.v[j];
    }
    __device__ void give(seen s, size_t at, uint32_t channel) const {
        if (bias)
#pragma unroll
            for (int j = 0; j < N; j++) s.v[j] += bias[channel + j];
        gpu_give_sums(to + at * c + channel, s, add);
    }
};

template <class T, bool BACK>
static tern_status run(tern_gpu_plan *plan, size_t node, tern_dtype type, T *to, const T *from, const float *weights,
                       const float *bias, int add, void *scratch, tern_error *err) {
    constexpr int N = 16 / sizeof(T);
    const gpu_patches p = windows_of(plan, node);
    const size_t n = weights_of(&p);
    float *turned = (float *)scratch;
    turn<<<gpu_blocks(plan, n), GPU_THREADS, 0, plan->stream>>>(turned, weights, n / p.c, p.c, type);
    GPU_LAUNCHED(plan, node, err);
    const tern_dtype rounded = rounding_of(plan, type);
    if (p.c % N) {
        const filter<T, 1> f = {to, from, turned, bias, p.c, rounded, add};
        return gpu_windows_run<1, BACK>(plan, node, &p, plan->batch, f, err);
    }
    const filter<T, N> f = {to, from, turned, bias, p.c, rounded, add};
    return gpu_windows_run<N, BACK>(plan, node, &p, plan->batch, f, err);
}

tern_status gpu_depthwise_forward(tern_gpu_plan *plan, size_t node, tern_dtype type, void *y, const void *x,
                                  const float *weights, const float *bias, void *scratch, tern_error *err) {
    GPU_BY_TYPE(plan->type,
                return run<T, false>(plan, node, type, (T *)y, (const T *)x, weights, bias, 0, scratch, err));
}

tern_status gpu_depthwise_input_gradient(tern_gpu_plan *plan, size_t node, tern_dtype type, void *dx, const void *dy,
                                         const float *weights, int add, void *scratch, tern_error *err) {
    GPU_BY_TYPE(plan->type,
                return run<T, true>(plan, node, type, (T *)dx, (const T *)dy, weights, NULL, add, scratch, err));
}

/* parts[part][tap][channel]: a block has PACKS packs of channels, one tap and one of PARTS parts of the places; its
 * ROWS rows of threads take every so many places, then their sums are added in order. */
template <class T, int N>
__global__ static void weight_parts(float *parts, const T *dy, const T *x, gpu_windows g, uint32_t places,
                                    tern_dtype rounded) {
    __shared__ float room[ROWS][PACKS * N + 1];
    const size_t c = (size_t)g.packs.d * N, first = (size_t)blockIdx.x * PACKS * N, channel = first + threadIdx.x * N;
    const uint32_t tap = blockIdx.y, ky = tap / g.kernel, kx = tap % g.kernel;
    const uint32_t length = (places + PARTS - 1) / PARTS, begin = blockIdx.z * length;
    const uint32_t end = begin + length < places ? begin + length : places;
    float sum[N] = {};
    if (channel < c)
        for (uint32_t place = begin + threadIdx.y; place < end; place += ROWS) {
            uint32_t image = place;
            const uint32_t ox = gpu_split(&image, g.ow), oy = gpu_split(&image, g.oh);
            const uint32_t xx = ox * g.stride.d + kx - g.padding, yy = oy * g.stride.d + ky - g.padding;
            if (xx >= g.w.d || yy >= g.h.d) continue;
            const size_t pixel = ((size_t)image * g.h.d + yy) * g.w.d + xx;
            const auto a = *(const gpu_few<T, N> *)(dy + place * c + channel);
            const auto b = *(const gpu_few<T, N> *)(x + pixel * c + channel);
#pragma unroll
            for (int j = 0; j < N; j++)
                sum[j] += rounded_to(rounded, to_float(a.v[j])) * rounded_to(rounded, to_float(b.v[j]));
        }
#pragma unroll
    for (int j = 0; j < N; j++) room[threadIdx.y][threadIdx.x * N + j] = sum[j];
    __syncthreads();
    const uint32_t mine = threadIdx.y * PACKS + threadIdx.x;
    if (mine >= PACKS * N || first + mine >= c) return;
    float total = 0;
    for (int row = 0; row < ROWS; row++) total += room[row][mine];
    parts[((size_t)blockIdx.z * gridDim.y + tap) * c + first + mine] = total;
}

__global__ static void add_parts(float *dw, const float *parts, size_t taps, size_t channels) {
    const size_t n = taps * channels;
    GPU_FOR(i, n) {
        double total = 0;
        for (int part = 0; part < PARTS; part++) total += (double)parts[part * n + i];
        dw[i % channels * taps + i / channels] += (float)total;
    }
}

template <class T, int N>
static void launch_parts(tern_gpu_plan *plan, const gpu_patches *p, float *parts, const void *dy, const void *x,
                         tern_dtype rounded) {
    const size_t packs = p->c / N;
    const dim3 grid((unsigned)((packs + PACKS - 1) / PACKS), (unsigned)(p->kernel * p->kernel), PARTS);
    weight_parts<T, N>
        <<<grid, dim3(PACKS, ROWS), 0, plan->stream>>>(parts, (const T *)dy, (const T *)x, gpu_windows_of(p, packs),
                                                       (uint32_t)(plan->batch * p->oh * p->ow), rounded);
}

tern_status gpu_depthwise_weight_gradient(tern_gpu_plan *plan, size_t node, tern_dtype type, float *dw,
                                          const void *dy, const void *x, void *scratch, tern_error *err) {
    const gpu_patches p = windows_of(plan, node);
    const size_t n = weights_of(&p);
    const tern_dtype rounded = rounding_of(plan, type);
    float *parts = (float *)scratch;
    GPU_BY_TYPE(plan->type, if (p.c % (16 / sizeof(T))) launch_parts<T, 1>(plan, &p, parts, dy, x, rounded);
                else launch_parts<T, 16 / sizeof(T)>(plan, &p, parts, dy, x, rounded));
    GPU_LAUNCHED(plan, node, err);
    add_parts<<<gpu_blocks(plan, n), GPU_THREADS, 0, plan->stream>>>(dw, parts, n / p.c, p.c);
    GPU_LAUNCHED(plan, node, err);
    return TERN_OK;
}
