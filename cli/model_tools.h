/* What the commands on models share. */
#ifndef TERN_CLI_MODEL_TOOLS_H
#define TERN_CLI_MODEL_TOOLS_H

#include <jansson.h>

#include "tern/tern.h"

/* The test split that a model was made for. path NULL: the usual places. */
tern_status open_test_data(tern_dataset **out, const tern_model *model, const char *path, tern_error *err);

/* The GPU that `option`, or without it TERN_DEVICE, names: checked. TERN_DEVICE_CPU also where neither names one:
 * these commands take no GPU unasked. A kernel of a GPU in TERN_KERNEL asks for one. */
tern_status find_device(int *device, const char *option, tern_error *err);
/* As tern_model_options takes it: NULL for the CPU, else "cuda:N" in one buffer. */
const char *device_name(int device);

/* One object on one line, and frees it. */
void print_json_line(json_t *json);

/* "12.3 kB", into a buffer of its own (one of eight, in turn). */
const char *bytes_text(size_t bytes);

#endif
