/* Muon: train/optimizer.c's momentum and nn/orthogonal.c's Newton-Schulz steps, for all matrices of one shape at
 * once.
 *
 * With s = x x^T (of a tall matrix x^T x, so that nothing is transposed) a step is x = (c0 + c1 s + c2 s^2) x: the
 * factor in brackets is made in one pass over s and s^2, and the rest are three products. Operands are of the plan's
 * products; in bf16 x itself is, which these steps forgive.
 *
 * The update u takes the place of the gradient, which nothing reads any more. In a step that is skipped all of this
 * runs on what it finds, and neither momentum nor weights are written. */
#include <stdlib.h>

#include "gpu/gpu_branches.cuh"
#include "gpu/gpu_gemm.cuh"
#include "gpu/gpu_kernels.cuh"
#include "gpu/gpu_trainer.cuh"

#define NEWTON_C0 3.4445f
#define NEWTON_C1 -4.7750f
#define NEWTON_C2 2.0315f

/* ---- which matrices there are */

static size_t rows_of(const tern_param *p) { return p->dim[0]; }
static size_t columns_of(const tern_param *p) { return p->count / p->dim[0]; }
static size_t shorter(const gpu_muon_group *g) { return g->rows < g->columns ? g->rows : g->columns; }
/* Elements between matrices: of x, and of s. */
__host__ __device__ static size_t wide_stride(const gpu_muon_group &g) { return (g.rows * g.columns + 63) / 64 * 64; }
static size_t square_stride(const gpu_muon_group *g) { return gpu_round_up(shorter(g) * shorter(g), 64); }

struct matrix_list {
    gpu_row *matrix;
    gpu_chunk *chunk;
    uint32_t *first; /* [matrices + 1] */
    gpu_muon_group *group;
    size_t matrices, chunks, groups;
};

static bool make_room(matrix_list *list, const tern_graph *graph) {
    size_t chunks = 1;
    for (size_t p = 0; p < graph->params; p++) chunks += graph->param[p].count / GPU_CHUNK + 1;
    list->matrix = (gpu_row *)calloc(graph->params + 1, sizeof *list->matrix);
    list->first = (uint32_t *)calloc(graph->params + 1, sizeof *list->first);
    list->group = (gpu_muon_group *)calloc(graph->params + 1, sizeof *list->group);
    list->chunk = (gpu_chunk *)calloc(chunks, sizeof *list->chunk);
    return list->matrix && list->first && list->group && list->chunk;
}

static void add_matrix(matrix_list *list, const tern_gpu_plan *plan, size_t p) {
    const gpu_param *param = &plan->param[p];
    const size_t count = plan->graph->param[p].count;
    for (size_t begin = 0; begin < count; begin += GPU_CHUNK)
        list->chunk[list->chunks++] = {(uint32_t)list->matrices,
                                       (uint32_t)(count - begin < GPU_CHUNK ? count - begin : GPU_CHUNK), begin};
    list->matrix[list->matrices++] = {param->value, param->grad, param->first, NULL, (uint32_t)p, TERN_GPU_MUON};
    list->first[list->matrices] = (uint32_t)list->chunks;
}

static bool is_muon(const tern_gpu_plan *plan, const int32_t *method, size_t p) {
    return plan->param[p].grad && !plan->param[p].integers && method[p] == TERN_GPU_MUON;
}

/* Groups in the order of their first matrices, each with its matrices behind one another. */
static void list_matrices(matrix_list *list, const tern_gpu_plan *plan, const int32_t *method) {
    const tern_graph *graph = plan->graph;
    for (size_t p = 0; p < graph->params; p++) {
        const size_t rows = rows_of(&graph->param[p]), columns = columns_of(&graph->param[p]);
        bool listed = !is_muon(plan, method, p);
        for (size_t g = 0; g < list->groups; g++)
            listed |= list->group[g].rows == rows && list->group[g].columns == columns;
        if (listed) continue;
        gpu_muon_group *group = &list->group[list->groups++];
        group->rows = rows;
        group->columns = columns;
        group->first_chunk = list->chunks;
        group->node = (size_t)graph->param[p].node;
        for (size_t q = p; q < graph->params; q++) {
            if (!is_muon(plan, method, q) || rows_of(&graph->param[q]) != rows ||
                columns_of(&graph->param[q]) != columns)
                continue;
            add_matrix(list, plan, q);
            group->count++;
        }
        group->chunks = list->chunks - group->first_chunk;
    }
}

static tern_status send_matrices(tern_gpu_plan *plan, matrix_list *list, tern_error *err) {
    static const char op[] = "the optimiser";
    gpu_trainer *t = plan->trainer;
    void *memory;
    GPU_CHECK(gpu_keep_copy(plan, &memory, list->matrix, list->matrices * sizeof *list->matrix, op, err));
    t->matrix = (const gpu_row *)memory;
    GPU_CHECK(gpu_keep_copy(plan, &memory, list->chunk, list->chunks * sizeof *list->chunk, op, err));
    t->matrix_chunk = (const gpu_chunk *)memory;
    GPU_CHECK(gpu_keep_copy(plan, &memory, list->first, (list->matrices + 1) * sizeof *list->first, op, err));
    t->matrix_first = (const uint32_t *)memory;
    t->matrix_chunks = list->chunks;
    t->group = list->group;
    t->groups = list->groups;
    list->group = NULL;
    return TERN_OK;
}

/* Each group its own, because groups step side by side. */
static tern_status place_work(tern_gpu_plan *plan, tern_error *err) {
    static const char op[] = "the optimiser";
    gpu_trainer *t = plan->trainer;
    void *memory;
    for (size_t i = 0; i < t->groups; i++) {
        gpu_muon_group *g = &t->group[i];
        const size_t wide = g->count * wide_stride(*g), square = g->count * square_stride(g);
        for (int k = 0; k < 2; k++) {
            GPU_CHECK(gpu_keep(plan, &g->newton[k], wide * gpu_bytes(plan->products), op, err));
            GPU_CHECK(gpu_keep(plan, &g->square[k], square * gpu_bytes(plan->products), op, err));
        }
        GPU_CHECK(gpu_keep(plan, &memory, square * sizeof(float), op, err));
        g->square2 = (float *)memory;
    }
    GPU_CHECK(gpu_keep(plan, &memory, t->matrix_chunks * 2 * sizeof(double), op, err));
    t->chunk_squares = (double *)memory;
    return TERN_OK;
}

tern_status gpu_muon_prepare(tern_gpu_plan *plan, const int32_t *method, tern_error *err) {
    matrix_list list = {};
    tern_status status = TERN_OK;
    if (make_room(&list, plan->graph)) {
        list_matrices(&list, plan, method);
        if (list.matrices) status = send_matrices(plan, &list, err);
        if (list.matrices && !status) status = place_work(plan, err);
    } else {
        status = tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for the optimiser");
    }
    free(list.matrix);
    free(list.first);
    free(list.group);
    free(list.chunk);
    return status;
}

/* ---- momentum, and the sums of squares of chunks */

__global__ static void muon_momentum(const gpu_row *matrices, const gpu_chunk *chunks, const tern_gpu_rule *rules,
                                     const gpu_verdict *verdict, float momentum, double *chunk_squares) {
    const gpu_chunk c = chunks[blockIdx.x];
    const gpu_row r = matrices[c.row];
    const bool steps = verdict->good && !rules[r.param].frozen;
    const float factor = verdict->factor;
    double update = 0, weights = 0;
    for (size_t i = c.begin + threadIdx.x; i < c.begin + c.length; i += blockDim.x) {
        const float d = r.g[i] * factor, b = momentum * r.first[i] + d, u = d + momentum * b, w = r.w[i];
        if (steps) r.first[i] = b;
        r.g[i] = u;
        update += (double)u * (double)u;
        weights += (double)w * (double)w;
    }
    update = block_sum(update);
    weights = block_sum(weights);
    if (threadIdx.x) return;
    chunk_squares[2 * blockIdx.x] = update;
    chunk_squares[2 * blockIdx.x + 1] = weights;
}

/* Over all chunks of a matrix, in the same order in each of its blocks; which: 0 the update, 1 the weights. */
__device__ static double matrix_squares(const double *chunk_squares, const uint32_t *first, uint32_t matrix,
                                        int which) {
    double sum = 0;
    for (uint32_t i = first[matrix] + threadIdx.x; i < first[matrix + 1]; i += blockDim.x)
        sum += chunk_squares[2 * (size_t)i + which];
    return block_sum(sum);
}

/* ---- Newton-Schulz */

/* Where a matrix of the group stands among its products' operands. */
__device__ static size_t place_of(const gpu_muon_group &group, const gpu_chunk *chunks, uint32_t matrix) {
    return (size_t)(matrix - chunks[group.first_chunk].row) * wide_stride(group);
}

/* x = u over its norm. */
template <class P>
__global__ static void muon_start(P *x, const gpu_row *matrices, const gpu_chunk *chunks, const uint32_t *first,
                                  const double *chunk_squares, gpu_muon_group group) {
    const gpu_chunk c = chunks[group.first_chunk + blockIdx.x];
    const float *u = matrices[c.row].g;
    const float inverse = (float)(1.0 / (sqrt(matrix_squares(chunk_squares, first, c.row, 0)) + 1e-7));
    x += place_of(group, chunks, c.row);
    for (size_t i = c.begin + threadIdx.x; i < c.begin + c.length; i += blockDim.x)
        x[i] = from_float<P>(u[i] * inverse);
}

/* to = c0 + c1 s + c2 s2, of `count` matrices [side][side] `stride` apart. */
template <class P>
__global__ static void muon_factor(P *to, const P *s, const float *s2, size_t count, size_t side, size_t stride) {
    const size_t square = side * side;
    GPU_FOR(i, count * square) {
        const size_t matrix = i / square, e = i - matrix * square, at = matrix * stride + e;
        const float v = to_float(s[at]) * NEWTON_C1 + s2[at] * NEWTON_C2;
        to[at] = from_float<P>(e % (side + 1) == 0 ? v + NEWTON_C0 : v);
    }
}

static gpu_gemm product_of(const tern_gpu_plan *plan, const gpu_muon_group *g, size_t m, size_t n, size_t k) {
    gpu_gemm p = {};
    p.operands = plan->products;
    p.result = plan->products;
    p.m = m;
    p.n = n;
    p.k = k;
    p.count = g->count;
    return p;
}

/* s = x x^T, or x^T x. */
static tern_status multiply_self(tern_gpu_plan *plan, const gpu_muon_group *g, void *s, const void *x,
                                 tern_error *err) {
    const bool tall = g->rows > g->columns;
    gpu_gemm p = product_of(plan, g, shorter(g), shorter(g), tall ? g->rows : g->columns);
    p.a_turned = tall;
    p.b_turned = !tall;
    p.stride_a = p.stride_b = wide_stride(*g);
    p.stride_c = square_stride(g);
    return gpu_multiply(plan, g->node, &p, s, x, x, err);
}

static tern_status square(tern_gpu_plan *plan, const gpu_muon_group *g, float *s2, const void *s, tern_error *err) {
    gpu_gemm p = product_of(plan, g, shorter(g), shorter(g), shorter(g));
    p.result = TERN_F32;
    p.stride_a = p.stride_b = p.stride_c = square_stride(g);
    return gpu_multiply(plan, g->node, &p, s2, s, s, err);
}

/* to = factor x, or x factor. */
static tern_status multiply_factor(tern_gpu_plan *plan, const gpu_muon_group *g, void *to, const void *x,
                                   const void *factor, tern_error *err) {
    const bool tall = g->rows > g->columns;
    gpu_gemm p = product_of(plan, g, g->rows, g->columns, shorter(g));
    p.stride_a = tall ? wide_stride(*g) : square_stride(g);
    p.stride_b = tall ? square_stride(g) : wide_stride(*g);
    p.stride_c = wide_stride(*g);
    return gpu_multiply(plan, g->node, &p, to, tall ? x : factor, tall ? factor : x, err);
}

/* ---- the step */

/* w = keep w - length x. */
template <class P>
__global__ static void muon_finish(const P *x, const gpu_row *matrices, const gpu_chunk *chunks,
                                   const uint32_t *first, const double *chunk_squares, gpu_muon_group group,
                                   const tern_gpu_rule *rules, const gpu_verdict *verdict, int normalise) {
    const gpu_chunk c = chunks[group.first_chunk + blockIdx.x];
    const gpu_row r = matrices[c.row];
    const tern_gpu_rule rule = rules[r.param];
    float keep, length;
    if (!verdict->good || rule.frozen) return;
    if (normalise) {
        const double norm = sqrt(matrix_squares(chunk_squares, first, c.row, 1));
        keep = (float)(sqrt((double)group.rows) / (norm + 1e-12));
        length = rule.lr;
    } else {
        keep = 1 - rule.lr * rule.decay;
        length = rule.lr * 0.2f * sqrtf((float)(group.rows > group.columns ? group.rows : group.columns));
    }
    x += place_of(group, chunks, c.row);
    for (size_t i = c.begin + threadIdx.x; i < c.begin + c.length; i += blockDim.x)
        r.w[i] = r.w[i] * keep + to_float(x[i]) * -length;
}

template <class P> static tern_status step_group(tern_gpu_plan *plan, const gpu_muon_group *g, tern_error *err) {
    gpu_trainer *t = plan->trainer;
    const size_t side = shorter(g);
    const unsigned blocks = (unsigned)g->chunks;
    void *x = g->newton[0], *next = g->newton[1];
    muon_start<<<blocks, GPU_THREADS, 0, plan->stream>>>((P *)x, t->matrix, t->matrix_chunk, t->matrix_first,
                                                         t->chunk_squares, *g);
    GPU_LAUNCHED(plan, g->node, err);
    for (int step = 0; step < t->how.newton_steps; step++) {
        GPU_CHECK(multiply_self(plan, g, g->square[0], x, err));
        GPU_CHECK(square(plan, g, g->square2, g->square[0], err));
        muon_factor<<<gpu_blocks(plan, g->count * side * side), GPU_THREADS, 0, plan->stream>>>(
            (P *)g->square[1], (const P *)g->square[0], g->square2, g->count, side, square_stride(g));
        GPU_LAUNCHED(plan, g->node, err);
        GPU_CHECK(multiply_factor(plan, g, next, x, g->square[1], err));
        void *done = x;
        x = next;
        next = done;
    }
    muon_finish<<<blocks, GPU_THREADS, 0, plan->stream>>>((const P *)x, t->matrix, t->matrix_chunk, t->matrix_first,
                                                          t->chunk_squares, *g, t->block.rule, t->verdict,
                                                          t->how.normalise);
    GPU_LAUNCHED(plan, g->node, err);
    return TERN_OK;
}

tern_status gpu_muon_step(tern_gpu_plan *plan, tern_error *err) {
    gpu_trainer *t = plan->trainer;
    if (!t->groups) return TERN_OK;
    muon_momentum<<<(unsigned)t->matrix_chunks, GPU_THREADS, 0, plan->stream>>>(
        t->matrix, t->matrix_chunk, t->block.rule, t->verdict, t->how.momentum, t->chunk_squares);
    CUDA_TRY(cudaGetLastError(), "the optimiser", err);
    GPU_CHECK(gpu_branches_begin(plan, err));
    tern_status status = TERN_OK;
    for (size_t g = 0; g < t->groups && !status; g++) {
        gpu_branch(plan, g);
        GPU_BY_TYPE(plan->products, status = step_group<T>(plan, &t->group[g], err));
    }
    return gpu_branches_end(plan, status, err);
}
