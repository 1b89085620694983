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
    TERN_ROLE_FROZEN = 5,    /* weights that are given, not trained */
    TERN_ROLE_COUNTER = 6,   /* integers behind trits: trained by a rule while gradients stream past */
    TERN_ROLE_RULE = 7       /* what else a rule keeps */
} tern_role;

/* How a parameter persists. FIXED ones are integers times 2^exponent; the floats that operations read are a view of
 * them, made anew from the integers whenever those change. Whole ones have no floats at all. */
typedef enum tern_store {
    TERN_STORE_F32 = 0,
    TERN_STORE_FIXED16 = 1, /* int16: gains, biases, dense weights of a float-free network */
    TERN_STORE_FIXED32 = 2, /* int32: running statistics of one */
    TERN_STORE_I8 = 3,
    TERN_STORE_U8 = 4, /* packed trits */
    TERN_STORE_I32 = 5,
    TERN_STORE_I64 = 6
} tern_store;

static inline int tern_store_has_floats(tern_store store) { return store <= TERN_STORE_FIXED32; }
static inline size_t tern_store_bytes(tern_store store) {
    static const size_t bytes[] = {4, 2, 4, 1, 1, 4, 8};
    return bytes[store];
}

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
    float *value;     /* [count], owned by the graph; NULL where the store is of whole numbers */
    tern_store store;
    int exponent;   /* of FIXED stores */
    void *integers; /* [count], owned by the graph; NULL of TERN_STORE_F32 */
} tern_param;

/* True where a gradient is wanted. */
static inline int tern_param_is_trained(const tern_param *p) {
    return p->role < TERN_ROLE_STATISTIC || p->role == TERN_ROLE_COUNTER;
}
/* True where the gradient is kept whole, as floats; counters take theirs while it streams past. */
static inline int tern_param_has_gradient(const tern_param *p) { return p->role < TERN_ROLE_STATISTIC; }

/* Makes the integers of a FIXED parameter from its floats, to the nearest and saturating; then the floats from
 * them. */
void tern_param_round(tern_param *param);
/* The floats from the integers. */
void tern_param_view(tern_param *param);

/* Packed weights of a deployed node; the bytes belong to the file that the graph came from. */
typedef struct tern_packed {
    tern_packing packing;
    size_t rows, cols; /* of each of `matrices` */
    size_t matrices;   /* groups of a convolution; their bytes follow one another */
    const uint8_t *bytes;
    size_t byte_count; /* of all matrices */
    const float *scales;
    const int8_t *exponents; /* of GROUP_EXP, in place of scales */
    size_t scale_count;      /* a matrix: see tern_scale_kind */
    size_t group;            /* of GROUP_EXP */
    tern_scale_kind scale_kind;
} tern_packed;

struct tern_op;

enum { TERN_NODE_PARAMS = 12 };

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
/* Whole numbers that all start at init_value; an operation's `initialise` may say otherwise. */
tern_status tern_node_add_integers(tern_graph *graph, tern_node *node, const char *suffix, tern_role role,
                                   tern_store store, size_t rows, size_t columns, int init_value, tern_error *err);
/* The node's parameter whose name ends with ".suffix"; NULL when it has none. */
tern_param *tern_node_find_param(const tern_graph *graph, const tern_node *node, const char *suffix);

/* Sets the value's shape; checks that it is not empty and does not overflow. */
tern_status tern_node_set_shape(tern_node *node, int rank, size_t a, size_t b, size_t c, tern_error *err);

/* Places all parameters in one block, zeroed. */
tern_status tern_graph_place(tern_graph *graph, tern_error *err);

/* Gives placed parameters of one dimension, numbers[n], room for `count` values each, all 0; the others keep theirs.
 * Pointers to the values of the graph's parameters, such as plans hold, are no longer good. All or nothing. */
tern_status tern_graph_resize_params(tern_graph *graph, const size_t *numbers, size_t n, size_t count,
                                     tern_error *err);

/* Draws the initial values: parameter p from the stream (seed, p), so that its values depend on no other's, nor on the
 * number of threads (0: all processors). */
void tern_graph_initialise(tern_graph *graph, uint64_t seed, int threads);

/* NULL when there is none. */
tern_node *tern_graph_find(tern_graph *graph, const char *name);
tern_param *tern_graph_find_param(tern_graph *graph, const char *name);

#endif
