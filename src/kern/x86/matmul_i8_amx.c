/* Many rows of activations on AMX tiles. An unpacked quad is one row of a B tile as it is: 16 quads, 64 columns, are a
 * tile of 1 KiB. The register tile is 2 activation tiles x 2 panels: four tiles of sums, and as many loads as
 * products. */
#include <immintrin.h>
#include <string.h>

#include "kern/panel16.h"
#include "kern/x86/kernels_amx.h"
#include "kern/x86/tiles_amx.h"

enum {
    ROWS = TERN_TILE_ROWS_AMX,
    PANELS = TERN_TILE_PANELS_AMX,
    LD_C = PANELS * TERN_P16_ROWS,
    TILE_COLUMNS = TERN_QUAD_STEP_AMX * TERN_QUAD,
    TILE_BYTES = ROWS * TILE_COLUMNS
};

/* tile: [k / 64][16 rows][64 columns]. */
void tern_tile_acts_amx(int8_t *tile, const int8_t *x, size_t ldx, size_t rows, size_t k_valid, size_t k) {
    for (size_t k0 = 0; k0 < k; k0 += TILE_COLUMNS, tile += TILE_BYTES) {
        const size_t columns = k_valid <= k0 ? 0 : k_valid - k0 < TILE_COLUMNS ? k_valid - k0 : TILE_COLUMNS;
        for (size_t i = 0; i < ROWS; i++) {
            const size_t valid = i < rows ? columns : 0;
            const __mmask64 live = valid == TILE_COLUMNS ? ~0ull : ((__mmask64)1 << valid) - 1;
            _mm512_store_si512(tile + i * TILE_COLUMNS, _mm512_maskz_loadu_epi8(live, x + i * ldx + k0));
        }
    }
}

/* Tile numbers must be constants: 0 to 3 sums, 4 and 5 activations, 6 and 7 codes. */
static void two_by_two(int32_t *c, const uint8_t *codes, size_t codes_stride, const int8_t *tile, size_t tile_stride,
                       size_t quads, int accumulate) {
    int32_t *c1 = c + ROWS * LD_C;
    if (accumulate) {
        _tile_loadd(0, c, LD_C * 4);
        _tile_loadd(1, c + TERN_P16_ROWS, LD_C * 4);
        _tile_loadd(2, c1, LD_C * 4);
        _tile_loadd(3, c1 + TERN_P16_ROWS, LD_C * 4);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (size_t q = 0; q < quads; q += TERN_QUAD_STEP_AMX, tile += TILE_BYTES) {
        const uint8_t *b = codes + q * TERN_P16_QUAD;
        _tile_loadd(6, b, TERN_P16_QUAD);
        _tile_loadd(4, tile, TILE_COLUMNS);
        _tile_dpbsud(0, 4, 6);
        _tile_loadd(7, b + codes_stride, TERN_P16_QUAD);
        _tile_dpbsud(1, 4, 7);
        _tile_loadd(5, tile + tile_stride, TILE_COLUMNS);
        _tile_dpbsud(2, 5, 6);
        _tile_dpbsud(3, 5, 7);
    }
    _tile_stored(0, c, LD_C * 4);
    _tile_stored(1, c + TERN_P16_ROWS, LD_C * 4);
    _tile_stored(2, c1, LD_C * 4);
    _tile_stored(3, c1 + TERN_P16_ROWS, LD_C * 4);
}

/* The last tile of an odd number. */
static void one_by_two(int32_t *c, const uint8_t *codes, size_t codes_stride, const int8_t *tile, size_t quads,
                       int accumulate) {
    if (accumulate) {
        _tile_loadd(0, c, LD_C * 4);
        _tile_loadd(1, c + TERN_P16_ROWS, LD_C * 4);
    } else {
        _tile_zero(0);
        _tile_zero(1);
    }
    for (size_t q = 0; q < quads; q += TERN_QUAD_STEP_AMX, tile += TILE_BYTES) {
        const uint8_t *b = codes + q * TERN_P16_QUAD;
        _tile_loadd(4, tile, TILE_COLUMNS);
        _tile_loadd(6, b, TERN_P16_QUAD);
        _tile_dpbsud(0, 4, 6);
        _tile_loadd(7, b + codes_stride, TERN_P16_QUAD);
        _tile_dpbsud(1, 4, 7);
    }
    _tile_stored(0, c, LD_C * 4);
    _tile_stored(1, c + TERN_P16_ROWS, LD_C * 4);
}

void tern_matmul_i8_amx(int32_t *c, const uint8_t *codes, size_t codes_stride, const int8_t *tiles,
                        size_t tile_stride, size_t n_tiles, size_t quads, int accumulate) {
    _tile_loadconfig(&tern_full_tiles_amx);
    size_t t = 0;
    for (; t + 2 <= n_tiles; t += 2)
        two_by_two(c + t * ROWS * LD_C, codes, codes_stride, tiles + t * tile_stride, tile_stride, quads, accumulate);
    if (t < n_tiles) one_by_two(c + t * ROWS * LD_C, codes, codes_stride, tiles + t * tile_stride, quads, accumulate);
    _tile_release(); /* tile data left behind would be saved at every context switch */
}
