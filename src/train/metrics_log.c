#define _GNU_SOURCE
#include "train/metrics_log.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/printable.h"
#include "io/atomic_file.h"
#include "io/read_file.h"

enum { DIGITS = 9 };

struct tern_metrics_log {
    int fd;
    char label[96];
};

static tern_status fail_errno(const tern_metrics_log *log, const char *what, int number, tern_error *err) {
    return tern_fail(err, TERN_E_FILE, TERN_NO_PLACE, "%s: %s: %s", log->label, what, strerror(number));
}

/* Where the last whole line ends, looking back from the end; -1 on failure. */
static off_t whole_lines(int fd) {
    char block[4096];
    off_t end = lseek(fd, 0, SEEK_END);
    while (end > 0) {
        const size_t n = (size_t)(end < (off_t)sizeof block ? end : (off_t)sizeof block);
        if (pread(fd, block, n, end - (off_t)n) != (ssize_t)n) return -1;
        const char *newline = memrchr(block, '\n', n);
        if (newline) return end - (off_t)n + (newline - block) + 1;
        end -= (off_t)n;
    }
    return end;
}

tern_status tern_metrics_log_open(tern_metrics_log **out, const char *path, tern_error *err) {
    TERN_CHECK_ARGUMENT(out, err, "out is NULL");
    *out = NULL;
    TERN_CHECK_ARGUMENT(path, err, "path is NULL");
    tern_metrics_log *log = calloc(1, sizeof *log);
    if (!log) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for a metrics log");
    tern_printable_path(log->label, sizeof log->label, path);
    log->fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    const off_t end = log->fd < 0 ? -1 : whole_lines(log->fd);
    tern_status status = TERN_OK;
    if (end < 0 || ftruncate(log->fd, end)) status = fail_errno(log, "cannot open for appending", errno, err);
    if (status)
        tern_metrics_log_close(&log);
    else
        *out = log;
    return status;
}

void tern_metrics_log_close(tern_metrics_log **log) {
    if (!log || !*log) return;
    if ((*log)->fd >= 0) close((*log)->fd);
    free(*log);
    *log = NULL;
}

/* ---- lines ----------------------------------------------------------------------------------------------------- */

static json_t *number(double value) { return isfinite(value) ? json_real(value) : json_null(); }

/* Whole epochs and rates read better without ".0". */
static json_t *count_or_number(double value) {
    return fabs(value) < 1e15 && !(fabs(value - trunc(value)) > 0) ? json_integer((json_int_t)value) : number(value);
}

static tern_status append(tern_metrics_log *log, const char *line, size_t size, tern_error *err) {
    const off_t before = lseek(log->fd, 0, SEEK_END);
    ssize_t n;
    do n = write(log->fd, line, size);
    while (n < 0 && errno == EINTR);
    if (n == (ssize_t)size) return TERN_OK;
    const int why = n < 0 ? errno : ENOSPC;
    if (n > 0 && before >= 0 && ftruncate(log->fd, before)) return fail_errno(log, "half a line written", why, err);
    return fail_errno(log, "cannot append", why, err);
}

/* Takes the reference to object. */
static tern_status append_json(tern_metrics_log *log, json_t *object, tern_error *err) {
    char *line = object ? json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(DIGITS)) : NULL;
    json_decref(object);
    if (!line) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "%s: no memory for a line", log->label);
    const size_t length = strlen(line);
    line[length] = '\n'; /* in place of the NUL: the size goes along */
    const tern_status status = append(log, line, length + 1, err);
    free(line);
    return status;
}

tern_status tern_metrics_log_train(tern_metrics_log *log, const tern_metrics_train *m, tern_error *err) {
    TERN_CHECK_ARGUMENT(log && m, err, "log or line is NULL");
    TERN_CHECK_ARGUMENT(m->step <= INT64_MAX, err, "the step is past INT64_MAX");
    json_t *line = json_pack("{s:I, s:o, s:o, s:o, s:o, s:o}", "step", (json_int_t)m->step, "epoch",
                             count_or_number(m->epoch), "loss", number(m->loss), "lr", number(m->lr), "grad_norm",
                             number(m->grad_norm), "images_per_second", count_or_number(m->images_per_second));
    if (line && m->loss_scale > 0) {
        json_object_set_new(line, "loss_scale", count_or_number(m->loss_scale));
        json_object_set_new(line, "overflow_steps", json_integer((json_int_t)m->overflowed));
    }
    return append_json(log, line, err);
}

tern_status tern_metrics_log_evaluation(tern_metrics_log *log, const tern_metrics_evaluation *m, tern_error *err) {
    TERN_CHECK_ARGUMENT(log && m, err, "log or line is NULL");
    TERN_CHECK_ARGUMENT(m->step <= INT64_MAX, err, "the step is past INT64_MAX");
    json_t *line = json_pack("{s:I, s:o, s:o}", "step", (json_int_t)m->step, "val_loss", number(m->val_loss),
                             "val_accuracy", number(m->val_accuracy));
    return append_json(log, line, err);
}

tern_status tern_metrics_log_layer(tern_metrics_log *log, const tern_metrics_layer *m, tern_error *err) {
    TERN_CHECK_ARGUMENT(log && m && m->layer, err, "log, line or its layer is NULL");
    TERN_CHECK_ARGUMENT(m->step <= INT64_MAX, err, "the step is past INT64_MAX");
    json_t *layer = json_string(m->layer);
    TERN_CHECK_ARGUMENT(layer, err, "the name of the layer is not UTF-8");
    json_t *line =
        json_pack("{s:I, s:o, s:o, s:o, s:o, s:o}", "step", (json_int_t)m->step, "layer", layer, "minus",
                  number(m->minus), "zero", number(m->zero), "plus", number(m->plus), "flips", number(m->flips));
    return append_json(log, line, err);
}

/* ---- resuming -------------------------------------------------------------------------------------------------- */

/* The step of a line, or -1. */
static json_int_t line_step(const char *line, size_t size) {
    json_t *object = json_loadb(line, size, 0, NULL);
    const json_t *step = json_object_get(object, "step");
    const json_int_t value = json_is_integer(step) ? json_integer_value(step) : -1;
    json_decref(object);
    return value;
}

/* Moves the lines to keep to the front; returns their size. */
static size_t keep_lines(char *text, size_t size, uint64_t last_step, size_t *damaged) {
    size_t kept = 0, lost = 0;
    for (size_t i = 0; i < size;) {
        const char *newline = memchr(text + i, '\n', size - i);
        const size_t length = newline ? (size_t)(newline - (text + i)) + 1 : size - i;
        const json_int_t step = newline ? line_step(text + i, length) : -1;
        if (step < 0) {
            lost++;
        } else if ((uint64_t)step <= last_step) {
            memmove(text + kept, text + i, length);
            kept += length;
        }
        i += length;
    }
    if (damaged) *damaged = lost;
    return kept;
}

tern_status tern_metrics_log_truncate(const char *path, uint64_t last_step, size_t *damaged, tern_error *err) {
    TERN_CHECK_ARGUMENT(path, err, "path is NULL");
    char *text = NULL;
    size_t size = 0;
    if (damaged) *damaged = 0;
    if (access(path, F_OK) && errno == ENOENT) return TERN_OK;
    TERN_TRY(tern_file_read(&text, &size, path, err));
    const size_t kept = keep_lines(text, size, last_step, damaged);
    const tern_status status = kept == size ? TERN_OK : tern_atomic_file_replace(path, text, kept, err);
    free(text);
    return status;
}
