/* The launch shapes of the kernels, and which kernel takes a product. Plain C without CUDA: the rules are tested
 * where there is no GPU, and both libraries are compiled against the same table. */
#ifndef TERN_CUDA_LAUNCH_SHAPES_H
#define TERN_CUDA_LAUNCH_SHAPES_H

#include "cuda/backend.h"
#include "cuda/wgmma_shapes.h"

/* What a launch may use. */
typedef struct tern_cuda_limits {
    int major, minor, multiprocessors;
    size_t shared_bytes; /* a block */
} tern_cuda_limits;

/* decode: a block of `warps` warps shares the columns of `row_tiles` rows of tiles. Or, with `splits`,
 * decode_ring.cu: a cluster of that many blocks shares those of some rows of tiles, `each` blocks a multiprocessor
 * have all of them. */
typedef struct tern_decode_shape {
    int warps, row_tiles, splits, each;
} tern_decode_shape;

/* How decode_ring.cu runs a product. `groups` clusters of `splits` blocks; a group has `rows` rows of tiles, the
 * first `more` of them one more; a block has `row_units` units of each. In a block's shared memory the rings of its
 * warps come first; the others are bytes from its start. */
typedef struct tern_ring_plan {
    int groups, splits, rows, more, row_units;
    uint32_t row_units_inverse; /* i / row_units is the upper half of i times this */
    int touched;                /* rows of tiles that a warp has a share of, at most */
    int x, x_pitch, x_sums, spans, partial, inbox, barrier;
    int bytes;
} tern_ring_plan;

/* mma: a block computes 16 * row_tiles * warps_n outputs for 8 * m_tiles * warps_m rows of activations;
 * int8 has the first three shapes, halves all but the first, with scales per group up to the fourth, fp32 the second
 * and third. */
typedef struct tern_mma_shape {
    int warps_n, warps_m, row_tiles, m_tiles;
} tern_mma_shape;

/* tiled: a block computes `outputs` outputs for `rows` rows of activations; the last shape is for scales per group
 * and few rows of activations alone (tiled_row.cuh). */
typedef struct tern_tiled_shape {
    int outputs, rows;
} tern_tiled_shape;

#define TERN_TILED_SHAPES                                \
    {                                                    \
        {64, 64}, {64, 32}, {32, 16}, {32, 8}, { 16, 1 } \
    }
#define TERN_DECODE_SHAPES                                                                                   \
    {                                                                                                        \
        {8, 1, 0, 0}, {2, 2, 0, 0}, {4, 2, 0, 0}, {8, 2, 0, 0}, {16, 2, 0, 0}, {12, 3, 0, 0}, {16, 0, 1, 1}, \
            {16, 0, 2, 1}, {                                                                                 \
            16, 0, 1, 2                                                                                      \
        }                                                                                                    \
    }
#define TERN_MMA_SHAPES                                                                       \
    {                                                                                         \
        {4, 2, 2, 8}, {2, 2, 2, 4}, {4, 1, 1, 4}, {4, 1, 1, 8}, {4, 1, 2, 16}, { 4, 2, 4, 8 } \
    }

enum {
    TERN_TILED_VARIANTS = 5,
    TERN_TILED_ROW = 5, /* the variant for few rows */
    TERN_DECODE_VARIANTS = 9,
    TERN_RING_VARIANTS = 3, /* of these, the last ones: with splits */
    TERN_MMA_VARIANTS = 6,
    TERN_TILED_SHARED_BYTES = 48 << 10, /* at most, so that it runs everywhere */
    TERN_TILED_ROW_MAX_M = 8,
    TERN_TILED_ROW_TILES = 8,   /* in a round */
    TERN_DECODE_MAX_M = 32,     /* rows of activations that one block of decode takes */
    TERN_DECODE_ROWS_MAX_M = 8, /* that decode_rows.cuh takes */
    TERN_DECODE_ROWS_GAP = 16,  /* bytes behind a row of activations, so that rows start in different banks */
    TERN_RING_MAX_M = 8,
    TERN_RING_WARPS = 16,
    TERN_RING_UNIT = 4,  /* tiles that a warp asks for at once */
    TERN_RING_UNITS = 2, /* that it has on their way */
    TERN_RING_GAP = 16,  /* bytes behind a row of activations, so that rows start in different banks */
    TERN_RING_SPAN_BYTES = 16,
    TERN_MMA_STAGES = 3,
    TERN_MMA_GAP_I8 = 16, /* bytes between two rows of activations in shared memory */
    TERN_MMA_GAP_HALF = 32,
    TERN_MMA_GAP_F32 = 64,
    TERN_FAST_MAX_OUTPUTS = 128 * 65535,
    TERN_FAST_MAX_ROWS = 8 * 65535, /* of activations: what the second dimension of a grid holds */
    TERN_FAST_MAX_COLS = 1 << 17    /* t2 sums 64 * trit * x in an int32: 2^13 * cols must stay below 2^31 */
};

/* Tiles of each of its rows that a warp of decode_rows.cuh has on their way. */
#define TERN_DECODE_ROWS_AHEAD(warps, t5) ((warps) == 8 && !(t5) ? 5 : 4)

int tern_cuda_variants(tern_device_kernel kernel);

/* tern_device_kernel_name, where that is out of reach: libtern_cuda.so does not link libtern.so. */
const char *tern_cuda_kernel_name(tern_device_kernel kernel);

/* Nonzero: that variant of cuda-decode is the kernel of decode_rows.cuh. */
int tern_decode_has_rows(int variant, tern_dtype x_type, size_t m);

/* Shared memory of one block, for the variant (1 ..) of a kernel. */
size_t tern_decode_shared_bytes(int variant, size_t m);
size_t tern_decode_rows_shared_bytes(int variant, int t5);
void tern_ring_plan_make(tern_ring_plan *plan, int variant, int multiprocessors, const tern_cuda_weights *w, size_t m,
                         int value_bytes);
size_t tern_mma_shared_bytes(int variant, int t5, tern_dtype x_type);

/* Nonzero when the kernel can run this product with these limits; else the reason is in why. */
int tern_cuda_fits(tern_device_kernel kernel, int variant, const tern_cuda_limits *limits, const tern_cuda_weights *w,
                   const tern_device_product *product, char *why, size_t why_bytes);

/* The kernel and variant that a product gets when nobody pins one; always one that fits. */
void tern_cuda_choose(tern_device_kernel *kernel, int *variant, const tern_cuda_limits *limits,
                      const tern_cuda_weights *w, const tern_device_product *product);

/* What goes before that rule: a table of what was measured, which libtern_cuda.so only knows by this function. It
 * gives 0 where nothing that fits was measured. choose NULL: no table. */
typedef struct tern_cuda_measured {
    int (*choose)(tern_device_kernel *kernel, int *variant, const void *table, const tern_cuda_limits *limits,
                  const tern_cuda_weights *w, const tern_device_product *product);
    const void *table;
} tern_cuda_measured;

/* A variant for a pinned kernel; 0 where none fits, with the reason. */
int tern_cuda_choose_variant(tern_device_kernel kernel, const tern_cuda_limits *limits, const tern_cuda_weights *w,
                             const tern_device_product *product, char *why, size_t why_bytes);

/* Kernel and variant of a product that names none: of the kernel that is pinned unless that is AUTO, else what was
 * measured (NULL: nothing), else the rule's. 0 where the pinned kernel cannot run the product, with the reason. */
int tern_cuda_pick(tern_device_product *product, tern_device_kernel pinned, const tern_cuda_measured *measured,
                   const tern_cuda_limits *limits, const tern_cuda_weights *w, char *why, size_t why_bytes);

#endif
