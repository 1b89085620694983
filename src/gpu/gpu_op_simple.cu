/* add, mul, scale, dropout: nn/op_simple.c's formulas. Dropout draws the CPU's numbers, so that the same elements
 * drop. */
#include "gpu/gpu_kernels.cuh"
#include "gpu/gpu_random.cuh"

struct sum_of {
    __device__ float operator()(float a, float b) const { return a + b; }
};
struct product_of {
    __device__ float operator()(float a, float b) const { return a * b; }
};
struct times {
    float factor;
    __device__ float operator()(float x, float) const { return x * factor; }
};
struct itself {
    __device__ float operator()(float x, float) const { return x; }
};

/* The gradient of input k: dy, times the other input where `by` is given. */
static tern_status pass_gradient(tern_gpu_plan *plan, size_t i, int k, const void *by, tern_error *err) {
    void *dx = gpu_in_grad(plan, i, k);
    const void *dy = plan->node[i].grad;
    const int add = plan->node[i].add_to[k];
    if (!dx || dx == dy) return TERN_OK; /* the same memory, by layout.h */
    if (by) return gpu_map(plan, i, dx, dy, by, gpu_elements(plan, i), add, product_of(), err);
    return gpu_map(plan, i, dx, dy, NULL, gpu_elements(plan, i), add, itself(), err);
}

/* ---- add, mul, scale */

static tern_status add_forward(tern_gpu_plan *plan, size_t i, tern_error *err) {
    if (plan->node[i].state) return TERN_OK; /* the norm behind it makes the sum: gpu_op_norm.cu */
    return gpu_map(plan, i, plan->node[i].value, gpu_in(plan, i, 0), gpu_in(plan, i, 1), gpu_elements(plan, i), 0,
                   sum_of(), err);
}

static tern_status add_backward(tern_gpu_plan *plan, size_t i, tern_error *err) {
    GPU_CHECK(pass_gradient(plan, i, 0, NULL, err));
    return pass_gradient(plan, i, 1, NULL, err);
}

static tern_status mul_forward(tern_gpu_plan *plan, size_t i, tern_error *err) {
    return gpu_map(plan, i, plan->node[i].value, gpu_in(plan, i, 0), gpu_in(plan, i, 1), gpu_elements(plan, i), 0,
                   product_of(), err);
}

static tern_status mul_backward(tern_gpu_plan *plan, size_t i, tern_error *err) {
    GPU_CHECK(pass_gradient(plan, i, 0, gpu_in(plan, i, 1), err));
    return pass_gradient(plan, i, 1, gpu_in(plan, i, 0), err);
}

static tern_status scale_forward(tern_gpu_plan *plan, size_t i, tern_error *err) {
    return gpu_map(plan, i, plan->node[i].value, gpu_in(plan, i, 0), NULL, gpu_elements(plan, i), 0,
                   times{gpu_graph_node(plan, i)->at.factor}, err);
}

static tern_status scale_backward(tern_gpu_plan *plan, size_t i, tern_error *err) {
    void *dx = gpu_in_grad(plan, i, 0);
    if (!dx) return TERN_OK;
    return gpu_map(plan, i, dx, plan->node[i].grad, NULL, gpu_elements(plan, i), plan->node[i].add_to[0],
                   times{gpu_graph_node(plan, i)->at.factor}, err);
}

extern const gpu_op gpu_op_add = {"add", NULL, NULL, add_forward, add_backward};
extern const gpu_op gpu_op_mul = {"mul", NULL, NULL, mul_forward, mul_backward};
extern const gpu_op gpu_op_scale = {"scale", NULL, NULL, scale_forward, scale_backward};

/* ---- dropout */

/* to (+)= from * mask * keep, four elements a draw: element e has word e % 4 of draw e / 4. */
template <class T>
__global__ static void drop(T *to, const T *from, size_t n, uint64_t seed, const gpu_now *now, uint64_t node,
                            uint32_t limit, float keep, int add) {
    using P = gpu_pack<T>;
    const size_t packs = (n + P::N - 1) / P::N;
    const uint64_t high = now->step << 12 | node;
    GPU_FOR(i, packs) {
        const int whole = (i + 1) * P::N <= n, count = whole ? (int)P::N : (int)(n - i * P::N);
        P in, out;
        if (whole) {
            in = ((const P *)from)[i];
            if (add) out = ((const P *)to)[i];
        } else {
#pragma unroll
            for (int j = 0; j < P::N; j++)
                if (j < count) {
                    in.v[j] = from[i * P::N + j];
                    if (add) out.v[j] = to[i * P::N + j];
                }
        }
#pragma unroll
        for (int draw = 0; draw < P::N / 4; draw++) {
            const gpu_random4 r = gpu_philox(seed, i * (P::N / 4) + draw, high);
#pragma unroll
            for (int w = 0; w < 4; w++) {
                const int j = 4 * draw + w;
                const float v = r.v[w] < limit ? 0.0f : to_float(in.v[j]) * keep;
                out.v[j] = from_float<T>(add ? to_float(out.v[j]) + v : v);
            }
        }
        if (whole) {
            ((P *)to)[i] = out;
        } else {
#pragma unroll
            for (int j = 0; j < P::N; j++)
                if (j < count) to[i * P::N + j] = out.v[j];
        }
    }
}

static int drops(const tern_gpu_plan *plan, size_t i) {
    return plan->train_mode && gpu_graph_node(plan, i)->at.rate > 0;
}

static tern_status run_drop(tern_gpu_plan *plan, size_t i, void *to, const void *from, int add, tern_error *err) {
    const float rate = gpu_graph_node(plan, i)->at.rate, keep = 1.0f / (1.0f - rate);
    const uint32_t limit = (uint32_t)((double)rate * 4294967296.0);
    const size_t n = gpu_elements(plan, i);
    GPU_BY_TYPE(plan->type, drop<T><<<gpu_blocks(plan, n, 16 / sizeof(T)), GPU_THREADS, 0, plan->stream>>>(
                                (T *)to, (const T *)from, n, plan->seed, plan->now, i, limit, keep, add));
    GPU_LAUNCHED(plan, i, err);
    return TERN_OK;
}

static tern_status dropout_forward(tern_gpu_plan *plan, size_t i, tern_error *err) {
    void *y = plan->node[i].value;
    const void *x = gpu_in(plan, i, 0);
    if (drops(plan, i)) return run_drop(plan, i, y, x, 0, err);
    return gpu_map(plan, i, y, x, NULL, gpu_elements(plan, i), 0, itself(), err);
}

static tern_status dropout_backward(tern_gpu_plan *plan, size_t i, tern_error *err) {
    void *dx = gpu_in_grad(plan, i, 0);
    if (!dx) return TERN_OK;
    if (drops(plan, i)) return run_drop(plan, i, dx, plan->node[i].grad, plan->node[i].add_to[0], err);
    return pass_gradient(plan, i, 0, NULL, err);
}

extern const gpu_op gpu_op_dropout = {"dropout", NULL, NULL, dropout_forward, dropout_backward};
