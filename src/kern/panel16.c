#include "kern/panel16.h"

#include <string.h>

/* A matrix of trits as pack_rows or pack_columns see it. */
typedef struct trit_matrix {
    const int8_t *trits;
    size_t row_step, column_step, rows, k;
} trit_matrix;

/* The codes of the block of rows r0 .. r0 + 15 and columns k0 .. k0 + columns - 1; 1 where the matrix has ended. */
static void block_codes(uint8_t code[TERN_P16_ROWS][TERN_T5P16_COLUMNS], const trit_matrix *w, size_t r0, size_t k0,
                        size_t columns) {
    memset(code, 1, (size_t)TERN_P16_ROWS * TERN_T5P16_COLUMNS);
    for (size_t r = 0; r < TERN_P16_ROWS && r0 + r < w->rows; r++)
        for (size_t c = 0; c < columns && k0 + c < w->k; c++)
            code[r][c] = (uint8_t)(w->trits[(r0 + r) * w->row_step + (k0 + c) * w->column_step] + 1);
}

static uint8_t byte_t2(const uint8_t *c) { return (uint8_t)(c[0] | c[4] << 2 | c[8] << 4 | c[12] << 6); }

static uint8_t byte_lut(const uint8_t *c) {
    unsigned r = c[8] + 3u * c[12] + 9u * c[16];
    return (uint8_t)((r % 4) << 6 | (7 * (c[0] + 3u * c[4]) + r / 4));
}

static uint8_t byte_fixed(const uint8_t *c) {
    unsigned q = 81u * c[0] + 27u * c[4] + 9u * c[8] + 3u * c[12] + c[16];
    return (uint8_t)((256 * q + 242) / 243);
}

static void pack(uint8_t *panels, size_t panel_bytes, const trit_matrix *w, size_t columns,
                 uint8_t (*encode)(const uint8_t *c)) {
    uint8_t code[TERN_P16_ROWS][TERN_T5P16_COLUMNS];
    for (size_t r0 = 0; r0 < w->rows; r0 += TERN_P16_ROWS, panels += panel_bytes) {
        uint8_t *block = panels;
        for (size_t k0 = 0; k0 < w->k; k0 += columns, block += TERN_P16_BLOCK) {
            block_codes(code, w, r0, k0, columns);
            for (size_t r = 0; r < TERN_P16_ROWS; r++)
                for (size_t j = 0; j < TERN_QUAD; j++) block[4 * r + j] = encode(&code[r][j]);
        }
    }
}

#define PACK(layout, columns, encode)                                                                              \
    void tern_pack_rows_##layout(uint8_t *panels, size_t panel_bytes, const int8_t *trits, size_t ld, size_t rows, \
                                 size_t k) {                                                                       \
        pack(panels, panel_bytes, &(trit_matrix){trits, ld, 1, rows, k}, columns, encode);                         \
    }                                                                                                              \
    void tern_pack_columns_##layout(uint8_t *panels, size_t panel_bytes, const int8_t *trits, size_t ld,           \
                                    size_t rows, size_t k) {                                                       \
        pack(panels, panel_bytes, &(trit_matrix){trits, 1, ld, rows, k}, columns, encode);                         \
    }

PACK(t2p16, TERN_T2P16_COLUMNS, byte_t2)
PACK(t5p16_lut, TERN_T5P16_COLUMNS, byte_lut)
PACK(t5p16_fixed, TERN_T5P16_COLUMNS, byte_fixed)
