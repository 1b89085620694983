/* Attention of values V, bf16 or fp16, with heads of 64 on Hopper's warpgroup tensor cores (9.0a). A warpgroup has 64
 * queries (or keys), 16 a warp, and tiles of 64 of the others pass through shared memory, brought by the copy engine:
 * the next one is on its way while one is multiplied, and the last product of the one before ends meanwhile. Rows of
 * 64 values are 128 bytes, swizzled as the tensor cores read them: the same tile serves as operand by its rows
 * (scores) and by its columns (what is multiplied by scores). These never leave registers.
 *
 * Tokens past the end are read as zeros, as in gpu_attention_mma.cu. */
#include <stdio.h>

#include "cuda/hopper.cuh"
#include "gpu/gpu_attention_rows.cuh"

enum {
    TILE = GPU_ATTENTION_TILE,
    D = 64,
    ROW_BYTES = 2 * D,
    TILE_BYTES = TILE * ROW_BYTES,
    GROUP = 128,        /* threads of a warpgroup */
    FORWARD_GROUPS = 2, /* they share keys and values */
    STEP_BYTES = 32,    /* 16 columns of a row */
    ALIGNMENT = 1024,   /* of a swizzled tile */
    STAGES = 3,         /* pairs of tiles: one that comes, one that is multiplied, one that was */
    FORWARD_STAGES = 5, /* two that come; two warpgroups need not keep step */
    FORWARD_AHEAD = 2,
    BACKWARD_BLOCKS = 3, /* a multiprocessor */
    FORWARD_BYTES = ALIGNMENT + (FORWARD_GROUPS + 2 * FORWARD_STAGES) * TILE_BYTES,
    BACKWARD_BYTES = ALIGNMENT + (2 + 2 * STAGES) * TILE_BYTES
};

/* ---- instructions */

/* The tile of a sample at (column, token) to shared memory; its bytes arrive at the barrier. */
__device__ static void copy_tile(uint32_t to, const CUtensorMap *map, int column, int token, int sample,
                                 uint32_t barrier) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], "
        "[%5];" ::"r"(to),
        "l"(map), "r"(column), "r"(token), "r"(sample), "r"(barrier)
        : "memory");
}

typedef float sums[TILE / 8][4];

/* As pin() of hopper.cuh. */
__device__ static void pin_sums(sums &c) {
#pragma unroll
    for (int n = 0; n < TILE / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) asm volatile("" : "+f"(c[n][e])::"memory");
}

#define ROW(n) "+f"(c[n][0]), "+f"(c[n][1]), "+f"(c[n][2]), "+f"(c[n][3])
#define ALL_ROWS ROW(0), ROW(1), ROW(2), ROW(3), ROW(4), ROW(5), ROW(6), ROW(7)
#define ALL_SUMS                                                              \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}"

/* multiply_step: c[64][64] (+)= Sign a[64][16] b[64][16]^T, both by rows in shared memory.
 * add_step: c[64][64] += a[64][16] b[16][64], a in registers, b by rows in shared memory: its columns are
 * multiplied. */
#define STEPS(V, type)                                                                                      \
    template <int Sign> __device__ static void multiply_step(V, sums &c, uint64_t a, uint64_t b, int add) { \
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"                                           \
                     "wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type " " ALL_SUMS               \
                     ", %32, %33, p, %35, 1, 0, 0;\n}"                                                      \
                     : ALL_ROWS                                                                             \
                     : "l"(a), "l"(b), "r"(add), "n"(Sign));                                                \
    }                                                                                                       \
    __device__ static void add_step(V, sums &c, const uint32_t(&a)[4], uint64_t b) {                        \
        asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type " " ALL_SUMS               \
                     ", {%32, %33, %34, %35}, %36, 1, 1, 1, 1;"                                             \
                     : ALL_ROWS                                                                             \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                                 \
    }
STEPS(__nv_bfloat16, "bf16")
STEPS(__half, "f16")
#undef STEPS
#undef ROW
#undef ALL_ROWS
#undef ALL_SUMS

/* ---- tiles */

/* The barriers of a block: one of its own tiles, then of each stage that its tiles are there, and that they are no longer
 * read. */
template <int Stages> struct tile_barriers { uint64_t own, full[Stages], free[Stages]; };

/* Pairs of tiles that take turns in as many places. All threads know which pair is next to be read; one thread asks
 * for a pair behind it. */
template <int Stages> struct tile_ring {
    uint32_t tiles, barriers;
    int stage, parity; /* of the pair to be read */

    /* Warps: of those that read the tiles, where release() is used. */
    __device__ tile_ring(uint32_t tiles, tile_barriers<Stages> *room, int warps = 1)
        : tiles(tiles), stage(0), parity(0) {
        const uint32_t own = (uint32_t)__cvta_generic_to_shared(&room->own);
        barriers = (uint32_t)__cvta_generic_to_shared(room->full);
        if (threadIdx.x == 0) {
            barrier_init(own, 1);
            for (int i = 0; i < Stages; i++) {
                barrier_init(barrier(i), 1);
                barrier_init(free_barrier(i), warps);
            }
            barrier_init_fence();
        }
        __syncthreads();
    }
    __device__ uint32_t place(int i) const { return tiles + (uint32_t)(i * 2 * TILE_BYTES); }
    __device__ uint32_t barrier(int i) const { return barriers + (uint32_t)(i * 8); }
    __device__ uint32_t free_barrier(int i) const { return barrier(Stages + i); }
    __device__ int after() const { return stage + 1 < Stages ? stage + 1 : 0; }
    __device__ int before() const { return stage ? stage - 1 : Stages - 1; }
    /* A warp has read all of a stage. */
    __device__ void release(int i) const {
        if (threadIdx.x % 32 == 0) barrier_arrive(free_barrier(i));
    }
    __device__ void wait() const { barrier_wait(barrier(stage), parity); }
    __device__ void step() {
        stage = after();
        if (stage == 0) parity ^= 1;
    }
};

/* What a pair of tiles is made of: the same tokens of two matrices. */
struct tile_pair {
    const CUtensorMap *first, *second;
    int first_column, second_column, sample;
    __device__ void ask(uint32_t to, int token, uint32_t barrier) const {
        barrier_arrive_expecting(barrier, 2 * TILE_BYTES);
        copy_tile(to, first, first_column, token, sample, barrier);
        copy_tile(to + TILE_BYTES, second, second_column, token, sample, barrier);
    }
};

/* s = a b^T, or s -= it, as one group of products; behind a fence. */
template <class V, int Sign> __device__ static void row_steps(sums &s, uint32_t a, uint32_t b) {
    const uint64_t left = swizzled_rows(a), right = swizzled_rows(b);
#pragma unroll
    for (int k = 0; k < D / 16; k++)
        multiply_step<Sign>(V(), s, left + (k * STEP_BYTES >> 4), right + (k * STEP_BYTES >> 4), Sign < 0 || k);
    wgmma_commit();
}

/* Starts s = a b^T. */
template <class V> __device__ static void multiply_rows(sums &s, uint32_t a, uint32_t b) {
    pin_sums(s);
    wgmma_fence();
    row_steps<V, 1>(s, a, b);
}

/* The weights p[64][64] as left operands, 16 columns each. */
template <class V> __device__ static void make_left(uint32_t (&a)[TILE / 16][4], const sums &p) {
#pragma unroll
    for (int k = 0; k < TILE / 16; k++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            a[k][i] = two<V>(p[2 * k + i / 2][2 * (i % 2)], p[2 * k + i / 2][2 * (i % 2) + 1]);
}

__device__ static void pin_weights(uint32_t (&p)[TILE / 16][4]) {
#pragma unroll
    for (int k = 0; k < TILE / 16; k++) pin(p[k]);
}

/* Starts sum += p b. Until the products are done p may not change: pin_weights behind the wait. */
template <class V> __device__ static void add_product(sums &sum, uint32_t (&p)[TILE / 16][4], uint32_t b) {
    const uint64_t right = swizzled_rows(b);
    pin_weights(p);
    pin_sums(sum);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < TILE / 16; k++) add_step(V(), sum, p[k], right + (k * 16 * ROW_BYTES >> 4));
    wgmma_commit();
}

__device__ static uint32_t aligned_room() {
    extern __shared__ __align__(16) char attention_room[];
    return ((uint32_t)__cvta_generic_to_shared(attention_room) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* Which rows of which head a block has: blocks of one head are neighbours in time, so that the head's tiles are read
 * from L2, and those with the most tiles to pass come first. */
struct block_place {
    size_t b, h, number; /* sample, head of it, the rows' number from the end with fewest tiles */
};

__device__ static block_place my_place(const gpu_attention &a, unsigned heads, unsigned rows) {
    const unsigned parts = ((unsigned)a.t + rows - 1) / rows, head = blockIdx.x / parts;
    return {head / heads, head % heads, parts - 1 - blockIdx.x % parts};
}

/* The number of a block's head, and of its keys': columns of it in `turned` or x. */
__device__ static int query_column(size_t h) { return (int)h * D; }
__device__ static int key_column(const gpu_attention &a, size_t g) { return (int)(a.h + g) * D; }
__device__ static int value_column(const gpu_attention &a, size_t g) { return (int)(a.h + a.g + g) * D; }

/* ---- forward */

template <class V>
__global__ static void __launch_bounds__(FORWARD_GROUPS *GROUP, 2)
    wgmma_forward(gpu_attention a, const __grid_constant__ CUtensorMap turned,
                  const __grid_constant__ CUtensorMap x) {
    __shared__ tile_barriers<FORWARD_STAGES> barriers;
    enum { QUERIES = FORWARD_GROUPS * TILE };
    const uint32_t queries = aligned_room(), own_barrier = (uint32_t)__cvta_generic_to_shared(&barriers.own);
    tile_ring<FORWARD_STAGES> ring(queries + FORWARD_GROUPS * TILE_BYTES, &barriers, FORWARD_GROUPS * GROUP / 32);
    const int lane = (int)threadIdx.x % 32, group = (int)threadIdx.x / GROUP, column = lane % 4 * 2;
    const int own = (int)threadIdx.x % GROUP / 32 * 16 + lane / 4;
    const block_place at_work = my_place(a, (unsigned)a.h, QUERIES);
    const size_t b = at_work.b, h = at_work.h, g = (unsigned)h / (unsigned)a.r, first = at_work.number * QUERIES;
    const int mine = (int)first / TILE + group; /* the last tile of keys that my queries see */
    const int tiles = (int)(((first + QUERIES < a.t ? first + QUERIES : a.t) + TILE - 1) / TILE);
    const tile_pair pair = {&turned, &x, key_column(a, g), value_column(a, g), (int)b};
    sums o = {};
    uint32_t p[TILE / 16][4] = {};
    float largest[2] = {-INFINITY, -INFINITY}, sum[2] = {};
    if (threadIdx.x == 0) {
        barrier_arrive_expecting(own_barrier, FORWARD_GROUPS * TILE_BYTES);
        for (int i = 0; i < FORWARD_GROUPS; i++)
            copy_tile(queries + i * TILE_BYTES, &turned, query_column(h), (int)first + i * TILE, (int)b, own_barrier);
        for (int i = 0; i < FORWARD_AHEAD && i < tiles; i++) pair.ask(ring.place(i), i * TILE, ring.barrier(i));
    }
    barrier_wait(own_barrier, 0);
    for (int i = 0; i < tiles; i++, ring.step()) {
        const uint32_t at = ring.place(ring.stage);
        if (threadIdx.x == 0 && i + FORWARD_AHEAD < tiles) {
            const int next = i + FORWARD_AHEAD, stage = next % FORWARD_STAGES, round = next / FORWARD_STAGES;
            if (round) barrier_wait(ring.free_barrier(stage), (round - 1) % 2);
            pair.ask(ring.place(stage), next * TILE, ring.barrier(stage));
        }
        __syncwarp();
        if (i > mine) break; /* all of these keys come later, and they are the last */
        ring.wait();
        sums s;
        multiply_rows<V>(s, queries + group * TILE_BYTES, at);
        wgmma_wait<0>(); /* of the tile before, too */
        pin_weights(p);
        pin_sums(o);
        pin_sums(s);
        if (i) ring.release(ring.before());
        take_weights<D>(s, o, largest, sum, a.scale2, i == mine, own, column);
        make_left<V>(p, s);
        add_product<V>(o, p, at + TILE_BYTES);
    }
    wgmma_wait<0>();
    pin_weights(p);
    pin_sums(o);
    write_rows<V, D>(a, o, largest, sum, b, h, first + group * TILE + own, column);
}

/* ---- backward */

/* A pass back is units: the keys of a head, and the heads of queries that read them. A block of keys makes the gradients
 * of 64 keys and values, and leaves each tile of -dS = P (delta - dP) in memory, in V, as the operand that it was; a block
 * of queries multiplies a row of those tiles by keys. So scores are made once, and dq is summed in the order of keys.
 *
 * Blocks of queries come `lead` units behind those of keys: late enough to find them done, early enough to find their
 * tiles in L2. They wait for blocks with smaller numbers only, which the device starts first. */
struct backward_work {
    char *scores;         /* [heads][pairs of tiles][TILE_BYTES] */
    unsigned *done;       /* [units]: blocks of keys that have left all theirs */
    unsigned units, lead; /* of this launch */
    unsigned first;       /* its first unit: sample * G + head of keys */
};

enum { UNIT_BYTES_LIMIT = 512 << 20 }; /* scores of a launch, unless a single unit's are more */

__host__ __device__ static size_t pairs_of(const gpu_attention &a) {
    const size_t tiles = gpu_attention_tiles(&a);
    return tiles * (tiles + 1) / 2;
}

/* Of a head of the launch, the tiles of a row of queries one behind another. */
__device__ static char *scores_at(const gpu_attention &a, const backward_work &work, size_t head, int query_tile) {
    const size_t before = (size_t)query_tile * (size_t)(query_tile + 1) / 2;
    return work.scores + (head * pairs_of(a) + before) * TILE_BYTES;
}

/* What a block does. */
struct backward_place {
    unsigned unit, number; /* number: in the unit, those with the most tiles to pass first */
    bool has_keys;
    size_t b, g; /* of the unit */
    __device__ backward_place(const gpu_attention &a, const backward_work &work) {
        const unsigned tiles = gpu_attention_tiles(&a), rows = (unsigned)a.r * tiles, both = tiles + rows;
        const unsigned before = work.lead * tiles, middle = (work.units - work.lead) * both;
        unsigned i = blockIdx.x;
        if (i < before) {
            set(true, i / tiles, i % tiles);
        } else if ((i -= before) < middle) {
            const unsigned step = i / both, rest = i % both;
            rest < tiles ? set(true, work.lead + step, rest) : set(false, step, rest - tiles);
        } else {
            i -= middle;
            set(false, work.units - work.lead + i / rows, i % rows);
        }
        b = (work.first + unit) / (unsigned)a.g;
        g = (work.first + unit) % (unsigned)a.g;
    }
    __device__ void set(bool of_keys, unsigned of_unit, unsigned in_unit) {
        has_keys = of_keys;
        unit = of_unit;
        number = in_unit;
    }
};

/* Starts to bring what this thread will read of a tile of scores: of 16 queries, its warp's, the four packs that the four
 * warps of the block of keys left. */
__device__ static void bring_scores(uint32_t to, const char *from) {
#pragma unroll
    for (int k = 0; k < TILE / 16; k++) {
        const uint32_t at = (uint32_t)((k * (TILE / 16) + (int)threadIdx.x / 32) * 32 + (int)threadIdx.x % 32) * 16;
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to + at), "l"(from + at) : "memory");
    }
}

/* Eight by eight values, a row's two neighbours a lane, turned. */
__device__ static uint32_t turned_block(uint32_t v) {
    uint32_t turned;
    asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(turned) : "r"(v));
    return turned;
}

/* dS^T of 16 keys and 16 queries, as it was left, becomes the left operand dS. */
__device__ static void take_scores(uint32_t (&p)[4], uint32_t from) {
    uint32_t v[4];
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3])
                 : "r"(from)
                 : "memory");
    p[0] = turned_block(v[0]);
    p[1] = turned_block(v[2]);
    p[2] = turned_block(v[1]);
    p[3] = turned_block(v[3]);
}

/* All blocks of keys of the unit have left their scores. */
__device__ static void wait_for_scores(const unsigned *done, unsigned blocks) {
    if (threadIdx.x == 0) {
        unsigned seen;
        do asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(done) : "memory");
        while (seen < blocks);
    }
    __syncthreads();
}

template <class V>
__device__ static void queries_back(const gpu_attention &a, const backward_work &work, const backward_place &place,
                                    tile_ring<STAGES> ring, const CUtensorMap *turned) {
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    const int tile = (int)(gpu_attention_tiles(&a) - 1 - place.number / (unsigned)a.r);
    const size_t of_unit = place.number % (unsigned)a.r, h = place.g * a.r + of_unit;
    const char *scores = scores_at(a, work, place.unit * a.r + of_unit, tile);
    sums dq = {};
    uint32_t p[TILE / 16][4] = {};
    const auto ask = [&](int i) {
        const int stage = i % STAGES;
        if (i <= tile) {
            if (threadIdx.x == 0) {
                barrier_arrive_expecting(ring.barrier(stage), TILE_BYTES);
                copy_tile(ring.place(stage) + TILE_BYTES, turned, key_column(a, place.g), i * TILE, (int)place.b,
                          ring.barrier(stage));
            }
            bring_scores(ring.place(stage), scores + (size_t)i * TILE_BYTES);
        }
        asm volatile("cp.async.commit_group;" ::: "memory");
    };
    wait_for_scores(&work.done[place.unit], gpu_attention_tiles(&a));
    for (int i = 0; i < STAGES - 1; i++) ask(i);
    for (int i = 0; i <= tile; i++, ring.step()) {
        const uint32_t at = ring.place(ring.stage);
        asm volatile("cp.async.wait_group %0;" ::"n"(STAGES - 2) : "memory");
        ring.wait();
        wgmma_wait<0>();
        pin_weights(p);
        pin_sums(dq);
        __syncthreads(); /* the tile before is free */
        ask(i + STAGES - 1);
#pragma unroll
        for (int k = 0; k < TILE / 16; k++)
            take_scores(p[k], at + (uint32_t)((k * (TILE / 16) + warp) * 32 + lane) * 16);
        add_product<V>(dq, p, at + TILE_BYTES);
    }
    wgmma_wait<0>();
    pin_weights(p);
    pin_sums(dq);
    give<V, D>(a, dq, place.b, h, (size_t)tile * TILE + warp * 16 + lane / 4, lane % 4 * 2, -a.scale, true);
}

/* Starts to bring lse and delta of a tile of queries, one number a thread: of two neighbours both lse, then both
 * delta. */
__device__ static void bring_rows(uint32_t to, const gpu_attention &a, size_t head, int first) {
    const int own = (int)threadIdx.x % TILE, number = first + own, of_delta = (int)threadIdx.x / TILE;
    const bool valid = number < (int)a.t;
    const float *from = (of_delta ? a.delta : a.lse) + head * a.t + (valid ? number : 0);
    const uint32_t at = to + (uint32_t)(own / 2 * 4 + of_delta * 2 + own % 2) * 4;
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(at), "l"(from), "r"(valid ? 4 : 0) : "memory");
}

/* The tile behind this one of those that a block of keys passes: of all queries from its own on, of all heads. */
struct query_walk {
    int first, tiles; /* its own tile, and how many there are from it on */
    int tile, head;
    __device__ void step() {
        if (++tile < first + tiles) return;
        tile = first;
        head++;
    }
};

template <class V>
__device__ static void keys_back(const gpu_attention &a, const backward_work &work, const backward_place &place,
                                 tile_ring<STAGES> ring, uint32_t keys, uint32_t own_barrier,
                                 const CUtensorMap *turned, const CUtensorMap *x, const CUtensorMap *dy) {
    __shared__ float4 rows[STAGES][TILE / 2];
    const uint32_t values = keys + TILE_BYTES, row_room = (uint32_t)__cvta_generic_to_shared(rows);
    const int lane = (int)threadIdx.x % 32, column = lane % 4 * 2;
    const int own = (int)threadIdx.x / 32 * 16 + lane / 4;
    const size_t b = place.b, g = place.g;
    const int tile = (int)place.number, tiles = (int)gpu_attention_tiles(&a) - tile;
    const size_t first = (size_t)tile * TILE;
    const int count = tiles * (int)a.r;
    query_walk here = {tile, tiles, tile, 0}, ahead = here;
    sums dk = {}, dv = {};
    const auto ask = [&](int stage) {
        const size_t h = g * a.r + (size_t)ahead.head;
        const tile_pair pair = {turned, dy, query_column(h), query_column(h), (int)b};
        if (threadIdx.x == 0) pair.ask(ring.place(stage), ahead.tile * TILE, ring.barrier(stage));
        bring_rows(row_room + (uint32_t)(stage * (int)sizeof rows[0]), a, b * a.h + h, ahead.tile * TILE);
        ahead.step();
    };
    if (threadIdx.x == 0) {
        const tile_pair mine = {turned, x, key_column(a, g), value_column(a, g), (int)b};
        mine.ask(keys, (int)first, own_barrier);
    }
    ask(0);
    barrier_wait(own_barrier, 0);
    for (int i = 0; i < count; i++, ring.step(), here.step()) {
        const bool diagonal = here.tile == tile;
        const uint32_t at = ring.place(ring.stage);
        const float4 *of_rows = rows[ring.stage] + column / 2;
        uint4 *left = (uint4 *)(scores_at(a, work, place.unit * a.r + (size_t)here.head, here.tile) +
                                (size_t)tile * TILE_BYTES);
        sums s, dp;
        uint32_t p[TILE / 16][4];
        asm volatile("cp.async.wait_all;" ::: "memory");
        ring.wait();
        __syncthreads(); /* all rows are there, and the tile before the last is free */
        if (i + 1 < count) ask(ring.after());
        float2 lse[TILE / 8];
#pragma unroll
        for (int n = 0; n < TILE / 8; n++) {
            const float4 of_two = of_rows[4 * n];
            lse[n] = {of_two.x, of_two.y};
#pragma unroll
            for (int e = 0; e < 4; e++) dp[n][e] = e % 2 ? of_two.w : of_two.z;
        }
        pin_sums(s);
        pin_sums(dp);
        wgmma_fence();
        row_steps<V, 1>(s, keys, at);
        row_steps<V, -1>(dp, values, at + TILE_BYTES); /* delta - dP */
        wgmma_wait<1>();
        pin_sums(s);
#pragma unroll
        for (int n = 0; n < TILE / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) s[n][e] = exp2_fast(fmaf(s[n][e], a.scale2, e % 2 ? -lse[n].y : -lse[n].x));
        if (diagonal)
#pragma unroll
            for (int n = 0; n < TILE / 8; n++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    if (own + e / 2 * 8 > 8 * n + column + e % 2) s[n][e] = 0;
        make_left<V>(p, s);
        add_product<V>(dv, p, at + TILE_BYTES);
        wgmma_wait<0>(); /* of p, too: three blocks at once are worth more than what could overlap */
        pin_sums(dp);
        pin_sums(dv);
#pragma unroll
        for (int n = 0; n < TILE / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) s[n][e] *= dp[n][e];
        make_left<V>(p, s);
        add_product<V>(dk, p, at);
#pragma unroll
        for (int k = 0; k < TILE / 16; k++) /* in the order of the threads that will read them: bring_scores */
            left[((int)threadIdx.x / 32 * (TILE / 16) + k) * 32 + lane] =
                make_uint4(p[k][0], p[k][1], p[k][2], p[k][3]);
        wgmma_wait<0>();
        pin_sums(dk);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        atomicAdd(&work.done[place.unit], 1);
    }
    give<V, D>(a, dk, b, a.h + g, first + own, column, -a.scale, true);
    give<V, D>(a, dv, b, a.h + a.g + g, first + own, column, 1, false);
}

template <class V>
__global__ static void __launch_bounds__(GROUP, BACKWARD_BLOCKS)
    wgmma_backward(gpu_attention a, backward_work work, const __grid_constant__ CUtensorMap turned,
                   const __grid_constant__ CUtensorMap x, const __grid_constant__ CUtensorMap dy) {
    __shared__ tile_barriers<STAGES> barriers;
    const uint32_t room = aligned_room();
    const tile_ring<STAGES> ring(room + 2 * TILE_BYTES, &barriers);
    const backward_place place(a, work);
    if (place.has_keys)
        keys_back<V>(a, work, place, ring, room, (uint32_t)__cvta_generic_to_shared(&barriers.own), &turned, &x, &dy);
    else
        queries_back<V>(a, work, place, ring, &turned);
}

/* ---- launches */

typedef CUresult (*encode_fn)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *,
                              const cuuint64_t *, const cuuint32_t *, const cuuint32_t *, CUtensorMapInterleave,
                              CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

/* Tiles of [batch][t][columns] values; outside of a sample's tokens there are zeros. */
static tern_status describe_tokens(CUtensorMap *map, tern_gpu_plan *plan, size_t node, const gpu_attention *a,
                                   const void *values, size_t columns, tern_error *err) {
    const char *name = gpu_graph_node(plan, node)->name;
    void *encode = NULL;
    cudaDriverEntryPointQueryResult found;
    CUDA_TRY(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &encode, 12000, cudaEnableDefault, &found),
             name, err);
    if (found != cudaDriverEntryPointSuccess)
        return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE, "%s: this driver makes no tensor maps", name);
    const cuuint64_t size[3] = {columns, a->t, a->batch}, stride[2] = {columns * 2, columns * 2 * a->t};
    const cuuint32_t box[3] = {D, TILE, 1}, step[3] = {1, 1, 1};
    const CUresult result = ((encode_fn)encode)(
        map, plan->type == TERN_BF16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 3,
        (void *)values, size, stride, box, step, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
        CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (result != CUDA_SUCCESS)
        return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE,
                         "%s: the driver refuses a tensor map of %zu x %zu x %zu values (error %d)", name, a->batch,
                         a->t, columns, (int)result);
    return TERN_OK;
}

int gpu_attention_has_wgmma(const tern_gpu_plan *plan, size_t d) {
    return plan->type != TERN_F32 && plan->context->major == 9 && plan->context->minor == 0 && d == D;
}

/* As much shared memory as several blocks take: left to itself the driver keeps some of it as cache. */
static tern_status allow_shared(const void *kernel, int bytes, const char *name, tern_error *err) {
    CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), name, err);
    CUDA_TRY(
        cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared),
        name, err);
    return TERN_OK;
}

tern_status gpu_attention_wgmma_prepare(tern_gpu_plan *plan, size_t node, tern_error *err) {
    const char *name = gpu_graph_node(plan, node)->name;
    GPU_BY_HALF(plan->type, {
        GPU_CHECK(allow_shared((const void *)wgmma_forward<V>, FORWARD_BYTES, name, err));
        GPU_CHECK(allow_shared((const void *)wgmma_backward<V>, BACKWARD_BYTES, name, err));
    });
    return TERN_OK;
}

static unsigned tile_grid(const gpu_attention *a, size_t heads, size_t rows) {
    return (unsigned)(a->batch * heads * ((a->t + rows - 1) / rows));
}

tern_status gpu_attention_wgmma_forward(tern_gpu_plan *plan, size_t node, const gpu_attention *a, tern_error *err) {
    const unsigned blocks = tile_grid(a, a->h, FORWARD_GROUPS * TILE);
    CUtensorMap turned, x;
    GPU_CHECK(describe_tokens(&turned, plan, node, a, a->turned, a->ld, err));
    GPU_CHECK(describe_tokens(&x, plan, node, a, a->x, a->in, err));
    GPU_BY_HALF(plan->type,
                wgmma_forward<V><<<blocks, FORWARD_GROUPS * GROUP, FORWARD_BYTES, plan->stream>>>(*a, turned, x));
    GPU_LAUNCHED(plan, node, err);
    return TERN_OK;
}

/* Of as many blocks of keys as the device has at once, and half as many again: enough of them are done. */
static unsigned lead_of(const tern_gpu_plan *plan, const gpu_attention *a, unsigned units) {
    const unsigned slots = BACKWARD_BLOCKS * (unsigned)plan->context->multiprocessors, tiles = gpu_attention_tiles(a);
    const unsigned lead = (slots + slots / 2 + tiles - 1) / tiles;
    return lead < units ? lead : units;
}

static size_t unit_bytes(const gpu_attention *a) { return a->r * pairs_of(*a) * TILE_BYTES; }
static size_t units_a_launch(const gpu_attention *a) {
    const size_t units = a->batch * a->g, fit = UNIT_BYTES_LIMIT / unit_bytes(a);
    return fit < 1 ? 1 : fit < units ? fit : units;
}
static size_t done_bytes(const gpu_attention *a) { return gpu_round_up(a->batch * a->g * sizeof(unsigned), 256); }

size_t gpu_attention_wgmma_room(const gpu_attention *a) { return done_bytes(a) + units_a_launch(a) * unit_bytes(a); }

tern_status gpu_attention_wgmma_backward(tern_gpu_plan *plan, size_t node, const gpu_attention *a, void *room,
                                         tern_error *err) {
    const size_t units = a->batch * a->g, each = units_a_launch(a);
    CUtensorMap turned, x, dy;
    GPU_CHECK(describe_tokens(&turned, plan, node, a, a->turned, a->ld, err));
    GPU_CHECK(describe_tokens(&x, plan, node, a, a->x, a->in, err));
    GPU_CHECK(describe_tokens(&dy, plan, node, a, a->dy, a->out, err));
    CUDA_TRY(cudaMemsetAsync(room, 0, done_bytes(a), plan->stream), gpu_graph_node(plan, node)->name, err);
    for (size_t first = 0; first < units; first += each) {
        backward_work work = {(char *)room + done_bytes(a), (unsigned *)room + first};
        work.first = (unsigned)first;
        work.units = (unsigned)(each < units - first ? each : units - first);
        work.lead = lead_of(plan, a, work.units);
        const unsigned blocks = work.units * (unsigned)(1 + a->r) * gpu_attention_tiles(a);
        GPU_BY_HALF(plan->type,
                    wgmma_backward<V><<<blocks, GROUP, BACKWARD_BYTES, plan->stream>>>(*a, work, turned, x, dy));
        GPU_LAUNCHED(plan, node, err);
    }
    return TERN_OK;
}
