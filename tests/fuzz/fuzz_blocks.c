/* Any bytes as a tensor of foreign blocks: what decodes encodes to the same bytes, but for halves that have two forms
 * of zero and rows past the end of an HF_U8 tensor. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tern/pack.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Decodes what was encoded again: the trits and scales must be the first ones. */
static void check_again(tern_block_format format, const int8_t *trits, const float *scales, size_t scale_count,
                        size_t rows, size_t cols, size_t need) {
    uint8_t *packed = malloc(need + 1);
    int8_t *trits2 = malloc(rows * cols + 1);
    float *scales2 = malloc((scale_count + 1) * sizeof *scales2);
    if (!packed || !trits2 || !scales2) abort();
    if (tern_block_encode(packed, need, format, trits, scales, rows, cols, NULL)) abort();
    if (tern_block_decode(trits2, scales2, format, packed, need, rows, cols, NULL)) abort();
    if (memcmp(trits, trits2, rows * cols)) abort();
    for (size_t i = 0; i < scale_count; i++)
        if (scales[i] < scales2[i] || scales[i] > scales2[i]) abort();
    free(scales2);
    free(trits2);
    free(packed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 3) return 0;
    const tern_block_format format = (tern_block_format)(data[0] % TERN_BLOCK_COUNT);
    const size_t rows = data[1] % 9, cols = data[2] % 5 * tern_block_format_info(format)->block, bytes = size - 3;
    size_t need = 0, scale_count = 0;
    if (tern_block_bytes(&need, &scale_count, format, rows, cols, NULL)) abort();
    int8_t *trits = malloc(rows * cols + 1);
    float *scales = malloc((scale_count + 1) * sizeof *scales);
    uint8_t *copy = malloc(bytes + 1);
    if (!trits || !scales || !copy) abort();
    memcpy(copy, data + 3, bytes);
    if (!tern_block_decode(trits, scales, format, copy, bytes, rows, cols, NULL))
        check_again(format, trits, scales, scale_count, rows, cols, need);
    free(copy);
    free(scales);
    free(trits);
    return 0;
}
