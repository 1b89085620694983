/* The backward pass of trit_linear and trit_conv2d, in tiles of output rows so that no gradient of a whole layer
 * lives: of each tile first dx += dy (a t), then g = dy^T (q / s) or dy^T x, then the rule steps the tile's integers.
 * The trits are those of the forward pass (`used`), whatever an update has done to the counters since. */
#include <math.h>
#include <string.h>

#include "base/clones.h"
#include "base/error.h"
#include "base/half.h"
#include "nn/dense.h"
#include "nn/op.h"
#include "nn/op_ternary.h"
#include "nn/op_weights.h"
#include "nn/parts.h"
#include "nn/trit_weights.h"
#include "quant/trit_rules.h"

enum { TILE_WEIGHTS = 1 << 18 }; /* a gradient of 1 MiB */

/* Rooms in the plan's scratch, in this order. */
typedef struct tile_room {
    size_t dy, x, w, trits, g, dx, sums, total;
} tile_room;

static tile_room room_of(const tern_plan *plan, size_t i, const tern_ternary_state *state,
                         const tern_ternary_sizes *s) {
    size_t operand = tern_operand_bytes(plan->products), weights = state->tile_rows * s->k;
    int conv = tern_node_is_conv(tern_plan_graph_node(plan, i));
    tile_room r = {.dy = tern_round_up(s->rows * state->tile_rows * operand, 64),
                   .x = tern_round_up(s->x * operand, 64),
                   .w = tern_round_up(weights * operand, 64),
                   .trits = tern_round_up(weights, 64),
                   .g = tern_round_up(weights * sizeof(float), 64),
                   .dx = conv ? tern_round_up(s->x * sizeof(float), 64) : 0,
                   .sums = tern_column_sums_scratch(s->n)};
    r.total = tern_max_size(r.dy + r.x + r.w + r.trits + r.g + r.dx, r.sums);
    return r;
}

/* Tiles of equal size, multiples of 16 rows; of a grouped convolution one. */
static size_t tile_rows_of(const tern_node *node, const tern_ternary_sizes *s) {
    size_t tiles = tern_max_size(1, tern_ceil_div(s->n * s->k, TILE_WEIGHTS));
    return node->at.groups > 1 ? s->n : tern_min_size(s->n, tern_round_up(tern_ceil_div(s->n, tiles), 16));
}

tern_status tern_trit_backward_prepare(tern_plan *plan, size_t i, tern_ternary_state *state, tern_error *err) {
    const tern_node *node = tern_plan_graph_node(plan, i);
    tern_ternary_sizes s = tern_ternary_sizes_of(plan, i, plan->batch_max);
    state->tile_rows = tile_rows_of(node, &s);
    tern_plan_want_scratch(plan, room_of(plan, i, state, &s).total);
    if (!tern_node_is_conv(node)) return TERN_OK;
    tern_conv_desc d = tern_node_conv(plan->graph, node, plan->products);
    d.co = state->tile_rows;
    TERN_TRY(tern_conv_create(&state->tile_conv[0], plan->dnn, &d, err));
    d.co = s.n % state->tile_rows;
    return d.co ? tern_conv_create(&state->tile_conv[1], plan->dnn, &d, err) : TERN_OK;
}

/* One tile: outputs first .. first + rows. */
typedef struct tile {
    tern_plan *plan;
    size_t node, first, rows;
    tern_ternary_state *state;
    const tern_ternary_sizes *s;
    const void *x;
    void *dy, *w;
    int8_t *trits;
    float *g, *dx;
} tile;

static tern_conv *conv_of(const tile *t) { return t->state->tile_conv[t->rows != t->state->tile_rows]; }

/* The tile's columns of dy as operand, each row times its activation scale where `scaled`. */
static void take_dy(const tile *t, int scaled) {
    tern_operand o = {.dtype = t->plan->products,
                      .rows = t->s->rows,
                      .columns = t->rows,
                      .stride = t->s->n,
                      .row_scale = scaled && t->state->int8 ? t->state->inv_scale : NULL,
                      .rows_per_scale = t->s->rows_per_scale};
    tern_operand_from_f32(t->plan->threads, &o, t->dy, t->plan->node[t->node].grad + t->first);
}

/* Scales of one row of W, a column each: powers of two times trits are exact in both types of operand, and so is the
 * rounding of seed-corr's to bf16 what a float product would do. */
TERN_CLONES static void scale_to_bf16(uint16_t *restrict to, const int8_t *restrict trits, float scale, size_t n) {
    for (size_t c = 0; c < n; c++) to[c] = tern_f32_to_bf16((float)trits[c] * scale);
}
TERN_CLONES static void scale_to_f32(float *restrict to, const int8_t *restrict trits, float scale, size_t n) {
    for (size_t c = 0; c < n; c++) to[c] = (float)trits[c] * scale;
}

static void take_row(const tile *t, size_t row) {
    const tern_ternary_weights *w = &t->state->w;
    const tern_node *node = tern_plan_graph_node(t->plan, t->node);
    size_t k = t->s->k, group = w->group ? w->group : k, groups = tern_ceil_div(k, group), at = t->first + row;
    const int8_t *trits = t->trits + row * k;
    for (size_t b = 0; b < groups; b++) {
        size_t c = b * group, n = tern_min_size(group, k - c);
        float scale = tern_ternary_scale(w, node, w->scale_count > 1 ? at * groups + b : 0);
        if (t->plan->products == TERN_BF16)
            scale_to_bf16((uint16_t *)t->w + row * k + c, trits + c, scale, n);
        else
            scale_to_f32((float *)t->w + row * k + c, trits + c, scale, n);
    }
}

static void take_weights(const tile *t) {
    TERN_FOR_PARTS(t->plan->threads, t->rows, tern_rows_a_part(t->s->k), begin, end)
    for (size_t row = begin; row < end; row++) {
        tern_trit_rows(&t->state->w, t->trits + row * t->s->k, t->first + row, 1);
        take_row(t, row);
    }
}

/* add: to what the input's gradient holds already, of other nodes or of earlier tiles. */
static void input_gradient(const tile *t, float *dx, int add) {
    take_weights(t);
    take_dy(t, 0);
    if (tern_node_is_conv(tern_plan_graph_node(t->plan, t->node))) {
        tern_conv_backward_data(conv_of(t), t->plan->batch, add ? t->dx : dx, t->dy, t->w);
        if (add) tern_add_into(t->plan->threads, dx, t->dx, t->s->x);
        return;
    }
    tern_linear l = {t->plan->dnn, t->plan->products, t->s->rows, t->rows, t->s->k};
    tern_linear_input_gradient(&l, dx, t->dy, t->w, add);
}

/* Fills t->g; returns the sum of squares. */
static double weight_gradient(const tile *t) {
    size_t weights = t->rows * t->s->k;
    memset(t->g, 0, weights * sizeof *t->g);
    take_dy(t, 1);
    if (tern_node_is_conv(tern_plan_graph_node(t->plan, t->node))) {
        tern_conv_backward_weights(conv_of(t), t->plan->batch, t->g, t->x, t->dy);
    } else {
        tern_linear l = {t->plan->dnn, t->plan->products, t->s->rows, t->rows, t->s->k};
        tern_linear_weight_gradient(&l, t->g, t->dy, t->x);
    }
    return tern_sum_of_squares(t->plan->threads, t->g, weights);
}

/* Points the tile at its part of the scratch. */
static tile open_tile(tern_plan *plan, size_t i, const tern_ternary_sizes *s) {
    tern_ternary_state *state = plan->node[i].state;
    tile_room room = room_of(plan, i, state, s);
    char *at = plan->scratch.data;
    tile t = {.plan = plan, .node = i, .state = state, .s = s, .dy = at};
    void *x = at += room.dy;
    t.w = at += room.x;
    t.trits = (int8_t *)(at += room.w);
    t.g = (float *)(void *)(at += room.trits);
    t.dx = (float *)(void *)(at + room.g);
    t.x = tern_ternary_activations(plan, i, state, s, x);
    return t;
}

static int next_tile(tile *t) {
    t->rows = tern_min_size(t->state->tile_rows, t->s->n - t->first);
    return t->first < t->s->n;
}

/* The first step has no measure of its gradients yet: they stream past once more. */
static void measure(tile *t) {
    double squares = 0;
    for (t->first = 0; next_tile(t); t->first += t->rows) squares += weight_gradient(t);
    int e = tern_gradient_exponent(squares / (double)(t->s->n * t->s->k));
    t->state->w.rule.gradient_exponent[0] = (int8_t)(isfinite(squares) ? e : TERN_NO_GRADIENT_EXP);
}

void tern_trit_backward(tern_plan *plan, size_t i) {
    const tern_node *node = tern_plan_graph_node(plan, i);
    tern_ternary_sizes s = tern_ternary_sizes_of(plan, i, plan->batch);
    tile t = open_tile(plan, i, &s);
    tern_ternary_weights *w = &t.state->w;
    float *dx = tern_plan_in_grad(plan, i, 0);
    int updates = plan->rules.rate[i] != 0;
    if (updates && w->rule.gradient_exponent[0] == TERN_NO_GRADIENT_EXP) measure(&t);
    updates &= w->rule.gradient_exponent[0] != TERN_NO_GRADIENT_EXP;
    double squares = 0;
    for (t.first = 0; next_tile(&t); t.first += t.rows) {
        if (dx) input_gradient(&t, dx, t.first || plan->node[i].add_to[0]);
        double sum = weight_gradient(&t);
        if (!isfinite(sum) && !plan->rules.trouble) plan->rules.trouble = i;
        if (updates && !plan->rules.trouble) tern_trit_update(w, plan, i, t.first, t.rows, t.g);
        squares += sum;
    }
    if (updates && !plan->rules.trouble) tern_trit_finish(w, plan, i, squares);
    plan->rules.squares += squares;
    if (node->at.bias)
        tern_column_sums(plan->threads, tern_plan_param_grad(plan, i, node->params - 1), plan->node[i].grad, s.rows,
                         s.n, plan->scratch.data);
}
