/* Every operation of a graph on the GPU against the CPU's: values, gradients of inputs and parameters, in fp32 and in
 * bf16, in training and in evaluation, each pass twice to the same bits.
 *
 *   graph_test [NAME]      one line a graph and type; ends with the number of failures */
#include <string.h>

#include "base/random.h"
#include "graph_cases.h"
#include "nn/op.h"
#include "nn/plan.h"
#include "on_gpu.h"

static int failures;

/* Normal-ish numbers, a pure function of the seed. */
static void fill(float *x, size_t n, uint64_t seed) {
    for (size_t i = 0; i < n; i++) {
        tern_random4 r = tern_philox(seed, i, 7);
        double sum = 0;
        for (int j = 0; j < 4; j++) sum += (double)r.v[j] / 4294967296.0 - 0.5;
        x[i] = (float)(sum * 1.7);
    }
}

typedef struct trial {
    const graph_case *c;
    tern_dtype type;
    size_t batch;
    tern_graph *graph;
    tern_plan *cpu;
    tern_gpu_plan *gpu;
    double worst;
    char where[160];
} trial;

static void compare(trial *t, const float *got, const float *want, size_t n, const char *what, const char *name) {
    double d = distance(got, want, n), most = t->type == TERN_F32 ? t->c->tolerance : t->c->tolerance_bf16;
    if (d > t->worst || t->worst < 0) {
        t->worst = d;
        snprintf(t->where, sizeof t->where, "%s of %s", what, name);
    }
    if (d <= most) return;
    size_t worst = 0;
    for (size_t i = 0; i < n; i++)
        if (!(fabsf(got[i] - want[i]) <= fabsf(got[worst] - want[worst]))) worst = i;
    if (failures++ < 60)
        printf("FAILED %s, %s: %s of %s is %.3g off (at most %.3g); worst at %zu: %.9g, should be %.9g\n", t->c->name,
               t->type == TERN_F32 ? "fp32" : "bf16", what, name, d, most, worst, (double)got[worst],
               (double)want[worst]);
}

static void compare_values(trial *t, int training) {
    const tern_graph *g = t->graph;
    for (size_t i = g->nodes - 1; i < g->nodes; i++) {
        size_t n = t->batch * g->node[i].elements;
        float *got = room(n), *again = room(n);
        tern_error err;
        must(backend->graphs->read_node(t->gpu, got, i, 0, &err), &err, t->c->name);
        compare(t, got, t->cpu->node[i].value, n, training ? "value" : "evaluated value", g->node[i].name);
        free(got);
        free(again);
    }
}

static void compare_gradients(trial *t, float *first, int again) {
    const tern_graph *g = t->graph;
    tern_error err;
    for (size_t p = 0; p < g->params; p++) {
        if (!t->cpu->param_grad[p]) continue;
        size_t n = g->param[p].count;
        float *got = room(n);
        must(backend->graphs->read_gradient(t->gpu, got, p, &err), &err, t->c->name);
        if (!again)
            compare(t, got, t->cpu->param_grad[p], n, "gradient", g->param[p].name);
        else if (memcmp(got, first, n * sizeof *got)) {
            failures++;
            printf("FAILED %s: the gradient of %s differs between two passes\n", t->c->name, g->param[p].name);
        }
        memcpy(first, got, n * sizeof *got);
        first += n;
        free(got);
    }
}

/* A forward and a backward pass, twice. */
static void compare_training(trial *t, const float *x, const float *dy, const tern_gpu_pass *pass) {
    const tern_graph *g = t->graph;
    tern_error err;
    size_t floats = 1;
    for (size_t p = 0; p < g->params; p++) floats += g->param[p].count;
    float *first = room(floats);
    tern_plan_zero_grad(t->cpu);
    tern_plan_forward(t->cpu, x, t->batch);
    must(backend->graphs->forward(t->gpu, NULL, x, pass, &err), &err, t->c->name);
    compare_values(t, 1);
    memcpy(tern_plan_output_grad(t->cpu), dy, t->batch * g->node[g->nodes - 1].elements * sizeof *dy);
    tern_plan_backward(t->cpu);
    must(backend->graphs->backward(t->gpu, dy, &err), &err, t->c->name);
    compare_gradients(t, first, 0);
    if (!g->node[0].op->backward && t->cpu->node[0].grad) printf("%s: the input has a gradient\n", t->c->name);
    /* Running statistics, which evaluation reads. */
    float *cpu_now = room(floats);
    float *s = cpu_now;
    for (size_t p = 0; p < g->params; p++)
        if (g->param[p].role == TERN_ROLE_STATISTIC) {
            memcpy(s, g->param[p].value, g->param[p].count * sizeof *s);
            s += g->param[p].count;
        }
    must(backend->graphs->fetch(t->gpu, &err), &err, t->c->name);
    s = cpu_now;
    for (size_t p = 0; p < g->params; p++)
        if (g->param[p].role == TERN_ROLE_STATISTIC) {
            compare(t, g->param[p].value, s, g->param[p].count, "statistic", g->param[p].name);
            s += g->param[p].count;
        }

    /* Again, to the same bits. */
    must(backend->graphs->forward(t->gpu, NULL, x, pass, &err), &err, t->c->name);
    must(backend->graphs->backward(t->gpu, dy, &err), &err, t->c->name);
    compare_gradients(t, first, 1);
    free(first);
    free(cpu_now);
}

static void run_case(const graph_case_list *list, const graph_case *c, tern_dtype type, int threads) {
    trial t = {.c = c, .type = type, .batch = c->batch, .worst = -1};
    tern_error err;
    must(tern_graph_create(&t.graph, &err), &err, c->name);
    c->build(t.graph);
    must(tern_graph_check(t.graph, &err), &err, c->name);
    must(tern_graph_place(t.graph, &err), &err, c->name);
    tern_graph_initialise(t.graph, 11);
    for (size_t p = 0; p < t.graph->params; p++) /* gains and biases that do something */
        if (t.graph->param[p].rank == 1 && t.graph->param[p].value && t.graph->param[p].role != TERN_ROLE_STATISTIC) {
            float *x = room(t.graph->param[p].count);
            fill(x, t.graph->param[p].count, 100 + p);
            for (size_t i = 0; i < t.graph->param[p].count; i++) t.graph->param[p].value[i] += 0.3f * x[i];
            free(x);
        }
    tern_plan_desc d = {
        .batch_max = c->batch + 1, .training = !list->inference, .threads = threads, .products = type};
    must(tern_plan_create(&t.cpu, t.graph, &d, &err), &err, c->name);
    t.cpu->seed = 5;
    t.cpu->lambda = c->lambda > 0 ? c->lambda : 1;
    must(tern_plan_refresh(t.cpu, &err), &err, c->name);

    must(create_on_gpu(&t.gpu, t.graph, c->batch + 1, type, !list->inference, 5, &err), &err, c->name);
    must(backend->graphs->send(t.gpu, t.cpu->lambda, &err), &err, c->name);

    const tern_node *in = &t.graph->node[0], *out = &t.graph->node[t.graph->nodes - 1];
    size_t nx = c->batch * in->elements, ny = c->batch * out->elements;
    float *x = room(nx), *dy = room(ny);
    fill(x, nx, 1);
    fill(dy, ny, 2);
    if (t.graph->vocabulary)
        for (size_t i = 0; i < nx; i++)
            ((int32_t *)(void *)x)[i] = (int32_t)(tern_philox(3, i, 1).v[0] % t.graph->vocabulary);
    if (type == TERN_BF16 && !t.graph->vocabulary) /* the same input for both */
        for (size_t i = 0; i < nx; i++) {
            uint32_t bits;
            memcpy(&bits, &x[i], 4);
            bits &= 0xffff0000u;
            memcpy(&x[i], &bits, 4);
        }

    tern_gpu_pass pass = {.batch = c->batch, .step = 3, .train_mode = 1};
    t.cpu->step = 3;
    t.cpu->train_mode = 1;
    if (!list->inference) compare_training(&t, x, dy, &pass);
    if (!c->training_only) {
        must(backend->graphs->send(t.gpu, t.cpu->lambda, &err), &err, c->name);
        t.cpu->train_mode = 0;
        pass.train_mode = 0;
        tern_plan_forward(t.cpu, x, c->batch);
        must(backend->graphs->forward(t.gpu, NULL, x, &pass, &err), &err, c->name);
        compare_values(&t, 0);
    }
    printf("%-24s %s  worst %.2g, the %s\n", c->name, type == TERN_F32 ? "fp32" : "bf16", t.worst, t.where);
    fflush(stdout);
    backend->graphs->release(t.gpu);
    tern_plan_free(&t.cpu);
    tern_graph_free(&t.graph);
    free(x);
    free(dy);
}

int main(int argc, char **argv) {
    if (open_gpu()) return SKIPPED;
#define LIST_ADDRESS(name) &name,
    static const graph_case_list *const lists[] = {GRAPH_CASE_LISTS(LIST_ADDRESS)};
    for (size_t l = 0; l < sizeof lists / sizeof *lists; l++)
        for (size_t i = 0; i < lists[l]->count; i++) {
            const graph_case *c = &lists[l]->cases[i];
            if (argc > 1 && !strstr(c->name, argv[1])) continue;
            run_case(lists[l], c, TERN_F32, 4);
            if (!c->fp32_only) run_case(lists[l], c, TERN_BF16, 4);
        }
    backend->close(context);
    printf("%d failed\n", failures);
    return failures != 0;
}
