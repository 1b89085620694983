/* How fast a network could be where it runs: its products' operations and weights against the measured peaks. */
#ifndef TERN_CLI_BENCH_LIMITS_H
#define TERN_CLI_BENCH_LIMITS_H

#include "tern/tern.h"

/* Behind the processor's peaks (tern_peak) those of a GPU: bytes/s read, operations/s. */
enum {
    GPU_READ = TERN_PEAK_COUNT,
    GPU_INT8 = TERN_PEAK_COUNT + 1, /* tensor cores, values in registers */
    GPU_BF16 = TERN_PEAK_COUNT + 2, /* the best of cuBLASLt's products of 2048 and of 8192 rows with 8192 x 8192 */
    GPU_F32 = TERN_PEAK_COUNT + 3,  /* the same in fp32 */
    PEAKS = TERN_PEAK_COUNT + 4
};

/* What multiplies. */
typedef struct arithmetic {
    int gpu;           /* nonzero: a GPU, else the processor's `tier` */
    tern_dtype values; /* floats on a GPU */
    tern_tier tier;
} arithmetic;

/* Operations of all products, attention's too, for one batch; a multiply and an add are two. */
typedef struct workload {
    double per_peak[PEAKS]; /* by the arithmetic that does them */
    double all;
    int int8; /* some are of int8 activations */
} workload;

tern_status count_workload(workload *out, const tern_model *model, size_t batch, const arithmetic *by,
                           tern_error *err);

typedef struct limits {
    int threads;
    int device;               /* the number of a GPU, or TERN_DEVICE_CPU */
    double per_second[PEAKS]; /* 0: not measured yet, or not there */
} limits;

/* What bounds it: the arithmetic, or reading the weights from memory, if that takes longer. A pass that was faster
 * than memory had its weights in a cache. */
typedef struct limit {
    const char *bound; /* "compute" or "memory" */
    double peak;       /* operations or bytes a second */
    double seconds;    /* at the peak */
} limit;

/* Measures the peaks that it needs and `l` does not have. */
limit find_limit(limits *l, const workload *work, size_t weight_bytes, double seconds);

/* A model of one layer, `op` of n outputs and k inputs. */
tern_status make_layer(tern_model **out, const char *op, size_t n, size_t k, const tern_model_options *o,
                       tern_error *err);

/* Numbers for a pass of m samples, tokens where the model takes them; to be freed. */
tern_status make_input(void **x, const tern_model *model, size_t m, tern_error *err);

#endif
