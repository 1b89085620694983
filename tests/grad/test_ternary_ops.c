/* The ternary products against a naive reference in whole numbers and doubles: the forward pass of the bit_ ops to
 * the bit, everything else by the rule that src/nn/op_ternary.c writes down. A linear layer is a convolution of a
 * window of one place here, whose activations are quantized by place and not by image. */
#include "base/random.h"
#include "nn/op.h"
#include "nn/plan.h"
#include "nn/ternary_weights.h"
#include "testing.h"

static tern_error err;

enum { BATCH_MAX = 40 };

typedef struct op_case {
    const char *op;
    size_t h, w; /* of a linear layer: h tokens, w = 0 */
    size_t ci;
    tern_attrs at;
} op_case;

/* Places, channels and window of a case, both kinds alike. */
typedef struct geometry {
    size_t h, w, ci, oh, ow, co, kernel, stride, padding, groups, k, scale_elements;
    int bit;
} geometry;

static geometry geometry_of(const op_case *c) {
    geometry g = {.h = c->h, .w = c->w ? c->w : 1, .ci = c->ci, .co = c->at.outputs, .padding = c->at.padding};
    g.kernel = c->at.kernel ? c->at.kernel : 1;
    g.stride = c->at.stride ? c->at.stride : 1;
    g.groups = c->at.groups ? c->at.groups : 1;
    g.oh = (g.h + 2 * g.padding - g.kernel) / g.stride + 1;
    g.ow = (g.w + 2 * g.padding - g.kernel) / g.stride + 1;
    g.k = g.kernel * g.kernel * g.ci / g.groups;
    g.scale_elements = c->w ? g.h * g.w * g.ci : g.ci;
    g.bit = !strncmp(c->op, "bit_", 4);
    return g;
}

/* Two nodes of the same kind read the same value: their gradients must add. */
typedef struct bench {
    op_case c;
    geometry g;
    tern_graph *graph;
    tern_plan *plan;
    int uses;
    size_t batch, places; /* output places of the batch */
    float *x, *r;
} bench;

enum { FRONT = 1, FIRST = 2 };

static bench bench_make(const op_case *c, int uses, int training, int threads, tern_dtype products) {
    bench b = {.c = *c, .g = geometry_of(c), .uses = uses};
    tern_shape linear = {2, {c->h, c->ci}}, image = {3, {c->h, c->w, c->ci}};
    OK(tern_graph_create(&b.graph, &err));
    tern_value x = tern_graph_input(b.graph, c->w ? image : linear);
    x = tern_graph_add(b.graph, "affine", "front", x, NULL); /* times 1 plus 0: exact, and it has a gradient */
    tern_value first = tern_graph_add(b.graph, c->op, "first", x, &c->at);
    if (uses == 2) tern_graph_add2(b.graph, "add", "sum", first, tern_graph_add(b.graph, c->op, "second", x, &c->at));
    OK(tern_graph_check(b.graph, &err));
    OK(tern_graph_place(b.graph, &err));
    tern_graph_initialise(b.graph, 11, 0);
    for (size_t p = 0; p < b.graph->params; p++)
        if (strstr(b.graph->param[p].name, "bias"))
            for (size_t i = 0; i < b.graph->param[p].count; i++)
                b.graph->param[p].value[i] = tern_random_normal(60 + p, i);
    tern_plan_desc desc = {.batch_max = BATCH_MAX, .training = training, .threads = threads, .products = products};
    OK(tern_plan_create(&b.plan, b.graph, &desc, &err));
    b.plan->train_mode = training;
    b.x = calloc(BATCH_MAX * b.graph->node[0].elements, sizeof *b.x);
    b.r = calloc(BATCH_MAX * b.g.oh * b.g.ow * b.g.co, sizeof *b.r);
    return b;
}

static void bench_free(bench *b) {
    tern_plan_free(&b->plan);
    tern_graph_free(&b->graph);
    free(b->x);
    free(b->r);
}

/* ---- the reference */

typedef struct reference {
    int8_t *q;        /* activations, of bit_ ops */
    float *inv_scale; /* per scale_elements */
    double *x;        /* activations as the product sees them: q / s, or x */
    int8_t *trits;
    float scales[64];
    double *w;    /* weights as the product sees them */
    float *exact; /* y of a bit_ op by the written epilogue */
    double *y, *dx, *dw, *db;
} reference;

static void quantize_one(int8_t *q, float *inv_scale, const float *x, size_t n) {
    float largest = 1e-5f;
    for (size_t i = 0; i < n; i++) largest = fmaxf(largest, fabsf(x[i]));
    float s = 127.0f / largest;
    *inv_scale = 1.0f / s;
    for (size_t i = 0; i < n; i++) q[i] = (int8_t)fmaxf(-128, fminf(127, rintf(x[i] * s)));
}

static const float *param_of(const bench *b, int use, int i) {
    return tern_plan_param(b->plan, FIRST + (size_t)use, i);
}

static float scale_of(const bench *b, const reference *f, size_t row) {
    return f->scales[b->c.at.granularity == TERN_PER_ROW ? row : 0];
}

static void take_weights(const bench *b, reference *f, int use, float lambda) {
    const geometry *g = &b->g;
    const float *latent = param_of(b, use, 0);
    int rule = tern_plan_graph_node(b->plan, FIRST + (size_t)use)->at.rule;
    tern_granularity granularity = (tern_granularity)b->c.at.granularity;
    if (rule == TERN_RULE_TWN)
        OK(tern_quantize_twn(f->trits, f->scales, latent, g->co, g->k, granularity, &err));
    else
        OK(tern_quantize_absmean(f->trits, f->scales, latent, g->co, g->k,
                                 rule == TERN_RULE_ABSMEDIAN ? TERN_MEDIAN : TERN_MEAN, granularity, &err));
    for (size_t i = 0; i < g->co * g->k; i++) {
        double q = (double)f->trits[i] * (double)scale_of(b, f, i / g->k);
        f->w[i] = (double)latent[i] + (double)lambda * (q - (double)latent[i]);
    }
}

/* Calls for every product of one output with its input place and weight; both by number, in x and in w. */
#define FOR_EACH_TERM(g, image, oy, ox, o, xi, wi)                                                                   \
    for (size_t ky_ = 0; ky_ < (g)->kernel; ky_++)                                                                   \
        for (size_t kx_ = 0; kx_ < (g)->kernel; kx_++)                                                               \
            for (size_t c_ = 0, y_ = (oy) * (g)->stride + ky_ - (g)->padding,                                        \
                        x_ = (ox) * (g)->stride + kx_ - (g)->padding;                                                \
                 c_ < (g)->ci / (g)->groups && y_ < (g)->h && x_ < (g)->w; c_++) /* below 0 is huge */               \
                for (size_t xi = (((image) * (g)->h + y_) * (g)->w + x_) * (g)->ci +                                 \
                                 (o) / ((g)->co / (g)->groups) * ((g)->ci / (g)->groups) + c_,                       \
                            wi = (o) * (g)->k + (ky_ * (g)->kernel + kx_) * ((g)->ci / (g)->groups) + c_, once_ = 1; \
                     once_; once_ = 0)

static void compute_output(const bench *b, reference *f, int use, size_t image, size_t oy, size_t ox, size_t o) {
    const geometry *g = &b->g;
    size_t out = ((image * g->oh + oy) * g->ow + ox) * g->co + o;
    const float *bias = b->c.at.bias ? param_of(b, use, 1) : NULL;
    double sum = 0, dy = (double)b->r[out];
    int64_t whole = 0;
    FOR_EACH_TERM(g, image, oy, ox, o, xi, wi) {
        sum += f->x[xi] * f->w[wi];
        if (g->bit) whole += (int64_t)f->q[xi] * f->trits[wi];
        f->dx[xi] += dy * f->w[wi];
        f->dw[wi] += dy * f->x[xi];
    }
    f->db[o] += dy;
    f->y[out] += sum + (bias ? (double)bias[o] : 0);
    if (!g->bit) return;
    size_t scale = b->c.w ? image : image * g->oh + oy; /* a token is a row of its sample */
    float y = (float)whole * (scale_of(b, f, o) * f->inv_scale[scale]);
    if (bias) y = y + bias[o];
    f->exact[out] = use ? f->exact[out] + y : y;
}

/* y and dx are of all uses together; dw and db of the last one. */
static reference reference_make(const bench *b) {
    const geometry *g = &b->g;
    size_t x = b->batch * g->h * g->w * g->ci, y = b->places * g->co, w = g->co * g->k;
    reference f = {.q = calloc(x, 1),
                   .inv_scale = calloc(x / g->scale_elements, sizeof(float)),
                   .x = calloc(x, sizeof(double)),
                   .trits = calloc(w, 1),
                   .w = calloc(w, sizeof(double)),
                   .exact = calloc(y, sizeof(float)),
                   .y = calloc(y, sizeof(double)),
                   .dx = calloc(x, sizeof(double)),
                   .dw = calloc(w, sizeof(double)),
                   .db = calloc(g->co, sizeof(double))};
    for (size_t s = 0; s < x / g->scale_elements; s++)
        quantize_one(f.q + s * g->scale_elements, &f.inv_scale[s], b->x + s * g->scale_elements, g->scale_elements);
    for (size_t i = 0; i < x; i++)
        f.x[i] = g->bit ? (double)f.q[i] * (double)f.inv_scale[i / g->scale_elements] : (double)b->x[i];
    return f;
}

static void reference_free(reference *f) {
    void *all[] = {f->q, f->inv_scale, f->x, f->trits, f->w, f->exact, f->y, f->dx, f->dw, f->db};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

static void compute_use(const bench *b, reference *f, int use, float lambda) {
    const geometry *g = &b->g;
    take_weights(b, f, use, lambda);
    memset(f->dw, 0, g->co * g->k * sizeof *f->dw);
    memset(f->db, 0, g->co * sizeof *f->db);
    for (size_t place = 0; place < b->places; place++)
        for (size_t o = 0; o < g->co; o++)
            compute_output(b, f, use, place / (g->oh * g->ow), place / g->ow % g->oh, place % g->ow, o);
}

/* ---- comparing */

/* The error's root mean square within `tolerance` of that of what is wanted, and each element within five times
 * that. */
static void check_near(const bench *b, const char *what, const float *got, const double *want, size_t n, double times,
                       double tolerance) {
    double square = 0, error = 0;
    for (size_t i = 0; i < n; i++) square += want[i] * want[i];
    double room = tolerance * times * (sqrt(square / (double)n) + 1e-6);
    for (size_t i = 0; i < n; i++) {
        double off = (double)got[i] - times * want[i];
        error += off * off;
        if (!(fabs(off) <= 5 * room))
            fail_msg("%s kernel %zu stride %zu groups %zu batch %zu lambda %g: %s[%zu] is %.9g, should be %.9g +- %g",
                     b->c.op, b->g.kernel, b->g.stride, b->g.groups, b->batch, (double)b->plan->lambda, what, i,
                     (double)got[i], times * want[i], 5 * room);
    }
    if (!(sqrt(error / (double)n) <= room))
        fail_msg("%s kernel %zu stride %zu groups %zu batch %zu lambda %g: %s is off by %g, more than %g", b->c.op,
                 b->g.kernel, b->g.stride, b->g.groups, b->batch, (double)b->plan->lambda, what,
                 sqrt(error / (double)n), room);
}

static void check_equal(const bench *b, const char *what, const float *got, const float *want, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (memcmp(&got[i], &want[i], sizeof *got))
            fail_msg("%s kernel %zu stride %zu groups %zu batch %zu: %s[%zu] is %.9g, should be %.9g", b->c.op,
                     b->g.kernel, b->g.stride, b->g.groups, b->batch, what, i, (double)got[i], (double)want[i]);
}

static void draw(bench *b, size_t batch) {
    b->batch = batch;
    b->places = batch * b->g.oh * b->g.ow;
    for (size_t i = 0; i < batch * b->graph->node[0].elements; i++) b->x[i] = 3 * tern_random_normal(batch, i);
    for (size_t i = 0; i < b->places * b->g.co; i++) b->r[i] = tern_random_normal(batch + 100, i);
}

static const float *forward(bench *b) {
    const float *y = tern_plan_forward(b->plan, b->x, b->batch);
    OK(tern_dnn_check(b->plan->dnn, &err));
    return y;
}

static void backward(bench *b) {
    memcpy(tern_plan_output_grad(b->plan), b->r, b->places * b->g.co * sizeof(float));
    tern_plan_backward(b->plan);
    OK(tern_dnn_check(b->plan->dnn, &err));
}

/* One batch, forward and backward, twice without clearing the gradients between: they must have doubled. */
static void check_batch(bench *b, size_t batch, float lambda, double tolerance) {
    const geometry *g = &b->g;
    draw(b, batch);
    b->plan->lambda = lambda;
    OK(tern_plan_refresh(b->plan, &err));
    reference f = reference_make(b);
    const float *y = forward(b);
    tern_plan_zero_grad(b->plan);
    backward(b);
    forward(b);
    backward(b);
    for (int use = 0; use < b->uses; use++) {
        compute_use(b, &f, use, lambda);
        size_t node = FIRST + (size_t)use;
        check_near(b, "dw", tern_plan_param_grad(b->plan, node, 0), f.dw, g->co * g->k, 2, tolerance);
        if (b->c.at.bias) check_near(b, "db", tern_plan_param_grad(b->plan, node, 1), f.db, g->co, 2, 1e-4);
    }
    if (g->bit && lambda == 1) check_equal(b, "y", y, f.exact, b->places * g->co);
    check_near(b, "y", y, f.y, b->places * g->co, 1, g->bit && lambda == 1 ? 1e-5 : tolerance);
    check_near(b, "dx", b->plan->node[FRONT].grad, f.dx, batch * g->h * g->w * g->ci, 1, tolerance);
    /* As it will run: packed products, in fp32. */
    if (!g->bit && lambda == 1) {
        b->plan->train_mode = 0;
        check_near(b, "y in evaluation", forward(b), f.y, b->places * g->co, 1, 1e-5);
        b->plan->train_mode = 1;
    }
    reference_free(&f);
}

static const op_case linears[] = {
    {"", 1, 0, 33, {.outputs = 17, .bias = 1}},
    {"", 3, 0, 70, {.outputs = 9, .rule = TERN_RULE_ABSMEAN, .granularity = TERN_PER_ROW}},
    {"", 2, 0, 64, {.outputs = 32, .bias = 1, .rule = TERN_RULE_ABSMEDIAN}},
    {"", 2, 0, 5, {.outputs = 3, .bias = 1, .rule = TERN_RULE_TWN, .granularity = TERN_PER_ROW}},
};

static const op_case images[] = {
    {"", 6, 7, 8, {.outputs = 12, .kernel = 3, .padding = 1, .bias = 1}},
    {"", 7, 6, 8, {.outputs = 10, .kernel = 3, .stride = 2, .padding = 1, .rule = TERN_RULE_TWN, .granularity = 1}},
    {"", 7, 5, 3, {.outputs = 4, .kernel = 3, .bias = 1, .rule = TERN_RULE_ABSMEAN, .granularity = 1}},
    {"", 5, 6, 8, {.outputs = 8, .bias = 1, .rule = TERN_RULE_ABSMEDIAN, .granularity = 1}},
    {"", 6, 8, 4, {.outputs = 8, .stride = 2, .rule = TERN_RULE_TWN}}, /* the last column is in no window */
    {"", 6, 6, 8, {.outputs = 12, .kernel = 3, .padding = 1, .groups = 2, .bias = 1, .granularity = 1}},
    {"", 8, 7, 16, {.outputs = 16, .kernel = 3, .stride = 2, .padding = 1, .groups = 16, .bias = 1}},
    {"", 5, 5, 16, {.outputs = 16, .kernel = 3, .padding = 2, .groups = 16, .granularity = 1}},
    {"", 9, 8, 3, {.outputs = 5, .kernel = 2, .stride = 3, .bias = 1}},
};

static int bf16_works(void) {
    bench b = bench_make(&(op_case){"ternary_conv2d", 4, 4, 4, {.outputs = 4, .kernel = 3}}, 1, 1, 1, TERN_BF16);
    draw(&b, 1);
    OK(tern_plan_refresh(b.plan, &err));
    tern_plan_forward(b.plan, b.x, 1);
    memset(tern_plan_output_grad(b.plan), 0, b.places * b.g.co * sizeof(float));
    tern_plan_backward(b.plan);
    int works = !tern_dnn_check(b.plan->dnn, NULL);
    bench_free(&b);
    return works;
}

/* The weights turn float and back; batch sizes that do not fill the plan, nor divide into its parts. */
static void check_case(op_case c, const char *op, tern_dtype products, int uses, int threads) {
    static const struct {
        float lambda;
        size_t batch;
    } passes[] = {{1, 37}, {1, 1}, {1, 2}, {0, 2}, {0.3f, 37}, {1, 1}};
    c.op = op;
    bench b = bench_make(&c, uses, 1, threads, products);
    for (size_t i = 0; i < sizeof passes / sizeof *passes; i++)
        check_batch(&b, passes[i].batch, passes[i].lambda, products == TERN_BF16 ? 2e-2 : 1e-4);
    bench_free(&b);
}

static void check_op(const char *op, const op_case *cases, size_t count) {
    int bf16 = bf16_works();
    if (!bf16) print_message("no bf16 products on this machine\n");
    for (size_t i = 0; i < count; i++) {
        int uses = 1 + (int)(i % 2);
        check_case(cases[i], op, TERN_F32, uses, 2);
        check_case(cases[i], op, bf16 ? TERN_BF16 : TERN_F32, 3 - uses, 1);
    }
}

#define CHECK(op, cases)                                    \
    static void test_##op(void **state) {                   \
        (void)state;                                        \
        check_op(#op, cases, sizeof cases / sizeof *cases); \
    }
CHECK(bit_linear, linears)
CHECK(ternary_linear, linears)
CHECK(bit_conv2d, images)
CHECK(ternary_conv2d, images)

/* A plan for inference has no operands, gradients or float products: what it computes must not differ by a bit. */
static void test_inference(void **state) {
    (void)state;
    static const char *const ops[] = {"bit_linear", "ternary_linear", "bit_conv2d", "ternary_conv2d"};
    for (size_t o = 0; o < 4; o++) {
        size_t count = o < 2 ? sizeof linears / sizeof *linears : sizeof images / sizeof *images;
        for (size_t i = 0; i < count; i++) {
            op_case c = o < 2 ? linears[i] : images[i];
            c.op = ops[o];
            bench trained = bench_make(&c, 2, 1, 2, TERN_F32), deployed = bench_make(&c, 2, 0, 3, TERN_F32);
            trained.plan->train_mode = 0;
            OK(tern_plan_refresh(trained.plan, &err));
            OK(tern_plan_refresh(deployed.plan, &err));
            draw(&trained, 37);
            draw(&deployed, 37);
            const float *want = forward(&trained);
            check_equal(&deployed, "y", forward(&deployed), want, deployed.places * deployed.g.co);
            bench_free(&trained);
            bench_free(&deployed);
        }
    }
}

/* With lambda 0 a bit_ op is the float op on quantized activations. */
static void test_lambda_zero(void **state) {
    (void)state;
    for (size_t i = 0; i < 2 + sizeof images / sizeof *images; i++) {
        op_case c = i < 2 ? linears[i] : images[i - 2], plain = i < 2 ? linears[i] : images[i - 2];
        c.op = i < 2 ? "bit_linear" : "bit_conv2d";
        plain.op = i < 2 ? "linear" : "conv2d";
        bench bit = bench_make(&c, 1, 1, 2, TERN_F32), dense = bench_make(&plain, 1, 1, 2, TERN_F32);
        bit.plan->lambda = 0;
        OK(tern_plan_refresh(bit.plan, &err));
        for (size_t p = 0; p < bit.graph->params; p++)
            memcpy(dense.graph->param[p].value, bit.graph->param[p].value, bit.graph->param[p].count * sizeof(float));
        draw(&bit, 37);
        draw(&dense, 37);
        reference f = reference_make(&bit);
        size_t x = 37 * bit.graph->node[0].elements, y = bit.places * bit.g.co;
        for (size_t j = 0; j < x; j++) dense.x[j] = (float)f.x[j];
        const float *want = forward(&dense);
        for (size_t j = 0; j < y; j++) f.y[j] = (double)want[j];
        check_near(&bit, "y", forward(&bit), f.y, y, 1, 1e-5);
        reference_free(&f);
        bench_free(&bit);
        bench_free(&dense);
    }
}

/* Counts of trits and of those that changed since the last count, by the weights that the op really uses. */
static void test_counts(void **state) {
    (void)state;
    op_case c = linears[0];
    c.op = "bit_linear";
    bench b = bench_make(&c, 1, 1, 1, TERN_F32);
    OK(tern_plan_refresh(b.plan, &err));
    float *w = b.graph->param[b.graph->node[FIRST].param[0]].value;
    const tern_ternary_weights *t = tern_plan_ternary(b.plan, FIRST);
    assert_non_null(t);
    assert_null(tern_plan_ternary(b.plan, FRONT));
    size_t n = b.g.co * b.g.k;
    for (size_t i = 0; i < n; i++) w[i] = i % 4 == 0 ? -1.0f : i % 4 == 1 ? 1.0f : 0;
    b.plan->count_trits = 1;
    OK(tern_plan_refresh(b.plan, &err));
    assert_int_equal(t->flips, 0); /* nothing to compare with yet */
    b.plan->count_trits = 0;
    w[0] = 1;
    OK(tern_plan_refresh(b.plan, &err)); /* not counted, but remembered */
    w[1] = 0;
    b.plan->count_trits = 1;
    OK(tern_plan_refresh(b.plan, &err));
    assert_int_equal(t->flips, 2);
    assert_int_equal(t->minus, (n + 3) / 4 - 1);
    assert_int_equal(t->plus, (n + 2) / 4);
    assert_int_equal(t->zero, n - t->minus - t->plus);
    bench_free(&b);
}

/* A NaN among the weights is refused by its node's name, and what was there before still runs. */
static void test_bad_weights(void **state) {
    (void)state;
    for (int rule = TERN_RULE_ABSMEAN; rule <= TERN_RULE_TWN; rule++) {
        op_case c = images[0];
        c.op = "bit_conv2d";
        c.at.rule = rule;
        bench b = bench_make(&c, 1, 1, 2, TERN_F32);
        OK(tern_plan_refresh(b.plan, &err));
        draw(&b, 2);
        size_t n = b.places * b.g.co;
        float *kept = malloc(n * sizeof *kept);
        memcpy(kept, forward(&b), n * sizeof *kept);
        b.graph->param[b.graph->node[FIRST].param[0]].value[5] = NAN;
        assert_int_equal(tern_plan_refresh(b.plan, &err), TERN_E_DATA);
        assert_non_null(strstr(err.message, "first.weight"));
        assert_int_equal(err.place, 5);
        check_equal(&b, "y", forward(&b), kept, n);
        free(kept);
        bench_free(&b);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bit_linear), cmocka_unit_test(test_ternary_linear),
        cmocka_unit_test(test_bit_conv2d), cmocka_unit_test(test_ternary_conv2d),
        cmocka_unit_test(test_inference),  cmocka_unit_test(test_lambda_zero),
        cmocka_unit_test(test_counts),     cmocka_unit_test(test_bad_weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
