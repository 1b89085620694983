#include "gpu/gpu_weights_scales.cuh"

#include "gpu/gpu_trainer.cuh"

template <class Rule> __global__ static void __launch_bounds__(GPU_THREADS) sum_magnitudes(gpu_slices s) {
    gpu_sum_part<Rule>(s, blockIdx.x);
}

/* The digit whose bin holds number `below`, which becomes its number within the bin. */
__device__ static uint32_t find_digit(const uint32_t *histogram, uint32_t *below) {
    __shared__ uint32_t runs[GPU_THREADS], found[2];
    const int each = GPU_MEDIAN_DIGITS / GPU_THREADS;
    uint32_t sum = 0;
    for (int j = 0; j < each; j++) sum += histogram[(int)threadIdx.x * each + j];
    runs[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        uint32_t left = *below, digit = 0;
        while (digit < GPU_THREADS - 1 && left >= runs[digit]) left -= runs[digit++];
        digit *= each;
        while (digit < GPU_MEDIAN_DIGITS - 1 && left >= histogram[digit]) left -= histogram[digit++];
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
__global__ static void __launch_bounds__(GPU_THREADS) select_digit(gpu_slices s, gpu_median *median, uint32_t *all) {
    __shared__ uint32_t histogram[2][GPU_MEDIAN_DIGITS];
    const int shift = Pass == 0 ? 20 : Pass == 1 ? 10 : 0;
    const uint32_t digits = Pass == 0 ? 0x7ffu : 0x3ffu;
    const uint32_t settled = Pass == 0 ? 0 : Pass == 1 ? 0x7ff00000u : 0x7ffffc00u;
    const gpu_slice_part p(s, blockIdx.x);
    const float *w = s.w + p.slice * s.length;
    gpu_median *m = &median[p.slice];
    uint32_t found[2], below[2];
    for (int j = 0; j < 2; j++) {
        found[j] = Pass ? m->found[j] : 0;
        below[j] = Pass ? m->below[j] : (uint32_t)((s.length - 1 + (size_t)j) / 2);
        for (int d = (int)threadIdx.x; d < GPU_MEDIAN_DIGITS; d += GPU_THREADS) histogram[j][d] = 0;
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
        for (int d = (int)threadIdx.x; d < 2 * GPU_MEDIAN_DIGITS; d += GPU_THREADS)
            if (own[d]) atomicAdd(&all[d], own[d]);
        if (!gpu_is_last(&s.arrived[p.slice], s.parts)) return;
        for (int d = (int)threadIdx.x; d < 2 * GPU_MEDIAN_DIGITS; d += GPU_THREADS) {
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

tern_status gpu_weights_scale(const gpu_weights *w, tern_gpu_plan *plan, size_t i, tern_error *err) {
    const gpu_slices s = gpu_slices_of(w, plan, i);
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
