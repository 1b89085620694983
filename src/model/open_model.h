/* An open model: its file and the plan that runs it. */
#ifndef TERN_MODEL_OPEN_MODEL_H
#define TERN_MODEL_OPEN_MODEL_H

#include "model/gpu_session.h"
#include "model/model_file.h"
#include "nn/plan.h"
#include "tern/model.h"

struct tern_model {
    tern_model_file file;
    tern_plan *plan; /* for single samples where a GPU runs the model */
    size_t batch;
    tern_gpu_session *gpu; /* NULL on the CPU */
};

/* A plan for inference of the model's graph, refreshed. */
tern_status tern_model_plan(tern_plan **out, const tern_model *model, size_t batch, int threads, tern_tier tier,
                            tern_error *err);

/* What runs it: its plan, or the GPU. */
tern_runner tern_model_runner(tern_model *model);

#endif
