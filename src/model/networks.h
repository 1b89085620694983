/* The networks of the presets, each described once: a configuration and what the data looks like make a graph. */
#ifndef TERN_MODEL_NETWORKS_H
#define TERN_MODEL_NETWORKS_H

#include "model/configuration.h"
#include "tern/graph.h"

typedef struct tern_data_shape {
    size_t height, width, channels, classes; /* of images */
    size_t vocabulary;                       /* of a text */
} tern_data_shape;

/* The graph, checked, without parameter values. */
tern_status tern_network_build(tern_graph **out, const tern_config *config, const tern_data_shape *data,
                               tern_error *err);

#endif
