/* Optimisers against their formulas in double, and schedules at their corners. */
#include "base/random.h"
#include "testing.h"
#include "train/optimizer.h"
#include "train/schedule.h"

static tern_error err;

/* ---- a plan whose parameters have the shapes that are wanted */

typedef struct bench {
    tern_graph *graph;
    tern_plan *plan;
    tern_optimizer *optimizer;
} bench;

enum { WIDE = 0, TALL = 1, TALL_BIAS = 2, FILTERS = 3, PARAMS = 4 };

/* wide [18][150], tall [130][18] and its bias, filters [10][3][3][13]; the first three times `size`. */
static bench bench_make(tern_method method, int threads, size_t size) {
    bench b = {0};
    OK(tern_graph_create(&b.graph, &err));
    tern_value x = tern_graph_input(b.graph, (tern_shape){3, {3, 3, 150 * size}});
    x = tern_graph_add(b.graph, "linear", "wide", x, &(tern_attrs){.outputs = 18 * size});
    x = tern_graph_add(b.graph, "linear", "tall", x, &(tern_attrs){.outputs = 130 * size, .bias = 1});
    tern_graph_add(b.graph, "bit_conv2d", "filters", x,
                   &(tern_attrs){.outputs = 10, .kernel = 3, .groups = 10, .granularity = 1});
    OK(tern_graph_place(b.graph, &err));
    tern_graph_initialise(b.graph, 21, 0);
    OK(tern_plan_create(&b.plan, b.graph, &(tern_plan_desc){.batch_max = 1, .training = 1, .threads = threads},
                        &err));
    assert_int_equal(b.graph->params, PARAMS);
    tern_method methods[PARAMS] = {method, method, method == TERN_MUON ? TERN_SGD : method, method};
    OK(tern_optimizer_create(&b.optimizer, b.plan, methods, &err));
    return b;
}

static void bench_free(bench *b) {
    tern_optimizer_free(&b->optimizer);
    tern_plan_free(&b->plan);
    tern_graph_free(&b->graph);
}

static tern_method method_of(tern_method method, size_t p) {
    return method == TERN_MUON && p == TALL_BIAS ? TERN_SGD : method;
}

static void draw_gradients(bench *b, uint64_t t) {
    for (size_t p = 0; p < PARAMS; p++)
        for (size_t i = 0; i < b->graph->param[p].count; i++)
            b->plan->param_grad[p][i] = (0.2f + (float)t) * tern_random_normal(10 * t + p, i);
}

/* ---- the formulas */

typedef struct reference {
    double *w, *first, *second;
    size_t rows, columns;
} reference;

static void reference_sgd(reference *f, const float *g, const tern_param_rule *rule, double mu, double factor) {
    for (size_t i = 0; i < f->rows * f->columns; i++) {
        double d = (double)g[i] * factor + (double)rule->decay * f->w[i];
        f->first[i] = mu * f->first[i] + d;
        f->w[i] -= (double)rule->lr * (d + mu * f->first[i]);
    }
}

static void reference_adamw(reference *f, const float *g, const tern_param_rule *rule, double factor, int t) {
    for (size_t i = 0; i < f->rows * f->columns; i++) {
        double d = (double)g[i] * factor;
        f->first[i] = 0.9 * f->first[i] + 0.1 * d;
        f->second[i] = 0.95 * f->second[i] + 0.05 * d * d;
        double m = f->first[i] / (1 - pow(0.9, t)), v = f->second[i] / (1 - pow(0.95, t));
        f->w[i] -= (double)rule->lr * (m / (sqrt(v) + 1e-8) + (double)rule->decay * f->w[i]);
    }
}

static double norm(const double *x, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += x[i] * x[i];
    return sqrt(sum);
}

/* x = a x + (b s + c s^2) x with s = x x^T, on the matrix as it stands: the longer side costs more, and no more. */
static void reference_newton(double *x, size_t rows, size_t columns, int steps) {
    double *s = malloc(rows * rows * sizeof *s), *q = malloc(rows * rows * sizeof *q);
    double *y = malloc(rows * columns * sizeof *y), length = norm(x, rows * columns);
    for (size_t i = 0; i < rows * columns; i++) x[i] /= length;
    for (int step = 0; step < steps; step++) {
        for (size_t i = 0; i < rows; i++)
            for (size_t j = 0; j < rows; j++) {
                s[i * rows + j] = 0;
                for (size_t k = 0; k < columns; k++) s[i * rows + j] += x[i * columns + k] * x[j * columns + k];
            }
        for (size_t i = 0; i < rows; i++)
            for (size_t j = 0; j < rows; j++) {
                double square = 0;
                for (size_t k = 0; k < rows; k++) square += s[i * rows + k] * s[k * rows + j];
                q[i * rows + j] = -4.7750 * s[i * rows + j] + 2.0315 * square;
            }
        for (size_t i = 0; i < rows; i++)
            for (size_t j = 0; j < columns; j++) {
                y[i * columns + j] = 3.4445 * x[i * columns + j];
                for (size_t k = 0; k < rows; k++) y[i * columns + j] += q[i * rows + k] * x[k * columns + j];
            }
        memcpy(x, y, rows * columns * sizeof *x);
    }
    free(s);
    free(q);
    free(y);
}

static void reference_muon(reference *f, const float *g, const tern_param_rule *rule, double mu, double factor,
                           int normalise, int steps) {
    size_t n = f->rows * f->columns;
    double *u = malloc(n * sizeof *u), longer = (double)(f->rows > f->columns ? f->rows : f->columns);
    for (size_t i = 0; i < n; i++) {
        double d = (double)g[i] * factor;
        f->first[i] = mu * f->first[i] + d;
        u[i] = d + mu * f->first[i];
    }
    reference_newton(u, f->rows, f->columns, steps);
    double length = norm(f->w, n);
    for (size_t i = 0; i < n; i++)
        if (normalise)
            f->w[i] = f->w[i] * sqrt((double)f->rows) / length - (double)rule->lr * u[i];
        else
            f->w[i] -= (double)rule->lr * (0.2 * sqrt(longer) * u[i] + (double)rule->decay * f->w[i]);
    free(u);
}

static void check_method(tern_method method, int normalise, int newton_steps, double tolerance) {
    bench b = bench_make(method, 2, 1);
    b.optimizer->normalise = normalise;
    b.optimizer->newton_steps = newton_steps;
    b.optimizer->momentum = 0.75f;
    reference f[PARAMS];
    for (size_t p = 0; p < PARAMS; p++) {
        const tern_param *param = &b.graph->param[p];
        size_t n = param->count;
        f[p] = (reference){calloc(n, sizeof(double)), calloc(n, sizeof(double)), calloc(n, sizeof(double)),
                           param->dim[0], n / param->dim[0]};
        for (size_t i = 0; i < n; i++) f[p].w[i] = (double)param->value[i];
    }
    for (int t = 1; t <= 5; t++) {
        draw_gradients(&b, (uint64_t)t);
        for (size_t p = 0; p < PARAMS; p++) {
            tern_param_rule rule = {method_of(method, p), 0.01f / (float)t, 0.1f * (float)p, 0};
            const float *g = b.plan->param_grad[p];
            tern_optimizer_step(b.optimizer, p, &rule, 0.7f, (uint64_t)t);
            double factor = (double)0.7f, mu = (double)0.75f;
            if (rule.method == TERN_SGD) reference_sgd(&f[p], g, &rule, mu, factor);
            if (rule.method == TERN_ADAMW) reference_adamw(&f[p], g, &rule, factor, t);
            if (rule.method == TERN_MUON) reference_muon(&f[p], g, &rule, mu, factor, normalise, newton_steps);
            for (size_t i = 0; i < b.graph->param[p].count; i++)
                if (!(fabs((double)b.graph->param[p].value[i] - f[p].w[i]) <= tolerance))
                    fail_msg("method %d, step %d, %s[%zu] is %.9g, should be %.9g", (int)method, t,
                             b.graph->param[p].name, i, (double)b.graph->param[p].value[i], f[p].w[i]);
        }
    }
    OK(tern_dnn_check(b.plan->dnn, &err));
    for (size_t p = 0; p < PARAMS; p++) {
        free(f[p].w);
        free(f[p].first);
        free(f[p].second);
    }
    bench_free(&b);
}

static void test_sgd(void **state) {
    (void)state;
    check_method(TERN_SGD, 0, 5, 3e-6);
}
static void test_adamw(void **state) {
    (void)state;
    check_method(TERN_ADAMW, 0, 5, 1e-6);
}
static void test_muon(void **state) {
    (void)state;
    check_method(TERN_MUON, 0, 5, 2e-5);
    check_method(TERN_MUON, 0, 3, 2e-5);
}
static void test_muon_normalised(void **state) {
    (void)state;
    check_method(TERN_MUON, 1, 3, 2e-5);
}

/* What Muon takes from a weight is nearly orthogonal: no direction of its shorter side shrinks or grows by more than
 * a third, with five steps. */
static void test_newton_schulz(void **state) {
    (void)state;
    bench b = bench_make(TERN_MUON, 2, 1);
    draw_gradients(&b, 1);
    for (size_t p = 0; p < PARAMS; p++) {
        tern_param *param = &b.graph->param[p];
        size_t rows = param->dim[0], columns = param->count / rows, least = rows < columns ? rows : columns;
        if (method_of(TERN_MUON, p) != TERN_MUON) continue;
        memset(param->value, 0, param->count * sizeof(float));
        tern_optimizer_step(b.optimizer, p, &(tern_param_rule){TERN_MUON, 1, 0, 0}, 1, 1);
        double step = 0.2 * sqrt((double)(rows < columns ? columns : rows));
        for (uint64_t trial = 0; trial < 20; trial++) {
            double in = 0, out = 0;
            for (size_t i = 0; i < least; i++) in += pow((double)tern_random_normal(trial, i), 2);
            for (size_t j = 0; j < param->count / least; j++) {
                double sum = 0;
                for (size_t i = 0; i < least; i++)
                    sum += (double)tern_random_normal(trial, i) *
                           (double)param->value[rows <= columns ? i * columns + j : j * columns + i];
                out += sum * sum;
            }
            double stretch = sqrt(out / in) / step;
            if (!(stretch > 0.67 && stretch < 1.33)) fail_msg("%s is stretched by %g", param->name, stretch);
        }
    }
    bench_free(&b);
}

static void test_frozen(void **state) {
    (void)state;
    bench b = bench_make(TERN_ADAMW, 1, 1);
    draw_gradients(&b, 1);
    float kept = b.graph->param[WIDE].value[3];
    tern_optimizer_step(b.optimizer, WIDE, &(tern_param_rule){TERN_ADAMW, 1, 1, 1}, 1, 1);
    assert_true(b.graph->param[WIDE].value[3] == kept && b.optimizer->first[WIDE][3] == 0);
    bench_free(&b);
}

static void test_gradient_norm(void **state) {
    (void)state;
    bench b = bench_make(TERN_SGD, 3, 6); /* wide has 97200 weights: more than one part */
    draw_gradients(&b, 2);
    double sum = 0;
    for (size_t p = 0; p < PARAMS; p++)
        for (size_t i = 0; i < b.graph->param[p].count; i++)
            sum += (double)b.plan->param_grad[p][i] * (double)b.plan->param_grad[p][i];
    double got = tern_gradient_norm(b.plan);
    assert_true(fabs(got - sqrt(sum)) < 1e-9 * got);
    const size_t places[] = {0, 70000, 97199};
    for (size_t i = 0; i < 3; i++) {
        float kept = b.plan->param_grad[WIDE][places[i]];
        b.plan->param_grad[WIDE][places[i]] = NAN;
        assert_true(isnan(tern_gradient_norm(b.plan)));
        b.plan->param_grad[WIDE][places[i]] = INFINITY;
        assert_true(isinf(tern_gradient_norm(b.plan)));
        b.plan->param_grad[WIDE][places[i]] = kept;
    }
    bench_free(&b);
}

static void test_threads_change_no_bit(void **state) {
    (void)state;
    for (int method = TERN_SGD; method <= TERN_MUON; method++)
        for (int normalise = 0; normalise <= (method == TERN_MUON); normalise++) {
            bench b[3];
            double length[3];
            for (int t = 0; t < 3; t++) {
                b[t] = bench_make((tern_method)method, t + 1, 5);
                b[t].optimizer->normalise = normalise;
                for (uint64_t step = 1; step <= 2; step++) {
                    draw_gradients(&b[t], step);
                    length[t] = tern_gradient_norm(b[t].plan);
                    for (size_t p = 0; p < PARAMS; p++)
                        tern_optimizer_step(b[t].optimizer, p,
                                            &(tern_param_rule){method_of((tern_method)method, p), 0.01f, 0.1f, 0},
                                            0.9f, step);
                }
                assert_memory_equal(&length[t], &length[0], sizeof *length);
                for (size_t p = 0; p < PARAMS; p++)
                    assert_memory_equal(b[t].graph->param[p].value, b[0].graph->param[p].value,
                                        b[0].graph->param[p].count * sizeof(float));
            }
            for (int t = 0; t < 3; t++) bench_free(&b[t]);
        }
}

/* ---- schedules */

static void near(double got, double want) {
    if (!(fabs(got - want) < 1e-12)) fail_msg("%.15g, should be %.15g", got, want);
}

static void test_rates(void **state) {
    (void)state;
    tern_config c = {.schedule = TERN_CONSTANT, .lr_final = 0.1};
    for (int i = 0; i <= 10; i++) near(tern_schedule_rate(&c, i / 10.0), 1);
    c.schedule = TERN_LINEAR;
    near(tern_schedule_rate(&c, 0), 1);
    near(tern_schedule_rate(&c, 0.5), 0.55);
    near(tern_schedule_rate(&c, 1), 0.1);
    c.schedule = TERN_COSINE;
    near(tern_schedule_rate(&c, 0), 1);
    near(tern_schedule_rate(&c, 0.25), 0.1 + 0.9 * 0.5 * (1 + sqrt(0.5)));
    near(tern_schedule_rate(&c, 0.5), 0.55);
    near(tern_schedule_rate(&c, 1), 0.1);
    c.schedule = TERN_BITNET;
    near(tern_schedule_rate(&c, 0), 1);
    near(tern_schedule_rate(&c, 0.25), 5.0 / 6);
    near(tern_schedule_rate(&c, 0.5), 2.0 / 3);
    near(tern_schedule_rate(&c, 0.75), 0.5 * (2.0 / 3 + 0.1));
    near(tern_schedule_rate(&c, 1), 0.1);
}

static void test_warmup(void **state) {
    (void)state;
    tern_config c = {.schedule = TERN_LINEAR, .lr_final = 0, .warmup = 0.2};
    near(tern_schedule_rate(&c, 0), 0);
    near(tern_schedule_rate(&c, 0.05), 0.25);
    near(tern_schedule_rate(&c, 0.2), 1);
    near(tern_schedule_rate(&c, 0.6), 0.5);
    near(tern_schedule_rate(&c, 1), 0);
    c.warmup = 1; /* nothing but warm-up */
    near(tern_schedule_rate(&c, 0.5), 0.5);
    assert_true(isfinite(tern_schedule_rate(&c, 1)));
    c.warmup = 0;
    near(tern_schedule_rate(&c, 0), 1);
}

static void test_decay_and_lambda(void **state) {
    (void)state;
    for (int schedule = TERN_CONSTANT; schedule <= TERN_BITNET; schedule++) {
        tern_config c = {.schedule = schedule};
        near(tern_schedule_decay(&c, 0), 1);
        near(tern_schedule_decay(&c, 0.4999), 1);
        near(tern_schedule_decay(&c, 0.5), schedule != TERN_BITNET);
        near(tern_schedule_decay(&c, 1), schedule != TERN_BITNET);
    }
    tern_config c = {.lambda_begin = 0.2, .lambda_end = 0.6};
    near(tern_schedule_lambda(&c, 0), 0);
    near(tern_schedule_lambda(&c, 0.2), 0);
    near(tern_schedule_lambda(&c, 0.3), 0.25);
    near(tern_schedule_lambda(&c, 0.6), 1);
    near(tern_schedule_lambda(&c, 1), 1);
    c.lambda_begin = c.lambda_end = 0; /* ternary from the start */
    near(tern_schedule_lambda(&c, 0), 1);
    c.lambda_begin = c.lambda_end = 0.5; /* at once */
    near(tern_schedule_lambda(&c, 0.49), 0);
    near(tern_schedule_lambda(&c, 0.5), 1);
    c.lambda_begin = 0.9, c.lambda_end = 0.1; /* the wrong way round: still 0 first and 1 last */
    near(tern_schedule_lambda(&c, 0.5), 0);
    near(tern_schedule_lambda(&c, 1), 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sgd),
        cmocka_unit_test(test_adamw),
        cmocka_unit_test(test_muon),
        cmocka_unit_test(test_muon_normalised),
        cmocka_unit_test(test_newton_schulz),
        cmocka_unit_test(test_frozen),
        cmocka_unit_test(test_gradient_norm),
        cmocka_unit_test(test_threads_change_no_bit),
        cmocka_unit_test(test_rates),
        cmocka_unit_test(test_warmup),
        cmocka_unit_test(test_decay_and_lambda),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
