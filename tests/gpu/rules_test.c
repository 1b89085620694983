/* The rules of whole-number weights on the GPU against the CPU's: whole layers, step after step, every integer equal.
 *
 * The gradients of a layer's weights must be the same floats on both, though sums are taken in different orders. Two
 * kinds of input see to that. With the identity as input, a row of it for each weight of an output, the gradient is
 * dy turned, each sum a single product and zeros: any floats can be sent. Small whole numbers, the largest of each
 * scale 127, have exact sums in any order.
 *
 *   rules_test [--quick] [NAME]      one line a case; ends with the number of failures
 *                                    --quick: for the sanitizers, cases that reach other code, and few steps of them */
#include <string.h>

#include "base/random.h"
#include "nn/dense.h"
#include "nn/loss.h"
#include "nn/op.h"
#include "nn/plan.h"
#include "on_gpu.h"
#include "quant/trit_rules.h"

enum { STEPS = 5, SEED = 13 };

static int failures, quick;

enum {
    ONE = TERN_RATE_ONE,
    R1 = TERN_UPDATE_R1,
    R2 = TERN_UPDATE_R2,
    VOTE = TERN_UPDATE_VOTE,
    CORR = TERN_UPDATE_SEED_CORR
};

/* Of the gradients of an identity case, step by step. */
typedef enum gradients { NORMAL, SPARSE, HUGE_ONES, TINY, ZEROS, MIXED, STRANGE } gradients;

typedef struct rules_case {
    const char *name, *op;
    size_t h, w, channels; /* of a linear layer: channels alone; of a table: tokens, 0, rows */
    tern_attrs at;
    size_t batch; /* 0: the identity */
    gradients gradients;
    int32_t rate;
    uint64_t first_step;
} rules_case;

static uint64_t drawn;
static uint32_t draw(uint32_t below) { return (uint32_t)((uint64_t)tern_random_u32(21, drawn++) * below >> 32); }

static float draw_gradient(gradients kind, int step) {
    const float v = tern_random_normal(22, drawn++);
    switch (kind) {
    case SPARSE: return draw(50) ? 0 : v;
    case HUGE_ONES: return v * 0x1p+100f;
    case TINY: return v * 0x1p-100f;
    case ZEROS: return step < 2 ? 0 : v;
    case MIXED: return ldexpf(v, (int)draw(40) - 30);
    default: return v * 0x1p-9f;
    }
}

static int is_table(const rules_case *c) { return !strcmp(c->op, "trit_embedding"); }

static tern_graph *make_graph(const rules_case *c) {
    tern_graph *g;
    tern_error err;
    must(tern_graph_create(&g, &err), &err, c->name);
    const int table = is_table(c);
    const tern_shape shape = c->w ? (tern_shape){3, {c->h, c->w, c->channels}} : (tern_shape){1, {c->channels}};
    tern_graph_add(g, c->op, "layer",
                   table ? tern_graph_input_tokens(g, c->h, c->channels) : tern_graph_input(g, shape), &c->at);
    must(tern_graph_check(g, &err), &err, c->name);
    must(tern_graph_place(g, &err), &err, c->name);
    tern_graph_initialise(g, SEED, 0);
    return g;
}

typedef struct trial {
    const rules_case *c;
    tern_graph *graph, *copy; /* of the CPU, and what the GPU's is fetched into */
    tern_plan *cpu;
    tern_gpu_plan *gpu;
    size_t batch, nx, ny;
    float *x, *dy;
    int failed;
} trial;

static void open_trial(trial *t, const rules_case *c) {
    tern_error err;
    *t = (trial){.c = c, .graph = make_graph(c), .copy = make_graph(c)};
    t->batch = c->batch ? c->batch : c->channels;
    const tern_plan_desc d = {.batch_max = t->batch, .training = 1, .threads = 4, .products = TERN_F32};
    must(tern_plan_create(&t->cpu, t->graph, &d, &err), &err, c->name);
    t->cpu->seed = SEED;
    t->cpu->lambda = 1;
    t->cpu->train_mode = 1;
    t->cpu->rules.rate[1] = c->rate;
    must(create_on_gpu(&t->gpu, t->copy, t->batch, TERN_F32, 1, SEED, &err), &err, c->name);
    t->nx = t->batch * t->graph->node[0].elements;
    t->ny = t->batch * t->graph->node[1].elements;
    t->x = room(t->nx);
    t->dy = room(t->ny);
}

static void close_trial(trial *t) {
    backend->graphs->release(t->gpu);
    tern_plan_free(&t->cpu);
    tern_graph_free(&t->graph);
    tern_graph_free(&t->copy);
    free(t->x);
    free(t->dy);
}

/* Few tokens that come often, others now and then; the gradients of their rows are summed in order on both. */
static void draw_tokens(trial *t) {
    int32_t *token = (int32_t *)(void *)t->x;
    for (size_t i = 0; i < t->nx; i++) token[i] = (int32_t)draw(draw(2) ? 3 : (uint32_t)t->c->channels);
}

/* The input, and the gradient of the output. */
static void draw_pass(trial *t, int step) {
    const size_t each = t->graph->node[0].elements, outputs = t->graph->node[1].channels;
    const int whole = t->c->batch && !is_table(t->c);
    for (size_t i = 0; i < t->nx; i++)
        t->x[i] = !t->c->batch ? i / each == i % each : i % each ? (float)((int)draw(255) - 127) : 127;
    for (size_t i = 0; i < t->ny; i++)
        t->dy[i] = whole ? (float)((int)draw(9) - 4) * 0x1p-6f : draw_gradient(t->c->gradients, step);
    if (is_table(t->c)) draw_tokens(t);
    /* From the tile of this output on nothing changes. */
    if (t->c->gradients == STRANGE && step == 2) t->dy[3 * outputs + outputs / 2] = step % 2 ? NAN : INFINITY;
}

static void compare(trial *t, const char *when) {
    for (size_t p = 0; p < t->graph->params && !t->failed; p++) {
        const tern_param *want = &t->graph->param[p], *got = &t->copy->param[p];
        const size_t each = tern_store_bytes(want->store);
        const char *a = want->integers, *b = got->integers;
        size_t off = 0, first = want->count;
        for (size_t i = 0; a && i < want->count; i++)
            if (memcmp(a + i * each, b + i * each, each)) {
                off++;
                if (first == want->count) first = i;
            }
        if (off) {
            int64_t is = 0, should = 0;
            memcpy(&is, b + first * each, each);
            memcpy(&should, a + first * each, each);
            printf("FAILED %s, %s: %zu of %zu integers of %s differ, the first at %zu: 0x%llx, should be 0x%llx\n",
                   t->c->name, when, off, want->count, want->name, first, (unsigned long long)is,
                   (unsigned long long)should);
        } else if (want->value && memcmp(want->value, got->value, want->count * sizeof(float))) {
            printf("FAILED %s, %s: the floats of %s differ\n", t->c->name, when, want->name);
            off++;
        }
        t->failed |= off != 0;
    }
}

/* Twice with the same weights every other step: a step of two batches has no refresh between them. */
static void step_both(trial *t, int step) {
    const uint64_t number = t->c->first_step + (uint64_t)step;
    const tern_gpu_pass pass = {.batch = t->batch, .step = number, .train_mode = 1, .rate = t->c->rate};
    tern_error err;
    char when[40];
    draw_pass(t, step);
    if (step % 2 == 0) {
        must(tern_plan_refresh(t->cpu, &err), &err, t->c->name);
        must(backend->graphs->send(t->gpu, 1, &err), &err, t->c->name);
    }
    t->cpu->step = number;
    tern_plan_zero_grad(t->cpu);
    tern_plan_forward(t->cpu, t->x, t->batch);
    memcpy(tern_plan_output_grad(t->cpu), t->dy, t->ny * sizeof *t->dy);
    tern_plan_backward(t->cpu);
    must(backend->graphs->forward(t->gpu, NULL, t->x, &pass, &err), &err, t->c->name);
    must(backend->graphs->backward(t->gpu, t->dy, &err), &err, t->c->name);
    must(backend->graphs->fetch(t->gpu, &err), &err, t->c->name);
    snprintf(when, sizeof when, "step %d", step);
    compare(t, when);
}

static size_t changed_trits(const tern_graph *graph, const rules_case *c) {
    tern_graph *fresh = make_graph(c);
    size_t n = 0;
    for (size_t p = 0; p < graph->params; p++)
        for (size_t i = 0;
             graph->param[p].integers && i < graph->param[p].count * tern_store_bytes(graph->param[p].store); i++)
            n += ((const char *)graph->param[p].integers)[i] != ((const char *)fresh->param[p].integers)[i];
    tern_graph_free(&fresh);
    return n;
}

enum { ONCE_IN = 1000 }; /* steps, slow exponents and thresholds move */

/* Quick: two, one with a refresh and one without, and a third where that is the one that matters. */
static int steps_of(const rules_case *c) {
    const int by_third = c->gradients == ZEROS || c->gradients == STRANGE || c->first_step + 3 == ONCE_IN;
    return !quick ? STEPS : by_third ? 3 : 2;
}

static void run_case(const rules_case *c) {
    trial t;
    open_trial(&t, c);
    for (int step = 0; step < steps_of(c) && !t.failed; step++) step_both(&t, step);
    printf("%-34s %s, %zu bytes of integers changed\n", c->name, t.failed ? "FAILED" : "equal",
           changed_trits(t.graph, c));
    fflush(stdout);
    failures += t.failed;
    close_trial(&t);
}

/* One step of a parameter in fixed point, by the gradient of the last pass on the CPU. */
static void step_fixed(const tern_plan *plan, size_t p, float lr, uint64_t step) {
    tern_param *param = &plan->graph->param[p];
    const float *g = plan->param_grad[p];
    const double mean = tern_sum_of_squares(1, g, param->count) / (double)param->count;
    const tern_trit_step s = {
        .key = tern_stream(SEED, ((uint64_t)2 << 32) + p),
        .step = step,
        .rate = (int32_t)lrint(fmin((double)lr * ldexp(TERN_RATE_ONE, -param->exponent), TERN_FIXED_RATE_MAX)),
        .gradient_exp = tern_gradient_exponent(mean)};
    if (s.gradient_exp != TERN_NO_GRADIENT_EXP) tern_fixed_step(param->integers, g, 0, param->count, &s);
    tern_param_view(param);
}

/* A parameter in fixed point, by itself: the gradient of a bias over one row is that row of dy. */
static void run_fixed(const rules_case *c, float lr) {
    trial t;
    tern_error err;
    open_trial(&t, c);
    const size_t p = t.graph->params - 1;
    for (int step = 0; step < steps_of(c) && !t.failed; step++) {
        step_both(&t, step);
        step_fixed(t.cpu, p, lr, (uint64_t)step);
        must(backend->graphs->step_fixed(t.gpu, p, lr, (uint64_t)step, &err), &err, c->name);
        must(backend->graphs->fetch(t.gpu, &err), &err, c->name);
        compare(&t, "a step of the bias");
    }
    printf("%-34s %s\n", c->name, t.failed ? "FAILED" : "equal");
    failures += t.failed;
    close_trial(&t);
}

/* ---- whole steps of training: to the same bits however they are run, and near the CPU's, whose gradients differ in
 * their last bits. Where stochastic rounding decides, such a difference moves one counter in many by one. */

enum { BATCH = 16, WINDOW = 12, VOCABULARY = 23, TOKENS = 400 };

static int32_t text[TOKENS];

static tern_graph *make_network(const char *name, int update) {
    tern_graph *g;
    tern_error err;
    must(tern_graph_create(&g, &err), &err, name);
    tern_value x = tern_graph_input_tokens(g, WINDOW, VOCABULARY);
    x = tern_graph_add(g, "trit_embedding", "table", x, &(tern_attrs){.outputs = VOCABULARY, .width = 40});
    x = tern_graph_add(g, "trit_rmsnorm", "norm", x, NULL);
    x = tern_graph_add(g, "trit_linear", "hidden", x, &(tern_attrs){.outputs = 64, .bias = 1, .update = update});
    x = tern_graph_add(g, "relu2", "relu", x, NULL);
    x = tern_graph_add(g, "trit_rmsnorm", "norm2", x, NULL);
    tern_graph_add(g, "trit_linear", "head", x, &(tern_attrs){.outputs = VOCABULARY, .update = R2});
    must(tern_graph_check(g, &err), &err, name);
    must(tern_graph_place(g, &err), &err, name);
    tern_graph_initialise(g, SEED, 0);
    return g;
}

static void take_windows(int64_t sample[BATCH], int step) {
    for (int i = 0; i < BATCH; i++) sample[i] = tern_random_u32(50 + (uint64_t)step, (uint64_t)i) % (TOKENS - WINDOW);
}

static const float TRAINING_LR = 0.01f;

static void cpu_training_step(tern_plan *plan, int step) {
    int64_t sample[BATCH];
    int32_t x[BATCH * WINDOW], label[BATCH * WINDOW];
    tern_error err;
    take_windows(sample, step);
    for (size_t i = 0; i < BATCH * WINDOW; i++) {
        x[i] = text[(size_t)sample[i / WINDOW] + i % WINDOW];
        label[i] = text[(size_t)sample[i / WINDOW] + i % WINDOW + 1];
    }
    plan->step = (uint64_t)step;
    tern_plan_zero_grad(plan);
    const float *y = tern_plan_forward(plan, x, BATCH);
    const tern_loss_weights weights = {1, 0, 0, 0};
    tern_weighted_loss(2, tern_plan_output_grad(plan), y, label, BATCH * WINDOW, VOCABULARY, 0, &weights, 1);
    tern_plan_backward(plan);
    for (size_t p = 0; p < plan->graph->params; p++)
        if (plan->param_grad[p]) step_fixed(plan, p, TRAINING_LR, (uint64_t)step);
    must(tern_plan_refresh(plan, &err), &err, "training");
}

/* count_trits makes it another kind of step, which is run and captured anew. */
static void gpu_training_step(tern_gpu_plan *plan, int step, size_t params, int count_trits) {
    int64_t sample[BATCH];
    const uint64_t epoch = 0;
    tern_gpu_rule rules[64] = {{0}};
    tern_error err;
    take_windows(sample, step);
    for (size_t p = 0; p < params; p++) rules[p].lr = TRAINING_LR;
    const tern_gpu_step s = {.step = (uint64_t)step,
                             .epoch = &epoch,
                             .sample = sample,
                             .parts = 1,
                             .batch = BATCH,
                             .rule = rules,
                             .lambda = 1,
                             .loss_ce = 1,
                             .count_trits = count_trits,
                             .rule_rate = ONE};
    must(backend->graphs->step(plan, &s, &err), &err, "training");
}

static tern_gpu_plan *open_training(const tern_graph *g) {
    int32_t method[64] = {0};
    tern_gpu_plan *plan;
    tern_error err;
    const tern_gpu_optimizer_desc d = {.method = method, .momentum = 0.9f, .beta1 = 0.9f, .beta2 = 0.95f};
    must(create_on_gpu(&plan, g, BATCH, TERN_F32, 1, SEED, &err), &err, "training");
    must(backend->graphs->set_optimizer(plan, &d, &err), &err, "training");
    must(backend->graphs->set_tokens(plan, text, TOKENS, &err), &err, "training");
    must(backend->graphs->send(plan, 1, &err), &err, "training");
    return plan;
}

/* The share of integers that differ. */
static double differences(const tern_graph *a, const tern_graph *b) {
    size_t off = 0, all = 0;
    for (size_t p = 0; p < a->params; p++) {
        const size_t each = tern_store_bytes(a->param[p].store);
        const char *x = a->param[p].integers, *y = b->param[p].integers;
        for (size_t i = 0; x && i < a->param[p].count; i++) off += memcmp(x + i * each, y + i * each, each) != 0;
        all += x ? a->param[p].count : 0;
    }
    return (double)off / (double)all;
}

static void run_training(const char *name, int update) {
    tern_graph *cpu = make_network(name, update), *one = make_network(name, update),
               *two = make_network(name, update);
    tern_graph *start = make_network(name, update);
    const tern_plan_desc d = {.batch_max = BATCH, .training = 1, .threads = 2, .products = TERN_F32};
    tern_gpu_plan *first = open_training(one), *second = open_training(two);
    tern_gpu_result result;
    tern_plan *plan;
    tern_error err;
    double off = 0;
    const int steps = quick ? 4 : 7; /* at least four: of two kinds of steps, each run and then captured */
    must(tern_plan_create(&plan, cpu, &d, &err), &err, name);
    plan->seed = SEED;
    plan->lambda = 1;
    plan->train_mode = 1;
    for (size_t i = 0; i < cpu->nodes; i++) plan->rules.rate[i] = ONE;
    must(tern_plan_refresh(plan, &err), &err, name);
    for (int step = 0; step < steps; step++) {
        gpu_training_step(first, step, one->params, 0);
        gpu_training_step(second, step, two->params, step % 2);
        if (step) continue;
        cpu_training_step(plan, step);
        must(backend->graphs->fetch(first, &err), &err, name);
        off = differences(one, cpu);
    }
    must(backend->graphs->fetch(first, &err), &err, name);
    must(backend->graphs->fetch(second, &err), &err, name);
    must(backend->graphs->result(first, &result, &err), &err, name);
    const int same = differences(one, two) == 0, moved = differences(one, start) > 0.1;
    const int counted = result.applied == (uint64_t)steps && !result.skipped;
    const int failed = !same || !moved || !counted || !(off < 0.01);
    printf("%-34s %s: %.3g of the integers differ from the CPU's after a step%s%s%s\n", name,
           failed ? "FAILED" : "near", off, same ? "" : ", and from those of steps run otherwise",
           moved ? "" : ", and they hardly move", counted ? "" : ", and steps were skipped");
    failures += failed;
    backend->graphs->release(first);
    backend->graphs->release(second);
    tern_plan_free(&plan);
    tern_graph_free(&cpu);
    tern_graph_free(&one);
    tern_graph_free(&two);
    tern_graph_free(&start);
}

#define LINEAR(name, inputs, gradients, rate, ...) \
    { name, "trit_linear", 0, 0, inputs, {.floats = 1, __VA_ARGS__}, 0, gradients, rate, 7 }
#define INT8(name, inputs, batch, ...) \
    { name, "trit_linear", 0, 0, inputs, {__VA_ARGS__}, batch, NORMAL, TERN_RATE_ONE, 7 }
#define TABLE(name, rows, gradients, rate, ...) \
    { name, "trit_embedding", 30, 0, rows, {.outputs = rows, __VA_ARGS__}, 5, gradients, rate, 7 }
#define CONV(name, channels, ...) \
    { name, "trit_conv2d", 9, 8, channels, {.kernel = 3, __VA_ARGS__}, 5, NORMAL, TERN_RATE_ONE, 7 }

static const rules_case cases[] = {
    LINEAR("r1", 64, NORMAL, ONE, .outputs = 40, .update = R1),
    LINEAR("r1, odd sizes", 37, MIXED, 3000, .outputs = 29, .update = R1),
    LINEAR("r1, sparse", 61, SPARSE, ONE, .outputs = 40, .update = R1),
    LINEAR("r1, huge", 40, HUGE_ONES, TERN_RATE_MAX, .outputs = 40, .update = R1),
    LINEAR("r1, tiny", 40, TINY, 77, .outputs = 40, .update = R1),
    LINEAR("r1, zeros at first", 40, ZEROS, ONE, .outputs = 40, .update = R1),
    LINEAR("r1, tiles", 1000, NORMAL, 2 * ONE, .outputs = 600, .update = R1),
    LINEAR("r1, not finite", 1000, STRANGE, 2 * ONE, .outputs = 600, .update = R1),
    LINEAR("r1, no rate", 40, NORMAL, 0, .outputs = 40, .update = R1),
    LINEAR("r2", 64, NORMAL, ONE, .outputs = 40, .update = R2),
    LINEAR("r2, odd sizes", 37, MIXED, 3000, .outputs = 29, .update = R2),
    LINEAR("r2, sparse", 61, SPARSE, ONE, .outputs = 40, .update = R2),
    LINEAR("r2, huge", 40, HUGE_ONES, TERN_RATE_MAX, .outputs = 40, .update = R2),
    LINEAR("r2, tiny", 40, TINY, 77, .outputs = 40, .update = R2),
    LINEAR("r2, tiles", 900, NORMAL, 2 * ONE, .outputs = 611, .update = R2),
    LINEAR("vote", 64, NORMAL, 9 * ONE, .outputs = 40, .update = VOTE, .granularity = TERN_PER_ROW),
    LINEAR("vote, odd sizes", 33, SPARSE, TERN_RATE_MAX, .outputs = 17, .update = VOTE),
    LINEAR("vote, groups", 48, NORMAL, 9 * ONE, .outputs = 17, .update = VOTE, .group = 8),
    LINEAR("seed-corr", 64, NORMAL, ONE, .outputs = 40, .update = CORR),
    LINEAR("seed-corr, rows", 37, MIXED, ONE, .outputs = 29, .update = CORR, .granularity = TERN_PER_ROW),
    LINEAR("slow exponents", 64, NORMAL, ONE, .outputs = 40, .update = R1, .slow_exponents = 1),
    LINEAR("slow exponents, groups", 37, NORMAL, ONE, .outputs = 40, .update = R2, .slow_exponents = 1, .group = 8),
    LINEAR("group rates", 64, MIXED, ONE, .outputs = 40, .update = R1, .group_rates = 1, .granularity = TERN_PER_ROW),
    LINEAR("group rates, groups", 70, MIXED, ONE, .outputs = 40, .update = R2, .group_rates = 1, .group = 16),
    LINEAR("group thresholds", 64, NORMAL, ONE, .outputs = 40, .update = R2, .group_thresholds = 1),
    LINEAR("group thresholds, groups", 70, NORMAL, ONE, .outputs = 40, .update = R1, .group_thresholds = 1,
           .group = 16),
    INT8("int8, r2", 40, 9, .outputs = 24, .update = R2),
    INT8("int8, r1, odd sizes", 37, 5, .outputs = 19, .update = R1),
    INT8("int8, tiles", 800, 6, .outputs = 700, .update = R2),
    TABLE("table, r1", 60, NORMAL, ONE, .width = 40, .update = R1),
    TABLE("table, r2, odd sizes", 301, MIXED, 3 * ONE, .width = 37, .update = R2, .granularity = TERN_PER_ROW),
    TABLE("table, vote", 60, NORMAL, 9 * ONE, .width = 40, .update = VOTE),
    TABLE("table, seed-corr", 60, NORMAL, ONE, .width = 40, .update = CORR, .granularity = TERN_PER_ROW),
    TABLE("table, not finite", 60, STRANGE, ONE, .width = 40, .update = R2),
    TABLE("table, zeros at first", 60, ZEROS, ONE, .width = 40, .update = R2),
    TABLE("table, slow exponents", 60, NORMAL, ONE, .width = 40, .update = R2, .group = 8, .slow_exponents = 1),
    TABLE("table, thresholds", 60, NORMAL, ONE, .width = 40, .update = R2, .group = 8, .group_thresholds = 1),
    CONV("conv", 8, .outputs = 12, .padding = 1, .update = R2),
    CONV("conv, stride 2", 6, .outputs = 11, .stride = 2, .update = R1),
    CONV("conv, floats", 6, .outputs = 11, .padding = 1, .floats = 1, .update = R2),
    CONV("conv, groups", 8, .outputs = 12, .padding = 1, .groups = 4, .update = R2),
    CONV("conv, tiles", 160, .outputs = 200, .padding = 1, .update = R1),
};

static const rules_case fixed_cases[] = {
    {"fixed", "trit_linear", 0, 0, 40, {.outputs = 999, .bias = 1}, 1, NORMAL, ONE, 0},
    {"fixed, many", "trit_linear", 0, 0, 4, {.outputs = 70001, .bias = 1}, 1, NORMAL, 0, 0},
};

/* Cases that send other values to code that others reach too. */
static int is_of_values(const rules_case *c) {
    const int values = c->gradients == SPARSE || c->gradients == HUGE_ONES || c->gradients == TINY || !c->rate;
    return values && c->at.update != VOTE;
}

static int is_slow(const rules_case *c) { return c->at.slow_exponents || c->at.group_thresholds; }

static void run_late(const rules_case *c) {
    rules_case late = *c;
    char name[80];
    snprintf(name, sizeof name, "%s, once in a thousand", c->name);
    late.name = name;
    late.first_step = ONCE_IN - 3; /* the third step is the one */
    run_case(&late);
}

/* Of those that are slow, quick: two usual steps come before the one. */
static void run_cases(const char *wanted) {
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const rules_case *c = &cases[i];
        if (!strstr(c->name, wanted) || (quick && is_of_values(c))) continue;
        if (!quick || !is_slow(c)) run_case(c);
        if (is_slow(c)) run_late(c);
    }
    for (size_t i = 0; i < sizeof fixed_cases / sizeof *fixed_cases; i++)
        for (int k = 0; k < (quick ? 1 : 2) && strstr(fixed_cases[i].name, wanted); k++)
            run_fixed(&fixed_cases[i], k ? 3e-3f : 0.7f);
}

static void run_trainings(void) {
    for (size_t i = 0; i < TOKENS; i++) text[i] = (int32_t)draw(VOCABULARY);
    run_training("training, r1", R1);
    if (!quick) run_training("training, r2", R2);
    if (!quick) run_training("training, vote", VOTE);
    run_training("training, ortho", TERN_UPDATE_ORTHO);
}

int main(int argc, char **argv) {
    quick = argc > 1 && !strcmp(argv[1], "--quick");
    const char *wanted = argc > 1 + quick ? argv[1 + quick] : "";
    if (open_gpu()) return SKIPPED;
    run_cases(wanted);
    if (strstr("training", wanted)) run_trainings();
    backend->close(context);
    printf("%d failed\n", failures);
    return failures != 0;
}
