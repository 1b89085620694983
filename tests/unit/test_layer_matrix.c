/* One layer taken out of a model computes what the model computes, to the bit: trained or deployed, in both
 * packings. */
#include "tern/graph.h"
#include "tern/model.h"
#include "testing.h"

static tern_error err;

enum { BATCH = 3, INPUTS = 37, OUTPUTS = 21, LAYER = 2 };

static tern_model *make_model(int granularity) {
    tern_graph *graph;
    tern_model *model = NULL;
    OK(tern_graph_create(&graph, &err));
    tern_value x = tern_graph_input(graph, (tern_shape){3, {INPUTS, 1, 1}});
    x = tern_graph_add(graph, "flatten", "flat", x, NULL);
    tern_graph_add(graph, "bit_linear", "layer", x, &(tern_attrs){.outputs = OUTPUTS, .granularity = granularity});
    OK(tern_model_create(&model, graph, 5, &(tern_model_options){.batch = BATCH}, &err));
    return model;
}

static void compare(tern_model *model, tern_packing packing) {
    float x[BATCH * INPUTS], y[BATCH * OUTPUTS], expected[BATCH * OUTPUTS];
    for (int i = 0; i < BATCH * INPUTS; i++) x[i] = (float)((i * 37) % 101) / 50 - 1;
    OK(tern_model_run(expected, model, x, BATCH, &err));
    tern_matrix *matrix = NULL;
    OK(tern_model_layer_matrix(&matrix, model, LAYER, packing, &err));
    OK(tern_matmul_quantized(y, matrix, x, NULL, BATCH, NULL, &err));
    assert_memory_equal(y, expected, sizeof y);
    tern_matrix_free(&matrix);
}

static void test_layers(void **state) {
    (void)state;
    for (int granularity = TERN_PER_TENSOR; granularity <= TERN_PER_ROW; granularity++) {
        tern_model *trained = make_model(granularity), *deployed = NULL;
        char path[] = "/tmp/tern-test-layer-XXXXXX";
        assert_true(mkstemp(path) >= 0);
        OK(tern_model_export(trained, path, &(tern_export_options){.packing = TERN_PACK_T5}, &err));
        OK(tern_model_open(&deployed, path, &(tern_model_options){.batch = BATCH}, &err));
        remove(path);
        for (int packing = TERN_PACK_T2; packing < TERN_PACK_COUNT; packing++) {
            compare(trained, (tern_packing)packing);
            compare(deployed, (tern_packing)packing);
        }
        tern_model_close(&deployed);
        tern_model_close(&trained);
    }
}

static void test_refused(void **state) {
    (void)state;
    tern_model *model = make_model(TERN_PER_TENSOR);
    tern_matrix *matrix = NULL;
    assert_int_equal(tern_model_layer_matrix(&matrix, model, 1, TERN_PACK_T2, &err), TERN_E_ARGUMENT);
    assert_int_equal(tern_model_layer_matrix(&matrix, model, 99, TERN_PACK_T2, &err), TERN_E_ARGUMENT);
    assert_int_equal(tern_model_layer_matrix(NULL, model, LAYER, TERN_PACK_T2, &err), TERN_E_ARGUMENT);
    assert_int_equal(tern_model_layer_matrix(&matrix, NULL, LAYER, TERN_PACK_T2, &err), TERN_E_ARGUMENT);
    assert_null(matrix);
    tern_model_close(&model);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_layers), cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
