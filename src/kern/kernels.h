/* The kernel table: for every tier, the functions that multiply by trits, and the geometry that they want.
 *
 * Kernels take raw pointers and strides, never allocate, never start threads and cannot fail. Blocking, scratch and
 * threads are written once, above the table, in src/cpu/. To add a kernel: docs/kernels.md.
 *
 * Words used throughout
 *   n, rows      outputs (rows of W)            k, cols   inputs (columns of W)          m    rows of activations
 *   panel        `panel_rows` neighbouring rows of W, stored together, padded with zero trits
 *   code         trit + 1, so 0, 1 or 2: unsigned, as multiply-add instructions want it
 *   quad         4 neighbouring columns of a panel as codes: panel_rows x 4 bytes, byte 4*row + column
 *   codes        a panel unpacked: a run of quads, quad q holding columns 4q .. 4q+3
 *
 * Since code = trit + 1, the sum of trit * x is the sum of code * x less the sum of x. Sums fit: |sum of code * x| <=
 * 2 * 128 * k < 2^31 for k <= TERN_MAX_COLS = 2^22. */
#ifndef TERN_KERN_KERNELS_H
#define TERN_KERN_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "tern/matrix.h"

#define TERN_MAX_COLS ((size_t)1 << 22)

enum {
    TERN_MAX_PANEL_ROWS = 16,
    TERN_QUAD = 4,           /* columns in a quad */
    TERN_PANEL_SLACK = 1024, /* readable bytes after the last panel, for kernels that unpack ahead */
    TERN_K_ALIGN = 320, /* activations are zero-padded to a multiple of this: of every k_block and of an AMX tile */
};

/* How a panel of one weight density lies in memory. */
typedef struct tern_layout {
    const char *name;
    size_t panel_rows; /* 1 (scalar: rows as in the exchange format) or 16 */
    size_t k_block;    /* columns per block; a panel has ceil(k / k_block) of them */
    size_t block_bytes;
} tern_layout;

static inline size_t tern_layout_panel_bytes(const tern_layout *layout, size_t k) {
    return (k + layout->k_block - 1) / layout->k_block * layout->block_bytes;
}

/* One slot of the table: the function and its name, which is also its line in the kernel test and benchmark. */
#define TERN_SLOT(type)   \
    struct {              \
        type fn;          \
        const char *name; \
    }
#define TERN_KERNEL(function) \
    { (function), #function }
#define TERN_SET(slot, function) ((slot).fn = (function), (slot).name = #function)

/* Packs a matrix of `rows` x k trits into ceil(rows / panel_rows) panels, panel_bytes apart, of ceil(k / k_block)
 * blocks each; what pads them is zero trits. Lines of trits are ld apart and may be unaligned. The lines are
 *   pack_rows      the rows: trit (r, c) is trits[r * ld + c]
 *   pack_columns   the columns, for a matrix that is stored transposed: trit (r, c) is trits[c * ld + r] */
typedef void (*tern_pack_fn)(uint8_t *panels, size_t panel_bytes, const int8_t *trits, size_t ld, size_t rows,
                             size_t k);

/* sums[m][n_panels * panel_rows] (rows ld_sums apart) = exact sums of trit * x.
 * x: m rows, ldx apart, 64-byte aligned, zero from column k up to a multiple of TERN_K_ALIGN.
 * x_sums[m]: sum over k of x. Streams the panels once: meant for few rows. */
typedef void (*tern_sums_i8_fn)(int32_t *sums, size_t ld_sums, const uint8_t *panels, size_t panel_bytes,
                                size_t n_panels, size_t k, const int8_t *x, size_t ldx, const int32_t *x_sums,
                                size_t m);

/* Unpacks `blocks` blocks of one panel to k_block/4 quads each. codes: 64-byte aligned. */
typedef void (*tern_unpack_fn)(uint8_t *codes, const uint8_t *panel, size_t blocks);

/* Sum of a row of n int8 values, n a multiple of 64, 64-byte aligned. */
typedef int32_t (*tern_row_sum_fn)(const int8_t *x, size_t n);

/* c[n_tiles * tile_rows][tile_panels * 16] = codes * activations over all k columns, straight from n_panels packed
 * panels (1 .. tile_panels; columns of c beyond them are unspecified) that TERN_PANEL_SLACK readable bytes follow.
 * tiles: as matmul_i8 below, from column 0. soon: bytes that the next calls read, brought into L2 meanwhile; they are
 * only prefetched. For tiers that unpack and multiply in one go; NULL where unpack and matmul_i8 are called in
 * turn. */
typedef void (*tern_matmul_panels_i8_fn)(int32_t *c, const uint8_t *panels, size_t panel_bytes, size_t n_panels,
                                         size_t k, const int8_t *tiles, size_t tile_stride, size_t n_tiles,
                                         const uint8_t *soon, size_t soon_bytes);

/* Bytes of the prepared form of one row of k float activations, a multiple of 64. */
typedef size_t (*tern_prepare_f32_bytes_fn)(size_t k);
/* Brings one row of k floats (x may be unaligned and ends at k) into the form that sums_f32 reads. */
typedef void (*tern_prepare_f32_fn)(void *prepared, const float *x, size_t k);
/* sums[n_panels * panel_rows] = sum of trit * x, for one row of activations. */
typedef void (*tern_sums_f32_fn)(float *sums, const uint8_t *panels, size_t panel_bytes, size_t n_panels, size_t k,
                                 const void *prepared);

/* Kernels of one weight density. */
typedef struct tern_density_kernels {
    tern_layout layout;
    TERN_SLOT(tern_pack_fn) pack_rows;
    TERN_SLOT(tern_pack_fn) pack_columns;
    TERN_SLOT(tern_sums_i8_fn) sums_i8;
    TERN_SLOT(tern_unpack_fn) unpack;
    TERN_SLOT(tern_matmul_panels_i8_fn) matmul_panels_i8;
    TERN_SLOT(tern_prepare_f32_bytes_fn) prepare_f32_bytes;
    TERN_SLOT(tern_prepare_f32_fn) prepare_f32;
    TERN_SLOT(tern_sums_f32_fn) sums_f32;
} tern_density_kernels;

/* Brings up to `tile_rows` rows of int8 activations, columns 0 .. k (a multiple of TERN_K_ALIGN when zero-padded),
 * into the tile form of matmul_i8: k * tile_rows bytes. Missing rows become zeros. k_valid: columns that x has. */
typedef void (*tern_tile_acts_fn)(int8_t *tile, const int8_t *x, size_t ldx, size_t rows, size_t k_valid, size_t k);

/* c[tiles * tile_rows][tile_panels * 16] (+)= codes * activations, over `quads` quads.
 *   codes: tile_panels runs of `quads` quads, codes_stride bytes apart
 *   tiles: activation tiles, tile_stride bytes apart, each starting at the first of these quads
 *   accumulate: 0 to overwrite c */
typedef void (*tern_matmul_i8_fn)(int32_t *c, const uint8_t *codes, size_t codes_stride, const int8_t *tiles,
                                  size_t tile_stride, size_t n_tiles, size_t quads, int accumulate);

/* y[m][n] (rows ldy apart) = float(c - x_sums[m]) * (scale[n] * inv_scale[m]) + bias[n], for n columns of c (rows
 * ld_c apart). x_sums may be NULL (0), bias may be NULL (none). scale: n floats. */
typedef void (*tern_epilogue_fn)(float *y, size_t ldy, const int32_t *c, size_t ld_c, size_t m, size_t n,
                                 const int32_t *x_sums, const float *scale, const float *inv_scale,
                                 const float *bias);

/* acc[panel_rows] = sum over groups g, ascending, of float(sum over k in g of trit * x[k]) * 2^exponent[g][row].
 * codes: the panel's quads. x: zero-padded as for sums_i8. group_sums[g]: sum of x in g.
 * exponents: [groups][panel_rows]. group: 6 or a multiple of 4. */
typedef void (*tern_groups_i8_fn)(float *acc, const uint8_t *codes, const int8_t *x, const int32_t *group_sums,
                                  size_t k, size_t group, const int8_t *exponents);

/* acc[panel_rows] = sum over k of trit[row][k] * v[k][row]. v: [k][panel_rows] floats, 64-byte aligned. */
typedef void (*tern_lanes_f32_fn)(float *acc, const uint8_t *codes, const float *v, size_t k);

/* One row of activations to int8; returns 1/s. norm: NULL, or gains of an RMSNorm in front (see tern/quant.h). */
typedef float (*tern_quantize_row_fn)(int8_t *q, const float *x, size_t cols);
typedef float (*tern_quantize_row_rmsnorm_fn)(int8_t *q, const float *x, const float *gain, float epsilon,
                                              size_t cols);

/* The sum of |w| over one block of n weights, in double: sixteen interleaved partial sums (partial j takes the
 * weights i with i % 16 == j), added in ascending order. Not finite where a weight is not, and only there. */
typedef double (*tern_sum_magnitudes_fn)(const float *w, size_t n);

/* trits[i] = clamp(round(w[i] / m), -1, 1), ties to even; a NaN gives 0. m: a normal number, m / 2 as well. */
typedef void (*tern_ternarize_fn)(int8_t *trits, const float *w, size_t n, float m);

enum { TERN_DENSITY_T2 = 0, TERN_DENSITY_T5 = 1, TERN_DENSITY_COUNT = 2 };

typedef struct tern_kernels {
    tern_tier tier;
    tern_density_kernels density[TERN_DENSITY_COUNT];

    /* Up to this many rows of activations go through sums_i8, more through tile_acts and matmul_panels_i8 or, where
     * that is NULL, unpack and matmul_i8. */
    size_t few_rows;
    size_t tile_rows;   /* rows of an activation tile; 0 where the tier has no products of tiles */
    size_t tile_panels; /* panels that such a product takes at once */
    TERN_SLOT(tern_tile_acts_fn) tile_acts;
    TERN_SLOT(tern_matmul_i8_fn) matmul_i8;

    TERN_SLOT(tern_row_sum_fn) row_sum;
    TERN_SLOT(tern_epilogue_fn) epilogue;
    TERN_SLOT(tern_groups_i8_fn) groups_i8;
    TERN_SLOT(tern_lanes_f32_fn) lanes_f32;
    TERN_SLOT(tern_quantize_row_fn) quantize_row;
    TERN_SLOT(tern_quantize_row_rmsnorm_fn) quantize_row_rmsnorm;
    TERN_SLOT(tern_sum_magnitudes_fn) sum_magnitudes;
    TERN_SLOT(tern_ternarize_fn) ternarize;
} tern_kernels;

/* The table of one tier, complete: slots that a tier does not improve hold the next slower version. NULL when this
 * build or machine lacks the tier. Written once, at the first call, and only read afterwards. */
const tern_kernels *tern_kernels_of(tern_tier tier);

#endif
