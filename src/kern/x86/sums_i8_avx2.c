/* Few rows of activations, without VNNI: vpmaddubsw gives 16-bit sums of two products, magnitude at most
 * 2 * 2 * 128 = 512, so that SPAN_QUADS <= 63 of them add up in 16 bits before they are widened. */
#include "base/unroll.h"
#include "kern/x86/decode_avx2.h"
#include "kern/x86/kernels_avx2.h"

#define INLINE static inline __attribute__((always_inline))

enum { MAX_ROWS = 2, SPAN_QUADS = 60, PREFETCH_BYTES = 4096 };

INLINE __m256i widen(__m256i sums16) { return _mm256_madd_epi16(sums16, _mm256_set1_epi16(1)); }

INLINE void decode(__m256i *quad, const uint8_t *block, const int t5) {
    const __m256i b = _mm256_load_si256((const __m256i *)block);
    if (t5)
        tern_decode_t5_avx2(quad, b);
    else
        tern_decode_t2_avx2(quad, b);
}

/* One panel, `rows` rows of activations; rows and t5 are constants at every call. */
INLINE void one_panel(int32_t *sums, size_t ld_sums, const uint8_t *panel, size_t blocks, const int8_t *x, size_t ldx,
                      const int32_t *x_sums, const int t5, const int rows) {
    const int quads = t5 ? TERN_T5P16_QUADS : TERN_T2P16_QUADS;
    const size_t span = SPAN_QUADS / (size_t)quads;
    __m256i acc[MAX_ROWS][2], part[MAX_ROWS][2], quad[TERN_T5P16_QUADS];
    TERN_UNROLL
    for (int i = 0; i < rows; i++) acc[i][0] = acc[i][1] = _mm256_setzero_si256();
    for (size_t b = 0; b < blocks;) {
        const size_t end = blocks - b < span ? blocks : b + span;
        TERN_UNROLL
        for (int i = 0; i < rows; i++) part[i][0] = part[i][1] = _mm256_setzero_si256();
        for (; b < end; b++, panel += TERN_P16_BLOCK, x += quads * TERN_QUAD) {
            _mm_prefetch((const char *)panel + PREFETCH_BYTES, _MM_HINT_T0);
            TERN_UNROLL
            for (int half = 0; half < 2; half++) {
                decode(quad, panel + 32 * half, t5);
                TERN_UNROLL
                for (int q = 0; q < quads; q++) TERN_UNROLL
                for (int i = 0; i < rows; i++) {
                    const __m256i four = tern_broadcast_quad_avx2(x + (size_t)i * ldx + 4 * q);
                    part[i][half] = _mm256_add_epi16(part[i][half], _mm256_maddubs_epi16(quad[q], four));
                }
            }
        }
        TERN_UNROLL
        for (int i = 0; i < rows; i++) TERN_UNROLL
        for (int half = 0; half < 2; half++) acc[i][half] = _mm256_add_epi32(acc[i][half], widen(part[i][half]));
    }
    TERN_UNROLL
    for (int i = 0; i < rows; i++) TERN_UNROLL
    for (int half = 0; half < 2; half++)
        _mm256_storeu_si256((__m256i *)(sums + (size_t)i * ld_sums + 8 * half),
                            _mm256_sub_epi32(acc[i][half], _mm256_set1_epi32(x_sums[i])));
}

INLINE void all_panels(int32_t *sums, size_t ld_sums, const uint8_t *panels, size_t panel_bytes, size_t n_panels,
                       size_t k, const int8_t *x, size_t ldx, const int32_t *x_sums, size_t m, const int t5) {
    const size_t columns = t5 ? TERN_T5P16_COLUMNS : TERN_T2P16_COLUMNS, blocks = (k + columns - 1) / columns;
    for (size_t i = 0; i < m; i += MAX_ROWS)
        for (size_t n = 0; n < n_panels; n++) {
            int32_t *to = sums + i * ld_sums + n * TERN_P16_ROWS;
            const uint8_t *panel = panels + n * panel_bytes;
            if (m - i > 1)
                one_panel(to, ld_sums, panel, blocks, x + i * ldx, ldx, x_sums + i, t5, MAX_ROWS);
            else
                one_panel(to, ld_sums, panel, blocks, x + i * ldx, ldx, x_sums + i, t5, 1);
        }
}

void tern_sums_t2_i8_avx2(int32_t *sums, size_t ld_sums, const uint8_t *panels, size_t panel_bytes, size_t n_panels,
                          size_t k, const int8_t *x, size_t ldx, const int32_t *x_sums, size_t m) {
    all_panels(sums, ld_sums, panels, panel_bytes, n_panels, k, x, ldx, x_sums, m, 0);
}

void tern_sums_t5_i8_avx2(int32_t *sums, size_t ld_sums, const uint8_t *panels, size_t panel_bytes, size_t n_panels,
                          size_t k, const int8_t *x, size_t ldx, const int32_t *x_sums, size_t m) {
    all_panels(sums, ld_sums, panels, panel_bytes, n_panels, k, x, ldx, x_sums, m, 1);
}
