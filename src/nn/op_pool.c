/* max_pool  y = max over the window (places outside the image do not count); dy goes to the first of the largest
 * avg_pool  y = mean over the window; no padding */
#include <float.h>
#include <string.h>

#include "base/clones.h"
#include "base/error.h"
#include "nn/op.h"
#include "nn/op_shapes.h"
#include "nn/parts.h"

static tern_status pool_shape(tern_graph *graph, tern_node *node, tern_error *err) {
    return tern_shape_of_window(graph, node, tern_node_input(graph, node, 0)->channels, 1, err);
}

static tern_status avg_pool_shape(tern_graph *graph, tern_node *node, tern_error *err) {
    TERN_CHECK_ARGUMENT(!node->at.padding, err, "%s: avg_pool takes no padding", node->name);
    return pool_shape(graph, node, err);
}

/* The window of one output place, clipped to the image. */
typedef struct window {
    size_t top, bottom, left, right;
} window;

static window window_at(const tern_attrs *at, const tern_shape *in, size_t oy, size_t ox) {
    size_t y = oy * at->stride, x = ox * at->stride, p = at->padding;
    return (window){y > p ? y - p : 0, tern_min_size(y + at->kernel - p, in->dim[0]), x > p ? x - p : 0,
                    tern_min_size(x + at->kernel - p, in->dim[1])};
}

/* Which place of the window was largest, per output element: its number in the whole image. */
static tern_status max_pool_prepare(tern_plan *plan, size_t i, tern_error *err) {
    if (!plan->training) return TERN_OK;
    const tern_node *node = tern_plan_graph_node(plan, i);
    return tern_plan_keep(plan, &plan->node[i].state, plan->batch_max * node->elements * sizeof(uint32_t), err);
}

TERN_CLONES static void max_into(float *restrict y, uint32_t *restrict where, const float *restrict x, uint32_t place,
                                 size_t c) {
    for (size_t j = 0; j < c; j++) {
        int larger = x[j] > y[j] || x[j] != x[j]; /* a NaN wins, so that it is seen */
        y[j] = larger ? x[j] : y[j];
        where[j] = larger ? place : where[j];
    }
}

TERN_CLONES static void max_values(float *restrict y, const float *restrict x, size_t c) {
    for (size_t j = 0; j < c; j++) y[j] = x[j] > y[j] || x[j] != x[j] ? x[j] : y[j];
}

static void max_pool_forward(tern_plan *plan, size_t i) {
    const tern_node *node = tern_plan_graph_node(plan, i);
    const tern_node *in = tern_node_input(plan->graph, node, 0);
    size_t c = node->channels, oh = node->shape.dim[0], ow = node->shape.dim[1], w = in->shape.dim[1];
    const float *x = tern_plan_in(plan, i, 0);
    float *y = plan->node[i].value;
    uint32_t *where = plan->node[i].state;
    TERN_FOR_PARTS(plan->threads, plan->batch * oh, tern_rows_a_part(ow * c), begin, end)
    for (size_t row = begin; row < end; row++) {
        const float *image = x + row / oh * in->elements;
        for (size_t ox = 0; ox < ow; ox++) {
            window win = window_at(&node->at, &in->shape, row % oh, ox);
            size_t first = win.top * w + win.left, out = (row * ow + ox) * c;
            memcpy(y + out, image + first * c, c * sizeof *y);
            for (size_t j = 0; where && j < c; j++) where[out + j] = (uint32_t)first;
            for (size_t yy = win.top; yy < win.bottom; yy++)
                for (size_t xx = win.left; xx < win.right; xx++) {
                    size_t place = yy * w + xx;
                    if (place == first) continue;
                    if (where)
                        max_into(y + out, where + out, image + place * c, (uint32_t)place, c);
                    else
                        max_values(y + out, image + place * c, c);
                }
        }
    }
}

static void clear(float *dx, size_t image, size_t elements) {
    memset(dx + image * elements, 0, elements * sizeof *dx);
}

static void max_pool_backward(tern_plan *plan, size_t i) {
    const tern_node *node = tern_plan_graph_node(plan, i);
    const tern_node *in = tern_node_input(plan->graph, node, 0);
    float *dx = tern_plan_in_grad(plan, i, 0);
    if (!dx) return;
    size_t c = node->channels;
    const float *dy = plan->node[i].grad;
    const uint32_t *where = plan->node[i].state;
    int add = plan->node[i].add_to[0];
    TERN_FOR_PARTS(plan->threads, plan->batch, 1, image, end) {
        if (!add) clear(dx, image, in->elements);
        float *to = dx + image * in->elements;
        size_t base = image * node->elements;
        for (size_t o = 0; o < node->elements; o += c)
            for (size_t j = 0; j < c; j++) to[where[base + o + j] * c + j] += dy[base + o + j];
        (void)end;
    }
}

const tern_op tern_op_max_pool = {.name = "max_pool",
                                  .inputs = 1,
                                  .shape = pool_shape,
                                  .prepare = max_pool_prepare,
                                  .forward = max_pool_forward,
                                  .backward = max_pool_backward};

TERN_CLONES static void add_scaled(float *restrict y, const float *restrict x, float factor, size_t c) {
    for (size_t j = 0; j < c; j++) y[j] += x[j] * factor;
}

/* One image, forward (to = y, from = x) or backward (to = dx, from = dy). */
static void avg_image(const tern_node *node, const tern_node *in, float *to, const float *from, int backward) {
    size_t c = node->channels, w = in->shape.dim[1], kernel = node->at.kernel;
    float factor = 1.0f / (float)(kernel * kernel);
    for (size_t oy = 0; oy < node->shape.dim[0]; oy++)
        for (size_t ox = 0; ox < node->shape.dim[1]; ox++) {
            window win = window_at(&node->at, &in->shape, oy, ox);
            size_t out = (oy * node->shape.dim[1] + ox) * c;
            for (size_t yy = win.top; yy < win.bottom; yy++)
                for (size_t xx = win.left; xx < win.right; xx++) {
                    size_t place = (yy * w + xx) * c;
                    add_scaled(to + (backward ? place : out), from + (backward ? out : place), factor, c);
                }
        }
}

static void avg_pool_forward(tern_plan *plan, size_t i) {
    const tern_node *node = tern_plan_graph_node(plan, i);
    const tern_node *in = tern_node_input(plan->graph, node, 0);
    TERN_FOR_PARTS(plan->threads, plan->batch, 1, image, end) {
        clear(plan->node[i].value, image, node->elements);
        avg_image(node, in, plan->node[i].value + image * node->elements,
                  tern_plan_in(plan, i, 0) + image * in->elements, 0);
        (void)end;
    }
}

static void avg_pool_backward(tern_plan *plan, size_t i) {
    const tern_node *node = tern_plan_graph_node(plan, i);
    const tern_node *in = tern_node_input(plan->graph, node, 0);
    float *dx = tern_plan_in_grad(plan, i, 0);
    if (!dx) return;
    int add = plan->node[i].add_to[0];
    TERN_FOR_PARTS(plan->threads, plan->batch, 1, image, end) {
        if (!add) clear(dx, image, in->elements);
        avg_image(node, in, dx + image * in->elements, plan->node[i].grad + image * node->elements, 1);
        (void)end;
    }
}

const tern_op tern_op_avg_pool = {.name = "avg_pool",
                                  .inputs = 1,
                                  .shape = avg_pool_shape,
                                  .forward = avg_pool_forward,
                                  .backward = avg_pool_backward};
