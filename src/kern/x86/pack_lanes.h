/* Packing panels of 16 rows in vectors of LANES 128-bit lanes: the common text of pack_avx2.c and pack_avx512.c.
 * Every step stays inside its lane, and a lane makes one block: LANES neighbouring blocks of a panel of rows, or the
 * same block of LANES neighbouring panels of columns. Before including this, a file defines
 *
 *     LANES                            2 or 4
 *     vec                              a vector of that many lanes
 *     V(op), VS(op)                    names of intrinsics: _mm256_op, _mm256_op_si256
 *     load(p)                          16 * LANES bytes, unaligned
 *     load_twenties(low, high, p)      bytes 20 b .. 20 b + 15 to lane b of *low, 20 b + 4 .. 20 b + 19 to lane b of
 *                                      *high; nothing past p[20 * LANES - 1] is read
 *     store_blocks(to, stride, part)   lane b of part[0 .. 3], 64 bytes, to `to` + b * stride */
#include <string.h>

#include "kern/panel16.h"

#define INLINE static inline __attribute__((always_inline))

typedef enum form { T2, T5_LUT, T5_FIXED } form;

INLINE size_t columns_of(form f) { return f == T2 ? TERN_T2P16_COLUMNS : TERN_T5P16_COLUMNS; }

/* ---- from the trits of one byte to the byte -------------------------------------------------------------------- */

INLINE vec plus(vec a, vec b) { return V(add_epi8)(a, b); }
INLINE vec times3(vec a) { return plus(a, plus(a, a)); }
INLINE vec times4(vec a) { return plus(plus(a, a), plus(a, a)); }

/* Polynomials of trits instead of codes, then the polynomial of ones. All fit a byte. */
INLINE vec encode_t2(const vec t[4]) {
    vec sum = plus(times4(plus(times4(plus(times4(t[3]), t[2])), t[1])), t[0]);
    return plus(sum, V(set1_epi8)(1 + 4 + 16 + 64));
}

INLINE vec encode_lut(const vec t[5]) {
    vec pair = plus(plus(times3(t[1]), t[0]), V(set1_epi8)(1 + 3));
    vec rest = plus(plus(times3(plus(times3(t[4]), t[3])), t[2]), V(set1_epi8)(1 + 3 + 9));
    vec sevens = V(sub_epi8)(times4(plus(pair, pair)), pair);
    vec quarter = VS(and)(V(srli_epi16)(rest, 2), V(set1_epi8)(0x3f));
    vec remainder = VS(and)(V(slli_epi16)(rest, 6), V(set1_epi8)((char)0xc0));
    return plus(plus(sevens, quarter), remainder);
}

/* ceil(256 q / 243) = q + ceil(13 q / 243), and but for q = 0 that is q + floor(13 q / 243) + 1. The floor is the
 * high half of 3507 q for every q up to 242; bytes are widened to 16 bits for it, odd and even ones. */
INLINE vec encode_fixed(const vec t[5]) {
    vec q = t[0];
    for (int g = 1; g < 5; g++) q = plus(times3(q), t[g]);
    q = plus(q, V(set1_epi8)(1 + 3 + 9 + 27 + 81));
    const vec factor = V(set1_epi16)(3507);
    vec even = V(mulhi_epu16)(VS(and)(q, V(set1_epi16)(0xff)), factor);
    vec odd = V(mulhi_epu16)(V(srli_epi16)(q, 8), factor);
    vec floors = VS(or)(even, V(slli_epi16)(odd, 8));
    return plus(plus(q, floors), V(min_epu8)(q, V(set1_epi8)(1)));
}

/* t[g]: trits of column 4 g + j of the block. */
INLINE vec encode(form f, const vec *t) {
    return f == T2 ? encode_t2(t) : f == T5_LUT ? encode_lut(t) : encode_fixed(t);
}

/* ---- groups of blocks ------------------------------------------------------------------------------------------ */

/* Four rows, each with four dwords a lane -> t[g]: dword g of the four rows. */
INLINE void transpose(vec t[4], const vec row[4]) {
    vec low01 = V(unpacklo_epi32)(row[0], row[1]), high01 = V(unpackhi_epi32)(row[0], row[1]);
    vec low23 = V(unpacklo_epi32)(row[2], row[3]), high23 = V(unpackhi_epi32)(row[2], row[3]);
    t[0] = V(unpacklo_epi64)(low01, low23);
    t[1] = V(unpackhi_epi64)(low01, low23);
    t[2] = V(unpacklo_epi64)(high01, high23);
    t[3] = V(unpackhi_epi64)(high01, high23);
}

/* LANES blocks of one panel, from 16 rows of LANES * columns_of(f) trits. */
INLINE void pack_row_group(form f, uint8_t *blocks, const int8_t *trits, size_t ld) {
    vec part[4];
    for (int i = 0; i < 4; i++) {
        vec low[4], high[4], t[5];
        for (int r = 0; r < 4; r++) {
            const int8_t *row = trits + (size_t)(4 * i + r) * ld;
            if (f == T2)
                low[r] = load(row);
            else
                load_twenties(&low[r], &high[r], row);
        }
        if (f != T2) transpose(t + 1, high); /* quads 1 .. 4, of which only the last is not in `low` as well */
        transpose(t, low);
        part[i] = encode(f, t);
    }
    store_blocks(blocks, TERN_P16_BLOCK, part);
}

/* One block of each of LANES panels, `stride` apart, from columns_of(f) rows of 16 * LANES trits. */
INLINE void pack_column_group(form f, uint8_t *blocks, size_t stride, const int8_t *trits, size_t ld) {
    vec v[4];
    for (size_t j = 0; j < 4; j++) {
        vec t[5];
        for (size_t g = 0; g < columns_of(f) / 4; g++) t[g] = load(trits + (4 * g + j) * ld);
        v[j] = encode(f, t);
    }
    vec low01 = V(unpacklo_epi8)(v[0], v[1]), high01 = V(unpackhi_epi8)(v[0], v[1]);
    vec low23 = V(unpacklo_epi8)(v[2], v[3]), high23 = V(unpackhi_epi8)(v[2], v[3]);
    const vec part[4] = {V(unpacklo_epi16)(low01, low23), V(unpackhi_epi16)(low01, low23),
                         V(unpacklo_epi16)(high01, high23), V(unpackhi_epi16)(high01, high23)};
    store_blocks(blocks, stride, part);
}

/* ---- whole matrices -------------------------------------------------------------------------------------------- */

/* The same for what is left at the edges of a matrix: `lines` lines of `length` trits. */
enum { TILE_LINE = TERN_T5P16_COLUMNS * LANES, TILE_LINES = TERN_T5P16_COLUMNS };

INLINE void pad(int8_t tile[TILE_LINES * TILE_LINE], const int8_t *trits, size_t ld, size_t lines, size_t length) {
    memset(tile, 0, TILE_LINES * TILE_LINE);
    for (size_t i = 0; i < lines; i++) memcpy(tile + i * TILE_LINE, trits + i * ld, length);
}

INLINE size_t least(size_t a, size_t b) { return a < b ? a : b; }

INLINE void pack_rows(form f, uint8_t *panels, size_t panel_bytes, const int8_t *trits, size_t ld, size_t rows,
                      size_t k) {
    const size_t columns = columns_of(f), step = LANES * columns;
    for (size_t r = 0; r < rows; r += TERN_P16_ROWS, panels += panel_bytes) {
        const size_t lines = least(TERN_P16_ROWS, rows - r);
        uint8_t *to = panels;
        size_t c = 0;
        for (; lines == TERN_P16_ROWS && k - c >= step; c += step, to += LANES * TERN_P16_BLOCK)
            pack_row_group(f, to, trits + r * ld + c, ld);
        for (; c < k; c += step, to += LANES * TERN_P16_BLOCK) {
            int8_t tile[TILE_LINES * TILE_LINE];
            uint8_t blocks[LANES * TERN_P16_BLOCK];
            const size_t length = least(step, k - c);
            pad(tile, trits + r * ld + c, ld, lines, length);
            pack_row_group(f, blocks, tile, TILE_LINE);
            memcpy(to, blocks, (length + columns - 1) / columns * TERN_P16_BLOCK);
        }
    }
}

INLINE void pack_columns(form f, uint8_t *panels, size_t panel_bytes, const int8_t *trits, size_t ld, size_t rows,
                         size_t k) {
    const size_t columns = columns_of(f), step = LANES * TERN_P16_ROWS;
    for (size_t c = 0; c < k; c += columns, panels += TERN_P16_BLOCK) {
        const size_t lines = least(columns, k - c);
        uint8_t *to = panels;
        size_t r = 0;
        for (; lines == columns && rows - r >= step; r += step, to += LANES * panel_bytes)
            pack_column_group(f, to, panel_bytes, trits + c * ld + r, ld);
        for (; r < rows; r += step, to += LANES * panel_bytes) {
            int8_t tile[TILE_LINES * TILE_LINE];
            uint8_t blocks[LANES * TERN_P16_BLOCK];
            const size_t length = least(step, rows - r);
            pad(tile, trits + c * ld + r, ld, lines, length);
            pack_column_group(f, blocks, TERN_P16_BLOCK, tile, TILE_LINE);
            for (size_t p = 0; p * TERN_P16_ROWS < length; p++)
                memcpy(to + p * panel_bytes, blocks + p * TERN_P16_BLOCK, TERN_P16_BLOCK);
        }
    }
}

/* A kernel: pack_rows or pack_columns with its form fixed, so that the compiler makes a loop for each. */
#define PACK(name, lines, form)                                                                             \
    void name(uint8_t *panels, size_t panel_bytes, const int8_t *trits, size_t ld, size_t rows, size_t k) { \
        pack_##lines(form, panels, panel_bytes, trits, ld, rows, k);                                        \
    }
