#include "cuda/few_plan.h"

#include "cuda/tiles.h"

enum {
    TEAMS = TERN_FEW_WARPS / TERN_FEW_TEAM,
    RING_BYTES = TERN_FEW_WARPS * TERN_TILE_BYTES, /* a tile for each warp */
    PIECE_BYTES = 512,                             /* sums of a row of tiles and 8 rows of activations */
    BLOCK_RESERVED = 1 << 10,
    BARRIER_BYTES = 2 * 8, /* activations are there, sums are */
};

static int up(int a, int b) { return (a + b - 1) / b; }
static int most(int a, int b) { return a > b ? a : b; }

/* The depths that few.cu is compiled for. */
static int deepest(int64_t room, int warp_tiles) {
    if (8 * RING_BYTES <= room && warp_tiles > 5) return 8;
    return 5 * RING_BYTES <= room && warp_tiles > 4 ? 5 : 4 * RING_BYTES <= room ? 4 : 0;
}

/* Steps that the busiest team takes when 2^log2 of them share the columns, four to one for each sum that is added. */
static int cost(int units, int cols, int log2) {
    return 4 * up(units, TEAMS >> log2) * up(cols, 1 << log2) + (1 << log2);
}

static int best_parts(int units, int cols) {
    int best = 0;
    for (int i = 1; 1 << i <= TEAMS; i++)
        if (cost(units, cols, i) < cost(units, cols, best)) best = i;
    return best;
}

/* Lays out shared memory, of which a block has `room`. */
static int place(tern_few_plan *p, int64_t room, int64_t x_bytes, int64_t inbox_bytes, int rounds, int warp_tiles) {
    room -= BARRIER_BYTES;
    const int apart = deepest(room - x_bytes - inbox_bytes, warp_tiles),
              together = deepest(room - x_bytes, warp_tiles);
    p->meet = rounds == 1 && apart < together && apart < 5 && inbox_bytes <= room;
    p->depth = p->meet ? together : apart;
    if (!p->depth) return 0;
    p->x = RING_BYTES * p->depth;
    p->inbox = p->meet ? 0 : p->x + (int)x_bytes;
    p->barriers = most(p->x + (int)x_bytes, p->inbox + (int)inbox_bytes);
    p->bytes = p->barriers + BARRIER_BYTES;
    return 1;
}

int tern_few_plan_make(tern_few_plan *plan, const tern_cuda_limits *limits, const tern_cuda_weights *w, size_t m) {
    const int pieces = m <= 8 ? 1 : m <= 16 ? 2 : m <= 32 ? 4 : 8;
    const int at_once = most(limits->multiprocessors / TERN_FEW_BLOCKS, 1), rows = up(w->row_tiles, at_once);
    const int units = up(rows, TERN_FEW_TEAM), cols = up(w->k_tiles, TERN_FEW_BLOCKS);
    tern_few_plan p = {.groups = up(w->row_tiles, rows), .parts_log2 = best_parts(units, cols)};
    p.rows = w->row_tiles / p.groups;
    p.more = w->row_tiles % p.groups;
    p.slots = up(rows * pieces, TERN_FEW_BLOCKS);
    const int rounds = up(units, TEAMS >> p.parts_log2), warp_tiles = rounds * up(cols, 1 << p.parts_log2);
    /* A block of t5 may begin in the midst of a box, where steps of 32 columns do. */
    const int64_t columns = (int64_t)cols * (int)tern_tile_cols(w->t5) + (w->t5 ? TERN_FEW_BOX_COLS - 32 : 0);
    const int64_t x_bytes = (columns + TERN_FEW_BOX_COLS - 1) / TERN_FEW_BOX_COLS * TERN_FEW_BOX_COLS * 8 * pieces;
    const int64_t inbox_bytes = (int64_t)(TERN_FEW_BLOCKS << p.parts_log2) * p.slots * PIECE_BYTES;
    const int64_t room = (int64_t)limits->shared_bytes, half = (room + BLOCK_RESERVED) / 2 - BLOCK_RESERVED;
    /* With room for two blocks a multiprocessor the next kernel's have begun when this one's end. */
    const int fits = (pieces <= 4 && place(&p, half, x_bytes, inbox_bytes, rounds, warp_tiles)) ||
                     place(&p, room, x_bytes, inbox_bytes, rounds, warp_tiles);
    if (fits) *plan = p;
    return fits;
}
