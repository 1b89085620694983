#include "kern/arm/kernels_arm.h"
#include "kern/tiers_init.h"

void tern_kernels_init_neondot(tern_kernels *table) {
    TERN_SET(table->density[TERN_DENSITY_T2].sums_i8, tern_sums_t2_i8_neondot);
    TERN_SET(table->density[TERN_DENSITY_T5].sums_i8, tern_sums_t5_i8_neondot);
    TERN_SET(table->matmul_i8, tern_matmul_i8_neondot);
    TERN_SET(table->groups_i8, tern_groups_i8_neondot);
}
