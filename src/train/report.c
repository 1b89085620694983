#define _GNU_SOURCE
#include "train/report.h"

#include <errno.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "io/atomic_file.h"
#include "train/report_chart.h"
#include "train/report_data.h"
#include "train/report_html.h"

enum { CLASSES_MOST = 1000, CLASSES_WITH_NUMBERS = 24, NUMBER = 48 };

static const char style[] =
    ":root{color-scheme:light dark;--page:#f6f6f3;--card:#fff;--ink:#14140f;--ink2:#52514c;--muted:#7d7b74;"
    "--line:#e6e5df;--axis:#bdbcb3;--s1:#2a78d6;--s2:#e0602a;--minus:#2a78d6;--zero:#d8d7d0;--plus:#e0524a}\n"
    "@media(prefers-color-scheme:dark){:root{--page:#0e0e0d;--card:#191918;--ink:#f4f3ee;--ink2:#c3c2b9;"
    "--muted:#93918a;--line:#2b2b29;--axis:#4a4945;--s1:#4a94ec;--s2:#ee7a45;--minus:#3f86dd;--zero:#4b4a46;"
    "--plus:#e2635b}}\n"
    "*{box-sizing:border-box}\n"
    "body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,"
    "'DejaVu Sans',sans-serif;-webkit-text-size-adjust:100%}\n"
    "main{max-width:1120px;margin:0 auto;padding:32px 20px 48px}\n"
    "h1{font-size:28px;line-height:1.2;margin:0;overflow-wrap:anywhere}\n"
    "h2{font-size:19px;margin:40px 0 4px}\n"
    "p{margin:4px 0;color:var(--ink2)}small{color:var(--muted);font-size:13px;font-weight:400}\n"
    ".w{border-left:3px solid var(--s2);padding-left:10px;margin:12px 0}\n"
    ".tiles,.charts,.layers{display:grid;gap:14px;margin-top:16px}\n"
    ".tiles{grid-template-columns:repeat(auto-fit,minmax(160px,1fr))}\n"
    ".charts{grid-template-columns:repeat(auto-fit,minmax(min(420px,100%),1fr))}\n"
    ".layers{grid-template-columns:repeat(auto-fill,minmax(min(232px,100%),1fr))}\n"
    "figure,.t,.card{margin:0;background:var(--card);border:1px solid var(--line);border-radius:10px;"
    "padding:14px 16px;min-width:0}\n"
    ".t b{display:block;font-size:27px;line-height:1.25;font-weight:600;letter-spacing:-.01em}\n"
    ".t span{display:block;color:var(--ink2);font-size:14px}\n"
    "figcaption{font-weight:600;overflow:hidden;text-overflow:ellipsis;white-space:nowrap}\n"
    ".layers figure{padding:12px 12px 8px}.layers "
    "figcaption{font-size:14px;white-space:normal;overflow-wrap:anywhere;"
    "line-height:1.3}figure{display:flex;flex-direction:column}figure>svg{margin-top:auto}\n"
    ".n{font-size:12.5px;margin:0 0 2px;font-variant-numeric:tabular-nums}\n"
    ".c{display:flex;flex-wrap:wrap;justify-content:space-between;align-items:baseline;gap:0 16px}\n"
    ".k{display:flex;flex-wrap:wrap;gap:0 14px;font-size:13px;margin:0}\n"
    ".r{margin-top:8px}.k span{display:inline-flex;align-items:center;gap:6px}\n"
    ".k i{width:14px;height:3px;border-radius:2px;background:var(--c)}.k i.f{opacity:.45}\n"
    ".k i.q{height:12px;width:12px;border-radius:3px}\n"
    ".s1{--c:var(--s1)}.s2{--c:var(--s2)}.minus{--c:var(--minus)}.zero{--c:var(--zero)}.plus{--c:var(--plus)}\n"
    "svg{display:block;width:100%;height:auto;font-size:12.5px;fill:var(--muted);font-variant-numeric:tabular-nums}\n"
    ".layers svg{font-size:11px}\n"
    ".g,.a{stroke:var(--line);fill:none}.a{stroke:var(--axis)}.x{text-anchor:middle}.y{text-anchor:end}\n"
    ".l{fill:none;stroke:var(--c);stroke-width:2;stroke-linejoin:round;stroke-linecap:round}\n"
    ".l.f{stroke-width:1;opacity:.4}.layers .l{stroke-width:1.5}\n"
    ".d,.e{fill:var(--c)}.e{stroke:var(--card);stroke-width:2}.s{fill:var(--c);stroke:var(--card);stroke-width:1}\n"
    ".b rect{fill:transparent}.b path,.b text{opacity:0;pointer-events:none}\n"
    ".b path{stroke:var(--ink2)}.b text{text-anchor:end;fill:var(--ink)}\n"
    ".b:hover path,.b:hover text{opacity:1}\n"
    ".scroll{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}\n"
    ".p{width:100%;table-layout:fixed}.p th{text-align:left;font-weight:400;color:var(--ink2);"
    "padding:6px 20px 6px 0;vertical-align:top;width:240px;overflow-wrap:anywhere}\n"
    ".p td{padding:6px 0;overflow-wrap:anywhere}.p tr+tr>*{border-top:1px solid var(--line)}\n"
    ".m{font-size:13px;border-spacing:2px;border-collapse:separate}.m td{text-align:center;min-width:38px;"
    "padding:6px 5px;border-radius:4px}\n"
    ".m th{font-weight:400;color:var(--ink2);text-align:right;padding:2px 8px;white-space:nowrap}\n"
    ".m thead th{vertical-align:bottom;padding:4px 0}.m thead span{writing-mode:vertical-rl;"
    "transform:rotate(180deg)}\n"
    ".m .e{color:var(--muted);opacity:.55}.m .h{color:#fff}.m.tight td{min-width:8px;padding:4px}\n"
    "pre{margin:0;white-space:pre-wrap;overflow-wrap:anywhere;font:13.5px/1.55 ui-monospace,'DejaVu Sans Mono',"
    "Menlo,Consolas,monospace}\n"
    "summary{cursor:pointer;color:var(--ink2)}details[open] summary{margin-bottom:8px}\n"
    "footer{margin-top:40px;color:var(--muted);font-size:13px}\n"
    "@media(max-width:640px){main{padding:20px 12px 32px}h1{font-size:23px}.charts svg{font-size:15.5px}"
    "figure,.t,.card{padding:12px}.t b{font-size:22px}.tiles{grid-template-columns:1fr 1fr;gap:8px}"
    ".p th{width:38%;padding-right:12px}}\n"
    "@media print{figure,.t,.card{break-inside:avoid}}\n";

/* ---- head ------------------------------------------------------------------------------------------------------ */

static void tile(FILE *out, const char *name, const char *value, const char *note) {
    fprintf(out, "<div class=\"t\"><span>%s</span><b>%s</b><small>%s</small></div>\n", name, value, note);
}

static double last(const tern_report_series *s) { return s->y[s->count - 1]; }

static size_t best(const tern_report_series *s, int greatest) {
    size_t at = 0;
    for (size_t i = 1; i < s->count; i++)
        if (greatest ? s->y[i] > s->y[at] : s->y[i] < s->y[at]) at = i;
    return at;
}

static int compare_doubles(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* NaN where there is no memory for a copy: a tile is not worth a failure. */
static double median(const tern_report_series *s) {
    double *copy = malloc(s->count * sizeof *copy);
    if (!copy) return (double)NAN;
    memcpy(copy, s->y, s->count * sizeof *copy);
    qsort(copy, s->count, sizeof *copy, compare_doubles);
    const double value = copy[s->count / 2];
    free(copy);
    return value;
}

static void accuracy_tile(FILE *out, const tern_report_series *s) {
    char value[NUMBER], note[3 * NUMBER], step[NUMBER];
    const size_t at = best(s, 1);
    snprintf(value, sizeof value, "%.2f%%", 100 * s->y[at]);
    snprintf(note, sizeof note, "step %s; end %.2f%%", tern_html_number(step, sizeof step, s->x[at]), 100 * last(s));
    tile(out, "Best accuracy", value, note);
}

static void loss_tile(FILE *out, const tern_report_series *s) {
    char value[NUMBER], note[3 * NUMBER], step[NUMBER], end[NUMBER];
    const size_t at = best(s, 0);
    snprintf(note, sizeof note, "step %s; end %s", tern_html_number(step, sizeof step, s->x[at]),
             tern_html_number(end, sizeof end, last(s)));
    tile(out, "Best validation loss", tern_html_number(value, sizeof value, s->y[at]), note);
}

static void layers_tile(FILE *out, const tern_report_data *d) {
    char value[NUMBER], note[NUMBER];
    double zero = 0;
    size_t counted = 0;
    for (size_t i = 0; i < d->layer_count; i++) {
        if (!d->layers[i].zero.count) continue;
        zero += last(&d->layers[i].zero);
        counted++;
    }
    if (!counted) return;
    snprintf(value, sizeof value, "%.1f%%", 100 * zero / (double)counted);
    snprintf(note, sizeof note, "mean of %zu layer%s", counted, counted == 1 ? "" : "s");
    tile(out, "Zero weights", value, note);
}

static void tiles(FILE *out, const tern_report_data *d) {
    char value[NUMBER];
    fputs("<div class=\"tiles\">\n", out);
    if (d->accuracy.count) accuracy_tile(out, &d->accuracy);
    if (d->val_loss.count) loss_tile(out, &d->val_loss);
    if (d->loss.count)
        tile(out, "Training loss", tern_html_number(value, sizeof value, last(&d->loss)), "at the end");
    if (d->rate.count)
        tile(out, "Images per second", tern_html_number(value, sizeof value, median(&d->rate)), "median");
    layers_tile(out, d);
    fputs("</div>\n", out);
}

static void head(FILE *out, const tern_report_input *input, const tern_report_data *d) {
    char steps[NUMBER], epochs[NUMBER];
    fputs("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
          "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
          "<meta name=\"generator\" content=\"Tern " TERN_VERSION "\">\n<title>",
          out);
    tern_html_text(out, input->title);
    fprintf(out, "</title>\n<style>\n%s</style>\n</head>\n<body>\n<main>\n<h1>", style);
    tern_html_text(out, input->title);
    fputs("</h1>\n", out);
    if (d->loss.count) {
        fprintf(out, "<p>%s steps", tern_html_number(steps, sizeof steps, d->loss.x[d->loss.count - 1]));
        if (d->epoch.count) fprintf(out, ", epoch %s", tern_html_number(epochs, sizeof epochs, last(&d->epoch)));
        fputs("</p>\n", out);
    }
    if (!d->lines) fputs("<p class=\"w\">Nothing was measured yet: the metrics have no lines.</p>\n", out);
    if (d->damaged)
        fprintf(out, "<p class=\"w\">%zu line%s of the metrics could not be read and %s left out.</p>\n", d->damaged,
                d->damaged == 1 ? "" : "s", d->damaged == 1 ? "was" : "were");
    if (d->cut)
        fputs("<p class=\"w\">The last line of the metrics is cut short: the run was stopped while writing.</p>\n",
              out);
}

/* ---- sections -------------------------------------------------------------------------------------------------- */

static void pairs(FILE *out, const tern_report_pair *pair, size_t count) {
    fputs("<table class=\"p\">\n", out);
    for (size_t i = 0; i < count; i++) {
        fputs("<tr><th>", out);
        tern_html_text(out, pair[i].key);
        fputs("</th><td>", out);
        tern_html_text(out, pair[i].value);
        fputs("</td></tr>\n", out);
    }
    fputs("</table>\n", out);
}

static void results(FILE *out, const tern_report_input *input) {
    if (!input->result_count) return;
    fputs("<h2>Results</h2>\n<div class=\"card\">\n", out);
    pairs(out, input->results, input->result_count);
    fputs("</div>\n", out);
}

static void config(FILE *out, const tern_report_input *input) {
    if (!input->config_count) return;
    fputs("<h2>Configuration</h2>\n<div class=\"card\">\n", out);
    pairs(out, input->config, input->config_count);
    fputs("</div>\n", out);
}

static void charts(FILE *out, const tern_report_data *d) {
    const tern_report_series *epoch = d->epoch.count ? &d->epoch : NULL;
    const tern_chart all[] = {
        {.title = "Loss",
         .unit = "mean",
         .epoch = epoch,
         .series = {{&d->loss, "train", "s1", d->smooth_loss.count > 0},
                    {&d->smooth_loss, "smoothed", "s1", 0},
                    {&d->val_loss, "val", "s2", 0}}},
        {.title = "Validation accuracy",
         .unit = "share of samples",
         .epoch = epoch,
         .percent = 1,
         .series = {{&d->accuracy, "accuracy", "s2", 0}}},
        {.title = "Learning rate",
         .unit = "per step",
         .epoch = epoch,
         .from_zero = 1,
         .series = {{&d->lr, "learning rate", "s1", 0}}},
        {.title = "Gradient norm",
         .unit = "L2",
         .epoch = epoch,
         .series = {{&d->grad_norm, "norm", "s1", d->smooth_grad_norm.count > 0},
                    {&d->smooth_grad_norm, "smoothed", "s1", 0}}},
        {.title = "Flips",
         .unit = "share of weights per step, mean of layers",
         .epoch = epoch,
         .percent = 1,
         .series = {{&d->flips, "flips/step", "s1", 0}}},
        {.title = "Speed",
         .unit = "images per second",
         .epoch = epoch,
         .from_zero = 1,
         .series = {{&d->rate, "images/s", "s1", d->smooth_rate.count > 0}, {&d->smooth_rate, "smoothed", "s1", 0}}},
    };
    fputs("<h2>Curves</h2>\n<div class=\"charts\">\n", out);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) tern_report_chart(out, &all[i]);
    fputs("</div>\n", out);
}

static void layers(FILE *out, const tern_report_data *d) {
    if (!d->layer_count) return;
    const tern_layer_axes axes = tern_report_layer_axes(d);
    fputs("<h2>Ternary layers</h2>\n<p>Above, how the weights of a layer are shared between \xe2\x88\x92"
          "1, 0 and +1, "
          "over the steps; below, the share of them that changes in one step, on one logarithmic axis for all "
          "layers.</p>\n<p class=\"k r\"><span><i class=\"q minus\"></i>\xe2\x88\x92"
          "1</span><span><i class=\"q zero\">"
          "</i>0</span><span><i class=\"q plus\"></i>+1</span><span><i class=\"s1\"></i>flips per step</span></p>\n"
          "<div class=\"layers\">\n",
          out);
    for (size_t i = 0; i < d->layer_count; i++) tern_report_layer_card(out, &d->layers[i], &axes);
    fputs("</div>\n", out);
}

static void sample(FILE *out, const char *text) {
    if (!text) return;
    fputs("<h2>Sample</h2>\n<div class=\"card\"><pre>", out);
    tern_html_text(out, text);
    fputs("</pre></div>\n", out);
}

/* ---- confusion matrix ------------------------------------------------------------------------------------------ */

static void class_name(FILE *out, const tern_report_confusion *c, size_t i) {
    if (c->names)
        tern_html_text(out, c->names[i]);
    else
        fprintf(out, "%zu", i);
}

/* Right answers are blue, wrong ones red; the square root lets a few wrong ones be seen. */
static void confusion_cell(FILE *out, const tern_report_confusion *c, size_t truth, size_t predicted, double total) {
    const double count = (double)c->counts[truth * c->classes + predicted], share = total > 0 ? count / total : 0;
    const double strength = truth == predicted ? share : sqrt(share);
    char number[NUMBER];
    tern_html_number(number, sizeof number, count);
    if (count > 0)
        fprintf(out, "<td%s style=\"background:rgba(%s,%.2f)\" title=\"", strength > 0.6 ? " class=\"h\"" : "",
                truth == predicted ? "42,120,214" : "224,82,74", strength);
    else
        fputs("<td class=\"e\" title=\"", out);
    class_name(out, c, truth);
    fputs(" taken for ", out);
    class_name(out, c, predicted);
    fprintf(out, ": %s (%.1f%%)\">%s</td>", number, 100 * share, c->classes <= CLASSES_WITH_NUMBERS ? number : "");
}

static void confusion(FILE *out, const tern_report_confusion *c) {
    if (!c->classes) return;
    fprintf(out,
            "<h2>Confusion</h2>\n<p>Rows are the true classes, columns what the model said; recall is the share of a "
            "row that is right.</p>\n<div class=\"card scroll\"><table class=\"m%s\">\n<thead><tr><th></th>",
            c->classes > CLASSES_WITH_NUMBERS ? " tight" : "");
    for (size_t i = 0; i < c->classes; i++) {
        fputs("<th scope=\"col\"><span>", out);
        class_name(out, c, i);
        fputs("</span></th>", out);
    }
    fputs("<th><span>recall</span></th></tr></thead>\n<tbody>\n", out);
    for (size_t i = 0; i < c->classes; i++) {
        double total = 0;
        for (size_t k = 0; k < c->classes; k++) total += (double)c->counts[i * c->classes + k];
        fputs("<tr><th scope=\"row\">", out);
        class_name(out, c, i);
        fputs("</th>", out);
        for (size_t k = 0; k < c->classes; k++) confusion_cell(out, c, i, k, total);
        if (total > 0)
            fprintf(out, "<td>%.1f%%</td></tr>\n", 100 * (double)c->counts[i * c->classes + i] / total);
        else
            fputs("<td class=\"e\">\xe2\x80\x93</td></tr>\n", out);
    }
    fputs("</tbody></table></div>\n", out);
}

/* ---- the page -------------------------------------------------------------------------------------------------- */

static void page(FILE *out, const tern_report_input *input, const tern_report_data *data) {
    head(out, input, data);
    if (data->lines) tiles(out, data);
    results(out, input);
    if (data->lines) charts(out, data);
    layers(out, data);
    confusion(out, &input->confusion);
    sample(out, input->sample);
    config(out, input);
    fputs("<footer>Made by Tern " TERN_VERSION ". Point at a curve, or touch it, to read its values.</footer>\n"
          "</main>\n</body>\n</html>\n",
          out);
}

/* Numbers take a point whatever locale the program has chosen. */
static tern_status render(char **text, size_t *size, const tern_report_input *input, const tern_report_data *data,
                          tern_error *err) {
    const locale_t plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    FILE *out = plain ? open_memstream(text, size) : NULL;
    int failed = !out;
    if (out) {
        const locale_t before = uselocale(plain);
        page(out, input, data);
        uselocale(before);
        failed = ferror(out);
        failed |= fclose(out);
    }
    if (plain) freelocale(plain);
    return failed ? tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for the page of a report") : TERN_OK;
}

tern_status tern_report_write(const char *path, const tern_report_input *input, tern_error *err) {
    TERN_CHECK_ARGUMENT(path && input, err, "path or input is NULL");
    TERN_CHECK_ARGUMENT(input->config || !input->config_count, err, "config is NULL");
    TERN_CHECK_ARGUMENT(input->results || !input->result_count, err, "results is NULL");
    TERN_CHECK_ARGUMENT(input->confusion.counts || !input->confusion.classes, err, "confusion.counts is NULL");
    TERN_CHECK_ARGUMENT(input->confusion.classes <= CLASSES_MOST, err, "confusion of %zu classes, at most %d",
                        input->confusion.classes, CLASSES_MOST);
    tern_report_data data;
    char *text = NULL;
    size_t size = 0;
    tern_status status = tern_report_data_read(&data, input->metrics_path, err);
    if (!status) status = render(&text, &size, input, &data, err);
    if (!status) status = tern_atomic_file_replace(path, text, size, err);
    free(text);
    tern_report_data_free(&data);
    return status;
}
