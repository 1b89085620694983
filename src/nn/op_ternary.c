/* The ternary products. t: trits, a: their scales, q: int8 activations, s: 127 / absmax.
 *
 * bit_linear, bit_conv2d          y = float(sum q t) * (a * (1/s)) + b, one s a token; of an image, one an image
 * ternary_linear, ternary_conv2d  y = (sum x t) a + b
 * trit_linear, trit_conv2d        either, by `floats`, from trits behind counters; t and a as their rule has them
 * packed_linear, packed_conv2d    either, by `acts`, from weights that are packed already
 *
 * Gradients are those of the straight-through estimator: both quantizers pass the gradient on as if they were not
 * there, and the products are those of the quantized values (Bengio et al., arXiv:1308.3432; BitNet,
 * arXiv:2310.11453):
 *     dx = dy (a t),  dw = dy^T (q / s) or dy^T x,  db = column sums of dy
 *
 * While plan->lambda < 1 the weights of a training plan are w + lambda (a t - w), and all products are float ones.
 * bit_ ops then still quantize their activations. */
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "nn/dense.h"
#include "nn/depthwise.h"
#include "nn/op.h"
#include "nn/op_ternary.h"
#include "nn/op_weights.h"
#include "nn/parts.h"
#include "nn/trit_weights.h"

tern_ternary_weights *tern_plan_ternary(const tern_plan *plan, size_t i) {
    const tern_op *op = plan->graph->node[i].op;
    int ternary = strstr(op->name, "bit_") == op->name || strstr(op->name, "ternary_") == op->name ||
                  strstr(op->name, "packed_") == op->name || strstr(op->name, "trit_") == op->name;
    ternary &= strcmp(op->name, "trit_rmsnorm") != 0; /* whole numbers, and no trits */
    return ternary && plan->node[i].state ? &((tern_ternary_state *)plan->node[i].state)->w : NULL;
}

/* ---- shapes */

static tern_status check_rule(tern_node *node, int of_default, tern_error *err) {
    if (node->at.rule == TERN_RULE_DEFAULT) node->at.rule = of_default;
    TERN_CHECK_ARGUMENT(node->at.rule >= TERN_RULE_ABSMEAN && node->at.rule <= TERN_RULE_TWN, err,
                        "%s: rule %d; 1 (absmean), 2 (absmedian) and 3 (twn) are possible", node->name,
                        node->at.rule);
    return tern_check_scales(node, 0, err);
}

#define LATENT_SHAPE(rule, geometry, of_default)                                   \
    static tern_status rule(tern_graph *graph, tern_node *node, tern_error *err) { \
        TERN_TRY(check_rule(node, of_default, err));                               \
        TERN_TRY(geometry(graph, node, err));                                      \
        return tern_add_weights(graph, node, TERN_ROLE_LATENT, err);               \
    }
LATENT_SHAPE(bit_linear_shape, tern_linear_shape, TERN_RULE_ABSMEAN)
LATENT_SHAPE(bit_conv2d_shape, tern_conv_shape, TERN_RULE_ABSMEAN)
LATENT_SHAPE(ternary_linear_shape, tern_linear_shape, TERN_RULE_TWN)
LATENT_SHAPE(ternary_conv2d_shape, tern_conv_shape, TERN_RULE_TWN)

#define TRIT_SHAPE(rule, geometry)                                                                                 \
    static tern_status rule(tern_graph *graph, tern_node *node, tern_error *err) {                                 \
        TERN_TRY(geometry(graph, node, err));                                                                      \
        size_t k = tern_weight_columns(graph, node);                                                               \
        float gain = node->at.init_gain > 0 ? node->at.init_gain : 1;                                              \
        node->at.integers = 1;                                                                                     \
        TERN_TRY(tern_trit_add_params(graph, node, node->at.outputs, k, gain / sqrtf((float)k), err));             \
        return node->at.bias ? tern_node_add_vector(graph, node, "bias", TERN_ROLE_BIAS, node->at.outputs, 0, err) \
                             : TERN_OK;                                                                            \
    }
TRIT_SHAPE(trit_linear_shape, tern_linear_shape)
TRIT_SHAPE(trit_conv2d_shape, tern_conv_shape)

#define PACKED_SHAPE(rule, geometry)                                                                               \
    static tern_status rule(tern_graph *graph, tern_node *node, tern_error *err) {                                 \
        TERN_CHECK_ARGUMENT(node->at.acts == TERN_I8 || node->at.acts == TERN_F32, err,                            \
                            "%s: acts %d; 0 (fp32) and 3 (int8) are possible", node->name, node->at.acts);         \
        TERN_TRY(geometry(graph, node, err));                                                                      \
        TERN_TRY(tern_check_scales(node, tern_weight_columns(graph, node), err));                                  \
        return node->at.bias ? tern_node_add_vector(graph, node, "bias", TERN_ROLE_BIAS, node->at.outputs, 0, err) \
                             : TERN_OK;                                                                            \
    }
PACKED_SHAPE(packed_linear_shape, tern_linear_shape)
PACKED_SHAPE(packed_conv2d_shape, tern_conv_shape)

/* ---- geometry of one batch */

tern_ternary_sizes tern_ternary_sizes_of(const tern_plan *plan, size_t i, size_t batch) {
    const tern_node *node = tern_plan_graph_node(plan, i);
    tern_ternary_sizes s = {
        .rows = batch * node->rows, .n = node->channels, .k = tern_weight_columns(plan->graph, node)};
    s.x = batch * tern_node_input(plan->graph, node, 0)->elements;
    s.y = s.rows * s.n;
    s.scales = tern_node_is_conv(node) ? batch : s.rows;
    s.scale_elements = s.x / tern_max_size(1, s.scales);
    s.rows_per_scale = tern_node_is_conv(node) ? node->rows : 1;
    return s;
}

/* Output rows of one part of a convolution: patches of some 256 KiB, enough rows to fill a matrix unit's tiles, and
 * no more than the largest batch has. */
static size_t conv_part_rows(size_t k, size_t largest_batch_rows) {
    size_t rows = tern_max_size(64, tern_round_up((size_t)(256 << 10) / k, 64));
    return tern_min_size(rows, tern_round_up(largest_batch_rows, 64));
}

static tern_patches patches_of(const tern_graph *graph, const tern_node *node, size_t bytes, size_t group) {
    tern_conv_desc d = tern_node_conv(graph, node, TERN_F32);
    return (tern_patches){.bytes = bytes,
                          .h = d.h,
                          .w = d.w,
                          .c = d.ci,
                          .oh = d.oh,
                          .ow = d.ow,
                          .kernel = d.kernel,
                          .stride = d.stride,
                          .padding = d.padding,
                          .first_channel = group * (d.ci / d.groups),
                          .channels = d.ci / d.groups};
}

/* ---- preparation */

/* Scratch of one thread's part of a convolution: patches, scales of the rows, outputs of one group, the product's. */
typedef struct conv_room {
    size_t patches, scales, outputs, product, total;
} conv_room;

static conv_room room_of(const tern_ternary_state *state, const tern_node *node, size_t k) {
    size_t rows = state->part_rows;
    conv_room r = {.patches = tern_round_up(rows * k * (state->int8 ? 1 : sizeof(float)), 64),
                   .scales = tern_round_up(rows * sizeof(float), 64),
                   .outputs = tern_round_up(rows * (node->channels / node->at.groups) * sizeof(float), 64),
                   .product = tern_round_up(state->product_scratch, 64)};
    r.total = r.patches + r.scales + r.outputs + r.product;
    return r;
}

static tern_status measure_product(tern_plan *plan, size_t i, tern_ternary_state *state, tern_error *err) {
    const tern_node *node = tern_plan_graph_node(plan, i);
    tern_ternary_sizes s = tern_ternary_sizes_of(plan, i, plan->batch_max);
    state->part_rows = conv_part_rows(s.k, s.rows);
    size_t rows = tern_node_is_conv(node) ? state->part_rows : s.rows;
    return tern_matmul_scratch(&state->product_scratch, state->w.matrix[0], rows, state->int8 ? TERN_I8 : TERN_F32,
                               tern_node_is_conv(node) ? 1 : plan->threads, err);
}

static tern_status prepare_conv(tern_plan *plan, size_t i, tern_ternary_state *state, tern_error *err) {
    const tern_node *node = tern_plan_graph_node(plan, i);
    if (!tern_node_is_conv(node) || !plan->training) return TERN_OK;
    tern_conv_desc d = tern_node_conv(plan->graph, node, plan->products);
    return tern_conv_create(&state->conv, plan->dnn, &d, err);
}

static size_t forward_scratch(const tern_plan *plan, size_t i, const tern_ternary_state *state,
                              const tern_ternary_sizes *s) {
    const tern_node *node = tern_plan_graph_node(plan, i);
    return tern_node_is_conv(node) ? (size_t)plan->threads * room_of(state, node, s->k).total
                                   : state->product_scratch;
}

static tern_status ternary_prepare(tern_plan *plan, size_t i, tern_error *err) {
    const tern_node *node = tern_plan_graph_node(plan, i);
    tern_ternary_sizes s = tern_ternary_sizes_of(plan, i, plan->batch_max);
    void *memory;
    TERN_TRY(tern_plan_keep(plan, &memory, sizeof(tern_ternary_state), err));
    plan->node[i].state = memory;
    tern_ternary_state *state = memory;
    int trit = !strncmp(node->op->name, "trit_", 5);
    state->int8 = node->op->name[0] == 'b' || (node->op->name[0] == 'p' && node->at.acts == TERN_I8) ||
                  (trit && !node->at.floats);
    if (node->op->name[0] == 'p' && !node->packed.bytes)
        return tern_fail(err, TERN_E_DATA, TERN_NO_PLACE, "%s: its packed weights are missing", node->name);
    if (node->op->name[0] == 'p' && plan->training)
        return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE, "%s: packed weights cannot be trained", node->name);
    TERN_TRY(tern_ternary_prepare(&state->w, plan, i, err));
    TERN_TRY(tern_depthwise_prepare(&state->depthwise, plan, i, &state->w, state->int8, err));
    if (state->int8) {
        TERN_TRY(tern_plan_keep(plan, &memory, s.x, err));
        state->q = memory;
        TERN_TRY(tern_plan_keep(plan, &memory, s.scales * sizeof(float), err));
        state->inv_scale = memory;
    }
    TERN_TRY(measure_product(plan, i, state, err));
    if (trit && plan->training) {
        tern_plan_want_scratch(plan, forward_scratch(plan, i, state, &s));
        return tern_trit_backward_prepare(plan, i, state, err);
    }
    TERN_TRY(prepare_conv(plan, i, state, err));

    size_t forward = forward_scratch(plan, i, state, &s);
    size_t operand = tern_operand_bytes(plan->products);
    size_t dense = tern_round_up(s.x * operand, 64) + tern_round_up(s.n * s.k * operand, 64);
    size_t backward = tern_round_up(s.y * operand, 64) + dense + s.x * sizeof(float) + tern_column_sums_scratch(s.n);
    tern_plan_want_scratch(plan, plan->training ? tern_max_size(forward, backward) : forward);
    return TERN_OK;
}

static void ternary_release(tern_plan *plan, size_t i) {
    tern_ternary_state *state = plan->node[i].state;
    tern_ternary_release(&state->w);
    tern_conv_free(&state->conv);
    for (int t = 0; t < 2; t++) tern_conv_free(&state->tile_conv[t]);
}

static tern_status ternary_refresh(tern_plan *plan, size_t i, tern_error *err) {
    tern_ternary_state *state = plan->node[i].state;
    TERN_TRY(tern_ternary_refresh(&state->w, plan, i, err));
    tern_depthwise_refresh(&state->depthwise, &state->w);
    return TERN_OK;
}

/* ---- forward */

static void quantize_input(tern_plan *plan, size_t i, const tern_ternary_state *state, const tern_ternary_sizes *s) {
    const float *x = tern_plan_in(plan, i, 0);
    TERN_FOR_PARTS(plan->threads, s->scales, tern_rows_a_part(s->scale_elements), begin, end)
    tern_quantize_activations(state->q + begin * s->scale_elements, state->inv_scale + begin,
                              x + begin * s->scale_elements, end - begin, s->scale_elements, NULL);
}

static const float *bias_of(const tern_plan *plan, size_t i) {
    const tern_node *node = tern_plan_graph_node(plan, i);
    return node->at.bias ? tern_plan_param(plan, i, node->params - 1) : NULL;
}

/* The part of a convolution's output rows first .. first + rows, in one thread. */
static void conv_part(tern_plan *plan, size_t i, const tern_ternary_state *state, const tern_ternary_sizes *s,
                      size_t first, size_t rows, char *scratch) {
    const tern_node *node = tern_plan_graph_node(plan, i);
    conv_room room = room_of(state, node, s->k);
    char *patches = scratch;
    float *scales = (float *)(void *)(scratch + room.patches);
    float *outputs = (float *)(void *)(scratch + room.patches + room.scales);
    tern_exec exec = {
        .threads = 1, .scratch = scratch + room.total - room.product, .scratch_bytes = state->product_scratch};
    size_t groups = node->at.groups, n = s->n / groups;
    float *y = plan->node[i].value + first * s->n;
    const float *bias = bias_of(plan, i);
    for (size_t row = 0; state->int8 && row < rows; row++)
        scales[row] = state->inv_scale[(first + row) / s->rows_per_scale];
    for (size_t g = 0; g < groups; g++) {
        tern_patches p = patches_of(plan->graph, node, state->int8 ? 1 : sizeof(float), g);
        float *to = groups == 1 ? y : outputs;
        const float *b = bias ? bias + g * n : NULL;
        tern_patches_take(&p, patches, state->int8 ? (const void *)state->q : tern_plan_in(plan, i, 0), first, rows);
        if (state->int8)
            tern_matmul_i8(to, state->w.matrix[g], (const int8_t *)patches, scales, b, rows, &exec, NULL);
        else
            tern_matmul_float(to, state->w.matrix[g], patches, TERN_F32, b, rows, &exec, NULL);
        for (size_t row = 0; groups > 1 && row < rows; row++)
            memcpy(y + row * s->n + g * n, outputs + row * n, n * sizeof *y);
    }
}

static void packed_product(tern_plan *plan, size_t i, const tern_ternary_state *state, const tern_ternary_sizes *s) {
    const tern_node *node = tern_plan_graph_node(plan, i);
    char *scratch = plan->scratch.data;
    if (state->depthwise.weights) {
        tern_depthwise_run(&state->depthwise, plan->threads, plan->node[i].value,
                           state->int8 ? (const void *)state->q : tern_plan_in(plan, i, 0), state->inv_scale,
                           bias_of(plan, i), plan->batch);
        return;
    }
    if (tern_node_is_conv(node)) {
        size_t total = room_of(state, node, s->k).total;
        TERN_FOR_PARTS(plan->threads, s->rows, state->part_rows, begin, end)
        conv_part(plan, i, state, s, begin, end - begin, scratch + (size_t)omp_get_thread_num() * total);
        return;
    }
    tern_exec exec = {.threads = plan->threads, .scratch = scratch, .scratch_bytes = state->product_scratch};
    float *y = plan->node[i].value;
    if (state->int8)
        tern_matmul_i8(y, state->w.matrix[0], state->q, state->inv_scale, bias_of(plan, i), s->rows, &exec, NULL);
    else
        tern_matmul_float(y, state->w.matrix[0], tern_plan_in(plan, i, 0), TERN_F32, bias_of(plan, i), s->rows, &exec,
                          NULL);
}

const void *tern_ternary_activations(tern_plan *plan, size_t i, const tern_ternary_state *state,
                                     const tern_ternary_sizes *s, void *room) {
    const float *x = tern_plan_in(plan, i, 0);
    if (state->int8)
        tern_operand_from_i8(plan->threads, plan->products, room, state->q, s->x);
    else if (plan->products == TERN_BF16)
        tern_bf16_from_f32(plan->threads, room, x, s->x);
    else
        return x;
    return room;
}

static tern_linear linear_of(const tern_plan *plan, const tern_ternary_sizes *s) {
    return (tern_linear){plan->dnn, plan->products, s->rows, s->n, s->k};
}

/* y by a float product: weights mixed with their latents, or float activations in training. */
static void float_product(tern_plan *plan, size_t i, const tern_ternary_state *state, const tern_ternary_sizes *s) {
    const tern_node *node = tern_plan_graph_node(plan, i);
    const void *x = tern_ternary_activations(plan, i, state, s, plan->scratch.data);
    float *y = plan->node[i].value;
    if (tern_node_is_conv(node)) {
        tern_conv_forward(state->conv, plan->batch, y, x, state->w.operand);
    } else {
        tern_linear l = linear_of(plan, s);
        tern_linear_forward(&l, y, x, state->w.operand);
    }
    if (!state->w.mixed) { /* the operand is the bare trits */
        tern_operand o = {.dtype = TERN_F32,
                          .rows = s->rows,
                          .columns = s->n,
                          .column_scale = state->w.scales,
                          .column_scales = state->w.granularity == TERN_PER_ROW ? s->n : 1};
        tern_operand_from_f32(plan->threads, &o, y, y);
    }
    tern_scale_and_bias(plan->threads, y, s->rows, s->n, state->int8 ? state->inv_scale : NULL, s->rows_per_scale,
                        bias_of(plan, i));
}

static void ternary_forward(tern_plan *plan, size_t i) {
    const tern_ternary_state *state = plan->node[i].state;
    tern_ternary_sizes s = tern_ternary_sizes_of(plan, i, plan->batch);
    if (state->int8) quantize_input(plan, i, state, &s);
    if (state->w.mixed || (!state->int8 && plan->train_mode && !state->w.used))
        float_product(plan, i, state, &s);
    else
        packed_product(plan, i, state, &s);
}

/* ---- the integers behind a product */

int tern_plan_has_sums(const tern_plan *plan, size_t i) {
    return tern_plan_ternary(plan, i) && ((const tern_ternary_state *)plan->node[i].state)->int8;
}

size_t tern_plan_sums_count(const tern_plan *plan, size_t i) { return tern_ternary_sizes_of(plan, i, plan->batch).y; }

size_t tern_plan_activations_count(const tern_plan *plan, size_t i) {
    return tern_ternary_sizes_of(plan, i, plan->batch).x;
}

void tern_plan_set_activations(tern_plan *plan, size_t i, const int8_t *q) {
    const tern_ternary_state *state = plan->node[i].state;
    memcpy(state->q, q, tern_plan_activations_count(plan, i));
}

tern_status tern_plan_sums(int32_t *sums, const tern_plan *plan, size_t i, tern_error *err) {
    const tern_node *node = tern_plan_graph_node(plan, i);
    const tern_ternary_state *state = plan->node[i].state;
    tern_ternary_sizes s = tern_ternary_sizes_of(plan, i, plan->batch);
    tern_exec exec = {.threads = plan->threads};
    if (!tern_node_is_conv(node)) return tern_matmul_sums(sums, state->w.matrix[0], state->q, s.rows, &exec, err);
    if (state->depthwise.weights) {
        tern_depthwise_sums(&state->depthwise, plan->threads, sums, state->q, plan->batch);
        return TERN_OK;
    }
    size_t part = state->part_rows, n = s.n / node->at.groups;
    int8_t *patches = malloc(part * s.k);
    int32_t *outputs = malloc(part * n * sizeof *outputs);
    tern_status status = patches && outputs
                             ? TERN_OK
                             : tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "%s: no memory for its sums", node->name);
    for (size_t first = 0; !status && first < s.rows; first += part)
        for (size_t g = 0; !status && g < node->at.groups; g++) {
            size_t rows = tern_min_size(part, s.rows - first);
            tern_patches p = patches_of(plan->graph, node, 1, g);
            tern_patches_take(&p, patches, state->q, first, rows);
            status = tern_matmul_sums(outputs, state->w.matrix[g], patches, rows, &exec, err);
            for (size_t row = 0; row < rows; row++)
                memcpy(sums + (first + row) * s.n + g * n, outputs + row * n, n * sizeof *sums);
        }
    free(patches);
    free(outputs);
    return status;
}

/* ---- backward */

static void weight_gradient(tern_plan *plan, size_t i, const tern_ternary_state *state, const tern_ternary_sizes *s,
                            void *dy, void *room) {
    float *dw = tern_plan_param_grad(plan, i, 0);
    if (!dw) return;
    tern_operand o = {.dtype = plan->products,
                      .rows = s->rows,
                      .columns = s->n,
                      .row_scale = state->int8 ? state->inv_scale : NULL,
                      .rows_per_scale = s->rows_per_scale};
    tern_operand_from_f32(plan->threads, &o, dy, plan->node[i].grad);
    const void *x = tern_ternary_activations(plan, i, state, s, room);
    if (tern_node_is_conv(tern_plan_graph_node(plan, i))) {
        tern_conv_backward_weights(state->conv, plan->batch, dw, x, dy);
        return;
    }
    tern_linear l = linear_of(plan, s);
    tern_linear_weight_gradient(&l, dw, dy, x);
}

static void input_gradient(tern_plan *plan, size_t i, const tern_ternary_state *state, const tern_ternary_sizes *s,
                           void *dy, void *room) {
    float *dx = tern_plan_in_grad(plan, i, 0);
    if (!dx) return;
    int add = plan->node[i].add_to[0];
    tern_operand o = {.dtype = plan->products,
                      .rows = s->rows,
                      .columns = s->n,
                      .column_scale = state->w.mixed ? NULL : state->w.scales,
                      .column_scales = state->w.granularity == TERN_PER_ROW ? s->n : 1};
    tern_operand_from_f32(plan->threads, &o, dy, plan->node[i].grad);
    if (tern_node_is_conv(tern_plan_graph_node(plan, i))) {
        float *to = add ? room : dx;
        tern_conv_backward_data(state->conv, plan->batch, to, dy, state->w.operand);
        if (add) tern_add_into(plan->threads, dx, to, s->x);
        return;
    }
    tern_linear l = linear_of(plan, s);
    tern_linear_input_gradient(&l, dx, dy, state->w.operand, add);
}

static void ternary_backward(tern_plan *plan, size_t i) {
    const tern_ternary_state *state = plan->node[i].state;
    tern_ternary_sizes s = tern_ternary_sizes_of(plan, i, plan->batch);
    char *scratch = plan->scratch.data;
    void *room = scratch + tern_round_up(s.y * tern_operand_bytes(plan->products), 64);
    weight_gradient(plan, i, state, &s, scratch, room);
    input_gradient(plan, i, state, &s, scratch, room);
    const tern_node *node = tern_plan_graph_node(plan, i);
    if (node->at.bias)
        tern_column_sums(plan->threads, tern_plan_param_grad(plan, i, node->params - 1), plan->node[i].grad, s.rows,
                         s.n, scratch);
}

/* Float activations are read again by the backward pass, quantized ones are kept by the op. */
#define TERNARY_OP(kind, reads_input, back, first_values)       \
    const tern_op tern_op_##kind = {.name = #kind,              \
                                    .inputs = 1,                \
                                    .shape = kind##_shape,      \
                                    .initialise = first_values, \
                                    .needs_input = reads_input, \
                                    .prepare = ternary_prepare, \
                                    .refresh = ternary_refresh, \
                                    .forward = ternary_forward, \
                                    .backward = back,           \
                                    .release = ternary_release}
TERNARY_OP(bit_linear, 0, ternary_backward, NULL);
TERNARY_OP(bit_conv2d, 0, ternary_backward, NULL);
TERNARY_OP(ternary_linear, 1, ternary_backward, NULL);
TERNARY_OP(ternary_conv2d, 1, ternary_backward, NULL);
TERNARY_OP(packed_linear, 0, NULL, NULL);
TERNARY_OP(packed_conv2d, 0, NULL, NULL);
/* needs_input: only with float activations, but it is the operation that says so, not its attributes. */
TERNARY_OP(trit_linear, 1, tern_trit_backward, tern_trit_initialise);
TERNARY_OP(trit_conv2d, 1, tern_trit_backward, tern_trit_initialise);
