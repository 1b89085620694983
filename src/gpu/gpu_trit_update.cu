/* One step of the rules: nn/trit_backward.c and nn/trit_weights.c with the whole layer's gradient at hand. */
#include "gpu/gpu_kernels.cuh"
#include "gpu/gpu_orthogonal.cuh"
#include "gpu/gpu_trit_rules.h"
#include "gpu/gpu_trits.cuh"
#include "gpu/gpu_weights.cuh"

/* ---- the rules of counters: a thread takes eight weights of a row, whose random numbers are of one block, or of r2
 * two */

enum rule { R1, R2, MOMENTUM };

struct counters {
    int8_t *counter, *momentum;
    const float *g;
    const uint8_t *thresholds;
    size_t group, per_row; /* of thresholds */
    size_t rows, cols;
    gpu_rule_rows which;
    uint64_t key;
    unsigned long long *flipping;
};

template <bool Whole, class V> __device__ static gpu_few<V, 8> load_eight(const V *from, size_t count) {
    gpu_few<V, 8> v = {};
    if (Whole)
        v = *(const gpu_few<V, 8> *)from;
    else
        for (int j = 0; j < 8; j++)
            if ((size_t)j < count) v.v[j] = from[j];
    return v;
}
template <bool Whole, class V> __device__ static void store_eight(V *to, size_t count, const gpu_few<V, 8> &v) {
    if (Whole)
        *(gpu_few<V, 8> *)to = v;
    else
        for (int j = 0; j < 8; j++)
            if ((size_t)j < count) to[j] = v.v[j];
}

template <int Rule, bool Whole>
__device__ static unsigned step_eight(const counters &u, const gpu_rule_step &s, size_t i, size_t row, size_t col) {
    const size_t at = row * u.cols + col, count = u.cols - col;
    const gpu_few<float, 8> g = load_eight<Whole>(u.g + at, count);
    const tern_random4 r[2] = {tern_philox(u.key, Rule == R2 ? 2 * i : i, s.step),
                               Rule == R2 ? tern_philox(u.key, 2 * i + 1, s.step) : tern_random4{}};
    const float f = Rule == R1 ? gpu_rule_factor(s.rate, s.gradient_exp, 16) : gpu_rule_gain(s.gradient_exp);
    gpu_few<int8_t, 8> c = {}, m = {};
    if (Rule != MOMENTUM) c = load_eight<Whole>(u.counter + at, count);
    if (Rule != R1) m = load_eight<Whole>(u.momentum + at, count);
    unsigned flips = 0;
#pragma unroll
    for (int j = 0; j < 8; j++) {
        if (!Whole && (size_t)j >= count) break;
        const int32_t old = c.v[j];
        if (Rule == R1) c.v[j] = (int8_t)gpu_rule_r1(old, g.v[j], f, gpu_rule_bits(&r[0], j));
        if (Rule != R1) {
            const int32_t next = gpu_rule_next_momentum(m.v[j], g.v[j], f);
            const int32_t um = Rule == R2 ? gpu_rule_bits(&r[j / 4], j % 4 * 2) : gpu_rule_bits(&r[0], j);
            if (Rule == R2) c.v[j] = (int8_t)gpu_rule_r2(old, next, s.rate, gpu_rule_bits(&r[j / 4], j % 4 * 2 + 1));
            m.v[j] = (int8_t)gpu_rule_round_momentum(next, um);
        }
        if (Rule == MOMENTUM) continue;
        int h = TERN_TRIT_THRESHOLD;
        if (u.thresholds) h = u.thresholds[row * u.per_row + (u.per_row ? (col + (size_t)j) / u.group : 0)];
        flips += gpu_rule_trit(old, h) != gpu_rule_trit(c.v[j], h);
    }
    if (Rule != MOMENTUM) store_eight<Whole>(u.counter + at, count, c);
    if (Rule != R1) store_eight<Whole>(u.momentum + at, count, m);
    return flips;
}

template <int Rule, bool Whole> __global__ static void __launch_bounds__(GPU_THREADS) step_counters(counters u) {
    const size_t eights = (u.cols + 7) / 8;
    unsigned long long flips = 0;
    GPU_FOR(i, u.rows * eights) {
        const size_t row = i / eights;
        if (u.which.goes(row)) flips += step_eight<Rule, Whole>(u, u.which.of(row), i, row, (i - row * eights) * 8);
    }
    if (Rule == MOMENTUM) return;
    flips = block_sum(flips);
    if (threadIdx.x == 0 && flips) atomicAdd(u.flipping, flips);
}

template <int Rule> static void launch_counters(tern_gpu_plan *plan, const counters &u) {
    const unsigned blocks = gpu_blocks(plan, u.rows * tern_ceil_div(u.cols, 8));
    if (u.cols % 8)
        step_counters<Rule, false><<<blocks, GPU_THREADS, 0, plan->stream>>>(u);
    else
        step_counters<Rule, true><<<blocks, GPU_THREADS, 0, plan->stream>>>(u);
}

/* ---- the rules of packed trits: a thread takes the five of a byte */

struct votes {
    uint8_t *packed;
    int8_t *counter;
    const float *g;
    size_t rows, cols;
    gpu_rule_rows which;
    unsigned long long *flipping;
};

__global__ static void step_votes(votes u) {
    const size_t bytes = (u.cols + 4) / 5;
    unsigned long long flips = 0;
    GPU_FOR(i, u.rows * bytes) {
        const size_t row = i / bytes, col = (i - row * bytes) * 5;
        if (!u.which.goes(row)) continue;
        const int32_t count = gpu_rule_votes(u.which.of(row).rate);
        int trits[5];
        const int byte = u.packed[i];
        for (int j = 0; j < 5; j++) {
            const size_t c = col + (size_t)j, at = row * u.cols + c;
            trits[j] = gpu_t5_trit(byte, j);
            if (c >= u.cols) continue;
            const int old = trits[j];
            int32_t v = u.counter[at];
            trits[j] = gpu_rule_hold(old + gpu_rule_vote(&v, u.g[at], count, TERN_VOTE_THRESHOLD), 1);
            u.counter[at] = (int8_t)v;
            flips += trits[j] != old;
        }
        u.packed[i] = (uint8_t)gpu_t5_byte(trits);
    }
    flips = block_sum(flips);
    if (threadIdx.x == 0 && flips) atomicAdd(u.flipping, flips);
}

/* ---- what runs along a group of columns: a warp each */

struct runs {
    const float *g;
    size_t rows, cols, group, groups; /* of columns; groups of a row */
    size_t per_row;                   /* scales of a row; 0: one for all */
    gpu_rule_rows which;
};

struct run {
    size_t row, begin, end, scale; /* columns */
    __device__ run(const runs &r, size_t i) {
        row = i / r.groups;
        begin = (i - row * r.groups) * r.group;
        end = begin + r.group < r.cols ? begin + r.group : r.cols;
        scale = r.per_row ? i : 0;
    }
};

#define FOR_RUNS(i, r)                                                    \
    for (size_t i = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) / 32, \
                i##_stride = (size_t)gridDim.x * blockDim.x / 32;         \
         i < (r).rows * (r).groups; i += i##_stride)

/* Integers may be added in any order. */
__device__ static void add_to(int64_t *sum, long long v) {
    atomicAdd((unsigned long long *)sum, (unsigned long long)v);
}

/* The gradients of exponents: 8-bit fractions of the normalised gradient times the trits of this pass. */
__global__ static void sum_exponents(int64_t *sum, gpu_tile_reader reader, runs r) {
    const int lane = (int)threadIdx.x % 32;
    FOR_RUNS(i, r) {
        const run a(r, i);
        long long v = 0;
        if (!r.which.goes(a.row)) continue;
        const int e = r.which.of(a.row).gradient_exp;
        for (size_t c = a.begin + (size_t)lane; c < a.end; c += 32)
            v += (long long)gpu_rule_fraction(r.g[a.row * r.cols + c], e) * reader.at(a.row, c);
        v = warp_sum(v);
        if (lane == 0) add_to(&sum[a.scale], v);
    }
}

/* corr: the trits are those that are stored, which are also those of the pass. */
__global__ static void correlate(int64_t *sum, const uint8_t *packed, size_t bytes, runs r) {
    const int lane = (int)threadIdx.x % 32;
    FOR_RUNS(i, r) {
        const run a(r, i);
        long long v = 0;
        if (!r.which.goes(a.row)) continue;
        for (size_t c = a.begin + (size_t)lane; c < a.end; c += 32)
            v += gpu_rule_sign(r.g[a.row * r.cols + c]) * gpu_t5_trit(packed[a.row * bytes + c / 5], (int)(c % 5));
        v = warp_sum(v);
        if (lane == 0) add_to(&sum[a.scale], -v);
    }
}

/* Squares of a group are summed in the order of its columns, which every lane does. */
__global__ static void step_group_rates(int8_t *rates, float *g, runs r) {
    const int lane = (int)threadIdx.x % 32;
    FOR_RUNS(i, r) {
        const run a(r, i);
        if (!r.which.goes(a.row)) continue;
        const int k = rates[i], e = r.which.of(a.row).gradient_exp;
        double sum = 0;
        for (size_t c = a.begin; c < a.end; c += 32) {
            const bool here = c + (size_t)lane < a.end;
            float *mine = g + a.row * r.cols + c + (size_t)lane;
            const float v = here ? *mine : 0;
            const double square = (double)v * (double)v;
            for (int l = 0; l < 32; l++) sum += __shfl_sync(0xffffffffu, square, l);
            if (here) *mine = v * gpu_power(k);
        }
        if (lane == 0)
            rates[i] = (int8_t)gpu_rule_group_rate(k, gpu_rule_exponent(sum / (double)(a.end - a.begin)), e);
    }
}

/* ---- once in a thousand steps */

__device__ static bool is_time(const gpu_rule_step *step, uint64_t period) {
    return step->whole && (step->step + 1) % period == 0;
}

__global__ static void step_exponents(int8_t *exponent, int64_t *sum, size_t scales, int64_t least,
                                      const gpu_rule_step *step) {
    if (!is_time(step, GPU_EXPONENT_PERIOD)) return;
    GPU_FOR(s, scales) {
        const int e = exponent[s] + (sum[s] < -least) - (sum[s] > least);
        exponent[s] = (int8_t)gpu_rule_hold(e, 30);
        sum[s] = 0;
    }
}

/* A block a group; one scale a tensor: one group of all rows. */
__global__ static void step_thresholds(uint8_t *thresholds, const int8_t *counter, size_t rows, size_t cols,
                                       size_t group, int percent, const gpu_rule_step *step) {
    if (!is_time(step, TERN_GROUP_PERIOD)) return;
    const size_t groups = (cols + group - 1) / group;
    for (size_t i = blockIdx.x; i < rows * groups; i += gridDim.x) {
        const size_t row = i / groups, begin = (i - row * groups) * group;
        const size_t n = cols - begin < group ? cols - begin : group;
        const int8_t *c = counter + row * cols + begin;
        const int h = thresholds[i];
        long long zeros[3] = {0, 0, 0};
        for (size_t j = threadIdx.x; j < n; j += blockDim.x)
            for (int k = 0; k < 3; k++) zeros[k] += abs((int)c[j]) <= h - 1 + k;
        int64_t all[3];
        for (int k = 0; k < 3; k++) all[k] = block_sum(zeros[k]);
        if (threadIdx.x == 0) thresholds[i] = (uint8_t)gpu_rule_group_threshold(h, all, (int64_t)n, percent);
    }
}

/* ---- a step */

size_t gpu_trits_scratch(const gpu_weights *w, const tern_gpu_plan *plan) {
    const size_t tiles = tern_ceil_div(w->rows, w->trits.tile_rows);
    const size_t first = gpu_trits_parts_bytes(w) + gpu_round_up(tiles * sizeof(int32_t), 256);
    if (w->trits.update != TERN_UPDATE_ORTHO) return first;
    return tern_max_size(first, gpu_orthogonal_scratch(w, plan));
}

static runs runs_of(const gpu_weights *w, const float *g, const gpu_rule_rows *rows) {
    const gpu_trits &t = w->trits;
    return {g, w->rows, w->cols, t.group, tern_ceil_div(w->cols, t.group), t.per_row, *rows};
}
static unsigned blocks_of(const tern_gpu_plan *plan, const runs &r) {
    return gpu_blocks(plan, r.rows * r.groups * 32);
}

static tern_status step_packed(const gpu_weights *w, tern_gpu_plan *plan, size_t i, const float *g,
                               const gpu_rule_rows *rows, tern_error *err) {
    const gpu_trits &t = w->trits;
    const size_t bytes = tern_ceil_div(w->cols, 5);
    if (t.update == TERN_UPDATE_VOTE) {
        const votes u = {t.packed, t.counter, g, w->rows, w->cols, *rows, t.flipping};
        step_votes<<<gpu_blocks(plan, w->rows * bytes), GPU_THREADS, 0, plan->stream>>>(u);
    } else {
        const runs r = runs_of(w, g, rows);
        correlate<<<blocks_of(plan, r), GPU_THREADS, 0, plan->stream>>>(t.correlation, t.packed, bytes, r);
    }
    GPU_LAUNCHED(plan, i, err);
    return TERN_OK;
}

static tern_status step_orthogonal(const gpu_weights *w, tern_gpu_plan *plan, size_t i, counters u, float *g,
                                   void *scratch, tern_error *err) {
    launch_counters<MOMENTUM>(plan, u);
    GPU_LAUNCHED(plan, i, err);
    const gpu_rule_step *second = w->trits.step + 1;
    GPU_CHECK(gpu_orthogonalise(w, plan, i, g, scratch, err));
    u.which = {second, 0, &second->whole, w->rows};
    u.key = tern_stream(plan->seed, ((uint64_t)3 << 32) + i);
    launch_counters<R1>(plan, u);
    GPU_LAUNCHED(plan, i, err);
    return TERN_OK;
}

static tern_status step_counts(const gpu_weights *w, tern_gpu_plan *plan, size_t i, float *g,
                               const gpu_rule_rows *rows, void *scratch, tern_error *err) {
    const gpu_trits &t = w->trits;
    if (t.rates) {
        const runs r = runs_of(w, g, rows);
        step_group_rates<<<blocks_of(plan, r), GPU_THREADS, 0, plan->stream>>>(t.rates, g, r);
        GPU_LAUNCHED(plan, i, err);
    }
    counters u = {};
    u.counter = t.counter;
    u.momentum = t.momentum;
    u.g = g;
    u.thresholds = t.thresholds;
    u.group = t.group;
    u.per_row = t.per_row;
    u.rows = w->rows;
    u.cols = w->cols;
    u.which = *rows;
    u.key = tern_stream(plan->seed, ((uint64_t)1 << 32) + i);
    u.flipping = t.flipping;
    if (t.update == TERN_UPDATE_ORTHO) return step_orthogonal(w, plan, i, u, g, scratch, err);
    if (t.update == TERN_UPDATE_R1)
        launch_counters<R1>(plan, u);
    else
        launch_counters<R2>(plan, u);
    GPU_LAUNCHED(plan, i, err);
    return TERN_OK;
}

tern_status gpu_trits_step(const gpu_weights *w, tern_gpu_plan *plan, size_t i, float *g, const gpu_rule_rows *rows,
                           void *scratch, tern_error *err) {
    const gpu_trits &t = w->trits;
    if (t.exponent_sum) {
        const runs r = runs_of(w, g, rows);
        sum_exponents<<<blocks_of(plan, r), GPU_THREADS, 0, plan->stream>>>(t.exponent_sum, gpu_trits_reader(w), r);
        GPU_LAUNCHED(plan, i, err);
    }
    return t.packed ? step_packed(w, plan, i, g, rows, err) : step_counts(w, plan, i, g, rows, scratch, err);
}

/* What is once in a thousand steps. */
tern_status gpu_trits_finish(const gpu_weights *w, tern_gpu_plan *plan, size_t i, tern_error *err) {
    const gpu_trits &t = w->trits;
    if (t.exponent_sum) {
        const double weights = (double)(w->rows * w->cols) / (double)t.scales;
        const int64_t least = (int64_t)(4 * 256 * sqrt(GPU_EXPONENT_PERIOD * weights));
        step_exponents<<<gpu_blocks(plan, t.scales), GPU_THREADS, 0, plan->stream>>>(t.exponent, t.exponent_sum,
                                                                                     t.scales, least, t.step);
        GPU_LAUNCHED(plan, i, err);
    }
    if (!t.thresholds) return TERN_OK;
    const size_t rows = t.per_row ? w->rows : 1, cols = t.per_row ? w->cols : w->rows * w->cols;
    step_thresholds<<<gpu_blocks(plan, t.scales * GPU_THREADS), GPU_THREADS, 0, plan->stream>>>(
        t.thresholds, t.counter, rows, cols, t.per_row ? t.group : cols, gpu_graph_node(plan, i)->at.zeros, t.step);
    GPU_LAUNCHED(plan, i, err);
    return TERN_OK;
}

tern_status gpu_trits_update(const gpu_weights *w, tern_gpu_plan *plan, size_t i, float *g, void *scratch,
                             tern_error *err) {
    int32_t *go = (int32_t *)((char *)scratch + gpu_trits_parts_bytes(w));
    const gpu_rule_rows rows = {w->trits.step, 0, go, w->trits.tile_rows};
    GPU_CHECK(gpu_trits_settle(w, plan, i, g, (double *)scratch, go, err));
    GPU_CHECK(gpu_trits_step(w, plan, i, g, &rows, scratch, err));
    return gpu_trits_finish(w, plan, i, err);
}
