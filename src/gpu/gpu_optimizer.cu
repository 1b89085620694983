/* The optimisers of train/optimizer.c over all parameters at once: one launch for sgd and adamw, a block a chunk of
 * one parameter. What Muon does is gpu_muon.cu. */
#include <stdlib.h>
#include <string.h>

#include "gpu/gpu_kernels.cuh"
#include "gpu/gpu_loss_scale.cuh"
#include "gpu/gpu_trainer.cuh"
#include "gpu/gpu_trits.cuh"

#include "cuda/device_memory.cuh"

/* ---- which memory there is */

/* Its steps are the optimiser's. */
static bool is_stepped(const tern_gpu_plan *plan, size_t p) {
    return plan->param[p].grad && !plan->param[p].integers;
}
/* Integers behind the floats have steps of their own. */
static bool is_fixed(const tern_gpu_plan *plan, size_t p) { return plan->param[p].grad && plan->param[p].integers; }
static bool is_statistic(const tern_gpu_plan *plan, size_t p) {
    return plan->graph->param[p].role == TERN_ROLE_STATISTIC && plan->param[p].value;
}

static tern_status check(const tern_gpu_plan *plan, const tern_gpu_optimizer_desc *d, tern_error *err) {
    TERN_CHECK_ARGUMENT(plan->training && plan->node[plan->graph->nodes - 1].grad, err,
                        "an optimiser takes a plan for training, and something to train");
    for (size_t p = 0; p < plan->graph->params; p++) {
        const tern_param *param = &plan->graph->param[p];
        TERN_CHECK_ARGUMENT(d->method[p] >= TERN_GPU_SGD && d->method[p] <= TERN_GPU_MUON, err, "method %d of %s",
                            (int)d->method[p], param->name);
    }
    return TERN_OK;
}

/* Floats of a parameter's `first`, and of its `second`. */
static size_t first_floats(const tern_gpu_plan *plan, size_t p) {
    return is_stepped(plan, p) || is_statistic(plan, p) ? gpu_round_up(plan->graph->param[p].count, 64) : 0;
}
static size_t second_floats(const tern_gpu_plan *plan, const tern_gpu_optimizer_desc *d, size_t p) {
    return is_stepped(plan, p) && d->method[p] == TERN_GPU_ADAMW ? gpu_round_up(plan->graph->param[p].count, 64) : 0;
}

/* Zeroed, in one block. */
static tern_status place_state(tern_gpu_plan *plan, const tern_gpu_optimizer_desc *d, tern_error *err) {
    size_t floats = 0;
    void *memory;
    for (size_t p = 0; p < plan->graph->params; p++) floats += first_floats(plan, p) + second_floats(plan, d, p);
    GPU_CHECK(gpu_keep(plan, &memory, floats * sizeof(float), "the optimiser", err));
    CUDA_TRY(cudaMemsetAsync(memory, 0, floats * sizeof(float), plan->stream), "the optimiser", err);
    float *next = (float *)memory;
    for (size_t p = 0; p < plan->graph->params; p++) {
        if (!first_floats(plan, p)) continue;
        plan->param[p].first = next;
        next += first_floats(plan, p);
        if (!second_floats(plan, d, p)) continue;
        plan->param[p].second = next;
        next += second_floats(plan, d, p);
    }
    return TERN_OK;
}

/* Parameters in the order of the graph, and behind them the statistics, in chunks. */
struct chunk_list {
    gpu_row *row;
    gpu_chunk *chunk;
    size_t rows, chunks, statistics; /* chunks of statistics, the last ones */
};

static void add_row(const tern_gpu_plan *plan, chunk_list *list, size_t p, int32_t kind) {
    const gpu_param *param = &plan->param[p];
    const size_t count = plan->graph->param[p].count;
    for (size_t begin = 0; begin < count; begin += GPU_CHUNK) {
        const size_t length = count - begin < GPU_CHUNK ? count - begin : GPU_CHUNK;
        if (list->chunk) list->chunk[list->chunks] = {(uint32_t)list->rows, (uint32_t)length, begin};
        list->chunks++;
        if (kind == GPU_KIND_STATISTIC) list->statistics++;
    }
    if (list->row)
        list->row[list->rows] = {param->value, param->grad, param->first, param->second, (uint32_t)p, kind};
    list->rows++;
}

static void list_rows(const tern_gpu_plan *plan, const tern_gpu_optimizer_desc *d, chunk_list *list) {
    list->rows = list->chunks = list->statistics = 0;
    for (size_t p = 0; p < plan->graph->params; p++)
        if (is_stepped(plan, p) && d->method[p] != TERN_GPU_MUON) add_row(plan, list, p, d->method[p]);
    for (size_t p = 0; p < plan->graph->params; p++)
        if (is_statistic(plan, p)) add_row(plan, list, p, GPU_KIND_STATISTIC);
}

static tern_status send_rows(tern_gpu_plan *plan, const chunk_list *list, tern_error *err) {
    gpu_trainer *t = plan->trainer;
    void *memory;
    GPU_CHECK(gpu_keep_copy(plan, &memory, list->row, list->rows * sizeof *list->row, "the optimiser", err));
    t->row = (const gpu_row *)memory;
    GPU_CHECK(gpu_keep_copy(plan, &memory, list->chunk, list->chunks * sizeof *list->chunk, "the optimiser", err));
    t->chunk = (const gpu_chunk *)memory;
    t->chunks = list->chunks;
    t->statistic_chunks = list->statistics;
    t->statistic_chunk = t->chunk + (list->chunks - list->statistics);
    return TERN_OK;
}

static tern_status place_rows(tern_gpu_plan *plan, const tern_gpu_optimizer_desc *d, tern_error *err) {
    chunk_list list = {};
    list_rows(plan, d, &list);
    list.row = (gpu_row *)calloc(list.rows + 1, sizeof *list.row);
    list.chunk = (gpu_chunk *)calloc(list.chunks + 1, sizeof *list.chunk);
    tern_status status = TERN_E_MEMORY;
    if (list.row && list.chunk) {
        list_rows(plan, d, &list);
        status = send_rows(plan, &list, err);
    } else {
        tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for the optimiser");
    }
    free(list.row);
    free(list.chunk);
    return status;
}

tern_status gpu_trainer_set_optimizer(tern_gpu_plan *plan, const tern_gpu_optimizer_desc *d, tern_error *err) {
    gpu_trainer *t;
    void *memory;
    GPU_CHECK(gpu_trainer_of(&t, plan, err));
    TERN_CHECK_ARGUMENT(!t->has_optimizer, err, "the plan has an optimiser already");
    GPU_CHECK(check(plan, d, err));
    t->how = *d;
    t->how.method = NULL;
    GPU_CHECK(gpu_keep(plan, &memory, GPU_NORM_PARTS * sizeof(double), "the optimiser", err));
    t->norm_part = (double *)memory;
    GPU_CHECK(place_state(plan, d, err));
    GPU_CHECK(place_rows(plan, d, err));
    GPU_CHECK(gpu_muon_prepare(plan, d->method, err));
    GPU_CHECK(gpu_loss_prepare(plan, err));
    t->has_optimizer = true;
    return tern_cuda_synchronize(plan->context, err);
}

/* ---- state */

static tern_status copy_state(tern_gpu_plan *plan, float *device, float *host, size_t count, bool back,
                              tern_error *err) {
    if (!device || !host) return TERN_OK;
    return back ? tern_cuda_download(plan->context, host, device, count * sizeof(float), err)
                : tern_cuda_upload(plan->context, device, host, count * sizeof(float), err);
}

tern_status gpu_trainer_send_state(tern_gpu_plan *plan, size_t p, const float *first, const float *second,
                                   tern_error *err) {
    const size_t count = plan->graph->param[p].count;
    if (!is_stepped(plan, p)) return TERN_OK;
    GPU_CHECK(copy_state(plan, plan->param[p].first, (float *)first, count, false, err));
    return copy_state(plan, plan->param[p].second, (float *)second, count, false, err);
}

tern_status gpu_trainer_fetch_state(tern_gpu_plan *plan, size_t p, float *first, float *second, tern_error *err) {
    const size_t count = plan->graph->param[p].count;
    if (!is_stepped(plan, p)) return TERN_OK;
    GPU_CHECK(copy_state(plan, plan->param[p].first, first, count, true, err));
    return copy_state(plan, plan->param[p].second, second, count, true, err);
}

/* ---- before the passes */

__global__ static void save_statistics(const gpu_row *rows, const gpu_chunk *chunks) {
    const gpu_chunk c = chunks[blockIdx.x];
    const gpu_row r = rows[c.row];
    for (size_t i = c.begin + threadIdx.x; i < c.begin + c.length; i += blockDim.x) r.first[i] = r.w[i];
}

/* The terms came for this step alone. */
__global__ static void scale_loss(gpu_loss_terms *terms, const gpu_verdict *verdict) {
    terms->factor *= (float)gpu_scale_value(verdict->result.scaling);
}

tern_status gpu_optimizer_begin(tern_gpu_plan *plan, tern_error *err) {
    const gpu_trainer *t = plan->trainer;
    if (plan->type == TERN_F16) {
        scale_loss<<<1, 1, 0, plan->stream>>>(t->block.loss, t->verdict);
        CUDA_TRY(cudaGetLastError(), "the loss's scale", err);
    }
    CUDA_TRY(cudaMemsetAsync(plan->grads, 0, plan->floats * sizeof(float), plan->stream), "gradients", err);
    GPU_CHECK(gpu_begin_rules(plan, err));
    if (!t->statistic_chunks) return TERN_OK;
    save_statistics<<<(unsigned)t->statistic_chunks, GPU_THREADS, 0, plan->stream>>>(t->row, t->statistic_chunk);
    CUDA_TRY(cudaGetLastError(), "statistics", err);
    return TERN_OK;
}

/* ---- the verdict */

/* Squares of all gradients; n is a multiple of 4, and what lies between parameters is 0. */
__global__ static void square_parts(double *part, const float4 *g, size_t n) {
    double sum = 0;
    GPU_FOR(i, n / 4) {
        const float4 v = g[i];
        sum += (double)v.x * (double)v.x;
        sum += (double)v.y * (double)v.y;
        sum += (double)v.z * (double)v.z;
        sum += (double)v.w * (double)v.w;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) part[blockIdx.x] = sum;
}

/* Blocks of square_parts: of the number alone. */
static unsigned norm_parts(size_t floats) {
    const size_t wanted = (floats + 16 * GPU_THREADS - 1) / (16 * GPU_THREADS);
    return (unsigned)(wanted < 1 ? 1 : wanted < GPU_NORM_PARTS ? wanted : GPU_NORM_PARTS);
}

struct settings {
    double clip;
    float beta1, beta2;
};

__device__ static float correction(float beta, uint64_t applied) {
    return (float)(1 / (1 - pow((double)beta, (double)applied)));
}

/* As applied, as an overflow of the loss's scale, or as skipped. */
__device__ static void count_step(gpu_verdict *v) {
    if (v->good) {
        v->result.applied++;
        v->result.skipped_in_row = 0;
        gpu_scale_good_step(&v->result.scaling);
    } else if (!isfinite(v->result.loss) || !gpu_scale_halve(&v->result.scaling)) {
        v->result.skipped++;
        v->result.skipped_in_row++;
    }
}

/* One block. Behind it kernels read what `next` says of the pass. */
__global__ static void decide(gpu_verdict *verdict, gpu_now *now, const gpu_rules *rules, const double *square_part,
                              int square_parts, const double *part_loss, int parts, settings how,
                              const gpu_now *next) {
    double sum = 0;
    for (int i = (int)threadIdx.x; i < square_parts; i += (int)blockDim.x) sum += square_part[i];
    sum = block_sum(sum);
    if (threadIdx.x) return;
    gpu_verdict v = *verdict;
    double loss = 0;
    for (int i = 0; i < parts; i++) loss += part_loss[i];
    v.result.loss = loss / parts;
    const double scale = gpu_scale_value(v.result.scaling);
    v.result.gradient_norm = sqrt(sum + rules->squares) / scale;
    v.good = isfinite(v.result.loss) && isfinite(v.result.gradient_norm) && !rules->trouble;
    count_step(&v);
    const double norm = v.result.gradient_norm;
    v.factor = (float)((v.good && how.clip > 0 && norm > how.clip ? how.clip / norm : 1) / scale);
    v.correct1 = correction(how.beta1, v.result.applied);
    v.correct2 = correction(how.beta2, v.result.applied);
    *verdict = v;
    *now = *next;
}

static tern_status find_verdict(tern_gpu_plan *plan, size_t parts, tern_error *err) {
    gpu_trainer *t = plan->trainer;
    const unsigned blocks = norm_parts(plan->floats);
    const settings how = {t->how.clip, t->how.beta1, t->how.beta2};
    square_parts<<<blocks, GPU_THREADS, 0, plan->stream>>>(t->norm_part, (const float4 *)plan->grads, plan->floats);
    CUDA_TRY(cudaGetLastError(), "the gradient's norm", err);
    decide<<<1, GPU_THREADS, 0, plan->stream>>>(t->verdict, plan->now, plan->rules, t->norm_part, (int)blocks,
                                                t->part_loss, (int)parts, how, t->block.now + parts);
    CUDA_TRY(cudaGetLastError(), "the gradient's norm", err);
    return TERN_OK;
}

/* ---- sgd and adamw */

struct sgd_step {
    enum { SECOND = 0 };
    float lr, decay, momentum, factor;
    __device__ void operator()(float &w, float &b, float &, float g) const {
        const float d = g * factor + decay * w;
        b = momentum * b + d;
        w -= lr * (d + momentum * b);
    }
};

struct adamw_step {
    enum { SECOND = 1 };
    float lr, decay, beta1, beta2, correct1, correct2, factor;
    __device__ void operator()(float &w, float &m, float &v, float g) const {
        const float d = g * factor;
        m = beta1 * m + (1 - beta1) * d;
        v = beta2 * v + (1 - beta2) * (d * d);
        const float step = m * correct1 / (sqrtf(v * correct2) + 1e-8f);
        w -= lr * (step + decay * w);
    }
};

/* Rows are 16-byte aligned, and so are chunks. */
template <class F> __device__ static void step_chunk(const gpu_row &r, const gpu_chunk &c, const F f) {
    using P = gpu_pack<float>;
    float *w = r.w + c.begin, *first = r.first + c.begin, *second = F::SECOND ? r.second + c.begin : NULL;
    const float *g = r.g + c.begin;
    const uint32_t packs = c.length / P::N;
    for (uint32_t i = threadIdx.x; i < packs; i += blockDim.x) {
        P pw = ((P *)w)[i], pf = ((P *)first)[i], ps = {};
        const P pg = ((const P *)g)[i];
        if (F::SECOND) ps = ((P *)second)[i];
#pragma unroll
        for (int j = 0; j < P::N; j++) f(pw.v[j], pf.v[j], ps.v[j], pg.v[j]);
        ((P *)w)[i] = pw;
        ((P *)first)[i] = pf;
        if (F::SECOND) ((P *)second)[i] = ps;
    }
    const uint32_t i = packs * P::N + threadIdx.x;
    if (i >= c.length) return;
    float none = 0;
    f(w[i], first[i], F::SECOND ? second[i] : none, g[i]);
}

__global__ static void step_chunks(const gpu_row *rows, const gpu_chunk *chunks, const tern_gpu_rule *rules,
                                   const gpu_verdict *verdict, tern_gpu_optimizer_desc how) {
    const gpu_chunk c = chunks[blockIdx.x];
    const gpu_row r = rows[c.row];
    if (r.kind == GPU_KIND_STATISTIC) {
        for (size_t i = c.begin + threadIdx.x; !verdict->good && i < c.begin + c.length; i += blockDim.x)
            r.w[i] = r.first[i];
        return;
    }
    const tern_gpu_rule rule = rules[r.param];
    if (!verdict->good || rule.frozen) return;
    const float factor = verdict->factor;
    if (r.kind == TERN_GPU_ADAMW)
        step_chunk(
            r, c,
            adamw_step{rule.lr, rule.decay, how.beta1, how.beta2, verdict->correct1, verdict->correct2, factor});
    else
        step_chunk(r, c, sgd_step{rule.lr, rule.decay, how.momentum, factor});
}

static tern_status step_integers(tern_gpu_plan *plan, size_t parts, tern_error *err) {
    const gpu_trainer *t = plan->trainer;
    for (size_t p = 0; p < plan->graph->params; p++) {
        const int32_t *good = &t->verdict->good;
        if (is_fixed(plan, p))
            GPU_CHECK(gpu_fixed_step(plan, p, t->block.rule + p, &t->block.now[parts].step, parts, good, err));
        if (plan->graph->param[p].store == TERN_STORE_FIXED32) GPU_CHECK(gpu_fixed_round(plan, p, good, err));
    }
    return TERN_OK;
}

tern_status gpu_optimizer_step(tern_gpu_plan *plan, size_t parts, tern_error *err) {
    gpu_trainer *t = plan->trainer;
    GPU_CHECK(find_verdict(plan, parts, err));
    if (t->chunks) {
        step_chunks<<<(unsigned)t->chunks, GPU_THREADS, 0, plan->stream>>>(t->row, t->chunk, t->block.rule,
                                                                           t->verdict, t->how);
        CUDA_TRY(cudaGetLastError(), "the optimiser", err);
    }
    GPU_CHECK(step_integers(plan, parts, err));
    return gpu_muon_step(plan, err);
}
