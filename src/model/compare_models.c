/* Trained is deployed: the same samples through both graphs, integer by integer. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "model/open_model.h"
#include "nn/op.h"

/* What deploys: a plan on the CPU, which also knows the layers of one on a GPU, or that one. */
typedef struct parity {
    tern_plan *trained, *deployed;
    tern_gpu_session *gpu; /* NULL: the CPU runs it */
    size_t *partner;       /* of node i of the trained graph in the deployed one; 0: none */
    int32_t *a, *b;        /* sums of one layer */
    int8_t *q;             /* activations of one layer on the GPU */
    tern_parity_result *out;
} parity;

static size_t find_partner(const parity *p, size_t i) {
    const tern_graph *g = p->deployed->graph;
    for (size_t j = 1; j < g->nodes; j++)
        if (!strcmp(g->node[j].name, p->trained->graph->node[i].name) && tern_plan_has_sums(p->deployed, j)) return j;
    return 0;
}

static tern_status find_partners(parity *p, tern_error *err) {
    const tern_graph *g = p->trained->graph;
    size_t largest = 1, most_activations = 1;
    for (size_t i = 1; i < g->nodes; i++) {
        if (!tern_plan_has_sums(p->trained, i)) continue;
        p->partner[i] = find_partner(p, i);
        if (!p->partner[i] || p->deployed->graph->node[p->partner[i]].elements != g->node[i].elements)
            return tern_fail(err, TERN_E_ARGUMENT, TERN_NO_PLACE, "the deployed model has no layer %s of this shape",
                             g->node[i].name);
        p->out->layers++;
        largest = tern_max_size(largest, g->node[i].elements * p->trained->batch_max);
        most_activations =
            tern_max_size(most_activations, tern_node_input(g, &g->node[i], 0)->elements * p->trained->batch_max);
    }
    p->a = malloc(largest * sizeof *p->a);
    p->b = malloc(largest * sizeof *p->b);
    p->q = malloc(most_activations);
    return p->a && p->b && p->q ? TERN_OK : tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory to compare sums");
}

static tern_status run_deployed(parity *p, const float **y, const void *x, size_t n, tern_error *err) {
    const tern_runner runner = p->gpu ? tern_gpu_session_runner(p->gpu) : tern_plan_runner(p->deployed);
    return runner.run(runner.context, y, x, n, err);
}

static tern_status deployed_sums(parity *p, size_t node, tern_error *err) {
    return p->gpu ? p->gpu->table->read_sums(p->gpu->plan, p->b, p->q, node, err)
                  : tern_plan_sums(p->b, p->deployed, node, err);
}

/* The GPU's sums are those of plain C and the trained weights for the activations that it had. */
static tern_status compare_same(parity *p, size_t i, size_t n, tern_error *err) {
    if (!p->gpu) return TERN_OK;
    tern_plan_set_activations(p->trained, i, p->q);
    TERN_TRY(tern_plan_sums(p->a, p->trained, i, err));
    for (size_t j = 0; j < n; j++) p->out->int_wrong += p->a[j] != p->b[j];
    return TERN_OK;
}

static tern_status compare_sums(parity *p, tern_error *err) {
    for (size_t i = 1; i < p->trained->graph->nodes; i++) {
        if (!p->partner[i]) continue;
        size_t n = tern_plan_sums_count(p->trained, i);
        TERN_TRY(tern_plan_sums(p->a, p->trained, i, err));
        TERN_TRY(deployed_sums(p, p->partner[i], err));
        for (size_t j = 0; j < n; j++) {
            if (p->a[j] == p->b[j]) continue;
            p->out->int_mismatches++;
            p->out->int_far += llabs((long long)p->a[j] - p->b[j]) > 1;
            if (!p->out->first_layer) p->out->first_layer = p->trained->graph->node[i].name;
        }
        p->out->integers += n;
        TERN_TRY(compare_same(p, i, n, err));
    }
    return TERN_OK;
}

static size_t argmax(const float *x, size_t n) {
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

static void compare_logits(parity *p, const float *a, const float *b, size_t rows, size_t classes) {
    for (size_t r = 0; r < rows; r++) {
        const float *x = a + r * classes, *y = b + r * classes;
        for (size_t c = 0; c < classes; c++) {
            double d = fabs((double)x[c] - (double)y[c]);
            if (!(d <= p->out->max_abs_diff)) p->out->max_abs_diff = d; /* a NaN shows too */
        }
        p->out->answers++;
        p->out->argmax_mismatches += argmax(x, classes) != argmax(y, classes);
    }
}

static tern_status compare_all(parity *p, tern_loader *loader, size_t max_samples, tern_error *err) {
    const tern_node *last = &p->trained->graph->node[p->trained->graph->nodes - 1];
    while (!max_samples || p->out->samples < max_samples) {
        tern_batch batch;
        TERN_TRY(tern_loader_next(loader, &batch, err));
        if (!batch.n) break;
        size_t n = max_samples ? tern_min_size(batch.n, max_samples - p->out->samples) : batch.n;
        const void *x = batch.x ? (const void *)batch.x : batch.tokens;
        const float *a = tern_plan_forward(p->trained, x, n), *b;
        TERN_TRY(tern_dnn_check(p->trained->dnn, err));
        TERN_TRY(run_deployed(p, &b, x, n, err));
        compare_logits(p, a, b, n * last->rows, last->channels);
        TERN_TRY(compare_sums(p, err));
        p->out->samples += n;
    }
    return TERN_OK;
}

static tern_status run_parity(parity *p, const tern_model *trained, const tern_dataset *dataset, size_t max_samples,
                              tern_error *err) {
    TERN_TRY(find_partners(p, err));
    const tern_graph *graph = trained->file.graph;
    tern_loader_desc d = {.dataset = dataset, .batch = trained->batch, .evaluate = 1};
    if (graph->vocabulary) d.window = graph->node[0].elements;
    memcpy(d.augment.mean, trained->file.input.mean, sizeof d.augment.mean);
    memcpy(d.augment.std, trained->file.input.std, sizeof d.augment.std);
    tern_loader *loader;
    TERN_TRY(tern_loader_open(&loader, &d, err));
    tern_status status = compare_all(p, loader, max_samples, err);
    tern_loader_close(&loader);
    return status;
}

/* A GPU sums floats in another order, so that it may quantize one to the next integer: what is exact there is every
 * product of the integers that it has. */
static int is_parity(const tern_parity_result *r) {
    if (!r->samples) return 0;
    if (!r->on_gpu) return !r->int_mismatches && !r->argmax_mismatches;
    return !r->int_wrong && r->argmax_mismatches <= r->answers / 1000;
}

tern_status tern_model_parity(tern_parity_result *out, tern_model *trained, tern_model *deployed,
                              const tern_dataset *dataset, size_t max_samples, tern_error *err) {
    TERN_CHECK_ARGUMENT(out && trained && deployed && dataset, err, "an argument is NULL");
    const tern_graph *a = trained->file.graph, *b = deployed->file.graph;
    TERN_CHECK_ARGUMENT(!trained->file.packed, err, "the first model is deployed already; it takes a checkpoint");
    TERN_CHECK_ARGUMENT(a->node[0].elements == b->node[0].elements && a->vocabulary == b->vocabulary &&
                            a->node[a->nodes - 1].elements == b->node[b->nodes - 1].elements,
                        err, "the two models have different inputs or outputs");
    TERN_CHECK_ARGUMENT(trained->batch <= deployed->batch, err, "the deployed model was opened for smaller batches");
    *out = (tern_parity_result){.on_gpu = deployed->gpu != NULL};
    parity p = {.deployed = deployed->plan, .gpu = deployed->gpu, .out = out};
    if (p.gpu) TERN_TRY(p.gpu->table->keep_sums(p.gpu->plan, err));
    p.partner = calloc(a->nodes, sizeof *p.partner);
    if (!p.partner) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory to compare models");
    tern_status status =
        tern_model_plan(&p.trained, trained, trained->batch, trained->plan->threads, TERN_TIER_SCALAR, err);
    if (!status) status = run_parity(&p, trained, dataset, max_samples, err);
    tern_plan_free(&p.trained);
    free(p.partner);
    free(p.a);
    free(p.b);
    free(p.q);
    out->ok = !status && is_parity(out);
    return status;
}
