/* Float-free graphs, deployed: groups, rows and tensors, tables and shared layers compute what they did in training,
 * to the bit in both packings; left out of the packing they still do; and the float twin and the
 * matrix of one layer have the same weights. */
#include "tern/data.h"
#include "tern/model.h"
#include "testing.h"

static tern_error err;
enum { BATCH = 4 };

typedef struct scales {
    int update, granularity;
    size_t group;
} scales;

static tern_graph *image_graph(scales s) {
    tern_graph *g;
    OK(tern_graph_create(&g, &err));
    tern_attrs conv = {.outputs = 12, .kernel = 3, .padding = 1, .bias = 1}, fc = {.outputs = 24, .bias = 1};
    conv.update = fc.update = s.update;
    conv.granularity = fc.granularity = s.granularity;
    conv.group = fc.group = s.group;
    tern_value x = tern_graph_input(g, (tern_shape){3, {8, 7, 4}});
    x = tern_graph_add(g, "trit_conv2d", "conv", x, &conv);
    x = tern_graph_add(g, "batch_norm", "norm", x, &(tern_attrs){.integers = 1});
    x = tern_graph_add(g, "relu", "relu", x, NULL);
    conv.groups = 2;
    x = tern_graph_add(g, "trit_conv2d", "grouped", x, &conv);
    x = tern_graph_add(g, "avg_pool", "pool", x, &(tern_attrs){.kernel = 3});
    x = tern_graph_add(g, "flatten", "flat", x, NULL);
    x = tern_graph_add(g, "trit_linear", "fc", x, &fc);
    x = tern_graph_add(g, "trit_rmsnorm", "gains", x, NULL);
    x = tern_graph_add(g, "trit_linear", "same1", x, &fc);
    fc.same_as = (size_t)x;
    x = tern_graph_add(g, "dropout", "drop", x, &(tern_attrs){.rate = 0.5f});
    x = tern_graph_add(g, "trit_linear", "same2", x, &fc);
    tern_graph_add(g, "linear", "head", x, &(tern_attrs){.outputs = 10, .integers = 1, .bias = 1});
    return g;
}

static tern_graph *text_graph(scales s) {
    tern_graph *g;
    OK(tern_graph_create(&g, &err));
    tern_attrs at = {.update = s.update, .granularity = s.granularity, .group = s.group};
    tern_value x = tern_graph_input_tokens(g, 9, 17);
    at.width = 36;
    at.init_gain = 0.5f;
    x = tern_graph_add(g, "trit_embedding", "table", x, &at);
    at.width = 0;
    at.outputs = 36;
    x = tern_graph_add(g, "trit_rmsnorm", "norm", x, NULL);
    x = tern_graph_add(g, "trit_linear", "up", x, &at);
    at.outputs = 17;
    tern_graph_add(g, "trit_linear", "head", x, &at);
    return g;
}

static tern_model *make(tern_graph *graph) {
    tern_model *model = NULL;
    OK(tern_model_create(&model, graph, 5, &(tern_model_options){.batch = BATCH, .threads = 2}, &err));
    return model;
}

static tern_model *deploy(const tern_model *trained, const tern_export_options *options) {
    tern_model *deployed = NULL;
    char path[] = "/tmp/tern-test-trit-XXXXXX";
    assert_true(mkstemp(path) >= 0);
    OK(tern_model_export(trained, path, options, &err));
    OK(tern_model_open(&deployed, path, &(tern_model_options){.batch = BATCH, .threads = 2}, &err));
    remove(path);
    return deployed;
}

/* Outputs on inputs that are the same for all models of a graph; to be freed. */
static float *run(tern_model *model, int text) {
    union {
        float x[BATCH * 8 * 7 * 4];
        int32_t token[BATCH * 9];
    } in;
    for (int i = 0; i < BATCH * 8 * 7 * 4 && !text; i++) in.x[i] = (float)((i * 37) % 101) / 50 - 1;
    for (int i = 0; i < BATCH * 9 && text; i++) in.token[i] = (i * 5) % 17;
    float *y = malloc(BATCH * tern_model_outputs(model) * sizeof *y);
    assert_non_null(y);
    OK(tern_model_run(y, model, &in, BATCH, &err));
    return y;
}

static void compare(tern_model *trained, tern_model *other, int text, float room, const char *what) {
    assert_int_equal(tern_model_outputs(trained), tern_model_outputs(other));
    float *want = run(trained, text), *got = run(other, text);
    double size = 0;
    for (size_t i = 0; i < BATCH * tern_model_outputs(trained); i++) {
        size += fabs((double)want[i]);
        if (!(fabsf(got[i] - want[i]) <= room))
            fail_msg("%s: output %zu is %a, was %a", what, i, (double)got[i], (double)want[i]);
    }
    assert_true(size > 0.1);
    free(want);
    free(got);
}

static int keep_products(void *context, const char *layer) {
    (void)context;
    return strcmp(layer, "table") != 0 && strcmp(layer, "conv") != 0;
}

static void check_graph(scales s, int text) {
    static const char *const of_images[] = {"same2", "same1"}, *const of_text[] = {"table", "head"};
    tern_model *trained = make(text ? text_graph(s) : image_graph(s));
    for (int packing = TERN_PACK_T2; packing <= TERN_PACK_T5; packing++) {
        tern_export_options options = {.packing = (tern_packing)packing};
        tern_model *deployed = deploy(trained, &options);
        compare(trained, deployed, text, 0, "deployed");
        tern_model_info info;
        OK(tern_model_describe(&info, deployed, &err));
        assert_true(info.packed);
        tern_model_close(&deployed);
        options.skip = text ? of_text : of_images;
        options.skip_count = 2;
        deployed = deploy(trained, &options);
        compare(trained, deployed, text, 0, "with two layers left out");
        tern_model_close(&deployed);
        options.skip_count = 1;
        deployed = deploy(trained, &options);
        compare(trained, deployed, text, 0, "with one layer left out");
        tern_model_close(&deployed);
        options =
            (tern_export_options){.packing = (tern_packing)packing, .keep = keep_products, .fold_batch_norm = 1};
        deployed = deploy(trained, &options);
        compare(trained, deployed, text, 0.3f, "folded, with most layers left out"); /* integers may differ by one */
        tern_model_close(&deployed);
    }
    tern_model_close(&trained);
}

static void test_deployed(void **state) {
    (void)state;
    for (int text = 0; text < 2; text++)
        for (int update = TERN_UPDATE_R1; update <= TERN_UPDATE_SEED_CORR; update++) {
            check_graph((scales){update, TERN_PER_TENSOR, 0}, text);
            check_graph((scales){update, TERN_PER_ROW, 0}, text);
            for (size_t group = 4; group <= 16 && update != TERN_UPDATE_SEED_CORR; group += group == 4 ? 2 : 10)
                check_graph((scales){update, TERN_PER_TENSOR, group}, text);
        }
}

/* Float activations. There is nothing for the twin to round otherwise: it computes the same. */
static void test_float_twin(void **state) {
    (void)state;
    static const scales all[] = {
        {TERN_UPDATE_R2, TERN_PER_ROW, 0}, {TERN_UPDATE_VOTE, 0, 8}, {TERN_UPDATE_SEED_CORR, 0, 0}};
    for (size_t i = 0; i < 3; i++) {
        tern_graph *g;
        OK(tern_graph_create(&g, &err));
        tern_attrs at = {
            .outputs = 14, .update = all[i].update, .granularity = all[i].granularity, .group = all[i].group};
        at.floats = at.bias = 1;
        tern_value x = tern_graph_input(g, (tern_shape){3, {8, 7, 4}});
        x = tern_graph_add(g, "flatten", "flat", x, NULL);
        x = tern_graph_add(g, "trit_linear", "first", x, &at);
        x = tern_graph_add(g, "trit_rmsnorm", "norm", x, NULL);
        at.slow_exponents = 1;
        x = tern_graph_add(g, "trit_linear", "second", x, &at);
        at.same_as = (size_t)x;
        tern_graph_add(g, "trit_linear", "third", x, &at);
        tern_model *trained = make(g), *twin = NULL;
        OK(tern_model_float_twin(&twin, trained, &(tern_model_options){.batch = BATCH}, &err));
        for (size_t n = 1; n < tern_graph_nodes(tern_model_graph(twin)); n++)
            assert_false(tern_model_layer_is_ternary(twin, n));
        compare(trained, twin, 0, 1e-4f, "twin");
        tern_model_close(&twin);
        twin = deploy(trained, &(tern_export_options){.packing = TERN_PACK_T2});
        compare(trained, twin, 0, 0, "deployed");
        tern_model_close(&twin);
        twin = deploy(trained, &(tern_export_options){.packing = TERN_PACK_T5});
        compare(trained, twin, 0, 1e-4f, "deployed"); /* float sums take the order of their packing's layout */
        tern_model_close(&twin);
        tern_model_close(&trained);
    }
    tern_model *trained = make(text_graph((scales){TERN_UPDATE_R1, 0, 6})), *twin = NULL;
    OK(tern_model_float_twin(&twin, trained, &(tern_model_options){.batch = BATCH}, &err));
    free(run(twin, 1));
    tern_model_close(&twin);
    tern_model_close(&trained);
}

/* A layer taken out computes what the model computes. */
static void test_layer_matrix(void **state) {
    (void)state;
    static const scales all[] = {{TERN_UPDATE_R1, 0, 0},
                                 {TERN_UPDATE_R2, TERN_PER_ROW, 0},
                                 {TERN_UPDATE_VOTE, 0, 16},
                                 {TERN_UPDATE_SEED_CORR, TERN_PER_ROW, 0}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        tern_graph *g;
        OK(tern_graph_create(&g, &err));
        tern_value x = tern_graph_input(g, (tern_shape){3, {8, 7, 4}});
        x = tern_graph_add(g, "flatten", "flat", x, NULL);
        x = tern_graph_add(
            g, "trit_linear", "layer", x,
            &(tern_attrs){
                .outputs = 21, .update = all[i].update, .granularity = all[i].granularity, .group = all[i].group});
        tern_model *models[2] = {make(g)};
        models[1] = deploy(models[0], &(tern_export_options){.packing = TERN_PACK_T5});
        for (int m = 0; m < 2; m++)
            for (int packing = TERN_PACK_T2; packing < TERN_PACK_COUNT; packing++) {
                float in[BATCH * 8 * 7 * 4], y[BATCH * 21], *want = run(models[m], 0);
                for (int k = 0; k < BATCH * 8 * 7 * 4; k++) in[k] = (float)((k * 37) % 101) / 50 - 1;
                tern_matrix *matrix = NULL;
                OK(tern_model_layer_matrix(&matrix, models[m], (size_t)x, (tern_packing)packing, &err));
                OK(tern_matmul_quantized(y, matrix, in, NULL, BATCH, NULL, &err));
                assert_memory_equal(y, want, sizeof y);
                tern_matrix_free(&matrix);
                free(want);
            }
        tern_model_close(&models[0]);
        tern_model_close(&models[1]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_deployed),
        cmocka_unit_test(test_float_twin),
        cmocka_unit_test(test_layer_matrix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
