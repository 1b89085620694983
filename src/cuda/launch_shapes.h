/* The launch shapes of the kernels, and which kernel takes a product. Plain C without CUDA: the rules are tested where
 * there is no GPU, and both libraries are compiled against the same table. */
#ifndef TERN_CUDA_LAUNCH_SHAPES_H
#define TERN_CUDA_LAUNCH_SHAPES_H

#include "cuda/backend.h"

/* What a launch may use. */
typedef struct tern_cuda_limits {
    int major, minor, multiprocessors;
    size_t shared_bytes; /* a block */
} tern_cuda_limits;

/* decode: a block of `warps` warps shares the columns of `row_tiles` rows of tiles. */
typedef struct tern_decode_shape {
    int warps, row_tiles;
} tern_decode_shape;

/* mma: a block computes 16 * row_tiles * warps_n outputs for 8 * m_tiles * warps_m rows of activations;
 * int8 has the first three shapes, halves all but the first, fp32 the second and third. */
typedef struct tern_mma_shape {
    int warps_n, warps_m, row_tiles, m_tiles;
} tern_mma_shape;

/* tiled: a block computes `outputs` outputs for `rows` rows of activations; the last shape is for scales per group and few
 * rows of activations alone (tiled_row.cuh). */
typedef struct tern_tiled_shape {
    int outputs, rows;
} tern_tiled_shape;

/* wgmma: a block of two consumer warpgroups computes 128 outputs for m_tile rows of activations; `splits` blocks of a
 * cluster share the columns. */
typedef struct tern_wgmma_shape {
    int m_tile, splits;
} tern_wgmma_shape;

#define TERN_TILED_SHAPES                                \
    {                                                    \
        {64, 64}, {64, 32}, {32, 16}, {32, 8}, { 16, 1 } \
    }
#define TERN_DECODE_SHAPES                                                                                          \
    {                                                                                                               \
        {2, 1}, {4, 1}, {8, 1}, {16, 1}, {4, 2}, {8, 2}, {16, 2}, {2, 4}, {4, 4}, {8, 4}, {16, 4}, {1, 2}, { 2, 2 } \
    }
#define TERN_MMA_SHAPES                                                                       \
    {                                                                                         \
        {4, 2, 2, 8}, {2, 2, 2, 4}, {4, 1, 1, 4}, {4, 1, 1, 8}, {4, 1, 2, 16}, { 4, 2, 4, 8 } \
    }
#define TERN_WGMMA_SHAPES                                                                                        \
    {                                                                                                            \
        {256, 1}, {128, 1}, {64, 1}, {32, 1}, {128, 2}, {64, 2}, {32, 2}, {128, 4}, {64, 4}, {32, 4}, {64, 8}, { \
            32, 8                                                                                                \
        }                                                                                                        \
    }

enum {
    TERN_TILED_VARIANTS = 5,
    TERN_TILED_ROW = 5, /* the variant for few rows */
    TERN_DECODE_VARIANTS = 13,
    TERN_MMA_VARIANTS = 6,
    TERN_WGMMA_VARIANTS = 12,
    TERN_TILED_SHARED_BYTES = 48 << 10, /* at most, so that it runs everywhere */
    TERN_TILED_ROW_MAX_M = 8,
    TERN_TILED_ROW_TILES = 8, /* in a round */
    TERN_DECODE_MAX_M = 32,   /* rows of activations that one block of decode takes */
    TERN_MMA_STAGES = 3,
    TERN_MMA_GAP_I8 = 16, /* bytes between two rows of activations in shared memory */
    TERN_MMA_GAP_HALF = 32,
    TERN_MMA_GAP_F32 = 64,
    TERN_WGMMA_STAGES = 4,
    TERN_WGMMA_SLOT_COLS = 128, /* columns of activations in one stage */
    TERN_WGMMA_SUM_PITCH = 132, /* sums of a row of activations, 128 and a gap that keeps banks apart */
    TERN_WGMMA_BARRIER_BYTES = 128,
    TERN_FAST_MAX_OUTPUTS = 128 * 65535,
    TERN_FAST_MAX_ROWS = 8 * 65535, /* of activations: what the second dimension of a grid holds */
    TERN_FAST_MAX_COLS = 1 << 17    /* t2 sums 64 * trit * x in an int32: 2^13 * cols must stay below 2^31 */
};

int tern_cuda_variants(tern_device_kernel kernel);

/* Shared memory of one block, for the variant (1 ..) of a kernel. */
size_t tern_decode_shared_bytes(int variant, size_t m);
size_t tern_mma_shared_bytes(int variant, int t5, tern_dtype x_type);
size_t tern_wgmma_shared_bytes(int variant);

/* Nonzero when the kernel can run this product with these limits; else the reason is in why. */
int tern_cuda_fits(tern_device_kernel kernel, int variant, const tern_cuda_limits *limits, const tern_cuda_weights *w,
                   const tern_device_product *product, char *why, size_t why_bytes);

/* The kernel and variant that a product gets when nobody pins one; always one that fits. */
void tern_cuda_choose(tern_device_kernel *kernel, int *variant, const tern_cuda_limits *limits,
                      const tern_cuda_weights *w, const tern_device_product *product);

/* What goes before that rule: a table of what was measured, which libtern_cuda.so only knows by this function. It gives 0
 * where nothing that fits was measured. choose NULL: no table. */
typedef struct tern_cuda_measured {
    int (*choose)(tern_device_kernel *kernel, int *variant, const void *table, const tern_cuda_limits *limits,
                  const tern_cuda_weights *w, const tern_device_product *product);
    const void *table;
} tern_cuda_measured;

/* A variant for a pinned kernel; 0 where none fits, with the reason. */
int tern_cuda_choose_variant(tern_device_kernel kernel, const tern_cuda_limits *limits, const tern_cuda_weights *w,
                             const tern_device_product *product, char *why, size_t why_bytes);

#endif
