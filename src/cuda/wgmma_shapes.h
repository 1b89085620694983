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
            {128, 1, 1}, {64, 1, 1}, {64, 4, 1}, {                                                        \
            32, 8, 1                                                                                      \
        }                                                                                                 \
    }

enum {
    TERN_WGMMA_VARIANTS = 12,
    TERN_WGMMA_STAGES = 4,
    TERN_WGMMA_SLOT_COLS = 128, /* columns of activations in one stage */
    TERN_WGMMA_SUM_PITCH = 132, /* sums of a row of activations, 128 and a gap that keeps banks apart */
    TERN_WGMMA_BARRIER_BYTES = 256,
    TERN_WGMMA_OUTPUT_BYTES = 9216 /* outputs on their way through shared memory, in the ring's kernel */
};

/* The ring: slots of a tile's columns, activations and packed weights, as many as leave room for so many blocks on a
 * multiprocessor. */
#define TERN_WGMMA_BLOCKS(m_tile) ((m_tile) > 64 ? 1 : 2)
#define TERN_WGMMA_SLOT_BYTES(m_tile, t5) ((m_tile) * ((t5) ? 160 : 128) + 4096)
#define TERN_WGMMA_SLOTS(m_tile, t5)                                                                    \
    ((233472 / TERN_WGMMA_BLOCKS(m_tile) - 2048 - TERN_WGMMA_BARRIER_BYTES - TERN_WGMMA_OUTPUT_BYTES) / \
     TERN_WGMMA_SLOT_BYTES(m_tile, t5))

/* Shared memory of one block, for the variant (1 ..). */
size_t tern_wgmma_shared_bytes(int variant, int t5);

#endif
