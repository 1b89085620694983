#include "model/networks.h"

#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"

/* While a network is being built: C is the configuration, x the value so far. */
typedef struct builder {
    tern_graph *graph;
    const tern_config *config;
    tern_value x;
    char name[TERN_NAME_BYTES];
} builder;

/* Names one after another: "block2.conv1". */
static const char *named(builder *b, const char *prefix, size_t i, const char *rest) {
    snprintf(b->name, sizeof b->name, i ? "%s%zu%s%s" : "%s", prefix, i, *rest ? "." : "", rest);
    return b->name;
}

static int is_trit(const builder *b) { return b->config->weights == TERN_WEIGHTS_TRIT; }

static void apply(builder *b, const char *op, const char *name, tern_attrs attrs) {
    attrs.integers = is_trit(b);
    b->x = tern_graph_add(b->graph, op, name, b->x, &attrs);
}

/* A layer whose weights are whole numbers. */
static void apply_trit(builder *b, const char *op, const char *name, tern_attrs attrs) {
    attrs.update = b->config->update + 1;
    /* Rows of tables and heads mean single tokens and classes: no rule for whole matrices is for them. */
    if (attrs.update == TERN_UPDATE_ORTHO && (attrs.width || !strcmp(name, "head"))) attrs.update = TERN_UPDATE_R2;
    attrs.group = tern_config_group(b->config);
    attrs.granularity = attrs.group ? TERN_PER_TENSOR : b->config->granularity;
    attrs.slow_exponents = (int)b->config->slow_exponents;
    attrs.group_rates = attrs.width ? 0 : (int)b->config->group_rates; /* tables normalise by the row already */
    attrs.group_thresholds = (int)b->config->group_thresholds;
    attrs.zeros = attrs.group_thresholds ? (int)b->config->zeros : 0;
    apply(b, op, name, attrs);
}

/* The layer that is ternary in one twin and float in the other. */
static void product(builder *b, const char *bit_op, const char *trit_op, const char *float_op, const char *name,
                    tern_attrs attrs) {
    if (is_trit(b)) {
        apply_trit(b, trit_op, name, attrs);
        return;
    }
    if (b->config->weights) {
        attrs.rule = b->config->rule + 1;
        attrs.granularity = b->config->granularity;
    }
    apply(b, b->config->weights ? bit_op : float_op, name, attrs);
}

static void linear(builder *b, const char *name, size_t outputs) {
    product(b, "bit_linear", "trit_linear", "linear", name, (tern_attrs){.outputs = outputs});
}

static void conv3(builder *b, const char *name, size_t outputs) {
    product(b, "bit_conv2d", "trit_conv2d", "conv2d", name,
            (tern_attrs){.outputs = outputs, .kernel = 3, .padding = 1});
}

/* A layer at the network's end, float in both twins; of a float-free network trits or fixed point. */
static void outer(builder *b, const char *float_op, const char *trit_op, const char *name, tern_attrs attrs) {
    if (is_trit(b) && b->config->ends == 0)
        apply_trit(b, trit_op, name, attrs);
    else
        apply(b, float_op, name, attrs);
}

static void dropout_at(builder *b, const char *name, double rate) {
    if (rate > 0) apply(b, "dropout", name, (tern_attrs){.rate = (float)rate});
}

static void dropout(builder *b, const char *name) { dropout_at(b, name, b->config->dropout); }

/* hidden layers of `width`: product, batch norm, ReLU, dropout; then the head. */
static void mlp(builder *b, const tern_data_shape *data) {
    apply(b, "flatten", "flatten", (tern_attrs){0});
    for (size_t i = 1; i <= (size_t)b->config->depth; i++) {
        linear(b, named(b, "fc", i, ""), (size_t)b->config->width);
        apply(b, "batch_norm", named(b, "norm", i, ""), (tern_attrs){0});
        apply(b, "relu", named(b, "relu", i, ""), (tern_attrs){0});
        dropout(b, named(b, "drop", i, ""));
    }
    linear(b, "head", data->classes);
}

static void conv_norm_relu(builder *b, const char *block, size_t i, const char *layer, size_t channels) {
    char rest[16];
    snprintf(rest, sizeof rest, "conv%s", layer);
    conv3(b, named(b, block, i, rest), channels);
    snprintf(rest, sizeof rest, "norm%s", layer);
    apply(b, "batch_norm", named(b, block, i, rest), (tern_attrs){0});
    snprintf(rest, sizeof rest, "relu%s", layer);
    apply(b, "relu", named(b, block, i, rest), (tern_attrs){0});
}

/* Blocks of two convolutions and a pool, the channels doubling; a hidden layer; the head. */
static void cnn(builder *b, const tern_data_shape *data) {
    size_t channels = (size_t)b->config->width;
    for (size_t i = 1; i <= (size_t)b->config->depth; i++, channels *= 2) {
        conv_norm_relu(b, "block", i, "1", channels);
        conv_norm_relu(b, "block", i, "2", channels);
        apply(b, "max_pool", named(b, "block", i, "pool"), (tern_attrs){.kernel = 2});
    }
    apply(b, "flatten", "flatten", (tern_attrs){0});
    dropout(b, "drop1");
    linear(b, "fc", 4 * (size_t)b->config->width);
    apply(b, "batch_norm", "norm", (tern_attrs){0});
    apply(b, "relu", "relu", (tern_attrs){0});
    dropout(b, "drop2");
    linear(b, "head", data->classes);
}

/* SimpleBitNetCNN: float convolutions, then RMSNorm and a ternary product, twice. */
static void simple(builder *b, const tern_data_shape *data) {
    size_t channels = (size_t)b->config->width;
    for (size_t i = 1; i <= (size_t)b->config->depth; i++, channels *= 2) {
        apply(b, "conv2d", named(b, "block", i, "conv"),
              (tern_attrs){.outputs = channels, .kernel = 3, .padding = 1});
        apply(b, "batch_norm", named(b, "block", i, "norm"), (tern_attrs){0});
        apply(b, "relu", named(b, "block", i, "relu"), (tern_attrs){0});
        apply(b, "max_pool", named(b, "block", i, "pool"), (tern_attrs){.kernel = 2});
    }
    apply(b, "flatten", "flatten", (tern_attrs){0});
    dropout(b, "drop1");
    apply(b, "rmsnorm", "norm1", (tern_attrs){0});
    linear(b, "fc", 16 * (size_t)b->config->width);
    apply(b, "relu", "relu", (tern_attrs){0});
    dropout(b, "drop2");
    apply(b, "rmsnorm", "norm2", (tern_attrs){0});
    linear(b, "head", data->classes);
}

/* A convolution of a block of airbench's, then norm and GELU; a pool in between, or a value that is added in front of
 * the GELU. Norms have no gain. */
static void fast_conv(builder *b, size_t block, size_t layer, size_t channels, tern_value added) {
    char rest[16];
    snprintf(rest, sizeof rest, "conv%zu", layer);
    conv3(b, named(b, "block", block, rest), channels);
    if (layer == 1) apply(b, "max_pool", named(b, "block", block, "pool"), (tern_attrs){.kernel = 2});
    snprintf(rest, sizeof rest, "norm%zu", layer);
    apply(b, "batch_norm", named(b, "block", block, rest),
          (tern_attrs){.plain = 1, .epsilon = 1e-12f, .momentum = 0.4f});
    if (added) b->x = tern_graph_add2(b->graph, "add", named(b, "block", block, "add"), added, b->x);
    snprintf(rest, sizeof rest, "gelu%zu", layer);
    apply(b, "gelu", named(b, "block", block, rest), (tern_attrs){0});
}

/* Of three convolutions the last two are a residual branch (airbench96). */
static void fast_block(builder *b, size_t block, size_t channels) {
    fast_conv(b, block, 1, channels, 0);
    const tern_value first = b->x;
    fast_conv(b, block, 2, channels, 0);
    if (b->config->convolutions == 3) fast_conv(b, block, 3, channels, first);
}

/* airbench (Jordan, arXiv:2404.00498): a frozen whitening layer, blocks of convolution, pool, norm, GELU,
 * convolution, norm, GELU; the head's logits are divided by their number of inputs. */
static void fast(builder *b, const tern_data_shape *data) {
    const size_t width = (size_t)b->config->width;
    const size_t later = b->config->width_later ? (size_t)b->config->width_later : 4 * width;
    size_t channels = width;
    apply(b, "conv2d", "whiten", (tern_attrs){.outputs = 8 * data->channels, .kernel = 2, .bias = 1, .frozen = 1});
    apply(b, "gelu", "gelu", (tern_attrs){0});
    for (size_t i = 1; i <= (size_t)b->config->depth; i++) fast_block(b, i, channels = i == 1 ? width : later);
    apply(b, "max_pool", "pool", (tern_attrs){0});
    apply(b, "flatten", "flatten", (tern_attrs){0});
    float root = 1; /* initial weights of deviation 1 */
    while (root * root < (float)channels) root *= 1.1f;
    outer(b, "linear", "trit_linear", "head", (tern_attrs){.outputs = data->classes, .init_gain = root});
    apply(b, "scale", "logits", (tern_attrs){.factor = 1 / (float)channels});
}

/* One transformer block with sub-norms in front of both output projections (BitNet b1.58 2B4T). */
static void gpt_block(builder *b, size_t i) {
    size_t width = (size_t)b->config->width;
    tern_value residual = b->x;
    apply(b, "rmsnorm", named(b, "block", i, "norm1"), (tern_attrs){0});
    linear(b, named(b, "block", i, "qkv"), 3 * width);
    apply(b, "attention", named(b, "block", i, "attention"),
          (tern_attrs){.heads = (size_t)b->config->heads, .rope_base = 10000});
    apply(b, "rmsnorm", named(b, "block", i, "subnorm1"), (tern_attrs){0});
    dropout_at(b, named(b, "block", i, "inner1"), b->config->dropout_inner);
    linear(b, named(b, "block", i, "out"), width);
    dropout(b, named(b, "block", i, "drop1"));
    residual = b->x = tern_graph_add2(b->graph, "add", named(b, "block", i, "add1"), residual, b->x);
    apply(b, "rmsnorm", named(b, "block", i, "norm2"), (tern_attrs){0});
    linear(b, named(b, "block", i, "up"), 4 * width);
    apply(b, "relu2", named(b, "block", i, "relu2"), (tern_attrs){0});
    apply(b, "rmsnorm", named(b, "block", i, "subnorm2"), (tern_attrs){0});
    dropout_at(b, named(b, "block", i, "inner2"), b->config->dropout_inner);
    linear(b, named(b, "block", i, "down"), width);
    dropout(b, named(b, "block", i, "drop2"));
    b->x = tern_graph_add2(b->graph, "add", named(b, "block", i, "add2"), residual, b->x);
}

/* Rows of embedding and head: those behind the text's own never come in, and are never drawn. */
static size_t token_rows(const tern_config *config, size_t vocabulary) {
    return tern_max_size(vocabulary, tern_round_up((size_t)config->vocabulary, 64));
}

static void gpt(builder *b, const tern_data_shape *data) {
    const size_t rows = token_rows(b->config, data->vocabulary);
    outer(b, "embedding", "trit_embedding", "embedding",
          (tern_attrs){.outputs = rows, .width = (size_t)b->config->width, .init_gain = 0.5f});
    dropout_at(b, "drop", b->config->dropout_embedding);
    for (size_t i = 1; i <= (size_t)b->config->depth; i++) gpt_block(b, i);
    apply(b, "rmsnorm", "norm", (tern_attrs){0});
    outer(b, "linear", "trit_linear", "head", (tern_attrs){.outputs = rows});
}

tern_status tern_network_build(tern_graph **out, const tern_config *config, const tern_data_shape *data,
                               tern_error *err) {
    static void (*const networks[])(builder *, const tern_data_shape *) = {mlp, cnn, simple, fast, gpt};
    int text = config->model == TERN_MODEL_GPT;
    TERN_CHECK_ARGUMENT(text ? data->vocabulary != 0 : data->classes != 0, err,
                        text ? "model=gpt needs a text" : "this model needs images; for a text take model=gpt");
    TERN_CHECK_ARGUMENT(config->weights == TERN_WEIGHTS_TRIT || !tern_config_group(config), err,
                        "groups of columns are for weights=trit; take granularity=tensor or row");
    TERN_TRY(tern_graph_create(out, err));
    builder b = {.graph = *out, .config = config};
    b.x = text ? tern_graph_input_tokens(b.graph, (size_t)config->context, data->vocabulary)
               : tern_graph_input(b.graph, (tern_shape){3, {data->height, data->width, data->channels}});
    networks[config->model](&b, data);
    tern_status status = tern_graph_check(b.graph, err);
    if (status) tern_graph_free(out);
    return status;
}
