/* One layer or network in all its variants: timed in turn, so that a machine that drifts drifts for all of them, and
 * printed beside what the machine could do at most (bench_limits.h). */
#ifndef TERN_CLI_BENCH_CASE_H
#define TERN_CLI_BENCH_CASE_H

#include "bench_limits.h"

enum { MAX_VARIANTS = 5 };

typedef enum source { FLOAT, TRAINING, PACKED } source;

typedef struct variant {
    const char *name;
    source source;
    tern_dtype values; /* floats on a GPU */
    int training;      /* with the memory of a training step, and its forward pass */
} variant;

/* Full precision first, packed behind what it is packed from. */
typedef struct variants {
    size_t count;
    variant at[MAX_VARIANTS];
} variants;
extern const variants on_cpu, on_gpu;

typedef struct bench_setup {
    const variants *variants;
    limits limits;
    tern_tier tier;
    tern_packing packing;
    double seconds; /* a case */
    int cold, json;
    tern_device_info gpu; /* where limits.device is one */
} bench_setup;

/* What both benchmarks are told. */
typedef struct bench_asked {
    uint64_t threads;
    const char *pack, *device;
    double seconds;
    int cold, json;
} bench_asked;

/* 0, or an exit code, complained about. *setup points at *asked. */
int set_up_bench(bench_setup *setup, const bench_asked *asked);

typedef struct bench_case {
    const char *op, *name;
    size_t m, n, k; /* samples, outputs and inputs of one */
    tern_model *model[MAX_VARIANTS];
    size_t weight_bytes[MAX_VARIANTS], peak_bytes[MAX_VARIANTS], workspace_bytes[MAX_VARIANTS];
    size_t read_bytes[MAX_VARIANTS]; /* weights that one pass reads */
    workload work[MAX_VARIANTS];
    double seconds[MAX_VARIANTS];
    limit limit[MAX_VARIANTS];
} bench_case;

/* How variant v is opened for m samples. */
tern_model_options variant_options(const bench_setup *setup, size_t v, size_t m);

/* The packed form of a checkpoint or graph by way of a file that is gone before this returns. */
tern_status pack_model(tern_model **out, const tern_model *from, const tern_model_options *o, tern_packing packing,
                       tern_error *err);

void print_bench_header(const bench_setup *setup);
/* Times the case and prints its rows; frees its models, whatever came of making them. */
tern_status run_bench_case(bench_case *c, tern_status made, bench_setup *setup, tern_error *err);

#endif
