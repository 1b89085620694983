/* Training steps on the GPU against the same steps on the CPU: batches to the bit, parameters and the optimiser's
 * state within a distance, skipped steps that change nothing, and the same bits however a step was run.
 *
 *   train_test [NAME | I/N]      the I-th of every N cases; one line a case; ends with the number of failures */
#include <string.h>

#include "base/checked.h"
#include "base/random.h"
#include "io/augment.h"
#include "nn/loss.h"
#include "nn/op.h"
#include "nn/plan.h"
#include "on_gpu.h"
#include "train/optimizer.h"

enum { SIDE = 8, IMAGES = 60, BATCH = 24, STEPS = 6, TOKENS = 500, WINDOW = 12, VOCABULARY = 17 };

static int failures;

static void fail(const char *name, const char *what) {
    failures++;
    printf("FAILED %s: %s\n", name, what);
}

/* ---- what is trained */

/* Wide, square (two of one shape) and tall matrices. */
static void mlp_of(tern_graph *g, size_t classes, int norm) {
    tern_value x = tern_graph_input(g, (tern_shape){3, {SIDE, SIDE, 3}});
    x = tern_graph_add(g, "flatten", "flat", x, NULL);
    x = tern_graph_add(g, "linear", "first", x, &(tern_attrs){.outputs = 24, .bias = 1});
    if (norm) x = tern_graph_add(g, "batch_norm", "norm", x, NULL);
    x = tern_graph_add(g, "relu", "relu1", x, NULL);
    x = tern_graph_add(g, "linear", "second", x, &(tern_attrs){.outputs = 24});
    x = tern_graph_add(g, "relu", "relu2", x, NULL);
    x = tern_graph_add(g, "linear", "third", x, &(tern_attrs){.outputs = 24, .bias = 1});
    x = tern_graph_add(g, "relu", "relu3", x, NULL);
    x = tern_graph_add(g, "linear", "fourth", x, &(tern_attrs){.outputs = 64});
    tern_graph_add(g, "linear", "head", x, &(tern_attrs){.outputs = classes, .bias = 1});
}
static void mlp(tern_graph *g) { mlp_of(g, 10, 0); }
static void mlp_of_many_classes(tern_graph *g) { mlp_of(g, 1500, 0); }
static void normed_mlp(tern_graph *g) { mlp_of(g, 10, 1); }
static void ternary_mlp(tern_graph *g) {
    tern_value x = tern_graph_input(g, (tern_shape){3, {SIDE, SIDE, 3}});
    x = tern_graph_add(g, "flatten", "flat", x, NULL);
    x = tern_graph_add(g, "bit_linear", "first", x, &(tern_attrs){.outputs = 48, .bias = 1});
    x = tern_graph_add(g, "relu", "relu1", x, NULL);
    x = tern_graph_add(g, "bit_linear", "second", x, &(tern_attrs){.outputs = 40, .granularity = TERN_PER_ROW});
    x = tern_graph_add(g, "relu", "relu2", x, NULL);
    tern_graph_add(g, "bit_linear", "head", x, &(tern_attrs){.outputs = 10, .bias = 1});
}
static void text(tern_graph *g) {
    tern_value x = tern_graph_input_tokens(g, WINDOW, VOCABULARY);
    x = tern_graph_add(g, "embedding", "table", x, &(tern_attrs){.outputs = VOCABULARY, .width = 16});
    tern_graph_add(g, "linear", "head", x, &(tern_attrs){.outputs = VOCABULARY, .bias = 1});
}

typedef struct train_case {
    const char *name;
    void (*build)(tern_graph *graph);
    tern_method matrices, others;
    float lr, lr_others, decay;
    int normalise;
    double clip;
    size_t parts;
    float smoothing;
    tern_loss_weights loss;
    double tolerance; /* of what the steps change, in fp32; of bf16 below */
    double tolerance_bf16;
    int int8_gradients;
} train_case;

#define CE \
    { 1, 0, 0, 0 }
/* Steps that turn many trits: of what they were before, gradients would be others. */
static const train_case int8_case = {.name = "int8 gradients",
                                     .build = ternary_mlp,
                                     .matrices = TERN_SGD,
                                     .others = TERN_SGD,
                                     .lr = 0.5f,
                                     .lr_others = 0.02f,
                                     .parts = 2,
                                     .loss = CE,
                                     .int8_gradients = 1};

/* With weights of make_hot what flows back through HOT_UNIT is more than fp16 has. */
enum { HOT_UNIT = 5, HOT_LOSS = 127 };
static const train_case hot_case = {"a gradient beyond fp16", mlp,  TERN_SGD, TERN_SGD, 0.01f, 0.01f, 0, 0, 0, 1, 0,
                                    {HOT_LOSS, 0, 0, 0},      1e-4, 0.2,      0};

/* AdamW divides by the root of squares, and Muon makes every direction as long: what rounding leaves of a gradient
 * that cancels counts as much as the rest. */
static const train_case cases[] = {
    {"sgd", mlp, TERN_SGD, TERN_SGD, 0.05f, 0.02f, 1e-2f, 0, 0, 1, 0, CE, 1e-4, 0.2, 0},
    {"sgd, clipped", mlp, TERN_SGD, TERN_SGD, 0.05f, 0.02f, 1e-2f, 0, 0.3, 1, 0, CE, 1e-4, 0.2, 0},
    {"sgd, three batches a step", mlp, TERN_SGD, TERN_SGD, 0.05f, 0.02f, 1e-2f, 0, 0, 3, 0.2f, CE, 1e-4, 0.2, 0},
    {"all parts of a loss", mlp, TERN_SGD, TERN_SGD, 0.05f, 0.02f, 0, 0, 0, 1, 0.1f, {3, -1, 2, 2}, 1e-4, 0.2, 0},
    {"a loss without cross entropy",
     mlp,
     TERN_SGD,
     TERN_SGD,
     0.05f,
     0.02f,
     0,
     0,
     0,
     1,
     0,
     {0, 1, 2, 1},
     1e-4,
     0.2,
     0},
    {"many classes",
     mlp_of_many_classes,
     TERN_SGD,
     TERN_SGD,
     0.05f,
     0.02f,
     0,
     0,
     0,
     1,
     0.1f,
     {2, 1, 1, 1},
     1e-4,
     0.2,
     0},
    {"adamw", mlp, TERN_ADAMW, TERN_ADAMW, 1e-3f, 2e-3f, 0.1f, 0, 0, 1, 0, CE, 2e-3, 0.4, 0},
    {"adamw, clipped", mlp, TERN_ADAMW, TERN_ADAMW, 1e-3f, 2e-3f, 0.1f, 0, 0.3, 2, 0.1f, CE, 2e-3, 0.4, 0},
    {"muon", mlp, TERN_MUON, TERN_ADAMW, 0.02f, 1e-3f, 0.1f, 0, 0, 1, 0, CE, 2e-3, 0.5, 0},
    {"muon, clipped", mlp, TERN_MUON, TERN_SGD, 0.02f, 1e-2f, 0.1f, 0, 0.3, 2, 0.1f, CE, 2e-3, 0.5, 0},
    {"muon, normalised", mlp, TERN_MUON, TERN_SGD, 0.1f, 1e-2f, 0.1f, 1, 0, 1, 0, CE, 2e-3, 0.5, 0},
    {"batch norm", normed_mlp, TERN_SGD, TERN_SGD, 0.05f, 0.02f, 1e-2f, 0, 0, 2, 0, CE, 1e-3, 0.2, 0},
    {"text", text, TERN_ADAMW, TERN_SGD, 1e-3f, 0.02f, 0.1f, 0, 0, 2, 0, CE, 2e-3, 0.4, 0},
};

static tern_graph *make_graph(void (*build)(tern_graph *), const char *name) {
    tern_graph *g;
    tern_error err;
    must(tern_graph_create(&g, &err), &err, name);
    build(g);
    must(tern_graph_check(g, &err), &err, name);
    must(tern_graph_place(g, &err), &err, name);
    tern_graph_initialise(g, 11, 0);
    return g;
}

/* ---- data */

static uint8_t images[IMAGES * SIDE * SIDE * 3];
static int32_t labels[IMAGES], tokens[TOKENS];

static void make_data(size_t classes) {
    for (size_t i = 0; i < sizeof images; i++) images[i] = (uint8_t)tern_random_u32(31, i);
    for (size_t i = 0; i < IMAGES; i++) labels[i] = (int32_t)(tern_random_u32(32, i) % classes);
    for (size_t i = 0; i < TOKENS; i++) tokens[i] = (int32_t)(tern_random_u32(33, i) % VOCABULARY);
}

/* The samples of batch number `position`, and its epoch. */
static uint64_t take_samples(int64_t *sample, const tern_graph *g, uint64_t position) {
    const uint32_t n = g->vocabulary ? TOKENS - WINDOW : IMAGES;
    for (size_t i = 0; i < BATCH; i++) sample[i] = tern_random_u32(40 + position, i) % n;
    return position / 2;
}

static const tern_augment plain_augment = {
    .crop_pad = 2, .flip = TERN_FLIP_RANDOM, .mean = {0.5f, 0.4f, 0.6f}, .std = {0.25f, 0.3f, 0.2f}};

static tern_gpu_images describe_images(const tern_augment *a, size_t height, size_t width, size_t channels) {
    tern_gpu_images d = {.images = images,
                         .labels = labels,
                         .count = tern_min_size(IMAGES, sizeof images / (height * width * channels)),
                         .height = height,
                         .width = width,
                         .channels = channels,
                         .seed = 9,
                         .crop_pad = a->crop_pad,
                         .crop_reflect = a->crop_padding == TERN_PADDING_REFLECT,
                         .flip = (int)a->flip,
                         .brightness = a->brightness,
                         .contrast = a->contrast,
                         .saturation = a->saturation,
                         .cutout = a->cutout};
    memcpy(d.mean, a->mean, sizeof d.mean);
    memcpy(d.std, a->std, sizeof d.std);
    return d;
}

static void init_augmenter(tern_augmenter *augmenter, const tern_augment *a, size_t height, size_t width,
                           size_t channels) {
    const tern_dataset_info info = {.height = height, .width = width, .channels = channels};
    tern_error err;
    must(tern_augmenter_init(augmenter, a, &info, 9, 0, &err), &err, "an augmenter");
}

/* The batch as the CPU's loader makes it: x holds floats, or tokens. */
static void make_batch(float *x, int32_t *label, const tern_graph *g, uint64_t position) {
    int64_t sample[BATCH];
    const uint64_t epoch = take_samples(sample, g, position);
    if (g->vocabulary) {
        for (size_t i = 0; i < BATCH * WINDOW; i++) {
            const size_t at = (size_t)sample[i / WINDOW] + i % WINDOW;
            ((int32_t *)(void *)x)[i] = tokens[at];
            label[i] = tokens[at + 1];
        }
        return;
    }
    const size_t size = SIDE * SIDE * 3;
    tern_augmenter augmenter;
    init_augmenter(&augmenter, &plain_augment, SIDE, SIDE, 3);
    for (size_t i = 0; i < BATCH; i++) {
        tern_augment_image(x + i * size, &augmenter, images + (size_t)sample[i] * size, epoch, (uint64_t)sample[i]);
        label[i] = labels[sample[i]];
    }
    tern_augmenter_free(&augmenter);
}

/* ---- the rules of a step */

static int is_matrix(const tern_param *p) { return p->rank >= 2; }
static tern_method method_of(const train_case *c, const tern_param *p) {
    return is_matrix(p) ? c->matrices : c->others;
}

/* A vector that never moves, and a matrix that stops half way. */
static tern_param_rule rule_of(const train_case *c, const tern_graph *g, size_t p, uint64_t step) {
    const tern_param *param = &g->param[p];
    tern_param_rule rule = {.method = method_of(c, param)};
    rule.lr = (is_matrix(param) ? c->lr : c->lr_others) * (1 - 0.1f * (float)step);
    rule.decay = is_matrix(param) ? c->decay : 0;
    rule.frozen = !strcmp(param->name, "first.bias") || (step >= 4 && !strcmp(param->name, "second.weight"));
    return rule;
}

/* ---- on the CPU, as train/trainer.c does it */

typedef struct cpu_run {
    const train_case *c;
    tern_graph *graph;
    tern_plan *plan;
    tern_optimizer *optimizer;
    double loss, norm;
} cpu_run;

static void cpu_open(cpu_run *r, const train_case *c) {
    tern_error err;
    tern_method methods[64];
    *r = (cpu_run){.c = c, .graph = make_graph(c->build, c->name)};
    const tern_plan_desc d = {.batch_max = BATCH, .training = 1, .threads = 2, .products = TERN_F32};
    must(tern_plan_create(&r->plan, r->graph, &d, &err), &err, c->name);
    r->plan->seed = 5;
    for (size_t p = 0; p < r->graph->params; p++) methods[p] = method_of(c, &r->graph->param[p]);
    must(tern_optimizer_create(&r->optimizer, r->plan, methods, &err), &err, c->name);
    r->optimizer->normalise = c->normalise;
    must(tern_plan_refresh(r->plan, &err), &err, c->name);
}

static void cpu_close(cpu_run *r) {
    tern_optimizer_free(&r->optimizer);
    tern_plan_free(&r->plan);
    tern_graph_free(&r->graph);
}

static void cpu_step(cpu_run *r, uint64_t step) {
    static float x[BATCH * SIDE * SIDE * 3];
    static int32_t label[BATCH * WINDOW];
    const train_case *c = r->c;
    const tern_node *out = &r->graph->node[r->graph->nodes - 1];
    tern_error err;
    double sum = 0;
    tern_plan_zero_grad(r->plan);
    r->plan->train_mode = 1;
    for (uint64_t part = 0; part < c->parts; part++) {
        r->plan->step = step * c->parts + part;
        make_batch(x, label, r->graph, r->plan->step);
        const float *y = tern_plan_forward(r->plan, x, BATCH);
        const tern_loss l = tern_weighted_loss(2, tern_plan_output_grad(r->plan), y, label, BATCH * out->rows,
                                               out->channels, c->smoothing, &c->loss, 1.0f / (float)c->parts);
        sum += l.sum / (double)l.rows;
        tern_plan_backward(r->plan);
    }
    r->loss = sum / (double)c->parts;
    r->norm = tern_gradient_norm(r->plan);
    const float factor = c->clip > 0 && r->norm > c->clip ? (float)(c->clip / r->norm) : 1;
    for (size_t p = 0; p < r->graph->params; p++) {
        const tern_param_rule rule = rule_of(c, r->graph, p, step);
        tern_optimizer_step(r->optimizer, p, &rule, factor, step + 1);
    }
    must(tern_plan_refresh(r->plan, &err), &err, c->name);
}

static void cpu_recalibrate(cpu_run *r, int number) {
    static float x[BATCH * SIDE * SIDE * 3];
    static int32_t label[BATCH * WINDOW];
    make_batch(x, label, r->graph, (uint64_t)number);
    r->plan->recalibrating = number;
    r->plan->step = 100 + (uint64_t)number;
    tern_plan_forward(r->plan, x, BATCH);
    r->plan->recalibrating = 0;
}

/* ---- on the GPU */

typedef struct gpu_run {
    const train_case *c;
    tern_graph *graph;
    tern_gpu_plan *plan;
} gpu_run;

static void gpu_close(gpu_run *r) {
    if (r->plan) backend->graphs->release(r->plan);
    tern_graph_free(&r->graph);
}

/* 0 where an operation is not there. */
static int gpu_open(gpu_run *r, const train_case *c, tern_dtype type) {
    tern_error err;
    int32_t methods[64];
    *r = (gpu_run){.c = c, .graph = make_graph(c->build, c->name)};
    const tern_gpu_plan_desc plan = {.graph = r->graph,
                                     .batch_max = BATCH,
                                     .training = 1,
                                     .values = type,
                                     .int8_gradients = c->int8_gradients,
                                     .seed = 5};
    const tern_status status = create_as(&r->plan, plan, &err);
    if (status == TERN_E_UNSUPPORTED && strstr(err.message, "does not run on a GPU yet")) {
        printf("%-32s skipped: %s\n", c->name, err.message);
        gpu_close(r);
        return 0;
    }
    must(status, &err, c->name);
    for (size_t p = 0; p < r->graph->params; p++) methods[p] = (int32_t)method_of(c, &r->graph->param[p]);
    const tern_gpu_optimizer_desc d = {.method = methods,
                                       .momentum = 0.9f,
                                       .beta1 = 0.9f,
                                       .beta2 = 0.95f,
                                       .newton_steps = 5,
                                       .normalise = c->normalise,
                                       .clip = c->clip};
    must(backend->graphs->set_optimizer(r->plan, &d, &err), &err, c->name);
    make_data(r->graph->vocabulary ? VOCABULARY : r->graph->node[r->graph->nodes - 1].channels);
    const tern_gpu_images data = describe_images(&plain_augment, SIDE, SIDE, 3);
    must(r->graph->vocabulary ? backend->graphs->set_tokens(r->plan, tokens, TOKENS, &err)
                              : backend->graphs->set_images(r->plan, &data, &err),
         &err, c->name);
    must(backend->graphs->send(r->plan, 1, &err), &err, c->name);
    return 1;
}

/* How a step is run: kinds that have come before are captured, then replayed. None of it changes what dense layers
 * do. */
static void gpu_step(gpu_run *r, uint64_t step, float lambda, int count_trits) {
    const train_case *c = r->c;
    int64_t sample[4 * BATCH];
    uint64_t epoch[4];
    tern_gpu_rule rules[64];
    tern_error err;
    for (size_t part = 0; part < c->parts; part++)
        epoch[part] = take_samples(sample + part * BATCH, r->graph, step * c->parts + part);
    for (size_t p = 0; p < r->graph->params; p++) {
        const tern_param_rule rule = rule_of(c, r->graph, p, step);
        rules[p] = (tern_gpu_rule){(int32_t)rule.method, rule.frozen, rule.lr, rule.decay};
    }
    const tern_gpu_step s = {.step = step,
                             .epoch = epoch,
                             .sample = sample,
                             .parts = c->parts,
                             .batch = BATCH,
                             .rule = rules,
                             .lambda = lambda,
                             .smoothing = c->smoothing,
                             .loss_ce = c->loss.ce,
                             .loss_entropy = c->loss.entropy,
                             .loss_z = c->loss.z,
                             .loss_shift = c->loss.shift,
                             .count_trits = count_trits};
    must(backend->graphs->step(r->plan, &s, &err), &err, c->name);
}

/* Recalibration is a batch and a forward pass; x, if any: the batch. */
static void gather(gpu_run *g, const int64_t *sample, uint64_t epoch, int number, float *x) {
    tern_error err;
    const tern_gpu_step s = {
        .step = 100 + (uint64_t)number, .epoch = &epoch, .sample = sample, .parts = 1, .batch = BATCH, .loss_ce = 1};
    must(backend->graphs->recalibrate(g->plan, &s, number, &err), &err, g->c->name);
    if (x) must(backend->graphs->read_node(g->plan, x, 0, 0, &err), &err, g->c->name);
}

static tern_gpu_result gpu_result(gpu_run *r) {
    tern_gpu_result result;
    tern_error err;
    must(backend->graphs->result(r->plan, &result, &err), &err, r->c->name);
    return result;
}

/* All parameters and both parts of the optimiser's state, one behind the other. */
static float *gpu_everything(gpu_run *r, size_t *n) {
    tern_error err;
    size_t total = 0;
    must(backend->graphs->fetch(r->plan, &err), &err, r->c->name);
    for (size_t p = 0; p < r->graph->params; p++) total += 3 * r->graph->param[p].count;
    float *all = room(total), *at = all;
    memset(all, 0, total * sizeof *all);
    for (size_t p = 0; p < r->graph->params; p++, at += 2 * r->graph->param[p - 1].count) {
        const size_t count = r->graph->param[p].count;
        memcpy(at, r->graph->param[p].value, count * sizeof *at);
        at += count;
        must(backend->graphs->fetch_state(r->plan, p, at, at + count, &err), &err, r->c->name);
    }
    *n = total;
    return all;
}

/* ---- steps beside each other */

static double worst;
static const char *where;

static void compare(const train_case *c, tern_dtype type, const float *got, const float *want, const float *start,
                    size_t n, const char *name) {
    float *moved = room(n), *should = room(n);
    for (size_t i = 0; i < n; i++) {
        moved[i] = got[i] - (start ? start[i] : 0);
        should[i] = want[i] - (start ? start[i] : 0);
    }
    const double d = distance(moved, should, n),
                 most = type == TERN_F32 ? c->tolerance : c->tolerance_bf16 / (type == TERN_F16 ? 2 : 1);
    if (d > worst) {
        worst = d;
        where = name;
    }
    if (!(d <= most)) {
        failures++;
        printf("FAILED %s, %s: %s is %.3g off (at most %.3g)\n", c->name, name_of(type), name, d, most);
    }
    free(moved);
    free(should);
}

static void compare_parameters(gpu_run *g, cpu_run *r, tern_dtype type) {
    tern_graph *start = make_graph(g->c->build, g->c->name);
    tern_error err;
    must(backend->graphs->fetch(g->plan, &err), &err, g->c->name);
    for (size_t p = 0; p < start->params; p++) {
        const tern_param *param = &start->param[p];
        compare(g->c, type, g->graph->param[p].value, r->graph->param[p].value, param->value, param->count,
                r->graph->param[p].name);
        for (int second = 0; second < 2; second++) {
            const float *want = second ? r->optimizer->second[p] : r->optimizer->first[p];
            float *got = room(param->count);
            if (want) {
                must(backend->graphs->fetch_state(g->plan, p, second ? NULL : got, second ? got : NULL, &err), &err,
                     g->c->name);
                compare(g->c, type, got, want, NULL, param->count, r->graph->param[p].name);
            }
            free(got);
        }
    }
    tern_graph_free(&start);
}

/* A loss's scale to go on with; good_in_row: steps since it changed. */
static void set_scale(gpu_run *r, double scale, uint64_t good_in_row) {
    tern_gpu_result counts = gpu_result(r);
    tern_error err;
    counts.scaling = (tern_gpu_loss_scale){scale, 0, good_in_row};
    must(backend->graphs->set_counts(r->plan, &counts, &err), &err, r->c->name);
}

static int is_near(double got, double want, double most) { return fabs(got - want) <= most * fabs(want) + 1e-12; }

static void compare_with_cpu(const train_case *c, tern_dtype type) {
    gpu_run g;
    cpu_run r;
    if (!gpu_open(&g, c, type)) return;
    cpu_open(&r, c);
    if (type == TERN_F16) set_scale(&g, 256, 0); /* so little that no step of these overflows */
    worst = 0;
    where = "nothing";
    /* With the rounding of 16 bits networks of noise soon go ways of their own. */
    const uint64_t steps = type == TERN_F32 ? STEPS : 2;
    for (uint64_t step = 0; step < steps; step++) {
        cpu_step(&r, step);
        gpu_step(&g, step, 1, 0);
        const tern_gpu_result result = gpu_result(&g);
        const double most = type == TERN_F32 ? 1e-4 : 0.1;
        if (!is_near(result.loss, r.loss, most) || !is_near(result.gradient_norm, r.norm, most) ||
            result.applied != step + 1 || result.skipped) {
            failures++;
            printf("FAILED %s, step %d: loss %.9g, norm %.9g, %d applied; should be %.9g, %.9g\n", c->name, (int)step,
                   result.loss, result.gradient_norm, (int)result.applied, r.loss, r.norm);
        }
    }
    compare_parameters(&g, &r, type);
    for (int number = 1; number <= 3; number++) {
        int64_t sample[BATCH];
        const uint64_t epoch = take_samples(sample, g.graph, (uint64_t)number);
        cpu_recalibrate(&r, number);
        gather(&g, sample, epoch, number, NULL);
    }
    compare_parameters(&g, &r, type);
    printf("%-32s %s  worst %.2g, %s\n", c->name, name_of(type), worst, where);
    fflush(stdout);
    cpu_close(&r);
    gpu_close(&g);
}

/* ---- the same bits */

/* Steps launch by launch (each of a kind of its own), or captured and replayed; asked after each, or only at the
 * end. */
static float *run_steps(const train_case *c, tern_dtype type, int captured, size_t *n) {
    static const struct {
        float lambda;
        int count;
    } kinds[STEPS] = {{1, 0}, {1, 1}, {0.5f, 0}, {0.5f, 0}, {0.5f, 1}, {1, 0}};
    gpu_run g;
    if (!gpu_open(&g, c, type)) return NULL;
    for (uint64_t step = 0; step < STEPS; step++) {
        gpu_step(&g, step, captured ? 1 : kinds[step].lambda, captured ? 0 : kinds[step].count);
        if (!captured) gpu_result(&g);
    }
    float *all = gpu_everything(&g, n);
    gpu_close(&g);
    return all;
}

static void compare_runs(const train_case *c, tern_dtype type) {
    size_t n = 0;
    float *first = run_steps(c, type, 1, &n), *again = first ? run_steps(c, type, 1, &n) : NULL;
    float *plain = first ? run_steps(c, type, 0, &n) : NULL;
    if (first && memcmp(first, again, n * sizeof *first)) fail(c->name, "two runs differ");
    if (first && memcmp(first, plain, n * sizeof *first)) fail(c->name, "captured steps and plain ones differ");
    free(first);
    free(again);
    free(plain);
}

/* ---- skipped steps */

/* Two good steps, then one with a weight that is not finite - plain, captured or replayed - and a good one again. */
static void skip_step(const train_case *c, tern_dtype type, float value, int kind) {
    gpu_run g;
    tern_error err;
    size_t n = 0;
    if (!gpu_open(&g, c, type)) return;
    if (type == TERN_F16) set_scale(&g, 256, 0);
    for (uint64_t step = 0; step < 2; step++) gpu_step(&g, step, 1, 0);
    for (int i = 0; i < kind; i++) gpu_step(&g, 2, 1, 1);
    must(backend->graphs->fetch(g.plan, &err), &err, c->name);
    const size_t head = (size_t)g.graph->node[g.graph->nodes - 1].param[0];
    float *weight = g.graph->param[head].value, good = weight[3];
    weight[3] = value;
    must(backend->graphs->send(g.plan, 1, &err), &err, c->name);
    const tern_gpu_result before = gpu_result(&g);
    float *old = gpu_everything(&g, &n);
    gpu_step(&g, 2, 1, 1);
    float *new = gpu_everything(&g, &n);
    const tern_gpu_result after = gpu_result(&g);
    if (memcmp(old, new, n * sizeof *old)) fail(c->name, "a skipped step has changed something");
    if (after.skipped != before.skipped + 1 || after.skipped_in_row != 1 || after.applied != before.applied)
        fail(c->name, "a step with a NaN or Inf is not counted as skipped");
    if (after.scaling.scale != before.scaling.scale || after.scaling.overflowed)
        fail(c->name, "a loss that is not finite has changed its scale");
    weight[3] = good;
    must(backend->graphs->send(g.plan, 1, &err), &err, c->name);
    gpu_step(&g, 3, 1, 1);
    const tern_gpu_result last = gpu_result(&g);
    if (last.skipped != after.skipped || last.skipped_in_row || last.applied != before.applied + 1)
        fail(c->name, "a good step after a skipped one is not counted as such");
    free(old);
    free(new);
    gpu_close(&g);
}

/* ---- the loss's scale */

/* Large weights behind a unit that is always 0: logits do not know of them, gradients in front of them do, whatever
 * the label: they are of either sign. */
static void make_hot(gpu_run *g) {
    tern_error err;
    must(backend->graphs->fetch(g->plan, &err), &err, g->c->name);
    for (size_t p = 0; p < g->graph->params; p++) {
        tern_param *param = &g->graph->param[p];
        const size_t columns = param->rank == 2 ? param->dim[1] : 0;
        if (!strcmp(param->name, "fourth.weight"))
            memset(param->value + HOT_UNIT * columns, 0, columns * sizeof *param->value);
        if (!strcmp(param->name, "head.weight"))
            for (size_t row = 0; row < param->dim[0]; row++)
                param->value[row * columns + HOT_UNIT] = row % 2 ? 6e4f : -6e4f;
    }
    must(backend->graphs->send(g->plan, 1, &err), &err, g->c->name);
}

/* Steps that overflow down to the least scale, and one more: plain, captured and replayed ones. */
static void overflow(void) {
    gpu_run g;
    size_t n = 0;
    enum { HALVINGS = 3 };
    if (!gpu_open(&g, &hot_case, TERN_F16)) return;
    const double start = gpu_result(&g).scaling.scale;
    make_hot(&g);
    float *old = gpu_everything(&g, &n);
    gpu_step(&g, 0, 1, 0);
    if (gpu_result(&g).scaling.scale != start / 2) fail(hot_case.name, "a scale of the start is not halved");
    set_scale(&g, 1 << HALVINGS, 0);
    for (uint64_t step = 0; step <= HALVINGS; step++) {
        gpu_step(&g, step, 1, 0);
        const tern_gpu_result now = gpu_result(&g);
        const uint64_t halved = step < HALVINGS ? step + 1 : HALVINGS;
        if (now.scaling.scale != (1 << (HALVINGS - halved)) || now.scaling.overflowed != halved || now.applied ||
            now.skipped != (step == HALVINGS) || now.skipped_in_row != now.skipped || !isfinite(now.loss))
            fail(hot_case.name, "an overflow is not what halves the scale down to 1, and from there a skipped step");
    }
    float *new = gpu_everything(&g, &n);
    if (memcmp(old, new, n * sizeof *old)) fail(hot_case.name, "a step that overflowed has changed something");
    free(old);
    free(new);
    gpu_close(&g);
}

/* From a scale that is far too large down to one that does; up again after many good steps. */
static void find_scale(const train_case *c) {
    enum { PATIENCE = 1000 };
    gpu_run g;
    if (!gpu_open(&g, c, TERN_F16)) return;
    set_scale(&g, (double)(1 << 30), 0);
    uint64_t step = 0;
    while (step < 40 && !gpu_result(&g).applied) gpu_step(&g, step++, 1, 0);
    tern_gpu_result now = gpu_result(&g);
    if (now.applied != 1 || now.skipped || !now.scaling.overflowed || now.scaling.good_in_row != 1 ||
        now.scaling.scale != ldexp(1, 30 - (int)now.scaling.overflowed))
        fail(c->name, "the scale does not come down to what fp16 can take");
    set_scale(&g, 64, PATIENCE - 2);
    gpu_step(&g, step++, 1, 0);
    now = gpu_result(&g);
    if (now.scaling.scale != 64 || now.scaling.good_in_row != PATIENCE - 1)
        fail(c->name, "a good step is not counted, or the scale grows too early");
    gpu_step(&g, step++, 1, 0);
    now = gpu_result(&g);
    if (now.scaling.scale != 128 || now.scaling.good_in_row) fail(c->name, "the scale does not grow");
    printf("%-32s fp16  a scale of 2^30 takes %d halvings\n", c->name, (int)step - 3);
    gpu_close(&g);
}

/* What a step does is the same to the bit of fp32 for every scale that loses nothing: scales are powers of two. Here,
 * of gradients rounded to fp16, it is so until small ones vanish. */
static void compare_scales(const train_case *c) {
    gpu_run g[2];
    size_t n = 0;
    float *all[2];
    for (int i = 0; i < 2; i++) {
        if (!gpu_open(&g[i], c, TERN_F16)) return;
        set_scale(&g[i], i ? 512 : 256, 0);
        gpu_step(&g[i], 0, 1, 0);
        all[i] = gpu_everything(&g[i], &n);
        gpu_close(&g[i]);
    }
    if (!(distance(all[0], all[1], n) < 1e-4)) fail(c->name, "what is trained depends on the scale");
    free(all[0]);
    free(all[1]);
}

/* ---- state that comes back */

static void send_and_fetch(const train_case *c, tern_dtype type) {
    gpu_run g, h;
    tern_error err;
    size_t n = 0;
    if (!gpu_open(&g, c, type)) return;
    if (!gpu_open(&h, c, type)) exit(1);
    for (uint64_t step = 0; step < 3; step++) gpu_step(&g, step, 1, 0);
    float *state = gpu_everything(&g, &n), *at = state;
    for (size_t p = 0; p < h.graph->params; p++) {
        const size_t count = h.graph->param[p].count;
        memcpy(h.graph->param[p].value, at, count * sizeof *at);
        must(backend->graphs->send_state(h.plan, p, at + count, at + 2 * count, &err), &err, c->name);
        at += 3 * count;
    }
    const tern_gpu_result counts = gpu_result(&g);
    must(backend->graphs->send(h.plan, 1, &err), &err, c->name);
    must(backend->graphs->set_counts(h.plan, &counts, &err), &err, c->name);
    gpu_step(&g, 3, 1, 0);
    gpu_step(&h, 3, 1, 0);
    float *one = gpu_everything(&g, &n), *other = gpu_everything(&h, &n);
    if (memcmp(one, other, n * sizeof *one)) fail(c->name, "a run that goes on elsewhere differs");
    const tern_gpu_result first = gpu_result(&g), second = gpu_result(&h);
    if (second.applied + second.scaling.overflowed != 4 || memcmp(&first, &second, sizeof first))
        fail(c->name, "steps are not counted on");
    free(state);
    free(one);
    free(other);
    gpu_close(&g);
    gpu_close(&h);
}

/* ---- gradients of inputs by int8 products */

/* Near those of floats, and not the same; send_and_fetch then tells whether a step's are made of its own weights. */
static void compare_gradients(tern_dtype type) {
    train_case floats = int8_case;
    float *all[2], *start = NULL;
    size_t n = 0;
    floats.int8_gradients = 0;
    for (int int8 = 0; int8 < 2; int8++) {
        gpu_run g;
        if (!gpu_open(&g, int8 ? &int8_case : &floats, type)) exit(1);
        if (!start) start = gpu_everything(&g, &n);
        gpu_step(&g, 0, 1, 0);
        all[int8] = gpu_everything(&g, &n);
        gpu_close(&g);
    }
    for (size_t i = 0; i < n; i++) all[0][i] -= start[i], all[1][i] -= start[i];
    const double d = distance(all[1], all[0], n);
    if (!(d > 0 && d < 0.03)) fail(int8_case.name, "int8 gradients are not near those of floats, or the same");
    printf("%-32s %s  %.2g off after a step\n", int8_case.name, name_of(type), d);
    free(start);
    free(all[0]);
    free(all[1]);
}

/* ---- batches */

typedef struct augment_case {
    const char *name;
    tern_augment how;
} augment_case;

static const augment_case augment_cases[] = {
    {"as it is", {0}},
    {"normalized", {.mean = {0.5f, 0.4f, 0.3f}, .std = {0.2f, 0.3f, 0}}},
    {"zero padding", {.crop_pad = 3, .mean = {0.5f, 0.4f, 0.3f}, .std = {0.2f, 0.3f, 0.4f}}},
    {"mirrored padding", {.crop_pad = 4, .crop_padding = TERN_PADDING_REFLECT, .flip = TERN_FLIP_RANDOM}},
    {"more padding than image",
     {.crop_pad = 25, .flip = TERN_FLIP_RANDOM, .mean = {0.5f}, .std = {0.3f, 0.3f, 0.3f}}},
    {"alternating flip", {.flip = TERN_FLIP_ALTERNATING}},
    {"cutout", {.crop_pad = 2, .cutout = 5, .mean = {0.1f, 0.2f, 0.3f}, .std = {0.2f, 0.3f, 0.4f}}},
    {"large cutout", {.cutout = 40, .mean = {0.1f, 0.2f, 0.3f}}},
    {"brightness", {.brightness = 0.4f}},
    {"contrast", {.contrast = 0.7f, .mean = {0.1f, 0.2f, 0.3f}, .std = {0.2f, 0.3f, 0.4f}}},
    {"saturation", {.saturation = 1}},
    {"all",
     {.crop_pad = 4,
      .flip = TERN_FLIP_ALTERNATING,
      .brightness = 1,
      .contrast = 1,
      .saturation = 0.5f,
      .cutout = 3,
      .mean = {0.4914f, 0.4822f, 0.4465f},
      .std = {0.247f, 0.2435f, 0.2616f}}},
};

static void pictures(tern_graph *g, size_t height, size_t width, size_t channels) {
    tern_value x = tern_graph_input(g, (tern_shape){3, {height, width, channels}});
    x = tern_graph_add(g, "flatten", "flat", x, NULL);
    tern_graph_add(g, "linear", "head", x, &(tern_attrs){.outputs = 10});
}
static void gray_pictures(tern_graph *g) { pictures(g, 12, 20, 1); }
static void color_pictures(tern_graph *g) { pictures(g, 6, 10, 3); }

static void compare_images(const augment_case *a, const train_case *c, size_t height, size_t width, size_t channels) {
    gpu_run g = {.c = c, .graph = make_graph(c->build, c->name)};
    const size_t size = height * width * channels;
    const int32_t methods[1] = {TERN_GPU_SGD};
    const tern_gpu_optimizer_desc o = {.method = methods};
    const tern_gpu_images data = describe_images(&a->how, height, width, channels);
    float *got = room(BATCH * size), *want = room(size);
    int64_t sample[BATCH];
    tern_augmenter augmenter;
    tern_error err;
    make_data(10);
    init_augmenter(&augmenter, &a->how, height, width, channels);
    must(create_on_gpu(&g.plan, g.graph, BATCH, TERN_F32, 1, 5, &err), &err, c->name);
    must(backend->graphs->set_optimizer(g.plan, &o, &err), &err, c->name);
    must(backend->graphs->set_images(g.plan, &data, &err), &err, c->name);
    must(backend->graphs->send(g.plan, 1, &err), &err, c->name);
    for (uint64_t epoch = 0; epoch < 3; epoch++) {
        for (size_t i = 0; i < BATCH; i++) sample[i] = tern_random_u32(60 + epoch, i) % (uint32_t)data.count;
        gather(&g, sample, epoch, 1, got);
        for (size_t i = 0; i < BATCH; i++) {
            tern_augment_image(want, &augmenter, images + (size_t)sample[i] * size, epoch, (uint64_t)sample[i]);
            if (!memcmp(want, got + i * size, size * sizeof *want)) continue;
            fail(a->name, "an image is not to the bit the CPU's");
            epoch = 3;
            break;
        }
    }
    printf("%-32s %zu x %zu x %zu compared\n", a->name, height, width, channels);
    tern_augmenter_free(&augmenter);
    free(got);
    free(want);
    gpu_close(&g);
}

static void compare_windows(const train_case *c) {
    static float got[BATCH * WINDOW], want[BATCH * WINDOW];
    static int32_t label[BATCH * WINDOW];
    int64_t sample[BATCH];
    gpu_run g;
    if (!gpu_open(&g, c, TERN_F32)) return;
    for (uint64_t position = 0; position < 3; position++) {
        const uint64_t epoch = take_samples(sample, g.graph, position);
        gather(&g, sample, epoch, 1, got);
        make_batch(want, label, g.graph, position);
        if (memcmp(got, want, sizeof got)) fail(c->name, "windows of the text differ");
    }
    gpu_close(&g);
}

/* ---- all of it */

int main(int argc, char **argv) {
    static const train_case gray = {.name = "gray", .build = gray_pictures};
    static const train_case color = {.name = "color", .build = color_pictures};
    const char *argument = argc > 1 ? argv[1] : NULL;
    size_t index = 0;
    if (open_gpu()) return SKIPPED;
    for (size_t i = 0; i < sizeof augment_cases / sizeof *augment_cases; i++) {
        if (!is_wanted(argument, augment_cases[i].name, index++)) continue;
        compare_images(&augment_cases[i], &gray, 12, 20, 1);
        compare_images(&augment_cases[i], &color, 6, 10, 3);
    }
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const train_case *c = &cases[i];
        if (!is_wanted(argument, c->name, index++)) continue;
        if (c->build == text) compare_windows(c);
        compare_with_cpu(c, TERN_F32);
        compare_with_cpu(c, TERN_BF16);
        compare_with_cpu(c, TERN_F16);
        compare_runs(c, TERN_F32);
        compare_runs(c, TERN_BF16);
        compare_runs(c, TERN_F16);
        for (int kind = 0; kind < 3; kind++) skip_step(c, TERN_F32, kind % 2 ? NAN : INFINITY, kind);
        skip_step(c, TERN_F16, NAN, 1);
        send_and_fetch(c, TERN_F32);
        send_and_fetch(c, TERN_F16);
        compare_scales(c);
        find_scale(c);
    }
    if (is_wanted(argument, hot_case.name, index++)) overflow();
    for (tern_dtype type = TERN_F32; type <= TERN_F16; type++) {
        if (!is_wanted(argument, int8_case.name, index++)) continue;
        compare_gradients(type);
        send_and_fetch(&int8_case, type);
    }
    backend->close(context);
    return conclude(argument, failures);
}
