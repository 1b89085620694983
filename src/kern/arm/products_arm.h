/* The integer products of both ARM tiers, written once. An including file first defines, for its instructions,
 *
 *     TERN_ARM(name)                          the name with the tier's suffix
 *     quad_acc                                sums of 4 rows
 *     quad_acc acc_zero(void)
 *     quad_acc acc_add(quad_acc, uint8x16_t codes, int8x16_t four)    + codes * activations, one vector of a quad
 *     int32x4_t acc_sums(quad_acc)
 *
 * and includes this file once. Codes are 0 to 2, so they are positive as signed bytes too. */
#include "base/unroll.h"
#include "kern/arm/decode_neon.h"

enum { TILE_ROWS = 4, LD_C = TERN_P16_ROWS, PREFETCH_BYTES = 1024 };

/* ---- one row at a time, straight from packed panels ------------------------------------------------------------ */

static inline void decode(uint8x16_t *quad, const uint8_t *block, const tern_t5_tables_neon *tables, int t5) {
    if (t5)
        tern_decode_t5_neon(quad, block, tables);
    else
        tern_decode_t2_neon(quad, block);
}

static inline void one_panel(int32_t *sums, const uint8_t *panel, size_t blocks, const int8_t *x, int32_t x_sum,
                             const tern_t5_tables_neon *tables, const int t5) {
    const int quads = t5 ? TERN_T5P16_QUADS : TERN_T2P16_QUADS;
    uint8x16_t quad[TERN_T5P16_QUADS];
    quad_acc acc[TERN_VECTORS];
    TERN_UNROLL
    for (int v = 0; v < TERN_VECTORS; v++) acc[v] = acc_zero();
    for (size_t b = 0; b < blocks; b++, panel += TERN_P16_BLOCK, x += quads * TERN_QUAD) {
        __builtin_prefetch(panel + PREFETCH_BYTES);
        TERN_UNROLL
        for (int v = 0; v < TERN_VECTORS; v++) {
            decode(quad, panel + 16 * v, tables, t5);
            TERN_UNROLL
            for (int q = 0; q < quads; q++) acc[v] = acc_add(acc[v], quad[q], tern_broadcast_quad_neon(x + 4 * q));
        }
    }
    TERN_UNROLL
    for (int v = 0; v < TERN_VECTORS; v++) vst1q_s32(sums + 4 * v, vsubq_s32(acc_sums(acc[v]), vdupq_n_s32(x_sum)));
}

void TERN_ARM(tern_sums_t2_i8)(int32_t *sums, size_t ld_sums, const uint8_t *panels, size_t panel_bytes,
                               size_t n_panels, size_t k, const int8_t *x, size_t ldx, const int32_t *x_sums,
                               size_t m) {
    const size_t blocks = (k + TERN_T2P16_COLUMNS - 1) / TERN_T2P16_COLUMNS;
    for (size_t n = 0; n < n_panels; n++)
        for (size_t i = 0; i < m; i++)
            one_panel(sums + i * ld_sums + n * TERN_P16_ROWS, panels + n * panel_bytes, blocks, x + i * ldx,
                      x_sums[i], NULL, 0);
}

void TERN_ARM(tern_sums_t5_i8)(int32_t *sums, size_t ld_sums, const uint8_t *panels, size_t panel_bytes,
                               size_t n_panels, size_t k, const int8_t *x, size_t ldx, const int32_t *x_sums,
                               size_t m) {
    const tern_t5_tables_neon tables = tern_t5_tables_make_neon();
    const size_t blocks = (k + TERN_T5P16_COLUMNS - 1) / TERN_T5P16_COLUMNS;
    for (size_t n = 0; n < n_panels; n++)
        for (size_t i = 0; i < m; i++)
            one_panel(sums + i * ld_sums + n * TERN_P16_ROWS, panels + n * panel_bytes, blocks, x + i * ldx,
                      x_sums[i], &tables, 1);
}

/* ---- tiles of 4 rows times unpacked codes ---------------------------------------------------------------------- */

static inline void one_tile(int32_t *c, const uint8_t *codes, const int8_t *tile, size_t quads, int accumulate) {
    quad_acc acc[TILE_ROWS][TERN_VECTORS];
    TERN_UNROLL
    for (int i = 0; i < TILE_ROWS; i++) TERN_UNROLL
    for (int v = 0; v < TERN_VECTORS; v++) acc[i][v] = acc_zero();
    for (size_t q = 0; q < quads; q++, codes += TERN_P16_QUAD, tile += TILE_ROWS * TERN_QUAD) {
        TERN_UNROLL
        for (int i = 0; i < TILE_ROWS; i++) {
            const int8x16_t four = tern_broadcast_quad_neon(tile + i * TERN_QUAD);
            TERN_UNROLL
            for (int v = 0; v < TERN_VECTORS; v++) acc[i][v] = acc_add(acc[i][v], vld1q_u8(codes + 16 * v), four);
        }
    }
    TERN_UNROLL
    for (int i = 0; i < TILE_ROWS; i++) TERN_UNROLL
    for (int v = 0; v < TERN_VECTORS; v++) {
        int32_t *to = c + i * LD_C + 4 * v;
        const int32x4_t before = accumulate ? vld1q_s32(to) : vdupq_n_s32(0);
        vst1q_s32(to, vaddq_s32(before, acc_sums(acc[i][v])));
    }
}

void TERN_ARM(tern_matmul_i8)(int32_t *c, const uint8_t *codes, size_t codes_stride, const int8_t *tiles,
                              size_t tile_stride, size_t n_tiles, size_t quads, int accumulate) {
    (void)codes_stride; /* one panel at a time */
    for (size_t t = 0; t < n_tiles; t++)
        one_tile(c + t * TILE_ROWS * LD_C, codes, tiles + t * tile_stride, quads, accumulate);
}

/* ---- a scale per group ----------------------------------------------------------------------------------------- */

/* Columns [k0, k1) of 4 rows; a quad's activations outside are masked to zero. */
static inline int32x4_t group_sum(const uint8_t *codes, const int8_t *x, size_t k0, size_t k1) {
    quad_acc acc = acc_zero();
    for (size_t q = k0 / TERN_QUAD; q * TERN_QUAD < k1; q++) {
        uint32_t four;
        memcpy(&four, x + q * TERN_QUAD, sizeof four);
        if (q * TERN_QUAD < k0) four &= ~0u << 8 * (k0 - q * TERN_QUAD);
        if (k1 < (q + 1) * TERN_QUAD) four &= ~0u >> 8 * ((q + 1) * TERN_QUAD - k1);
        acc = acc_add(acc, vld1q_u8(codes + q * TERN_P16_QUAD), vreinterpretq_s8_u32(vdupq_n_u32(four)));
    }
    return acc_sums(acc);
}

/* 2^e for e in -64..63. */
static inline float32x4_t power_of_two(int32x4_t e) {
    return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(e, vdupq_n_s32(127)), 23));
}

void TERN_ARM(tern_groups_i8)(float *acc, const uint8_t *codes, const int8_t *x, const int32_t *group_sums, size_t k,
                              size_t group, const int8_t *exponents) {
    for (int v = 0; v < TERN_VECTORS; v++) {
        float32x4_t total = vdupq_n_f32(0);
        for (size_t g = 0, k0 = 0; k0 < k; g++, k0 += group) {
            int32x4_t sum = group_sum(codes + 16 * v, x, k0, k - k0 < group ? k : k0 + group);
            sum = vsubq_s32(sum, vdupq_n_s32(group_sums[g]));
            const int8_t *e4 = exponents + g * TERN_P16_ROWS + 4 * v;
            const int32x4_t e = {e4[0], e4[1], e4[2], e4[3]}, low = vshrq_n_s32(e, 1);
            /* the first product is exact, so the second rounds once, denormal results included */
            float32x4_t term = vmulq_f32(vcvtq_f32_s32(sum), power_of_two(low));
            total = vaddq_f32(total, vmulq_f32(term, power_of_two(vsubq_s32(e, low))));
        }
        vst1q_f32(acc + 4 * v, total);
    }
}
