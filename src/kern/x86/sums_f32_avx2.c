/* Float activations, one row: every activation x is prepared as the table {-x, 0, x, 0}, which vpermilps looks up
 * with eight rows' codes at once; then an add. Order of a row's sum: columns ascending, one accumulator. */
#include "base/unroll.h"
#include "kern/x86/decode_avx2.h"
#include "kern/x86/kernels_avx2.h"

#define INLINE static inline __attribute__((always_inline))

enum { TABLE = 4, PADDING = TERN_T5P16_COLUMNS, PREFETCH_BYTES = 2048 };

size_t tern_prepare_f32_bytes_avx2(size_t k) { return (k + PADDING + 3) / 4 * 4 * TABLE * sizeof(float); }

void tern_prepare_f32_avx2(void *prepared, const float *x, size_t k) {
    float *table = prepared;
    memset(table + k * TABLE, 0, tern_prepare_f32_bytes_avx2(k) - k * TABLE * sizeof *table);
    for (size_t i = 0; i < k; i++, table += TABLE) {
        table[0] = -x[i];
        table[1] = table[3] = 0;
        table[2] = x[i];
    }
}

/* One panel; a lane's 32 bits hold the four columns of its row, 8 bits apart. The two halves are independent sums,
 * which hides part of an addition's latency. */
INLINE void one_panel(float *sums, const uint8_t *panel, size_t blocks, const float *table, const int t5) {
    const int quads = t5 ? TERN_T5P16_QUADS : TERN_T2P16_QUADS;
    __m256i quad[2][TERN_T5P16_QUADS];
    __m256 acc[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (size_t b = 0; b < blocks; b++, panel += TERN_P16_BLOCK) {
        _mm_prefetch((const char *)panel + PREFETCH_BYTES, _MM_HINT_T0);
        TERN_UNROLL
        for (int half = 0; half < 2; half++) {
            const __m256i bytes = _mm256_load_si256((const __m256i *)(panel + 32 * half));
            if (t5)
                tern_decode_t5_avx2(quad[half], bytes);
            else
                tern_decode_t2_avx2(quad[half], bytes);
        }
        TERN_UNROLL
        for (int q = 0; q < quads; q++) TERN_UNROLL
        for (int j = 0; j < TERN_QUAD; j++, table += TABLE) {
            const __m256 values = _mm256_broadcast_ps((const __m128 *)table);
            TERN_UNROLL
            for (int half = 0; half < 2; half++) {
                const __m256i code = _mm256_srli_epi32(quad[half][q], 8 * j);
                acc[half] = _mm256_add_ps(acc[half], _mm256_permutevar_ps(values, code));
            }
        }
    }
    _mm256_storeu_ps(sums, acc[0]);
    _mm256_storeu_ps(sums + 8, acc[1]);
}

INLINE void all_panels(float *sums, const uint8_t *panels, size_t panel_bytes, size_t n_panels, size_t k,
                       const void *prepared, const int t5) {
    const size_t columns = t5 ? TERN_T5P16_COLUMNS : TERN_T2P16_COLUMNS, blocks = (k + columns - 1) / columns;
    for (size_t n = 0; n < n_panels; n++)
        one_panel(sums + n * TERN_P16_ROWS, panels + n * panel_bytes, blocks, prepared, t5);
}

void tern_sums_t2_f32_avx2(float *sums, const uint8_t *panels, size_t panel_bytes, size_t n_panels, size_t k,
                           const void *prepared) {
    all_panels(sums, panels, panel_bytes, n_panels, k, prepared, 0);
}

void tern_sums_t5_f32_avx2(float *sums, const uint8_t *panels, size_t panel_bytes, size_t n_panels, size_t k,
                           const void *prepared) {
    all_panels(sums, panels, panel_bytes, n_panels, k, prepared, 1);
}
