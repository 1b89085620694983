/* What a report draws: the series of a metrics.jsonl. */
#ifndef TERN_TRAIN_REPORT_DATA_H
#define TERN_TRAIN_REPORT_DATA_H

#include <stddef.h>

#include "tern/status.h"

/* y over x, x ascending, everything finite. */
typedef struct tern_report_series {
    double *x, *y;
    size_t count, room;
} tern_report_series;

typedef struct tern_report_layer {
    char *name;
    tern_report_series minus, zero, plus; /* shares, each with the same x */
    tern_report_series flips;             /* share of the weights that changes in a step */
    double flips_since;                   /* the step of the last line, while reading */
} tern_report_layer;

typedef struct tern_report_data {
    tern_report_series loss, val_loss, accuracy;
    tern_report_series lr, grad_norm, rate, epoch;
    /* Moving means; empty where there are few points. */
    tern_report_series smooth_loss, smooth_grad_norm, smooth_rate;
    tern_report_series flips;  /* mean over the layers of their flips, at the steps of the first */
    tern_report_layer *layers; /* in the order of their first lines */
    size_t layer_count, layer_room;
    size_t lines, damaged;
    int cut; /* the last line has no end */
} tern_report_data;

/* Reads a file; one that is not there, or a NULL path, is no lines. Free the data in any case. */
tern_status tern_report_data_read(tern_report_data *data, const char *path, tern_error *err);
void tern_report_data_free(tern_report_data *data);

#endif
