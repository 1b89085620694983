/* Initial values that come from the data or from a network's design, after tern_graph_initialise. */
#ifndef TERN_TRAIN_START_VALUES_H
#define TERN_TRAIN_START_VALUES_H

#include "model/model_file.h"
#include "tern/data.h"

/* For model=fast: the whitening filters of the first layer, from the patches of up to 5000 images, and convolutions
 * whose first filters pass their input on. Nothing for the others. */
tern_status tern_start_values(tern_graph *graph, const tern_config *config, const tern_dataset *dataset,
                              const tern_model_input *input, tern_error *err);

#endif
