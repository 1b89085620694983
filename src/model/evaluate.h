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

/* The plan evaluates: it is left in evaluation mode. */
tern_status tern_plan_evaluate(tern_evaluation *out, tern_plan *plan, const tern_evaluation_desc *desc,
                               tern_error *err);

/* logits[n][classes] of n images x under `views`; room: as much memory as x and two sets of logits take. */
void tern_plan_logits(tern_plan *plan, float *logits, const float *x, size_t n, tern_views views, float *room);

#endif
