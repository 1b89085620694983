/* What is computed within a neighbour gives the bits of what is not: sums that norms make, what norms leave for
 * attention's gradient, norms within deployed products. In fp32, bf16 and fp16.
 *
 *   fused_test             one line a check; ends with the number of failures */
#include <string.h>

#include "base/random.h"
#include "nn/nodes.h"
#include "on_gpu.h"
#include "tern/graph.h"
#include "tern/pack.h"

static int failures;

static const tern_dtype types[] = {TERN_F32, TERN_BF16, TERN_F16};
enum { TYPES = sizeof types / sizeof *types };

static void check(int fine, const char *what, size_t size, tern_dtype type) {
    printf("%s  %s, %zu, %s\n", fine ? "ok    " : "FAILED", what, size, name_of(type));
    failures += !fine;
}

static void finish(tern_graph *g, const char *what) {
    tern_error err;
    must(tern_graph_check(g, &err), &err, what);
    must(tern_graph_place(g, &err), &err, what);
    tern_graph_initialise(g, 11, 0);
}

/* What a graph's inputs are made of, the same for every type: eighths. */
static float *make_inputs(size_t n, uint64_t seed) {
    float *x = room(n);
    for (size_t i = 0; i < n; i++) x[i] = (float)(int)(tern_philox(seed, i, 1).v[0] >> 28) * 0.125f - 1;
    return x;
}

/* ---- in training: the same graph with another name for a value between the two, which keeps them apart */

static tern_value between(tern_graph *g, tern_value x, int apart, size_t rows, size_t columns) {
    if (!apart) return x;
    return tern_graph_add(g, "reshape", "apart", x, &(tern_attrs){.dim = {rows, columns}});
}

/* A norm makes the sum in front of it, which is read again behind. */
static void sum_and_norm(tern_graph *g, size_t width, int apart) {
    enum { ROWS = 5 };
    const tern_value in = tern_graph_input(g, (tern_shape){2, {ROWS, 24}});
    tern_value x = tern_graph_add(g, "bit_linear", "first", in, &(tern_attrs){.outputs = width});
    tern_value y = tern_graph_add(g, "bit_linear", "second", in, &(tern_attrs){.outputs = width});
    x = tern_graph_add2(g, "add", "sum", x, y);
    y = tern_graph_add(g, "rmsnorm", "norm", between(g, x, apart, ROWS, width), NULL);
    y = tern_graph_add(g, "bit_linear", "third", y, &(tern_attrs){.outputs = width});
    tern_graph_add2(g, "add", "last", x, y);
}

/* A norm, and what reads its int8, behind attention; 256 channels in heads of this width. */
static void attention_and_norm(tern_graph *g, size_t width, int apart) {
    enum { TOKENS = 70, CHANNELS = 256 };
    const size_t heads = CHANNELS / width;
    tern_value x = tern_graph_input(g, (tern_shape){2, {TOKENS, 24}});
    x = tern_graph_add(g, "bit_linear", "qkv", x, &(tern_attrs){.outputs = 3 * CHANNELS});
    x = tern_graph_add(g, "attention", "attention", x, &(tern_attrs){.heads = heads, .rope_base = 10000});
    x = tern_graph_add(g, "rmsnorm", "norm", between(g, x, apart, TOKENS, CHANNELS), NULL);
    tern_graph_add(g, "bit_linear", "out", x, &(tern_attrs){.outputs = 40});
}

/* All that a step of training gives: values, values of an evaluation, gradients of parameters one behind another. */
static float *train_once(const tern_graph *g, size_t batch, tern_dtype type, const float *x, const float *dy,
                         size_t *count) {
    const size_t outputs = batch * g->node[g->nodes - 1].elements;
    const tern_gpu_pass pass = {.batch = batch, .train_mode = 1}, evaluation = {.batch = batch};
    tern_gpu_plan *plan;
    tern_error err;
    *count = 2 * outputs;
    for (size_t p = 0; p < g->params; p++) *count += g->param[p].count;
    float *all = room(*count), *at = all + 2 * outputs;
    memset(all, 0, *count * sizeof *all);
    must(create_on_gpu(&plan, g, batch, type, 1, 5, &err), &err, "a plan");
    must(backend->graphs->send(plan, 1, &err), &err, "a plan");
    must(backend->graphs->forward(plan, all + outputs, x, &evaluation, &err), &err, "an evaluation");
    must(backend->graphs->forward(plan, all, x, &pass, &err), &err, "a pass");
    must(backend->graphs->backward(plan, dy, &err), &err, "a pass");
    for (size_t p = 0; p < g->params; at += g->param[p++].count)
        if (tern_param_has_gradient(&g->param[p]))
            must(backend->graphs->read_gradient(plan, at, p, &err), &err, g->param[p].name);
    backend->graphs->release(plan);
    return all;
}

static void compare_apart(const char *what, void (*build)(tern_graph *g, size_t size, int apart), size_t size,
                          tern_dtype type) {
    enum { BATCH = 3 };
    float *all[2], *x = NULL, *dy = NULL;
    size_t count[2];
    for (int apart = 0; apart < 2; apart++) {
        tern_graph *g;
        tern_error err;
        must(tern_graph_create(&g, &err), &err, what);
        build(g, size, apart);
        finish(g, what);
        if (!x) x = make_inputs(BATCH * g->node[0].elements, 1);
        if (!dy) dy = make_inputs(BATCH * g->node[g->nodes - 1].elements, 2);
        all[apart] = train_once(g, BATCH, type, x, dy, &count[apart]);
        tern_graph_free(&g);
    }
    check(count[0] == count[1] && !memcmp(all[0], all[1], count[0] * sizeof **all), what, size, type);
    free(all[0]);
    free(all[1]);
    free(x);
    free(dy);
}

/* ---- deployed: a kernel that is pinned takes int8 that lies in memory, and nothing is within it */

static uint8_t *packed_trits; /* of all layers */

static tern_value add_packed(tern_graph *g, const char *name, tern_value x, size_t width) {
    static const float scale = 0.02f;
    const tern_value y =
        tern_graph_add(g, "packed_linear", name, x, &(tern_attrs){.outputs = width, .acts = TERN_I8});
    size_t bytes = 0;
    if (y < 0 || tern_packed_bytes(&bytes, TERN_PACK_T2, width, width, NULL)) exit(1);
    if (!packed_trits) {
        int8_t *trits = malloc(width * width);
        packed_trits = malloc(bytes);
        if (!trits || !packed_trits) exit(1);
        for (size_t i = 0; i < width * width; i++) trits[i] = (int8_t)((int)(tern_philox(9, i, 3).v[0] % 3) - 1);
        tern_error err;
        must(tern_pack(packed_trits, bytes, TERN_PACK_T2, trits, width, width, &err), &err, name);
        free(trits);
    }
    g->node[y].packed = (tern_packed){.packing = TERN_PACK_T2,
                                      .rows = width,
                                      .cols = width,
                                      .matrices = 1,
                                      .bytes = packed_trits,
                                      .byte_count = bytes,
                                      .scales = &scale,
                                      .scale_count = 1,
                                      .scale_kind = TERN_SCALE_TENSOR};
    return y;
}

/* All values have one size, so that each may come to lie where one ended: a norm's input that is read behind it, one
 * of squares that is not, and a norm with two readers. */
static void deployed(tern_graph *g, size_t width) {
    tern_value x = add_packed(g, "first", tern_graph_input(g, (tern_shape){1, {width}}), width), y;
    x = tern_graph_add2(g, "add", "sum1", x, tern_graph_add(g, "relu", "relu", x, NULL));
    y = add_packed(g, "second", tern_graph_add(g, "rmsnorm", "norm1", x, NULL), width);
    x = tern_graph_add2(g, "add", "sum2", x, y);
    x = tern_graph_add(g, "rmsnorm", "norm2", tern_graph_add(g, "relu2", "squares", x, NULL), NULL);
    x = add_packed(g, "third", x, width);
    x = tern_graph_add(g, "rmsnorm", "norm3", tern_graph_add(g, "gelu", "gelu", x, NULL), NULL);
    tern_graph_add2(g, "add", "sum3", x, add_packed(g, "fourth", x, width));
}

static void compare_deployed(size_t width, tern_dtype type) {
    enum { BATCH = 100 };
    tern_graph *g;
    tern_error err;
    must(tern_graph_create(&g, &err), &err, "a deployed network");
    deployed(g, width);
    finish(g, "a deployed network");
    float *x = make_inputs(BATCH * width, 4), *y[2];
    const tern_gpu_pass pass = {.batch = BATCH};
    for (int pinned = 0; pinned < 2; pinned++) {
        const tern_gpu_plan_desc d = {.graph = g,
                                      .batch_max = BATCH,
                                      .values = type,
                                      .pinned = pinned ? TERN_DEVICE_KERNEL_TILED : TERN_DEVICE_KERNEL_AUTO};
        tern_gpu_plan *plan;
        y[pinned] = room(BATCH * width);
        must(create_as(&plan, d, &err), &err, "a deployed network");
        must(backend->graphs->send(plan, 1, &err), &err, "a deployed network");
        must(backend->graphs->forward(plan, y[pinned], x, &pass, &err), &err, "a deployed network");
        backend->graphs->release(plan);
    }
    check(!memcmp(y[0], y[1], BATCH * width * sizeof **y), "norms within deployed products", width, type);
    free(x);
    free(y[0]);
    free(y[1]);
    free(packed_trits);
    packed_trits = NULL;
    tern_graph_free(&g);
}

int main(void) {
    static const size_t sums[] = {37, 256, 768, 1000, 3072}, heads[] = {32, 64, 128}, networks[] = {256, 768};
    if (open_gpu()) return SKIPPED;
    for (int t = 0; t < TYPES; t++) /* first: beside a plan for training no kernel begins before the last one ends */
        for (size_t i = 0; i < sizeof networks / sizeof *networks; i++) compare_deployed(networks[i], types[t]);
    for (int t = 0; t < TYPES; t++) {
        for (size_t i = 0; i < sizeof sums / sizeof *sums; i++)
            compare_apart("a sum that a norm makes", sum_and_norm, sums[i], types[t]);
        for (size_t i = 0; i < sizeof heads / sizeof *heads; i++)
            compare_apart("a norm behind attention", attention_and_norm, heads[i], types[t]);
    }
    backend->close(context);
    printf("%d failed\n", failures);
    return failures != 0;
}
