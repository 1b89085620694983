/* Few rows of activations: each packed byte is read once, unpacked in registers and multiplied with every row.
 * One instruction, vpdpbusd, multiplies a quad: unsigned codes times signed activations broadcast from memory. */
#include "base/unroll.h"
#include "kern/x86/decode_avx512.h"
#include "kern/x86/kernels_avx512.h"

/* The hardware prefetcher stops at a 4 KiB page; this keeps the next pages coming. Measured best of 1 to 8 KiB. */
enum { PREFETCH_BYTES = 4096 };

#define INLINE static inline __attribute__((always_inline))

INLINE void prefetch(const uint8_t *p) { _mm_prefetch((const char *)p + PREFETCH_BYTES, _MM_HINT_T0); }

INLINE void store_sums(int32_t *sums, __m512i acc, int32_t x_sum) {
    _mm512_storeu_si512(sums, _mm512_sub_epi32(acc, _mm512_set1_epi32(x_sum)));
}

/* What all kernels here get. blocks: of one panel. */
typedef struct operands {
    size_t ld_sums, panel_bytes, blocks;
    const int8_t *x;
    size_t ldx;
    const int32_t *x_sums;
} operands;

/* ---- t2, one row ----------------------------------------------------------------------------------------------- */

/* A code need not be shifted down to be multiplied: masked in place it is the code times 1, 4, 16 or 64, and so is
 * the sum, exactly. One accumulator a position, shifted once at the end. The largest holds 64 * 2 * 128 * columns /
 * 4, so it is emptied every SPAN blocks. */
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

static void t2_one_row(int32_t *sums, const uint8_t *panels, size_t n_panels, const operands *o) {
    enum { SPAN = 1 << 14 }; /* 2^18 columns: 2^30 in the largest accumulator */
    for (size_t n = 0; n < n_panels; n++) {
        const uint8_t *panel = panels + n * o->panel_bytes;
        __m512i acc = _mm512_setzero_si512();
        for (size_t b = 0; b < o->blocks; b += SPAN) {
            size_t span = o->blocks - b < SPAN ? o->blocks - b : SPAN;
            acc = _mm512_add_epi32(acc, t2_span(panel + b * TERN_P16_BLOCK, span, o->x + b * TERN_T2P16_COLUMNS));
        }
        store_sums(sums + n * TERN_P16_ROWS, acc, *o->x_sums);
    }
}

/* ---- t5, one row ----------------------------------------------------------------------------------------------- */

static void t5_one_row(int32_t *sums, const uint8_t *panels, size_t n_panels, const operands *o) {
    const tern_t5_tables_avx512 tables = tern_t5_tables_make_avx512();
    for (size_t n = 0; n < n_panels; n++) {
        const uint8_t *panel = panels + n * o->panel_bytes;
        const int8_t *x = o->x;
        __m512i acc[TERN_T5P16_QUADS], quad[TERN_T5P16_QUADS];
        TERN_UNROLL
        for (int q = 0; q < TERN_T5P16_QUADS; q++) acc[q] = _mm512_setzero_si512();
        for (size_t i = 0; i < o->blocks; i++, panel += TERN_P16_BLOCK, x += TERN_T5P16_COLUMNS) {
            prefetch(panel);
            tern_decode_t5_avx512(quad, _mm512_load_si512(panel), &tables);
            TERN_UNROLL
            for (int q = 0; q < TERN_T5P16_QUADS; q++)
                acc[q] = _mm512_dpbusd_epi32(acc[q], quad[q], tern_broadcast_quad_avx512(x + 4 * q));
        }
        acc[0] = _mm512_add_epi32(_mm512_add_epi32(acc[0], acc[1]), _mm512_add_epi32(acc[2], acc[3]));
        store_sums(sums + n * TERN_P16_ROWS, _mm512_add_epi32(acc[0], acc[4]), *o->x_sums);
    }
}

/* ---- several rows ---------------------------------------------------------------------------------------------- */

enum { MAX_ROWS = 8 };

/* What a function below is specialised for: constants at every call, so that accumulators stay in registers. */
typedef struct shape {
    int t5, rows, panels;
} shape;

INLINE void decode(__m512i *quad, const uint8_t *block, const tern_t5_tables_avx512 *tables, const shape s) {
    prefetch(block);
    if (s.t5)
        tern_decode_t5_avx512(quad, _mm512_load_si512(block), tables);
    else
        tern_decode_t2_avx512(quad, _mm512_load_si512(block));
}

/* Two panels at once halve the loads of activations. */
INLINE void some_panels(int32_t *sums, const uint8_t *panel, const operands *o, const tern_t5_tables_avx512 *tables,
                        const shape s) {
    const int quads = s.t5 ? TERN_T5P16_QUADS : TERN_T2P16_QUADS;
    const int8_t *x = o->x;
    __m512i acc[2][MAX_ROWS], quad[2][TERN_T5P16_QUADS];
    TERN_UNROLL
    for (int p = 0; p < s.panels; p++) TERN_UNROLL
    for (int i = 0; i < s.rows; i++) acc[p][i] = _mm512_setzero_si512();
    for (size_t b = 0; b < o->blocks; b++, panel += TERN_P16_BLOCK, x += quads * TERN_QUAD) {
        TERN_UNROLL
        for (int p = 0; p < s.panels; p++) decode(quad[p], panel + (size_t)p * o->panel_bytes, tables, s);
        TERN_UNROLL
        for (int q = 0; q < quads; q++) TERN_UNROLL
        for (int i = 0; i < s.rows; i++) {
            const __m512i four = tern_broadcast_quad_avx512(x + (size_t)i * o->ldx + 4 * q);
            TERN_UNROLL
            for (int p = 0; p < s.panels; p++) acc[p][i] = _mm512_dpbusd_epi32(acc[p][i], quad[p][q], four);
        }
    }
    TERN_UNROLL
    for (int p = 0; p < s.panels; p++) TERN_UNROLL
    for (int i = 0; i < s.rows; i++)
        store_sums(sums + (size_t)i * o->ld_sums + p * TERN_P16_ROWS, acc[p][i], o->x_sums[i]);
}

INLINE void all_panels(int32_t *sums, const uint8_t *panels, size_t n_panels, const operands *o, const int t5,
                       const int rows) {
    const tern_t5_tables_avx512 tables = tern_t5_tables_make_avx512();
    size_t n = 0;
    for (; n + 2 <= n_panels; n += 2)
        some_panels(sums + n * TERN_P16_ROWS, panels + n * o->panel_bytes, o, &tables, (shape){t5, rows, 2});
    if (n < n_panels)
        some_panels(sums + n * TERN_P16_ROWS, panels + n * o->panel_bytes, o, &tables, (shape){t5, rows, 1});
}

INLINE void several_rows(int32_t *sums, const uint8_t *panels, size_t n_panels, const operands *o, const int t5,
                         size_t rows) {
    switch (rows) {
    case 2: all_panels(sums, panels, n_panels, o, t5, 2); break;
    case 3: all_panels(sums, panels, n_panels, o, t5, 3); break;
    case 4: all_panels(sums, panels, n_panels, o, t5, 4); break;
    case 5: all_panels(sums, panels, n_panels, o, t5, 5); break;
    case 6: all_panels(sums, panels, n_panels, o, t5, 6); break;
    case 7: all_panels(sums, panels, n_panels, o, t5, 7); break;
    default: all_panels(sums, panels, n_panels, o, t5, MAX_ROWS); break;
    }
}

/* ---- entry points ---------------------------------------------------------------------------------------------- */

void tern_sums_t2_i8_avx512(int32_t *sums, size_t ld_sums, const uint8_t *panels, size_t panel_bytes, size_t n_panels,
                            size_t k, const int8_t *x, size_t ldx, const int32_t *x_sums, size_t m) {
    const size_t blocks = (k + TERN_T2P16_COLUMNS - 1) / TERN_T2P16_COLUMNS;
    for (size_t i = 0; i < m; i += MAX_ROWS) {
        const size_t rows = m - i < MAX_ROWS ? m - i : MAX_ROWS;
        const operands o = {ld_sums, panel_bytes, blocks, x + i * ldx, ldx, x_sums + i};
        if (rows == 1)
            t2_one_row(sums + i * ld_sums, panels, n_panels, &o);
        else
            several_rows(sums + i * ld_sums, panels, n_panels, &o, 0, rows);
    }
}

void tern_sums_t5_i8_avx512(int32_t *sums, size_t ld_sums, const uint8_t *panels, size_t panel_bytes, size_t n_panels,
                            size_t k, const int8_t *x, size_t ldx, const int32_t *x_sums, size_t m) {
    const size_t blocks = (k + TERN_T5P16_COLUMNS - 1) / TERN_T5P16_COLUMNS;
    for (size_t i = 0; i < m; i += MAX_ROWS) {
        const size_t rows = m - i < MAX_ROWS ? m - i : MAX_ROWS;
        const operands o = {ld_sums, panel_bytes, blocks, x + i * ldx, ldx, x_sums + i};
        if (rows == 1)
            t5_one_row(sums + i * ld_sums, panels, n_panels, &o);
        else
            several_rows(sums + i * ld_sums, panels, n_panels, &o, 1, rows);
    }
}
