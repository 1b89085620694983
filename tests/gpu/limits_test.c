/* What graphs on a GPU refuse, and that the device is as good as before; how long a pass takes; sums of int8
 * products.
 *
 *   limits_test            one line a check; ends with the number of failures */
#include <string.h>

#include "base/random.h"
#include "nn/op.h"
#include "nn/plan.h"
#include "on_gpu.h"
#include "tern/tern.h"

static int failures;

static void check(int fine, const char *what, const char *seen) {
    printf("%s  %s%s%s\n", fine ? "ok    " : "FAILED", what, *seen ? ": " : "", seen);
    fflush(stdout);
    failures += !fine;
}

static size_t free_bytes(void) {
    tern_device_info info;
    tern_error err;
    must(backend->describe(&info, 0, &err), &err, "describing GPU 0");
    return info.memory_free;
}

static tern_graph *make_graph(tern_value (*add)(tern_graph *g, tern_value x), tern_shape input) {
    tern_graph *g;
    tern_error err;
    must(tern_graph_create(&g, &err), &err, "a graph");
    add(g, tern_graph_input(g, input));
    must(tern_graph_check(g, &err), &err, "a graph");
    must(tern_graph_place(g, &err), &err, "a graph");
    tern_graph_initialise(g, 3, 0);
    return g;
}

/* ---- memory */

static tern_value add_linear(tern_graph *g, tern_value x) {
    x = tern_graph_add(g, "flatten", "flatten", x, NULL);
    return tern_graph_add(g, "bit_linear", "layer", x, &(tern_attrs){.outputs = 64});
}

/* Of float activations, which cuda-tiled does not take. */
static tern_value add_ternary(tern_graph *g, tern_value x) {
    x = tern_graph_add(g, "flatten", "flatten", x, NULL);
    return tern_graph_add(g, "ternary_linear", "layer", x, &(tern_attrs){.outputs = 64});
}

static tern_value add_conv(tern_graph *g, tern_value x) {
    return tern_graph_add(g, "bit_conv2d", "layer", x, &(tern_attrs){.outputs = 24, .kernel = 3, .padding = 1});
}

static int names_bytes(const tern_error *err) {
    return err->status == TERN_E_MEMORY && strstr(err->message, "out of device memory") &&
           strstr(err->message, "bytes asked for") && strstr(err->message, "are free");
}

static void run_small(const tern_graph *g) {
    static float x[4 * 3072], y[4 * 64];
    tern_gpu_plan *plan;
    tern_error err;
    const tern_gpu_pass pass = {.batch = 4};
    for (size_t i = 0; i < sizeof x / sizeof *x; i++) x[i] = (float)(i % 13) - 6;
    must(create_on_gpu(&plan, g, 4, TERN_F32, 0, 0, &err), &err, "a plan that fits");
    must(backend->graphs->send(plan, 1, &err), &err, "a plan that fits");
    must(backend->graphs->forward(plan, y, x, &pass, &err), &err, "a plan that fits");
    backend->graphs->release(plan);
}

static void test_too_large(const tern_graph *g) {
    tern_gpu_plan *plan;
    tern_error err;
    run_small(g); /* what a first plan loads stays */
    const size_t before = free_bytes();
    for (int i = 0; i < 8; i++) {
        const tern_status status =
            create_on_gpu(&plan, g, (size_t)1 << 31, i % 2 ? TERN_BF16 : TERN_F32, i & 2, 0, &err);
        if (!status) backend->graphs->release(plan);
        if (i == 0 || !names_bytes(&err)) check(status && names_bytes(&err), "a plan that does not fit", err.message);
    }
    run_small(g);
    check(free_bytes() + (64 << 20) > before, "memory is given back", "");
}

/* The same of a model: the message says what was asked for and what is free. */
static void test_large_model(void) {
    tern_graph *g;
    tern_model *model = NULL;
    tern_error err = {0};
    must(tern_graph_create(&g, &err), &err, "a graph");
    tern_value x = tern_graph_input(g, (tern_shape){3, {32, 32, 3}});
    x = tern_graph_add(g, "flatten", "flatten", x, NULL);
    tern_graph_add(g, "bit_linear", "layer", x, &(tern_attrs){.outputs = 1}); /* the host has room for these */
    const tern_model_options o = {.batch = (size_t)1 << 27, .device = "cuda"};
    const tern_status status = tern_model_create(&model, g, 1, &o, &err);
    check(status == TERN_E_MEMORY && names_bytes(&err), "a model that does not fit", err.message);
    tern_model_close(&model);
}

static tern_value add_one(tern_graph *g, tern_value x) {
    x = tern_graph_add(g, "flatten", "flatten", x, NULL);
    return tern_graph_add(g, "bit_linear", "layer", x, &(tern_attrs){.outputs = 1});
}

/* Longer than sums of 32 bits are. */
static void test_long_rows(void) {
    tern_graph *g = make_graph(add_one, (tern_shape){3, {((size_t)1 << 22) + 1, 1, 1}});
    tern_gpu_plan *plan = NULL;
    tern_error err = {0};
    const tern_status status = create_on_gpu(&plan, g, 1, TERN_F32, 0, 0, &err);
    if (!status) backend->graphs->release(plan);
    check(status == TERN_E_SIZE && strstr(err.message, "layer: "), "rows that are too long", err.message);
    tern_graph_free(&g);
}

/* The set must fit beside what others hold. */
static void test_data(const tern_graph *g) {
    enum { COUNT = 50000, BYTES = 32 * 32 * 3, LEFT = 100 << 20 };
    tern_gpu_plan *plan;
    tern_error err;
    void *filler;
    uint8_t *images = calloc(COUNT, BYTES);
    int32_t *labels = calloc(COUNT, sizeof *labels);
    if (!images || !labels) exit(1);
    tern_gpu_images d = {
        .images = images, .labels = labels, .count = COUNT, .height = 32, .width = 32, .channels = 3};
    for (int c = 0; c < 3; c++) d.std[c] = 1;
    must(create_on_gpu(&plan, g, 8, TERN_F32, 1, 0, &err), &err, "a plan");
    must(backend->alloc(&filler, context, free_bytes() - LEFT, "filling", &err), &err, "filling the device");
    const tern_status status = backend->graphs->set_images(plan, &d, &err);
    check(status && names_bytes(&err), "images that do not fit", err.message);
    backend->free(context, filler);
    must(backend->graphs->set_images(plan, &d, &err), &err, "the same images with room");
    backend->graphs->release(plan);
    free(images);
    free(labels);
}

/* ---- scores of attention, of which Hopper's gradients leave what the memory has room for */

enum { A_BATCH = 2, A_TOKENS = 8192, A_HEADS = 2, A_WIDTH = 64, A_TABLE = 32 };

static tern_graph *make_attention(void) {
    tern_graph *g;
    tern_error err;
    must(tern_graph_create(&g, &err), &err, "a graph");
    tern_value x = tern_graph_input_tokens(g, A_TOKENS, A_TABLE);
    x = tern_graph_add(g, "embedding", "table", x, &(tern_attrs){.width = A_TABLE, .init_gain = 1.2f});
    x = tern_graph_add(g, "linear", "qkv", x, &(tern_attrs){.outputs = 3 * A_HEADS * A_WIDTH});
    tern_graph_add(g, "attention", "attention", x, &(tern_attrs){.heads = A_HEADS, .kv_heads = A_HEADS});
    must(tern_graph_check(g, &err), &err, "a graph");
    must(tern_graph_place(g, &err), &err, "a graph");
    tern_graph_initialise(g, 3, 0);
    return g;
}

/* The gradients of the products in front, with `left` bytes free before the plan is made (0: all that are); returns
 * the plan's own bytes. */
static size_t attend_within(const tern_graph *g, float *gradient, size_t left) {
    static int32_t token[A_BATCH * A_TOKENS];
    static float dy[A_BATCH * A_TOKENS * A_HEADS * A_WIDTH];
    const size_t filled = left ? free_bytes() - left : 0;
    const tern_gpu_pass pass = {.batch = A_BATCH, .train_mode = 1};
    void *filler = NULL;
    tern_gpu_plan *plan;
    tern_error err;
    for (size_t i = 0; i < sizeof token / sizeof *token; i++)
        token[i] = (int32_t)(tern_philox(7, i, 1).v[0] % A_TABLE);
    for (size_t i = 0; i < sizeof dy / sizeof *dy; i++) dy[i] = tern_random_signed(8, i);
    if (filled) must(backend->alloc(&filler, context, filled, "filling", &err), &err, "filling the device");
    must(create_on_gpu(&plan, g, A_BATCH, TERN_BF16, 1, 0, &err), &err, "attention with little memory");
    const size_t bytes = backend->graphs->bytes(plan);
    must(backend->graphs->send(plan, 1, &err), &err, "attention");
    must(backend->graphs->forward(plan, NULL, token, &pass, &err), &err, "attention");
    must(backend->graphs->backward(plan, dy, &err), &err, "attention");
    must(backend->graphs->read_gradient(plan, gradient, (size_t)g->node[2].param[0], &err), &err, "attention");
    backend->graphs->release(plan);
    if (filler) backend->free(context, filler);
    return bytes;
}

/* A unit is the scores of a head: tiles of 64 by 64 on and below the diagonal, 16 bits each. The plan takes a quarter
 * of the memory that is free beside its activations, at most. */
static void test_attention(void) {
    enum { UNITS = A_BATCH * A_HEADS, TILES = A_TOKENS / 64, UNIT = TILES * (TILES + 1) / 2 * 8192 };
    static const struct {
        int units;
        size_t left; /* beside what the plan takes without scores */
        const char *what;
    } runs[] = {{2, (size_t)700 << 20, "attention in launches of two heads, the same bits"},
                {1, (size_t)450 << 20, "attention in launches of one head, the same bits"},
                {0, (size_t)160 << 20, "attention by the other kernels, near"}};
    tern_device_info info;
    tern_error err;
    must(backend->describe(&info, 0, &err), &err, "describing GPU 0");
    if (info.major != 9) return;
    tern_graph *g = make_attention();
    const size_t count = g->param[g->node[2].param[0]].count;
    float *want = room(count), *got = room(count);
    const size_t all = attend_within(g, want, 0), rest = all - (size_t)UNITS * UNIT;
    for (int i = 0; i < 3; i++) {
        char seen[80];
        const size_t bytes = attend_within(g, got, rest + runs[i].left),
                     least = (size_t)(UNITS - runs[i].units) * UNIT;
        const int same = !memcmp(want, got, count * sizeof *want);
        const double off = distance(got, want, count);
        snprintf(seen, sizeof seen, "%zu of %zu bytes, off by %.2g", bytes, all, off);
        check(runs[i].units ? same && all - bytes == least : off < 1e-2 && all - bytes > least - UNIT, runs[i].what,
              seen);
    }
    tern_graph_free(&g);
    free(want);
    free(got);
}

/* ---- devices */

static void test_devices(void) {
    tern_graph *g;
    tern_model *model;
    tern_error err;
    must(tern_graph_create(&g, &err), &err, "a graph");
    add_linear(g, tern_graph_input(g, (tern_shape){3, {8, 8, 1}}));
    const tern_model_options o = {.device = "cuda:99"};
    const tern_status status = tern_model_create(&model, g, 1, &o, &err);
    check(status == TERN_E_UNSUPPORTED && strstr(err.message, "there is no GPU 99"), "a GPU that is not there",
          err.message);
}

/* ---- time */

static void test_time(const tern_graph *g) {
    static float x[32 * 3072], before[32 * 64], after[32 * 64];
    tern_gpu_plan *plan;
    tern_error err;
    tern_gpu_timing t = {.pass = {.batch = 32}, .passes = 10, .replays = 11};
    tern_gpu_memory memory;
    double warm, cold;
    char seen[120];
    for (size_t i = 0; i < sizeof x / sizeof *x; i++) x[i] = (float)(tern_philox(4, i, 2).v[0] >> 8) * 1e-7f - 0.8f;
    must(create_on_gpu(&plan, g, 32, TERN_F32, 0, 0, &err), &err, "a plan");
    must(backend->graphs->send(plan, 1, &err), &err, "a plan");
    must(backend->graphs->forward(plan, before, x, &t.pass, &err), &err, "a pass");
    must(backend->graphs->time_forward(plan, &warm, &t, &err), &err, "timing");
    t.evict = 200 << 20;
    must(backend->graphs->time_forward(plan, &cold, &t, &err), &err, "timing cold");
    backend->graphs->memory(&memory, plan);
    snprintf(seen, sizeof seen, "%.2f us, cold %.2f us, %zu bytes, %zu of cuBLASLt", warm * 1e6, cold * 1e6,
             memory.bytes, memory.workspace);
    check(warm > 1e-7 && warm < 1 && cold < 1 && memory.bytes > 3072 * 64 / 4 && !memory.workspace, "time", seen);
    must(backend->graphs->forward(plan, after, x, &t.pass, &err), &err, "a pass");
    check(!memcmp(before, after, sizeof before), "a pass behind it has the same bits", "");
    backend->graphs->release(plan);
}

/* ---- kernels that were measured */

static int asked;

static int choose_tiled(tern_device_kernel *kernel, int *variant, const void *table, const tern_cuda_limits *limits,
                        const tern_cuda_weights *w, const tern_device_product *product) {
    (void)limits, (void)w;
    asked++;
    if (product->x_type != TERN_I8 || table != &asked) return 0;
    *kernel = TERN_DEVICE_KERNEL_TILED;
    *variant = 2;
    return 1;
}

/* A table goes before the rule, and results stay what they are. */
static void test_measured(const tern_graph *g) {
    static float x[32 * 3072], by_rule[32 * 64], by_table[32 * 64];
    tern_gpu_plan *plan;
    tern_error err;
    const tern_gpu_pass pass = {.batch = 32};
    for (size_t i = 0; i < sizeof x / sizeof *x; i++) x[i] = (float)(tern_philox(4, i, 2).v[0] >> 8) * 1e-7f - 0.8f;
    for (int i = 0; i < 2; i++) {
        const tern_gpu_plan_desc d = {
            .graph = g, .batch_max = 32, .values = TERN_F32, .measured = {i ? choose_tiled : NULL, &asked}};
        must(create_as(&plan, d, &err), &err, "a plan");
        must(backend->graphs->send(plan, 1, &err), &err, "a plan");
        must(backend->graphs->forward(plan, i ? by_table : by_rule, x, &pass, &err), &err, "a pass");
        backend->graphs->release(plan);
    }
    check(asked > 0 && !memcmp(by_rule, by_table, sizeof by_rule), "measured kernels, the same bits", "");
}

/* ---- a kernel that is pinned */

/* Every kernel of int8 products, to the bits of what is chosen: of a convolution that is one without patches. */
static void test_pinned(const tern_graph *g, const char *what) {
    enum { BATCH = 24, X = BATCH * 32 * 32 * 8, Y = BATCH * 24 * 1024 };
    static float x[X], y[2][Y];
    const size_t outputs = BATCH * g->node[g->nodes - 1].elements;
    tern_error err;
    const tern_gpu_pass pass = {.batch = BATCH};
    for (size_t i = 0; i < X; i++) x[i] = (float)(tern_philox(4, i, 2).v[0] >> 8) * 1e-7f - 0.8f;
    for (int k = 0; k < TERN_DEVICE_KERNEL_COUNT; k++) {
        tern_gpu_plan *plan;
        char seen[160];
        asked = 0;
        const tern_gpu_plan_desc d = {.graph = g,
                                      .batch_max = BATCH,
                                      .training = 1,
                                      .values = TERN_BF16,
                                      .pinned = (tern_device_kernel)k,
                                      .measured = {choose_tiled, &asked}};
        snprintf(seen, sizeof seen, "%s", tern_device_kernel_name(d.pinned));
        const tern_status status = create_as(&plan, d, &err);
        if (status) { /* a kernel for another device, or for fewer rows */
            snprintf(seen, sizeof seen, "layer: TERN_KERNEL=%s cannot run its product: it takes",
                     tern_device_kernel_name(d.pinned));
            check(k && status == TERN_E_UNSUPPORTED && !strncmp(err.message, seen, strlen(seen)), what, err.message);
            continue;
        }
        must(backend->graphs->send(plan, 1, &err), &err, what);
        must(backend->graphs->forward(plan, y[k > 0], x, &pass, &err), &err, what);
        backend->graphs->release(plan);
        check((!k || !asked) && !memcmp(y[0], y[k > 0], outputs * sizeof **y), what, seen);
    }
}

static void test_refused_pin(void) {
    tern_graph *g = make_graph(add_ternary, (tern_shape){3, {32, 32, 3}});
    tern_gpu_plan *plan = NULL;
    tern_error err = {0};
    const tern_gpu_plan_desc d = {.graph = g, .batch_max = 2, .values = TERN_F32, .pinned = TERN_DEVICE_KERNEL_TILED};
    const tern_status status = create_as(&plan, d, &err);
    check(status == TERN_E_UNSUPPORTED &&
              strstr(err.message, "layer: TERN_KERNEL=cuda-tiled cannot run its product: ") &&
              strstr(err.message, "int8"),
          "a pinned kernel that the product cannot take", err.message);
    tern_graph_free(&g);
}

/* The same by the environment, for models. */
static void test_pinned_model(void) {
    static const char *const kernels[] = {"cuda-plain", "cuda-tiled"};
    for (int i = 0; i < 2; i++) {
        tern_graph *g;
        tern_model *model = NULL;
        tern_error err = {0};
        must(tern_graph_create(&g, &err), &err, "a graph");
        add_ternary(g, tern_graph_input(g, (tern_shape){3, {8, 8, 1}}));
        setenv("TERN_KERNEL", kernels[i], 1);
        const tern_status status = tern_model_create(&model, g, 1, &(tern_model_options){.device = "cuda"}, &err);
        unsetenv("TERN_KERNEL");
        if (i == 0)
            check(!status, "TERN_KERNEL of a model", kernels[i]);
        else
            check(status == TERN_E_UNSUPPORTED && strstr(err.message, "TERN_KERNEL=cuda-tiled"),
                  "TERN_KERNEL that a model cannot have", err.message);
        tern_model_close(&model);
    }
}

/* ---- sums */

static tern_value add_odd(tern_graph *g, tern_value x) {
    x = tern_graph_add(g, "flatten", "flatten", x, NULL);
    return tern_graph_add(g, "bit_linear", "layer", x, &(tern_attrs){.outputs = 37, .bias = 1});
}
static tern_value add_groups(tern_graph *g, tern_value x) {
    return tern_graph_add(
        g, "bit_conv2d", "layer", x,
        &(tern_attrs){
            .outputs = 24, .kernel = 3, .stride = 2, .padding = 1, .groups = 2, .granularity = TERN_PER_ROW});
}
static tern_value add_pixels(tern_graph *g, tern_value x) {
    return tern_graph_add(g, "bit_conv2d", "layer", x, &(tern_attrs){.outputs = 19, .kernel = 1});
}

static void test_sums(const char *name, tern_value (*add)(tern_graph *g, tern_value x), tern_shape input,
                      size_t batch) {
    tern_graph *g = make_graph(add, input);
    const size_t last = g->nodes - 1, n = batch * g->node[last].elements, nx = batch * g->node[0].elements;
    tern_plan_desc d = {.batch_max = batch, .threads = 2, .tier = TERN_TIER_SCALAR};
    tern_plan *cpu;
    tern_gpu_plan *gpu;
    tern_error err;
    const tern_gpu_pass pass = {.batch = batch};
    int32_t *a = calloc(n, sizeof *a), *b = calloc(n, sizeof *b), *c = calloc(n, sizeof *c);
    int8_t *q = calloc(nx, 1);
    float *x = room(nx), *y = room(n);
    size_t off = 0;
    for (size_t i = 0; i < nx; i++) x[i] = (float)(tern_philox(9, i, 1).v[0] >> 8) * 1e-7f - 0.8f;
    must(tern_plan_create(&cpu, g, &d, &err), &err, name);
    must(tern_plan_refresh(cpu, &err), &err, name);
    tern_plan_forward(cpu, x, batch);
    must(create_on_gpu(&gpu, g, batch + 2, TERN_F32, 0, 0, &err), &err, name);
    must(backend->graphs->send(gpu, 1, &err), &err, name);
    must(backend->graphs->keep_sums(gpu, &err), &err, name);
    must(backend->graphs->forward(gpu, y, x, &pass, &err), &err, name);
    must(backend->graphs->read_sums(gpu, b, q, last, &err), &err, name);
    must(tern_plan_sums(a, cpu, last, &err), &err, name);
    tern_plan_set_activations(cpu, last, q);
    must(tern_plan_sums(c, cpu, last, &err), &err, name);
    for (size_t i = 0; i < n; i++) off += a[i] != b[i] || a[i] != c[i];
    off += memcmp(y, cpu->node[last].value, n * sizeof *y) != 0;
    check(!off, name, "");
    backend->graphs->release(gpu);
    tern_plan_free(&cpu);
    tern_graph_free(&g);
    free(a);
    free(b);
    free(c);
    free(q);
    free(x);
    free(y);
}

static void test_refused_sums(const tern_graph *g) {
    tern_gpu_plan *plan;
    tern_error err;
    must(create_on_gpu(&plan, g, 1, TERN_BF16, 0, 0, &err), &err, "a plan");
    tern_status status = backend->graphs->keep_sums(plan, &err);
    check(status == TERN_E_ARGUMENT, "sums of bf16 values are refused", err.message);
    backend->graphs->release(plan);
    tern_graph *wide = make_graph(add_odd, (tern_shape){3, {131088, 1, 1}});
    must(create_on_gpu(&plan, wide, 1, TERN_F32, 0, 0, &err), &err, "a plan");
    status = backend->graphs->keep_sums(plan, &err);
    check(status == TERN_E_UNSUPPORTED, "sums that are too long are refused", err.message);
    backend->graphs->release(plan);
    tern_graph_free(&wide);
}

int main(void) {
    if (open_gpu()) return SKIPPED;
    tern_graph *g = make_graph(add_linear, (tern_shape){3, {32, 32, 3}});
    test_too_large(g);
    test_large_model();
    test_long_rows();
    test_data(g);
    test_attention();
    test_devices();
    test_time(g);
    test_measured(g);
    test_pinned(g, "a pinned kernel, the same bits");
    tern_graph *conv = make_graph(add_conv, (tern_shape){3, {32, 32, 8}});
    test_pinned(conv, "a convolution by a pinned kernel, the same bits");
    tern_graph_free(&conv);
    test_refused_pin();
    test_pinned_model();
    test_sums("sums of a linear layer", add_odd, (tern_shape){3, {333, 1, 1}}, 5);
    test_sums("sums of one row", add_odd, (tern_shape){3, {256, 1, 1}}, 1);
    test_sums("sums of a convolution", add_conv, (tern_shape){3, {9, 7, 5}}, 3);
    test_sums("sums of a convolution in groups", add_groups, (tern_shape){3, {9, 7, 6}}, 4);
    test_sums("sums of pixels", add_pixels, (tern_shape){3, {6, 5, 32}}, 2);
    test_refused_sums(g);
    tern_graph_free(&g);
    backend->close(context);
    printf("%d failed\n", failures);
    return failures != 0;
}
