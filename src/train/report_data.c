#define _GNU_SOURCE
#include "train/report_data.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "io/read_file.h"

enum { SMOOTH_FROM = 120, SMOOTH_PARTS = 40 };

/* Larger values, and ratios of smaller ones, would overflow on their way to a coordinate; no measurement is such. */
static const double drawable = 1e100, smallest = 1e-100;
static const double step_most = 0x1p53;

static int add(tern_report_series *s, double x, double y) {
    if (s->count == s->room) {
        const size_t room = s->room ? 2 * s->room : 64;
        double *xs = reallocarray(s->x, room, sizeof *xs);
        if (xs) s->x = xs;
        double *ys = xs ? reallocarray(s->y, room, sizeof *ys) : NULL;
        if (!ys) return 0;
        s->y = ys;
        s->room = room;
    }
    s->x[s->count] = x;
    s->y[s->count++] = y;
    return 1;
}

/* A number that can be drawn. */
static int number_of(double *out, const json_t *line, const char *key) {
    const json_t *value = json_object_get(line, key);
    if (!json_is_number(value)) return 0;
    *out = json_number_value(value);
    if (fabs(*out) < smallest) *out = 0;
    return fabs(*out) <= drawable;
}

static int add_value(tern_report_series *s, double step, const json_t *line, const char *key) {
    double y;
    return !number_of(&y, line, key) || add(s, step, y);
}

/* ---- layers ---------------------------------------------------------------------------------------------------- */

static tern_report_layer *find_layer(tern_report_data *d, const char *name, size_t *hint) {
    /* Lines name the layers in turn, so the next one is nearly always right. */
    for (size_t i = 0; i < d->layer_count; i++) {
        const size_t at = (*hint + i) % d->layer_count;
        if (strcmp(d->layers[at].name, name)) continue;
        *hint = at + 1;
        return &d->layers[at];
    }
    if (d->layer_count == d->layer_room) {
        const size_t room = d->layer_room ? 2 * d->layer_room : 16;
        tern_report_layer *layers = reallocarray(d->layers, room, sizeof *layers);
        if (!layers) return NULL;
        d->layers = layers;
        d->layer_room = room;
    }
    tern_report_layer layer = {.name = strdup(name)};
    if (!layer.name) return NULL;
    d->layers[d->layer_count] = layer;
    return &d->layers[d->layer_count++];
}

static int add_layer(tern_report_data *d, double step, const json_t *line, size_t *hint) {
    double minus, zero, plus, flips;
    tern_report_layer *layer = find_layer(d, json_string_value(json_object_get(line, "layer")), hint);
    if (!layer) return 0;
    int done = 1;
    if (number_of(&minus, line, "minus") && number_of(&zero, line, "zero") && number_of(&plus, line, "plus"))
        done = add(&layer->minus, step, minus) && add(&layer->zero, step, zero) && add(&layer->plus, step, plus);
    /* The first line counts from the beginning of the run. */
    if (done && number_of(&flips, line, "flips") && flips >= 0 && step > layer->flips_since)
        done = add(&layer->flips, step, flips / (step - layer->flips_since));
    layer->flips_since = step;
    return done;
}

/* ---- lines ----------------------------------------------------------------------------------------------------- */

static int add_line(tern_report_data *d, const json_t *line, size_t *hint) {
    double step = -1;
    if (!number_of(&step, line, "step") || step < 0 || step > step_most) {
        d->damaged++;
        return 1;
    }
    d->lines++;
    if (json_is_string(json_object_get(line, "layer"))) return add_layer(d, step, line, hint);
    return add_value(&d->loss, step, line, "loss") && add_value(&d->val_loss, step, line, "val_loss") &&
           add_value(&d->accuracy, step, line, "val_accuracy") && add_value(&d->lr, step, line, "lr") &&
           add_value(&d->grad_norm, step, line, "grad_norm") &&
           add_value(&d->rate, step, line, "images_per_second") && add_value(&d->epoch, step, line, "epoch");
}

static int add_lines(tern_report_data *d, const char *text, size_t size) {
    size_t hint = 0;
    for (size_t i = 0; i < size;) {
        const char *newline = memchr(text + i, '\n', size - i);
        const size_t length = newline ? (size_t)(newline - (text + i)) : size - i;
        json_t *line = json_loadb(text + i, length, 0, NULL);
        int done = 1;
        if (json_is_object(line))
            done = add_line(d, line, &hint);
        else if (newline)
            d->damaged++;
        else
            d->cut = 1;
        json_decref(line);
        if (!done) return 0;
        i += length + 1;
    }
    return 1;
}

/* ---- after reading --------------------------------------------------------------------------------------------- */

/* A run that was resumed without cutting its log goes back in x: the later lines win. In place, since what is kept
 * only moves forward. */
static void make_ascending(tern_report_series *s) {
    size_t kept = 0;
    for (size_t i = 0; i < s->count; i++) {
        while (kept && s->x[kept - 1] >= s->x[i]) kept--;
        s->x[kept] = s->x[i];
        s->y[kept++] = s->y[i];
    }
    s->count = kept;
}

/* Mean of the neighbours on both sides, at the ends of those there are. The sum moves along with its window. */
static int smooth(tern_report_series *out, const tern_report_series *in) {
    if (in->count < SMOOTH_FROM) return 1;
    const size_t half = in->count / SMOOTH_PARTS / 2 + 1;
    size_t begin = 0, end = 0;
    double sum = 0;
    for (size_t i = 0; i < in->count; i++) {
        while (end < in->count && end <= i + half) sum += in->y[end++];
        while (begin + half < i) sum -= in->y[begin++];
        if (!add(out, in->x[i], sum / (double)(end - begin))) return 0;
    }
    return 1;
}

static int mean_flips(tern_report_data *d) {
    size_t *next = calloc(d->layer_count + 1, sizeof *next);
    int done = next != NULL;
    const tern_report_series *first = d->layer_count ? &d->layers[0].flips : NULL;
    for (size_t i = 0; done && first && i < first->count; i++) {
        double sum = 0;
        size_t layers = 0;
        for (size_t l = 0; l < d->layer_count; l++) {
            const tern_report_series *s = &d->layers[l].flips;
            while (next[l] < s->count && s->x[next[l]] < first->x[i]) next[l]++;
            if (next[l] == s->count || s->x[next[l]] > first->x[i]) continue;
            sum += s->y[next[l]];
            layers++;
        }
        done = add(&d->flips, first->x[i], sum / (double)layers);
    }
    free(next);
    return done;
}

static tern_status no_memory(const char *path, tern_error *err) {
    return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for the curves of %.100s", path);
}

tern_status tern_report_data_read(tern_report_data *data, const char *path, tern_error *err) {
    char *text = NULL;
    size_t size = 0;
    memset(data, 0, sizeof *data);
    if (!path || (access(path, F_OK) && errno == ENOENT)) return TERN_OK;
    TERN_TRY(tern_file_read(&text, &size, path, err));
    const int done = add_lines(data, text, size);
    free(text);
    if (!done) return no_memory(path, err);
    tern_report_series *const all[] = {&data->loss,      &data->val_loss, &data->accuracy, &data->lr,
                                       &data->grad_norm, &data->rate,     &data->epoch};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) make_ascending(all[i]);
    for (size_t i = 0; i < data->layer_count; i++) {
        make_ascending(&data->layers[i].minus);
        make_ascending(&data->layers[i].zero);
        make_ascending(&data->layers[i].plus);
        make_ascending(&data->layers[i].flips);
    }
    const int ready = smooth(&data->smooth_loss, &data->loss) && smooth(&data->smooth_grad_norm, &data->grad_norm) &&
                      smooth(&data->smooth_rate, &data->rate) && mean_flips(data);
    return ready ? TERN_OK : no_memory(path, err);
}

static void free_series(tern_report_series *s) {
    free(s->x);
    free(s->y);
}

void tern_report_data_free(tern_report_data *data) {
    tern_report_series *const all[] = {
        &data->loss,  &data->val_loss,    &data->accuracy,         &data->lr,          &data->grad_norm, &data->rate,
        &data->epoch, &data->smooth_loss, &data->smooth_grad_norm, &data->smooth_rate, &data->flips};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free_series(all[i]);
    for (size_t i = 0; i < data->layer_count; i++) {
        tern_report_layer *layer = &data->layers[i];
        free(layer->name);
        free_series(&layer->minus);
        free_series(&layer->zero);
        free_series(&layer->plus);
        free_series(&layer->flips);
    }
    free(data->layers);
    memset(data, 0, sizeof *data);
}
