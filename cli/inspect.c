/* tern inspect: what a model file holds. */
#include <stdio.h>

#include "args.h"
#include "cli.h"
#include "model_tools.h"

static void usage(FILE *to) {
    fputs("usage: tern inspect FILE [--json]\n\n"
          "Lists the nodes of a checkpoint or a packed model: shapes, packings, scales and who shares them (a "
          "tensor, a\n"
          "row, T32: 32 columns), shares of -1, 0 and +1, bits a weight. Of a checkpoint also the rule of "
          "whole-number\n"
          "weights, and the state: all bits a weight that persist to train on, the optimiser's among them.\n\n"
          "Example:\n  tern inspect fashion.tern\n",
          to);
}

static void shape_text(char *out, size_t bytes, const tern_shape *s) {
    size_t used = 0;
    for (int i = 0; i < s->rank && used < bytes; i++)
        used += (size_t)snprintf(out + used, bytes - used, "%s%zu", i ? "x" : "", s->dim[i]);
}

/* "row", "tensor" or "T32": how many weights share a scale. */
static void group_text(char *out, size_t bytes, const tern_layer_info *l, size_t group) {
    if (l->scale_kind == TERN_SCALE_GROUP_EXP)
        snprintf(out, bytes, "T%zu", group);
    else
        snprintf(out, bytes, "%s", l->scale_kind == TERN_SCALE_ROW ? "row" : "tensor");
}

/* The rule that trains whole numbers; NULL of other weights. */
static const char *rule_text(const tern_node_info *node) {
    static const char *const names[] = {NULL, "r1", "r2", "vote", "seed-corr", "ortho"};
    return node->attrs.update >= 0 && node->attrs.update < 6 ? names[node->attrs.update] : NULL;
}

static json_t *layer_json(const tern_layer_info *l, const tern_node_info *node) {
    char group[32];
    group_text(group, sizeof group, l, node->attrs.group);
    json_t *o = json_pack("{s:s, s:s, s:I, s:f, s:f, s:I, s:I, s:I, s:I, s:f}", "packing",
                          tern_packing_name(l->packing), "scales", group, "scale_count", (json_int_t)l->scale_count,
                          "least_scale", (double)l->least_scale, "largest_scale", (double)l->largest_scale, "minus",
                          (json_int_t)l->minus, "zero", (json_int_t)l->zero, "plus", (json_int_t)l->plus, "bytes",
                          (json_int_t)l->bytes, "bits_per_weight", l->bits_per_weight);
    if (rule_text(node)) json_object_set_new(o, "update", json_string(rule_text(node)));
    return o;
}

static void print_layer(const tern_layer_info *l, const tern_node_info *node) {
    double n = (double)(l->rows * l->cols) / 100;
    char group[32];
    group_text(group, sizeof group, l, node->attrs.group);
    printf(" %zu x %zu, -1 %.0f %%, 0 %.0f %%, +1 %.0f %%, scale %.3g%s (%s), %.2f bits a weight", l->rows, l->cols,
           (double)l->minus / n, (double)l->zero / n, (double)l->plus / n, (double)l->largest_scale,
           l->scale_count > 1 ? " at most" : "", group, l->bits_per_weight);
    if (rule_text(node)) printf(", trained by %s", rule_text(node));
}

static void print_node_json(const tern_node_info *node, const char *shape, const tern_layer_info *l,
                            const tern_state_info *state) {
    size_t parameters = state->weights ? state->weights : node->parameters + (l ? l->rows * l->cols : 0);
    json_t *o = json_pack("{s:s, s:s, s:s, s:I}", "name", node->name, "op", node->op, "shape", shape, "parameters",
                          (json_int_t)parameters);
    if (l) {
        json_t *layer = layer_json(l, node);
        json_object_update(o, layer);
        json_decref(layer);
    }
    if (state->weights) {
        json_object_set_new(o, "state_bytes", json_integer((json_int_t)state->bytes));
        json_object_set_new(o, "state_bits_per_weight", json_real(state->bits_per_weight));
    }
    print_json_line(o);
}

static tern_status print_node(const tern_model *model, size_t i, int json, tern_error *err) {
    tern_node_info node;
    tern_layer_info l;
    tern_state_info state;
    char shape[64];
    tern_status status = tern_graph_node(&node, tern_model_graph(model), i, err);
    int ternary = tern_model_layer_is_ternary(model, i);
    if (!status && ternary) status = tern_model_layer(&l, model, i, err);
    if (!status) status = tern_model_state(&state, model, i, err);
    if (status) return status;
    shape_text(shape, sizeof shape, &node.shape);
    if (json) {
        print_node_json(&node, shape, ternary ? &l : NULL, &state);
        return TERN_OK;
    }
    printf("  %-18s %-15s %-12s", node.name, node.op, shape);
    if (ternary)
        print_layer(&l, &node);
    else if (node.parameters)
        printf(" %zu %s", node.parameters, node.attrs.integers ? "fixed point" : "fp32");
    if (state.weights) printf(", state %.2f bits", state.bits_per_weight);
    putchar('\n');
    return TERN_OK;
}

static void print_state(const tern_model_info *info) {
    double bits = 8.0 * (double)info->state_bytes / (double)info->trained_weights;
    printf("to train on: %s for %zu weights, %.2f bits a weight\n", bytes_text(info->state_bytes),
           info->trained_weights, bits);
}

int command_inspect(int argc, char **argv) {
    const char *path = NULL;
    int json = 0;
    const option options[] = {{.name = "--json", .flag = &json}};
    args a = {
        .options = options, .option_count = 1, .positional = &path, .room = 1, .least = 1, .command = "tern inspect"};
    if (asks_for_help(argc, argv)) {
        usage(stdout);
        return EXIT_DONE;
    }
    int code = parse_args(&a, argc, argv);
    if (code) return code;
    tern_model *model = NULL;
    tern_model_info info;
    tern_error err;
    tern_status status = tern_model_open(&model, path, NULL, &err);
    if (!status) status = tern_model_describe(&info, model, &err);
    if (!status && !json)
        printf("%s: %s of %s, for %s\n", path, info.packed ? "packed model" : "checkpoint", info.preset,
               tern_data_kind_name(info.data));
    for (size_t i = 0; !status && i < info.nodes; i++) status = print_node(model, i, json, &err);
    if (!status && !json)
        printf(
            "%zu parameters (%zu ternary): %s as fp32, %s packed (ternary layers %s to %s); %s to run one sample\n",
            info.parameters, info.ternary_parameters, bytes_text(info.float_bytes), bytes_text(info.packed_bytes),
            bytes_text(info.ternary_float_bytes), bytes_text(info.ternary_packed_bytes),
            bytes_text(info.activation_bytes));
    if (!status && !json && info.trained_weights) print_state(&info);
    tern_model_close(&model);
    return status ? failed(&err) : EXIT_DONE;
}
