/* The tile configuration that all AMX kernels share. */
#ifndef TERN_KERN_X86_TILES_AMX_H
#define TERN_KERN_X86_TILES_AMX_H

#include <stdint.h>

/* The operand of ldtilecfg. */
typedef struct tern_tile_config_amx {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes_per_row[16];
    uint8_t rows[16];
} tern_tile_config_amx;
_Static_assert(sizeof(tern_tile_config_amx) == 64, "ldtilecfg reads 64 bytes");

/* All eight tiles 16 rows of 64 bytes. */
static const tern_tile_config_amx tern_full_tiles_amx __attribute__((aligned(64))) = {
    .palette = 1,
    .bytes_per_row = {64, 64, 64, 64, 64, 64, 64, 64},
    .rows = {16, 16, 16, 16, 16, 16, 16, 16},
};

#endif
