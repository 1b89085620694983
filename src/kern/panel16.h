/* Panels of 16 rows, the layouts of every vector tier. Blocks of 64 bytes; in both, byte 4*r + j of a block belongs
 * to row r and to the columns 4g + j of quads g = 0, 1, ... of that block, so that unpacking a block gives whole
 * quads:
 *
 *   t2p16   16 columns a block, 4 quads: bits 2g, 2g+1 of the byte hold the code of column 4g + j
 *   t5p16   20 columns a block, 5 quads: the byte holds codes c0..c4 of columns 4g + j, g = 0..4, in one of two ways
 *
 *     lut     for machines that look 64 bytes up at once (vpermb, tbl): the low six bits 7*(c0 + 3*c1) + r / 4 and the
 *             high two r % 4, with r = c2 + 3*c3 + 9*c4 in 0..26. c0 and c1 come from the low six bits alone, by one
 *             look-up each; another gives 4*(r / 4), the high bits complete r, and r gives the other three.
 *     fixed   for machines that multiply: ceil(256 q / 243) of q = 81*c0 + 27*c1 + 9*c2 + 3*c3 + c4, a fixed-point
 *             fraction whose leading base-3 digit is c0; times 3 modulo 256 it leads with c1, and so on.
 *
 * Padding, rows and columns alike, holds zero trits (code 1). */
#ifndef TERN_KERN_PANEL16_H
#define TERN_KERN_PANEL16_H

#include "kern/kernels.h"

enum {
    TERN_P16_ROWS = 16,
    TERN_P16_BLOCK = 64, /* bytes */
    TERN_P16_QUAD = 64,  /* bytes of an unpacked quad */
    TERN_T2P16_COLUMNS = 16,
    TERN_T5P16_COLUMNS = 20,
    TERN_T2P16_QUADS = 4,
    TERN_T5P16_QUADS = 5
};

/* The specification, by layout. */
void tern_pack_rows_t2p16(uint8_t *panels, size_t panel_bytes, const int8_t *trits, size_t ld, size_t rows, size_t k);
void tern_pack_columns_t2p16(uint8_t *panels, size_t panel_bytes, const int8_t *trits, size_t ld, size_t rows,
                             size_t k);
void tern_pack_rows_t5p16_lut(uint8_t *panels, size_t panel_bytes, const int8_t *trits, size_t ld, size_t rows,
                              size_t k);
void tern_pack_columns_t5p16_lut(uint8_t *panels, size_t panel_bytes, const int8_t *trits, size_t ld, size_t rows,
                                 size_t k);
void tern_pack_rows_t5p16_fixed(uint8_t *panels, size_t panel_bytes, const int8_t *trits, size_t ld, size_t rows,
                                size_t k);
void tern_pack_columns_t5p16_fixed(uint8_t *panels, size_t panel_bytes, const int8_t *trits, size_t ld, size_t rows,
                                   size_t k);

#define TERN_LAYOUT_T2P16 \
    { "t2p16", TERN_P16_ROWS, TERN_T2P16_COLUMNS, TERN_P16_BLOCK }
#define TERN_LAYOUT_T5P16_LUT \
    { "t5p16-lut", TERN_P16_ROWS, TERN_T5P16_COLUMNS, TERN_P16_BLOCK }
#define TERN_LAYOUT_T5P16_FIXED \
    { "t5p16-fixed", TERN_P16_ROWS, TERN_T5P16_COLUMNS, TERN_P16_BLOCK }

#endif
