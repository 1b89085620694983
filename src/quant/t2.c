#include "quant/t2.h"

#include <string.h>

void tern_t2_pack_row(uint8_t *packed, const int8_t *trits, size_t cols) {
    memset(packed, 0, tern_t2_row_bytes(cols));
    for (size_t c = 0; c < cols; c++) packed[c / 4] |= (uint8_t)((trits[c] + 3) % 3 << c % 4 * 2);
}

void tern_t2_unpack_row(int8_t *trits, const uint8_t *packed, size_t cols) {
    for (size_t c = 0; c < cols; c++) {
        const int code = packed[c / 4] >> c % 4 * 2;
        trits[c] = (int8_t)((code & 1) - (code >> 1 & 1));
    }
}

size_t tern_t2_first_fault(const uint8_t *packed, size_t cols) {
    const size_t bytes = tern_t2_row_bytes(cols);
    for (size_t b = 0; b < bytes; b++)
        if (packed[b] & packed[b] >> 1 & 0x55) return b;
    return cols % 4 && packed[bytes - 1] >> cols % 4 * 2 ? bytes - 1 : SIZE_MAX;
}
