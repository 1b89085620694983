/* The launch shapes of cuda-wgmma, and the shared memory that they take. */
#ifndef TERN_CUDA_WGMMA_SHAPES_H
#define TERN_CUDA_WGMMA_SHAPES_H

#include <stddef.h>

/* A block of two warpgroups computes 128 outputs for m_tile rows of activations; `splits` blocks of a cluster share
 * the columns. Two kernels: wgmma.cu has weights go from memory into registers, and with `ring` nonzero wgmma_ring.cu
 * has them pass through shared memory. */
typedef struct tern_wgmma_shape {
    int m_tile, splits, ring;
} tern_wgmma_shape;

#define TERN_WGMMA_SHAPES                                                                                 \
    {                                                                                                     \
        {128, 1, 0}, {64, 1, 0}, {32, 1, 0}, {64, 2, 0}, {32, 2, 0}, {64, 4, 0}, {32, 4, 0}, {160, 1, 1}, \
            {128, 1, 1}, {64, 1, 1}, {64, 4, 1}, {96, 1, 1}, {                                            \
            256, 1, 1                                                                                     \
        }                                                                                                 \
    }

/* Of halves, wgmma_half.cu: as above, without rings. */
typedef struct tern_wgmma_half_shape {
    int m_tile, splits;
} tern_wgmma_half_shape;

#define TERN_WGMMA_HALF_SHAPES \
    { {256, 1}, {160, 1}, {128, 1}, {64, 1}, {64, 2}, {64, 4}, {32, 1}, {32, 2}, {32, 4}, }

enum {
    TERN_WGMMA_HALF_VARIANTS = 9,
    TERN_WGMMA_VARIANTS = 13,
    TERN_WGMMA_STAGES = 4,
    TERN_WGMMA_SLOT_COLS = 128, /* columns of activations in one stage */
    TERN_WGMMA_SUM_PITCH = 132, /* sums of a row of activations, 128 and a gap that keeps banks apart */
    TERN_WGMMA_BARRIER_BYTES = 256
};

/* The ring: slots of a tile's columns, activations and packed weights, as many as a multiprocessor has room for.
 * Behind it, for each of the two warpgroups: outputs that wait for the copy engine, and scales. */
#define TERN_WGMMA_BUFFER_BYTES 4096
#define TERN_WGMMA_BUFFERS 3
#define TERN_WGMMA_SCALE_BYTES(m_tile) (4 * ((m_tile) + 2 * 64))
#define TERN_WGMMA_OUTPUT_BYTES(m_tile) \
    (2 * (TERN_WGMMA_BUFFERS * TERN_WGMMA_BUFFER_BYTES + TERN_WGMMA_SCALE_BYTES(m_tile)))
#define TERN_WGMMA_SLOT_BYTES(m_tile, t5) ((m_tile) * ((t5) ? 160 : 128) + 4096)
#define TERN_WGMMA_ROOM(m_tile, t5) \
    ((232448 - 1024 - TERN_WGMMA_BARRIER_BYTES - TERN_WGMMA_OUTPUT_BYTES(m_tile)) / TERN_WGMMA_SLOT_BYTES(m_tile, t5))
#define TERN_WGMMA_SLOTS(m_tile, t5) (TERN_WGMMA_ROOM(m_tile, t5) < 12 ? TERN_WGMMA_ROOM(m_tile, t5) : 12)

/* Stages of 64 columns of halves: a power of two where there is room. */
#define TERN_WGMMA_HALF_STAGES(m_tile) ((m_tile) > 128 ? 6 : 8)

/* Shared memory of one block, for the variant (1 ..). */
size_t tern_wgmma_shared_bytes(int variant, int t5);
size_t tern_wgmma_half_shared_bytes(int variant);

#endif
