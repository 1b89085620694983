#include "model/open_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "cuda/select_device.h"
#include "model/evaluate.h"
#include "model/float_twin.h"
#include "nn/op.h"
#include "nn/state_size.h"
#include "nn/ternary_weights.h"
#include "nn/trit_regroup.h"

tern_status tern_model_plan(tern_plan **out, const tern_model *model, size_t batch, int threads, tern_tier tier,
                            tern_error *err) {
    tern_plan_desc d = {.batch_max = batch, .threads = threads, .tier = tier};
    TERN_TRY(tern_plan_create(out, model->file.graph, &d, err));
    tern_status status = tern_plan_refresh(*out, err);
    if (status) tern_plan_free(out);
    return status;
}

/* Only where `device` names a GPU: a model is small, and the CPU what one runs it on. */
static tern_status open_gpu(tern_model *m, const tern_model_options *o, tern_error *err) {
    int number = TERN_DEVICE_CPU;
    TERN_TRY(o && o->device ? tern_cuda_select(&number, o->device, err) : tern_cuda_check_pinned(err));
    if (number < 0) return TERN_OK;
    TERN_CHECK_ARGUMENT(o->values == TERN_F32 || o->values == TERN_BF16, err,
                        "values = %d: a GPU's are TERN_F32 or TERN_BF16", (int)o->values);
    const tern_gpu_session_desc d = {.graph = m->file.graph,
                                     .device = number,
                                     .batch = m->batch,
                                     .training = o->training != 0,
                                     .values = o->values == TERN_BF16 ? TERN_PRODUCTS_BF16 : TERN_PRODUCTS_F32};
    TERN_TRY(tern_gpu_session_open(&m->gpu, &d, err));
    return m->gpu->table->send(m->gpu->plan, 1, err);
}

/* Plan and device of a model whose graph is there. */
static tern_status make_runnable(tern_model *m, const tern_model_options *options, tern_error *err) {
    m->batch = options && options->batch ? options->batch : 1;
    TERN_TRY(open_gpu(m, options, err));
    return tern_model_plan(&m->plan, m, m->gpu ? 1 : m->batch, options ? options->threads : 0, TERN_TIER_AUTO, err);
}

tern_runner tern_model_runner(tern_model *model) {
    return model->gpu ? tern_gpu_session_runner(model->gpu) : tern_plan_runner(model->plan);
}

tern_status tern_model_open(tern_model **out, const char *path, const tern_model_options *options, tern_error *err) {
    TERN_CHECK_ARGUMENT(out && path, err, "%s is NULL", out ? "path" : "out");
    *out = NULL;
    tern_model *m = calloc(1, sizeof *m);
    if (!m) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for a model");
    tern_status status = tern_model_file_open(&m->file, path, err);
    if (!status) status = make_runnable(m, options, err);
    if (status)
        tern_model_close(&m);
    else
        *out = m;
    return status;
}

/* Around a graph whose parameters have values; takes the graph over. */
static tern_status open_graph(tern_model **out, tern_graph *graph, const tern_model_options *options,
                              tern_error *err) {
    tern_model *m = calloc(1, sizeof *m);
    if (!m) {
        tern_graph_free(&graph);
        return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for a model");
    }
    m->file.graph = graph;
    tern_status status = make_runnable(m, options, err);
    if (status)
        tern_model_close(&m);
    else
        *out = m;
    return status;
}

/* A graph of the caller's own has no data set: its classes are numbers, its pixels go from 0 to 1, its tokens are
 * bytes. */
static tern_status name_outputs(tern_model_file *file, tern_error *err) {
    const tern_node *out = &file->graph->node[file->graph->nodes - 1];
    tern_model_input *input = &file->input;
    if (file->graph->vocabulary) {
        input->data = TERN_DATA_TEXT;
        input->vocabulary = tern_min_size(out->channels, file->graph->vocabulary);
        return TERN_OK;
    }
    input->data = TERN_DATA_IMAGES;
    for (int c = 0; c < 4; c++) input->std[c] = 1;
    input->class_name = calloc(out->channels, sizeof *input->class_name);
    if (!input->class_name) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for class names");
    input->classes = out->channels;
    for (size_t i = 0; i < input->classes; i++) {
        char number[24];
        snprintf(number, sizeof number, "%zu", i);
        if (!(input->class_name[i] = strdup(number)))
            return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for class names");
    }
    return TERN_OK;
}

tern_status tern_model_create(tern_model **out, tern_graph *graph, uint64_t seed, const tern_model_options *options,
                              tern_error *err) {
    TERN_CHECK_ARGUMENT(out, err, "out is NULL");
    *out = NULL;
    tern_status status = tern_graph_check(graph, err);
    if (!status) status = tern_graph_place(graph, err);
    if (status) {
        tern_graph_free(&graph);
        return status;
    }
    tern_graph_initialise(graph, seed, options ? options->threads : 0);
    TERN_TRY(open_graph(out, graph, options, err));
    status = name_outputs(&(*out)->file, err);
    if (status) tern_model_close(out);
    return status;
}

tern_status tern_model_float_twin(tern_model **out, const tern_model *checkpoint, const tern_model_options *options,
                                  tern_error *err) {
    TERN_CHECK_ARGUMENT(out && checkpoint, err, "%s is NULL", out ? "checkpoint" : "out");
    *out = NULL;
    tern_graph *graph;
    TERN_TRY(tern_float_twin(&graph, checkpoint->plan, err));
    return open_graph(out, graph, options, err);
}

static tern_status regroup_layers(tern_graph *graph, tern_granularity granularity, size_t group, tern_error *err) {
    size_t layers = 0;
    for (size_t i = 1; i < graph->nodes; i++) {
        const tern_node *node = &graph->node[i];
        int latent = node->params && tern_node_param(graph, node, 0)->role == TERN_ROLE_LATENT;
        if (!latent && !tern_node_find_param(graph, node, "exponent")) continue;
        layers++;
        if (tern_node_param(graph, node, 0)->node != (int)i) continue; /* regrouped with its owner */
        TERN_TRY(tern_trit_regroup(graph, i, granularity, group, err));
    }
    return layers
               ? TERN_OK
               : tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE, "the model has no layer of whole-number weights");
}

tern_status tern_model_regroup(tern_model *m, tern_granularity granularity, size_t group, tern_error *err) {
    TERN_CHECK_ARGUMENT(m, err, "checkpoint is NULL");
    TERN_CHECK_ARGUMENT(!m->file.packed, err, "the model is deployed already; groups change in a checkpoint");
    TERN_CHECK_ARGUMENT(!m->gpu, err, "the model was opened on a GPU; groups change in one on the CPU");
    int threads = m->plan->threads;
    tern_plan_free(&m->plan); /* it points at what moves */
    tern_error why = {0};
    tern_status status = regroup_layers(m->file.graph, granularity, group, &why);
    TERN_TRY(tern_model_plan(&m->plan, m, m->batch, threads, TERN_TIER_AUTO, err));
    if (status && err) *err = why;
    return status;
}

void tern_model_close(tern_model **model) {
    if (!model || !*model) return;
    tern_gpu_session_close(&(*model)->gpu);
    tern_plan_free(&(*model)->plan);
    tern_model_file_close(&(*model)->file);
    free(*model);
    *model = NULL;
}

const tern_graph *tern_model_graph(const tern_model *model) { return model ? model->file.graph : NULL; }

int tern_model_layer_is_ternary(const tern_model *model, size_t node) {
    return model && node < model->file.graph->nodes && tern_plan_ternary(model->plan, node) != NULL;
}

/* Trits and scales as the deployed form stores them: t2 where the weights are not packed yet. */
static size_t deployed_bytes(const tern_node *node, const tern_ternary_weights *w) {
    size_t bytes = 0;
    if (node->packed.bytes) return node->packed.byte_count + tern_ternary_scale_bytes(w);
    if (tern_packed_bytes(&bytes, TERN_PACK_T2, w->rows, w->cols, NULL)) return 0;
    return bytes + tern_ternary_scale_bytes(w);
}

/* What lies in the file beside a parameter; nothing without a file. */
static size_t optimizer_bytes(const void *file, const tern_graph *graph, size_t p) {
    static const char *const kinds[] = {"first", "second"};
    size_t bytes = 0;
    for (int k = 0; file && k < 2; k++) {
        char name[TERN_PARAM_NAME_BYTES + 24];
        snprintf(name, sizeof name, "optimizer.%s.%s", kinds[k], graph->param[p].name);
        const tern_safetensors_entry *entry = tern_safetensors_find(file, name);
        bytes += entry ? entry->bytes : 0;
    }
    return bytes;
}

tern_status tern_model_describe(tern_model_info *info, const tern_model *model, tern_error *err) {
    TERN_CHECK_ARGUMENT(info && model, err, "%s is NULL", info ? "model" : "info");
    const tern_graph *graph = model->file.graph;
    *info = (tern_model_info){.packed = model->file.packed,
                              .preset = model->file.config.preset,
                              .data = model->file.input.data,
                              .input = graph->node[0].shape,
                              .classes = model->file.input.classes,
                              .vocabulary = graph->vocabulary,
                              .nodes = graph->nodes,
                              .device = TERN_DEVICE_CPU};
    if (model->gpu) tern_gpu_session_describe(info, model->gpu);
    info->activation_bytes = model->plan->arena_bytes + model->plan->scratch_bytes;
    for (size_t i = 0; i < model->plan->kepts; i++) info->activation_bytes += model->plan->kept[i].bytes;
    for (size_t p = 0; p < graph->params; p++) {
        if (graph->param[p].role == TERN_ROLE_LATENT || !graph->param[p].value) continue;
        info->parameters += graph->param[p].count;
        info->packed_bytes += graph->param[p].count * sizeof(float);
    }
    for (size_t i = 1; i < graph->nodes; i++) {
        const tern_ternary_weights *w = tern_plan_ternary(model->plan, i);
        if (!w) continue;
        info->ternary_parameters += w->rows * w->cols;
        info->ternary_packed_bytes += deployed_bytes(&graph->node[i], w);
    }
    info->parameters += info->ternary_parameters;
    info->ternary_float_bytes = info->ternary_parameters * sizeof(float);
    info->packed_bytes += info->ternary_packed_bytes;
    info->float_bytes = info->parameters * sizeof(float);
    if (!info->packed) {
        tern_state_size state = tern_graph_state_size(graph, optimizer_bytes, model->file.file);
        info->trained_weights = state.weights;
        info->state_bytes = state.bytes;
    }
    return TERN_OK;
}

tern_status tern_model_state(tern_state_info *info, const tern_model *model, size_t i, tern_error *err) {
    TERN_CHECK_ARGUMENT(info && model, err, "%s is NULL", info ? "model" : "info");
    TERN_CHECK_ARGUMENT(i < model->file.graph->nodes, err, "there is no node %zu", i);
    tern_state_size size = {0};
    if (!model->file.packed) size = tern_node_state_size(model->file.graph, i, optimizer_bytes, model->file.file);
    *info = (tern_state_info){size.weights, size.bytes, tern_state_bits(&size)};
    return TERN_OK;
}

static tern_status count_trits(tern_layer_info *info, const tern_ternary_weights *w, const tern_node *node,
                               tern_error *err) {
    size_t n = w->rows * w->cols;
    int8_t *trits = malloc(n ? n : 1);
    if (!trits) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory to count %zu trits", n);
    tern_status status = tern_ternary_take_trits(w, node, trits, err);
    for (size_t i = 0; !status && i < n; i++) {
        info->minus += trits[i] < 0;
        info->plus += trits[i] > 0;
    }
    free(trits);
    return status;
}

tern_status tern_model_layer(tern_layer_info *info, const tern_model *model, size_t i, tern_error *err) {
    TERN_CHECK_ARGUMENT(info && model, err, "%s is NULL", info ? "model" : "info");
    TERN_CHECK_ARGUMENT(tern_model_layer_is_ternary(model, i), err, "node %zu has no ternary weights", i);
    const tern_node *node = &model->file.graph->node[i];
    const tern_ternary_weights *w = tern_plan_ternary(model->plan, i);
    size_t n = w->rows * w->cols;
    float first = tern_ternary_scale(w, node, 0);
    *info = (tern_layer_info){.name = node->name,
                              .op = node->op->name,
                              .rows = w->rows,
                              .cols = w->cols,
                              .groups = w->groups,
                              .packing = node->packed.bytes ? node->packed.packing : TERN_PACK_T2,
                              .scale_kind = tern_ternary_scale_kind(w),
                              .scale_count = w->scale_count,
                              .least_scale = first,
                              .largest_scale = first,
                              .bytes = deployed_bytes(node, w)};
    for (size_t s = 1; s < w->scale_count; s++) {
        float scale = tern_ternary_scale(w, node, s);
        if (scale < info->least_scale) info->least_scale = scale;
        if (scale > info->largest_scale) info->largest_scale = scale;
    }
    TERN_TRY(count_trits(info, w, node, err));
    info->zero = n - info->minus - info->plus;
    info->bits_per_weight = n ? 8.0 * (double)info->bytes / (double)n : 0;
    return TERN_OK;
}

const char *tern_model_class_name(const tern_model *model, size_t label) {
    return model && label < model->file.input.classes ? model->file.input.class_name[label] : NULL;
}

size_t tern_model_outputs(const tern_model *model) {
    return model ? model->file.graph->node[model->file.graph->nodes - 1].elements : 0;
}

static tern_status check_input(const tern_model *model, const void *x, size_t n, tern_error *err) {
    TERN_CHECK_ARGUMENT(n <= model->batch, err, "%zu samples; the model was opened for at most %zu", n, model->batch);
    size_t vocabulary = model->file.graph->vocabulary, inputs = n * model->file.graph->node[0].elements;
    for (size_t i = 0; vocabulary && i < inputs; i++) {
        int32_t token = ((const int32_t *)x)[i];
        if (token < 0 || (size_t)token >= vocabulary)
            return tern_fail(err, TERN_E_DATA, i, "token %zu is %d; the vocabulary has %zu", i, (int)token,
                             vocabulary);
    }
    return TERN_OK;
}

tern_status tern_model_run(float *outputs, tern_model *model, const void *x, size_t n, tern_error *err) {
    TERN_CHECK_ARGUMENT(outputs && model && x, err, "an argument is NULL");
    TERN_TRY(check_input(model, x, n, err));
    const tern_runner runner = tern_model_runner(model);
    const float *y;
    TERN_TRY(runner.run(runner.context, &y, x, n, err));
    memcpy(outputs, y, n * tern_model_outputs(model) * sizeof *outputs);
    return TERN_OK;
}

tern_status tern_model_time(double *pass, tern_model *model, const void *x, size_t n, double seconds, int cold,
                            tern_error *err) {
    TERN_CHECK_ARGUMENT(pass && model && x, err, "an argument is NULL");
    TERN_CHECK_ARGUMENT(n, err, "no samples");
    TERN_TRY(check_input(model, x, n, err));
    if (model->gpu) return tern_gpu_session_time(pass, model->gpu, x, n, seconds, cold, err);
    return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE,
                     "the model was opened on the CPU, where tern_model_run is what to time");
}

tern_status tern_model_normalise(float *x, const tern_model *model, const uint8_t *pixels, size_t n,
                                 tern_error *err) {
    TERN_CHECK_ARGUMENT(x && model && pixels, err, "an argument is NULL");
    const tern_node *in = &model->file.graph->node[0];
    TERN_CHECK_ARGUMENT(!model->file.graph->vocabulary && in->channels <= 4, err, "the model takes no images");
    const tern_model_input *input = &model->file.input;
    float table[4][256];
    for (size_t c = 0; c < in->channels; c++)
        for (int v = 0; v < 256; v++)
            table[c][v] = ((float)v / 255.0f - input->mean[c]) / (input->std[c] != 0 ? input->std[c] : 1);
    for (size_t i = 0; i < n * in->elements; i++) x[i] = table[i % in->channels][pixels[i]];
    return TERN_OK;
}

tern_status tern_model_evaluate(tern_accuracy *out, tern_model *model, const tern_dataset *dataset,
                                size_t max_samples, uint64_t *confusion, tern_error *err) {
    TERN_CHECK_ARGUMENT(out && model && dataset, err, "an argument is NULL");
    tern_dataset_info info;
    TERN_TRY(tern_dataset_describe(&info, dataset, err));
    const tern_node *in = &model->file.graph->node[0];
    if (model->file.graph->vocabulary)
        TERN_CHECK_ARGUMENT(info.vocabulary == model->file.graph->vocabulary, err,
                            "the text has a vocabulary of %zu; the model was trained on one of %zu", info.vocabulary,
                            model->file.graph->vocabulary);
    else
        TERN_CHECK_ARGUMENT(in->shape.rank == 3 && info.height == in->shape.dim[0] &&
                                info.width == in->shape.dim[1] && info.channels == in->shape.dim[2] &&
                                info.classes == model->file.input.classes,
                            err, "the data has images of %zu x %zu x %zu in %zu classes; the model takes others",
                            info.height, info.width, info.channels, info.classes);
    tern_evaluation_desc d = {.dataset = dataset,
                              .input = &model->file.input,
                              .views = (tern_views)model->file.config.views,
                              .max_samples = max_samples,
                              .confusion = confusion};
    tern_evaluation e;
    const tern_runner runner = tern_model_runner(model);
    TERN_TRY(tern_evaluate(&e, &runner, &d, err));
    *out = (tern_accuracy){e.loss, e.accuracy, e.samples};
    return TERN_OK;
}
