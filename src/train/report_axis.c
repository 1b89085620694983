#include "train/report_axis.h"

#include <math.h>

static double nice_step(double raw) {
    const double power = pow(10, floor(log10(raw))), lead = raw / power;
    return power * (lead <= 1.0001 ? 1 : lead <= 2.0001 ? 2 : lead <= 5.0001 ? 5 : 10);
}

tern_axis tern_axis_linear(double least, double most, double from, double to, int wanted, int widen) {
    /* A flat curve, or one flat to within rounding, gets some air. */
    if (!(most - least > 1e-9 * fmax(fabs(least), fabs(most)))) {
        const double air = most != 0 ? 0.1 * fabs(most) : 1;
        least = least < 0 || least - air >= 0 ? least - air : 0;
        most += air;
    }
    const double step = nice_step((most - least) / wanted), slack = 1e-6;
    tern_axis axis = {.from = from, .to = to};
    double first = ceil(least / step - slack), last = floor(most / step + slack);
    if (widen) {
        first = floor(least / step + slack);
        last = ceil(most / step - slack);
        least = first * step;
        most = last * step;
    }
    axis.least = least;
    axis.most = most;
    for (double k = first; k <= last && axis.tick_count < TERN_AXIS_TICKS; k++)
        axis.ticks[axis.tick_count++] = k * step + 0; /* + 0: no minus zero */
    return axis;
}

/* The largest (side < 0) or smallest of 1, 2, 5 times a power of ten that is not past value. */
static double nice_value(double value, int side) {
    static const double leads[] = {1, 2, 5, 10};
    const double power = pow(10, floor(log10(value)));
    if (side > 0) {
        for (int i = 0; i < 3; i++)
            if (value <= leads[i] * power * 1.0001) return leads[i] * power;
        return 10 * power;
    }
    for (int i = 3; i > 0; i--)
        if (value >= leads[i] * power * 0.9999) return leads[i] * power;
    return power;
}

tern_axis tern_axis_logarithmic(double least, double most, double from, double to) {
    static const double leads[] = {1, 2, 5};
    tern_axis axis = {
        .least = nice_value(least, -1), .most = nice_value(most, 1), .from = from, .to = to, .logarithmic = 1};
    if (axis.most < 2 * axis.least) axis.most = 10 * axis.least;
    const double decades = log10(axis.most / axis.least);
    const int each = decades > 2.5 ? 1 : 3, stride = (int)ceil(decades / 7);
    const double first = floor(log10(axis.least) + 1e-9), last = ceil(log10(axis.most) - 1e-9);
    for (double k = first; k <= last; k += stride)
        for (int i = 0; i < each; i++) {
            const double tick = leads[i] * pow(10, k);
            if (tick < axis.least * 0.9999 || tick > axis.most * 1.0001 || axis.tick_count == TERN_AXIS_TICKS)
                continue;
            axis.ticks[axis.tick_count++] = tick;
        }
    return axis;
}

double tern_axis_place(const tern_axis *axis, double value) {
    const double v = fmin(fmax(value, axis->least), axis->most);
    const double share = axis->logarithmic ? log(v / axis->least) / log(axis->most / axis->least)
                                           : (v - axis->least) / (axis->most - axis->least);
    return axis->from + share * (axis->to - axis->from);
}
