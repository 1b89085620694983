#include "model/configuration.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

typedef enum kind { WHOLE, REAL, CHOICE, TEXT } kind;

typedef struct setting {
    const char *key;
    kind kind;
    size_t offset, bytes;
    double least, most;
    const char *choices; /* separated by '|' */
    const char *help;
} setting;

#define AT(field) offsetof(struct tern_config, field), sizeof(((struct tern_config *)0)->field)
static const setting settings[] = {
    {"preset", TEXT, AT(preset), 0, 0, NULL, "the preset that the others change"},
    {"model", CHOICE, AT(model), 0, 0, "mlp|cnn|simple|fast|gpt", "shape of the network"},
    {"data", CHOICE, AT(data), 0, 0, "mnist|fashion-mnist|cifar-10|images|text", "data set"},
    {"path", TEXT, AT(path), 0, 0, NULL, "where the data is; empty: the usual places"},
    {"weights", CHOICE, AT(weights), 0, 0, "float|ternary|trit",
     "ternary with fp32 latents, whole numbers alone, or the full-precision twin"},
    {"width", WHOLE, AT(width), 1, 65536, NULL, "channels of a hidden layer (of the first block of a CNN)"},
    {"width_later", WHOLE, AT(width_later), 0, 65536, NULL,
     "channels of the blocks behind the first of model=fast; 0: four times its width"},
    {"convolutions", WHOLE, AT(convolutions), 2, 3, NULL,
     "of a block of model=fast; of three the last two are a residual branch"},
    {"depth", WHOLE, AT(depth), 1, 512, NULL, "hidden layers or blocks"},
    {"heads", WHOLE, AT(heads), 1, 256, NULL, "attention heads"},
    {"context", WHOLE, AT(context), 1, 65536, NULL, "tokens of a window"},
    {"vocabulary", WHOLE, AT(vocabulary), 0, 1 << 20, NULL,
     "tokens that embedding and head have room for, up to the next multiple of 64; 0: the text's own"},
    {"dropout", REAL, AT(dropout), 0, 0.95, NULL, "share of values dropped in training"},
    {"dropout_embedding", REAL, AT(dropout_embedding), 0, 0.95, NULL, "the same of a text's embedded tokens"},
    {"dropout_inner", REAL, AT(dropout_inner), 0, 0.95, NULL,
     "the same in front of the projections that end attention and feed-forward parts"},
    {"rule", CHOICE, AT(rule), 0, 0, "absmean|absmedian|twn", "how latent weights become trits"},
    {"granularity", CHOICE, AT(granularity), 0, 0, "tensor|row|T4|T6|T8|T16|T32|T64|T96",
     "one weight scale a tensor, a row, or (of whole-number weights) a group of so many columns"},
    {"update", CHOICE, AT(update), 0, 0, "r1|r2|vote|seed-corr|ortho", "the rule of whole-number weights"},
    {"ends", CHOICE, AT(ends), 0, 0, "trit|fixed", "embedding and head of a network of whole numbers"},
    {"slow_exponents", WHOLE, AT(slow_exponents), 0, 1, NULL, "1: scales of whole-number weights are trained too"},
    {"group_rates", WHOLE, AT(group_rates), 0, 1, NULL,
     "1: scale groups of r1 and r2 take powers of two of the rate, as their gradients are small or large"},
    {"group_thresholds", WHOLE, AT(group_thresholds), 0, 1, NULL,
     "1: the threshold of a scale group of r1 and r2 follows its share of zeros"},
    {"zeros", WHOLE, AT(zeros), 1, 99, NULL, "per cent of zeros that group_thresholds want"},
    {"epochs", REAL, AT(epochs), 0, 1e6, NULL, "passes over the data; used where steps is 0"},
    {"steps", WHOLE, AT(steps), 0, 1e12, NULL, "steps of the optimiser; 0: from epochs"},
    {"batch", WHOLE, AT(batch), 1, 1 << 20, NULL, "samples of a step, or of a part of it (accumulate)"},
    {"accumulate", WHOLE, AT(accumulate), 1, 1 << 16, NULL, "batches whose gradients make one step"},
    {"seed", WHOLE, AT(seed), 0, 9e15, NULL, "of all random numbers"},
    {"threads", WHOLE, AT(threads), 0, 4096, NULL, "0: all processors; never changes a result"},
    {"products", CHOICE, AT(products), 0, 0, "auto|f32|bf16|f16",
     "operands of dense float products in training; auto: bf16 where it has matrix instructions; f16: on a GPU"},
    {"input_gradients", CHOICE, AT(input_gradients), 0, 0, "float|int8",
     "products that pass gradients on through ternary weights; int8: gradients rounded by the row, on a GPU"},
    {"optimizer", CHOICE, AT(optimizer), 0, 0, "sgd|adamw|muon", "for the weights of hidden layers"},
    {"side_optimizer", CHOICE, AT(side_optimizer), 0, 0, "sgd|adamw", "for biases, gains, embeddings and the head"},
    {"lr", REAL, AT(lr), 0, 1e6, NULL,
     "peak rate of the optimiser; of whole-number weights: counts a step, up to 7.9"},
    {"lr_side", REAL, AT(lr_side), 0, 1e6, NULL, "peak rate of biases and gains; 0: lr"},
    {"lr_head", REAL, AT(lr_head), 0, 1e6, NULL, "peak rate of embeddings and head; 0: lr_side"},
    {"schedule", CHOICE, AT(schedule), 0, 0, "constant|linear|cosine|bitnet|halvings", "how rates fall to lr_final"},
    {"lr_final", REAL, AT(lr_final), 0, 1, NULL, "last rate as a share of the peak"},
    {"warmup", REAL, AT(warmup), 0, 1, NULL, "share of the run in which rates rise from 0"},
    {"momentum", REAL, AT(momentum), 0, 0.9999, NULL, "of sgd and muon"},
    {"beta2", REAL, AT(beta2), 0, 0.99999, NULL, "of adamw"},
    {"weight_decay", REAL, AT(weight_decay), 0, 10, NULL, "of weight matrices"},
    {"decay_side", REAL, AT(decay_side), 0, 10, NULL, "of embeddings and head"},
    {"clip", REAL, AT(clip), 0, 1e9, NULL, "largest norm of the gradient; 0: no limit"},
    {"smoothing", REAL, AT(smoothing), 0, 0.9, NULL, "label smoothing"},
    {"loss_ce", WHOLE, AT(loss_ce), -127, 127, NULL, "whole-number weight of the cross-entropy in the loss"},
    {"loss_entropy", WHOLE, AT(loss_entropy), -127, 127, NULL,
     "the same of the prediction's entropy; below 0: towards confidence"},
    {"loss_z", WHOLE, AT(loss_z), -127, 127, NULL, "the same of the squared log-sum-exp of the logits"},
    {"loss_shift", WHOLE, AT(loss_shift), 0, 30, NULL, "halvings of the weighted sum of these"},
    {"lambda_begin", REAL, AT(lambda_begin), 0, 1, NULL,
     "share of the run after which weights begin to turn ternary"},
    {"lambda_end", REAL, AT(lambda_end), 0, 1, NULL, "share of the run after which they are"},
    {"whiten_share", REAL, AT(whiten_share), 0, 1, NULL, "share of the run that trains the whitening layer's bias"},
    {"crop", WHOLE, AT(crop), 0, 1024, NULL, "padding of the random crop"},
    {"crop_fill", CHOICE, AT(crop_fill), 0, 0, "zero|reflect", "what the padding holds"},
    {"flip", CHOICE, AT(flip), 0, 0, "none|random|alternating", "left to right"},
    {"cutout", WHOLE, AT(cutout), 0, 1024, NULL, "side of the square that is cut out"},
    {"brightness", REAL, AT(brightness), 0, 1, NULL, "strength of the jitter"},
    {"contrast", REAL, AT(contrast), 0, 1, NULL, "strength of the jitter"},
    {"saturation", REAL, AT(saturation), 0, 1, NULL, "strength of the jitter"},
    {"views", CHOICE, AT(views), 0, 0, "one|mirror|six",
     "what evaluation averages: the image, with its mirror, with both shifted by a pixel"},
    {"recalibrate", WHOLE, AT(recalibrate), 0, 1e6, NULL,
     "batches that batch norm's statistics are taken from at the end"},
    {"evaluate_every", WHOLE, AT(evaluate_every), 0, 1e12, NULL, "steps; 0: ten times a run"},
    {"save_every", WHOLE, AT(save_every), 0, 1e12, NULL, "steps; 0: with every evaluation"},
    {"log_every", WHOLE, AT(log_every), 1, 1e12, NULL, "steps between lines of metrics.jsonl"},
    {"max_skips", WHOLE, AT(max_skips), 0, 1e6, NULL, "steps in a row that a NaN or Inf may skip"},
};
enum { SETTINGS = sizeof settings / sizeof *settings };

/* ---- presets */

size_t tern_config_group(const tern_config *config) {
    static const size_t groups[] = {0, 0, 4, 6, 8, 16, 32, 64, 96};
    return groups[config->granularity];
}

/* What every preset starts from, then what each changes. */
static const char defaults[] =
    "weights=ternary width=64 convolutions=2 depth=2 heads=4 context=64 batch=128 accumulate=1 seed=1 products=auto "
    "optimizer=adamw side_optimizer=adamw schedule=cosine warmup=0.02 momentum=0.9 beta2=0.99 loss_ce=1 zeros=45 "
    "log_every=20 max_skips=5";

typedef struct named_preset {
    const char *name, *summary, *settings;
    const char *trit; /* what its float-free twin changes; NULL: there is none */
} named_preset;

/* What every float-free preset starts from, behind its own: weights do not decay, and counters have no use for the
 * optimiser's other settings. */
static const char float_free[] =
    "weights=trit update=ortho lr=1 granularity=row schedule=cosine lr_final=0.02 warmup=0.02 "
    "weight_decay=0 decay_side=0 clip=0";

/* What the two sizes of airbench share. */
#define AIRBENCH                                                                                                   \
    "model=fast data=cifar-10 depth=3 batch=500 optimizer=muon side_optimizer=sgd lr=0.05 lr_side=26 lr_head=330 " \
    "schedule=linear warmup=0 momentum=0.75 smoothing=0.2 decay_side=2e-6 crop_fill=reflect flip=alternating "     \
    "views=six whiten_share=0.3 granularity=row"
#define AIRBENCH_TRIT "lr_side=1e-2 lr_head=2e-2 ends=fixed schedule=linear lr_final=0 warmup=0"

static const named_preset presets[] = {
    {"mnist-mlp", "MNIST, 784-512-512-10, W1.58A8",
     "model=mlp data=mnist width=512 depth=2 epochs=30 lr=2e-3 dropout=0.25 weight_decay=0.02",
     "update=r2 lr_side=2e-3"},
    {"mnist-cnn", "MNIST, a ternary CNN",
     "model=cnn data=mnist width=32 depth=2 epochs=15 lr=3e-3 dropout=0.3 weight_decay=0.02 crop=2", "lr_side=3e-3"},
    {"fashion-cnn", "Fashion-MNIST, a ternary CNN",
     "model=cnn data=fashion-mnist width=32 depth=2 epochs=12 lr=3e-3 dropout=0.3 weight_decay=0.02 crop=2 "
     "flip=random",
     "lr_side=3e-3"},
    {"cifar10-simple", "CIFAR-10, two float conv blocks and a ternary head (SimpleBitNetCNN)",
     "model=simple data=cifar-10 width=32 depth=2 epochs=15 lr=2e-3 dropout=0.25 weight_decay=0.02 crop=2 "
     "crop_fill=reflect flip=random",
     "lr_side=2e-3"},
    {"cifar10-fast", "CIFAR-10, the ternary version of airbench", "width=64 epochs=10 crop=2 " AIRBENCH,
     AIRBENCH_TRIT},
    {"cifar10-large", "the same with airbench96's sizes: twice as wide, blocks of three convolutions",
     "width=128 convolutions=3 epochs=30 crop=4 cutout=12 " AIRBENCH, AIRBENCH_TRIT},
    {"charlm", "characters of tiny Shakespeare, a small GPT for two cores; a minute",
     "model=gpt data=text width=128 depth=4 heads=4 context=64 steps=4000 batch=12 lr=3e-3 schedule=bitnet "
     "lr_final=0.01 warmup=0.05 weight_decay=0.1 clip=1 log_every=50",
     "lr=1.7 lr_side=3e-3 schedule=bitnet lr_final=0.01"},
    {"charlm-large", "the same with nanoGPT's sizes: 6 layers of 384, context 256",
     "model=gpt data=text width=384 depth=6 heads=6 context=256 steps=2000 batch=64 lr=2e-3 schedule=cosine "
     "lr_final=0.01 weight_decay=0.1 clip=1 dropout=0.2 dropout_embedding=0.2 dropout_inner=0.3 log_every=50",
     "lr=1.7 lr_side=2e-3 schedule=bitnet lr_final=0.01 steps=1200 dropout_embedding=0 dropout_inner=0"},
};
enum { PRESETS = sizeof presets / sizeof *presets };

const char *tern_preset_name(size_t i) { return i < PRESETS ? presets[i].name : NULL; }
const char *tern_preset_summary(size_t i) { return i < PRESETS ? presets[i].summary : NULL; }

/* Levenshtein's distance, at most `limit`; names are short. */
static size_t edits(const char *a, const char *b, size_t limit) {
    size_t la = strlen(a), lb = strlen(b), row[64];
    if (la > 60 || lb > 60) return limit;
    for (size_t j = 0; j <= lb; j++) row[j] = j;
    for (size_t i = 1; i <= la; i++) {
        size_t corner = row[0];
        row[0] = i;
        for (size_t j = 1; j <= lb; j++) {
            size_t replaced = corner + (a[i - 1] != b[j - 1]);
            corner = row[j];
            size_t best = row[j] < row[j - 1] ? row[j] + 1 : row[j - 1] + 1;
            row[j] = best < replaced ? best : replaced;
        }
    }
    return row[lb] < limit ? row[lb] : limit;
}

const char *tern_nearest_name(const char *wrong, const char *const *names, size_t count) {
    const char *best = NULL;
    size_t least = strlen(wrong) / 2 + 2;
    for (size_t i = 0; i < count; i++) {
        size_t n = edits(wrong, names[i], least);
        if (n < least) {
            least = n;
            best = names[i];
        }
    }
    return best;
}

static tern_status unknown(const char *what, const char *name, const char *const *names, size_t count,
                           const char *list, tern_error *err) {
    const char *near = tern_nearest_name(name, names, count);
    return near ? tern_fail(err, TERN_E_ARGUMENT, TERN_NO_PLACE, "there is no %s '%.60s'; did you mean '%s'?", what,
                            name, near)
                : tern_fail(err, TERN_E_ARGUMENT, TERN_NO_PLACE, "there is no %s '%.60s'; %s", what, name, list);
}

/* ---- values */

static const setting *find(const char *key) {
    for (size_t i = 0; i < SETTINGS; i++)
        if (!strcmp(settings[i].key, key)) return &settings[i];
    return NULL;
}

static tern_status find_setting(const setting **s, const char *key, tern_error *err) {
    const char *names[SETTINGS];
    for (size_t i = 0; i < SETTINGS; i++) names[i] = settings[i].key;
    *s = find(key);
    return *s ? TERN_OK : unknown("setting", key, names, SETTINGS, "tern train --help lists them", err);
}

/* The number of `value` among the choices; -1 when it is none. */
static int choice_number(const char *choices, const char *value) {
    size_t length = strlen(value);
    for (int i = 0; *choices; i++) {
        size_t n = strcspn(choices, "|");
        if (n == length && !strncmp(choices, value, n)) return i;
        choices += n + (choices[n] == '|');
    }
    return -1;
}

static tern_status unknown_choice(const setting *s, const char *value, tern_error *err) {
    char list[128], *rest = list;
    const char *names[16];
    size_t count = 0;
    snprintf(list, sizeof list, "%s", s->choices);
    for (char *name; count < 16 && (name = strsep(&rest, "|")) != NULL;) names[count++] = name;
    const char *near = tern_nearest_name(value, names, count);
    return tern_fail(err, TERN_E_ARGUMENT, TERN_NO_PLACE, "%s=%.60s: it takes one of %s%s%s%s", s->key, value,
                     s->choices, near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

static tern_status set_value(void *at, const setting *s, const char *value, tern_error *err) {
    char *end = NULL;
    double number = 0;
    errno = 0;
    if (s->kind == WHOLE || s->kind == REAL) {
        number = strtod(value, &end);
        int bad = end == value || *end || errno || !isfinite(number) || (s->kind == WHOLE && number != floor(number));
        if (bad || number < s->least || number > s->most)
            return tern_fail(err, TERN_E_ARGUMENT, TERN_NO_PLACE, "%s=%.60s: it takes a %s from %g to %g", s->key,
                             value, s->kind == WHOLE ? "whole number" : "number", s->least, s->most);
    }
    if (s->kind == WHOLE) *(long long *)at = (long long)number;
    if (s->kind == REAL) *(double *)at = number;
    if (s->kind == CHOICE) {
        int n = choice_number(s->choices, value);
        if (n < 0) return unknown_choice(s, value, err);
        *(int *)at = n;
    }
    if (s->kind == TEXT) {
        TERN_CHECK_ARGUMENT(strlen(value) < s->bytes, err, "%s: more than %zu bytes", s->key, s->bytes - 1);
        snprintf(at, s->bytes, "%s", value);
    }
    return TERN_OK;
}

tern_status tern_config_set(tern_config *config, const char *key, const char *value, tern_error *err) {
    TERN_CHECK_ARGUMENT(config && key && value, err, "%s is NULL", !config ? "config" : key ? "value" : "key");
    const setting *s;
    TERN_TRY(find_setting(&s, key, err));
    TERN_CHECK_ARGUMENT(strcmp(key, "preset"), err, "preset: it is chosen first, not set");
    return set_value((char *)config + s->offset, s, value, err);
}

static void choice_name(const char *choices, int number, char *value, size_t bytes) {
    while (number-- > 0) choices += strcspn(choices, "|") + 1;
    snprintf(value, bytes, "%.*s", (int)strcspn(choices, "|"), choices);
}

/* As few digits as give the same number back: a run goes on from the text in its checkpoint. */
static void real_text(double number, char *value, size_t bytes) {
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(value, bytes, "%.*g", digits, number);
        if (strtod(value, NULL) == number) return;
    }
}

tern_status tern_config_get(const tern_config *config, const char *key, char *value, size_t bytes, tern_error *err) {
    TERN_CHECK_ARGUMENT(config && key && value && bytes, err, "an argument is NULL");
    const setting *s;
    TERN_TRY(find_setting(&s, key, err));
    const char *at = (const char *)config + s->offset;
    if (s->kind == WHOLE) snprintf(value, bytes, "%lld", *(const long long *)(const void *)at);
    if (s->kind == REAL) real_text(*(const double *)(const void *)at, value, bytes);
    if (s->kind == CHOICE) choice_name(s->choices, *(const int *)(const void *)at, value, bytes);
    if (s->kind == TEXT) snprintf(value, bytes, "%s", at);
    return TERN_OK;
}

const char *tern_config_key(size_t i) { return i < SETTINGS ? settings[i].key : NULL; }
const char *tern_config_help(size_t i) { return i < SETTINGS ? settings[i].help : NULL; }

/* ---- objects */

/* "key=value key=value ..." of our own. */
static tern_status set_all(tern_config *config, const char *text, tern_error *err) {
    char key[32], value[64];
    int read;
    for (; sscanf(text, " %31[^=]=%63s%n", key, value, &read) == 2; text += read)
        TERN_TRY(tern_config_set(config, key, value, err));
    return TERN_OK;
}

tern_status tern_config_unset(tern_config *config, const char *key, tern_error *err) {
    struct tern_config start = {0};
    const setting *s;
    TERN_TRY(find_setting(&s, key, err));
    TERN_TRY(set_all(&start, defaults, err));
    memcpy((char *)config + s->offset, (const char *)&start + s->offset, s->bytes);
    return TERN_OK;
}

tern_status tern_config_preset(tern_config *config, const char *name, tern_error *err) {
    char plain[64];
    size_t length = strlen(name);
    int twin = length > 3 && !strcmp(name + length - 3, "-fp"),
        trit = length > 5 && !strcmp(name + length - 5, "-trit");
    snprintf(plain, sizeof plain, "%.*s", (int)(twin ? length - 3 : trit ? length - 5 : length), name);
    const char *names[PRESETS];
    for (size_t i = 0; i < PRESETS; i++) {
        names[i] = presets[i].name;
        if (strcmp(plain, names[i])) continue;
        memset(config, 0, sizeof *config);
        snprintf(config->preset, sizeof config->preset, "%s", name);
        TERN_TRY(set_all(config, defaults, err));
        TERN_TRY(set_all(config, presets[i].settings, err));
        if (trit) TERN_TRY(set_all(config, float_free, err));
        if (trit) TERN_TRY(set_all(config, presets[i].trit, err));
        return twin ? tern_config_set(config, "weights", "float", err) : TERN_OK;
    }
    return unknown("preset", plain, names, PRESETS, "tern train --help lists them", err);
}

tern_status tern_config_create(tern_config **out, const char *name, tern_error *err) {
    TERN_CHECK_ARGUMENT(out && name, err, "%s is NULL", out ? "preset" : "out");
    *out = NULL;
    tern_config *config = calloc(1, sizeof *config);
    if (!config) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for a configuration");
    tern_status status = tern_config_preset(config, name, err);
    if (status)
        free(config);
    else
        *out = config;
    return status;
}

tern_status tern_config_clone(tern_config **out, const tern_config *config, tern_error *err) {
    TERN_CHECK_ARGUMENT(out && config, err, "%s is NULL", out ? "config" : "out");
    *out = malloc(sizeof **out);
    if (!*out) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for a configuration");
    **out = *config;
    return TERN_OK;
}

/* Settings that mean one thing to counters and another, or nothing, to floats. */
static int is_of_counters(const char *key) {
    static const char *const keys[] = {"weights", "granularity", "update",  "ends",     "slow_exponents",
                                       "lr",      "lr_side",     "lr_head", "schedule", "preset"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (!strcmp(key, keys[i])) return 1;
    return !strncmp(key, "group_", 6) || !strcmp(key, "zeros");
}

/* What `config` changes of its preset, changed in the twin too. */
static tern_status copy_changes(tern_config *twin, const tern_config *config, const tern_config *preset,
                                tern_error *err) {
    char changed[512], before[512];
    for (size_t i = 0; i < SETTINGS; i++) {
        const char *key = settings[i].key;
        if (is_of_counters(key)) continue;
        TERN_TRY(tern_config_get(config, key, changed, sizeof changed, err));
        TERN_TRY(tern_config_get(preset, key, before, sizeof before, err));
        if (strcmp(changed, before)) TERN_TRY(tern_config_set(twin, key, changed, err));
    }
    return TERN_OK;
}

tern_status tern_config_twin(tern_config **out, const tern_config *config, tern_error *err) {
    TERN_TRY(tern_config_clone(out, config, err));
    char name[64];
    size_t length = strlen(config->preset), trit = config->weights == TERN_WEIGHTS_TRIT && length > 5 ? 5 : 0;
    struct tern_config preset;
    snprintf(name, sizeof name, "%.*s-fp", (int)(length - trit), config->preset);
    tern_status status = TERN_OK;
    if (trit && !strcmp(config->preset + length - trit, "-trit")) {
        status = tern_config_preset(&preset, config->preset, err);
        if (!status) status = tern_config_preset(*out, name, err);
        if (!status) status = copy_changes(*out, config, &preset, err);
    }
    if (!status) status = tern_config_set(*out, "weights", "float", err);
    if (status) tern_config_free(out);
    return status;
}

void tern_config_free(tern_config **config) {
    if (!config) return;
    free(*config);
    *config = NULL;
}

static tern_status set_json(tern_config *config, const char *path, const char *key, const json_t *value,
                            tern_error *err) {
    char text[512];
    if (json_is_string(value))
        snprintf(text, sizeof text, "%s", json_string_value(value));
    else if (json_is_number(value))
        snprintf(text, sizeof text, "%.17g", json_number_value(value));
    else
        return tern_fail(err, TERN_E_DATA, TERN_NO_PLACE, "%s: %s is neither a number nor a text", path, key);
    tern_error why = {0};
    tern_status status = tern_config_set(config, key, text, &why);
    return status ? tern_fail(err, status, TERN_NO_PLACE, "%.100s: %.130s", path, why.message) : TERN_OK;
}

tern_status tern_config_read(tern_config **out, const char *path, tern_error *err) {
    TERN_CHECK_ARGUMENT(out && path, err, "%s is NULL", out ? "path" : "out");
    *out = NULL;
    json_error_t where;
    json_t *object = json_load_file(path, JSON_REJECT_DUPLICATES, &where);
    if (!object && where.line < 1) return tern_fail(err, TERN_E_FILE, TERN_NO_PLACE, "%s", where.text);
    if (!object)
        return tern_fail(err, TERN_E_DATA, where.position < 0 ? TERN_NO_PLACE : (uint64_t)where.position,
                         "%.100s:%d: %s", path, where.line, where.text);
    const char *from = json_string_value(json_object_get(object, "preset")), *key;
    json_t *value;
    tern_config *config = NULL;
    tern_error why = {0};
    tern_status status = from ? tern_config_create(&config, from, &why) : TERN_E_DATA;
    if (status)
        tern_fail(err, status, TERN_NO_PLACE, "%.100s: %.130s", path,
                  from ? why.message : "there is no \"preset\" to start from");
    if (!status) json_object_foreach(object, key, value) {
            if (!strcmp(key, "preset")) continue;
            status = set_json(config, path, key, value, err);
            if (status) break;
        }
    json_decref(object);
    if (status)
        tern_config_free(&config);
    else
        *out = config;
    return status;
}
