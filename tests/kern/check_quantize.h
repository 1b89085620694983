/* The activation quantizers of one tier against the scalar ones. */
#ifndef TERN_TESTS_CHECK_QUANTIZE_H
#define TERN_TESTS_CHECK_QUANTIZE_H

#include <stddef.h>
#include <stdint.h>

#include "kern/kernels.h"

/* 0 when quantize_row and quantize_row_rmsnorm of both tables agree to the bit; else 1, and *message says where. A
 * read or write past a row may also fault, on the guard pages around every buffer. */
int tern_check_quantize(const tern_kernels *candidate, const tern_kernels *scalar, uint64_t seed, char *message,
                        size_t message_size);

#endif
