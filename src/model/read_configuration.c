/* A configuration from a JSON file: a preset, and what it changes. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "model/configuration.h"

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
