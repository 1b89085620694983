#include "train/schedule.h"

#include <math.h>

static double falling(const tern_config *config, double at) {
    double final = config->lr_final;
    switch (config->schedule) {
    case TERN_LINEAR: return 1 + (final - 1) * at;
    case TERN_COSINE: return final + (1 - final) * 0.5 * (1 + cos(3.14159265358979323846 * at));
    case TERN_BITNET: return at < 0.5 ? 1 - at * 2 / 3 : 2.0 / 3 + (final - 2.0 / 3) * (at - 0.5) * 2;
    case TERN_HALVINGS: return at < 0.5 ? 1 : at < 0.7 ? 0.5 : at < 0.82 ? 0.25 : at < 0.9 ? 0.125 : 0.0625;
    default: return 1;
    }
}

double tern_schedule_rate(const tern_config *config, double at) {
    double warmup = config->warmup;
    if (at < warmup) return at / warmup;
    return falling(config, warmup < 1 ? (at - warmup) / (1 - warmup) : 1);
}

double tern_schedule_decay(const tern_config *config, double at) {
    return config->schedule == TERN_BITNET && at >= 0.5 ? 0 : 1;
}

double tern_schedule_lambda(const tern_config *config, double at) {
    if (at < config->lambda_begin) return 0;
    if (at >= config->lambda_end) return 1;
    return (at - config->lambda_begin) / (config->lambda_end - config->lambda_begin);
}
