/* Axes of a drawing: from values to places, and where the ticks are. */
#ifndef TERN_TRAIN_REPORT_AXIS_H
#define TERN_TRAIN_REPORT_AXIS_H

enum { TERN_AXIS_TICKS = 16 };

typedef struct tern_axis {
    double least, most; /* values, least < most */
    double from, to;    /* their places */
    int logarithmic;    /* values are positive */
    double ticks[TERN_AXIS_TICKS];
    int tick_count;
} tern_axis;

/* Round ticks, about `wanted` of them. `widen` moves the ends out to ticks. */
tern_axis tern_axis_linear(double least, double most, double from, double to, int wanted, int widen);

/* The ends move out to 1, 2 or 5 times a power of ten, or to powers of ten where there are many. */
tern_axis tern_axis_logarithmic(double least, double most, double from, double to);

/* Values beyond the ends are drawn at the ends. */
double tern_axis_place(const tern_axis *axis, double value);

#endif
