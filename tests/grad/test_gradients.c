/* Every op's backward pass against central differences of its forward pass, through a random linear loss:
 * L = sum of r * y. The forward pass is fp32, so the step is large and the tolerance relative to the gradient's norm.
 * Ops with quantizers have no useful difference quotient; test_ternary_ops.c checks them against their written
 * rule. */
#include "base/random.h"
#include "nn/loss.h"
#include "nn/op.h"
#include "nn/plan.h"
#include "testing.h"

static tern_error err;

enum { BATCH = 3 };

typedef struct bench {
    tern_graph *graph;
    tern_plan *plan;
    float *x, *r;
    size_t in, out;
} bench;

static bench bench_make(tern_graph *graph, int threads) {
    bench b = {.graph = graph};
    OK(tern_graph_place(graph, &err));
    tern_graph_initialise(graph, 7, 0);
    /* Gains and biases away from 1 and 0, so that a missing factor shows. */
    for (size_t p = 0; p < graph->params; p++)
        if (graph->param[p].role != TERN_ROLE_STATISTIC)
            for (size_t i = 0; i < graph->param[p].count; i++)
                graph->param[p].value[i] += 0.3f * tern_random_signed(100 + p, i);
    OK(tern_plan_create(&b.plan, graph, &(tern_plan_desc){.batch_max = BATCH, .training = 1, .threads = threads},
                        &err));
    b.in = BATCH * graph->node[0].elements;
    b.out = BATCH * graph->node[graph->nodes - 1].elements;
    b.x = malloc(b.in * sizeof *b.x);
    b.r = malloc(b.out * sizeof *b.r);
    for (size_t i = 0; i < b.in; i++) b.x[i] = tern_random_normal(1, i);
    for (size_t i = 0; i < b.out; i++) b.r[i] = tern_random_normal(2, i);
    b.plan->train_mode = 1;
    return b;
}

static void bench_free(bench *b) {
    tern_plan_free(&b->plan);
    tern_graph_free(&b->graph);
    free(b->x);
    free(b->r);
}

static double loss_of(bench *b) {
    OK(tern_plan_refresh(b->plan, &err));
    const float *y = tern_plan_forward(b->plan, b->x, BATCH);
    OK(tern_dnn_check(b->plan->dnn, &err));
    double sum = 0;
    for (size_t i = 0; i < b->out; i++) sum += (double)b->r[i] * (double)y[i];
    return sum;
}

/* Central differences along random directions of each parameter; statistics move with every pass and change nothing
 * in training. */
static void check(bench *b, double tolerance) {
    loss_of(b);
    memcpy(tern_plan_output_grad(b->plan), b->r, b->out * sizeof(float));
    tern_plan_zero_grad(b->plan);
    tern_plan_backward(b->plan);
    OK(tern_dnn_check(b->plan->dnn, &err));
    for (size_t p = 0; p < b->graph->params; p++) {
        tern_param *param = &b->graph->param[p];
        if (!b->plan->param_grad[p]) continue;
        float *kept = malloc(param->count * sizeof *kept), *grad = malloc(param->count * sizeof *grad);
        memcpy(kept, param->value, param->count * sizeof *kept);
        memcpy(grad, b->plan->param_grad[p], param->count * sizeof *grad);
        for (uint64_t trial = 0; trial < 3; trial++) {
            const double h = 2e-3;
            double expected = 0, norm = 0, loss[2];
            for (size_t i = 0; i < param->count; i++) {
                double d = (double)tern_random_normal(50 + trial, i);
                expected += d * (double)grad[i];
                norm += (double)grad[i] * (double)grad[i];
            }
            for (int side = 0; side < 2; side++) {
                for (size_t i = 0; i < param->count; i++)
                    param->value[i] = kept[i] + (float)((side ? -h : h) * (double)tern_random_normal(50 + trial, i));
                loss[side] = loss_of(b);
            }
            double measured = (loss[0] - loss[1]) / (2 * h);
            if (fabs(measured - expected) > tolerance * (sqrt(norm) + 1))
                fail_msg("%s: slope %g along direction %d, backward says %g (norm %g)", param->name, measured,
                         (int)trial, expected, sqrt(norm));
        }
        memcpy(param->value, kept, param->count * sizeof *kept);
        free(kept);
        free(grad);
    }
    bench_free(b);
}

/* A linear layer in front gives every op an input that has a gradient, so that dx is checked through its weights. */
static tern_graph *images(size_t h, size_t w, size_t c, tern_value *front) {
    tern_graph *g;
    OK(tern_graph_create(&g, &err));
    tern_value x = tern_graph_input(g, (tern_shape){3, {h, w, 3}});
    *front = tern_graph_add(g, "linear", "front", x, &(tern_attrs){.outputs = c, .bias = 1});
    return g;
}

static void check_op(const char *op, size_t h, size_t w, size_t c, tern_attrs attrs, double tolerance) {
    for (int residual = 0; residual < 2; residual++) { /* with a second use of the input, gradients must add */
        tern_value front;
        tern_graph *g = images(h, w, c, &front);
        tern_value y = tern_graph_add(g, op, "op", front, &attrs);
        if (residual && !g->status) {
            tern_value again = tern_graph_add(g, op, "again", front, &attrs);
            y = tern_graph_add2(g, "add", "sum", y, again);
        }
        OK(tern_graph_check(g, &err));
        bench b = bench_make(g, 1 + residual);
        check(&b, tolerance);
    }
}

#define ELEMENTWISE(name)                                \
    static void test_##name(void **state) {              \
        (void)state;                                     \
        check_op(#name, 3, 4, 5, (tern_attrs){0}, 4e-3); \
    }
ELEMENTWISE(gelu)
ELEMENTWISE(silu)
ELEMENTWISE(relu2)
ELEMENTWISE(rmsnorm)
ELEMENTWISE(layernorm)
ELEMENTWISE(batch_norm)
ELEMENTWISE(affine)

static void test_relu(void **state) {
    (void)state;
    check_op("relu", 3, 4, 5, (tern_attrs){0}, 3e-2);
}
static void test_plain_norms(void **state) {
    (void)state;
    check_op("rmsnorm", 2, 2, 33, (tern_attrs){.plain = 1, .epsilon = 1e-3f}, 4e-3);
    check_op("batch_norm", 5, 4, 17, (tern_attrs){.plain = 1}, 4e-3);
}
static void test_scale(void **state) {
    (void)state;
    check_op("scale", 2, 2, 3, (tern_attrs){.factor = -0.7f}, 4e-3);
}
static void test_dropout(void **state) {
    (void)state;
    check_op("dropout", 4, 4, 9, (tern_attrs){.rate = 0.4f}, 4e-3);
}
static void test_linear(void **state) {
    (void)state;
    check_op("linear", 3, 4, 5, (tern_attrs){.outputs = 7, .bias = 1}, 4e-3);
    check_op("linear", 9, 9, 70, (tern_attrs){.outputs = 130}, 4e-3);
}
static void test_conv2d(void **state) {
    (void)state;
    check_op("conv2d", 6, 7, 4, (tern_attrs){.outputs = 5, .kernel = 3, .padding = 1, .bias = 1}, 4e-3);
    check_op("conv2d", 7, 6, 4, (tern_attrs){.outputs = 6, .kernel = 3, .stride = 2, .padding = 1}, 4e-3);
    check_op("conv2d", 6, 6, 4, (tern_attrs){.outputs = 8, .kernel = 2, .groups = 2, .bias = 1}, 4e-3);
    check_op("conv2d", 5, 5, 16, (tern_attrs){.outputs = 16, .kernel = 3, .padding = 1, .groups = 16}, 4e-3);
    check_op("conv2d", 5, 5, 3, (tern_attrs){.outputs = 4, .stride = 2}, 4e-3);
}
static void test_pools(void **state) {
    (void)state;
    check_op("avg_pool", 6, 6, 5, (tern_attrs){.kernel = 2}, 4e-3);
    check_op("avg_pool", 4, 4, 5, (tern_attrs){0}, 4e-3);
    check_op("max_pool", 6, 6, 5, (tern_attrs){.kernel = 2}, 3e-2);
    check_op("max_pool", 7, 7, 5, (tern_attrs){.kernel = 3, .stride = 2, .padding = 1}, 3e-2);
}

static void test_mul_and_flatten(void **state) {
    (void)state;
    tern_value front;
    tern_graph *g = images(3, 3, 6, &front);
    tern_value gate = tern_graph_add(g, "silu", "gate", front, NULL);
    tern_value product = tern_graph_add2(g, "mul", "product", gate, front);
    tern_value flat = tern_graph_add(g, "flatten", "flat", product, NULL);
    tern_graph_add(g, "linear", "head", flat, &(tern_attrs){.outputs = 4});
    OK(tern_graph_check(g, &err));
    bench b = bench_make(g, 2);
    check(&b, 4e-3);
}

/* An alias shares its input's memory and gradient; here the input has other readers before and after. */
static void test_reshape(void **state) {
    (void)state;
    tern_value front;
    tern_graph *g = images(3, 2, 8, &front);
    tern_value gate = tern_graph_add(g, "silu", "gate", front, NULL);
    tern_value wide = tern_graph_add(g, "reshape", "wide", front, &(tern_attrs){.dim = {TERN_REST, 16}});
    tern_value norm = tern_graph_add(g, "rmsnorm", "norm", wide, NULL);
    tern_value image = tern_graph_add(g, "reshape", "image", norm, &(tern_attrs){.dim = {3, 2, 8}});
    tern_value product = tern_graph_add2(g, "mul", "product", image, gate);
    tern_value sum = tern_graph_add2(g, "add", "sum", product, front);
    tern_value tall = tern_graph_add(g, "reshape", "tall", sum, &(tern_attrs){.dim = {TERN_REST, 4}});
    tern_graph_add(g, "linear", "head", tall, &(tern_attrs){.outputs = 5});
    OK(tern_graph_check(g, &err));
    assert_int_equal(g->node[wide].shape.dim[0], 3);
    assert_int_equal(g->node[tall].at.dim[0], 12); /* the size left open is filled in, so files have it */
    bench b = bench_make(g, 2);
    loss_of(&b);
    assert_ptr_equal(b.plan->node[wide].value, b.plan->node[front].value);
    assert_ptr_equal(b.plan->node[wide].grad, b.plan->node[front].grad);
    check(&b, 4e-3);
}

/* Who else reads the input: a reader before attention adds to its gradient, one behind has set it. */
enum { ALONE = 0, BEFORE = 1, BEHIND = 2 };

static void check_attention(size_t tokens, size_t heads, size_t kv_heads, size_t width, float base, int others) {
    tern_graph *g;
    OK(tern_graph_create(&g, &err));
    tern_value x = tern_graph_input(g, (tern_shape){2, {tokens, 6}}), y, before = -1;
    size_t channels = (heads + 2 * kv_heads) * width;
    const tern_attrs narrow = {.outputs = heads * width};
    x = tern_graph_add(g, "linear", "qkv", x, &(tern_attrs){.outputs = channels, .bias = 1, .init_gain = 2});
    if (others & BEFORE) before = tern_graph_add(g, "linear", "before", x, &narrow);
    y = tern_graph_add(g, "attention", "attend", x,
                       &(tern_attrs){.heads = heads, .kv_heads = kv_heads, .rope_base = base});
    if (others & BEFORE) y = tern_graph_add2(g, "add", "sum1", y, before);
    if (others & BEHIND) y = tern_graph_add2(g, "add", "sum2", tern_graph_add(g, "linear", "behind", x, &narrow), y);
    OK(tern_graph_check(g, &err));
    bench b = bench_make(g, 2);
    check(&b, 6e-3);
}

static void test_attention(void **state) {
    (void)state;
    check_attention(5, 2, 2, 4, 0, ALONE);
    check_attention(7, 4, 2, 6, 10000, ALONE);
    check_attention(33, 3, 1, 8, 100, ALONE);
    check_attention(5, 2, 2, 4, 0, BEFORE);
    check_attention(7, 4, 2, 6, 10000, BEHIND);
    check_attention(6, 3, 1, 8, 100, BEFORE | BEHIND);
}

static void test_embedding(void **state) {
    (void)state;
    tern_graph *g;
    OK(tern_graph_create(&g, &err));
    tern_value x = tern_graph_input_tokens(g, 6, 11);
    x = tern_graph_add(g, "embedding", "table", x, &(tern_attrs){.width = 40});
    tern_graph_add(g, "rmsnorm", "norm", x, NULL);
    OK(tern_graph_check(g, &err));
    bench b = bench_make(g, 2);
    int32_t *tokens = (int32_t *)(void *)b.x;
    for (size_t i = 0; i < b.in; i++) tokens[i] = (int32_t)(tern_random_u32(5, i) % 11);
    check(&b, 4e-3);
}

/* In evaluation batch norm's statistics are constants. */
static void test_batch_norm_evaluation(void **state) {
    (void)state;
    tern_value front;
    tern_graph *g = images(4, 4, 6, &front);
    tern_graph_add(g, "batch_norm", "norm", front, NULL);
    bench b = bench_make(g, 2);
    loss_of(&b);
    b.plan->train_mode = 0;
    check(&b, 4e-3);
}

static void test_cross_entropy(void **state) {
    (void)state;
    enum { ROWS = 5, CLASSES = 7 };
    float x[ROWS * CLASSES], grad[ROWS * CLASSES];
    int32_t label[ROWS] = {0, 6, 3, 3, 1};
    for (int i = 0; i < ROWS * CLASSES; i++) x[i] = 3 * tern_random_normal(9, (uint64_t)i);
    for (int smooth = 0; smooth < 2; smooth++) {
        float smoothing = smooth ? 0.2f : 0;
        tern_cross_entropy(2, grad, x, label, ROWS, CLASSES, smoothing, 1);
        for (int i = 0; i < ROWS * CLASSES; i++) {
            float kept = x[i], h = 1e-2f;
            x[i] = kept + h;
            double up = tern_cross_entropy(1, NULL, x, label, ROWS, CLASSES, smoothing, 1).sum;
            x[i] = kept - h;
            double down = tern_cross_entropy(1, NULL, x, label, ROWS, CLASSES, smoothing, 1).sum;
            x[i] = kept;
            double measured = (up - down) / (2 * (double)h) / ROWS;
            if (fabs(measured - (double)grad[i]) > 2e-4)
                fail_msg("logit %d: slope %g, gradient %g", i, measured, (double)grad[i]);
        }
    }
}

enum { LOSS_ROWS = 5, LOSS_CLASSES = 7, LOGITS = LOSS_ROWS * LOSS_CLASSES };
static const int32_t loss_label[LOSS_ROWS] = {0, 6, 3, 3, 1};

static void draw_logits(float *x) {
    for (int i = 0; i < LOGITS; i++) x[i] = 3 * tern_random_normal(9, (uint64_t)i);
}

static tern_loss weighted(float *grad, const float *x, const tern_loss_weights *w) {
    return tern_weighted_loss(2, grad, x, loss_label, LOSS_ROWS, LOSS_CLASSES, 0.1f, w, 1);
}

/* Each component alone, of either sign, and all of them, halved. */
static const tern_loss_weights weight_sets[] = {{1, 0, 0, 0},  {0, 1, 0, 0},  {0, -1, 0, 0},     {0, 0, 1, 0},
                                                {0, 0, -3, 2}, {5, -2, 3, 2}, {-127, 127, -1, 7}};
enum { WEIGHT_SETS = sizeof weight_sets / sizeof *weight_sets };

static void test_weighted_loss_slopes(void **state) {
    (void)state;
    float x[LOGITS], grad[LOGITS];
    draw_logits(x);
    for (size_t s = 0; s < WEIGHT_SETS; s++) {
        weighted(grad, x, &weight_sets[s]);
        for (int i = 0; i < LOGITS; i++) {
            float kept = x[i], h = 1e-2f;
            x[i] = kept + h;
            double up = weighted(NULL, x, &weight_sets[s]).sum, wide = (double)x[i];
            x[i] = kept - h;
            double down = weighted(NULL, x, &weight_sets[s]).sum;
            wide -= (double)x[i];
            x[i] = kept;
            double measured = (up - down) / wide / LOSS_ROWS;
            if (fabs(measured - (double)grad[i]) > 4e-4)
                fail_msg("set %zu, logit %d: slope %g, gradient %g", s, i, measured, (double)grad[i]);
        }
    }
}

/* The components by their definitions, in double. */
static void test_weighted_loss_value(void **state) {
    (void)state;
    float x[LOGITS];
    double ce = 0, entropy = 0, z = 0;
    draw_logits(x);
    for (int r = 0; r < LOSS_ROWS; r++) {
        double sum = 0, mean = 0;
        for (int j = 0; j < LOSS_CLASSES; j++) sum += exp((double)x[r * LOSS_CLASSES + j]);
        for (int j = 0; j < LOSS_CLASSES; j++) {
            double v = (double)x[r * LOSS_CLASSES + j], p = exp(v) / sum;
            entropy -= p * log(p);
            mean += v / LOSS_CLASSES;
        }
        ce += log(sum) - 0.9 * (double)x[r * LOSS_CLASSES + loss_label[r]] - 0.1 * mean;
        z += log(sum) * log(sum);
    }
    for (size_t s = 0; s < WEIGHT_SETS; s++) {
        const tern_loss_weights *w = &weight_sets[s];
        double expected = ldexp(w->ce * ce + w->entropy * entropy + w->z * z, -w->shift);
        double got = weighted(NULL, x, w).sum;
        if (fabs(got - expected) > 1e-5 * (1 + fabs(expected))) fail_msg("set %zu: %.9g, not %.9g", s, got, expected);
    }
}

/* What has no weight leaves no trace in the bits, and halvings of a power of two neither. */
static void test_zero_weight_changes_nothing(void **state) {
    (void)state;
    float x[LOGITS], plain[LOGITS], grad[LOGITS];
    draw_logits(x);
    double sum = tern_cross_entropy(1, plain, x, loss_label, LOSS_ROWS, LOSS_CLASSES, 0.1f, 1).sum;
    const tern_loss_weights same[] = {{1, 0, 0, 0}, {4, 0, 0, 2}};
    for (int s = 0; s < 2; s++) {
        assert_true(weighted(grad, x, &same[s]).sum == sum);
        assert_memory_equal(grad, plain, sizeof grad);
    }
    weighted(grad, x, &(tern_loss_weights){1, 1, 0, 0});
    assert_memory_not_equal(grad, plain, sizeof grad);
}

static void test_loss_weights_refused(void **state) {
    (void)state;
    const tern_loss_weights bad[] = {{0, 0, 0, 0},   {128, 0, 0, 0}, {1, -128, 0, 0},
                                     {1, 0, 128, 0}, {1, 0, 0, -1},  {1, 0, 0, TERN_LOSS_SHIFT_MAX + 1}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        tern_error why = {0};
        assert_int_equal(tern_loss_weights_check(&bad[i], &why), TERN_E_ARGUMENT);
        assert_non_null(strstr(why.message, "loss_"));
    }
    for (size_t i = 0; i < WEIGHT_SETS; i++) OK(tern_loss_weights_check(&weight_sets[i], &err));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_relu),
        cmocka_unit_test(test_relu2),
        cmocka_unit_test(test_gelu),
        cmocka_unit_test(test_silu),
        cmocka_unit_test(test_rmsnorm),
        cmocka_unit_test(test_layernorm),
        cmocka_unit_test(test_affine),
        cmocka_unit_test(test_batch_norm),
        cmocka_unit_test(test_plain_norms),
        cmocka_unit_test(test_batch_norm_evaluation),
        cmocka_unit_test(test_scale),
        cmocka_unit_test(test_dropout),
        cmocka_unit_test(test_linear),
        cmocka_unit_test(test_conv2d),
        cmocka_unit_test(test_pools),
        cmocka_unit_test(test_mul_and_flatten),
        cmocka_unit_test(test_reshape),
        cmocka_unit_test(test_embedding),
        cmocka_unit_test(test_attention),
        cmocka_unit_test(test_cross_entropy),
        cmocka_unit_test(test_weighted_loss_slopes),
        cmocka_unit_test(test_weighted_loss_value),
        cmocka_unit_test(test_zero_weight_changes_nothing),
        cmocka_unit_test(test_loss_weights_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
