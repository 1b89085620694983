/* trit_embedding    y[token] = row of trits times its scales; the rule steps a row when the batch takes it
 * packed_embedding  the same from packed trits
 *
 * The gradient of a row is the sum of dy over the places that took it, in their order. Each row's step is normalised
 * by its own gradient and numbered by its own count of steps (`row_steps`), so that a token that is rare moves its
 * row as far as a frequent one when it comes. No gradient of the whole table is ever made. */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "base/error.h"
#include "nn/dense.h"
#include "nn/op.h"
#include "nn/op_shapes.h"
#include "nn/op_ternary.h"
#include "nn/op_weights.h"
#include "nn/parts.h"
#include "nn/trit_weights.h"
#include "quant/packing.h"
#include "quant/trit_rules.h"

static tern_status trit_embedding_shape(tern_graph *graph, tern_node *node, tern_error *err) {
    TERN_TRY(tern_embedding_shape(graph, node, err));
    float sigma = node->at.init_gain > 0 ? node->at.init_gain : 0.02f;
    TERN_CHECK_ARGUMENT(!node->at.group_rates, err,
                        "%s: group_rates are not for tables, whose rows normalise their own", node->name);
    node->at.integers = 1;
    TERN_CHECK_ARGUMENT(node->at.update != TERN_UPDATE_ORTHO, err,
                        "%s: ortho steps whole matrices; a table, of which a batch takes rows, needs another update",
                        node->name);
    TERN_TRY(tern_trit_add_params(graph, node, node->at.outputs, node->at.width, sigma, err));
    return tern_node_add_integers(graph, node, "row_steps", TERN_ROLE_RULE, TERN_STORE_I32, node->at.outputs, 0, 0,
                                  err);
}

static tern_status packed_embedding_shape(tern_graph *graph, tern_node *node, tern_error *err) {
    TERN_TRY(tern_embedding_shape(graph, node, err));
    return tern_check_scales(node, node->at.width, err);
}

/* Scratch of the backward pass: where each row's places begin, the places, the sums of squares, a gradient a
 * thread. */
typedef struct embedding_room {
    size_t first, place, squares, g, total;
} embedding_room;

static embedding_room room_of(const tern_plan *plan, const tern_node *node, size_t places) {
    embedding_room r = {.first = tern_round_up((node->at.outputs + 1) * sizeof(size_t), 64),
                        .place = tern_round_up(places * sizeof(size_t), 64),
                        .squares = tern_round_up(node->at.outputs * sizeof(double), 64),
                        .g = (size_t)plan->threads * tern_round_up(node->channels * sizeof(float), 64)};
    r.total = r.first + r.place + r.squares + r.g;
    return r;
}

static tern_status embedding_prepare(tern_plan *plan, size_t i, tern_error *err) {
    const tern_node *node = tern_plan_graph_node(plan, i);
    void *memory;
    TERN_TRY(tern_plan_keep(plan, &memory, sizeof(tern_ternary_state), err));
    plan->node[i].state = memory;
    tern_ternary_state *state = memory;
    TERN_TRY(tern_ternary_prepare_table(&state->w, plan, i, err));
    if (plan->training) tern_plan_want_scratch(plan, room_of(plan, node, plan->batch_max * node->rows).total);
    return TERN_OK;
}

static tern_status embedding_refresh(tern_plan *plan, size_t i, tern_error *err) {
    return tern_ternary_refresh(&((tern_ternary_state *)plan->node[i].state)->w, plan, i, err);
}

static void embedding_release(tern_plan *plan, size_t i) {
    tern_ternary_release(&((tern_ternary_state *)plan->node[i].state)->w);
}

/* One row of the table, as floats. */
static void take_row(float *y, const tern_ternary_weights *w, const tern_node *node, size_t row, int8_t *trits) {
    size_t group = w->group ? w->group : w->cols, groups = tern_ceil_div(w->cols, group);
    if (w->used)
        tern_trit_rows(w, trits, row, 1);
    else
        tern_unpack_row(trits, node->packed.packing, node->packed.bytes, row, w->cols);
    for (size_t b = 0, c = 0; b < groups; b++) {
        float scale = tern_ternary_scale(w, node, w->scale_count > 1 ? row * groups + b : 0);
        for (size_t end = tern_min_size(c + group, w->cols); c < end; c++) y[c] = (float)trits[c] * scale;
    }
}

static void embedding_forward(tern_plan *plan, size_t i) {
    const tern_node *node = tern_plan_graph_node(plan, i);
    const tern_ternary_state *state = plan->node[i].state;
    size_t width = node->channels;
    const int32_t *token = (const int32_t *)(const void *)tern_plan_in(plan, i, 0);
    float *y = plan->node[i].value;
    TERN_FOR_PARTS(plan->threads, plan->batch * node->rows, tern_rows_a_part(width), begin, end)
    for (size_t place = begin; place < end; place++)
        take_row(y + place * width, &state->w, node, (size_t)token[place],
                 state->w.room + (size_t)omp_get_thread_num() * width);
}

/* first[row] .. first[row + 1]: the places that took it, ascending. */
static void sort_places(size_t *first, size_t *place, const int32_t *token, size_t places, size_t rows) {
    memset(first, 0, (rows + 1) * sizeof *first);
    for (size_t p = 0; p < places; p++) first[token[p] + 1]++;
    for (size_t r = 0; r < rows; r++) first[r + 1] += first[r];
    for (size_t p = 0; p < places; p++) place[first[token[p]]++] = p;
    memmove(first + 1, first, rows * sizeof *first);
    first[0] = 0;
}

static double row_gradient(float *g, const float *dy, const size_t *place, size_t count, size_t width) {
    double squares = 0;
    memset(g, 0, width * sizeof *g);
    for (size_t p = 0; p < count; p++)
        for (size_t c = 0; c < width; c++) g[c] += dy[place[p] * width + c];
    for (size_t c = 0; c < width; c++) squares += (double)g[c] * (double)g[c];
    return squares;
}

static void embedding_backward(tern_plan *plan, size_t i) {
    const tern_node *node = tern_plan_graph_node(plan, i);
    tern_ternary_weights *w = &((tern_ternary_state *)plan->node[i].state)->w;
    size_t width = node->channels, places = plan->batch * node->rows, rows = node->at.outputs;
    embedding_room room = room_of(plan, node, places);
    char *scratch = plan->scratch.data;
    size_t *first = (size_t *)(void *)scratch, *place = (size_t *)(void *)(scratch + room.first);
    double *squares = (double *)(void *)(scratch + room.first + room.place), total = 0;
    char *gradients = scratch + room.first + room.place + room.squares;
    const int32_t *token = (const int32_t *)(const void *)tern_plan_in(plan, i, 0);
    int32_t *row_steps = tern_node_find_param(plan->graph, node, "row_steps")->integers;
    sort_places(first, place, token, places, rows);
    size_t flips = 0, strange = 0;
#pragma omp parallel for schedule(static) reduction(+ : flips, strange) num_threads(tern_team(plan->threads, rows, 1))
    for (size_t row = 0; row < rows; row++) {
        size_t thread = (size_t)omp_get_thread_num(), count = first[row + 1] - first[row];
        squares[row] = 0;
        if (!count) continue;
        float *g = (float *)(void *)(gradients + thread * tern_round_up(width * sizeof(float), 64));
        squares[row] = row_gradient(g, plan->node[i].grad, place + first[row], count, width);
        int e = tern_gradient_exponent(squares[row] / (double)width);
        if (!isfinite(squares[row])) strange++;
        if (!plan->rules.rate[i] || plan->rules.trouble || e == TERN_NO_GRADIENT_EXP || !isfinite(squares[row]))
            continue;
        flips += tern_trit_update_row(w, plan, i, row, g, e, (uint64_t)row_steps[row], w->room + thread * width);
        row_steps[row] += row_steps[row] < INT32_MAX; /* numbers of steps need not differ for ever */
    }
    for (size_t row = 0; row < rows; row++) total += squares[row];
    w->flipping += flips;
    plan->rules.squares += total;
    if (strange && !plan->rules.trouble) plan->rules.trouble = i;
    if (plan->rules.rate[i] && !plan->rules.trouble) tern_trit_finish(w, plan, i, total);
}

const tern_op tern_op_trit_embedding = {.name = "trit_embedding",
                                        .inputs = 1,
                                        .shape = trit_embedding_shape,
                                        .initialise = tern_trit_initialise,
                                        .needs_input = 1,
                                        .prepare = embedding_prepare,
                                        .refresh = embedding_refresh,
                                        .forward = embedding_forward,
                                        .backward = embedding_backward,
                                        .release = embedding_release};

const tern_op tern_op_packed_embedding = {.name = "packed_embedding",
                                          .inputs = 1,
                                          .shape = packed_embedding_shape,
                                          .prepare = embedding_prepare,
                                          .forward = embedding_forward,
                                          .release = embedding_release};
