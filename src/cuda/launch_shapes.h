/* The launch shapes of the kernels, and which kernel takes a product. Plain C without CUDA: the rules are tested where
 * there is no GPU, and both libraries are compiled against the same table. */
#ifndef TERN_CUDA_LAUNCH_SHAPES_H
#define TERN_CUDA_LAUNCH_SHAPES_H

#include "cuda/backend.h"
#include "cuda/wgmma_shapes.h"

/* What a launch may use. */
typedef struct tern_cuda_limits {
    int major, minor, multiprocessors;
    size_t shared_bytes; /* a block */
} tern_cuda_limits;

/* decode: a block of `warps` warps shares the columns of `row_tiles` rows of tiles. */
typedef struct tern_decode_shape {
    int warps, row_tiles;
} tern_decode_shape;

/* mma: a block computes 16 * row_tiles * warps_n outputs for 8 * m_tiles * warps_m rows of activations. */
typedef struct tern_mma_shape {
    int warps_n, warps_m, row_tiles, m_tiles;
} tern_mma_shape;

#define TERN_DECODE_SHAPES                                                                                          \
    {                                                                                                               \
        {2, 1}, {4, 1}, {8, 1}, {16, 1}, {4, 2}, {8, 2}, {16, 2}, {2, 4}, {4, 4}, {8, 4}, {16, 4}, {1, 2}, { 2, 2 } \
    }
#define TERN_MMA_SHAPES                            \
    {                                              \
        {4, 2, 2, 8}, {2, 2, 2, 4}, { 4, 1, 1, 4 } \
    }

enum {
    TERN_DECODE_VARIANTS = 13,
    TERN_MMA_VARIANTS = 3,
    TERN_DECODE_MAX_M = 32, /* rows of activations that one block of decode takes */
    TERN_MMA_STAGES = 3,
    TERN_FAST_MAX_OUTPUTS = 128 * 65535,
    TERN_FAST_MAX_ROWS = 8 * 65535, /* of activations: what the second dimension of a grid holds */
    TERN_FAST_MAX_COLS = 1 << 17    /* t2 sums 64 * trit * x in an int32: 2^13 * cols must stay below 2^31 */
};

int tern_cuda_variants(tern_device_kernel kernel);

/* Shared memory of one block, for the variant (1 ..) of a kernel. */
size_t tern_decode_shared_bytes(int variant, size_t m);
size_t tern_mma_shared_bytes(int variant, int t5);

/* Nonzero when the kernel can run this product with these limits; else the reason is in why. */
int tern_cuda_fits(tern_device_kernel kernel, int variant, const tern_cuda_limits *limits, const tern_cuda_weights *w,
                   const tern_device_product *product, char *why, size_t why_bytes);

/* The kernel and variant that a product gets when nobody pins one; always one that fits. */
void tern_cuda_choose(tern_device_kernel *kernel, int *variant, const tern_cuda_limits *limits,
                      const tern_cuda_weights *w, const tern_device_product *product);

/* A variant for a pinned kernel; 0 where none fits, with the reason. */
int tern_cuda_choose_variant(tern_device_kernel kernel, const tern_cuda_limits *limits, const tern_cuda_weights *w,
                             const tern_device_product *product, char *why, size_t why_bytes);

#endif
