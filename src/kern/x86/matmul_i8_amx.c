/* Many rows of activations on AMX tiles, straight from the packed panels.
 *
 * An unpacked quad is one row of a B tile as it is: 16 quads, 64 columns, are a tile of 1 KiB. The register tile is two
 * tiles of activations x two panels, and its sums stay in tile registers over all columns. Codes are unpacked two
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
    TILE_BYTES = ROWS * STEP_COLUMNS,
    AHEAD = 2,        /* steps between unpacking a tile and loading it: its stores must have left the store buffer */
    RING_QUADS = 160, /* whole tiles, and whole blocks of 4 and of 5 quads */
    PREFETCH_BYTES = 2048
};

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

/* ---- unpacking --------------------------------------------------------------------------------------------------- */

/* Two panels on their way into the ring. */
typedef struct stream {
    const uint8_t *panel[2];
    size_t blocks, done; /* of each panel: all, unpacked */
    size_t slot;         /* ring position of the next block, in quads */
    uint8_t (*ring)[RING_QUADS * TERN_P16_QUAD];
} stream;

INLINE void unpack_block(uint8_t *to, const uint8_t *block, const tern_t5_tables_avx512 *tables, const int t5) {
    __m512i quad[TERN_T5P16_QUADS];
    const int quads = t5 ? TERN_T5P16_QUADS : TERN_T2P16_QUADS;
    _mm_prefetch((const char *)block + PREFETCH_BYTES, _MM_HINT_T0);
    if (t5)
        tern_decode_t5_avx512(quad, _mm512_load_si512(block), tables);
    else
        tern_decode_t2_avx512(quad, _mm512_load_si512(block));
    TERN_UNROLL
    for (int q = 0; q < quads; q++) _mm512_store_si512(to + q * TERN_P16_QUAD, quad[q]);
}

/* One panel's blocks from s->done to `goal`. */
INLINE void unpack_panel(const stream *s, int p, size_t goal, const tern_t5_tables_avx512 *tables, const int t5) {
    const size_t quads = t5 ? TERN_T5P16_QUADS : TERN_T2P16_QUADS;
    size_t slot = s->slot;
    for (size_t b = s->done; b < goal; b++) {
        unpack_block(s->ring[p] + slot * TERN_P16_QUAD, s->panel[p] + b * TERN_P16_BLOCK, tables, t5);
        slot = slot + quads == RING_QUADS ? 0 : slot + quads;
    }
}

/* Blocks that hold all columns up to the end of step `step`. */
INLINE size_t blocks_until(const stream *s, size_t step, const int t5) {
    const size_t quads = t5 ? TERN_T5P16_QUADS : TERN_T2P16_QUADS;
    const size_t goal = ((step + 1) * STEP_QUADS + quads - 1) / quads;
    return goal < s->blocks ? goal : s->blocks;
}

INLINE void advance(stream *s, size_t goal, const int t5) {
    const size_t quads = t5 ? TERN_T5P16_QUADS : TERN_T2P16_QUADS;
    s->slot = (s->slot + (goal - s->done) * quads) % RING_QUADS;
    s->done = goal;
}

/* ---- products ---------------------------------------------------------------------------------------------------- */

/* Tile numbers must be constants: 0 to 3 sums, 4 and 5 activations, 6 and 7 codes. With one tile of activations,
 * `two` = 0, tiles 2, 3 and 5 stay unused. */
INLINE void one_block(int32_t *c, stream s, size_t steps, const int8_t *tile, size_t tile_stride,
                      const tern_t5_tables_avx512 *tables, const int t5, const int two) {
    size_t at = 0;
    _tile_zero(0);
    _tile_zero(1);
    if (two) {
        _tile_zero(2);
        _tile_zero(3);
    }
    const size_t first = blocks_until(&s, AHEAD - 1, t5);
    unpack_panel(&s, 0, first, tables, t5);
    unpack_panel(&s, 1, first, tables, t5);
    advance(&s, first, t5);
    for (size_t step = 0; step < steps; step++, tile += TILE_BYTES) {
        const size_t goal = blocks_until(&s, step + AHEAD, t5);
        _tile_loadd(6, s.ring[0] + at * TERN_P16_QUAD, TERN_P16_QUAD);
        _tile_loadd(4, tile, STEP_COLUMNS);
        _tile_dpbsud(0, 4, 6);
        unpack_panel(&s, 0, goal, tables, t5);
        _tile_loadd(7, s.ring[1] + at * TERN_P16_QUAD, TERN_P16_QUAD);
        _tile_dpbsud(1, 4, 7);
        if (two) {
            _tile_loadd(5, tile + tile_stride, STEP_COLUMNS);
            _tile_dpbsud(2, 5, 6);
        }
        unpack_panel(&s, 1, goal, tables, t5);
        if (two) _tile_dpbsud(3, 5, 7);
        advance(&s, goal, t5);
        at = at + STEP_QUADS == RING_QUADS ? 0 : at + STEP_QUADS;
    }
    _tile_stored(0, c, LD_C * sizeof *c);
    _tile_stored(1, c + TERN_P16_ROWS, LD_C * sizeof *c);
    if (two) {
        _tile_stored(2, c + ROWS * LD_C, LD_C * sizeof *c);
        _tile_stored(3, c + ROWS * LD_C + TERN_P16_ROWS, LD_C * sizeof *c);
    }
}

INLINE void all_tiles(int32_t *c, const uint8_t *panels, size_t panel_bytes, size_t n_panels, size_t k,
                      const int8_t *tiles, size_t tile_stride, size_t n_tiles, const int t5) {
    /* What lies past a panel's end in the ring meets activations of zero, but is read. */
    _Alignas(64) uint8_t ring[2][RING_QUADS * TERN_P16_QUAD] = {{0}};
    const tern_t5_tables_avx512 tables = tern_t5_tables_make_avx512();
    const size_t columns = t5 ? TERN_T5P16_COLUMNS : TERN_T2P16_COLUMNS;
    const stream s = {.panel = {panels, n_panels > 1 ? panels + panel_bytes : panels},
                      .blocks = (k + columns - 1) / columns,
                      .ring = ring};
    const size_t steps = (k + STEP_COLUMNS - 1) / STEP_COLUMNS;
    _tile_loadconfig(&tern_full_tiles_amx);
    size_t t = 0;
    for (; t + 2 <= n_tiles; t += 2)
        one_block(c + t * ROWS * LD_C, s, steps, tiles + t * tile_stride, tile_stride, &tables, t5, 1);
    if (t < n_tiles) one_block(c + t * ROWS * LD_C, s, steps, tiles + t * tile_stride, tile_stride, &tables, t5, 0);
    _tile_release(); /* tile data left behind would be saved at every context switch */
}

void tern_matmul_t2_i8_amx(int32_t *c, const uint8_t *panels, size_t panel_bytes, size_t n_panels, size_t k,
                           const int8_t *tiles, size_t tile_stride, size_t n_tiles) {
    all_tiles(c, panels, panel_bytes, n_panels, k, tiles, tile_stride, n_tiles, 0);
}

void tern_matmul_t5_i8_amx(int32_t *c, const uint8_t *panels, size_t panel_bytes, size_t n_panels, size_t k,
                           const int8_t *tiles, size_t tile_stride, size_t n_tiles) {
    all_tiles(c, panels, panel_bytes, n_panels, k, tiles, tile_stride, n_tiles, 1);
}
