/* The drawings of a report, as SVG with classes that its style sheet colours. */
#ifndef TERN_TRAIN_REPORT_CHART_H
#define TERN_TRAIN_REPORT_CHART_H

#include <stddef.h>
#include <stdio.h>

#include "train/report_data.h"

enum { TERN_CHART_SERIES = 3 };

typedef struct tern_chart_series {
    const tern_report_series *data; /* an empty one is left out, legend and all */
    const char *name;
    const char *css; /* its colour: a class of the style sheet */
    int faint;       /* the raw form of a series that is also drawn smoothed */
} tern_chart_series;

typedef struct tern_chart {
    const char *title, *unit;
    tern_chart_series series[TERN_CHART_SERIES];
    const tern_report_series *epoch; /* told beside the step, or NULL */
    int percent;                     /* values are shares */
    int from_zero;
} tern_chart;

/* A titled card with legend, axes and curves; nothing where every series is empty. The y axis is logarithmic where
 * positive values spread over a factor of eight and more and from_zero is not set. More than 600 points are thinned
 * to the least and the greatest of each of 300 columns. */
void tern_report_chart(FILE *out, const tern_chart *chart);

/* What the small multiples of all layers share: they are there to be compared. */
typedef struct tern_layer_axes {
    double step_least, step_most;
    double flips_least, flips_most; /* powers of ten; both 0 where nothing was flipped */
} tern_layer_axes;

tern_layer_axes tern_report_layer_axes(const tern_report_data *data);

/* A card with the shares of -1, 0 and +1, stacked, and below them the flips per step on a logarithmic axis. */
void tern_report_layer_card(FILE *out, const tern_report_layer *layer, const tern_layer_axes *axes);

#endif
