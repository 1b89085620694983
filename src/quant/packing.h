/* Tern's own packings, for code that has already validated its matrix. The checked functions: tern/pack.h. */
#ifndef TERN_QUANT_PACKING_H
#define TERN_QUANT_PACKING_H

#include "tern/pack.h"

/* One row of a valid matrix of `cols` columns. */
void tern_unpack_row(int8_t *trits, tern_packing packing, const uint8_t *packed, size_t row, size_t cols);

#endif
