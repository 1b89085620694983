/* Rows of halves, more than a few, on Hopper's warpgroup tensor cores. The copy engine brings activations, 64 columns
 * a slot, into a ring in shared memory; the two warpgroups of a block multiply them by 64 outputs each. The weights go
 * from packed words into registers and from there into the tensor cores: while half a tile is multiplied, the warp
 * unpacks the next one. Where outputs are few, the blocks of a cluster share the columns.
 *
 * The copy engine leaves columns in their order, in which lane 4g + t has to hold columns 2t, 2t+1, 2t+8 and 2t+9 of
 * a chunk. A tile gives it 4t .. 4t+3: the words' bytes change places between the lanes of a row, two shuffles a
 * word. */
#include <type_traits>
#include <utility>

#include "cuda/slot_ring.cuh"
#include "cuda/wgmma_common.cuh"

enum {
    SLOT_COLS = 64,
    SLOT_BYTES = 2 * SLOT_COLS, /* of a row: the width of the copy engine's swizzle */
    SLOT_STEPS = SLOT_COLS / TERN_TILE_CHUNK,
    UNIT_TILES = 4, /* that a warp has asked for; every second tile ends with a slot, for t2 and for t5 */
    UNIT_HALVES = 2 * UNIT_TILES,
    THREADS = MULTIPLIERS,
    WARPS = THREADS / 32
};

template <int MTile> using half_ring = slot_ring<TERN_WGMMA_HALF_STAGES(MTile)>;
typedef slot_supply<SLOT_COLS> half_supply;

/* ---- c[64][N] += a[64][16] b[16][N] with a in registers, b by rows --------------------------------------------- */

#define FLOATS_4(c, i) "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3])
#define FLOATS_16(c, i) FLOATS_4(c, i), FLOATS_4(c, i + 4), FLOATS_4(c, i + 8), FLOATS_4(c, i + 12)
#define FLOATS_32(c, i) FLOATS_16(c, i), FLOATS_16(c, i + 16)
#define NAMES_16 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define NAMES_32 \
    NAMES_16     \
    ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define NAMES_48 NAMES_32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define NAMES_64 NAMES_48 ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define NAMES_80 NAMES_64 ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"
#define NAMES_128                                                                                           \
    NAMES_80 ", %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "           \
             "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
             "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"

#define PRODUCT(N, TYPE, NAMES, OPERANDS, ...)                                                             \
    asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE " {" NAMES "}, " OPERANDS \
                 ", 1, 1, 1, 0;"                                                                           \
                 : __VA_ARGS__                                                                             \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))
#define PRODUCTS(N, NAMES, OPERANDS, ...)                                                                       \
    template <bool Bf16> __device__ static void multiply(float(&c)[N / 2], const uint32_t(&a)[4], uint64_t b) { \
        if constexpr (Bf16)                                                                                     \
            PRODUCT(N, "bf16", NAMES, OPERANDS, __VA_ARGS__);                                                   \
        else                                                                                                    \
            PRODUCT(N, "f16", NAMES, OPERANDS, __VA_ARGS__);                                                    \
    }
PRODUCTS(32, NAMES_16, "{%16, %17, %18, %19}, %20", FLOATS_16(c, 0))
PRODUCTS(64, NAMES_32, "{%32, %33, %34, %35}, %36", FLOATS_32(c, 0))
PRODUCTS(128, NAMES_64, "{%64, %65, %66, %67}, %68", FLOATS_32(c, 0), FLOATS_32(c, 32))
PRODUCTS(160, NAMES_80, "{%80, %81, %82, %83}, %84", FLOATS_32(c, 0), FLOATS_32(c, 32), FLOATS_16(c, 64))
PRODUCTS(256, NAMES_128, "{%128, %129, %130, %131}, %132", FLOATS_32(c, 0), FLOATS_32(c, 32), FLOATS_32(c, 64),
         FLOATS_32(c, 96))

/* ---- workers --------------------------------------------------------------------------------------------------- */

/* Bytes 0 and 1 become columns 2t and 2t+1, bytes 2 and 3 those 8 further. */
__device__ static uint32_t in_order(uint32_t word, int lane) {
    const int from = lane / 4 * 4 + lane % 4 / 2;
    const uint32_t low = __shfl_sync(0xffffffffu, word, from), high = __shfl_sync(0xffffffffu, word, from + 2);
    return __byte_perm(low, high, lane % 2 ? 0x7632 : 0x5410);
}

/* The A operands of half a tile, from a lane's words of it. */
template <class Density, bool Bf16>
__device__ static void unpack(uint32_t (&a)[Density::Chunks][4], uint32_t upper_rows, uint32_t lower_rows) {
    const int lane = (int)threadIdx.x % 32;
    const uint4 ordered[1] = {{in_order(upper_rows, lane), in_order(lower_rows, lane), 0, 0}};
    half_weights<Density, Bf16, 1> w;
    w.open(ordered, 0);
#pragma unroll
    for (int k = 0; k < Density::Chunks; k++) {
        w.next(k);
#pragma unroll
        for (int i = 0; i < 4; i++) a[k][i] = w.a[0][i % 2][i / 2];
        pin(a[k]);
    }
}

/* What a warp does with half tile number Half of a unit, whose first slot is `slot`. The half lies in one or two slots
 * and may share them with its neighbours. */
template <class Density, bool Bf16, int MTile> struct worker {
    enum { STEPS = Density::Chunks, UNIT_SLOTS = UNIT_HALVES * STEPS / SLOT_STEPS };
    enum { AHEAD = TERN_WGMMA_HALF_STAGES(MTile) - 2 };
    static_assert((int)STEPS <= SLOT_STEPS + 1, "what lies two slots back ended in an earlier half");

    const half_ring<MTile> &r;
    const half_supply &supply;

    template <int Half> __device__ void start(float (&c)[MTile / 2], const uint32_t (&a)[STEPS][4], int slot) const {
        enum { First = Half * STEPS };
#pragma unroll
        for (int step = First; step < First + STEPS; step++) {
            const int at = slot + step / SLOT_STEPS;
            if (step == First || step % SLOT_STEPS == 0) barrier_wait(r.full_of(at), r.parity(at));
        }
        pin(c);
        wgmma_fence();
#pragma unroll
        for (int k = 0; k < STEPS; k++) {
            const int step = First + k;
            multiply<Bf16>(
                c, a[k], swizzled_rows(r.stage(slot + step / SLOT_STEPS)) + (uint64_t)(step % SLOT_STEPS * 32 >> 4));
        }
        wgmma_commit();
    }
    /* The slots that it ended. */
    template <int Half> __device__ void release(int slot) const {
        if (threadIdx.x % 32 == 0)
#pragma unroll
            for (int step = Half * STEPS; step < (Half + 1) * STEPS; step++)
                if (step % SLOT_STEPS == SLOT_STEPS - 1) barrier_arrive(r.empty_of(slot + step / SLOT_STEPS));
    }
    /* For each slot that it begins, the one that follows AHEAD. That takes the room of the slot before the last one,
     * which this warp has let go of by now. */
    template <int Half> __device__ void ask(int slot) const {
#pragma unroll
        for (int step = Half * STEPS; step < (Half + 1) * STEPS; step++)
            if (step % SLOT_STEPS == 0) ask_ahead<AHEAD>(supply, r, slot + step / SLOT_STEPS);
    }
};

/* f(number) for one half tile of a unit after the other, its number as a type. */
template <class F, int... Half> __device__ static void each_half(const F &f, std::integer_sequence<int, Half...>) {
    (f(std::integral_constant<int, Half>()), ...);
}

/* `k_tiles` of a row of tiles. While half a tile is multiplied the next one is unpacked. Tiles that are no unit come
 * behind the loop: sums that met from two sides while products are under way would make the compiler wait for each. */
template <class Density, bool Bf16, int MTile>
__device__ static void multiply_part(float (&c)[MTile / 2], const half_ring<MTile> &r, const half_supply &s,
                                     const uint8_t *tiles, int k_tiles) {
    typedef worker<Density, Bf16, MTile> work;
    const work w = {r, s};
    const int lane = (int)threadIdx.x % 32;
    uint4 ahead[UNIT_TILES];
    uint32_t a[2][work::STEPS][4];
    const auto load = [&](int i, int k) {
        if (k < k_tiles) ahead[i] = load_tile_part(tiles + (size_t)k * TERN_TILE_BYTES, lane);
    };
#pragma unroll
    for (int i = 0; i < UNIT_TILES; i++) load(i, i);
    let_next_kernel_start();
    wait_for_last_kernel();
    if (threadIdx.x == 0)
        for (int i = 0; i < min(TERN_WGMMA_HALF_STAGES(MTile), s.slots); i++) ask_for(s, r, i);
    __syncwarp();
    int t = 0, slot = 0;
    /* The operands of a half; behind a second one, its tile's room is filled anew. */
    const auto prepare = [&](auto which) {
        constexpr int I = which.value;
        const uint4 &tile = ahead[I / 2 % UNIT_TILES];
        unpack<Density, Bf16>(a[I % 2], I % 2 ? tile.z : tile.x, I % 2 ? tile.w : tile.y);
        if (I % 2) load(I / 2 % UNIT_TILES, t + I / 2 + UNIT_TILES);
    };
    const auto step = [&](auto which) {
        constexpr int I = which.value;
        w.template start<I>(c, a[I % 2], slot);
        wgmma_wait<1>();
        if (I > 0 || t > 0)
            w.template release<(I + UNIT_HALVES - 1) % UNIT_HALVES>(I > 0 ? slot : slot - work::UNIT_SLOTS);
        w.template ask<I>(slot);
        prepare(std::integral_constant<int, I + 1>());
    };
    const auto last_step = [&](auto which) {
        constexpr int I = which.value;
        if (t + I / 2 < k_tiles) {
            w.template start<I>(c, a[I % 2], slot);
            wgmma_wait();
            pin(c);
            w.template release<I>(slot);
            w.template ask<I>(slot);
            prepare(std::integral_constant<int, I + 1>());
        }
    };
    prepare(std::integral_constant<int, 0>());
    if (k_tiles >= UNIT_TILES) {
        do {
            each_half(step, std::make_integer_sequence<int, UNIT_HALVES>());
            t += UNIT_TILES;
            slot += work::UNIT_SLOTS;
        } while (t + UNIT_TILES <= k_tiles);
        wgmma_wait();
        pin(c);
        w.template release<UNIT_HALVES - 1>(slot - work::UNIT_SLOTS);
    }
    each_half(last_step, std::make_integer_sequence<int, UNIT_HALVES - 2>()); /* less than a unit */
}

/* The first tile of split blockIdx.z + next. Splits begin with a slot of activations, as every tile of t2 does, and
 * every second one of t5. */
template <class Density> __device__ static int part_begin(const product &p, int splits, int next) {
    const int together = Density::T5 ? 2 : 1, count = (p.w.k_tiles + together - 1) / together;
    return min(count * ((int)blockIdx.z + next) / splits * together, p.w.k_tiles);
}

/* A few of the sums at a time: all of them would be as many registers again. */
template <class Density, int Sums>
__device__ static void put_sums(const float (&c)[Sums], const epilogue &out, int n0, int m0) {
    enum { SOME = 16 };
#pragma unroll
    for (int first = 0; first < Sums; first += SOME) {
        const place at = my_place(out, n0, m0 + first / 4 * 8);
        float v[SOME];
#pragma unroll
        for (int i = 0; i < SOME; i++) {
            const int n = min(at.n(i), out.rows - 1);
            v[i] = product_of(c[first + i] * half_scale(Density()), scale_of(out, n), bias_of(out, n));
        }
        put_products(v, out, at);
    }
}

/* ---- the kernel ------------------------------------------------------------------------------------------------ */

template <class Density, bool Bf16, int MTile, int Splits>
__global__ void __launch_bounds__(THREADS, MTile == 32 && !Density::T5 ? 3
                                           : MTile <= 64               ? 2
                                                                       : 1)
    tern_matmul_wgmma_half_cuda(product p, const __grid_constant__ CUtensorMap acts) {
    extern __shared__ uint8_t shared[];
    /* The swizzle counts from multiples of 1024. */
    const uint32_t base = (uint32_t)__cvta_generic_to_shared(shared), stages = (base + 1023) / 1024 * 1024;
    enum { STAGES = TERN_WGMMA_HALF_STAGES(MTile), STAGE_BYTES = MTile * SLOT_BYTES };
    const uint32_t barriers = stages + STAGES * STAGE_BYTES;
    const half_ring<MTile> r = {stages, barriers, barriers + 8 * STAGES, STAGE_BYTES};
    const int warp = (int)threadIdx.x / 32, n0 = (int)blockIdx.y * BLOCK_ROWS, m0 = (int)blockIdx.x * MTile;
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            barrier_init(r.full_of(i), 1);
            barrier_init(r.empty_of(i), WARPS);
        }
        barrier_init_fence();
    }
    __syncthreads();
    const int begin = part_begin<Density>(p, Splits, 0), k_tiles = part_begin<Density>(p, Splits, 1) - begin;
    const half_supply supply = {&acts, (2 * Density::Chunks * k_tiles + SLOT_STEPS - 1) / SLOT_STEPS,
                                begin * Density::Cols, m0};
    /* Rows of tiles past the end are read as the last one. */
    const int row_tile = min(n0 / TERN_TILE_ROWS + warp, p.w.row_tiles - 1);
    const size_t first_tile = (size_t)row_tile * (size_t)p.w.k_tiles + (size_t)begin;
    float c[MTile / 2] = {};
    multiply_part<Density, Bf16, MTile>(c, r, supply, p.w.tiles + first_tile * TERN_TILE_BYTES, k_tiles);
    if constexpr (Splits == 1) {
        put_sums<Density>(c, p.out, n0, m0);
    } else {
        static_assert(MTile * SUM_PITCH * 4 <= STAGES * STAGE_BYTES, "sums take the place of the stages");
        float *sums = (float *)(shared + (stages - base));
        const cluster_share<float, MTile, Splits> share(p.out, n0, m0);
        __syncthreads(); /* the stages are no longer read */
        leave_sums(sums, c, p.out);
        share.template put<Density>(sums, p.out);
    }
}

/* ---- launching ------------------------------------------------------------------------------------------------- */

static const char op[] = "cuda-wgmma";

/* So much that two blocks fit on a multiprocessor, no more. Where two of each are enough for all to run at once (nine
 * tenths of them, for clusters), a third place would let in the next kernel's, whose weights take from the memory what
 * these wait for (lab/cuda-wgmma.md). */
enum { TWO_BLOCKS_BYTES = 78 << 10 };

template <class Density, bool Bf16, int MTile, int Splits = 1>
static tern_status launch(tern_cuda_context *context, const product &p, int variant, tern_error *err) {
    const auto kernel = tern_matmul_wgmma_half_cuda<Density, Bf16, MTile, Splits>;
    /* Blocks of the same outputs are neighbours in time, so that their weights are read from L2. */
    const dim3 grid((unsigned)ceil_div(p.out.m, MTile), (unsigned)ceil_div(p.w.rows, BLOCK_ROWS), Splits);
    int shared = (int)tern_wgmma_half_shared_bytes(variant);
    if (10 * grid.x * grid.y * Splits <= 18 * (unsigned)context->multiprocessors)
        shared = max(shared, min((int)TWO_BLOCKS_BYTES, (int)context->shared_bytes));
    CUtensorMap acts;
    const boxes b = {CU_TENSOR_MAP_DATA_TYPE_UINT16,
                     CU_TENSOR_MAP_SWIZZLE_128B,
                     p.x,
                     (size_t)p.w.cols,
                     (size_t)p.out.m,
                     2 * (size_t)p.ldx,
                     SLOT_COLS,
                     MTile};
    tern_status status = tern_cuda_describe_boxes(&acts, b, op, err);
    if (status) return status;
    CUDA_TRY(tern_cuda_launch(context, kernel, grid, THREADS, shared, Splits, p, acts), op, err);
    return TERN_OK;
}

/* In the order of TERN_WGMMA_HALF_SHAPES. */
template <class Density, bool Bf16>
static tern_status launch_variant(tern_cuda_context *context, const product &p, int variant, tern_error *err) {
    switch (variant) {
    case 1: return launch<Density, Bf16, 256>(context, p, variant, err);
    case 2: return launch<Density, Bf16, 160>(context, p, variant, err);
    case 3: return launch<Density, Bf16, 128>(context, p, variant, err);
    case 4: return launch<Density, Bf16, 64>(context, p, variant, err);
    case 5: return launch<Density, Bf16, 64, 2>(context, p, variant, err);
    case 6: return launch<Density, Bf16, 64, 4>(context, p, variant, err);
    case 7: return launch<Density, Bf16, 32>(context, p, variant, err);
    case 8: return launch<Density, Bf16, 32, 2>(context, p, variant, err);
    default: return launch<Density, Bf16, 32, 4>(context, p, variant, err);
    }
}

template <class Density>
static tern_status launch_type(tern_cuda_context *context, const product &p, tern_dtype x_type, int variant,
                               tern_error *err) {
    return x_type == TERN_BF16 ? launch_variant<Density, true>(context, p, variant, err)
                               : launch_variant<Density, false>(context, p, variant, err);
}

tern_status tern_cuda_wgmma_half(tern_cuda_context *context, const product &p, tern_dtype x_type, int variant,
                                 tern_error *err) {
    return p.w.t5 ? launch_type<t5>(context, p, x_type, variant, err)
                  : launch_type<t2>(context, p, x_type, variant, err);
}
