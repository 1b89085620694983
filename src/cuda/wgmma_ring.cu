/* Int8 activations, more rows than a few, on Hopper's warpgroup tensor cores. Four warps of a block fill a ring of
 * slots in shared memory, each of one tile's columns: the copy engine brings the activations, the warps themselves
 * the packed weights. Two warpgroups take them from there: the weights go through registers, where they are unpacked,
 * into the tensor cores, which read the activations themselves. While they multiply one slot, its warps unpack the
 * next, so that one block keeps a multiprocessor busy (lab/cuda-wgmma.md). Blocks stay and take one tile of outputs
 * after another; the second warpgroup is some slots behind the first, so that one multiplies while the other stores.
 *
 * Where the outputs are too few to fill the device, the blocks of a cluster share the columns, as in wgmma.cu. */
#include "cuda/wgmma_common.cuh"

enum {
    GROUP_THREADS = 128,
    GROUPS = MULTIPLIERS / GROUP_THREADS,
    FEEDERS = 4, /* warps, each of which fills rooms of its own */
    THREADS = MULTIPLIERS + 32 * FEEDERS,
    /* Of a thread at first; and what those who multiply have of it when the feeding warpgroup has left the rest. */
    REGISTERS = 168,
    FEED_REGISTERS = 40,
    MULTIPLY_REGISTERS = 232,
    GROUP_OUTPUTS = BLOCK_ROWS / GROUPS,
    LEAD_BARRIER = 1,
    MULTIPLIERS_BARRIER,
    GROUP_BARRIER,   /* and one for each further group */
    LONG_COLS = 128, /* of the activations of a slot, in rows that the copy engine swizzles whole */
    SHORT_COLS = 32, /* the rest that t5 has */
};

/* The launch shape as types. */
template <class Density_, int MTile_, int Splits_> struct wgmma_shape {
    typedef Density_ Density;
    enum {
        MTile = MTile_,
        Splits = Splits_,
        Sums = MTile / 2, /* of a thread */
        Steps = Density::Chunks,
        SLOTS = TERN_WGMMA_SLOTS(MTile, Density::T5),
        LONG_BYTES = MTile * LONG_COLS,
        ACT_BYTES = LONG_BYTES + (Density::T5 ? MTile * SHORT_COLS : 0),
        SLOT_BYTES = TERN_WGMMA_SLOT_BYTES(MTile, Density::T5),
        RING_BYTES = SLOTS * SLOT_BYTES,
        SCALE_BYTES = TERN_WGMMA_SCALE_BYTES(MTile), /* of a warpgroup */
        OUTPUT_BYTES = TERN_WGMMA_OUTPUT_BYTES(MTile),
    };
    static_assert(SLOT_BYTES == ACT_BYTES + BLOCK_ROWS / TERN_TILE_ROWS * TERN_TILE_BYTES, "one slot");
    static_assert(SLOT_BYTES % 1024 == 0, "the swizzle counts from multiples of 1024");
    static_assert((int)SLOTS >= (int)FEEDERS, "a room for each");
    static_assert(2 * 8 * SLOTS <= TERN_WGMMA_BARRIER_BYTES, "two barriers a slot");
    static_assert(Splits == 1 || MTile * SUM_PITCH * 4 <= RING_BYTES, "sums take the ring's place");
};

/* What the copy engine reads. */
struct sources {
    CUtensorMap acts, short_acts;
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
    int lead; /* slots that the first warpgroup is ahead of the second */
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

/* A warp's lanes, 16 bytes each; what arrives counts as one arrival of each lane. Rows of tiles past the end are read
 * as the last one. */
template <class Shape>
__device__ static void ask_for_tiles(const product &p, const typename ring<Shape>::place &at, int k, int n) {
    enum { ROWS = BLOCK_ROWS / TERN_TILE_ROWS };
    const uint32_t lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        const int row = min(n * ROWS + i, p.w.row_tiles - 1);
        const size_t tile = (size_t)row * (size_t)p.w.k_tiles + (size_t)k;
        copy_pack(at.tiles() + (uint32_t)i * TERN_TILE_BYTES + lane * 16,
                  p.w.tiles + tile * TERN_TILE_BYTES + lane * 16);
    }
    copied_packs_arrive(at.full);
}
template <class Shape>
__device__ static void ask_for_acts(const sources &from, const typename ring<Shape>::place &at, int k, int m) {
    const int column = k * Shape::Density::Cols;
    barrier_arrive_expecting(at.full, Shape::ACT_BYTES);
    copy_box(at.room, &from.acts, column, m * Shape::MTile, at.full);
    if (Shape::Density::T5)
        copy_box(at.short_acts(), &from.short_acts, column + LONG_COLS, m * Shape::MTile, at.full);
}

/* A warp that feeds every FEEDERS-th room of the ring. Weights may be asked for before the last kernel has ended. */
template <class Shape>
__device__ static void feed(const product &p, const sources &from, const plan &all, const ring<Shape> &r,
                            int feeder) {
    const columns mine = my_columns<Shape>(p);
    const bool leads = threadIdx.x % 32 == 0;
    typename ring<Shape>::cursor next = {0, 1};
    int n, m, asked = 0;
    all.find((int)blockIdx.x, &n, &m);
    for (int i = feeder; i < min(mine.end - mine.begin, (int)Shape::SLOTS); i += FEEDERS, asked++)
        ask_for_tiles<Shape>(p, r.at({i, 0}), mine.begin + i, n);
    if (leads) prefetch_map(&from.acts);
    let_next_kernel_start();
    wait_for_last_kernel();
    for (int tile = (int)blockIdx.x; tile < all.count(); tile += (int)gridDim.x) {
        all.find(tile, &n, &m);
        for (int k = mine.begin; k < mine.end; k++, next.advance()) {
            if (next.index % FEEDERS != feeder) continue;
            const auto at = r.at(next);
            const bool early_one = asked > 0;
            if (early_one)
                asked--;
            else
                barrier_wait(at.empty, at.parity);
            if (leads) ask_for_acts<Shape>(from, at, k, m);
            __syncwarp();
            if (!early_one) ask_for_tiles<Shape>(p, at, k, n);
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
    /* Every lane for itself: one for its warp behind __syncwarp would do, but racecheck does not see that order. */
    __device__ void release(const cursor &c) const { barrier_arrive(r.at(c).empty); }

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

    /* c += the products of `slots` slots; before that of slot signal_at the other warpgroup is let go. The last one
     * of an odd number comes behind the loop: sums that met from two sides while products are under way would make
     * the compiler wait for each. */
    __device__ void sum(int32_t (&c)[Shape::Sums], int slots, int signal_at = -1) {
        if (slots <= 0) return;
        cursor last = slot;
        wait(slot);
        unpack<Shape>(a[0], r.at(slot));
        int k = 0;
        for (; k + 1 < slots; k += 2) {
            if (k == signal_at) named_arrive(LEAD_BARRIER, MULTIPLIERS);
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
    BATCH_ROWS = 16, /* of activations, whose outputs are made together */
    BATCH = BATCH_ROWS / 2,
    FULL_ROWS = 2 * BATCH_ROWS, /* that a buffer has, if outputs take two bytes; else those of one batch */
    LINE_BYTES = 128,           /* a row of halves, or half a row of floats: what the copy engine swizzles whole */
    CHUNKS = LINE_BYTES / 16,
    BUFFERS = TERN_WGMMA_BUFFERS,
    BUFFER_BYTES = TERN_WGMMA_BUFFER_BYTES
};
static_assert(FULL_ROWS * GROUP_OUTPUTS * 2 == BUFFER_BYTES, "halves of two batches");
static_assert(BATCH_ROWS * GROUP_OUTPUTS * 4 == BUFFER_BYTES, "floats of one batch");

__device__ static void sync_group() { named_sync(GROUP_BARRIER + (int)threadIdx.x / GROUP_THREADS, GROUP_THREADS); }

/* Scales and biases that a thread fetches for its warpgroup: asked for before the products, passed on behind them. */
template <class Shape> struct fetched {
    enum { EACH = (Shape::MTile + GROUP_THREADS - 1) / GROUP_THREADS };
    float inv_scale[EACH], scale, bias;

    __device__ fetched(const epilogue &out, int n0, int m0) {
        const int thread = (int)threadIdx.x % GROUP_THREADS;
        const int n = min(n0 + thread % GROUP_OUTPUTS, out.rows - 1);
#pragma unroll
        for (int i = 0; i < EACH; i++) inv_scale[i] = out.inv_scale[min(m0 + thread + i * GROUP_THREADS, out.m - 1)];
        scale = scale_of(out, n);
        bias = bias_of(out, n);
    }
    __device__ void pass_on(float *scales) const {
        const int thread = (int)threadIdx.x % GROUP_THREADS;
        sync_group(); /* those of the last tile have been read */
#pragma unroll
        for (int i = 0; i < EACH; i++)
            if (thread + i * GROUP_THREADS < Shape::MTile) scales[thread + i * GROUP_THREADS] = inv_scale[i];
        if (thread < GROUP_OUTPUTS) {
            scales[Shape::MTile + thread] = scale;
            scales[Shape::MTile + GROUP_OUTPUTS + thread] = bias;
        }
        sync_group();
    }
};

/* Outputs that the copy engine can write. */
__host__ __device__ static bool can_send(const epilogue &out) {
    const size_t size = out.y_type == TERN_F32 ? 4 : 2;
    return (size_t)out.rows * size % 16 == 0 && (uintptr_t)out.y % 16 == 0;
}

/* Where the copy engine expects 16 bytes of a row. */
__device__ static uint32_t place_in_line(int row, int chunk) {
    return (uint32_t)(row * LINE_BYTES + (chunk ^ row % CHUNKS) * 16);
}
__device__ static uint32_t two_halves(float low, float high, tern_dtype type) {
    return (uint32_t)half_of(low, type) | (uint32_t)half_of(high, type) << 16;
}

__device__ static void put_halves(const float (&v)[BATCH], uint32_t buffer, tern_dtype type) {
    const int warp = (int)threadIdx.x % GROUP_THREADS / 32, lane = (int)threadIdx.x % 32;
    const uint32_t to = buffer + place_in_line(lane / 16 * 8 + lane % 8, warp * 2 + lane / 8 % 2);
    store_transposed(to, two_halves(v[0], v[1], type), two_halves(v[2], v[3], type), two_halves(v[4], v[5], type),
                     two_halves(v[6], v[7], type));
}
__device__ static void put_floats(const float (&v)[BATCH], uint32_t buffer) {
    const int warp = (int)threadIdx.x % GROUP_THREADS / 32, lane = (int)threadIdx.x % 32;
    const uint32_t lines = buffer + (uint32_t)(warp / 2 * (BATCH_ROWS * LINE_BYTES) + lane / 4 % 4 * 4);
#pragma unroll
    for (int i = 0; i < BATCH; i++) {
        const uint32_t to =
            lines + place_in_line(i / 4 * 8 + lane % 4 * 2 + i % 2, warp % 2 * 4 + i / 2 % 2 * 2 + lane / 16);
        asm volatile("st.shared.f32 [%0], %1;" ::"r"(to), "f"(v[i]) : "memory");
    }
}

/* A warpgroup's way out: scales, and buffers that the copy engine empties in turn. */
template <class Shape> struct outbox {
    const CUtensorMap *map;
    const float *scales;
    uint32_t buffers;
    int turn;

    __device__ uint32_t buffer() const { return buffers + (uint32_t)(turn * BUFFER_BYTES); }

    /* Sends the buffer on, whose first output is (n, m); past the barrier the one after it has been read. */
    __device__ void send(int n, int m, bool floats) {
        const bool sends = threadIdx.x % GROUP_THREADS == 0;
        if (sends) copy_out_wait<BUFFERS - 2>();
        copy_out_fence();
        sync_group();
        if (sends) {
            copy_box_out(map, n, m, buffer());
            if (floats) copy_box_out(map, n + GROUP_OUTPUTS / 2, m, buffer() + BUFFER_BYTES / 2);
            copy_out_commit();
        }
        if (++turn == BUFFERS) turn = 0;
    }

    /* Batch b of the outputs n0 .., rows m0 ... Plain: with neither activation nor residual, and sent. */
    template <bool Plain>
    __device__ void put_batch(const int32_t *sums, const float (&scale)[2], const float (&bias)[2],
                              const epilogue &out, int b, int n0, int m0) {
        const int warp = (int)threadIdx.x % GROUP_THREADS / 32, lane = (int)threadIdx.x % 32;
        const float *of_rows = scales + b * BATCH_ROWS + lane % 4 * 2;
        const int m = m0 + b * BATCH_ROWS;
        float v[BATCH];
#pragma unroll
        for (int i = 0; i < BATCH; i++)
            v[i] = product_of(Shape::Density::finish(sums[i]),
                              __fmul_rn(scale[i / 2 % 2], of_rows[i / 4 * 8 + i % 2]), bias[i / 2 % 2]);
        if (!Plain) {
            const place at = {m + lane % 4 * 2, n0 + warp * TERN_TILE_ROWS + lane / 4, out.m, out.rows};
            activate(v, out.activation);
            add_residual(v, out, at);
            if (!can_send(out)) {
                store_values(v, out, at);
                return;
            }
        }
        if (out.y_type == TERN_F32) {
            put_floats(v, buffer());
            send(n0, m, true);
        } else {
            put_halves(v, buffer() + (uint32_t)(b % 2 * (BUFFER_BYTES / 2)), out.y_type);
            if (b % 2) send(n0, m - BATCH_ROWS, false);
        }
    }

    /* Code of activations would lie between the batches if it were written out for each: those pass through local
     * memory instead, in a loop. */
    __device__ void put(const int32_t (&c)[Shape::Sums], const epilogue &out, int n0, int m0) {
        const int rows = min(out.m - m0, (int)Shape::MTile), batches = (rows + FULL_ROWS - 1) / FULL_ROWS * 2;
        const int warp = (int)threadIdx.x % GROUP_THREADS / 32, lane = (int)threadIdx.x % 32;
        const float *of_outputs = scales + Shape::MTile + warp * TERN_TILE_ROWS + lane / 4;
        const float scale[2] = {of_outputs[0], of_outputs[8]};
        const float bias[2] = {of_outputs[GROUP_OUTPUTS], of_outputs[GROUP_OUTPUTS + 8]};
        if (!out.activation && !out.residual && can_send(out)) {
#pragma unroll
            for (int b = 0; b < Shape::Sums / BATCH; b++)
                if (b < batches) put_batch<true>(c + b * BATCH, scale, bias, out, b, n0, m0);
        } else {
            int32_t sums[Shape::Sums];
#pragma unroll
            for (int i = 0; i < Shape::Sums; i++) sums[i] = c[i];
#pragma unroll 1
            for (int b = 0; b < batches; b++) put_batch<false>(sums + b * BATCH, scale, bias, out, b, n0, m0);
        }
    }
};

/* ---- the kernel ------------------------------------------------------------------------------------------------ */

/* One tile of outputs after another. */
template <class Shape>
__device__ static void make_tiles(const product &p, const plan &all, const ring<Shape> &r, float *scales,
                                  outbox<Shape> to) {
    const int group = (int)threadIdx.x / GROUP_THREADS;
    int signal_at = group || !all.lead ? -1 : all.lead;
    multiplier<Shape> mul = {r, {0, 0}};
    if (group && all.lead) named_sync(LEAD_BARRIER, MULTIPLIERS);
    for (int tile = (int)blockIdx.x; tile < all.count(); tile += (int)gridDim.x) {
        int n, m;
        all.find(tile, &n, &m);
        const int n0 = n * BLOCK_ROWS + group * GROUP_OUTPUTS, m0 = m * Shape::MTile;
        const fetched<Shape> ahead(p.out, n0, m0);
        int32_t c[Shape::Sums] = {};
        mul.sum(c, p.w.k_tiles, signal_at);
        signal_at = -1;
        ahead.pass_on(scales);
        to.put(c, p.out, n0, m0);
    }
    if (threadIdx.x % GROUP_THREADS == 0) copy_out_wait<0>();
}

/* This block's columns of one tile, and its share of the cluster's outputs. */
template <class Shape>
__device__ static void make_part(const product &p, const plan &all, const ring<Shape> &r, int32_t *sums) {
    const columns mine = my_columns<Shape>(p);
    int n, m;
    all.find((int)blockIdx.x, &n, &m);
    const cluster_share<int32_t, Shape::MTile, Shape::Splits> share(p.out, n * BLOCK_ROWS, m * Shape::MTile);
    {
        int32_t c[Shape::Sums] = {};
        multiplier<Shape> mul = {r, {0, 0}};
        mul.sum(c, mine.end - mine.begin);
        named_sync(MULTIPLIERS_BARRIER, MULTIPLIERS); /* the ring is no longer read */
        leave_sums(sums, c, p.out);
    }
    share.template put<typename Shape::Density>(sums, p.out);
}

template <class Shape>
__device__ static void make_outputs(const product &p, const plan &all, const ring<Shape> &r, uint8_t *shared,
                                    const CUtensorMap *y) {
    if constexpr (Shape::Splits > 1) {
        make_part<Shape>(p, all, r, (int32_t *)shared);
    } else {
        enum { ROOM = BUFFERS * BUFFER_BYTES };
        const uint32_t group = threadIdx.x / GROUP_THREADS;
        float *scales = (float *)(shared + Shape::RING_BYTES + GROUPS * ROOM + group * Shape::SCALE_BYTES);
        if (threadIdx.x % GROUP_THREADS == 0) prefetch_map(y);
        make_tiles<Shape>(p, all, r, scales, {y, scales, r.rooms + Shape::RING_BYTES + group * ROOM, 0});
    }
}

template <class Shape>
__global__ void __maxnreg__(REGISTERS)
    tern_matmul_wgmma_ring_cuda(product p, plan all, const __grid_constant__ sources from,
                                const __grid_constant__ CUtensorMap y) {
    extern __shared__ uint8_t shared[];
    /* The swizzle counts from multiples of 1024. */
    const uint32_t base = (uint32_t)__cvta_generic_to_shared(shared), rooms = (base + 1023) / 1024 * 1024;
    const uint32_t barriers = rooms + (uint32_t)(Shape::RING_BYTES + Shape::OUTPUT_BYTES);
    const ring<Shape> r = {rooms, barriers, barriers + 8 * Shape::SLOTS};
    if (threadIdx.x == 0) {
        for (int i = 0; i < Shape::SLOTS; i++) {
            barrier_init(r.full + (uint32_t)(8 * i), 1 + 32); /* who asks for activations, and lanes with weights */
            barrier_init(r.empty + (uint32_t)(8 * i), MULTIPLIERS);
        }
        barrier_init_fence();
    }
    __syncthreads();
    if (threadIdx.x >= MULTIPLIERS) {
        give_registers<FEED_REGISTERS>();
        feed<Shape>(p, from, all, r, (int)(threadIdx.x - MULTIPLIERS) / 32);
        if (Shape::Splits > 1) sync_cluster_twice();
    } else {
        take_registers<MULTIPLY_REGISTERS>();
        wait_for_last_kernel();
        make_outputs<Shape>(p, all, r, shared + (rooms - base), &y);
    }
}

/* ---- launching ------------------------------------------------------------------------------------------------- */

static const char op[] = "cuda-wgmma";

static tern_status describe_sources(sources *s, const product &p, int m_tile, tern_error *err) {
    tern_status status =
        tern_cuda_describe_boxes(&s->acts, act_boxes(p, CU_TENSOR_MAP_SWIZZLE_128B, LONG_COLS, m_tile), op, err);
    if (!status && p.w.t5)
        status = tern_cuda_describe_boxes(&s->short_acts, act_boxes(p, CU_TENSOR_MAP_SWIZZLE_32B, SHORT_COLS, m_tile),
                                          op, err);
    return status;
}

static tern_status describe_outputs(CUtensorMap *y, const epilogue &out, tern_error *err) {
    if (!can_send(out)) return TERN_OK; /* and it is not read */
    const bool floats = out.y_type == TERN_F32;
    const size_t size = floats ? 4 : 2;
    const boxes b = {floats ? CU_TENSOR_MAP_DATA_TYPE_UINT32 : CU_TENSOR_MAP_DATA_TYPE_UINT16,
                     CU_TENSOR_MAP_SWIZZLE_128B,
                     out.y,
                     (size_t)out.rows,
                     (size_t)out.m,
                     (size_t)out.rows * size,
                     LINE_BYTES / (int)size,
                     floats ? BATCH_ROWS : FULL_ROWS};
    return tern_cuda_describe_boxes(y, b, op, err);
}

enum {
    BAND_BYTES = 2 << 20, /* of packed weights, that the blocks of a band share */
    LEAD = 4              /* slots; an even number, since they are taken in pairs */
};

template <class Shape>
static tern_status launch(tern_cuda_context *context, const product &p, int variant, tern_error *err) {
    const auto kernel = tern_matmul_wgmma_ring_cuda<Shape>;
    const size_t shared = tern_wgmma_shared_bytes(variant, Shape::Density::T5);
    sources from = {};
    CUtensorMap y = {};
    tern_status status = describe_sources(&from, p, Shape::MTile, err);
    if (!status) status = describe_outputs(&y, p.out, err);
    if (status) return status;
    const int row_bytes = p.w.k_tiles * TERN_TILE_BYTES * (BLOCK_ROWS / TERN_TILE_ROWS);
    const plan all = {ceil_div(p.w.rows, BLOCK_ROWS), ceil_div(p.out.m, Shape::MTile),
                      ceil_div(BAND_BYTES, row_bytes),
                      min(min(LEAD, (int)Shape::SLOTS - 2), p.w.k_tiles - 2) / 2 * 2};
    const int tiles = all.n_blocks * all.m_blocks;
    const int at_once = context->multiprocessors;
    const dim3 grid((unsigned)(Shape::Splits > 1 || tiles < at_once ? tiles : at_once), 1, Shape::Splits);
    CUDA_TRY(tern_cuda_launch(context, kernel, grid, THREADS, (int)shared, Shape::Splits, p, all, from, y), op, err);
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
    case 12: return launch<wgmma_shape<D, 96, 1>>(context, p, variant, err);
    default: return launch<wgmma_shape<D, 256, 1>>(context, p, variant, err);
    }
}

tern_status tern_cuda_wgmma_ring(tern_cuda_context *context, const product &p, int variant, tern_error *err) {
    return p.w.t5 ? launch_variant<t5>(context, p, variant, err) : launch_variant<t2>(context, p, variant, err);
}
