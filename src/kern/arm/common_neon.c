/* What both ARM tiers share: unpacking, tiling, sums of activations, sums to floats, float activations. */
#include "base/unroll.h"
#include "kern/arm/decode_neon.h"
#include "kern/arm/kernels_arm.h"

void tern_unpack_t2_neon(uint8_t *codes, const uint8_t *panel, size_t blocks) {
    uint8x16_t quad[TERN_T2P16_QUADS];
    for (size_t b = 0; b < blocks; b++, panel += TERN_P16_BLOCK, codes += TERN_T2P16_QUADS * TERN_P16_QUAD)
        for (int v = 0; v < TERN_VECTORS; v++) {
            tern_decode_t2_neon(quad, panel + 16 * v);
            for (int q = 0; q < TERN_T2P16_QUADS; q++) vst1q_u8(codes + q * TERN_P16_QUAD + 16 * v, quad[q]);
        }
}

void tern_unpack_t5_neon(uint8_t *codes, const uint8_t *panel, size_t blocks) {
    const tern_t5_tables_neon tables = tern_t5_tables_make_neon();
    uint8x16_t quad[TERN_T5P16_QUADS];
    for (size_t b = 0; b < blocks; b++, panel += TERN_P16_BLOCK, codes += TERN_T5P16_QUADS * TERN_P16_QUAD)
        for (int v = 0; v < TERN_VECTORS; v++) {
            tern_decode_t5_neon(quad, panel + 16 * v, &tables);
            for (int q = 0; q < TERN_T5P16_QUADS; q++) vst1q_u8(codes + q * TERN_P16_QUAD + 16 * v, quad[q]);
        }
}

/* tile: [k / 4][4 rows][4 columns]. */
void tern_tile_acts_neon(int8_t *tile, const int8_t *x, size_t ldx, size_t rows, size_t k_valid, size_t k) {
    enum { ROWS = TERN_TILE_ROWS_NEON };
    memset(tile, 0, k * ROWS);
    for (size_t i = 0; i < rows; i++) {
        const size_t whole = k_valid / TERN_QUAD, rest = k_valid % TERN_QUAD;
        int8_t *to = tile + i * TERN_QUAD;
        for (size_t q = 0; q < whole; q++) memcpy(to + q * ROWS * TERN_QUAD, x + i * ldx + q * TERN_QUAD, TERN_QUAD);
        memcpy(to + whole * ROWS * TERN_QUAD, x + i * ldx + whole * TERN_QUAD, rest);
    }
}

int32_t tern_row_sum_neon(const int8_t *x, size_t n) {
    int32x4_t acc = vdupq_n_s32(0);
    for (size_t i = 0; i < n; i += 16) acc = vpadalq_s16(acc, vpaddlq_s8(vld1q_s8(x + i)));
    return vaddvq_s32(acc);
}

void tern_epilogue_neon(float *y, size_t ldy, const int32_t *c, size_t ld_c, size_t m, size_t n,
                        const int32_t *x_sums, const float *scale, const float *inv_scale, const float *bias) {
    for (size_t i = 0; i < m; i++) {
        const int32_t correction = x_sums ? x_sums[i] : 0;
        size_t j = 0;
        for (; j + 4 <= n; j += 4) {
            const int32x4_t sum = vsubq_s32(vld1q_s32(c + i * ld_c + j), vdupq_n_s32(correction));
            const float32x4_t factor = vmulq_f32(vld1q_f32(scale + j), vdupq_n_f32(inv_scale[i]));
            float32x4_t value = vmulq_f32(vcvtq_f32_s32(sum), factor);
            if (bias) value = vaddq_f32(value, vld1q_f32(bias + j));
            vst1q_f32(y + i * ldy + j, value);
        }
        for (; j < n; j++) {
            const float value = (float)(c[i * ld_c + j] - correction) * (scale[j] * inv_scale[i]);
            y[i * ldy + j] = bias ? value + bias[j] : value;
        }
    }
}

/* ---- float activations: order of a row's sum is columns ascending, one accumulator ----------------------------- */

/* Adds x where the code is 2 and subtracts it where it is 0; the code stands `shift` bits up in every lane. */
static inline float32x4_t add_or_subtract(float32x4_t sum, uint32x4_t codes, unsigned shift, float32x4_t x) {
    const uint32x4_t plus = vtstq_u32(codes, vdupq_n_u32(2u << shift));
    const uint32x4_t minus = vceqzq_u32(vandq_u32(codes, vdupq_n_u32(3u << shift)));
    sum = vaddq_f32(sum, vreinterpretq_f32_u32(vandq_u32(plus, vreinterpretq_u32_f32(x))));
    return vsubq_f32(sum, vreinterpretq_f32_u32(vandq_u32(minus, vreinterpretq_u32_f32(x))));
}

void tern_lanes_f32_neon(float *acc, const uint8_t *codes, const float *v, size_t k) {
    for (int part = 0; part < TERN_VECTORS; part++) {
        float32x4_t total = vdupq_n_f32(0);
        for (size_t i = 0; i < k; i++) {
            const uint8x16_t quad = vld1q_u8(codes + i / TERN_QUAD * TERN_P16_QUAD + 16 * part);
            total = add_or_subtract(total, vreinterpretq_u32_u8(quad), 8 * (unsigned)(i % TERN_QUAD),
                                    vld1q_f32(v + i * TERN_P16_ROWS + 4 * part));
        }
        vst1q_f32(acc + 4 * part, total);
    }
}

enum { PADDING = TERN_T5P16_COLUMNS };

size_t tern_prepare_f32_bytes_neon(size_t k) { return (k + PADDING + 15) / 16 * 16 * sizeof(float); }

void tern_prepare_f32_neon(void *prepared, const float *x, size_t k) {
    memset(prepared, 0, tern_prepare_f32_bytes_neon(k));
    memcpy(prepared, x, k * sizeof *x);
}

static inline void one_panel(float *sums, const uint8_t *panel, size_t blocks, const float *x,
                             const tern_t5_tables_neon *tables, const int t5) {
    const int quads = t5 ? TERN_T5P16_QUADS : TERN_T2P16_QUADS;
    uint8x16_t quad[TERN_T5P16_QUADS];
    float32x4_t acc[TERN_VECTORS];
    TERN_UNROLL
    for (int v = 0; v < TERN_VECTORS; v++) acc[v] = vdupq_n_f32(0);
    for (size_t b = 0; b < blocks; b++, panel += TERN_P16_BLOCK, x += quads * TERN_QUAD) {
        TERN_UNROLL
        for (int v = 0; v < TERN_VECTORS; v++) {
            if (t5)
                tern_decode_t5_neon(quad, panel + 16 * v, tables);
            else
                tern_decode_t2_neon(quad, panel + 16 * v);
            TERN_UNROLL
            for (int q = 0; q < quads; q++) TERN_UNROLL
            for (int j = 0; j < TERN_QUAD; j++)
                acc[v] = add_or_subtract(acc[v], vreinterpretq_u32_u8(quad[q]), 8 * (unsigned)j,
                                         vdupq_n_f32(x[4 * q + j]));
        }
    }
    TERN_UNROLL
    for (int v = 0; v < TERN_VECTORS; v++) vst1q_f32(sums + 4 * v, acc[v]);
}

void tern_sums_t2_f32_neon(float *sums, const uint8_t *panels, size_t panel_bytes, size_t n_panels, size_t k,
                           const void *prepared) {
    const size_t blocks = (k + TERN_T2P16_COLUMNS - 1) / TERN_T2P16_COLUMNS;
    for (size_t n = 0; n < n_panels; n++)
        one_panel(sums + n * TERN_P16_ROWS, panels + n * panel_bytes, blocks, prepared, NULL, 0);
}

void tern_sums_t5_f32_neon(float *sums, const uint8_t *panels, size_t panel_bytes, size_t n_panels, size_t k,
                           const void *prepared) {
    const tern_t5_tables_neon tables = tern_t5_tables_make_neon();
    const size_t blocks = (k + TERN_T5P16_COLUMNS - 1) / TERN_T5P16_COLUMNS;
    for (size_t n = 0; n < n_panels; n++)
        one_panel(sums + n * TERN_P16_ROWS, panels + n * panel_bytes, blocks, prepared, &tables, 1);
}
