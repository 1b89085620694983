/* A checkpoint is the model's file (model/model_file.h) and, beside the parameters, "optimizer.first.NAME" and
 * "optimizer.second.NAME" of each trained one, and the counters as metadata "tern.training". Random numbers come from
 * counters, so that the step is all the state that they have. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "train/trainer.h"

enum { STATE_NAME_BYTES = TERN_PARAM_NAME_BYTES + 24 };

static void state_name(char name[STATE_NAME_BYTES], const char *kind, const tern_param *param) {
    snprintf(name, STATE_NAME_BYTES, "optimizer.%s.%s", kind, param->name);
}

/* The end of the counters; without a scale, that and no more. */
static void write_scaling(char *text, size_t bytes, const tern_gpu_loss_scale *s) {
    if (s->scale > 0)
        snprintf(text, bytes, ",\"loss_scale\":%.0f,\"overflowed\":%llu,\"good_in_row\":%llu}", s->scale,
                 (unsigned long long)s->overflowed, (unsigned long long)s->good_in_row);
    else
        snprintf(text, bytes, "}");
}

static tern_status add_state(tern_safetensors_writer *writer, const tern_trainer *t, tern_error *err) {
    char name[STATE_NAME_BYTES], text[320];
    for (size_t p = 0; p < t->graph->params; p++) {
        const tern_param *param = &t->graph->param[p];
        const float *state[2] = {t->optimizer->first[p], t->optimizer->second[p]};
        for (int k = 0; k < 2; k++) {
            if (!state[k]) continue;
            state_name(name, k ? "second" : "first", param);
            TERN_TRY(tern_safetensors_writer_add(writer, name, TERN_ST_F32, (size_t)param->rank, param->dim, state[k],
                                                 err));
        }
    }
    const int length =
        snprintf(text, sizeof text, "{\"step\":%llu,\"applied\":%llu,\"skipped\":%llu,\"skipped_in_row\":%llu",
                 (unsigned long long)t->step, (unsigned long long)t->applied, (unsigned long long)t->skipped,
                 (unsigned long long)t->skipped_in_row);
    write_scaling(text + length, sizeof text - (size_t)length, &t->scaling);
    return tern_safetensors_writer_metadata(writer, "tern.training", text, err);
}

static size_t optimizer_bytes(const void *context, const tern_graph *graph, size_t p) {
    const tern_optimizer *o = context;
    return graph->param[p].count * sizeof(float) * (size_t)((o->first[p] != NULL) + (o->second[p] != NULL));
}

tern_state_size tern_trainer_state(const tern_trainer *t) {
    return tern_graph_state_size(t->graph, optimizer_bytes, t->optimizer);
}

tern_status tern_trainer_save(tern_trainer *t, const char *path, tern_error *err) {
    tern_safetensors_writer *writer;
    TERN_TRY(tern_trainer_fetch(t, err));
    TERN_TRY(tern_safetensors_writer_create(&writer, err));
    tern_status status = tern_model_add(writer, t->graph, &t->input, &t->config, 0, err);
    if (!status) status = add_state(writer, t, err);
    if (!status) status = tern_safetensors_writer_write(writer, path, err);
    tern_safetensors_writer_free(&writer);
    return status;
}

/* Settings that change how a run is done or shown, and nothing that it computes. */
static int may_differ(const char *key) {
    static const char *const keys[] = {"threads", "path", "evaluate_every", "save_every", "log_every", "max_skips"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (!strcmp(key, keys[i])) return 1;
    return 0;
}

static tern_status same_config(const tern_config *ours, const tern_config *theirs, const char *path,
                               tern_error *err) {
    const char *key;
    char a[512], b[512];
    for (size_t i = 0; (key = tern_config_key(i)) != NULL; i++) {
        if (may_differ(key)) continue;
        TERN_TRY(tern_config_get(ours, key, a, sizeof a, err));
        TERN_TRY(tern_config_get(theirs, key, b, sizeof b, err));
        TERN_CHECK_ARGUMENT(!strcmp(a, b), err, "%.100s was made with %s=%.40s, not %.40s", path, key, b, a);
    }
    return TERN_OK;
}

/* Zeros where the run had no scale. 0: not such numbers. */
static int read_scaling(tern_gpu_loss_scale *s, json_t *json) {
    json_int_t scale = 0, overflowed = 0, good_in_row = 0;
    if (json_unpack(json, "{s?I, s?I, s?I}", "loss_scale", &scale, "overflowed", &overflowed, "good_in_row",
                    &good_in_row))
        return 0;
    if (scale < 0 || (scale & (scale - 1)) || overflowed < 0 || good_in_row < 0) return 0;
    *s = (tern_gpu_loss_scale){(double)scale, (uint64_t)overflowed, (uint64_t)good_in_row};
    return 1;
}

static tern_status read_counters(tern_trainer *t, const tern_safetensors *file, const char *path, tern_error *err) {
    const char *text = tern_safetensors_metadata(file, "tern.training");
    json_t *json = text ? json_loads(text, 0, NULL) : NULL;
    json_int_t step = -1, applied = -1, skipped = -1, in_row = -1;
    int ok = json &&
             !json_unpack(json, "{s:I, s:I, s:I, s:I}", "step", &step, "applied", &applied, "skipped", &skipped,
                          "skipped_in_row", &in_row) &&
             read_scaling(&t->scaling, json);
    json_decref(json);
    if (!ok || step < 0 || applied < 0 || skipped < 0 || in_row < 0 ||
        (uint64_t)step != (uint64_t)applied + (uint64_t)skipped + t->scaling.overflowed)
        return tern_fail(err, TERN_E_DATA, TERN_NO_PLACE, "%s: no counters of a training run; is it a checkpoint?",
                         path);
    t->step = (uint64_t)step;
    t->applied = (uint64_t)applied;
    t->skipped = (uint64_t)skipped;
    t->skipped_in_row = (uint64_t)in_row;
    return TERN_OK;
}

static tern_status read_state(tern_trainer *t, const tern_model_file *model, const char *path, tern_error *err) {
    char name[STATE_NAME_BYTES];
    TERN_TRY(same_config(&t->config, &model->config, path, err));
    TERN_TRY(tern_model_read_params(t->graph, model->file, err));
    for (size_t p = 0; p < t->graph->params; p++) {
        const tern_param *param = &t->graph->param[p];
        float *state[2] = {t->optimizer->first[p], t->optimizer->second[p]};
        for (int k = 0; k < 2; k++) {
            if (!state[k]) continue;
            state_name(name, k ? "second" : "first", param);
            TERN_TRY(tern_model_read_floats(state[k], model->file, name, param->count, err));
        }
    }
    TERN_TRY(read_counters(t, model->file, path, err));
    return tern_loader_seek(t->loader, t->step * (uint64_t)t->config.accumulate, err);
}

tern_status tern_trainer_load(tern_trainer *t, const char *path, tern_error *err) {
    tern_model_file model;
    TERN_TRY(tern_model_file_open(&model, path, err));
    tern_status status = model.packed ? tern_fail(err, TERN_E_ARGUMENT, TERN_NO_PLACE,
                                                  "%s is a deployed model; training goes on from a checkpoint", path)
                                      : read_state(t, &model, path, err);
    tern_model_file_close(&model);
    return status ? status : tern_trainer_refresh(t, err);
}
