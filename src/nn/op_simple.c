/* input    the caller's
 * flatten  the same elements as one dimension
 * reshape  the same elements under the shape of the attributes
 * add      y = a + b            da = dy, db = dy
 * mul      y = a * b            da = dy * b, db = dy * a
 * scale    y = x * factor
 * dropout  in training y = x * m / (1 - rate), m = 0 with probability `rate`; m is drawn from the counter-based
 *          generator by (seed, step, node, element) and drawn again in the backward pass. Else y = x. */
#include "base/clones.h"
#include "base/error.h"
#include "base/half.h"
#include "base/random_fill.h"
#include "nn/op.h"
#include "nn/op_shapes.h"
#include "nn/parts.h"

const tern_op tern_op_input = {.name = "input"};

static tern_status flatten_shape(tern_graph *graph, tern_node *node, tern_error *err) {
    return tern_node_set_shape(node, 1, tern_node_input(graph, node, 0)->elements, 0, 0, err);
}

const tern_op tern_op_flatten = {.name = "flatten", .inputs = 1, .shape = flatten_shape, .alias = 1};

/* What is left of `elements` for the size dim[open]; 0 where the other sizes do not divide them. */
static size_t rest_of(const size_t *dim, int rank, int open, size_t elements) {
    for (int i = 0; i < rank; i++) {
        if (i == open) continue;
        if (elements % dim[i]) return 0;
        elements /= dim[i];
    }
    return elements;
}

static tern_status reshape_shape(tern_graph *graph, tern_node *node, tern_error *err) {
    size_t elements = tern_node_input(graph, node, 0)->elements, *dim = node->at.dim;
    int rank = 0, open = -1;
    for (; rank < TERN_MAX_RANK && dim[rank]; rank++) {
        if (dim[rank] != TERN_REST) continue;
        TERN_CHECK_ARGUMENT(open < 0, err, "%s: more than one size is TERN_REST", node->name);
        open = rank;
    }
    TERN_CHECK_ARGUMENT(rank, err, "%s: no dim is given", node->name);
    for (int i = rank; i < TERN_MAX_RANK; i++)
        TERN_CHECK_ARGUMENT(!dim[i], err, "%s: a size of %zu behind one of 0", node->name, dim[i]);
    if (open >= 0) dim[open] = rest_of(dim, rank, open, elements);
    TERN_CHECK_ARGUMENT(open < 0 || dim[open], err, "%s: the given sizes do not divide %zu elements", node->name,
                        elements);
    TERN_TRY(tern_node_set_shape(node, rank, dim[0], dim[1], dim[2], err));
    TERN_CHECK_ARGUMENT(node->elements == elements, err, "%s: a shape of %zu elements for an input of %zu",
                        node->name, node->elements, elements);
    return TERN_OK;
}

const tern_op tern_op_reshape = {.name = "reshape", .inputs = 1, .shape = reshape_shape, .alias = 1};

static tern_status pair_shape(tern_graph *graph, tern_node *node, tern_error *err) {
    const tern_shape *a = &tern_node_input(graph, node, 0)->shape, *b = &tern_node_input(graph, node, 1)->shape;
    int same = a->rank == b->rank;
    for (int i = 0; same && i < a->rank; i++) same = a->dim[i] == b->dim[i];
    TERN_CHECK_ARGUMENT(same, err, "%s: its two inputs, %s and %s, have different shapes", node->name,
                        tern_node_input(graph, node, 0)->name, tern_node_input(graph, node, 1)->name);
    return tern_shape_of_input(graph, node, err);
}

static size_t count_of(const tern_plan *plan, size_t i) {
    return plan->batch * tern_plan_graph_node(plan, i)->elements;
}

static void add_forward(tern_plan *plan, size_t i) {
    const float *a = tern_plan_in(plan, i, 0), *b = tern_plan_in(plan, i, 1);
    float *y = plan->node[i].value;
    TERN_FOR_PARTS(plan->threads, count_of(plan, i), TERN_PART, begin, end)
    for (size_t j = begin; j < end; j++) y[j] = a[j] + b[j];
}

/* to (+)= from * by; by may be NULL for ones. */
TERN_CLONES static void pass_part(float *to, const float *from, const float *by, size_t n, int add) {
    if (by && add)
        for (size_t j = 0; j < n; j++) to[j] += from[j] * by[j];
    else if (by)
        for (size_t j = 0; j < n; j++) to[j] = from[j] * by[j];
    else if (add)
        for (size_t j = 0; j < n; j++) to[j] += from[j];
    else
        for (size_t j = 0; j < n; j++) to[j] = from[j];
}

/* The gradient of input k: dy, times the other input where `by` is given. */
static void pass_gradient(tern_plan *plan, size_t i, int k, const float *by) {
    float *dx = tern_plan_in_grad(plan, i, k);
    const float *dy = plan->node[i].grad;
    if (!dx) return;
    int add = plan->node[i].add_to[k];
    TERN_FOR_PARTS(plan->threads, count_of(plan, i), TERN_PART, begin, end)
    pass_part(dx + begin, dy + begin, by ? by + begin : NULL, end - begin, add);
}

static void add_backward(tern_plan *plan, size_t i) {
    pass_gradient(plan, i, 0, NULL);
    pass_gradient(plan, i, 1, NULL);
}

const tern_op tern_op_add = {
    .name = "add", .inputs = 2, .shape = pair_shape, .forward = add_forward, .backward = add_backward};

static void mul_forward(tern_plan *plan, size_t i) {
    const float *a = tern_plan_in(plan, i, 0), *b = tern_plan_in(plan, i, 1);
    float *y = plan->node[i].value;
    TERN_FOR_PARTS(plan->threads, count_of(plan, i), TERN_PART, begin, end)
    for (size_t j = begin; j < end; j++) y[j] = a[j] * b[j];
}

static void mul_backward(tern_plan *plan, size_t i) {
    pass_gradient(plan, i, 0, tern_plan_in(plan, i, 1));
    pass_gradient(plan, i, 1, tern_plan_in(plan, i, 0));
}

const tern_op tern_op_mul = {.name = "mul",
                             .inputs = 2,
                             .shape = pair_shape,
                             .needs_input = 1,
                             .forward = mul_forward,
                             .backward = mul_backward};

static tern_status scale_shape(tern_graph *graph, tern_node *node, tern_error *err) {
    TERN_CHECK_ARGUMENT(node->at.factor != 0 && tern_f32_is_finite(node->at.factor), err,
                        "%s: factor is %g; it must be finite and not zero", node->name, (double)node->at.factor);
    return tern_shape_of_input(graph, node, err);
}

static void scale_forward(tern_plan *plan, size_t i) {
    const float *x = tern_plan_in(plan, i, 0);
    float *y = plan->node[i].value, factor = tern_plan_graph_node(plan, i)->at.factor;
    TERN_FOR_PARTS(plan->threads, count_of(plan, i), TERN_PART, begin, end)
    for (size_t j = begin; j < end; j++) y[j] = x[j] * factor;
}

static void scale_backward(tern_plan *plan, size_t i) {
    float *dx = tern_plan_in_grad(plan, i, 0), factor = tern_plan_graph_node(plan, i)->at.factor;
    const float *dy = plan->node[i].grad;
    if (!dx) return;
    int add = plan->node[i].add_to[0];
    TERN_FOR_PARTS(plan->threads, count_of(plan, i), TERN_PART, begin, end)
    for (size_t j = begin; j < end; j++) dx[j] = (add ? dx[j] : 0) + dy[j] * factor;
}

const tern_op tern_op_scale = {
    .name = "scale", .inputs = 1, .shape = scale_shape, .forward = scale_forward, .backward = scale_backward};

static tern_status dropout_shape(tern_graph *graph, tern_node *node, tern_error *err) {
    TERN_CHECK_ARGUMENT(node->at.rate >= 0 && node->at.rate < 1, err,
                        "%s: rate is %g; it must be at least 0 and below 1", node->name, (double)node->at.rate);
    return tern_shape_of_input(graph, node, err);
}

enum { DRAWN = 1024 };

TERN_CLONES static void drop_part(float *to, const float *from, const uint32_t *restrict drawn, size_t n,
                                  uint32_t limit, float keep, int add) {
    for (size_t j = 0; j < n; j++) {
        float v = drawn[j] < limit ? 0.0f : from[j] * keep;
        to[j] = add ? to[j] + v : v;
    }
}

/* to (+)= from * mask / (1 - rate), four elements a draw. */
static void drop(tern_plan *plan, size_t i, float *to, const float *from, int add) {
    float rate = tern_plan_graph_node(plan, i)->at.rate, keep = 1.0f / (1.0f - rate);
    uint32_t limit = (uint32_t)((double)rate * 4294967296.0);
    size_t count = count_of(plan, i);
    TERN_FOR_PARTS(plan->threads, count, DRAWN, begin, end) {
        uint32_t drawn[DRAWN];
        tern_random_fill(drawn, plan->seed, begin / 4, plan->step << 12 | i, (end - begin + 3) / 4);
        drop_part(to + begin, from + begin, drawn, end - begin, limit, keep, add);
    }
}

static void dropout_forward(tern_plan *plan, size_t i) {
    const float *x = tern_plan_in(plan, i, 0);
    float *y = plan->node[i].value;
    if (plan->train_mode && tern_plan_graph_node(plan, i)->at.rate > 0)
        drop(plan, i, y, x, 0);
    else
        TERN_FOR_PARTS(plan->threads, count_of(plan, i), TERN_PART, begin, end)
    pass_part(y + begin, x + begin, NULL, end - begin, 0);
}

static void dropout_backward(tern_plan *plan, size_t i) {
    float *dx = tern_plan_in_grad(plan, i, 0);
    if (!dx) return;
    if (plan->train_mode && tern_plan_graph_node(plan, i)->at.rate > 0)
        drop(plan, i, dx, plan->node[i].grad, plan->node[i].add_to[0]);
    else
        pass_gradient(plan, i, 0, NULL);
}

const tern_op tern_op_dropout = {
    .name = "dropout", .inputs = 1, .shape = dropout_shape, .forward = dropout_forward, .backward = dropout_backward};
