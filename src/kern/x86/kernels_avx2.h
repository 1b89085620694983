/* The kernels of the AVX2 tier; contracts in kern/kernels.h. */
#ifndef TERN_KERN_X86_KERNELS_AVX2_H
#define TERN_KERN_X86_KERNELS_AVX2_H

#include "kern/kernels.h"

enum { TERN_TILE_ROWS_AVX2 = 4 };

void tern_pack_rows_t2_avx2(uint8_t *panels, size_t panel_bytes, const int8_t *trits, size_t ld, size_t rows,
                            size_t k);
void tern_pack_columns_t2_avx2(uint8_t *panels, size_t panel_bytes, const int8_t *trits, size_t ld, size_t rows,
                               size_t k);
void tern_pack_rows_t5_avx2(uint8_t *panels, size_t panel_bytes, const int8_t *trits, size_t ld, size_t rows,
                            size_t k);
void tern_pack_columns_t5_avx2(uint8_t *panels, size_t panel_bytes, const int8_t *trits, size_t ld, size_t rows,
                               size_t k);
void tern_sums_t2_i8_avx2(int32_t *sums, size_t ld_sums, const uint8_t *panels, size_t panel_bytes, size_t n_panels,
                          size_t k, const int8_t *x, size_t ldx, const int32_t *x_sums, size_t m);
void tern_sums_t5_i8_avx2(int32_t *sums, size_t ld_sums, const uint8_t *panels, size_t panel_bytes, size_t n_panels,
                          size_t k, const int8_t *x, size_t ldx, const int32_t *x_sums, size_t m);
void tern_unpack_t2_avx2(uint8_t *codes, const uint8_t *panel, size_t blocks);
void tern_unpack_t5_avx2(uint8_t *codes, const uint8_t *panel, size_t blocks);
void tern_tile_acts_avx2(int8_t *tile, const int8_t *x, size_t ldx, size_t rows, size_t k_valid, size_t k);
void tern_matmul_i8_avx2(int32_t *c, const uint8_t *codes, size_t codes_stride, const int8_t *tiles,
                         size_t tile_stride, size_t n_tiles, size_t quads, int accumulate);
int32_t tern_row_sum_avx2(const int8_t *x, size_t n);
void tern_epilogue_avx2(float *y, size_t ldy, const int32_t *c, size_t ld_c, size_t m, size_t n,
                        const int32_t *x_sums, const float *scale, const float *inv_scale, const float *bias);
void tern_groups_i8_avx2(float *acc, const uint8_t *codes, const int8_t *x, const int32_t *group_sums, size_t k,
                         size_t group, const int8_t *exponents);
void tern_lanes_f32_avx2(float *acc, const uint8_t *codes, const float *v, size_t k);
size_t tern_prepare_f32_bytes_avx2(size_t k);
void tern_prepare_f32_avx2(void *prepared, const float *x, size_t k);
void tern_sums_t2_f32_avx2(float *sums, const uint8_t *panels, size_t panel_bytes, size_t n_panels, size_t k,
                           const void *prepared);
void tern_sums_t5_f32_avx2(float *sums, const uint8_t *panels, size_t panel_bytes, size_t n_panels, size_t k,
                           const void *prepared);
double tern_sum_magnitudes_avx2(const float *w, size_t n);
void tern_ternarize_avx2(int8_t *trits, const float *w, size_t n, float m);

#endif
