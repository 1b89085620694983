#include "gpu/gpu_small_patches.cuh"

#include "gpu/gpu_divide.cuh"
#include "gpu/gpu_kernels.cuh"
#include "gpu/gpu_patches.cuh"

enum { MOST_VALUES = 32, MOST_OUTPUTS = 128, OUTPUTS = 8 /* at a time */, THREADS = 128 };

struct small_patches {
    gpu_divisor ow, oh;
    uint32_t h, w, c, stride, padding;
    uint32_t kernel, values, outputs; /* values of a patch */
    uint32_t places;                  /* of all images */
    int rounded;
    const float *weights, *bias;
};

__device__ static float operand(float v, int rounded) {
    return rounded ? __bfloat162float(__float2bfloat16_rn(v)) : v;
}

/* Value j of a patch: where it lies from the patch's first pixel. */
struct patch_value {
    uint16_t y, x, channel;
};

/* VALUES: p.values rounded up; weights of the rest are zeros, and so are the values. */
template <class T, int VALUES>
__global__ static void __launch_bounds__(THREADS) small_patches_kernel(T *y, const T *images, small_patches p) {
    __shared__ alignas(16) float weight[VALUES * MOST_OUTPUTS]; /* [value][outputs] */
    __shared__ patch_value where[VALUES];
    for (uint32_t i = threadIdx.x; i < VALUES * p.outputs; i += THREADS) {
        const uint32_t j = i / p.outputs, output = i % p.outputs;
        weight[i] = j < p.values ? operand(p.weights[output * p.values + j], p.rounded) : 0;
    }
    for (uint32_t j = threadIdx.x; j < VALUES; j += THREADS) {
        const uint32_t tap = j / p.c;
        where[j] = {(uint16_t)(tap / p.kernel), (uint16_t)(tap % p.kernel), (uint16_t)(j % p.c)};
    }
    __syncthreads();
    for (uint32_t place = blockIdx.x * THREADS + threadIdx.x; place < p.places; place += gridDim.x * THREADS) {
        uint32_t image = place;
        const uint32_t ox = gpu_split(&image, p.ow), oy = gpu_split(&image, p.oh);
        const uint32_t top = oy * p.stride - p.padding, left = ox * p.stride - p.padding; /* wrap where negative */
        float x[VALUES];
#pragma unroll
        for (uint32_t j = 0; j < VALUES; j++) {
            const uint32_t v = top + where[j].y, u = left + where[j].x;
            const bool inside = j < p.values && v < p.h && u < p.w;
            x[j] = inside ? operand(to_float(images[(((size_t)image * p.h + v) * p.w + u) * p.c + where[j].channel]),
                                    p.rounded)
                          : 0;
        }
        for (uint32_t first = 0; first < p.outputs; first += OUTPUTS) {
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
            *(gpu_few<T, OUTPUTS> *)(y + (size_t)place * p.outputs + first) = out;
        }
    }
}

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
    s.rounded = type == TERN_BF16;
    s.weights = gpu_node_param(plan, node, 0)->value;
    s.bias = bias;
    const unsigned wanted = (s.places + THREADS - 1) / THREADS;
    const unsigned most = (unsigned)plan->context->multiprocessors * 16, blocks = wanted < most ? wanted : most;
    GPU_BY_TYPE(plan->type, T *y = (T *)plan->node[node].value; const T *x = (const T *)gpu_in(plan, node, 0);
                if (s.values <= 16) small_patches_kernel<T, 16><<<blocks, THREADS, 0, plan->stream>>>(y, x, s);
                else small_patches_kernel<T, MOST_VALUES><<<blocks, THREADS, 0, plan->stream>>>(y, x, s));
    GPU_LAUNCHED(plan, node, err);
    return TERN_OK;
}
