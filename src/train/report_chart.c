#include "train/report_chart.h"

#include <math.h>
#include <string.h>

#include "train/report_axis.h"
#include "train/report_html.h"

enum { POINTS_MOST = 600, BANDS = 96, DOTS_MOST = 40, LABEL = 32, READOUT = 256 };

/* The greatest value over the least from which an axis is logarithmic, and how far down that of flips reaches. */
static const double logarithmic_from = 8, flips_reach = 1e-4;

/* A chart, and one of the small multiples, in the units of their view boxes. */
enum { WIDTH = 480, HEIGHT = 246, LEFT = 64, RIGHT = 470, TOP = 26, BOTTOM = 208 };
enum {
    SMALL_WIDTH = 240,
    SMALL_HEIGHT = 192,
    SMALL_LEFT = 54,
    SMALL_RIGHT = 232,
    SHARE_TOP = 18,
    SHARE_BOTTOM = 104,
    FLIPS_TOP = 122,
    FLIPS_BOTTOM = 168,
    SMALL_COLUMNS = 120,
    SMALL_BANDS = 40
};

static const char *value_label(char *text, size_t size, double value, int percent) {
    if (!percent) return tern_html_number(text, size, value);
    tern_html_number(text, size - 1, 100 * value);
    return strcat(text, "%");
}

/* ---- curves ---------------------------------------------------------------------------------------------------- */

static void point(FILE *out, char command, const tern_axis *x, const tern_axis *y, double a, double b) {
    fprintf(out, "%c%.1f,%.1f", command, tern_axis_place(x, a), tern_axis_place(y, b));
}

/* The points of column c of `columns` are [begin, the result). */
static size_t column_end(const tern_report_series *s, size_t begin, const tern_axis *x, int c, int columns) {
    const double edge = x->least + (x->most - x->least) * (c + 1) / columns;
    size_t end = begin;
    while (end < s->count && (s->x[end] <= edge || c == columns - 1)) end++;
    return end;
}

/* The least and the greatest of the points [begin, end), in their order: *a <= *b. */
static void extremes(const tern_report_series *s, size_t begin, size_t end, size_t *a, size_t *b) {
    size_t low = begin, high = begin;
    for (size_t i = begin; i < end; i++) {
        if (s->y[i] < s->y[low]) low = i;
        if (s->y[i] > s->y[high]) high = i;
    }
    *a = low < high ? low : high;
    *b = low < high ? high : low;
}

static void curve(FILE *out, const tern_report_series *s, const tern_axis *x, const tern_axis *y, int points_most) {
    const int columns = points_most / 2;
    char command = 'M';
    if (s->count <= (size_t)points_most) {
        for (size_t i = 0; i < s->count; i++, command = 'L') point(out, command, x, y, s->x[i], s->y[i]);
        return;
    }
    for (size_t c = 0, begin = 0, end = 0; c < (size_t)columns; c++, begin = end) {
        size_t a = 0, b = 0;
        end = column_end(s, begin, x, (int)c, columns);
        if (begin == end) continue;
        extremes(s, begin, end, &a, &b);
        point(out, command, x, y, s->x[a], s->y[a]);
        command = 'L';
        if (a != b) point(out, command, x, y, s->x[b], s->y[b]);
    }
}

/* Few points are shown each, the last one larger. */
static void dots(FILE *out, const tern_report_series *s, const char *css, const tern_axis *x, const tern_axis *y) {
    for (size_t i = s->count <= DOTS_MOST ? 0 : s->count - 1; i < s->count; i++)
        fprintf(out, "<circle class=\"%s %s\" cx=\"%.1f\" cy=\"%.1f\" r=\"%s\"/>", i + 1 == s->count ? "e" : "d", css,
                tern_axis_place(x, s->x[i]), tern_axis_place(y, s->y[i]), i + 1 == s->count ? "4.5" : "2.5");
}

/* ---- axes ------------------------------------------------------------------------------------------------------ */

static void y_ticks(FILE *out, const tern_axis *y, int left, int right, int percent) {
    char label[LABEL];
    for (int i = 0; i < y->tick_count; i++) {
        const double at = tern_axis_place(y, y->ticks[i]);
        fprintf(out, "<path class=\"g\" d=\"M%d,%.1fH%d\"/><text class=\"y\" x=\"%d\" y=\"%.1f\">%s</text>", left, at,
                right, left - 6, at + 4, value_label(label, sizeof label, y->ticks[i], percent));
    }
}

static void x_ticks(FILE *out, const tern_axis *x, int base) {
    char label[LABEL];
    fprintf(out, "<path class=\"a\" d=\"M%.1f,%dH%.1f\"/>", x->from, base, x->to);
    for (int i = 0; i < x->tick_count; i++) {
        const double at = tern_axis_place(x, x->ticks[i]);
        fprintf(out, "<path class=\"a\" d=\"M%.1f,%dv4\"/><text class=\"x\" x=\"%.1f\" y=\"%d\">%s</text>", at, base,
                at, base + 18, tern_html_step(label, sizeof label, x->ticks[i]));
    }
}

/* ---- what the pointer tells ------------------------------------------------------------------------------------ */

/* One reader of a series, from left to right. */
typedef struct cursor {
    const tern_report_series *series; /* NULL: none */
    const char *name;
    int percent;
    size_t next; /* the value to tell is the one before it, if any */
} cursor;

static void add_text(char *text, size_t size, const char *more) {
    const size_t n = strlen(text);
    snprintf(text + n, size - n, "%s", more);
}

static void add_value(char *text, size_t size, const cursor *c) {
    char label[LABEL];
    const double value = c->series->y[c->next - 1];
    add_text(text, size, " \xc2\xb7 ");
    add_text(text, size, c->name);
    add_text(text, size, " ");
    if (c->percent && fabs(value) >= 0.1) {
        snprintf(label, sizeof label, "%.1f%%", 100 * value);
        add_text(text, size, label);
    } else {
        add_text(text, size, value_label(label, sizeof label, value, c->percent));
    }
}

/* Moves all cursors past column c. The text tells the last value of each but the first, which is the epochs' and told
 * in the title only; *step is that of the newest point in the column, or -1 where there is none. */
static void advance(cursor *cursors, size_t count, const tern_axis *x, int c, int columns, char *text, size_t size,
                    double *step) {
    *step = -1;
    text[0] = 0;
    for (size_t i = 0; i < count; i++) {
        cursor *at = &cursors[i];
        if (!at->series) continue;
        const size_t end = column_end(at->series, at->next, x, c, columns);
        if (i && end > at->next) *step = fmax(*step, at->series->x[end - 1]);
        at->next = end;
        if (i && end) add_value(text, size, at);
    }
}

/* Where bands are drawn, where their text ends, and what stands before its step. */
typedef struct band_area {
    int top, bottom, text_y, columns;
    const char *before;
} band_area;

/* Columns over the plot, each with a title, and with a line and a text that the style sheet shows while it is pointed
 * at. */
static void bands(FILE *out, cursor *cursors, size_t count, const tern_axis *x, band_area area) {
    char text[READOUT], epoch[READOUT], number[LABEL];
    size_t points = 1;
    for (size_t i = 1; i < count; i++)
        if (cursors[i].series && cursors[i].series->count > points) points = cursors[i].series->count;
    const int columns = points < (size_t)area.columns ? (int)points : area.columns;
    const double width = (x->to - x->from) / columns;
    for (int c = 0; c < columns; c++) {
        double step;
        advance(cursors, count, x, c, columns, text, sizeof text, &step);
        if (step < 0) continue;
        tern_html_number(number, sizeof number, step);
        epoch[0] = 0;
        if (cursors[0].series && cursors[0].next) add_value(epoch, sizeof epoch, &cursors[0]);
        fprintf(out,
                "<g class=\"b\"><rect x=\"%.1f\" y=\"%d\" width=\"%.2f\" height=\"%d\"><title>step %s%s%s</title>"
                "</rect><path d=\"M%.1f,%dV%d\"/><text x=\"%.1f\" y=\"%d\">%s%s%s</text></g>",
                x->from + c * width, area.top, width, area.bottom - area.top, number, epoch, text,
                tern_axis_place(x, step), area.top, area.bottom, x->to, area.text_y, area.before, number, text);
    }
}

/* ---- charts ---------------------------------------------------------------------------------------------------- */

typedef struct range {
    double least, most;
} range;

static void widen(range *r, double value) {
    r->least = fmin(r->least, value);
    r->most = fmax(r->most, value);
}

static range chart_range(const tern_chart *chart, int of_steps) {
    range r = {INFINITY, -INFINITY};
    for (int i = 0; i < TERN_CHART_SERIES; i++) {
        const tern_report_series *s = chart->series[i].data;
        for (size_t k = 0; s && k < s->count; k++) widen(&r, of_steps ? s->x[k] : s->y[k]);
    }
    return r;
}

static tern_axis step_axis(range steps, double from, double to, int wanted) {
    if (steps.least <= 0.25 * steps.most) steps.least = 0;
    return tern_axis_linear(steps.least, steps.most, from, to, wanted, 0);
}

static tern_axis value_axis(const tern_chart *chart) {
    range r = chart_range(chart, 0);
    if (!chart->from_zero && r.least > 0 && r.most > logarithmic_from * r.least)
        return tern_axis_logarithmic(r.least, r.most, BOTTOM, TOP);
    if (chart->from_zero) widen(&r, 0);
    return tern_axis_linear(r.least, r.most, BOTTOM, TOP, 5, 1);
}

static int is_drawn(const tern_chart_series *s) { return s->data && s->data->count; }

/* A single curve needs no key beside its title. */
static void legend(FILE *out, const tern_chart *chart) {
    int drawn = 0;
    for (int i = 0; i < TERN_CHART_SERIES; i++) drawn += is_drawn(&chart->series[i]);
    if (drawn < 2) return;
    fputs("<p class=\"k\">", out);
    for (int i = 0; i < TERN_CHART_SERIES; i++) {
        const tern_chart_series *s = &chart->series[i];
        if (is_drawn(s)) fprintf(out, "<span><i class=\"%s%s\"></i>%s</span>", s->css, s->faint ? " f" : "", s->name);
    }
    fputs("</p>", out);
}

void tern_report_chart(FILE *out, const tern_chart *chart) {
    const range steps = chart_range(chart, 1);
    if (!(steps.most >= steps.least)) return;
    const tern_axis x = step_axis(steps, LEFT, RIGHT, 6), y = value_axis(chart);
    cursor cursors[TERN_CHART_SERIES + 1] = {{.series = chart->epoch, .name = "epoch"}};
    fprintf(out, "<figure><div class=\"c\"><figcaption>%s <small>%s%s</small></figcaption>", chart->title,
            chart->unit, y.logarithmic ? ", logarithmic" : "");
    legend(out, chart);
    fprintf(out, "</div><svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"%s\">", WIDTH, HEIGHT, chart->title);
    y_ticks(out, &y, LEFT, RIGHT, chart->percent);
    x_ticks(out, &x, BOTTOM);
    fprintf(out, "<text class=\"x\" x=\"%d\" y=\"%d\">step</text>", (LEFT + RIGHT) / 2, HEIGHT - 4);
    for (int i = 0; i < TERN_CHART_SERIES; i++) {
        const tern_chart_series *s = &chart->series[i];
        cursors[i + 1] = (cursor){.series = s->data, .name = s->name, .percent = chart->percent};
        if (!is_drawn(s)) continue;
        fprintf(out, "<path class=\"l %s%s\" d=\"", s->css, s->faint ? " f" : "");
        curve(out, s->data, &x, &y, POINTS_MOST);
        fputs("\"/>", out);
        if (!s->faint) dots(out, s->data, s->css, &x, &y);
    }
    bands(out, cursors, TERN_CHART_SERIES + 1, &x, (band_area){TOP, BOTTOM, 14, BANDS, "step "});
    fputs("</svg></figure>\n", out);
}

/* ---- layers ---------------------------------------------------------------------------------------------------- */

tern_layer_axes tern_report_layer_axes(const tern_report_data *data) {
    range steps = {INFINITY, -INFINITY}, flips = {INFINITY, -INFINITY};
    for (size_t i = 0; i < data->layer_count; i++) {
        const tern_report_layer *layer = &data->layers[i];
        for (size_t k = 0; k < layer->zero.count; k++) widen(&steps, layer->zero.x[k]);
        for (size_t k = 0; k < layer->flips.count; k++) {
            widen(&steps, layer->flips.x[k]);
            if (layer->flips.y[k] > 0) widen(&flips, layer->flips.y[k]);
        }
    }
    tern_layer_axes axes = {steps.least, steps.most, 0, 0};
    if (flips.most > 0) {
        axes.flips_most = pow(10, ceil(log10(flips.most) - 1e-9));
        axes.flips_least = pow(10, floor(log10(fmax(flips.least, axes.flips_most * flips_reach)) + 1e-9));
        if (axes.flips_least >= axes.flips_most) axes.flips_least = axes.flips_most / 10;
    }
    return axes;
}

/* One stacked area between two sums of shares; a column is told by its last line. */
static void area(FILE *out, const tern_report_layer *layer, int part, const char *css, const tern_axis *x,
                 const tern_axis *y) {
    const tern_report_series *m = &layer->minus, *z = &layer->zero;
    size_t kept[SMALL_COLUMNS + 1], count = 0;
    for (size_t c = 0, begin = 0, end = 0; c < SMALL_COLUMNS; c++, begin = end) {
        end = column_end(m, begin, x, (int)c, SMALL_COLUMNS);
        if (begin == 0 && end > 1) kept[count++] = 0;
        if (begin < end) kept[count++] = end - 1;
    }
    fprintf(out, "<path class=\"s %s\" d=\"", css);
    for (size_t i = 0; i < 2 * count; i++) {
        const size_t k = kept[i < count ? i : 2 * count - 1 - i];
        const double below = part == 0 ? 0 : part == 1 ? m->y[k] : m->y[k] + z->y[k];
        const double above = part == 0 ? m->y[k] : part == 1 ? m->y[k] + z->y[k] : 1;
        point(out, i ? 'L' : 'M', x, y, m->x[k], i < count ? above : below);
    }
    fputs("Z\"/>", out);
}

static void layer_shares(FILE *out, const tern_report_layer *layer, const tern_axis *x) {
    tern_axis y = tern_axis_linear(0, 1, SHARE_BOTTOM, SHARE_TOP, 2, 0);
    area(out, layer, 0, "minus", x, &y);
    area(out, layer, 1, "zero", x, &y);
    area(out, layer, 2, "plus", x, &y);
    y_ticks(out, &y, SMALL_LEFT, SMALL_LEFT, 1);
    cursor cursors[] = {{0},
                        {.series = &layer->minus,
                         .name = "\xe2\x88\x92"
                                 "1",
                         .percent = 1},
                        {.series = &layer->zero, .name = "0", .percent = 1},
                        {.series = &layer->plus, .name = "+1", .percent = 1}};
    bands(out, cursors, 4, x, (band_area){SHARE_TOP, SHARE_BOTTOM, 12, SMALL_BANDS, ""});
}

static void layer_flips(FILE *out, const tern_report_layer *layer, const tern_layer_axes *axes, const tern_axis *x) {
    tern_axis y = tern_axis_logarithmic(axes->flips_least, axes->flips_most, FLIPS_BOTTOM, FLIPS_TOP);
    y.ticks[0] = axes->flips_least;
    y.ticks[1] = axes->flips_most;
    y.tick_count = 2;
    y_ticks(out, &y, SMALL_LEFT, SMALL_RIGHT, 1);
    fputs("<path class=\"l s1\" d=\"", out);
    curve(out, &layer->flips, x, &y, 2 * SMALL_COLUMNS);
    fputs("\"/>", out);
    cursor cursors[] = {{0}, {.series = &layer->flips, .name = "flips/step", .percent = 1}};
    bands(out, cursors, 2, x, (band_area){FLIPS_TOP, FLIPS_BOTTOM, FLIPS_TOP - 4, SMALL_BANDS, "step "});
}

void tern_report_layer_card(FILE *out, const tern_report_layer *layer, const tern_layer_axes *axes) {
    const tern_axis x = step_axis((range){axes->step_least, axes->step_most}, SMALL_LEFT, SMALL_RIGHT, 3);
    fputs("<figure><figcaption>", out);
    tern_html_text(out, layer->name);
    fputs("</figcaption>", out);
    if (layer->zero.count) {
        const size_t i = layer->zero.count - 1;
        fprintf(out,
                "<p class=\"n\">\xe2\x88\x92"
                "1 %.1f%% \xc2\xb7 0 %.1f%% \xc2\xb7 +1 %.1f%%</p>",
                100 * layer->minus.y[i], 100 * layer->zero.y[i], 100 * layer->plus.y[i]);
    }
    fprintf(out, "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"shares and flips\">", SMALL_WIDTH,
            SMALL_HEIGHT);
    if (layer->zero.count) layer_shares(out, layer, &x);
    if (layer->flips.count && axes->flips_most > 0) layer_flips(out, layer, axes, &x);
    x_ticks(out, &x, FLIPS_BOTTOM);
    fputs("</svg></figure>\n", out);
}
