/* A real model that others trained, expressed as a graph and run packed: its logits agree with those of a float
 * forward pass of its authors' network, sample by sample. Skipped where the shared data is not. */
#include "tern/data.h"
#include "tern/model.h"
#include "testing.h"

static const char folder[] = "../shared/data/models/bitnetcnn/";
static tern_error err;

enum { BATCH = 50, CLASSES = 10 };

/* Where the tests run depends on the build's folder: a few levels up are tried. */
static int find_file(char *out, size_t bytes, const char *name) {
    const char *up = "";
    char prefix[64] = "";
    for (int level = 0; level < 5; level++) {
        snprintf(out, bytes, "%s%s%s%s", prefix, up, folder, name);
        FILE *f = fopen(out, "rb");
        if (f) {
            fclose(f);
            return 1;
        }
        strcat(prefix, "../");
    }
    return 0;
}

static void compare_logits(tern_model *model, const tern_dataset *test, FILE *expected, size_t samples) {
    const uint8_t *pixels = tern_dataset_images(test), *labels = tern_dataset_labels(test);
    static float x[BATCH * 784], y[BATCH * CLASSES], wanted[BATCH * CLASSES];
    size_t right = 0;
    for (size_t first = 0; first < samples; first += BATCH) {
        OK(tern_model_normalise(x, model, pixels + first * 784, BATCH, &err));
        OK(tern_model_run(y, model, x, BATCH, &err));
        assert_int_equal(fread(wanted, sizeof *wanted, BATCH * CLASSES, expected), BATCH * CLASSES);
        for (size_t i = 0; i < BATCH; i++) {
            size_t best = 0, best_wanted = 0;
            for (size_t c = 0; c < CLASSES; c++) {
                float a = y[i * CLASSES + c], b = wanted[i * CLASSES + c];
                if (!(fabsf(a - b) <= 1e-3f * (1 + fabsf(b))))
                    fail_msg("sample %zu, class %zu: %g instead of %g", first + i, c, (double)a, (double)b);
                if (a > y[i * CLASSES + best]) best = c;
                if (b > wanted[i * CLASSES + best_wanted]) best_wanted = c;
            }
            assert_int_equal(best, best_wanted);
            right += best == labels[first + i];
        }
    }
    if (samples == 10000) assert_int_equal(right, 9906);
}

static void check_packing(tern_packing packing, size_t samples) {
    char source[512], logits[512], out[] = "/tmp/tern-test-import-XXXXXX";
    if (!find_file(source, sizeof source, "bit_netcnn_small_mnist_ternary.safetensors") ||
        !find_file(logits, sizeof logits, "bit_netcnn_small_mnist_ternary.t10k-logits.f32")) {
        print_message("skipped: %s is not there\n", folder);
        skip();
    }
    tern_dataset *test = NULL;
    char data[512];
    snprintf(data, sizeof data, "%.*s../../mnist", (int)(strrchr(source, '/') - source + 1), source);
    OK(tern_dataset_open(&test, &(tern_dataset_desc){.kind = TERN_DATA_MNIST, .split = TERN_SPLIT_TEST, .path = data},
                         &err));
    int file = mkstemp(out);
    assert_true(file >= 0);
    OK(tern_model_import(source, out, packing, &err));
    tern_model *model = NULL;
    OK(tern_model_open(&model, out, &(tern_model_options){.batch = BATCH}, &err));
    remove(out);
    FILE *expected = fopen(logits, "rb");
    assert_non_null(expected);
    compare_logits(model, test, expected, samples);
    fclose(expected);
    tern_model_close(&model);
    tern_dataset_close(&test);
}

static void test_t2(void **state) {
    (void)state;
    const char *whole = getenv("TERN_TEST_WHOLE"); /* all 10000, as the README says: half a minute */
    check_packing(TERN_PACK_T2, whole && *whole ? 10000 : 1000);
}

static void test_t5(void **state) {
    (void)state;
    check_packing(TERN_PACK_T5, 100);
}

static void test_not_a_model(void **state) {
    (void)state;
    assert_int_equal(tern_model_import("/nonexistent", "/tmp/x.tern", TERN_PACK_T2, &err), TERN_E_FILE);
    assert_int_equal(tern_model_import(NULL, "/tmp/x.tern", TERN_PACK_T2, &err), TERN_E_ARGUMENT);
    assert_int_equal(tern_model_import("/nonexistent", "/tmp/x.tern", TERN_PACK_T5_FLAT, &err), TERN_E_ARGUMENT);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_t2), cmocka_unit_test(test_t5),
                                       cmocka_unit_test(test_not_a_model)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
