/* How fast a network could be on this machine: its products' operations and weights against the measured peaks. */
#ifndef TERN_CLI_BENCH_LIMITS_H
#define TERN_CLI_BENCH_LIMITS_H

#include "tern/tern.h"

/* Operations of all products, attention's too, for one batch; a multiply and an add are two. */
typedef struct workload {
    double per_peak[TERN_PEAK_COUNT]; /* by the arithmetic that does them */
    double all;
    int int8; /* some are of int8 activations */
} workload;

tern_status count_workload(workload *out, const tern_model *model, size_t batch, tern_tier tier, tern_error *err);

typedef struct limits {
    int threads;
    double per_second[TERN_PEAK_COUNT]; /* 0: not measured yet, or not there */
} limits;

/* What bounds it: the arithmetic, or reading the weights from memory, if that takes longer. A pass that was faster than
 * memory had its weights in a cache. */
typedef struct limit {
    const char *bound; /* "compute" or "memory" */
    double peak;       /* operations or bytes a second */
    double seconds;    /* at the peak */
} limit;

/* Measures the peaks that it needs and `l` does not have. */
limit find_limit(limits *l, const workload *work, size_t weight_bytes, double seconds);

#endif
