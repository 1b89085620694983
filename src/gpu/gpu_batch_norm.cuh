/* Batch norm's formulas, for the ops that compute it: gpu_op_batch_norm.cu, and gpu_op_norm_pool.cu with a pool
 * behind it. */
#ifndef TERN_GPU_GPU_BATCH_NORM_CUH
#define TERN_GPU_GPU_BATCH_NORM_CUH

#include "gpu/gpu_activations.cuh"
#include "gpu/gpu_columns.cuh"

/* Each [channels]: scale and shift of the forward pass, mean and r; in the backward pass dx = scale dy + a x + b. */
struct gpu_channel_state {
    float *scale, *shift, *mean, *r, *a, *b;
};

struct gpu_batch_norm {
    gpu_channel_state s;
    const float *gain, *bias; /* gain NULL: ones */
    float *mean, *variance;   /* running */
    const gpu_now *now;
    double rows;
    float momentum, epsilon;
};

/* The batch norm that node i computes: itself, or what stands in front of it within. */
static inline size_t gpu_norm_of(const tern_gpu_plan *plan, size_t i) {
    while (strcmp(gpu_graph_node(plan, i)->op->name, "batch_norm")) i = (size_t)gpu_graph_node(plan, i)->input[0];
    return i;
}

/* Its state is what node i points to first. */
static inline gpu_batch_norm gpu_batch_norm_of(const tern_gpu_plan *plan, size_t i) {
    enum { GAIN_FREE_PARAMS = 3 };
    const size_t norm = gpu_norm_of(plan, i);
    const tern_node *node = gpu_graph_node(plan, norm);
    gpu_batch_norm n = {};
    n.s = *(const gpu_channel_state *)plan->node[i].state;
    n.mean = gpu_node_param(plan, norm, 0)->value;
    n.variance = gpu_node_param(plan, norm, 1)->value;
    n.bias = gpu_node_param(plan, norm, 2)->value;
    n.gain = node->params > GAIN_FREE_PARAMS ? gpu_node_param(plan, norm, 3)->value : NULL;
    n.now = plan->now;
    n.rows = (double)(plan->batch * node->rows);
    n.momentum = node->at.momentum;
    n.epsilon = node->at.epsilon;
    return n;
}

/* ---- sums over the batch */

/* Of x and its square about the first row, not about 0: the squares then lose no digits to a large mean. */
template <class T> struct gpu_norm_moments {
    struct column {
        float centre;
    };
    struct row {};
    const T *first;
    __device__ column at(size_t c) const { return {to_float(first[c])}; }
    __device__ row of(size_t) const { return {}; }
    __device__ void add(float &sum, float &square, float x, float, column c, row) const {
        const float v = x - c.centre;
        sum += v;
        square += v * v;
    }
};

/* dy in front of the activation F of x scale + shift. */
template <class F> __device__ static float gpu_before(float dy, float x, float scale, float shift) {
    return dy * F::slope(x * scale + shift);
}
template <> __device__ float gpu_before<gpu_identity>(float dy, float, float, float) { return dy; }

/* Of dy and dy n. NULL mean and r: 0 and 1. */
template <class F> struct gpu_norm_products {
    struct column {
        float mean, r, scale, shift;
    };
    struct row {};
    const float *mean, *r, *scale, *shift;
    __device__ column at(size_t c) const {
        return {mean ? mean[c] : 0, r ? r[c] : 1, scale ? scale[c] : 1, shift ? shift[c] : 0};
    }
    __device__ row of(size_t) const { return {}; }
    __device__ void add(float &sum, float &along, float x, float dy, column c, row) const {
        const float d = gpu_before<F>(dy, x, c.scale, c.shift);
        sum += d;
        along += d * ((x - c.mean) * c.r);
    }
};

__device__ static void gpu_fold(const gpu_batch_norm &n, size_t c) {
    n.s.scale[c] = n.gain ? n.gain[c] * n.s.r[c] : n.s.r[c];
    n.s.shift[c] = n.bias[c] - n.s.mean[c] * n.s.scale[c];
}

/* The batch's mean and variance into the state and into the running statistics. */
template <class T> struct gpu_take_statistics {
    gpu_batch_norm n;
    const T *first;
    __device__ void operator()(size_t c, double sum, double square) const {
        const double about = sum / n.rows, centre = (double)to_float(first[c]), m = centre + about;
        double v = square / n.rows - about * about;
        if (v < 0) v = 0;
        const double unbiased = n.rows > 1 ? v * n.rows / (n.rows - 1) : v;
        const double share = n.now->statistics < 0 ? (double)n.momentum : (double)n.now->statistics;
        n.s.mean[c] = (float)m;
        n.s.r[c] = (float)(1.0 / sqrt(v + (double)n.epsilon));
        n.mean[c] = (float)((1 - share) * (double)n.mean[c] + share * m);
        n.variance[c] = (float)((1 - share) * (double)n.variance[c] + share * unbiased);
        gpu_fold(n, c);
    }
};

__global__ static void gpu_fold_running(gpu_batch_norm n, size_t channels) {
    GPU_FOR(c, channels) {
        n.s.mean[c] = n.mean[c];
        n.s.r[c] = (float)(1.0 / sqrt((double)n.variance[c] + (double)n.epsilon));
        gpu_fold(n, c);
    }
}

/* Gradients of bias and gain; a and b, 0 where the statistics are constants. */
struct gpu_take_gradients {
    gpu_batch_norm n;
    float *dbias, *dgain;
    int constant;
    __device__ void operator()(size_t c, double sum, double along) const {
        if (dbias) dbias[c] += (float)sum;
        if (dgain) dgain[c] += (float)along;
        const double scale = (double)n.s.scale[c],
                     slope = constant ? 0 : -scale * (along / n.rows) * (double)n.s.r[c];
        n.s.a[c] = (float)slope;
        n.s.b[c] = constant ? 0 : (float)(-scale * (sum / n.rows) - slope * (double)n.s.mean[c]);
    }
};

/* ---- rows */

template <class F> struct gpu_affine_rows {
    struct column {
        float scale, shift;
    };
    const float *scale, *shift;
    __device__ column at(size_t c) const { return {scale[c], shift[c]}; }
    __device__ float value(float x, float, column c) const { return F::value(x * c.scale + c.shift); }
};

/* NULL shift, a and b: 0. */
template <class F> struct gpu_gradient_rows {
    struct column {
        float scale, shift, a, b;
    };
    const float *scale, *shift, *a, *b;
    __device__ column at(size_t c) const { return {scale[c], shift ? shift[c] : 0, a ? a[c] : 0, b ? b[c] : 0}; }
    __device__ float value(float dy, float x, column c) const {
        return c.scale * gpu_before<F>(dy, x, c.scale, c.shift) + (c.a * x + c.b);
    }
};

/* Scale and shift of this pass. */
static inline tern_status gpu_norm_statistics(tern_gpu_plan *plan, size_t i, const gpu_batch_norm &n,
                                              tern_error *err) {
    const tern_node *norm = gpu_graph_node(plan, gpu_norm_of(plan, i));
    if (!plan->train_mode) {
        gpu_fold_running<<<gpu_blocks(plan, norm->channels), GPU_THREADS, 0, plan->stream>>>(n, norm->channels);
        GPU_LAUNCHED(plan, i, err);
        return TERN_OK;
    }
    GPU_BY_TYPE(plan->type, const T *x = (const T *)gpu_in(plan, i, 0);
                return gpu_pair_sums<T>(plan, i, x, NULL, plan->batch * norm->rows, norm->channels, plan->scratch,
                                        gpu_norm_moments<T>{x}, gpu_take_statistics<T>{n, x}, err));
}

/* The sums of gradients over `rows` rows of x and dy, handed to `finish`. */
template <class F, class G>
static tern_status gpu_norm_sum_gradients(tern_gpu_plan *plan, size_t i, const void *x, size_t rows,
                                          gpu_norm_products<F> p, G finish, tern_error *err) {
    GPU_BY_TYPE(plan->type,
                return gpu_pair_sums<T>(plan, i, (const T *)x, (const T *)plan->node[i].grad, rows,
                                        gpu_graph_node(plan, i)->channels, plan->scratch, p, finish, err));
}

/* The node's first member of state, and scratch for its sums. */
static inline tern_status gpu_norm_prepare(tern_gpu_plan *plan, size_t i, size_t state_bytes, tern_error *err) {
    const size_t c = gpu_graph_node(plan, i)->channels;
    void *memory;
    GPU_CHECK(gpu_state(plan, i, state_bytes, err));
    GPU_CHECK(gpu_keep(plan, &memory, 6 * c * sizeof(float), gpu_graph_node(plan, i)->name, err));
    float *base = (float *)memory;
    *(gpu_channel_state *)plan->node[i].state = {base,         base + c,     base + 2 * c,
                                                 base + 3 * c, base + 4 * c, base + 5 * c};
    gpu_want_scratch(plan, gpu_pair_sums_scratch(plan->type, c));
    return TERN_OK;
}

static inline gpu_take_gradients gpu_norm_gradients(const tern_gpu_plan *plan, size_t i, const gpu_batch_norm &n) {
    const size_t norm = gpu_norm_of(plan, i);
    return {n, gpu_node_param(plan, norm, 2)->grad, n.gain ? gpu_node_param(plan, norm, 3)->grad : NULL,
            !plan->train_mode};
}

#endif
