#include "gpu/gpu_small_images.cuh"

#include "gpu/gpu_async.cuh"
#include "gpu/gpu_divide.cuh"
#include "gpu/gpu_kernels.cuh"
#include "gpu/gpu_patches.cuh"

#include "cuda/mma_sync.cuh"

typedef __nv_bfloat16 bf16;

enum {
    MOST_VALUES = 32, /* of a patch, as operands */
    THREADS = 256,
    WARPS = THREADS / 32,
    PLACES = 16, /* of an instruction */
    IMAGE_ROOM = 40 << 10
};

/* Images [images][h][w][c] of bf16, shown to windows with zeros around: [tall][wide]. */
struct small_images {
    gpu_divisor ow, w, c;
    uint32_t images, h, tall, wide, padding, kernel, places; /* places of an image */
    uint32_t outputs;
    const bf16 *image;
};

/* ---- outputs. Two copies of the image, the second one value behind the first: each pair of neighbours lies at a
 * multiple of 4 bytes in one of them. Of the operands' values, `line` are of a line of the window, the last of an odd
 * number with a zero weight beside it. */

struct outputs_of {
    small_images g;
    uint32_t line, copy; /* operands a line of the window; values of a copy of the image */
    const float *weights, *bias;
    bf16 *y;
};

__device__ static void show_image(bf16 *room, const outputs_of &p, uint32_t image) {
    const small_images &g = p.g;
    const uint32_t line = g.w.d * g.c.d, n = g.h * line;
    const bf16 *from = g.image + (size_t)image * n;
    for (uint32_t i = threadIdx.x; i < n; i += THREADS) {
        uint32_t y = i;
        const uint32_t c = gpu_split(&y, g.c), x = gpu_split(&y, g.w);
        const uint32_t to = ((y + g.padding) * g.wide + x + g.padding) * g.c.d + c;
        const bf16 v = from[i];
        room[to] = v;
        if (to) room[p.copy + to - 1] = v;
    }
}

/* Operand k of the patch: where it lies from the patch's first value on, and whether it is one. */
__device__ static uint32_t operand_at(const outputs_of &p, uint32_t k) {
    return k / p.line * p.g.wide * p.g.c.d + k % p.line;
}
__device__ static float weight_of(const outputs_of &p, uint32_t k, uint32_t output) {
    const uint32_t values = p.g.kernel * p.g.c.d, y = k / p.line, v = k % p.line;
    return y < p.g.kernel && v < values && output < p.g.outputs ? p.weights[(output * p.g.kernel + y) * values + v]
                                                                : 0.0f;
}

__device__ static uint32_t pair_of(float low, float high) {
    const __nv_bfloat162 two = __floats2bfloat162_rn(low, high);
    return *(const uint32_t *)&two;
}

enum { TILES = 4, OUTPUTS = 8 * TILES };

/* As gpu_small_patches.cu's: tiles of outputs are interleaved so that a lane ends with eight neighbours, column c of
 * tile t being output 8 (c / 2) + 2 t + c % 2. blockIdx.y: 32 outputs. */
template <int STEPS> __global__ static void __launch_bounds__(THREADS) small_images_forward(const outputs_of p) {
    extern __shared__ __align__(16) char small_room[];
    bf16 *room = (bf16 *)small_room;
    const small_images &g = p.g;
    const uint32_t lane = threadIdx.x % 32, q = lane % 4, row = lane / 4, output = blockIdx.y * OUTPUTS + q * 8;
    uint32_t weight[STEPS][TILES][2], at[STEPS][2], mask[STEPS][2];
    float bias[8];
#pragma unroll
    for (int s = 0; s < STEPS; s++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const uint32_t k = (uint32_t)(16 * s + 8 * half) + 2 * q, v = k % p.line;
            const bool is_line = k / p.line < g.kernel;
            at[s][half] = is_line ? operand_at(p, k) : 0;
            mask[s][half] = !is_line ? 0 : v + 1 < g.kernel * g.c.d ? 0xffffffffu : 0xffffu;
#pragma unroll
            for (int t = 0; t < TILES; t++) {
                const uint32_t n = blockIdx.y * OUTPUTS + row / 2 * 8 + (uint32_t)t * 2 + row % 2;
                weight[s][t][half] = pair_of(weight_of(p, k, n), weight_of(p, k + 1, n));
            }
        }
#pragma unroll
    for (int n = 0; n < 8; n++) bias[n] = p.bias && output < g.outputs ? p.bias[output + (uint32_t)n] : 0;
    for (uint32_t i = threadIdx.x; i < p.copy; i += THREADS) ((uint32_t *)room)[i] = 0;
    for (uint32_t image = blockIdx.x; image < g.images; image += gridDim.x) {
        __syncthreads();
        show_image(room, p, image);
        __syncthreads();
        for (uint32_t first = threadIdx.x / 32 * PLACES; first < g.places; first += WARPS * PLACES) {
            const bf16 *patch[2];
#pragma unroll
            for (uint32_t half = 0; half < 2; half++) {
                uint32_t y = min(first + row + 8 * half, g.places - 1);
                const uint32_t x = gpu_split(&y, g.ow), from = (y * g.wide + x) * g.c.d;
                patch[half] = room + (from % 2 ? p.copy + from - 1 : from);
            }
            float c[TILES][4] = {};
#pragma unroll
            for (int s = 0; s < STEPS; s++) {
                uint32_t a[4];
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const bf16 *from = patch[i % 2] + at[s][i / 2];
                    a[i] = *(const uint32_t *)from & mask[s][i / 2];
                }
#pragma unroll
                for (int t = 0; t < TILES; t++) mma_half<true>(c[t], a, weight[s][t][0], weight[s][t][1]);
            }
#pragma unroll
            for (uint32_t half = 0; half < 2; half++) {
                const uint32_t place = first + row + 8 * half;
                gpu_pack<bf16> out;
#pragma unroll
                for (int n = 0; n < 8; n++) {
                    const float v = c[n / 2][half * 2 + n % 2];
                    out.v[n] = __float2bfloat16_rn(p.bias ? v + bias[n] : v);
                }
                if (place < g.places && output < g.outputs)
                    *(gpu_pack<bf16> *)(p.y + ((size_t)image * g.places + place) * g.outputs + output) = out;
            }
        }
    }
}

/* ---- gradients of filters. A plane a channel, twice, the second one pixel behind the first: two neighbours of a
 * line are one operand. dW^T = patches^T dy: 16 places of a line at a time, dy by way of shared memory, each warp its
 * own. */

enum { STAGES = 4 };

template <int TILES_N> struct gradient_room {
    enum {
        PITCH = TILES_N * 16 + 16, /* bytes of a place: rows that matrices are read from meet all banks */
        STAGE = PLACES * PITCH,
        DYS = WARPS * STAGES * STAGE,
        SUMS = MOST_VALUES * TILES_N * 8 * 4
    };
};

struct gradient_of {
    small_images g;
    uint32_t plane, copy; /* values of a plane, of all planes */
    uint32_t values;
    const bf16 *dy;
    float *parts; /* [blocks][values][outputs] */
};

__device__ static void show_planes(bf16 *room, const gradient_of &p, uint32_t image) {
    const small_images &g = p.g;
    const uint32_t n = g.h * g.w.d * g.c.d;
    const bf16 *from = g.image + (size_t)image * n;
    for (uint32_t i = threadIdx.x; i < n; i += THREADS) {
        uint32_t y = i;
        const uint32_t c = gpu_split(&y, g.c), x = gpu_split(&y, g.w);
        const uint32_t to = c * p.plane + (y + g.padding) * g.wide + x + g.padding;
        const bf16 v = from[i];
        room[to] = v;
        if (to) room[p.copy + to - 1] = v;
    }
}

__device__ static void copy_pack(uint32_t to, const void *from, bool valid) {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(valid ? 16 : 0)
                 : "memory");
#endif
}
/* Four matrices of 8 x 8, turned: lane l's address is that of row l % 8 of matrix l / 8. */
__device__ static void load_turned(uint32_t (&b)[4], uint32_t at) {
#if __CUDA_ARCH__ >= 800
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3])
                 : "r"(at)
                 : "memory");
#endif
}

/* A warp's share: steps of 16 places of the block's images, one behind the other. */
template <int TILES_N> __global__ static void __launch_bounds__(THREADS) small_filters(const gradient_of p) {
    typedef gradient_room<TILES_N> sizes;
    extern __shared__ __align__(16) char small_room[];
    const small_images &g = p.g;
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, q = lane % 4, row = lane / 4;
    bf16 *planes = (bf16 *)(small_room + sizes::DYS);
    const uint32_t dys = (uint32_t)__cvta_generic_to_shared(small_room) + warp * STAGES * sizes::STAGE;
    const uint32_t steps = g.places / PLACES, mine = steps > warp ? (steps - warp + WARPS - 1) / WARPS : 0;
    const uint32_t images = g.images > blockIdx.x ? (g.images - blockIdx.x + gridDim.x - 1) / gridDim.x : 0;
    uint32_t value[4]; /* where value 8 i + row of a patch lies from its first pixel on, less the column's odd one */
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) {
        const uint32_t j = min(8 * i + row, p.values - 1), tap = j / g.c.d, c = j % g.c.d;
        const uint32_t x = tap % g.kernel, at = c * p.plane + tap / g.kernel * g.wide + x;
        value[i] = x % 2 ? p.copy + at - 1 : at;
    }
    const auto bring =
        [&](uint32_t number) { /* of all steps of this warp */
                               const uint32_t image = blockIdx.x + number / mine * gridDim.x;
                               const size_t first =
                                   (size_t)image * g.places + (warp + number % mine * WARPS) * PLACES;
                               for (uint32_t i = lane; i < PLACES * TILES_N; i += 32) {
                                   const uint32_t place = i / TILES_N, pack = i % TILES_N;
                                   const bool valid = pack * 8 < g.outputs;
                                   copy_pack(dys + number % STAGES * sizes::STAGE + place * sizes::PITCH + pack * 16,
                                             p.dy + (valid ? (first + place) * g.outputs + pack * 8 : 0), valid);
                               }
        };
    const uint32_t all = images * mine;
    float c[2][TILES_N][4] = {};
    for (uint32_t i = 0; i < STAGES - 1; i++) {
        if (i < all) bring(i);
        gpu_copies_commit();
    }
    for (uint32_t i = threadIdx.x; i < p.copy; i += THREADS) ((uint32_t *)planes)[i] = 0;
    for (uint32_t i = 0, number = 0; i < images; i++) {
        __syncthreads();
        show_planes(planes, p, blockIdx.x + i * gridDim.x);
        __syncthreads();
        for (uint32_t step = 0; step < mine; step++, number++) {
            gpu_copies_wait<STAGES - 2>();
            __syncwarp();
            uint32_t y = (warp + step * WARPS) * PLACES;
            const uint32_t x = gpu_split(&y, g.ow);
            const bf16 *from = planes + y * g.wide + x + 2 * q;
            uint32_t a[2][4];
#pragma unroll
            for (int m = 0; m < 2; m++)
#pragma unroll
                for (int k = 0; k < 4; k++) /* values row and row + 8, then the same of the upper places */
                    a[m][k] = *(const uint32_t *)(from + value[2 * m + k % 2] + k / 2 * 8);
            const uint32_t at = dys + number % STAGES * sizes::STAGE + lane % 16 * sizes::PITCH + lane / 16 * 16;
#pragma unroll
            for (int n = 0; n < TILES_N; n += 2) {
                uint32_t b[4];
                load_turned(b, at + (uint32_t)n * 16);
#pragma unroll
                for (int m = 0; m < 2; m++) {
                    mma_half<true>(c[m][n], a[m], b[0], b[1]);
                    mma_half<true>(c[m][n + 1], a[m], b[2], b[3]);
                }
            }
            __syncwarp(); /* the stage is read */
            if (number + STAGES - 1 < all) bring(number + STAGES - 1);
            gpu_copies_commit();
        }
    }
    gpu_copies_wait<0>();
    __syncthreads();
    /* One warp after the other, so that the order of the sums is one. */
    float *sums = (float *)small_room;
    for (uint32_t w = 0; w < WARPS; w++, __syncthreads())
        if (w == warp)
#pragma unroll
            for (int m = 0; m < 2; m++)
#pragma unroll
                for (int n = 0; n < TILES_N; n++)
#pragma unroll
                    for (int e = 0; e < 4; e++) {
                        const uint32_t j = (uint32_t)(m * 16 + e / 2 * 8) + row, o = (uint32_t)n * 8 + 2 * q + e % 2;
                        float *sum = sums + j * TILES_N * 8 + o;
                        *sum = w ? *sum + c[m][n][e] : c[m][n][e];
                    }
    for (uint32_t i = threadIdx.x; i < p.values * g.outputs; i += THREADS)
        p.parts[(size_t)blockIdx.x * p.values * g.outputs + i] = sums[i / g.outputs * TILES_N * 8 + i % g.outputs];
}

/* dw[o][j] += the sum of parts[part][j][o], a warp each. */
__global__ static void __launch_bounds__(THREADS)
    add_filters(float *dw, const float *parts, uint32_t count, uint32_t values, uint32_t outputs) {
    const uint32_t i = blockIdx.x * WARPS + threadIdx.x / 32;
    if (i >= values * outputs) return;
    const uint32_t o = i % outputs, j = i / outputs;
    float sum = 0;
#pragma unroll 8
    for (uint32_t part = threadIdx.x % 32; part < count; part += 32)
        sum += parts[(size_t)part * values * outputs + i];
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) dw[o * values + j] += sum;
}

/* ---- */

static small_images images_of(const tern_gpu_plan *plan, size_t node) {
    const tern_node *n = gpu_graph_node(plan, node);
    const gpu_patches p = gpu_patches_of(plan->graph, n, 0);
    small_images g = {gpu_divisor_of(p.ow), gpu_divisor_of(p.w), gpu_divisor_of(p.c)};
    g.images = (uint32_t)plan->batch;
    g.h = (uint32_t)p.h;
    g.tall = (uint32_t)(p.h + 2 * p.padding);
    g.wide = (uint32_t)(p.w + 2 * p.padding);
    g.padding = (uint32_t)p.padding;
    g.kernel = (uint32_t)p.kernel;
    g.places = (uint32_t)(p.oh * p.ow);
    g.outputs = (uint32_t)n->channels;
    g.image = (const bf16 *)gpu_in(plan, node, 0);
    return g;
}

/* Values of a copy of the image, with room for a pair that begins with the last one; both copies take 4 bytes a
 * value. */
static size_t copy_of(const gpu_patches &p) {
    return gpu_round_up((p.h + 2 * p.padding) * (p.w + 2 * p.padding) * p.c + 2, 2);
}

static bool fits(const tern_gpu_plan *plan, size_t node, const gpu_patches &p) {
    const tern_node *n = gpu_graph_node(plan, node);
    return plan->type == TERN_BF16 && plan->context->major >= 8 && n->at.groups == 1 && n->at.stride == 1 &&
           n->channels % 8 == 0 && p.h < UINT16_MAX && p.w < UINT16_MAX && p.padding < 16 &&
           p.kernel * p.kernel * p.c <= MOST_VALUES && copy_of(p) * 4 <= IMAGE_ROOM;
}

bool gpu_small_images_fit(const tern_gpu_plan *plan, size_t node) {
    const gpu_patches p = gpu_patches_of(plan->graph, gpu_graph_node(plan, node), 0);
    const size_t line = gpu_round_up(p.kernel * p.c, 2);
    /* Lines of windows begin at even values in one copy. */
    return fits(plan, node, p) && p.kernel * line <= MOST_VALUES && (p.w + 2 * p.padding) * p.c % 2 == 0;
}

tern_status gpu_small_images_forward(tern_gpu_plan *plan, size_t node, const float *bias, tern_error *err) {
    const gpu_patches s = gpu_patches_of(plan->graph, gpu_graph_node(plan, node), 0);
    outputs_of p = {};
    p.g = images_of(plan, node);
    p.line = (uint32_t)gpu_round_up(s.kernel * s.c, 2);
    p.copy = (uint32_t)copy_of(s);
    p.weights = gpu_node_param(plan, node, 0)->value;
    p.bias = bias;
    p.y = (bf16 *)plan->node[node].value;
    const size_t most = (size_t)plan->context->multiprocessors * 4;
    const dim3 grid((unsigned)(plan->batch < most ? plan->batch : most), (p.g.outputs + OUTPUTS - 1) / OUTPUTS);
    const auto kernel = s.kernel * p.line <= 16 ? small_images_forward<1> : small_images_forward<2>;
    kernel<<<grid, THREADS, p.copy * 4, plan->stream>>>(p);
    GPU_LAUNCHED(plan, node, err);
    return TERN_OK;
}

bool gpu_small_filters_fit(const tern_gpu_plan *plan, size_t node) {
    const gpu_patches p = gpu_patches_of(plan->graph, gpu_graph_node(plan, node), 0);
    const size_t outputs = gpu_graph_node(plan, node)->channels;
    const size_t dys = outputs <= 32 ? (size_t)gradient_room<4>::DYS : (size_t)gradient_room<8>::DYS;
    return fits(plan, node, p) && p.ow % PLACES == 0 && (p.w + 2 * p.padding) % 2 == 0 && outputs <= 64 &&
           dys + copy_of(p) * 4 <= plan->context->shared_bytes;
}

static size_t gradient_blocks(const tern_gpu_plan *plan, size_t batch) {
    const size_t most = (size_t)plan->context->multiprocessors * 4;
    return batch < most ? batch : most;
}

size_t gpu_small_filters_scratch(const tern_gpu_plan *plan, size_t node) {
    const gpu_patches p = gpu_patches_of(plan->graph, gpu_graph_node(plan, node), 0);
    return gradient_blocks(plan, plan->batch_max) * p.kernel * p.kernel * p.c * gpu_graph_node(plan, node)->channels *
           sizeof(float);
}

template <int TILES_N>
static tern_status run_filters(tern_gpu_plan *plan, size_t node, const gradient_of &p, unsigned blocks,
                               tern_error *err) {
    typedef gradient_room<TILES_N> sizes;
    const int bytes = sizes::DYS + (int)p.copy * 4;
    static_assert((int)sizes::SUMS <= (int)sizes::DYS, "sums take the place of gradients");
    CUDA_TRY(tern_cuda_allow_shared(plan->context, small_filters<TILES_N>, 0), gpu_graph_node(plan, node)->name, err);
    small_filters<TILES_N><<<blocks, THREADS, (size_t)bytes, plan->stream>>>(p);
    GPU_LAUNCHED(plan, node, err);
    return TERN_OK;
}

tern_status gpu_small_filters_gradient(tern_gpu_plan *plan, size_t node, float *dw, void *scratch, tern_error *err) {
    const gpu_patches s = gpu_patches_of(plan->graph, gpu_graph_node(plan, node), 0);
    const unsigned blocks = (unsigned)gradient_blocks(plan, plan->batch);
    gradient_of p = {};
    p.g = images_of(plan, node);
    p.plane = p.g.tall * p.g.wide;
    p.copy = (uint32_t)copy_of(s);
    p.values = (uint32_t)(s.kernel * s.kernel * s.c);
    p.dy = (const bf16 *)plan->node[node].grad;
    p.parts = (float *)scratch;
    GPU_CHECK(p.g.outputs <= 32 ? run_filters<4>(plan, node, p, blocks, err)
                                : run_filters<8>(plan, node, p, blocks, err));
    add_filters<<<(p.values * p.g.outputs + WARPS - 1) / WARPS, THREADS, 0, plan->stream>>>(dw, p.parts, blocks,
                                                                                            p.values, p.g.outputs);
    GPU_LAUNCHED(plan, node, err);
    return TERN_OK;
}
