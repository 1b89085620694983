/* trit_embedding: nn/op_trit_embedding.c's formulas. Places are sorted by their token, stably, so that a row's
 * gradient is the sum over its places in their order, as on the CPU: with fp32 values the same floats, and the same
 * integers. The table's gradient has its room in scratch, of which only rows that the batch takes are written and
 * read. */
#include <cub/device/device_radix_sort.cuh>

#include "gpu/gpu_kernels.cuh"
#include "gpu/gpu_trit_rules.h"
#include "gpu/gpu_weights.cuh"

struct embedding_state {
    gpu_weights w; /* first: gpu_node_weights */
    int32_t *row_steps;
    size_t sort_bytes;
};

static embedding_state *state_of(const tern_gpu_plan *plan, size_t i) {
    return (embedding_state *)plan->node[i].state;
}

/* ---- scratch of the backward pass */

struct embedding_room {
    uint32_t *token, *place, *unsorted; /* [places]: sorted, sorted, 0, 1, ... */
    double *squares;                    /* [rows] */
    gpu_rule_step *step;
    int32_t *go;
    float *g; /* [rows][width] */
    void *sort;
    size_t bytes;
};

static embedding_room room_of(void *scratch, size_t places, const embedding_state *state) {
    const size_t rows = state->w.rows;
    embedding_room r = {};
    const auto take = [&](size_t bytes) {
        char *taken = (char *)scratch + r.bytes;
        r.bytes += gpu_round_up(bytes, 256);
        return (void *)taken;
    };
    r.token = (uint32_t *)take(places * sizeof *r.token);
    r.place = (uint32_t *)take(places * sizeof *r.place);
    r.unsorted = (uint32_t *)take(places * sizeof *r.unsorted);
    r.squares = (double *)take(rows * sizeof *r.squares);
    r.step = (gpu_rule_step *)take(rows * sizeof *r.step);
    r.go = (int32_t *)take(rows * sizeof *r.go);
    r.g = (float *)take(rows * state->w.cols * sizeof *r.g);
    r.sort = take(state->sort_bytes);
    return r;
}

static cudaError_t sort_places(size_t *bytes, const embedding_room &r, void *room, const int32_t *token,
                               size_t places, size_t rows, cudaStream_t stream) {
    int bits = 1;
    while ((rows - 1) >> bits) bits++;
    return cub::DeviceRadixSort::SortPairs(room, *bytes, (const uint32_t *)token, r.token, r.unsorted, r.place,
                                           (int)places, 0, bits, stream);
}

static tern_status prepare(tern_gpu_plan *plan, size_t i, tern_error *err) {
    const tern_node *node = gpu_graph_node(plan, i);
    const size_t places = plan->batch_max * node->rows;
    GPU_CHECK(gpu_state(plan, i, sizeof(embedding_state), err));
    embedding_state *state = state_of(plan, i);
    GPU_CHECK(gpu_weights_prepare(&state->w, plan, i, err));
    state->row_steps = (int32_t *)gpu_node_integers(plan, i, "row_steps");
    if (!plan->training) return TERN_OK;
    if (places > INT32_MAX)
        return tern_fail(err, TERN_E_ARGUMENT, TERN_NO_PLACE, "%s: %zu tokens in a batch; at most 2^31 - 1",
                         node->name, places);
    const embedding_room none = {};
    CUDA_TRY(sort_places(&state->sort_bytes, none, NULL, NULL, places, state->w.rows, plan->stream), node->name, err);
    gpu_want_scratch(plan, room_of(NULL, places, state).bytes);
    return TERN_OK;
}

static tern_status refresh(tern_gpu_plan *plan, size_t i, tern_error *err) {
    return gpu_weights_refresh(&state_of(plan, i)->w, plan, i, err);
}

/* ---- forward */

template <class T>
__global__ static void take_rows(T *y, const int32_t *token, gpu_tile_reader reader, gpu_trits t, const float *scale,
                                 size_t places, size_t width) {
    const size_t fours = (width + 3) / 4;
    GPU_FOR(i, places * fours) {
        const size_t at = i / fours, col = (i - at * fours) * 4, row = (size_t)token[at];
        int shift;
        const uint32_t word = reader.word(row, col, &shift);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const size_t c = col + (size_t)j;
            if (c >= width) break;
            const size_t s = t.per_row ? row * t.per_row + c / t.group : 0;
            const float a = t.used_exponent ? gpu_power(t.used_exponent[s]) : scale[s];
            y[at * width + c] = from_float<T>((float)gpu_tile_reader::trit(word, shift, j) * a);
        }
    }
}

static tern_status forward(tern_gpu_plan *plan, size_t i, tern_error *err) {
    const gpu_weights *w = &state_of(plan, i)->w;
    const size_t places = plan->batch * gpu_graph_node(plan, i)->rows;
    const unsigned blocks = gpu_blocks(plan, places * tern_ceil_div(w->cols, 4));
    GPU_BY_TYPE(plan->type, take_rows<<<blocks, GPU_THREADS, 0, plan->stream>>>(
                                (T *)plan->node[i].value, (const int32_t *)gpu_in(plan, i, 0), gpu_trits_reader(w),
                                w->trits, w->scale, places, w->cols));
    GPU_LAUNCHED(plan, i, err);
    return TERN_OK;
}

/* ---- backward */

__global__ static void count_up(uint32_t *place, size_t n) { GPU_FOR(i, n) place[i] = (uint32_t)i; }

/* The first of the sorted tokens that is not below `row`. */
__device__ static size_t find_first(const uint32_t *token, size_t places, size_t row) {
    size_t begin = 0, end = places;
    while (begin < end) {
        const size_t middle = (begin + end) / 2;
        if (token[middle] < row)
            begin = middle + 1;
        else
            end = middle;
    }
    return begin;
}

/* A block a row: its gradient, and the sum of squares in the order of its columns, which every lane of a warp
 * does. */
template <class T>
__global__ static void __launch_bounds__(GPU_THREADS)
    add_rows(embedding_room r, const T *dy, size_t places, size_t rows, size_t width) {
    const size_t thread = threadIdx.x;
    for (size_t row = blockIdx.x; row < rows; row += gridDim.x) {
        const size_t begin = find_first(r.token, places, row), end = find_first(r.token, places, row + 1);
        float *g = r.g + row * width;
        double squares = 0;
        if (begin == end) {
            if (thread == 0) r.squares[row] = 0;
            continue;
        }
        for (size_t c = thread; c < width; c += GPU_THREADS) {
            float sum = 0;
#pragma unroll 4
            for (size_t p = begin; p < end; p++) sum += to_float(dy[r.place[p] * width + c]);
            g[c] = sum;
        }
        __syncthreads();
        for (size_t c = 0; thread < 32 && c < width; c += 32) {
            const double v = c + thread < width ? (double)g[c + thread] : 0;
            for (int l = 0; l < 32; l++) squares += __shfl_sync(0xffffffffu, v * v, l);
        }
        if (thread == 0) r.squares[row] = squares;
        __syncthreads();
    }
}

/* Each row is normalised by its own gradient and numbered by its own steps. */
__global__ static void settle_rows(embedding_room r, int32_t *row_steps, const gpu_now *now, const gpu_rules *rules,
                                   size_t rows, size_t width) {
    GPU_FOR(row, rows) {
        const double squares = r.squares[row];
        const int e = gpu_rule_exponent(squares / (double)width);
        const bool goes = now->rate && !rules->trouble && e != TERN_NO_GRADIENT_EXP && isfinite(squares);
        r.go[row] = goes;
        r.step[row] = {(uint64_t)row_steps[row], now->rate, e, 0};
        if (goes) row_steps[row] += row_steps[row] < INT32_MAX;
    }
}

/* One thread, behind settle_rows: what is once a step. */
__global__ static void settle_table(gpu_trits t, const double *squares, const gpu_now *now, gpu_rules *rules,
                                    size_t rows, double weights, uint64_t node) {
    double total = 0;
#pragma unroll 16
    for (size_t row = 0; row < rows; row++) total += squares[row];
    rules->squares += total;
    if (!isfinite(total) && !rules->trouble) rules->trouble = node;
    const bool whole = now->rate && !rules->trouble;
    if (whole) {
        const int e = gpu_rule_exponent(total / weights);
        if (e != TERN_NO_GRADIENT_EXP) *t.gradient_exponent = (int8_t)e;
        if (t.steps) *t.steps += *t.steps < INT32_MAX;
    }
    t.step[0] = {now->step, now->rate, 0, whole};
}

static tern_status backward(tern_gpu_plan *plan, size_t i, tern_error *err) {
    const tern_node *node = gpu_graph_node(plan, i);
    embedding_state *state = state_of(plan, i);
    const gpu_weights *w = &state->w;
    const size_t places = plan->batch * node->rows, rows = w->rows, width = w->cols;
    const embedding_room r = room_of(plan->scratch, plan->batch_max * node->rows, state);
    size_t bytes = state->sort_bytes;
    count_up<<<gpu_blocks(plan, places), GPU_THREADS, 0, plan->stream>>>(r.unsorted, places);
    GPU_LAUNCHED(plan, i, err);
    CUDA_TRY(sort_places(&bytes, r, r.sort, (const int32_t *)gpu_in(plan, i, 0), places, rows, plan->stream),
             node->name, err);
    GPU_BY_TYPE(plan->type, add_rows<<<gpu_blocks(plan, rows * GPU_THREADS), GPU_THREADS, 0, plan->stream>>>(
                                r, (const T *)plan->node[i].grad, places, rows, width));
    GPU_LAUNCHED(plan, i, err);
    settle_rows<<<gpu_blocks(plan, rows), GPU_THREADS, 0, plan->stream>>>(r, state->row_steps, plan->now, plan->rules,
                                                                          rows, width);
    GPU_LAUNCHED(plan, i, err);
    settle_table<<<1, 1, 0, plan->stream>>>(w->trits, r.squares, plan->now, plan->rules, rows, (double)(rows * width),
                                            i);
    GPU_LAUNCHED(plan, i, err);
    const gpu_rule_rows which = {r.step, 1, r.go, 1};
    GPU_CHECK(gpu_trits_step(w, plan, i, r.g, &which, NULL, err));
    return gpu_trits_finish(w, plan, i, err);
}

extern const gpu_op gpu_op_trit_embedding = {"trit_embedding", prepare, refresh, forward, backward};
