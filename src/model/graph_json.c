#include "model/graph_json.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "nn/nodes.h"
#include "nn/op.h"

typedef enum attr_type { SIZE, INT, FLOAT, SIZES } attr_type; /* SIZES: a shape, up to the first 0 */

typedef struct attr {
    const char *key;
    attr_type type;
    size_t offset;
} attr;

#define ATTR(field, type) \
    { #field, type, offsetof(tern_attrs, field) }
static const attr attrs[] = {
    ATTR(outputs, SIZE),    ATTR(width, SIZE),   ATTR(kernel, SIZE),   ATTR(stride, SIZE),
    ATTR(padding, SIZE),    ATTR(groups, SIZE),  ATTR(heads, SIZE),    ATTR(kv_heads, SIZE),
    ATTR(bias, INT),        ATTR(plain, INT),    ATTR(frozen, INT),    ATTR(rule, INT),
    ATTR(granularity, INT), ATTR(acts, INT),     ATTR(epsilon, FLOAT), ATTR(momentum, FLOAT),
    ATTR(rope_base, FLOAT), ATTR(rate, FLOAT),   ATTR(factor, FLOAT),  ATTR(init_gain, FLOAT),
    ATTR(update, INT),      ATTR(group, SIZE),   ATTR(floats, INT),    ATTR(slow_exponents, INT),
    ATTR(integers, INT),    ATTR(same_as, SIZE), ATTR(dim, SIZES),
};
enum { ATTRS = sizeof attrs / sizeof *attrs };

static json_t *sizes_json(const size_t *size, int count) {
    json_t *sizes = json_array();
    for (int i = 0; i < count; i++) json_array_append_new(sizes, json_integer((json_int_t)size[i]));
    return sizes;
}

/* Digits enough for an fp32 to come back as it was. */
static json_t *attr_json(const tern_attrs *at, const attr *a) {
    const char *value = (const char *)at + a->offset;
    if (a->type == SIZE) {
        size_t v = *(const size_t *)(const void *)value;
        return v ? json_integer((json_int_t)v) : NULL;
    }
    if (a->type == INT) {
        int v = *(const int *)(const void *)value;
        return v ? json_integer(v) : NULL;
    }
    if (a->type == SIZES) {
        const size_t *dim = (const size_t *)(const void *)value;
        int rank = 0;
        while (rank < TERN_MAX_RANK && dim[rank]) rank++;
        return rank ? sizes_json(dim, rank) : NULL;
    }
    float v = *(const float *)(const void *)value;
    return v != 0 ? json_real((double)v) : NULL;
}

static json_t *node_json(const tern_graph *graph, const tern_node *node) {
    json_t *from = json_array();
    for (int k = 0; k < node->inputs; k++)
        json_array_append_new(from, json_string(tern_node_input(graph, node, k)->name));
    json_t *json = json_pack("{s:s, s:s, s:o}", "op", node->op->name, "name", node->name, "from", from);
    for (size_t i = 0; json && i < ATTRS; i++) {
        json_t *value = attr_json(&node->at, &attrs[i]);
        if (value) json_object_set_new(json, attrs[i].key, value);
    }
    return json;
}

json_t *tern_graph_to_json(const tern_graph *graph) {
    const tern_node *in = &graph->node[0];
    json_t *input, *nodes = json_array();
    if (graph->vocabulary) {
        input =
            json_pack("{s:I, s:I}", "tokens", (json_int_t)in->elements, "vocabulary", (json_int_t)graph->vocabulary);
    } else {
        input = json_pack("{s:o}", "shape", sizes_json(in->shape.dim, in->shape.rank));
    }
    for (size_t i = 1; i < graph->nodes; i++) json_array_append_new(nodes, node_json(graph, &graph->node[i]));
    return json_pack("{s:o, s:o}", "input", input, "nodes", nodes);
}

/* A whole number from 0 to 2^40: the arithmetic of shapes checks the rest. */
static tern_status read_size(size_t *out, const json_t *json, const char *where, const char *key, tern_error *err) {
    json_int_t v = json_integer_value(json);
    if (!json_is_integer(json) || v < 0 || v > (json_int_t)1 << 40)
        return tern_fail(err, TERN_E_DATA, TERN_NO_PLACE, "%s: %s is no size", where, key);
    *out = (size_t)v;
    return TERN_OK;
}

/* An array of 1 to 3 sizes. */
static tern_status read_sizes(size_t *size, int *rank, const json_t *json, const char *where, const char *key,
                              tern_error *err) {
    size_t count = json_array_size(json);
    if (count < 1 || count > TERN_MAX_RANK)
        return tern_fail(err, TERN_E_DATA, TERN_NO_PLACE, "%s: no %s of 1 to %d sizes", where, key, TERN_MAX_RANK);
    *rank = (int)count;
    for (size_t i = 0; i < count; i++) TERN_TRY(read_size(&size[i], json_array_get(json, i), where, key, err));
    return TERN_OK;
}

static tern_status read_attr(tern_attrs *at, const attr *a, const json_t *value, const char *node, tern_error *err) {
    char *to = (char *)at + a->offset;
    if (a->type == SIZE) return read_size((size_t *)(void *)to, value, node, a->key, err);
    if (a->type == INT) {
        json_int_t v = json_integer_value(value);
        if (!json_is_integer(value) || v < 0 || v > 1000)
            return tern_fail(err, TERN_E_DATA, TERN_NO_PLACE, "%s: %s is out of range", node, a->key);
        *(int *)(void *)to = (int)v;
        return TERN_OK;
    }
    if (a->type == SIZES) {
        int rank;
        return read_sizes((size_t *)(void *)to, &rank, value, node, a->key, err);
    }
    double v = json_number_value(value);
    if (!json_is_number(value) || !isfinite(v) || fabs(v) > 1e30)
        return tern_fail(err, TERN_E_DATA, TERN_NO_PLACE, "%s: %s is no finite number", node, a->key);
    *(float *)(void *)to = (float)v;
    return TERN_OK;
}

static tern_status read_attrs(tern_attrs *at, const json_t *json, const char *node, tern_error *err) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)json, key, value) {
        if (!strcmp(key, "op") || !strcmp(key, "name") || !strcmp(key, "from")) continue;
        size_t i = 0;
        while (i < ATTRS && strcmp(attrs[i].key, key)) i++;
        if (i == ATTRS)
            return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE, "%s: unknown attribute '%.40s'", node, key);
        TERN_TRY(read_attr(at, &attrs[i], value, node, err));
    }
    return TERN_OK;
}

/* The number of the node called `name`. */
static tern_value find_value(tern_graph *graph, const json_t *name) {
    const char *text = json_string_value(name);
    const tern_node *node = text ? tern_graph_find(graph, text) : NULL;
    return node ? (tern_value)(node - graph->node) : -1;
}

static tern_status read_node(tern_graph *graph, const json_t *json, size_t i, tern_error *err) {
    const char *op = json_string_value(json_object_get(json, "op"));
    const char *name = json_string_value(json_object_get(json, "name"));
    const json_t *from = json_object_get(json, "from");
    if (!op || !name || json_array_size(from) < 1 || json_array_size(from) > 2)
        return tern_fail(err, TERN_E_DATA, TERN_NO_PLACE, "graph: node %zu has no op, name and from", i);
    if (!tern_op_find(op))
        return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE, "%.60s: unknown operation '%.40s'", name, op);
    tern_attrs at = {0};
    TERN_TRY(read_attrs(&at, json, name, err));
    tern_value a = find_value(graph, json_array_get(from, 0));
    if (json_array_size(from) == 2)
        tern_graph_add2(graph, op, name, a, find_value(graph, json_array_get(from, 1)));
    else
        tern_graph_add(graph, op, name, a, &at);
    if (!graph->status) return TERN_OK;
    if (err) *err = graph->error;
    return graph->status == TERN_E_ARGUMENT ? TERN_E_DATA : graph->status;
}

/* Refuses a key that is none of `known`, which ends with NULL. */
static tern_status check_keys(const json_t *json, const char *where, const char *const *known, tern_error *err) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)json, key, value) {
        size_t i = 0;
        while (known[i] && strcmp(known[i], key)) i++;
        if (!known[i])
            return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE, "%s: unknown key '%.40s'", where, key);
    }
    return TERN_OK;
}

static tern_status read_input(tern_graph *graph, const json_t *json, tern_error *err) {
    const json_t *tokens = json_object_get(json, "tokens");
    TERN_TRY(check_keys(
        json, "input",
        tokens ? (const char *const[]){"tokens", "vocabulary", NULL} : (const char *const[]){"shape", NULL}, err));
    if (tokens) {
        size_t count = 0, vocabulary = 0;
        TERN_TRY(read_size(&count, tokens, "input", "tokens", err));
        TERN_TRY(read_size(&vocabulary, json_object_get(json, "vocabulary"), "input", "vocabulary", err));
        tern_graph_input_tokens(graph, count, vocabulary);
    } else {
        tern_shape s = {0};
        TERN_TRY(read_sizes(s.dim, &s.rank, json_object_get(json, "shape"), "input", "shape", err));
        tern_graph_input(graph, s);
    }
    if (graph->status && err) *err = graph->error;
    return graph->status;
}

tern_status tern_graph_from_json(tern_graph **out, const json_t *json, tern_error *err) {
    TERN_TRY(tern_graph_create(out, err));
    const json_t *nodes = json_object_get(json, "nodes");
    tern_status status = check_keys(json, "graph", (const char *const[]){"input", "nodes", NULL}, err);
    if (!status) status = read_input(*out, json_object_get(json, "input"), err);
    if (!status && !json_is_array(nodes))
        status = tern_fail(err, TERN_E_DATA, TERN_NO_PLACE, "graph: there are no nodes");
    for (size_t i = 0; !status && i < json_array_size(nodes); i++)
        status = read_node(*out, json_array_get(nodes, i), i, err);
    if (!status) status = tern_graph_check(*out, err);
    if (status) tern_graph_free(out);
    return status;
}
