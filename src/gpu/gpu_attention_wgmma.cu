/* Attention's forward pass on Hopper (gpu_attention_tiles.cuh): two warpgroups of queries share tiles of keys and
 * values. While a tile is multiplied, the next one is on its way, and the last product of the one before ends. */
#include "gpu/gpu_attention_tiles.cuh"

enum { FORWARD_GROUPS = 2, FORWARD_BYTES = ALIGNMENT + (FORWARD_GROUPS + 2 * STAGES) * TILE_BYTES };

/* Which rows of which head a block has: blocks of one head are neighbours in time, so that the head's tiles are read
 * from L2, and those with the most tiles to pass come first. */
struct block_place {
    size_t b, h, number; /* sample, head of it, the rows' number from the end with fewest tiles */
};

__device__ static block_place my_place(const gpu_attention &a, unsigned heads, unsigned rows) {
    const unsigned parts = ((unsigned)a.t + rows - 1) / rows, head = blockIdx.x / parts;
    return {head / heads, head % heads, parts - 1 - blockIdx.x % parts};
}

template <class V>
__global__ static void __launch_bounds__(FORWARD_GROUPS *GROUP, 2)
    wgmma_forward(gpu_attention a, const __grid_constant__ CUtensorMap turned,
                  const __grid_constant__ CUtensorMap x) {
    __shared__ tile_barriers barriers;
    enum { QUERIES = FORWARD_GROUPS * TILE };
    const uint32_t queries = aligned_room(), own_barrier = (uint32_t)__cvta_generic_to_shared(&barriers.own);
    tile_ring ring(queries + FORWARD_GROUPS * TILE_BYTES, &barriers);
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
        pair.ask(ring.place(0), 0, ring.barrier(0));
    }
    barrier_wait(own_barrier, 0);
    for (int i = 0; i < tiles; i++, ring.step()) {
        const uint32_t at = ring.place(ring.stage);
        ring.wait();
        __syncthreads(); /* the tile before the last is free */
        if (threadIdx.x == 0 && i + 1 < tiles)
            pair.ask(ring.place(ring.after()), (i + 1) * TILE, ring.barrier(ring.after()));
        if (i > mine) break; /* all of these keys come later, and they are the last */
        sums s;
        multiply_rows<V>(s, queries + group * TILE_BYTES, at);
        wgmma_wait<0>(); /* of the tile before, too */
        pin_weights(p);
        pin_sums(o);
        pin_sums(s);
        take_weights<D>(s, o, largest, sum, a.scale2, i == mine, own, column);
        make_left<V>(p, s);
        add_product<V>(o, p, at + TILE_BYTES);
    }
    wgmma_wait<0>();
    pin_weights(p);
    pin_sums(o);
    write_rows<V, D>(a, o, largest, sum, b, h, first + group * TILE + own, column);
}

/* ---- launches */

int gpu_attention_has_wgmma(const tern_gpu_plan *plan, size_t d) {
    return plan->type != TERN_F32 && plan->context->major == 9 && plan->context->minor == 0 && d == D;
}

tern_status gpu_attention_wgmma_prepare(tern_gpu_plan *plan, size_t node, tern_error *err) {
    GPU_BY_HALF(plan->type, GPU_CHECK(allow_shared((const void *)wgmma_forward<V>, FORWARD_BYTES,
                                                   gpu_graph_node(plan, node)->name, err)));
    return TERN_OK;
}

tern_status gpu_attention_wgmma_forward(tern_gpu_plan *plan, size_t node, const gpu_attention *a, tern_error *err) {
    const unsigned blocks = (unsigned)(a->batch * a->h * tern_ceil_div(a->t, FORWARD_GROUPS * TILE));
    CUtensorMap turned, x;
    GPU_CHECK(describe_tokens(&turned, plan, node, a, a->turned, a->ld, err));
    GPU_CHECK(describe_tokens(&x, plan, node, a, a->x, a->in, err));
    GPU_BY_HALF(plan->type,
                wgmma_forward<V><<<blocks, FORWARD_GROUPS * GROUP, FORWARD_BYTES, plan->stream>>>(*a, turned, x));
    GPU_LAUNCHED(plan, node, err);
    return TERN_OK;
}
