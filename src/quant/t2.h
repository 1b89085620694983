/* t2: two bits a trit, the exchange format.
 *
 *     bit      7 6   5 4   3 2   1 0
 *     column   4b+3  4b+2  4b+1  4b       of byte b of a row
 *
 *     00 = 0   01 = +1   10 = -1   11 reserved, refused
 *
 * Row-major; each row starts on a byte and is padded with zero bits. 2 bits a weight. */
#ifndef TERN_QUANT_T2_H
#define TERN_QUANT_T2_H

#include <stddef.h>
#include <stdint.h>

static inline size_t tern_t2_row_bytes(size_t cols) { return cols / 4 + (cols % 4 != 0); }

void tern_t2_pack_row(uint8_t *packed, const int8_t *trits, size_t cols);
void tern_t2_unpack_row(int8_t *trits, const uint8_t *packed, size_t cols);

/* Offset of the first byte of a row with a reserved code or padding that is not zero; SIZE_MAX if there is none. */
size_t tern_t2_first_fault(const uint8_t *packed, size_t cols);

#endif
