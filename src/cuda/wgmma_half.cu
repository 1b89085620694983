/* Many rows of halves on Hopper's warpgroup tensor cores. The copy engine brings activations, 64 columns a slot, into
 * a ring in shared memory; the two warpgroups of a block multiply them by 64 outputs each. The weights go from packed
 * words into registers and from there into the tensor cores: while one warpgroup unpacks a tile, the other one's is
 * multiplied.
 *
 * The copy engine leaves columns in their order, in which lane 4g + t has to hold columns 2t, 2t+1, 2t+8 and 2t+9 of
 * a chunk. A tile gives it 4t .. 4t+3: the words' bytes change places between the lanes of a row, two shuffles a
 * word. */
#include "cuda/slot_ring.cuh"
#include "cuda/wgmma_common.cuh"

enum {
    STAGES = TERN_WGMMA_HALF_STAGES,
    SLOT_COLS = 64,
    SLOT_BYTES = 2 * SLOT_COLS, /* of a row: the width of the copy engine's swizzle */
    SLOT_STEPS = SLOT_COLS / TERN_TILE_CHUNK,
    AHEAD = STAGES - 3, /* slots from the one that is begun to the one that is asked for: a tile holds up to three */
    THREADS = MULTIPLIERS,
    WARPS = THREADS / 32
};

typedef slot_ring<STAGES> half_ring;
typedef slot_supply<SLOT_COLS> half_supply;

/* ---- c[64][N] += a[64][16] b[16][N] with a in registers, b by rows --------------------------------------------- */

#define FLOATS_4(c, i) "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3])
#define FLOATS_16(c, i) FLOATS_4(c, i), FLOATS_4(c, i + 4), FLOATS_4(c, i + 8), FLOATS_4(c, i + 12)
#define FLOATS_32(c, i) FLOATS_16(c, i), FLOATS_16(c, i + 16)
#define NAMES_32                                                             \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
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

/* One tile, whose first step is step First of slot `slot`. */
template <class Density, bool Bf16, int First, int Sums>
__device__ static void multiply_tile(float (&c)[Sums], const uint4 &tile, const half_ring &r, const half_supply &s,
                                     int slot) {
    enum { N = Density::Chunks, STEPS = 2 * N };
    const int lane = (int)threadIdx.x % 32;
    const uint4 ordered[1] = {
        {in_order(tile.x, lane), in_order(tile.y, lane), in_order(tile.z, lane), in_order(tile.w, lane)}};
    half_weights<Density, Bf16, 1> w;
    uint32_t a[STEPS][4];
#pragma unroll
    for (int k = 0; k < STEPS; k++) {
        if (k % N == 0) w.open(ordered, k / N);
        w.next(k % N);
#pragma unroll
        for (int i = 0; i < 4; i++) a[k][i] = w.a[0][i % 2][i / 2];
        pin(a[k]);
    }
#pragma unroll
    for (int step = First; step < First + STEPS; step++)
        if (step == First || step % SLOT_STEPS == 0) {
            const int at = slot + step / SLOT_STEPS;
            if (step % SLOT_STEPS == 0) ask_ahead<AHEAD>(s, r, at);
            barrier_wait(r.full_of(at), half_ring::parity(at));
        }
    pin(c);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < STEPS; k++) {
        const int step = First + k;
        multiply<Bf16>(c, a[k],
                       swizzled_rows(r.stage(slot + step / SLOT_STEPS)) + (uint64_t)(step % SLOT_STEPS * 32 >> 4));
    }
    wgmma_commit();
    wgmma_wait();
    pin(c);
    if (lane == 0)
#pragma unroll
        for (int step = First; step < First + STEPS; step++)
            if (step % SLOT_STEPS == SLOT_STEPS - 1) barrier_arrive(r.empty_of(slot + step / SLOT_STEPS));
}

/* Two tiles end with a slot, for t2 and for t5. */
template <class Density, bool Bf16, int Sums>
__device__ static void multiply_row(float (&c)[Sums], const half_ring &r, const half_supply &s, const uint8_t *tiles,
                                    int k_tiles) {
    enum { PAIR_SLOTS = 4 * Density::Chunks / SLOT_STEPS, SECOND = 2 * Density::Chunks };
    const int lane = (int)threadIdx.x % 32;
    uint4 ahead[4];
#pragma unroll
    for (int i = 0; i < 4; i++)
        if (i < k_tiles) ahead[i] = load_tile_part(tiles + (size_t)i * TERN_TILE_BYTES, lane);
    for (int t = 0, slot = 0; t < k_tiles; t += 2, slot += PAIR_SLOTS) {
        const uint4 now[2] = {ahead[0], ahead[1]};
        ahead[0] = ahead[2];
        ahead[1] = ahead[3];
#pragma unroll
        for (int i = 0; i < 2; i++)
            if (t + 4 + i < k_tiles)
                ahead[2 + i] = load_tile_part(tiles + (size_t)(t + 4 + i) * TERN_TILE_BYTES, lane);
        multiply_tile<Density, Bf16, 0>(c, now[0], r, s, slot);
        if (t + 1 < k_tiles)
            multiply_tile<Density, Bf16, SECOND % SLOT_STEPS>(c, now[1], r, s, slot + SECOND / SLOT_STEPS);
    }
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

template <class Density, bool Bf16, int MTile>
__global__ void __launch_bounds__(THREADS, MTile == 64 ? 2 : 1)
    tern_matmul_wgmma_half_cuda(product p, const __grid_constant__ CUtensorMap acts) {
    extern __shared__ uint8_t shared[];
    /* The swizzle counts from multiples of 1024. */
    const uint32_t stages = ((uint32_t)__cvta_generic_to_shared(shared) + 1023) / 1024 * 1024;
    enum { STAGE_BYTES = MTile * SLOT_BYTES };
    const uint32_t barriers = stages + STAGES * STAGE_BYTES;
    const half_ring r = {stages, barriers, barriers + 8 * STAGES, STAGE_BYTES};
    const int warp = (int)threadIdx.x / 32, n0 = (int)blockIdx.y * BLOCK_ROWS, m0 = (int)blockIdx.x * MTile;
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            barrier_init(r.full_of(i), 1);
            barrier_init(r.empty_of(i), WARPS);
        }
        barrier_init_fence();
    }
    __syncthreads();
    let_next_kernel_start();
    wait_for_last_kernel();
    const half_supply supply = {&acts, (2 * Density::Chunks * p.w.k_tiles + SLOT_STEPS - 1) / SLOT_STEPS, 0, m0};
    if (threadIdx.x == 0)
        for (int i = 0; i < min((int)STAGES, supply.slots); i++) ask_for(supply, r, i);
    __syncwarp();
    /* Rows of tiles past the end are read as the last one. */
    const int row_tile = min(n0 / TERN_TILE_ROWS + warp, p.w.row_tiles - 1);
    float c[MTile / 2] = {};
    multiply_row<Density, Bf16>(c, r, supply, p.w.tiles + (size_t)row_tile * (size_t)p.w.k_tiles * TERN_TILE_BYTES,
                                p.w.k_tiles);
    put_sums<Density>(c, p.out, n0, m0);
}

/* ---- launching ------------------------------------------------------------------------------------------------- */

static const char op[] = "cuda-wgmma";

template <class Density, bool Bf16, int MTile>
static tern_status launch(tern_cuda_context *context, const product &p, int variant, tern_error *err) {
    const auto kernel = tern_matmul_wgmma_half_cuda<Density, Bf16, MTile>;
    const int shared = (int)tern_wgmma_half_shared_bytes(variant);
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
    CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared), op, err);
    /* Blocks of the same outputs are neighbours in time, so that their weights are read from L2. */
    const dim3 grid((unsigned)ceil_div(p.out.m, MTile), (unsigned)ceil_div(p.w.rows, BLOCK_ROWS));
    CUDA_TRY(tern_cuda_launch(context, kernel, grid, THREADS, shared, 1, p, acts), op, err);
    return TERN_OK;
}

/* In the order of TERN_WGMMA_HALF_TILES. */
template <class Density, bool Bf16>
static tern_status launch_variant(tern_cuda_context *context, const product &p, int variant, tern_error *err) {
    switch (variant) {
    case 1: return launch<Density, Bf16, 256>(context, p, variant, err);
    case 2: return launch<Density, Bf16, 160>(context, p, variant, err);
    case 3: return launch<Density, Bf16, 128>(context, p, variant, err);
    default: return launch<Density, Bf16, 64>(context, p, variant, err);
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
