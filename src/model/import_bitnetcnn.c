/* The small MNIST network of qinhy/BitNetCNN, whose forward pass is
 *     stem     conv 3x3 (padding 1), batch norm, SiLU
 *     stage i  conv 1x1 with stride 2, batch norm, SiLU; depthwise 3x3, batch norm, SiLU; conv 1x1, batch norm
 *     head     mean over the image, linear
 * on (x / 255 - 0.1307) / 0.3081. Every conv and the linear multiply by trits, then by a scale a channel, and add a
 * bias; activations are float. Tensors: "stage1.conv_dw.conv.weight" int8 [co][ci / groups][k][k], ".scale", ".bias",
 * "stage1.conv_dw.norm.weight", ".bias", ".running_mean", ".running_var"; "head.3.weight" and so on. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "model/model_file.h"
#include "nn/batch_norm.h"
#include "nn/op.h"
#include "tern/model.h"
#include "tern/pack.h"

enum { MAX_LAYERS = 64, NAME_BYTES = 48 };

typedef struct layer {
    char conv[NAME_BYTES]; /* tensors CONV.weight, .scale, .bias; also the node's name */
    char norm[NAME_BYTES]; /* empty: none */
    int silu;
    size_t stride;
} layer;

typedef struct import {
    const tern_safetensors *file;
    const char *source;
    tern_graph *graph;
    layer layer[MAX_LAYERS];
    size_t layers;
    void *owned[2 * MAX_LAYERS];
    size_t owned_count;
} import;

static const tern_safetensors_entry *find(const import *m, const char *prefix, const char *rest) {
    char name[2 * NAME_BYTES];
    snprintf(name, sizeof name, "%s.%s", prefix, rest);
    return tern_safetensors_find(m->file, name);
}

static void add_layer(import *m, const char *stage, const char *part, int silu, size_t stride) {
    layer *l = &m->layer[m->layers++];
    snprintf(l->conv, sizeof l->conv, "%s%s.conv", stage, part);
    snprintf(l->norm, sizeof l->norm, "%s%s.norm", stage, part);
    l->silu = silu;
    l->stride = stride;
}

static void list_layers(import *m) {
    add_layer(m, "stem", "", 1, 1);
    for (int i = 1; i <= 16; i++) {
        char stage[16];
        snprintf(stage, sizeof stage, "stage%d", i);
        if (!find(m, stage, "conv_pw_exp.conv.weight")) break;
        add_layer(m, stage, ".conv_pw_exp", 1, 2);
        add_layer(m, stage, ".conv_dw", 1, 1);
        add_layer(m, stage, ".conv_pw", 0, 1);
    }
}

/* The weight's shape as int8 [co][ci / groups][k][k], or [co][ci]. */
static tern_status weight_of(const tern_safetensors_entry **w, const import *m, const char *prefix, size_t rank,
                             tern_error *err) {
    *w = find(m, prefix, "weight");
    if (!*w || (*w)->dtype != TERN_ST_I8 || (*w)->rank != rank || (rank == 4 && (*w)->shape[2] != (*w)->shape[3]))
        return tern_fail(err, TERN_E_DATA, TERN_NO_PLACE, "%.100s: %s.weight is no int8 tensor of %zu dimensions",
                         m->source, prefix, rank);
    return TERN_OK;
}

/* `from` for the node "conv" of layer l is the value of the layer before. */
static tern_status add_nodes(import *m, tern_error *err) {
    tern_value x = tern_graph_input(m->graph, (tern_shape){3, {28, 28, 1}});
    size_t channels = 1;
    for (size_t i = 0; i < m->layers; i++) {
        const layer *l = &m->layer[i];
        const tern_safetensors_entry *w;
        TERN_TRY(weight_of(&w, m, l->conv, 4, err));
        size_t co = w->shape[0], per_group = w->shape[1], k = w->shape[2];
        if (!per_group || channels % per_group)
            return tern_fail(err, TERN_E_DATA, TERN_NO_PLACE, "%.100s: %s takes %zu channels, but %zu come in",
                             m->source, l->conv, per_group, channels);
        x = tern_graph_add(m->graph, "packed_conv2d", l->conv, x,
                           &(tern_attrs){.outputs = co,
                                         .kernel = k,
                                         .stride = l->stride,
                                         .padding = k / 2,
                                         .groups = channels / per_group,
                                         .bias = 1,
                                         .granularity = TERN_PER_ROW,
                                         .acts = TERN_F32});
        x = tern_graph_add(m->graph, "affine", l->norm, x, NULL);
        char name[NAME_BYTES + 8];
        snprintf(name, sizeof name, "%s.silu", l->conv);
        if (l->silu) x = tern_graph_add(m->graph, "silu", name, x, NULL);
        channels = co;
    }
    const tern_safetensors_entry *w;
    TERN_TRY(weight_of(&w, m, "head.3", 2, err));
    x = tern_graph_add(m->graph, "avg_pool", "head.pool", x, NULL);
    x = tern_graph_add(m->graph, "flatten", "head.flatten", x, NULL);
    tern_graph_add(m->graph, "packed_linear", "head.3", x,
                   &(tern_attrs){.outputs = w->shape[0], .bias = 1, .granularity = TERN_PER_ROW, .acts = TERN_F32});
    return tern_graph_check(m->graph, err);
}

/* [co][ci][k][k] to [co][k][k][ci], rows of a negative scale turned over. */
static void order_trits(int8_t *to, const int8_t *from, const float *scale, size_t co, size_t ci, size_t area) {
    for (size_t o = 0; o < co; o++)
        for (size_t i = 0; i < ci; i++)
            for (size_t p = 0; p < area; p++) {
                int8_t t = from[(o * ci + i) * area + p];
                to[(o * area + p) * ci + i] = (int8_t)(scale[o] < 0 ? -t : t);
            }
}

static void *own(import *m, size_t bytes) {
    void *memory = calloc(1, bytes);
    if (memory) m->owned[m->owned_count++] = memory;
    return memory;
}

static tern_status fill_product(import *m, const char *prefix, tern_packing packing, tern_error *err) {
    tern_node *node = tern_graph_find(m->graph, prefix);
    const tern_safetensors_entry *w = find(m, prefix, "weight");
    char name[2 * NAME_BYTES];
    size_t co = w->shape[0], ci = w->shape[1], area = w->rank == 4 ? w->shape[2] * w->shape[3] : 1, bytes;
    size_t groups = tern_max_size(1, node->at.groups), rows = co / groups;
    TERN_TRY(tern_packed_bytes(&bytes, packing, rows, ci * area, err));
    float *scales = own(m, co * sizeof *scales);
    uint8_t *packed = own(m, bytes * groups);
    int8_t *trits = malloc(w->bytes);
    tern_status status = scales && packed && trits
                             ? TERN_OK
                             : tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for %s", prefix);
    snprintf(name, sizeof name, "%s.scale", prefix);
    if (!status) status = tern_model_read_floats(scales, m->file, name, co, err);
    snprintf(name, sizeof name, "%s.bias", prefix);
    if (!status) status = tern_model_read_floats(m->graph->param[node->param[0]].value, m->file, name, co, err);
    if (!status) {
        order_trits(trits, w->data, scales, co, ci, area);
        for (size_t o = 0; o < co; o++) scales[o] = scales[o] < 0 ? -scales[o] : scales[o];
    }
    for (size_t g = 0; !status && g < groups; g++)
        status = tern_pack(packed + g * bytes, bytes, packing, trits + g * rows * ci * area, rows, ci * area, err);
    free(trits);
    node->packed = (tern_packed){.packing = packing,
                                 .rows = rows,
                                 .cols = ci * area,
                                 .matrices = groups,
                                 .bytes = packed,
                                 .byte_count = bytes * groups,
                                 .scales = scales,
                                 .scale_count = rows,
                                 .scale_kind = TERN_SCALE_ROW};
    return status;
}

static tern_status fill_norm(import *m, const char *prefix, tern_error *err) {
    static const char *const parts[4] = {"running_mean", "running_var", "weight", "bias"};
    tern_node *node = tern_graph_find(m->graph, prefix);
    size_t c = node->channels;
    float *room = malloc(4 * c * sizeof *room);
    tern_status status = room ? TERN_OK : tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for %s", prefix);
    for (size_t i = 0; !status && i < 4; i++) {
        char name[2 * NAME_BYTES];
        snprintf(name, sizeof name, "%s.%s", prefix, parts[i]);
        status = tern_model_read_floats(room + i * c, m->file, name, c, err);
    }
    if (!status)
        tern_batch_norm_fold(m->graph->param[node->param[0]].value, m->graph->param[node->param[1]].value, room,
                             room + c, room + 2 * c, room + 3 * c, 1e-5f, c);
    free(room);
    return status;
}

static tern_status convert(import *m, tern_packing packing, tern_error *err) {
    list_layers(m);
    TERN_TRY(add_nodes(m, err));
    TERN_TRY(tern_graph_place(m->graph, err));
    for (size_t i = 0; i < m->layers; i++) {
        TERN_TRY(fill_product(m, m->layer[i].conv, packing, err));
        TERN_TRY(fill_norm(m, m->layer[i].norm, err));
    }
    return fill_product(m, "head.3", packing, err);
}

static tern_status write_model(const import *m, const char *path, tern_error *err) {
    static char *digits[10] = {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"};
    const tern_model_input input = {
        .data = TERN_DATA_MNIST, .mean = {0.1307f}, .std = {0.3081f, 1, 1, 1}, .classes = 10, .class_name = digits};
    const tern_config config = {.preset = "bitnetcnn"};
    tern_safetensors_writer *writer;
    TERN_TRY(tern_safetensors_writer_create(&writer, err));
    tern_status status = tern_model_add(writer, m->graph, &input, &config, 1, err);
    if (!status) status = tern_safetensors_writer_write(writer, path, err);
    tern_safetensors_writer_free(&writer);
    return status;
}

tern_status tern_model_import(const char *source, const char *path, tern_packing packing, tern_error *err) {
    TERN_CHECK_ARGUMENT(source && path, err, "%s is NULL", source ? "path" : "source");
    TERN_CHECK_ARGUMENT(packing == TERN_PACK_T2 || packing == TERN_PACK_T5, err, "packing %d; t2 and t5 are possible",
                        (int)packing);
    tern_safetensors *file;
    TERN_TRY(tern_safetensors_open(&file, source, TERN_ST_CHECKSUM_IF_PRESENT, err));
import m = {.file = file, .source = source };
    tern_status status =
        find(&m, "stem", "conv.weight") && find(&m, "head.3", "weight")
            ? TERN_OK
            : tern_fail(
                  err, TERN_E_UNSUPPORTED, TERN_NO_PLACE,
                  "%.150s: no model that is known here (bitnetcnn has tensors stem.conv.weight and head.3.weight)",
                  source);
    if (!status) status = tern_graph_create(&m.graph, err);
    if (!status) status = convert(&m, packing, err);
    if (!status) status = write_model(&m, path, err);
    for (size_t i = 0; i < m.owned_count; i++) free(m.owned[i]);
    tern_graph_free(&m.graph);
    tern_safetensors_close(&file);
    return status;
}
