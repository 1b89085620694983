/* Loops that do nothing but reach a limit of the machine, for tern/machine.h. */
#ifndef TERN_KERN_PEAKS_H
#define TERN_KERN_PEAKS_H

#include <stddef.h>
#include <stdint.h>

#include "tern/machine.h"

/* Runs `rounds` rounds of independent multiply-adds in registers and returns the operations done (a multiply and an
 * add are two). What it computes goes to *sink, so that no compiler can drop it. */
typedef double (*tern_peak_fn)(size_t rounds, volatile int *sink);

/* Reads `bytes`, a multiple of 4096, from a 64-byte aligned buffer. The value depends on every byte. */
typedef uint64_t (*tern_read_fn)(const void *buffer, size_t bytes);

typedef struct tern_peak_kernels {
    tern_peak_fn compute[TERN_PEAK_COUNT]; /* NULL where the machine lacks the instructions */
    tern_read_fn read;
} tern_peak_kernels;

void tern_peak_kernels_fill(tern_peak_kernels *kernels);

#endif
