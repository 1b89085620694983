/* trit_rmsnorm is rmsnorm with its gains as integers.
 *
 * rmsnorm    y = x r gain, r = 1 / sqrt(mean(x^2) + epsilon) over the last dimension (Zhang and Sennrich,
 *            arXiv:1910.07467)
 *            dx = r (g - x r^2 mean(g x)), g = dy gain;  dgain = sum over rows of dy x r
 * layernorm  y = n gain + bias, n = (x - mean) r, r = 1 / sqrt(variance + epsilon)
 *            dx = r (g - mean(g) - n mean(g n));  dgain = sum dy n, dbias = sum dy
 * Sums along a row are fp32 in sixteen interleaved parts added in order. A row of zeros gives zeros (and the
 * bias). */
#include <math.h>

#include "base/clones.h"
#include "base/error.h"
#include "nn/op.h"
#include "nn/op_shapes.h"
#include "nn/parts.h"

static tern_status norm_shape(tern_graph *graph, tern_node *node, tern_error *err) {
    if (node->at.epsilon == 0) node->at.epsilon = 1e-5f;
    TERN_CHECK_ARGUMENT(node->at.epsilon > 0 && node->at.epsilon < 1, err,
                        "%s: epsilon is %g; it must be above 0 and below 1", node->name, (double)node->at.epsilon);
    return tern_shape_of_input(graph, node, err);
}

static tern_status rmsnorm_shape(tern_graph *graph, tern_node *node, tern_error *err) {
    TERN_TRY(norm_shape(graph, node, err));
    if (node->at.plain) return TERN_OK;
    return tern_node_add_vector(graph, node, "gain", TERN_ROLE_GAIN, node->channels, 1, err);
}

static tern_status trit_rmsnorm_shape(tern_graph *graph, tern_node *node, tern_error *err) {
    node->at.integers = 1;
    return rmsnorm_shape(graph, node, err);
}

static tern_status layernorm_shape(tern_graph *graph, tern_node *node, tern_error *err) {
    TERN_TRY(norm_shape(graph, node, err));
    TERN_TRY(tern_node_add_vector(graph, node, "gain", TERN_ROLE_GAIN, node->channels, 1, err));
    return tern_node_add_vector(graph, node, "bias", TERN_ROLE_BIAS, node->channels, 0, err);
}

/* Per row: its mean (0 for rmsnorm) and r. Kept for the backward pass. */
typedef struct row_moments {
    float mean, r;
} row_moments;

enum { LANES = 16, GRADIENT_PARTS = 32 };

/* Floats of one part's sums of dgain and dbias. */
static size_t part_floats(size_t channels) { return 2 * tern_round_up(channels, LANES); }

static tern_status norm_prepare(tern_plan *plan, size_t i, tern_error *err) {
    const tern_node *node = tern_plan_graph_node(plan, i);
    tern_plan_want_scratch(plan, GRADIENT_PARTS * part_floats(node->channels) * sizeof(float));
    return tern_plan_keep(plan, &plan->node[i].state, plan->batch_max * node->rows * sizeof(row_moments), err);
}

/* sum over c of a[c] * b[c], or of a[c] where b is NULL. */
TERN_CLONES static float row_sum(const float *a, const float *b, size_t n) {
    float lane[LANES] = {0};
    size_t c = 0;
    if (b)
        for (; c + LANES <= n; c += LANES)
            for (size_t l = 0; l < LANES; l++) lane[l] += a[c + l] * b[c + l];
    else
        for (; c + LANES <= n; c += LANES)
            for (size_t l = 0; l < LANES; l++) lane[l] += a[c + l];
    for (size_t l = 0; c < n; c++, l++) lane[l] += b ? a[c] * b[c] : a[c];
    float sum = 0;
    for (size_t l = 0; l < LANES; l++) sum += lane[l];
    return sum;
}

TERN_CLONES static void rms_row(float *y, const float *x, const float *gain, float r, size_t n) {
    if (gain)
        for (size_t c = 0; c < n; c++) y[c] = x[c] * r * gain[c];
    else
        for (size_t c = 0; c < n; c++) y[c] = x[c] * r;
}

static void rmsnorm_forward(tern_plan *plan, size_t i) {
    const tern_node *node = tern_plan_graph_node(plan, i);
    size_t n = node->channels, rows = plan->batch * node->rows;
    const float *x = tern_plan_in(plan, i, 0), *gain = node->params ? tern_plan_param(plan, i, 0) : NULL;
    float *y = plan->node[i].value;
    row_moments *moments = plan->node[i].state;
    TERN_FOR_PARTS(plan->threads, rows, tern_rows_a_part(n), begin, end)
    for (size_t row = begin; row < end; row++) {
        float mean = row_sum(x + row * n, x + row * n, n) / (float)n;
        moments[row] = (row_moments){0, 1.0f / sqrtf(mean + node->at.epsilon)};
        rms_row(y + row * n, x + row * n, gain, moments[row].r, n);
    }
}

TERN_CLONES static void layer_row(float *restrict y, const float *restrict x, const float *restrict gain,
                                  const float *restrict bias, row_moments m, size_t n) {
    for (size_t c = 0; c < n; c++) y[c] = (x[c] - m.mean) * m.r * gain[c] + bias[c];
}

TERN_CLONES static float centred_square(const float *x, float mean, size_t n) {
    float lane[LANES] = {0}, sum = 0;
    size_t c = 0;
    for (; c + LANES <= n; c += LANES)
        for (size_t l = 0; l < LANES; l++) lane[l] += (x[c + l] - mean) * (x[c + l] - mean);
    for (size_t l = 0; c < n; c++, l++) lane[l] += (x[c] - mean) * (x[c] - mean);
    for (size_t l = 0; l < LANES; l++) sum += lane[l];
    return sum;
}

static void layernorm_forward(tern_plan *plan, size_t i) {
    const tern_node *node = tern_plan_graph_node(plan, i);
    size_t n = node->channels, rows = plan->batch * node->rows;
    const float *x = tern_plan_in(plan, i, 0), *gain = tern_plan_param(plan, i, 0),
                *bias = tern_plan_param(plan, i, 1);
    float *y = plan->node[i].value;
    row_moments *moments = plan->node[i].state;
    TERN_FOR_PARTS(plan->threads, rows, tern_rows_a_part(n), begin, end)
    for (size_t row = begin; row < end; row++) {
        row_moments m = {.mean = row_sum(x + row * n, NULL, n) / (float)n};
        float variance = centred_square(x + row * n, m.mean, n) / (float)n;
        m.r = 1.0f / sqrtf(variance + node->at.epsilon);
        moments[row] = m;
        layer_row(y + row * n, x + row * n, gain, bias, m, n);
    }
}

/* One row of the backward pass, both norms. dgain, dbias: the part's sums, NULL without. */
typedef struct row_gradient {
    float *dx, *dgain, *dbias;
    const float *dy, *x, *gain;
    row_moments m;
    int centred, add;
} row_gradient;

TERN_CLONES static void gradient_row(const row_gradient *g, size_t n) {
    float *restrict dx = g->dx, *restrict dgain = g->dgain, *restrict dbias = g->dbias;
    const float *restrict dy = g->dy, *restrict x = g->x, *restrict gain = g->gain;
    float mean = g->m.mean, r = g->m.r;
    if (dgain)
        for (size_t c = 0; c < n; c++) dgain[c] += dy[c] * ((x[c] - mean) * r);
    if (dbias)
        for (size_t c = 0; c < n; c++) dbias[c] += dy[c];
    if (!dx) return;
    float along[LANES] = {0}, flat[LANES] = {0};
    for (size_t c = 0; c < n; c++) {
        float v = gain ? dy[c] * gain[c] : dy[c];
        along[c % LANES] += v * ((x[c] - mean) * r);
        flat[c % LANES] += v;
    }
    float mean_along = 0, mean_flat = 0;
    for (size_t l = 0; l < LANES; l++) mean_along += along[l], mean_flat += flat[l];
    mean_along /= (float)n;
    mean_flat = g->centred ? mean_flat / (float)n : 0;
    for (size_t c = 0; c < n; c++) {
        float v = gain ? dy[c] * gain[c] : dy[c];
        v = r * (v - mean_flat - (x[c] - mean) * r * mean_along);
        dx[c] = g->add ? dx[c] + v : v;
    }
}

static void norm_backward(tern_plan *plan, size_t i, int centred) {
    const tern_node *node = tern_plan_graph_node(plan, i);
    size_t n = node->channels, rows = plan->batch * node->rows, stride = part_floats(n);
    const float *gain = node->params ? tern_plan_param(plan, i, 0) : NULL;
    const row_moments *moments = plan->node[i].state;
    float *dx = tern_plan_in_grad(plan, i, 0), *parts = plan->scratch.data;
    const float *x = tern_plan_in(plan, i, 0), *dy = plan->node[i].grad;
    size_t length = tern_max_size(1, tern_ceil_div(rows, GRADIENT_PARTS)), used = tern_ceil_div(rows, length);
    TERN_FOR_PARTS(plan->threads, rows, length, begin, end) {
        float *dgain = parts + begin / length * stride, *dbias = dgain + stride / 2;
        for (size_t c = 0; c < stride; c++) dgain[c] = 0;
        for (size_t row = begin; row < end; row++) {
            row_gradient g = {.dx = dx ? dx + row * n : NULL,
                              .dgain = gain ? dgain : NULL,
                              .dbias = centred ? dbias : NULL,
                              .dy = dy + row * n,
                              .x = x + row * n,
                              .gain = gain,
                              .m = moments[row],
                              .centred = centred,
                              .add = plan->node[i].add_to[0]};
            gradient_row(&g, n);
        }
    }
    for (int p = 0; p < node->params; p++) {
        float *sum = tern_plan_param_grad(plan, i, p);
        for (size_t part = 0; part < used; part++) {
            const float *from = parts + part * stride + (size_t)p * stride / 2;
            for (size_t c = 0; c < n; c++) sum[c] += from[c];
        }
    }
}

static void rmsnorm_backward(tern_plan *plan, size_t i) { norm_backward(plan, i, 0); }
static void layernorm_backward(tern_plan *plan, size_t i) { norm_backward(plan, i, 1); }

const tern_op tern_op_rmsnorm = {.name = "rmsnorm",
                                 .inputs = 1,
                                 .shape = rmsnorm_shape,
                                 .needs_input = 1,
                                 .prepare = norm_prepare,
                                 .forward = rmsnorm_forward,
                                 .backward = rmsnorm_backward};

const tern_op tern_op_trit_rmsnorm = {.name = "trit_rmsnorm",
                                      .inputs = 1,
                                      .shape = trit_rmsnorm_shape,
                                      .needs_input = 1,
                                      .prepare = norm_prepare,
                                      .forward = rmsnorm_forward,
                                      .backward = rmsnorm_backward};

const tern_op tern_op_layernorm = {.name = "layernorm",
                                   .inputs = 1,
                                   .shape = layernorm_shape,
                                   .needs_input = 1,
                                   .prepare = norm_prepare,
                                   .forward = layernorm_forward,
                                   .backward = layernorm_backward};
