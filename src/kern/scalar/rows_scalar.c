/* The scalar tier: what every other kernel must agree with. A panel is one row in the exchange format t2 or t5; a
 * quad is four codes. */
#include <string.h>

#include "base/half.h"
#include "kern/kernels.h"
#include "kern/tiers_init.h"
#include "quant/activations.h"
#include "quant/weights.h"

enum { BLOCK = 20 }; /* columns handled at a time: whole bytes of t2 (5) and of t5 (4), whole quads (5) */

/* ---- layouts --------------------------------------------------------------------------------------------------- */

/* One row of k trits, `step` apart. */
static void pack_t2_row(uint8_t *panel, const int8_t *trits, size_t step, size_t k) {
    memset(panel, 0, (k + BLOCK - 1) / BLOCK * (BLOCK / 4));
    for (size_t i = 0; i < k; i++) panel[i / 4] |= (uint8_t)((trits[i * step] + 3) % 3 << i % 4 * 2);
}

static void pack_t5_row(uint8_t *panel, const int8_t *trits, size_t step, size_t k) {
    static const uint8_t power[5] = {1, 3, 9, 27, 81};
    memset(panel, 1 + 3 + 9 + 27 + 81, (k + BLOCK - 1) / BLOCK * (BLOCK / 5)); /* five zero trits */
    for (size_t i = 0; i < k; i++) panel[i / 5] = (uint8_t)(panel[i / 5] + trits[i * step] * power[i % 5]);
}

static void tern_pack_rows_t2_scalar(uint8_t *panels, size_t panel_bytes, const int8_t *trits, size_t ld, size_t rows,
                                     size_t k) {
    for (size_t r = 0; r < rows; r++) pack_t2_row(panels + r * panel_bytes, trits + r * ld, 1, k);
}

static void tern_pack_columns_t2_scalar(uint8_t *panels, size_t panel_bytes, const int8_t *trits, size_t ld,
                                        size_t rows, size_t k) {
    for (size_t r = 0; r < rows; r++) pack_t2_row(panels + r * panel_bytes, trits + r, ld, k);
}

static void tern_pack_rows_t5_scalar(uint8_t *panels, size_t panel_bytes, const int8_t *trits, size_t ld, size_t rows,
                                     size_t k) {
    for (size_t r = 0; r < rows; r++) pack_t5_row(panels + r * panel_bytes, trits + r * ld, 1, k);
}

static void tern_pack_columns_t5_scalar(uint8_t *panels, size_t panel_bytes, const int8_t *trits, size_t ld,
                                        size_t rows, size_t k) {
    for (size_t r = 0; r < rows; r++) pack_t5_row(panels + r * panel_bytes, trits + r, ld, k);
}

static void unpack_t2_scalar(uint8_t *codes, const uint8_t *panel, size_t blocks) {
    static const uint8_t code[4] = {1, 2, 0, 1}; /* 3 is refused before a matrix is made */
    for (size_t i = 0; i < blocks * BLOCK; i++) codes[i] = code[panel[i / 4] >> i % 4 * 2 & 3];
}

static void unpack_t5_scalar(uint8_t *codes, const uint8_t *panel, size_t blocks) {
    for (size_t i = 0; i < blocks * BLOCK; i += 5)
        for (unsigned j = 0, rest = panel[i / 5]; j < 5; j++, rest /= 3) codes[i + j] = (uint8_t)(rest % 3);
}

/* ---- integer products ------------------------------------------------------------------------------------------ */

static void sums_i8(const tern_layout *layout, tern_unpack_fn unpack, int32_t *sums, size_t ld_sums,
                    const uint8_t *panels, size_t panel_bytes, size_t n_panels, size_t k, const int8_t *x, size_t ldx,
                    const int32_t *x_sums, size_t m) {
    enum { STRIP = 16 * BLOCK };
    uint8_t codes[STRIP];
    for (size_t n = 0; n < n_panels; n++) {
        for (size_t i = 0; i < m; i++) sums[i * ld_sums + n] = -x_sums[i];
        for (size_t k0 = 0; k0 < k; k0 += STRIP) {
            size_t columns = k - k0 < STRIP ? k - k0 : STRIP;
            unpack(codes, panels + n * panel_bytes + k0 / BLOCK * layout->block_bytes, (columns + BLOCK - 1) / BLOCK);
            for (size_t i = 0; i < m; i++) {
                const int8_t *row = x + i * ldx + k0;
                int32_t sum = 0;
                for (size_t j = 0; j < columns; j++) sum += codes[j] * row[j];
                sums[i * ld_sums + n] += sum;
            }
        }
    }
}

static const tern_layout layout_t2 = {"t2 rows", 1, BLOCK, BLOCK / 4};
static const tern_layout layout_t5 = {"t5 rows", 1, BLOCK, BLOCK / 5};

static void tern_sums_t2_i8_scalar(int32_t *sums, size_t ld_sums, const uint8_t *panels, size_t panel_bytes,
                                   size_t n_panels, size_t k, const int8_t *x, size_t ldx, const int32_t *x_sums,
                                   size_t m) {
    sums_i8(&layout_t2, unpack_t2_scalar, sums, ld_sums, panels, panel_bytes, n_panels, k, x, ldx, x_sums, m);
}

static void tern_sums_t5_i8_scalar(int32_t *sums, size_t ld_sums, const uint8_t *panels, size_t panel_bytes,
                                   size_t n_panels, size_t k, const int8_t *x, size_t ldx, const int32_t *x_sums,
                                   size_t m) {
    sums_i8(&layout_t5, unpack_t5_scalar, sums, ld_sums, panels, panel_bytes, n_panels, k, x, ldx, x_sums, m);
}

static int32_t tern_row_sum_scalar(const int8_t *x, size_t n) {
    int32_t sum = 0;
    for (size_t i = 0; i < n; i++) sum += x[i];
    return sum;
}

static void tern_epilogue_scalar(float *y, size_t ldy, const int32_t *c, size_t ld_c, size_t m, size_t n,
                                 const int32_t *x_sums, const float *scale, const float *inv_scale,
                                 const float *bias) {
    for (size_t i = 0; i < m; i++) {
        const int32_t correction = x_sums ? x_sums[i] : 0;
        for (size_t j = 0; j < n; j++) {
            float value = (float)(c[i * ld_c + j] - correction) * (scale[j] * inv_scale[i]);
            y[i * ldy + j] = bias ? value + bias[j] : value;
        }
    }
}

static void tern_groups_i8_scalar(float *acc, const uint8_t *codes, const int8_t *x, const int32_t *group_sums,
                                  size_t k, size_t group, const int8_t *exponents) {
    float total = 0;
    for (size_t g = 0, k0 = 0; k0 < k; g++, k0 += group) {
        int32_t sum = -group_sums[g];
        for (size_t j = k0; j < k && j < k0 + group; j++) sum += codes[j] * x[j];
        total += (float)sum * tern_f32_exp2(exponents[g]);
    }
    *acc = total;
}

/* ---- float products -------------------------------------------------------------------------------------------- */

static size_t tern_prepare_f32_bytes_scalar(size_t k) {
    return (k * sizeof(float) + BLOCK * sizeof(float) + 63) / 64 * 64;
}

/* A copy, with zeros up to a whole block. */
static void tern_prepare_f32_scalar(void *prepared, const float *x, size_t k) {
    memset(prepared, 0, tern_prepare_f32_bytes_scalar(k));
    memcpy(prepared, x, k * sizeof(float));
}

static float add_or_subtract(float sum, uint8_t code, float x) {
    return code == 2 ? sum + x : code == 0 ? sum - x : sum;
}

static void sums_f32(const tern_layout *layout, tern_unpack_fn unpack, float *sums, const uint8_t *panels,
                     size_t panel_bytes, size_t n_panels, size_t k, const void *prepared) {
    const float *x = prepared;
    uint8_t codes[BLOCK];
    for (size_t n = 0; n < n_panels; n++) {
        const uint8_t *panel = panels + n * panel_bytes;
        sums[n] = 0;
        for (size_t k0 = 0; k0 < k; k0 += BLOCK, panel += layout->block_bytes) {
            unpack(codes, panel, 1);
            for (size_t j = 0; j < BLOCK && k0 + j < k; j++) sums[n] = add_or_subtract(sums[n], codes[j], x[k0 + j]);
        }
    }
}

static void tern_sums_t2_f32_scalar(float *sums, const uint8_t *panels, size_t panel_bytes, size_t n_panels, size_t k,
                                    const void *prepared) {
    sums_f32(&layout_t2, unpack_t2_scalar, sums, panels, panel_bytes, n_panels, k, prepared);
}

static void tern_sums_t5_f32_scalar(float *sums, const uint8_t *panels, size_t panel_bytes, size_t n_panels, size_t k,
                                    const void *prepared) {
    sums_f32(&layout_t5, unpack_t5_scalar, sums, panels, panel_bytes, n_panels, k, prepared);
}

static void tern_lanes_f32_scalar(float *acc, const uint8_t *codes, const float *v, size_t k) {
    *acc = 0;
    for (size_t j = 0; j < k; j++) *acc = add_or_subtract(*acc, codes[j], v[j]);
}

/* ---- the table ------------------------------------------------------------------------------------------------- */

void tern_kernels_init_scalar(tern_kernels *table) {
    *table = (tern_kernels){
        .tier = TERN_TIER_SCALAR,
        .density =
            {
                {.layout = layout_t2,
                 .pack_rows = TERN_KERNEL(tern_pack_rows_t2_scalar),
                 .pack_columns = TERN_KERNEL(tern_pack_columns_t2_scalar),
                 .sums_i8 = TERN_KERNEL(tern_sums_t2_i8_scalar),
                 .unpack = {unpack_t2_scalar, "tern_unpack_t2_scalar"},
                 .prepare_f32_bytes = TERN_KERNEL(tern_prepare_f32_bytes_scalar),
                 .prepare_f32 = TERN_KERNEL(tern_prepare_f32_scalar),
                 .sums_f32 = TERN_KERNEL(tern_sums_t2_f32_scalar)},
                {.layout = layout_t5,
                 .pack_rows = TERN_KERNEL(tern_pack_rows_t5_scalar),
                 .pack_columns = TERN_KERNEL(tern_pack_columns_t5_scalar),
                 .sums_i8 = TERN_KERNEL(tern_sums_t5_i8_scalar),
                 .unpack = {unpack_t5_scalar, "tern_unpack_t5_scalar"},
                 .prepare_f32_bytes = TERN_KERNEL(tern_prepare_f32_bytes_scalar),
                 .prepare_f32 = TERN_KERNEL(tern_prepare_f32_scalar),
                 .sums_f32 = TERN_KERNEL(tern_sums_t5_f32_scalar)},
            },
        .few_rows = SIZE_MAX,
        .tile_rows = 0,
        .tile_panels = 1,
        .row_sum = TERN_KERNEL(tern_row_sum_scalar),
        .epilogue = TERN_KERNEL(tern_epilogue_scalar),
        .groups_i8 = TERN_KERNEL(tern_groups_i8_scalar),
        .lanes_f32 = TERN_KERNEL(tern_lanes_f32_scalar),
        .quantize_row = TERN_KERNEL(tern_quantize_row_scalar),
        .quantize_row_rmsnorm = TERN_KERNEL(tern_quantize_row_rmsnorm_scalar),
        .sum_magnitudes = TERN_KERNEL(tern_sum_magnitudes_scalar),
        .ternarize = TERN_KERNEL(tern_ternarize_scalar),
    };
}
