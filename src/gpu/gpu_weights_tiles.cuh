/* Trits of latent weights: a warp makes a tile, each lane the 16 bytes that are its own (cuda/tiles.h), and what
 * float products multiply by. */
#ifndef TERN_GPU_GPU_WEIGHTS_TILES_CUH
#define TERN_GPU_GPU_WEIGHTS_TILES_CUH

#include "gpu/gpu_kernels.cuh"
#include "gpu/gpu_weights.cuh"

enum gpu_operand_form { NO_OPERAND, TRITS, SCALED, MIXED };

struct gpu_tiling {
    const float *w, *scale, *threshold;
    uint8_t *tiles;
    size_t rows, cols, row_tiles, k_tiles, count; /* rows and row_tiles of one group; tiles of all */
    int scale_per_row;
    const gpu_now *now;
};

/* Columns column ... + 3 of a row that starts at `row`, zeros where there are none. Whole: rows are of whole
 * fours. */
template <bool Whole> __device__ static float4 load_four(const float *row, size_t column, size_t cols) {
    float4 v = {0, 0, 0, 0};
    if (Whole) {
        if (column < cols) v = __ldg((const float4 *)(row + column)); /* may pass the stores of other columns */
        return v;
    }
    if (column < cols) v.x = row[column];
    if (column + 1 < cols) v.y = row[column + 1];
    if (column + 2 < cols) v.z = row[column + 2];
    if (column + 3 < cols) v.w = row[column + 3];
    return v;
}

template <bool Whole, class T>
__device__ static void store_four(T *row, size_t column, size_t cols, const gpu_few<T, 4> &v) {
    if constexpr (Whole) {
        if (column < cols) *(gpu_few<T, 4> *)(row + column) = v;
    } else {
        for (int j = 0; j < 4; j++)
            if (column + (size_t)j < cols) row[column + (size_t)j] = v.v[j];
    }
}

/* A lane's part of a tile: of 2 rows, in 2 halves, 4 columns of each chunk. */
enum {
    LANE_ROWS = 2,
    HALVES = 2,
    HALF = TERN_TILE_CHUNKS_T2 * TERN_TILE_CHUNK,
    GPU_TILES_AT_ONCE = GPU_THREADS / 32
};

/* One lane's word, of one row and half. */
template <class T, gpu_operand_form Form, bool Whole>
__device__ static uint32_t make_word(const float4 (&w)[TERN_TILE_CHUNKS_T2], T *operand, size_t column, size_t cols,
                                     float threshold, float scale, float lambda) {
    uint32_t word = 0;
#pragma unroll
    for (int chunk = 0; chunk < TERN_TILE_CHUNKS_T2; chunk++) {
        const float v[4] = {w[chunk].x, w[chunk].y, w[chunk].z, w[chunk].w};
        gpu_few<T, 4> to;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const int trit = gpu_trit_of(v[j], threshold);
            word |= (uint32_t)(trit & 3) << (8 * j + 2 * chunk);
            if (Form == TRITS) to.v[j] = from_float<T>((float)trit);
            if (Form == SCALED) to.v[j] = from_float<T>((float)trit * scale);
            if (Form == MIXED) to.v[j] = from_float<T>(v[j] + lambda * ((float)trit * scale - v[j]));
        }
        if (Form != NO_OPERAND) store_four<Whole>(operand, column + chunk * TERN_TILE_CHUNK, cols, to);
    }
    return word;
}

/* By a warp. All of a lane's weights are asked for before the first is looked at: a tile is little work and much
 * waiting. */
template <class T, gpu_operand_form Form, bool Whole>
__device__ static void gpu_make_tile(const gpu_tiling &p, T *operand, size_t tile, float lambda) {
    const int lane = (int)threadIdx.x % 32;
    const size_t tile_row = tile / p.k_tiles, group = tile_row / p.row_tiles;
    const size_t column = tile % p.k_tiles * (HALVES * HALF) + lane % 4 * 4;
    float4 w[LANE_ROWS][HALVES][TERN_TILE_CHUNKS_T2];
    float threshold[LANE_ROWS], scale[LANE_ROWS];
    size_t row[LANE_ROWS];
    bool is_row[LANE_ROWS];
#pragma unroll
    for (int r = 0; r < LANE_ROWS; r++) {
        const size_t in_group = tile_row % p.row_tiles * TERN_TILE_ROWS + lane / 4 + r * 8;
        is_row[r] = in_group < p.rows;
        row[r] = group * p.rows + (is_row[r] ? in_group : 0);
        const size_t slice = p.scale_per_row ? row[r] : 0;
        threshold[r] = p.threshold[slice];
        scale[r] = p.scale[slice];
#pragma unroll
        for (int half = 0; half < HALVES; half++)
#pragma unroll
            for (int chunk = 0; chunk < TERN_TILE_CHUNKS_T2; chunk++)
                w[r][half][chunk] =
                    load_four<Whole>(p.w + row[r] * p.cols, column + half * HALF + chunk * TERN_TILE_CHUNK, p.cols);
    }
    uint32_t words[LANE_ROWS * HALVES] = {};
#pragma unroll
    for (int r = 0; r < LANE_ROWS; r++)
#pragma unroll
        for (int half = 0; half < HALVES; half++)
            if (is_row[r])
                words[2 * half + r] =
                    make_word<T, Form, Whole>(w[r][half], Form == NO_OPERAND ? NULL : operand + row[r] * p.cols,
                                              column + half * HALF, p.cols, threshold[r], scale[r], lambda);
    ((uint4 *)p.tiles)[tile * 32 + lane] = make_uint4(words[0], words[1], words[2], words[3]);
}

static inline gpu_tiling gpu_tiling_of(const gpu_weights *w, const tern_gpu_plan *plan, size_t i) {
    gpu_tiling p = {};
    p.w = gpu_node_param(plan, i, 0)->value;
    p.scale = w->scale;
    p.threshold = w->threshold;
    p.tiles = w->tiles;
    p.rows = w->rows / w->groups;
    p.cols = w->cols;
    p.row_tiles = (size_t)w->first.row_tiles;
    p.k_tiles = (size_t)w->first.k_tiles;
    p.count = w->groups * p.row_tiles * p.k_tiles;
    p.scale_per_row = w->first.scale_per_row;
    p.now = plan->now;
    return p;
}

/* Of one node. */
tern_status gpu_weights_tile(const gpu_weights *w, tern_gpu_plan *plan, size_t node, tern_error *err);

#endif
