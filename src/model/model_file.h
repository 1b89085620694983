/* A model in a file: a safetensors file whose metadata "tern.model" holds the graph and what its input means. The
 * file of a deployed model has packed weights (uint8) and scales; a checkpoint has fp32 parameters, and the
 * optimiser's state under names of its own. */
#ifndef TERN_MODEL_MODEL_FILE_H
#define TERN_MODEL_MODEL_FILE_H

#include "io/safetensors.h"
#include "model/configuration.h"
#include "nn/nodes.h"
#include "tern/data.h"

/* What goes in, and what the numbers that come out are called. */
typedef struct tern_model_input {
    tern_data_kind data;
    float mean[4], std[4]; /* images: (pixel / 255 - mean) / std */
    size_t classes;
    char **class_name; /* [classes] */
    size_t vocabulary;
    uint32_t *code_point; /* [vocabulary], NULL: tokens are bytes */
} tern_model_input;

typedef struct tern_model_file {
    tern_graph *graph;
    tern_model_input input;
    tern_config config; /* a checkpoint's; of a packed model: preset and data only */
    int packed;
    tern_safetensors *file;
} tern_model_file;

/* Copies what a data set says of itself. */
tern_status tern_model_input_from(tern_model_input *input, const tern_dataset *dataset, tern_error *err);
void tern_model_input_free(tern_model_input *input);

/* Metadata and parameters into a writer. `packed` only marks the file. */
tern_status tern_model_add(tern_safetensors_writer *writer, const tern_graph *graph, const tern_model_input *input,
                           const tern_config *config, int packed, tern_error *err);

/* Reads and checks; parameters are copied, packed weights stay mapped. */
tern_status tern_model_file_open(tern_model_file *model, const char *path, tern_error *err);
/* The same from a file that is open; it is the model's from then on, or closed on failure. path: for messages. */
tern_status tern_model_file_take(tern_model_file *model, tern_safetensors **file, const char *path, tern_error *err);
void tern_model_file_close(tern_model_file *model);

/* Every parameter of a placed graph, checked: type, shape, and what integers may be. */
tern_status tern_model_read_params(tern_graph *graph, const tern_safetensors *file, tern_error *err);

/* Copies an fp32 tensor of just `count` elements. */
tern_status tern_model_read_floats(float *to, const tern_safetensors *file, const char *name, size_t count,
                                   tern_error *err);

#endif
