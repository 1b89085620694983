/* Any bytes as a t2 or t5 matrix: validate and unpack agree, and what unpacks packs back to the same bytes. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tern/pack.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 3) return 0;
    const tern_packing packing = (tern_packing)(data[0] % TERN_PACK_COUNT);
    const size_t rows = data[1] % 40, cols = data[2], bytes = size - 3;
    int8_t *trits = malloc(rows * cols + 1);
    uint8_t *copy = malloc(bytes + 1); /* its own block, so that an over-read is seen */
    size_t need = 0;
    if (!trits || !copy) abort();
    memcpy(copy, data + 3, bytes);
    tern_error err;
    const tern_status valid = tern_validate(packing, copy, bytes, rows, cols, &err);
    if (tern_unpack(trits, packing, copy, bytes, rows, cols, NULL) != valid) abort();
    if (valid && err.status != valid) abort();
    if (!valid) {
        if (tern_packed_bytes(&need, packing, rows, cols, NULL) || need > bytes) abort();
        uint8_t *again = malloc(need + 1);
        if (!again || tern_pack(again, need, packing, trits, rows, cols, NULL)) abort();
        if (memcmp(again, copy, need)) abort();
        free(again);
    }
    free(copy);
    free(trits);
    return 0;
}
