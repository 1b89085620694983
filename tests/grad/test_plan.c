/* Plans: the number of threads changes no bit, memory is shared only by what is not alive together, deployed weights
 * compute what their latents did, and graphs that cannot be are refused by the name of their node. */
#include "base/checked.h"
#include "base/random.h"
#include "nn/arena.h"
#include "nn/loss.h"
#include "nn/op.h"
#include "nn/plan.h"
#include "nn/ternary_weights.h"
#include "tern/pack.h"
#include "testing.h"

static tern_error err;

/* ---- networks that together have every op */

static tern_graph *image_network(void) {
    tern_graph *g;
    OK(tern_graph_create(&g, &err));
    tern_value x = tern_graph_input(g, (tern_shape){3, {13, 12, 3}});
    x = tern_graph_add(g, "affine", "front", x, NULL);
    tern_value a = tern_graph_add(g, "conv2d", "conv", x, &(tern_attrs){.outputs = 8, .kernel = 3, .bias = 1});
    tern_value b = tern_graph_add(g, "ternary_conv2d", "tconv", x, &(tern_attrs){.outputs = 8, .kernel = 3});
    x = tern_graph_add2(g, "add", "join", a, b);
    x = tern_graph_add(g, "batch_norm", "norm1", x, NULL);
    x = tern_graph_add(g, "relu", "relu", x, NULL);
    x = tern_graph_add(g, "max_pool", "pool1", x, &(tern_attrs){.kernel = 3, .stride = 2, .padding = 1});
    a = tern_graph_add(
        g, "bit_conv2d", "bconv", x,
        &(tern_attrs){.outputs = 16, .kernel = 3, .padding = 1, .groups = 2, .bias = 1, .granularity = 1});
    b = tern_graph_add(g, "conv2d", "skip", x, &(tern_attrs){.outputs = 16, .frozen = 1});
    a = tern_graph_add(g, "gelu", "gelu", a, NULL);
    x = tern_graph_add2(g, "mul", "gate", a, b);
    x = tern_graph_add(g, "batch_norm", "norm2", x, &(tern_attrs){.plain = 1});
    x = tern_graph_add(g, "avg_pool", "pool2", x, &(tern_attrs){.kernel = 2});
    x = tern_graph_add(g, "flatten", "flat", x, NULL);
    x = tern_graph_add(g, "dropout", "drop", x, &(tern_attrs){.rate = 0.25f});
    a = tern_graph_add(g, "ternary_linear", "tfc", x, &(tern_attrs){.outputs = 40, .bias = 1, .granularity = 1});
    b = tern_graph_add(g, "bit_linear", "bfc", x, &(tern_attrs){.outputs = 40});
    x = tern_graph_add2(g, "add", "join2", a, b);
    x = tern_graph_add(g, "layernorm", "norm3", x, NULL);
    a = tern_graph_add(g, "reshape", "rows", x, &(tern_attrs){.dim = {5, TERN_REST}});
    a = tern_graph_add(g, "silu", "silu", a, NULL);
    a = tern_graph_add(g, "reshape", "row", a, &(tern_attrs){.dim = {40}});
    x = tern_graph_add2(g, "add", "join3", a, x);
    x = tern_graph_add(g, "linear", "head", x, &(tern_attrs){.outputs = 10});
    tern_graph_add(g, "scale", "logits", x, &(tern_attrs){.factor = 0.1f});
    return g;
}

static tern_graph *text_network(void) {
    tern_graph *g;
    OK(tern_graph_create(&g, &err));
    tern_value x = tern_graph_input_tokens(g, 19, 23), y;
    x = tern_graph_add(g, "embedding", "embedding", x, &(tern_attrs){.width = 48, .init_gain = 0.5f});
    y = tern_graph_add(g, "rmsnorm", "norm1", x, NULL);
    y = tern_graph_add(g, "bit_linear", "qkv", y, &(tern_attrs){.outputs = 96});
    y = tern_graph_add(g, "attention", "attention", y, &(tern_attrs){.heads = 4, .kv_heads = 2, .rope_base = 10000});
    y = tern_graph_add(g, "bit_linear", "out", y, &(tern_attrs){.outputs = 48});
    x = tern_graph_add2(g, "add", "add1", x, y);
    y = tern_graph_add(g, "rmsnorm", "norm2", x, &(tern_attrs){.plain = 1});
    y = tern_graph_add(g, "bit_linear", "up", y, &(tern_attrs){.outputs = 96});
    y = tern_graph_add(g, "relu2", "relu2", y, NULL);
    y = tern_graph_add(g, "bit_linear", "down", y, &(tern_attrs){.outputs = 48});
    x = tern_graph_add2(g, "add", "add2", x, y);
    tern_graph_add(g, "linear", "head", x, &(tern_attrs){.outputs = 23});
    return g;
}

/* The same of whole numbers; that they learn is another test (test_trit.c). */
static tern_graph *whole_image_network(void) {
    tern_graph *g;
    OK(tern_graph_create(&g, &err));
    tern_value x = tern_graph_input(g, (tern_shape){3, {9, 8, 4}});
    x = tern_graph_add(g, "trit_conv2d", "conv", x, &(tern_attrs){.outputs = 12, .kernel = 3, .bias = 1, .group = 8});
    x = tern_graph_add(g, "batch_norm", "norm1", x, &(tern_attrs){.integers = 1});
    x = tern_graph_add(g, "relu", "relu", x, NULL);
    x = tern_graph_add(
        g, "trit_conv2d", "grouped", x,
        &(tern_attrs){.outputs = 6, .kernel = 3, .groups = 2, .floats = 1, .update = TERN_UPDATE_VOTE});
    x = tern_graph_add(g, "flatten", "flat", x, NULL);
    x = tern_graph_add(g, "trit_linear", "fc1", x, &(tern_attrs){.outputs = 30, .bias = 1, .granularity = 1});
    x = tern_graph_add(g, "trit_linear", "fc2", x, &(tern_attrs){.outputs = 30, .update = TERN_UPDATE_SEED_CORR});
    x = tern_graph_add(g, "trit_linear", "fc3", x,
                       &(tern_attrs){.outputs = 30, .update = TERN_UPDATE_SEED_CORR, .same_as = 7});
    tern_graph_add(g, "linear", "head", x, &(tern_attrs){.outputs = 10, .integers = 1});
    return g;
}

static tern_graph *whole_text_network(void) {
    tern_graph *g;
    OK(tern_graph_create(&g, &err));
    tern_value x = tern_graph_input_tokens(g, 19, 23), y;
    x = tern_graph_add(g, "trit_embedding", "embedding", x, &(tern_attrs){.width = 48, .init_gain = 0.5f});
    y = tern_graph_add(g, "trit_rmsnorm", "norm1", x, NULL);
    y = tern_graph_add(g, "trit_linear", "up", y, &(tern_attrs){.outputs = 64, .update = TERN_UPDATE_R1});
    y = tern_graph_add(g, "relu2", "relu2", y, NULL);
    y = tern_graph_add(g, "trit_linear", "down", y, &(tern_attrs){.outputs = 48, .group = 32});
    x = tern_graph_add2(g, "add", "add", x, y);
    tern_graph_add(g, "trit_linear", "head", x, &(tern_attrs){.outputs = 23, .floats = 1, .granularity = 1});
    return g;
}

typedef tern_graph *(*network)(void);
static const network networks[] = {image_network, text_network, whole_image_network, whole_text_network};
enum { NETWORKS = sizeof networks / sizeof *networks };

static tern_graph *build(network make) {
    tern_graph *g = make();
    OK(tern_graph_check(g, &err));
    OK(tern_graph_place(g, &err));
    tern_graph_initialise(g, 3, 0);
    for (size_t p = 0; p < g->params; p++)
        if (g->param[p].role == TERN_ROLE_GAIN || g->param[p].role == TERN_ROLE_BIAS)
            for (size_t i = 0; i < g->param[p].count; i++) g->param[p].value[i] += 0.2f * tern_random_signed(p, i);
    return g;
}

static void test_every_op_is_here(void **state) {
    (void)state;
    tern_graph *g[NETWORKS];
    for (int k = 0; k < NETWORKS; k++) g[k] = networks[k]();
    const char *op;
    for (size_t i = 0; (op = tern_op_name(i)) != NULL; i++) {
        int found = !strncmp(op, "packed_", 7); /* below */
        for (int k = 0; k < NETWORKS; k++)
            for (size_t n = 0; n < g[k]->nodes; n++) found |= !strcmp(g[k]->node[n].op->name, op);
        if (!found) fail_msg("no network of this test has the op %s", op);
    }
    assert_null(tern_op_name(1000));
    for (int k = 0; k < NETWORKS; k++) tern_graph_free(&g[k]);
}

enum { BATCH_MAX = 21 };

/* What a step leaves behind, one array behind the other. */
typedef struct record {
    float *value;
    size_t count;
} record;

static void keep(record *r, const float *from, size_t n) {
    r->value = realloc(r->value, (r->count + n + 1) * sizeof *r->value);
    assert_non_null(r->value);
    memcpy(r->value + r->count, from, n * sizeof *from);
    r->count += n;
}

static void step(record *r, tern_plan *plan, size_t batch) {
    tern_graph *g = plan->graph;
    size_t in = batch * g->node[0].elements, out = batch * g->node[g->nodes - 1].elements;
    float *x = calloc(in, sizeof *x);
    for (size_t i = 0; i < in; i++)
        if (g->vocabulary)
            ((int32_t *)(void *)x)[i] = (int32_t)(tern_random_u32(batch, i) % g->vocabulary);
        else
            x[i] = tern_random_normal(batch, i);
    plan->step = batch;
    plan->seed = 5;
    plan->train_mode = 1;
    keep(r, tern_plan_forward(plan, x, batch), out);
    float *dy = tern_plan_output_grad(plan);
    for (size_t i = 0; i < out; i++) dy[i] = tern_random_normal(batch + 50, i);
    tern_plan_zero_grad(plan);
    tern_plan_backward(plan);
    keep(r, plan->node[1].grad, batch * g->node[1].elements);
    keep(r, plan->grads.data, plan->gradients);
    plan->train_mode = 0;
    keep(r, tern_plan_forward(plan, x, batch), out);
    for (size_t p = 0; p < g->params; p++) /* running statistics */
        if (g->param[p].value) keep(r, g->param[p].value, g->param[p].count);
    OK(tern_dnn_check(plan->dnn, NULL));
    free(x);
}

/* A backward pass that ends at a node: gradients from there on are those of a whole pass, those in front stay
 * zeros. */
static void test_ends_at_first_trained(void **state) {
    (void)state;
    for (int k = 0; k < 2; k++) { /* whole numbers step in the pass */
        tern_graph *g = build(networks[k]);
        tern_plan *plan;
        tern_plan_desc desc = {.batch_max = 3, .training = 1, .threads = 1, .products = TERN_F32};
        OK(tern_plan_create(&plan, g, &desc, &err));
        plan->lambda = 1;
        OK(tern_plan_refresh(plan, &err));
        record r = {0}, before_it = {0};
        step(&r, plan, 3);
        keep(&before_it, plan->grads.data, plan->gradients);
        plan->first_trained = g->nodes / 2;
        step(&r, plan, 3);
        for (size_t p = 0; p < g->params; p++) {
            const float *now = plan->param_grad[p];
            if (!now) continue;
            const float *before = before_it.value + (now - (const float *)plan->grads.data);
            for (size_t i = 0; i < g->param[p].count; i++)
                assert_true(now[i] == ((size_t)g->param[p].node < plan->first_trained ? 0 : before[i]));
        }
        free(r.value);
        free(before_it.value);
        tern_plan_free(&plan);
        tern_graph_free(&g);
    }
}

static record run(network make, int threads, tern_dtype products, float lambda) {
    static const size_t batches[] = {BATCH_MAX, 1, 16};
    tern_graph *g = build(make);
    tern_plan *plan;
    tern_plan_desc desc = {.batch_max = BATCH_MAX, .training = 1, .threads = threads, .products = products};
    OK(tern_plan_create(&plan, g, &desc, &err));
    plan->lambda = lambda;
    OK(tern_plan_refresh(plan, &err));
    record r = {0};
    for (size_t i = 0; i < sizeof batches / sizeof *batches; i++) step(&r, plan, batches[i]);
    tern_plan_free(&plan);
    tern_graph_free(&g);
    return r;
}

static int bf16_works(void) {
    tern_dnn *dnn;
    uint16_t a[4] = {0}, b[4] = {0};
    float c[4];
    OK(tern_dnn_create(&dnn, 1, &err));
    tern_gemm g = {TERN_BF16, 0, 0, 0, 2, 2, 2, a, 2, b, 2, c, 2};
    tern_dnn_gemm(dnn, &g);
    int works = !tern_dnn_check(dnn, NULL);
    tern_dnn_free(&dnn);
    return works;
}

static void test_threads_change_no_bit(void **state) {
    (void)state;
    int bf16 = bf16_works();
    for (size_t n = 0; n < NETWORKS; n++)
        for (int products = 0; products <= bf16; products++)
            for (int mixed = 0; mixed < 2 - products; mixed++) {
                record one = run(networks[n], 1, (tern_dtype)products, mixed ? 0.4f : 1);
                for (size_t i = 0; i < one.count; i++)
                    if (!isfinite(one.value[i])) fail_msg("network %zu: value %zu is not finite", n, i);
                for (int threads = 2; threads <= 3; threads++) {
                    record more = run(networks[n], threads, (tern_dtype)products, mixed ? 0.4f : 1);
                    assert_int_equal(more.count, one.count);
                    for (size_t i = 0; i < one.count; i++)
                        if (memcmp(&one.value[i], &more.value[i], sizeof(float)))
                            fail_msg("network %zu, products %d: value %zu is %.9g with %d threads, %.9g with one", n,
                                     products, i, (double)more.value[i], threads, (double)one.value[i]);
                    free(more.value);
                }
                free(one.value);
            }
}

/* Each value is also drawn alone: of three parts, the last one short. */
static void test_threads_change_no_initial_value(void **state) {
    (void)state;
    tern_graph *g;
    OK(tern_graph_create(&g, &err));
    tern_value x = tern_graph_input(g, (tern_shape){1, {211}});
    tern_graph_add(g, "linear", "layer", x, &(tern_attrs){.outputs = 199});
    OK(tern_graph_check(g, &err));
    OK(tern_graph_place(g, &err));
    const tern_param *w = &g->param[0];
    assert_int_equal(w->count, 211 * 199);
    for (int threads = 1; threads <= 4; threads++) {
        memset(w->value, 0xff, w->count * sizeof *w->value);
        tern_graph_initialise(g, 9, threads);
        for (size_t i = 0; i < w->count; i++) {
            const float v = w->init_mean + w->init_sigma * tern_random_normal(tern_stream(9, 0), i);
            if (memcmp(&v, &w->value[i], sizeof v)) fail_msg("value %zu with %d threads", i, threads);
        }
    }
    tern_graph_free(&g);
}

/* ---- memory */

static void test_arena(void **state) {
    (void)state;
    for (uint64_t trial = 0; trial < 300; trial++) {
        tern_span span[48], asked[48];
        size_t count = tern_random_u32(trial, 0) % 48, sum = 0;
        for (size_t i = 0; i < count; i++) {
            uint32_t r[3];
            for (uint64_t k = 0; k < 3; k++) r[k] = tern_random_u32(trial, 3 * i + k + 1);
            size_t first = r[0] % 40;
            span[i] = (tern_span){.bytes = r[1] % 9 ? r[1] % 5000 : 0, .first = first, .last = first + r[2] % 12};
            asked[i] = span[i];
            sum += tern_round_up(span[i].bytes, 64);
        }
        size_t total = tern_arena_plan(span, count), peak = 0;
        assert_in_range(total, 0, sum);
        for (size_t i = 0; i < count; i++) {
            assert_int_equal(span[i].offset % 64, 0);
            assert_true(asked[i].bytes <= span[i].bytes && span[i].offset + span[i].bytes <= total);
            size_t alive = 0;
            for (size_t j = 0; j < count; j++) {
                if (span[j].first > span[i].first || span[j].last < span[i].first) continue;
                alive += span[j].bytes;
                if (i == j || !span[i].bytes || !span[j].bytes) continue;
                if (span[i].offset < span[j].offset + span[j].bytes &&
                    span[j].offset < span[i].offset + span[i].bytes)
                    fail_msg("trial %d: spans %zu and %zu are alive together and overlap", (int)trial, i, j);
            }
            peak = tern_max_size(peak, alive);
        }
        assert_true(total >= peak);
    }
}

/* A chain needs two neighbours at a time, not all of its values. */
static void test_arena_shares(void **state) {
    (void)state;
    tern_span chain[10];
    for (size_t i = 0; i < 10; i++) chain[i] = (tern_span){.bytes = 640, .first = i, .last = i + 1};
    assert_int_equal(tern_arena_plan(chain, 10), 2 * 640);
    assert_int_equal(tern_arena_plan(chain, 0), 0);
}

/* An arena of its own for inference is smaller, and the values that lie closer in it are the same. */
static void test_inference(void **state) {
    (void)state;
    for (size_t n = 0; n < NETWORKS; n++) {
        tern_graph *g = build(networks[n]);
        tern_plan *training, *inference;
        tern_plan_desc desc = {.batch_max = BATCH_MAX, .training = 1, .threads = 2};
        OK(tern_plan_create(&training, g, &desc, &err));
        desc.training = 0;
        OK(tern_plan_create(&inference, g, &desc, &err));
        size_t all = 0;
        for (size_t i = 1; i < g->nodes; i++) all += g->node[i].elements * BATCH_MAX * sizeof(float);
        assert_true(inference->arena_bytes < training->arena_bytes);
        assert_true(inference->arena_bytes < all);
        assert_true(training->arena_bytes < 2 * all);
        assert_true(inference->scratch_bytes <= training->scratch_bytes);
        assert_int_equal(inference->gradients, 0);
        assert_null(tern_plan_output_grad(inference));
        size_t in = BATCH_MAX * g->node[0].elements, out = BATCH_MAX * g->node[g->nodes - 1].elements;
        float *x = calloc(in, sizeof *x), *kept = malloc(out * sizeof *kept);
        for (size_t i = 0; !g->vocabulary && i < in; i++) x[i] = tern_random_normal(8, i);
        OK(tern_plan_refresh(training, &err));
        OK(tern_plan_refresh(inference, &err));
        memcpy(kept, tern_plan_forward(training, x, BATCH_MAX), out * sizeof *kept);
        assert_memory_equal(tern_plan_forward(inference, x, BATCH_MAX), kept, out * sizeof *kept);
        free(x);
        free(kept);
        tern_plan_free(&training);
        tern_plan_free(&inference);
        tern_graph_free(&g);
    }
}

/* Runs node by node: whatever the backward pass reads is what the last writer left there. */
static void test_nothing_is_overwritten(void **state) {
    (void)state;
    for (size_t n = 0; n < NETWORKS; n++) {
        tern_graph *g = build(networks[n]);
        tern_plan *plan;
        OK(tern_plan_create(&plan, g, &(tern_plan_desc){.batch_max = 3, .training = 1, .threads = 1}, &err));
        OK(tern_plan_refresh(plan, &err));
        plan->batch = 3;
        plan->train_mode = 1;
        float *value[64] = {0}, *grad[64] = {0}, *x = calloc(3 * g->node[0].elements, sizeof *x);
        assert_in_range(g->nodes, 1, 64);
        plan->node[0].value = x;
        for (size_t i = 0; i < g->nodes; i++) {
            if (i && g->node[i].op->alias) plan->node[i].value = tern_plan_in(plan, i, 0);
            if (i && !g->node[i].op->alias) g->node[i].op->forward(plan, i);
            size_t bytes = 3 * g->node[i].elements * sizeof(float);
            value[i] = malloc(bytes);
            memcpy(value[i], plan->node[i].value, bytes);
            grad[i] = calloc(1, bytes);
        }
        size_t last = g->nodes - 1;
        for (size_t i = 0; i < 3 * g->node[last].elements; i++)
            grad[last][i] = plan->node[last].grad[i] = tern_random_normal(7, i);
        for (size_t i = last; i > 0; i--) {
            const tern_node *node = &g->node[i];
            size_t bytes = 3 * node->elements * sizeof(float);
            if (!plan->node[i].grad) continue;
            if (memcmp(plan->node[i].grad, grad[i], bytes))
                fail_msg("the gradient of %s was written over", node->name);
            if (node->op->needs_output && memcmp(plan->node[i].value, value[i], bytes))
                fail_msg("the value of %s was written over", node->name);
            for (int k = 0; k < node->inputs; k++) {
                size_t in = (size_t)node->input[k];
                if (node->op->needs_input &&
                    memcmp(plan->node[in].value, value[in], 3 * g->node[in].elements * sizeof(float)))
                    fail_msg("%s's input %s was written over", node->name, g->node[in].name);
            }
            if (!node->op->alias) node->op->backward(plan, i);
            for (int k = 0; k < node->inputs; k++) {
                size_t in = (size_t)node->input[k];
                if (plan->node[i].wants_grad[k])
                    memcpy(grad[in], plan->node[in].grad, 3 * g->node[in].elements * sizeof(float));
            }
        }
        for (size_t i = 0; i < g->nodes; i++) {
            free(value[i]);
            free(grad[i]);
        }
        free(x);
        tern_plan_free(&plan);
        tern_graph_free(&g);
    }
}

/* ---- deployed weights */

typedef struct packed_bytes {
    uint8_t *trits;
    float *scales;
} packed_bytes;

static packed_bytes pack_node(tern_node *to, const tern_ternary_weights *w, tern_packing packing) {
    packed_bytes b;
    size_t each, rows = w->rows / w->groups, scales = w->granularity == TERN_PER_ROW ? w->rows : 1;
    OK(tern_packed_bytes(&each, packing, rows, w->cols, &err));
    b.trits = malloc(each * w->groups);
    b.scales = malloc(scales * sizeof(float));
    for (size_t g = 0; g < w->groups; g++)
        OK(tern_pack(b.trits + g * each, each, packing, w->trits + g * rows * w->cols, rows, w->cols, &err));
    memcpy(b.scales, w->scales, scales * sizeof(float));
    to->packed = (tern_packed){.packing = packing,
                               .rows = rows,
                               .cols = w->cols,
                               .matrices = w->groups,
                               .bytes = b.trits,
                               .byte_count = each * w->groups,
                               .scales = b.scales,
                               .scale_count = w->granularity == TERN_PER_ROW ? rows : 1,
                               .scale_kind = w->granularity == TERN_PER_ROW ? TERN_SCALE_ROW : TERN_SCALE_TENSOR};
    return b;
}

static void check_packed(const char *op, tern_shape shape, tern_attrs at, tern_packing packing, int threads) {
    enum { BATCH = 9 };
    tern_graph *latent, *deployed;
    tern_plan *plan, *packed;
    tern_plan_desc desc = {.batch_max = BATCH + 3, .threads = 2};
    OK(tern_graph_create(&latent, &err));
    tern_graph_add(latent, op, "op", tern_graph_input(latent, shape), &at);
    OK(tern_graph_place(latent, &err));
    tern_graph_initialise(latent, 9, 0);
    OK(tern_plan_create(&plan, latent, &desc, &err));
    OK(tern_plan_refresh(plan, &err));

    OK(tern_graph_create(&deployed, &err));
    at.acts = op[0] == 'b' ? TERN_I8 : TERN_F32;
    const char *packed_op = strstr(op, "conv") ? "packed_conv2d" : "packed_linear";
    tern_graph_add(deployed, packed_op, "op", tern_graph_input(deployed, shape), &at);
    OK(tern_graph_place(deployed, &err));
    desc.threads = threads;
    assert_int_equal(tern_plan_create(&packed, deployed, &desc, &err), TERN_E_DATA);
    assert_non_null(strstr(err.message, "op: its packed weights are missing"));
    packed_bytes bytes = pack_node(&deployed->node[1], tern_plan_ternary(plan, 1), packing);
    desc.training = 1;
    assert_int_equal(tern_plan_create(&packed, deployed, &desc, &err), TERN_E_UNSUPPORTED);
    desc.training = 0;
    OK(tern_plan_create(&packed, deployed, &desc, &err));
    OK(tern_plan_refresh(packed, &err));
    if (at.bias) {
        memcpy(deployed->param[0].value, latent->param[1].value, latent->param[1].count * sizeof(float));
        for (size_t i = 0; i < latent->param[1].count; i++)
            latent->param[1].value[i] = deployed->param[0].value[i] = tern_random_normal(4, i);
    }

    size_t in = BATCH * latent->node[0].elements, out = BATCH * latent->node[1].elements;
    float *x = malloc(in * sizeof *x);
    for (size_t i = 0; i < in; i++) x[i] = tern_random_normal(6, i);
    const float *want = tern_plan_forward(plan, x, BATCH), *got = tern_plan_forward(packed, x, BATCH);
    if (at.acts == TERN_I8) assert_memory_equal(got, want, out * sizeof(float));
    /* Float sums take the order of their packing's layout. */
    for (size_t i = 0; i < out; i++)
        if (!(fabsf(got[i] - want[i]) <= 1e-4f)) fail_msg("%s: output %zu differs", op, i);
    free(x);
    free(bytes.trits);
    free(bytes.scales);
    tern_plan_free(&plan);
    tern_plan_free(&packed);
    tern_graph_free(&latent);
    tern_graph_free(&deployed);
}

static void test_packed(void **state) {
    (void)state;
    const tern_shape row = {1, {100}}, rows = {2, {5, 64}}, image = {3, {9, 8, 12}};
    for (int threads = 1; threads <= 3; threads++)
        for (int kind = 0; kind < 2; kind++) {
            const char *linear = kind ? "bit_linear" : "ternary_linear";
            const char *conv = kind ? "bit_conv2d" : "ternary_conv2d";
            check_packed(linear, row, (tern_attrs){.outputs = 30, .bias = 1}, TERN_PACK_T5, threads);
            check_packed(linear, rows, (tern_attrs){.outputs = 17, .granularity = 1}, TERN_PACK_T2, threads);
            check_packed(conv, image, (tern_attrs){.outputs = 20, .kernel = 3, .padding = 1, .bias = 1}, TERN_PACK_T2,
                         threads);
            check_packed(
                conv, image,
                (tern_attrs){.outputs = 24, .kernel = 3, .stride = 2, .groups = 4, .bias = 1, .granularity = 1},
                TERN_PACK_T5, threads);
            for (int granularity = 0; granularity < 2; granularity++)
                check_packed(
                    conv, image,
                    (tern_attrs){.outputs = 12, .kernel = 3, .padding = 1, .groups = 12, .granularity = granularity},
                    granularity ? TERN_PACK_T5 : TERN_PACK_T2, threads);
        }
}

/* ---- hostile graphs */

typedef struct hostile {
    const char *op;
    tern_shape shape;
    tern_attrs at;
    const char *message;
} hostile;

#define BIG ((size_t)1 << 40)
#define WRAP ((size_t)1 << 32) /* its square is 0 */
#define IMAGE          \
    {                  \
        3, { 6, 6, 4 } \
    }
#define SEQUENCE     \
    {                \
        2, { 5, 12 } \
    }

static const hostile cases[] = {
    {"linear", IMAGE, {0}, "outputs is 0"},
    {"bit_linear", IMAGE, {0}, "outputs is 0"},
    {"conv2d", IMAGE, {.kernel = 3}, "outputs is 0"},
    {"ternary_conv2d", IMAGE, {.kernel = 3}, "outputs is 0"},
    {"packed_linear", IMAGE, {0}, "outputs is 0"},
    {"linear", IMAGE, {.outputs = BIG}, "too large"},
    {"linear", {1, {(size_t)1 << 20}}, {.outputs = (size_t)1 << 20}, "too large"},
    {"linear", IMAGE, {.outputs = SIZE_MAX}, "too large"},
    {"packed_linear", IMAGE, {.outputs = BIG}, "too large"},
    {"conv2d", IMAGE, {.outputs = BIG, .kernel = 3}, "too large"},
    {"conv2d", IMAGE, {.outputs = 8, .kernel = 7}, "does not fit"},
    {"max_pool", IMAGE, {.kernel = 9}, "does not fit"},
    {"conv2d", SEQUENCE, {.outputs = 8, .kernel = 3}, "an image has 3"},
    {"avg_pool", SEQUENCE, {0}, "an image has 3"},
    {"avg_pool", {3, {6, 5, 4}}, {0}, "a square one"},
    {"avg_pool", IMAGE, {.kernel = 2, .padding = 1}, "takes no padding"},
    {"conv2d", IMAGE, {.outputs = 8, .kernel = 3, .padding = 3}, "must be smaller"},
    {"conv2d", IMAGE, {.outputs = 8, .kernel = 3, .groups = 3}, "do not divide"},
    {"conv2d", IMAGE, {.outputs = 6, .kernel = 3, .groups = 4}, "do not divide"},
    {"bit_conv2d", IMAGE, {.outputs = 8, .kernel = 3, .groups = SIZE_MAX}, "do not divide"},
    /* Windows whose size wraps round, and padding that makes them fit. */
    {"conv2d", IMAGE, {.outputs = 8, .kernel = WRAP, .padding = WRAP - 1, .stride = WRAP}, "kernel"},
    {"packed_conv2d", IMAGE, {.outputs = 8, .kernel = WRAP, .padding = WRAP - 1, .stride = WRAP}, "kernel"},
    {"bit_conv2d", IMAGE, {.outputs = 8, .kernel = BIG, .padding = BIG - 1, .stride = BIG}, "kernel"},
    {"max_pool", {3, {3, 3, 4}}, {.kernel = SIZE_MAX, .padding = SIZE_MAX - 1}, "kernel"},
    {"conv2d", IMAGE, {.outputs = 8, .kernel = 3, .stride = SIZE_MAX, .padding = SIZE_MAX}, "must be smaller"},
    /* What means something to other ops only. */
    {"linear", IMAGE, {.outputs = 8, .groups = 2}, "window"},
    {"packed_linear", IMAGE, {.outputs = 8, .groups = 1}, "window"},
    {"ternary_linear", IMAGE, {.outputs = 8, .kernel = 3}, "window"},
    {"bit_linear", IMAGE, {.outputs = 8, .rule = 4}, "rule 4"},
    {"bit_conv2d", IMAGE, {.outputs = 8, .rule = -1}, "rule -1"},
    {"ternary_linear", IMAGE, {.outputs = 8, .granularity = 2}, "granularity 2"},
    {"packed_linear", IMAGE, {.outputs = 8, .granularity = 7}, "granularity 7"},
    {"packed_linear", IMAGE, {.outputs = 8, .acts = TERN_BF16}, "acts 1"},
    {"embedding", SEQUENCE, {.width = 8}, "input of tokens"},
    {"rmsnorm", IMAGE, {.epsilon = -1}, "epsilon"},
    {"layernorm", IMAGE, {.epsilon = NAN}, "epsilon"},
    {"batch_norm", IMAGE, {.epsilon = 1}, "epsilon"},
    {"batch_norm", IMAGE, {.momentum = 1.5f}, "momentum"},
    {"dropout", IMAGE, {.rate = 1}, "rate"},
    {"dropout", IMAGE, {.rate = NAN}, "rate"},
    {"scale", IMAGE, {0}, "factor"},
    {"scale", IMAGE, {.factor = INFINITY}, "factor"},
    {"attention", SEQUENCE, {0}, "heads is 0"},
    {"attention", SEQUENCE, {.heads = 3}, "multiple"},
    {"attention", SEQUENCE, {.heads = 3, .kv_heads = 2}, "multiple"},
    {"attention", SEQUENCE, {.heads = 2, .kv_heads = 4}, "multiple"},
    {"attention", SEQUENCE, {.heads = BIG, .kv_heads = 1}, "multiple"},
    {"attention", SEQUENCE, {.heads = 4, .rope_base = 100}, "even head width"},
    {"attention", SEQUENCE, {.heads = 2, .rope_base = NAN}, "positive base"},
    {"attention", IMAGE, {.heads = 2}, "a sequence has 2"},
    {"attention", {2, {(size_t)1 << 30, 3}}, {.heads = 1}, "tokens"}, /* the square of which wraps round */
    {"trit_linear", IMAGE, {0}, "outputs is 0"},
    {"trit_conv2d", IMAGE, {.outputs = 8, .kernel = 7}, "does not fit"},
    {"trit_conv2d", IMAGE, {.outputs = BIG, .kernel = 3}, "too large"},
    {"trit_linear", IMAGE, {.outputs = 8, .update = 6}, "update 6"},
    {"trit_conv2d", IMAGE, {.outputs = 8, .update = 99}, "update 99"},
    {"trit_linear", IMAGE, {.outputs = 8, .update = -1}, "update -1"},
    {"trit_linear", IMAGE, {.outputs = 8, .granularity = 2}, "granularity 2"},
    {"trit_linear", IMAGE, {.outputs = 8, .group = 1}, "groups of 1 columns"},
    {"trit_linear", IMAGE, {.outputs = 8, .group = 5}, "groups of 5 columns"},
    {"trit_conv2d", IMAGE, {.outputs = 8, .kernel = 3, .group = 40}, "groups of 40 columns"},
    {"trit_linear", IMAGE, {.outputs = 8, .group = SIZE_MAX - 3}, "columns"},
    {"trit_linear", IMAGE, {.outputs = 8, .group = BIG}, "columns"},
    {"trit_linear", IMAGE, {.outputs = 8, .group = 4, .update = TERN_UPDATE_SEED_CORR}, "seed-corr"},
    {"packed_linear", IMAGE, {.outputs = 8, .group = 5}, "groups of 5 columns"},
    {"packed_conv2d", IMAGE, {.outputs = 8, .kernel = 3, .group = BIG}, "columns"},
    {"trit_embedding", SEQUENCE, {.width = 8}, "input of tokens"},
    {"packed_embedding", SEQUENCE, {.width = 8}, "input of tokens"},
    {"trit_rmsnorm", IMAGE, {.epsilon = NAN}, "epsilon"},
    {"linear", IMAGE, {.outputs = 8, .group = 4}, "group"},
    {"bit_linear", IMAGE, {.outputs = 8, .group = 4}, "group"},
    {"bit_linear", IMAGE, {.outputs = 8, .slow_exponents = 1}, "slow_exponents"},
    {"rmsnorm", IMAGE, {.update = 1}, "update"},
    {"trit_linear", IMAGE, {.outputs = 8, .frozen = 1}, "frozen"},
    {"trit_linear", IMAGE, {.outputs = 8, .same_as = 1}, "same_as 1"},
    {"trit_linear", IMAGE, {.outputs = 8, .same_as = SIZE_MAX}, "same_as"},
    {"relu", IMAGE, {.same_as = 1}, "same_as"},
    {"reshape", IMAGE, {0}, "no dim"},
    {"reshape", IMAGE, {.dim = {5, 7}}, "35 elements for an input of 144"},
    {"reshape", IMAGE, {.dim = {288}}, "288 elements for an input of 144"},
    {"reshape", IMAGE, {.dim = {7, TERN_REST}}, "do not divide 144"},
    {"reshape", IMAGE, {.dim = {288, TERN_REST}}, "do not divide 144"},
    {"reshape", IMAGE, {.dim = {TERN_REST, 2, TERN_REST}}, "more than one"},
    {"reshape", IMAGE, {.dim = {144, 0, 1}}, "behind one of 0"},
    {"reshape", IMAGE, {.dim = {0, 144}}, "no dim"},
    {"reshape", IMAGE, {.dim = {WRAP, WRAP, 144}}, "too large"},
    {"reshape", IMAGE, {.dim = {BIG, BIG, TERN_REST}}, "do not divide 144"},
    {"nonsense", IMAGE, {0}, "no operation 'nonsense'"},
    {"input", IMAGE, {0}, "no operation 'input'"},
    {"add", IMAGE, {0}, "takes 2"},
};

static void check_refused(tern_graph *g, const char *name, const char *message) {
    tern_error e = {0};
    assert_int_not_equal(tern_graph_check(g, &e), TERN_OK);
    if (!strstr(e.message, name) || !strstr(e.message, message))
        fail_msg("'%s' does not name %s and say '%s'", e.message, name, message);
    assert_int_equal(tern_graph_add(g, "relu", "after", 0, NULL), -1); /* the first failure stays */
    tern_error again = {0};
    tern_graph_check(g, &again);
    assert_string_equal(again.message, e.message);
    tern_graph_free(&g);
}

static void test_hostile_attributes(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const hostile *c = &cases[i];
        tern_graph *g;
        OK(tern_graph_create(&g, &err));
        tern_value x = tern_graph_input(g, c->shape);
        size_t params = g->params;
        if (tern_graph_add(g, c->op, "culprit", x, &c->at) >= 0)
            fail_msg("case %zu, %s: accepted; it should say '%s'", i, c->op, c->message);
        assert_int_equal(g->params, params);
        check_refused(g, "culprit", c->message);
    }
}

/* Parameters are shared by two layers alike, or not at all. */
static void test_hostile_sharing(void **state) {
    (void)state;
    const tern_attrs first = {.outputs = 12, .bias = 1};
    const struct {
        const char *op;
        tern_attrs at;
        const char *message;
    } bad[] = {
        {"trit_linear", {.outputs = 12, .bias = 1, .same_as = 2}, "same_as 2"}, /* another operation */
        {"trit_linear", {.outputs = 12, .bias = 1, .same_as = 3}, "same_as 3"}, /* itself */
        {"trit_linear", {.outputs = 12, .bias = 1, .same_as = 4}, "same_as 4"},
        {"relu", {.same_as = 2}, "same_as 2"}, /* nothing to share */
        {"linear", {.outputs = 12, .bias = 1, .same_as = 1}, "same_as 1"},
        {"trit_linear", {.outputs = 8, .bias = 1, .same_as = 1}, "cannot share"},
        {"trit_linear", {.outputs = 12, .same_as = 1}, "cannot share"},
        {"trit_linear", {.outputs = 12, .bias = 1, .same_as = 1, .update = TERN_UPDATE_R1}, "cannot share"},
        {"trit_linear", {.outputs = 12, .bias = 1, .same_as = 1, .update = TERN_UPDATE_VOTE}, "cannot share"},
        {"trit_linear", {.outputs = 12, .bias = 1, .same_as = 1, .granularity = TERN_PER_ROW}, "cannot share"},
        {"trit_linear", {.outputs = 12, .bias = 1, .same_as = 1, .group = 4}, "cannot share"},
        {"trit_linear", {.outputs = 12, .bias = 1, .same_as = 1, .slow_exponents = 1}, "cannot share"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        tern_graph *g;
        OK(tern_graph_create(&g, &err));
        tern_value x = tern_graph_input(g, (tern_shape){1, {12}});
        x = tern_graph_add(g, "relu", "relu", tern_graph_add(g, "trit_linear", "first", x, &first), NULL);
        size_t params = g->params;
        if (tern_graph_add(g, bad[i].op, "culprit", x, &bad[i].at) >= 0)
            fail_msg("case %zu: accepted; it should say '%s'", i, bad[i].message);
        assert_int_equal(g->params, params);
        check_refused(g, "culprit", bad[i].message);
    }
}

static void test_hostile_inputs(void **state) {
    (void)state;
    const tern_shape bad[] = {{0, {1, 1, 1}}, {4, {1, 1, 1}},        {-1, {1, 1, 1}}, {3, {BIG, BIG, 1}},
                              {2, {0, 5}},    {3, {SIZE_MAX, 2, 2}}, {1, {BIG}},      {3, {WRAP, 1, WRAP}}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        tern_graph *g;
        OK(tern_graph_create(&g, &err));
        assert_int_equal(tern_graph_input(g, bad[i]), -1);
        check_refused(g, "input", "");
    }
    const size_t tokens[][2] = {{0, 5}, {5, 0}, {5, BIG}, {BIG, 5}};
    for (size_t i = 0; i < 4; i++) {
        tern_graph *g;
        OK(tern_graph_create(&g, &err));
        assert_int_equal(tern_graph_input_tokens(g, tokens[i][0], tokens[i][1]), -1);
        check_refused(g, "", "");
    }
}

static tern_graph *begin(void) {
    tern_graph *g;
    OK(tern_graph_create(&g, &err));
    tern_graph_input(g, (tern_shape){2, {4, 6}});
    return g;
}

static void test_names_and_uses(void **state) {
    (void)state;
    tern_graph *g = begin();
    tern_graph_add(g, "relu", NULL, 0, NULL);
    check_refused(g, "", "no name");
    g = begin();
    tern_graph_add(g, "relu", "", 0, NULL);
    check_refused(g, "", "no name");
    g = begin();
    tern_graph_add(g, NULL, "culprit", 0, NULL);
    check_refused(g, "culprit", "no operation");
    g = begin();
    tern_graph_add(g, "relu", "a b", 0, NULL);
    check_refused(g, "'a b'", "character");
    g = begin();
    tern_graph_add(g, "relu", "0123456789012345678901234567890123456789012345678901234567890123", 0, NULL);
    check_refused(g, "0123456789", "more than 63");
    g = begin();
    tern_graph_add(g, "relu", "twice", tern_graph_add(g, "relu", "twice", 0, NULL), NULL);
    check_refused(g, "twice", "two nodes");
    g = begin();
    tern_graph_add(g, "relu", "input", 0, NULL);
    check_refused(g, "input", "two nodes");
    g = begin();
    tern_graph_add(g, "relu", "unused", 0, NULL);
    tern_graph_add(g, "relu", "last", 0, NULL);
    assert_int_equal(tern_graph_check(g, &err), TERN_E_ARGUMENT);
    assert_non_null(strstr(err.message, "nothing uses the value of node unused"));
    tern_graph_free(&g);
    g = begin();
    tern_graph_add(g, "relu", "culprit", 7, NULL);
    check_refused(g, "culprit", "input 0 is 7");
    g = begin();
    tern_graph_add2(g, "add", "culprit", 0, -3);
    check_refused(g, "culprit", "input 1 is -3");
    g = begin();
    tern_graph_add2(g, "add", "culprit", 0, tern_graph_add(g, "linear", "fc", 0, &(tern_attrs){.outputs = 5}));
    check_refused(g, "culprit", "different shapes");
    g = begin();
    tern_graph_input(g, (tern_shape){1, {1}});
    check_refused(g, "", "there is one");
    g = begin();
    assert_int_equal(tern_graph_check(g, &err), TERN_E_ARGUMENT); /* no node */
    tern_graph_free(&g);
    OK(tern_graph_create(&g, &err));
    assert_int_equal(tern_graph_add(g, "relu", "culprit", 0, NULL), -1);
    check_refused(g, "culprit", "no node before it");

    /* Numbers of tokens are no activations. */
    OK(tern_graph_create(&g, &err));
    tern_graph_add(g, "relu", "culprit", tern_graph_input_tokens(g, 4, 9), NULL);
    check_refused(g, "culprit", "embedding");
    OK(tern_graph_create(&g, &err));
    tern_graph_add(g, "flatten", "culprit", tern_graph_input_tokens(g, 4, 9), NULL);
    check_refused(g, "culprit", "embedding");
    OK(tern_graph_create(&g, &err));
    tern_graph_add(g, "embedding", "culprit", tern_graph_input_tokens(g, 4, 9),
                   &(tern_attrs){.width = 3, .outputs = 8});
    check_refused(g, "culprit", "8 rows");

    assert_int_equal(tern_graph_add(NULL, "relu", "x", 0, NULL), -1);
    assert_int_equal(tern_graph_add2(NULL, "add", "x", 0, 0), -1);
    assert_int_equal(tern_graph_input(NULL, (tern_shape){1, {1}}), -1);
    assert_int_equal(tern_graph_check(NULL, &err), TERN_E_ARGUMENT);
    assert_int_equal(tern_graph_nodes(NULL), 0);
    tern_graph_free(NULL);
}

static void test_too_many_nodes(void **state) {
    (void)state;
    tern_graph *g = begin();
    tern_value x = 0;
    char name[16];
    for (int i = 0; x >= 0 && i < 5000; i++) {
        snprintf(name, sizeof name, "n%d", i);
        x = tern_graph_add(g, "linear", name, x, &(tern_attrs){.outputs = 2});
    }
    assert_int_equal(g->params, 4095);
    check_refused(g, "", "at most 4096 nodes");
}

static void test_plans_refused(void **state) {
    (void)state;
    tern_plan *plan = (tern_plan *)(uintptr_t)1;
    tern_graph *g = begin();
    tern_graph_add(g, "linear", "fc", 0, &(tern_attrs){.outputs = 12});
    const tern_plan_desc bad[] = {{.batch_max = 0},
                                  {.batch_max = SIZE_MAX},
                                  {.batch_max = SIZE_MAX / 64},
                                  {.batch_max = (size_t)1 << 53},
                                  {.batch_max = 4, .products = TERN_I8}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_not_equal(tern_plan_create(&plan, g, &bad[i], &err), TERN_OK);
        assert_null(plan);
    }
    assert_int_equal(tern_plan_create(NULL, g, &bad[0], &err), TERN_E_ARGUMENT);
    assert_int_equal(tern_plan_create(&plan, NULL, &bad[0], &err), TERN_E_ARGUMENT);
    tern_graph_free(&g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_op_is_here),
        cmocka_unit_test(test_threads_change_no_bit),
        cmocka_unit_test(test_threads_change_no_initial_value),
        cmocka_unit_test(test_ends_at_first_trained),
        cmocka_unit_test(test_arena),
        cmocka_unit_test(test_arena_shares),
        cmocka_unit_test(test_inference),
        cmocka_unit_test(test_nothing_is_overwritten),
        cmocka_unit_test(test_packed),
        cmocka_unit_test(test_hostile_attributes),
        cmocka_unit_test(test_hostile_sharing),
        cmocka_unit_test(test_hostile_inputs),
        cmocka_unit_test(test_names_and_uses),
        cmocka_unit_test(test_too_many_nodes),
        cmocka_unit_test(test_plans_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
