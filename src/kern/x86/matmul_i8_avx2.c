/* Many rows of activations without VNNI: a panel is unpacked once to codes in L1, then multiplied with tiles of 4
 * rows:
 * 8 accumulators of 16-bit sums (bounds in sums_i8_avx2.c), widened into memory every SPAN_QUADS quads. */
#include "base/unroll.h"
#include "kern/x86/decode_avx2.h"
#include "kern/x86/kernels_avx2.h"

enum { ROWS = TERN_TILE_ROWS_AVX2, LD_C = TERN_P16_ROWS, SPAN_QUADS = 60 };

void tern_unpack_t2_avx2(uint8_t *codes, const uint8_t *panel, size_t blocks) {
    __m256i quad[TERN_T2P16_QUADS];
    for (size_t half = 0; half < 2 * blocks; half++) {
        uint8_t *to = codes + half / 2 * TERN_T2P16_QUADS * TERN_P16_QUAD + half % 2 * 32;
        tern_decode_t2_avx2(quad, _mm256_load_si256((const __m256i *)(panel + 32 * half)));
        TERN_UNROLL
        for (int q = 0; q < TERN_T2P16_QUADS; q++) _mm256_store_si256((__m256i *)(to + q * TERN_P16_QUAD), quad[q]);
    }
}

void tern_unpack_t5_avx2(uint8_t *codes, const uint8_t *panel, size_t blocks) {
    __m256i quad[TERN_T5P16_QUADS];
    for (size_t half = 0; half < 2 * blocks; half++) {
        uint8_t *to = codes + half / 2 * TERN_T5P16_QUADS * TERN_P16_QUAD + half % 2 * 32;
        tern_decode_t5_avx2(quad, _mm256_load_si256((const __m256i *)(panel + 32 * half)));
        TERN_UNROLL
        for (int q = 0; q < TERN_T5P16_QUADS; q++) _mm256_store_si256((__m256i *)(to + q * TERN_P16_QUAD), quad[q]);
    }
}

/* tile: [k / 4][4 rows][4 columns]. */
void tern_tile_acts_avx2(int8_t *tile, const int8_t *x, size_t ldx, size_t rows, size_t k_valid, size_t k) {
    memset(tile, 0, k * ROWS);
    for (size_t i = 0; i < rows; i++) {
        const size_t whole = k_valid / TERN_QUAD, rest = k_valid % TERN_QUAD;
        int8_t *to = tile + i * TERN_QUAD;
        for (size_t q = 0; q < whole; q++) memcpy(to + q * ROWS * TERN_QUAD, x + i * ldx + q * TERN_QUAD, TERN_QUAD);
        memcpy(to + whole * ROWS * TERN_QUAD, x + i * ldx + whole * TERN_QUAD, rest);
    }
}

/* Adds the products of at most SPAN_QUADS quads to c. */
static void one_span(int32_t *c, const uint8_t *codes, const int8_t *tile, size_t quads) {
    __m256i part[ROWS][2];
    TERN_UNROLL
    for (int i = 0; i < ROWS; i++) part[i][0] = part[i][1] = _mm256_setzero_si256();
    for (size_t q = 0; q < quads; q++, codes += TERN_P16_QUAD, tile += ROWS * TERN_QUAD) {
        const __m256i low = _mm256_load_si256((const __m256i *)codes);
        const __m256i high = _mm256_load_si256((const __m256i *)(codes + 32));
        TERN_UNROLL
        for (int i = 0; i < ROWS; i++) {
            const __m256i four = tern_broadcast_quad_avx2(tile + i * TERN_QUAD);
            part[i][0] = _mm256_add_epi16(part[i][0], _mm256_maddubs_epi16(low, four));
            part[i][1] = _mm256_add_epi16(part[i][1], _mm256_maddubs_epi16(high, four));
        }
    }
    const __m256i ones = _mm256_set1_epi16(1);
    TERN_UNROLL
    for (int i = 0; i < ROWS; i++) TERN_UNROLL
    for (int half = 0; half < 2; half++) {
        __m256i *to = (__m256i *)(c + i * LD_C + 8 * half);
        _mm256_store_si256(to, _mm256_add_epi32(_mm256_load_si256(to), _mm256_madd_epi16(part[i][half], ones)));
    }
}

void tern_matmul_i8_avx2(int32_t *c, const uint8_t *codes, size_t codes_stride, const int8_t *tiles,
                         size_t tile_stride, size_t n_tiles, size_t quads, int accumulate) {
    (void)codes_stride; /* one panel at a time */
    if (!accumulate) memset(c, 0, n_tiles * ROWS * LD_C * sizeof *c);
    for (size_t t = 0; t < n_tiles; t++)
        for (size_t q = 0; q < quads; q += SPAN_QUADS)
            one_span(c + t * ROWS * LD_C, codes + q * TERN_P16_QUAD, tiles + t * tile_stride + q * ROWS * TERN_QUAD,
                     quads - q < SPAN_QUADS ? quads - q : SPAN_QUADS);
}
