/* Float activations, one row: the sums of every combination of two or three trits are tabulated once per activation
 * row by adding and subtracting, and then looked up: vpermps takes 16 rows' sums at once from a table in a register.
 * A look-up and an add do for 32 (two trits) or 48 (three) weights what multiply-adds would need two or three for.
 *
 * Order of the sum of one row: blocks ascending, within a block the tables in the order in which they are stored,
 * each table's entry summed from its trits in ascending order of g; one accumulator. */
#include "base/unroll.h"
#include "kern/x86/decode_avx512.h"
#include "kern/x86/kernels_avx512.h"

enum {
    PANELS = 4,                        /* that share one load of a table */
    T2_FLOATS = 8 * 16,                /* a block's tables: 8 pairs */
    T5_FLOATS = TERN_QUAD * (16 + 32), /* 4 pairs and 4 triples */
    PREFETCH_BYTES = 2048
};

/* ---- tables ---------------------------------------------------------------------------------------------------- */

/* (code - 1) * x for the lanes' codes, given where they are 2 and where they are 0. */
static __m512 add_or_subtract(__m512 sum, __mmask16 plus, __mmask16 minus, float x) {
    sum = _mm512_mask_add_ps(sum, plus, sum, _mm512_set1_ps(x));
    return _mm512_mask_sub_ps(sum, minus, sum, _mm512_set1_ps(x));
}

/* Lanes l of a table whose digit (l / divisor % modulo) is `digit`. */
static unsigned lanes_with(unsigned first, unsigned divisor, unsigned modulo, unsigned digit) {
    unsigned mask = 0;
    for (unsigned l = 0; l < 16; l++) mask |= (unsigned)((first + l) / divisor % modulo == digit) << l;
    return mask;
}

typedef struct digit_masks {
    __mmask16 plus, minus;
} digit_masks;

static digit_masks masks_of(unsigned first, unsigned divisor, unsigned modulo) {
    return (digit_masks){(__mmask16)lanes_with(first, divisor, modulo, 2),
                         (__mmask16)lanes_with(first, divisor, modulo, 0)};
}

/* One block of columns, zero where the row has ended. */
static const float *block_of(float padded[TERN_T5P16_COLUMNS], const float *x, size_t k0, size_t k, size_t columns) {
    if (k - k0 >= columns) return x + k0;
    memset(padded, 0, TERN_T5P16_COLUMNS * sizeof(float));
    memcpy(padded, x + k0, (k - k0) * sizeof(float));
    return padded;
}

size_t tern_prepare_t2_f32_bytes_avx512(size_t k) {
    return (k + TERN_T2P16_COLUMNS - 1) / TERN_T2P16_COLUMNS * T2_FLOATS * sizeof(float);
}

/* Table j serves bits 4j .. 4j+3 of a row's 32-bit word: byte j / 2, quads 2 * (j % 2) and the next; index
 * c0 + 4 * c1. */
void tern_prepare_t2_f32_avx512(void *prepared, const float *x, size_t k) {
    const digit_masks low = masks_of(0, 1, 4), high = masks_of(0, 4, 4);
    float padded[TERN_T5P16_COLUMNS], *table = prepared;
    for (size_t k0 = 0; k0 < k; k0 += TERN_T2P16_COLUMNS) {
        const float *block = block_of(padded, x, k0, k, TERN_T2P16_COLUMNS);
        for (size_t j = 0; j < 8; j++, table += 16) {
            const float *first = block + 8 * (j % 2) + j / 2;
            __m512 sum = add_or_subtract(_mm512_setzero_ps(), low.plus, low.minus, first[0]);
            _mm512_store_ps(table, add_or_subtract(sum, high.plus, high.minus, first[4]));
        }
    }
}

size_t tern_prepare_t5_f32_bytes_avx512(size_t k) {
    return (k + TERN_T5P16_COLUMNS - 1) / TERN_T5P16_COLUMNS * T5_FLOATS * sizeof(float);
}

/* For each byte of a row's word: the pair table of c0 + 3 * c1, then the triple table of c2 + 3 * c3 + 9 * c4. */
void tern_prepare_t5_f32_avx512(void *prepared, const float *x, size_t k) {
    const digit_masks c0 = masks_of(0, 1, 3), c1 = masks_of(0, 3, 3);
    float padded[TERN_T5P16_COLUMNS], *table = prepared;
    for (size_t k0 = 0; k0 < k; k0 += TERN_T5P16_COLUMNS) {
        const float *block = block_of(padded, x, k0, k, TERN_T5P16_COLUMNS);
        for (size_t j = 0; j < TERN_QUAD; j++, table += 48) {
            const float *first = block + j;
            __m512 sum = add_or_subtract(_mm512_setzero_ps(), c0.plus, c0.minus, first[0]);
            _mm512_store_ps(table, add_or_subtract(sum, c1.plus, c1.minus, first[4]));
            for (unsigned half = 0; half < 2; half++) {
                const digit_masks c2 = masks_of(16 * half, 1, 3), c3 = masks_of(16 * half, 3, 3),
                                  c4 = masks_of(16 * half, 9, 3);
                sum = add_or_subtract(_mm512_setzero_ps(), c2.plus, c2.minus, first[8]);
                sum = add_or_subtract(sum, c3.plus, c3.minus, first[12]);
                _mm512_store_ps(table + 16 + 16 * half, add_or_subtract(sum, c4.plus, c4.minus, first[16]));
            }
        }
    }
}

/* ---- look-ups -------------------------------------------------------------------------------------------------- */

#define INLINE static inline __attribute__((always_inline))

INLINE void t2_panels(float *sums, const uint8_t *panel, size_t panel_bytes, size_t blocks, const float *table,
                      const int panels) {
    __m512 acc[PANELS];
    TERN_UNROLL
    for (int p = 0; p < panels; p++) acc[p] = _mm512_setzero_ps();
    for (size_t b = 0; b < blocks; b++, panel += TERN_P16_BLOCK, table += T2_FLOATS) {
        __m512i word[PANELS];
        TERN_UNROLL
        for (int p = 0; p < panels; p++) {
            word[p] = _mm512_load_si512(panel + (size_t)p * panel_bytes);
            _mm_prefetch((const char *)panel + (size_t)p * panel_bytes + PREFETCH_BYTES, _MM_HINT_T0);
        }
        TERN_UNROLL
        for (unsigned j = 0; j < 8; j++) {
            const __m512 t = _mm512_load_ps(table + 16 * j);
            TERN_UNROLL
            for (int p = 0; p < panels; p++)
                acc[p] = _mm512_add_ps(acc[p], _mm512_permutexvar_ps(_mm512_srli_epi32(word[p], 4 * j), t));
        }
    }
    TERN_UNROLL
    for (int p = 0; p < panels; p++) _mm512_storeu_ps(sums + p * TERN_P16_ROWS, acc[p]);
}

INLINE void t5_panels(float *sums, const uint8_t *panel, size_t panel_bytes, size_t blocks, const float *table,
                      const int panels) {
    const tern_t5_tables_avx512 tables = tern_t5_tables_make_avx512();
    __m512 acc[PANELS];
    TERN_UNROLL
    for (int p = 0; p < panels; p++) acc[p] = _mm512_setzero_ps();
    for (size_t b = 0; b < blocks; b++, panel += TERN_P16_BLOCK, table += T5_FLOATS) {
        __m512i pair[PANELS], triple[PANELS];
        TERN_UNROLL
        for (int p = 0; p < panels; p++) {
            __m512i bytes = _mm512_load_si512(panel + (size_t)p * panel_bytes);
            _mm_prefetch((const char *)panel + (size_t)p * panel_bytes + PREFETCH_BYTES, _MM_HINT_T0);
            pair[p] = _mm512_permutexvar_epi8(bytes, tables.pair);
            triple[p] = tern_decode_t5_rest_avx512(bytes, &tables);
        }
        TERN_UNROLL
        for (unsigned j = 0; j < TERN_QUAD; j++) {
            const __m512 t = _mm512_load_ps(table + 48 * j), low = _mm512_load_ps(table + 48 * j + 16),
                         high = _mm512_load_ps(table + 48 * j + 32);
            TERN_UNROLL
            for (int p = 0; p < panels; p++) {
                acc[p] = _mm512_add_ps(acc[p], _mm512_permutexvar_ps(_mm512_srli_epi32(pair[p], 8 * j), t));
                acc[p] =
                    _mm512_add_ps(acc[p], _mm512_permutex2var_ps(low, _mm512_srli_epi32(triple[p], 8 * j), high));
            }
        }
    }
    TERN_UNROLL
    for (int p = 0; p < panels; p++) _mm512_storeu_ps(sums + p * TERN_P16_ROWS, acc[p]);
}

/* Whole groups of PANELS, then one by one. */
#define DEFINE_SUMS(NAME, COLUMNS)                                                                               \
    void tern_sums_##NAME##_f32_avx512(float *sums, const uint8_t *panels, size_t panel_bytes, size_t n_panels,  \
                                       size_t k, const void *prepared) {                                         \
        const size_t blocks = (k + COLUMNS - 1) / COLUMNS;                                                       \
        size_t n = 0;                                                                                            \
        for (; n + PANELS <= n_panels; n += PANELS)                                                              \
            NAME##_panels(sums + n * TERN_P16_ROWS, panels + n * panel_bytes, panel_bytes, blocks, prepared,     \
                          PANELS);                                                                               \
        for (; n < n_panels; n++)                                                                                \
            NAME##_panels(sums + n * TERN_P16_ROWS, panels + n * panel_bytes, panel_bytes, blocks, prepared, 1); \
    }
DEFINE_SUMS(t2, TERN_T2P16_COLUMNS)
DEFINE_SUMS(t5, TERN_T5P16_COLUMNS)
