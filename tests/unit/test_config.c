/* Configurations: presets and their networks, settings by name, files. */
#include "model/configuration.h"
#include "model/networks.h"
#include "nn/nodes.h"
#include "tern/data.h"
#include "testing.h"

static tern_error err;

static tern_config *preset(const char *name) {
    tern_config *config = NULL;
    OK(tern_config_create(&config, name, &err));
    return config;
}

/* ---- presets and networks */

static tern_data_shape data_of(const tern_config *config) {
    char kind[32];
    OK(tern_config_get(config, "data", kind, sizeof kind, &err));
    if (!strcmp(kind, "text")) return (tern_data_shape){.vocabulary = 65};
    if (!strcmp(kind, "cifar-10")) return (tern_data_shape){32, 32, 3, 10, 0};
    return (tern_data_shape){28, 28, 1, 10, 0};
}

static size_t count_ops(const tern_graph *graph, const char *prefix) {
    size_t count = 0;
    tern_node_info info;
    for (size_t i = 0; i < tern_graph_nodes(graph); i++) {
        OK(tern_graph_node(&info, graph, i, &err));
        count += !strncmp(info.op, prefix, strlen(prefix));
    }
    return count;
}

static tern_graph *network(const char *name) {
    tern_config *config = preset(name);
    tern_data_shape data = data_of(config);
    tern_graph *graph = NULL;
    OK(tern_network_build(&graph, config, &data, &err));
    tern_node_info out;
    OK(tern_graph_node(&out, graph, tern_graph_nodes(graph) - 1, &err));
    assert_int_equal(out.shape.dim[out.shape.rank - 1], data.classes ? data.classes : data.vocabulary);
    assert_int_equal(out.shape.rank, data.classes ? 1 : 2);
    tern_config_free(&config);
    assert_null(config);
    return graph;
}

/* The twin is the same network but for its products. */
static void test_presets(void **state) {
    (void)state;
    const char *name;
    size_t i;
    for (i = 0; (name = tern_preset_name(i)) != NULL; i++) {
        char twin[64];
        snprintf(twin, sizeof twin, "%s-fp", name);
        assert_non_null(tern_preset_summary(i));
        tern_graph *ternary = network(name), *dense = network(twin);
        assert_int_equal(tern_graph_nodes(ternary), tern_graph_nodes(dense));
        assert_true(count_ops(ternary, "bit_") > 0);
        assert_int_equal(count_ops(dense, "bit_"), 0);
        for (size_t n = 0; n < ternary->nodes; n++) {
            assert_string_equal(ternary->node[n].name, dense->node[n].name);
            assert_int_equal(ternary->node[n].elements, dense->node[n].elements);
            assert_int_equal(ternary->node[n].params, dense->node[n].params);
        }
        tern_graph_free(&ternary);
        tern_graph_free(&dense);
    }
    assert_true(i >= 7);
    assert_null(tern_preset_summary(i));
}

static void assert_setting(const tern_config *config, const char *key, const char *wanted) {
    char value[512];
    OK(tern_config_get(config, key, value, sizeof value, &err));
    assert_string_equal(value, wanted);
}

/* Every setting of the twin of `name`, with one changed, is that of the preset `twin`, with it changed too. */
static void check_twin(const char *name, const char *twin) {
    tern_config *config = preset(name), *wanted = preset(twin), *got = NULL;
    OK(tern_config_set(config, "batch", "77", &err));
    OK(tern_config_set(wanted, "batch", "77", &err));
    OK(tern_config_twin(&got, config, &err));
    char value[512];
    for (size_t i = 1; tern_config_key(i); i++) { /* the first is the name */
        OK(tern_config_get(wanted, tern_config_key(i), value, sizeof value, &err));
        assert_setting(got, tern_config_key(i), value);
    }
    tern_config_free(&config);
    tern_config_free(&wanted);
    tern_config_free(&got);
}

static void test_twins(void **state) {
    (void)state;
    check_twin("charlm", "charlm-fp");
    for (size_t i = 0; tern_preset_name(i); i++) {
        char trit[64], twin[64];
        snprintf(trit, sizeof trit, "%s-trit", tern_preset_name(i));
        snprintf(twin, sizeof twin, "%s-fp", tern_preset_name(i));
        check_twin(trit, twin);
    }
    /* A rate in counts is none for floats. */
    tern_config *config = preset("charlm-trit"), *got = NULL;
    OK(tern_config_set(config, "lr", "1.5", &err));
    OK(tern_config_twin(&got, config, &err));
    assert_setting(got, "lr", "0.003");
    tern_config_free(&config);
    tern_config_free(&got);
}

static void test_preset_names(void **state) {
    (void)state;
    tern_config *config = (tern_config *)(uintptr_t)1;
    REFUSED(tern_config_create(&config, "mnist-mpl", &err), TERN_E_ARGUMENT, "did you mean 'mnist-mlp'");
    assert_null(config);
    REFUSED(tern_config_create(&config, "cifar10-fsat-fp", &err), TERN_E_ARGUMENT, "'cifar10-fast'");
    REFUSED(tern_config_create(&config, "", &err), TERN_E_ARGUMENT, "there is no preset ''");
    REFUSED(tern_config_create(&config, "-fp", &err), TERN_E_ARGUMENT, "there is no preset");
    REFUSED(tern_config_create(&config, "mnist-mlp-fp-fp", &err), TERN_E_ARGUMENT, "there is no preset");
    char longest[5000];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    REFUSED(tern_config_create(&config, longest, &err), TERN_E_ARGUMENT, "there is no preset 'xxx");
    REFUSED(tern_config_create(NULL, "charlm", &err), TERN_E_ARGUMENT, "out is NULL");
    REFUSED(tern_config_create(&config, NULL, &err), TERN_E_ARGUMENT, "preset is NULL");
    tern_config_free(NULL);
}

/* A network that its data cannot feed. */
static void test_networks_refused(void **state) {
    (void)state;
    tern_data_shape images = {28, 28, 1, 10, 0}, text = {.vocabulary = 65}, small = {2, 2, 1, 10, 0};
    tern_graph *graph = NULL;
    tern_config *cnn = preset("mnist-cnn"), *gpt = preset("charlm");
    REFUSED(tern_network_build(&graph, cnn, &text, &err), TERN_E_ARGUMENT, "model=gpt");
    REFUSED(tern_network_build(&graph, gpt, &images, &err), TERN_E_ARGUMENT, "needs a text");
    REFUSED(tern_network_build(&graph, cnn, &small, &err), TERN_E_ARGUMENT, "block2.pool");
    assert_null(graph);
    OK(tern_config_set(gpt, "heads", "7", &err));
    REFUSED(tern_network_build(&graph, gpt, &text, &err), TERN_E_ARGUMENT, "block1.attention");
    OK(tern_config_set(cnn, "depth", "512", &err));
    REFUSED(tern_network_build(&graph, cnn, &images, &err), TERN_E_ARGUMENT, "does not fit");
    assert_null(graph);
    OK(tern_config_set(gpt, "heads", "4", &err));
    OK(tern_config_set(gpt, "depth", "512", &err)); /* more nodes than a graph has */
    REFUSED(tern_network_build(&graph, gpt, &text, &err), TERN_E_SIZE, "4096 nodes");
    assert_null(graph);
    tern_config_free(&cnn);
    tern_config_free(&gpt);
}

/* ---- settings */

static void get(char *value, size_t bytes, const tern_config *config, const char *key) {
    OK(tern_config_get(config, key, value, bytes, &err));
}

/* What get says, set takes, and nothing changes: to the last digit, since a checkpoint carries it as text. */
static void test_round_trip(void **state) {
    (void)state;
    const char *name, *key;
    for (size_t p = 0; (name = tern_preset_name(p)) != NULL; p++) {
        tern_config *config = preset(name), *copy = preset(tern_preset_name(p ? 0 : 1));
        OK(tern_config_set(config, "path", "a folder/with spaces = and \"quotes\"", &err));
        for (size_t i = 0; (key = tern_config_key(i)) != NULL; i++) {
            char value[512], again[512];
            assert_non_null(tern_config_help(i));
            get(value, sizeof value, config, key);
            if (!strcmp(key, "preset")) {
                assert_string_equal(value, name);
                REFUSED(tern_config_set(copy, key, value, &err), TERN_E_ARGUMENT, "chosen first");
                memcpy(copy->preset, config->preset, sizeof copy->preset);
                continue;
            }
            OK(tern_config_set(copy, key, value, &err));
            get(again, sizeof again, copy, key);
            assert_string_equal(value, again);
        }
        assert_memory_equal(config, copy, sizeof *config);
        tern_config_free(&config);
        OK(tern_config_clone(&config, copy, &err));
        assert_memory_equal(config, copy, sizeof *config);
        tern_config_free(&config);
        tern_config_free(&copy);
    }
    assert_null(tern_config_key(1000));
    assert_null(tern_config_help(1000));
}

static void test_reals_keep_their_digits(void **state) {
    (void)state;
    static const char *const reals[] = {"0.1",   "0.002", "0.33333333333333331",    "0.12345678901234567",
                                        "1e-05", "0",     "2.2250738585072014e-308"};
    tern_config *config = preset("mnist-mlp");
    for (size_t i = 0; i < sizeof reals / sizeof *reals; i++) {
        char value[64];
        OK(tern_config_set(config, "lr", reals[i], &err));
        double kept = config->lr;
        get(value, sizeof value, config, "lr");
        OK(tern_config_set(config, "lr", value, &err));
        if (memcmp(&kept, &config->lr, sizeof kept)) fail_msg("%s came back as %s", reals[i], value);
        if (i == 0 || i == 1) assert_string_equal(value, reals[i]); /* and is no longer than need be */
    }
    tern_config_free(&config);
}

static void test_bad_settings(void **state) {
    (void)state;
    static const char *const bad[][3] = {
        {"widht", "3", "did you mean 'width'"},
        {"learning_rate_of_it_all", "3", "there is no setting"},
        {"", "3", "there is no setting"},
        {"width", "0", "from 1 to 65536"},
        {"width", "65537", "from 1 to 65536"},
        {"width", "3.5", "a whole number"},
        {"width", "", "a whole number"},
        {"width", "12x", "a whole number"},
        {"width", "nan", "a whole number"},
        {"seed", "-1", "a whole number"},
        {"seed", "1e300", "a whole number"},
        {"lr", "inf", "a number"},
        {"lr", "-0.1", "a number"},
        {"lr", "1e999", "a number"},
        {"dropout", "0.96", "0.95"},
        {"dropout", "fast", "a number"},
        {"schedule", "cosin", "did you mean"},
        {"schedule", "", "one of"},
        {"schedule", "cosine|linear", "one of"},
        {"optimizer", "Muon", "did you mean 'muon'"},
        {"rule", "bitnet", "absmean|absmedian|twn"},
    };
    tern_config *config = preset("mnist-mlp"), *before = NULL;
    OK(tern_config_clone(&before, config, &err));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        REFUSED(tern_config_set(config, bad[i][0], bad[i][1], &err), TERN_E_ARGUMENT, bad[i][2]);
    char longest[500];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    REFUSED(tern_config_set(config, "path", longest, &err), TERN_E_ARGUMENT, "more than 399 bytes");
    REFUSED(tern_config_set(config, longest, "1", &err), TERN_E_ARGUMENT, "there is no setting");
    REFUSED(tern_config_set(config, "data", longest, &err), TERN_E_ARGUMENT, "it takes one of");
    REFUSED(tern_config_set(NULL, "lr", "1", &err), TERN_E_ARGUMENT, "config is NULL");
    REFUSED(tern_config_set(config, NULL, "1", &err), TERN_E_ARGUMENT, "key is NULL");
    REFUSED(tern_config_set(config, "lr", NULL, &err), TERN_E_ARGUMENT, "value is NULL");
    char value[8];
    REFUSED(tern_config_get(config, "lrr", value, sizeof value, &err), TERN_E_ARGUMENT, "did you mean 'lr'");
    REFUSED(tern_config_get(config, "lr", value, 0, &err), TERN_E_ARGUMENT, "NULL");
    assert_memory_equal(config, before, sizeof *config); /* a refusal changes nothing */
    tern_config_free(&config);
    tern_config_free(&before);
}

/* Choices are stored as the numbers of the enumerations that read them. */
static void test_choices(void **state) {
    (void)state;
    tern_config *config = preset("mnist-mlp");
    for (int kind = 0; kind < TERN_DATA_KIND_COUNT; kind++) {
        OK(tern_config_set(config, "data", tern_data_kind_name((tern_data_kind)kind), &err));
        assert_int_equal(config->data, kind);
    }
    OK(tern_config_set(config, "schedule", "bitnet", &err));
    assert_int_equal(config->schedule, TERN_BITNET);
    OK(tern_config_set(config, "model", "gpt", &err));
    assert_int_equal(config->model, TERN_MODEL_GPT);
    OK(tern_config_set(config, "rule", "twn", &err));
    assert_int_equal(config->rule + 1, TERN_RULE_TWN);
    OK(tern_config_set(config, "granularity", "row", &err));
    assert_int_equal(config->granularity, TERN_PER_ROW);
    tern_config_free(&config);
}

/* ---- files */

typedef struct file_case {
    const char *text;
    tern_status status;
    const char *message;
} file_case;

static void test_files(void **state) {
    (void)state;
    static const file_case cases[] = {
        {"{\"preset\": \"mnist-mlp\", \"widht\": 3}", TERN_E_ARGUMENT, "did you mean 'width'"},
        {"{\"preset\": \"mnist-mlp\", \"width\": \"wide\"}", TERN_E_ARGUMENT, "width=wide"},
        {"{\"preset\": \"mnist-mlp\", \"width\": 1.5}", TERN_E_ARGUMENT, "whole number"},
        {"{\"preset\": \"mnist-mlp\", \"width\": true}", TERN_E_DATA, "width is neither a number nor a text"},
        {"{\"preset\": \"mnist-mlp\", \"width\": [3]}", TERN_E_DATA, "width is neither"},
        {"{\"preset\": \"mnist-mlp\", \"width\": null}", TERN_E_DATA, "width is neither"},
        {"{\"preset\": \"mnist-mlp\", \"width\": 3, \"width\": 4}", TERN_E_DATA, "duplicate"},
        {"{\"preset\": \"mnist-mpl\"}", TERN_E_ARGUMENT, "did you mean 'mnist-mlp'"},
        {"{\"preset\": 3}", TERN_E_DATA, "no \"preset\""},
        {"{\"width\": 3}", TERN_E_DATA, "no \"preset\""},
        {"{}", TERN_E_DATA, "no \"preset\""},
        {"[\"preset\"]", TERN_E_DATA, "no \"preset\""},
        {"", TERN_E_DATA, "config.json:1:"},
        {"{\"preset\": \"mnist-mlp\",\n \"width\": 3,\n \"depth\" 4}", TERN_E_DATA, "config.json:3:"},
        {"{\"preset\": \"mnist-mlp\"} and more", TERN_E_DATA, "config.json:1:"},
    };
    temporary_folder folder;
    folder_create(&folder);
    const char *path = folder_file(&folder, "config.json");
    tern_config *config = NULL;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        file_put(path, cases[i].text, strlen(cases[i].text));
        config = (tern_config *)(uintptr_t)1;
        REFUSED(tern_config_read(&config, path, &err), cases[i].status, cases[i].message);
        assert_null(config);
        if (!strstr(err.message, "config.json")) fail_msg("'%s' does not name its file", err.message);
    }
    /* The preset counts wherever it stands. */
    const char good[] =
        "{\"width\": 96, \"lr\": 0.1, \"optimizer\": \"sgd\", \"path\": \"\", \"preset\": \"charlm-fp\","
        " \"seed\": 9000000000000000}";
    file_put(path, good, strlen(good));
    OK(tern_config_read(&config, path, &err));
    assert_string_equal(config->preset, "charlm-fp");
    assert_int_equal(config->width, 96);
    assert_true(config->lr == 0.1 && config->seed == 9000000000000000);
    assert_int_equal(config->weights, 0);
    assert_int_equal(config->optimizer, 0);
    tern_config_free(&config);
    REFUSED(tern_config_read(&config, folder_file(&folder, "missing.json"), &err), TERN_E_FILE, "missing.json");
    assert_int_not_equal(tern_config_read(&config, folder.path, &err), TERN_OK);
    REFUSED(tern_config_read(&config, NULL, &err), TERN_E_ARGUMENT, "path is NULL");
    folder_remove(&folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_presets),      cmocka_unit_test(test_twins),
        cmocka_unit_test(test_preset_names), cmocka_unit_test(test_networks_refused),
        cmocka_unit_test(test_round_trip),   cmocka_unit_test(test_reals_keep_their_digits),
        cmocka_unit_test(test_bad_settings), cmocka_unit_test(test_choices),
        cmocka_unit_test(test_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
