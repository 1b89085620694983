/* Few rows of activations: each packed byte is read once, unpacked in registers and multiplied with every row.
 * One instruction, vpdpbusd, multiplies a quad: unsigned codes times signed activations broadcast from memory. */
#include "kern/x86/decode_avx512.h"
#include "kern/x86/kernels_avx512.h"

/* The hardware prefetcher stops at a 4 KiB page; this keeps the next pages coming. Measured best of 1 to 8 KiB. */
enum { PREFETCH_BYTES = 4096 };

#define INLINE static inline __attribute__((always_inline))

INLINE void prefetch(const uint8_t *p) { _mm_prefetch((const char *)p + PREFETCH_BYTES, _MM_HINT_T0); }

INLINE void store_sums(int32_t *sums, __m512i acc, int32_t x_sum) {
    _mm512_storeu_si512(sums, _mm512_sub_epi32(acc, _mm512_set1_epi32(x_sum)));
}

/* ---- t2, one row ------------------------------------------------------------------------------------------------- */

/* A code need not be shifted down to be multiplied: masked in place it is the code times 1, 4, 16 or 64, and so is the
 * sum, exactly. One accumulator a position, shifted once at the end. The largest holds 64 * 2 * 128 * columns / 4, so
 * it is emptied every SPAN blocks. */
INLINE __m512i t2_span(const uint8_t *panel, size_t blocks, const int8_t *x) {
    const __m512i mask0 = _mm512_set1_epi8(0x03), mask1 = _mm512_set1_epi8(0x0c), mask2 = _mm512_set1_epi8(0x30),
                  mask3 = _mm512_set1_epi8((char)0xc0);
    __m512i a0 = _mm512_setzero_si512(), a1 = a0, a2 = a0, a3 = a0;
    for (size_t i = 0; i < blocks; i++, panel += TERN_P16_BLOCK, x += TERN_T2P16_COLUMNS) {
        __m512i b = _mm512_load_si512(panel);
        prefetch(panel);
        a0 = _mm512_dpbusd_epi32(a0, _mm512_and_si512(b, mask0), tern_broadcast_quad_avx512(x));
        a1 = _mm512_dpbusd_epi32(a1, _mm512_and_si512(b, mask1), tern_broadcast_quad_avx512(x + 4));
        a2 = _mm512_dpbusd_epi32(a2, _mm512_and_si512(b, mask2), tern_broadcast_quad_avx512(x + 8));
        a3 = _mm512_dpbusd_epi32(a3, _mm512_and_si512(b, mask3), tern_broadcast_quad_avx512(x + 12));
    }
    a0 = _mm512_add_epi32(a0, _mm512_srai_epi32(a1, 2));
    a2 = _mm512_add_epi32(_mm512_srai_epi32(a2, 4), _mm512_srai_epi32(a3, 6));
    return _mm512_add_epi32(a0, a2);
}

static void t2_one_row(int32_t *sums, const uint8_t *panels, size_t panel_bytes, size_t n_panels, size_t k,
                       const int8_t *x, int32_t x_sum) {
    enum { SPAN = 1 << 14 }; /* 2^18 columns: 2^30 in the largest accumulator */
    const size_t blocks = (k + TERN_T2P16_COLUMNS - 1) / TERN_T2P16_COLUMNS;
    for (size_t n = 0; n < n_panels; n++) {
        const uint8_t *panel = panels + n * panel_bytes;
        __m512i acc = _mm512_setzero_si512();
        for (size_t b = 0; b < blocks; b += SPAN) {
            size_t span = blocks - b < SPAN ? blocks - b : SPAN;
            acc = _mm512_add_epi32(acc, t2_span(panel + b * TERN_P16_BLOCK, span, x + b * TERN_T2P16_COLUMNS));
        }
        store_sums(sums + n * TERN_P16_ROWS, acc, x_sum);
    }
}

/* ---- t5, one row ------------------------------------------------------------------------------------------------- */

static void t5_one_row(int32_t *sums, const uint8_t *panels, size_t panel_bytes, size_t n_panels, size_t k,
                       const int8_t *x0, int32_t x_sum) {
    const tern_t5_tables_avx512 tables = tern_t5_tables_make_avx512();
    const size_t blocks = (k + TERN_T5P16_COLUMNS - 1) / TERN_T5P16_COLUMNS;
    for (size_t n = 0; n < n_panels; n++) {
        const uint8_t *panel = panels + n * panel_bytes;
        const int8_t *x = x0;
        __m512i acc[TERN_T5P16_QUADS];
        for (int q = 0; q < TERN_T5P16_QUADS; q++) acc[q] = _mm512_setzero_si512();
        for (size_t i = 0; i < blocks; i++, panel += TERN_P16_BLOCK, x += TERN_T5P16_COLUMNS) {
            __m512i quad[TERN_T5P16_QUADS];
            prefetch(panel);
            tern_decode_t5_avx512(quad, _mm512_load_si512(panel), &tables);
            for (int q = 0; q < TERN_T5P16_QUADS; q++)
                acc[q] = _mm512_dpbusd_epi32(acc[q], quad[q], tern_broadcast_quad_avx512(x + 4 * q));
        }
        acc[0] = _mm512_add_epi32(_mm512_add_epi32(acc[0], acc[1]), _mm512_add_epi32(acc[2], acc[3]));
        store_sums(sums + n * TERN_P16_ROWS, _mm512_add_epi32(acc[0], acc[4]), x_sum);
    }
}

/* ---- several rows ------------------------------------------------------------------------------------------------ */

/* `rows` and `two` are constants at every call, so that the accumulators stay in registers. Two panels at once halve
 * the loads of activations. */
#define DEFINE_ROWS(NAME, COLUMNS, QUADS, TABLES, DECODE)                                                              \
    INLINE void NAME##_rows(int32_t *sums, size_t ld_sums, const uint8_t *panel, size_t panel_bytes, size_t blocks,    \
                            const int8_t *x, size_t ldx, const int32_t *x_sums, const int rows, const int panels) {    \
        TABLES;                                                                                                        \
        __m512i acc[2][8];                                                                                             \
        for (int p = 0; p < panels; p++)                                                                               \
            for (int i = 0; i < rows; i++) acc[p][i] = _mm512_setzero_si512();                                         \
        for (size_t b = 0; b < blocks; b++, panel += TERN_P16_BLOCK, x += COLUMNS) {                                   \
            __m512i quad[2][QUADS];                                                                                    \
            for (int p = 0; p < panels; p++) {                                                                         \
                prefetch(panel + (size_t)p * panel_bytes);                                                             \
                DECODE(quad[p], _mm512_load_si512(panel + (size_t)p * panel_bytes));                                   \
            }                                                                                                          \
            for (int q = 0; q < QUADS; q++)                                                                            \
                for (int i = 0; i < rows; i++) {                                                                       \
                    __m512i four = tern_broadcast_quad_avx512(x + (size_t)i * ldx + 4 * q);                            \
                    for (int p = 0; p < panels; p++) acc[p][i] = _mm512_dpbusd_epi32(acc[p][i], quad[p][q], four);     \
                }                                                                                                      \
        }                                                                                                              \
        for (int p = 0; p < panels; p++)                                                                               \
            for (int i = 0; i < rows; i++)                                                                             \
                store_sums(sums + (size_t)i * ld_sums + p * TERN_P16_ROWS, acc[p][i], x_sums[i]);                      \
    }                                                                                                                  \
    INLINE void NAME##_panels(int32_t *sums, size_t ld_sums, const uint8_t *panels, size_t panel_bytes,                \
                              size_t n_panels, size_t k, const int8_t *x, size_t ldx, const int32_t *x_sums,           \
                              const int rows) {                                                                        \
        const size_t blocks = (k + COLUMNS - 1) / COLUMNS;                                                             \
        size_t n = 0;                                                                                                  \
        for (; n + 2 <= n_panels; n += 2)                                                                              \
            NAME##_rows(sums + n * TERN_P16_ROWS, ld_sums, panels + n * panel_bytes, panel_bytes, blocks, x, ldx,      \
                        x_sums, rows, 2);                                                                              \
        if (n < n_panels)                                                                                              \
            NAME##_rows(sums + n * TERN_P16_ROWS, ld_sums, panels + n * panel_bytes, panel_bytes, blocks, x, ldx,      \
                        x_sums, rows, 1);                                                                              \
    }

#define DECODE_T2(quad, b) tern_decode_t2_avx512(quad, b)
#define DECODE_T5(quad, b) tern_decode_t5_avx512(quad, b, &tables)
DEFINE_ROWS(t2, TERN_T2P16_COLUMNS, TERN_T2P16_QUADS, (void)0, DECODE_T2)
DEFINE_ROWS(t5, TERN_T5P16_COLUMNS, TERN_T5P16_QUADS, const tern_t5_tables_avx512 tables = tern_t5_tables_make_avx512(),
            DECODE_T5)

#define DEFINE_SUMS(NAME)                                                                                              \
    void tern_sums_##NAME##_i8_avx512(int32_t *sums, size_t ld_sums, const uint8_t *panels, size_t panel_bytes,        \
                                      size_t n_panels, size_t k, const int8_t *x, size_t ldx, const int32_t *x_sums,   \
                                      size_t m) {                                                                      \
        for (size_t left = m; left;) {                                                                                 \
            size_t rows = left < 8 ? left : 8;                                                                         \
            switch (rows) {                                                                                            \
            case 1: NAME##_one_row(sums, panels, panel_bytes, n_panels, k, x, *x_sums); break;                         \
            case 2: NAME##_panels(sums, ld_sums, panels, panel_bytes, n_panels, k, x, ldx, x_sums, 2); break;          \
            case 3: NAME##_panels(sums, ld_sums, panels, panel_bytes, n_panels, k, x, ldx, x_sums, 3); break;          \
            case 4: NAME##_panels(sums, ld_sums, panels, panel_bytes, n_panels, k, x, ldx, x_sums, 4); break;          \
            case 5: NAME##_panels(sums, ld_sums, panels, panel_bytes, n_panels, k, x, ldx, x_sums, 5); break;          \
            case 6: NAME##_panels(sums, ld_sums, panels, panel_bytes, n_panels, k, x, ldx, x_sums, 6); break;          \
            case 7: NAME##_panels(sums, ld_sums, panels, panel_bytes, n_panels, k, x, ldx, x_sums, 7); break;          \
            default: NAME##_panels(sums, ld_sums, panels, panel_bytes, n_panels, k, x, ldx, x_sums, 8); break;         \
            }                                                                                                          \
            left -= rows, sums += rows * ld_sums, x += rows * ldx, x_sums += rows;                                     \
        }                                                                                                              \
    }
DEFINE_SUMS(t2)
DEFINE_SUMS(t5)
