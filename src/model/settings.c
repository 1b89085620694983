/* Every setting of a configuration: one row each, and values as text. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "model/configuration.h"
#include "model/nearest_name.h"

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

size_t tern_config_group(const tern_config *config) {
    static const size_t groups[] = {0, 0, 4, 6, 8, 16, 32, 64, 96};
    return groups[config->granularity];
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
    return *s ? TERN_OK : tern_unknown_name("setting", key, names, SETTINGS, "tern train --help lists them", err);
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

tern_status tern_config_copy(tern_config *to, const tern_config *from, const char *key, tern_error *err) {
    const setting *s;
    TERN_TRY(find_setting(&s, key, err));
    memcpy((char *)to + s->offset, (const char *)from + s->offset, s->bytes);
    return TERN_OK;
}

const char *tern_config_key(size_t i) { return i < SETTINGS ? settings[i].key : NULL; }
const char *tern_config_help(size_t i) { return i < SETTINGS ? settings[i].help : NULL; }
