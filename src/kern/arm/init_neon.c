#include "kern/arm/kernels_arm.h"
#include "kern/panel16.h"
#include "kern/quantize_rows.h"
#include "kern/tiers_init.h"

void tern_kernels_init_neon(tern_kernels *table) {
    table->density[TERN_DENSITY_T2] = (tern_density_kernels){
        .layout = TERN_LAYOUT_T2P16,
        .pack_rows = TERN_KERNEL(tern_pack_rows_t2p16),
        .pack_columns = TERN_KERNEL(tern_pack_columns_t2p16),
        .sums_i8 = TERN_KERNEL(tern_sums_t2_i8_neon),
        .unpack = TERN_KERNEL(tern_unpack_t2_neon),
        .prepare_f32_bytes = TERN_KERNEL(tern_prepare_f32_bytes_neon),
        .prepare_f32 = TERN_KERNEL(tern_prepare_f32_neon),
        .sums_f32 = TERN_KERNEL(tern_sums_t2_f32_neon),
    };
    table->density[TERN_DENSITY_T5] = (tern_density_kernels){
        .layout = TERN_LAYOUT_T5P16_LUT,
        .pack_rows = TERN_KERNEL(tern_pack_rows_t5p16_lut),
        .pack_columns = TERN_KERNEL(tern_pack_columns_t5p16_lut),
        .sums_i8 = TERN_KERNEL(tern_sums_t5_i8_neon),
        .unpack = TERN_KERNEL(tern_unpack_t5_neon),
        .prepare_f32_bytes = TERN_KERNEL(tern_prepare_f32_bytes_neon),
        .prepare_f32 = TERN_KERNEL(tern_prepare_f32_neon),
        .sums_f32 = TERN_KERNEL(tern_sums_t5_f32_neon),
    };
    table->few_rows = 2;
    table->tile_rows = TERN_TILE_ROWS_NEON;
    table->tile_panels = 1;
    TERN_SET(table->tile_acts, tern_tile_acts_neon);
    TERN_SET(table->matmul_i8, tern_matmul_i8_neon);
    TERN_SET(table->row_sum, tern_row_sum_neon);
    TERN_SET(table->epilogue, tern_epilogue_neon);
    TERN_SET(table->groups_i8, tern_groups_i8_neon);
    TERN_SET(table->lanes_f32, tern_lanes_f32_neon);
    TERN_SET(table->quantize_row, tern_quantize_row_neon);
    TERN_SET(table->quantize_row_rmsnorm, tern_quantize_row_rmsnorm_neon);
}
