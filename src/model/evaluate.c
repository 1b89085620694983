#include "model/evaluate.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "nn/loss.h"
#include "nn/parts.h"

/* to = from [h][w][c], mirrored left to right or not, moved by (dy, dx) with its edge repeated in a mirror. */
static void make_view(float *to, const float *from, const tern_shape *s, int mirror, int dy, int dx) {
    size_t h = s->dim[0], w = s->dim[1], c = s->dim[2];
    for (size_t y = 0; y < h; y++)
        for (size_t x = 0; x < w; x++) {
            size_t sy = h < 2 ? y : dy < 0 ? (y == 0 ? 1 : y - 1) : dy > 0 ? (y + 1 == h ? h - 2 : y + 1) : y;
            size_t sx = w < 2 ? x : dx < 0 ? (x == 0 ? 1 : x - 1) : dx > 0 ? (x + 1 == w ? w - 2 : x + 1) : x;
            memcpy(to + (y * w + x) * c, from + (sy * w + (mirror ? w - 1 - sx : sx)) * c, c * sizeof *to);
        }
}

static tern_status run_plan(void *context, const float **y, const void *x, size_t n, tern_error *err) {
    tern_plan *plan = context;
    plan->train_mode = 0;
    plan->recalibrating = 0;
    *y = tern_plan_forward(plan, x, n);
    return tern_dnn_check(plan->dnn, err);
}

tern_runner tern_plan_runner(tern_plan *plan) {
    return (tern_runner){plan->graph, plan->batch_max, plan->threads, run_plan, plan};
}

tern_status tern_view_logits(const tern_runner *runner, float *logits, const float *x, size_t n, tern_views views,
                             float *room, tern_error *err) {
    static const struct {
        int mirror, shift;
        float weight;
    } view[6] = {{0, 0, 0.25f}, {1, 0, 0.25f}, {0, -1, 0.125f}, {1, -1, 0.125f}, {0, 1, 0.125f}, {1, 1, 0.125f}};
    const tern_node *in = &runner->graph->node[0], *out = &runner->graph->node[runner->graph->nodes - 1];
    size_t count = n * out->elements;
    const float *y;
    if (views == TERN_VIEWS_ONE) {
        TERN_TRY(runner->run(runner->context, &y, x, n, err));
        memcpy(logits, y, count * sizeof *logits);
        return TERN_OK;
    }
    memset(logits, 0, count * sizeof *logits);
    for (int v = 0; v < (views == TERN_VIEWS_SIX ? 6 : 2); v++) {
        TERN_FOR_PARTS(runner->threads, n, 1, image, end) {
            make_view(room + image * in->elements, x + image * in->elements, &in->shape, view[v].mirror,
                      view[v].shift, view[v].shift);
            (void)end;
        }
        TERN_TRY(runner->run(runner->context, &y, room, n, err));
        float weight = views == TERN_VIEWS_SIX ? view[v].weight : 0.5f;
        for (size_t i = 0; i < count; i++) logits[i] += weight * y[i];
    }
    return TERN_OK;
}

static void count_confusion(uint64_t *confusion, const float *logits, const int32_t *label, size_t n,
                            size_t classes) {
    for (size_t i = 0; i < n; i++) {
        const float *x = logits + i * classes;
        size_t best = 0;
        for (size_t j = 1; j < classes; j++)
            if (x[j] > x[best]) best = j;
        confusion[(size_t)label[i] * classes + best]++;
    }
}

static tern_status evaluate_all(tern_evaluation *out, const tern_runner *runner, const tern_evaluation_desc *desc,
                                tern_loader *loader, float *logits, float *room, tern_error *err) {
    const tern_node *last = &runner->graph->node[runner->graph->nodes - 1];
    size_t done = 0;
    double loss = 0;
    size_t correct = 0, rows = 0;
    for (;;) {
        tern_batch batch;
        TERN_TRY(tern_loader_next(loader, &batch, err));
        if (!batch.n || (desc->max_samples && done >= desc->max_samples)) break;
        const float *y;
        if (batch.tokens) {
            TERN_TRY(runner->run(runner->context, &y, batch.tokens, batch.n, err));
        } else {
            TERN_TRY(tern_view_logits(runner, logits, batch.x, batch.n, desc->views, room, err));
            y = logits;
        }
        size_t n = batch.n * last->rows;
        tern_loss l = tern_cross_entropy(runner->threads, NULL, y, batch.labels, n, last->channels, 0, 1);
        if (desc->confusion) count_confusion(desc->confusion, y, batch.labels, n, last->channels);
        loss += l.sum;
        correct += l.correct;
        rows += n;
        done += batch.n;
    }
    *out = (tern_evaluation){.loss = loss / (double)tern_max_size(1, rows),
                             .accuracy = (double)correct / (double)tern_max_size(1, rows),
                             .samples = rows};
    return TERN_OK;
}

tern_status tern_evaluate(tern_evaluation *out, const tern_runner *runner, const tern_evaluation_desc *desc,
                          tern_error *err) {
    const tern_node *in = &runner->graph->node[0], *last = &runner->graph->node[runner->graph->nodes - 1];
    tern_loader_desc d = {.dataset = desc->dataset, .batch = runner->batch_max, .evaluate = 1};
    if (runner->graph->vocabulary)
        d.window = in->elements;
    else
        for (int c = 0; c < 4; c++) d.augment.mean[c] = desc->input->mean[c], d.augment.std[c] = desc->input->std[c];
    tern_loader *loader;
    TERN_TRY(tern_loader_open(&loader, &d, err));
    size_t logits = runner->batch_max * last->elements, image = runner->batch_max * in->elements;
    float *memory = malloc((logits + image) * sizeof *memory);
    tern_status status = memory ? evaluate_all(out, runner, desc, loader, memory, memory + logits, err)
                                : tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory to evaluate");
    free(memory);
    tern_loader_close(&loader);
    return status;
}
