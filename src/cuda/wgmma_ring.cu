/* Few outputs with long rows, or few rows of int8 activations, on Hopper's warpgroup tensor cores. One warp of a
 * block has the copy engine bring slots of one tile's columns, activations and packed weights, into a ring in shared
 * memory. Two warpgroups take them from there: the weights go through registers, where they are unpacked, into the
 * tensor cores, which read the activations themselves. While they multiply one slot, its warps unpack the next, so
 * that one block keeps a multiprocessor busy where there are no two (lab/cuda-wgmma.md). Blocks stay and take one
 * tile of outputs after another.
 *
 * Where the outputs are too few to fill the device, the blocks of a cluster share the columns, as in wgmma.cu. */
#include "cuda/wgmma_common.cuh"

enum {
    GROUP_THREADS = 128,
    GROUPS = MULTIPLIERS / GROUP_THREADS,
    THREADS = MULTIPLIERS + 32,
    LONG_COLS = 128, /* of the activations of a slot, in rows that the copy engine swizzles whole */
    SHORT_COLS = 32, /* the rest that t5 has */
};

/* The launch shape as types. Nine warps lie on four quarters of a multiprocessor, three on one of them, whose
 * registers are enough for 168 each, or for 112 where shared memory is shared with another block. */
template <class Density_, int MTile_, int Splits_> struct wgmma_shape {
    typedef Density_ Density;
    enum {
        MTile = MTile_,
        Splits = Splits_,
        Sums = MTile / 2, /* of a thread */
        Steps = Density::Chunks,
        REGISTERS = TERN_WGMMA_BLOCKS(MTile) == 1 ? 168 : 112,
        SLOTS = TERN_WGMMA_SLOTS(MTile, Density::T5),
        LONG_BYTES = MTile * LONG_COLS,
        ACT_BYTES = LONG_BYTES + (Density::T5 ? MTile * SHORT_COLS : 0),
        SLOT_BYTES = TERN_WGMMA_SLOT_BYTES(MTile, Density::T5),
        RING_BYTES = SLOTS * SLOT_BYTES,
    };
    static_assert(SLOT_BYTES == ACT_BYTES + BLOCK_ROWS / TERN_TILE_ROWS * TERN_TILE_BYTES, "one slot");
    static_assert(2 * 8 * SLOTS <= TERN_WGMMA_BARRIER_BYTES, "two barriers a slot");
    static_assert(Splits == 1 || MTile * SUM_PITCH * 4 <= RING_BYTES, "sums take the place of the ring");
};

/* What the copy engine reads. */
struct sources {
    CUtensorMap acts, short_acts, tiles;
};

/* ---- the ring --------------------------------------------------------------------------------------------------- *
 * Slot i of all that a block ever takes lies in room i % SLOTS, for the (i / SLOTS)-th time. */

template <class Shape> struct ring {
    uint32_t rooms, full, empty;

    struct place {
        uint32_t room, full, empty;
        int parity;
        __device__ uint32_t short_acts() const { return room + Shape::LONG_BYTES; }
        __device__ uint32_t tiles() const { return room + Shape::ACT_BYTES; }
    };
    /* Counted instead of divided. */
    struct cursor {
        int index, parity;
        __device__ void advance() {
            if (++index == Shape::SLOTS) index = 0, parity ^= 1;
        }
    };
    __device__ place at(const cursor &c) const {
        return {rooms + (uint32_t)(c.index * Shape::SLOT_BYTES), full + (uint32_t)(c.index * 8),
                empty + (uint32_t)(c.index * 8), c.parity};
    }
};

/* ---- what a block does ----------------------------------------------------------------------------------------- */

/* Tiles of outputs in the order in which blocks take them: bands of neighbouring outputs, within a band the outputs
 * first, so that what runs together shares both weights and activations. */
struct plan {
    int n_blocks, m_blocks, band;
    __device__ int count() const { return n_blocks * m_blocks; }
    __device__ void find(int tile, int *n, int *m) const {
        const int before = tile / (band * m_blocks) * band, width = min(band, n_blocks - before);
        const int rest = tile - before * m_blocks;
        *m = rest / width;
        *n = before + rest % width;
    }
};

/* The columns of a split, in tiles. */
struct columns {
    int begin, end;
};
template <class Shape> __device__ static columns my_columns(const product &p) {
    const int splits = Shape::Splits, i = splits > 1 ? (int)blockIdx.z : 0;
    return {p.w.k_tiles * i / splits, p.w.k_tiles * (i + 1) / splits};
}

template <class Shape>
__device__ static void ask_for_tiles(const sources &from, const typename ring<Shape>::place &at, int k, int n) {
    barrier_arrive_expecting(at.full, Shape::SLOT_BYTES);
    copy_box(at.tiles(), &from.tiles, k * (TERN_TILE_BYTES / 4), n * (BLOCK_ROWS / TERN_TILE_ROWS), at.full);
}
template <class Shape>
__device__ static void ask_for_acts(const sources &from, const typename ring<Shape>::place &at, int k, int m) {
    const int column = k * Shape::Density::Cols;
    copy_box(at.room, &from.acts, column, m * Shape::MTile, at.full);
    if (Shape::Density::T5)
        copy_box(at.short_acts(), &from.short_acts, column + LONG_COLS, m * Shape::MTile, at.full);
}

/* The thread that feeds the ring. Weights may be asked for before the last kernel has ended. */
template <class Shape>
__device__ static void feed(const product &p, const sources &from, const plan &all, const ring<Shape> &r) {
    const columns mine = my_columns<Shape>(p);
    typename ring<Shape>::cursor early = {0, 0}, next = {0, 1};
    int n, m, asked = 0;
    all.find((int)blockIdx.x, &n, &m);
    for (int k = mine.begin; k < min(mine.end, mine.begin + Shape::SLOTS); k++, asked++, early.advance())
        ask_for_tiles<Shape>(from, r.at(early), k, n);
    let_next_kernel_start();
    wait_for_last_kernel();
    for (int tile = (int)blockIdx.x; tile < all.count(); tile += (int)gridDim.x) {
        all.find(tile, &n, &m);
        for (int k = mine.begin; k < mine.end; k++, next.advance()) {
            const auto at = r.at(next);
            if (asked > 0) {
                asked--;
            } else {
                barrier_wait(at.empty, at.parity);
                ask_for_tiles<Shape>(from, at, k, n);
            }
            ask_for_acts<Shape>(from, at, k, m);
        }
    }
}

/* ---- products -------------------------------------------------------------------------------------------------- */

/* The A operands of a slot: each warp has a row of tiles. */
template <class Shape>
__device__ static void unpack(uint32_t (&a)[Shape::Steps][4], const typename ring<Shape>::place &at) {
    enum { N = Shape::Steps };
    uint32_t words[4], codes[2][2][N];
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(at.tiles() + threadIdx.x * 16));
#pragma unroll
    for (int i = 0; i < 4; i++) int8_codes(typename Shape::Density(), words[i], codes[i / 2][i % 2]);
#pragma unroll
    for (int k = 0; k < N; k++) {
#pragma unroll
        for (int i = 0; i < 4; i++) a[k][i] = codes[(2 * k + i / 2) / N][i % 2][(2 * k + i / 2) % N];
        pin(a[k]);
    }
}

template <class Shape>
__device__ static void multiply(int32_t (&c)[Shape::Sums], const uint32_t (&a)[Shape::Steps][4],
                                const typename ring<Shape>::place &at) {
    pin(c);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < LONG_COLS / 32; k++) wgmma_i8(c, a[k], swizzled_rows(at.room) + (uint64_t)(k * 32 >> 4));
    if constexpr (Shape::Density::T5) wgmma_i8(c, a[LONG_COLS / 32], swizzled_short_rows(at.short_acts()));
    wgmma_commit();
}

template <class Shape> struct multiplier {
    typedef typename ring<Shape>::cursor cursor;

    const ring<Shape> &r;
    cursor slot;                    /* the one that is multiplied */
    uint32_t a[2][Shape::Steps][4]; /* its operands, and those of the one after it */

    __device__ void wait(const cursor &c) const { barrier_wait(r.at(c).full, c.parity); }
    __device__ void release(const cursor &c) const {
        if (threadIdx.x % 32 == 0) barrier_arrive(r.at(c).empty);
    }

    /* Starts the products of a slot whose operands are in a[Buffer], and prepares the next one once the registers of
     * the last one are no longer read. */
    template <int Buffer> __device__ void step(int32_t (&c)[Shape::Sums], cursor &last, bool first, bool more) {
        multiply<Shape>(c, a[Buffer], r.at(slot));
        wgmma_wait<1>();
        if (!first) release(last);
        last = slot;
        slot.advance();
        if (more) {
            wait(slot);
            unpack<Shape>(a[Buffer ^ 1], r.at(slot));
        }
    }

    /* c += the products of `slots` slots. The last one of an odd number comes behind the loop: sums that met from two
     * sides while products are under way would make the compiler wait for each. */
    __device__ void sum(int32_t (&c)[Shape::Sums], int slots) {
        if (slots <= 0) return;
        cursor last = slot;
        wait(slot);
        unpack<Shape>(a[0], r.at(slot));
        int k = 0;
        for (; k + 1 < slots; k += 2) {
            step<0>(c, last, k == 0, true);
            step<1>(c, last, false, k + 2 < slots);
        }
        if (k < slots) step<0>(c, last, k == 0, false);
        wgmma_wait();
        release(last);
        pin(c);
    }
};

/* ---- outputs --------------------------------------------------------------------------------------------------- */

enum {
    BATCH_ROWS = 16, /* of activations, that are stored together */
    BATCH = BATCH_ROWS / 2,
    GROUP_ROWS = BLOCK_ROWS / GROUPS,
    OUTPUT_PITCH = GROUP_ROWS + OUTPUT_PACK, /* the gap spreads rows over the banks */
    OUTPUT_BYTES = BATCH_ROWS * OUTPUT_PITCH * 2
};
static_assert(2 * GROUPS * OUTPUT_BYTES == TERN_WGMMA_OUTPUT_BYTES, "two batches a warpgroup");
static_assert(GROUP_THREADS * OUTPUT_PACK == BATCH_ROWS * GROUP_ROWS, "a pack a thread");

/* Barrier 0 is __syncthreads. */
__device__ static void sync_group() {
    asm volatile("bar.sync %0, %1;" ::"r"(1 + threadIdx.x / GROUP_THREADS), "n"((int)GROUP_THREADS) : "memory");
}
__device__ static void sync_multipliers() { asm volatile("bar.sync 3, %0;" ::"n"((int)MULTIPLIERS) : "memory"); }

/* A thread's outputs lie 8 rows apart, so that a warp would write 16 bytes here and there. Outputs of two bytes go by
 * shared memory instead. Who is past the barrier of one batch has read the one before. */
__device__ static void store_staged(const float (&v)[BATCH], const epilogue &out, uint16_t *room, int n0, int m0) {
    const int thread = (int)threadIdx.x % GROUP_THREADS, lane = thread % 32;
    const place in_room = {lane % 4 * 2, thread / 32 * TERN_TILE_ROWS + lane / 4, 0, 0};
#pragma unroll
    for (int i = 0; i < BATCH; i++) room[in_room.m(i) * OUTPUT_PITCH + in_room.n(i)] = half_of(v[i], out.y_type);
    sync_group();
    const int row = thread / (GROUP_ROWS / OUTPUT_PACK), column = thread % (GROUP_ROWS / OUTPUT_PACK) * OUTPUT_PACK;
    if (m0 + row >= out.m || n0 + column >= out.rows) return;
    uint16_t *to = (uint16_t *)out.y + (size_t)(m0 + row) * (size_t)out.rows + (size_t)(n0 + column);
    *(uint4 *)to = *(const uint4 *)(room + row * OUTPUT_PITCH + column);
}

/* The outputs of a tile; `rooms` are the block's. */
template <class Density, int Sums>
__device__ static void put_all(const int32_t (&c)[Sums], const epilogue &out, uint16_t *rooms, int n0, int m0) {
    const int group = (int)threadIdx.x / GROUP_THREADS;
    const bool staged = can_stage(out);
    place at = my_place(out, n0, m0);
    float scale[2], bias[2];
    for (int i = 0; i < 2; i++) {
        scale[i] = scale_of(out, min(at.n(2 * i), out.rows - 1));
        bias[i] = bias_of(out, min(at.n(2 * i), out.rows - 1));
    }
    if (staged) sync_group(); /* the last tile's outputs have been read */
#pragma unroll
    for (int b = 0; b < Sums / BATCH; b++, at.m0 += BATCH_ROWS) {
        if (m0 + b * BATCH_ROWS >= out.m) break;
        float v[BATCH];
#pragma unroll
        for (int i = 0; i < BATCH; i++)
            v[i] = product_of(Density::finish(c[b * BATCH + i]),
                              __fmul_rn(scale[i / 2 % 2], out.inv_scale[min(at.m(i), out.m - 1)]), bias[i / 2 % 2]);
        activate(v, out.activation);
        add_residual(v, out, at);
        if (staged)
            store_staged(v, out, rooms + (2 * group + b % 2) * (OUTPUT_BYTES / 2), n0 + group * GROUP_ROWS,
                         m0 + b * BATCH_ROWS);
        else
            store_values(v, out, at);
    }
}

/* ---- the kernel ------------------------------------------------------------------------------------------------ */

/* One tile of outputs after another. */
template <class Shape>
__device__ static void make_tiles(const product &p, const plan &all, const ring<Shape> &r, uint16_t *rooms) {
    multiplier<Shape> mul = {r, {0, 0}};
    for (int tile = (int)blockIdx.x; tile < all.count(); tile += (int)gridDim.x) {
        int n, m;
        all.find(tile, &n, &m);
        int32_t c[Shape::Sums] = {};
        mul.sum(c, p.w.k_tiles);
        put_all<typename Shape::Density>(c, p.out, rooms, n * BLOCK_ROWS, m * Shape::MTile);
    }
}

/* This block's columns of one tile. */
template <class Shape> __device__ static void make_part(const product &p, const ring<Shape> &r, int32_t *sums) {
    const columns mine = my_columns<Shape>(p);
    int32_t c[Shape::Sums] = {};
    multiplier<Shape> mul = {r, {0, 0}};
    mul.sum(c, mine.end - mine.begin);
    sync_multipliers(); /* the ring is no longer read */
    leave_sums(sums, c, p.out);
}

template <class Shape>
__global__ void __maxnreg__(Shape::REGISTERS)
    tern_matmul_wgmma_ring_cuda(product p, plan all, const __grid_constant__ sources from) {
    extern __shared__ uint8_t shared[];
    /* The swizzle counts from multiples of 1024. */
    const uint32_t base = (uint32_t)__cvta_generic_to_shared(shared), rooms = (base + 1023) / 1024 * 1024;
    const uint32_t barriers = rooms + (uint32_t)Shape::RING_BYTES;
    const ring<Shape> r = {rooms, barriers, barriers + 8 * Shape::SLOTS};
    if (threadIdx.x == 0) {
        for (int i = 0; i < Shape::SLOTS; i++) {
            barrier_init(r.full + (uint32_t)(8 * i), 1);
            barrier_init(r.empty + (uint32_t)(8 * i), MULTIPLIERS / 32);
        }
        barrier_init_fence();
    }
    __syncthreads();
    if (threadIdx.x == MULTIPLIERS) feed<Shape>(p, from, all, r);
    __syncwarp();
    wait_for_last_kernel();
    if constexpr (Shape::Splits > 1) {
        int32_t *sums = (int32_t *)(shared + (rooms - base));
        if (threadIdx.x < MULTIPLIERS) make_part<Shape>(p, r, sums);
        int n, m;
        all.find((int)blockIdx.x, &n, &m);
        put_shared<typename Shape::Density>(sums, p.out, n * BLOCK_ROWS, m * Shape::MTile, Shape::MTile);
    } else if (threadIdx.x < MULTIPLIERS) {
        make_tiles<Shape>(p, all, r, (uint16_t *)(shared + (barriers - base) + TERN_WGMMA_BARRIER_BYTES));
    }
}

/* ---- launching ------------------------------------------------------------------------------------------------- */

static const char op[] = "cuda-wgmma";

static tern_status describe_sources(sources *s, const product &p, int m_tile, tern_error *err) {
    const size_t words = (size_t)p.w.k_tiles * (TERN_TILE_BYTES / 4);
    const boxes tiles = {CU_TENSOR_MAP_DATA_TYPE_UINT32,
                         CU_TENSOR_MAP_SWIZZLE_NONE,
                         p.w.tiles,
                         words,
                         (size_t)p.w.row_tiles,
                         4 * words,
                         TERN_TILE_BYTES / 4,
                         BLOCK_ROWS / TERN_TILE_ROWS};
    tern_status status =
        tern_cuda_describe_boxes(&s->acts, act_boxes(p, CU_TENSOR_MAP_SWIZZLE_128B, LONG_COLS, m_tile), err);
    if (!status && p.w.t5)
        status = tern_cuda_describe_boxes(&s->short_acts, act_boxes(p, CU_TENSOR_MAP_SWIZZLE_32B, SHORT_COLS, m_tile),
                                          err);
    return status ? status : tern_cuda_describe_boxes(&s->tiles, tiles, err);
}

enum { BAND_BYTES = 2 << 20 /* of packed weights, that the blocks of a band share */ };

template <class Shape>
static tern_status launch(tern_cuda_context *context, const product &p, int variant, tern_error *err) {
    const auto kernel = tern_matmul_wgmma_ring_cuda<Shape>;
    const size_t shared = tern_wgmma_shared_bytes(variant, Shape::Density::T5);
    sources from = {};
    tern_status status = describe_sources(&from, p, Shape::MTile, err);
    if (status) return status;
    CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared), op, err);
    const int row_bytes = p.w.k_tiles * TERN_TILE_BYTES * (BLOCK_ROWS / TERN_TILE_ROWS);
    const plan all = {ceil_div(p.w.rows, BLOCK_ROWS), ceil_div(p.out.m, Shape::MTile),
                      ceil_div(BAND_BYTES, row_bytes)};
    const int tiles = all.n_blocks * all.m_blocks;
    const int at_once = context->multiprocessors * TERN_WGMMA_BLOCKS(Shape::MTile);
    const dim3 grid((unsigned)(Shape::Splits > 1 || tiles < at_once ? tiles : at_once), 1, Shape::Splits);
    CUDA_TRY(tern_cuda_launch(context, kernel, grid, THREADS, (int)shared, Shape::Splits, p, all, from), op, err);
    return TERN_OK;
}

/* In the order of TERN_WGMMA_SHAPES, the first that has a ring is 8. */
template <class D>
static tern_status launch_variant(tern_cuda_context *context, const product &p, int variant, tern_error *err) {
    switch (variant) {
    case 8: return launch<wgmma_shape<D, 160, 1>>(context, p, variant, err);
    case 9: return launch<wgmma_shape<D, 128, 1>>(context, p, variant, err);
    case 10: return launch<wgmma_shape<D, 64, 1>>(context, p, variant, err);
    case 11: return launch<wgmma_shape<D, 64, 4>>(context, p, variant, err);
    default: return launch<wgmma_shape<D, 32, 8>>(context, p, variant, err);
    }
}

tern_status tern_cuda_wgmma_ring(tern_cuda_context *context, const product &p, int variant, tern_error *err) {
    return p.w.t5 ? launch_variant<t5>(context, p, variant, err) : launch_variant<t2>(context, p, variant, err);
}
