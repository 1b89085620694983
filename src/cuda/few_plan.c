#include "cuda/few_plan.h"

#include "cuda/tiles.h"

static const tern_few_shape shapes[TERN_FEW_VARIANTS] = TERN_FEW_SHAPES;

enum {
    ROW_GAP = 16,      /* behind a row of activations, so that rows start in different banks */
    PIECE_BYTES = 512, /* the sums of a tile's rows and 8 rows of activations */
    BLOCK_RESERVED = 1 << 10,
    LEAST_BYTES = 78 << 10, /* two blocks a multiprocessor, no more */
    BARRIER_BYTES = 8 * (TERN_FEW_PHASES + 1),
    /* Clusters of more than two blocks leave multiprocessors out whose number is odd in their part of the device. */
    CLUSTERED = 16,
};

static int up(int a, int b) { return (a + b - 1) / b; }
static int least(int a, int b) { return a < b ? a : b; }
static int most(int a, int b) { return a > b ? a : b; }

/* The depths that few.cu is compiled for. */
static int deepest(int room, int warp_tiles) {
    const int ring = TERN_FEW_WARPS * TERN_TILE_BYTES;
    if (8 * ring <= room && warp_tiles > 5) return 8;
    return 5 * ring <= room && warp_tiles > 4 ? 5 : 4 * ring <= room ? 4 : 0;
}

/* Steps that the busiest team takes when 2^log2 of them share the columns, four to one for each sum that is added. */
static int cost(int units, int teams, int cols, int log2) {
    return 4 * up(units, teams >> log2) * up(cols, 1 << log2) + (1 << log2);
}

static int best_parts(int units, int teams, int cols) {
    int best = 0;
    for (int i = 1; 1 << i <= teams; i++)
        if (cost(units, teams, cols, i) < cost(units, teams, cols, best)) best = i;
    return best;
}

int tern_few_plan_make(tern_few_plan *plan, int variant, const tern_cuda_limits *limits, const tern_cuda_weights *w,
                       size_t m) {
    const tern_few_shape *s = &shapes[variant - 1];
    const int m_rows = m <= 8 ? 8 : m <= 16 ? 16 : m <= 32 ? 32 : 64, pieces = m_rows / 8;
    const int room =
        (int)(limits->shared_bytes + BLOCK_RESERVED) / (m > 32 ? 1 : s->room) - BLOCK_RESERVED - BARRIER_BYTES;
    const int sm = s->splits > 2 && limits->multiprocessors > CLUSTERED
                       ? limits->multiprocessors / CLUSTERED * CLUSTERED
                       : limits->multiprocessors;
    const int at_once = most(sm * s->each / s->splits, 1), rows = up(w->row_tiles, at_once);
    const int team = m_rows > 16 ? 4 : s->team, teams = TERN_FEW_WARPS / team, units = up(rows, team);
    const int cols = up(w->k_tiles, s->splits), parts_log2 = best_parts(units, teams, cols);
    const int rounds = up(units, teams >> parts_log2), run = rounds * up(cols, 1 << parts_log2);
    tern_few_plan p = {.groups = up(w->row_tiles, rows), .splits = s->splits, .team = team, .parts_log2 = parts_log2};
    while (1 << p.splits_log2 < p.splits) p.splits_log2++;
    p.rows = w->row_tiles / p.groups;
    p.more = w->row_tiles % p.groups;
    p.slots = up(rows * pieces, s->splits);
    const int64_t x_cols = (int64_t)cols * (int)tern_tile_cols(w->t5);
    const int64_t x_boxes = (x_cols + TERN_FEW_BOX_COLS - 1) / TERN_FEW_BOX_COLS;
    const int64_t x_all = m_rows * (team == 1 ? x_cols + ROW_GAP : x_boxes * TERN_FEW_BOX_COLS);
    const int64_t inbox_all = ((int64_t)s->splits << parts_log2) * p.slots * PIECE_BYTES;
    if (x_all > room || inbox_all > room) return 0;
    const int x_bytes = (int)x_all, inbox_bytes = (int)inbox_all;
    const int apart = deepest(room - x_bytes - inbox_bytes, run), together = deepest(room - x_bytes, run);
    p.meet = rounds == 1 && apart < least(5, together);
    p.depth = p.meet ? together : apart;
    if (!p.depth) return 0;
    p.pitch = (int)x_cols + ROW_GAP;
    p.x = TERN_FEW_WARPS * TERN_TILE_BYTES * p.depth;
    p.inbox = p.meet ? 0 : p.x + x_bytes;
    p.barriers = most(p.x + x_bytes, p.inbox + inbox_bytes);
    p.bytes = most(p.barriers + BARRIER_BYTES, LEAST_BYTES);
    *plan = p;
    return 1;
}
