/* What this machine can do, measured, so that a speed can be given as a share of the limit. */
#ifndef TERN_MACHINE_H
#define TERN_MACHINE_H

#include <stddef.h>

#include "tern/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Processors that this process may run on. */
TERN_API int tern_processors(void);

/* Whether large allocations are put on huge pages: "always", "madvise", "never" or "unknown". */
TERN_API const char *tern_huge_pages(void);

typedef enum tern_peak {
    TERN_PEAK_READ = 0,    /* bytes/s read from a buffer of 1 GiB, far past the caches */
    TERN_PEAK_AVX2_I8 = 1, /* int8 operations/s (a multiply and an add are two) from registers, AVX2 multiply-add */
    TERN_PEAK_VNNI_I8 = 2, /* the same, AVX-512 VNNI */
    TERN_PEAK_AMX_I8 = 3,  /* the same, AMX tiles */
    TERN_PEAK_F32 = 4,     /* fp32 operations/s, the widest fused multiply-add of this machine */
    TERN_PEAK_NEON_I8 = 5, /* int8 operations/s, NEON (dot product where there is one) */
    TERN_PEAK_COUNT
} tern_peak;

/* "read", "avx2-i8", ...; NULL for a value that is none. */
TERN_API const char *tern_peak_name(tern_peak peak);

/* Measures one limit with `threads` threads: the median of several timings.
 * TERN_E_UNSUPPORTED where the machine lacks the instructions; per_second is then 0. */
TERN_API tern_status tern_measure_peak(double *per_second, tern_peak peak, int threads, tern_error *err);

#ifdef __cplusplus
}
#endif
#endif
