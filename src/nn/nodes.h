/* The inside of a graph: nodes and the parameters they own. Shapes are per sample (tern/graph.h). */
#ifndef TERN_NN_NODES_H
#define TERN_NN_NODES_H

#include "base/memory.h"
#include "tern/graph.h"

enum { TERN_PARAM_NAME_BYTES = TERN_NAME_BYTES + 16, TERN_MAX_PARAM_RANK = 4 };

/* What a parameter is decides how it is trained, saved and exported. */
typedef enum tern_role {
    TERN_ROLE_WEIGHT = 0,    /* matrix of a float op: trained, decays */
    TERN_ROLE_LATENT = 1,    /* fp32 weights behind trits: trained, decays */
    TERN_ROLE_GAIN = 2,      /* factors of a norm: trained, no decay */
    TERN_ROLE_BIAS = 3,      /* trained, no decay */
    TERN_ROLE_STATISTIC = 4, /* running mean and variance: part of the model, not trained */
    TERN_ROLE_FROZEN = 5     /* weights that are given, not trained */
} tern_role;

/* One parameter: one row that drives allocation, initial values, optimiser, checkpoint and export. */
typedef struct tern_param {
    char name[TERN_PARAM_NAME_BYTES]; /* "node.weight" */
    int node;
    tern_role role;
    int rank;
    size_t dim[TERN_MAX_PARAM_RANK];
    size_t count;     /* product of dim */
    float init_mean;  /* initial values are normal with this mean */
    float init_sigma; /* and this deviation */
    float *value;     /* [count], owned by the graph */
} tern_param;

/* Packed weights of a deployed node; the bytes belong to the file that the graph came from. */
typedef struct tern_packed {
    tern_packing packing;
    size_t rows, cols; /* of each of `matrices` */
    size_t matrices;   /* groups of a convolution; their bytes follow one another */
    const uint8_t *bytes;
    size_t byte_count; /* of all matrices */
    const float *scales;
    size_t scale_count; /* 1 or rows, a matrix: see tern_scale_kind */
    tern_scale_kind scale_kind;
} tern_packed;

struct tern_op;

enum { TERN_NODE_PARAMS = 4 };

typedef struct tern_node {
    const struct tern_op *op;
    char name[TERN_NAME_BYTES];
    int inputs, input[2];
    tern_attrs at; /* defaults filled in */
    tern_shape shape;
    size_t elements; /* of the value, per sample */
    size_t rows;     /* elements / channels */
    size_t channels; /* last dimension */
    int params, param[TERN_NODE_PARAMS];
    tern_packed packed; /* packed_ ops */
} tern_node;

struct tern_graph {
    tern_node *node;
    size_t nodes, node_room;
    tern_param *param;
    size_t params, param_room;
    size_t vocabulary; /* of an input of tokens, else 0 */
    tern_block values; /* of all parameters; parameters not yet placed have none */
    tern_status status;
    tern_error error; /* the first failure */
    void (*release)(void *owner);
    void *owner; /* of packed bytes */
};

static inline const tern_node *tern_node_input(const tern_graph *graph, const tern_node *node, int i) {
    return &graph->node[node->input[i]];
}

static inline const tern_param *tern_node_param(const tern_graph *graph, const tern_node *node, int i) {
    return &graph->param[node->param[i]];
}

/* For shape rules: gives the node a parameter. suffix: "weight", "bias", ... */
tern_status tern_node_add_param(tern_graph *graph, tern_node *node, const char *suffix, tern_role role, int rank,
                                const size_t *dim, float init_mean, float init_sigma, tern_error *err);
tern_status tern_node_add_vector(tern_graph *graph, tern_node *node, const char *suffix, tern_role role, size_t count,
                                 float init_value, tern_error *err);

/* Sets the value's shape; checks that it is not empty and does not overflow. */
tern_status tern_node_set_shape(tern_node *node, int rank, size_t a, size_t b, size_t c, tern_error *err);

/* Places all parameters in one block, zeroed. */
tern_status tern_graph_place(tern_graph *graph, tern_error *err);

/* Draws the initial values: parameter p from the stream (seed, p), so that its values depend on no other's. */
void tern_graph_initialise(tern_graph *graph, uint64_t seed);

/* NULL when there is none. */
tern_node *tern_graph_find(tern_graph *graph, const char *name);
tern_param *tern_graph_find_param(tern_graph *graph, const char *name);

#endif
