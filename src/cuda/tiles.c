#include "cuda/tiles.h"

#include <string.h>

/* Where the trit (row, col) lies: the byte from the start of the row of tiles, and its chunk within the half. */
typedef struct place {
    size_t byte;
    int chunk;
} place;

static place find(size_t row, size_t col, int t5) {
    const size_t in_tile = col % tern_tile_cols(t5), chunk = in_tile / TERN_TILE_CHUNK,
                 chunks = (size_t)tern_tile_chunks(t5);
    const size_t lane = row % 8 * 4 + in_tile % TERN_TILE_CHUNK / 4, word = chunk / chunks * 2 + row / 8;
    return (place){col / tern_tile_cols(t5) * TERN_TILE_BYTES + lane * 16 + word * 4 + col % 4,
                   (int)(chunk % chunks)};
}

static const int power_of_3[TERN_TILE_CHUNKS_T5] = {1, 3, 9, 27, 81};

/* t5: bytes gather the number d first, which the last step turns into its fraction. */
static void add_trit(uint8_t *byte, int chunk, int trit, int t5) {
    if (t5)
        *byte = (uint8_t)(*byte + (trit + 1) * power_of_3[TERN_TILE_CHUNKS_T5 - 1 - chunk]);
    else
        *byte |= (uint8_t)((trit & 3) << 2 * chunk);
}

void tern_tiles_pack(uint8_t *tiles, const int8_t *trits, size_t ld, size_t rows, size_t cols, int t5) {
    const size_t tile_cols = tern_tile_cols(t5), padded = (cols + tile_cols - 1) / tile_cols * tile_cols;
    const size_t bytes = padded / tile_cols * TERN_TILE_BYTES;
    memset(tiles, 0, bytes);
    for (size_t r = 0; r < TERN_TILE_ROWS; r++)
        for (size_t c = 0; c < padded; c++) {
            const place p = find(r, c, t5);
            add_trit(tiles + p.byte, p.chunk, r < rows && c < cols ? trits[r * ld + c] : 0, t5);
        }
    if (!t5) return;
    for (size_t b = 0; b < bytes; b++) tiles[b] = (uint8_t)((tiles[b] * 256 + 242) / 243);
}

int tern_tiles_trit(const uint8_t *tiles, size_t row, size_t col, int t5) {
    const place p = find(row, col, t5);
    const int byte = tiles[p.byte];
    if (t5) return byte * power_of_3[p.chunk] * 3 / 256 % 3 - 1;
    const int code = byte >> 2 * p.chunk & 3;
    return (code & 1) - (code & 2);
}
