#include "kern/panel16.h"
#include "kern/quantize_rows.h"
#include "kern/tiers_init.h"
#include "kern/x86/kernels_avx512.h"

void tern_kernels_init_avx512(tern_kernels *table) {
    table->density[TERN_DENSITY_T2] = (tern_density_kernels){
        .layout = TERN_LAYOUT_T2P16,
        .pack_rows = TERN_KERNEL(tern_pack_rows_t2_avx512),
        .pack_columns = TERN_KERNEL(tern_pack_columns_t2_avx512),
        .sums_i8 = TERN_KERNEL(tern_sums_t2_i8_avx512),
        .unpack = TERN_KERNEL(tern_unpack_t2_avx512),
        .prepare_f32_bytes = TERN_KERNEL(tern_prepare_t2_f32_bytes_avx512),
        .prepare_f32 = TERN_KERNEL(tern_prepare_t2_f32_avx512),
        .sums_f32 = TERN_KERNEL(tern_sums_t2_f32_avx512),
    };
    table->density[TERN_DENSITY_T5] = (tern_density_kernels){
        .layout = TERN_LAYOUT_T5P16_LUT,
        .pack_rows = TERN_KERNEL(tern_pack_rows_t5_avx512),
        .pack_columns = TERN_KERNEL(tern_pack_columns_t5_avx512),
        .sums_i8 = TERN_KERNEL(tern_sums_t5_i8_avx512),
        .unpack = TERN_KERNEL(tern_unpack_t5_avx512),
        .prepare_f32_bytes = TERN_KERNEL(tern_prepare_t5_f32_bytes_avx512),
        .prepare_f32 = TERN_KERNEL(tern_prepare_t5_f32_avx512),
        .sums_f32 = TERN_KERNEL(tern_sums_t5_f32_avx512),
    };
    table->few_rows = 8;
    table->tile_rows = TERN_TILE_ROWS_AVX512;
    table->tile_panels = TERN_TILE_PANELS_AVX512;
    TERN_SET(table->tile_acts, tern_tile_acts_avx512);
    TERN_SET(table->matmul_i8, tern_matmul_i8_avx512);
    TERN_SET(table->row_sum, tern_row_sum_avx512);
    TERN_SET(table->epilogue, tern_epilogue_avx512);
    TERN_SET(table->groups_i8, tern_groups_i8_avx512);
    TERN_SET(table->lanes_f32, tern_lanes_f32_avx512);
    TERN_SET(table->quantize_row, tern_quantize_row_avx512);
    TERN_SET(table->quantize_row_rmsnorm, tern_quantize_row_rmsnorm_avx512);
    TERN_SET(table->sum_magnitudes, tern_sum_magnitudes_avx512);
    TERN_SET(table->ternarize, tern_ternarize_avx512);
}
