#define _GNU_SOURCE
#include "bench_tools.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double median(double *values, size_t n) {
    qsort(values, n, sizeof *values, ascending);
    return values[n / 2];
}

/* xorshift */
uint32_t noise(void) {
    static uint64_t state = 88172645463325252u;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 32);
}

tern_status random_packed(uint8_t **packed, size_t *bytes, tern_packing packing, size_t n, size_t k,
                          tern_error *err) {
    int8_t *trits = malloc(n * k);
    uint8_t *out = NULL;
    *err = (tern_error){TERN_E_MEMORY, TERN_NO_PLACE, "no memory for the trits of a matrix"};
    tern_status status = trits ? tern_packed_bytes(bytes, packing, n, k, err) : TERN_E_MEMORY;
    if (!status && !(out = malloc(*bytes))) status = TERN_E_MEMORY;
    if (!status) {
        for (size_t i = 0; i < n * k; i++) trits[i] = (int8_t)((int)(noise() % 3) - 1);
        status = tern_pack(out, *bytes, packing, trits, n, k, err);
    }
    free(trits);
    if (status)
        free(out);
    else
        *packed = out;
    return status;
}

void *alloc_huge(size_t bytes) {
    const size_t huge = (size_t)2 << 20, rounded = (bytes + huge - 1) / huge * huge;
    void *block = aligned_alloc(huge, rounded);
    if (block) madvise(block, rounded, MADV_HUGEPAGE); /* advice: a refusal changes nothing but speed */
    return block;
}

/* One row of activations cannot fill AMX tiles; it runs on VNNI. */
tern_peak int8_peak(tern_tier tier, size_t rows) {
    switch (tier) {
    case TERN_TIER_AMX: return rows > 1 ? TERN_PEAK_AMX_I8 : TERN_PEAK_VNNI_I8;
    case TERN_TIER_AVX512: return TERN_PEAK_VNNI_I8;
    case TERN_TIER_NEON:
    case TERN_TIER_NEONDOT: return TERN_PEAK_NEON_I8;
    default: return TERN_PEAK_AVX2_I8; /* scalar too: what this machine could do without VNNI */
    }
}
