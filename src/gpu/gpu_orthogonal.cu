/* Newton and Schulz's iteration as nn/orthogonal.c does it. On which side the square lies decides the order of the
 * factors, so that nothing is transposed. */
#include "gpu/gpu_orthogonal.cuh"

#include "gpu/gpu_gemm.cuh"
#include "gpu/gpu_kernels.cuh"
#include "gpu/gpu_trits.cuh"
#include "gpu/gpu_weights.cuh"

enum { NEWTON_STEPS = 4 };

__global__ static void sum_momentum(unsigned long long *sum, const int8_t *m, size_t n) {
    long long squares = 0;
    GPU_FOR(i, n) squares += m[i] * m[i];
    squares = block_sum(squares);
    if (threadIdx.x == 0) atomicAdd(sum, (unsigned long long)squares);
}

__global__ static void normalise_momentum(float *x, const int8_t *m, const unsigned long long *sum, size_t n) {
    const float inverse = (float)(1.0 / (sqrt((double)*sum) + 1e-7));
    GPU_FOR(i, n) x[i] = (float)m[i] * inverse;
}

/* x = x a + y b. */
__global__ static void blend(float *x, const float *y, size_t n, float a, float b) {
    GPU_FOR(i, n) x[i] = x[i] * a + y[i] * b;
}

struct newton {
    size_t rows, cols, side; /* the shorter one */
    float *x, *next, *s, *s2;
    void *x_room, *s_room; /* operands of 16 bits */
    unsigned long long *sum;
    size_t bytes;
};

static newton newton_of(const gpu_weights *w, const tern_gpu_plan *plan, float *x, void *scratch) {
    newton t = {w->rows, w->cols, tern_min_size(w->rows, w->cols), x, NULL, NULL, NULL, NULL, NULL, NULL, 0};
    char *at = (char *)scratch;
    const auto take = [&](size_t bytes) {
        char *taken = at + t.bytes;
        t.bytes += gpu_round_up(bytes, 256);
        return taken;
    };
    const size_t n = t.rows * t.cols, square = t.side * t.side;
    t.sum = (unsigned long long *)take(sizeof *t.sum);
    t.next = (float *)take(n * sizeof(float));
    t.s = (float *)take(square * sizeof(float));
    t.s2 = (float *)take(square * sizeof(float));
    t.x_room = take(plan->products == TERN_F32 ? 0 : n * gpu_bytes(plan->products));
    t.s_room = take(plan->products == TERN_F32 ? 0 : square * gpu_bytes(plan->products));
    return t;
}

static tern_status operand(tern_gpu_plan *plan, size_t i, const void **to, void *room, const float *x, size_t n,
                           tern_error *err) {
    *to = x;
    if (plan->products == TERN_F32) return TERN_OK;
    *to = room;
    return gpu_convert(plan, i, plan->products, room, x, n, err);
}

static tern_status newton_step(tern_gpu_plan *plan, size_t i, const newton &t, tern_error *err) {
    const bool wide = t.rows <= t.cols;
    const size_t n = t.rows * t.cols, square = t.side * t.side;
    const void *x, *s;
    gpu_gemm m = {};
    m.operands = plan->products;
    m.result = TERN_F32;
    m.m = m.n = t.side;
    m.k = wide ? t.cols : t.rows;
    m.a_turned = !wide;
    m.b_turned = wide;
    GPU_CHECK(operand(plan, i, &x, t.x_room, t.x, n, err));
    GPU_CHECK(gpu_multiply(plan, i, &m, t.s, x, x, err));
    m.k = t.side;
    m.a_turned = m.b_turned = 0;
    GPU_CHECK(operand(plan, i, &s, t.s_room, t.s, square, err));
    GPU_CHECK(gpu_multiply(plan, i, &m, t.s2, s, s, err));
    blend<<<gpu_blocks(plan, square, 4), GPU_THREADS, 0, plan->stream>>>(t.s, t.s2, square, -4.7750f, 2.0315f);
    GPU_LAUNCHED(plan, i, err);
    GPU_CHECK(operand(plan, i, &s, t.s_room, t.s, square, err));
    m.m = t.rows;
    m.n = t.cols;
    GPU_CHECK(gpu_multiply(plan, i, &m, t.next, wide ? s : x, wide ? x : s, err));
    blend<<<gpu_blocks(plan, n, 4), GPU_THREADS, 0, plan->stream>>>(t.x, t.next, n, 3.4445f, 1);
    GPU_LAUNCHED(plan, i, err);
    return TERN_OK;
}

size_t gpu_orthogonal_scratch(const gpu_weights *w, const tern_gpu_plan *plan) {
    return newton_of(w, plan, NULL, NULL).bytes;
}

tern_status gpu_orthogonalise(const gpu_weights *w, tern_gpu_plan *plan, size_t i, float *x, void *scratch,
                              tern_error *err) {
    const newton t = newton_of(w, plan, x, scratch);
    const size_t n = w->rows * w->cols;
    const unsigned blocks = gpu_blocks(plan, n, 4);
    CUDA_TRY(cudaMemsetAsync(t.sum, 0, sizeof *t.sum, plan->stream), gpu_graph_node(plan, i)->name, err);
    sum_momentum<<<blocks, GPU_THREADS, 0, plan->stream>>>(t.sum, w->trits.momentum, n);
    GPU_LAUNCHED(plan, i, err);
    normalise_momentum<<<blocks, GPU_THREADS, 0, plan->stream>>>(t.x, w->trits.momentum, t.sum, n);
    GPU_LAUNCHED(plan, i, err);
    for (int step = 0; step < NEWTON_STEPS; step++) GPU_CHECK(newton_step(plan, i, t, err));
    return TERN_OK;
}
