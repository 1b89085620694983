/* One training run in memory: data, graph, plan and optimiser, stepped one by one. training_run.c has the loop around
 * it. */
#ifndef TERN_TRAIN_TRAINER_H
#define TERN_TRAIN_TRAINER_H

#include "model/evaluate.h"
#include "model/model_file.h"
#include "nn/state_size.h"
#include "tern/data.h"
#include "train/gpu_run.h"
#include "train/optimizer.h"

typedef struct tern_trainer {
    tern_config config;
    tern_dataset *train, *test;
    tern_model_input input;
    tern_loader *loader;
    tern_graph *graph;
    tern_plan *plan;
    tern_optimizer *optimizer;
    tern_method *method;    /* per parameter */
    tern_gpu_run *gpu;      /* what steps and evaluates in place of plan and optimizer; NULL on the CPU */
    tern_param_rule *rules; /* per parameter, of the step at hand */
    uint64_t steps;         /* of the whole run */
    uint64_t steps_per_epoch;

    /* What a checkpoint carries beside the parameters and the optimiser's state. */
    uint64_t step;    /* steps taken, skipped ones included */
    uint64_t applied; /* steps that changed the parameters */
    uint64_t skipped, skipped_in_row;
    tern_gpu_loss_scale scaling; /* of fp16 on a GPU: step = applied + skipped + overflowed */

    float *statistics; /* those of the last good step, to return to */
    size_t statistic_count;

    double loss, gradient_norm, lr; /* of the last step */
    char trouble[160];              /* of the last step: where a NaN or Inf arose; empty without */
} tern_trainer;

/* device: number of a GPU, or TERN_DEVICE_CPU. On a GPU the plan is for single samples, and the graph's parameters
 * are those of the last save or fetch. */
tern_status tern_trainer_create(tern_trainer **out, const tern_config *config, int device, tern_error *err);
void tern_trainer_free(tern_trainer **trainer);

/* Quantizes and packs the weights as they are at this step; for who has changed them in the graph. */
tern_status tern_trainer_refresh(tern_trainer *trainer, tern_error *err);

/* One step. A skipped one is TERN_OK with `trouble` set; more than max_skips of them in a row are TERN_E_DATA. A GPU
 * is only asked how its steps went when `ask` is nonzero: loss, gradient_norm and trouble are of that time. */
tern_status tern_trainer_step(tern_trainer *trainer, int ask, tern_error *err);

/* For the steps that a GPU has not finished yet. */
tern_status tern_trainer_wait(tern_trainer *trainer, tern_error *err);

/* The network as it is at this step, forward: on the GPU where the training is. The trainer must outlive it. */
tern_runner tern_trainer_runner(tern_trainer *trainer);

/* On the test split. last: all of it, with all views; else quicker. confusion: counted into, or NULL. */
tern_status tern_trainer_evaluate(tern_trainer *trainer, tern_evaluation *out, int last, uint64_t *confusion,
                                  tern_error *err);

/* What its checkpoint holds, and for how many weights. */
tern_state_size tern_trainer_state(const tern_trainer *trainer);

/* Batch norm's statistics anew, as means over `recalibrate` batches of training data. */
tern_status tern_trainer_recalibrate(tern_trainer *trainer, tern_error *err);

/* Brings the host's graph and optimiser up to date with the GPU; nothing to do on the CPU. */
tern_status tern_trainer_fetch(tern_trainer *trainer, tern_error *err);

/* The checkpoint: written atomically; read only into a run of the same configuration. */
tern_status tern_trainer_save(tern_trainer *trainer, const char *path, tern_error *err);
tern_status tern_trainer_load(tern_trainer *trainer, const char *path, tern_error *err);

#endif
