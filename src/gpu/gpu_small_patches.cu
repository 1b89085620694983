#include "gpu/gpu_small_patches.cuh"

#include "gpu/gpu_divide.cuh"
#include "gpu/gpu_kernels.cuh"
#include "gpu/gpu_patches.cuh"

#include "cuda/mma_sync.cuh"

enum { MOST_VALUES = 32, MOST_OUTPUTS = 128, OUTPUTS = 8 /* at a time */, THREADS = 128 };

struct small_patches {
    gpu_divisor ow, oh;
    uint32_t h, w, c, stride, padding;
    uint32_t kernel, values, outputs; /* values of a patch */
    uint32_t places;                  /* of all images */
    tern_dtype rounded;
    const float *weights, *bias;
};

/* Value j of a patch: where it lies from the patch's first pixel. */
struct patch_value {
    uint16_t y, x, channel;
};

/* ---- fp32, and every type where there are no matrix instructions for it. VALUES: p.values rounded up; weights of the
 * rest are zeros, and so are the values. */

__device__ static patch_value nth_value(const small_patches &p, uint32_t j) {
    const uint32_t tap = j / p.c;
    return {(uint16_t)(tap / p.kernel), (uint16_t)(tap % p.kernel), (uint16_t)(j % p.c)};
}

/* The patch of a place, 0 where it leaves the image. */
template <class T, int VALUES>
__device__ static void take_patch(float (&x)[VALUES], const small_patches &p, const T *images,
                                  const patch_value *where, uint32_t place) {
    uint32_t image = place;
    const uint32_t ox = gpu_split(&image, p.ow), oy = gpu_split(&image, p.oh);
    const uint32_t top = oy * p.stride - p.padding, left = ox * p.stride - p.padding; /* wrap where negative */
#pragma unroll
    for (uint32_t j = 0; j < VALUES; j++) {
        const uint32_t v = top + where[j].y, u = left + where[j].x;
        const bool inside = j < p.values && v < p.h && u < p.w;
        x[j] = inside ? rounded_to(p.rounded,
                                   to_float(images[(((size_t)image * p.h + v) * p.w + u) * p.c + where[j].channel]))
                      : 0;
    }
}

/* Outputs first ... of a patch. */
template <class T, int VALUES>
__device__ static gpu_few<T, OUTPUTS> outputs_of(const float (&x)[VALUES], const small_patches &p,
                                                 const float *weight, uint32_t first) {
    float sum[OUTPUTS] = {};
#pragma unroll
    for (uint32_t j = 0; j < VALUES; j++) {
        const gpu_few<float, OUTPUTS> w = *(const gpu_few<float, OUTPUTS> *)(weight + j * p.outputs + first);
#pragma unroll
        for (int n = 0; n < OUTPUTS; n++) sum[n] += x[j] * w.v[n];
    }
    gpu_few<T, OUTPUTS> out;
#pragma unroll
    for (int n = 0; n < OUTPUTS; n++)
        out.v[n] = from_float<T>(p.bias ? sum[n] + p.bias[first + (uint32_t)n] : sum[n]);
    return out;
}

template <class T, int VALUES>
__global__ static void __launch_bounds__(THREADS) small_patches_kernel(T *y, const T *images, small_patches p) {
    __shared__ alignas(16) float weight[VALUES * MOST_OUTPUTS]; /* [value][outputs] */
    __shared__ patch_value where[VALUES];
    for (uint32_t i = threadIdx.x; i < VALUES * p.outputs; i += THREADS) {
        const uint32_t j = i / p.outputs, output = i % p.outputs;
        weight[i] = j < p.values ? rounded_to(p.rounded, p.weights[output * p.values + j]) : 0;
    }
    for (uint32_t j = threadIdx.x; j < VALUES; j += THREADS) where[j] = nth_value(p, j);
    __syncthreads();
    for (uint32_t place = blockIdx.x * THREADS + threadIdx.x; place < p.places; place += gridDim.x * THREADS) {
        float x[VALUES];
        take_patch<T, VALUES>(x, p, images, where, place);
        for (uint32_t first = 0; first < p.outputs; first += OUTPUTS)
            *(gpu_few<T, OUTPUTS> *)(y + (size_t)place * p.outputs + first) =
                outputs_of<T, VALUES>(x, p, weight, first);
    }
}

/* ---- bf16 on matrix instructions: a warp has 16 places. Of step s a lane has values 16 s + 2 q + {0, 1, 8, 9} of
 * the patches of places g and g + 8, with q = lane % 4 and g = lane / 4, and the tiles of outputs are interleaved so
 * that it ends with eight neighbours: column c of tile t is output 8 (c / 2) + 2 t + c % 2 of 32. */

enum { TILES = 4, GROUP = 8 * TILES, WARPS = THREADS / 32 };

__device__ static uint32_t pair_of(__nv_bfloat16 low, __nv_bfloat16 high) {
    return (uint32_t)__bfloat16_as_ushort(low) | (uint32_t)__bfloat16_as_ushort(high) << 16;
}

/* Value j of a place's patch, 0 where there is none. */
struct patch_at {
    const __nv_bfloat16 *image;
    uint32_t top, left;
    __device__ __nv_bfloat16 value(const small_patches &p, uint32_t j, const patch_value &at) const {
        const uint32_t v = top + at.y, u = left + at.x;
        return j < p.values && v < p.h && u < p.w ? image[((size_t)v * p.w + u) * p.c + at.channel]
                                                  : __ushort_as_bfloat16(0);
    }
};

__device__ static patch_at patch_of(const small_patches &p, const __nv_bfloat16 *images, uint32_t place) {
    uint32_t image = place < p.places ? place : 0;
    const uint32_t ox = gpu_split(&image, p.ow), oy = gpu_split(&image, p.oh);
    return {images + (size_t)image * p.h * p.w * p.c, oy * p.stride - p.padding, ox * p.stride - p.padding};
}

__device__ static uint32_t value_number(int step, int i) { /* i: 0 .. 3 */
    return (uint32_t)(16 * step + 2 * ((int)threadIdx.x % 4) + i % 2 + i / 2 * 8);
}

template <int STEPS> struct step_values {
    patch_value where[STEPS][4];

    __device__ explicit step_values(const small_patches &p) {
#pragma unroll
        for (int s = 0; s < STEPS; s++)
#pragma unroll
            for (int i = 0; i < 4; i++) where[s][i] = nth_value(p, value_number(s, i));
    }
    /* The left operands of 16 places: g, g + 8, then the same for the upper values. */
    __device__ void take(uint32_t (&a)[STEPS][4], const small_patches &p, const patch_at (&patch)[2]) const {
#pragma unroll
        for (int s = 0; s < STEPS; s++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                a[s][i] = pair_of(patch[i % 2].value(p, value_number(s, i / 2 * 2), where[s][i / 2 * 2]),
                                  patch[i % 2].value(p, value_number(s, i / 2 * 2 + 1), where[s][i / 2 * 2 + 1]));
    }
};

/* The right operand of a step: weights of the lane's output of tile t, zeros behind the last. */
__device__ static void take_weights(uint32_t (&b)[2], const small_patches &p, int group, int t, int step) {
    const uint32_t g = threadIdx.x % 32 / 4, output = (uint32_t)(group * GROUP + t * 2) + g / 2 * 8 + g % 2;
    __nv_bfloat16 w[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const uint32_t j = value_number(step, i);
        w[i] = __float2bfloat16_rn(j < p.values && output < p.outputs ? p.weights[output * p.values + j] : 0.0f);
    }
    b[0] = pair_of(w[0], w[1]);
    b[1] = pair_of(w[2], w[3]);
}

/* Eight neighbouring outputs of places g and g + 8 behind `first`. */
__device__ static void put_outputs(__nv_bfloat16 *y, const float (&c)[TILES][4], const small_patches &p,
                                   uint32_t first, uint32_t output) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const uint32_t place = first + threadIdx.x % 32 / 4 + (uint32_t)half * 8;
        gpu_few<__nv_bfloat16, OUTPUTS> out;
#pragma unroll
        for (int n = 0; n < OUTPUTS; n++) {
            const float v = c[n / 2][half * 2 + n % 2];
            out.v[n] = __float2bfloat16_rn(p.bias ? v + p.bias[output + (uint32_t)n] : v);
        }
        if (place < p.places) *(gpu_few<__nv_bfloat16, OUTPUTS> *)(y + (size_t)place * p.outputs + output) = out;
    }
}

template <int STEPS, int GROUPS>
__global__ static void __launch_bounds__(THREADS)
    small_patches_mma(__nv_bfloat16 *y, const __nv_bfloat16 *images, small_patches p) {
    const uint32_t q = threadIdx.x % 4, g = threadIdx.x % 32 / 4;
    const step_values<STEPS> values(p);
    uint32_t weight[GROUPS][TILES][STEPS][2];
#pragma unroll
    for (int group = 0; group < GROUPS; group++)
#pragma unroll
        for (int t = 0; t < TILES; t++)
#pragma unroll
            for (int s = 0; s < STEPS; s++) take_weights(weight[group][t][s], p, group, t, s);
    const uint32_t step = gridDim.x * WARPS * 16;
    for (uint32_t first = (blockIdx.x * WARPS + threadIdx.x / 32) * 16; first < p.places; first += step) {
        const patch_at patch[2] = {patch_of(p, images, first + g), patch_of(p, images, first + g + 8)};
        uint32_t a[STEPS][4];
        values.take(a, p, patch);
#pragma unroll
        for (int group = 0; group < GROUPS; group++) {
            const uint32_t output = (uint32_t)(group * GROUP) + q * 8;
            float c[TILES][4] = {};
#pragma unroll
            for (int t = 0; t < TILES; t++)
#pragma unroll
                for (int s = 0; s < STEPS; s++)
                    mma_half<true>(c[t], a[s], weight[group][t][s][0], weight[group][t][s][1]);
            if (output < p.outputs) put_outputs(y, c, p, first, output);
        }
    }
}

template <int STEPS>
static void launch_mma(tern_gpu_plan *plan, size_t node, const small_patches &s, unsigned blocks) {
    __nv_bfloat16 *y = (__nv_bfloat16 *)plan->node[node].value;
    const __nv_bfloat16 *x = (const __nv_bfloat16 *)gpu_in(plan, node, 0);
    if (s.outputs <= GROUP)
        small_patches_mma<STEPS, 1><<<blocks, THREADS, 0, plan->stream>>>(y, x, s);
    else if (s.outputs <= 2 * GROUP)
        small_patches_mma<STEPS, 2><<<blocks, THREADS, 0, plan->stream>>>(y, x, s);
    else
        small_patches_mma<STEPS, 4><<<blocks, THREADS, 0, plan->stream>>>(y, x, s);
}

/* ---- */

static size_t values_of(const gpu_patches *p) { return p->kernel * p->kernel * p->c; }

bool gpu_small_patches_fit(const tern_gpu_plan *plan, size_t node) {
    const tern_node *n = gpu_graph_node(plan, node);
    const gpu_patches p = gpu_patches_of(plan->graph, n, 0);
    return n->at.groups == 1 && values_of(&p) <= MOST_VALUES && n->channels % OUTPUTS == 0 &&
           n->channels <= MOST_OUTPUTS && p.h < UINT16_MAX && p.w < UINT16_MAX && p.stride < UINT16_MAX &&
           p.padding < UINT16_MAX && p.oh * p.ow <= GPU_DIVIDE_MOST / plan->batch_max;
}

tern_status gpu_small_patches_forward(tern_gpu_plan *plan, size_t node, tern_dtype type, const float *bias,
                                      tern_error *err) {
    const gpu_patches p = gpu_patches_of(plan->graph, gpu_graph_node(plan, node), 0);
    small_patches s = {};
    s.ow = gpu_divisor_of(p.ow);
    s.oh = gpu_divisor_of(p.oh);
    s.h = (uint32_t)p.h;
    s.w = (uint32_t)p.w;
    s.c = (uint32_t)p.c;
    s.stride = (uint32_t)p.stride;
    s.padding = (uint32_t)p.padding;
    s.kernel = (uint32_t)p.kernel;
    s.values = (uint32_t)values_of(&p);
    s.outputs = (uint32_t)gpu_graph_node(plan, node)->channels;
    s.places = (uint32_t)(plan->batch * p.oh * p.ow);
    s.rounded = type;
    s.weights = gpu_node_param(plan, node, 0)->value;
    s.bias = bias;
    const unsigned wanted = (s.places + THREADS - 1) / THREADS;
    const unsigned most = (unsigned)plan->context->multiprocessors * 16, blocks = wanted < most ? wanted : most;
    if (plan->type == TERN_BF16 && plan->context->major >= 8) {
        if (s.values <= 16)
            launch_mma<1>(plan, node, s, blocks);
        else
            launch_mma<2>(plan, node, s, blocks);
        GPU_LAUNCHED(plan, node, err);
        return TERN_OK;
    }
    GPU_BY_TYPE(plan->type, T *y = (T *)plan->node[node].value; const T *x = (const T *)gpu_in(plan, node, 0);
                if (s.values <= 16) small_patches_kernel<T, 16><<<blocks, THREADS, 0, plan->stream>>>(y, x, s);
                else small_patches_kernel<T, MOST_VALUES><<<blocks, THREADS, 0, plan->stream>>>(y, x, s));
    GPU_LAUNCHED(plan, node, err);
    return TERN_OK;
}
