/* Depthwise ternary convolutions against the way that any convolution goes, group by group through patches and a
 * packed matrix: the same integers and outputs to the bit for int8 activations, the same sums within their rounding
 * for floats. */
#include "base/random.h"
#include "nn/dense.h"
#include "nn/op.h"
#include "nn/plan.h"
#include "nn/ternary_weights.h"
#include "testing.h"

static tern_error err;

enum { BATCH = 3, FRONT = 1, CONV = 2 };

typedef struct shape {
    size_t h, w, c, kernel, stride, padding;
} shape;

typedef struct bench {
    shape s;
    tern_graph *graph;
    tern_plan *plan;
    size_t x_each, rows, y_count; /* elements of an input image; output rows of all images; outputs */
    float *x;
} bench;

/* Weights are drawn anew, so that all three trits and scales of some size occur. */
static bench bench_make(shape s, int bit, int bias, int granularity, int threads) {
    bench b = {.s = s};
    OK(tern_graph_create(&b.graph, &err));
    tern_value x = tern_graph_input(b.graph, (tern_shape){3, {s.h, s.w, s.c}});
    x = tern_graph_add(b.graph, "scale", "front", x, &(tern_attrs){.factor = 1.5f});
    tern_graph_add(b.graph, bit ? "bit_conv2d" : "ternary_conv2d", "conv", x,
                   &(tern_attrs){.outputs = s.c,
                                 .kernel = s.kernel,
                                 .stride = s.stride,
                                 .padding = s.padding,
                                 .groups = s.c,
                                 .bias = bias,
                                 .granularity = granularity});
    OK(tern_graph_check(b.graph, &err));
    OK(tern_graph_place(b.graph, &err));
    for (size_t p = 0; p < b.graph->params; p++)
        for (size_t i = 0; i < b.graph->param[p].count; i++)
            b.graph->param[p].value[i] = tern_random_normal(7 + p, i);
    OK(tern_plan_create(&b.plan, b.graph, &(tern_plan_desc){.batch_max = BATCH, .threads = threads}, &err));
    OK(tern_plan_refresh(b.plan, &err));
    b.x_each = s.h * s.w * s.c;
    b.rows = BATCH * b.graph->node[CONV].rows;
    b.y_count = b.rows * s.c;
    b.x = malloc(BATCH * b.x_each * sizeof *b.x);
    for (size_t i = 0; i < BATCH * b.x_each; i++) b.x[i] = tern_random_normal(2, i);
    return b;
}

static void bench_free(bench *b) {
    tern_plan_free(&b->plan);
    tern_graph_free(&b->graph);
    free(b->x);
}

static tern_patches patches_of(const bench *b, size_t bytes, size_t group) {
    const tern_node *n = &b->graph->node[CONV];
    return (tern_patches){.bytes = bytes,
                          .h = b->s.h,
                          .w = b->s.w,
                          .c = b->s.c,
                          .oh = n->shape.dim[0],
                          .ow = n->shape.dim[1],
                          .kernel = b->s.kernel,
                          .stride = b->s.stride,
                          .padding = b->s.padding,
                          .first_channel = group,
                          .channels = 1};
}

static const float *bias_of(const bench *b) {
    const tern_node *n = &b->graph->node[CONV];
    return n->at.bias ? b->graph->param[n->param[1]].value : NULL;
}

static void check_int8(shape s, int bias, int granularity, int threads) {
    bench b = bench_make(s, 1, bias, granularity, threads);
    size_t k = s.kernel * s.kernel, places = b.rows / BATCH;
    int8_t *q = malloc(BATCH * b.x_each), *patches = malloc(b.rows * k);
    float inv[BATCH], *scales = malloc(b.rows * sizeof *scales), *y = malloc(b.rows * sizeof *y);
    int32_t *sums = malloc(b.rows * sizeof *sums), *got_sums = malloc(b.y_count * sizeof *got_sums);
    const float *got = tern_plan_forward(b.plan, b.x, BATCH);
    OK(tern_plan_sums(got_sums, b.plan, CONV, &err));
    OK(tern_quantize_activations(q, inv, b.plan->node[FRONT].value, BATCH, b.x_each, &err));
    for (size_t row = 0; row < b.rows; row++) scales[row] = inv[row / places];
    for (size_t c = 0; c < s.c; c++) {
        const tern_matrix *w = tern_plan_ternary(b.plan, CONV)->matrix[c];
        tern_patches p = patches_of(&b, 1, c);
        tern_patches_take(&p, patches, q, 0, b.rows);
        OK(tern_matmul_sums(sums, w, patches, b.rows, NULL, &err));
        OK(tern_matmul_i8(y, w, patches, scales, bias ? bias_of(&b) + c : NULL, b.rows, NULL, &err));
        for (size_t row = 0; row < b.rows; row++)
            if (sums[row] != got_sums[row * s.c + c] || memcmp(&y[row], &got[row * s.c + c], sizeof *y))
                fail_msg("kernel %zu stride %zu padding %zu, place %zu, channel %zu of %zu: %d and %.9g, not %d and "
                         "%.9g",
                         s.kernel, s.stride, s.padding, row, c, s.c, got_sums[row * s.c + c],
                         (double)got[row * s.c + c], sums[row], (double)y[row]);
    }
    free(q), free(patches), free(scales), free(y), free(sums), free(got_sums);
    bench_free(&b);
}

static void check_float(shape s, int bias, int granularity, int threads) {
    bench b = bench_make(s, 0, bias, granularity, threads);
    size_t k = s.kernel * s.kernel;
    float *patches = malloc(b.rows * k * sizeof *patches), *y = malloc(b.rows * sizeof *y);
    const float *got = tern_plan_forward(b.plan, b.x, BATCH);
    const tern_ternary_weights *weights = tern_plan_ternary(b.plan, CONV);
    for (size_t c = 0; c < s.c; c++) {
        double scale = (double)weights->scales[granularity == TERN_PER_ROW ? c : 0];
        tern_patches p = patches_of(&b, sizeof(float), c);
        tern_patches_take(&p, patches, b.plan->node[FRONT].value, 0, b.rows);
        OK(tern_matmul_float(y, weights->matrix[c], patches, TERN_F32, bias ? bias_of(&b) + c : NULL, b.rows, NULL,
                             &err));
        for (size_t row = 0; row < b.rows; row++) {
            double size = 0, difference = fabs((double)y[row] - (double)got[row * s.c + c]);
            for (size_t j = 0; j < k; j++) size += fabs((double)patches[row * k + j]) * scale;
            if (bias) size += fabs((double)bias_of(&b)[c]);
            if (!(difference <= 2 * ((double)k + 2) * 0x1p-24 * size)) /* both are rounded */
                fail_msg("kernel %zu stride %zu padding %zu, place %zu, channel %zu of %zu: %.9g, not %.9g", s.kernel,
                         s.stride, s.padding, row, c, s.c, (double)got[row * s.c + c], (double)y[row]);
        }
    }
    free(patches), free(y);
    bench_free(&b);
}

/* Whole chunks of channels, parts of one and both; windows that reach over every edge; kernels at the limit of 16-bit
 * sums (15) and past it. */
static const shape shapes[] = {
    {7, 6, 64, 3, 1, 1}, {8, 7, 70, 3, 2, 1},   {5, 5, 130, 3, 1, 2}, {6, 6, 2, 1, 1, 0},
    {9, 5, 33, 5, 3, 4}, {4, 4, 16, 4, 4, 0},   {6, 8, 3, 2, 1, 1},   {15, 16, 5, 15, 1, 7},
    {3, 3, 8, 5, 2, 2},  {17, 16, 4, 16, 1, 0}, {12, 1, 65, 1, 5, 0},
};

static void test_depthwise(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int bias = 0; bias < 2; bias++)
            for (int granularity = TERN_PER_TENSOR; granularity <= TERN_PER_ROW; granularity++) {
                check_int8(shapes[i], bias, granularity, 1 + bias);
                check_float(shapes[i], bias, granularity, 1 + granularity);
            }
}

/* The largest sums there are: every activation at -128 or 127, every weight of one sign. */
static void test_largest_sums(void **state) {
    (void)state;
    const shape s = {15, 15, 2, 15, 1, 0};
    bench b = bench_make(s, 1, 0, TERN_PER_TENSOR, 1);
    int32_t sums[BATCH * 2];
    tern_param *w = tern_graph_find_param(b.graph, "conv.weight");
    for (size_t i = 0; i < w->count; i++) w->value[i] = i < w->count / 2 ? 1 : -1;
    for (size_t i = 0; i < BATCH * b.x_each; i++) b.x[i] = 1;
    OK(tern_plan_refresh(b.plan, &err));
    tern_plan_forward(b.plan, b.x, BATCH);
    OK(tern_plan_sums(sums, b.plan, CONV, &err));
    for (size_t i = 0; i < BATCH; i++) {
        assert_int_equal(sums[2 * i], 127 * 15 * 15);
        assert_int_equal(sums[2 * i + 1], -127 * 15 * 15);
    }
    bench_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_depthwise), cmocka_unit_test(test_largest_sums)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
