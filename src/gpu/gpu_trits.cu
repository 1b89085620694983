/* Trits and scales from the integers behind them, and back as operand of float products. */
#include "gpu/gpu_trits.cuh"

#include "gpu/gpu_kernels.cuh"
#include "gpu/gpu_trit_rules.h"
#include "gpu/gpu_weights.cuh"

/* ---- trits: a thread makes the 16 bytes of a tile that are a lane's */

/* Columns col ... + 3 of a row, zeros where there are none. */
struct counter_trits {
    const int8_t *counter;
    const uint8_t *thresholds;
    size_t cols, group, per_row;
    int whole; /* rows are of whole fours */
    __device__ void take(int trit[4], size_t row, size_t col) const {
        const int8_t *c = counter + row * cols + col;
        char4 four = make_char4(0, 0, 0, 0);
        if (whole && col < cols)
            four = *(const char4 *)c;
        else {
            if (col < cols) four.x = c[0];
            if (col + 1 < cols) four.y = c[1];
            if (col + 2 < cols) four.z = c[2];
            if (col + 3 < cols) four.w = c[3];
        }
        const int v[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
        for (int j = 0; j < 4; j++) {
            int h = TERN_TRIT_THRESHOLD;
            if (thresholds && col + (size_t)j < cols)
                h = thresholds[row * per_row + (per_row ? (col + (size_t)j) / group : 0)];
            trit[j] = gpu_rule_trit(v[j], h);
        }
    }
};
struct packed_trits {
    const uint8_t *packed;
    size_t cols, bytes; /* of a row */
    __device__ void take(int trit[4], size_t row, size_t col) const {
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const size_t c = col + (size_t)j;
            trit[j] = c < cols ? gpu_t5_trit(packed[row * bytes + c / 5], (int)(c % 5)) : 0;
        }
    }
};

struct tile_places {
    size_t rows, row_tiles, k_tiles, lanes; /* rows and row_tiles of a group; lanes of all tiles */
};

template <class Source> __global__ static void make_tiles(uint4 *tiles, tile_places p, Source from) {
    GPU_FOR(i, p.lanes) {
        const size_t lane = i % 32, tile = i / 32, tile_row = tile / p.k_tiles, group = tile_row / p.row_tiles;
        const size_t column = tile % p.k_tiles * (2 * TERN_TILE_CHUNKS_T2 * TERN_TILE_CHUNK) + lane % 4 * 4;
        uint32_t words[4] = {0, 0, 0, 0};
#pragma unroll
        for (int word = 0; word < 4; word++) {
            const size_t in_group = tile_row % p.row_tiles * TERN_TILE_ROWS + lane / 4 + word % 2 * 8;
            if (in_group >= p.rows) continue;
#pragma unroll
            for (int chunk = 0; chunk < TERN_TILE_CHUNKS_T2; chunk++) {
                int trit[4];
                from.take(trit, group * p.rows + in_group,
                          column + (size_t)((word / 2 * TERN_TILE_CHUNKS_T2 + chunk) * TERN_TILE_CHUNK));
#pragma unroll
                for (int j = 0; j < 4; j++) words[word] |= (uint32_t)(trit[j] & 3) << (8 * j + 2 * chunk);
            }
        }
        tiles[i] = make_uint4(words[0], words[1], words[2], words[3]);
    }
}

static tern_status refresh_tiles(const gpu_weights *w, tern_gpu_plan *plan, size_t i, tern_error *err) {
    const gpu_trits &t = w->trits;
    const tile_places p = {w->rows / w->groups, (size_t)w->first.row_tiles, (size_t)w->first.k_tiles,
                           w->groups * w->tile_bytes / sizeof(uint4)};
    const unsigned blocks = gpu_blocks(plan, p.lanes);
    uint4 *tiles = (uint4 *)w->tiles;
    if (t.packed) {
        const packed_trits from = {t.packed, w->cols, tern_ceil_div(w->cols, 5)};
        make_tiles<<<blocks, GPU_THREADS, 0, plan->stream>>>(tiles, p, from);
    } else {
        const counter_trits from = {t.counter, t.thresholds, w->cols, t.group, t.per_row, w->cols % 4 == 0};
        make_tiles<<<blocks, GPU_THREADS, 0, plan->stream>>>(tiles, p, from);
    }
    GPU_LAUNCHED(plan, i, err);
    return TERN_OK;
}

/* ---- scales */

static const int64_t MOST_OF_A_SUM = (int64_t)1 << 62;

__device__ static int64_t held(int64_t v) {
    return v > MOST_OF_A_SUM ? MOST_OF_A_SUM : v < -MOST_OF_A_SUM ? -MOST_OF_A_SUM : v;
}

/* Powers of two; of the seed 2^(e + 4 k / (steps group)), the exponent held between -14 and 15. */
__global__ static void make_scales(gpu_trits t, float *scale, double weights) {
    GPU_FOR(s, t.scales) {
        const int e = t.exponent[s];
        if (t.used_exponent) t.used_exponent[s] = (int8_t)e;
        if (t.correlation) {
            const int32_t steps = *t.steps;
            const double shift = steps ? 4 * (double)t.correlation[s] / ((double)steps * weights) : 0;
            scale[s] = (float)exp2(fmin(fmax((double)e + shift, -14.0), 15.0));
            t.correlation[s] = held(t.correlation[s]);
        } else if (scale) {
            scale[s] = gpu_power(e);
        }
        if (t.exponent_sum) t.exponent_sum[s] = held(t.exponent_sum[s]);
    }
}

/* Flips were counted by the updates since the last time. */
__global__ static void take_flips(tern_gpu_trits *counts, unsigned long long *flipping) {
    counts->flips = *flipping;
    *flipping = 0;
}

tern_status gpu_trits_refresh(gpu_weights *w, tern_gpu_plan *plan, size_t i, tern_error *err) {
    const double weights = w->trits.scales == 1 ? (double)(w->rows * w->cols) : (double)w->cols;
    GPU_CHECK(refresh_tiles(w, plan, i, err));
    make_scales<<<gpu_blocks(plan, w->trits.scales), GPU_THREADS, 0, plan->stream>>>(w->trits, w->scale, weights);
    GPU_LAUNCHED(plan, i, err);
    if (!w->counts || !plan->count_trits) return TERN_OK;
    GPU_CHECK(gpu_weights_count(w, plan, i, err));
    take_flips<<<1, 1, 0, plan->stream>>>(w->counts, w->trits.flipping);
    GPU_LAUNCHED(plan, i, err);
    return TERN_OK;
}

/* ---- back to floats */

gpu_tile_reader gpu_trits_reader(const gpu_weights *w) {
    return {(const uint32_t *)w->first.tiles, (size_t)w->first.rows, (size_t)w->first.row_tiles,
            (size_t)w->first.k_tiles};
}

template <class T>
__global__ static void make_operand(T *to, gpu_tile_reader reader, gpu_trits t, const float *scale, size_t rows,
                                    size_t cols) {
    const size_t fours = (cols + 3) / 4;
    GPU_FOR(i, rows * fours) {
        const size_t row = i / fours, col = (i - row * fours) * 4;
        int shift;
        const uint32_t word = reader.word(row, col, &shift);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const size_t c = col + (size_t)j;
            if (c >= cols) break;
            const size_t s = t.per_row ? row * t.per_row + c / t.group : 0;
            const float a = t.used_exponent ? gpu_power(t.used_exponent[s]) : scale[s];
            to[row * cols + c] = from_float<T>((float)gpu_tile_reader::trit(word, shift, j) * a);
        }
    }
}

tern_status gpu_trits_operand(const gpu_weights *w, tern_gpu_plan *plan, size_t i, void *to, tern_error *err) {
    const unsigned blocks = gpu_blocks(plan, w->rows * tern_ceil_div(w->cols, 4));
    GPU_BY_TYPE(plan->products, make_operand<<<blocks, GPU_THREADS, 0, plan->stream>>>(
                                    (T *)to, gpu_trits_reader(w), w->trits, w->scale, w->rows, w->cols));
    GPU_LAUNCHED(plan, i, err);
    return TERN_OK;
}

/* ---- preparation */

bool gpu_trits_are_in(const tern_gpu_plan *plan, size_t i) { return gpu_node_integers(plan, i, "exponent") != NULL; }

/* nn/trit_backward.c's. */
static size_t tile_rows_of(const tern_node *node, size_t rows, size_t cols) {
    const size_t tiles = tern_max_size(1, tern_ceil_div(rows * cols, GPU_TILE_WEIGHTS));
    return node->at.groups > 1 ? rows : tern_min_size(rows, tern_round_up(tern_ceil_div(rows, tiles), 16));
}

static void find_integers(gpu_trits *t, const tern_gpu_plan *plan, size_t i) {
    t->counter = (int8_t *)gpu_node_integers(plan, i, "counter");
    t->momentum = (int8_t *)gpu_node_integers(plan, i, "momentum");
    t->exponent = (int8_t *)gpu_node_integers(plan, i, "exponent");
    t->gradient_exponent = (int8_t *)gpu_node_integers(plan, i, "gradient_exponent");
    t->rates = (int8_t *)gpu_node_integers(plan, i, "group_rate");
    t->packed = (uint8_t *)gpu_node_integers(plan, i, "trits");
    t->thresholds = (uint8_t *)gpu_node_integers(plan, i, "group_threshold");
    t->correlation = (int64_t *)gpu_node_integers(plan, i, "correlation");
    t->exponent_sum = (int64_t *)gpu_node_integers(plan, i, "exponent_sum");
    t->steps = (int32_t *)gpu_node_integers(plan, i, "steps");
}

tern_status gpu_trits_prepare(gpu_weights *w, tern_gpu_plan *plan, size_t i, tern_error *err) {
    const tern_node *node = gpu_graph_node(plan, i);
    gpu_trits *t = &w->trits;
    void *memory;
    find_integers(t, plan, i);
    t->update = node->at.update;
    t->group = node->at.group ? node->at.group : w->cols;
    t->per_row = node->at.group ? tern_ceil_div(w->cols, t->group) : node->at.granularity == TERN_PER_ROW;
    t->scales = t->per_row ? w->rows * t->per_row : 1;
    t->tile_rows = tile_rows_of(node, w->rows, w->cols);
    if (node->at.group) {
        GPU_CHECK(gpu_keep(plan, &memory, t->scales, node->name, err));
        w->first.exponents = t->used_exponent = (int8_t *)memory;
        w->first.group = (int32_t)t->group;
        w->first.groups = (int32_t)t->per_row;
    } else {
        GPU_CHECK(gpu_keep(plan, &memory, t->scales * sizeof(float), node->name, err));
        w->first.scale = w->scale = (float *)memory;
        w->first.scale_per_row = t->per_row != 0;
    }
    if (!plan->training) return TERN_OK;
    GPU_CHECK(gpu_keep(plan, &memory, 2 * sizeof *t->step + sizeof *t->flipping, node->name, err));
    t->step = (gpu_rule_step *)memory;
    t->flipping = (unsigned long long *)(t->step + 2);
    CUDA_TRY(cudaMemsetAsync(memory, 0, 2 * sizeof *t->step + sizeof *t->flipping, plan->stream), node->name, err);
    return TERN_OK;
}
