/* The kernels of the AMX tier; contracts in kern/kernels.h. */
#ifndef TERN_KERN_X86_KERNELS_AMX_H
#define TERN_KERN_X86_KERNELS_AMX_H

#include "kern/kernels.h"

enum { TERN_TILE_ROWS_AMX = 16 };

void tern_tile_acts_amx(int8_t *tile, const int8_t *x, size_t ldx, size_t rows, size_t k_valid, size_t k);
void tern_matmul_t2_i8_amx(int32_t *c, const uint8_t *panels, size_t panel_bytes, size_t n_panels, size_t k,
                           const int8_t *tiles, size_t tile_stride, size_t n_tiles, const uint8_t *soon,
                           size_t soon_bytes);
void tern_matmul_t5_i8_amx(int32_t *c, const uint8_t *panels, size_t panel_bytes, size_t n_panels, size_t k,
                           const int8_t *tiles, size_t tile_stride, size_t n_tiles, const uint8_t *soon,
                           size_t soon_bytes);

#endif
