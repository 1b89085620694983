#include "kern/panel16.h"

#include <string.h>

/* The codes of one block: code[row][column], 1 where the matrix has ended. */
static void block_codes(uint8_t code[TERN_P16_ROWS][TERN_T5P16_COLUMNS], const int8_t *trits, size_t ld, size_t rows,
                        size_t k0, size_t k, size_t columns) {
    size_t valid = k - k0 < columns ? k - k0 : columns;
    memset(code, 1, (size_t)TERN_P16_ROWS * TERN_T5P16_COLUMNS);
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < valid; c++) code[r][c] = (uint8_t)(trits[r * ld + k0 + c] + 1);
}

void tern_pack_t2p16(uint8_t *panel, const int8_t *trits, size_t ld, size_t rows, size_t k) {
    uint8_t code[TERN_P16_ROWS][TERN_T5P16_COLUMNS];
    for (size_t k0 = 0; k0 < k; k0 += TERN_T2P16_COLUMNS, panel += TERN_P16_BLOCK) {
        block_codes(code, trits, ld, rows, k0, k, TERN_T2P16_COLUMNS);
        for (size_t r = 0; r < TERN_P16_ROWS; r++)
            for (size_t j = 0; j < TERN_QUAD; j++) {
                const uint8_t *c = &code[r][j];
                panel[4 * r + j] = (uint8_t)(c[0] | c[4] << 2 | c[8] << 4 | c[12] << 6);
            }
    }
}

static uint8_t byte_lut(const uint8_t *c) {
    unsigned r = c[8] + 3u * c[12] + 9u * c[16];
    return (uint8_t)((r % 4) << 6 | (7 * (c[0] + 3u * c[4]) + r / 4));
}

static uint8_t byte_fixed(const uint8_t *c) {
    unsigned q = 81u * c[0] + 27u * c[4] + 9u * c[8] + 3u * c[12] + c[16];
    return (uint8_t)((256 * q + 242) / 243);
}

static void pack_t5(uint8_t *panel, const int8_t *trits, size_t ld, size_t rows, size_t k,
                    uint8_t (*encode)(const uint8_t *c)) {
    uint8_t code[TERN_P16_ROWS][TERN_T5P16_COLUMNS];
    for (size_t k0 = 0; k0 < k; k0 += TERN_T5P16_COLUMNS, panel += TERN_P16_BLOCK) {
        block_codes(code, trits, ld, rows, k0, k, TERN_T5P16_COLUMNS);
        for (size_t r = 0; r < TERN_P16_ROWS; r++)
            for (size_t j = 0; j < TERN_QUAD; j++) panel[4 * r + j] = encode(&code[r][j]);
    }
}

void tern_pack_t5p16_lut(uint8_t *panel, const int8_t *trits, size_t ld, size_t rows, size_t k) {
    pack_t5(panel, trits, ld, rows, k, byte_lut);
}

void tern_pack_t5p16_fixed(uint8_t *panel, const int8_t *trits, size_t ld, size_t rows, size_t k) {
    pack_t5(panel, trits, ld, rows, k, byte_fixed);
}
