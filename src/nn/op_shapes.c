#include "nn/op_shapes.h"

#include "base/error.h"

/* No window is larger, with its padding: its area times the channels of a value stays far from overflow. */
enum { MAX_WINDOW = 1 << 15 };

tern_status tern_shape_of_input(tern_graph *graph, tern_node *node, tern_error *err) {
    const tern_shape *s = &tern_node_input(graph, node, 0)->shape;
    return tern_node_set_shape(node, s->rank, s->dim[0], s->dim[1], s->dim[2], err);
}

tern_status tern_shape_of_window(tern_graph *graph, tern_node *node, size_t channels, int all, tern_error *err) {
    const tern_shape *s = &tern_node_input(graph, node, 0)->shape;
    tern_attrs *at = &node->at;
    TERN_CHECK_ARGUMENT(s->rank == 3, err,
                        "%s: the input has %d dimensions; an image has 3 (height, width, channels)", node->name,
                        s->rank);
    size_t h = s->dim[0], w = s->dim[1];
    if (all && !at->kernel) {
        TERN_CHECK_ARGUMENT(h == w, err, "%s: a window over the whole image needs a square one, not %zu x %zu",
                            node->name, h, w);
        at->kernel = h;
    }
    if (!at->kernel) at->kernel = 1;
    if (!at->stride) at->stride = all ? at->kernel : 1;
    TERN_CHECK_ARGUMENT(at->kernel <= MAX_WINDOW, err, "%s: a kernel of %zu; at most %d is possible", node->name,
                        at->kernel, MAX_WINDOW);
    TERN_CHECK_ARGUMENT(at->padding < at->kernel, err, "%s: padding %zu with a kernel of %zu; it must be smaller",
                        node->name, at->padding, at->kernel);
    TERN_CHECK_ARGUMENT(at->kernel <= h + 2 * at->padding && at->kernel <= w + 2 * at->padding, err,
                        "%s: a kernel of %zu does not fit into %zu x %zu with padding %zu", node->name, at->kernel, h,
                        w, at->padding);
    return tern_node_set_shape(node, 3, (h + 2 * at->padding - at->kernel) / at->stride + 1,
                               (w + 2 * at->padding - at->kernel) / at->stride + 1, channels, err);
}
