/* Models on GPUs, as far as that takes none: what is refused, and what a model on the CPU says. */
#include <stdlib.h>
#include <string.h>

#include "tern/tern.h"
#include "testing.h"

static tern_error err;

static tern_graph *one_layer(void) {
    tern_graph *g;
    OK(tern_graph_create(&g, &err));
    tern_value x = tern_graph_input(g, (tern_shape){3, {20, 1, 1}});
    x = tern_graph_add(g, "flatten", "flatten", x, NULL);
    tern_graph_add(g, "bit_linear", "layer", x, &(tern_attrs){.outputs = 5});
    return g;
}

static void test_cpu(void **state) {
    (void)state;
    tern_model *model;
    tern_model_info info;
    double seconds;
    const float x[20] = {1, 2, 3};
    OK(tern_model_create(&model, one_layer(), 1, &(tern_model_options){.device = "cpu"}, &err));
    OK(tern_model_describe(&info, model, &err));
    assert_int_equal(info.device, TERN_DEVICE_CPU);
    assert_int_equal(info.device_bytes, 0);
    assert_int_equal(tern_model_time(&seconds, model, x, 1, 0.1, 0, &err), TERN_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "tern_model_run"));
    assert_int_equal(tern_model_time(NULL, model, x, 1, 0.1, 0, &err), TERN_E_ARGUMENT);
    assert_int_equal(tern_model_time(&seconds, model, x, 0, 0.1, 0, &err), TERN_E_ARGUMENT);
    assert_int_equal(tern_model_time(&seconds, model, x, 2, 0.1, 0, &err), TERN_E_ARGUMENT);
    tern_model_close(&model);
}

/* Here or elsewhere: no machine has a thousand. */
static void test_no_such_device(void **state) {
    (void)state;
    tern_model *model;
    int device = 7;
    const tern_model_options far = {.device = "cuda:1023"}, unknown = {.device = "gpu"};
    assert_int_equal(tern_model_create(&model, one_layer(), 1, &far, &err), TERN_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "no GPU"));
    assert_null(model);
    assert_int_equal(tern_model_create(&model, one_layer(), 1, &unknown, &err), TERN_E_ARGUMENT);
    assert_non_null(strstr(err.message, "device gpu is unknown; valid: auto, cpu, cuda, cuda:N"));
    assert_null(model);
    assert_int_equal(tern_device_find(&device, "cuda:1023", &err), TERN_E_UNSUPPORTED);
    assert_int_equal(tern_device_find(NULL, "cpu", &err), TERN_E_ARGUMENT);
    OK(tern_device_find(&device, "cpu", &err));
    assert_int_equal(device, TERN_DEVICE_CPU);
    assert_int_equal(setenv("TERN_DEVICE", "cuda:1023", 1), 0);
    assert_int_equal(tern_device_find(&device, NULL, &err), TERN_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "no GPU"));
    /* A model takes no GPU that it was not told to take. */
    OK(tern_model_create(&model, one_layer(), 1, NULL, &err));
    tern_model_close(&model);
    unsetenv("TERN_DEVICE");
}

/* A kernel of a GPU that TERN_KERNEL names: not without a GPU, whatever the model computes with. */
static void test_pinned_kernel(void **state) {
    (void)state;
    tern_model *model = NULL;
    int count;
    if (!tern_device_count(&count, &err)) skip();
    assert_int_equal(setenv("TERN_KERNEL", "cuda-plain", 1), 0);
    for (int i = 0; i < 3; i++) {
        const tern_model_options options = {.device = (const char *[]){NULL, "cpu", "auto"}[i]};
        assert_int_equal(tern_model_create(&model, one_layer(), 1, &options, &err), TERN_E_UNSUPPORTED);
        assert_non_null(strstr(err.message, "TERN_KERNEL=cuda-plain"));
        assert_null(model);
    }
    unsetenv("TERN_KERNEL");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cpu), cmocka_unit_test(test_no_such_device),
                                       cmocka_unit_test(test_pinned_kernel)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
