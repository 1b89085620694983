/* Models in files: graphs as JSON and back, parameters to the bit, and refusals of what does not fit together. */

#include <jansson.h>

#include "base/random.h"
#include "model/graph_json.h"
#include "model/model_file.h"
#include "model/networks.h"
#include "nn/op.h"
#include "tern/pack.h"
#include "testing.h"

static tern_error err;

/* ---- graphs as JSON */

static void check_same_graph(const tern_graph *a, const tern_graph *b) {
    assert_int_equal(a->nodes, b->nodes);
    assert_int_equal(a->params, b->params);
    assert_int_equal(a->vocabulary, b->vocabulary);
    for (size_t i = 0; i < a->nodes; i++) {
        const tern_node *x = &a->node[i], *y = &b->node[i];
        assert_ptr_equal(x->op, y->op);
        assert_string_equal(x->name, y->name);
        assert_int_equal(x->inputs, y->inputs);
        for (int k = 0; k < x->inputs; k++) assert_int_equal(x->input[k], y->input[k]);
        assert_memory_equal(&x->at, &y->at, sizeof x->at);
        assert_int_equal(x->shape.rank, y->shape.rank);
        for (int d = 0; d < x->shape.rank; d++) assert_int_equal(x->shape.dim[d], y->shape.dim[d]);
    }
    for (size_t p = 0; p < a->params; p++) {
        const tern_param *x = &a->param[p], *y = &b->param[p];
        assert_string_equal(x->name, y->name);
        assert_int_equal(x->role, y->role);
        assert_int_equal(x->count, y->count);
        assert_memory_equal(&x->init_sigma, &y->init_sigma, sizeof x->init_sigma);
        assert_memory_equal(&x->init_mean, &y->init_mean, sizeof x->init_mean);
    }
}

static tern_graph *network(tern_config **config, const char *preset) {
    tern_graph *graph = NULL;
    OK(tern_config_create(config, preset, &err));
    tern_data_shape data = {28, 28, 1, 10, 0};
    if ((*config)->data == TERN_DATA_CIFAR10) data = (tern_data_shape){32, 32, 3, 10, 0};
    if ((*config)->data == TERN_DATA_TEXT) data = (tern_data_shape){.vocabulary = 65};
    OK(tern_network_build(&graph, *config, &data, &err));
    return graph;
}

static void test_presets_as_json(void **state) {
    (void)state;
    const char *name;
    for (size_t i = 0; (name = tern_preset_name(i)) != NULL; i++)
        for (int twin = 0; twin < 2; twin++) {
            char preset[64];
            snprintf(preset, sizeof preset, "%s%s", name, twin ? "-fp" : "");
            tern_config *config;
            tern_graph *graph = network(&config, preset), *again = NULL;
            json_t *json = tern_graph_to_json(graph);
            assert_non_null(json);
            char *text = json_dumps(json, JSON_REAL_PRECISION(9)); /* as a model file has it */
            json_t *read = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
            OK(tern_graph_from_json(&again, read, &err));
            check_same_graph(graph, again);
            json_decref(json);
            json_decref(read);
            free(text);
            tern_graph_free(&graph);
            tern_graph_free(&again);
            tern_config_free(&config);
        }
}

/* Every attribute survives, at values that are not its default. */
static void test_attributes_as_json(void **state) {
    (void)state;
    tern_graph *graph = NULL, *again = NULL;
    OK(tern_graph_create(&graph, &err));
    tern_value x = tern_graph_input_tokens(graph, 4, 9);
    x = tern_graph_add(graph, "embedding", "e", x, &(tern_attrs){.outputs = 12, .width = 32, .init_gain = 1.0f / 3});
    x = tern_graph_add(graph, "attention", "a", x, &(tern_attrs){.heads = 4, .kv_heads = 2, .rope_base = 500.1f});
    x = tern_graph_add(graph, "rmsnorm", "r", x, &(tern_attrs){.plain = 1, .epsilon = 1.1e-6f});
    x = tern_graph_add(graph, "batch_norm", "b", x, &(tern_attrs){.momentum = 0.37f, .plain = 1});
    x = tern_graph_add(graph, "bit_linear", "l", x,
                       &(tern_attrs){.outputs = 6, .rule = TERN_RULE_TWN, .granularity = 1, .bias = 1, .frozen = 1});
    x = tern_graph_add(graph, "dropout", "d", x, &(tern_attrs){.rate = 0.1f});
    tern_value y = tern_graph_add(graph, "scale", "s", x, &(tern_attrs){.factor = -1.7e-11f});
    x = tern_graph_add2(graph, "mul", "m", x, y);
    x = tern_graph_add(graph, "reshape", "t", x, &(tern_attrs){.dim = {2, TERN_REST}});
    tern_graph_add(graph, "packed_linear", "p", x, &(tern_attrs){.outputs = 2, .acts = TERN_I8, .init_gain = -1});
    OK(tern_graph_check(graph, &err));
    json_t *json = tern_graph_to_json(graph);
    OK(tern_graph_from_json(&again, json, &err));
    check_same_graph(graph, again);
    json_decref(json);
    tern_graph_free(&graph);
    tern_graph_free(&again);
}

#define NODES(...) "{\"input\": {\"shape\": [4, 6]}, \"nodes\": [" __VA_ARGS__ "]}"
#define RELU "{\"op\": \"relu\", \"name\": \"r\", \"from\": [\"input\"]}"

static const struct {
    const char *text;
    tern_status status;
    const char *message;
} bad_graphs[] = {
    {"{}", TERN_E_DATA, "no shape"},
    {"[]", TERN_E_DATA, "no shape"},
    {"{\"input\": {\"shape\": [4, 6]}}", TERN_E_DATA, "no nodes"},
    {NODES(""), TERN_E_ARGUMENT, "an input and a node"},
    {"{\"input\": {\"shape\": []}, \"nodes\": [" RELU "]}", TERN_E_DATA, "1 to 3"},
    {"{\"input\": {\"shape\": [1, 2, 3, 4]}, \"nodes\": [" RELU "]}", TERN_E_DATA, "1 to 3"},
    {"{\"input\": {\"shape\": [-1]}, \"nodes\": [" RELU "]}", TERN_E_DATA, "no size"},
    {"{\"input\": {\"shape\": [2.5]}, \"nodes\": [" RELU "]}", TERN_E_DATA, "no size"},
    {"{\"input\": {\"shape\": [1099511627776, 2]}, \"nodes\": [" RELU "]}", TERN_E_SIZE, "too large"},
    {"{\"input\": {\"shape\": [4], \"scale\": 2}, \"nodes\": [" RELU "]}", TERN_E_UNSUPPORTED, "unknown key 'scale'"},
    {"{\"input\": {\"shape\": [4]}, \"version\": 2, \"nodes\": [" RELU "]}", TERN_E_UNSUPPORTED, "'version'"},
    {"{\"input\": {\"tokens\": 4}, \"nodes\": [" RELU "]}", TERN_E_DATA, "vocabulary"},
    {"{\"input\": {\"tokens\": 4, \"vocabulary\": 5}, \"nodes\": [" RELU "]}", TERN_E_DATA, "r: only an embedding"},
    {NODES(RELU "," RELU), TERN_E_DATA, "two nodes have the name r"},
    {NODES("{\"op\": \"tanh\", \"name\": \"n\", \"from\": [\"input\"]}"), TERN_E_UNSUPPORTED,
     "n: unknown operation 'tanh'"},
    {NODES("{\"op\": \"input\", \"name\": \"n\", \"from\": [\"input\"]}"), TERN_E_DATA, "n: there is no"},
    {NODES("{\"op\": \"relu\", \"name\": \"n\", \"from\": [\"input\"], \"slope\": 0.1}"), TERN_E_UNSUPPORTED,
     "n: unknown attribute 'slope'"},
    {NODES("{\"op\": \"relu\", \"name\": \"n\", \"from\": [\"x\"]}"), TERN_E_DATA, "n: input 0"},
    {NODES("{\"op\": \"relu\", \"name\": \"n\", \"from\": [\"n\"]}"), TERN_E_DATA, "n: input 0"},
    {NODES("{\"op\": \"relu\", \"name\": \"n\", \"from\": [3]}"), TERN_E_DATA, "n: input 0"},
    {NODES("{\"op\": \"relu\", \"name\": \"n\", \"from\": []}"), TERN_E_DATA, "no op, name and from"},
    {NODES("{\"op\": \"relu\", \"name\": \"n\", \"from\": [\"input\", \"input\", \"input\"]}"), TERN_E_DATA,
     "node 0"},
    {NODES("{\"op\": \"relu\", \"name\": \"n\", \"from\": [\"input\", \"input\"]}"), TERN_E_DATA, "n: relu takes 1"},
    {NODES("{\"op\": \"relu\", \"name\": \"n\"}"), TERN_E_DATA, "no op, name and from"},
    {NODES("{\"op\": \"relu\", \"from\": [\"input\"]}"), TERN_E_DATA, "no op, name and from"},
    {NODES("7"), TERN_E_DATA, "node 0 has no op"},
    {NODES("{\"op\": \"linear\", \"name\": \"n\", \"from\": [\"input\"], \"outputs\": -1}"), TERN_E_DATA,
     "n: outputs"},
    {NODES("{\"op\": \"linear\", \"name\": \"n\", \"from\": [\"input\"], \"outputs\": \"8\"}"), TERN_E_DATA,
     "n: outputs"},
    {NODES("{\"op\": \"linear\", \"name\": \"n\", \"from\": [\"input\"], \"outputs\": 1099511627776}"), TERN_E_SIZE,
     "n:"},
    {NODES("{\"op\": \"linear\", \"name\": \"n\", \"from\": [\"input\"], \"outputs\": 9223372036854775807}"),
     TERN_E_DATA, "n: outputs"},
    {NODES("{\"op\": \"linear\", \"name\": \"n\", \"from\": [\"input\"], \"outputs\": 2, \"groups\": 2}"),
     TERN_E_DATA, "n: a linear product has no window"},
    {NODES("{\"op\": \"linear\", \"name\": \"n\", \"from\": [\"input\"], \"outputs\": 2, \"bias\": true}"),
     TERN_E_DATA, "n: bias"},
    {NODES("{\"op\": \"rmsnorm\", \"name\": \"n\", \"from\": [\"input\"], \"epsilon\": 1e300}"), TERN_E_DATA,
     "n: epsilon"},
    {NODES("{\"op\": \"reshape\", \"name\": \"n\", \"from\": [\"input\"], \"dim\": 24}"), TERN_E_DATA, "n: no dim"},
    {NODES("{\"op\": \"reshape\", \"name\": \"n\", \"from\": [\"input\"], \"dim\": [2, 2, 2, 3]}"), TERN_E_DATA,
     "n: no dim of 1 to 3"},
    {NODES("{\"op\": \"reshape\", \"name\": \"n\", \"from\": [\"input\"], \"dim\": [2, -12]}"), TERN_E_DATA,
     "n: dim is no size"},
    {NODES("{\"op\": \"reshape\", \"name\": \"n\", \"from\": [\"input\"], \"dim\": [2, 13]}"), TERN_E_DATA,
     "n: a shape of 26 elements"},
};

static void test_bad_graphs(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof bad_graphs / sizeof *bad_graphs; i++) {
        json_t *json = json_loads(bad_graphs[i].text, 0, NULL);
        if (!json) fail_msg("case %zu is no JSON", i);
        tern_graph *graph = (tern_graph *)(uintptr_t)1;
        REFUSED(tern_graph_from_json(&graph, json, &err), bad_graphs[i].status, bad_graphs[i].message);
        assert_null(graph);
        json_decref(json);
    }
    tern_graph *graph;
    REFUSED(tern_graph_from_json(&graph, NULL, &err), TERN_E_DATA, "no shape");
}

/* ---- files */

typedef struct model {
    tern_graph *graph;
    tern_config *config;
    tern_model_input input;
    void *bytes; /* the file */
    size_t size;
} model;

static tern_model_input image_input(void) {
    tern_model_input input = {.data = TERN_DATA_MNIST, .mean = {0.1f}, .std = {1.0f / 3}, .classes = 10};
    input.class_name = calloc(10, sizeof *input.class_name);
    for (size_t i = 0; i < 10; i++) {
        char name[16];
        snprintf(name, sizeof name, i ? "digit %zu" : "\xc3\xa9\"%zu", i);
        input.class_name[i] = strdup(name);
    }
    return input;
}

static tern_model_input text_input(size_t vocabulary) {
    tern_model_input input = {.data = TERN_DATA_TEXT, .vocabulary = vocabulary};
    input.code_point = calloc(vocabulary, sizeof *input.code_point);
    for (size_t i = 0; i < vocabulary; i++) input.code_point[i] = (uint32_t)(0x10ffff - i);
    return input;
}

static void write_model(model *m, int packed) {
    tern_safetensors_writer *writer;
    OK(tern_safetensors_writer_create(&writer, &err));
    OK(tern_model_add(writer, m->graph, &m->input, m->config, packed, &err));
    OK(tern_safetensors_writer_to_memory(writer, &m->bytes, &m->size, &err));
    tern_safetensors_writer_free(&writer);
}

static model model_make(const char *preset) {
    model m = {0};
    OK(tern_config_create(&m.config, preset, &err));
    OK(tern_config_set(m.config, "width", "8", &err));
    OK(tern_config_set(m.config, "depth", "1", &err));
    OK(tern_config_set(m.config, "context", "6", &err));
    OK(tern_config_set(m.config, "lr", "0.12345678901234567", &err));
    tern_data_shape data = {4, 4, 1, 10, 0}, text = {.vocabulary = 7};
    int is_text = m.config->data == TERN_DATA_TEXT;
    OK(tern_network_build(&m.graph, m.config, is_text ? &text : &data, &err));
    OK(tern_graph_place(m.graph, &err));
    tern_graph_initialise(m.graph, 17, 0);
    for (size_t p = 0; p < m.graph->params; p++) m.graph->param[p].value[0] = (float)p - 0.1f;
    m.input = is_text ? text_input(7) : image_input();
    write_model(&m, 0);
    return m;
}

static void model_free(model *m) {
    tern_graph_free(&m->graph);
    tern_config_free(&m->config);
    tern_model_input_free(&m->input);
    free(m->bytes);
}

static tern_status open_bytes(tern_model_file *read, const void *bytes, size_t size) {
    tern_safetensors *file = NULL;
    OK(tern_safetensors_open_memory(&file, bytes, size, "m.tern", TERN_ST_CHECKSUM_REQUIRED, &err));
    tern_status status = tern_model_file_take(read, &file, "m.tern", &err);
    assert_null(file);
    return status;
}

static void check_same_model(const model *m, const tern_model_file *read) {
    check_same_graph(m->graph, read->graph);
    for (size_t p = 0; p < m->graph->params; p++)
        assert_memory_equal(read->graph->param[p].value, m->graph->param[p].value,
                            m->graph->param[p].count * sizeof(float));
    if (!read->packed) assert_memory_equal(&read->config, m->config, sizeof read->config); /* a checkpoint's */
    assert_int_equal(read->input.data, m->input.data);
    assert_int_equal(read->input.classes, m->input.classes);
    assert_memory_equal(read->input.mean, m->input.mean, sizeof m->input.mean);
    assert_memory_equal(read->input.std, m->input.std, sizeof m->input.std);
    for (size_t i = 0; i < m->input.classes; i++)
        assert_string_equal(read->input.class_name[i], m->input.class_name[i]);
    assert_int_equal(read->input.vocabulary, m->input.vocabulary);
    if (m->input.code_point)
        assert_memory_equal(read->input.code_point, m->input.code_point, m->input.vocabulary * sizeof(uint32_t));
}

static void test_round_trip(void **state) {
    (void)state;
    static const char *const presets[] = {"mnist-mlp", "mnist-cnn", "mnist-cnn-fp", "charlm", "charlm-fp"};
    temporary_folder folder;
    folder_create(&folder);
    for (size_t i = 0; i < sizeof presets / sizeof *presets; i++) {
        model m = model_make(presets[i]);
        tern_model_file read;
        OK(open_bytes(&read, m.bytes, m.size));
        check_same_model(&m, &read);
        assert_int_equal(read.packed, 0);
        tern_model_file_close(&read);
        assert_null(read.graph);
        folder_put(&folder, "model.tern", m.bytes, m.size);
        OK(tern_model_file_open(&read, folder_file(&folder, "model.tern"), &err));
        check_same_model(&m, &read);
        tern_model_file_close(&read);
        model_free(&m);
    }
    tern_model_file read;
    REFUSED(tern_model_file_open(&read, folder_file(&folder, "missing"), &err), TERN_E_FILE, "missing");
    tern_model_file_close(&read); /* nothing to do */
    folder_remove(&folder);
}

/* ---- files that somebody has changed */

/* The tensor of this name is left out, or takes another dtype or shape; `from` in the description becomes `to`. */
typedef struct change {
    const char *tensor;
    int leave_out;
    tern_safetensors_dtype dtype;
    size_t rank, shape[2];
    const char *from, *to;
} change;

static char *replaced(const char *text, const char *from, const char *to) {
    const char *at = strstr(text, from);
    if (!at) fail_msg("there is no %s in %s", from, text);
    char *out = malloc(strlen(text) + strlen(to) + 1);
    sprintf(out, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    return out;
}

/* config: what was read of it; or NULL. */
static tern_status open_changed(const model *m, const change *c, tern_config *config) {
    static const float zeros[4096];
    tern_safetensors *file;
    tern_safetensors_writer *writer;
    OK(tern_safetensors_open_memory(&file, m->bytes, m->size, "m", TERN_ST_CHECKSUM_REQUIRED, &err));
    OK(tern_safetensors_writer_create(&writer, &err));
    int met = !c->tensor;
    for (size_t i = 0; i < tern_safetensors_count(file); i++) {
        const tern_safetensors_entry *e = tern_safetensors_at(file, i);
        int it = c->tensor && !strcmp(e->name, c->tensor);
        met |= it;
        if (it && c->leave_out) continue;
        if (it)
            OK(tern_safetensors_writer_add(writer, e->name, c->dtype, c->rank, c->shape, zeros, &err));
        else
            OK(tern_safetensors_writer_add(writer, e->name, e->dtype, e->rank, e->shape, e->data, &err));
    }
    assert_true(met);
    const char *text = tern_safetensors_metadata(file, "tern.model");
    char *changed = c->from ? replaced(text, c->from, c->to) : strdup(text);
    OK(tern_safetensors_writer_metadata(writer, "tern.model", changed, &err));
    void *bytes;
    size_t size;
    OK(tern_safetensors_writer_to_memory(writer, &bytes, &size, &err));
    tern_safetensors_writer_free(&writer);
    tern_model_file read;
    tern_status status = open_bytes(&read, bytes, size);
    if (status) {
        assert_null(read.graph);
        assert_null(read.input.class_name);
        assert_null(read.file);
    }
    if (config) *config = read.config;
    tern_model_file_close(&read);
    tern_safetensors_close(&file);
    free(changed);
    free(bytes);
    return status;
}

static void check_changes(const model *m, const change *changes, const char *const *messages, size_t count) {
    OK(open_changed(m, &(change){0}, NULL));
    for (size_t i = 0; i < count; i++) {
        err = (tern_error){0};
        tern_status status = open_changed(m, &changes[i], NULL);
        if (!status || !strstr(err.message, messages[i]))
            fail_msg("change %zu: %s: %s; should say '%s'", i, tern_status_text(status), err.message, messages[i]);
    }
}

static void test_changed_files(void **state) {
    (void)state;
    /* fc1 [8][16], head [10][8] */
    static const change changes[] = {
        {.tensor = "fc1.weight", .leave_out = 1},
        {.tensor = "norm1.variance", .leave_out = 1},
        {.tensor = "fc1.weight", .dtype = TERN_ST_F16, .rank = 2, .shape = {8, 16}},
        {.tensor = "fc1.weight", .dtype = TERN_ST_I32, .rank = 2, .shape = {8, 16}},
        {.tensor = "fc1.weight", .dtype = TERN_ST_F32, .rank = 2, .shape = {8, 17}},
        {.tensor = "fc1.weight", .dtype = TERN_ST_F32, .rank = 2, .shape = {16, 8}},
        {.tensor = "fc1.weight", .dtype = TERN_ST_F32, .rank = 1, .shape = {128}},
        {.tensor = "fc1.weight", .dtype = TERN_ST_F32, .rank = 2, .shape = {0, 16}},
        {.from = "\"digit 1\",", .to = ""},
        {.from = "\"digit 1\"", .to = "\"digit 1\",\"one\""},
        {.from = "\"digit 1\"", .to = "1"},
        {.from = "\"format\":1", .to = "\"format\":2"},
        {.from = "\"outputs\":8", .to = "\"outputs\":4294967296"}, /* asks for memory that is not there */
        {.from = "\"outputs\":8", .to = "\"outputs\":268435456"},
        {.from = "\"op\":\"relu\"", .to = "\"op\":\"tanh\""},
        {.from = "\"op\":\"relu\"", .to = "\"op\":\"relu\",\"slope\":1"},
        {.from = "\"shape\":[4,4,1]", .to = "\"shape\":[16]"},
        {.from = "\"shape\":[4,4,1]", .to = "\"tokens\":16,\"vocabulary\":5"},
        {.from = "\"shape\":[4,4,1]", .to = "\"shape\":[1,2,8]"},
        {.from = "\"data\":\"mnist\",\"mean", .to = "\"data\":\"emnist\",\"mean"},
        {.from = "\"data\":\"mnist\",\"mean", .to = "\"data\":\"text\",\"vocabulary\":10,\"mean"},
        {.from = "\"mean\":[", .to = "\"mean\":[],\"m\":["},
        {.from = "\"std\":[", .to = "\"std\":[-1.0,"},
        {.from = "\"classes\":[", .to = "\"klasses\":["},
        {.from = "\"preset\":\"mnist-mlp\"", .to = "\"preset\":\"mnist-mpl\""},
        {.from = "\"batch\":\"128\"", .to = "\"batch\":128"},
        {.from = "\"batch\":\"128\"", .to = "\"batch\":\"many\""},
        {.from = "\"graph\"", .to = "\"grape\""},
        {.from = "}", .to = ""},
    };
    static const char *const messages[] = {
        "no tensor fc1.weight",
        "no tensor norm1.variance",
        "fc1.weight is F16",
        "fc1.weight is I32",
        "544 bytes",
        "fc1.weight has another shape",
        "another shape",
        "fc1.weight is F32 of 0",
        "10 outputs for 9 names",
        "10 outputs for 11",
        "class 1 has no name",
        "its format is not 1",
        "fc1",
        "fc1",
        "unknown operation 'tanh'",
        "attribute 'slope'",
        "does not take",
        "only an embedding",
        "does not take",
        "no known kind",
        "does not take",
        "no mean of 4",
        "does not take",
        "0 classes",
        "did you mean",
        "batch is no text",
        "batch=many",
        "no shape",
        "damaged",
    };
    assert_int_equal(sizeof changes / sizeof *changes, sizeof messages / sizeof *messages);
    model m = model_make("mnist-mlp");
    check_changes(&m, changes, messages, sizeof changes / sizeof *changes);
    model_free(&m);
}

/* A checkpoint from before there was a setting is of a run without it, whatever its preset says today. */
static void test_older_checkpoint(void **state) {
    (void)state;
    static const change decay = {.from = "\"weight_decay\":\"0.1\",", .to = ""};
    tern_config config;
    model m = model_make("charlm");
    OK(open_changed(&m, &decay, &config));
    assert_true(config.weight_decay == 0 && config.clip == 1);
    model_free(&m);
    OK(tern_config_preset(&config, "cifar10-large", &err));
    OK(tern_config_unset(&config, "convolutions", &err));
    assert_int_equal(config.convolutions, 2);
    assert_int_equal(config.cutout, 12);
}

static void test_changed_texts(void **state) {
    (void)state;
    static const change changes[] = {
        {.from = "\"vocabulary\":7,\"code_points\"", .to = "\"vocabulary\":8,\"code_points\""},
        {.from = "\"vocabulary\":7,\"code_points\"", .to = "\"vocabulary\":7,\"code_points\":[1],\"c\""},
        {.from = "\"code_points\":[1114111,", .to = "\"code_points\":[1114112,"},
        {.from = "\"tokens\":6,\"vocabulary\":7", .to = "\"tokens\":6,\"vocabulary\":6"},
        {.from = "\"data\":\"text\",\"vocabulary\":7", .to = "\"data\":\"text\",\"vocabulary\":0"},
    };
    static const char *const messages[] = {"vocabulary is damaged", "vocabulary is damaged", "code point 0",
                                           "does not take", "vocabulary is damaged"};
    model m = model_make("charlm");
    check_changes(&m, changes, messages, sizeof changes / sizeof *changes);
    model_free(&m);
}

static void test_not_a_model(void **state) {
    (void)state;
    tern_safetensors_writer *writer;
    void *bytes;
    size_t size;
    tern_model_file read;
    OK(tern_safetensors_writer_create(&writer, &err));
    OK(tern_safetensors_writer_to_memory(writer, &bytes, &size, &err));
    REFUSED(open_bytes(&read, bytes, size), TERN_E_DATA, "no model of Tern");
    tern_safetensors_writer_free(&writer);
    free(bytes);
}

/* Names of folders need not be UTF-8; a model that lost one would have too few. */
static void test_bad_class_name(void **state) {
    (void)state;
    model m = model_make("mnist-mlp");
    strcpy(m.input.class_name[3], "\xff");
    tern_safetensors_writer *writer;
    OK(tern_safetensors_writer_create(&writer, &err));
    REFUSED(tern_model_add(writer, m.graph, &m.input, m.config, 0, &err), TERN_E_DATA, "class 3");
    tern_safetensors_writer_free(&writer);
    model_free(&m);
}

/* ---- packed models */

static uint8_t packed_trits[10 * 4]; /* [10][16] in two bits each */
static float packed_scales[10];

static model packed_make(int per_row) {
    model m = {0};
    OK(tern_config_create(&m.config, "mnist-mlp", &err));
    OK(tern_graph_create(&m.graph, &err));
    tern_value x = tern_graph_input(m.graph, (tern_shape){3, {4, 4, 1}});
    x = tern_graph_add(m.graph, "flatten", "flat", x, NULL);
    tern_graph_add(m.graph, "packed_linear", "head", x,
                   &(tern_attrs){.outputs = 10, .bias = 1, .granularity = per_row, .acts = TERN_I8});
    OK(tern_graph_check(m.graph, &err));
    OK(tern_graph_place(m.graph, &err));
    int8_t trits[160];
    for (size_t i = 0; i < 160; i++) trits[i] = tern_random_trit(2, i);
    for (size_t i = 0; i < 10; i++) packed_scales[i] = 0.1f * (float)(i + 1);
    OK(tern_pack(packed_trits, sizeof packed_trits, TERN_PACK_T2, trits, 10, 16, &err));
    m.graph->node[2].packed = (tern_packed){.packing = TERN_PACK_T2,
                                            .rows = 10,
                                            .cols = 16,
                                            .matrices = 1,
                                            .bytes = packed_trits,
                                            .byte_count = sizeof packed_trits,
                                            .scales = packed_scales,
                                            .scale_count = per_row ? 10 : 1,
                                            .scale_kind = per_row ? TERN_SCALE_ROW : TERN_SCALE_TENSOR};
    m.input = image_input();
    write_model(&m, 1);
    return m;
}

static void test_packed(void **state) {
    (void)state;
    for (int per_row = 0; per_row < 2; per_row++) {
        model m = packed_make(per_row);
        tern_model_file read;
        OK(open_bytes(&read, m.bytes, m.size));
        check_same_model(&m, &read);
        assert_int_equal(read.packed, 1);
        const tern_packed *p = &read.graph->node[2].packed, *q = &m.graph->node[2].packed;
        assert_true(p->packing == q->packing && p->rows == q->rows && p->cols == q->cols && p->matrices == 1);
        assert_true(p->scale_kind == q->scale_kind && p->scale_count == q->scale_count);
        assert_memory_equal(p->bytes, packed_trits, sizeof packed_trits);
        assert_memory_equal(p->scales, packed_scales, p->scale_count * sizeof(float));
        tern_plan *plan;
        OK(tern_plan_create(&plan, read.graph, &(tern_plan_desc){.batch_max = 1, .threads = 1}, &err));
        tern_plan_free(&plan);
        tern_model_file_close(&read);
        static const change changes[] = {
            {.tensor = "head.weight", .leave_out = 1},
            {.tensor = "head.scale", .leave_out = 1},
            {.tensor = "head.bias", .leave_out = 1},
            {.tensor = "head.weight", .dtype = TERN_ST_U8, .rank = 1, .shape = {39}},
            {.tensor = "head.weight", .dtype = TERN_ST_I8, .rank = 1, .shape = {40}},
            {.tensor = "head.scale", .dtype = TERN_ST_F32, .rank = 1, .shape = {2}},
            {.tensor = "head.scale", .dtype = TERN_ST_I32, .rank = 1, .shape = {1}},
            {.from = "\"packing\":{\"head\":\"t2\"", .to = "\"packing\":{\"head\":\"t9\""},
            {.from = "\"packing\":{\"head\":\"t2\"", .to = "\"packing\":{\"heat\":\"t2\""},
        };
        static const char *const messages[] = {
            "missing",    "missing", "head.bias", "head.weight is U8 of 39", "head.weight is I8", "head.scale",
            "head.scale", "missing", "missing"};
        check_changes(&m, changes, messages, sizeof changes / sizeof *changes);
        model_free(&m);
    }
}

/* ---- the seed of tests/fuzz/fuzz_model.c */

/* A fuzzer cannot keep a checksum right: in a seed its two keys have names that mean nothing. */
static void disarm(char *bytes, size_t size) {
    for (size_t i = 0; i + 13 < size; i++) {
        if (!memcmp(bytes + i, "tern.checksum", 13)) bytes[i] = 'T';
        if (!memcmp(bytes + i, "\"tern.crc32\"", 12)) bytes[i + 1] = 'T';
    }
}

static void check_seed(const char *name) {
    char path[400];
    snprintf(path, sizeof path, TERN_TEST_SEEDS "/model/%s", name);
    size_t size;
    char *bytes = file_text(path, &size);
    tern_safetensors *file;
    tern_model_file read;
    OK(tern_safetensors_open_memory(&file, bytes, size, name, TERN_ST_CHECKSUM_IF_PRESENT, &err));
    OK(tern_model_file_take(&read, &file, name, &err));
    tern_model_file_close(&read);
    free(bytes);
}

/* With TERN_WRITE_SEEDS=FOLDER this writes them; without, those of the tree must still be models. */
static void test_seeds(void **state) {
    (void)state;
    const char *folder = getenv("TERN_WRITE_SEEDS");
    static const char *const names[] = {"mlp", "gpt", "packed"};
    for (int i = 0; i < 3; i++) {
        if (folder) {
            model m = i == 2 ? packed_make(1) : model_make(i ? "charlm" : "mnist-mlp");
            char path[400];
            snprintf(path, sizeof path, "%s/%s", folder, names[i]);
            disarm(m.bytes, m.size);
            file_put(path, m.bytes, m.size);
            model_free(&m);
        } else {
            check_seed(names[i]);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_presets_as_json),  cmocka_unit_test(test_attributes_as_json),
        cmocka_unit_test(test_bad_graphs),       cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_changed_files),    cmocka_unit_test(test_changed_texts),
        cmocka_unit_test(test_not_a_model),      cmocka_unit_test(test_bad_class_name),
        cmocka_unit_test(test_packed),           cmocka_unit_test(test_seeds),
        cmocka_unit_test(test_older_checkpoint),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
