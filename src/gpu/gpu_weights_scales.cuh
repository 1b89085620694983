/* Scales of latent weights: a block takes a part of a slice, a run of weights that share a scale, and the last one of
 * a slice to finish what the parts came to. */
#ifndef TERN_GPU_GPU_WEIGHTS_SCALES_CUH
#define TERN_GPU_GPU_WEIGHTS_SCALES_CUH

#include "gpu/gpu_kernels.cuh"
#include "gpu/gpu_weights.cuh"

enum { GPU_SLICE_PART = 8192 /* weights that a block sums */, GPU_MEDIAN_DIGITS = 2048 };

struct gpu_slices {
    const float *w;
    size_t length, part; /* of a slice, of a part */
    unsigned parts;      /* of a slice */
    double *sum;         /* [slices][parts] */
    unsigned long long *kept;
    unsigned *arrived;
    float *scale, *threshold;
};

struct gpu_slice_part {
    size_t slice, begin, end;
    __device__ gpu_slice_part(const gpu_slices &s, unsigned number) {
        slice = number / s.parts;
        begin = number % s.parts * s.part;
        end = begin + s.part < s.length ? begin + s.part : s.length;
    }
};

/* True in all threads of the block that comes last of its slice's: what the others wrote before is there. */
__device__ static bool gpu_is_last(unsigned *arrived, unsigned parts) {
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
template <class Rule> __device__ static void gpu_sum_part(const gpu_slices &s, unsigned number) {
    const gpu_slice_part p(s, number);
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
        if (!gpu_is_last(&s.arrived[p.slice], s.parts)) return;
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

/* The two weights in the middle, which are one where the count is odd: their bits as far as they are known, and how
 * many of the weights that agree with those lie below. quant/weights.c's three counting passes of 11, 10 and 10 bits.
 * A row's are those of one block; blocks that share a tensor add theirs up in `all`, [2][GPU_MEDIAN_DIGITS], zeros
 * between launches. */
struct gpu_median {
    uint32_t found[2], below[2];
};

static inline size_t gpu_slice_part_length(const gpu_weights *w) {
    return w->rule == TERN_RULE_ABSMEDIAN && w->slices > 1 ? w->length : (size_t)GPU_SLICE_PART;
}
static inline size_t gpu_slice_parts(const gpu_weights *w) {
    return tern_ceil_div(w->length, gpu_slice_part_length(w));
}
static inline size_t gpu_slice_sums_bytes(const gpu_weights *w) {
    return gpu_round_up(w->slices * gpu_slice_parts(w) * sizeof(double), 256);
}

static inline gpu_slices gpu_slices_of(const gpu_weights *w, const tern_gpu_plan *plan, size_t i) {
    gpu_slices s = {};
    s.w = gpu_node_param(plan, i, 0)->value;
    s.length = w->length;
    s.part = gpu_slice_part_length(w);
    s.parts = (unsigned)gpu_slice_parts(w);
    s.sum = w->sums;
    s.kept = (unsigned long long *)((char *)w->sums + gpu_slice_sums_bytes(w));
    s.arrived = w->arrived;
    s.scale = w->scale;
    s.threshold = w->threshold;
    return s;
}

/* Of one node, by its rule. */
tern_status gpu_weights_scale(const gpu_weights *w, tern_gpu_plan *plan, size_t node, tern_error *err);

#endif
