/* The loss of nn/loss.c: per row what it computes there, with exponentials of the device and sums of a warp's or a
 * block's order.
 *
 * A row of many classes is read twice, for its softmax and for its gradient. Where a block has shared memory for all
 * of it the row waits there in between, and the next one follows it pack by pack. */
#include "gpu/gpu_async.cuh"
#include "gpu/gpu_kernels.cuh"
#include "gpu/gpu_trainer.cuh"

enum {
    WARP_CLASSES = 1024 /* a row of more classes is a block's work, not a warp's */,
    SUM_THREADS = 1024,
    WIDE_THREADS = 512 /* so few rows at a time that a second reading of one still finds it in the L2 */,
    STATIC_ROOM = 1024 /* no less than the shared memory of the sums */
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

/* e^(x - largest). 16-bit logits do not show what the fast exponential leaves out. */
__device__ static float exp_of(float x, float largest, float) { return expf(x - largest); }
template <class T> __device__ static float exp_of(float x, float largest, T) {
    const float log2_e = 1.4426950408889634f;
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(fmaf(x, log2_e, -largest * log2_e)));
    return y;
}

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
            sum *= exp_of(largest, most, T());
            largest = most;
        }
#pragma unroll
        for (int k = 0; k < N; k++) sum += exp_of(v[k], largest, T());
    });
    softmax s;
    s.largest = Team::max(largest);
    s.sum = Team::sum(largest > -INFINITY || sum != sum ? sum * exp_of(largest, s.largest, T()) : 0.0f);
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
        for (int j = 0; j < N; j++) mean += (double)exp_of(v[j], s.largest, T()) * (double)v[j];
    });
    return Team::sum(mean) / (double)s.sum;
}

/* Starts to bring a pack of a row to where the same thread looks for it. */
template <class T, int N> __device__ static void ask_pack(T *to, const T *x, size_t first) {
    static_assert(N == 1 || N * sizeof(T) == 16, "what one copy brings");
    if constexpr (N > 1) gpu_copy_async(to + first, x + first);
}

/* The gradient may take the place of the logits. STAGED: classes of T in shared memory, and packs of 16 bytes. */
template <class T, int N, bool WIDE, bool STAGED>
__global__ static void __launch_bounds__(WIDE ? (int)WIDE_THREADS : (int)GPU_THREADS, STAGED ? 2 : 1)
    loss_rows(double *row_loss, T *grad, const T *logits, const int32_t *label, size_t rows, size_t classes,
              const gpu_loss_terms *terms) {
    using Team = row_team<WIDE>;
    extern __shared__ __align__(16) char loss_room[];
    T *const staged = (T *)loss_room;
    const gpu_loss_terms k = *terms;
    const bool extras = k.entropy != 0 || k.z != 0;
    if (STAGED && Team::first() < rows)
        for (size_t j = Team::lane() * N; j < classes; j += Team::lanes() * N)
            ask_pack<T, N>(staged, logits + Team::first() * classes, j);
    for (size_t row = Team::first(); row < rows; row += Team::stride()) {
        const T *x = STAGED ? staged : logits + row * classes;
        const size_t next = row + Team::stride();
        if (STAGED) {
            gpu_copies_commit();
            gpu_copies_wait<0>();
        }
        const softmax s = softmax_of<Team, T, N>(x, classes);
        const double mean = extras ? expected_logit<Team, T, N>(s, x, classes) : 0;
        const double ce = k.ce != 0 ? (double)k.ce * cross_entropy<Team, T, N>(s, x, label[row], classes, k) : 0;
        if (Team::lane() == 0)
            row_loss[row] = ce + (double)k.entropy * (s.log_sum - mean) + (double)k.z * s.log_sum * s.log_sum;
        const float factor = k.factor * k.ce, scale = factor / s.sum, rest = factor * k.smoothing / (float)classes;
        const unsigned correct = (unsigned)label[row];
        Team::meet(); /* all have read the correct class */
        each_pack<Team, T, N>(x, classes, [&](size_t first, const float(&v)[N]) {
            gpu_few<T, N> out;
            const unsigned place = correct - (unsigned)first;
            float g[N];
#pragma unroll
            for (int j = 0; j < N; j++) {
                const float e = exp_of(v[j], s.largest, T());
                g[j] = fmaf(e, scale, -rest);
                if (extras) {
                    const double p = (double)e / (double)s.sum;
                    const double slope = (double)k.z * 2 * s.log_sum - (double)k.entropy * ((double)v[j] - mean);
                    g[j] += (float)((double)k.factor * slope * p);
                }
            }
            if (place < (unsigned)N)
#pragma unroll
                for (int j = 0; j < N; j++)
                    if (place == (unsigned)j) g[j] -= factor * (1 - k.smoothing);
#pragma unroll
            for (int j = 0; j < N; j++) out.v[j] = from_float<T>(g[j]);
            *(gpu_few<T, N> *)(grad + row * classes + first) = out;
            if (STAGED && next < rows) ask_pack<T, N>(staged, logits + next * classes, first);
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

/* Shared memory for a row of logits; 0 where a block has not so much. */
static size_t staged_bytes(const tern_gpu_plan *plan) {
    const size_t bytes = gpu_graph_node(plan, plan->graph->nodes - 1)->channels * gpu_bytes(plan->type);
    return bytes + STATIC_ROOM <= (size_t)plan->context->shared_bytes ? bytes : 0;
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

template <class T, int N>
static tern_status launch_rows(tern_gpu_plan *plan, size_t rows, size_t classes, tern_error *err) {
    gpu_trainer *t = plan->trainer;
    const gpu_node *out = &plan->node[plan->graph->nodes - 1];
    T *grad = (T *)out->grad;
    const T *logits = (const T *)out->value;
    if (classes <= WARP_CLASSES) {
        loss_rows<T, N, false, false><<<gpu_blocks(plan, rows * 32), GPU_THREADS, 0, plan->stream>>>(
            t->row_loss, grad, logits, t->label, rows, classes, t->block.loss);
        return TERN_OK;
    }
    if constexpr (N > 1)
        if (const size_t staged = staged_bytes(plan)) {
            const auto kernel = loss_rows<T, N, true, true>;
            CUDA_TRY(tern_cuda_allow_shared(plan->context, kernel, STATIC_ROOM), "loss", err);
            kernel<<<(unsigned)plan->context->multiprocessors * 2, WIDE_THREADS, staged, plan->stream>>>(
                t->row_loss, grad, logits, t->label, rows, classes, t->block.loss);
            return TERN_OK;
        }
    loss_rows<T, N, true, false><<<gpu_blocks(plan, rows * GPU_THREADS), WIDE_THREADS, 0, plan->stream>>>(
        t->row_loss, grad, logits, t->label, rows, classes, t->block.loss);
    return TERN_OK;
}

tern_status gpu_loss(tern_gpu_plan *plan, size_t part, tern_error *err) {
    gpu_trainer *t = plan->trainer;
    const tern_node *out = gpu_graph_node(plan, plan->graph->nodes - 1);
    const size_t rows = plan->batch * out->rows;
    GPU_BY_TYPE(plan->type, constexpr int N = gpu_pack<T>::N;
                if (out->channels % N) GPU_CHECK((launch_rows<T, 1>(plan, rows, out->channels, err)));
                else GPU_CHECK((launch_rows<T, N>(plan, rows, out->channels, err))));
    CUDA_TRY(cudaGetLastError(), "loss", err);
    mean_loss<<<1, SUM_THREADS, 0, plan->stream>>>(t->part_loss + part, t->row_loss, rows, plan->rules,
                                                   plan->graph->nodes - 1);
    CUDA_TRY(cudaGetLastError(), "loss", err);
    return TERN_OK;
}
