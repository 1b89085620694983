/* Many rows of activations: a panel is unpacked once to codes in L1, then multiplied with tiles of 8 rows. The
 * register tile is 8 rows x 3 panels: 24 accumulators, 3 loads of codes and 8 broadcasts for 24 multiply-adds. */
#include "base/unroll.h"
#include "kern/x86/decode_avx512.h"
#include "kern/x86/kernels_avx512.h"

enum { ROWS = TERN_TILE_ROWS_AVX512, PANELS = TERN_TILE_PANELS_AVX512, LD_C = PANELS * TERN_P16_ROWS };

void tern_unpack_t2_avx512(uint8_t *codes, const uint8_t *panel, size_t blocks) {
    for (size_t b = 0; b < blocks; b++, panel += TERN_P16_BLOCK) {
        __m512i quad[TERN_T2P16_QUADS];
        _mm_prefetch((const char *)panel + 2048, _MM_HINT_T0);
        tern_decode_t2_avx512(quad, _mm512_load_si512(panel));
        TERN_UNROLL
        for (int q = 0; q < TERN_T2P16_QUADS; q++, codes += TERN_P16_QUAD) _mm512_store_si512(codes, quad[q]);
    }
}

void tern_unpack_t5_avx512(uint8_t *codes, const uint8_t *panel, size_t blocks) {
    const tern_t5_tables_avx512 tables = tern_t5_tables_make_avx512();
    for (size_t b = 0; b < blocks; b++, panel += TERN_P16_BLOCK) {
        __m512i quad[TERN_T5P16_QUADS];
        _mm_prefetch((const char *)panel + 2048, _MM_HINT_T0);
        tern_decode_t5_avx512(quad, _mm512_load_si512(panel), &tables);
        TERN_UNROLL
        for (int q = 0; q < TERN_T5P16_QUADS; q++, codes += TERN_P16_QUAD) _mm512_store_si512(codes, quad[q]);
    }
}

/* tile: [k / 4][8 rows][4 columns], so that one step of the product reads 32 neighbouring bytes. */
void tern_tile_acts_avx512(int8_t *tile, const int8_t *x, size_t ldx, size_t rows, size_t k_valid, size_t k) {
    for (size_t i = 0; i < ROWS; i++) {
        const size_t valid = i < rows ? k_valid : 0, whole = valid / TERN_QUAD;
        const int8_t *row = x + i * ldx;
        int8_t *to = tile + i * TERN_QUAD;
        for (size_t q = 0; q < whole; q++) memcpy(to + q * ROWS * TERN_QUAD, row + q * TERN_QUAD, TERN_QUAD);
        for (size_t q = whole; q < k / TERN_QUAD; q++) memset(to + q * ROWS * TERN_QUAD, 0, TERN_QUAD);
        if (valid % TERN_QUAD) memcpy(to + whole * ROWS * TERN_QUAD, row + whole * TERN_QUAD, valid % TERN_QUAD);
    }
}

static void one_tile(int32_t *c, const uint8_t *codes, size_t codes_stride, const int8_t *tile, size_t quads,
                     int accumulate) {
    __m512i acc[ROWS][PANELS];
    TERN_UNROLL
    for (int i = 0; i < ROWS; i++) TERN_UNROLL
    for (int p = 0; p < PANELS; p++)
        acc[i][p] = accumulate ? _mm512_load_si512(c + i * LD_C + p * TERN_P16_ROWS) : _mm512_setzero_si512();
    for (size_t q = 0; q < quads; q++, codes += TERN_P16_QUAD, tile += ROWS * TERN_QUAD) {
        __m512i w[PANELS];
        TERN_UNROLL
        for (int p = 0; p < PANELS; p++) w[p] = _mm512_load_si512(codes + (size_t)p * codes_stride);
        TERN_UNROLL
        for (int i = 0; i < ROWS; i++) {
            __m512i four = tern_broadcast_quad_avx512(tile + i * TERN_QUAD);
            TERN_UNROLL
            for (int p = 0; p < PANELS; p++) acc[i][p] = _mm512_dpbusd_epi32(acc[i][p], w[p], four);
        }
    }
    TERN_UNROLL
    for (int i = 0; i < ROWS; i++) TERN_UNROLL
    for (int p = 0; p < PANELS; p++) _mm512_store_si512(c + i * LD_C + p * TERN_P16_ROWS, acc[i][p]);
}

void tern_matmul_i8_avx512(int32_t *c, const uint8_t *codes, size_t codes_stride, const int8_t *tiles,
                           size_t tile_stride, size_t n_tiles, size_t quads, int accumulate) {
    for (size_t t = 0; t < n_tiles; t++)
        one_tile(c + t * ROWS * LD_C, codes, codes_stride, tiles + t * tile_stride, quads, accumulate);
}
