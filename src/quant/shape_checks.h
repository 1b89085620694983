/* Checks that the quantizers and packings share. */
#ifndef TERN_QUANT_SHAPE_CHECKS_H
#define TERN_QUANT_SHAPE_CHECKS_H

#include <stddef.h>
#include <stdint.h>

#include "tern/status.h"

/* *count = rows * cols; TERN_E_SIZE when that many floats overflow a size. */
tern_status tern_check_shape(size_t *count, size_t rows, size_t cols, tern_error *err);

/* A NaN or Inf in w[count] is TERN_E_DATA with its index as the place. */
tern_status tern_check_weights(const float *w, size_t count, tern_error *err);

int tern_are_trits(const int8_t *trits, size_t count);

/* A value outside -1..1 in trits[count] is TERN_E_DATA with its index as the place. */
tern_status tern_check_trits(const int8_t *trits, size_t count, tern_error *err);

#endif
