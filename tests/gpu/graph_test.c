/* Every operation of a graph on the GPU against the CPU's: values, gradients of inputs and parameters, in fp32, bf16
 * and fp16, in training and in evaluation, each pass twice to the same bits; and gradients of inputs by int8
 * products.
 *
 *   graph_test [NAME | I/N]      the I-th of every N cases; one line a graph and type; ends with the number of failures */
#include <string.h>

#include "base/random.h"
#include "graph_cases.h"
#include "nn/op.h"
#include "nn/plan.h"
#include "nn/ternary_weights.h"
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

/* Of int8 gradients, about those of floats. What rounding a row leaves is spread over 1/127 of its largest value,
 * which is less than four of its root mean squares: 4 / 127 / sqrt(12) of it, a layer. The cases have up to four of
 * them. */
static const double int8_tolerance = 2 * 4.0 / 127 / 3.4641;

typedef struct trial {
    const graph_case *c;
    tern_dtype type;
    int int8_gradients;
    size_t batch;
    tern_graph *graph;
    tern_plan *cpu;
    tern_gpu_plan *gpu;
    double worst;
    char where[160];
} trial;

/* fp16 has three bits more than bf16, but the CPU's plan has neither: what falls to another integer there does so
 * more rarely than in bf16, and not on both sides alike. */
static double tolerance_of(const trial *t) {
    if (t->int8_gradients) return int8_tolerance;
    return t->type == TERN_F32 ? t->c->tolerance : t->c->tolerance_bf16 / (t->type == TERN_F16 ? 2 : 1);
}

static void compare(trial *t, const float *got, const float *want, size_t n, const char *what, const char *name) {
    double d = distance(got, want, n), most = tolerance_of(t);
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
               name_of(t->type), what, name, d, most, worst, (double)got[worst], (double)want[worst]);
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

static int has_integers(const tern_graph *g) {
    for (size_t p = 0; p < g->params; p++)
        if (g->param[p].integers) return 1;
    return 0;
}

static void must_refuse(const trial *t, tern_status status, const tern_error *err) {
    if (status == TERN_E_UNSUPPORTED && strstr(err->message, "whole numbers")) return;
    failures++;
    printf("FAILED %s: whole numbers are not refused in fp16\n", t->c->name);
}

static void run_case(const graph_case_list *list, const graph_case *c, tern_dtype type, int int8_gradients) {
    trial t = {.c = c, .type = type, .int8_gradients = int8_gradients, .batch = c->batch, .worst = -1};
    tern_error err;
    must(tern_graph_create(&t.graph, &err), &err, c->name);
    c->build(t.graph);
    must(tern_graph_check(t.graph, &err), &err, c->name);
    must(tern_graph_place(t.graph, &err), &err, c->name);
    tern_graph_initialise(t.graph, 11, 0);
    for (size_t p = 0; p < t.graph->params; p++) /* gains and biases that do something */
        if (t.graph->param[p].rank == 1 && t.graph->param[p].value && t.graph->param[p].role != TERN_ROLE_STATISTIC) {
            float *x = room(t.graph->param[p].count);
            fill(x, t.graph->param[p].count, 100 + p);
            for (size_t i = 0; i < t.graph->param[p].count; i++) t.graph->param[p].value[i] += 0.3f * x[i];
            free(x);
        }
    tern_plan_desc d = {.batch_max = c->batch + 1, .training = !list->inference, .threads = 4, .products = type};
    if (type == TERN_F16) d.products = TERN_F32;
    must(tern_plan_create(&t.cpu, t.graph, &d, &err), &err, c->name);
    t.cpu->seed = 5;
    t.cpu->lambda = c->lambda > 0 ? c->lambda : 1;
    must(tern_plan_refresh(t.cpu, &err), &err, c->name);

    const tern_gpu_plan_desc on_gpu = {.graph = t.graph,
                                       .batch_max = c->batch + 1,
                                       .training = !list->inference,
                                       .values = type,
                                       .int8_gradients = int8_gradients,
                                       .seed = 5};
    const tern_status created = create_as(&t.gpu, on_gpu, &err);
    if (type == TERN_F16 && !list->inference && has_integers(t.graph)) {
        must_refuse(&t, created, &err);
        tern_plan_free(&t.cpu);
        tern_graph_free(&t.graph);
        return;
    }
    must(created, &err, c->name);
    must(backend->graphs->send(t.gpu, t.cpu->lambda, &err), &err, c->name);

    const tern_node *in = &t.graph->node[0], *out = &t.graph->node[t.graph->nodes - 1];
    size_t nx = c->batch * in->elements, ny = c->batch * out->elements;
    float *x = room(nx), *dy = room(ny);
    fill(x, nx, 1);
    fill(dy, ny, 2);
    if (t.graph->vocabulary)
        for (size_t i = 0; i < nx; i++)
            ((int32_t *)(void *)x)[i] = (int32_t)(tern_philox(3, i, 1).v[0] % t.graph->vocabulary);
    if (type != TERN_F32 && !t.graph->vocabulary) /* the same input for both */
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
    printf("%-24s %s%s  worst %.2g, the %s\n", c->name, name_of(type), int8_gradients ? ", int8 gradients" : "",
           t.worst, t.where);
    fflush(stdout);
    backend->graphs->release(t.gpu);
    tern_plan_free(&t.cpu);
    tern_graph_free(&t.graph);
    free(x);
    free(dy);
}

/* ---- gradients of inputs by int8 products, against the rule written naively */

typedef struct int8_case {
    size_t rows, n, k; /* n: outputs, of which a row of dy has so many */
    tern_granularity granularity;
    int added;    /* dx is added to a gradient that another reader of x has left */
    float length; /* of dy: gradients of a mean over many rows are this small */
} int8_case;

static const int8_case int8_cases[] = {
    {5, 33, 40, TERN_PER_TENSOR, 0, 1},     {3, 40, 40, TERN_PER_TENSOR, 1, 1},
    {1, 7, 3, TERN_PER_TENSOR, 0, 1},       {70, 384, 272, TERN_PER_TENSOR, 0, 1},
    {33, 333, 129, TERN_PER_TENSOR, 0, 1},  {3, 5000, 17, TERN_PER_TENSOR, 0, 1},
    {300, 768, 256, TERN_PER_TENSOR, 0, 1}, {9, 385, 64, TERN_PER_TENSOR, 0, 1e-9f},
    {6, 48, 80, TERN_PER_ROW, 0, 1e-9f},
};

static tern_graph *int8_graph(const int8_case *c) {
    const tern_attrs at = {.outputs = c->n, .granularity = (int)c->granularity, .rule = TERN_RULE_ABSMEAN};
    tern_graph *g;
    tern_error err;
    must(tern_graph_create(&g, &err), &err, "int8 gradients");
    tern_value x = tern_graph_input(g, (tern_shape){1, {20}});
    x = tern_graph_add(g, "linear", "first", x, &(tern_attrs){.outputs = c->k});
    const tern_value y = tern_graph_add(g, "bit_linear", "second", x, &at);
    if (c->added) tern_graph_add2(g, "add", "sum", y, x);
    must(tern_graph_check(g, &err), &err, "int8 gradients");
    must(tern_graph_place(g, &err), &err, "int8 gradients");
    tern_graph_initialise(g, 11, 0);
    return g;
}

/* The row of dx that a row of dy makes. */
static void naive_row(double *dx, const float *dy, const int8_t *trits, const tern_ternary_weights *w) {
    float largest = 0, g[8192];
    for (size_t n = 0; n < w->rows; n++) {
        g[n] = w->scale_count > 1 ? dy[n] * w->scales[n] : dy[n];
        largest = fmaxf(largest, fabsf(g[n]));
    }
    const float s = 127.0f / fmaxf(largest, 1e-30f);
    for (size_t k = 0; k < w->cols; k++) {
        long sum = 0;
        for (size_t n = 0; n < w->rows; n++) sum += lrintf(g[n] * s) * trits[n * w->cols + k];
        dx[k] = (double)sum / (double)s * (w->scale_count > 1 ? 1 : (double)w->scales[0]);
    }
}

static void compare_int8_case(const int8_case *c) {
    static const char name[] = "int8 gradients";
    tern_graph *g = int8_graph(c);
    tern_plan *cpu;
    tern_gpu_plan *gpu;
    tern_error err;
    const tern_plan_desc d = {.batch_max = 1, .training = 1, .threads = 1, .products = TERN_F32};
    must(tern_plan_create(&cpu, g, &d, &err), &err, name);
    must(tern_plan_refresh(cpu, &err), &err, name);
    const tern_gpu_plan_desc on_gpu = {
        .graph = g, .batch_max = c->rows, .training = 1, .values = TERN_F32, .int8_gradients = 1, .seed = 5};
    must(create_as(&gpu, on_gpu, &err), &err, name);
    must(backend->graphs->send(gpu, 1, &err), &err, name);
    float *x = room(c->rows * 20), *dy = room(c->rows * c->n), *dx = room(c->rows * c->k),
          *dx_inf = room(c->rows * c->k);
    double *want = malloc(c->k * sizeof *want), off = 0, all = 0;
    if (!want) exit(1);
    fill(x, c->rows * 20, 1);
    fill(dy, c->rows * c->n, 2);
    for (size_t i = 0; i < c->rows * c->n; i++) dy[i] *= c->length;
    const tern_gpu_pass pass = {.batch = c->rows, .train_mode = 1};
    must(backend->graphs->forward(gpu, NULL, x, &pass, &err), &err, name);
    must(backend->graphs->backward(gpu, dy, &err), &err, name);
    must(backend->graphs->read_node(gpu, dx, 1, 1, &err), &err, name);
    const tern_ternary_weights *w = tern_plan_ternary(cpu, 2);
    for (size_t m = 0; m < c->rows; m++) {
        naive_row(want, dy + m * c->n, w->trits, w);
        for (size_t k = 0; k < c->k; k++) {
            const double should = want[k] + (c->added ? (double)dy[m * c->n + k] : 0);
            off = fmax(off, fabs((double)dx[m * c->k + k] - should));
            all = fmax(all, fabs(should));
        }
    }
    printf("int8 gradients           %zu x %zu x %zu  worst %.2g of the largest\n", c->rows, c->n, c->k, off / all);
    /* The same integers, so that only roundings of fp32 are left: one trit more would be 1/127 of a value. */
    if (!(off <= 1e-6 * all)) {
        failures++;
        printf("FAILED int8 gradients of %zu x %zu x %zu: %.3g off where the largest is %.3g\n", c->rows, c->n, c->k,
               off, all);
    }
    dy[0] = INFINITY; /* spoils its row and no other */
    must(backend->graphs->backward(gpu, dy, &err), &err, name);
    must(backend->graphs->read_node(gpu, dx_inf, 1, 1, &err), &err, name);
    if (isfinite((double)dx_inf[0]) || memcmp(dx + c->k, dx_inf + c->k, (c->rows - 1) * c->k * sizeof *dx)) {
        failures++;
        printf("FAILED int8 gradients: an infinite one is lost, or spreads\n");
    }
    backend->graphs->release(gpu);
    tern_plan_free(&cpu);
    tern_graph_free(&g);
    free(x);
    free(dy);
    free(dx);
    free(dx_inf);
    free(want);
}

static void compare_int8_gradients(void) {
    for (size_t i = 0; i < sizeof int8_cases / sizeof *int8_cases; i++) compare_int8_case(&int8_cases[i]);
}

int main(int argc, char **argv) {
    if (open_gpu()) return SKIPPED;
#define LIST_ADDRESS(name) &name,
    static const graph_case_list *const lists[] = {GRAPH_CASE_LISTS(LIST_ADDRESS)};
    const char *argument = argc > 1 ? argv[1] : NULL;
    size_t index = 0;
    for (size_t l = 0; l < sizeof lists / sizeof *lists; l++)
        for (size_t i = 0; i < lists[l]->count; i++) {
            const graph_case *c = &lists[l]->cases[i];
            if (!is_wanted(argument, c->name, index++)) continue;
            run_case(lists[l], c, TERN_F32, 0);
            if (lists[l] == &ternary_cases) run_case(lists[l], c, TERN_F32, 1);
            if (c->fp32_only) continue;
            run_case(lists[l], c, TERN_BF16, 0);
            run_case(lists[l], c, TERN_F16, 0);
        }
    if (is_wanted(argument, "int8 gradients", index)) compare_int8_gradients();
    backend->close(context);
    return conclude(argument, failures);
}
