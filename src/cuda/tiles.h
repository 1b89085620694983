/* How a ternary matrix lies in device memory: one layout a density, for every kernel.
 *
 * A tile is 16 rows x 128 columns (t2) or 160 columns (t5) in 512 bytes, 16 for each of a warp's 32 lanes, so that a
 * warp reads it with one 16-byte load a lane. Lane 4g + t holds four 32-bit words:
 *
 *     word 0   row g       half 0 of the columns        word 2   row g       half 1
 *     word 1   row g + 8   half 0                       word 3   row g + 8   half 1
 *
 * A half is 4 (t2) or 5 (t5) chunks of 16 columns, and of every chunk a lane has the 4 columns 4t .. 4t+3: exactly
 * what it holds of the A operand of an int8 mma (m16n8k32: two neighbouring chunks) and, of halves, of m16n8k16 (one
 * chunk). A word has one byte for each of these 4 columns, and a byte the trits of that column in the half's chunks:
 *
 *     t2   bits 2i+1, 2i of byte j: the trit of chunk i as a two-bit two's complement, 00 = 0, 01 = 1, 11 = -1.
 *          Moved to the top of its byte it is 64 * trit as an int8; at the top of a half it is +-2.0, in fp16 and bf16
 *          alike (sign, and the highest bit of the exponent).
 *     t5   byte j = ceil(256 * d / 243) where d has the digits trit + 1, base 3, chunk 0 most significant. So
 *          floor(byte * 3^(i+1) / 256) is the number that the first i+1 digits make, without any carry from below.
 *
 * Tiles of a row of tiles follow one another. Rows and columns that pad the matrix hold zero trits. */
#ifndef TERN_CUDA_TILES_H
#define TERN_CUDA_TILES_H

#include <stddef.h>
#include <stdint.h>

enum {
    TERN_TILE_ROWS = 16,
    TERN_TILE_BYTES = 512,
    TERN_TILE_CHUNK = 16,    /* columns */
    TERN_TILE_CHUNKS_T2 = 4, /* in a half */
    TERN_TILE_CHUNKS_T5 = 5,
};

static inline int tern_tile_chunks(int t5) { return t5 ? TERN_TILE_CHUNKS_T5 : TERN_TILE_CHUNKS_T2; }
static inline size_t tern_tile_cols(int t5) { return (size_t)(2 * TERN_TILE_CHUNK * tern_tile_chunks(t5)); }

/* One row of tiles from 16 or fewer rows of trits, ld apart: ceil(cols / tile_cols) * TERN_TILE_BYTES bytes. */
void tern_tiles_pack(uint8_t *tiles, const int8_t *trits, size_t ld, size_t rows, size_t cols, int t5);

/* The trit at (row, col) of one row of tiles: the layout read back naively. */
int tern_tiles_trit(const uint8_t *tiles, size_t row, size_t col, int t5);

#endif
