/* Few rows of int8 activations, up to 64, on Hopper: the weights stream past activations that stay.
 *
 * A pair of blocks has some rows of tiles, each block half of their columns, so that it needs that half of the
 * activations alone, which the copy engine brings once. A warp's tiles come through a ring of its own, in which each
 * lane reads what it has asked for itself, and go through registers into the warpgroup tensor cores: nobody waits for
 * others, and the first tiles are asked for before the last kernel has ended. The next kernel is let in when the
 * activations are there, for the weights that it asks for early would come before them; it has the time in which sums
 * are exchanged to fill its rings.
 *
 * Sums go as 16-byte words, as lanes hold them, to the block that finishes them: integers, added in one order. */
#include "cuda/wgmma_common.cuh"

extern "C" {
#include "cuda/few_plan.h"
}

static const char op[] = "cuda-few";

enum {
    WARPS = TERN_FEW_WARPS,
    THREADS = 32 * WARPS,
    TEAM = TERN_FEW_TEAM,
    BLOCKS = TERN_FEW_BLOCKS,
    PIECE = 32 * 4, /* sums of 16 outputs and 8 rows of activations */
    PIECE_BYTES = PIECE * 4,
};

/* ---- shares of blocks and warps ---------------------------------------------------------------------------------- */

struct block_share {
    int row, rows, k, cols; /* in tiles */

    /* Not kept: it is there whenever it is asked for, and registers are few. */
    __device__ static int split() { return (int)blockIdx.z; }

    __device__ block_share(const product &p, const tern_few_plan &plan) {
        const int group = (int)blockIdx.x;
        row = group * plan.rows + min(group, plan.more);
        rows = plan.rows + (group < plan.more);
        k = p.w.k_tiles * split() / BLOCKS;
        cols = p.w.k_tiles * (split() + 1) / BLOCKS - k;
    }
};

/* A warp's rows of tiles are first, first + step ... of the block's, of each it takes the tiles part, part + parts ...
 * All warps of a team take as many. */
struct warp_share {
    int part, parts, first, step, rounds, length;

    __device__ warp_share(const tern_few_plan &plan, const block_share &b, int warp) {
        const int team = warp / TEAM, set = team >> plan.parts_log2, sets = WARPS / TEAM >> plan.parts_log2;
        const int units = (b.rows + TEAM - 1) / TEAM;
        parts = 1 << plan.parts_log2;
        part = team & (parts - 1);
        first = set * TEAM + warp % TEAM;
        step = sets * TEAM;
        rounds = (units - set + sets - 1) / sets;
        length = (b.cols - part + parts - 1) >> plan.parts_log2;
    }
};

/* ---- weights ----------------------------------------------------------------------------------------------------- */

__device__ static inline void copy_16(uint32_t to, const uint8_t *from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}

template <int Depth> struct warp_ring {
    uint32_t first, slot;     /* what this lane reads of them */
    const uint8_t *from;      /* what this lane asks for next */
    int next, next_row;       /* bytes to the next tile; from the end of a row of tiles to the next one */
    int column, length, left; /* in the row of tiles; of tiles that are there, to come */

    /* Rows of tiles that are not there, a warp's last, are left out: what their slots hold makes sums that nobody
     * takes. */
    __device__ warp_ring(const product &p, const block_share &b, const warp_share &w, uint32_t slots, int lane)
        : first(slots + lane * 16), slot(first), column(0), length(w.length) {
        const size_t row_bytes = (size_t)p.w.k_tiles * TERN_TILE_BYTES;
        const int absent = w.first + (w.rounds - 1) * w.step >= b.rows;
        from =
            p.w.tiles + (size_t)(b.row + w.first) * row_bytes + (size_t)(b.k + w.part) * TERN_TILE_BYTES + lane * 16;
        next = w.parts * TERN_TILE_BYTES;
        next_row = (int)row_bytes * w.step - length * next;
        left = length * (w.rounds - absent);
    }
    __device__ void ask(uint32_t to) {
        if (left > 0) {
            copy_16(to, from);
            left--;
            from += next;
            if (++column == length) {
                column = 0;
                from += next_row;
            }
        }
        asm volatile("cp.async.commit_group;" ::: "memory");
    }
    __device__ void ask_first() {
#pragma unroll 1
        for (int i = 0; i < Depth; i++) ask(first + (uint32_t)(i * TERN_TILE_BYTES));
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
        if (slot == first + Depth * TERN_TILE_BYTES) slot = first;
        return read();
    }
};

/* ---- activations and products ------------------------------------------------------------------------------------ */

/* Sums of 64 outputs, a warpgroup's, and 8 rows of activations for each piece; those lie in boxes of 128 columns. */
template <class Density, int Pieces> struct group_products {
    enum {
        N = Density::Chunks,
        STEPS = TERN_FEW_BOX_COLS / 32, /* of a box */
        BOX = TERN_FEW_BOX_COLS * 8 * Pieces
    };
    int32_t c[4 * Pieces];

    /* The first box of a block begins with the step of 32 columns that is a multiple of a box's steps. */
    __device__ static int before(const block_share &b) { return b.k * N % STEPS; }
    __device__ static int boxes_of(const block_share &b) {
        return b.cols > 0 ? (before(b) + b.cols * N + STEPS - 1) / STEPS : 0;
    }
    /* One lane of each warp. Blocks begin with different boxes, so that not all of them want the same lines. */
    __device__ static void ask(uint32_t x, uint32_t barrier, const CUtensorMap *acts, const block_share &b,
                               int warp) {
        const int first = b.k * N / STEPS, count = boxes_of(b);
        for (int i = warp; i < count; i += WARPS) {
            const int box = (int)((unsigned)(i + (int)blockIdx.x) % (unsigned)count);
            copy_box(x + (uint32_t)(box * BOX), acts, (first + box) * TERN_FEW_BOX_COLS, 0, barrier);
        }
    }
    /* The lower half of what tensor cores are told of the first box. */
    __device__ static uint32_t place(uint32_t x) { return __shfl_sync(0xffffffffu, (uint32_t)swizzled_rows(x), 0); }
    /* The steps of 32 columns before those of tile k. */
    __device__ static int steps_of(const block_share &b, int k) { return before(b) + k * N; }

    __device__ void clear() {
#pragma unroll
        for (int i = 0; i < 4 * Pieces; i++) c[i] = 0;
    }
    __device__ void start(const uint4 &tile, uint32_t x, int first_step) {
        const uint64_t upper = swizzled_rows(0) >> 32 << 32;
        uint32_t a[N][4];
        int8_operands<Density>(a, tile);
#pragma unroll
        for (int k = 0; k < N; k++) pin(a[k]);
        pin(c);
        wgmma_fence();
#pragma unroll
        for (int k = 0; k < N; k++) {
            const uint32_t step = (uint32_t)(first_step + k);
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

/* A piece of sums is that of row of tiles i / Pieces, rows of activations i % Pieces; block i % BLOCKS finishes it. */
struct inbox {
    uint32_t at, received; /* in this block */
    int slots, source;

    __device__ void send(int i, const int4 &v, int lane) const {
        const uint32_t to = place(source, i / BLOCKS, (uint32_t)lane * 4);
        const int rank = i % BLOCKS;
        if (rank == block_share::split())
            asm volatile("st.shared.v4.s32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
                         : "memory");
        else
            send_words(address_at(to, rank), v, address_at(received, rank));
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

/* Where the outputs of a block are, and what scales them: asked for before the sums are there, or while the outputs
 * before them are written. With up to 8 rows of activations a thread has an output, with more the four of a piece that
 * a lane holds. */
template <int Pieces> struct outputs_of {
    enum { Each = Pieces > 1 ? 4 : 1, Threads = PIECE / Each };
    int m0, n0, m_end, n_end;
    uint32_t word; /* in the piece */

    __device__ outputs_of(const epilogue &out, const block_share &b, int i) : m_end(out.m), n_end(out.rows) {
        const int piece = i / Threads * BLOCKS + block_share::split(), at = i % Threads;
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

template <class Density, int Pieces>
__device__ static void send_all(const group_products<Density, Pieces> &sums, const inbox &in, int row, int rows,
                                int lane) {
    if (row >= rows) return;
#pragma unroll
    for (int i = 0; i < Pieces; i++) in.send(row * Pieces + i, sums.piece(i), lane);
}

/* More than 32 rows take the registers of a whole multiprocessor. */
template <class Density, int Pieces, int Depth>
__global__ void __launch_bounds__(THREADS, Pieces > 4 ? 1 : 2)
    tern_matmul_few_cuda(product p, tern_few_plan plan, const __grid_constant__ CUtensorMap acts) {
    typedef group_products<Density, Pieces> products;
    extern __shared__ __align__(1024) uint8_t shared[];
    const uint32_t base = (uint32_t)__cvta_generic_to_shared(shared), x = base + plan.x;
    const uint32_t arrived = base + plan.barriers, received = arrived + 8;
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    const block_share b(p, plan);
    const warp_share mine(plan, b, warp);
    warp_ring<Depth> ring(p, b, mine, base + (uint32_t)(warp * Depth * TERN_TILE_BYTES), lane);
    ring.ask_first();

    /* What does not depend on the last kernel. */
    const int sources = BLOCKS * mine.parts, my_pieces = (b.rows * Pieces - b.split() + BLOCKS - 1) / BLOCKS;
    const inbox in = {base + plan.inbox, received, plan.slots, b.split() * mine.parts + mine.part};
    if (threadIdx.x == 0) {
        asm volatile("prefetch.tensormap [%0];" ::"l"(&acts) : "memory");
        barrier_init(arrived, 1);
        barrier_init(received, 1);
        barrier_init_fence();
        barrier_arrive_expecting(arrived, products::boxes_of(b) * products::BOX);
        barrier_arrive_expecting(received, my_pieces * (BLOCKS - 1) * mine.parts * PIECE_BYTES);
    }
    __syncthreads();
    cluster_arrive();
    wait_for_last_kernel();

    if (lane == 0) products::ask(x, arrived, &acts, b, warp);
    __syncwarp();
    cluster_wait();

    products sums;
    sums.clear();
    const uint32_t multiplied = products::place(x);
    uint4 tile = ring.read();
    barrier_wait(arrived, 0);
    let_next_kernel_start();
#pragma unroll 1
    for (int round = 0; round < mine.rounds; round++) {
        if (round > 0) {
            send_all(sums, in, mine.first + (round - 1) * mine.step, b.rows, lane);
            sums.clear();
        }
#pragma unroll 1
        for (int k = mine.part; k < b.cols; k += mine.parts) {
            sums.start(tile, multiplied, products::steps_of(b, k));
            tile = ring.read_next();
            sums.finish();
        }
    }
    if (plan.meet) {
        cluster_arrive();
        cluster_wait();
    }
    if (mine.rounds > 0) send_all(sums, in, mine.first + (mine.rounds - 1) * mine.step, b.rows, lane);
    output_scales<Pieces> scales;
    scales.load(p.out, outputs_of<Pieces>(p.out, b, (int)threadIdx.x));
    barrier_wait(received, 0);
    __syncthreads();
    enum { Threads = outputs_of<Pieces>::Threads };
    for (int i = (int)threadIdx.x; i < my_pieces * Threads; i += THREADS) {
        output_scales<Pieces> next;
        if (i + THREADS < my_pieces * Threads) next.load(p.out, outputs_of<Pieces>(p.out, b, i + THREADS));
        put_outputs<Density>(in, p.out, outputs_of<Pieces>(p.out, b, i), scales, i / Threads, sources);
        scales = next;
    }
}

/* ---- launching --------------------------------------------------------------------------------------------------- */

template <class Density, int Pieces>
static tern_status launch(tern_cuda_context *context, const product &p, const tern_few_plan &plan, tern_error *err) {
    const auto kernel = plan.depth == 8   ? tern_matmul_few_cuda<Density, Pieces, 8>
                        : plan.depth == 5 ? tern_matmul_few_cuda<Density, Pieces, 5>
                                          : tern_matmul_few_cuda<Density, Pieces, 4>;
    CUtensorMap acts;
    tern_status status = tern_cuda_describe_boxes(
        &acts, act_boxes(p, CU_TENSOR_MAP_SWIZZLE_128B, TERN_FEW_BOX_COLS, 8 * Pieces), op, err);
    if (status) return status;
    const dim3 grid((unsigned)plan.groups, 1, BLOCKS);
    CUDA_TRY(tern_cuda_launch(context, kernel, grid, THREADS, plan.bytes, BLOCKS, p, plan, acts), op, err);
    return TERN_OK;
}

template <class Density>
static tern_status launch_density(tern_cuda_context *context, const product &p, tern_error *err) {
    const tern_cuda_limits limits = {context->major, context->minor, context->multiprocessors, context->shared_bytes};
    tern_few_plan plan;
    if (!tern_few_plan_make(&plan, &limits, &p.w, (size_t)p.out.m))
        return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE, "%s: shared memory has no room", op);
    if (p.out.m > 32) return launch<Density, 8>(context, p, plan, err);
    if (p.out.m > 16) return launch<Density, 4>(context, p, plan, err);
    return p.out.m > 8 ? launch<Density, 2>(context, p, plan, err) : launch<Density, 1>(context, p, plan, err);
}

tern_status tern_cuda_few(tern_cuda_context *context, const product &p, tern_dtype, int, tern_error *err) {
    return p.w.t5 ? launch_density<t5>(context, p, err) : launch_density<t2>(context, p, err);
}
