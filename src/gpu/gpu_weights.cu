#include "gpu/gpu_weights.cuh"

#include <stdlib.h>

#include "gpu/gpu_kernels.cuh"
#include "gpu/gpu_trainer.cuh"

#include "cuda/device_memory.cuh"

extern "C" {
#include "cuda/device_matrix.h"
}
#include "tern/pack.h"

enum { PART = 8192 /* weights that a block sums */, DIGITS = 2048 };

/* ---- scales: a block takes a part of a slice, and the last one of a slice to finish what the parts came to */

struct slices {
    const float *w;
    size_t length, part; /* of a slice, of a part */
    unsigned parts;      /* of a slice */
    double *sum;         /* [slices][parts] */
    unsigned long long *kept;
    unsigned *arrived;
    float *scale, *threshold;
};

struct slice_part {
    size_t slice, begin, end;
    __device__ slice_part(const slices &s, unsigned number) {
        slice = number / s.parts;
        begin = number % s.parts * s.part;
        end = begin + s.part < s.length ? begin + s.part : s.length;
    }
};

/* True in all threads of the block that comes last of its slice's: what the others wrote before is there. */
__device__ static bool is_last(unsigned *arrived, unsigned parts) {
    __shared__ bool last;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) last = atomicAdd(arrived, 1u) == parts - 1;
    __syncthreads();
    if (last && threadIdx.x == 0) *arrived = 0;
    __threadfence();
    return last;
}

/* What a sum of |w| makes of a slice: scale and threshold, or what follows needs of them. */
struct absmean {
    enum { Above = 0 };
    __device__ static void settle(float *scale, float *threshold, double sum, unsigned long long n) {
        *scale = fmaxf(__double2float_rn(__ddiv_rn(sum, (double)n)), 1e-5f);
        *threshold = 0.5f * *scale;
    }
};
struct twn_delta {
    enum { Above = 0 };
    __device__ static void settle(float *, float *threshold, double sum, unsigned long long n) {
        *threshold = __double2float_rd(__dmul_rn(0.7, __ddiv_rn(sum, (double)n)));
    }
};
struct twn_scale {
    enum { Above = 1 };
    __device__ static void settle(float *scale, float *, double sum, unsigned long long kept) {
        *scale = kept ? __double2float_rn(__ddiv_rn(sum, (double)kept)) : 0;
    }
};

/* By a block: part `number` of all slices. */
template <class Rule> __device__ static void sum_part(const slices &s, unsigned number) {
    const slice_part p(s, number);
    const float *w = s.w + p.slice * s.length;
    const float above = Rule::Above ? s.threshold[p.slice] : 0;
    double sum = 0;
    unsigned long long kept = 0;
#pragma unroll 8
    for (size_t i = p.begin + threadIdx.x; i < p.end; i += GPU_THREADS) {
        const float v = fabsf(w[i]);
        const bool keep = !Rule::Above || v > above;
        sum += keep ? (double)v : 0.0;
        kept += keep;
    }
    sum = block_sum(sum);
    kept = block_sum(kept);
    if (s.parts > 1) {
        if (threadIdx.x == 0) {
            s.sum[number] = sum;
            s.kept[number] = kept;
        }
        if (!is_last(&s.arrived[p.slice], s.parts)) return;
        sum = 0;
        kept = 0;
        for (unsigned j = threadIdx.x; j < s.parts; j += GPU_THREADS) {
            sum += __ldcg(&s.sum[p.slice * s.parts + j]);
            kept += __ldcg(&s.kept[p.slice * s.parts + j]);
        }
        sum = block_sum(sum);
        kept = block_sum(kept);
    }
    if (threadIdx.x == 0) Rule::settle(&s.scale[p.slice], &s.threshold[p.slice], sum, kept);
}

template <class Rule> __global__ static void __launch_bounds__(GPU_THREADS) sum_magnitudes(slices s) {
    sum_part<Rule>(s, blockIdx.x);
}

/* The two weights in the middle, which are one where the count is odd: their bits as far as they are known, and how
 * many of the weights that agree with those lie below. quant/weights.c's three counting passes of 11, 10 and 10 bits.
 * A row's are those of one block; blocks that share a tensor add theirs up in `all`, [2][DIGITS], zeros between
 * launches. */
struct gpu_median {
    uint32_t found[2], below[2];
};

/* The digit whose bin holds number `below`, which becomes its number within the bin. */
__device__ static uint32_t find_digit(const uint32_t *histogram, uint32_t *below) {
    __shared__ uint32_t runs[GPU_THREADS], found[2];
    const int each = DIGITS / GPU_THREADS;
    uint32_t sum = 0;
    for (int j = 0; j < each; j++) sum += histogram[(int)threadIdx.x * each + j];
    runs[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        uint32_t left = *below, digit = 0;
        while (digit < GPU_THREADS - 1 && left >= runs[digit]) left -= runs[digit++];
        digit *= each;
        while (digit < DIGITS - 1 && left >= histogram[digit]) left -= histogram[digit++];
        found[0] = digit;
        found[1] = left;
    }
    __syncthreads();
    *below = found[1];
    const uint32_t digit = found[0];
    __syncthreads();
    return digit;
}

template <int Pass>
__global__ static void __launch_bounds__(GPU_THREADS) select_digit(slices s, gpu_median *median, uint32_t *all) {
    __shared__ uint32_t histogram[2][DIGITS];
    const int shift = Pass == 0 ? 20 : Pass == 1 ? 10 : 0;
    const uint32_t digits = Pass == 0 ? 0x7ffu : 0x3ffu;
    const uint32_t settled = Pass == 0 ? 0 : Pass == 1 ? 0x7ff00000u : 0x7ffffc00u;
    const slice_part p(s, blockIdx.x);
    const float *w = s.w + p.slice * s.length;
    gpu_median *m = &median[p.slice];
    uint32_t found[2], below[2];
    for (int j = 0; j < 2; j++) {
        found[j] = Pass ? m->found[j] : 0;
        below[j] = Pass ? m->below[j] : (uint32_t)((s.length - 1 + (size_t)j) / 2);
        for (int d = (int)threadIdx.x; d < DIGITS; d += GPU_THREADS) histogram[j][d] = 0;
    }
    __syncthreads();
    for (size_t i = p.begin + threadIdx.x; i < p.end; i += GPU_THREADS) {
        const uint32_t bits = __float_as_uint(w[i]) & 0x7fffffffu;
        for (int j = 0; j < 2; j++)
            if ((bits & settled) == found[j]) atomicAdd(&histogram[j][bits >> shift & digits], 1u);
    }
    __syncthreads();
    if (s.parts > 1) {
        uint32_t *own = &histogram[0][0];
        for (int d = (int)threadIdx.x; d < 2 * DIGITS; d += GPU_THREADS)
            if (own[d]) atomicAdd(&all[d], own[d]);
        if (!is_last(&s.arrived[p.slice], s.parts)) return;
        for (int d = (int)threadIdx.x; d < 2 * DIGITS; d += GPU_THREADS) {
            own[d] = __ldcg(&all[d]);
            all[d] = 0;
        }
        __syncthreads();
    }
    for (int j = 0; j < 2; j++) found[j] |= find_digit(histogram[j], &below[j]) << shift;
    if (threadIdx.x) return;
    for (int j = 0; j < 2; j++) {
        m->found[j] = found[j];
        m->below[j] = below[j];
    }
    if (Pass < 2) return;
    const double center = ((double)__uint_as_float(found[0]) + (double)__uint_as_float(found[1])) / 2;
    s.scale[p.slice] = fmaxf(__double2float_rn(center), 1e-5f);
    s.threshold[p.slice] = 0.5f * s.scale[p.slice];
}

static size_t part_of(const gpu_weights *w) {
    return w->rule == TERN_RULE_ABSMEDIAN && w->slices > 1 ? w->length : (size_t)PART;
}
static size_t parts_of(const gpu_weights *w) { return tern_ceil_div(w->length, part_of(w)); }
static size_t sums_bytes(const gpu_weights *w) { return gpu_round_up(w->slices * parts_of(w) * sizeof(double), 256); }

static slices slices_of(const gpu_weights *w, const tern_gpu_plan *plan, size_t i) {
    slices s = {};
    s.w = gpu_node_param(plan, i, 0)->value;
    s.length = w->length;
    s.part = part_of(w);
    s.parts = (unsigned)parts_of(w);
    s.sum = w->sums;
    s.kept = (unsigned long long *)((char *)w->sums + sums_bytes(w));
    s.arrived = w->arrived;
    s.scale = w->scale;
    s.threshold = w->threshold;
    return s;
}

static tern_status make_scales(const gpu_weights *w, tern_gpu_plan *plan, size_t i, tern_error *err) {
    const slices s = slices_of(w, plan, i);
    const unsigned blocks = (unsigned)(w->slices * s.parts);
    if (w->rule == TERN_RULE_TWN) {
        sum_magnitudes<twn_delta><<<blocks, GPU_THREADS, 0, plan->stream>>>(s);
        GPU_LAUNCHED(plan, i, err);
        sum_magnitudes<twn_scale><<<blocks, GPU_THREADS, 0, plan->stream>>>(s);
    } else if (w->rule == TERN_RULE_ABSMEDIAN) {
        select_digit<0><<<blocks, GPU_THREADS, 0, plan->stream>>>(s, w->median, w->histogram);
        GPU_LAUNCHED(plan, i, err);
        select_digit<1><<<blocks, GPU_THREADS, 0, plan->stream>>>(s, w->median, w->histogram);
        GPU_LAUNCHED(plan, i, err);
        select_digit<2><<<blocks, GPU_THREADS, 0, plan->stream>>>(s, w->median, w->histogram);
    } else {
        sum_magnitudes<absmean><<<blocks, GPU_THREADS, 0, plan->stream>>>(s);
    }
    GPU_LAUNCHED(plan, i, err);
    return TERN_OK;
}

/* ---- trits: a warp makes a tile, each lane the 16 bytes that are its own (cuda/tiles.h) */

enum operand_form { NO_OPERAND, TRITS, SCALED, MIXED };

struct tiling {
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
enum { LANE_ROWS = 2, HALVES = 2, HALF = TERN_TILE_CHUNKS_T2 * TERN_TILE_CHUNK, TILES_AT_ONCE = GPU_THREADS / 32 };

/* One lane's word, of one row and half. */
template <class T, operand_form Form, bool Whole>
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
template <class T, operand_form Form, bool Whole>
__device__ static void make_tile(const tiling &p, T *operand, size_t tile, float lambda) {
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

template <class T, operand_form Form, bool Whole>
__global__ static void __launch_bounds__(GPU_THREADS) make_tiles(tiling p, T *operand) {
    const size_t warps = (size_t)gridDim.x * TILES_AT_ONCE;
    const float lambda = Form == MIXED ? p.now->lambda : 1;
    for (size_t tile = (size_t)blockIdx.x * TILES_AT_ONCE + threadIdx.x / 32; tile < p.count; tile += warps)
        make_tile<T, Form, Whole>(p, operand, tile, lambda);
}

template <class T, operand_form Form> static void launch_tiles(tern_gpu_plan *plan, const tiling &p, void *operand) {
    const unsigned blocks = gpu_blocks(plan, p.count * 32);
    if (p.cols % 4)
        make_tiles<T, Form, false><<<blocks, GPU_THREADS, 0, plan->stream>>>(p, (T *)operand);
    else
        make_tiles<T, Form, true><<<blocks, GPU_THREADS, 0, plan->stream>>>(p, (T *)operand);
}

static tiling tiling_of(const gpu_weights *w, const tern_gpu_plan *plan, size_t i) {
    tiling p = {};
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

static tern_status make_trits(const gpu_weights *w, tern_gpu_plan *plan, size_t i, tern_error *err) {
    const tiling p = tiling_of(w, plan, i);
    GPU_BY_TYPE(plan->products, if (!w->operand) launch_tiles<T, NO_OPERAND>(plan, p, NULL);
                else if (plan->mixed) launch_tiles<T, MIXED>(plan, p, w->operand);
                else if (w->scaled) launch_tiles<T, SCALED>(plan, p, w->operand);
                else launch_tiles<T, TRITS>(plan, p, w->operand));
    GPU_LAUNCHED(plan, i, err);
    return TERN_OK;
}

/* ---- all nodes of a kind in two launches */

struct gpu_weights_job {
    slices s;
    tiling t;
    void *operand;
    int scaled;
    unsigned first_part, first_block; /* of the blocks that sum and that make tiles, those of the jobs before */
};

/* The last job whose `first` is not above the block. */
__device__ static const gpu_weights_job &find_job(const gpu_weights_job *job, unsigned jobs,
                                                  unsigned gpu_weights_job::*first) {
    unsigned low = 0;
    for (unsigned high = jobs; high - low > 1;) {
        const unsigned middle = (low + high) / 2;
        if (job[middle].*first <= blockIdx.x)
            low = middle;
        else
            high = middle;
    }
    return job[low];
}

__global__ static void __launch_bounds__(GPU_THREADS) sum_jobs(const gpu_weights_job *list, unsigned jobs) {
    const gpu_weights_job &job = find_job(list, jobs, &gpu_weights_job::first_part);
    const slices s = job.s;
    sum_part<absmean>(s, blockIdx.x - job.first_part);
}

template <class T, bool Mixed>
__global__ static void __launch_bounds__(GPU_THREADS) tile_jobs(const gpu_weights_job *list, unsigned jobs) {
    const gpu_weights_job &job = find_job(list, jobs, &gpu_weights_job::first_block);
    const tiling p = job.t;
    const size_t tile = (size_t)(blockIdx.x - job.first_block) * TILES_AT_ONCE + threadIdx.x / 32;
    if (tile >= p.count) return;
    if (Mixed)
        make_tile<T, MIXED, true>(p, (T *)job.operand, tile, p.now->lambda);
    else if (job.scaled)
        make_tile<T, SCALED, true>(p, (T *)job.operand, tile, 1);
    else
        make_tile<T, TRITS, true>(p, (T *)job.operand, tile, 1);
}

static bool is_listed(const gpu_weights *w) {
    return w && !w->trits.exponent && w->tiles && w->operand && w->rule == TERN_RULE_ABSMEAN && w->cols % 4 == 0;
}

/* Fills `job` unless it is NULL. */
static void list_jobs(gpu_weights_list *list, gpu_weights_job *job, const tern_gpu_plan *plan) {
    *list = {};
    for (size_t i = 1; i < plan->graph->nodes; i++) {
        const gpu_weights *w = plan->node[i].op ? gpu_node_weights(plan, i) : NULL;
        if (!is_listed(w)) continue;
        const slices s = slices_of(w, plan, i);
        const tiling t = tiling_of(w, plan, i);
        if (job) job[list->jobs] = {s, t, w->operand, w->scaled, list->parts, list->blocks};
        list->node = i;
        list->jobs++;
        list->parts += (unsigned)w->slices * s.parts;
        list->blocks += (unsigned)tern_ceil_div(t.count, TILES_AT_ONCE);
    }
}

tern_status gpu_weights_list_make(gpu_weights_list *list, tern_gpu_plan *plan, tern_error *err) {
    static const char op[] = "weights";
    list_jobs(list, NULL, plan);
    if (!list->jobs) return TERN_OK;
    gpu_weights_job *job = (gpu_weights_job *)calloc(list->jobs, sizeof *job);
    if (!job) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for training");
    list_jobs(list, job, plan);
    void *memory;
    tern_status status = gpu_keep(plan, &memory, list->jobs * sizeof *job, op, err);
    if (!status) status = tern_cuda_upload(plan->context, memory, job, list->jobs * sizeof *job, err);
    list->job = (const gpu_weights_job *)memory;
    free(job);
    return status;
}

tern_status gpu_weights_list_refresh(const gpu_weights_list *list, tern_gpu_plan *plan, tern_error *err) {
    if (!list->jobs) return TERN_OK;
    sum_jobs<<<list->parts, GPU_THREADS, 0, plan->stream>>>(list->job, list->jobs);
    GPU_LAUNCHED(plan, list->node, err);
    GPU_BY_TYPE(plan->products, if (plan->mixed) tile_jobs<T, true>
                <<<list->blocks, GPU_THREADS, 0, plan->stream>>>(list->job, list->jobs);
                else tile_jobs<T, false><<<list->blocks, GPU_THREADS, 0, plan->stream>>>(list->job, list->jobs));
    GPU_LAUNCHED(plan, list->node, err);
    return TERN_OK;
}

/* ---- counts, a word of sixteen trits at a time. Fields of counted words that are 10, which is no trit, were never
 * counted: that is what they all hold at first. */

enum { NEVER_COUNTED = 0xaa };

__global__ static void count_trits(tern_gpu_trits *counts, const uint4 *tiles, uint4 *counted, size_t n,
                                   unsigned long long all) {
    const uint32_t fields = 0x55555555u;
    unsigned long long minus = 0, plus = 0, flips = 0;
    GPU_FOR(i, n) {
        const uint4 now = tiles[i], before = counted[i];
        const uint32_t a[4] = {now.x, now.y, now.z, now.w}, b[4] = {before.x, before.y, before.z, before.w};
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const uint32_t changed = a[j] ^ b[j], never = b[j] >> 1 & ~b[j];
            minus += (unsigned)__popc(a[j] >> 1 & fields);
            plus += (unsigned)__popc(a[j] & ~(a[j] >> 1) & fields);
            flips += (unsigned)__popc((changed | changed >> 1) & ~never & fields);
        }
        counted[i] = now;
    }
    minus = block_sum(minus);
    plus = block_sum(plus);
    flips = block_sum(flips);
    if (threadIdx.x) return;
    unsigned long long *sum = (unsigned long long *)counts;
    atomicAdd(&sum[0], minus);
    atomicAdd(&sum[1], (blockIdx.x ? 0 : all) - minus - plus); /* zeros, modulo 2^64 */
    atomicAdd(&sum[2], plus);
    atomicAdd(&sum[3], flips);
}

tern_status gpu_weights_count(const gpu_weights *w, tern_gpu_plan *plan, size_t i, tern_error *err) {
    const size_t n = w->groups * w->tile_bytes / sizeof(uint4);
    CUDA_TRY(cudaMemsetAsync(w->counts, 0, sizeof *w->counts, plan->stream), gpu_graph_node(plan, i)->name, err);
    count_trits<<<gpu_blocks(plan, n, 4), GPU_THREADS, 0, plan->stream>>>(
        w->counts, (const uint4 *)w->tiles, (uint4 *)w->counted, n, (unsigned long long)(w->rows * w->cols));
    GPU_LAUNCHED(plan, i, err);
    return TERN_OK;
}

/* ---- preparation */

static tern_status keep_zeros(tern_gpu_plan *plan, void **memory, size_t bytes, const char *name, tern_error *err) {
    GPU_CHECK(gpu_keep(plan, memory, bytes, name, err));
    CUDA_TRY(cudaMemsetAsync(*memory, 0, bytes, plan->stream), name, err);
    return TERN_OK;
}

static tern_status keep_tiles(gpu_weights *w, tern_gpu_plan *plan, size_t i, tern_error *err) {
    const size_t rows = w->rows / w->groups;
    void *memory;
    w->first.rows = (int32_t)rows;
    w->first.cols = (int32_t)w->cols;
    w->first.row_tiles = (int32_t)tern_ceil_div(rows, TERN_TILE_ROWS);
    w->first.k_tiles = (int32_t)tern_ceil_div(w->cols, tern_tile_cols(0));
    w->tile_bytes = (size_t)w->first.row_tiles * (size_t)w->first.k_tiles * TERN_TILE_BYTES;
    GPU_CHECK(keep_zeros(plan, &memory, w->groups * w->tile_bytes, gpu_graph_node(plan, i)->name, err));
    w->first.tiles = w->tiles = (uint8_t *)memory;
    return TERN_OK;
}

static tern_status keep_latent(gpu_weights *w, tern_gpu_plan *plan, size_t i, tern_error *err) {
    const tern_node *node = gpu_graph_node(plan, i);
    void *memory;
    w->rule = node->at.rule;
    w->slices = node->at.granularity == TERN_PER_ROW ? w->rows : 1;
    w->length = w->rows * w->cols / w->slices;
    if (w->length > UINT32_MAX || w->slices * parts_of(w) > INT32_MAX)
        return tern_fail(err, TERN_E_SIZE, TERN_NO_PLACE, "%s: %zu x %zu weights are too many for a GPU", node->name,
                         w->rows, w->cols);
    GPU_CHECK(keep_tiles(w, plan, i, err));
    w->first.scale_per_row = w->slices > 1;
    GPU_CHECK(gpu_keep(plan, &memory, w->slices * sizeof(float), node->name, err));
    w->first.scale = w->scale = (float *)memory;
    GPU_CHECK(gpu_keep(plan, &memory, w->slices * sizeof(float), node->name, err));
    w->threshold = (float *)memory;
    GPU_CHECK(keep_zeros(plan, &memory, w->slices * sizeof(unsigned), node->name, err));
    w->arrived = (unsigned *)memory;
    if (w->rule == TERN_RULE_ABSMEDIAN) {
        GPU_CHECK(keep_zeros(plan, &memory, w->slices * sizeof(gpu_median), node->name, err));
        w->median = (gpu_median *)memory;
        GPU_CHECK(keep_zeros(plan, &memory, 2 * DIGITS * sizeof(uint32_t), node->name, err));
        w->histogram = (uint32_t *)memory;
    }
    GPU_CHECK(gpu_keep(plan, &memory, 2 * sums_bytes(w), node->name, err));
    w->sums = (double *)memory;
    return TERN_OK;
}

static tern_status keep_training(gpu_weights *w, tern_gpu_plan *plan, size_t i, tern_error *err) {
    const char *name = gpu_graph_node(plan, i)->name;
    void *memory;
    if (!gpu_trits_are_in(plan, i)) /* those are made when the backward pass wants them */
        GPU_CHECK(gpu_keep(plan, &w->operand, w->rows * w->cols * gpu_bytes(plan->products), name, err));
    GPU_CHECK(gpu_keep(plan, &memory, w->groups * w->tile_bytes, name, err));
    CUDA_TRY(cudaMemsetAsync(memory, NEVER_COUNTED, w->groups * w->tile_bytes, plan->stream), name, err);
    w->counted = (uint8_t *)memory;
    GPU_CHECK(keep_zeros(plan, &memory, sizeof *w->counts, name, err));
    w->counts = (tern_gpu_trits *)memory;
    return TERN_OK;
}

static tern_matrix_desc describe_packed(const tern_packed *p, size_t group) {
    const size_t bytes = p->byte_count / p->matrices;
    tern_matrix_desc d = {};
    d.rows = p->rows;
    d.cols = p->cols;
    d.packing = p->packing;
    d.packed = p->bytes + group * bytes;
    d.packed_bytes = bytes;
    d.scale_kind = p->scale_kind;
    if (p->scales) d.scales = p->scales + (p->scale_kind == TERN_SCALE_ROW ? group * p->scale_count : 0);
    if (p->exponents) d.exponents = p->exponents + group * p->scale_count;
    d.scale_count = p->scale_count;
    d.group = p->group;
    return d;
}

/* One copy of a group's part of tiles or scales into what all groups share. */
static tern_status gather(tern_gpu_plan *plan, void **all, size_t groups, size_t group, const void *part,
                          size_t bytes, const char *name, tern_error *err) {
    if (!part) return TERN_OK;
    if (group == 0) GPU_CHECK(gpu_keep(plan, all, groups * bytes, name, err));
    return tern_cuda_copy(plan->context, (char *)*all + group * bytes, part, bytes, err);
}

/* cuda/device_matrix.c makes each group's matrix; their contents move to memory that is the plan's. */
static tern_status send_packed(gpu_weights *w, tern_gpu_plan *plan, size_t i, tern_error *err) {
    const tern_node *node = gpu_graph_node(plan, i);
    tern_device device = {};
    device.backend = tern_cuda_backend_table(TERN_CUDA_BACKEND_VERSION);
    device.context = plan->context;
    void *tiles = NULL, *scale = NULL, *exponents = NULL;
    for (size_t g = 0; g < w->groups; g++) {
        const tern_matrix_desc d = describe_packed(&node->packed, g);
        tern_device_matrix *m = NULL;
        GPU_CHECK(tern_validate(d.packing, d.packed, d.packed_bytes, d.rows, d.cols, err));
        GPU_CHECK(tern_cuda_matrix_create(&m, &device, &d, err));
        w->first = m->weights;
        w->tile_bytes = m->tile_bytes;
        tern_status status = gather(plan, &tiles, w->groups, g, m->weights.tiles, m->tile_bytes, node->name, err);
        if (!status) status = gather(plan, &scale, w->groups, g, m->weights.scale, m->scale_bytes, node->name, err);
        if (!status)
            status = gather(plan, &exponents, w->groups, g, m->weights.exponents, m->scale_bytes, node->name, err);
        tern_cuda_matrix_free(m);
        GPU_CHECK(status);
    }
    w->first.tiles = (const uint8_t *)tiles;
    w->first.scale = (const float *)scale;
    w->first.exponents = (const int8_t *)exponents;
    return TERN_OK;
}

tern_status gpu_weights_prepare(gpu_weights *w, tern_gpu_plan *plan, size_t i, tern_error *err) {
    const tern_node *node = gpu_graph_node(plan, i);
    const size_t groups = node->at.groups ? node->at.groups : 1, c = tern_node_input(plan->graph, node, 0)->channels;
    w->rows = node->at.outputs;
    w->cols = node->at.groups  ? node->at.kernel * node->at.kernel * (c / groups)
              : node->at.width ? node->at.width
                               : c;
    w->groups = groups;
    if (node->packed.bytes) return send_packed(w, plan, i, err);
    if (gpu_trits_are_in(plan, i)) {
        GPU_CHECK(keep_tiles(w, plan, i, err));
        GPU_CHECK(gpu_trits_prepare(w, plan, i, err));
    } else {
        GPU_CHECK(keep_latent(w, plan, i, err));
    }
    return plan->training ? keep_training(w, plan, i, err) : TERN_OK;
}

tern_status gpu_weights_refresh(gpu_weights *w, tern_gpu_plan *plan, size_t i, tern_error *err) {
    if (w->trits.exponent) return gpu_trits_refresh(w, plan, i, err);
    if (!w->tiles) return TERN_OK;
    if (!plan->trainer || !is_listed(w)) { /* else gpu_weights_list_refresh came first */
        GPU_CHECK(make_scales(w, plan, i, err));
        GPU_CHECK(make_trits(w, plan, i, err));
    }
    return w->counts && plan->count_trits ? gpu_weights_count(w, plan, i, err) : TERN_OK;
}

tern_cuda_weights gpu_weights_matrix(const gpu_weights *w, size_t group) {
    tern_cuda_weights m = w->first;
    const size_t rows = (size_t)m.rows;
    m.tiles += group * w->tile_bytes;
    if (m.scale_per_row) m.scale += group * rows;
    if (m.exponents) m.exponents += group * rows * (size_t)m.groups;
    return m;
}
