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
enum { WIDE = bf16_operand::WIDE, PACK = bf16_operand::PACK, PACKS = bf16_operand::PACKS };

/* ---- outputs of places */

/* b of a gradient: value k of a window of dy, output o at a tap counted from the last, meets filter o's values at
 * that tap, one for each of the n channels. */
template <class O, class Block> struct turned_filters {
    enum {
        TURNED = 1,
        ROW_PACKS = Block::OUTPUTS / PACK,
        ROWS_AT_ONCE = Block::THREADS / ROW_PACKS,
        MINE = (WIDE + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE
    };
    const bf16 *from; /* the first channel of the pack, of output 0 */
    uint32_t to_pack, row;
    bool valid;
    __device__ turned_filters(const place_product<O> &p, uint32_t n0) : row(threadIdx.x / ROW_PACKS) {
        const uint32_t pack = threadIdx.x % ROW_PACKS, n = n0 + pack * PACK;
        to_pack = pack / PACKS * TILE_BYTES + place_of<16>(row, pack % PACKS);
        static_assert(ROWS_AT_ONCE % 8 == 0, "rows of a thread are swizzled alike");
        valid = n < p.n;
        from = p.b + n + (p.g.whole ? (size_t)row * p.ldb : 0);
    }
    __device__ void copy(uint32_t to, uint32_t i, const bf16 *at, bool inside) const {
        if (row + i * ROWS_AT_ONCE < WIDE) copy_pack<16>(to + to_pack + i * ROWS_AT_ONCE * ROW_BYTES, at, inside);
    }
    __device__ void bring(uint32_t to, const place_product<O> &p, const window_row &r) const {
        const uint32_t last = p.g.taps.d - 1;
        if (p.g.whole) {
            const bf16 *at = from + ((size_t)r.channel * p.ldb + (last - r.tap) * p.n);
#pragma unroll
            for (uint32_t i = 0; i < MINE; i++) copy(to, i, at + (size_t)(i * ROWS_AT_ONCE) * p.ldb, valid);
            return;
        }
#pragma unroll
        for (uint32_t i = 0; i < MINE; i++) {
            uint32_t tap = r.k + row + i * ROWS_AT_ONCE;
            const bool inside = tap < p.g.k && valid;
            const uint32_t o = gpu_split(&tap, p.g.c);
            copy(to, i, from + (inside ? (size_t)o * p.ldb + (last - tap) * p.n : 0), inside);
        }
    }
};

typedef place_product<bf16_operand> bf16_product;

template <class Block, class B>
__global__ static void __launch_bounds__((Block::THREADS), (Block::BLOCKS))
    multiply_places(const __grid_constant__ bf16_product p, const float *factor) {
    const uint32_t n0 = first_output<Block>(p), first = first_place<Block>(p);
    float c[Block::OUTPUTS / 2] = {};
    multiply_windows<bf16_operand, Block, B>(c, p, n0, first);
    const float by = factor ? *factor : 1;
    write_places<Block>(p, n0, first, [&](uint32_t i, uint32_t, uint32_t) { return c[i] * by; });
}

/* ---- gradients of filters: parts[part][m][k] = dy^T windows over some of the places */

/* 64 places: pixels of a line, lines of an image and of all images' input. */
struct filter_stride {
    uint32_t x, y;
    int32_t line;
};

struct filter_product {
    windows g;
    filter_stride stride;
    const bf16 *images, *dy;
    float *parts;
    uint32_t m, tiles_m;
    uint32_t each; /* places of a part, a multiple of 64 */
};

/* M tiles of 64 filters and K tiles of 64 values of their windows. Of four warpgroups two have the first half of the
 * values, two the others; these two have a tile of filters each, or with one tile half of the places. */
template <int M, int K> struct filter_block {
    enum {
        THREADS = 4 * GROUP,
        STAGES = 4,
        AHEAD = STAGES - 2,
        STAGE_BYTES = (M + K) * TILE_BYTES,
        BYTES = ALIGNMENT + STAGES * STAGE_BYTES
    };
};

/* Sums of K tiles of 64 values. */
template <int K> struct filter_sums {
    float pair[K / 2 ? K / 2 : 1][64];
    float last[K % 2 ? 32 : 1];
};

template <int K> __device__ static void pin_all(filter_sums<K> &c) {
#pragma unroll
    for (int i = 0; i < K / 2; i++) pin(c.pair[i]);
    if (K % 2) pin(c.last);
}

template <int K> __device__ static void multiply_all(filter_sums<K> &c, uint64_t a, uint64_t b) {
#pragma unroll
    for (int i = 0; i < K / 2; i++) multiply_tiles<1, 1>(c.pair[i], a, b + (uint64_t)(i * 2 * TILE_BYTES >> 4));
    if constexpr (K % 2 != 0) multiply_tiles<1, 1>(c.last, a, b + (uint64_t)((K - 1) * TILE_BYTES >> 4));
}

/* f(tile, sums of its 64 values) */
template <int K, class F> __device__ static void for_tiles(filter_sums<K> &c, F f) {
#pragma unroll
    for (int i = 0; i < K; i++) f((uint32_t)i, i / 2 < K / 2 ? c.pair[i / 2] + i % 2 * 32 : c.last);
}

/* A place that goes 64 further with each step: of its image, and the line of all images where its window begins. */
struct walking_place {
    uint32_t x, y;
    int32_t line;
    __device__ walking_place(const windows &g, uint32_t place) {
        uint32_t image = place;
        x = gpu_split(&image, g.ow);
        y = gpu_split(&image, g.oh);
        line = (int32_t)(image * g.h + y) - g.padding;
    }
    __device__ void step(const windows &g, const filter_stride &by) {
        x += by.x;
        const bool next_line = x >= g.ow.d;
        x -= next_line ? g.ow.d : 0;
        y += by.y + next_line;
        line += by.line + next_line;
        const bool next_image = y >= g.oh.d;
        y -= next_image ? g.oh.d : 0;
        line += next_image ? (int32_t)g.h - (int32_t)g.oh.d : 0;
    }
};

enum : uint32_t { FAR = 1u << 30 }; /* outside of every image */

/* What a thread brings: a pack of one place in 64, of every tile. */
template <int M, int K> struct filter_source {
    int32_t from[K]; /* of the first pixel of a window on, and its pixel in the window */
    uint32_t from_y[K], from_x[K];
    walking_place at;
    const bf16 *dy;
    uint32_t place, end, pack, row;
    bool valid[M];
    __device__ filter_source(const filter_product &p, uint32_t m0, uint32_t k0, uint32_t begin, uint32_t stop)
        : at(p.g, begin + threadIdx.x / PACKS), place(begin + threadIdx.x / PACKS), end(stop),
          pack(threadIdx.x % PACKS), row(threadIdx.x / PACKS) {
        dy = p.dy + (size_t)place * p.m + m0 + pack * PACK;
#pragma unroll
        for (uint32_t i = 0; i < M; i++) valid[i] = m0 + i * WIDE + pack * PACK < p.m;
#pragma unroll
        for (uint32_t i = 0; i < K; i++) {
            const value_at v = value_of(p.g, row_of<bf16_operand>(p.g, k0 + i).k + pack * PACK);
            from[i] = v.at;
            from_x[i] = v.x;
            from_y[i] = v.tap == NO_TAP ? FAR : v.y;
        }
    }
    /* The next 64 places. */
    __device__ void bring(uint32_t to, const filter_product &p) {
        const bool is_place = place < end;
        const int32_t x = (int32_t)at.x - p.g.padding, y = (int32_t)at.y - p.g.padding;
        const bf16 *first = p.images + ((int64_t)at.line * p.g.w + x) * (int64_t)p.g.c.d;
#pragma unroll
        for (uint32_t i = 0; i < M; i++)
            copy_pack<16>(to + i * TILE_BYTES + place_of<16>(row, pack), dy + i * WIDE, is_place && valid[i]);
#pragma unroll
        for (uint32_t i = 0; i < K; i++)
            copy_pack<16>(to + (M + i) * TILE_BYTES + place_of<16>(row, pack), first + from[i],
                          is_place && (uint32_t)y + from_y[i] < p.g.h && (uint32_t)x + from_x[i] < p.g.w);
        place += WIDE;
        dy += (size_t)WIDE * p.m;
        at.step(p.g, p.stride);
    }
};

/* All threads of the block come, from different places of the code. */
template <int THREADS> __device__ static void meet() { asm volatile("bar.sync 1, %0;" ::"n"(THREADS) : "memory"); }

/* The work of a warpgroup that has tiles FIRST ... + OWN of the K. */
template <int M, int K, int FIRST, int OWN>
__device__ static void multiply_part(const filter_product &p, uint32_t m0, uint32_t k0) {
    typedef filter_block<M, K> block;
    enum { AHEAD = block::AHEAD, SHARE = M > 1 ? 4 : 2 /* instructions of a step */ };
    const uint32_t stages = aligned_room(), group = threadIdx.x / GROUP % 2;
    const uint32_t begin = blockIdx.y * p.each, end = min(begin + p.each, p.g.places);
    const uint32_t steps = begin < end ? (end - begin + WIDE - 1) / WIDE : 0;
    const uint32_t step0 = M > 1 ? 0 : group * SHARE;
    filter_source<M, K> source(p, m0, k0, begin, end);
    filter_sums<OWN> c = {};
    for (uint32_t step = 0; step < AHEAD; step++) {
        if (step < steps) source.bring(stages + step * block::STAGE_BYTES, p);
        commit_copies();
    }
    for (uint32_t step = 0; step < steps; step++) {
        wait_copies<AHEAD - 1>();
        meet<block::THREADS>(); /* this stage is there, and the one before the last is free */
        const uint32_t at = stages + step % block::STAGES * block::STAGE_BYTES;
        const uint64_t a = turned_tile(at + (M > 1 ? group * TILE_BYTES : 0)) + step0 * BY_COLUMN;
        const uint64_t b = turned_tile(at + (M + FIRST) * TILE_BYTES) + step0 * BY_COLUMN;
        pin_all(c);
        wgmma_fence();
#pragma unroll
        for (uint32_t k = 0; k < SHARE; k++) multiply_all<OWN>(c, a + k * BY_COLUMN, b + k * BY_COLUMN);
        wgmma_commit();
        if (step + AHEAD < steps) source.bring(stages + (step + AHEAD) % block::STAGES * block::STAGE_BYTES, p);
        commit_copies();
        wgmma_wait<1>();
    }
    wgmma_wait<0>();
    pin_all(c);
    if (M == 1) {               /* the second half of the places is added to the first */
        meet<block::THREADS>(); /* the stages are no longer read */
        float *room = (float *)conv_room + FIRST * 32 * GROUP + threadIdx.x % GROUP;
        for_tiles(c, [&](uint32_t tile, float *sums) {
#pragma unroll
            for (uint32_t i = 0; i < 32; i++)
                if (group) room[(tile * 32 + i) * GROUP] = sums[i];
        });
        meet<block::THREADS>();
        if (group) return;
        for_tiles(c, [&](uint32_t tile, float *sums) {
#pragma unroll
            for (uint32_t i = 0; i < 32; i++) sums[i] += room[(tile * 32 + i) * GROUP];
        });
    }
    const uint32_t mine = m0 + (M > 1 ? group * WIDE : 0) + threadIdx.x % GROUP / 32 * 16 + threadIdx.x % 32 / 4;
    float *to = p.parts + (size_t)blockIdx.y * p.m * p.g.k;
    for_tiles(c, [&](uint32_t tile, const float *sums) {
        const uint32_t column = row_of<bf16_operand>(p.g, k0 + FIRST + tile).k + threadIdx.x % 4 * 2;
#pragma unroll
        for (uint32_t i = 0; i < 32; i += 2) {
            const uint32_t m = mine + i / 2 % 2 * 8, k = column + i / 4 * 8;
            if (m < p.m && k < p.g.k) *(float2 *)(to + (size_t)m * p.g.k + k) = make_float2(sums[i], sums[i + 1]);
        }
    });
}

template <int M, int K>
__global__ static void __launch_bounds__(4 * GROUP, 1) multiply_filters(const __grid_constant__ filter_product p) {
    const uint32_t m0 = blockIdx.x % p.tiles_m * M * WIDE, k0 = blockIdx.x / p.tiles_m * K;
    if (threadIdx.x < 2 * GROUP)
        multiply_part<M, K, 0, (K + 1) / 2>(p, m0, k0);
    else
        multiply_part<M, K, (K + 1) / 2, K / 2>(p, m0, k0);
}

/* dw[i] += the sum of parts[part][i]: each warp of a block adds every eighth of them, then one adds those. */
__global__ static void __launch_bounds__(GPU_THREADS)
    add_parts(float4 *dw, const float4 *parts, uint32_t count, uint32_t n) {
    enum { SHARES = GPU_THREADS / 32 };
    __shared__ float4 room[SHARES][32];
    const uint32_t lane = threadIdx.x % 32, share = threadIdx.x / 32, i = blockIdx.x * 32 + lane;
    float4 sum = make_float4(0, 0, 0, 0);
    const auto add = [&](const float4 &v) { sum = make_float4(sum.x + v.x, sum.y + v.y, sum.z + v.z, sum.w + v.w); };
    if (i < n)
#pragma unroll 8
        for (uint32_t part = share; part < count; part += SHARES) add(parts[(size_t)part * n + i]);
    room[share][lane] = sum;
    __syncthreads();
    if (share || i >= n) return;
    sum = dw[i];
#pragma unroll
    for (int s = 0; s < SHARES; s++) add(room[s][lane]);
    dw[i] = sum;
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
    const size_t room = filter_block<1, 5>::BYTES;
    static_assert((int)place_block<4, 128, 4>::BYTES <= (int)filter_block<1, 5>::BYTES, "the block with the most");
    return plan->context->shared_bytes >= room && n->at.groups == 1 && n->at.stride == 1 && c.kernel > 1 &&
           c.kernel * c.kernel <= GPU_CONV_TAPS && plan->context->major == 9 && plan->context->minor == 0 &&
           plan->type == TERN_BF16 && plan->products == TERN_BF16 && c.c % PACK == 0 && c.outputs % PACK == 0 &&
           c.padding < c.kernel && pixels < most / (c.c + c.outputs) && values_of(&c) < most / c.outputs &&
           c.kernel * c.kernel * c.outputs < most;
}

bool gpu_conv_fits(const tern_gpu_plan *plan, size_t node) {
    return can_multiply(plan, node, gpu_conv_of(plan, node, plan->batch_max));
}

template <template <class, class> class B>
static tern_status choose_places(tern_gpu_plan *plan, size_t node, const bf16_product &p, const float *factor,
                                 tern_error *err) {
    return choose_block(plan, p, [&](auto block) {
        using Block = decltype(block);
        return run_places<Block>(plan, node, multiply_places<Block, B<bf16_operand, Block>>, p, factor, err);
    });
}

tern_status gpu_conv_forward(tern_gpu_plan *plan, size_t node, const gpu_conv *c, void *y, const void *x,
                             const void *w, tern_error *err) {
    bf16_product p = {};
    p.g = windows_over(c->images, c->h, c->w, c->c, c->oh, c->ow, c->kernel, c->padding, WIDE);
    p.images = (const bf16 *)x;
    p.b = (const bf16 *)w;
    p.y = (bf16 *)y;
    p.n = (uint32_t)c->outputs;
    p.ldb = p.g.k;
    return choose_places<filters>(plan, node, p, NULL, err);
}

/* A convolution of dy: pixel x was at tap t of the place x + padding - t, so that taps counted from the last one
 * begin kernel - 1 - padding in front of x. */
tern_status gpu_conv_input_gradient(tern_gpu_plan *plan, size_t node, const gpu_conv *c, void *dx, int add,
                                    const void *dy, const void *w, const float *factor, tern_error *err) {
    bf16_product p = {};
    p.g = windows_over(c->images, c->oh, c->ow, c->outputs, c->h, c->w, c->kernel, c->kernel - 1 - c->padding, WIDE);
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
    size_t parts; /* blocks that share the places */
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
    c.parts = (size_t)plan->context->multiprocessors / c.tiles;
    if (!c.parts) c.parts = 1;
    return c;
}

size_t gpu_conv_weight_scratch(const tern_gpu_plan *plan, const gpu_conv *conv) {
    return gpu_round_up(cut_of(plan, conv).parts * conv->outputs * values_of(conv) * sizeof(float), 256);
}

template <int M, int K>
static tern_status run_filters(tern_gpu_plan *plan, size_t node, const filter_cut &c, const filter_product &p,
                               tern_error *err) {
    CUDA_TRY(cudaFuncSetAttribute(multiply_filters<M, K>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  filter_block<M, K>::BYTES),
             gpu_graph_node(plan, node)->name, err);
    const dim3 grid(c.tiles, (unsigned)c.parts);
    multiply_filters<M, K><<<grid, filter_block<M, K>::THREADS, filter_block<M, K>::BYTES, plan->stream>>>(p);
    GPU_LAUNCHED(plan, node, err);
    return TERN_OK;
}

tern_status gpu_conv_weight_gradient(tern_gpu_plan *plan, size_t node, const gpu_conv *conv, float *dw,
                                     const void *dy, const void *x, void *scratch, tern_error *err) {
    const filter_cut c = cut_of(plan, conv);
    filter_product p = {};
    p.g =
        windows_over(conv->images, conv->h, conv->w, conv->c, conv->oh, conv->ow, conv->kernel, conv->padding, WIDE);
    p.images = (const bf16 *)x;
    p.dy = (const bf16 *)dy;
    p.parts = (float *)scratch;
    p.m = (uint32_t)conv->outputs;
    p.tiles_m = c.tiles_m;
    const size_t lines = WIDE / conv->ow;
    p.stride = {(uint32_t)(WIDE % conv->ow), (uint32_t)(lines % conv->oh),
                (int32_t)(lines % conv->oh + lines / conv->oh * conv->h)};
    p.each = (uint32_t)(((p.g.places + WIDE - 1) / WIDE + c.parts - 1) / c.parts * WIDE);
    const auto run = c.m == 2   ? (c.k == 3 ? run_filters<2, 3> : run_filters<2, 4>)
                     : c.k == 2 ? run_filters<1, 2>
                     : c.k == 3 ? run_filters<1, 3>
                     : c.k == 4 ? run_filters<1, 4>
                                : run_filters<1, 5>;
    GPU_CHECK(run(plan, node, c, p, err));
    const uint32_t packs = p.m * p.g.k / 4;
    add_parts<<<(packs + 31) / 32, GPU_THREADS, 0, plan->stream>>>((float4 *)dw, (const float4 *)p.parts,
                                                                   (uint32_t)c.parts, packs);
    GPU_LAUNCHED(plan, node, err);
    return TERN_OK;
}
