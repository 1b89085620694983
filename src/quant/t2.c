#include "quant/t2.h"

#include "base/clones.h"

/* 0 -> 00, +1 -> 01, -1 -> 10. */
static inline uint8_t code_of(int8_t trit) { return (uint8_t)((trit + 1) >> 1 | (trit >> 6 & 2)); }

TERN_CLONES static void pack_bytes(uint8_t *restrict packed, const int8_t *restrict trits, size_t bytes) {
    for (size_t b = 0; b < bytes; b++)
        packed[b] = (uint8_t)(code_of(trits[4 * b]) | code_of(trits[4 * b + 1]) << 2 |
                              code_of(trits[4 * b + 2]) << 4 | code_of(trits[4 * b + 3]) << 6);
}

void tern_t2_pack_row(uint8_t *packed, const int8_t *trits, size_t cols) {
    pack_bytes(packed, trits, cols / 4);
    if (cols % 4) packed[cols / 4] = 0;
    for (size_t c = cols - cols % 4; c < cols; c++) packed[c / 4] |= (uint8_t)(code_of(trits[c]) << c % 4 * 2);
}

static inline int8_t trit_of(int code) { return (int8_t)((code & 1) - (code >> 1 & 1)); }

TERN_CLONES static void unpack_bytes(int8_t *restrict trits, const uint8_t *restrict packed, size_t bytes) {
    for (size_t b = 0; b < bytes; b++)
        for (size_t i = 0; i < 4; i++) trits[4 * b + i] = trit_of(packed[b] >> 2 * i);
}

void tern_t2_unpack_row(int8_t *trits, const uint8_t *packed, size_t cols) {
    unpack_bytes(trits, packed, cols / 4);
    for (size_t c = cols - cols % 4; c < cols; c++) trits[c] = trit_of(packed[c / 4] >> c % 4 * 2);
}

size_t tern_t2_first_fault(const uint8_t *packed, size_t cols) {
    const size_t bytes = tern_t2_row_bytes(cols);
    for (size_t b = 0; b < bytes; b++)
        if (packed[b] & packed[b] >> 1 & 0x55) return b;
    return cols % 4 && packed[bytes - 1] >> cols % 4 * 2 ? bytes - 1 : SIZE_MAX;
}
