#include "bench_limits.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench_tools.h"
#include "cli.h"
#include "model_tools.h"

enum { IN_ANY_CACHE = 1 << 20 }; /* weights of so few bytes a processor does not read from memory a second time */

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

static int peak_of(const arithmetic *by, int int8, size_t rows) {
    if (by->gpu) return int8 ? GPU_INT8 : by->values == TERN_BF16 ? GPU_BF16 : GPU_F32;
    return (int)(int8 ? int8_peak(by->tier, rows) : TERN_PEAK_F32);
}

tern_status count_workload(workload *out, const tern_model *model, size_t batch, const arithmetic *by,
                           tern_error *err) {
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
        out->per_peak[peak_of(by, int8, elements / channels)] += count;
        out->all += count;
        out->int8 |= int8;
    }
    return TERN_OK;
}

/* ---- peaks */

/* Briefly: a device that has been busy for long lowers its clock. */
static tern_status gpu_product(double *per_second, int device, tern_dtype values, size_t m, tern_error *err) {
    enum { SIZE = 8192 };
    const tern_model_options o = {.batch = m, .device = device_name(device), .values = values};
    tern_model *model = NULL;
    void *x = NULL;
    double seconds = 0;
    tern_status status = make_layer(&model, "linear", SIZE, SIZE, &o, err);
    if (!status) status = make_input(&x, model, m, err);
    if (!status) status = tern_model_time(&seconds, model, x, m, 0.02, 0, err);
    const double found = status ? 0 : 2.0 * (double)m * SIZE * SIZE / seconds;
    if (found > *per_second) *per_second = found;
    free(x);
    tern_model_close(&model);
    return status;
}

/* 0 where both fail. */
static double gpu_products(int device, tern_dtype values) {
    double best = 0;
    gpu_product(&best, device, values, 2048, NULL);
    gpu_product(&best, device, values, 8192, NULL);
    return best;
}

static tern_status device_peak(double *per_second, int device, int read, tern_error *err) {
    const tern_device_options o = {.device = device};
    tern_device *d = NULL;
    tern_status status = tern_device_open(&d, &o, err);
    if (!status)
        status = read ? tern_device_measure_read(per_second, d, err) : tern_device_measure_int8(per_second, d, err);
    tern_device_close(&d);
    return status;
}

/* 0 where there is none. */
static double measure_peak(int peak, const limits *l) {
    double per_second = 0;
    tern_status status;
    if (peak == GPU_READ || peak == GPU_INT8)
        status = device_peak(&per_second, l->device, peak == GPU_READ, NULL);
    else if (peak == GPU_BF16 || peak == GPU_F32)
        return gpu_products(l->device, peak == GPU_BF16 ? TERN_BF16 : TERN_F32);
    else
        status = tern_measure_peak(&per_second, (tern_peak)peak, l->threads, NULL);
    return status ? 0 : per_second;
}

static const char *peak_name(int peak) {
    static const char *const of_gpu[] = {"read", "int8", "bf16", "fp32"};
    return peak < TERN_PEAK_COUNT ? tern_peak_name((tern_peak)peak) : of_gpu[peak - TERN_PEAK_COUNT];
}

static double per_second(limits *l, int peak) {
    if (!(l->per_second[peak] > 0)) {
        progress("measuring the %s peak ...", peak_name(peak));
        l->per_second[peak] = measure_peak(peak, l);
        progress("%s", "");
    }
    return l->per_second[peak];
}

limit find_limit(limits *l, const workload *work, size_t weight_bytes, double seconds) {
    limit at = {.bound = "compute"};
    for (int p = 0; p < PEAKS; p++)
        if (work->per_peak[p] > 0 && per_second(l, p) > 0) at.seconds += work->per_peak[p] / l->per_second[p];
    at.peak = at.seconds > 0 ? work->all / at.seconds : 0;
    if (l->device == TERN_DEVICE_CPU && weight_bytes <= IN_ANY_CACHE) return at;
    double read = per_second(l, l->device != TERN_DEVICE_CPU ? GPU_READ : TERN_PEAK_READ);
    double reading = read > 0 ? (double)weight_bytes / read : 0;
    if (reading < at.seconds || reading > 1.25 * seconds) return at; /* the peak itself wavers by less */
    return (limit){.bound = "memory", .peak = read, .seconds = reading};
}

/* ---- what is measured */

tern_status make_layer(tern_model **out, const char *op, size_t n, size_t k, const tern_model_options *o,
                       tern_error *err) {
    tern_graph *graph;
    tern_status status = tern_graph_create(&graph, err);
    if (status) return status;
    tern_value x = tern_graph_input(graph, (tern_shape){3, {k, 1, 1}}); /* model files take images or tokens */
    x = tern_graph_add(graph, "flatten", "flatten", x, NULL);
    tern_graph_add(graph, op, "layer", x, &(tern_attrs){.outputs = n});
    return tern_model_create(out, graph, 1, o, err);
}

tern_status make_input(void **out, const tern_model *model, size_t m, tern_error *err) {
    tern_model_info info;
    tern_status status = tern_model_describe(&info, model, err);
    if (status) return status;
    const size_t elements = m * elements_of(&info.input);
    float *x = malloc(elements * sizeof *x);
    int32_t *tokens = (int32_t *)(void *)x;
    for (size_t i = 0; x && i < elements; i++) {
        if (info.vocabulary)
            tokens[i] = (int32_t)(noise() % info.vocabulary);
        else
            x[i] = (float)(noise() % 2001) / 1000 - 1;
    }
    *out = x;
    if (x) return TERN_OK;
    if (err) snprintf(err->message, sizeof err->message, "no memory for the input of a benchmark");
    if (err) err->status = TERN_E_MEMORY;
    return TERN_E_MEMORY;
}
