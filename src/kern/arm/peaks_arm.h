/* Contracts in kern/peaks.h. */
#ifndef TERN_KERN_ARM_PEAKS_ARM_H
#define TERN_KERN_ARM_PEAKS_ARM_H

#include <stddef.h>

double tern_peak_i8_neon(size_t rounds, volatile int *sink);
double tern_peak_i8_neondot(size_t rounds, volatile int *sink);
double tern_peak_f32_neon(size_t rounds, volatile int *sink);

#endif
