#include "quant/hf_u8.h"

#include <string.h>

#include "base/checked.h"

enum { ZERO_TRITS = 0x55 };

void tern_hf_u8_encode(uint8_t *packed, const int8_t *trits, size_t rows, size_t cols) {
    const size_t packed_rows = tern_ceil_div(rows, 4);
    memset(packed, ZERO_TRITS, packed_rows * cols);
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < cols; c++) {
            uint8_t *byte = &packed[r % packed_rows * cols + c];
            const unsigned shift = (unsigned)(r / packed_rows * 2);
            *byte = (uint8_t)((*byte & ~(3u << shift)) | (unsigned)(trits[r * cols + c] + 1) << shift);
        }
}

void tern_hf_u8_decode(int8_t *trits, const uint8_t *packed, size_t rows, size_t cols) {
    const size_t packed_rows = tern_ceil_div(rows, 4);
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < cols; c++)
            trits[r * cols + c] = (int8_t)((packed[r % packed_rows * cols + c] >> r / packed_rows * 2 & 3) - 1);
}

size_t tern_hf_u8_first_fault(const uint8_t *packed, size_t bytes) {
    for (size_t b = 0; b < bytes; b++)
        if (packed[b] & packed[b] >> 1 & 0x55) return b;
    return SIZE_MAX;
}
