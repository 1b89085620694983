/* A GPU on a machine without a cuBLASLt that can be used: what needs none runs there, what needs it is refused by name,
 * and a run that took the GPU by itself trains on the CPU and says why. It wants empty_cublaslt.c's library found first
 * (ctest and scripts/gpu_tests.sh put its folder in front), and fails where cuBLASLt is there.
 *
 *   fallback_test          one line a check; ends with the number of failures */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tern/tern.h"

enum { SKIPPED = 77, INPUTS = 48, OUTPUTS = 10, SAMPLES = 3 };

static int failures;

static void check(int fine, const char *what, const char *seen) {
    printf("%s  %s%s%s\n", fine ? "ok    " : "FAILED", what, *seen ? ": " : "", seen);
    failures += !fine;
}

/* One layer of that operation behind an input. */
static tern_status open_layer(tern_model **model, const char *operation, const char *device, tern_error *err) {
    tern_graph *g;
    const tern_status status = tern_graph_create(&g, err);
    if (status) return status;
    tern_value x = tern_graph_input(g, (tern_shape){3, {INPUTS, 1, 1}});
    x = tern_graph_add(g, "flatten", "flatten", x, NULL);
    tern_graph_add(g, operation, "layer", x, &(tern_attrs){.outputs = OUTPUTS});
    return tern_model_create(model, g, 1, &(tern_model_options){.batch = SAMPLES, .device = device}, err);
}

/* fp32 values: the GPU's outputs are the CPU's to the bit, but for the weights' scale. */
static void test_ternary_layer(void) {
    static const char *const devices[] = {"cpu", "cuda"};
    float x[SAMPLES * INPUTS], y[2][SAMPLES * OUTPUTS];
    double worst = 0;
    tern_error err;
    for (int i = 0; i < SAMPLES * INPUTS; i++) x[i] = sinf((float)i);
    for (int d = 0; d < 2; d++) {
        tern_model *model;
        if (open_layer(&model, "bit_linear", devices[d], &err) || tern_model_run(y[d], model, x, SAMPLES, &err)) {
            check(0, "a ternary layer needs no cuBLASLt", err.message);
            return;
        }
        tern_model_close(&model);
    }
    for (int i = 0; i < SAMPLES * OUTPUTS; i++) worst = fmax(worst, fabs((double)y[1][i] - (double)y[0][i]));
    check(worst <= 1e-6, "a ternary layer needs no cuBLASLt", "");
}

static void test_float_layer(void) {
    tern_model *model = NULL;
    tern_error err = {0};
    const tern_status status = open_layer(&model, "linear", "cuda", &err);
    check(status == TERN_E_UNSUPPORTED && strstr(err.message, "cuBLASLt"), "a float layer on a GPU asks for cuBLASLt",
          err.message);
    tern_model_close(&model);
}

/* ---- training */

typedef struct heard {
    char note[400];
} heard;

static int listen(void *context, const tern_progress *progress) {
    heard *h = context;
    if (progress->event == TERN_EVENT_NOTE) snprintf(h->note, sizeof h->note, "%s", progress->note);
    return 0;
}

static void write_text(const char *path) {
    FILE *f = fopen(path, "w");
    if (!f) exit(1);
    for (int i = 0; i < 400; i++) fprintf(f, "%d bottles of beer on the wall.\n", i * i % 99);
    if (fclose(f)) exit(1);
}

static tern_status make_config(tern_config **config, const char *text, tern_error *err) {
    static const char *const small[][2] = {{"width", "32"}, {"depth", "1"}, {"heads", "2"}, {"context", "16"},
                                           {"batch", "2"},  {"steps", "3"}, {"warmup", "0"}};
    tern_status status = tern_config_create(config, "charlm", err);
    if (!status) status = tern_config_set(*config, "path", text, err);
    for (size_t i = 0; !status && i < sizeof small / sizeof *small; i++)
        status = tern_config_set(*config, small[i][0], small[i][1], err);
    return status;
}

/* device NULL: the GPU that Tern takes by itself. */
static tern_status train(heard *h, const char *device, const char *folder, tern_train_result *result,
                         tern_error *err) {
    char text[200];
    tern_config *config = NULL;
    snprintf(text, sizeof text, "%s/text.txt", folder);
    write_text(text);
    tern_status status = make_config(&config, text, err);
    const tern_train_options options = {.out = folder, .device = device, .progress = listen, .context = h};
    if (!status) status = tern_train(result, config, &options, err);
    tern_config_free(&config);
    return status;
}

static void remove_all(const char *folder) {
    static const char *const names[] = {"text.txt", "checkpoint.safetensors", "metrics.jsonl", "report.html"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[200];
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        remove(path);
    }
    remove(folder);
}

/* A kernel that TERN_KERNEL names asks for the GPU as "cuda" does. */
static void test_training(const char *folder) {
    tern_train_result result = {0};
    tern_error err = {0};
    heard h = {""};
    tern_status status = train(&h, NULL, folder, &result, &err);
    check(!status && result.finished && !result.device_bytes && strstr(h.note, "training on the CPU") &&
              strstr(h.note, "cuBLASLt"),
          "a GPU that cannot train gives way to the CPU", status ? err.message : h.note);
    status = train(&h, "cuda", folder, &result, &err);
    check(status == TERN_E_UNSUPPORTED && strstr(err.message, "cuBLASLt"), "one that was asked for does not",
          err.message);
    setenv("TERN_KERNEL", "cuda-plain", 1);
    status = train(&h, NULL, folder, &result, &err);
    unsetenv("TERN_KERNEL");
    check(status == TERN_E_UNSUPPORTED && strstr(err.message, "cuBLASLt"), "nor one whose kernel is pinned",
          err.message);
}

int main(void) {
    char folder[] = "/tmp/tern-fallback-XXXXXX";
    tern_error err;
    int count;
    unsetenv("TERN_DEVICE");
    unsetenv("TERN_KERNEL");
    if (tern_device_count(&count, &err)) {
        printf("skipped: %s\n", err.message);
        return SKIPPED;
    }
    if (!mkdtemp(folder)) return 1;
    test_ternary_layer();
    test_float_layer();
    test_training(folder);
    remove_all(folder);
    printf("%d failed\n", failures);
    return failures != 0;
}
