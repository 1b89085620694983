#include "nn/nodes.h"

#include <ctype.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/random.h"
#include "nn/op.h"
#include "nn/parts.h"

enum { TERN_MAX_NODES = 4096 };
/* No value or parameter has more elements: sizes in bytes of whole batches stay far from overflow. */
static const size_t max_elements = (size_t)1 << 32;

tern_status tern_graph_create(tern_graph **out, tern_error *err) {
    TERN_CHECK_ARGUMENT(out, err, "out is NULL");
    *out = NULL;
    tern_graph *graph = calloc(1, sizeof *graph);
    if (!graph) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for a graph");
    *out = graph;
    return TERN_OK;
}

void tern_graph_free(tern_graph **graph) {
    if (!graph || !*graph) return;
    tern_graph *g = *graph;
    if (g->release) g->release(g->owner);
    tern_block_free(&g->values);
    free(g->node);
    free(g->param);
    free(g);
    *graph = NULL;
}

/* Room for one more element of `size` bytes behind `count`; grown by doubling. */
static void *grow(void *array, size_t count, size_t *room, size_t size) {
    if (count < *room) return array;
    size_t wanted = *room ? *room * 2 : 16;
    void *grown = realloc(array, wanted * size);
    if (grown) *room = wanted;
    return grown;
}

tern_status tern_node_set_shape(tern_node *node, int rank, size_t a, size_t b, size_t c, tern_error *err) {
    size_t dim[TERN_MAX_RANK] = {a, b, c};
    size_t elements = 1;
    for (int i = 0; i < rank; i++) {
        if (!dim[i] || !tern_checked_mul(&elements, elements, dim[i]) || elements > max_elements)
            return tern_fail(err, TERN_E_SIZE, TERN_NO_PLACE, "%s: a value of %zu x %zu x %zu is empty or too large",
                             node->name, a, b, c);
        node->shape.dim[i] = dim[i];
    }
    node->shape.rank = rank;
    node->elements = elements;
    node->channels = dim[rank - 1];
    node->rows = elements / node->channels;
    return TERN_OK;
}

/* Fixed point for all that a float-free operation keeps. Gains and biases reach 8 in steps of 2^-12, statistics 2^15
 * in steps of 2^-16, given weights 32 in steps of 2^-10, and trained ones 16 times their first deviation. */
static void choose_store(tern_param *p, const tern_node *node) {
    if (!node->at.integers) return;
    p->store = p->role == TERN_ROLE_STATISTIC ? TERN_STORE_FIXED32 : TERN_STORE_FIXED16;
    p->exponent = p->role == TERN_ROLE_STATISTIC ? -16 : p->role == TERN_ROLE_FROZEN ? -10 : -12;
    if (p->role == TERN_ROLE_WEIGHT && p->init_sigma > 0) p->exponent = ilogbf(p->init_sigma) + 1 + 4 - 15;
}

tern_status tern_node_add_param(tern_graph *graph, tern_node *node, const char *suffix, tern_role role, int rank,
                                const size_t *dim, float init_mean, float init_sigma, tern_error *err) {
    tern_param p = {.node = (int)graph->nodes, .role = role, .rank = rank, .count = 1};
    snprintf(p.name, sizeof p.name, "%s.%s", node->name, suffix);
    for (int i = 0; i < rank; i++) {
        p.dim[i] = dim[i];
        if (!dim[i] || !tern_checked_mul(&p.count, p.count, dim[i]) || p.count > max_elements)
            return tern_fail(err, TERN_E_SIZE, TERN_NO_PLACE, "%s: empty or too large", p.name);
    }
    p.init_mean = init_mean;
    p.init_sigma = init_sigma;
    choose_store(&p, node);
    tern_param *grown = grow(graph->param, graph->params, &graph->param_room, sizeof *grown);
    if (!grown) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for parameter %s", p.name);
    graph->param = grown;
    node->param[node->params++] = (int)graph->params;
    graph->param[graph->params++] = p;
    return TERN_OK;
}

tern_status tern_node_add_vector(tern_graph *graph, tern_node *node, const char *suffix, tern_role role, size_t count,
                                 float init_value, tern_error *err) {
    return tern_node_add_param(graph, node, suffix, role, 1, &count, init_value, 0, err);
}

tern_status tern_node_add_integers(tern_graph *graph, tern_node *node, const char *suffix, tern_role role,
                                   tern_store store, size_t rows, size_t columns, int init_value, tern_error *err) {
    TERN_TRY(tern_node_add_param(graph, node, suffix, role, columns ? 2 : 1, (size_t[]){rows, columns},
                                 (float)init_value, 0, err));
    tern_param *p = &graph->param[graph->params - 1];
    p->store = store;
    p->exponent = 0;
    return TERN_OK;
}

tern_param *tern_node_find_param(const tern_graph *graph, const tern_node *node, const char *suffix) {
    for (int i = 0; i < node->params; i++) {
        tern_param *p = &graph->param[node->param[i]];
        if (!strcmp(strrchr(p->name, '.') + 1, suffix)) return p;
    }
    return NULL;
}

void tern_param_view(tern_param *p) {
    float scale = ldexpf(1, p->exponent);
    const int16_t *narrow = p->integers;
    const int32_t *wide = p->integers;
    if (p->store == TERN_STORE_FIXED16)
        for (size_t i = 0; i < p->count; i++) p->value[i] = (float)narrow[i] * scale;
    if (p->store == TERN_STORE_FIXED32)
        for (size_t i = 0; i < p->count; i++) p->value[i] = (float)wide[i] * scale;
}

void tern_param_round(tern_param *p) {
    float scale = ldexpf(1, -p->exponent);
    int16_t *narrow = p->integers;
    int32_t *wide = p->integers;
    if (p->store == TERN_STORE_FIXED16)
        for (size_t i = 0; i < p->count; i++)
            narrow[i] = (int16_t)lrintf(fminf(fmaxf(p->value[i] * scale, -INT16_MAX), INT16_MAX));
    if (p->store == TERN_STORE_FIXED32)
        for (size_t i = 0; i < p->count; i++)
            wide[i] = (int32_t)lrint(fmin(fmax((double)p->value[i] * (double)scale, -INT32_MAX), INT32_MAX));
    tern_param_view(p);
}

static tern_status check_name(const tern_graph *graph, const char *name, tern_error *err) {
    TERN_CHECK_ARGUMENT(name && *name, err, "a node has no name");
    TERN_CHECK_ARGUMENT(strlen(name) < TERN_NAME_BYTES, err, "the name %.40s... has more than %d characters", name,
                        TERN_NAME_BYTES - 1);
    for (const char *c = name; *c; c++)
        TERN_CHECK_ARGUMENT(isalnum((unsigned char)*c) || strchr("_-.", *c), err,
                            "the name '%s' holds a character other than letters, digits, '_', '-' and '.'", name);
    for (size_t i = 0; i < graph->nodes; i++)
        TERN_CHECK_ARGUMENT(strcmp(graph->node[i].name, name), err, "two nodes have the name %s", name);
    return TERN_OK;
}

/* Appends a checked node. */
static tern_status append(tern_graph *graph, tern_node *node, tern_error *err) {
    if (graph->nodes == TERN_MAX_NODES)
        return tern_fail(err, TERN_E_SIZE, TERN_NO_PLACE, "a graph has at most %d nodes", TERN_MAX_NODES);
    tern_node *grown = grow(graph->node, graph->nodes, &graph->node_room, sizeof *grown);
    if (!grown) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for node %s", node->name);
    graph->node = grown;
    graph->node[graph->nodes++] = *node;
    return TERN_OK;
}

static tern_status add_input(tern_graph *graph, const tern_shape *shape, size_t vocabulary, tern_error *err) {
    TERN_CHECK_ARGUMENT(!graph->nodes, err, "the input is the first node of a graph, and there is one");
    TERN_CHECK_ARGUMENT(shape->rank >= 1 && shape->rank <= TERN_MAX_RANK, err,
                        "the input has %d dimensions; 1 to %d are possible", shape->rank, TERN_MAX_RANK);
    tern_node node = {.op = tern_op_find("input"), .name = "input"};
    TERN_TRY(tern_node_set_shape(&node, shape->rank, shape->dim[0], shape->dim[1], shape->dim[2], err));
    graph->vocabulary = vocabulary;
    return append(graph, &node, err);
}

/* Gives the node the parameters of the earlier one that `same_as` names, in place of its own, the last ones added. */
static tern_status share_params(tern_graph *graph, tern_node *node, size_t first, tern_error *err) {
    size_t other = node->at.same_as;
    if (!other) return TERN_OK;
    TERN_CHECK_ARGUMENT(other < graph->nodes && graph->node[other].op == node->op && node->params, err,
                        "%s: same_as %zu is no earlier node of the same operation with parameters", node->name,
                        other);
    const tern_node *owner = &graph->node[other];
    int same = owner->params == node->params;
    for (int i = 0; same && i < node->params; i++) {
        const tern_param *a = &graph->param[owner->param[i]], *b = &graph->param[node->param[i]];
        same = a->rank == b->rank && !memcmp(a->dim, b->dim, sizeof a->dim) && a->store == b->store;
    }
    TERN_CHECK_ARGUMENT(same, err, "%s cannot share the parameters of %s: their shapes differ", node->name,
                        owner->name);
    memcpy(node->param, owner->param, sizeof node->param);
    graph->params = first;
    return TERN_OK;
}

/* What only whole-number weights have; groups of columns, packed ones too. */
static tern_status check_whole_attrs(const tern_node *node, tern_error *err) {
    const char *op = node->op->name;
    int trit = !strncmp(op, "trit_", 5), packed = !strncmp(op, "packed_", 7);
    const char *wrong = node->at.group && !packed ? "group"
                        : node->at.update         ? "update"
                        : node->at.floats         ? "floats"
                        : node->at.slow_exponents ? "slow_exponents"
                                                  : NULL;
    TERN_CHECK_ARGUMENT(trit || !wrong, err, "%s: %s is for trit_ operations, not %s", node->name, wrong, op);
    return TERN_OK;
}

static tern_status add_node(tern_graph *graph, const char *op, const char *name, int inputs, const tern_value *input,
                            const tern_attrs *attrs, tern_error *err) {
    TERN_TRY(check_name(graph, name, err));
    tern_node node = {.op = op ? tern_op_find(op) : NULL, .inputs = inputs};
    snprintf(node.name, sizeof node.name, "%s", name);
    TERN_CHECK_ARGUMENT(node.op && strcmp(op, "input"), err, "%s: there is no operation '%s'", name,
                        op ? op : "NULL");
    TERN_CHECK_ARGUMENT(node.op->inputs == inputs, err, "%s: %s takes %d input(s), not %d", name, op, node.op->inputs,
                        inputs);
    for (int i = 0; i < inputs; i++) {
        TERN_CHECK_ARGUMENT(input[i] >= 0 && (size_t)input[i] < graph->nodes, err,
                            "%s: input %d is %d, which is no node before it", name, i, input[i]);
        node.input[i] = input[i];
        TERN_CHECK_ARGUMENT(input[i] || !graph->vocabulary || strstr(op, "embedding"), err,
                            "%s: only an embedding reads the input of tokens, not %s", name, op);
    }
    if (attrs) node.at = *attrs;
    TERN_TRY(check_whole_attrs(&node, err));
    size_t params = graph->params;
    tern_status status = node.op->shape(graph, &node, err);
    if (!node.params) node.at.integers = 0; /* nothing to keep */
    if (!status) status = share_params(graph, &node, params, err);
    if (!status) status = append(graph, &node, err);
    if (status) graph->params = params;
    return status;
}

/* Remembers the first failure. */
static tern_value added(tern_graph *graph, tern_status status, const tern_error *err) {
    if (!status) return (tern_value)graph->nodes - 1;
    graph->status = status;
    graph->error = *err;
    return -1;
}

tern_value tern_graph_input(tern_graph *graph, tern_shape shape) {
    if (!graph || graph->status) return -1;
    tern_error err;
    return added(graph, add_input(graph, &shape, 0, &err), &err);
}

tern_value tern_graph_input_tokens(tern_graph *graph, size_t tokens, size_t vocabulary) {
    if (!graph || graph->status) return -1;
    tern_error err;
    tern_shape shape = {.rank = 1, .dim = {tokens}};
    tern_status status = vocabulary && vocabulary <= INT32_MAX ? add_input(graph, &shape, vocabulary, &err)
                                                               : tern_fail(&err, TERN_E_ARGUMENT, TERN_NO_PLACE,
                                                                           "a vocabulary of %zu tokens", vocabulary);
    return added(graph, status, &err);
}

tern_value tern_graph_add(tern_graph *graph, const char *op, const char *name, tern_value x,
                          const tern_attrs *attrs) {
    if (!graph || graph->status) return -1;
    tern_error err;
    return added(graph, add_node(graph, op, name, 1, &x, attrs, &err), &err);
}

tern_value tern_graph_add2(tern_graph *graph, const char *op, const char *name, tern_value a, tern_value b) {
    if (!graph || graph->status) return -1;
    tern_error err;
    return added(graph, add_node(graph, op, name, 2, (tern_value[]){a, b}, NULL, &err), &err);
}

tern_status tern_graph_check(const tern_graph *graph, tern_error *err) {
    TERN_CHECK_ARGUMENT(graph, err, "graph is NULL");
    if (graph->status) {
        if (err) *err = graph->error;
        return graph->status;
    }
    TERN_CHECK_ARGUMENT(graph->nodes >= 2, err, "a graph needs an input and a node");
    for (size_t i = 0, used = 0; i + 1 < graph->nodes; i++, used = 0) {
        for (size_t j = i + 1; j < graph->nodes; j++)
            for (int k = 0; k < graph->node[j].inputs; k++) used |= (size_t)graph->node[j].input[k] == i;
        TERN_CHECK_ARGUMENT(used, err, "nothing uses the value of node %s", graph->node[i].name);
    }
    return TERN_OK;
}

size_t tern_graph_nodes(const tern_graph *graph) { return graph ? graph->nodes : 0; }

tern_status tern_graph_node(tern_node_info *info, const tern_graph *graph, size_t node, tern_error *err) {
    TERN_CHECK_ARGUMENT(info && graph, err, "%s is NULL", info ? "graph" : "info");
    TERN_CHECK_ARGUMENT(node < graph->nodes, err, "there is no node %zu; the graph has %zu", node, graph->nodes);
    const tern_node *n = &graph->node[node];
    *info = (tern_node_info){.op = n->op->name,
                             .name = n->name,
                             .inputs = n->inputs,
                             .input = {n->input[0], n->input[1]},
                             .attrs = n->at,
                             .shape = n->shape};
    for (int i = 0; i < n->params; i++) info->parameters += graph->param[n->param[i]].count;
    return TERN_OK;
}

static size_t float_bytes(const tern_param *p) {
    return tern_store_has_floats(p->store) ? tern_round_up(p->count * sizeof(float), 64) : 0;
}

static size_t integer_bytes(const tern_param *p) {
    return p->store == TERN_STORE_F32 ? 0 : tern_round_up(p->count * tern_store_bytes(p->store), 64);
}

tern_status tern_graph_place(tern_graph *graph, tern_error *err) {
    size_t bytes = 0;
    for (size_t p = 0; p < graph->params; p++)
        bytes += float_bytes(&graph->param[p]) + integer_bytes(&graph->param[p]);
    if (!tern_block_alloc(&graph->values, bytes))
        return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for the parameters (%zu MiB)", bytes >> 20);
    char *next = graph->values.data;
    for (size_t p = 0; p < graph->params; p++) {
        tern_param *param = &graph->param[p];
        if (float_bytes(param)) param->value = (float *)(void *)next;
        next += float_bytes(param);
        if (integer_bytes(param)) param->integers = next;
        next += integer_bytes(param);
    }
    return TERN_OK;
}

static void copy_values(const tern_param *to, const tern_param *from) {
    if (to->value) memcpy(to->value, from->value, to->count * sizeof *to->value);
    if (to->integers) memcpy(to->integers, from->integers, to->count * tern_store_bytes(to->store));
}

tern_status tern_graph_resize_params(tern_graph *graph, const size_t *numbers, size_t n, size_t count,
                                     tern_error *err) {
    tern_block old = graph->values;
    tern_param *before = malloc(graph->params * sizeof *before);
    if (!before) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for the parameters");
    memcpy(before, graph->param, graph->params * sizeof *before);
    for (size_t i = 0; i < n; i++) graph->param[numbers[i]].dim[0] = graph->param[numbers[i]].count = count;
    tern_status status = tern_graph_place(graph, err);
    if (status) {
        memcpy(graph->param, before, graph->params * sizeof *before);
        graph->values = old;
    }
    for (size_t p = 0; !status && p < graph->params; p++) {
        int resized = 0;
        for (size_t i = 0; i < n; i++) resized |= numbers[i] == p;
        if (!resized) copy_values(&graph->param[p], &before[p]);
    }
    if (!status) tern_block_free(&old);
    free(before);
    return status;
}

static void fill_integers(tern_param *p) {
    int value = (int)p->init_mean;
    int32_t *wide = p->integers;
    int64_t *widest = p->integers;
    if (tern_store_bytes(p->store) == 1) memset(p->integers, value, p->count);
    for (size_t i = 0; p->store == TERN_STORE_I32 && i < p->count; i++) wide[i] = value;
    for (size_t i = 0; p->store == TERN_STORE_I64 && i < p->count; i++) widest[i] = value;
}

/* Value i depends on the key and i alone, so any number of threads makes what one would. */
static void fill_values(tern_param *p, uint64_t key, int threads) {
    TERN_FOR_PARTS(threads, p->count, TERN_PART, begin, end)
    for (size_t i = begin; i < end; i++)
        p->value[i] = p->init_mean + (p->init_sigma != 0 ? p->init_sigma * tern_random_normal(key, i) : 0);
}

void tern_graph_initialise(tern_graph *graph, uint64_t seed, int threads) {
    const int team = threads > 0 ? threads : omp_get_num_procs();
    for (size_t p = 0; p < graph->params; p++) {
        tern_param *param = &graph->param[p];
        if (!param->value) {
            fill_integers(param);
            continue;
        }
        fill_values(param, tern_stream(seed, p), team);
        if (param->integers) tern_param_round(param);
    }
    for (size_t i = 1; i < graph->nodes; i++)
        if (graph->node[i].op->initialise) graph->node[i].op->initialise(graph, i, seed);
}

tern_node *tern_graph_find(tern_graph *graph, const char *name) {
    for (size_t i = 0; i < graph->nodes; i++)
        if (!strcmp(graph->node[i].name, name)) return &graph->node[i];
    return NULL;
}

tern_param *tern_graph_find_param(tern_graph *graph, const char *name) {
    for (size_t i = 0; i < graph->params; i++)
        if (!strcmp(graph->param[i].name, name)) return &graph->param[i];
    return NULL;
}
