#include "quant/t5.h"

enum { TRITS = 5, VALUES = 243 };

static const uint8_t power[TRITS] = {1, 3, 9, 27, 81};

void tern_t5_pack(uint8_t *packed, const int8_t *trits, size_t count) {
    for (size_t i = 0; i < count; i += TRITS) {
        int value = (VALUES - 1) / 2; /* five digits of 1 */
        for (size_t j = 0; j < TRITS && i + j < count; j++) value += trits[i + j] * power[j];
        packed[i / TRITS] = (uint8_t)value;
    }
}

void tern_t5_unpack(int8_t *trits, const uint8_t *packed, size_t first, size_t count) {
    for (size_t i = 0; i < count; i++)
        trits[i] = (int8_t)(packed[(first + i) / TRITS] / power[(first + i) % TRITS] % 3 - 1);
}

size_t tern_t5_first_fault(const uint8_t *packed, size_t count) {
    const size_t bytes = tern_t5_bytes(count);
    for (size_t b = 0; b < bytes; b++)
        if (packed[b] >= VALUES) return b;
    for (size_t j = count % TRITS; j && j < TRITS; j++)
        if (packed[bytes - 1] / power[j] % 3 != 1) return bytes - 1;
    return SIZE_MAX;
}
