/* The loop around a training run: resuming, measuring, saving, stopping. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "cuda/pinned_kernel.h"
#include "cuda/select_device.h"
#include "model/sample.h"
#include "nn/ternary_weights.h"
#include "tern/train.h"
#include "train/metrics_log.h"
#include "train/report.h"
#include "train/trainer.h"

enum { PATH_BYTES = 4096, ASK_EVERY = 64 /* steps: how long a GPU may go wrong unseen */ };

typedef struct run {
    tern_trainer *t;
    tern_metrics_log *log;
    const tern_train_options *options;
    char checkpoint[PATH_BYTES], metrics[PATH_BYTES], report[PATH_BYTES];
    uint64_t evaluate_every, save_every, first_step, saved_step;
    double start, val_loss, val_accuracy;
    double evaluating; /* seconds spent on what is not training */
    int stop;
} run;

/* ---- telling */

static double trained_seconds(const run *r) { return tern_clock() - r->start - r->evaluating; }

static double samples_per_second(const run *r) {
    const tern_trainer *t = r->t;
    double seconds = trained_seconds(r);
    double samples = (double)(t->step - r->first_step) * (double)(t->config.batch * t->config.accumulate);
    return seconds > 0 ? samples / seconds : 0;
}

static void tell(run *r, tern_event event, const char *note) {
    const tern_trainer *t = r->t;
    if (!r->options->progress) return;
    uint64_t done = t->step - r->first_step;
    tern_progress p = {.event = event,
                       .step = t->step,
                       .steps = t->steps,
                       .epoch = (double)t->step / (double)t->steps_per_epoch,
                       .loss = t->loss,
                       .lr = t->lr,
                       .grad_norm = t->gradient_norm,
                       .loss_scale = t->scaling.scale,
                       .overflowed = t->scaling.overflowed,
                       .samples_per_second = samples_per_second(r),
                       .seconds = tern_clock() - r->start,
                       .val_loss = r->val_loss,
                       .val_accuracy = r->val_accuracy,
                       .note = note};
    p.seconds_left = done ? p.seconds / (double)done * (double)(t->steps - t->step) : 0;
    r->stop |= r->options->progress(r->options->context, &p) != 0;
}

/* ---- measuring */

/* Counts of a layer's trits, made by this step: on the GPU or in the plan. */
static tern_status count_layer(run *r, size_t i, const tern_ternary_weights *w, tern_metrics_layer *line,
                               tern_error *err) {
    const double n = (double)(w->rows * w->cols);
    tern_gpu_trits on_gpu = {w->minus, w->zero, w->plus, w->flips};
    if (r->t->gpu) TERN_TRY(tern_gpu_run_trits(r->t->gpu, &on_gpu, i, err));
    *line = (tern_metrics_layer){.step = r->t->step,
                                 .layer = r->t->graph->node[i].name,
                                 .minus = (double)on_gpu.minus / n,
                                 .zero = (double)on_gpu.zero / n,
                                 .plus = (double)on_gpu.plus / n,
                                 .flips = (double)on_gpu.flips / n};
    return TERN_OK;
}

static tern_status log_layers(run *r, tern_error *err) {
    const tern_plan *plan = r->t->plan;
    for (size_t i = 1; i < plan->graph->nodes; i++) {
        const tern_ternary_weights *w = tern_plan_ternary(plan, i);
        if (!w) continue;
        tern_metrics_layer line;
        TERN_TRY(count_layer(r, i, w, &line, err));
        TERN_TRY(tern_metrics_log_layer(r->log, &line, err));
    }
    return TERN_OK;
}

static tern_status log_step(run *r, tern_error *err) {
    const tern_trainer *t = r->t;
    tern_metrics_train line = {.step = t->step,
                               .epoch = (double)t->step / (double)t->steps_per_epoch,
                               .loss = t->loss,
                               .lr = t->lr,
                               .grad_norm = t->gradient_norm,
                               .loss_scale = t->scaling.scale,
                               .overflowed = t->scaling.overflowed,
                               .images_per_second = samples_per_second(r)};
    TERN_TRY(tern_metrics_log_train(r->log, &line, err));
    return t->config.weights && !t->trouble[0] ? log_layers(r, err) : TERN_OK;
}

/* whole: at the end, with the confusion counted; else on the way. */
static tern_status evaluate(run *r, int whole, uint64_t *confusion, tern_error *err) {
    TERN_TRY(tern_trainer_wait(r->t, err));
    double start = tern_clock();
    tern_evaluation e;
    TERN_TRY(tern_trainer_evaluate(r->t, &e, whole, confusion, err));
    r->val_loss = e.loss;
    r->val_accuracy = e.accuracy;
    tern_metrics_evaluation line = {.step = r->t->step, .val_loss = e.loss, .val_accuracy = e.accuracy};
    TERN_TRY(tern_metrics_log_evaluation(r->log, &line, err));
    r->evaluating += tern_clock() - start;
    tell(r, TERN_EVENT_EVALUATED, NULL);
    return TERN_OK;
}

static tern_status save(run *r, tern_error *err) {
    if (r->saved_step == r->t->step) return TERN_OK;
    TERN_TRY(tern_trainer_wait(r->t, err));
    double start = tern_clock();
    TERN_TRY(tern_trainer_save(r->t, r->checkpoint, err));
    r->saved_step = r->t->step;
    r->evaluating += tern_clock() - start;
    tell(r, TERN_EVENT_SAVED, NULL);
    return TERN_OK;
}

/* ---- the report */

enum { REPORT_KEYS = 80, REPORT_RESULTS = 9, SAMPLE_TOKENS = 600 };

typedef struct report_room {
    tern_report_pair config[REPORT_KEYS], results[REPORT_RESULTS];
    char values[REPORT_KEYS][512], result[REPORT_RESULTS][64];
    size_t configs, pairs;
} report_room;

static void add_result(report_room *room, const char *key, const char *format, double value) {
    snprintf(room->result[room->pairs], sizeof room->result[0], format, value);
    room->results[room->pairs] = (tern_report_pair){key, room->result[room->pairs]};
    room->pairs++;
}

static void fill_pairs(const run *r, report_room *room) {
    const char *key;
    for (size_t i = 0; (key = tern_config_key(i)) != NULL && i < REPORT_KEYS; i++) {
        if (tern_config_get(&r->t->config, key, room->values[i], sizeof room->values[i], NULL)) continue;
        room->config[room->configs++] = (tern_report_pair){key, room->values[i]};
    }
    size_t parameters = 0;
    for (size_t p = 0; p < r->t->graph->params; p++) parameters += r->t->graph->param[p].count;
    add_result(room, "validation loss", "%.4f nat", r->val_loss);
    add_result(room, "validation accuracy", "%.2f %%", 100 * r->val_accuracy);
    add_result(room, "steps", "%.0f", (double)r->t->step);
    add_result(room, "samples a second", "%.0f", samples_per_second(r));
    add_result(room, "seconds", "%.1f", tern_clock() - r->start);
    add_result(room, "parameters", "%.0f", (double)parameters);
    add_result(room, "skipped steps", "%.0f", (double)r->t->skipped);
    if (r->t->scaling.scale > 0) add_result(room, "overflowed steps", "%.0f", (double)r->t->scaling.overflowed);
    tern_state_size state = tern_trainer_state(r->t);
    add_result(room, "state bits per weight", "%.2f", tern_state_bits(&state));
}

/* A text of the model's own; the caller's to free. NULL when it could not be made. */
static char *sample_text(run *r) {
    tern_sampler sampler = {.runner = tern_trainer_runner(r->t), .input = &r->t->input};
    tern_text text = {0};
    tern_generate_options o = {.tokens = SAMPLE_TOKENS, .temperature = 0.8, .seed = (uint64_t)r->t->config.seed};
    if (!tern_sample(&sampler, "", &o, tern_text_append, &text, NULL)) return text.bytes;
    free(text.bytes);
    return NULL;
}

static tern_status write_report(run *r, const uint64_t *confusion, tern_error *err) {
    report_room *room = calloc(1, sizeof *room);
    if (!room) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for the report");
    fill_pairs(r, room);
    const tern_model_input *input = &r->t->input;
    char *sample = input->vocabulary ? sample_text(r) : NULL;
    tern_report_input page = {.title = r->t->config.preset,
                              .metrics_path = r->metrics,
                              .config = room->config,
                              .config_count = room->configs,
                              .results = room->results,
                              .result_count = room->pairs,
                              .sample = sample};
    if (confusion)
        page.confusion = (tern_report_confusion){input->classes, confusion, (const char *const *)input->class_name};
    tern_status status = tern_report_write(r->report, &page, err);
    free(sample);
    free(room);
    return status;
}

/* ---- the loop */

static tern_status one_step(run *r, tern_error *err) {
    tern_trainer *t = r->t;
    int log = (t->step + 1) % (uint64_t)t->config.log_every == 0 || t->step + 1 == t->steps;
    t->plan->count_trits = log;
    TERN_TRY(tern_trainer_step(t, log || t->step % ASK_EVERY == 0, err));
    if (log || t->trouble[0]) TERN_TRY(log_step(r, err));
    if (t->trouble[0]) {
        char note[240];
        snprintf(note, sizeof note, "step %llu skipped: %s", (unsigned long long)t->step, t->trouble);
        tell(r, TERN_EVENT_SKIPPED, note);
    }
    tell(r, TERN_EVENT_STEP, NULL);
    return TERN_OK;
}

static tern_status loop(run *r, tern_error *err) {
    tern_trainer *t = r->t;
    uint64_t end = t->steps, stop_at = r->options->stop_at;
    if (stop_at && stop_at < end) end = stop_at;
    while (t->step < end && !r->stop) {
        TERN_TRY(one_step(r, err));
        if (t->step % r->evaluate_every == 0 && t->step < t->steps) TERN_TRY(evaluate(r, 0, NULL, err));
        if (t->step % r->save_every == 0 && t->step < t->steps) TERN_TRY(save(r, err));
    }
    if (t->step < t->steps) return save(r, err);
    /* What the end adds to the statistics is saved with them: resuming a finished run evaluates, and no more. */
    if (t->config.recalibrate && r->first_step < t->steps) TERN_TRY(tern_trainer_recalibrate(t, err));
    TERN_TRY(save(r, err));
    size_t classes = t->input.classes;
    uint64_t *confusion = classes && classes <= 1000 ? calloc(classes * classes, sizeof *confusion) : NULL;
    tern_status status = evaluate(r, 1, confusion, err);
    const double written = tern_clock();
    if (!status) status = write_report(r, confusion, err);
    r->evaluating += tern_clock() - written;
    free(confusion);
    return status;
}

static tern_status join(char *path, const char *folder, const char *name, tern_error *err) {
    if (snprintf(path, PATH_BYTES, "%s/%s", folder, name) >= PATH_BYTES)
        return tern_fail(err, TERN_E_ARGUMENT, TERN_NO_PLACE, "the name of the folder is too long");
    return TERN_OK;
}

/* Makes the folder, and those that it lies in. */
static tern_status make_folder(const char *folder, tern_error *err) {
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s", folder);
    for (char *slash = strchr(path + (path[0] == '/'), '/');; slash = strchr(slash + 1, '/')) {
        if (slash) *slash = 0;
        if (mkdir(path, 0777) && errno != EEXIST)
            return tern_fail(err, TERN_E_FILE, TERN_NO_PLACE, "%.150s: %s", path, strerror(errno));
        if (!slash) return TERN_OK;
        *slash = '/';
    }
}

/* Naming a kernel asks for the GPU too. */
static int is_asked_for(const run *r) {
    tern_device_kernel kernel = TERN_DEVICE_KERNEL_AUTO;
    return !tern_cuda_is_auto(r->options->device) ||
           (!tern_pinned_device_kernel(&kernel, NULL) && kernel != TERN_DEVICE_KERNEL_AUTO);
}

/* A GPU that Tern chose itself and that cannot train this, for want of cuBLASLt or of an operation, gives way to the
 * CPU; one that was asked for does not. */
static tern_status create_trainer(run *r, const tern_config *config, int device, tern_error *err) {
    tern_error why = {0};
    tern_status status = tern_trainer_create(&r->t, config, device, &why);
    if (status == TERN_E_UNSUPPORTED && device >= 0 && !is_asked_for(r)) {
        status = tern_trainer_create(&r->t, config, TERN_DEVICE_CPU, err);
        if (status == TERN_E_UNSUPPORTED && err) *err = why; /* neither can: the better device's reason */
        TERN_TRY(status);
        char note[sizeof why.message + 40];
        snprintf(note, sizeof note, "training on the CPU: %s", why.message);
        tell(r, TERN_EVENT_NOTE, note);
        return TERN_OK;
    }
    if (status && err) *err = why;
    return status;
}

static tern_status open_run(run *r, const tern_config *config, tern_error *err) {
    const char *out = r->options->out;
    int device;
    TERN_TRY(tern_cuda_select(&device, r->options->device, err));
    TERN_TRY(join(r->checkpoint, out, "checkpoint.safetensors", err));
    TERN_TRY(join(r->metrics, out, "metrics.jsonl", err));
    TERN_TRY(join(r->report, out, "report.html", err));
    TERN_TRY(make_folder(out, err));
    TERN_TRY(create_trainer(r, config, device, err));
    tern_trainer *t = r->t;
    if (r->options->resume) TERN_TRY(tern_trainer_load(t, r->checkpoint, err));
    r->first_step = t->step;
    r->saved_step = r->options->resume ? t->step : UINT64_MAX;
    /* A fresh run begins a fresh file. */
    if (!r->options->resume && remove(r->metrics) && errno != ENOENT)
        return tern_fail(err, TERN_E_FILE, TERN_NO_PLACE, "%.150s: %s", r->metrics, strerror(errno));
    if (r->options->resume) TERN_TRY(tern_metrics_log_truncate(r->metrics, t->step, NULL, err));
    TERN_TRY(tern_metrics_log_open(&r->log, r->metrics, err));
    uint64_t tenth = tern_max_size(1, t->steps / 10);
    r->evaluate_every = t->config.evaluate_every ? (uint64_t)t->config.evaluate_every : tenth;
    r->save_every = t->config.save_every ? (uint64_t)t->config.save_every : r->evaluate_every;
    return TERN_OK;
}

tern_status tern_train(tern_train_result *result, const tern_config *config, const tern_train_options *options,
                       tern_error *err) {
    TERN_CHECK_ARGUMENT(config && options && options->out, err, "%s is NULL",
                        !config   ? "config"
                        : options ? "options.out"
                                  : "options");
    run *r = calloc(1, sizeof *r);
    if (!r) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for a training run");
    r->options = options;
    r->start = tern_clock();
    r->val_loss = r->val_accuracy = NAN;
    tern_status status = open_run(r, config, err);
    r->start = tern_clock(); /* reading the data is no part of the speed */
    if (!status) status = loop(r, err);
    if (result && r->t) {
        const tern_state_size state = tern_trainer_state(r->t);
        *result = (tern_train_result){.steps = r->t->step,
                                      .finished = !status && r->t->step >= r->t->steps,
                                      .seconds = tern_clock() - r->start,
                                      .train_seconds = trained_seconds(r),
                                      .loss = r->t->loss,
                                      .val_loss = r->val_loss,
                                      .val_accuracy = r->val_accuracy,
                                      .skipped = r->t->skipped,
                                      .loss_scale = r->t->scaling.scale,
                                      .overflowed = r->t->scaling.overflowed,
                                      .trained_weights = state.weights,
                                      .state_bytes = state.bytes,
                                      .state_bits_per_weight = tern_state_bits(&state),
                                      .peak_bytes = tern_peak_bytes(),
                                      .device_bytes = r->t->gpu ? tern_gpu_run_bytes(r->t->gpu) : 0};
    }
    tern_metrics_log_close(&r->log);
    tern_trainer_free(&r->t);
    free(r);
    return status;
}
