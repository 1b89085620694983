/* One step of the rules: nn/trit_backward.c and nn/trit_weights.c with the whole layer's gradient at hand. */
#include "gpu/gpu_gemm.cuh"
#include "gpu/gpu_kernels.cuh"
#include "gpu/gpu_trit_rules.h"
#include "gpu/gpu_trits.cuh"
#include "gpu/gpu_weights.cuh"

/* ---- sums of squares, in the order of tern_sum_of_squares: sixteen interleaved sums of every part, each in ascending
 * order, then these, then the parts. Squares of floats are exact in double. */

struct square_tiles {
    const float *g;
    size_t count, tile; /* gradients; of a tile, of which the last may have fewer */
    size_t parts;       /* of a tile */
};

static square_tiles tiles_of(const float *g, size_t count, size_t tile) {
    return {g, count, tile, tern_ceil_div(tile, GPU_SUM_PART)};
}
static size_t tiles_in(const square_tiles &t) { return tern_ceil_div(t.count, t.tile); }

enum { STAGE = 2048, AHEAD = STAGE / GPU_THREADS };

/* All threads bring squares, sixteen add them; zeros behind the end change no sum. */
__global__ static void __launch_bounds__(GPU_THREADS) square_parts(double *part, square_tiles t) {
    __shared__ double squares[STAGE], lane[GPU_SUM_LANES];
    const int thread = (int)threadIdx.x;
    const size_t tile = blockIdx.x / t.parts, first = tile * t.tile;
    const size_t tile_end = first + t.tile < t.count ? first + t.tile : t.count;
    const size_t begin = first + blockIdx.x % t.parts * GPU_SUM_PART;
    const size_t end = begin + GPU_SUM_PART < tile_end ? begin + GPU_SUM_PART : tile_end;
    float next[AHEAD];
    double sum = 0;
#pragma unroll
    for (int j = 0; j < AHEAD; j++) {
        const size_t i = begin + (size_t)(thread + j * GPU_THREADS);
        next[j] = i < end ? t.g[i] : 0;
    }
    for (size_t at = begin; at < end; at += STAGE) {
#pragma unroll
        for (int j = 0; j < AHEAD; j++) squares[thread + j * GPU_THREADS] = (double)next[j] * (double)next[j];
        __syncthreads();
#pragma unroll
        for (int j = 0; j < AHEAD; j++) {
            const size_t i = at + STAGE + (size_t)(thread + j * GPU_THREADS);
            next[j] = i < end ? t.g[i] : 0;
        }
        if (thread < GPU_SUM_LANES) {
#pragma unroll 16
            for (int c = 0; c < STAGE; c += GPU_SUM_LANES) sum += squares[c + thread];
        }
        __syncthreads();
    }
    if (thread < GPU_SUM_LANES) lane[thread] = sum;
    __syncthreads();
    if (thread) return;
    double total = 0;
    for (int l = 0; l < GPU_SUM_LANES; l++) total += lane[l];
    part[blockIdx.x] = total;
}

static tern_status sum_squares(tern_gpu_plan *plan, const char *name, double *part, const square_tiles &t,
                               tern_error *err) {
    square_parts<<<(unsigned)(tiles_in(t) * t.parts), GPU_THREADS, 0, plan->stream>>>(part, t);
    CUDA_TRY(cudaGetLastError(), name, err);
    return TERN_OK;
}

__device__ static double tile_sum(const double *part, size_t parts, size_t tile) {
    double sum = 0;
    for (size_t p = 0; p < parts; p++) sum += part[tile * parts + p];
    return sum;
}

/* ---- what a step does: one thread decides, in the order of the CPU's tiles */

struct judgement {
    const double *part;
    size_t tiles, parts;
    double weights;
    uint64_t node;
    int8_t *gradient_exponent;
    int32_t *steps;     /* may be NULL */
    int orthogonal_exp; /* of ortho's second step */
    const gpu_now *now;
    gpu_rules *rules;
    gpu_rule_step *step; /* [2] */
    int32_t *go;         /* [tiles] */
};

__global__ static void judge(judgement j) {
    const int32_t rate = j.now->rate;
    int e = *j.gradient_exponent;
    bool updates = rate != 0;
    if (updates && e == TERN_NO_GRADIENT_EXP) { /* the first step has no measure of its gradients yet */
        double all = 0;
        for (size_t t = 0; t < j.tiles; t++) all += tile_sum(j.part, j.parts, t);
        e = isfinite(all) ? gpu_rule_exponent(all / j.weights) : TERN_NO_GRADIENT_EXP;
        *j.gradient_exponent = (int8_t)e;
    }
    updates &= e != TERN_NO_GRADIENT_EXP;
    uint64_t trouble = j.rules->trouble;
    double squares = 0;
    for (size_t t = 0; t < j.tiles; t++) {
        const double sum = tile_sum(j.part, j.parts, t);
        if (!isfinite(sum) && !trouble) trouble = j.node;
        j.go[t] = updates && !trouble;
        squares += sum;
    }
    const bool whole = updates && !trouble;
    if (whole) {
        const int next = gpu_rule_exponent(squares / j.weights);
        if (next != TERN_NO_GRADIENT_EXP) *j.gradient_exponent = (int8_t)next;
        if (j.steps) *j.steps += *j.steps < INT32_MAX;
    }
    j.rules->squares += squares;
    j.rules->trouble = trouble;
    j.step[0] = {j.now->step, rate, e, whole};
    j.step[1] = {j.now->step, rate, j.orthogonal_exp, whole};
}

/* ---- the rules of counters: a thread takes eight weights of a row, whose random numbers are of one block, or of r2 two */

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

/* ---- ortho: the momentum made orthogonal, as nn/orthogonal.c does, and the counters' step along it. On which side the
 * square lies decides the order of the factors, so that nothing is transposed. */

enum { NEWTON_STEPS = 4 };

__global__ static void sum_momentum(unsigned long long *sum, const int8_t *m, size_t n) {
    long long squares = 0;
    GPU_FOR(i, n) squares += m[i] * m[i];
    squares = block_sum(squares);
    if (threadIdx.x == 0) atomicAdd(sum, (unsigned long long)squares);
}

__global__ static void normalise_momentum(float *x, const int8_t *m, const unsigned long long *sum, size_t n) {
    const float inverse = (float)(1.0 / (sqrt((double)*sum) + 1e-7));
    GPU_FOR(i, n) x[i] = (float)m[i] * inverse;
}

/* x = x a + y b. */
__global__ static void blend(float *x, const float *y, size_t n, float a, float b) {
    GPU_FOR(i, n) x[i] = x[i] * a + y[i] * b;
}

struct newton {
    size_t rows, cols, side; /* the shorter one */
    float *x, *next, *s, *s2;
    void *x_room, *s_room; /* operands in bf16 */
    unsigned long long *sum;
    size_t bytes;
};

/* x lies where the gradient was. */
static newton newton_of(const gpu_weights *w, const tern_gpu_plan *plan, float *g, void *scratch) {
    newton t = {w->rows, w->cols, tern_min_size(w->rows, w->cols), g, NULL, NULL, NULL, NULL, NULL, NULL, 0};
    char *at = (char *)scratch;
    const auto take = [&](size_t bytes) {
        char *taken = at + t.bytes;
        t.bytes += gpu_round_up(bytes, 256);
        return taken;
    };
    const size_t n = t.rows * t.cols, square = t.side * t.side;
    t.sum = (unsigned long long *)take(sizeof *t.sum);
    t.next = (float *)take(n * sizeof(float));
    t.s = (float *)take(square * sizeof(float));
    t.s2 = (float *)take(square * sizeof(float));
    t.x_room = take(plan->products == TERN_BF16 ? n * 2 : 0);
    t.s_room = take(plan->products == TERN_BF16 ? square * 2 : 0);
    return t;
}

static tern_status operand(tern_gpu_plan *plan, size_t i, const void **to, void *room, const float *x, size_t n,
                           tern_error *err) {
    *to = x;
    if (plan->products == TERN_F32) return TERN_OK;
    *to = room;
    return gpu_convert(plan, i, plan->products, room, x, n, err);
}

static tern_status newton_step(tern_gpu_plan *plan, size_t i, const newton &t, tern_error *err) {
    const bool wide = t.rows <= t.cols;
    const size_t n = t.rows * t.cols, square = t.side * t.side;
    const void *x, *s;
    gpu_gemm m = {};
    m.operands = plan->products;
    m.result = TERN_F32;
    m.m = m.n = t.side;
    m.k = wide ? t.cols : t.rows;
    m.a_turned = !wide;
    m.b_turned = wide;
    GPU_CHECK(operand(plan, i, &x, t.x_room, t.x, n, err));
    GPU_CHECK(gpu_multiply(plan, i, &m, t.s, x, x, err));
    m.k = t.side;
    m.a_turned = m.b_turned = 0;
    GPU_CHECK(operand(plan, i, &s, t.s_room, t.s, square, err));
    GPU_CHECK(gpu_multiply(plan, i, &m, t.s2, s, s, err));
    blend<<<gpu_blocks(plan, square, 4), GPU_THREADS, 0, plan->stream>>>(t.s, t.s2, square, -4.7750f, 2.0315f);
    GPU_LAUNCHED(plan, i, err);
    GPU_CHECK(operand(plan, i, &s, t.s_room, t.s, square, err));
    m.m = t.rows;
    m.n = t.cols;
    GPU_CHECK(gpu_multiply(plan, i, &m, t.next, wide ? s : x, wide ? x : s, err));
    blend<<<gpu_blocks(plan, n, 4), GPU_THREADS, 0, plan->stream>>>(t.x, t.next, n, 3.4445f, 1);
    GPU_LAUNCHED(plan, i, err);
    return TERN_OK;
}

static tern_status orthogonalise(const gpu_weights *w, tern_gpu_plan *plan, size_t i, const newton &t,
                                 tern_error *err) {
    const size_t n = w->rows * w->cols;
    const unsigned blocks = gpu_blocks(plan, n, 4);
    CUDA_TRY(cudaMemsetAsync(t.sum, 0, sizeof *t.sum, plan->stream), gpu_graph_node(plan, i)->name, err);
    sum_momentum<<<blocks, GPU_THREADS, 0, plan->stream>>>(t.sum, w->trits.momentum, n);
    GPU_LAUNCHED(plan, i, err);
    normalise_momentum<<<blocks, GPU_THREADS, 0, plan->stream>>>(t.x, w->trits.momentum, t.sum, n);
    GPU_LAUNCHED(plan, i, err);
    for (int step = 0; step < NEWTON_STEPS; step++) GPU_CHECK(newton_step(plan, i, t, err));
    return TERN_OK;
}

/* ---- a step */

/* In scratch: sums of the parts, then which tiles are stepped. */
static size_t parts_bytes(const gpu_weights *w) {
    const square_tiles t = tiles_of(NULL, w->rows * w->cols, w->trits.tile_rows * w->cols);
    return gpu_round_up(tiles_in(t) * t.parts * sizeof(double), 256);
}

size_t gpu_trits_scratch(const gpu_weights *w, const tern_gpu_plan *plan) {
    const size_t tiles = tern_ceil_div(w->rows, w->trits.tile_rows);
    const size_t first = parts_bytes(w) + gpu_round_up(tiles * sizeof(int32_t), 256);
    if (w->trits.update != TERN_UPDATE_ORTHO) return first;
    return tern_max_size(first, newton_of(w, plan, NULL, NULL).bytes);
}

static tern_status settle(const gpu_weights *w, tern_gpu_plan *plan, size_t i, const float *g, double *part,
                          int32_t *go, tern_error *err) {
    const gpu_trits &t = w->trits;
    const square_tiles squares = tiles_of(g, w->rows * w->cols, t.tile_rows * w->cols);
    judgement j = {};
    j.part = part;
    j.tiles = tiles_in(squares);
    j.parts = squares.parts;
    j.weights = (double)(w->rows * w->cols);
    j.node = i;
    j.gradient_exponent = t.gradient_exponent;
    j.steps = t.steps;
    j.orthogonal_exp = gpu_rule_exponent(1 / (double)tern_max_size(w->rows, w->cols));
    j.now = plan->now;
    j.rules = plan->rules;
    j.step = t.step;
    j.go = go;
    GPU_CHECK(sum_squares(plan, gpu_graph_node(plan, i)->name, part, squares, err));
    judge<<<1, 1, 0, plan->stream>>>(j);
    GPU_LAUNCHED(plan, i, err);
    return TERN_OK;
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
    const newton t = newton_of(w, plan, g, scratch);
    const gpu_rule_step *second = w->trits.step + 1;
    GPU_CHECK(orthogonalise(w, plan, i, t, err));
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
    int32_t *go = (int32_t *)((char *)scratch + parts_bytes(w));
    const gpu_rule_rows rows = {w->trits.step, 0, go, w->trits.tile_rows};
    GPU_CHECK(settle(w, plan, i, g, (double *)scratch, go, err));
    GPU_CHECK(gpu_trits_step(w, plan, i, g, &rows, scratch, err));
    return gpu_trits_finish(w, plan, i, err);
}

/* ---- parameters in fixed point */

/* What tern_param_view makes of an integer. */
template <class V> __device__ static float viewed(V v, int exponent) { return (float)v * gpu_power(exponent); }

struct fixed {
    int16_t *c;
    float *value;
    const float *g;
    const double *part;
    size_t count, parts;
    int exponent;
    uint64_t key;
    const tern_gpu_rule *rule;
    const uint64_t *step;
    uint64_t batches; /* of a step */
    const int32_t *good;
};

__global__ static void step_fixed(fixed u) {
    if ((u.good && !*u.good) || u.rule->frozen) return;
    const int e = gpu_rule_exponent(tile_sum(u.part, u.parts, 0) / (double)u.count);
    if (e == TERN_NO_GRADIENT_EXP) return;
    const double one = (double)TERN_RATE_ONE * (double)gpu_power(-u.exponent);
    const int32_t rate = __double2int_rn(fmin((double)u.rule->lr * one, (double)TERN_FIXED_RATE_MAX));
    const float f = gpu_rule_factor(rate, e, 12);
    const uint64_t number = *u.step / u.batches;
    GPU_FOR(i, (u.count + 7) / 8) {
        const tern_random4 r = tern_philox(u.key, i, number);
        for (int j = 0; j < 8; j++) {
            const size_t at = i * 8 + (size_t)j;
            if (at >= u.count) break;
            u.c[at] = (int16_t)gpu_rule_fixed(u.c[at], u.g[at], f, gpu_rule_bits(&r, j));
            u.value[at] = viewed(u.c[at], u.exponent);
        }
    }
}

size_t gpu_fixed_scratch(const tern_graph *graph) {
    size_t most = 0;
    for (size_t p = 0; p < graph->params; p++)
        if (graph->param[p].store == TERN_STORE_FIXED16) most = tern_max_size(most, graph->param[p].count);
    return gpu_round_up(tern_ceil_div(most, GPU_SUM_PART) * sizeof(double), 256);
}

tern_status gpu_fixed_step(tern_gpu_plan *plan, size_t p, const tern_gpu_rule *rule, const uint64_t *step,
                           uint64_t parts, const int32_t *good, tern_error *err) {
    const tern_param *param = &plan->graph->param[p];
    const gpu_param *own = &plan->param[p];
    const square_tiles squares = tiles_of(own->grad, param->count, param->count);
    double *part = (double *)plan->scratch;
    const fixed u = {(int16_t *)own->integers,
                     own->value,
                     own->grad,
                     part,
                     param->count,
                     squares.parts,
                     param->exponent,
                     tern_stream(plan->seed, ((uint64_t)2 << 32) + p),
                     rule,
                     step,
                     parts,
                     good};
    GPU_CHECK(sum_squares(plan, param->name, part, squares, err));
    step_fixed<<<gpu_blocks(plan, tern_ceil_div(param->count, 8)), GPU_THREADS, 0, plan->stream>>>(u);
    CUDA_TRY(cudaGetLastError(), param->name, err);
    return TERN_OK;
}

__global__ static void round_fixed(void *integers, float *value, size_t n, int exponent, bool narrow,
                                   const int32_t *good) {
    const float scale = gpu_power(-exponent);
    if (good && !*good) return;
    GPU_FOR(i, n) {
        const float v = value[i];
        if (narrow) {
            int16_t *to = (int16_t *)integers + i;
            *to = (int16_t)__float2int_rn(fminf(fmaxf(v * scale, -(float)INT16_MAX), (float)INT16_MAX));
            value[i] = viewed(*to, exponent);
        } else {
            int32_t *to = (int32_t *)integers + i;
            *to = __double2int_rn(fmin(fmax((double)v * (double)scale, -(double)INT32_MAX), (double)INT32_MAX));
            value[i] = viewed(*to, exponent);
        }
    }
}

tern_status gpu_fixed_round(tern_gpu_plan *plan, size_t p, const int32_t *good, tern_error *err) {
    const tern_param *param = &plan->graph->param[p];
    round_fixed<<<gpu_blocks(plan, param->count), GPU_THREADS, 0, plan->stream>>>(
        plan->param[p].integers, plan->param[p].value, param->count, param->exponent,
        param->store == TERN_STORE_FIXED16, good);
    CUDA_TRY(cudaGetLastError(), param->name, err);
    return TERN_OK;
}
