/* A configuration as a record; tern/config.h has the words around it. */
#ifndef TERN_MODEL_CONFIGURATION_H
#define TERN_MODEL_CONFIGURATION_H

#include <stddef.h>
#include <stdint.h>

#include "tern/config.h"
#include "tern/status.h"

typedef enum tern_model_kind {
    TERN_MODEL_MLP = 0,
    TERN_MODEL_CNN = 1,
    TERN_MODEL_SIMPLE = 2,
    TERN_MODEL_FAST = 3,
    TERN_MODEL_GPT = 4
} tern_model_kind;

typedef enum tern_schedule {
    TERN_CONSTANT = 0,
    TERN_LINEAR = 1,
    TERN_COSINE = 2,
    TERN_BITNET = 3,
    TERN_HALVINGS = 4
} tern_schedule;

typedef enum tern_products {
    TERN_PRODUCTS_AUTO = 0,
    TERN_PRODUCTS_F32 = 1,
    TERN_PRODUCTS_BF16 = 2,
    TERN_PRODUCTS_F16 = 3
} tern_products;

typedef enum tern_weight_kind {
    TERN_WEIGHTS_FLOAT = 0,
    TERN_WEIGHTS_TERNARY = 1,
    TERN_WEIGHTS_TRIT = 2
} tern_weight_kind;

/* Reals are double, whole numbers long long, choices int; texts have fixed room. */
struct tern_config {
    char preset[48];
    int model, data, weights; /* weights: tern_weight_kind */
    char path[400];
    long long width, width_later, convolutions, depth, heads, context, vocabulary;
    double dropout, dropout_embedding, dropout_inner;
    int rule;        /* tern_weight_rule - 1 */
    int granularity; /* tern_granularity, and behind it the groups of tern_config_group() */
    int update;      /* tern_update - 1 */
    int ends;        /* embedding and head of a float-free network: 0 trits, 1 fixed point */
    long long slow_exponents, group_rates, group_thresholds, zeros;

    double epochs;
    long long steps, batch, accumulate, seed, threads;
    int products;        /* tern_products */
    int input_gradients; /* of ternary products on a GPU: 0 float, 1 int8 */

    int optimizer, side_optimizer;
    double lr, lr_side, lr_head;
    int schedule;
    double lr_final, warmup;
    double momentum, beta2, weight_decay, decay_side, clip, smoothing;
    long long loss_ce, loss_entropy, loss_z, loss_shift; /* nn/loss.h */
    double lambda_begin, lambda_end;
    double whiten_share; /* of the run, while the whitening layer's bias trains */

    int crop_fill, flip;
    long long crop, cutout;
    double brightness, contrast, saturation;

    int views;
    long long recalibrate, evaluate_every, save_every, log_every, max_skips;
};

/* The record of a preset, twins included; TERN_E_ARGUMENT with a suggestion. */
tern_status tern_config_preset(tern_config *config, const char *name, tern_error *err);

/* The setting becomes what it is before any preset changes it: what a file means that was written before there was
 * such a setting. */
tern_status tern_config_unset(tern_config *config, const char *key, tern_error *err);

/* Columns of a group that `granularity` names; 0 for tensor and row. */
size_t tern_config_group(const tern_config *config);

/* One setting of another record. */
tern_status tern_config_copy(tern_config *to, const tern_config *from, const char *key, tern_error *err);

#endif
