/* Many rows of int8 activations on Hopper's warpgroup tensor cores. The copy engine brings activations, 128 columns a
 * stage, into shared memory; the two warpgroups of a block multiply them by 64 outputs each. The weights go from
 * packed words into registers and from there into the tensor cores, never through shared memory. While one warpgroup
 * unpacks, the other one keeps the tensor cores busy.
 *
 * Where the outputs are too few to fill the device, the blocks of a cluster share the columns and exchange their sums
 * through each other's shared memory. What fills the device with larger tiles is wgmma_ring.cu's. */
#include "cuda/slot_ring.cuh"
#include "cuda/wgmma_common.cuh"

enum {
    STAGES = TERN_WGMMA_STAGES,
    SLOT_COLS = TERN_WGMMA_SLOT_COLS,
    SLOT_STEPS = SLOT_COLS / 32,
    UNIT_TILES = 4, /* a unit ends with a tile and with a slot of activations, for t2 and for t5 */
    THREADS = MULTIPLIERS,
    WARPS = THREADS / 32,
    AHEAD = STAGES / 2 /* slots from the one that is multiplied to the one that is asked for */
};

typedef slot_ring<STAGES> ring;
typedef slot_supply<SLOT_COLS> supply;

/* The tiles [begin, end) of a row of tiles; begin is a multiple of UNIT_TILES. */
struct part {
    int begin, end;
};

template <class Density> __device__ static part my_part(const product &p) {
    const int units = (p.w.k_tiles + UNIT_TILES - 1) / UNIT_TILES, splits = (int)gridDim.z, i = (int)blockIdx.z;
    return {units * i / splits * UNIT_TILES, min(units * (i + 1) / splits * UNIT_TILES, p.w.k_tiles)};
}

template <class Density> __device__ static int slots_of(part mine) {
    return ((mine.end - mine.begin) * Density::Chunks + SLOT_STEPS - 1) / SLOT_STEPS;
}

/* One tile: its steps multiply slots from `slot` on. Tile is its number in the unit. */
template <class Density, int Tile, int Sums>
__device__ static void multiply_tile(int32_t (&c)[Sums], const uint4 &tile, const ring &r, const supply &s,
                                     int slot) {
    enum { N = Density::Chunks, First = Tile * N };
    uint32_t a[N][4];
    int8_operands<Density>(a, tile);
#pragma unroll
    for (int k = 0; k < N; k++) pin(a[k]);
#pragma unroll
    for (int step = First; step < First + N; step++) /* the slots that this tile begins */
        if (step == First || step % SLOT_STEPS == 0) {
            const int at = slot + step / SLOT_STEPS;
            if (step % SLOT_STEPS == 0) ask_ahead<AHEAD>(s, r, at);
            barrier_wait(r.full_of(at), ring::parity(at));
        }
    pin(c);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < N; k++) {
        const int step = First + k, at = slot + step / SLOT_STEPS;
        wgmma_i8(c, a[k], swizzled_rows(r.stage(at)) + (uint64_t)(step % SLOT_STEPS * 32 >> 4));
    }
    wgmma_commit();
    wgmma_wait();
    pin(c);
    if (threadIdx.x % 32 == 0)
#pragma unroll
        for (int step = First; step < First + N; step++)
            if (step % SLOT_STEPS == SLOT_STEPS - 1) barrier_arrive(r.empty_of(slot + step / SLOT_STEPS));
}

template <class Density, int Sums>
__device__ static void multiply_part(int32_t (&c)[Sums], const ring &r, const supply &s, const uint8_t *tiles,
                                     part mine) {
    const int lane = (int)threadIdx.x % 32;
    uint4 ahead[UNIT_TILES];
#pragma unroll
    for (int i = 0; i < UNIT_TILES; i++)
        if (mine.begin + i < mine.end)
            ahead[i] = load_tile_part(tiles + (size_t)(mine.begin + i) * TERN_TILE_BYTES, lane);
    let_next_kernel_start();
    wait_for_last_kernel();
    if (threadIdx.x == 0)
        for (int i = 0; i < min(STAGES, s.slots); i++) ask_for(s, r, i);
    __syncwarp();
    int slot = 0;
    for (int t = mine.begin; t < mine.end; t += UNIT_TILES, slot += UNIT_TILES * Density::Chunks / SLOT_STEPS) {
#define MULTIPLY(i)                                                                                  \
    if (t + i < mine.end) {                                                                          \
        const uint4 tile = ahead[i];                                                                 \
        if (t + i + UNIT_TILES < mine.end)                                                           \
            ahead[i] = load_tile_part(tiles + (size_t)(t + i + UNIT_TILES) * TERN_TILE_BYTES, lane); \
        multiply_tile<Density, i>(c, tile, r, s, slot);                                              \
    }
        MULTIPLY(0)
        MULTIPLY(1)
        MULTIPLY(2)
        MULTIPLY(3)
#undef MULTIPLY
    }
}

/* A thread's sums lie 8 activations and 8 outputs apart, so that a warp would write 16 bytes here and there. Outputs
 * of two bytes go by shared memory instead: `room` has rows of BLOCK_ROWS of them, 16 bytes longer to spread over the
 * banks. */
enum { OUTPUT_PITCH = BLOCK_ROWS + 8 };
static_assert(OUTPUT_PITCH * 2 <= STAGES * SLOT_COLS, "outputs take the place of the stages");

template <int Sums>
__device__ static void store_staged(const float (&v)[Sums], const epilogue &out, uint16_t *room, int n0, int m0) {
    const place in_block = my_place(out, 0, 0);
    __syncthreads(); /* the stages are no longer read */
#pragma unroll
    for (int i = 0; i < Sums; i++) room[in_block.m(i) * OUTPUT_PITCH + in_block.n(i)] = half_of(v[i], out.y_type);
    __syncthreads();
    for (int i = (int)threadIdx.x; i < 2 * Sums * (BLOCK_ROWS / OUTPUT_PACK); i += THREADS) {
        const int row = i / (BLOCK_ROWS / OUTPUT_PACK), column = i % (BLOCK_ROWS / OUTPUT_PACK) * OUTPUT_PACK;
        if (m0 + row >= out.m || n0 + column >= out.rows) continue;
        uint16_t *to = (uint16_t *)out.y + (size_t)(m0 + row) * (size_t)out.rows + (size_t)(n0 + column);
        *(uint4 *)to = *(const uint4 *)(room + row * OUTPUT_PITCH + column);
    }
}

template <class Density, int Sums>
__device__ static void put_all(const int32_t (&c)[Sums], const epilogue &out, uint16_t *room, int n0, int m0) {
    const place at = my_place(out, n0, m0);
    float v[Sums], bias[2];
    for (int i = 0; i < 2; i++) bias[i] = bias_of(out, min(at.n(2 * i), out.rows - 1));
#pragma unroll
    for (int i = 0; i < Sums; i++) {
        const int m = min(at.m(i), out.m - 1), n = min(at.n(i), out.rows - 1);
        v[i] = product_of(Density::finish(c[i]), factor_of(out, 0, m, n), bias[i / 2 % 2]);
    }
    if (!can_stage(out)) {
        put_products(v, out, at);
        return;
    }
    activate(v, out.activation);
    add_residual(v, out, at);
    store_staged(v, out, room, n0, m0);
}

template <class Density, int MTile, int Splits>
__global__ void __launch_bounds__(THREADS, MTile == 128 ? 2 : 1)
    tern_matmul_wgmma_cuda(product p, const __grid_constant__ CUtensorMap acts) {
    extern __shared__ uint8_t shared[];
    /* The swizzle counts from multiples of 1024. */
    const uint32_t base = (uint32_t)__cvta_generic_to_shared(shared), stages = (base + 1023) / 1024 * 1024;
    enum { STAGE_BYTES = MTile * SLOT_COLS, SUM_BYTES = Splits > 1 ? MTile * SUM_PITCH * 4 : 0 };
    const uint32_t barriers = stages + (uint32_t)max((int)(STAGES * STAGE_BYTES), (int)SUM_BYTES);
    const ring r = {stages, barriers, barriers + 8 * STAGES, STAGE_BYTES};
    const part mine = my_part<Density>(p);
    const int warp = (int)threadIdx.x / 32;
    const int n0 = (int)blockIdx.y * BLOCK_ROWS, m0 = (int)blockIdx.x * MTile;
    const supply s = {&acts, slots_of<Density>(mine), mine.begin * Density::Cols, m0};
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            barrier_init(r.full_of(i), 1);
            barrier_init(r.empty_of(i), WARPS);
        }
        barrier_init_fence();
    }
    __syncthreads();

    int32_t c[MTile / 2] = {};
    /* Rows of tiles past the end are read as the last one. */
    const int row_tile = min(n0 / TERN_TILE_ROWS + warp, p.w.row_tiles - 1);
    multiply_part<Density>(c, r, s, p.w.tiles + (size_t)row_tile * (size_t)p.w.k_tiles * TERN_TILE_BYTES, mine);
    if constexpr (Splits == 1) {
        put_all<Density>(c, p.out, (uint16_t *)(shared + (stages - base)), n0, m0);
    } else {
        int32_t *sums = (int32_t *)(shared + (stages - base));
        const cluster_share<int32_t, MTile, Splits> share(p.out, n0, m0);
        __syncthreads(); /* the stages are no longer read */
        leave_sums(sums, c, p.out);
        share.template put<Density>(sums, p.out);
    }
}

/* ---- launching ------------------------------------------------------------------------------------------------- */

typedef CUresult (*encode_fn)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *,
                              const cuuint64_t *, const cuuint32_t *, const cuuint32_t *, CUtensorMapInterleave,
                              CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

tern_status tern_cuda_describe_boxes(CUtensorMap *map, const boxes &b, const char *op, tern_error *err) {
    void *encode = NULL;
    cudaDriverEntryPointQueryResult found;
    CUDA_TRY(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &encode, 12000, cudaEnableDefault, &found),
             op, err);
    if (found != cudaDriverEntryPointSuccess)
        return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE, "%s: this driver makes no tensor maps", op);
    const cuuint64_t size[2] = {b.width, b.height}, stride[1] = {b.pitch};
    const cuuint32_t box[2] = {(cuuint32_t)b.columns, (cuuint32_t)b.rows}, step[2] = {1, 1};
    const CUresult result =
        ((encode_fn)encode)(map, b.type, 2, (void *)b.from, size, stride, box, step, CU_TENSOR_MAP_INTERLEAVE_NONE,
                            b.swizzle, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (result == CUDA_SUCCESS) return TERN_OK;
    return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE,
                     "%s: the driver refuses a tensor map of %zu x %zu (error %d)", op, b.height, b.width,
                     (int)result);
}

static const char op[] = "cuda-wgmma";

template <class Density, int MTile, int Splits>
static tern_status launch(tern_cuda_context *context, const product &p, int variant, tern_error *err) {
    const auto kernel = tern_matmul_wgmma_cuda<Density, MTile, Splits>;
    const size_t shared = tern_wgmma_shared_bytes(variant, Density::T5);
    CUtensorMap acts;
    tern_status status =
        tern_cuda_describe_boxes(&acts, act_boxes(p, CU_TENSOR_MAP_SWIZZLE_128B, SLOT_COLS, MTile), op, err);
    if (status) return status;
    /* Blocks of the same outputs are neighbours in time, so that their weights are read from L2. */
    const dim3 grid((unsigned)ceil_div(p.out.m, MTile), (unsigned)ceil_div(p.w.rows, BLOCK_ROWS), Splits);
    CUDA_TRY(tern_cuda_launch(context, kernel, grid, THREADS, (int)shared, Splits, p, acts), op, err);
    return TERN_OK;
}

/* In the order of TERN_WGMMA_SHAPES. */
template <class Density>
static tern_status launch_variant(tern_cuda_context *context, const product &p, int variant, tern_error *err) {
    switch (variant) {
    case 1: return launch<Density, 128, 1>(context, p, variant, err);
    case 2: return launch<Density, 64, 1>(context, p, variant, err);
    case 3: return launch<Density, 32, 1>(context, p, variant, err);
    case 4: return launch<Density, 64, 2>(context, p, variant, err);
    case 5: return launch<Density, 32, 2>(context, p, variant, err);
    case 6: return launch<Density, 64, 4>(context, p, variant, err);
    case 7: return launch<Density, 32, 4>(context, p, variant, err);
    default: return tern_cuda_wgmma_ring(context, p, variant, err);
    }
}

tern_status tern_cuda_wgmma(tern_cuda_context *context, const product &p, tern_dtype x_type, int variant,
                            tern_error *err) {
    if (x_type != TERN_I8) return tern_cuda_wgmma_half(context, p, x_type, variant, err);
    return p.w.t5 ? launch_variant<t5>(context, p, variant, err) : launch_variant<t2>(context, p, variant, err);
}
