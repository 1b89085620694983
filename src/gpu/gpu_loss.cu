/* The loss of nn/loss.c: per row what it computes there, with exponentials of the device and sums of a warp's or a
 * block's order. */
#include "gpu/gpu_kernels.cuh"
#include "gpu/gpu_trainer.cuh"

enum {
    WARP_CLASSES = 1024 /* a row of more classes is a block's work, not a warp's */,
    SUM_THREADS = 1024,
    WIDE_THREADS = 512 /* so few rows at a time that the second reading of one still finds it in the L2 */
};

/* The threads of one row: a warp, or with WIDE the block. */
template <bool WIDE> struct row_team {
    __device__ static size_t lane() { return WIDE ? threadIdx.x : threadIdx.x % 32; }
    __device__ static size_t lanes() { return WIDE ? blockDim.x : 32; }
    __device__ static size_t first() {
        return WIDE ? blockIdx.x : ((size_t)blockIdx.x * blockDim.x + threadIdx.x) / 32;
    }
    __device__ static size_t stride() { return WIDE ? gridDim.x : (size_t)gridDim.x * blockDim.x / 32; }
    __device__ static void meet() {
        if constexpr (WIDE)
            __syncthreads();
        else
            __syncwarp();
    }
    template <class V> __device__ static V sum(V v) {
        if constexpr (WIDE)
            return block_sum(v);
        else
            return warp_sum(v);
    }
    __device__ static float max(float v) {
        v = warp_max(v);
        if constexpr (WIDE) {
            __shared__ float room[32];
            __syncthreads();
            if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = v;
            __syncthreads();
            if (threadIdx.x % 32 < blockDim.x / 32) v = fmaxf(v, room[threadIdx.x % 32]);
            v = warp_max(v);
        }
        return v;
    }
};

/* 16-bit logits do not show what the fast exponential leaves out. */
__device__ static float exp_of(float x, float) { return expf(x); }
__device__ static float exp_of(float x, __nv_bfloat16) { return __expf(x); }
__device__ static float exp_of(float x, __half) { return __expf(x); }

/* f(first class, N logits) for all of the team's packs. */
template <class Team, class T, int N, class F> __device__ static void each_pack(const T *x, size_t classes, F f) {
    for (size_t j = Team::lane() * N; j < classes; j += Team::lanes() * N) {
        const gpu_few<T, N> p = *(const gpu_few<T, N> *)(x + j);
        float v[N];
#pragma unroll
        for (int k = 0; k < N; k++) v[k] = to_float(p.v[k]);
        f(j, v);
    }
}

/* A row's softmax: its largest logit, the sum of the exponentials of the distances to it, and the log of all. */
struct softmax {
    float largest, sum;
    double log_sum;
};

/* In one reading: a thread's sum fades when it meets a larger logit. */
template <class Team, class T, int N> __device__ static softmax softmax_of(const T *x, size_t classes) {
    float largest = -INFINITY, sum = 0;
    each_pack<Team, T, N>(x, classes, [&](size_t, const float(&v)[N]) {
        float most = largest;
#pragma unroll
        for (int k = 0; k < N; k++) most = fmaxf(most, v[k]);
        if (most > largest) {
            sum *= exp_of(largest - most, T());
            largest = most;
        }
#pragma unroll
        for (int k = 0; k < N; k++) sum += exp_of(v[k] - largest, T());
    });
    softmax s;
    s.largest = Team::max(largest);
    s.sum = Team::sum(largest > -INFINITY || sum != sum ? sum * exp_of(largest - s.largest, T()) : 0.0f);
    s.log_sum = (double)s.largest + log((double)s.sum);
    return s;
}

/* log_sum - sum target x. */
template <class Team, class T, int N>
__device__ static double cross_entropy(const softmax &s, const T *x, int32_t label, size_t classes,
                                       const gpu_loss_terms &k) {
    double mean = 0;
    if (k.smoothing > 0) {
        each_pack<Team, T, N>(x, classes, [&](size_t, const float(&v)[N]) {
            for (int j = 0; j < N; j++) mean += (double)v[j];
        });
        mean = Team::sum(mean) / (double)classes;
    }
    return s.log_sum - ((1 - (double)k.smoothing) * (double)to_float(x[label]) + (double)k.smoothing * mean);
}

/* sum p x. */
template <class Team, class T, int N>
__device__ static double expected_logit(const softmax &s, const T *x, size_t classes) {
    double mean = 0;
    each_pack<Team, T, N>(x, classes, [&](size_t, const float(&v)[N]) {
        for (int j = 0; j < N; j++) mean += (double)exp_of(v[j] - s.largest, T()) * (double)v[j];
    });
    return Team::sum(mean) / (double)s.sum;
}

/* The gradient may take the place of the logits. */
template <class T, int N, bool WIDE>
__global__ static void __launch_bounds__(WIDE ? (int)WIDE_THREADS : (int)GPU_THREADS)
    loss_rows(double *row_loss, T *grad, const T *logits, const int32_t *label, size_t rows, size_t classes,
              const gpu_loss_terms *terms) {
    using Team = row_team<WIDE>;
    const gpu_loss_terms k = *terms;
    const bool extras = k.entropy != 0 || k.z != 0;
    for (size_t row = Team::first(); row < rows; row += Team::stride()) {
        const T *x = logits + row * classes;
        const size_t correct = (size_t)label[row];
        const softmax s = softmax_of<Team, T, N>(x, classes);
        const double mean = extras ? expected_logit<Team, T, N>(s, x, classes) : 0;
        const double ce = k.ce != 0 ? (double)k.ce * cross_entropy<Team, T, N>(s, x, label[row], classes, k) : 0;
        if (Team::lane() == 0)
            row_loss[row] = ce + (double)k.entropy * (s.log_sum - mean) + (double)k.z * s.log_sum * s.log_sum;
        const float factor = k.factor * k.ce, scale = factor / s.sum, rest = factor * k.smoothing / (float)classes;
        Team::meet(); /* all have read the correct class */
        each_pack<Team, T, N>(x, classes, [&](size_t first, const float(&v)[N]) {
            gpu_few<T, N> out;
#pragma unroll
            for (int j = 0; j < N; j++) {
                const float e = exp_of(v[j] - s.largest, T());
                float g = e * scale - rest;
                if (first + j == correct) g -= factor * (1 - k.smoothing);
                if (extras) {
                    const double p = (double)e / (double)s.sum;
                    const double slope = (double)k.z * 2 * s.log_sum - (double)k.entropy * ((double)v[j] - mean);
                    g += (float)((double)k.factor * slope * p);
                }
                out.v[j] = from_float<T>(g);
            }
            *(gpu_few<T, N> *)(grad + row * classes + first) = out;
        });
    }
}

/* One block: the mean over rows. One that is not finite is trouble for the rules before any gradient is. */
__global__ static void mean_loss(double *out, const double *row_loss, size_t rows, gpu_rules *rules, uint64_t node) {
    double sum = 0;
    for (size_t i = threadIdx.x; i < rows; i += blockDim.x) sum += row_loss[i];
    sum = block_sum(sum);
    if (threadIdx.x) return;
    *out = sum / (double)rows;
    if (!isfinite(sum) && !rules->trouble) rules->trouble = node;
}

tern_status gpu_loss_prepare(tern_gpu_plan *plan, tern_error *err) {
    gpu_trainer *t = plan->trainer;
    const size_t rows = plan->batch_max * gpu_graph_node(plan, plan->graph->nodes - 1)->rows;
    void *memory;
    GPU_CHECK(gpu_keep(plan, &memory, rows * sizeof *t->row_loss, "loss", err));
    t->row_loss = (double *)memory;
    GPU_CHECK(gpu_keep(plan, &memory, rows * sizeof *t->label, "labels", err));
    t->label = (int32_t *)memory;
    return TERN_OK;
}

template <class T, int N> static void launch_rows(tern_gpu_plan *plan, size_t rows, size_t classes) {
    gpu_trainer *t = plan->trainer;
    const gpu_node *out = &plan->node[plan->graph->nodes - 1];
    T *grad = (T *)out->grad;
    const T *logits = (const T *)out->value;
    if (classes <= WARP_CLASSES)
        loss_rows<T, N, false><<<gpu_blocks(plan, rows * 32), GPU_THREADS, 0, plan->stream>>>(
            t->row_loss, grad, logits, t->label, rows, classes, t->block.loss);
    else
        loss_rows<T, N, true><<<gpu_blocks(plan, rows * GPU_THREADS), WIDE_THREADS, 0, plan->stream>>>(
            t->row_loss, grad, logits, t->label, rows, classes, t->block.loss);
}

tern_status gpu_loss(tern_gpu_plan *plan, size_t part, tern_error *err) {
    gpu_trainer *t = plan->trainer;
    const tern_node *out = gpu_graph_node(plan, plan->graph->nodes - 1);
    const size_t rows = plan->batch * out->rows;
    GPU_BY_TYPE(plan->type, constexpr int N = gpu_pack<T>::N;
                if (out->channels % N) launch_rows<T, 1>(plan, rows, out->channels);
                else launch_rows<T, N>(plan, rows, out->channels));
    CUDA_TRY(cudaGetLastError(), "loss", err);
    mean_loss<<<1, SUM_THREADS, 0, plan->stream>>>(t->part_loss + part, t->row_loss, rows, plan->rules,
                                                   plan->graph->nodes - 1);
    CUDA_TRY(cudaGetLastError(), "loss", err);
    return TERN_OK;
}
