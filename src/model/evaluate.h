/* Loss and accuracy of a plan on a data set. */
#ifndef TERN_MODEL_EVALUATE_H
#define TERN_MODEL_EVALUATE_H

#include "model/model_file.h"
#include "nn/plan.h"
#include "tern/data.h"

typedef enum tern_views {
    TERN_VIEWS_ONE = 0,
    TERN_VIEWS_MIRROR = 1, /* logits of the image and its mirror, added */
    TERN_VIEWS_SIX = 2     /* airbench: both at 1/2, and both shifted by a pixel up left and down right at 1/4 each */
} tern_views;

typedef struct tern_evaluation_desc {
    const tern_dataset *dataset;
    const tern_model_input *input;
    tern_views views;
    size_t max_samples;  /* 0: all; else from the beginning */
    uint64_t *confusion; /* [classes][classes] true by predicted, added to; NULL: not wanted */
} tern_evaluation_desc;

typedef struct tern_evaluation {
    double loss;     /* mean, nats */
    double accuracy; /* share */
    size_t samples;  /* images, or tokens */
} tern_evaluation;

/* What runs a graph forward, in evaluation: a plan, or a GPU. */
typedef struct tern_runner {
    const tern_graph *graph;
    size_t batch_max;
    int threads; /* of the steps around it */
    /* *y: the output [n][elements], good until the next run. x: floats, or int32 tokens. */
    tern_status (*run)(void *context, const float **y, const void *x, size_t n, tern_error *err);
    void *context;
} tern_runner;

/* The plan is left in evaluation mode. */
tern_runner tern_plan_runner(tern_plan *plan);

tern_status tern_evaluate(tern_evaluation *out, const tern_runner *runner, const tern_evaluation_desc *desc,
                          tern_error *err);

/* logits[n][classes] of n images x under `views`; room: as much memory as x and two sets of logits take. */
tern_status tern_view_logits(const tern_runner *runner, float *logits, const float *x, size_t n, tern_views views,
                             float *room, tern_error *err);

#endif
