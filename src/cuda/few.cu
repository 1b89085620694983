/* Few rows of int8 activations, 2 to 64, on Hopper: the weights stream past activations that stay.
 *
 * A cluster of blocks has some rows of tiles and shares their columns, so that a block needs its part of the
 * activations alone; they are copied into shared memory once, in the 8 x 16 bytes that tensor cores take whole. A
 * warp's tiles come through a ring of its own, in which each lane reads what it has asked for itself, and go through
 * registers into the tensor cores: nobody waits for others, and the first ones are asked for before the last kernel
 * has ended.
 *
 * Sums go as 16-byte words, as lanes hold them, to the block that finishes them; integers, added in one order. */
#include "cuda/wgmma_common.cuh"

extern "C" {
#include "cuda/few_plan.h"
}

static const char op[] = "cuda-few";

enum {
    WARPS = TERN_FEW_WARPS,
    THREADS = 32 * WARPS,
    PHASES = TERN_FEW_PHASES,
    PIECE = 32 * 4, /* sums of 16 outputs and 8 rows of activations */
    PIECE_BYTES = PIECE * 4,
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
    /* The tiles whose activations are there with the phases up to this one, -1: none. */
    __device__ int end_of(int phase) const { return (unsigned)(cols * (phase + 1)) / PHASES; }
};

/* A warp's rows of tiles are first, first + step ... of the block's, of each it takes the tiles part, part + parts ...
 * All warps of a team take as many. */
template <int Team> struct warp_share {
    int part, parts, first, step, rounds, length;

    __device__ warp_share(const tern_few_plan &plan, const block_share &b, int warp) {
        const int team = warp / Team, set = team >> plan.parts_log2, sets = WARPS / Team >> plan.parts_log2;
        const int units = (b.rows + Team - 1) / Team;
        parts = 1 << plan.parts_log2;
        part = team & (parts - 1);
        first = set * Team + warp % Team;
        step = sets * Team;
        rounds = (units - set + sets - 1) / sets;
        length = (b.cols - part + parts - 1) >> plan.parts_log2;
    }
};

/* ---- weights ----------------------------------------------------------------------------------------------------- */

/* To shared memory, whose barrier hears of it. */
__device__ static inline void copy_bytes(uint32_t to, const uint8_t *from, int bytes, uint32_t barrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
                 "l"(from), "r"(bytes), "r"(barrier)
                 : "memory");
}

__device__ static inline void copy_16(uint32_t to, const uint8_t *from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}

template <int Depth> struct warp_ring {
    uint32_t first, end, slot;        /* what this lane reads of them */
    const uint8_t *from;              /* what this lane asks for next */
    int next, next_row;               /* bytes to the next tile; from the end of a row of tiles to the next one */
    int column, length, left, absent; /* rows of tiles: to come, and of those the last that are not there */

    template <int Team>
    __device__ warp_ring(const product &p, const block_share &b, const warp_share<Team> &w, uint32_t slots, int lane)
        : first(slots + lane * 16), end(first + Depth * TERN_TILE_BYTES), slot(first), column(0), length(w.length),
          left(w.length > 0 ? w.rounds : 0), absent(w.first + (w.rounds - 1) * w.step >= b.rows) {
        const size_t row_bytes = (size_t)p.w.k_tiles * TERN_TILE_BYTES;
        from =
            p.w.tiles + (size_t)(b.row + w.first) * row_bytes + (size_t)(b.k + w.part) * TERN_TILE_BYTES + lane * 16;
        next = w.parts * TERN_TILE_BYTES;
        next_row = (int)row_bytes * w.step - length * next;
    }
    /* Rows of tiles that are not there are left out: what their slots hold makes sums that nobody takes. */
    __device__ void ask(uint32_t to) {
        if (left > 0) {
            if (left > absent) copy_16(to, from);
            from += next;
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
    __device__ uint4 read_next() {
        ask(slot);
        slot += TERN_TILE_BYTES;
        if (slot == end) slot = first;
        return read();
    }
};

/* ---- activations and products ------------------------------------------------------------------------------------ *
 * Products ask for the block's activations, a quarter of the tiles with every phase, and add up tiles times what is at
 * x. `piece` i of their sums is that of the rows of activations 8i .. 8i + 7. */

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

/* Four, or two, cores of 8 rows and a chunk: of each a register gets what a lane has of a B operand. Eight lanes have
 * the addresses of its rows. */
__device__ static void load_cores(uint32_t (&b)[4], uint32_t row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3])
                 : "r"(row));
}
__device__ static void load_cores(uint32_t (&b)[2], uint32_t row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];" : "=r"(b[0]), "=r"(b[1]) : "r"(row));
}

/* A warp by itself, up to 16 rows, which lie in shared memory as they do in memory, plan.pitch bytes apart. Sums of
 * even and of odd steps are apart, so that no product waits for the one before. */
template <class Density, int Pieces_> struct warp_products {
    enum { Pieces = Pieces_, Team = 1, N = Density::Chunks };
    int32_t c[2][Pieces][4];

    __device__ static int columns_of(const product &p, const block_share &b, int tile) {
        return min(tile * Density::Cols, max(p.ldx - b.k * Density::Cols, 0));
    }
    __device__ static int bytes_of(const product &p, const block_share &b, int phase) {
        return p.out.m * (columns_of(p, b, b.end_of(phase)) - columns_of(p, b, b.end_of(phase - 1)));
    }
    /* Each lane of a warp asks for a row. */
    __device__ static void ask(uint32_t x, uint32_t barriers, const product &p, const CUtensorMap *,
                               const tern_few_plan &plan, const block_share &b, int lane) {
        if (lane >= p.out.m) return;
        const uint8_t *row = (const uint8_t *)p.x + (size_t)lane * (size_t)p.ldx + b.k * Density::Cols;
        for (int i = 0; i < PHASES; i++) {
            const int begin = columns_of(p, b, b.end_of(i - 1)), bytes = columns_of(p, b, b.end_of(i)) - begin;
            if (bytes > 0)
                copy_bytes(x + (uint32_t)(lane * plan.pitch + begin), row + begin, bytes, barriers + 8 * i);
        }
    }
    /* Of a lane's cores: they are of as many chunks, or of two. */
    __device__ static uint32_t place(uint32_t x, const tern_few_plan &plan, int lane) {
        const int core = lane / 8;
        return x + (uint32_t)((core % Pieces * 8 + lane % 8) * plan.pitch + core / Pieces * TERN_TILE_CHUNK);
    }

    __device__ void clear() {
#pragma unroll
        for (int i = 0; i < 8 * Pieces; i++) c[i / 4 / Pieces][i / 4 % Pieces][i % 4] = 0;
    }
    __device__ void start(const uint4 &tile, uint32_t x, int k0) {
        const uint32_t at = x + (uint32_t)(k0 * Density::Cols);
        uint32_t a[N][4];
        operands<Density>(a, tile);
        if constexpr (Pieces == 1) {
#pragma unroll
            for (int k = 0; k + 1 < N; k += 2) {
                uint32_t b[4];
                load_cores(b, at + k * 32);
                mma_i8(c[0][0], a[k][0], a[k][1], a[k][2], a[k][3], b[0], b[1]);
                mma_i8(c[1][0], a[k + 1][0], a[k + 1][1], a[k + 1][2], a[k + 1][3], b[2], b[3]);
            }
            if constexpr (N % 2) {
                uint32_t b[2];
                load_cores(b, at + (N - 1) * 32);
                mma_i8(c[0][0], a[N - 1][0], a[N - 1][1], a[N - 1][2], a[N - 1][3], b[0], b[1]);
            }
        } else {
#pragma unroll
            for (int k = 0; k < N; k++) {
                uint32_t b[4];
                load_cores(b, at + k * 32);
#pragma unroll
                for (int i = 0; i < 2; i++) mma_i8(c[k % 2][i], a[k][0], a[k][1], a[k][2], a[k][3], b[i], b[2 + i]);
            }
        }
    }
    __device__ void finish() {}
    __device__ int4 piece(int i) const {
        return make_int4(c[0][i][0] + c[1][i][0], c[0][i][1] + c[1][i][1], c[0][i][2] + c[1][i][2],
                         c[0][i][3] + c[1][i][3]);
    }
};

/* Four warps at once: a warpgroup, whose warps have a row of tiles each. Activations are in boxes of 128 columns. */
template <class Density, int Pieces_> struct group_products {
    enum {
        Pieces = Pieces_,
        Team = 4,
        N = Density::Chunks,
        STEPS = TERN_FEW_BOX_COLS / 32, /* of a box */
        BOX = TERN_FEW_BOX_COLS * 8 * Pieces
    };
    int32_t c[4 * Pieces];

    __device__ static int boxes_of(int tiles) { return (tiles * N + STEPS - 1) / STEPS; }
    __device__ static int bytes_of(const product &, const block_share &b, int phase) {
        return BOX * (boxes_of(b.end_of(phase)) - boxes_of(b.end_of(phase - 1)));
    }
    __device__ static void ask(uint32_t x, uint32_t barriers, const product &, const CUtensorMap *acts,
                               const tern_few_plan &, const block_share &b, int lane) {
        for (int i = 0; i < PHASES; i++)
            for (int box = boxes_of(b.end_of(i - 1)) + lane; box < boxes_of(b.end_of(i)); box += 32)
                copy_box(x + (uint32_t)(box * BOX), acts, b.k * Density::Cols + box * TERN_FEW_BOX_COLS, 0,
                         barriers + 8 * i);
    }
    /* The lower half of what tensor cores are told of the first box. */
    __device__ static uint32_t place(uint32_t x, const tern_few_plan &, int) {
        return __shfl_sync(0xffffffffu, (uint32_t)swizzled_rows(x), 0);
    }

    __device__ void clear() {
#pragma unroll
        for (int i = 0; i < 4 * Pieces; i++) c[i] = 0;
    }
    __device__ void start(const uint4 &tile, uint32_t x, int k0) {
        const uint64_t upper = swizzled_rows(0) >> 32 << 32;
        uint32_t a[N][4];
        operands<Density>(a, tile);
#pragma unroll
        for (int k = 0; k < N; k++) pin(a[k]);
        pin(c);
        wgmma_fence();
#pragma unroll
        for (int k = 0; k < N; k++) {
            const uint32_t step = (uint32_t)(k0 * N + k);
            wgmma_i8(c, a[k], upper | (x + step / STEPS * (BOX >> 4) + step % STEPS * (32 >> 4)));
        }
        wgmma_commit();
    }
    __device__ void finish() {
        wgmma_wait();
        pin(c);
    }
    __device__ int4 piece(int i) const { return make_int4(c[4 * i], c[4 * i + 1], c[4 * i + 2], c[4 * i + 3]); }
};

/* ---- sums -------------------------------------------------------------------------------------------------------- */

/* A piece of sums is that of row of tiles i / Pieces, rows of activations i % Pieces; block i % splits finishes
 * it. */
struct inbox {
    uint32_t at, received; /* in this block */
    int slots, splits, splits_log2, own, source;

    __device__ void send(int i, const int4 &v, int lane) const {
        const uint32_t to = place(source, i >> splits_log2, (uint32_t)lane * 4);
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
    __device__ uint32_t place(int source_, int slot, uint32_t word) const {
        return at + (uint32_t)((source_ * slots + slot) * PIECE_BYTES) + word * 4;
    }
    __device__ void add(int32_t (&sum)[1], int source_, int slot, uint32_t word) const {
        int32_t v;
        asm volatile("ld.shared.s32 %0, [%1];" : "=r"(v) : "r"(place(source_, slot, word)));
        sum[0] += v;
    }
    __device__ void add(int32_t (&sum)[4], int source_, int slot, uint32_t word) const {
        int32_t v[4];
        asm volatile("ld.shared.v4.s32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3])
                     : "r"(place(source_, slot, word)));
#pragma unroll
        for (int i = 0; i < 4; i++) sum[i] += v[i];
    }
};

/* Where the outputs of a block are, and what scales the first ones of a thread, asked for long before it is needed.
 * With up to 8 rows of activations a thread has an output, with more a lane the four that it has of a piece. */
template <int Pieces> struct outputs_of {
    enum { Each = Pieces > 1 ? 4 : 1, Threads = PIECE / Each };
    int m0, n0, m_end, n_end;
    uint32_t word; /* in the piece */

    __device__ outputs_of(const epilogue &out, const inbox &in, const block_share &b, int i)
        : m_end(out.m), n_end(out.rows) {
        const int piece = (i / Threads << in.splits_log2) + in.own, at = i % Threads;
        const int column = Pieces > 1 ? at % 4 * 2 : at / TERN_TILE_ROWS,
                  row = Pieces > 1 ? at / 4 : at % TERN_TILE_ROWS;
        m0 = piece % Pieces * 8 + column;
        n0 = (b.row + piece / Pieces) * TERN_TILE_ROWS + row;
        word = (uint32_t)(Pieces > 1 ? at * 4 : (row % 8 * 4 + column / 2) * 4 + row / 8 * 2 + column % 2);
    }
    __device__ int m(int i) const { return m0 + i % 2; }
    __device__ int n(int i) const { return n0 + i / 2 * 8; }
    __device__ bool valid(int i) const { return m(i) < m_end && n(i) < n_end; }
};

template <int Pieces> struct output_scales {
    enum { Each = outputs_of<Pieces>::Each };
    float factor[Each], bias[Each];

    __device__ void load(const epilogue &out, const outputs_of<Pieces> &at) {
#pragma unroll
        for (int i = 0; i < Each; i++) {
            const int n = min(at.n(i), out.rows - 1);
            factor[i] = factor_of(out, int32_t(), min(at.m(i), out.m - 1), n);
            bias[i] = bias_of(out, n);
        }
    }
};

template <class Density, int Pieces>
__device__ static void put_outputs(const inbox &in, const epilogue &out, const outputs_of<Pieces> &at,
                                   const output_scales<Pieces> &scales, int slot, int sources) {
    enum { Each = outputs_of<Pieces>::Each };
    int32_t sum[Each] = {};
    float v[Each];
#pragma unroll 4
    for (int s = 0; s < sources; s++) in.add(sum, s, slot, at.word);
#pragma unroll
    for (int i = 0; i < Each; i++) v[i] = product_of(Density::finish(sum[i]), scales.factor[i], scales.bias[i]);
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
__global__ void __launch_bounds__(THREADS, Products::Pieces > 4 ? 1 : 2)
    tern_matmul_few_cuda(product p, tern_few_plan plan, const __grid_constant__ CUtensorMap acts) {
    enum { Pieces = Products::Pieces, Team = Products::Team };
    extern __shared__ __align__(1024) uint8_t shared[];
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
    const inbox in = {base + plan.inbox,
                      received,
                      plan.slots,
                      plan.splits,
                      plan.splits_log2,
                      split,
                      (split << plan.parts_log2) + mine.part};
    if (threadIdx.x == 0) {
        for (int i = 0; i <= PHASES; i++) barrier_init(phases + 8 * i, 1);
        barrier_init_fence();
        for (int i = 0; i < PHASES; i++) barrier_arrive_expecting(phases + 8 * i, Products::bytes_of(p, b, i));
        if (plan.splits > 1)
            barrier_arrive_expecting(received, my_pieces * (sources - (1 << plan.parts_log2)) * PIECE_BYTES);
    }
    __syncthreads();
    if (plan.splits > 1) cluster_arrive();
    let_next_kernel_start();
    wait_for_last_kernel();

    if (warp == 0) Products::ask(x, phases, p, &acts, plan, b, lane);
    const outputs_of<Pieces> first(p.out, in, b, (int)threadIdx.x);
    output_scales<Pieces> scales;
    if (Team == 1) scales.load(p.out, first); /* others have no registers left */
    if (plan.splits > 1) cluster_wait();

    Products sums;
    sums.clear();
    const uint32_t multiplied = Products::place(x, plan, lane);
    uint4 tile = ring.read();
#pragma unroll 1
    for (int round = 0; round < mine.rounds; round++) {
        if (round > 0) {
            send_all<Density>(sums, in, mine.first + (round - 1) * mine.step, b.rows, lane);
            sums.clear();
        }
        int k = mine.part;
#pragma unroll 1
        for (int phase = 0; phase < PHASES; phase++) {
            barrier_wait(phases + 8 * phase, 0);
#pragma unroll 1
            for (const int end = b.end_of(phase); k < end; k += mine.parts) {
                sums.start(tile, multiplied, k);
                tile = ring.read_next();
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
    if (mine.rounds > 0) send_all<Density>(sums, in, mine.first + (mine.rounds - 1) * mine.step, b.rows, lane);
    if (Team > 1) scales.load(p.out, first);
    if (plan.splits > 1) barrier_wait(received, 0);
    __syncthreads();
    enum { Threads = outputs_of<Pieces>::Threads };
    for (int i = (int)threadIdx.x; i < my_pieces * Threads; i += THREADS) {
        const outputs_of<Pieces> at(p.out, in, b, i);
        if (i >= THREADS) scales.load(p.out, at);
        put_outputs<Density>(in, p.out, at, scales, i / Threads, sources);
    }
}

/* ---- launching --------------------------------------------------------------------------------------------------- */

template <class Density, class Products>
static tern_status launch(tern_cuda_context *context, const product &p, const tern_few_plan &plan, tern_error *err) {
    const auto kernel = plan.depth == 8   ? tern_matmul_few_cuda<Density, Products, 8>
                        : plan.depth == 5 ? tern_matmul_few_cuda<Density, Products, 5>
                                          : tern_matmul_few_cuda<Density, Products, 4>;
    CUtensorMap acts = {};
    if (Products::Team > 1) {
        tern_status status = tern_cuda_describe_boxes(
            &acts, act_boxes(p, CU_TENSOR_MAP_SWIZZLE_128B, TERN_FEW_BOX_COLS, 8 * Products::Pieces), err);
        if (status) return status;
    }
    CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, plan.bytes), op, err);
    const dim3 grid((unsigned)plan.groups, 1, (unsigned)plan.splits);
    CUDA_TRY(tern_cuda_launch(context, kernel, grid, THREADS, plan.bytes, plan.splits, p, plan, acts), op, err);
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
