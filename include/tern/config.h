/* Configurations: everything that decides a training run, as named settings. A preset fills all of them in; a JSON
 * file and key=value pairs change some. A checkpoint carries its configuration. */
#ifndef TERN_CONFIG_H
#define TERN_CONFIG_H

#include <stddef.h>

#include "tern/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tern_config tern_config;

/* A preset by its name, such as "mnist-mlp"; "-fp" behind it makes the full-precision twin, "-trit" the one that
 * trains whole numbers alone (docs/float-free.md). An unknown name is
 * TERN_E_ARGUMENT with the nearest one suggested. */
TERN_API tern_status tern_config_create(tern_config **out, const char *preset, tern_error *err);
TERN_API tern_status tern_config_clone(tern_config **out, const tern_config *config, tern_error *err);
/* Its full-precision twin: the same but for float weights. Of a float-free configuration: the twin of its preset with
 * whatever else was changed; rates in counts mean nothing to it. */
TERN_API tern_status tern_config_twin(tern_config **out, const tern_config *config, tern_error *err);
TERN_API void tern_config_free(tern_config **config);

/* The i-th preset (without the twins), NULL past the end, and what it is. */
TERN_API const char *tern_preset_name(size_t i);
TERN_API const char *tern_preset_summary(size_t i);

/* Sets one setting. An unknown key is TERN_E_ARGUMENT with the nearest one suggested, as is a value that does not
 * parse or lies outside its range. */
TERN_API tern_status tern_config_set(tern_config *config, const char *key, const char *value, tern_error *err);

/* A JSON object of settings; "preset" names what they change and comes first by right, wherever it stands. */
TERN_API tern_status tern_config_read(tern_config **out, const char *path, tern_error *err);

/* The settings in their order: key, NULL past the end; what it means; its value as tern_config_set takes it. */
TERN_API const char *tern_config_key(size_t i);
TERN_API const char *tern_config_help(size_t i);
TERN_API tern_status tern_config_get(const tern_config *config, const char *key, char *value, size_t bytes,
                                     tern_error *err);

#ifdef __cplusplus
}
#endif
#endif
