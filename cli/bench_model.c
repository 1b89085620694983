/* tern bench layer, tern bench model: what packing saves and costs, beside full precision through the same library.
 *
 * On the CPU the full-precision layer (fp32 products of oneDNN), the training layer's forward pass (latent weights,
 * quantized before), and the packed layer. On a GPU full precision in fp32 and bf16 (cuBLASLt), the training layer as
 * a training step runs it, and the packed layer with fp32 and with bf16 values around its int8 products. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "args.h"
#include "bench.h"
#include "bench_case.h"
#include "cli.h"

enum { DEFAULT_SHAPES = 8, GPU_SHAPES = 13 };

/* ---- one layer */

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

static tern_status make_layers(bench_case *c, const bench_setup *s, tern_error *err) {
    const tern_model *trained = NULL;
    tern_status status = TERN_OK;
    for (size_t v = 0; !status && v < s->variants->count; v++) {
        const tern_model_options o = variant_options(s, v, c->m);
        const source from = s->variants->at[v].source;
        if (from == PACKED)
            status = pack_model(&c->model[v], trained, &o, s->packing, err);
        else
            status = make_layer(&c->model[v], from == FLOAT ? "linear" : "bit_linear", c->n, c->k, &o, err);
        if (from == TRAINING) trained = c->model[v];
    }
    return status;
}

static tern_status bench_one_layer(const layer_shape *of, bench_setup *s, tern_error *err) {
    char name[64];
    snprintf(name, sizeof name, "linear %zu x %zu, m %zu", of->n, of->k, of->m);
    bench_case c = {.op = "linear", .name = name, .m = of->m, .n = of->n, .k = of->k};
    return run_bench_case(&c, make_layers(&c, s, err), s, err);
}

int bench_layer(int argc, char **argv) {
    layer_shape shapes[MAX_VALUES] = {
        {32, 4096, 1024},     {512, 768, 768},  {1, 768, 768},   {1, 4096, 1024},  {1, 2560, 2560},
        {1, 6912, 2560},      {1, 13824, 2560}, {1, 8192, 8192}, /* on a GPU also: */
        {32 * 512, 768, 768}, {1, 3840, 2560},  {1, 2560, 6912}, {32, 8192, 8192}, {2048, 8192, 8192}};
    bench_asked asked = {.pack = "t2", .seconds = 0.5};
    const char *wanted[MAX_VALUES];
    size_t count = 0;
    const option options[] = {{.name = "--shape", .values = wanted, .value_count = &count},
                              {.name = "--threads", .number = &asked.threads},
                              {.name = "--pack", .value = &asked.pack},
                              {.name = "--device", .value = &asked.device},
                              {.name = "--cold", .flag = &asked.cold},
                              {.name = "--seconds", .real = &asked.seconds},
                              {.name = "--json", .flag = &asked.json}};
    args a = {.options = options, .option_count = sizeof options / sizeof *options, .command = "tern bench layer"};
    if (asks_for_help(argc, argv)) {
        fputs(
            "usage: tern bench layer [--shape M,N,K ...] [--threads N] [--pack t2|t5] [--device NAME [--cold]]\n"
            "                        [--seconds S] [--json]\n\n"
            "Memory and latency of one linear layer: fp32, the training layer's forward pass, and packed, each with\n"
            "its share of what the machine could do at most: the arithmetic's measured peak, or reading the weights\n"
            "where no cache held them. M rows of activations, N outputs, K inputs. Weights are in cache when they\n"
            "fit (tern bench kernels has them cold).\n\n"
            "--device cuda or cuda:N measures a GPU, with inputs and outputs in its memory: fp32 and bf16 by "
            "cuBLASLt,\n"
            "the training layer as a training step runs it, and packed, with fp32 and with bf16 values. Peak memory\n"
            "is all that the plan keeps there: weights, values, in training gradients too, and with products of\n"
            "floats 32 MiB of cuBLASLt's. --cold empties the caches between two passes.\n\n"
            "Examples:\n  tern bench layer --shape 1,4096,1024 --threads 1\n  tern bench layer --device cuda "
            "--cold\n",
            stdout);
        return EXIT_DONE;
    }
    int code = parse_args(&a, argc, argv);
    if (code || !parse_shapes(shapes, wanted, count)) return EXIT_USAGE;
    bench_setup setup;
    if ((code = set_up_bench(&setup, &asked))) return code;
    if (!count) count = setup.limits.device != TERN_DEVICE_CPU ? GPU_SHAPES : DEFAULT_SHAPES;
    print_bench_header(&setup);
    for (const layer_shape *s = shapes; s < shapes + count; s++) {
        tern_error err;
        if (bench_one_layer(s, &setup, &err)) return failed(&err);
    }
    return EXIT_DONE;
}

/* ---- a network */

/* The trained model first: the others are made of it. */
static tern_status make_networks(bench_case *c, const char *path, const bench_setup *s, tern_error *err) {
    size_t trained = 0;
    while (s->variants->at[trained].source != TRAINING) trained++;
    for (size_t i = 0; i <= s->variants->count; i++) {
        const size_t v = i ? i - 1 : trained;
        if (i && v == trained) continue;
        const tern_model_options o = variant_options(s, v, c->m);
        tern_status status;
        switch (s->variants->at[v].source) {
        case TRAINING: status = tern_model_open(&c->model[v], path, &o, err); break;
        case FLOAT: status = tern_model_float_twin(&c->model[v], c->model[trained], &o, err); break;
        default: status = pack_model(&c->model[v], c->model[trained], &o, s->packing, err); break;
        }
        if (status) return status;
    }
    return TERN_OK;
}

int bench_model(int argc, char **argv) {
    bench_asked asked = {.pack = "t2", .seconds = 1};
    const char *path = NULL;
    uint64_t batch = 1;
    const option options[] = {
        {.name = "--batch", .number = &batch},    {.name = "--threads", .number = &asked.threads},
        {.name = "--pack", .value = &asked.pack}, {.name = "--device", .value = &asked.device},
        {.name = "--cold", .flag = &asked.cold},  {.name = "--seconds", .real = &asked.seconds},
        {.name = "--json", .flag = &asked.json}};
    args a = {.options = options,
              .option_count = sizeof options / sizeof *options,
              .positional = &path,
              .room = 1,
              .least = 1,
              .command = "tern bench model"};
    if (asks_for_help(argc, argv)) {
        fputs("usage: tern bench model CHECKPOINT [--batch M] [--threads N] [--pack t2|t5] [--device NAME [--cold]]\n"
              "                        [--seconds S] [--json]\n\n"
              "Memory and latency of a whole network: its fp32 twin, the trained graph's forward pass, and packed, "
              "each\n"
              "with its share of what the machine could do at most if products were all that took time.\n"
              "--device cuda or cuda:N, --cold: as in tern bench layer.\n\n"
              "Example:\n  tern bench model runs/fashion-cnn/checkpoint.safetensors\n",
              stdout);
        return EXIT_DONE;
    }
    int code = parse_args(&a, argc, argv);
    bench_setup setup;
    if (code || (code = set_up_bench(&setup, &asked))) return code;
    tern_error err;
    tern_model_info info;
    bench_case c = {.op = "network", .m = batch ? batch : 1, .k = 1};
    tern_status status = make_networks(&c, path, &setup, &err);
    if (!status) status = tern_model_describe(&info, c.model[setup.variants->count - 1], &err);
    if (!status) {
        c.name = info.preset;
        c.n = tern_model_outputs(c.model[0]);
        for (int i = 0; i < info.input.rank; i++) c.k *= info.input.dim[i];
        print_bench_header(&setup);
    }
    return run_bench_case(&c, status, &setup, &err) ? failed(&err) : EXIT_DONE;
}
