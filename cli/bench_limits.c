#include "bench_limits.h"

#include <string.h>

#include "bench_tools.h"
#include "cli.h"

enum { IN_ANY_CACHE = 1 << 20 }; /* weights of so few bytes are not read from memory a second time */

static size_t elements_of(const tern_shape *s) {
    size_t n = 1;
    for (int i = 0; i < s->rank; i++) n *= s->dim[i];
    return n;
}

/* Products of two numbers for each element of a node's value; 0 where it is no product. x: the shape of its input. */
static size_t products_an_element(const tern_node_info *node, const tern_shape *x) {
    size_t channels = x->dim[x->rank - 1], kernel = node->attrs.kernel;
    if (strstr(node->op, "linear")) return channels;
    if (strstr(node->op, "conv2d")) return kernel * kernel * channels / node->attrs.groups;
    if (!strcmp(node->op, "attention")) return 2 * x->dim[0]; /* scores and sums over all tokens */
    return 0;
}

static int takes_int8(const tern_node_info *node) {
    return !strncmp(node->op, "bit_", 4) || (!strncmp(node->op, "packed_", 7) && node->attrs.acts == TERN_I8);
}

tern_status count_workload(workload *out, const tern_model *model, size_t batch, tern_tier tier, tern_error *err) {
    const tern_graph *graph = tern_model_graph(model);
    *out = (workload){0};
    for (size_t i = 1; i < tern_graph_nodes(graph); i++) {
        tern_node_info node, in;
        tern_status status = tern_graph_node(&node, graph, i, err);
        if (!status) status = tern_graph_node(&in, graph, (size_t)node.input[0], err);
        if (status) return status;
        size_t elements = batch * elements_of(&node.shape), channels = node.shape.dim[node.shape.rank - 1];
        double count = 2.0 * (double)elements * (double)products_an_element(&node, &in.shape);
        int int8 = takes_int8(&node);
        out->per_peak[int8 ? int8_peak(tier, elements / channels) : TERN_PEAK_F32] += count;
        out->all += count;
        out->int8 |= int8;
    }
    return TERN_OK;
}

static double per_second(limits *l, tern_peak peak) {
    if (!(l->per_second[peak] > 0)) {
        progress("measuring the %s peak ...", tern_peak_name(peak));
        tern_measure_peak(&l->per_second[peak], peak, l->threads, NULL); /* 0 where there is none */
        progress("%s", "");
    }
    return l->per_second[peak];
}

limit find_limit(limits *l, const workload *work, size_t weight_bytes, double seconds) {
    limit at = {.bound = "compute"};
    for (int p = 0; p < TERN_PEAK_COUNT; p++)
        if (work->per_peak[p] > 0 && per_second(l, (tern_peak)p) > 0)
            at.seconds += work->per_peak[p] / l->per_second[p];
    at.peak = at.seconds > 0 ? work->all / at.seconds : 0;
    if (weight_bytes <= IN_ANY_CACHE) return at;
    double read = per_second(l, TERN_PEAK_READ), reading = read > 0 ? (double)weight_bytes / read : 0;
    if (reading < at.seconds || reading > 1.25 * seconds) return at; /* the peak itself wavers by less */
    return (limit){.bound = "memory", .peak = read, .seconds = reading};
}
