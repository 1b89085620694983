/* tern bench: a table of benchmarks. */
#include <stdio.h>
#include <string.h>

#include "bench.h"
#include "cli.h"

int command_bench(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "kernels")) return bench_kernels(argc - 1, argv + 1);
    if (argc > 1 && !strcmp(argv[1], "packing")) return bench_packing(argc - 1, argv + 1);
    if (argc > 1 && !strcmp(argv[1], "tune")) return bench_tune(argc - 1, argv + 1);
#ifdef TERN_NETWORKS
    if (argc > 1 && !strcmp(argv[1], "layer")) return bench_layer(argc - 1, argv + 1);
    if (argc > 1 && !strcmp(argv[1], "model")) return bench_model(argc - 1, argv + 1);
#endif
    int asked = argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"));
    fputs("usage: tern bench BENCHMARK [OPTIONS]\n\n"
          "  kernels   ternary products against this machine's own peaks\n"
#ifdef TERN_NETWORKS
          "  layer     one linear layer: fp32, training, packed; memory and latency\n"
          "  model     the same of a whole network\n"
#endif
          "  packing   quantizing and packing a layer's weights, as every training step does\n"
          "  tune      finds the fastest kernel of a GPU for each product, and keeps it for programs to come\n\n"
          "  tern bench kernels --help   options and an example\n",
          asked ? stdout : stderr);
    return asked ? EXIT_DONE : EXIT_USAGE;
}
