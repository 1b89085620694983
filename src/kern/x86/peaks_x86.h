/* Contracts in kern/peaks.h. */
#ifndef TERN_KERN_X86_PEAKS_X86_H
#define TERN_KERN_X86_PEAKS_X86_H

#include <stddef.h>
#include <stdint.h>

double tern_peak_i8_avx2(size_t rounds, volatile int *sink);
double tern_peak_f32_avx2(size_t rounds, volatile int *sink);
double tern_peak_i8_avx512(size_t rounds, volatile int *sink);
double tern_peak_f32_avx512(size_t rounds, volatile int *sink);
double tern_peak_i8_amx(size_t rounds, volatile int *sink);
uint64_t tern_read_avx512(const void *buffer, size_t bytes);

#endif
