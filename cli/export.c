/* tern export and tern import: a checkpoint, or a model of others, in; a packed model out. */
#include <stdio.h>
#include <string.h>

#include "args.h"
#include "cli.h"
#include "model_tools.h"

static void usage(FILE *to) {
    fputs(
        "usage: tern export CHECKPOINT -o MODEL [--pack t2|t5] [--group GROUP] [--skip NAME ...] [--fold] "
        "[--json]\n\n"
        "Packs the ternary layers of a checkpoint, leaves training behind, and prints a line a layer.\n\n"
        "Options:\n"
        "  -o MODEL       where the model goes\n"
        "  --pack t2|t5   2 bits a weight, or 1.6 (default t2)\n"
        "  --group GROUP  of a float-free checkpoint: who shares a scale from now on, tensor, row, or T4, T6, T8, "
        "T16,\n"
        "                 T32, T64, T96 (so many columns). Smaller groups change no weight; merged ones get the "
        "power of\n"
        "                 two nearest to their mean scale\n"
        "  --skip NAME    leave this layer's weights in fp32; may stand more than once\n"
        "  --fold         fold batch norm into the product in front of it: fewer operations, but outputs then round\n"
        "                 differently from the trained graph's in their last digits\n"
        "  --json         one JSON object a layer, and one for the whole\n\n"
        "Example:\n  tern export runs/fashion-cnn/checkpoint.safetensors -o fashion.tern --pack t5\n",
        to);
}

static void print_layer(const tern_layer_info *l, int json) {
    size_t before = l->rows * l->cols * sizeof(float);
    if (json)
        print_json_line(json_pack("{s:s, s:I, s:I, s:I, s:I, s:f}", "layer", l->name, "rows", (json_int_t)l->rows,
                                  "cols", (json_int_t)l->cols, "bytes_before", (json_int_t)before, "bytes_after",
                                  (json_int_t)l->bytes, "bits_per_weight", l->bits_per_weight));
    else
        printf("  %-20s %6zu x %-6zu %10s  ->  %9s  %5.2f bits a weight\n", l->name, l->rows, l->cols,
               bytes_text(before), bytes_text(l->bytes), l->bits_per_weight);
}

static tern_status print_model(const char *path, int json, tern_error *err) {
    tern_model *model;
    tern_status status = tern_model_open(&model, path, NULL, err);
    if (status) return status;
    tern_model_info info;
    status = tern_model_describe(&info, model, err);
    for (size_t i = 0; !status && i < info.nodes; i++) {
        tern_layer_info layer;
        if (!tern_model_layer_is_ternary(model, i)) continue;
        status = tern_model_layer(&layer, model, i, err);
        if (!status) print_layer(&layer, json);
    }
    if (!status && json)
        print_json_line(json_pack("{s:s, s:I, s:I, s:I, s:I, s:I}", "model", path, "parameters",
                                  (json_int_t)info.parameters, "bytes_before", (json_int_t)info.float_bytes,
                                  "bytes_after", (json_int_t)info.packed_bytes, "ternary_bytes_before",
                                  (json_int_t)info.ternary_float_bytes, "ternary_bytes_after",
                                  (json_int_t)info.ternary_packed_bytes));
    else if (!status)
        printf("  %-20s %15zu %10s  ->  %9s  %.1f times smaller, ternary layers %.1f times\n  %s\n", "all parameters",
               info.parameters, bytes_text(info.float_bytes), bytes_text(info.packed_bytes),
               (double)info.float_bytes / (double)info.packed_bytes,
               (double)info.ternary_float_bytes / (double)(info.ternary_packed_bytes ? info.ternary_packed_bytes : 1),
               path);
    tern_model_close(&model);
    return status;
}

/* True when there is a target and a known packing. */
static int check_target(tern_packing *packing, const char *out, const char *pack, const char *who) {
    int t2 = !strcmp(pack, "t2");
    *packing = t2 ? TERN_PACK_T2 : TERN_PACK_T5;
    if (out && (t2 || !strcmp(pack, "t5"))) return 1;
    complain("%s; %s --help", out ? "--pack takes t2 or t5" : "-o MODEL is missing", who);
    return 0;
}

/* EXIT_DONE, or complained about. */
static int read_group(tern_granularity *granularity, size_t *group, const char *text) {
    static const struct {
        const char *name;
        tern_granularity granularity;
        size_t group;
    } groups[] = {{"tensor", TERN_PER_TENSOR, 0}, {"row", TERN_PER_ROW, 0},     {"T4", TERN_PER_TENSOR, 4},
                  {"T6", TERN_PER_TENSOR, 6},     {"T8", TERN_PER_TENSOR, 8},   {"T16", TERN_PER_TENSOR, 16},
                  {"T32", TERN_PER_TENSOR, 32},   {"T64", TERN_PER_TENSOR, 64}, {"T96", TERN_PER_TENSOR, 96}};
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
        if (strcmp(text, groups[i].name)) continue;
        *granularity = groups[i].granularity;
        *group = groups[i].group;
        return EXIT_DONE;
    }
    complain("--group takes tensor, row, T4, T6, T8, T16, T32, T64 or T96, not '%.40s'", text);
    return EXIT_USAGE;
}

int command_export(int argc, char **argv) {
    const char *checkpoint = NULL, *out = NULL, *pack = "t2", *groups = NULL, *skip[MAX_VALUES];
    size_t skips = 0, group = 0;
    tern_granularity granularity = TERN_PER_TENSOR;
    int fold = 0, json = 0;
    const option options[] = {
        {.name = "-o", .value = &out},         {.name = "--pack", .value = &pack},
        {.name = "--group", .value = &groups}, {.name = "--skip", .values = skip, .value_count = &skips},
        {.name = "--fold", .flag = &fold},     {.name = "--json", .flag = &json}};
    args a = {.options = options,
              .option_count = sizeof options / sizeof *options,
              .positional = &checkpoint,
              .room = 1,
              .least = 1,
              .command = "tern export"};
    if (asks_for_help(argc, argv)) {
        usage(stdout);
        return EXIT_DONE;
    }
    int code = parse_args(&a, argc, argv);
    if (code) return code;
    tern_packing packing;
    if (!check_target(&packing, out, pack, a.command)) return EXIT_USAGE;
    if (groups && read_group(&granularity, &group, groups)) return EXIT_USAGE;
    tern_export_options o = {.packing = packing, .skip = skip, .skip_count = skips, .fold_batch_norm = fold};
    tern_model *model = NULL;
    tern_error err;
    tern_status status = tern_model_open(&model, checkpoint, NULL, &err);
    if (!status && groups) status = tern_model_regroup(model, granularity, group, &err);
    if (!status) status = tern_model_export(model, out, &o, &err);
    tern_model_close(&model);
    if (!status) status = print_model(out, json, &err);
    return status ? failed(&err) : EXIT_DONE;
}

static void import_usage(FILE *to) {
    fputs("usage: tern import FILE -o MODEL [--pack t2|t5] [--json]\n\n"
          "Makes a model that others trained into a packed one. Known here:\n"
          "  bitnetcnn   safetensors of qinhy/BitNetCNN's small MNIST network\n\n"
          "Example:\n  tern import bit_netcnn_small_mnist_ternary.safetensors -o bitnetcnn.tern\n",
          to);
}

int command_import(int argc, char **argv) {
    const char *source = NULL, *out = NULL, *pack = "t2";
    int json = 0;
    const option options[] = {
        {.name = "-o", .value = &out}, {.name = "--pack", .value = &pack}, {.name = "--json", .flag = &json}};
    args a = {.options = options,
              .option_count = sizeof options / sizeof *options,
              .positional = &source,
              .room = 1,
              .least = 1,
              .command = "tern import"};
    if (asks_for_help(argc, argv)) {
        import_usage(stdout);
        return EXIT_DONE;
    }
    int code = parse_args(&a, argc, argv);
    if (code) return code;
    tern_packing packing;
    if (!check_target(&packing, out, pack, a.command)) return EXIT_USAGE;
    tern_error err;
    tern_status status = tern_model_import(source, out, packing, &err);
    if (!status) status = print_model(out, json, &err);
    return status ? failed(&err) : EXIT_DONE;
}
