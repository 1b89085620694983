/* Many rows of activations on AMX tiles, straight from the packed panels.
 *
 * An unpacked quad is one row of a B tile as it is: 16 quads, 64 columns, are a tile of 1 KiB. The register tile is
 * two tiles of activations x two panels, and its sums stay in tile registers over all columns. Codes are unpacked two
 * steps ahead into a ring in L1, between the tile instructions: the vector units would be idle otherwise, and the
 * panels are read at 2 or 1.6 bits a weight from wherever they are. What lost: lab/amx-blocking.md. */
#include <immintrin.h>
#include <string.h>

#include "base/unroll.h"
#include "kern/x86/decode_avx512.h"
#include "kern/x86/kernels_amx.h"
#include "kern/x86/tiles_amx.h"

#define INLINE static inline __attribute__((always_inline))

enum {
    ROWS = TERN_TILE_ROWS_AMX,
    LD_C = 2 * TERN_P16_ROWS,
    STEP_QUADS = 16, /* of one tile */
    STEP_COLUMNS = STEP_QUADS * TERN_QUAD,
    STEP_BYTES = STEP_QUADS * TERN_P16_QUAD,
    TILE_BYTES = ROWS * STEP_COLUMNS,
    GROUP = 5, /* steps, 320 columns: whole blocks of t2 (20) and of t5 (16) */
    LINE = 64,
    AHEAD = 2 /* steps between unpacking a tile and loading it: its stores must have left the store buffer */
};
_Static_assert((AHEAD + 1) * 4 * TERN_P16_BLOCK <= TERN_PANEL_SLACK, "unpacking ahead reads past the last panel");

/* tile: [k / 64][16 rows][64 columns]. */
void tern_tile_acts_amx(int8_t *tile, const int8_t *x, size_t ldx, size_t rows, size_t k_valid, size_t k) {
    for (size_t k0 = 0; k0 < k; k0 += STEP_COLUMNS, tile += TILE_BYTES) {
        const size_t columns = k_valid <= k0 ? 0 : k_valid - k0 < STEP_COLUMNS ? k_valid - k0 : STEP_COLUMNS;
        for (size_t i = 0; i < ROWS; i++) {
            const size_t valid = i < rows ? columns : 0;
            const __mmask64 live = valid == STEP_COLUMNS ? ~0ull : ((__mmask64)1 << valid) - 1;
            _mm512_store_si512(tile + i * STEP_COLUMNS, _mm512_maskz_loadu_epi8(live, x + i * ldx + k0));
        }
    }
}

/* ---- unpacking ------------------------------------------------------------------------------------------------- */

typedef struct unpack_tables {
    tern_t5_tables_avx512 t5;
    __m512i t2_c1, t2_c2, two_bits; /* t2p16: bits 2 and 3, bits 4 and 5 of an index */
} unpack_tables;

INLINE unpack_tables make_tables(void) {
    return (unpack_tables){.t5 = tern_t5_tables_make_avx512(),
                           .t2_c1 = tern_table_avx512(1, 4, 4, 1),
                           .t2_c2 = tern_table_avx512(1, 16, 4, 1),
                           .two_bits = _mm512_set1_epi8(3)};
}

/* As tern_decode_t2_avx512, in five instructions for its seven: beside the tile instructions each one counts. */
INLINE void decode_t2(__m512i quad[TERN_T2P16_QUADS], __m512i b, const unpack_tables *t) {
    quad[0] = _mm512_and_si512(b, t->two_bits);
    quad[1] = _mm512_permutexvar_epi8(b, t->t2_c1); /* looks at the low six bits alone */
    quad[2] = _mm512_permutexvar_epi8(b, t->t2_c2);
    quad[3] = _mm512_and_si512(_mm512_srli_epi16(b, 6), t->two_bits);
}

/* One panel on its way into tiles. The ring holds one group of steps; unpacking runs AHEAD steps before loading, so
 * it overwrites what was loaded GROUP - AHEAD steps ago. */
typedef struct stream {
    const uint8_t *next; /* block */
    uint8_t *ring;       /* [GROUP * STEP_BYTES] */
} stream;

/* Step r of a group takes blocks first_block(r) to first_block(r + 1): all that hold its columns. For t5 these are 4,
 * 3, 3, 3 and 3 blocks of 20 columns for 5 x 64. */
INLINE int first_block(int r, const int t5) { return t5 ? (16 * r + 4) / 5 : 4 * r; }

INLINE void unpack_block(uint8_t *to, const uint8_t *block, const unpack_tables *tables, const int t5) {
    __m512i quad[TERN_T5P16_QUADS];
    const int quads = t5 ? TERN_T5P16_QUADS : TERN_T2P16_QUADS;
    if (t5)
        tern_decode_t5_avx512(quad, _mm512_load_si512(block), &tables->t5);
    else
        decode_t2(quad, _mm512_load_si512(block), tables);
    TERN_UNROLL
    for (int q = 0; q < quads; q++) _mm512_store_si512(to + q * TERN_P16_QUAD, quad[q]);
}

/* Step r, a constant. It may lie past the columns that are wanted, or past the panel: what is read there meets
 * activations of zero. */
INLINE void unpack_step(stream *s, int r, const unpack_tables *tables, const int t5) {
    const int quads = t5 ? TERN_T5P16_QUADS : TERN_T2P16_QUADS, first = first_block(r, t5);
    const int blocks = first_block(r + 1, t5) - first;
    __asm__("" : "+r"(s->next)); /* or gcc computes all addresses of a group at once, and spills them */
    TERN_UNROLL
    for (int b = 0; b < blocks; b++)
        unpack_block(s->ring + (first + b) * quads * TERN_P16_QUAD, s->next + b * TERN_P16_BLOCK, tables, t5);
    s->next += blocks * TERN_P16_BLOCK;
}

/* ---- products -------------------------------------------------------------------------------------------------- */

/* Tile numbers must be constants: 0 to 3 sums, 4 and 5 activations, 6 and 7 codes. With one tile of activations,
 * `two` = 0, tiles 2, 3 and 5 stay unused. Activations come from L2 and are not wanted again before they have left
 * L1: the streaming load spares L1 for the ring. */
INLINE void one_step(stream s[2], int r, const int8_t *tile, size_t tile_stride, const unpack_tables *tables,
                     const int t5, const int two) {
    _tile_loadd(6, s[0].ring + r * STEP_BYTES, TERN_P16_QUAD);
    _tile_stream_loadd(4, tile, STEP_COLUMNS);
    _tile_loadd(7, s[1].ring + r * STEP_BYTES, TERN_P16_QUAD);
    if (two) _tile_stream_loadd(5, tile + tile_stride, STEP_COLUMNS);
    _tile_dpbsud(0, 4, 6);
    unpack_step(&s[0], (r + AHEAD) % GROUP, tables, t5);
    _tile_dpbsud(1, 4, 7);
    if (two) _tile_dpbsud(2, 5, 6);
    unpack_step(&s[1], (r + AHEAD) % GROUP, tables, t5);
    if (two) _tile_dpbsud(3, 5, 7);
}

INLINE void store_tiles(int32_t *c, const int two) {
    _tile_stored(0, c, LD_C * sizeof *c);
    _tile_stored(1, c + TERN_P16_ROWS, LD_C * sizeof *c);
    if (!two) return;
    _tile_stored(2, c + ROWS * LD_C, LD_C * sizeof *c);
    _tile_stored(3, c + ROWS * LD_C + TERN_P16_ROWS, LD_C * sizeof *c);
}

/* The first tile store after more than about 30 steps without one takes 250 ns on Sapphire Rapids, whatever it
 * stores. This one, to where the block's sums will go, keeps the last ones fast. */
INLINE void keep_stores_awake(int32_t *c) { _tile_stored(6, c, LD_C * sizeof *c); }

/* Bytes to bring into L2, some lines every group of steps: a burst would hold up the loads of tiles. */
typedef struct expected {
    const uint8_t *next;
    size_t lines;
} expected;

INLINE void expect_lines(expected *e) {
    for (size_t i = 0; i < e->lines; i++, e->next += LINE) _mm_prefetch((const char *)e->next, _MM_HINT_T1);
}

INLINE void one_block(int32_t *c, const uint8_t *panel0, const uint8_t *panel1, size_t steps, const int8_t *tile,
                      size_t tile_stride, expected *e, const unpack_tables *tables, const int t5, const int two) {
    _Alignas(4096) uint8_t ring[2][GROUP * STEP_BYTES];
    stream s[2] = {{panel0, ring[0]}, {panel1, ring[1]}};
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    TERN_UNROLL
    for (int r = 0; r < AHEAD; r++) {
        unpack_step(&s[0], r, tables, t5);
        unpack_step(&s[1], r, tables, t5);
    }
    /* Written out: r must be a constant, and not every compiler unrolls a loop that can end early. */
    for (size_t left = steps; left; tile += GROUP * TILE_BYTES) {
        one_step(s, 0, tile, tile_stride, tables, t5, two);
        if (!--left) break;
        one_step(s, 1, tile + TILE_BYTES, tile_stride, tables, t5, two);
        if (!--left) break;
        one_step(s, 2, tile + 2 * TILE_BYTES, tile_stride, tables, t5, two);
        if (!--left) break;
        one_step(s, 3, tile + 3 * TILE_BYTES, tile_stride, tables, t5, two);
        if (!--left) break;
        one_step(s, 4, tile + 4 * TILE_BYTES, tile_stride, tables, t5, two);
        if (!--left) break;
        keep_stores_awake(c);
        expect_lines(e);
    }
    store_tiles(c, two);
}

INLINE void all_tiles(int32_t *c, const uint8_t *panels, size_t panel_bytes, size_t n_panels, size_t k,
                      const int8_t *tiles, size_t tile_stride, size_t n_tiles, const uint8_t *soon, size_t soon_bytes,
                      const int t5) {
    const unpack_tables tables = make_tables();
    const uint8_t *second = n_panels > 1 ? panels + panel_bytes : panels; /* its sums are then not looked at */
    const size_t steps = (k + STEP_COLUMNS - 1) / STEP_COLUMNS;
    const size_t groups = (n_tiles + 1) / 2 * ((steps - 1) / GROUP); /* that do not end their block */
    expected e = {soon, groups ? (soon_bytes / LINE + groups - 1) / groups : 0};
    _tile_loadconfig(&tern_full_tiles_amx);
    size_t t = 0;
    for (; t + 2 <= n_tiles; t += 2)
        one_block(c + t * ROWS * LD_C, panels, second, steps, tiles + t * tile_stride, tile_stride, &e, &tables, t5,
                  1);
    if (t < n_tiles)
        one_block(c + t * ROWS * LD_C, panels, second, steps, tiles + t * tile_stride, tile_stride, &e, &tables, t5,
                  0);
    _tile_release(); /* tile data left behind would be saved at every context switch */
}

void tern_matmul_t2_i8_amx(int32_t *c, const uint8_t *panels, size_t panel_bytes, size_t n_panels, size_t k,
                           const int8_t *tiles, size_t tile_stride, size_t n_tiles, const uint8_t *soon,
                           size_t soon_bytes) {
    all_tiles(c, panels, panel_bytes, n_panels, k, tiles, tile_stride, n_tiles, soon, soon_bytes, 0);
}

void tern_matmul_t5_i8_amx(int32_t *c, const uint8_t *panels, size_t panel_bytes, size_t n_panels, size_t k,
                           const int8_t *tiles, size_t tile_stride, size_t n_tiles, const uint8_t *soon,
                           size_t soon_bytes) {
    all_tiles(c, panels, panel_bytes, n_panels, k, tiles, tile_stride, n_tiles, soon, soon_bytes, 1);
}
