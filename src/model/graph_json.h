/* A graph as JSON and back:
 *     {"input": {"shape": [28, 28, 1]} or {"tokens": 64, "vocabulary": 65},
 *      "nodes": [{"op": "bit_linear", "name": "fc1", "from": ["flatten"], "outputs": 512, ...}, ...]}
 * Attributes stand beside op and name where they are not zero. Reading refuses unknown keys: one that changed the
 * mathematics must not be passed over. */
#ifndef TERN_MODEL_GRAPH_JSON_H
#define TERN_MODEL_GRAPH_JSON_H

#include <jansson.h>

#include "tern/graph.h"

/* NULL when memory ran out. The caller's. */
json_t *tern_graph_to_json(const tern_graph *graph);

tern_status tern_graph_from_json(tern_graph **out, const json_t *json, tern_error *err);

#endif
