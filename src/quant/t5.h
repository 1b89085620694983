/* t5: base 3, five trits a byte.
 *
 *     byte = d0 + 3 d1 + 9 d2 + 27 d3 + 81 d4,   digit = trit + 1,   d0 the first trit;   243 .. 255 refused
 *
 * Per row: each row starts on a byte. Flat: trits run on from row to row. Either way the last byte is padded with
 * zero trits, digits of 1; other padding is refused. 1.6 bits a weight. */
#ifndef TERN_QUANT_T5_H
#define TERN_QUANT_T5_H

#include <stddef.h>
#include <stdint.h>

static inline size_t tern_t5_bytes(size_t count) { return count / 5 + (count % 5 != 0); }

void tern_t5_pack(uint8_t *packed, const int8_t *trits, size_t count);

/* `count` trits from trit `first` on. */
void tern_t5_unpack(int8_t *trits, const uint8_t *packed, size_t first, size_t count);

/* Offset of the first byte of `count` packed trits with a reserved value or wrong padding; SIZE_MAX if none. */
size_t tern_t5_first_fault(const uint8_t *packed, size_t count);

#endif
