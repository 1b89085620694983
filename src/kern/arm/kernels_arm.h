/* The kernels of both ARM tiers; contracts in kern/kernels.h. */
#ifndef TERN_KERN_ARM_KERNELS_ARM_H
#define TERN_KERN_ARM_KERNELS_ARM_H

#include "kern/kernels.h"

enum { TERN_TILE_ROWS_NEON = 4 };

void tern_sums_t2_i8_neon(int32_t *sums, size_t ld_sums, const uint8_t *panels, size_t panel_bytes, size_t n_panels,
                          size_t k, const int8_t *x, size_t ldx, const int32_t *x_sums, size_t m);
void tern_sums_t5_i8_neon(int32_t *sums, size_t ld_sums, const uint8_t *panels, size_t panel_bytes, size_t n_panels,
                          size_t k, const int8_t *x, size_t ldx, const int32_t *x_sums, size_t m);
void tern_matmul_i8_neon(int32_t *c, const uint8_t *codes, size_t codes_stride, const int8_t *tiles,
                         size_t tile_stride, size_t n_tiles, size_t quads, int accumulate);
void tern_groups_i8_neon(float *acc, const uint8_t *codes, const int8_t *x, const int32_t *group_sums, size_t k,
                         size_t group, const int8_t *exponents);
void tern_unpack_t2_neon(uint8_t *codes, const uint8_t *panel, size_t blocks);
void tern_unpack_t5_neon(uint8_t *codes, const uint8_t *panel, size_t blocks);
void tern_tile_acts_neon(int8_t *tile, const int8_t *x, size_t ldx, size_t rows, size_t k_valid, size_t k);
int32_t tern_row_sum_neon(const int8_t *x, size_t n);
void tern_epilogue_neon(float *y, size_t ldy, const int32_t *c, size_t ld_c, size_t m, size_t n,
                        const int32_t *x_sums, const float *scale, const float *inv_scale, const float *bias);
void tern_lanes_f32_neon(float *acc, const uint8_t *codes, const float *v, size_t k);
size_t tern_prepare_f32_bytes_neon(size_t k);
void tern_prepare_f32_neon(void *prepared, const float *x, size_t k);
void tern_sums_t2_f32_neon(float *sums, const uint8_t *panels, size_t panel_bytes, size_t n_panels, size_t k,
                           const void *prepared);
void tern_sums_t5_f32_neon(float *sums, const uint8_t *panels, size_t panel_bytes, size_t n_panels, size_t k,
                           const void *prepared);

void tern_sums_t2_i8_neondot(int32_t *sums, size_t ld_sums, const uint8_t *panels, size_t panel_bytes,
                             size_t n_panels, size_t k, const int8_t *x, size_t ldx, const int32_t *x_sums, size_t m);
void tern_sums_t5_i8_neondot(int32_t *sums, size_t ld_sums, const uint8_t *panels, size_t panel_bytes,
                             size_t n_panels, size_t k, const int8_t *x, size_t ldx, const int32_t *x_sums, size_t m);
void tern_matmul_i8_neondot(int32_t *c, const uint8_t *codes, size_t codes_stride, const int8_t *tiles,
                            size_t tile_stride, size_t n_tiles, size_t quads, int accumulate);
void tern_groups_i8_neondot(float *acc, const uint8_t *codes, const int8_t *x, const int32_t *group_sums, size_t k,
                            size_t group, const int8_t *exponents);

#endif
