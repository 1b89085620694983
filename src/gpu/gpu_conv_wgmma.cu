/* Convolutions of bf16 and their gradients, of tiles that are gathered from images. */
#include "gpu/gpu_conv_tiles.cuh"
#include "gpu/gpu_patches.cuh"

/* ---- instructions */

#define SUMS_4(c, i) "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3])
#define SUMS_16(c, i) SUMS_4(c, i), SUMS_4(c, i + 4), SUMS_4(c, i + 8), SUMS_4(c, i + 12)

/* c[64][N] += a[64][16] b[16][N] of tiles in shared memory. Turned: rows of the tile are what is summed over. */
template <int A_TURNED, int B_TURNED> __device__ static void multiply_tiles(float (&c)[16], uint64_t a, uint64_t b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, "
                 "%16, %17, 1, 1, 1, %18, %19;"
                 : SUMS_16(c, 0)
                 : "l"(a), "l"(b), "n"(A_TURNED), "n"(B_TURNED));
}
template <int A_TURNED, int B_TURNED> __device__ static void multiply_tiles(float (&c)[32], uint64_t a, uint64_t b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
                 "%32, %33, 1, 1, 1, %34, %35;"
                 : SUMS_16(c, 0), SUMS_16(c, 16)
                 : "l"(a), "l"(b), "n"(A_TURNED), "n"(B_TURNED));
}
template <int A_TURNED, int B_TURNED> __device__ static void multiply_tiles(float (&c)[64], uint64_t a, uint64_t b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
                 "%64, %65, 1, 1, 1, %66, %67;"
                 : SUMS_16(c, 0), SUMS_16(c, 16), SUMS_16(c, 32), SUMS_16(c, 48)
                 : "l"(a), "l"(b), "n"(A_TURNED), "n"(B_TURNED));
}
#undef SUMS_4
#undef SUMS_16

struct bf16_operand : operand_of<bf16, 16> {
    template <int TURNED, class Sums> __device__ static void multiply(Sums &c, uint64_t a, uint64_t b) {
        multiply_tiles<0, TURNED>(c, a, b);
    }
};
enum {
    WIDE = bf16_operand::WIDE,
    PACK = bf16_operand::PACK,
    PACKS = bf16_operand::PACKS,
    ROWS_AT_ONCE = bf16_operand::ROWS_AT_ONCE,
    STEP = bf16_operand::STEP
};
static_assert((int)PACK == (int)GPU_CONV_PACK, "a pack is what one copy brings");

/* ---- outputs of places */

/* b of a gradient: value k of a window of dy, output o at a tap counted from the last, meets filter o's values at that tap,
 * one for each of the n channels. */
template <class O, int N> struct turned_filters {
    enum { TURNED = 1, ROW_PACKS = N / PACK, ROWS = THREADS / ROW_PACKS };
    __device__ static void bring(uint32_t to, const place_product<O> &p, uint32_t k0, uint32_t n0) {
        const uint32_t pack = threadIdx.x % ROW_PACKS, n = n0 + pack * PACK;
        const uint32_t last = p.g.kernel.d * p.g.kernel.d - 1;
#pragma unroll
        for (uint32_t i = 0; i < WIDE / ROWS; i++) {
            const uint32_t row = threadIdx.x / ROW_PACKS + i * ROWS;
            uint32_t tap = k0 + row;
            if (tap >= p.g.template read<O>()) return;
            const bool valid = tap < p.g.k && n < p.n;
            const uint32_t o = gpu_split(&tap, p.g.c);
            copy_pack<16>(to + pack / PACKS * TILE_BYTES + place_of<16>(row, pack % PACKS),
                          p.b + (valid ? (size_t)o * p.ldb + (size_t)((last - tap) * p.n + n) : 0), valid);
        }
    }
};

typedef place_product<bf16_operand> bf16_product;

template <int N, class B>
__global__ static void __launch_bounds__(THREADS, 2)
    multiply_places(const __grid_constant__ bf16_product p, const float *factor) {
    const uint32_t n0 = first_output<N>(p), first = first_place(p);
    float c[N / 2] = {};
    multiply_windows<bf16_operand, N, B>(c, p, n0, first);
    const float by = factor ? *factor : 1;
    write_places<N>(p, n0, first, [&](uint32_t i, uint32_t, uint32_t) { return c[i] * by; });
}

/* ---- gradients of filters: parts[part][m][k] = dy^T windows over some of the places */

struct filter_product {
    windows g;
    const bf16 *images, *dy;
    float *parts;
    uint32_t m, tiles_m;
    uint32_t each; /* places of a part, a multiple of 64 */
};

/* M tiles of 64 filters and K tiles of 64 values of their windows. With one tile of filters both warpgroups have it, each
 * half of the places: two parts. */
template <int M, int K> struct filter_room {
    enum { STAGES = 4, STAGE_BYTES = (M + K) * TILE_BYTES, BYTES = ALIGNMENT + STAGES * STAGE_BYTES };
};

template <int K> struct filter_sums {
    float pair[K / 2][64];
    float last[K % 2 ? 32 : 1];
};

template <int K> __device__ static void pin_all(filter_sums<K> &c) {
#pragma unroll
    for (int i = 0; i < K / 2; i++) pin_sums(c.pair[i]);
    if (K % 2) pin_sums(c.last);
}

template <int K> __device__ static void multiply_all(filter_sums<K> &c, uint64_t a, uint64_t b) {
#pragma unroll
    for (int i = 0; i < K / 2; i++) multiply_tiles<1, 1>(c.pair[i], a, b + (uint64_t)(i * 2 * TILE_BYTES >> 4));
    if constexpr (K % 2 != 0) multiply_tiles<1, 1>(c.last, a, b + (uint64_t)((K - 1) * TILE_BYTES >> 4));
}

/* to[row][k]: rows of m, from column k0 on. */
template <int N>
__device__ static void write_filters(const float (&c)[N], const filter_product &p, float *to, uint32_t row,
                                     uint32_t k0) {
    const uint32_t column = k0 + threadIdx.x % 4 * 2;
#pragma unroll
    for (uint32_t i = 0; i < N / 2; i++) {
        const uint32_t m = row + i % 2 * 8, k = column + i / 2 * 8;
        if (m < p.m && k < p.g.k) *(float2 *)(to + (size_t)m * p.g.k + k) = make_float2(c[2 * i], c[2 * i + 1]);
    }
}

template <int M, int K>
__global__ static void __launch_bounds__(THREADS, 1) multiply_filters(const __grid_constant__ filter_product p) {
    enum {
        STAGES = filter_room<M, K>::STAGES,
        AHEAD = STAGES - 2,
        STAGE_BYTES = filter_room<M, K>::STAGE_BYTES,
        MINE = WIDE / ROWS_AT_ONCE
    };
    const uint32_t stages = aligned_room(), group = threadIdx.x / GROUP;
    const uint32_t m0 = blockIdx.x % p.tiles_m * M * WIDE, k0 = blockIdx.x / p.tiles_m * K * WIDE;
    const uint32_t begin = blockIdx.y * p.each, end = min(begin + p.each, p.g.places);
    const uint32_t pack = threadIdx.x % PACKS, row = threadIdx.x / PACKS;
    const uint32_t steps = begin < end ? (end - begin + WIDE - 1) / WIDE : 0;
    within_window v[K];
#pragma unroll
    for (uint32_t i = 0; i < K; i++) v[i] = within(p.g, k0 + i * WIDE + pack * PACK);
    const auto bring = [&](uint32_t step) {
        const uint32_t to = stages + step % STAGES * STAGE_BYTES;
#pragma unroll
        for (uint32_t r = 0; r < MINE; r++) {
            const uint32_t at = row + r * ROWS_AT_ONCE, place = begin + step * WIDE + at;
            const corner from = corner_of(p.g, place < end ? place : p.g.places);
#pragma unroll
            for (uint32_t i = 0; i < M; i++) {
                const uint32_t m = m0 + i * WIDE + pack * PACK;
                const bool valid = place < end && m < p.m;
                copy_pack<16>(to + i * TILE_BYTES + place_of<16>(at, pack),
                              p.dy + (valid ? (size_t)place * p.m + m : 0), valid);
            }
#pragma unroll
            for (uint32_t i = 0; i < K; i++)
                copy_from<bf16_operand>(to + (M + i) * TILE_BYTES + place_of<16>(at, pack), p.images, p.g, from,
                                        v[i]);
        }
    };
    filter_sums<K> c = {};
    for (uint32_t step = 0; step < AHEAD; step++) {
        if (step < steps) bring(step);
        commit_copies();
    }
    for (uint32_t step = 0; step < steps; step++) {
        wait_copies<AHEAD - 1>();
        __syncthreads(); /* this stage is there, and the one before the last is free */
        const uint32_t at = stages + step % STAGES * STAGE_BYTES;
        const uint64_t a = turned_tile(at + (M > 1 ? group * TILE_BYTES : 0)), b = turned_tile(at + M * TILE_BYTES);
        enum { SHARE = M > 1 ? WIDE / STEP : WIDE / STEP / 2 };
        const uint32_t own = M > 1 ? 0 : group * SHARE;
        pin_all(c);
        wgmma_fence();
#pragma unroll
        for (uint32_t k = 0; k < SHARE; k++) multiply_all<K>(c, a + (own + k) * BY_COLUMN, b + (own + k) * BY_COLUMN);
        wgmma_commit();
        if (step + AHEAD < steps) bring(step + AHEAD);
        commit_copies();
        wait_products<1>();
    }
    wait_products<0>();
    pin_all(c);
    const uint32_t part = M > 1 ? blockIdx.y : blockIdx.y * 2 + group;
    const uint32_t mine = m0 + (M > 1 ? group * WIDE : 0) + threadIdx.x % GROUP / 32 * 16 + threadIdx.x % 32 / 4;
    float *to = p.parts + (size_t)part * p.m * p.g.k;
#pragma unroll
    for (uint32_t i = 0; i < K / 2; i++) write_filters(c.pair[i], p, to, mine, k0 + i * 2 * WIDE);
    if constexpr (K % 2 != 0) write_filters(c.last, p, to, mine, k0 + (K - 1) * WIDE);
}

/* dw[i] += the sum of its parts: each warp of a block adds every eighth of them, then one adds those. Of each
 * `of` values of a part the first `channels` are wanted. */
__global__ static void __launch_bounds__(THREADS)
    add_parts(float *dw, const float *parts, uint32_t count, uint32_t n, uint32_t channels, uint32_t of) {
    enum { SHARES = THREADS / 32 };
    __shared__ float room[SHARES][32];
    const uint32_t lane = threadIdx.x % 32, share = threadIdx.x / 32, i = blockIdx.x * 32 + lane;
    const size_t at = (size_t)(i / channels) * of + i % channels, apart = (size_t)(n / channels) * of;
    float sum = 0;
    if (i < n)
#pragma unroll 8
        for (uint32_t part = share; part < count; part += SHARES) sum += parts[part * apart + at];
    room[share][lane] = sum;
    __syncthreads();
    if (share || i >= n) return;
    sum = dw[i];
#pragma unroll
    for (int s = 0; s < SHARES; s++) sum += room[s][lane];
    dw[i] = sum;
}

/* ---- channels padded to a pack */

template <class T>
__global__ static void pad_pixels(gpu_pack<bf16> *to, const T *from, size_t pixels, uint32_t channels) {
    GPU_FOR(i, pixels) {
        gpu_pack<bf16> v;
#pragma unroll
        for (uint32_t j = 0; j < PACK; j++)
            v.v[j] = from_float<bf16>(j < channels ? to_float(from[i * channels + j]) : 0.0f);
        to[i] = v;
    }
}

template <class T>
static tern_status pad(tern_gpu_plan *plan, size_t node, void *to, const T *from, size_t pixels, size_t channels,
                       tern_error *err) {
    pad_pixels<<<gpu_blocks(plan, pixels), GPU_THREADS, 0, plan->stream>>>((gpu_pack<bf16> *)to, from, pixels,
                                                                           (uint32_t)channels);
    GPU_LAUNCHED(plan, node, err);
    return TERN_OK;
}

tern_status gpu_conv_pad_image(tern_gpu_plan *plan, size_t node, void *to, const void *from, size_t pixels,
                               size_t channels, tern_error *err) {
    return pad(plan, node, to, (const bf16 *)from, pixels, channels, err);
}
tern_status gpu_conv_pad_filters(tern_gpu_plan *plan, size_t node, void *to, const float *from, size_t pixels,
                                 size_t channels, tern_error *err) {
    return pad(plan, node, to, from, pixels, channels, err);
}

/* ---- */

gpu_conv gpu_conv_of(const tern_gpu_plan *plan, size_t node, size_t batch) {
    const tern_node *n = gpu_graph_node(plan, node);
    const gpu_patches p = gpu_patches_of(plan->graph, n, 0);
    return {batch, p.h, p.w, p.c, p.oh, p.ow, n->channels, p.kernel, p.padding};
}

static size_t values_of(const gpu_conv *c) { return c->kernel * c->kernel * c->c; }

/* With channels that are whole packs. Kernels count what they read and write in 31 bits. */
static bool can_multiply(const tern_gpu_plan *plan, size_t node, const gpu_conv &c) {
    const tern_node *n = gpu_graph_node(plan, node);
    const size_t most = (size_t)1 << 30, pixels = c.images * (c.h + c.kernel) * (c.w + c.kernel);
    return n->at.groups == 1 && n->at.stride == 1 && c.kernel > 1 && plan->context->major == 9 &&
           plan->type == TERN_BF16 && plan->products == TERN_BF16 && c.c % PACK == 0 && c.outputs % PACK == 0 &&
           c.padding < c.kernel && pixels < most / (c.c + c.outputs) && values_of(&c) < most / c.outputs &&
           c.kernel * c.kernel * c.outputs < most;
}

bool gpu_conv_fits(const tern_gpu_plan *plan, size_t node) {
    return can_multiply(plan, node, gpu_conv_of(plan, node, plan->batch_max));
}

bool gpu_conv_fits_padded(const tern_gpu_plan *plan, size_t node) {
    gpu_conv c = gpu_conv_of(plan, node, plan->batch_max);
    if (c.c >= PACK || !plan->training || plan->node[node].wants_grad[0] || !gpu_node_param(plan, node, 0)->grad)
        return false;
    c.c = PACK;
    return can_multiply(plan, node, c);
}

template <int N, template <class, int> class B>
static tern_status run_places(tern_gpu_plan *plan, size_t node, bf16_product p, const float *factor,
                              tern_error *err) {
    const auto kernel = multiply_places<N, B<bf16_operand, N>>;
    p.tiles_n = (p.n + N - 1) / N;
    CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, place_room<N>::BYTES),
             gpu_graph_node(plan, node)->name, err);
    kernel<<<place_blocks(p.g, p.tiles_n), THREADS, place_room<N>::BYTES, plan->stream>>>(p, factor);
    GPU_LAUNCHED(plan, node, err);
    return TERN_OK;
}

template <template <class, int> class B>
static tern_status choose_places(tern_gpu_plan *plan, size_t node, const bf16_product &p, const float *factor,
                                 tern_error *err) {
    if (p.n <= 32) return run_places<32, B>(plan, node, p, factor, err);
    return p.n <= 64 ? run_places<64, B>(plan, node, p, factor, err) : run_places<128, B>(plan, node, p, factor, err);
}

tern_status gpu_conv_forward(tern_gpu_plan *plan, size_t node, const gpu_conv *c, void *y, const void *x,
                             const void *w, tern_error *err) {
    bf16_product p = {};
    p.g = windows_over(c->images, c->h, c->w, c->c, c->oh, c->ow, c->kernel, c->padding);
    p.images = (const bf16 *)x;
    p.b = (const bf16 *)w;
    p.y = (bf16 *)y;
    p.n = (uint32_t)c->outputs;
    p.ldb = p.g.k;
    return choose_places<filters>(plan, node, p, NULL, err);
}

/* A convolution of dy: pixel x was at tap t of the place x + padding - t, so that taps counted from the last one begin
 * kernel - 1 - padding in front of x. */
tern_status gpu_conv_input_gradient(tern_gpu_plan *plan, size_t node, const gpu_conv *c, void *dx, int add,
                                    const void *dy, const void *w, const float *factor, tern_error *err) {
    bf16_product p = {};
    p.g = windows_over(c->images, c->oh, c->ow, c->outputs, c->h, c->w, c->kernel, c->kernel - 1 - c->padding);
    p.images = (const bf16 *)dy;
    p.b = (const bf16 *)w;
    p.y = (bf16 *)dx;
    p.add = add;
    p.n = (uint32_t)c->c;
    p.ldb = (uint32_t)values_of(c);
    return choose_places<turned_filters>(plan, node, p, factor, err);
}

/* How a gradient of filters is cut: so that every multiprocessor has a block. */
struct filter_cut {
    uint32_t m, k; /* tiles of 64 of a block */
    uint32_t tiles_m, tiles;
    size_t blocks; /* that share the places; with one tile of filters two parts each */
    size_t parts() const { return blocks * (m == 1 ? 2 : 1); }
};

static filter_cut cut_of(const tern_gpu_plan *plan, const gpu_conv *conv) {
    const size_t columns = (values_of(conv) + WIDE - 1) / WIDE;
    filter_cut c = {};
    c.m = conv->outputs > WIDE ? 2 : 1;
    size_t least = SIZE_MAX;
    for (uint32_t k = c.m == 1 ? 2 : 3; k <= (c.m == 1 ? 5u : 4u); k++) { /* the fewest tiles, the widest of these */
        const size_t wanted = (columns + k - 1) / k * k;
        if (wanted > least) continue;
        least = wanted;
        c.k = k;
    }
    c.tiles_m = (uint32_t)((conv->outputs + c.m * WIDE - 1) / (c.m * WIDE));
    c.tiles = c.tiles_m * (uint32_t)(least / c.k);
    c.blocks = (size_t)plan->context->multiprocessors / c.tiles;
    if (!c.blocks) c.blocks = 1;
    return c;
}

size_t gpu_conv_weight_scratch(const tern_gpu_plan *plan, const gpu_conv *conv) {
    return gpu_round_up(cut_of(plan, conv).parts() * conv->outputs * values_of(conv) * sizeof(float), 256);
}

template <int M, int K>
static tern_status run_filters(tern_gpu_plan *plan, size_t node, const filter_cut &c, const filter_product &p,
                               tern_error *err) {
    CUDA_TRY(cudaFuncSetAttribute(multiply_filters<M, K>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  filter_room<M, K>::BYTES),
             gpu_graph_node(plan, node)->name, err);
    const dim3 grid(c.tiles, (unsigned)c.blocks);
    multiply_filters<M, K><<<grid, THREADS, filter_room<M, K>::BYTES, plan->stream>>>(p);
    GPU_LAUNCHED(plan, node, err);
    return TERN_OK;
}

tern_status gpu_conv_weight_gradient(tern_gpu_plan *plan, size_t node, const gpu_conv *conv, float *dw,
                                     size_t channels, const void *dy, const void *x, void *scratch, tern_error *err) {
    const filter_cut c = cut_of(plan, conv);
    filter_product p = {};
    p.g = windows_over(conv->images, conv->h, conv->w, conv->c, conv->oh, conv->ow, conv->kernel, conv->padding);
    p.images = (const bf16 *)x;
    p.dy = (const bf16 *)dy;
    p.parts = (float *)scratch;
    p.m = (uint32_t)conv->outputs;
    p.tiles_m = c.tiles_m;
    p.each = (uint32_t)(((p.g.places + WIDE - 1) / WIDE + c.blocks - 1) / c.blocks * WIDE);
    const auto run = c.m == 2   ? (c.k == 3 ? run_filters<2, 3> : run_filters<2, 4>)
                     : c.k == 2 ? run_filters<1, 2>
                     : c.k == 3 ? run_filters<1, 3>
                     : c.k == 4 ? run_filters<1, 4>
                                : run_filters<1, 5>;
    GPU_CHECK(run(plan, node, c, p, err));
    const size_t count = conv->outputs * conv->kernel * conv->kernel * channels;
    add_parts<<<(unsigned)((count + 31) / 32), THREADS, 0, plan->stream>>>(
        dw, p.parts, (uint32_t)c.parts(), (uint32_t)count, (uint32_t)channels, (uint32_t)conv->c);
    GPU_LAUNCHED(plan, node, err);
    return TERN_OK;
}
