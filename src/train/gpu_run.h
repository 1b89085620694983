/* The part of a training run that lives on a GPU: the plan, the data and the optimiser there, stepped from here. The
 * trainer's graph and optimiser stay on the host as what is saved, and are brought up to date by
 * tern_gpu_run_fetch. */
#ifndef TERN_TRAIN_GPU_RUN_H
#define TERN_TRAIN_GPU_RUN_H

#include "gpu/gpu_table.h"
#include "model/evaluate.h"
#include "train/optimizer.h"

struct tern_trainer;
typedef struct tern_gpu_run tern_gpu_run;

/* Sends the data set; not the parameters. Everything that it was made from must outlive it. */
tern_status tern_gpu_run_create(tern_gpu_run **out, const struct tern_trainer *trainer, int device, tern_error *err);
/* Memory that it takes on the device. */
size_t tern_gpu_run_bytes(const tern_gpu_run *run);
void tern_gpu_run_free(tern_gpu_run **run);

/* Parameters, the optimiser's state and the counts of steps: to the device, and back. lambda: of the weights. */
tern_status tern_gpu_run_send(tern_gpu_run *run, const struct tern_trainer *trainer, float lambda, tern_error *err);
tern_status tern_gpu_run_fetch(tern_gpu_run *run, const struct tern_trainer *trainer, tern_error *err);

/* One step, put on the device's stream. lambda: of the weights behind it. */
tern_status tern_gpu_run_step(tern_gpu_run *run, const struct tern_trainer *trainer, const tern_param_rule *rules,
                              float lambda, tern_error *err);
/* Waits for all steps so far. */
tern_status tern_gpu_run_result(tern_gpu_run *run, tern_gpu_result *result, tern_error *err);
tern_status tern_gpu_run_recalibrate(tern_gpu_run *run, const struct tern_trainer *trainer, int number,
                                     tern_error *err);

/* Trits of a node as the last step that counted them left them: train/trainer.h's `ask`. */
tern_status tern_gpu_run_trits(tern_gpu_run *run, tern_gpu_trits *out, size_t node, tern_error *err);

tern_runner tern_gpu_run_runner(tern_gpu_run *run);

#endif
