/* metrics.jsonl: what a training run measures, one JSON object a line, appended while it runs.
 *
 *     {"step":100,"epoch":1,"loss":0.51,"lr":0.001,"grad_norm":1.2,"images_per_second":5012}
 *     {"step":100,"epoch":1,...,"images_per_second":90012,"loss_scale":65536,"overflow_steps":2}   (fp16 values)
 *     {"step":100,"val_loss":0.48,"val_accuracy":0.83}
 *     {"step":100,"layer":"conv1","minus":0.31,"zero":0.37,"plus":0.32,"flips":0.004}
 *
 * Each line is written by one call to the system, so a reader sees whole lines and a killed run loses at most one.
 * Numbers have nine digits: an fp32 value is read back as it was. What is not finite becomes null. */
#ifndef TERN_TRAIN_METRICS_LOG_H
#define TERN_TRAIN_METRICS_LOG_H

#include <stddef.h>
#include <stdint.h>

#include "tern/status.h"

typedef struct tern_metrics_log tern_metrics_log;

/* Opens or creates a file to append to. A last line without its end, left by a killed run, is cut off. */
tern_status tern_metrics_log_open(tern_metrics_log **out, const char *path, tern_error *err);

/* Frees and nulls. Accepts NULL and a NULL pointer. */
void tern_metrics_log_close(tern_metrics_log **log);

typedef struct tern_metrics_train {
    uint64_t step;
    double epoch;
    double loss, lr, grad_norm, images_per_second;
    double loss_scale;   /* of fp16 values; 0: neither this nor the next is written */
    uint64_t overflowed; /* steps so far */
} tern_metrics_train;

typedef struct tern_metrics_evaluation {
    uint64_t step;
    double val_loss;
    double val_accuracy; /* share, 0..1 */
} tern_metrics_evaluation;

typedef struct tern_metrics_layer {
    uint64_t step;
    const char *layer;        /* UTF-8 */
    double minus, zero, plus; /* shares of the weights, together 1 */
    double flips;             /* share of the weights that changed since this layer's last line */
} tern_metrics_layer;

/* Each appends one line; a line that does not fit on the disk is taken back whole. A step is at most INT64_MAX. */
tern_status tern_metrics_log_train(tern_metrics_log *log, const tern_metrics_train *m, tern_error *err);
tern_status tern_metrics_log_evaluation(tern_metrics_log *log, const tern_metrics_evaluation *m, tern_error *err);
tern_status tern_metrics_log_layer(tern_metrics_log *log, const tern_metrics_layer *m, tern_error *err);

/* For a resumed run, before open: keeps the lines whose step is at most last_step, by an atomic rewrite (of nothing,
 * where all lines stay). Lines that cannot be read are dropped and counted in *damaged (which may be NULL), a cut
 * last one among them. A file that is not there is fine. */
tern_status tern_metrics_log_truncate(const char *path, uint64_t last_step, size_t *damaged, tern_error *err);

#endif
