/* batch_norm  y = (x - mean) r gain + bias per channel, r = 1 / sqrt(variance + epsilon) (Ioffe and Szegedy,
 *             arXiv:1502.03167), over the batch and all places.
 *             training: mean and (biased) variance of the batch; running = (1 - momentum) running + momentum * batch,
 *             with the unbiased variance. Else the running ones, as affine with scale = gain r, shift = bias - mean
 *             scale, each rounded once to fp32: just what a deployed model computes.
 *             dx = gain r (dy - mean(dy) - n mean(dy n)), n = (x - mean) r
 * affine      y = x scale + shift per channel; two roundings, no fused multiply-add.
 *
 * Sums over rows are taken in parts of the rows, cut by their number alone: fp32 over up to 64 rows, double above. */
#include <math.h>

#include "base/clones.h"
#include "base/error.h"
#include "nn/batch_norm.h"
#include "nn/op.h"
#include "nn/op_shapes.h"
#include "nn/parts.h"

enum { GAIN_FREE_PARAMS = 3, STRIPE = 64, SUM_PARTS = 32 };

/* Parameters: mean, variance, bias and, unless plain, gain. */
static tern_status batch_norm_shape(tern_graph *graph, tern_node *node, tern_error *err) {
    tern_attrs *at = &node->at;
    if (at->epsilon == 0) at->epsilon = 1e-5f;
    if (at->momentum == 0) at->momentum = 0.1f;
    TERN_CHECK_ARGUMENT(at->epsilon > 0 && at->epsilon < 1, err, "%s: epsilon is %g; it must be above 0 and below 1",
                        node->name, (double)at->epsilon);
    TERN_CHECK_ARGUMENT(at->momentum > 0 && at->momentum <= 1, err,
                        "%s: momentum is %g; it must be above 0 and at most 1", node->name, (double)at->momentum);
    TERN_TRY(tern_shape_of_input(graph, node, err));
    size_t c = node->channels;
    TERN_TRY(tern_node_add_vector(graph, node, "mean", TERN_ROLE_STATISTIC, c, 0, err));
    TERN_TRY(tern_node_add_vector(graph, node, "variance", TERN_ROLE_STATISTIC, c, 1, err));
    TERN_TRY(tern_node_add_vector(graph, node, "bias", TERN_ROLE_BIAS, c, 0, err));
    return at->plain ? TERN_OK : tern_node_add_vector(graph, node, "gain", TERN_ROLE_GAIN, c, 1, err);
}

/* What a pass keeps, each [channels]: scale and shift of the forward pass, mean and r of the batch. */
typedef struct channel_state {
    float *scale, *shift, *mean, *r;
} channel_state;

static channel_state state_of(const tern_plan *plan, size_t i) {
    float *base = plan->node[i].state;
    size_t c = tern_plan_graph_node(plan, i)->channels;
    return (channel_state){base, base + c, base + 2 * c, base + 3 * c};
}

static tern_status batch_norm_prepare(tern_plan *plan, size_t i, tern_error *err) {
    size_t c = tern_plan_graph_node(plan, i)->channels;
    tern_plan_want_scratch(plan,
                           (SUM_PARTS + 1) * 2 * c * sizeof(double) + (size_t)SUM_PARTS * 2 * c * sizeof(float));
    return tern_plan_keep(plan, &plan->node[i].state, 4 * c * sizeof(float), err);
}

/* Two sums per channel over some rows of x (and of dy in the backward pass), added to stripe sums in fp32. */
TERN_CLONES static void add_moments(float *restrict sum, float *restrict square, const float *restrict x, size_t rows,
                                    size_t c, const float *restrict centre) {
    for (size_t row = 0; row < rows; row++)
        for (size_t j = 0; j < c; j++) {
            float v = x[row * c + j] - centre[j];
            sum[j] += v;
            square[j] += v * v;
        }
}

TERN_CLONES static void add_products(float *restrict sum, float *restrict along, const float *restrict dy,
                                     const float *restrict x, size_t rows, size_t c, const float *restrict mean,
                                     const float *restrict r) {
    for (size_t row = 0; row < rows; row++)
        for (size_t j = 0; j < c; j++) {
            float g = dy[row * c + j];
            sum[j] += g;
            along[j] += g * ((x[row * c + j] - mean[j]) * r[j]);
        }
}

/* total[2][c] = the two sums over all rows. dy NULL: moments of x about `centre`; else the products of the backward
 * pass. Scratch: total, then per part its doubles, then per part its floats. */
static double *sum_channels(tern_plan *plan, size_t rows, size_t c, const float *x, const float *dy,
                            const float *centre, const float *r) {
    double *total = plan->scratch.data, *parts = total + 2 * c;
    float *stripes = (float *)(parts + SUM_PARTS * 2 * c);
    size_t length = tern_max_size(1, tern_ceil_div(rows, SUM_PARTS)), used = tern_ceil_div(rows, length);
    TERN_FOR_PARTS(plan->threads, rows, length, begin, end) {
        double *part = parts + begin / length * 2 * c;
        float *stripe = stripes + begin / length * 2 * c;
        for (size_t j = 0; j < 2 * c; j++) part[j] = 0;
        for (size_t row = begin; row < end; row += STRIPE) {
            size_t n = tern_min_size(STRIPE, end - row);
            for (size_t j = 0; j < 2 * c; j++) stripe[j] = 0;
            if (dy)
                add_products(stripe, stripe + c, dy + row * c, x + row * c, n, c, centre, r);
            else
                add_moments(stripe, stripe + c, x + row * c, n, c, centre);
            for (size_t j = 0; j < 2 * c; j++) part[j] += (double)stripe[j];
        }
    }
    for (size_t j = 0; j < 2 * c; j++) {
        total[j] = 0;
        for (size_t p = 0; p < used; p++) total[j] += parts[p * 2 * c + j];
    }
    return total;
}

TERN_CLONES static void affine_rows(float *restrict y, const float *restrict x, const float *restrict scale,
                                    const float *restrict shift, size_t rows, size_t c) {
    for (size_t row = 0; row < rows; row++)
        for (size_t j = 0; j < c; j++) y[row * c + j] = x[row * c + j] * scale[j] + shift[j];
}

static void run_affine(const tern_plan *plan, float *y, const float *x, const float *scale, const float *shift,
                       size_t rows, size_t c) {
    TERN_FOR_PARTS(plan->threads, rows, tern_rows_a_part(c), begin, end)
    affine_rows(y + begin * c, x + begin * c, scale, shift, end - begin, c);
}

void tern_batch_norm_fold(float *scale, float *shift, const float *mean, const float *variance, const float *gain,
                          const float *bias, float epsilon, size_t channels) {
    for (size_t j = 0; j < channels; j++) {
        float r = (float)(1.0 / sqrt((double)variance[j] + (double)epsilon));
        scale[j] = gain ? gain[j] * r : r;
        shift[j] = bias[j] - mean[j] * scale[j];
    }
}

/* Means and variances of the batch into the state, and into the running statistics. */
static void take_statistics(tern_plan *plan, size_t i, channel_state s, const float *x, size_t rows, size_t c) {
    const tern_node *node = tern_plan_graph_node(plan, i);
    float *mean = (float *)tern_plan_param(plan, i, 0), *variance = (float *)tern_plan_param(plan, i, 1);
    /* About the first row, not about 0: sums of squares then lose no digits to a large mean. */
    for (size_t j = 0; j < c; j++) s.mean[j] = x[j];
    const double *total = sum_channels(plan, rows, c, x, NULL, s.mean, NULL);
    double momentum = plan->recalibrating ? 1.0 / plan->recalibrating : (double)node->at.momentum;
    for (size_t j = 0; j < c; j++) {
        double about = total[j] / (double)rows;
        double v = total[c + j] / (double)rows - about * about, m = (double)s.mean[j] + about;
        if (v < 0) v = 0;
        double unbiased = rows > 1 ? v * (double)rows / (double)(rows - 1) : v;
        s.mean[j] = (float)m;
        s.r[j] = (float)(1.0 / sqrt(v + (double)node->at.epsilon));
        mean[j] = (float)((1 - momentum) * (double)mean[j] + momentum * m);
        variance[j] = (float)((1 - momentum) * (double)variance[j] + momentum * unbiased);
    }
}

static void batch_norm_forward(tern_plan *plan, size_t i) {
    const tern_node *node = tern_plan_graph_node(plan, i);
    size_t c = node->channels, rows = plan->batch * node->rows;
    const float *x = tern_plan_in(plan, i, 0), *bias = tern_plan_param(plan, i, 2);
    const float *gain = node->params > GAIN_FREE_PARAMS ? tern_plan_param(plan, i, 3) : NULL;
    channel_state s = state_of(plan, i);
    if (plan->train_mode) {
        take_statistics(plan, i, s, x, rows, c);
        for (size_t j = 0; j < c; j++) {
            s.scale[j] = gain ? gain[j] * s.r[j] : s.r[j];
            s.shift[j] = bias[j] - s.mean[j] * s.scale[j];
        }
    } else {
        tern_batch_norm_fold(s.scale, s.shift, tern_plan_param(plan, i, 0), tern_plan_param(plan, i, 1), gain, bias,
                             node->at.epsilon, c);
    }
    run_affine(plan, plan->node[i].value, x, s.scale, s.shift, rows, c);
}

/* dx = scale dy + a x + b, where a and b hold what the means of the batch do. */
TERN_CLONES static void gradient_rows(float *restrict dx, const float *restrict dy, const float *restrict x,
                                      const float *restrict scale, const float *restrict a, const float *restrict b,
                                      size_t rows, size_t c, int add) {
    for (size_t row = 0; row < rows; row++)
        for (size_t j = 0; j < c; j++) {
            float v = scale[j] * dy[row * c + j] + (a[j] * x[row * c + j] + b[j]);
            dx[row * c + j] = add ? dx[row * c + j] + v : v;
        }
}

static void batch_norm_backward(tern_plan *plan, size_t i) {
    const tern_node *node = tern_plan_graph_node(plan, i);
    size_t c = node->channels, rows = plan->batch * node->rows;
    const float *x = tern_plan_in(plan, i, 0), *dy = plan->node[i].grad;
    channel_state s = state_of(plan, i);
    if (!plan->train_mode) { /* the statistics are constants */
        const float *mean = tern_plan_param(plan, i, 0), *variance = tern_plan_param(plan, i, 1);
        for (size_t j = 0; j < c; j++) {
            s.mean[j] = mean[j];
            s.r[j] = (float)(1.0 / sqrt((double)variance[j] + (double)node->at.epsilon));
        }
    }
    const double *total = sum_channels(plan, rows, c, x, dy, s.mean, s.r);
    float *dbias = tern_plan_param_grad(plan, i, 2);
    float *dgain = node->params > GAIN_FREE_PARAMS ? tern_plan_param_grad(plan, i, 3) : NULL;
    float *dx = tern_plan_in_grad(plan, i, 0);
    /* The state's shift and mean have served: they take b and a. */
    float *a = s.mean, *b = s.shift;
    for (size_t j = 0; j < c; j++) {
        dbias[j] += (float)total[j];
        if (dgain) dgain[j] += (float)total[c + j];
        double flat = plan->train_mode ? total[j] / (double)rows : 0;
        double along = plan->train_mode ? total[c + j] / (double)rows : 0;
        double slope = -(double)s.scale[j] * along * (double)s.r[j];
        b[j] = (float)(-(double)s.scale[j] * flat - slope * (double)s.mean[j]);
        a[j] = (float)slope;
    }
    if (!dx) return;
    int add = plan->node[i].add_to[0];
    TERN_FOR_PARTS(plan->threads, rows, tern_rows_a_part(c), begin, end)
    gradient_rows(dx + begin * c, dy + begin * c, x + begin * c, s.scale, a, b, end - begin, c, add);
}

const tern_op tern_op_batch_norm = {.name = "batch_norm",
                                    .inputs = 1,
                                    .shape = batch_norm_shape,
                                    .needs_input = 1,
                                    .prepare = batch_norm_prepare,
                                    .forward = batch_norm_forward,
                                    .backward = batch_norm_backward};

static tern_status affine_shape(tern_graph *graph, tern_node *node, tern_error *err) {
    TERN_TRY(tern_shape_of_input(graph, node, err));
    TERN_TRY(tern_node_add_vector(graph, node, "scale", TERN_ROLE_GAIN, node->channels, 1, err));
    return tern_node_add_vector(graph, node, "shift", TERN_ROLE_BIAS, node->channels, 0, err);
}

static tern_status affine_prepare(tern_plan *plan, size_t i, tern_error *err) {
    size_t c = tern_plan_graph_node(plan, i)->channels;
    float *zero_and_one;
    TERN_TRY(batch_norm_prepare(plan, i, err));
    zero_and_one = plan->node[i].state;
    for (size_t j = 0; j < c; j++) zero_and_one[j] = 0, zero_and_one[c + j] = 1;
    return TERN_OK;
}

static void affine_forward(tern_plan *plan, size_t i) {
    const tern_node *node = tern_plan_graph_node(plan, i);
    run_affine(plan, plan->node[i].value, tern_plan_in(plan, i, 0), tern_plan_param(plan, i, 0),
               tern_plan_param(plan, i, 1), plan->batch * node->rows, node->channels);
}

/* As batch norm's with mean 0, r 1 and constant statistics. */
static void affine_backward(tern_plan *plan, size_t i) {
    const tern_node *node = tern_plan_graph_node(plan, i);
    size_t c = node->channels, rows = plan->batch * node->rows;
    const float *x = tern_plan_in(plan, i, 0), *dy = plan->node[i].grad, *zero = plan->node[i].state, *one = zero + c;
    const double *total = sum_channels(plan, rows, c, x, dy, zero, one);
    float *dscale = tern_plan_param_grad(plan, i, 0), *dshift = tern_plan_param_grad(plan, i, 1);
    for (size_t j = 0; j < c; j++) {
        dshift[j] += (float)total[j];
        dscale[j] += (float)total[c + j];
    }
    float *dx = tern_plan_in_grad(plan, i, 0);
    if (!dx) return;
    int add = plan->node[i].add_to[0];
    const float *scale = tern_plan_param(plan, i, 0);
    TERN_FOR_PARTS(plan->threads, rows, tern_rows_a_part(c), begin, end)
    gradient_rows(dx + begin * c, dy + begin * c, x + begin * c, scale, zero, zero, end - begin, c, add);
}

const tern_op tern_op_affine = {.name = "affine",
                                .inputs = 1,
                                .shape = affine_shape,
                                .needs_input = 1,
                                .prepare = affine_prepare,
                                .forward = affine_forward,
                                .backward = affine_backward};
