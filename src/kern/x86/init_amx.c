#include "kern/tiers_init.h"
#include "kern/x86/kernels_amx.h"

void tern_kernels_init_amx(tern_kernels *table) {
    TERN_SET(table->density[TERN_DENSITY_T2].matmul_panels_i8, tern_matmul_t2_i8_amx);
    TERN_SET(table->density[TERN_DENSITY_T5].matmul_panels_i8, tern_matmul_t5_i8_amx);
    table->few_rows = 4; /* measured: tiles win from 5 rows on */
    table->tile_rows = TERN_TILE_ROWS_AMX;
    table->tile_panels = 2;
    TERN_SET(table->tile_acts, tern_tile_acts_amx);
    TERN_SET(table->matmul_i8, NULL); /* the panels are unpacked on the way */
}
