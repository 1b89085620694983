/* One weight at a time, as the plain kernels take them. */
#ifndef TERN_CUDA_TILE_TRIT_CUH
#define TERN_CUDA_TILE_TRIT_CUH

#include "cuda/common.cuh"

/* The trit of a row of tiles, read back as tiles.h writes it. */
__device__ inline int trit_at(const uint8_t *tiles, int row, int col, int t5) {
    const int chunks = t5 ? TERN_TILE_CHUNKS_T5 : TERN_TILE_CHUNKS_T2, tile_cols = 2 * TERN_TILE_CHUNK * chunks;
    const int in_tile = col % tile_cols, chunk = in_tile / TERN_TILE_CHUNK;
    const int lane = row % 8 * 4 + in_tile % TERN_TILE_CHUNK / 4, word = chunk / chunks * 2 + row / 8;
    int byte = tiles[(size_t)(col / tile_cols) * TERN_TILE_BYTES + lane * 16 + word * 4 + col % 4];
    if (t5) {
        for (int i = 0; i <= chunk % chunks; i++) byte *= 3;
        return byte / 256 % 3 - 1;
    }
    const int code = byte >> 2 * (chunk % chunks) & 3;
    return (code & 1) - (code & 2);
}

/* Exact for e in -149..127. */
__device__ inline float exp2_of(int e) { return __int_as_float(e >= -126 ? (e + 127) << 23 : 1 << (e + 149)); }

#endif
