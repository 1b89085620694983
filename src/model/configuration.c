#include "model/configuration.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

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
    const char *key;
    for (size_t i = 0; (key = tern_config_key(i)) != NULL; i++) {
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
