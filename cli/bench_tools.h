/* What the benchmarks share. */
#ifndef TERN_CLI_BENCH_TOOLS_H
#define TERN_CLI_BENCH_TOOLS_H

#include <stddef.h>
#include <stdint.h>

#include "tern/tern.h"

double now(void); /* seconds */

/* Sorts them. */
double median(double *values, size_t n);

/* The values do not matter, only that they are not all alike. */
uint32_t noise(void);

/* A matrix of random trits, packed: *packed, to be freed, has *bytes. */
tern_status random_packed(uint8_t **packed, size_t *bytes, tern_packing packing, size_t n, size_t k, tern_error *err);

/* As a program that cares would: on huge pages, where the system gives them. */
void *alloc_huge(size_t bytes);

/* The arithmetic that bounds int8 products of so many rows of activations. */
tern_peak int8_peak(tern_tier tier, size_t rows);

#endif
