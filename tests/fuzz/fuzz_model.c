/* Any bytes as a model's file: refused with a message, or its graph says the same again as JSON, and a plan of it
 * runs where it is small: forward, and in training backward with a step of whole-number weights. Run a second time as
 * the graph alone, whose text the mutations then need not keep inside a header. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "model/graph_json.h"
#include "model/model_file.h"
#include "nn/plan.h"
#include "quant/trit_rules.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SMALL = 1 << 12 };

static void check_json(const tern_graph *graph) {
    json_t *json = tern_graph_to_json(graph), *second = NULL;
    tern_graph *again = NULL;
    if (!json || tern_graph_from_json(&again, json, NULL)) abort();
    second = tern_graph_to_json(again);
    if (!json_equal(json, second)) abort();
    json_decref(json);
    json_decref(second);
    tern_graph_free(&again);
}

/* A graph whose values and windows are so small that running it takes no time. */
static int is_small(const tern_graph *graph) {
    size_t all = 0;
    for (size_t i = 0; i < graph->nodes && all <= SMALL; i++) {
        const tern_attrs *at = &graph->node[i].at;
        if (at->kernel > 16 || at->stride > SMALL || graph->node[i].elements > SMALL) return 0;
        all += graph->node[i].elements;
    }
    for (size_t p = 0; p < graph->params && all <= SMALL; p++) all += graph->param[p].count;
    return all <= SMALL;
}

static void step(tern_plan *plan) {
    const tern_graph *graph = plan->graph;
    float *dy = tern_plan_output_grad(plan);
    for (size_t i = 0; i < 2 * graph->node[graph->nodes - 1].elements; i++) dy[i] = (float)(i % 3) - 1;
    for (size_t i = 1; i < graph->nodes; i++) plan->rules.rate[i] = TERN_RATE_MAX;
    tern_plan_backward(plan);
}

static void run(tern_graph *graph, int training) {
    tern_plan *plan = NULL;
    tern_error err = {0};
    tern_plan_desc desc = {.batch_max = 2, .threads = 1, .training = training};
    if (tern_plan_create(&plan, graph, &desc, &err)) {
        if (plan || !err.message[0]) abort();
        return;
    }
    float *x = calloc(2 * graph->node[0].elements, sizeof *x);
    if (!x) abort();
    for (size_t i = 0; !graph->vocabulary && i < 2 * graph->node[0].elements; i++) x[i] = (float)(i % 5) - 2;
    plan->train_mode = training;
    plan->step = 999; /* the one in a thousand that moves exponents */
    for (int again = 0; again < 2 && !tern_plan_refresh(plan, &err); again++) {
        if (!tern_plan_forward(plan, x, 2)) abort();
        if (training && tern_plan_output_grad(plan)) step(plan);
    }
    free(x);
    tern_plan_free(&plan);
}

static void as_file(const uint8_t *bytes, size_t size) {
    tern_safetensors *file = NULL;
    tern_model_file model;
    tern_error err = {0};
    if (tern_safetensors_open_memory(&file, bytes, size, "fuzz", TERN_ST_CHECKSUM_IF_PRESENT, NULL)) return;
    if (tern_model_file_take(&model, &file, "fuzz", &err)) {
        if (model.graph || model.file || !err.status || !err.message[0]) abort();
        return;
    }
    check_json(model.graph);
    for (int training = 0; training < 2 && is_small(model.graph); training++) run(model.graph, training);
    tern_model_file_close(&model);
}

static void as_graph(const char *text, size_t size) {
    json_t *json = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL);
    tern_graph *graph = NULL;
    tern_error err = {0};
    if (!json) return;
    if (tern_graph_from_json(&graph, json, &err)) {
        if (graph || !err.message[0]) abort();
    } else {
        check_json(graph);
        if (is_small(graph) && !tern_graph_place(graph, NULL)) run(graph, 1);
    }
    json_decref(json);
    tern_graph_free(&graph);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t *copy = malloc(size + 1); /* its own block, so that an over-read is seen */
    if (!copy) abort();
    if (size) memcpy(copy, data, size);
    as_file(copy, size);
    as_graph((const char *)copy, size);
    free(copy);
    return 0;
}
