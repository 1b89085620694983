/* batch_norm, affine: nn/op_batch_norm.c's formulas. What a pass keeps per channel lies on the device, so that the
 * host never waits for statistics. In the place of an activation, with the batch norm in front of it within (nn/layout.h), the
 * activation costs no pass of its own: its input is computed again where the backward pass wants it. */
#include "gpu/gpu_activations.cuh"
#include "gpu/gpu_columns.cuh"

enum { GAIN_FREE_PARAMS = 3 };

/* Each [channels]: scale and shift of the forward pass, mean and r; in the backward pass dx = scale dy + a x + b. */
struct channel_state {
    float *scale, *shift, *mean, *r, *a, *b;
};

struct batch_norm {
    channel_state s;
    const float *gain, *bias; /* gain NULL: ones */
    float *mean, *variance;   /* running */
    const gpu_now *now;
    double rows;
    float momentum, epsilon;
};

/* The batch norm of node i. */
static size_t norm_of(const tern_gpu_plan *plan, size_t i) {
    const size_t in = (size_t)gpu_graph_node(plan, i)->input[0];
    return plan->node[in].within ? in : i;
}

/* What follows it in node i, or NULL. */
static const char *activation_of(const tern_gpu_plan *plan, size_t i) {
    return norm_of(plan, i) == i ? NULL : gpu_graph_node(plan, i)->op->name;
}

static batch_norm batch_norm_of(const tern_gpu_plan *plan, size_t i) {
    const size_t norm = norm_of(plan, i);
    const tern_node *node = gpu_graph_node(plan, norm);
    batch_norm n = {};
    n.s = *(const channel_state *)plan->node[i].state;
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

static tern_status prepare(tern_gpu_plan *plan, size_t i, tern_error *err) {
    const size_t c = gpu_graph_node(plan, i)->channels;
    void *memory;
    GPU_CHECK(gpu_state(plan, i, sizeof(channel_state), err));
    GPU_CHECK(gpu_keep(plan, &memory, 6 * c * sizeof(float), gpu_graph_node(plan, i)->name, err));
    float *base = (float *)memory;
    *(channel_state *)plan->node[i].state = {base, base + c, base + 2 * c, base + 3 * c, base + 4 * c, base + 5 * c};
    gpu_want_scratch(plan, gpu_pair_sums_scratch(plan->type, c));
    return TERN_OK;
}

/* ---- sums over the batch */

/* Of x and its square about the first row, not about 0: the squares then lose no digits to a large mean. */
template <class T> struct moments {
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
template <class F> __device__ static float before(float dy, float x, float scale, float shift) {
    return dy * F::slope(x * scale + shift);
}
template <> __device__ float before<gpu_identity>(float dy, float, float, float) { return dy; }

/* Of dy and dy n. NULL mean and r: 0 and 1. */
template <class F> struct products {
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
        const float d = before<F>(dy, x, c.scale, c.shift);
        sum += d;
        along += d * ((x - c.mean) * c.r);
    }
};

__device__ static void fold(const batch_norm &n, size_t c) {
    n.s.scale[c] = n.gain ? n.gain[c] * n.s.r[c] : n.s.r[c];
    n.s.shift[c] = n.bias[c] - n.s.mean[c] * n.s.scale[c];
}

/* The batch's mean and variance into the state and into the running statistics. */
template <class T> struct take_statistics {
    batch_norm n;
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
        fold(n, c);
    }
};

__global__ static void fold_running(batch_norm n, size_t channels) {
    GPU_FOR(c, channels) {
        n.s.mean[c] = n.mean[c];
        n.s.r[c] = (float)(1.0 / sqrt((double)n.variance[c] + (double)n.epsilon));
        fold(n, c);
    }
}

/* Gradients of bias and gain; a and b, 0 where the statistics are constants. */
struct take_gradients {
    batch_norm n;
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

template <class F> struct affine_rows {
    struct column {
        float scale, shift;
    };
    const float *scale, *shift;
    __device__ column at(size_t c) const { return {scale[c], shift[c]}; }
    __device__ float value(float x, float, column c) const { return F::value(x * c.scale + c.shift); }
};

/* NULL shift, a and b: 0. */
template <class F> struct gradient_rows {
    struct column {
        float scale, shift, a, b;
    };
    const float *scale, *shift, *a, *b;
    __device__ column at(size_t c) const { return {scale[c], shift ? shift[c] : 0, a ? a[c] : 0, b ? b[c] : 0}; }
    __device__ float value(float dy, float x, column c) const {
        return c.scale * before<F>(dy, x, c.scale, c.shift) + (c.a * x + c.b);
    }
};

/* ---- batch_norm */

template <class T> static tern_status take(tern_gpu_plan *plan, size_t i, const batch_norm &n, tern_error *err) {
    const tern_node *node = gpu_graph_node(plan, i);
    const T *x = (const T *)gpu_in(plan, i, 0);
    return gpu_pair_sums<T>(plan, i, x, NULL, plan->batch * node->rows, node->channels, plan->scratch, moments<T>{x},
                            take_statistics<T>{n, x}, err);
}

static tern_status forward(tern_gpu_plan *plan, size_t i, tern_error *err) {
    const tern_node *node = gpu_graph_node(plan, i);
    const batch_norm n = batch_norm_of(plan, i);
    if (plan->train_mode) {
        GPU_BY_TYPE(plan->type, GPU_CHECK(take<T>(plan, i, n, err)));
    } else {
        fold_running<<<gpu_blocks(plan, node->channels), GPU_THREADS, 0, plan->stream>>>(n, node->channels);
        GPU_LAUNCHED(plan, i, err);
    }
    GPU_BY_ACTIVATION(activation_of(plan, i), return gpu_columns_map(plan, i, plan->node[i].value, gpu_in(plan, i, 0),
                                                                     NULL, plan->batch * node->rows, node->channels,
                                                                     0, affine_rows<F>{n.s.scale, n.s.shift}, err));
}

/* Both sums of dy, handed to `finish`. */
template <class F, class G>
static tern_status sum_gradients(tern_gpu_plan *plan, size_t i, products<F> p, G finish, tern_error *err) {
    const tern_node *node = gpu_graph_node(plan, i);
    GPU_BY_TYPE(plan->type,
                return gpu_pair_sums<T>(plan, i, (const T *)gpu_in(plan, i, 0), (const T *)plan->node[i].grad,
                                        plan->batch * node->rows, node->channels, plan->scratch, p, finish, err));
}

static tern_status backward(tern_gpu_plan *plan, size_t i, tern_error *err) {
    const tern_node *node = gpu_graph_node(plan, i);
    const batch_norm n = batch_norm_of(plan, i);
    const size_t norm = norm_of(plan, i);
    float *dgain = n.gain ? gpu_node_param(plan, norm, 3)->grad : NULL;
    void *dx = gpu_in_grad(plan, i, 0);
    const take_gradients finish = {n, gpu_node_param(plan, norm, 2)->grad, dgain, !plan->train_mode};
    GPU_BY_ACTIVATION(activation_of(plan, i), {
        const products<F> p = {n.s.mean, n.s.r, n.s.scale, n.s.shift};
        const gradient_rows<F> rows = {n.s.scale, n.s.shift, n.s.a, n.s.b};
        GPU_CHECK(sum_gradients(plan, i, p, finish, err));
        if (!dx) return TERN_OK;
        return gpu_columns_map(plan, i, dx, plan->node[i].grad, gpu_in(plan, i, 0), plan->batch * node->rows,
                               node->channels, plan->node[i].add_to[0], rows, err);
    });
}

extern const gpu_op gpu_op_batch_norm = {"batch_norm", prepare, NULL, forward, backward};

/* ---- affine: batch norm with mean 0, r 1 and constant statistics */

static tern_status affine_prepare(tern_gpu_plan *plan, size_t i, tern_error *) {
    gpu_want_scratch(plan, gpu_pair_sums_scratch(plan->type, gpu_graph_node(plan, i)->channels));
    return TERN_OK;
}

static tern_status affine_forward(tern_gpu_plan *plan, size_t i, tern_error *err) {
    const tern_node *node = gpu_graph_node(plan, i);
    const affine_rows<gpu_identity> rows = {gpu_node_param(plan, i, 0)->value, gpu_node_param(plan, i, 1)->value};
    return gpu_columns_map(plan, i, plan->node[i].value, gpu_in(plan, i, 0), NULL, plan->batch * node->rows,
                           node->channels, 0, rows, err);
}

struct add_gradients {
    float *dshift, *dscale;
    __device__ void operator()(size_t c, double sum, double along) const {
        if (dshift) dshift[c] += (float)sum;
        if (dscale) dscale[c] += (float)along;
    }
};

static tern_status affine_backward(tern_gpu_plan *plan, size_t i, tern_error *err) {
    const tern_node *node = gpu_graph_node(plan, i);
    const add_gradients finish = {gpu_node_param(plan, i, 1)->grad, gpu_node_param(plan, i, 0)->grad};
    void *dx = gpu_in_grad(plan, i, 0);
    GPU_CHECK(sum_gradients(plan, i, products<gpu_identity>{}, finish, err));
    if (!dx) return TERN_OK;
    return gpu_columns_map(plan, i, dx, plan->node[i].grad, NULL, plan->batch * node->rows, node->channels,
                           plan->node[i].add_to[0],
                           gradient_rows<gpu_identity>{gpu_node_param(plan, i, 0)->value, NULL, NULL, NULL}, err);
}

extern const gpu_op gpu_op_affine = {"affine", affine_prepare, NULL, affine_forward, affine_backward};
