#include "kern/tiers_init.h"
#include "kern/x86/kernels_amx.h"

void tern_kernels_init_amx(tern_kernels *table) {
    table->few_rows = 1;
    table->tile_rows = TERN_TILE_ROWS_AMX;
    table->tile_panels = TERN_TILE_PANELS_AMX;
    table->quad_step = TERN_QUAD_STEP_AMX;
    TERN_SET(table->tile_acts, tern_tile_acts_amx);
    TERN_SET(table->matmul_i8, tern_matmul_i8_amx);
}
