/* Few rows of int8 activations, 2 to 64, on Hopper: the weights stream past activations that stay.
 *
 * A cluster of blocks has some rows of tiles and shares their columns, so that a block needs its part of the
 * activations alone; they are copied into shared memory once, in the 8 x 16 bytes that tensor cores take whole. A
 * warp's tiles come through a ring of its own, in which each lane reads what it has asked for itself, and go through
 * registers into the tensor cores: nobody waits for others, and the first ones are asked for before the last kernel
 * has ended.
 *
 * Sums go as 16-byte words, as lanes hold them, to the block that finishes them; integers, added in one order. */
#include "cuda/epilogue.cuh"
#include "cuda/hopper.cuh"
#include "cuda/unpack.cuh"

extern "C" {
#include "cuda/few_plan.h"
}

static const char op[] = "cuda-few";

enum {
    WARPS = TERN_FEW_WARPS,
    THREADS = 32 * WARPS,
    PHASES = TERN_FEW_PHASES,
    CORE = TERN_FEW_CORE,    /* bytes of activations that tensor cores take whole: 8 rows, a chunk */
    PIECE = 32 * 4,          /* sums of 16 outputs and 8 rows of activations */
    PIECE_BYTES = PIECE * 4,
};

/* ---- products ---------------------------------------------------------------------------------------------------- *
 * c += a tile * the activations at x, chunk after chunk, of each the cores of 8 rows. c[i][]: rows 8i .. 8i + 7. */

template <class Density> __device__ static void operands(uint32_t (&a)[Density::Chunks][4], const uint4 &tile) {
    enum { N = Density::Chunks };
    uint32_t codes[2][2][N];
    int8_codes(Density(), tile.x, codes[0][0]);
    int8_codes(Density(), tile.y, codes[0][1]);
    int8_codes(Density(), tile.z, codes[1][0]);
    int8_codes(Density(), tile.w, codes[1][1]);
#pragma unroll
    for (int k = 0; k < N; k++)
#pragma unroll
        for (int i = 0; i < 4; i++) a[k][i] = codes[(2 * k + i / 2) / N][i % 2][(2 * k + i / 2) % N];
}

/* Of each core a register gets what a lane has of a B operand; eight lanes have the addresses of its rows. */
__device__ static void load_cores(uint32_t (&b)[4], uint32_t row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3])
                 : "r"(row));
}
__device__ static void load_cores(uint32_t (&b)[2], uint32_t row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];" : "=r"(b[0]), "=r"(b[1]) : "r"(row));
}

/* A warp by itself. Sums of even and of odd steps are apart, so that no product waits for the one before. */
template <class Density, int Pieces_> struct warp_products {
    enum { Pieces = Pieces_, Team = 1, N = Density::Chunks, CHUNK = TERN_FEW_CHUNK(Pieces) };
    int32_t c[2][Pieces][4];

    __device__ void clear() {
#pragma unroll
        for (int i = 0; i < 8 * Pieces; i++) c[i / 4 / Pieces][i / 4 % Pieces][i % 4] = 0;
    }
    __device__ static void arrived() {}
    /* Four cores: of as many chunks, or of two. */
    __device__ static uint32_t place(uint32_t x, int lane) {
        const int core = lane / 8;
        return x + (uint32_t)(core / Pieces * CHUNK + core % Pieces * CORE + lane % 8 * 16);
    }
    __device__ static uint32_t advance(uint32_t bytes) { return bytes; }
    __device__ void start(const uint4 &tile, uint32_t x) {
        uint32_t a[N][4];
        operands<Density>(a, tile);
        if constexpr (Pieces == 1) {
#pragma unroll
            for (int k = 0; k + 1 < N; k += 2) {
                uint32_t b[4];
                load_cores(b, x + 2 * k * CHUNK);
                mma_i8(c[0][0], a[k][0], a[k][1], a[k][2], a[k][3], b[0], b[1]);
                mma_i8(c[1][0], a[k + 1][0], a[k + 1][1], a[k + 1][2], a[k + 1][3], b[2], b[3]);
            }
            if constexpr (N % 2) {
                uint32_t b[2];
                load_cores(b, x + 2 * (N - 1) * CHUNK);
                mma_i8(c[0][0], a[N - 1][0], a[N - 1][1], a[N - 1][2], a[N - 1][3], b[0], b[1]);
            }
        } else {
#pragma unroll
            for (int k = 0; k < N; k++) {
                uint32_t b[4];
                load_cores(b, x + 2 * k * CHUNK);
#pragma unroll
                for (int i = 0; i < 2; i++)
                    mma_i8(c[k % 2][i], a[k][0], a[k][1], a[k][2], a[k][3], b[i], b[2 + i]);
            }
        }
    }
    __device__ void finish() {}
    __device__ int4 piece(int i) const {
        return make_int4(c[0][i][0] + c[1][i][0], c[0][i][1] + c[1][i][1], c[0][i][2] + c[1][i][2],
                         c[0][i][3] + c[1][i][3]);
    }
};

/* A matrix of cores as tensor cores are told of it, without its upper half: rows of 16 bytes and no swizzle, the
 * next chunk `chunk` bytes on. The upper half says that the next 8 rows lie behind a core. */
__device__ static inline uint32_t cores_at(uint32_t address, int chunk) {
    return (address & 0x3ffff) >> 4 | (uint32_t)(chunk >> 4) << 16;
}
__device__ static inline uint64_t whole(uint32_t cores) { return cores | (uint64_t)(CORE >> 4) << 32; }

/* Four warps at once: a warpgroup, whose warps have a row of tiles each. */
template <class Density, int Pieces_> struct group_products {
    enum { Pieces = Pieces_, Team = 4, N = Density::Chunks, CHUNK = TERN_FEW_CHUNK(Pieces) };
    int32_t c[4 * Pieces];

    __device__ void clear() {
#pragma unroll
        for (int i = 0; i < 4 * Pieces; i++) c[i] = 0;
    }
    /* What threads have copied is seen by the tensor cores. */
    __device__ static void arrived() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
    __device__ static uint32_t place(uint32_t x, int) { return __shfl_sync(0xffffffffu, cores_at(x, CHUNK), 0); }
    __device__ static uint32_t advance(uint32_t bytes) { return bytes >> 4; }
    __device__ void start(const uint4 &tile, uint32_t x) {
        uint32_t a[N][4];
        operands<Density>(a, tile);
#pragma unroll
        for (int k = 0; k < N; k++) pin(a[k]);
        pin(c);
        wgmma_fence();
#pragma unroll
        for (int k = 0; k < N; k++) wgmma_i8(c, a[k], whole(x + (2 * k * CHUNK >> 4)));
        wgmma_commit();
    }
    __device__ void finish() {
        wgmma_wait();
        pin(c);
    }
    __device__ int4 piece(int i) const { return make_int4(c[4 * i], c[4 * i + 1], c[4 * i + 2], c[4 * i + 3]); }
};

/* ---- shares of blocks and warps ---------------------------------------------------------------------------------- */

struct block_share {
    int row, rows, k, cols; /* in tiles */

    __device__ block_share(const product &p, const tern_few_plan &plan) {
        const int group = (int)blockIdx.x, split = (int)blockIdx.z;
        row = group * plan.rows + min(group, plan.more);
        rows = plan.rows + (group < plan.more);
        k = p.w.k_tiles * split >> plan.splits_log2;
        cols = (p.w.k_tiles * (split + 1) >> plan.splits_log2) - k;
    }
    /* The columns of a part. */
    __device__ int begin(const tern_few_plan &plan, int part) const { return cols * part >> plan.parts_log2; }
};

/* A warp's rows of tiles are first, first + step ... of the block's; all warps of a team take as many. */
template <int Team> struct warp_share {
    int part, first, step, rounds, begin, length;

    __device__ warp_share(const tern_few_plan &plan, const block_share &b, int warp) {
        const int team = warp / Team, set = team >> plan.parts_log2, sets = WARPS / Team >> plan.parts_log2;
        const int units = (b.rows + Team - 1) / Team;
        part = team & ((1 << plan.parts_log2) - 1);
        first = set * Team + warp % Team;
        step = sets * Team;
        rounds = (units - set + sets - 1) / sets;
        begin = b.begin(plan, part);
        length = b.begin(plan, part + 1) - begin;
    }
};

/* ---- weights ----------------------------------------------------------------------------------------------------- */

__device__ static inline void copy_16(uint32_t to, const uint8_t *from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}

template <int Depth> struct warp_ring {
    uint32_t first, end, slot; /* what this lane reads of them */
    const uint8_t *from;       /* what this lane asks for next */
    ptrdiff_t next_row;        /* from the end of a row of tiles to the next one */
    int column, length, left, absent; /* rows of tiles: to come, and of those the last that are not there */

    template <int Team>
    __device__ warp_ring(const product &p, const block_share &b, const warp_share<Team> &w, uint32_t slots, int lane)
        : first(slots + lane * 16), end(first + Depth * TERN_TILE_BYTES), slot(first), column(0),
          length(w.length), left(w.length > 0 ? w.rounds : 0),
          absent(w.first + (w.rounds - 1) * w.step >= b.rows) {
        const size_t row_bytes = (size_t)p.w.k_tiles * TERN_TILE_BYTES;
        from = p.w.tiles + (size_t)(b.row + w.first) * row_bytes + (size_t)(b.k + w.begin) * TERN_TILE_BYTES +
               lane * 16;
        next_row = (ptrdiff_t)row_bytes * w.step - (ptrdiff_t)length * TERN_TILE_BYTES;
    }
    /* Rows of tiles that are not there are left out: what their slots hold makes sums that nobody takes. */
    __device__ void ask(uint32_t to) {
        if (left > 0) {
            if (left > absent) copy_16(to, from);
            from += TERN_TILE_BYTES;
            if (++column == length) {
                column = 0;
                from += next_row;
                left--;
            }
        }
        asm volatile("cp.async.commit_group;" ::: "memory");
    }
    __device__ void ask_first() {
#pragma unroll 1
        for (uint32_t to = first; to != end; to += TERN_TILE_BYTES) ask(to);
    }
    __device__ uint4 read() const {
        uint4 v;
        asm volatile("cp.async.wait_group %0;" ::"n"(Depth - 1) : "memory");
        asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                     : "r"(slot));
        return v;
    }
    /* The tile that was read is in use: its slot is asked for again, and the next one read. */
    __device__ uint4 next() {
        ask(slot);
        slot += TERN_TILE_BYTES;
        if (slot == end) slot = first;
        return read();
    }
};

/* ---- activations ------------------------------------------------------------------------------------------------- */

/* A phase has that quarter of each part. A warp copies 128 bytes of four rows at once. */
template <class Density, int Pieces>
__device__ static void copy_phase(uint32_t x, const product &p, const tern_few_plan &plan, const block_share &b,
                                  int phase, int warp, int lane) {
    enum { CHUNKS = 2 * Density::Chunks, AT_ONCE = 8, FOURS = 2 * Pieces };
    const int parts = 1 << plan.parts_log2, longest = (b.cols + parts - 1) >> plan.parts_log2;
    const int eights = ((longest + PHASES - 1) / PHASES * CHUNKS + AT_ONCE - 1) / AT_ONCE;
    for (int i = warp; i < eights * parts * FOURS; i += WARPS) {
        const int part = i / FOURS & (parts - 1), eight = i / FOURS >> plan.parts_log2;
        const int begin = b.begin(plan, part), length = b.begin(plan, part + 1) - begin;
        const int chunk = (begin + length * phase / PHASES) * CHUNKS + eight * AT_ONCE + lane % 8;
        const int end = (begin + length * (phase + 1) / PHASES) * CHUNKS;
        const int row = i % FOURS * 4 + lane / 8, column = b.k * Density::Cols + chunk * TERN_TILE_CHUNK;
        if (chunk < end && row < p.out.m && column < p.ldx)
            copy_16(x + (uint32_t)(chunk * TERN_FEW_CHUNK(Pieces) + row * 16),
                    (const uint8_t *)p.x + (size_t)row * (size_t)p.ldx + column);
    }
}

/* The barrier hears of it when all that this thread has asked for is there. */
__device__ static inline void arrive_with_copies(uint32_t barrier) {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}

/* ---- sums -------------------------------------------------------------------------------------------------------- */

/* A piece of sums is that of row of tiles i / Pieces, rows of activations i % Pieces; block i % splits finishes
 * it. */
struct inbox {
    uint32_t at, received; /* in this block */
    int slots, splits, splits_log2, own, source;

    __device__ void send(int i, const int4 &v, int lane) const {
        const uint32_t to = at + (uint32_t)((source * slots + (i >> splits_log2)) * PIECE_BYTES + lane * 16);
        const int rank = i & (splits - 1);
        if (rank == own) {
            asm volatile("st.shared.v4.s32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
                         : "memory");
        } else {
            asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.s32 [%0], {%1, %2, %3, %4}, "
                         "[%5];" ::"r"(address_at(to, rank)),
                         "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w), "r"(address_at(received, rank))
                         : "memory");
        }
    }
    __device__ int4 read(int source_, int slot, int lane) const {
        int4 v;
        asm volatile("ld.shared.v4.s32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                     : "r"(at + (uint32_t)((source_ * slots + slot) * PIECE_BYTES + lane * 16)));
        return v;
    }
};

/* A lane's four sums of a piece. */
struct piece_place {
    int m0, n0, m_end, n_end;
    __device__ int m(int i) const { return m0 + i % 2; }
    __device__ int n(int i) const { return n0 + i / 2 * 8; }
    __device__ bool valid(int i) const { return m(i) < m_end && n(i) < n_end; }
};

struct piece_scales {
    float factor[4], bias[2];

    __device__ void load(const epilogue &out, const piece_place &at) {
        for (int i = 0; i < 4; i++)
            factor[i] = factor_of(out, int32_t(), min(at.m(i), out.m - 1), min(at.n(i), out.rows - 1));
        for (int i = 0; i < 2; i++) bias[i] = bias_of(out, min(at.n(2 * i), out.rows - 1));
    }
};

template <class Density>
__device__ static void put_piece(const inbox &in, const epilogue &out, const piece_place &at, const piece_scales &s,
                                 int slot, int sources, int lane) {
    int32_t sum[4] = {};
#pragma unroll 4
    for (int i = 0; i < sources; i++) {
        const int4 v = in.read(i, slot, lane);
        sum[0] += v.x;
        sum[1] += v.y;
        sum[2] += v.z;
        sum[3] += v.w;
    }
    float v[4];
    for (int i = 0; i < 4; i++) v[i] = product_of(Density::finish(sum[i]), s.factor[i], s.bias[i / 2]);
    put_products(v, out, at);
}

/* ---- the kernel -------------------------------------------------------------------------------------------------- */

template <class Density, class Products>
__device__ static void send_all(const Products &sums, const inbox &in, int row, int rows, int lane) {
    if (row >= rows) return;
#pragma unroll
    for (int i = 0; i < Products::Pieces; i++) in.send(row * Products::Pieces + i, sums.piece(i), lane);
}

template <class Density, class Products, int Depth>
__global__ void __launch_bounds__(THREADS, Products::Pieces > 4 ? 1 : 2) tern_matmul_few_cuda(product p, tern_few_plan plan) {
    enum { Pieces = Products::Pieces, Team = Products::Team, TILE = 2 * Density::Chunks * TERN_FEW_CHUNK(Pieces) };
    extern __shared__ __align__(128) uint8_t shared[];
    const uint32_t base = (uint32_t)__cvta_generic_to_shared(shared), x = base + plan.x;
    const uint32_t phases = base + plan.barriers, received = phases + 8 * PHASES;
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, split = (int)blockIdx.z;
    const block_share b(p, plan);
    const warp_share<Team> mine(plan, b, warp);
    warp_ring<Depth> ring(p, b, mine, base + (uint32_t)(warp * Depth * TERN_TILE_BYTES), lane);
    ring.ask_first();

    /* What does not depend on the last kernel. */
    const int sources = plan.splits << plan.parts_log2, pieces = b.rows * Pieces;
    const int my_pieces = (pieces - split + plan.splits - 1) >> plan.splits_log2;
    const inbox in = {base + plan.inbox, received, plan.slots, plan.splits, plan.splits_log2, split,
                      (split << plan.parts_log2) + mine.part};
    if (threadIdx.x == 0) {
        for (int i = 0; i < PHASES; i++) barrier_init(phases + 8 * i, THREADS);
        barrier_init(received, 1);
        barrier_init_fence();
        if (plan.splits > 1) barrier_arrive_expecting(received, my_pieces * (sources - (1 << plan.parts_log2)) * PIECE_BYTES);
    }
    __syncthreads();
    if (plan.splits > 1) cluster_arrive();
    const auto place_of = [&](int slot) {
        const int i = (slot << plan.splits_log2) + split;
        return piece_place{i % Pieces * 8 + lane % 4 * 2, (b.row + i / Pieces) * TERN_TILE_ROWS + lane / 4, p.out.m,
                           p.out.rows};
    };
    let_next_kernel_start();
    wait_for_last_kernel();

#pragma unroll 1
    for (int i = 0; i < PHASES; i++) {
        copy_phase<Density, Pieces>(x, p, plan, b, i, warp, lane);
        arrive_with_copies(phases + 8 * i);
    }
    piece_scales scales; /* of the first piece that this warp finishes, as early as registers allow */
    if (Team == 1) scales.load(p.out, place_of(warp));
    if (plan.splits > 1) cluster_wait();

    Products sums;
    sums.clear();
    uint4 tile = ring.read();
#pragma unroll 1
    for (int round = 0; round < mine.rounds; round++) {
        if (round > 0) {
            send_all<Density>(sums, in, mine.first + (round - 1) * mine.step, b.rows, lane);
            sums.clear();
        }
        uint32_t at = Products::place(x + (uint32_t)(mine.begin * TILE), lane);
        int k = 0;
#pragma unroll 1
        for (int phase = 0; phase < PHASES; phase++) {
            barrier_wait(phases + 8 * phase, 0);
            Products::arrived();
#pragma unroll 1
            for (const int end = mine.length * (phase + 1) / PHASES; k < end; k++, at += Products::advance(TILE)) {
                sums.start(tile, at);
                tile = ring.next();
                sums.finish();
            }
        }
    }
    if (plan.meet) {
        if (plan.splits > 1) {
            cluster_arrive();
            cluster_wait();
        } else {
            __syncthreads();
        }
    }
    if (mine.rounds > 0)
        send_all<Density>(sums, in, mine.first + (mine.rounds - 1) * mine.step, b.rows, lane);
    if (Team > 1) scales.load(p.out, place_of(warp));
    if (plan.splits > 1) barrier_wait(received, 0);
    __syncthreads();
    for (int i = warp; i < my_pieces; i += WARPS) {
        if (i > warp) scales.load(p.out, place_of(i));
        put_piece<Density>(in, p.out, place_of(i), scales, i, sources, lane);
    }
}

/* ---- launching --------------------------------------------------------------------------------------------------- */

template <class Density, class Products>
static tern_status launch(tern_cuda_context *context, const product &p, const tern_few_plan &plan, tern_error *err) {
    const auto kernel = plan.depth == 8   ? tern_matmul_few_cuda<Density, Products, 8>
                        : plan.depth == 5 ? tern_matmul_few_cuda<Density, Products, 5>
                                          : tern_matmul_few_cuda<Density, Products, 4>;
    CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, plan.bytes), op, err);
    const dim3 grid((unsigned)plan.groups, 1, (unsigned)plan.splits);
    CUDA_TRY(tern_cuda_launch(context, kernel, grid, THREADS, plan.bytes, plan.splits, p, plan), op, err);
    return TERN_OK;
}

template <class D>
static tern_status launch_density(tern_cuda_context *context, const product &p, int variant, tern_error *err) {
    const tern_cuda_limits limits = {context->major, context->minor, context->multiprocessors, context->shared_bytes};
    tern_few_plan plan;
    tern_few_plan_make(&plan, variant, &limits, &p.w, (size_t)p.out.m);
    if (p.out.m > 32) return launch<D, group_products<D, 8>>(context, p, plan, err);
    if (p.out.m > 16) return launch<D, group_products<D, 4>>(context, p, plan, err);
    if (p.out.m > 8)
        return plan.team == 1 ? launch<D, warp_products<D, 2>>(context, p, plan, err)
                              : launch<D, group_products<D, 2>>(context, p, plan, err);
    return plan.team == 1 ? launch<D, warp_products<D, 1>>(context, p, plan, err)
                          : launch<D, group_products<D, 1>>(context, p, plan, err);
}

tern_status tern_cuda_few(tern_cuda_context *context, const product &p, tern_dtype, int variant, tern_error *err) {
    return p.w.t5 ? launch_density<t5>(context, p, variant, err) : launch_density<t2>(context, p, variant, err);
}
