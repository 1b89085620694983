/* Memory that runs out: every allocation of the library's own fails in turn, alone and with all that come after it.
 * The call must succeed all the same or say TERN_E_MEMORY, and leave nothing behind: no block, no file.
 *
 * The linker sends the library's calls here (--wrap); what other libraries allocate for themselves is theirs. */
#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>

#include "nn/plan.h"
#include "synthetic_data.h"
#include "tern/graph.h"
#include "tern/model.h"
#include "train/trainer.h"

/* ---- allocations that fail */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    long calls, fail_at; /* from 1; 0: none fails */
    int all_after;
    int watching; /* allocations are noted as live until they are freed */
    const void *live[4096];
    size_t lives;
} memory;

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *old, size_t bytes);
void *__real_aligned_alloc(size_t alignment, size_t bytes);
char *__real_strdup(const char *text);
char *__real_strndup(const char *text, size_t bytes);
void *__real_mmap(void *at, size_t bytes, int protection, int flags, int file, off_t offset);
void __real_free(void *block);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes);
void *__wrap_aligned_alloc(size_t alignment, size_t bytes);
char *__wrap_strdup(const char *text);
char *__wrap_strndup(const char *text, size_t bytes);
void *__wrap_mmap(void *at, size_t bytes, int protection, int flags, int file, off_t offset);
void __wrap_free(void *block);

static int fails(void) {
    pthread_mutex_lock(&lock);
    long call = memory.watching ? ++memory.calls : 0;
    pthread_mutex_unlock(&lock);
    int it = memory.fail_at && (memory.all_after ? call >= memory.fail_at : call == memory.fail_at);
    if (it) errno = ENOMEM;
    return it;
}

static void *noted(void *block) {
    pthread_mutex_lock(&lock);
    if (memory.watching && block && memory.lives < sizeof memory.live / sizeof *memory.live)
        memory.live[memory.lives++] = block;
    pthread_mutex_unlock(&lock);
    return block;
}

static void forget(const void *block) {
    pthread_mutex_lock(&lock);
    for (size_t i = memory.lives; i-- > 0;)
        if (memory.live[i] == block) {
            memory.live[i] = memory.live[--memory.lives];
            break;
        }
    pthread_mutex_unlock(&lock);
}

void *__wrap_malloc(size_t bytes) { return fails() ? NULL : noted(__real_malloc(bytes)); }
void *__wrap_calloc(size_t count, size_t bytes) { return fails() ? NULL : noted(__real_calloc(count, bytes)); }
char *__wrap_strdup(const char *text) { return fails() ? NULL : noted(__real_strdup(text)); }
char *__wrap_strndup(const char *text, size_t bytes) { return fails() ? NULL : noted(__real_strndup(text, bytes)); }
void *__wrap_aligned_alloc(size_t alignment, size_t bytes) {
    return fails() ? NULL : noted(__real_aligned_alloc(alignment, bytes));
}

void *__wrap_realloc(void *old, size_t bytes) {
    if (fails()) return NULL;
    forget(old); /* before another thread may be given the same address */
    return noted(__real_realloc(old, bytes));
}

void __wrap_free(void *block) {
    forget(block);
    __real_free(block);
}

/* Memory, not files, which have failures of their own. */
void *__wrap_mmap(void *at, size_t bytes, int protection, int flags, int file, off_t offset) {
    return file < 0 && fails() ? MAP_FAILED : __real_mmap(at, bytes, protection, flags, file, offset);
}

/* ---- what is done with them */

static tern_error err;
static temporary_folder folder;

typedef tern_status (*scenario)(void);

static tern_status run(scenario work, long fail_at, int all_after) {
    memory.lives = 0;
    memory.calls = 0;
    memory.fail_at = fail_at;
    memory.all_after = all_after;
    memory.watching = 1;
    err = (tern_error){0};
    tern_status status = work();
    memory.fail_at = 0;
    memory.watching = 0;
    return status;
}

/* Files in the folder, and those that the process has open. */
static int count_files(void) {
    static const temporary_folder open_files = {"/proc/self/fd"};
    return folder_count(&folder) + (access(open_files.path, R_OK) ? 0 : folder_count(&open_files));
}

/* modes: 1 where failing alone is enough, 2 for both. */
static void check(const char *name, scenario work, int modes) {
    OK(run(work, 0, 0)); /* what is kept once for all is there then */
    for (int all_after = 0; all_after < modes; all_after++) {
        long n = 1, refused = 0;
        for (;; n++) {
            int files = count_files();
            tern_status status = run(work, n, all_after);
            if (status && status != TERN_E_MEMORY)
                fail_msg("%s: without allocation %ld%s: %s: %s", name, n, all_after ? " and later ones" : "",
                         tern_status_text(status), err.message);
            if (status && (err.status != status || !err.message[0]))
                fail_msg("%s: without allocation %ld the error says nothing", name, n);
            if (memory.lives)
                fail_msg("%s: without allocation %ld%s, %zu blocks are left", name, n,
                         all_after ? " and later ones" : "", memory.lives);
            assert_int_equal(count_files(), files);
            refused += status != TERN_OK;
            if (memory.calls < n) break;
        }
        print_message("%s: %ld allocations, %ld of them needed\n", name, n - 1, refused);
        assert_true(refused > 0);
    }
    OK(run(work, 0, 0));
}

/* ---- a graph and its plan */

static tern_graph *image_graph(void) {
    tern_graph *g;
    if (tern_graph_create(&g, &err)) return NULL;
    tern_value x = tern_graph_input(g, (tern_shape){3, {6, 6, 4}});
    x = tern_graph_add(g, "bit_conv2d", "depth", x,
                       &(tern_attrs){.outputs = 4, .kernel = 3, .padding = 1, .groups = 4});
    x = tern_graph_add(g, "batch_norm", "norm", x, NULL);
    x = tern_graph_add(g, "conv2d", "conv", x, &(tern_attrs){.outputs = 8, .kernel = 3, .bias = 1});
    tern_value y = tern_graph_add(g, "relu", "relu", x, NULL);
    x = tern_graph_add2(g, "mul", "gate", x, y);
    x = tern_graph_add(g, "max_pool", "pool", x, &(tern_attrs){.kernel = 2});
    x = tern_graph_add(g, "reshape", "rows", x, &(tern_attrs){.dim = {TERN_REST, 16}});
    x = tern_graph_add(g, "linear", "project", x, &(tern_attrs){.outputs = 24});
    x = tern_graph_add(g, "attention", "attention", x, &(tern_attrs){.heads = 4, .kv_heads = 1, .rope_base = 100});
    x = tern_graph_add(g, "layernorm", "last", x, NULL);
    x = tern_graph_add(g, "flatten", "flat", x, NULL);
    x = tern_graph_add(g, "ternary_linear", "fc", x, &(tern_attrs){.outputs = 12, .bias = 1});
    x = tern_graph_add(g, "dropout", "drop", x, &(tern_attrs){.rate = 0.2f});
    tern_graph_add(g, "bit_linear", "head", x, &(tern_attrs){.outputs = 5, .granularity = 1});
    return g;
}

static tern_status plan_a_graph(void) {
    tern_graph *g = image_graph();
    tern_plan *plan = NULL;
    if (!g) return err.status;
    tern_status status = tern_graph_check(g, &err);
    if (!status) status = tern_graph_place(g, &err);
    if (!status)
        status = tern_plan_create(&plan, g, &(tern_plan_desc){.batch_max = 3, .training = 1, .threads = 2}, &err);
    if (!status) status = tern_plan_refresh(plan, &err);
    if (!status) {
        static const float x[2 * 6 * 6 * 4];
        tern_plan_forward(plan, x, 2);
        memset(tern_plan_output_grad(plan), 0, 2 * 5 * sizeof(float));
        tern_plan_backward(plan);
        status = tern_dnn_check(plan->dnn, &err);
    }
    tern_plan_free(&plan);
    tern_graph_free(&g);
    return status;
}

/* ---- models */

static char packed_path[128], output_path[128];

static tern_status make_model(void) {
    tern_model *m = NULL;
    tern_graph *g = image_graph();
    if (!g) return err.status;
    tern_status status = tern_model_create(&m, g, 3, &(tern_model_options){.batch = 2, .threads = 2}, &err);
    tern_model_close(&m);
    return status;
}

static tern_model *trained;

static tern_status export_a_model(void) {
    const tern_export_options o = {.packing = TERN_PACK_T5, .fold_batch_norm = 1};
    tern_status status = tern_model_export(trained, output_path, &o, &err);
    if (!status) remove(output_path);
    return status;
}

static tern_status open_a_model(void) {
    tern_model *m;
    tern_status status = tern_model_open(&m, packed_path, &(tern_model_options){.threads = 2}, &err);
    tern_model_close(&m);
    return status;
}

static tern_status twin_a_model(void) {
    tern_model *m;
    tern_status status = tern_model_float_twin(&m, trained, NULL, &err);
    tern_model_close(&m);
    return status;
}

static tern_status take_a_layer(void) {
    tern_matrix *w = NULL;
    tern_layer_info info;
    tern_status status = tern_model_layer(&info, trained, tern_graph_nodes(tern_model_graph(trained)) - 1, &err);
    if (!status)
        status =
            tern_model_layer_matrix(&w, trained, tern_graph_nodes(tern_model_graph(trained)) - 1, TERN_PACK_T2, &err);
    tern_matrix_free(&w);
    return status;
}

static void test_graph(void **state) {
    (void)state;
    check("graph and plan", plan_a_graph, 2);
    check("model of a graph", make_model, 2);
}

static void test_models(void **state) {
    (void)state;
    OK(tern_model_create(&trained, image_graph(), 3, NULL, &err));
    snprintf(packed_path, sizeof packed_path, "%s", folder_file(&folder, "packed"));
    snprintf(output_path, sizeof output_path, "%s", folder_file(&folder, "output"));
    OK(tern_model_export(trained, packed_path, &(tern_export_options){.packing = TERN_PACK_T2}, &err));
    check("export", export_a_model, 2);
    check("open", open_a_model, 2);
    check("float twin", twin_a_model, 2);
    check("layer", take_a_layer, 2);
    tern_model_close(&trained);
}

/* ---- data */

static tern_dataset_desc wanted_data;

static tern_status open_data(void) {
    tern_dataset *d = NULL;
    tern_loader *loader = NULL;
    tern_batch batch;
    tern_loader_desc l = {.batch = 2, .window = wanted_data.kind == TERN_DATA_TEXT ? 5 : 0};
    tern_status status = tern_dataset_open(&d, &wanted_data, &err);
    l.dataset = d;
    if (!status) status = tern_loader_open(&loader, &l, &err);
    if (!status) status = tern_loader_next(loader, &batch, &err);
    tern_loader_close(&loader);
    tern_dataset_close(&d);
    return status;
}

static void test_data(void **state) {
    (void)state;
    static const char text[] = "fifty words\nof a text \xc3\xa9 that has characters and lines enough for windows\n";
    char path[128];
    wanted_data = (tern_dataset_desc){.kind = TERN_DATA_MNIST, .path = folder.path};
    check("idx", open_data, 2);
    folder_put(&folder, "text", text, sizeof text - 1);
    snprintf(path, sizeof path, "%s", folder_file(&folder, "text"));
    wanted_data = (tern_dataset_desc){.kind = TERN_DATA_TEXT, .path = path};
    check("text", open_data, 2);
    size_t bytes;
    char *png = file_text(TERN_TEST_SEEDS "/image/gray.png", &bytes);
    folder_mkdir(&folder, "images");
    folder_mkdir(&folder, "images/a");
    folder_mkdir(&folder, "images/b");
    folder_put(&folder, "images/a/1.png", png, bytes);
    folder_put(&folder, "images/b/2.png", png, bytes);
    snprintf(path, sizeof path, "%s", folder_file(&folder, "images"));
    wanted_data = (tern_dataset_desc){.kind = TERN_DATA_IMAGES, .path = path, .channels = 3};
    check("folder of images", open_data, 2);
    free(png);
}

/* ---- training */

static const char *preset, *data_path;

static tern_status configure(tern_config **config) {
    static const char *const settings[][2] = {{"width", "8"}, {"depth", "1"},   {"context", "6"},    {"batch", "4"},
                                              {"steps", "9"}, {"threads", "2"}, {"recalibrate", "1"}};
    tern_status status = tern_config_create(config, preset, &err);
    for (size_t i = 0; !status && i < sizeof settings / sizeof *settings; i++)
        status = tern_config_set(*config, settings[i][0], settings[i][1], &err);
    if (!status && strcmp(preset, "charlm")) status = tern_config_set(*config, "data", "mnist", &err);
    if (!status) snprintf((*config)->path, sizeof(*config)->path, "%s", data_path);
    return status;
}

static tern_status train_a_step(void) {
    tern_config *config = NULL;
    tern_trainer *t = NULL;
    tern_evaluation evaluation;
    tern_status status = configure(&config);
    if (!status) status = tern_trainer_create(&t, config, TERN_DEVICE_CPU, &err);
    if (!status) status = tern_trainer_step(t, 1, &err);
    if (!status) status = tern_trainer_evaluate(t, &evaluation, 1, NULL, &err);
    if (!status) status = tern_trainer_recalibrate(t, &err);
    if (!status) status = tern_trainer_save(t, output_path, &err);
    if (!status) status = tern_trainer_load(t, output_path, &err);
    remove(output_path);
    tern_trainer_free(&t);
    tern_config_free(&config);
    return status;
}

static void test_training(void **state) {
    (void)state;
    char text[128];
    snprintf(text, sizeof text, "%s", folder_file(&folder, "text"));
    snprintf(output_path, sizeof output_path, "%s", folder_file(&folder, "checkpoint"));
    preset = "mnist-mlp", data_path = folder.path;
    check("training an image network", train_a_step, 1);
    preset = "cifar10-fast";
    check("training the fast network", train_a_step, 1);
    preset = "charlm", data_path = text;
    check("training a text network", train_a_step, 1);
}

static int make_folder(void **state) {
    (void)state;
    folder_create(&folder);
    put_mnist(&folder, 12, 12);
    return 0;
}

static int remove_folder(void **state) {
    (void)state;
    folder_remove(&folder);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_graph),
        cmocka_unit_test(test_models),
        cmocka_unit_test(test_data),
        cmocka_unit_test(test_training),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
