/* Up to eight rows of int8 activations, or one of halves, on Hopper, where decode.cu would leave multiprocessors
 * without work at the end.
 *
 * One or two blocks a multiprocessor have equal shares of the tiles: a group of blocks, a cluster, has some rows of
 * tiles; its blocks share their columns, and the warps of a block cut the block's tiles, row after row, into runs of
 * one length.
 *
 * A warp's tiles come through a ring in shared memory, in which each lane reads what it has asked for itself: what is
 * on its way costs no registers, and nobody waits for others. Two blocks fit a multiprocessor, so that where a
 * product has one each, those of the next kernel fill their rings while this one works. The activations of a block's
 * columns are in shared memory, too, with zeros behind them: what a unit lacks of tiles is multiplied with these.
 *
 * Where a run leaves a row of tiles, its sums go to a place of their own; what belongs together is added in the order
 * of the warps, then of the blocks. Where operands are too large by what a zero trit is, that many times the sum of the
 * activations is taken away in the end. */
#include "cuda/decode_half_row.cuh"
#include "cuda/decode_output.cuh"
#include "cuda/decode_row.cuh"
#include "cuda/hopper.cuh"

static const char op[] = "cuda-decode";

enum {
    WARPS = TERN_RING_WARPS,
    THREADS = WARPS * 32,
    UNIT = TERN_RING_UNIT,
    UNITS = TERN_RING_UNITS,
    UNIT_BYTES = UNIT * TERN_TILE_BYTES
};

/* ---- activations ------------------------------------------------------------------------------------------------ *
 * `Parts` words of them, or pairs of words, meet a tile in a lane; lane_offset and part_offset say how many bytes from
 * the beginning of the tile's. `Row` is what they have in common with decode_row.cuh. */

/* One row, in chunks. */
template <class Density, class OneRow> struct one_row {
    typedef OneRow Row;
    typedef typename Row::sum_type sum_type;
    enum { N = Density::Chunks, Sums = Row::template Sums<Density>, Parts = 2, MaxM = 1 };
    enum { Bytes = sizeof(typename Row::value) };

    __device__ static int lane_offset(int lane, int, int) {
        return (min(lane / 4, N - 1) * TERN_TILE_CHUNK + lane % 4 * 4) * Bytes;
    }
    __device__ static int part_offset(int i) { return i * N * TERN_TILE_CHUNK * Bytes; }

    __device__ static void add(sum_type (&c)[1][Sums][4], const uint4 (&tile)[1],
                               const typename Row::part (&x)[Parts]) {
        Row::template add<Density, 1>(c, tile, x);
    }
    /* to[row of the tile] */
    __device__ static void leave(sum_type *to, const sum_type (&c)[1][Sums][4], int lane) {
        sum_type sums[2];
        add_chunks<Density, Row>(sums, c[0], lane);
        if (lane % 4 < 2) to[lane % 4 * 8 + lane / 4] = lane % 4 ? sums[1] : sums[0];
    }
};

__device__ static inline void row_codes(t2, uint32_t word, uint32_t (&codes)[4]) { masked_codes(t2(), word, codes); }
__device__ static inline void row_codes(t5, uint32_t word, uint32_t (&codes)[5]) { digits(word, codes); }
__device__ static inline int32_t row_sum(t2, int i, int32_t sum) { return sum >> 2 * i; }
__device__ static inline int32_t row_sum(t5, int, int32_t sum) { return sum; }

/* Rows in the columns of the product. */
template <class Density> struct eight_rows {
    typedef int8_row Row;
    enum { N = Density::Chunks, Sums = N, Parts = 2 * N, MaxM = 8, Bytes = 1 };

    /* Rows that are not there are read as the last one. */
    __device__ static int lane_offset(int lane, int m, int pitch) {
        return min(lane / 4, m - 1) * pitch + lane % 4 * 4;
    }
    __device__ static int part_offset(int i) { return i * TERN_TILE_CHUNK; }

    __device__ static void add(int32_t (&c)[1][N][4], const uint4 (&tile)[1], const uint32_t (&x)[Parts]) {
        uint32_t a[4][N];
        row_codes(Density(), tile[0].x, a[0]);
        row_codes(Density(), tile[0].y, a[1]);
        row_codes(Density(), tile[0].z, a[2]);
        row_codes(Density(), tile[0].w, a[3]);
#pragma unroll
        for (int i = 0; i < N; i++) mma_u8(c[0][i], a[0][i], a[1][i], a[2][i], a[3][i], x[i], x[N + i]);
    }
    /* to[row of activations][row of the tile] */
    __device__ static void leave(int32_t *to, const int32_t (&c)[1][N][4], int lane) {
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const int row = lane % 4 * 2 + j % 2;
            int32_t sum = 0;
#pragma unroll
            for (int i = 0; i < N; i++) sum += row_sum(Density(), i, c[0][i][j]);
            to[row * TERN_TILE_ROWS + lane / 4 + j / 2 * 8] = sum;
        }
    }
};

/* ---- the share of a block and of a warp ------------------------------------------------------------------------ */

struct block_share {
    int row, rows, k, cols; /* in tiles; cols: that are there of all units */
    int run;                /* units of a warp */

    __device__ block_share(const product &p, const tern_ring_plan &plan) {
        const int group = (int)blockIdx.x;
        row = group * plan.rows + min(group, plan.more);
        rows = plan.rows + (group < plan.more);
        k = (int)blockIdx.z * plan.row_units * UNIT;
        cols = min(p.w.k_tiles - k, plan.row_units * UNIT);
        run = (rows * plan.row_units + WARPS - 1) / WARPS;
    }
};

/* The units of a warp: `count` from unit `unit` of the block's row of tiles `row` on. */
struct warp_share {
    int row, unit, count;

    __device__ warp_share(const tern_ring_plan &plan, const block_share &b, int warp) {
        const int first = min(warp * b.run, b.rows * plan.row_units);
        row = plan.row_units > 1 ? (int)__umulhi((unsigned)first, plan.row_units_inverse) : first;
        unit = first - row * plan.row_units;
        count = min(b.run, b.rows * plan.row_units - first);
    }
};

/* ---- weights: a warp's ring ------------------------------------------------------------------------------------ */

__device__ static inline void copy_16(uint32_t to, const uint8_t *from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}

struct warp_ring {
    uint32_t slots;      /* what this lane reads of them */
    const uint8_t *from; /* what this lane asks for next */
    ptrdiff_t next_row;  /* from the end of a row of tiles to the next one */
    int unit, row_units, cols, left;

    __device__ warp_ring(const product &p, const tern_ring_plan &plan, const block_share &b, const warp_share &w,
                         uint32_t slots_, int lane)
        : slots(slots_ + lane * 16), unit(w.unit), row_units(plan.row_units), cols(b.cols), left(w.count) {
        const size_t row_bytes = (size_t)p.w.k_tiles * TERN_TILE_BYTES;
        from = p.w.tiles + (size_t)(b.row + w.row) * row_bytes + (size_t)(b.k + unit * UNIT) * TERN_TILE_BYTES +
               lane * 16;
        next_row = (ptrdiff_t)row_bytes - row_units * UNIT_BYTES;
    }
    __device__ void ask(uint32_t slot) {
        if (left > 0) {
            const int there = cols - unit * UNIT;
#pragma unroll
            for (int u = 0; u < UNIT; u++)
                if (u < there) copy_16(slot + u * TERN_TILE_BYTES, from + u * TERN_TILE_BYTES);
            left--;
            from += UNIT_BYTES;
            if (++unit == row_units) {
                unit = 0;
                from += next_row;
            }
        }
        asm volatile("cp.async.commit_group;" ::: "memory");
    }
    /* One after the other: behind more than that, what the last kernel still reads and its outputs would wait. */
    __device__ void ask_first() {
#pragma unroll
        for (int i = 0; i < UNITS; i++) {
            if (i) asm volatile("cp.async.wait_group 0;" ::: "memory");
            ask(slots + i * UNIT_BYTES);
        }
    }
    /* The unit that was asked for first is there. */
    __device__ void wait() const { asm volatile("cp.async.wait_group %0;" ::"n"(UNITS - 1) : "memory"); }
};

__device__ static inline uint4 shared_uint4(uint32_t at) {
    uint4 v;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(at));
    return v;
}
__device__ static inline void load_shared(uint32_t &v, uint32_t at) {
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(v) : "r"(at));
}
__device__ static inline void load_shared(uint2 &v, uint32_t at) {
    asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "r"(at));
}

/* ---- activations into shared memory ---------------------------------------------------------------------------- */

/* What products are too large by: of integers a sum for each row, of floats a part for each warp, since their order
 * must not depend on time. */
__device__ static inline void add_up(int32_t *sum, int32_t part, int lane) {
    part = __reduce_add_sync(0xffffffffu, part);
    if (lane == 0) atomicAdd(sum, part);
}
__device__ static inline void add_up(float *parts, float part, int lane) {
#pragma unroll
    for (int i = 16; i; i /= 2) part += __shfl_xor_sync(0xffffffffu, part, i);
    if (lane == 0) parts[threadIdx.x / 32] = part;
}
__device__ static inline int32_t added_up(const int32_t *sums, int row) { return sums[row]; }
__device__ static inline float added_up(const float *parts, int) {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < WARPS; i++) sum += parts[i];
    return sum;
}

/* The block's columns of m rows, zeros where there are none. A warp takes 512 bytes of a row at once. Of several rows
 * the sums go to `sums`; of one, each lane returns its part, which can wait until there is time. */
template <class Density, class Acts, class Sum>
__device__ static Sum stage_acts(uint8_t *x, Sum *sums, const product &p, const block_share &b, int pitch, int m) {
    enum { AT_ONCE = 4, STRETCH = 512 };
    const int lane = (int)(threadIdx.x % 32), warp = (int)(threadIdx.x / 32), ldx = p.ldx * Acts::Bytes;
    const int begin = b.k * Density::Cols * Acts::Bytes, there = ldx - begin;
    const int bytes = pitch - TERN_RING_GAP, stretches = (bytes + STRETCH - 1) / STRETCH * m;
    Sum mine = 0;
    for (int first = warp; first < stretches; first += AT_ONCE * WARPS) {
        uint4 v[AT_ONCE];
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            const int s = first + i * WARPS, at = s / m * STRETCH + lane * 16;
            v[i] = make_uint4(0, 0, 0, 0);
            if (s < stretches && at < there)
                v[i] = *(const uint4 *)((const uint8_t *)p.x + (size_t)(s % m) * (size_t)ldx + begin + at);
        }
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            const int s = first + i * WARPS, at = s / m * STRETCH + lane * 16;
            if (s >= stretches) break;
            if (at < bytes) *(uint4 *)(x + s % m * pitch + at) = Acts::Row::staged(v[i]);
            const Sum sum = at < bytes ? Acts::Row::template staged_zeros<Density>(v[i], at) : 0;
            if constexpr (Acts::MaxM == 1)
                mine += sum;
            else
                add_up(&sums[s % m], sum, lane);
        }
    }
    return mine;
}

/* ---- the kernel ------------------------------------------------------------------------------------------------ */

/* The sums of the warps: [warp][row of tiles that it touches][row of activations][16]. */
template <class Sum, int MaxM> struct block_sums {
    enum { EACH = MaxM * TERN_TILE_ROWS };
    Sum *partial;
    int4 *spans; /* of each row of tiles: the first place, the warps after the first that have a share of it */
    int touched;

    __device__ Sum *place(int warp, int i) const { return partial + (warp * touched + i) * EACH; }

    /* A warp that is not the first of a row of tiles begins with it. */
    __device__ void find_spans(const block_share &b, int row_units) const {
        for (int tile = (int)threadIdx.x; tile < b.rows; tile += (int)blockDim.x) {
            const int first = tile * row_units / b.run, last = ((tile + 1) * row_units - 1) / b.run;
            spans[tile] = make_int4(first * touched + tile - first * b.run / row_units, first + 1, last, 0);
        }
    }
    /* Output i of the block: a row of tiles after the other, in it the rows of activations. */
    __device__ Sum total(int i) const {
        const int4 span = spans[i / EACH];
        Sum sum = partial[span.x * EACH + i % EACH];
        for (int v = span.y; v <= span.z; v++) sum += partial[v * touched * EACH + i % EACH];
        return sum;
    }
};

template <class Density, class Acts, class Sum>
__device__ static void multiply_run(const block_sums<Sum, Acts::MaxM> &sums, warp_ring &ring, const warp_share &mine,
                                    uint32_t x, int warp, int lane) {
    enum { TILE_X = Density::Cols * Acts::Bytes };
    Sum c[1][Acts::Sums][4] = {};
    uint32_t slot = ring.slots, x_at = x + mine.unit * UNIT * TILE_X;
    int unit = mine.unit, row = 0;
    for (int i = 1; i <= mine.count; i++) {
        ring.wait();
#pragma unroll
        for (int u = 0; u < UNIT; u++) {
            const uint4 tile[1] = {shared_uint4(slot + u * TERN_TILE_BYTES)};
            typename Acts::Row::part parts[Acts::Parts];
#pragma unroll
            for (int j = 0; j < Acts::Parts; j++) load_shared(parts[j], x_at + u * TILE_X + Acts::part_offset(j));
            Acts::add(c, tile, parts);
        }
        ring.ask(slot); /* overwrites what this lane alone has read */
        slot = slot == ring.slots + (UNITS - 1) * UNIT_BYTES ? ring.slots : slot + UNIT_BYTES;
        x_at += UNIT * TILE_X;
        if (++unit == ring.row_units || i == mine.count) {
            Acts::leave(sums.place(warp, row++), c, lane);
#pragma unroll
            for (int j = 0; j < Acts::Sums * 4; j++) c[0][j / 4][j % 4] = 0;
            unit = 0;
            x_at = x;
        }
    }
}

__device__ static inline uint32_t word_of(int32_t v) { return (uint32_t)v; }
__device__ static inline uint32_t word_of(float v) { return __float_as_uint(v); }

template <class Density, class Acts>
__global__ void __launch_bounds__(THREADS, 2) tern_matmul_decode_ring_cuda(product p, tern_ring_plan plan) {
    typedef typename Acts::Row::sum_type sum_type;
    enum { EACH = Acts::MaxM * TERN_TILE_ROWS };
    extern __shared__ __align__(16) uint8_t shared[];
    const uint32_t base = (uint32_t)__cvta_generic_to_shared(shared);
    const int mine = (int)threadIdx.x, lane = (int)(threadIdx.x % 32), warp = (int)(threadIdx.x / 32);
    const int m = Acts::MaxM > 1 ? p.out.m : 1;
    const block_share b(p, plan);
    const warp_share share(plan, b, warp);
    warp_ring ring(p, plan, b, share, base + warp * UNITS * UNIT_BYTES, lane);
    ring.ask_first();

    /* What does not depend on the last kernel. The outputs of a cluster are finished by its blocks in equal parts. */
    const int splits = plan.splits, split = (int)blockIdx.z, outputs = b.rows * EACH;
    const int each = splits > 1 ? (outputs + splits - 1) / splits : outputs, first = split * each;
    const uint32_t received = base + plan.barrier, inbox = base + plan.inbox; /* [split][output] */
    sum_type *const x_sums = (sum_type *)(shared + plan.x_sums);
    const block_sums<sum_type, Acts::MaxM> sums = {(sum_type *)(shared + plan.partial), (int4 *)(shared + plan.spans),
                                                   plan.touched};
    sums.find_spans(b, plan.row_units);
    if (mine < Acts::MaxM) x_sums[mine] = 0;
    if (splits > 1 && mine == 0) {
        barrier_init(received, 1);
        barrier_init_fence();
    }
    __syncthreads();
    if (splits > 1 && mine == 0) /* before its cluster_arrive, so before anything can come */
        barrier_arrive_expecting(received, splits * max(min(each, outputs - first), 0) * (int)sizeof(int32_t));
    if (splits > 1) cluster_arrive();
    const auto m_of = [&](int i) { return i % EACH / TERN_TILE_ROWS; };
    const auto n_of = [&](int i) { return (b.row + i / EACH) * TERN_TILE_ROWS + i % TERN_TILE_ROWS; };
    const int early_m = min(m_of(first + mine), m - 1), early_n = min(n_of(first + mine), p.w.rows - 1);
    let_next_kernel_start();
    wait_for_last_kernel();

    const sum_type x_part = stage_acts<Density, Acts>(shared + plan.x, x_sums, p, b, plan.x_pitch, m);
    const output_terms early = terms_of(p.out, sum_type(), early_m, early_n);
    __syncthreads();
    multiply_run<Density, Acts>(sums, ring, share, base + plan.x + Acts::lane_offset(lane, m, plan.x_pitch), warp,
                                lane);
    if (Acts::MaxM == 1) add_up(x_sums, x_part, lane);
    __syncthreads();
    const auto product_at = [&](int i) { return sums.total(i) - added_up(x_sums, m_of(i)); };
    if (splits > 1) {
        cluster_wait();
        for (int i = mine; i < outputs; i += THREADS) {
            int to = 0, at = i; /* few turns; a division takes longer */
            for (; at >= each; at -= each) to++;
            send_word(address_at(inbox + (split * each + at) * (int)sizeof(int32_t), to), word_of(product_at(i)),
                      address_at(received, to));
        }
        barrier_wait(received, 0);
    }
    const auto put = [&](int i, const output_terms &terms) {
        const int row = m_of(first + i), n = n_of(first + i);
        if (n >= p.w.rows || row >= m) return;
        sum_type sum = splits > 1 ? 0 : product_at(i);
        for (int s = 0; s < splits && splits > 1; s++) sum += ((const sum_type *)(shared + plan.inbox))[s * each + i];
        put_sum(p.out, row, n, sum, terms);
    };
    const int count = min(each, outputs - first);
    if (mine < count) put(mine, early);
    for (int i = mine + THREADS; i < count; i += THREADS)
        put(i, terms_of(p.out, sum_type(), min(m_of(first + i), m - 1), min(n_of(first + i), p.w.rows - 1)));
}

/* ---- launching ------------------------------------------------------------------------------------------------- */

template <class Density, class Acts>
static tern_status launch(tern_cuda_context *context, const product &p, int variant, tern_error *err) {
    const auto kernel = tern_matmul_decode_ring_cuda<Density, Acts>;
    tern_ring_plan plan;
    tern_ring_plan_make(&plan, variant, context->multiprocessors, &p.w, (size_t)p.out.m, Acts::Bytes);
    const dim3 grid((unsigned)plan.groups, 1, (unsigned)plan.splits);
    CUDA_TRY(tern_cuda_launch(context, kernel, grid, THREADS, plan.bytes, plan.splits, p, plan), op, err);
    return TERN_OK;
}

template <class Density>
static tern_status launch_density(tern_cuda_context *context, const product &p, tern_dtype x_type, int variant,
                                  tern_error *err) {
    if (x_type == TERN_F16) return launch<Density, one_row<Density, half_row<false, true>>>(context, p, variant, err);
    if (x_type == TERN_BF16) return launch<Density, one_row<Density, half_row<true, true>>>(context, p, variant, err);
    return p.out.m > 1 ? launch<Density, eight_rows<Density>>(context, p, variant, err)
                       : launch<Density, one_row<Density, int8_row>>(context, p, variant, err);
}

tern_status tern_cuda_decode_ring(tern_cuda_context *context, const product &p, tern_dtype x_type, int variant,
                                  tern_error *err) {
    return p.w.t5 ? launch_density<t5>(context, p, x_type, variant, err)
                  : launch_density<t2>(context, p, x_type, variant, err);
}
