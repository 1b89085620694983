#include "model/model_file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "model/graph_json.h"
#include "nn/op.h"
#include "nn/op_weights.h"
#include "nn/trit_weights.h"
#include "tern/pack.h"

enum { FORMAT = 1, MAX_CLASSES = 100000 };

/* ---- what the input means */

void tern_model_input_free(tern_model_input *input) {
    for (size_t i = 0; input->class_name && i < input->classes; i++) free(input->class_name[i]);
    free(input->class_name);
    free(input->code_point);
    *input = (tern_model_input){0};
}

tern_status tern_model_input_from(tern_model_input *input, const tern_dataset *dataset, tern_error *err) {
    tern_dataset_info info;
    TERN_TRY(tern_dataset_describe(&info, dataset, err));
    *input = (tern_model_input){.data = info.kind, .classes = info.classes, .vocabulary = info.vocabulary};
    if (info.classes) TERN_TRY(tern_dataset_moments(input->mean, input->std, dataset, err));
    int ok = 1;
    if (info.classes) {
        input->class_name = calloc(info.classes, sizeof *input->class_name);
        ok = input->class_name != NULL;
        for (size_t i = 0; ok && i < info.classes; i++) {
            const char *name = tern_dataset_class_name(dataset, i);
            char number[24];
            snprintf(number, sizeof number, "%zu", i);
            ok = (input->class_name[i] = strdup(name ? name : number)) != NULL;
        }
    }
    const uint32_t *points = tern_dataset_vocabulary(dataset);
    if (ok && points) {
        input->code_point = malloc(info.vocabulary * sizeof *points);
        ok = input->code_point != NULL;
        if (ok) memcpy(input->code_point, points, info.vocabulary * sizeof *points);
    }
    if (ok) return TERN_OK;
    tern_model_input_free(input);
    return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for the names of %zu classes", info.classes);
}

/* Names of folders may be anything; JSON is UTF-8. */
static tern_status check_names(const tern_model_input *input, tern_error *err) {
    for (size_t i = 0; i < input->classes; i++) {
        json_t *name = json_string(input->class_name[i]);
        json_decref(name);
        if (!name)
            return tern_fail(err, TERN_E_DATA, TERN_NO_PLACE, "the name of class %zu is not UTF-8; rename its folder",
                             i);
    }
    return TERN_OK;
}

static json_t *input_json(const tern_model_input *input) {
    json_t *json = json_pack("{s:s}", "data", tern_data_kind_name(input->data));
    if (input->classes) {
        json_t *mean = json_array(), *std = json_array(), *names = json_array();
        for (int i = 0; i < 4; i++) {
            json_array_append_new(mean, json_real((double)input->mean[i]));
            json_array_append_new(std, json_real((double)input->std[i]));
        }
        for (size_t i = 0; i < input->classes; i++) json_array_append_new(names, json_string(input->class_name[i]));
        json_object_set_new(json, "mean", mean);
        json_object_set_new(json, "std", std);
        json_object_set_new(json, "classes", names);
    }
    if (input->vocabulary) {
        json_object_set_new(json, "vocabulary", json_integer((json_int_t)input->vocabulary));
        json_t *points = input->code_point ? json_array() : NULL;
        for (size_t i = 0; points && i < input->vocabulary; i++)
            json_array_append_new(points, json_integer((json_int_t)input->code_point[i]));
        if (points) json_object_set_new(json, "code_points", points);
    }
    return json;
}

static tern_status read_moments(float *out, const json_t *array, const char *path, const char *key, tern_error *err) {
    for (size_t i = 0; i < 4; i++) {
        const json_t *v = json_array_get(array, i);
        if (!json_is_number(v) || !isfinite(json_number_value(v)))
            return tern_fail(err, TERN_E_DATA, TERN_NO_PLACE, "%s: its input has no %s of 4 numbers", path, key);
        out[i] = (float)json_number_value(v);
    }
    return TERN_OK;
}

static tern_status read_classes(tern_model_input *input, const json_t *names, const char *path, tern_error *err) {
    size_t count = json_array_size(names);
    if (!count || count > MAX_CLASSES)
        return tern_fail(err, TERN_E_DATA, TERN_NO_PLACE, "%s: %zu classes", path, count);
    input->class_name = calloc(count, sizeof *input->class_name);
    if (!input->class_name) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for %zu classes", count);
    input->classes = count;
    for (size_t i = 0; i < count; i++) {
        const char *name = json_string_value(json_array_get(names, i));
        if (!name) return tern_fail(err, TERN_E_DATA, TERN_NO_PLACE, "%s: class %zu has no name", path, i);
        input->class_name[i] = strdup(name);
        if (!input->class_name[i]) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for class names");
    }
    return TERN_OK;
}

static tern_status read_vocabulary(tern_model_input *input, const json_t *json, const char *path, tern_error *err) {
    json_int_t count = json_integer_value(json_object_get(json, "vocabulary"));
    const json_t *points = json_object_get(json, "code_points");
    if (count < 1 || count > 65536 || (points && json_array_size(points) != (size_t)count))
        return tern_fail(err, TERN_E_DATA, TERN_NO_PLACE, "%s: its vocabulary is damaged", path);
    input->vocabulary = (size_t)count;
    if (!points) return TERN_OK;
    input->code_point = calloc((size_t)count, sizeof *input->code_point);
    if (!input->code_point) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for a vocabulary");
    for (size_t i = 0; i < (size_t)count; i++) {
        json_int_t v = json_integer_value(json_array_get(points, i));
        if (v < 0 || v > 0x10ffff)
            return tern_fail(err, TERN_E_DATA, TERN_NO_PLACE, "%s: code point %zu is out of range", path, i);
        input->code_point[i] = (uint32_t)v;
    }
    return TERN_OK;
}

static tern_status read_model_input(tern_model_input *input, const json_t *json, const char *path, tern_error *err) {
    const char *data = json_string_value(json_object_get(json, "data"));
    int kind = 0;
    while (data && kind < TERN_DATA_KIND_COUNT && strcmp(data, tern_data_kind_name((tern_data_kind)kind))) kind++;
    if (!data || kind == TERN_DATA_KIND_COUNT)
        return tern_fail(err, TERN_E_DATA, TERN_NO_PLACE, "%s: its input is of no known kind", path);
    input->data = (tern_data_kind)kind;
    if (input->data == TERN_DATA_TEXT) return read_vocabulary(input, json, path, err);
    TERN_TRY(read_moments(input->mean, json_object_get(json, "mean"), path, "mean", err));
    TERN_TRY(read_moments(input->std, json_object_get(json, "std"), path, "std", err));
    return read_classes(input, json_object_get(json, "classes"), path, err);
}

/* ---- writing */

/* A deployed model keeps of the configuration only its name and how it is evaluated. */
static int is_deployed_key(const char *key) { return !strcmp(key, "preset") || !strcmp(key, "views"); }

static json_t *config_json(const tern_config *config, int packed) {
    json_t *json = json_object();
    const char *key;
    char value[512];
    for (size_t i = 0; (key = tern_config_key(i)) != NULL; i++) {
        if (packed && !is_deployed_key(key)) continue;
        if (!tern_config_get(config, key, value, sizeof value, NULL))
            json_object_set_new(json, key, json_string(value));
    }
    return json;
}

static json_t *packed_json(const tern_graph *graph) {
    json_t *json = json_object();
    for (size_t i = 1; i < graph->nodes; i++) {
        const tern_node *node = &graph->node[i];
        if (node->packed.bytes)
            json_object_set_new(json, node->name, json_string(tern_packing_name(node->packed.packing)));
    }
    return json;
}

static tern_status add_packed(tern_safetensors_writer *writer, const tern_node *node, tern_error *err) {
    const tern_packed *p = &node->packed;
    char name[TERN_PARAM_NAME_BYTES];
    snprintf(name, sizeof name, "%s.weight", node->name);
    size_t rows = p->rows * p->matrices, shape[2] = {rows, p->byte_count / rows};
    size_t rank = p->byte_count % rows ? 1 : 2; /* flat packings have no rows */
    if (rank == 1) shape[0] = p->byte_count;
    TERN_TRY(tern_safetensors_writer_add(writer, name, TERN_ST_U8, rank, shape, p->bytes, err));
    size_t scales = p->scale_kind == TERN_SCALE_TENSOR ? 1 : p->scale_count * p->matrices;
    if (p->exponents) {
        snprintf(name, sizeof name, "%s.exponent", node->name);
        return tern_safetensors_writer_add(writer, name, TERN_ST_I8, 1, &scales, p->exponents, err);
    }
    snprintf(name, sizeof name, "%s.scale", node->name);
    return tern_safetensors_writer_add(writer, name, TERN_ST_F32, 1, &scales, p->scales, err);
}

static tern_safetensors_dtype dtype_of(tern_store store) {
    static const tern_safetensors_dtype dtypes[] = {
        [TERN_STORE_F32] = TERN_ST_F32, [TERN_STORE_FIXED16] = TERN_ST_I16, [TERN_STORE_FIXED32] = TERN_ST_I32,
        [TERN_STORE_I8] = TERN_ST_I8,   [TERN_STORE_U8] = TERN_ST_U8,       [TERN_STORE_I32] = TERN_ST_I32,
        [TERN_STORE_I64] = TERN_ST_I64};
    return dtypes[store];
}

tern_status tern_model_add(tern_safetensors_writer *writer, const tern_graph *graph, const tern_model_input *input,
                           const tern_config *config, int packed, tern_error *err) {
    TERN_TRY(check_names(input, err));
    json_t *json = json_pack("{s:i, s:b, s:o, s:o, s:o, s:o}", "format", FORMAT, "packed", packed, "graph",
                             tern_graph_to_json(graph), "input", input_json(input), "config",
                             config_json(config, packed), "packing", packed_json(graph));
    char *text = json ? json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    tern_status status = text ? tern_safetensors_writer_metadata(writer, "tern.model", text, err)
                              : tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory to describe the graph");
    free(text);
    json_decref(json);
    for (size_t p = 0; !status && p < graph->params; p++) {
        const tern_param *param = &graph->param[p];
        status = tern_safetensors_writer_add(writer, param->name, dtype_of(param->store), (size_t)param->rank,
                                             param->dim, param->integers ? param->integers : param->value, err);
    }
    for (size_t i = 1; !status && i < graph->nodes; i++)
        if (graph->node[i].packed.bytes) status = add_packed(writer, &graph->node[i], err);
    return status;
}

/* ---- reading */

/* The tensor, which must have just `count` elements as `store` says. */
static tern_status find_values(const tern_safetensors_entry **out, const tern_safetensors *file, const char *name,
                               tern_store store, size_t count, tern_error *err) {
    const tern_safetensors_entry *entry = tern_safetensors_find(file, name);
    if (!entry) return tern_fail(err, TERN_E_DATA, TERN_NO_PLACE, "the file has no tensor %s", name);
    if (entry->dtype != dtype_of(store) || entry->bytes != count * tern_store_bytes(store))
        return tern_fail(err, TERN_E_DATA, TERN_NO_PLACE,
                         "tensor %s is %s of %zu bytes; %zu values of %s belong there", name,
                         tern_safetensors_dtype_name(entry->dtype), entry->bytes, count,
                         tern_safetensors_dtype_name(dtype_of(store)));
    *out = entry;
    return TERN_OK;
}

/* As find_values, of the shape that the parameter has: [6][4] is not [4][6]. */
static tern_status find_param(const tern_safetensors_entry **out, const tern_safetensors *file,
                              const tern_param *param, tern_error *err) {
    TERN_TRY(find_values(out, file, param->name, param->store, param->count, err));
    int same = (*out)->rank == (size_t)param->rank;
    for (size_t i = 0; same && i < (*out)->rank; i++) same = (*out)->shape[i] == param->dim[i];
    return same ? TERN_OK
                : tern_fail(err, TERN_E_DATA, TERN_NO_PLACE, "tensor %s has another shape than the graph says",
                            param->name);
}

tern_status tern_model_read_floats(float *to, const tern_safetensors *file, const char *name, size_t count,
                                   tern_error *err) {
    const tern_safetensors_entry *entry = NULL;
    TERN_TRY(find_values(&entry, file, name, TERN_STORE_F32, count, err));
    if (count) memcpy(to, entry->data, entry->bytes);
    return TERN_OK;
}

tern_status tern_model_read_params(tern_graph *graph, const tern_safetensors *file, tern_error *err) {
    const tern_safetensors_entry *entry = NULL;
    for (size_t p = 0; p < graph->params; p++) {
        tern_param *param = &graph->param[p];
        TERN_TRY(find_param(&entry, file, param, err));
        memcpy(param->integers ? param->integers : (void *)param->value, entry->data, entry->bytes);
        tern_param_view(param);
    }
    for (size_t i = 1; i < graph->nodes; i++) TERN_TRY(tern_trit_check(graph, i, err));
    return TERN_OK;
}

/* All of them are there before memory is taken: what a damaged graph asks for may be any size. */
static tern_status read_params(tern_graph *graph, const tern_safetensors *file, tern_error *err) {
    const tern_safetensors_entry *entry = NULL;
    for (size_t p = 0; p < graph->params; p++) TERN_TRY(find_param(&entry, file, &graph->param[p], err));
    TERN_TRY(tern_graph_place(graph, err));
    return tern_model_read_params(graph, file, err);
}

/* The graph takes what the input is, and gives a number for each of its names: of tokens, at least. */
static tern_status check_ends(const tern_model_file *model, const char *path, tern_error *err) {
    const tern_graph *graph = model->graph;
    const tern_node *in = &graph->node[0], *out = &graph->node[graph->nodes - 1];
    const tern_model_input *input = &model->input;
    int text = input->data == TERN_DATA_TEXT, fits = graph->vocabulary == input->vocabulary;
    fits = fits && (text || (in->shape.rank == 3 && in->channels <= 4));
    for (size_t c = 0; fits && !text && c < in->channels; c++) fits = input->std[c] >= 0;
    if (!fits)
        return tern_fail(err, TERN_E_DATA, TERN_NO_PLACE, "%s: its graph does not take what its input is", path);
    size_t names = text ? input->vocabulary : input->classes;
    int named = text ? out->channels >= names : out->channels == names; /* a head may have room for more tokens */
    if (!named || out->rows != (text ? in->elements : 1))
        return tern_fail(err, TERN_E_DATA, TERN_NO_PLACE, "%s: %zu outputs for %zu names", path, out->elements,
                         text ? in->elements * names : names);
    return TERN_OK;
}

static tern_status read_packed(tern_graph *graph, tern_node *node, const tern_safetensors *file,
                               const json_t *packing, tern_error *err) {
    char name[TERN_PARAM_NAME_BYTES];
    snprintf(name, sizeof name, "%s.weight", node->name);
    const tern_safetensors_entry *weight = tern_safetensors_find(file, name);
    snprintf(name, sizeof name, "%s.%s", node->name, node->at.group ? "exponent" : "scale");
    const tern_safetensors_entry *scale = tern_safetensors_find(file, name);
    const char *wanted = json_string_value(json_object_get(packing, node->name));
    int kind = 0;
    while (wanted && kind < TERN_PACK_COUNT && strcmp(wanted, tern_packing_name((tern_packing)kind))) kind++;
    if (!weight || !scale || !wanted || kind == TERN_PACK_COUNT)
        return tern_fail(err, TERN_E_DATA, TERN_NO_PLACE, "%s: its packed weights, scales or packing are missing",
                         node->name);
    tern_packed *p = &node->packed;
    p->packing = (tern_packing)kind;
    p->matrices = tern_max_size(1, node->at.groups);
    p->rows = node->at.outputs / p->matrices;
    p->cols = tern_weight_columns(graph, node);
    p->group = node->at.group;
    p->scale_kind = p->group                               ? TERN_SCALE_GROUP_EXP
                    : node->at.granularity == TERN_PER_ROW ? TERN_SCALE_ROW
                                                           : TERN_SCALE_TENSOR;
    size_t bytes, scales = tern_trit_scale_count(node, node->at.outputs, p->cols);
    p->scale_count = tern_max_size(1, scales / p->matrices);
    TERN_TRY(tern_packed_bytes(&bytes, p->packing, p->rows, p->cols, err));
    p->byte_count = bytes * p->matrices;
    if (weight->dtype != TERN_ST_U8 || weight->bytes != p->byte_count)
        return tern_fail(err, TERN_E_DATA, TERN_NO_PLACE,
                         "%s.weight is %s of %zu bytes; %zu bytes of U8 belong there", node->name,
                         tern_safetensors_dtype_name(weight->dtype), weight->bytes, p->byte_count);
    size_t size = p->group ? 1 : sizeof(float);
    if (scale->dtype != (p->group ? TERN_ST_I8 : TERN_ST_F32) || scale->bytes != scales * size ||
        (uintptr_t)scale->data % size)
        return tern_fail(err, TERN_E_DATA, TERN_NO_PLACE, "%s: %zu aligned values of %s belong there", name, scales,
                         p->group ? "I8" : "F32");
    p->bytes = weight->data;
    p->scales = p->group ? NULL : scale->data;
    p->exponents = p->group ? scale->data : NULL;
    return TERN_OK;
}

static tern_status read_config(tern_config *config, const json_t *json, int packed, const char *path,
                               tern_error *err) {
    const char *preset = json_string_value(json_object_get(json, "preset")), *key;
    json_t *value;
    if (packed) /* it may come from elsewhere: its name is that of no preset then */
        snprintf(config->preset, sizeof config->preset, "%s", preset ? preset : "");
    else
        TERN_TRY(tern_config_preset(config, preset ? preset : "", err));
    for (size_t i = 0; !packed && (key = tern_config_key(i)) != NULL; i++) /* the preset may have changed since */
        if (!json_object_get(json, key)) TERN_TRY(tern_config_unset(config, key, err));
    json_object_foreach((json_t *)json, key, value) {
        if (!strcmp(key, "preset")) continue;
        const char *text = json_string_value(value);
        if (!text) return tern_fail(err, TERN_E_DATA, TERN_NO_PLACE, "%s: setting %.40s is no text", path, key);
        TERN_TRY(tern_config_set(config, key, text, err));
    }
    return TERN_OK;
}

static tern_status read_model(tern_model_file *model, const char *path, const json_t *json, tern_error *err) {
    if (json_integer_value(json_object_get(json, "format")) != FORMAT)
        return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE, "%s: its format is not %d", path, FORMAT);
    model->packed = json_is_true(json_object_get(json, "packed"));
    TERN_TRY(read_config(&model->config, json_object_get(json, "config"), model->packed, path, err));
    TERN_TRY(read_model_input(&model->input, json_object_get(json, "input"), path, err));
    TERN_TRY(tern_graph_from_json(&model->graph, json_object_get(json, "graph"), err));
    TERN_TRY(check_ends(model, path, err));
    TERN_TRY(read_params(model->graph, model->file, err));
    for (size_t i = 1; i < model->graph->nodes; i++) {
        tern_node *node = &model->graph->node[i];
        if (!strncmp(node->op->name, "packed_", 7))
            TERN_TRY(read_packed(model->graph, node, model->file, json_object_get(json, "packing"), err));
    }
    return TERN_OK;
}

tern_status tern_model_file_take(tern_model_file *model, tern_safetensors **file, const char *path, tern_error *err) {
    *model = (tern_model_file){.file = *file};
    *file = NULL;
    const char *text = tern_safetensors_metadata(model->file, "tern.model");
    json_error_t where;
    json_t *json = text ? json_loads(text, JSON_REJECT_DUPLICATES, &where) : NULL;
    tern_status status;
    if (!text)
        status = tern_fail(err, TERN_E_DATA, TERN_NO_PLACE, "%s is a safetensors file, but no model of Tern", path);
    else if (!json)
        status = tern_fail(err, TERN_E_DATA, TERN_NO_PLACE, "%s: its description is damaged: %s", path, where.text);
    else
        status = read_model(model, path, json, err);
    json_decref(json);
    if (status) tern_model_file_close(model);
    return status;
}

tern_status tern_model_file_open(tern_model_file *model, const char *path, tern_error *err) {
    tern_safetensors *file;
    *model = (tern_model_file){0};
    TERN_TRY(tern_safetensors_open(&file, path, TERN_ST_CHECKSUM_REQUIRED, err));
    return tern_model_file_take(model, &file, path, err);
}

void tern_model_file_close(tern_model_file *model) {
    tern_graph_free(&model->graph);
    tern_model_input_free(&model->input);
    tern_safetensors_close(&model->file);
}
