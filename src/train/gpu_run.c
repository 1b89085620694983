#include "train/gpu_run.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "model/gpu_session.h"
#include "train/trainer.h"

struct tern_gpu_run {
    tern_gpu_session *session;
    const tern_gpu_table *table; /* the session's, as is the plan */
    tern_gpu_plan *plan;
    size_t batch, parts;
    int64_t *numbers;     /* [parts][batch] */
    uint64_t *epochs;     /* [parts] */
    tern_gpu_rule *rules; /* per parameter */
};

/* ---- making one */

static tern_status open_session(tern_gpu_run *run, const tern_trainer *t, int device, tern_error *err) {
    const tern_gpu_session_desc d = {.graph = t->graph,
                                     .device = device,
                                     .batch = run->batch,
                                     .training = 1,
                                     .values = (tern_products)t->config.products,
                                     .int8_gradients = t->config.input_gradients,
                                     .seed = (uint64_t)t->config.seed};
    TERN_TRY(tern_gpu_session_open(&run->session, &d, err));
    run->table = run->session->table;
    run->plan = run->session->plan;
    return TERN_OK;
}

static tern_status make_optimizer(tern_gpu_run *run, const tern_trainer *t, tern_error *err) {
    int32_t *method = calloc(t->graph->params + 1, sizeof *method);
    if (!method) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for the optimiser");
    for (size_t p = 0; p < t->graph->params; p++) method[p] = (int32_t)t->method[p];
    const tern_gpu_optimizer_desc d = {.method = method,
                                       .momentum = t->optimizer->momentum,
                                       .beta1 = t->optimizer->beta1,
                                       .beta2 = t->optimizer->beta2,
                                       .newton_steps = t->optimizer->newton_steps,
                                       .normalise = t->optimizer->normalise,
                                       .clip = t->config.clip};
    tern_status status = run->table->set_optimizer(run->plan, &d, err);
    free(method);
    return status;
}

static tern_status send_images(tern_gpu_run *run, const tern_trainer *t, const tern_dataset_info *info,
                               tern_error *err) {
    const tern_config *c = &t->config;
    const uint8_t *classes = tern_dataset_labels(t->train);
    int32_t *labels = calloc(info->count, sizeof *labels);
    if (!labels) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for %zu labels", info->count);
    for (size_t i = 0; i < info->count; i++) labels[i] = classes[i];
    tern_gpu_images d = {.images = tern_dataset_images(t->train),
                         .labels = labels,
                         .count = info->count,
                         .height = info->height,
                         .width = info->width,
                         .channels = info->channels,
                         .seed = (uint64_t)c->seed,
                         .crop_pad = (size_t)c->crop,
                         .crop_reflect = c->crop_fill == TERN_PADDING_REFLECT,
                         .flip = (int)c->flip,
                         .brightness = (float)c->brightness,
                         .contrast = (float)c->contrast,
                         .saturation = (float)c->saturation,
                         .cutout = (size_t)c->cutout};
    memcpy(d.mean, t->input.mean, sizeof d.mean);
    memcpy(d.std, t->input.std, sizeof d.std);
    tern_status status = run->table->set_images(run->plan, &d, err);
    free(labels);
    return status;
}

static tern_status send_tokens(tern_gpu_run *run, const tern_trainer *t, const tern_dataset_info *info,
                               tern_error *err) {
    const uint16_t *text = tern_dataset_tokens(t->train);
    int32_t *token = calloc(info->tokens, sizeof *token);
    if (!token) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for %zu tokens", info->tokens);
    for (size_t i = 0; i < info->tokens; i++) token[i] = text[i];
    tern_status status = run->table->set_tokens(run->plan, token, info->tokens, err);
    free(token);
    return status;
}

static tern_status build(tern_gpu_run *run, const tern_trainer *t, int device, tern_error *err) {
    tern_dataset_info data;
    run->batch = (size_t)t->config.batch;
    run->parts = (size_t)t->config.accumulate;
    run->numbers = calloc(run->batch * run->parts, sizeof *run->numbers);
    run->epochs = calloc(run->parts, sizeof *run->epochs);
    run->rules = calloc(t->graph->params + 1, sizeof *run->rules);
    if (!run->numbers || !run->epochs || !run->rules)
        return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for a training run");
    TERN_TRY(tern_dataset_describe(&data, t->train, err));
    TERN_TRY(open_session(run, t, device, err));
    TERN_TRY(make_optimizer(run, t, err));
    return data.count ? send_images(run, t, &data, err) : send_tokens(run, t, &data, err);
}

tern_status tern_gpu_run_create(tern_gpu_run **out, const tern_trainer *trainer, int device, tern_error *err) {
    *out = NULL;
    tern_gpu_run *run = calloc(1, sizeof *run);
    if (!run) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for a training run");
    tern_status status = build(run, trainer, device, err);
    if (status)
        tern_gpu_run_free(&run);
    else
        *out = run;
    return status;
}

size_t tern_gpu_run_bytes(const tern_gpu_run *run) { return run->table->bytes(run->plan); }

void tern_gpu_run_free(tern_gpu_run **run) {
    tern_gpu_run *r = run ? *run : NULL;
    if (!r) return;
    tern_gpu_session_close(&r->session);
    free(r->numbers);
    free(r->epochs);
    free(r->rules);
    free(r);
    *run = NULL;
}

/* ---- what a checkpoint has */

tern_status tern_gpu_run_send(tern_gpu_run *run, const tern_trainer *t, float lambda, tern_error *err) {
    const tern_gpu_result counts = {
        .applied = t->applied, .skipped = t->skipped, .skipped_in_row = t->skipped_in_row, .scaling = t->scaling};
    TERN_TRY(run->table->send(run->plan, lambda, err));
    for (size_t p = 0; p < t->graph->params; p++)
        if (t->optimizer->first[p])
            TERN_TRY(run->table->send_state(run->plan, p, t->optimizer->first[p], t->optimizer->second[p], err));
    return run->table->set_counts(run->plan, &counts, err);
}

tern_status tern_gpu_run_fetch(tern_gpu_run *run, const tern_trainer *t, tern_error *err) {
    TERN_TRY(run->table->fetch(run->plan, err));
    for (size_t p = 0; p < t->graph->params; p++)
        if (t->optimizer->first[p])
            TERN_TRY(run->table->fetch_state(run->plan, p, t->optimizer->first[p], t->optimizer->second[p], err));
    return TERN_OK;
}

/* ---- steps */

/* The next batches, as numbers of samples. */
static tern_status take_numbers(tern_gpu_run *run, const tern_trainer *t, size_t parts, tern_error *err) {
    for (size_t part = 0; part < parts; part++) {
        tern_batch batch;
        TERN_TRY(tern_loader_next(t->loader, &batch, err));
        memcpy(run->numbers + part * run->batch, batch.numbers, run->batch * sizeof *run->numbers);
        run->epochs[part] = batch.epoch;
    }
    return TERN_OK;
}

static tern_gpu_step describe_step(const tern_gpu_run *run, const tern_trainer *t) {
    const tern_config *c = &t->config;
    return (tern_gpu_step){.step = t->step,
                           .epoch = run->epochs,
                           .sample = run->numbers,
                           .parts = run->parts,
                           .batch = run->batch,
                           .rule = run->rules,
                           .smoothing = (float)c->smoothing,
                           .loss_ce = (int32_t)c->loss_ce,
                           .loss_entropy = (int32_t)c->loss_entropy,
                           .loss_z = (int32_t)c->loss_z,
                           .loss_shift = (int32_t)c->loss_shift};
}

tern_status tern_gpu_run_step(tern_gpu_run *run, const tern_trainer *t, const tern_param_rule *rules, float lambda,
                              tern_error *err) {
    tern_gpu_step step = describe_step(run, t);
    TERN_TRY(take_numbers(run, t, run->parts, err));
    step.lambda = lambda;
    step.count_trits = t->plan->count_trits;
    step.first_trained = t->plan->first_trained;
    step.rule_rate = t->plan->rules.rate[t->graph->nodes - 1]; /* that of all nodes */
    for (size_t p = 0; p < t->graph->params; p++)
        run->rules[p] = (tern_gpu_rule){(int32_t)rules[p].method, rules[p].frozen, rules[p].lr, rules[p].decay};
    return run->table->step(run->plan, &step, err);
}

tern_status tern_gpu_run_result(tern_gpu_run *run, tern_gpu_result *result, tern_error *err) {
    return run->table->result(run->plan, result, err);
}

tern_status tern_gpu_run_recalibrate(tern_gpu_run *run, const tern_trainer *t, int number, tern_error *err) {
    tern_gpu_step step = describe_step(run, t);
    TERN_TRY(take_numbers(run, t, 1, err));
    step.parts = 1;
    step.step = t->steps * (uint64_t)t->config.accumulate + (uint64_t)number;
    return run->table->recalibrate(run->plan, &step, number, err);
}

tern_status tern_gpu_run_trits(tern_gpu_run *run, tern_gpu_trits *out, size_t node, tern_error *err) {
    return run->table->read_trits(run->plan, out, node, err);
}

tern_runner tern_gpu_run_runner(tern_gpu_run *run) { return tern_gpu_session_runner(run->session); }
