/* attention: nn/op_attention.c's formulas; the kernels of the products are gpu_attention_plain.cu and
 * gpu_attention_mma.cu, on Hopper gpu_attention_wgmma.cu. */
#include <math.h>
#include <stdlib.h>

#include "cuda/device_memory.cuh"
#include "gpu/gpu_attention.cuh"

struct attention_state {
    void *turned;
    float *cosine, *lse;
    float *delta; /* made by the norm behind; NULL: here, in scratch */
    size_t units; /* a launch of Hopper's own gradients; 0: the other kernels' */
};

static gpu_attention attention_of(const tern_gpu_plan *plan, size_t i, size_t batch) {
    const tern_node *node = gpu_graph_node(plan, i);
    const attention_state *state = (const attention_state *)plan->node[i].state;
    gpu_attention a = {};
    a.batch = batch;
    a.t = node->shape.dim[0];
    a.h = node->at.heads;
    a.g = node->at.kv_heads;
    a.d = node->channels / a.h;
    a.r = a.h / a.g;
    a.in = (a.h + 2 * a.g) * a.d;
    a.out = a.h * a.d;
    a.x = gpu_in(plan, i, 0);
    a.y = plan->node[i].value;
    a.dy = plan->node[i].grad;
    a.dx = gpu_in_grad(plan, i, 0);
    a.add = plan->node[i].add_to[0];
    a.turned = a.x;
    a.ld = a.in;
    a.scale = (float)(1.0 / sqrt((double)a.d));
    a.scale2 = (float)(1.4426950408889634 / sqrt((double)a.d));
    if (!state) return a;
    if (state->cosine) {
        a.turned = state->turned;
        a.ld = (a.h + a.g) * a.d;
        a.cosine = state->cosine;
        a.sine = state->cosine + a.t * (a.d / 2);
    }
    a.lse = state->lse;
    a.delta = state->delta;
    return a;
}

/* ---- rotary embedding */

/* [T][D/2] cosines, then sines, the CPU's to the bit. */
static tern_status make_angles(tern_gpu_plan *plan, size_t i, const gpu_attention *a, float *to, tern_error *err) {
    const double base = (double)gpu_graph_node(plan, i)->at.rope_base;
    const size_t half = a->d / 2;
    float *cosine = (float *)malloc(2 * a->t * half * sizeof *cosine);
    if (!cosine) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for a plan");
    for (size_t t = 0; t < a->t; t++)
        for (size_t j = 0; j < half; j++) {
            const double angle = (double)t * pow(base, -2.0 * (double)j / (double)a->d);
            cosine[t * half + j] = (float)cos(angle);
            cosine[(a->t + t) * half + j] = (float)sin(angle);
        }
    const tern_status status = tern_cuda_upload(plan->context, to, cosine, 2 * a->t * half * sizeof *cosine, err);
    free(cosine);
    return status;
}

template <class T, int N> struct alignas(sizeof(T) * N) neighbours { T v[N]; };

/* Queries and keys of all tokens; a thread turns N pairs. */
template <class T, int N>
__global__ static void __launch_bounds__(GPU_THREADS)
    turn(T *__restrict__ to, const T *__restrict__ x, const float *__restrict__ cosine,
         const float *__restrict__ sine, gpu_attention a) {
    using P = neighbours<T, N>;
    using F = gpu_few<float, N>;
    const unsigned half = (unsigned)(a.d / 2), packs = half / N, count = (unsigned)(a.h + a.g) * packs;
    const unsigned tokens = (unsigned)a.t;
    GPU_FOR(i, a.batch * a.t * count) {
        const size_t row = i / count;
        const unsigned k = (unsigned)(i - row * count), head = k / packs, j = (k - head * packs) * N;
        const size_t angle = (size_t)((unsigned)row % tokens) * half + j;
        const T *from = x + row * a.in + head * a.d + j;
        T *out = to + row * a.ld + head * a.d + j;
        const P u = *(const P *)from, v = *(const P *)(from + half);
        const F by_cosine = *(const F *)(cosine + angle), by_sine = *(const F *)(sine + angle);
        P first, second;
#pragma unroll
        for (int n = 0; n < N; n++) {
            const float c = by_cosine.v[n], s = by_sine.v[n], p = to_float(u.v[n]), q = to_float(v.v[n]);
            first.v[n] = from_float<T>(p * c - q * s);
            second.v[n] = from_float<T>(q * c + p * s);
        }
        *(P *)out = first;
        *(P *)(out + half) = second;
    }
}

template <class T, int N> static void launch_turn(tern_gpu_plan *plan, const gpu_attention *a) {
    const size_t packs = a->batch * a->t * (a->h + a->g) * (a->d / 2 / N);
    turn<T, N><<<gpu_blocks(plan, packs), GPU_THREADS, 0, plan->stream>>>((T *)a->turned, (const T *)a->x, a->cosine,
                                                                          a->sine, *a);
}

static tern_status turn_all(tern_gpu_plan *plan, size_t i, const gpu_attention *a, tern_error *err) {
    if (!a->cosine) return TERN_OK;
    GPU_BY_TYPE(plan->type, if (a->d / 2 % gpu_pack<T>::N) launch_turn<T, 1>(plan, a);
                else launch_turn<T, gpu_pack<T>::N>(plan, a));
    GPU_LAUNCHED(plan, i, err);
    return TERN_OK;
}

/* ---- the operation */

static size_t delta_bytes(const gpu_attention *a) {
    return gpu_round_up(a->batch * a->t * a->h * sizeof(float), 256);
}

/* Scores in memory are worth what is left beside the activations, and no more: smaller launches, at last the kernels
 * that leave none. */
static tern_status choose_units(tern_gpu_plan *plan, size_t i, const gpu_attention *a, attention_state *state,
                                tern_error *err) {
    size_t free_bytes, total;
    CUDA_TRY(cudaMemGetInfo(&free_bytes, &total), gpu_graph_node(plan, i)->name, err);
    state->units = gpu_attention_wgmma_units(a, free_bytes);
    return state->units ? gpu_attention_wgmma_prepare_backward(plan, i, err)
                        : gpu_attention_mma_prepare(plan, i, a->d, err);
}

static tern_status prepare_gradients(tern_gpu_plan *plan, size_t i, const gpu_attention *a, attention_state *state,
                                     tern_error *err) {
    void *memory;
    size_t room = delta_bytes(a);
    GPU_CHECK(gpu_keep(plan, &memory, delta_bytes(a), gpu_graph_node(plan, i)->name, err));
    state->lse = (float *)memory;
    if (gpu_attention_has_wgmma(plan, a->d)) GPU_CHECK(choose_units(plan, i, a, state, err));
    if (state->units) room += gpu_attention_wgmma_room(a, state->units);
    gpu_want_scratch(plan, room);
    return TERN_OK;
}

static tern_status prepare(tern_gpu_plan *plan, size_t i, tern_error *err) {
    const tern_node *node = gpu_graph_node(plan, i);
    const gpu_attention a = attention_of(plan, i, plan->batch_max);
    const size_t tokens = plan->batch_max * a.t;
    GPU_CHECK(gpu_state(plan, i, sizeof(attention_state), err));
    attention_state *state = (attention_state *)plan->node[i].state;
    if (gpu_attention_has_wgmma(plan, a.d))
        GPU_CHECK(gpu_attention_wgmma_prepare(plan, i, err));
    else if (gpu_attention_has_mma(plan, a.d))
        GPU_CHECK(gpu_attention_mma_prepare(plan, i, a.d, err));
    if (plan->training) GPU_CHECK(prepare_gradients(plan, i, &a, state, err));
    if (node->at.rope_base == 0) return TERN_OK;
    void *memory;
    GPU_CHECK(gpu_keep(plan, &state->turned, tokens * (a.h + a.g) * a.d * gpu_bytes(plan->type), node->name, err));
    GPU_CHECK(gpu_keep(plan, &memory, a.t * a.d * sizeof(float), node->name, err));
    state->cosine = (float *)memory;
    return make_angles(plan, i, &a, state->cosine, err);
}

static tern_status forward(tern_gpu_plan *plan, size_t i, tern_error *err) {
    const gpu_attention a = attention_of(plan, i, plan->batch);
    GPU_CHECK(turn_all(plan, i, &a, err));
    if (gpu_attention_has_wgmma(plan, a.d)) return gpu_attention_wgmma_forward(plan, i, &a, err);
    if (gpu_attention_has_mma(plan, a.d)) return gpu_attention_mma_forward(plan, i, &a, err);
    return gpu_attention_plain_forward(plan, i, &a, err);
}

/* delta[b][h][t] = sum of dy y over a head: the row sums of dP P. A row is `lanes` neighbours' work, a power of two
 * up to a warp, N values at a time. */
template <class T, int N> __global__ static void row_products(gpu_attention a, int lanes) {
    const size_t rows = a.batch * a.t * a.h, thread = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    const size_t own = thread / lanes, row = own < rows ? own : rows - 1; /* [b][t][h] */
    const T *y = (const T *)a.y + row * a.d, *dy = (const T *)a.dy + row * a.d;
    float sum = 0;
    for (size_t j = thread % lanes * N; j < a.d; j += (size_t)lanes * N) {
        const gpu_few<T, N> p = *(const gpu_few<T, N> *)(y + j), q = *(const gpu_few<T, N> *)(dy + j);
#pragma unroll
        for (int n = 0; n < N; n++) sum += to_float(p.v[n]) * to_float(q.v[n]);
    }
    for (int step = lanes / 2; step; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    const size_t token = row / a.h, h = row - token * a.h, b = token / a.t, t = token - b * a.t;
    if (own < rows && thread % lanes == 0) a.delta[(b * a.h + h) * a.t + t] = sum;
}

template <class T, int N> static void launch_row_products(tern_gpu_plan *plan, const gpu_attention *a) {
    int lanes = 1;
    while (lanes < 32 && (size_t)(2 * lanes * N) <= a->d) lanes *= 2;
    const size_t threads = a->batch * a->t * a->h * (size_t)lanes;
    row_products<T, N>
        <<<(unsigned)((threads + GPU_THREADS - 1) / GPU_THREADS), GPU_THREADS, 0, plan->stream>>>(*a, lanes);
}

tern_status gpu_attention_take_delta(tern_gpu_plan *plan, size_t node, float **delta, tern_error *err) {
    const gpu_attention a = attention_of(plan, node, plan->batch_max);
    attention_state *state = (attention_state *)plan->node[node].state;
    void *memory;
    GPU_CHECK(gpu_keep(plan, &memory, delta_bytes(&a), gpu_graph_node(plan, node)->name, err));
    *delta = state->delta = (float *)memory;
    return TERN_OK;
}

static tern_status make_delta(tern_gpu_plan *plan, size_t i, gpu_attention *a, tern_error *err) {
    if (a->delta) return TERN_OK;
    a->delta = (float *)plan->scratch;
    GPU_BY_TYPE(plan->type, if (a->d % gpu_pack<T>::N) launch_row_products<T, 1>(plan, a);
                else launch_row_products<T, gpu_pack<T>::N>(plan, a));
    GPU_LAUNCHED(plan, i, err);
    return TERN_OK;
}

static tern_status backward(tern_gpu_plan *plan, size_t i, tern_error *err) {
    gpu_attention a = attention_of(plan, i, plan->batch);
    if (!a.dx) return TERN_OK;
    GPU_CHECK(make_delta(plan, i, &a, err));
    const size_t units = ((const attention_state *)plan->node[i].state)->units;
    if (units) return gpu_attention_wgmma_backward(plan, i, &a, units, (char *)plan->scratch + delta_bytes(&a), err);
    if (gpu_attention_has_mma(plan, a.d)) return gpu_attention_mma_backward(plan, i, &a, err);
    return gpu_attention_plain_backward(plan, i, &a, err);
}

extern const gpu_op gpu_op_attention = {"attention", prepare, NULL, forward, backward};
