/* tern bench layer, tern bench model: what packing saves and costs, beside fp32 through the same library.
 *
 * Three variants: the full-precision layer (fp32 products of oneDNN), the training layer's forward pass (latent weights,
 * quantized before), and the packed layer. Timed in turn, so that a machine that drifts drifts for all of them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "args.h"
#include "bench.h"
#include "bench_tools.h"
#include "cli.h"
#include "model_tools.h"

enum { FLOAT = 0, TRAINING = 1, PACKED = 2, VARIANTS = 3, MAX_ROUNDS = 4000, MIN_ROUNDS = 11 };
static const char *const variant_names[VARIANTS] = {"fp32", "training layer", "packed"};

typedef struct bench_case {
    const char *name;
    size_t m;
    tern_model *model[VARIANTS]; /* NULL: not measured */
    size_t weight_bytes[VARIANTS], peak_bytes[VARIANTS];
    double seconds[VARIANTS];
} bench_case;

static void free_case(bench_case *c) {
    for (int v = 0; v < VARIANTS; v++) tern_model_close(&c->model[v]);
}

/* ---- measuring */

static tern_status measure_sizes(bench_case *c, tern_error *err) {
    for (int v = 0; v < VARIANTS; v++) {
        tern_model_info info;
        if (!c->model[v]) continue;
        tern_status status = tern_model_describe(&info, c->model[v], err);
        if (status) return status;
        /* The training layer keeps fp32 latents and packs beside them. */
        c->weight_bytes[v] = v == PACKED     ? info.packed_bytes
                             : v == TRAINING ? info.float_bytes + info.ternary_packed_bytes
                                             : info.float_bytes;
        c->peak_bytes[v] = c->weight_bytes[v] + info.activation_bytes;
    }
    return TERN_OK;
}

static void *make_input(const tern_model *model, size_t m, tern_error *err) {
    tern_model_info info;
    if (tern_model_describe(&info, model, err)) return NULL;
    size_t elements = m;
    for (int i = 0; i < info.input.rank; i++) elements *= info.input.dim[i];
    float *x = malloc(elements * sizeof *x);
    int32_t *tokens = (int32_t *)(void *)x;
    for (size_t i = 0; x && i < elements; i++) {
        if (info.vocabulary)
            tokens[i] = (int32_t)(noise() % info.vocabulary);
        else
            x[i] = (float)(noise() % 2001) / 1000 - 1;
    }
    if (!x) snprintf(err->message, sizeof err->message, "no memory for the input of a benchmark");
    return x;
}

static tern_status time_case(bench_case *c, double seconds, tern_error *err) {
    static double times[VARIANTS][MAX_ROUNDS];
    const tern_model *any = c->model[FLOAT];
    err->status = TERN_E_MEMORY;
    void *x = make_input(any, c->m, err);
    float *y = malloc(tern_model_outputs(any) * c->m * sizeof *y);
    tern_status status = x && y ? measure_sizes(c, err) : TERN_E_MEMORY;
    size_t rounds = 0;
    double start = now();
    for (; !status && rounds < MAX_ROUNDS && (rounds < MIN_ROUNDS || now() - start < seconds); rounds++)
        for (int v = 0; !status && v < VARIANTS; v++) {
            if (!c->model[v]) continue;
            double begin = now();
            status = tern_model_run(y, c->model[v], x, c->m, err);
            times[v][rounds] = now() - begin;
        }
    for (int v = 0; !status && v < VARIANTS; v++)
        if (c->model[v]) c->seconds[v] = median(times[v], rounds);
    free(y);
    free(x);
    return status;
}

/* ---- printing */

static void print_header(void) {
    printf("%-28s %-15s %12s %7s %12s %12s %9s\n", "layer or model", "variant", "weights", "ratio", "peak memory",
           "latency", "faster");
}

static void print_case(const bench_case *c, int json) {
    for (int v = 0; v < VARIANTS; v++) {
        if (!c->model[v]) continue;
        double smaller = (double)c->weight_bytes[FLOAT] / (double)c->weight_bytes[v];
        double faster = c->seconds[FLOAT] / c->seconds[v];
        if (json)
            print_json_line(json_pack("{s:s, s:s, s:I, s:I, s:I, s:f, s:f, s:f}", "op", c->name, "variant",
                                      variant_names[v], "m", (json_int_t)c->m, "bytes_weights",
                                      (json_int_t)c->weight_bytes[v], "bytes_peak", (json_int_t)c->peak_bytes[v],
                                      "seconds", c->seconds[v], "smaller", smaller, "faster", faster));
        else
            printf("%-28s %-15s %12s %6.1fx %12s %9.1f us %8.2fx\n", c->name, variant_names[v],
                   bytes_text(c->weight_bytes[v]), smaller, bytes_text(c->peak_bytes[v]), 1e6 * c->seconds[v],
                   faster);
    }
    fflush(stdout);
}

/* ---- making models */

/* The packed form of a checkpoint or graph by way of a file that is gone before this returns. */
static tern_status pack_model(tern_model **out, const tern_model *from, const tern_model_options *o,
                              tern_packing packing, tern_error *err) {
    char path[] = "/tmp/tern-bench-XXXXXX";
    int file = mkstemp(path);
    if (file < 0) {
        snprintf(err->message, sizeof err->message, "%s cannot be made", path);
        return err->status = TERN_E_FILE;
    }
    close(file);
    const tern_export_options e = {.packing = packing};
    tern_status status = tern_model_export(from, path, &e, err);
    if (!status) status = tern_model_open(out, path, o, err);
    unlink(path);
    return status;
}

static tern_status layer_model(tern_model **out, const char *op, size_t m, size_t n, size_t k, int threads,
                               tern_error *err) {
    tern_graph *graph;
    tern_status status = tern_graph_create(&graph, err);
    if (status) return status;
    tern_value x = tern_graph_input(graph, (tern_shape){3, {k, 1, 1}}); /* model files take images or tokens */
    x = tern_graph_add(graph, "flatten", "flatten", x, NULL);
    tern_graph_add(graph, op, "layer", x, &(tern_attrs){.outputs = n});
    return tern_model_create(out, graph, 1, &(tern_model_options){.batch = m, .threads = threads}, err);
}

static tern_status bench_one_layer(size_t m, size_t n, size_t k, int threads, tern_packing packing, double seconds,
                                   int json, tern_error *err) {
    char name[64];
    snprintf(name, sizeof name, "linear %zu x %zu, m %zu", n, k, m);
    bench_case c = {.name = name, .m = m};
    tern_status status = layer_model(&c.model[FLOAT], "linear", m, n, k, threads, err);
    if (!status) status = layer_model(&c.model[TRAINING], "bit_linear", m, n, k, threads, err);
    if (!status)
        status = pack_model(&c.model[PACKED], c.model[TRAINING], &(tern_model_options){m, threads}, packing, err);
    if (!status) status = time_case(&c, seconds, err);
    if (!status) print_case(&c, json);
    free_case(&c);
    return status;
}

/* ---- commands */

typedef struct bench_options_common {
    uint64_t threads;
    const char *pack;
    double seconds;
    int json;
} bench_options_common;

static int packing_of(tern_packing *packing, const char *name) {
    *packing = strcmp(name, "t5") ? TERN_PACK_T2 : TERN_PACK_T5;
    if (!strcmp(name, "t2") || !strcmp(name, "t5")) return 1;
    complain("--pack takes t2 or t5, not '%s'", name);
    return 0;
}

int bench_layer(int argc, char **argv) {
    static const size_t shapes[][3] = {/* m, n, k */
                                       {32, 4096, 1024}, {512, 768, 768}, {1, 768, 768},    {1, 4096, 1024},
                                       {1, 2560, 2560},  {1, 6912, 2560}, {1, 13824, 2560}, {1, 8192, 8192}};
    bench_options_common o = {.pack = "t2", .seconds = 0.5};
    const char *wanted[MAX_VALUES];
    size_t count = 0;
    const option options[] = {{.name = "--shape", .values = wanted, .value_count = &count},
                              {.name = "--threads", .number = &o.threads},
                              {.name = "--pack", .value = &o.pack},
                              {.name = "--seconds", .real = &o.seconds},
                              {.name = "--json", .flag = &o.json}};
    args a = {.options = options, .option_count = sizeof options / sizeof *options, .command = "tern bench layer"};
    if (asks_for_help(argc, argv)) {
        fputs("usage: tern bench layer [--shape M,N,K ...] [--threads N] [--pack t2|t5] [--seconds S] [--json]\n\n"
              "Memory and latency of one linear layer: fp32, the training layer's forward pass, and packed.\n"
              "M rows of activations, N outputs, K inputs. Weights are in cache when they fit (tern bench kernels "
              "has them\n"
              "cold, and the share of the machine's peak).\n\nExample:\n  tern bench layer --shape 1,4096,1024 "
              "--threads 1\n",
              stdout);
        return EXIT_DONE;
    }
    int code = parse_args(&a, argc, argv);
    tern_packing packing;
    if (code || !packing_of(&packing, o.pack)) return EXIT_USAGE;
    if (!o.json) print_header();
    size_t all = count ? count : sizeof shapes / sizeof *shapes;
    for (size_t i = 0; i < all; i++) {
        size_t m = shapes[i % 8][0], n = shapes[i % 8][1], k = shapes[i % 8][2];
        tern_error err;
        if (count && (sscanf(wanted[i], "%zu,%zu,%zu", &m, &n, &k) != 3 || !m || !n || !k)) {
            complain("--shape takes M,N,K, not '%s'", wanted[i]);
            return EXIT_USAGE;
        }
        if (bench_one_layer(m, n, k, (int)o.threads, packing, o.seconds, o.json, &err)) return failed(&err);
    }
    return EXIT_DONE;
}

int bench_model(int argc, char **argv) {
    bench_options_common o = {.pack = "t2", .seconds = 1};
    const char *path = NULL;
    uint64_t batch = 1;
    const option options[] = {{.name = "--batch", .number = &batch},
                              {.name = "--threads", .number = &o.threads},
                              {.name = "--pack", .value = &o.pack},
                              {.name = "--seconds", .real = &o.seconds},
                              {.name = "--json", .flag = &o.json}};
    args a = {.options = options,
              .option_count = sizeof options / sizeof *options,
              .positional = &path,
              .room = 1,
              .least = 1,
              .command = "tern bench model"};
    if (asks_for_help(argc, argv)) {
        fputs(
            "usage: tern bench model CHECKPOINT [--batch M] [--threads N] [--pack t2|t5] [--seconds S] [--json]\n\n"
            "Memory and latency of a whole network: its fp32 twin, the trained graph's forward pass, and packed.\n\n"
            "Example:\n  tern bench model runs/fashion-cnn/checkpoint.safetensors\n",
            stdout);
        return EXIT_DONE;
    }
    int code = parse_args(&a, argc, argv);
    tern_packing packing;
    if (code || !packing_of(&packing, o.pack)) return EXIT_USAGE;
    if (!batch) batch = 1;
    tern_model_options open = {.batch = batch, .threads = (int)o.threads};
    tern_error err;
    bench_case c = {.m = batch};
    tern_model_info info;
    tern_status status = tern_model_open(&c.model[TRAINING], path, &open, &err);
    if (!status) status = tern_model_describe(&info, c.model[TRAINING], &err);
    if (!status) status = tern_model_float_twin(&c.model[FLOAT], c.model[TRAINING], &open, &err);
    if (!status) status = pack_model(&c.model[PACKED], c.model[TRAINING], &open, packing, &err);
    if (!status) c.name = info.preset;
    if (!status) status = time_case(&c, o.seconds, &err);
    if (!status && !o.json) print_header();
    if (!status) print_case(&c, o.json);
    free_case(&c);
    return status ? failed(&err) : EXIT_DONE;
}
