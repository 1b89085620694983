/* Training: a configuration and a folder in; a checkpoint, metrics.jsonl and report.html out.
 *
 * Reproducible: the same configuration on the same machine gives the same checkpoint to the bit, with any number of
 * threads, and whether or not the run was interrupted and resumed. */
#ifndef TERN_TRAIN_H
#define TERN_TRAIN_H

#include <stddef.h>
#include <stdint.h>

#include "tern/config.h"
#include "tern/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tern_event {
    TERN_EVENT_STEP = 0,      /* a step was taken */
    TERN_EVENT_EVALUATED = 1, /* val_loss and val_accuracy are new */
    TERN_EVENT_SKIPPED = 2,   /* a NaN or Inf: the step changed nothing; note says where it arose */
    TERN_EVENT_SAVED = 3,     /* the checkpoint on disk is of this step */
    TERN_EVENT_NOTE = 4       /* note has something to say */
} tern_event;

typedef struct tern_progress {
    tern_event event;
    uint64_t step, steps; /* steps taken, and of the whole run */
    double epoch;
    double loss, lr, grad_norm; /* of the last step */
    double loss_scale;          /* with fp16 values: what gradients are multiplied by on their way; else 0 */
    uint64_t overflowed;        /* steps that it was too large for: they changed nothing, and it was halved */
    double samples_per_second, seconds, seconds_left;
    double val_loss, val_accuracy; /* of the last evaluation; NaN before the first */
    const char *note;              /* NULL without */
} tern_progress;

/* Called in the thread that trains. Nonzero: save and stop. */
typedef int (*tern_progress_fn)(void *context, const tern_progress *progress);

typedef struct tern_train_options {
    const char *out; /* folder, made where it is not there */
    int resume;      /* nonzero: go on from out/checkpoint.safetensors, whose configuration must be the same */
    const char
        *device;      /* "cpu", "cuda", "cuda:N"; NULL or "auto": what TERN_DEVICE says, else a GPU where there is one
                           that can train this, else the CPU. One whose kernel TERN_KERNEL names does not give way */
    uint64_t stop_at; /* save and stop after so many steps; 0: at the end */
    tern_progress_fn progress;
    void *context;
} tern_train_options;

typedef struct tern_train_result {
    uint64_t steps;       /* taken in all, resumed ones included */
    int finished;         /* 0: stopped before the end */
    double seconds;       /* of this call, without the reading of data */
    double train_seconds; /* of those, what steps took: no evaluation, saving or report */
    double loss, val_loss, val_accuracy;
    uint64_t skipped;
    double loss_scale;   /* at the end, of fp16 values; else 0 */
    uint64_t overflowed; /* steps that changed nothing because it was too large; not among `skipped` */
    size_t trained_weights, state_bytes; /* weights that learn, and what the checkpoint holds of them: the weights
                                            themselves, what their rule or optimiser keeps, running statistics */
    double state_bits_per_weight;        /* the one over the other, in bits */
    size_t peak_bytes;   /* most memory that the process has held so far, data and program included; 0: unknown */
    size_t device_bytes; /* memory that the run takes on a GPU, all of it held from the first step on; 0: none */
} tern_train_result;

/* Writes out/checkpoint.safetensors, out/metrics.jsonl and, at the end, out/report.html. A step whose loss or
 * gradient is not finite is skipped: parameters, optimiser and statistics stay as they were, the data goes on. After
 * max_skips of them in a row training stops with TERN_E_DATA, and the checkpoint is that of the last save. With fp16
 * values a gradient that is not finite halves the loss's scale first and is counted as overflowed; a run's first
 * steps find out how large it may be. */
TERN_API tern_status tern_train(tern_train_result *result, const tern_config *config,
                                const tern_train_options *options, tern_error *err);

#ifdef __cplusplus
}
#endif
#endif
