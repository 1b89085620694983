/* tern bench layer, tern bench model: what packing saves and costs, beside fp32 through the same library.
 *
 * Three variants: the full-precision layer (fp32 products of oneDNN), the training layer's forward pass (latent weights,
 * quantized before), and the packed layer. Timed in turn, so that a machine that drifts drifts for all of them. Each
 * stands beside what this machine could do at most (bench_limits.h). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "args.h"
#include "bench.h"
#include "bench_limits.h"
#include "bench_tools.h"
#include "cli.h"
#include "model_tools.h"

enum { FLOAT = 0, TRAINING = 1, PACKED = 2, VARIANTS = 3, MAX_ROUNDS = 4000, MIN_ROUNDS = 11, DEFAULT_SHAPES = 8 };
static const char *const variant_names[VARIANTS] = {"fp32", "training layer", "packed"};

typedef struct bench_case {
    const char *op, *name;
    size_t m, n, k; /* samples, outputs and inputs of one */
    tern_packing packing;
    tern_tier tier;
    tern_model *model[VARIANTS];
    size_t weight_bytes[VARIANTS], peak_bytes[VARIANTS];
    size_t read_bytes[VARIANTS]; /* weights that one pass reads */
    workload work[VARIANTS];
    double seconds[VARIANTS];
    limit limit[VARIANTS];
} bench_case;

static const char *weights_name(const bench_case *c, int variant) {
    return variant == FLOAT ? "f32" : tern_packing_name(variant == PACKED ? c->packing : TERN_PACK_T2);
}

static void free_case(bench_case *c) {
    for (int v = 0; v < VARIANTS; v++) tern_model_close(&c->model[v]);
}

/* ---- measuring */

static tern_status measure_sizes(bench_case *c, tern_error *err) {
    for (int v = 0; v < VARIANTS; v++) {
        tern_model_info info;
        tern_status status = tern_model_describe(&info, c->model[v], err);
        if (!status) status = count_workload(&c->work[v], c->model[v], c->m, c->tier, err);
        if (status) return status;
        /* The training layer keeps fp32 latents and packs beside them. */
        c->weight_bytes[v] = v == PACKED     ? info.packed_bytes
                             : v == TRAINING ? info.float_bytes + info.ternary_packed_bytes
                                             : info.float_bytes;
        c->peak_bytes[v] = c->weight_bytes[v] + info.activation_bytes;
        c->read_bytes[v] = c->weight_bytes[v] - (v == TRAINING ? info.ternary_float_bytes : 0);
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
            double begin = now();
            status = tern_model_run(y, c->model[v], x, c->m, err);
            times[v][rounds] = now() - begin;
        }
    for (int v = 0; !status && v < VARIANTS; v++) c->seconds[v] = median(times[v], rounds);
    free(y);
    free(x);
    return status;
}

/* ---- printing */

static void print_header(void) {
    printf("%-28s %-15s %12s %7s %12s %12s %9s %9s\n", "layer or model", "variant", "weights", "ratio", "peak memory",
           "latency", "faster", "of limit");
}

static json_t *row_json(const bench_case *c, int v, int threads) {
    return json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:i, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:s, s:f, s:f, s:f, s:f}",
        "op", c->op, "name", c->name, "variant", variant_names[v], "weights", weights_name(c, v), "acts",
        c->work[v].int8 ? "i8" : "f32", "tier", v == FLOAT ? "onednn" : tern_tier_name(c->tier), "device", "cpu",
        "threads", threads, "m", (json_int_t)c->m, "n", (json_int_t)c->n, "k", (json_int_t)c->k, "bytes_weights",
        (json_int_t)c->weight_bytes[v], "bytes_peak", (json_int_t)c->peak_bytes[v], "seconds", c->seconds[v], "gbps",
        (double)c->read_bytes[v] / c->seconds[v] * 1e-9, "gops", c->work[v].all / c->seconds[v] * 1e-9, "bound",
        c->limit[v].bound, "peak", c->limit[v].peak * 1e-9, "share", c->limit[v].seconds / c->seconds[v], "smaller",
        (double)c->weight_bytes[FLOAT] / (double)c->weight_bytes[v], "faster", c->seconds[FLOAT] / c->seconds[v]);
}

static void print_case(const bench_case *c, int threads, int json) {
    for (int v = 0; v < VARIANTS; v++)
        if (json)
            print_json_line(row_json(c, v, threads));
        else
            printf("%-28s %-15s %12s %6.1fx %12s %9.1f us %8.2fx %7.1f %%\n", c->name, variant_names[v],
                   bytes_text(c->weight_bytes[v]), (double)c->weight_bytes[FLOAT] / (double)c->weight_bytes[v],
                   bytes_text(c->peak_bytes[v]), 1e6 * c->seconds[v], c->seconds[FLOAT] / c->seconds[v],
                   100 * c->limit[v].seconds / c->seconds[v]);
    fflush(stdout);
}

/* Times the case and prints its rows; frees it, whatever came of making it. */
static tern_status run_case(bench_case *c, tern_status made, limits *l, double seconds, int json, tern_error *err) {
    tern_status status = made ? made : time_case(c, seconds, err);
    l->per_second[TERN_PEAK_READ] = 0; /* neighbours move it: measured anew for each case */
    for (int v = 0; !status && v < VARIANTS; v++)
        c->limit[v] = find_limit(l, &c->work[v], c->read_bytes[v], c->seconds[v]);
    if (!status) print_case(c, l->threads, json);
    free_case(c);
    return status;
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

static tern_status layer_model(tern_model **out, const char *op, const bench_case *c, const tern_model_options *o,
                               tern_error *err) {
    tern_graph *graph;
    tern_status status = tern_graph_create(&graph, err);
    if (status) return status;
    tern_value x = tern_graph_input(graph, (tern_shape){3, {c->k, 1, 1}}); /* model files take images or tokens */
    x = tern_graph_add(graph, "flatten", "flatten", x, NULL);
    tern_graph_add(graph, op, "layer", x, &(tern_attrs){.outputs = c->n});
    return tern_model_create(out, graph, 1, o, err);
}

static tern_status bench_one_layer(bench_case *c, limits *l, double seconds, int json, tern_error *err) {
    char name[64];
    snprintf(name, sizeof name, "linear %zu x %zu, m %zu", c->n, c->k, c->m);
    c->name = name;
    const tern_model_options o = {.batch = c->m, .threads = l->threads};
    tern_status status = layer_model(&c->model[FLOAT], "linear", c, &o, err);
    if (!status) status = layer_model(&c->model[TRAINING], "bit_linear", c, &o, err);
    if (!status) status = pack_model(&c->model[PACKED], c->model[TRAINING], &o, c->packing, err);
    return run_case(c, status, l, seconds, json, err);
}

/* ---- commands */

typedef struct bench_options_common {
    uint64_t threads;
    const char *pack;
    double seconds;
    int json;
} bench_options_common;

/* The machine's side of both benchmarks. */
static tern_status find_machine(limits *l, tern_tier *tier, const bench_options_common *o, tern_error *err) {
    *l = (limits){.threads = o->threads ? (int)o->threads : tern_processors()};
    return tern_tier_select(tier, err);
}

static int packing_of(tern_packing *packing, const char *name) {
    *packing = strcmp(name, "t5") ? TERN_PACK_T2 : TERN_PACK_T5;
    if (!strcmp(name, "t2") || !strcmp(name, "t5")) return 1;
    complain("--pack takes t2 or t5, not '%s'", name);
    return 0;
}

typedef struct layer_shape {
    size_t m, n, k;
} layer_shape;

static int parse_shapes(layer_shape *shapes, const char *const *texts, size_t count) {
    for (size_t i = 0; i < count; i++) {
        layer_shape *s = &shapes[i];
        if (sscanf(texts[i], "%zu,%zu,%zu", &s->m, &s->n, &s->k) == 3 && s->m && s->n && s->k) continue;
        complain("--shape takes M,N,K, not '%s'", texts[i]);
        return 0;
    }
    return 1;
}

int bench_layer(int argc, char **argv) {
    layer_shape shapes[MAX_VALUES] = {{32, 4096, 1024}, {512, 768, 768}, {1, 768, 768},    {1, 4096, 1024},
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
        fputs(
            "usage: tern bench layer [--shape M,N,K ...] [--threads N] [--pack t2|t5] [--seconds S] [--json]\n\n"
            "Memory and latency of one linear layer: fp32, the training layer's forward pass, and packed, each with\n"
            "its share of what the machine could do at most: the arithmetic's measured peak, or reading the weights\n"
            "where no cache held them. M rows of activations, N outputs, K inputs. Weights are in cache when they\n"
            "fit (tern bench kernels has them cold).\n\nExample:\n  tern bench layer --shape 1,4096,1024 "
            "--threads 1\n",
            stdout);
        return EXIT_DONE;
    }
    int code = parse_args(&a, argc, argv);
    tern_packing packing;
    if (code || !packing_of(&packing, o.pack) || !parse_shapes(shapes, wanted, count)) return EXIT_USAGE;
    limits l;
    tern_tier tier;
    tern_error err;
    if (find_machine(&l, &tier, &o, &err)) return failed(&err);
    if (!o.json) print_header();
    for (const layer_shape *s = shapes; s < shapes + (count ? count : DEFAULT_SHAPES); s++) {
        bench_case c = {.op = "linear", .m = s->m, .n = s->n, .k = s->k, .packing = packing, .tier = tier};
        if (bench_one_layer(&c, &l, o.seconds, o.json, &err)) return failed(&err);
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
        fputs("usage: tern bench model CHECKPOINT [--batch M] [--threads N] [--pack t2|t5] [--seconds S] [--json]\n\n"
              "Memory and latency of a whole network: its fp32 twin, the trained graph's forward pass, and packed, "
              "each\n"
              "with its share of what the machine could do at most if products were all that took time.\n\n"
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
    bench_case c = {.op = "network", .m = batch, .k = 1, .packing = packing};
    limits l;
    tern_model_info info;
    tern_status status = find_machine(&l, &c.tier, &o, &err);
    if (!status) status = tern_model_open(&c.model[TRAINING], path, &open, &err);
    if (!status) status = tern_model_describe(&info, c.model[TRAINING], &err);
    if (!status) status = tern_model_float_twin(&c.model[FLOAT], c.model[TRAINING], &open, &err);
    if (!status) status = pack_model(&c.model[PACKED], c.model[TRAINING], &open, packing, &err);
    if (!status) {
        c.name = info.preset;
        c.n = tern_model_outputs(c.model[TRAINING]);
        for (int i = 0; i < info.input.rank; i++) c.k *= info.input.dim[i];
        if (!o.json) print_header();
    }
    return run_case(&c, status, &l, o.seconds, o.json, &err) ? failed(&err) : EXIT_DONE;
}
