/* A float-free training run keeps whole numbers alone: no tensor of its checkpoint is a float, and a run whose floats
 * are all lost between every two steps ends with the same bits as one that never stopped. On images and a text that
 * are made here. */
#include "base/random.h"
#include "io/safetensors.h"
#include "model/configuration.h"
#include "nn/op.h"
#include "nn/ternary_weights.h"
#include "nn/trit_weights.h"
#include "testing.h"
#include "train/trainer.h"

static tern_error err;
static temporary_folder folder;

/* ---- data */

enum { IMAGES = 96, SIDE = 28 };

static void write_idx(const char *images, const char *labels, uint64_t key) {
    enum { HEAD = 16, BYTES = HEAD + IMAGES * SIDE * SIDE };
    static uint8_t pixels[BYTES], digits[8 + IMAGES];
    memcpy(pixels, (uint8_t[HEAD]){0, 0, 8, 3, 0, 0, 0, IMAGES, 0, 0, 0, SIDE, 0, 0, 0, SIDE}, HEAD);
    memcpy(digits, (uint8_t[8]){0, 0, 8, 1, 0, 0, 0, IMAGES}, 8);
    for (size_t i = 0; i < IMAGES; i++) {
        digits[8 + i] = (uint8_t)(i % 10);
        for (size_t p = 0; p < SIDE * SIDE; p++) /* rows that a digit alone has, in noise */
            pixels[HEAD + i * SIDE * SIDE + p] =
                (uint8_t)(tern_random_u32(key, i * SIDE * SIDE + p) % 100 + (p / SIDE / 2 == i % 10 ? 150 : 0));
    }
    folder_put(&folder, images, pixels, BYTES);
    folder_put(&folder, labels, digits, sizeof digits);
}

static int make_data(void **state) {
    (void)state;
    static char text[6000];
    folder_create(&folder);
    write_idx("train-images-idx3-ubyte", "train-labels-idx1-ubyte", 1);
    write_idx("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte", 2);
    for (size_t i = 0; i < sizeof text; i++) text[i] = "the quick brown fox "[tern_random_u32(3, i) % 20];
    folder_put(&folder, "text.txt", text, sizeof text);
    return 0;
}

static int remove_data(void **state) {
    (void)state;
    folder_remove(&folder);
    return 0;
}

/* ---- runs */

typedef struct run_case {
    const char *preset, *settings; /* "key=value key=value ..." */
} run_case;

static tern_config *config_of(const run_case *c) {
    tern_config *config;
    char key[32], value[64];
    int read;
    OK(tern_config_create(&config, c->preset, &err));
    OK(tern_config_set(config, "steps", "6", &err));
    OK(tern_config_set(config, "batch", "16", &err));
    OK(tern_config_set(config, "threads", "1", &err));
    if (config->data != TERN_DATA_TEXT) OK(tern_config_set(config, "data", "mnist", &err));
    OK(tern_config_set(config, "path",
                       config->data == TERN_DATA_TEXT ? folder_file(&folder, "text.txt") : folder.path, &err));
    for (const char *text = c->settings; sscanf(text, " %31[^=]=%63s%n", key, value, &read) == 2; text += read)
        OK(tern_config_set(config, key, value, &err));
    return config;
}

static tern_trainer *trainer_of(const run_case *c) {
    tern_trainer *t;
    tern_config *config = config_of(c);
    OK(tern_trainer_create(&t, config, TERN_DEVICE_CPU, &err));
    tern_config_free(&config);
    return t;
}

static void step(tern_trainer *t) {
    OK(tern_trainer_step(t, 1, &err));
    if (t->trouble[0]) fail_msg("%s", t->trouble);
}

static const run_case cases[] = {
    {"mnist-mlp-trit", "width=24 update=r1"},
    {"mnist-mlp-trit", "width=24 update=r2 granularity=T8 slow_exponents=1"},
    {"mnist-mlp-trit", "width=24 update=vote granularity=T6 schedule=halvings"},
    {"mnist-mlp-trit", "width=24 update=seed-corr granularity=tensor"},
    {"mnist-cnn-trit", "width=8 depth=1"},
    {"cifar10-simple-trit", "width=8 accumulate=2 crop=0 flip=none"},
    {"cifar10-fast-trit", "width=8 depth=2 crop=0 flip=none"},
    {"cifar10-large-trit", "width=8 depth=2 crop=0 flip=none"},
    {"charlm-trit", "width=32 depth=1 context=16 heads=2 lr=3"},
    {"charlm-trit", "width=32 depth=1 context=16 heads=2 ends=fixed granularity=T16"},
};
enum { CASES = sizeof cases / sizeof *cases };

/* ---- tests */

static int is_whole(tern_safetensors_dtype dtype) {
    return dtype == TERN_ST_I8 || dtype == TERN_ST_U8 || dtype == TERN_ST_I16 || dtype == TERN_ST_I32 ||
           dtype == TERN_ST_I64;
}

static void check_no_floats(const char *path, const run_case *c) {
    tern_safetensors *file;
    OK(tern_safetensors_open(&file, path, TERN_ST_CHECKSUM_REQUIRED, &err));
    assert_true(tern_safetensors_count(file) > 4);
    for (size_t i = 0; i < tern_safetensors_count(file); i++) {
        const tern_safetensors_entry *e = tern_safetensors_at(file, i);
        if (!is_whole(e->dtype))
            fail_msg("%s %s: %s is kept as %s", c->preset, c->settings, e->name,
                     tern_safetensors_dtype_name(e->dtype));
    }
    tern_safetensors_close(&file);
}

static void test_no_float_persists(void **state) {
    (void)state;
    char path[512];
    snprintf(path, sizeof path, "%s/run.safetensors", folder.path); /* folder_file's are used in turn */
    for (size_t i = 0; i < CASES; i++) {
        tern_trainer *t = trainer_of(&cases[i]);
        for (int k = 0; k < 3; k++) step(t);
        OK(tern_trainer_save(t, path, &err));
        check_no_floats(path, &cases[i]);
        tern_trainer_free(&t);
    }
    /* A run with floats would be seen. */
    tern_trainer *t = trainer_of(&(run_case){"mnist-mlp", "width=24"});
    OK(tern_trainer_save(t, path, &err));
    tern_safetensors *file;
    OK(tern_safetensors_open(&file, path, TERN_ST_CHECKSUM_REQUIRED, &err));
    size_t floats = 0;
    for (size_t k = 0; k < tern_safetensors_count(file); k++)
        floats += !is_whole(tern_safetensors_at(file, k)->dtype);
    assert_true(floats > 0);
    tern_safetensors_close(&file);
    tern_trainer_free(&t);
}

/* Everything that is a float in the graph and in the run. */
static void poison(tern_trainer *t) {
    for (size_t p = 0; p < t->graph->params; p++)
        for (size_t i = 0; t->graph->param[p].value && i < t->graph->param[p].count; i++)
            t->graph->param[p].value[i] = NAN;
    for (size_t i = 0; i < t->statistic_count; i++) t->statistics[i] = NAN;
    memset(t->plan->arena.data, 0xff, t->plan->arena_bytes);
    memset(t->plan->scratch.data, 0xff, t->plan->scratch_bytes);
    memset(t->plan->grads.data, 0xff, t->plan->gradients * sizeof(float));
}

static void check_same_files(const char *a, const char *b, const run_case *c) {
    size_t bytes_a, bytes_b;
    char *of_a = file_text(a, &bytes_a), *of_b = file_text(b, &bytes_b);
    if (bytes_a != bytes_b || memcmp(of_a, of_b, bytes_a))
        fail_msg("%s %s: a run that lost its floats goes another way", c->preset, c->settings);
    free(of_a);
    free(of_b);
}

/* First values, all floats poisoned, and then the checkpoint. */
static tern_trainer *reborn(tern_trainer *t, const run_case *c, const char *path) {
    OK(tern_trainer_save(t, path, &err));
    tern_trainer_free(&t);
    t = trainer_of(c);
    poison(t);
    OK(tern_trainer_load(t, path, &err));
    return t;
}

static void test_floats_may_be_lost(void **state) {
    (void)state;
    char path[512], whole[512];
    snprintf(path, sizeof path, "%s/broken.safetensors", folder.path);
    snprintf(whole, sizeof whole, "%s/whole.safetensors", folder.path);
    for (size_t i = 0; i < CASES; i++) {
        tern_trainer *one = trainer_of(&cases[i]), *two = trainer_of(&cases[i]);
        for (int k = 0; k < 6; k++) {
            step(one);
            two = reborn(two, &cases[i], path);
            step(two);
        }
        OK(tern_trainer_recalibrate(one, &err));
        OK(tern_trainer_recalibrate(two, &err));
        OK(tern_trainer_save(one, whole, &err));
        OK(tern_trainer_save(two, path, &err));
        check_same_files(whole, path, &cases[i]);
        tern_trainer_free(&one);
        tern_trainer_free(&two);
    }
}

static size_t differences(const tern_graph *a, const tern_graph *b, const char *name) {
    tern_param *of_a = tern_graph_find_param((tern_graph *)(uintptr_t)a, name);
    tern_param *of_b = tern_graph_find_param((tern_graph *)(uintptr_t)b, name);
    assert_true(of_a && of_b && of_a->integers);
    const char *x = of_a->integers, *y = of_b->integers;
    size_t count = 0;
    for (size_t i = 0; i < of_a->count * tern_store_bytes(of_a->store); i++) count += x[i] != y[i];
    return count;
}

/* Gains, biases and fixed-point weights of a float-free network are trained, as integers. */
static void test_all_parts_train(void **state) {
    (void)state;
    static const struct {
        run_case c;
        const char *param;
    } parts[] = {
        {{"charlm-trit", "width=32 depth=1 context=16 heads=2"}, "block1.norm1.gain"},
        {{"charlm-trit", "width=32 depth=1 context=16 heads=2"}, "norm.gain"},
        {{"charlm-trit", "width=32 depth=1 context=16 heads=2"}, "embedding.counter"},
        {{"charlm-trit", "width=32 depth=1 context=16 heads=2 ends=fixed"}, "embedding.weight"},
        {{"charlm-trit", "width=32 depth=1 context=16 heads=2 ends=fixed"}, "head.weight"},
        {{"mnist-mlp-trit", "width=24"}, "norm1.gain"},
        {{"mnist-mlp-trit", "width=24"}, "norm1.bias"},
        {{"mnist-mlp-trit", "width=24"}, "norm1.mean"},
        {{"mnist-mlp-trit", "width=24"}, "fc2.momentum"},
        {{"cifar10-fast-trit", "width=8 depth=2 crop=0 flip=none"}, "whiten.bias"},
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        tern_trainer *t = trainer_of(&parts[i].c), *start = trainer_of(&parts[i].c);
        for (int k = 0; k < 3; k++) step(t);
        if (!differences(t->graph, start->graph, parts[i].param)) fail_msg("%s does not train", parts[i].param);
        tern_trainer_free(&t);
        tern_trainer_free(&start);
    }
}

/* ---- a step that is skipped while layers behind the trouble have stepped */

static void fill(tern_trainer *t, const char *name, int value) {
    tern_param *p = tern_graph_find_param(t->graph, name);
    assert_non_null(p);
    memset(p->integers, value, p->count);
}

/* The head's scale is so large that the gradient which it passes back overflows; what it computes does not. */
static void test_skipped_step(void **state) {
    (void)state;
    tern_trainer *t =
        trainer_of(&(run_case){"mnist-mlp-trit", "width=24 granularity=tensor dropout=0 warmup=0 update=r1 lr=7"});
    fill(t, "fc2.exponent", -100);
    fill(t, "head.exponent", 124);
    tern_param *bias = tern_graph_find_param(t->graph, "norm2.bias");
    for (size_t i = 0; i < bias->count; i++) bias->value[i] = 0.5f;
    tern_param_round(bias);
    OK(tern_trainer_refresh(t, &err));
    OK(tern_trainer_step(t, 1, &err));
    assert_int_equal(t->skipped, 1);
    assert_string_equal(t->trouble, "the gradient of layer fc2 is not finite");
    size_t head = t->graph->nodes - 1;
    const tern_ternary_weights *w = tern_plan_ternary(t->plan, head);
    int8_t *used = malloc(w->rows * w->cols);
    tern_trit_rows(w, used, 0, w->rows);
    for (size_t i = 0; i < w->rows * w->cols; i++) {
        const int8_t *c = w->rule.counter;
        assert_int_equal(used[i],
                         (c[i] > 42) - (c[i] < -42)); /* the next step computes with the weights as they are */
    }
    assert_true(w->flipping > 0);
    free(used);
    tern_trainer_free(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_float_persists),
        cmocka_unit_test(test_floats_may_be_lost),
        cmocka_unit_test(test_all_parts_train),
        cmocka_unit_test(test_skipped_step),
    };
    return cmocka_run_group_tests(tests, make_data, remove_data);
}
