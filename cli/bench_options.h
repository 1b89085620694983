/* Options of the benchmarks. */
#ifndef TERN_CLI_BENCH_OPTIONS_H
#define TERN_CLI_BENCH_OPTIONS_H

#include <stddef.h>

#include "tern/tern.h"

enum { MAX_LIST = 32 };

typedef struct shape {
    size_t n, k; /* outputs, inputs */
} shape;

typedef struct bench_options {
    const char *name; /* of the benchmark */
    shape shapes[MAX_LIST];
    size_t n_shapes;
    size_t m[MAX_LIST];
    size_t n_m;
    int threads[MAX_LIST];
    size_t n_threads;
    tern_packing packings[MAX_LIST];
    size_t n_packings;
    tern_dtype acts[MAX_LIST]; /* TERN_I8: fp32 activations quantized inside the timed call */
    size_t n_acts;
    tern_tier tiers[MAX_LIST];
    size_t n_tiers;
    size_t cold_bytes; /* of distinct matrices, used in turn; 0: one matrix, hot */
    double seconds;    /* per row of the table, at least */
    int json;
} bench_options;

/* Returns an exit code and sets *stop where the program should end at once. argv[0] is the benchmark's name;
 * products: nonzero for one that multiplies, and so takes --m, --acts, --cold and --hot. */
int parse_bench_options(bench_options *o, int *stop, int argc, char **argv, const char *help, int products);

#endif
