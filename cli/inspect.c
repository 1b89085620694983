/* tern inspect: what a model file holds. */
#include <stdio.h>

#include "args.h"
#include "cli.h"
#include "model_tools.h"

static void usage(FILE *to) {
    fputs("usage: tern inspect FILE [--json]\n\n"
          "Lists the nodes of a checkpoint or a packed model: shapes, packings, scales, shares of -1, 0 and +1, bits "
          "a weight.\n\n"
          "Example:\n  tern inspect fashion.tern\n",
          to);
}

static void shape_text(char *out, size_t bytes, const tern_shape *s) {
    size_t used = 0;
    for (int i = 0; i < s->rank && used < bytes; i++)
        used += (size_t)snprintf(out + used, bytes - used, "%s%zu", i ? "x" : "", s->dim[i]);
}

static tern_status print_node(const tern_model *model, size_t i, int json, tern_error *err) {
    tern_node_info node;
    tern_layer_info l;
    char shape[64];
    tern_status status = tern_graph_node(&node, tern_model_graph(model), i, err);
    int ternary = tern_model_layer_is_ternary(model, i);
    if (!status && ternary) status = tern_model_layer(&l, model, i, err);
    if (status) return status;
    shape_text(shape, sizeof shape, &node.shape);
    if (json) {
        json_t *o = json_pack("{s:s, s:s, s:s, s:I}", "name", node.name, "op", node.op, "shape", shape, "parameters",
                              (json_int_t)(ternary ? node.parameters + l.rows * l.cols : node.parameters));
        if (ternary)
            json_object_update_new(
                o, json_pack(
                       "{s:s, s:s, s:I, s:f, s:f, s:I, s:I, s:I, s:I, s:f}", "packing", tern_packing_name(l.packing),
                       "scales", l.scale_kind == TERN_SCALE_ROW ? "row" : "tensor", "scale_count",
                       (json_int_t)l.scale_count, "least_scale", (double)l.least_scale, "largest_scale",
                       (double)l.largest_scale, "minus", (json_int_t)l.minus, "zero", (json_int_t)l.zero, "plus",
                       (json_int_t)l.plus, "bytes", (json_int_t)l.bytes, "bits_per_weight", l.bits_per_weight));
        print_json_line(o);
        return TERN_OK;
    }
    printf("  %-18s %-15s %-12s", node.name, node.op, shape);
    double n = ternary ? (double)(l.rows * l.cols) / 100 : 1;
    if (ternary)
        printf(" %zu x %zu, -1 %.0f %%, 0 %.0f %%, +1 %.0f %%, scale %.3g%s, %.2f bits a weight", l.rows, l.cols,
               (double)l.minus / n, (double)l.zero / n, (double)l.plus / n, (double)l.largest_scale,
               l.scale_count > 1 ? " at most" : "", l.bits_per_weight);
    else if (node.parameters)
        printf(" %zu fp32", node.parameters);
    putchar('\n');
    return TERN_OK;
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
    tern_model_close(&model);
    return status ? failed(&err) : EXIT_DONE;
}
