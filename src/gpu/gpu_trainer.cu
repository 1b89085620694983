/* The trainer's memory, what is sent to the device for a step, and the step: launch by launch, or captured once and
 * replayed. */
#include "gpu/gpu_trainer.cuh"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/device_memory.cuh"
#include "gpu/gpu_branches.cuh"
#include "gpu/gpu_loss_scale.cuh"

/* ---- making one */

tern_status gpu_keep_copy(tern_gpu_plan *plan, void **to, const void *from, size_t bytes, const char *op,
                          tern_error *err) {
    GPU_CHECK(gpu_keep(plan, to, bytes, op, err));
    return bytes ? tern_cuda_upload(plan->context, *to, from, bytes, err) : TERN_OK;
}

static tern_status make_trainer(tern_gpu_plan *plan, tern_error *err) {
    gpu_trainer *t = (gpu_trainer *)calloc(1, sizeof *t);
    if (!t) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for training");
    gpu_verdict none = {};
    void *memory;
    none.result.scaling = gpu_loss_scale_of(plan, {});
    plan->trainer = t;
    GPU_CHECK(gpu_branches_create(plan, err));
    GPU_CHECK(gpu_weights_list_make(&t->weights, plan, err));
    GPU_CHECK(gpu_keep_copy(plan, &memory, &none, sizeof none, "training", err));
    t->verdict = (gpu_verdict *)memory;
    return TERN_OK;
}

/* None is left half made: who has found room tries again. What it kept is the plan's until then. */
tern_status gpu_trainer_of(gpu_trainer **out, tern_gpu_plan *plan, tern_error *err) {
    CUDA_TRY(cudaSetDevice(plan->context->device), "training", err);
    const tern_status status = plan->trainer ? TERN_OK : make_trainer(plan, err);
    if (status) gpu_trainer_free(plan);
    *out = plan->trainer;
    return status;
}

void gpu_trainer_forget_captured(gpu_trainer *t) {
    for (size_t i = 0; i < t->captures; i++)
        if (t->captured[i].graph) cudaGraphExecDestroy(t->captured[i].graph);
    t->captures = 0;
}

/* The stream has come to rest. */
static void free_block(gpu_trainer *t) {
    gpu_trainer_forget_captured(t);
    for (int i = 0; i < GPU_STEPS_AHEAD; i++) {
        if (t->upload[i].memory) cudaFreeHost(t->upload[i].memory);
        if (t->upload[i].done) cudaEventDestroy(t->upload[i].done);
        t->upload[i] = {};
    }
    cudaFree(t->block_memory);
    cudaFree(t->part_loss);
    t->block_memory = NULL;
    t->part_loss = NULL;
    t->block_room = t->parts_room = 0;
}

void gpu_trainer_free(tern_gpu_plan *plan) {
    gpu_trainer *t = plan->trainer;
    if (!t) return;
    free_block(t);
    gpu_branches_free(t->branches);
    free(t->captured);
    free(t->group);
    free(t);
    plan->trainer = NULL;
}

/* ---- what differs from step to step */

static gpu_step_block block_at(void *memory, const tern_gpu_plan *plan, const tern_gpu_step *step) {
    gpu_step_block b;
    char *at = (char *)memory;
    b.loss = (gpu_loss_terms *)at;
    at += sizeof *b.loss;
    b.now = (gpu_now *)at;
    at += (step->parts + 1) * sizeof *b.now;
    b.epoch = (uint64_t *)at;
    at += step->parts * sizeof *b.epoch;
    b.sample = (int64_t *)at;
    at += step->parts * step->batch * sizeof *b.sample;
    b.rule = (tern_gpu_rule *)at;
    at += plan->graph->params * sizeof *b.rule;
    b.bytes = (size_t)(at - (char *)memory);
    return b;
}
static_assert(sizeof(gpu_loss_terms) % 8 == 0 && sizeof(gpu_now) % 8 == 0, "all of the block is aligned");

static tern_status make_block(tern_gpu_plan *plan, size_t bytes, size_t parts, tern_error *err) {
    static const char op[] = "a step";
    gpu_trainer *t = plan->trainer;
    void *memory;
    if (bytes <= t->block_room && parts <= t->parts_room) return TERN_OK;
    GPU_CHECK(tern_cuda_synchronize(plan->context, err));
    free_block(t);
    GPU_CHECK(tern_cuda_alloc(&t->block_memory, plan->context, bytes, op, err));
    GPU_CHECK(tern_cuda_alloc(&memory, plan->context, parts * sizeof *t->part_loss, op, err));
    t->part_loss = (double *)memory;
    for (int i = 0; i < GPU_STEPS_AHEAD; i++) {
        CUDA_TRY(cudaMallocHost(&t->upload[i].memory, bytes), op, err);
        CUDA_TRY(cudaEventCreateWithFlags(&t->upload[i].done, cudaEventDisableTiming), op, err);
    }
    t->block_room = bytes;
    t->parts_room = parts;
    return TERN_OK;
}

static gpu_loss_terms loss_terms(const tern_gpu_plan *plan, const tern_gpu_step *step) {
    const size_t rows = step->batch * gpu_graph_node(plan, plan->graph->nodes - 1)->rows;
    gpu_loss_terms k = {};
    k.ce = ldexpf((float)step->loss_ce, -step->loss_shift);
    k.entropy = ldexpf((float)step->loss_entropy, -step->loss_shift);
    k.z = ldexpf((float)step->loss_z, -step->loss_shift);
    k.smoothing = step->smoothing;
    k.factor = 1.0f / (float)step->parts / (float)rows;
    return k;
}

static void fill_block(const gpu_step_block *b, const tern_gpu_plan *plan, const tern_gpu_step *step,
                       float statistics) {
    *b->loss = loss_terms(plan, step);
    for (size_t part = 0; part < step->parts; part++)
        b->now[part] = {step->step * step->parts + part, statistics, plan->lambda, step->rule_rate};
    b->now[step->parts] = {step->step * step->parts + step->parts - 1, statistics, step->lambda, 0};
    memcpy(b->epoch, step->epoch, step->parts * sizeof *b->epoch);
    memcpy(b->sample, step->sample, step->parts * step->batch * sizeof *b->sample);
    if (step->rule) memcpy(b->rule, step->rule, plan->graph->params * sizeof *b->rule);
}

/* To t->block, by pinned memory whose last copy, GPU_STEPS_AHEAD steps ago, has ended: the host waits only when it is
 * far ahead. */
static tern_status upload(tern_gpu_plan *plan, const tern_gpu_step *step, float statistics, tern_error *err) {
    static const char op[] = "a step";
    gpu_trainer *t = plan->trainer;
    GPU_CHECK(make_block(plan, block_at(NULL, plan, step).bytes, step->parts, err));
    t->block = block_at(t->block_memory, plan, step);
    gpu_upload *u = &t->upload[t->uploads++ % GPU_STEPS_AHEAD];
    if (u->used) CUDA_TRY(cudaEventSynchronize(u->done), op, err);
    const gpu_step_block host = block_at(u->memory, plan, step);
    fill_block(&host, plan, step, statistics);
    CUDA_TRY(cudaMemcpyAsync(t->block_memory, u->memory, host.bytes, cudaMemcpyHostToDevice, plan->stream), op, err);
    CUDA_TRY(cudaEventRecord(u->done, plan->stream), op, err);
    u->used = true;
    return TERN_OK;
}

/* ---- a step */

static tern_status check_step(const tern_gpu_plan *plan, const tern_gpu_step *step, tern_error *err) {
    const gpu_trainer *t = plan->trainer;
    TERN_CHECK_ARGUMENT(t && t->has_optimizer && (t->token || t->images.image), err,
                        "a step takes an optimiser and data");
    TERN_CHECK_ARGUMENT(step->batch && step->batch <= plan->batch_max && step->parts, err,
                        "%zu batches of %zu; batches of up to %zu are possible", step->parts, step->batch,
                        plan->batch_max);
    return TERN_OK;
}

static bool mixes(const tern_gpu_plan *plan, const tern_gpu_step *step) { return plan->training && step->lambda < 1; }

/* All launches of a step. */
static tern_status run_step(tern_gpu_plan *plan, const tern_gpu_step *step, tern_error *err) {
    GPU_CHECK(gpu_optimizer_begin(plan, err));
    for (size_t part = 0; part < step->parts; part++) {
        GPU_CHECK(gpu_gather(plan, part, err));
        GPU_CHECK(gpu_run_forward(plan, err));
        GPU_CHECK(gpu_loss(plan, part, err));
        GPU_CHECK(gpu_run_backward(plan, err));
    }
    GPU_CHECK(gpu_optimizer_step(plan, step->parts, err));
    const bool mixed = plan->mixed;
    plan->mixed = mixes(plan, step);
    plan->count_trits = step->count_trits != 0;
    const tern_status status = gpu_refresh(plan, err);
    plan->count_trits = false;
    plan->mixed = mixed;
    return status;
}

static gpu_step_kind kind_of(const tern_gpu_plan *plan, const tern_gpu_step *step) {
    return {step->parts, step->batch, step->first_trained, plan->mixed, mixes(plan, step), step->count_trits != 0};
}

static bool same_kind(const gpu_step_kind &a, const gpu_step_kind &b) {
    return a.parts == b.parts && a.batch == b.batch && a.first_trained == b.first_trained && a.mixed == b.mixed &&
           a.mixed_next == b.mixed_next && a.count_trits == b.count_trits;
}

/* The entry of this kind of step; *is_new: there was none, and none is captured yet. */
static tern_status find_captured(gpu_captured **out, bool *is_new, gpu_trainer *t, const gpu_step_kind &kind,
                                 tern_error *err) {
    *is_new = false;
    for (size_t i = 0; i < t->captures; i++)
        if (same_kind(t->captured[i].kind, kind)) {
            *out = &t->captured[i];
            return TERN_OK;
        }
    if (t->captures == t->capture_room) {
        const size_t room = t->capture_room ? 2 * t->capture_room : 8;
        gpu_captured *grown = (gpu_captured *)realloc(t->captured, room * sizeof *grown);
        if (!grown) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for a step");
        t->captured = grown;
        t->capture_room = room;
    }
    *out = &t->captured[t->captures++];
    **out = {kind, NULL, false};
    *is_new = true;
    return TERN_OK;
}

/* Nothing runs. What cannot be captured is remembered as such, and no error. */
static void capture(tern_gpu_plan *plan, const tern_gpu_step *step, gpu_captured *c) {
    cudaGraph_t graph = NULL;
    tern_error ignored;
    c->refused = true;
    if (cudaStreamBeginCapture(plan->stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess) {
        const tern_status status = run_step(plan, step, &ignored);
        const cudaError_t ended = cudaStreamEndCapture(plan->stream, &graph);
        if (!status && ended == cudaSuccess && cudaGraphInstantiate(&c->graph, graph, 0) == cudaSuccess)
            c->refused = false;
        else
            c->graph = NULL;
        if (graph) cudaGraphDestroy(graph);
    }
    cudaGetLastError(); /* of an attempt that failed: the next launch must not find it */
}

tern_status gpu_trainer_step(tern_gpu_plan *plan, const tern_gpu_step *step, tern_error *err) {
    CUDA_TRY(cudaSetDevice(plan->context->device), "a step", err);
    GPU_CHECK(check_step(plan, step, err));
    GPU_CHECK(upload(plan, step, -1, err));
    plan->batch = step->batch;
    plan->train_mode = true;
    plan->first_trained = step->first_trained;
    gpu_captured *c = NULL;
    bool is_new;
    GPU_CHECK(find_captured(&c, &is_new, plan->trainer, kind_of(plan, step), err));
    if (!is_new && !c->graph && !c->refused) capture(plan, step, c);
    if (c->graph)
        CUDA_TRY(cudaGraphLaunch(c->graph, plan->stream), "a step", err);
    else
        GPU_CHECK(run_step(plan, step, err));
    plan->lambda = step->lambda;
    plan->mixed = mixes(plan, step);
    return TERN_OK;
}

tern_status gpu_trainer_recalibrate(tern_gpu_plan *plan, const tern_gpu_step *step, int number, tern_error *err) {
    CUDA_TRY(cudaSetDevice(plan->context->device), "recalibration", err);
    GPU_CHECK(check_step(plan, step, err));
    TERN_CHECK_ARGUMENT(step->parts == 1 && number >= 1, err, "recalibration %d with %zu batches", number,
                        step->parts);
    GPU_CHECK(upload(plan, step, 1.0f / (float)number, err));
    plan->batch = step->batch;
    plan->train_mode = true;
    GPU_CHECK(gpu_gather(plan, 0, err));
    return gpu_run_forward(plan, err);
}

/* ---- counts */

tern_status gpu_trainer_result(tern_gpu_plan *plan, tern_gpu_result *out, tern_error *err) {
    gpu_trainer *t;
    GPU_CHECK(gpu_trainer_of(&t, plan, err));
    return tern_cuda_download(plan->context, out, &t->verdict->result, sizeof *out, err);
}

tern_status gpu_trainer_set_counts(tern_gpu_plan *plan, const tern_gpu_result *counts, tern_error *err) {
    gpu_trainer *t;
    GPU_CHECK(gpu_trainer_of(&t, plan, err));
    tern_gpu_result from = *counts;
    from.scaling = gpu_loss_scale_of(plan, counts->scaling);
    return tern_cuda_upload(plan->context, &t->verdict->result, &from, sizeof from, err);
}
