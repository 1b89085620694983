/* The same network in fp32: ternary layers become float ones with the weights that they stand for, and activations
 * are not quantized. What it costs to run is what the full-precision twin costs. */
#ifndef TERN_MODEL_FLOAT_TWIN_H
#define TERN_MODEL_FLOAT_TWIN_H

#include "nn/plan.h"

/* From a plan of latent ternary weights, refreshed. */
tern_status tern_float_twin(tern_graph **out, const tern_plan *plan, tern_error *err);

#endif
