/* Text from a language model. */
#ifndef TERN_MODEL_SAMPLE_H
#define TERN_MODEL_SAMPLE_H

#include "model/evaluate.h"
#include "model/model_file.h"
#include "tern/model.h"

typedef struct tern_sampler {
    tern_runner runner;
    const tern_model_input *input;
} tern_sampler;

/* See tern_model_generate. */
tern_status tern_sample(const tern_sampler *sampler, const char *prompt, const tern_generate_options *options,
                        int (*emit)(void *context, const char *text, size_t bytes), void *context, tern_error *err);

/* An `emit` that collects the text; bytes is the caller's to free. Start from a zeroed one. */
typedef struct tern_text {
    char *bytes;
    size_t length;
} tern_text;

int tern_text_append(void *context, const char *text, size_t bytes);

#endif
