/* Attention's gradients on Hopper (gpu_attention_tiles.cuh).
 *
 * A pass is units: the keys of a head, and the heads of queries that read them. A block of keys makes the gradients
 * of 64 keys and values, and leaves each tile of -dS = P (delta - dP) in memory, in V, as the operand that it was; a
 * block of queries multiplies a row of those tiles by keys. So scores are made once, and dq is summed in the order of
 * keys.
 *
 * Blocks of queries come `lead` units behind those of keys: late enough to find them done, early enough to find their
 * tiles in L2. They wait for blocks with smaller numbers only. A block takes its number when it begins, so that
 * whatever the device starts first, those it waits for have begun, and wait for nobody. */
#include "gpu/gpu_attention_tiles.cuh"

enum {
    BLOCKS = 3,               /* a multiprocessor */
    SCORES_LIMIT = 512 << 20, /* bytes of a launch, unless a single unit has more */
    SCORES_SHARE = 4,         /* they take no more than this part of the memory that is free */
    BACKWARD_BYTES = ALIGNMENT + (2 + 2 * STAGES) * TILE_BYTES
};

struct backward_work {
    char *scores;         /* [heads][pairs of tiles][TILE_BYTES] */
    unsigned *done;       /* [units]: blocks of keys that have left all theirs */
    unsigned *begun;      /* blocks of this launch */
    unsigned units, lead; /* of this launch */
    unsigned first;       /* its first unit: sample * G + head of keys */
};

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
    __device__ backward_place(const gpu_attention &a, const backward_work &work, unsigned i) {
        const unsigned tiles = gpu_attention_tiles(&a), rows = (unsigned)a.r * tiles, both = tiles + rows;
        const unsigned before = work.lead * tiles, middle = (work.units - work.lead) * both;
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

/* Starts to bring what this thread will read of a tile of scores: of 16 queries, its warp's, the four packs that the
 * four warps of the block of keys left. */
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
                                    tile_ring ring, const CUtensorMap *turned) {
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
                                 tile_ring ring, uint32_t keys, uint32_t own_barrier, const CUtensorMap *turned,
                                 const CUtensorMap *x, const CUtensorMap *dy) {
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
__global__ static void __launch_bounds__(GROUP, BLOCKS)
    wgmma_backward(gpu_attention a, backward_work work, const __grid_constant__ CUtensorMap turned,
                   const __grid_constant__ CUtensorMap x, const __grid_constant__ CUtensorMap dy) {
    __shared__ tile_barriers barriers;
    __shared__ unsigned number;
    const uint32_t room = aligned_room();
    if (threadIdx.x == 0) number = atomicAdd(work.begun, 1);
    const tile_ring ring(room + 2 * TILE_BYTES, &barriers); /* all threads meet: the number is there */
    const backward_place place(a, work, number);
    if (place.has_keys)
        keys_back<V>(a, work, place, ring, room, (uint32_t)__cvta_generic_to_shared(&barriers.own), &turned, &x, &dy);
    else
        queries_back<V>(a, work, place, ring, &turned);
}

/* ---- launches */

tern_status gpu_attention_wgmma_prepare_backward(tern_gpu_plan *plan, size_t node, tern_error *err) {
    GPU_BY_HALF(plan->type, GPU_CHECK(allow_shared((const void *)wgmma_backward<V>, BACKWARD_BYTES,
                                                   gpu_graph_node(plan, node)->name, err)));
    return TERN_OK;
}

/* Of as many blocks of keys as the device has at once, and half as many again: enough of them are done. */
static unsigned lead_of(const tern_gpu_plan *plan, const gpu_attention *a, unsigned units) {
    const unsigned slots = BLOCKS * (unsigned)plan->context->multiprocessors, tiles = gpu_attention_tiles(a);
    const unsigned lead = (slots + slots / 2 + tiles - 1) / tiles;
    return lead < units ? lead : units;
}

static size_t unit_bytes(const gpu_attention *a) { return a->r * pairs_of(*a) * TILE_BYTES; }

size_t gpu_attention_wgmma_units(const gpu_attention *a, size_t free_bytes) {
    const size_t most = free_bytes / SCORES_SHARE, wanted = most < SCORES_LIMIT ? most : (size_t)SCORES_LIMIT;
    const size_t units = a->batch * a->g, fit = wanted / unit_bytes(a);
    if (!fit) return unit_bytes(a) <= most;
    return fit < units ? fit : units;
}

/* For each unit its blocks of keys that are done; then for each launch, of which there are no more than units, the
 * blocks that have begun. */
static size_t counter_bytes(const gpu_attention *a) {
    return gpu_round_up(2 * a->batch * a->g * sizeof(unsigned), 256);
}

size_t gpu_attention_wgmma_room(const gpu_attention *a, size_t each) {
    return counter_bytes(a) + each * unit_bytes(a);
}

tern_status gpu_attention_wgmma_backward(tern_gpu_plan *plan, size_t node, const gpu_attention *a, size_t each,
                                         void *room, tern_error *err) {
    const size_t units = a->batch * a->g;
    CUtensorMap turned, x, dy;
    GPU_CHECK(describe_tokens(&turned, plan, node, a, a->turned, a->ld, err));
    GPU_CHECK(describe_tokens(&x, plan, node, a, a->x, a->in, err));
    GPU_CHECK(describe_tokens(&dy, plan, node, a, a->dy, a->out, err));
    CUDA_TRY(cudaMemsetAsync(room, 0, counter_bytes(a), plan->stream), gpu_graph_node(plan, node)->name, err);
    for (size_t first = 0; first < units; first += each) {
        unsigned *done = (unsigned *)room + first;
        backward_work work = {(char *)room + counter_bytes(a), done, done + units};
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
