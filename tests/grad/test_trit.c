/* Layers of whole-number weights against a naive reference. Activations, gradients and scales are small whole numbers
 * times powers of two, so that every sum is exact in whatever order and type it is taken: outputs, input gradients
 * and the integers that a step leaves must be those of the reference to the bit, though it has the gradient of the
 * whole layer and the plan makes it in tiles. The rules themselves are tested by test_trit_rules.c. */
#include "base/checked.h"
#include "base/random.h"
#include "nn/op.h"
#include "nn/op_ternary.h"
#include "nn/plan.h"
#include "quant/trit_rules.h"
#include "tern/pack.h"
#include "testing.h"

static tern_error err;
enum { BATCH = 5, SEED = 6, FRONT = 1 };

typedef struct op_case {
    const char *op;
    size_t h, w, ci; /* of a linear layer: h tokens, w = 0 */
    tern_attrs at;
    int uses; /* 2: a second layer has the same parameters, and reads the input doubled */
} op_case;

/* Two graphs alike: one is trained by its plan, the other holds what the reference has computed. */
typedef struct bench {
    op_case c;
    size_t h, w, oh, ow, kernel, stride, groups, k, x, y; /* x, y: elements of a batch */
    int conv;
    tern_graph *graph, *reference;
    tern_plan *plan;
    size_t node[2]; /* of the uses */
    float *in, *dy;
} bench;

static tern_graph *make_graph(const op_case *c, size_t node[2]) {
    tern_graph *g;
    OK(tern_graph_create(&g, &err));
    tern_value x = tern_graph_input(g, c->w ? (tern_shape){3, {c->h, c->w, c->ci}} : (tern_shape){2, {c->h, c->ci}});
    x = tern_graph_add(g, "affine", "front", x, NULL); /* times 1 plus 0: exact, and it has a gradient */
    tern_value first = tern_graph_add(g, c->op, "first", x, &c->at);
    node[0] = (size_t)first;
    if (c->uses == 2) {
        tern_attrs same = c->at;
        same.same_as = node[0];
        x = tern_graph_add(g, "scale", "doubled", x, &(tern_attrs){.factor = 2});
        x = tern_graph_add(g, c->op, "second", x, &same);
        node[1] = (size_t)x;
        tern_graph_add2(g, "add", "sum", first, x);
    }
    OK(tern_graph_check(g, &err));
    OK(tern_graph_place(g, &err));
    tern_graph_initialise(g, SEED, 0);
    for (size_t p = 0; p < g->params; p++) {
        tern_param *param = &g->param[p];
        int8_t *e = param->integers;
        int is_exponent = strstr(param->name, ".exponent") && param->store == TERN_STORE_I8;
        for (size_t i = 0; is_exponent && i < param->count; i++) e[i] = (int8_t)(tern_random_u32(1, i) % 4) - 5;
        if (!strstr(param->name, ".bias")) continue;
        for (size_t i = 0; i < param->count; i++) param->value[i] = tern_random_signed(2, i);
        tern_param_round(param);
    }
    return g;
}

static bench bench_make(const op_case *c, int threads, tern_dtype products) {
    bench b = {.c = *c, .conv = c->w != 0, .h = c->h, .w = c->w ? c->w : 1};
    b.kernel = c->at.kernel ? c->at.kernel : 1;
    b.stride = c->at.stride ? c->at.stride : 1;
    b.groups = c->at.groups ? c->at.groups : 1;
    b.oh = (b.h + 2 * c->at.padding - b.kernel) / b.stride + 1;
    b.ow = (b.w + 2 * c->at.padding - b.kernel) / b.stride + 1;
    b.k = b.kernel * b.kernel * c->ci / b.groups;
    b.x = BATCH * b.h * b.w * c->ci;
    b.y = BATCH * b.oh * b.ow * c->at.outputs;
    b.graph = make_graph(c, b.node);
    b.reference = make_graph(c, b.node);
    tern_plan_desc desc = {.batch_max = BATCH, .training = 1, .threads = threads, .products = products};
    OK(tern_plan_create(&b.plan, b.graph, &desc, &err));
    b.plan->seed = SEED;
    b.plan->train_mode = 1;
    b.in = calloc(b.x, sizeof *b.in);
    b.dy = calloc(b.y, sizeof *b.dy);
    return b;
}

static void bench_free(bench *b) {
    tern_plan_free(&b->plan);
    tern_graph_free(&b->graph);
    tern_graph_free(&b->reference);
    free(b->in);
    free(b->dy);
}

/* The largest of those that share an activation scale is 127 2^-s: the scale is exact, and so are all quotients. */
static void draw(bench *b, uint64_t key) {
    size_t shared = b->conv ? b->h * b->w * b->c.ci : b->c.ci;
    for (size_t i = 0; i < b->x; i++) {
        int q = i % shared ? (int)(tern_random_u32(key, i) % 255) - 127 : 127;
        b->in[i] = ldexpf((float)q, -(int)(tern_random_u32(key + 1, i / shared) % 4));
    }
    for (size_t i = 0; i < b->y; i++) b->dy[i] = (float)((int)(tern_random_u32(key + 2, i) % 9) - 4);
}

/* ---- the reference of the products */

typedef struct sums {
    double *x, *w, *dx, *g, *y;
    float *out;
} sums;

static sums sums_make(const bench *b) {
    return (sums){.x = calloc(b->x, sizeof(double)),
                  .w = calloc(b->c.at.outputs * b->k, sizeof(double)),
                  .dx = calloc(b->x, sizeof(double)),
                  .g = calloc(b->c.at.outputs * b->k, sizeof(double)),
                  .y = calloc(b->y, sizeof(double)),
                  .out = calloc(b->y, sizeof(float))};
}

static void sums_free(sums *s) {
    double *all[] = {s->x, s->w, s->dx, s->g, s->y};
    for (size_t i = 0; i < 5; i++) free(all[i]);
    free(s->out);
}

static void *integers(const tern_graph *g, size_t node, const char *suffix) {
    tern_param *p = tern_node_find_param(g, &g->node[node], suffix);
    return p ? p->integers : NULL;
}

/* All trits of the reference's layer, as its rule has them. */
static void take_trits(int8_t *t, const bench *b) {
    size_t rows = b->c.at.outputs, bytes = tern_ceil_div(b->k, 5);
    const int8_t *c = integers(b->reference, b->node[0], "counter");
    const uint8_t *packed = integers(b->reference, b->node[0], "trits");
    for (size_t i = 0; !packed && i < rows * b->k; i++) t[i] = (int8_t)((c[i] > 42) - (c[i] < -42));
    if (packed) OK(tern_unpack(t, TERN_PACK_T5, packed, rows * bytes, rows, b->k, &err));
}

static double scale_of(const bench *b, size_t row, size_t column) {
    const tern_graph *g = b->reference;
    const int8_t *e = integers(g, b->node[0], "exponent");
    const int64_t *k = integers(g, b->node[0], "correlation");
    const int32_t *steps = integers(g, b->node[0], "steps");
    size_t group = b->c.at.group, per_row = b->c.at.granularity == TERN_PER_ROW, s = per_row ? row : 0;
    if (group) s = row * tern_ceil_div(b->k, group) + column / group;
    double shift = k && *steps ? 4 * (double)k[s] / (*steps * (double)(per_row ? b->k : b->k * b->c.at.outputs)) : 0;
    return (double)(float)exp2(e[s] + shift);
}

/* Every product of one output. */
static void add_terms(const bench *b, sums *s, double factor, size_t image, size_t oy, size_t ox, size_t o) {
    size_t out = ((image * b->oh + oy) * b->ow + ox) * b->c.at.outputs + o;
    size_t channels = b->c.ci / b->groups, first = o / (b->c.at.outputs / b->groups) * channels;
    double dy = (double)b->dy[out];
    for (size_t ky = 0; ky < b->kernel; ky++)
        for (size_t kx = 0; kx < b->kernel; kx++) {
            size_t y = oy * b->stride + ky - b->c.at.padding, x = ox * b->stride + kx - b->c.at.padding;
            if (y >= b->h || x >= b->w) continue; /* below 0 is huge */
            for (size_t c = 0; c < channels; c++) {
                size_t i = ((image * b->h + y) * b->w + x) * b->c.ci + first + c;
                size_t w = o * b->k + (ky * b->kernel + kx) * channels + c;
                s->y[out] += s->x[i] * s->w[w];
                s->dx[i] += factor * dy * s->w[w];
                s->g[w] += dy * s->x[i];
            }
        }
}

/* One use of the layer: adds to out and dx, sets g. */
static void compute(const bench *b, sums *s, int use, const int8_t *trits) {
    size_t weights = b->c.at.outputs * b->k;
    const tern_param *bias = tern_node_find_param(b->reference, &b->reference->node[b->node[0]], "bias");
    double factor = use ? 2 : 1;
    for (size_t i = 0; i < weights; i++) s->w[i] = trits[i] * scale_of(b, i / b->k, i % b->k);
    for (size_t i = 0; i < b->x; i++) s->x[i] = factor * (double)b->in[i];
    memset(s->g, 0, weights * sizeof *s->g);
    memset(s->y, 0, b->y * sizeof *s->y);
    for (size_t place = 0; place < BATCH * b->oh * b->ow; place++)
        for (size_t o = 0; o < b->c.at.outputs; o++)
            add_terms(b, s, factor, place / (b->oh * b->ow), place / b->ow % b->oh, place % b->ow, o);
    for (size_t i = 0; i < b->y; i++) {
        float y = (float)s->y[i];
        if (bias) y += bias->value[i % b->c.at.outputs];
        s->out[i] = use ? s->out[i] + y : y;
    }
}

/* ---- the reference of a step: the rule on the gradient of the whole layer */

static void add_exponent_gradients(const bench *b, size_t row, const float *g, const int8_t *trits,
                                   int gradient_exp) {
    int64_t *sum = integers(b->reference, b->node[0], "exponent_sum");
    size_t group = b->c.at.group ? b->c.at.group : b->k, groups = tern_ceil_div(b->k, group);
    int one = !b->c.at.group && b->c.at.granularity == TERN_PER_TENSOR;
    for (size_t c = 0; sum && c < b->k; c++) {
        double d = rint(fmin(fmax(ldexp((double)g[c], 8 - gradient_exp), -0x1p18), 0x1p18));
        sum[one ? 0 : row * groups + c / group] += (int64_t)d * trits[c];
    }
}

static void step_exponents(const bench *b, uint64_t step) {
    int64_t *sum = integers(b->reference, b->node[0], "exponent_sum");
    int8_t *e = integers(b->reference, b->node[0], "exponent");
    const tern_param *p = tern_node_find_param(b->reference, &b->reference->node[b->node[0]], "exponent");
    double weights = (double)(b->c.at.outputs * b->k) / (double)p->count;
    if (!sum || step % 1000 != 999) return;
    for (size_t s = 0; s < p->count; s++) {
        int64_t least = (int64_t)(1024 * sqrt(1000 * weights));
        e[s] = (int8_t)(e[s] + (sum[s] < -least) - (sum[s] > least));
        sum[s] = 0;
    }
}

static void step_row(const bench *b, size_t row, const float *g, const tern_trit_step *step) {
    const tern_graph *r = b->reference;
    size_t node = b->node[0], bytes = tern_ceil_div(b->k, 5), first = row * tern_round_up(b->k, 8);
    int8_t *c = integers(r, node, "counter"), *m = integers(r, node, "momentum"), trits[1200];
    uint8_t *packed = integers(r, node, "trits");
    int64_t *k = integers(r, node, "correlation");
    if (packed) OK(tern_unpack(trits, TERN_PACK_T5, packed + row * bytes, bytes, 1, b->k, &err));
    if (k) {
        k[b->c.at.granularity == TERN_PER_ROW ? row : 0] -= tern_trit_correlation(trits, g, b->k);
    } else if (packed) {
        tern_trit_vote(trits, c + row * b->k, g, b->k, step);
        OK(tern_pack(packed + row * bytes, bytes, TERN_PACK_T5, trits, 1, b->k, &err));
    } else if (m) {
        tern_trit_r2(c + row * b->k, m + row * b->k, g, first, b->k, step);
    } else {
        tern_trit_r1(c + row * b->k, g, first, b->k, step);
    }
}

static void step_reference(const bench *b, const sums *s, int use, const int8_t *trits) {
    size_t weights = b->c.at.outputs * b->k, node = b->node[use];
    int8_t *e = integers(b->reference, node, "gradient_exponent");
    int32_t *steps = integers(b->reference, node, "steps");
    float *g = malloc(weights * sizeof *g);
    double squares = 0;
    for (size_t i = 0; i < weights; i++) {
        g[i] = (float)s->g[i];
        assert_true((double)g[i] == s->g[i]); /* or nothing here is exact */
        squares += s->g[i] * s->g[i];
    }
    int exponent = tern_gradient_exponent(squares / (double)weights);
    if (*e == TERN_NO_GRADIENT_EXP) *e = (int8_t)exponent;
    tern_trit_step step = {.key = tern_stream(SEED, ((uint64_t)1 << 32) + node),
                           .step = b->plan->step,
                           .rate = b->plan->rules.rate[node],
                           .gradient_exp = *e,
                           .threshold = b->c.at.update == TERN_UPDATE_VOTE ? 40 : 42};
    for (size_t row = 0; row < b->c.at.outputs; row++) {
        add_exponent_gradients(b, row, g + row * b->k, trits + row * b->k, *e);
        step_row(b, row, g + row * b->k, &step);
    }
    *e = (int8_t)exponent;
    if (steps) ++*steps;
    step_exponents(b, b->plan->step);
    free(g);
}

/* ---- comparing */

static void check_floats(const bench *b, const char *what, const float *got, const double *want, size_t n) {
    double square = 0, room = 0;
    for (size_t i = 0; i < n; i++) square += want[i] * want[i];
    if (b->c.at.update == TERN_UPDATE_SEED_CORR) /* its scales are any numbers */
        room = (b->plan->products == TERN_BF16 ? 2e-2 : 1e-5) * (sqrt(square / (double)n) + 1e-3);
    for (size_t i = 0; i < n; i++)
        if (!(fabs((double)got[i] - want[i]) <= 5 * room))
            fail_msg("%s, rule %d, group %zu: %s[%zu] is %.9g, should be %.9g", b->c.op, b->c.at.update,
                     b->c.at.group, what, i, (double)got[i], want[i]);
}

static void check_state(const char *what, const tern_graph *got, const tern_graph *want) {
    for (size_t p = 0; p < got->params; p++) {
        const tern_param *a = &got->param[p], *b = &want->param[p];
        if (a->integers && memcmp(a->integers, b->integers, a->count * tern_store_bytes(a->store)))
            fail_msg("%s: %s is not what it should be", what, a->name);
    }
}

/* One step. The reference has all trits of the forward pass before the first of its uses goes backward. */
static void check_step(bench *b, uint64_t number, int32_t rate) {
    size_t weights = b->c.at.outputs * b->k;
    int8_t *trits = malloc(weights);
    sums s[2] = {sums_make(b), sums_make(b)};
    double *want = calloc(b->x + b->y, sizeof *want), *db = calloc(b->c.at.outputs, sizeof *db);
    draw(b, 10 * number);
    b->plan->step = number;
    for (int use = 0; use < b->c.uses; use++) b->plan->rules.rate[b->node[use]] = rate;
    take_trits(trits, b);
    for (int use = 0; use < b->c.uses; use++) compute(b, &s[use], use, trits);
    OK(tern_plan_refresh(b->plan, &err));
    const float *y = tern_plan_forward(b->plan, b->in, BATCH);
    for (size_t i = 0; i < b->y; i++) want[i] = (double)(b->c.uses == 2 ? s[0].out[i] + s[1].out[i] : s[0].out[i]);
    check_floats(b, "y", y, want, b->y);
    memcpy(tern_plan_output_grad(b->plan), b->dy, b->y * sizeof *b->dy);
    tern_plan_zero_grad(b->plan);
    tern_plan_backward(b->plan);
    OK(tern_dnn_check(b->plan->dnn, &err));
    for (size_t i = 0; i < b->x; i++) want[i] = s[0].dx[i] + s[1].dx[i];
    check_floats(b, "dx", b->plan->node[FRONT].grad, want, b->x);
    for (size_t i = 0; i < b->y; i++) db[i % b->c.at.outputs] += b->c.uses * (double)b->dy[i];
    const tern_node *node = &b->graph->node[b->node[0]];
    if (b->c.at.bias) check_floats(b, "db", b->plan->param_grad[node->param[node->params - 1]], db, b->c.at.outputs);
    for (int use = b->c.uses; rate && use-- > 0;) step_reference(b, &s[use], use, trits);
    check_state(b->c.op, b->graph, b->reference);
    for (int use = 0; use < 2; use++) sums_free(&s[use]);
    free(trits);
    free(want);
    free(db);
}

static int bf16_works(void) {
    bench b = bench_make(&(op_case){"trit_conv2d", 4, 4, 4, {.outputs = 4, .kernel = 3}, 1}, 1, TERN_BF16);
    draw(&b, 1);
    OK(tern_plan_refresh(b.plan, &err));
    tern_plan_forward(b.plan, b.in, BATCH);
    memset(tern_plan_output_grad(b.plan), 0, b.y * sizeof(float));
    tern_plan_backward(b.plan);
    int works = !tern_dnn_check(b.plan->dnn, NULL);
    bench_free(&b);
    return works;
}

/* The first step measures its gradients first, later ones take the measure of the step before; at a rate of 0 nothing
 * may change. */
static void check_case(op_case c, int threads, tern_dtype products) {
    bench b = bench_make(&c, threads, products);
    check_step(&b, 3, 0);
    check_step(&b, 4, 3 * TERN_RATE_ONE);
    check_step(&b, 5, TERN_RATE_MAX);
    check_step(&b, 5000000001, 1000);
    bench_free(&b);
}

static const op_case cases[] = {
    {"trit_linear", 1, 0, 33, {.outputs = 17, .bias = 1}, 1},
    {"trit_linear", 3, 0, 70, {.outputs = 9, .granularity = TERN_PER_ROW}, 2},
    {"trit_linear", 2, 0, 5, {.outputs = 3, .granularity = TERN_PER_ROW, .floats = 1, .bias = 1}, 1},
    {"trit_conv2d", 6, 7, 8, {.outputs = 12, .kernel = 3, .padding = 1, .bias = 1}, 2},
    {"trit_conv2d", 7, 6, 8, {.outputs = 10, .kernel = 3, .stride = 2, .padding = 1, .granularity = 1}, 1},
    {"trit_conv2d", 6, 6, 8, {.outputs = 12, .kernel = 3, .padding = 1, .groups = 2, .granularity = 1}, 1},
    {"trit_conv2d", 8, 7, 16, {.outputs = 16, .kernel = 3, .stride = 2, .padding = 1, .groups = 16, .bias = 1}, 1},
    {"trit_conv2d", 5, 6, 3, {.outputs = 5, .kernel = 3, .floats = 1}, 2},
};

static void test_rules(void **state) {
    (void)state;
    tern_dtype second = bf16_works() ? TERN_BF16 : TERN_F32;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int update = TERN_UPDATE_R1; update <= TERN_UPDATE_SEED_CORR; update++) {
            op_case c = cases[i];
            c.at.update = update;
            check_case(c, 1, i % 2 ? TERN_F32 : second);
            check_case(c, 2, i % 2 ? second : TERN_F32);
        }
}

/* Rows of several groups, the last one short. */
static void test_groups(void **state) {
    (void)state;
    static const size_t groups[] = {4, 6, 8, 16, 32, 64, 96};
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++)
        for (int update = TERN_UPDATE_R1; update <= TERN_UPDATE_VOTE; update++) {
            op_case linear = {"trit_linear", 2, 0, 101, {.outputs = 7, .update = update, .group = groups[i]}, 2};
            op_case conv = {"trit_conv2d", 5, 4, 12, {.outputs = 6, .kernel = 3, .update = update}, 1};
            conv.at.group = groups[i];
            check_case(linear, 1, TERN_F32);
            check_case(conv, 2, TERN_F32);
        }
    op_case grouped = {"trit_conv2d", 5, 4, 12, {.outputs = 6, .kernel = 3, .groups = 3, .group = 8, .bias = 1}, 1};
    check_case(grouped, 2, TERN_F32);
}

/* Layers that are cut into tiles of outputs, the last one shorter. */
static void test_tiles(void **state) {
    (void)state;
    static const op_case large[] = {
        {"trit_linear", 1, 0, 510, {.outputs = 600, .update = TERN_UPDATE_R1, .bias = 1}, 2},
        {"trit_linear", 1, 0, 510, {.outputs = 600, .update = TERN_UPDATE_VOTE, .group = 16}, 1},
        {"trit_linear", 1, 0, 510, {.outputs = 600, .update = TERN_UPDATE_SEED_CORR}, 1},
        {"trit_conv2d", 3, 3, 128, {.outputs = 260, .kernel = 3, .padding = 1}, 1},
    };
    for (size_t i = 0; i < sizeof large / sizeof *large; i++) {
        bench b = bench_make(&large[i], 2, TERN_F32);
        const tern_ternary_state *s = b.plan->node[b.node[0]].state;
        assert_in_range(s->tile_rows, 16, b.c.at.outputs - 1);
        assert_int_not_equal(b.c.at.outputs % s->tile_rows, 0);
        for (uint64_t step = 0; step < 3; step++) check_step(&b, step, 2 * TERN_RATE_ONE);
        bench_free(&b);
    }
}

/* Exponents gather their gradients for a thousand steps and then move by one, and not before the backward pass of the
 * other use has taken the scales of its forward pass. */
static void test_slow_exponents(void **state) {
    (void)state;
    static const op_case slow[] = {
        {"trit_linear", 2, 0, 60, {.outputs = 9, .granularity = TERN_PER_ROW, .slow_exponents = 1}, 2},
        {"trit_linear", 2, 0, 60, {.outputs = 9, .update = TERN_UPDATE_R1, .slow_exponents = 1}, 1},
        {"trit_conv2d", 5, 4, 8, {.outputs = 6, .kernel = 3, .group = 16, .slow_exponents = 1}, 2},
        {"trit_linear", 2, 0, 60, {.outputs = 9, .update = TERN_UPDATE_VOTE, .group = 8, .slow_exponents = 1}, 2},
    };
    for (size_t i = 0; i < sizeof slow / sizeof *slow; i++) {
        bench b = bench_make(&slow[i], 2, TERN_F32);
        check_step(&b, 997, TERN_RATE_ONE);
        check_step(&b, 998, TERN_RATE_ONE);
        int64_t *got = integers(b.graph, b.node[0], "exponent_sum");
        int64_t *want = integers(b.reference, b.node[0], "exponent_sum");
        size_t count = tern_node_find_param(b.graph, &b.graph->node[b.node[0]], "exponent_sum")->count, moved = 0;
        for (size_t s = 0; s < count; s++) got[s] = want[s] = (want[s] % 3 - 1) * 2000000; /* down, up and not */
        int8_t *e = integers(b.graph, b.node[0], "exponent"), before[256];
        assert_in_range(count, 1, sizeof before);
        memcpy(before, e, count);
        check_step(&b, 999, TERN_RATE_ONE);
        for (size_t s = 0; s < count; s++) moved += before[s] != e[s];
        assert_true(moved > 0);
        check_step(&b, 1000, TERN_RATE_ONE);
        bench_free(&b);
    }
}

/* ---- tables */

enum { ROWS = 11, WIDTH = 30, PLACES = 7 };

static tern_graph *make_table(const tern_attrs *at) {
    tern_graph *g;
    OK(tern_graph_create(&g, &err));
    tern_graph_add(g, "trit_embedding", "table", tern_graph_input_tokens(g, PLACES, ROWS), at);
    OK(tern_graph_check(g, &err));
    OK(tern_graph_place(g, &err));
    tern_graph_initialise(g, SEED, 0);
    return g;
}

/* Rows are layers of one output each: their own gradient, measure and number of the step. */
static void step_table(bench *b, const int32_t *token) {
    tern_graph *g = b->reference;
    int32_t *row_steps = integers(g, 1, "row_steps");
    double total = 0;
    for (size_t row = 0; row < ROWS; row++) {
        float sum[WIDTH] = {0};
        double squares = 0;
        for (size_t p = 0; p < BATCH * PLACES; p++)
            for (size_t c = 0; c < WIDTH && token[p] == (int32_t)row; c++) sum[c] += b->dy[p * WIDTH + c];
        for (size_t c = 0; c < WIDTH; c++) squares += (double)sum[c] * (double)sum[c];
        total += squares;
        if (squares == 0) continue;
        tern_trit_step step = {.key = tern_stream(SEED, ((uint64_t)1 << 32) + 1),
                               .step = (uint64_t)row_steps[row]++,
                               .rate = b->plan->rules.rate[1],
                               .gradient_exp = tern_gradient_exponent(squares / WIDTH),
                               .threshold = b->c.at.update == TERN_UPDATE_VOTE ? 40 : 42};
        step_row(b, row, sum, &step);
    }
    int8_t *e = integers(g, 1, "gradient_exponent");
    int32_t *steps = integers(g, 1, "steps");
    if (total > 0) *e = (int8_t)tern_gradient_exponent(total / (ROWS * WIDTH));
    if (steps) ++*steps;
}

/* Tokens below `few` alone: of the other rows no integer may move. */
static void check_table(const tern_attrs *at, int threads) {
    static float dy[BATCH * PLACES * WIDTH];
    int32_t token[BATCH * PLACES];
    int8_t trits[ROWS * WIDTH];
    bench b = {.c = {.op = "trit_embedding", .at = *at}, .k = WIDTH, .node = {1, 1}, .dy = dy};
    b.graph = make_table(at);
    b.reference = make_table(at);
    b.c.at = b.graph->node[1].at;
    tern_plan_desc desc = {.batch_max = BATCH, .training = 1, .threads = threads};
    OK(tern_plan_create(&b.plan, b.graph, &desc, &err));
    b.plan->seed = SEED;
    for (uint32_t number = 0, few = 3; number < 5; number++, few += 2) {
        b.plan->rules.rate[1] = number == 2 ? 0 : 3 * TERN_RATE_ONE;
        for (size_t p = 0; p < BATCH * PLACES; p++) token[p] = (int32_t)(tern_random_u32(number, p) % few);
        for (size_t i = 0; i < BATCH * PLACES * WIDTH; i++)
            dy[i] = token[i / WIDTH] == 1 ? 0 : (float)((int)(tern_random_u32(90 + number, i) % 9) - 4);
        take_trits(trits, &b);
        OK(tern_plan_refresh(b.plan, &err));
        const float *y = tern_plan_forward(b.plan, token, BATCH);
        for (size_t i = 0; i < BATCH * PLACES * WIDTH; i++) {
            size_t row = (size_t)token[i / WIDTH], c = i % WIDTH;
            float want = (float)(trits[row * WIDTH + c] * scale_of(&b, row, c));
            if (memcmp(&y[i], &want, sizeof want)) assert_true(y[i] == want); /* -0 and 0 are one */
        }
        memcpy(tern_plan_output_grad(b.plan), dy, sizeof dy);
        tern_plan_backward(b.plan);
        if (b.plan->rules.rate[1]) step_table(&b, token);
        check_state("trit_embedding", b.graph, b.reference);
    }
    const int32_t *row_steps = integers(b.graph, 1, "row_steps");
    assert_int_equal(row_steps[0], 4);
    assert_int_equal(row_steps[1], 0); /* its gradients were 0 */
    assert_true(row_steps[9] > 0 && row_steps[9] < 3);
    tern_plan_free(&b.plan);
    tern_graph_free(&b.graph);
    tern_graph_free(&b.reference);
}

static void test_embedding(void **state) {
    (void)state;
    for (int update = TERN_UPDATE_R1; update <= TERN_UPDATE_SEED_CORR; update++)
        for (int threads = 1; threads <= 3; threads++) {
            check_table(&(tern_attrs){.width = WIDTH, .update = update}, threads);
            check_table(&(tern_attrs){.width = WIDTH, .update = update, .granularity = TERN_PER_ROW}, threads);
            if (update != TERN_UPDATE_SEED_CORR)
                check_table(&(tern_attrs){.width = WIDTH, .update = update, .group = 8}, threads);
        }
}

/* ---- whole networks */

/* A wide layer, convolutions and a norm, on gradients that are any floats. */
static tern_graph *make_network(int update) {
    tern_graph *g;
    OK(tern_graph_create(&g, &err));
    tern_attrs conv = {.outputs = 16, .kernel = 3, .padding = 1, .update = update, .granularity = 1};
    tern_attrs wide = {.outputs = 400, .update = update, .bias = 1}, head = {.outputs = 10, .update = update};
    wide.slow_exponents = update != TERN_UPDATE_SEED_CORR;
    tern_value x = tern_graph_input(g, (tern_shape){3, {8, 8, 4}});
    x = tern_graph_add(g, "trit_conv2d", "conv", x, &conv);
    x = tern_graph_add(g, "relu", "relu", x, NULL);
    x = tern_graph_add(g, "flatten", "flat", x, NULL);
    x = tern_graph_add(g, "trit_linear", "wide", x, &wide);
    x = tern_graph_add(g, "affine", "middle", x, NULL);
    x = tern_graph_add(g, "trit_rmsnorm", "norm", x, NULL);
    tern_graph_add(g, "trit_linear", "head", x, &head);
    OK(tern_graph_check(g, &err));
    OK(tern_graph_place(g, &err));
    tern_graph_initialise(g, SEED, 0);
    return g;
}

static tern_plan *plan_of(tern_graph *g, int threads) {
    tern_plan *plan;
    OK(tern_plan_create(&plan, g, &(tern_plan_desc){.batch_max = BATCH, .training = 1, .threads = threads}, &err));
    plan->seed = SEED;
    for (size_t i = 1; i < g->nodes; i++) plan->rules.rate[i] = 3 * TERN_RATE_ONE;
    return plan;
}

/* A step of a network up to the backward pass. */
static void go_forward(tern_plan *plan, uint64_t number) {
    static float x[BATCH * 8 * 8 * 4];
    for (size_t i = 0; i < sizeof x / sizeof *x; i++) x[i] = tern_random_normal(number, i);
    plan->step = number;
    plan->train_mode = 1;
    OK(tern_plan_refresh(plan, &err));
    tern_plan_forward(plan, x, BATCH);
    tern_plan_zero_grad(plan);
    for (size_t i = 0; i < BATCH * 10; i++) tern_plan_output_grad(plan)[i] = tern_random_normal(number + 1, i);
}

static void test_threads(void **state) {
    (void)state;
    for (int update = TERN_UPDATE_R1; update <= TERN_UPDATE_SEED_CORR; update++) {
        tern_graph *one = make_network(update);
        tern_plan *plan = plan_of(one, 1);
        for (uint64_t step = 998; step < 1001; step++) {
            go_forward(plan, step);
            tern_plan_backward(plan);
        }
        for (int threads = 2; threads <= 3; threads++) {
            tern_graph *more = make_network(update);
            tern_plan *other = plan_of(more, threads);
            for (uint64_t step = 998; step < 1001; step++) {
                go_forward(other, step);
                tern_plan_backward(other);
            }
            check_state("threads", more, one);
            assert_memory_equal(other->grads.data, plan->grads.data, plan->gradients * sizeof(float));
            assert_true(other->rules.squares == plan->rules.squares);
            tern_plan_free(&other);
            tern_graph_free(&more);
        }
        tern_plan_free(&plan);
        tern_graph_free(&one);
    }
}

/* A gradient that is no number on its way back: the layers behind it have stepped, it and those in front have not. */
static void check_trouble(int update, float bad) {
    tern_graph *g = make_network(update), *untouched = make_network(update);
    tern_plan *plan = plan_of(g, 2), *other = plan_of(untouched, 2);
    go_forward(plan, 1);
    tern_plan_backward(plan);
    go_forward(other, 1);
    tern_plan_backward(other);
    go_forward(plan, 2);
    tern_graph_find_param(g, "middle.scale")->value[7] = bad;
    tern_plan_backward(plan);
    assert_true(plan->rules.trouble > 0);
    assert_string_equal(g->node[plan->rules.trouble].name, "wide");
    assert_true(!isfinite(plan->rules.squares));
    size_t changed = 0;
    for (size_t p = 0; p < g->params; p++) {
        const tern_param *a = &g->param[p], *b = &untouched->param[p];
        int differs = a->integers && memcmp(a->integers, b->integers, a->count * tern_store_bytes(a->store));
        int behind = !strncmp(a->name, "head.", 5);
        if (differs && !behind) fail_msg("%s has changed", a->name);
        changed += differs != 0;
    }
    assert_true(changed > 0);
    tern_graph_find_param(g, "middle.scale")->value[7] = 1;
    go_forward(plan, 3); /* and the next step is a step again */
    tern_plan_backward(plan);
    assert_int_equal(plan->rules.trouble, 0);
    assert_true(isfinite(plan->rules.squares));
    tern_plan_free(&plan);
    tern_plan_free(&other);
    tern_graph_free(&g);
    tern_graph_free(&untouched);
}

static void test_trouble(void **state) {
    (void)state;
    for (int update = TERN_UPDATE_R1; update <= TERN_UPDATE_SEED_CORR; update++) {
        check_trouble(update, NAN);
        check_trouble(update, INFINITY);
    }
}

/* The same in a table: one row's gradient is no number. */
static void test_trouble_in_table(void **state) {
    (void)state;
    tern_graph *g = make_table(&(tern_attrs){.width = WIDTH}), *untouched = make_table(&(tern_attrs){.width = WIDTH});
    tern_plan *plan = plan_of(g, 2);
    int32_t token[BATCH * PLACES] = {4, 5, 6};
    OK(tern_plan_refresh(plan, &err));
    tern_plan_forward(plan, token, BATCH);
    for (size_t i = 0; i < BATCH * PLACES * WIDTH; i++) tern_plan_output_grad(plan)[i] = 1;
    tern_plan_output_grad(plan)[WIDTH + 3] = -INFINITY; /* of token 5 */
    tern_plan_backward(plan);
    assert_int_equal(plan->rules.trouble, 1);
    const int8_t *c = integers(g, 1, "counter"), *old = integers(untouched, 1, "counter");
    assert_memory_equal(c + 5 * WIDTH, old + 5 * WIDTH, WIDTH);
    assert_int_equal(((int32_t *)integers(g, 1, "row_steps"))[5], 0);
    assert_int_equal(*(int8_t *)integers(g, 1, "gradient_exponent"), TERN_NO_GRADIENT_EXP);
    tern_plan_free(&plan);
    tern_graph_free(&g);
    tern_graph_free(&untouched);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rules),     cmocka_unit_test(test_groups),
        cmocka_unit_test(test_tiles),     cmocka_unit_test(test_slow_exponents),
        cmocka_unit_test(test_embedding), cmocka_unit_test(test_threads),
        cmocka_unit_test(test_trouble),   cmocka_unit_test(test_trouble_in_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
