/* y = x W^T with int8 activations. Three ways through the kernels:
 *
 *   few     few rows: sums_i8 streams the packed panels once
 *   many    a panel group's columns are unpacked chunk by chunk into L1 and multiplied with tiles of activations
 *   groups  a scale per group: a whole panel is unpacked, then summed group by group, one row after another
 *
 * Each thread takes a run of panels; no sum crosses threads, so any number of threads gives the same bits. */
#include <string.h>

#include "cpu/product.h"
#include "cpu/threads.h"

enum {
    FEW_OUTPUTS = 512,         /* outputs whose sums are kept at once */
    FEW_ROWS_AT_ONCE = 64,     /* rows of activations, for tiers without the second way */
    CHUNK_COLUMNS = 640,       /* columns unpacked at once: two or three panels stay in L1; a multiple of K_ALIGN */
    ROW_BLOCK_BYTES = 1 << 20, /* activations that should stay in L2 */
    ROW_BLOCK = 512,
    DIRECT_TILES = 2, /* for matmul_panels_i8: the sums are put while they are in L1 */
    MIN_SHARES = 3    /* with fewer turns the processor's own prefetching does better */
};

typedef enum way { WAY_FEW, WAY_MANY, WAY_GROUPS } way;

/* Private to a thread. */
typedef struct thread_lane {
    int32_t *sums;  /* few: [rows][FEW_OUTPUTS]; many: [sum_tiles * tile_rows][tile_panels * 16] */
    uint8_t *codes; /* many: [tile_panels][chunk]; groups: one panel */
    int8_t *rows;   /* many: [tile_rows][k_pad] on the way into tiles */
} thread_lane;

typedef struct layout {
    way way;
    size_t k_pad, tiles, row_block;
    size_t sum_tiles;    /* many: tiles whose sums are taken and put at once */
    int8_t *x;           /* few, groups: [m][k_pad]; many: [tiles][tile_rows * k_pad] in tile form */
    int32_t *x_sums;     /* [m] */
    float *inv_scale;    /* [m] */
    int32_t *group_sums; /* groups: [m][groups] */
    size_t lane_bytes;
    uint8_t *lanes;
} layout;

static way choose_way(const tern_matrix *w, size_t m) {
    if (w->scale_kind == TERN_SCALE_GROUP_EXP && !w->transposed) return WAY_GROUPS;
    return m <= w->kernels->few_rows ? WAY_FEW : WAY_MANY;
}

static thread_lane lay_out_lane(const layout *l, const tern_matrix *w, size_t m, tern_bump *bump) {
    const tern_kernels *kern = w->kernels;
    const size_t panel_rows = w->density->layout.panel_rows;
    thread_lane lane = {0};
    switch (l->way) {
    case WAY_FEW:
        lane.sums = tern_bump_take(bump, tern_min_size(m, FEW_ROWS_AT_ONCE) * FEW_OUTPUTS, sizeof(int32_t));
        break;
    case WAY_MANY:
        lane.sums =
            tern_bump_take(bump, l->sum_tiles * kern->tile_rows * kern->tile_panels * panel_rows, sizeof(int32_t));
        lane.codes = tern_bump_take(bump, kern->tile_panels * CHUNK_COLUMNS, panel_rows);
        lane.rows = tern_bump_take(bump, kern->tile_rows, l->k_pad);
        break;
    case WAY_GROUPS: /* sums too where only sums are wanted: then the groups do not matter */
        lane.sums = tern_bump_take(bump, tern_min_size(m, FEW_ROWS_AT_ONCE) * FEW_OUTPUTS, sizeof(int32_t));
        lane.codes = tern_bump_take(bump, l->k_pad, panel_rows);
        break;
    }
    return lane;
}

static layout lay_out(const tern_matrix *w, size_t m, int threads, tern_bump *bump) {
    const tern_kernels *kern = w->kernels;
    layout l = {.way = choose_way(w, m), .k_pad = tern_round_up(w->inputs, TERN_K_ALIGN)};
    l.x_sums = tern_bump_take(bump, m, sizeof(int32_t));
    l.inv_scale = tern_bump_take(bump, m, sizeof(float));
    if (l.way == WAY_MANY) {
        const size_t step = 2 * kern->tile_rows;
        const size_t fit = tern_min_size(tern_max_size(ROW_BLOCK_BYTES / l.k_pad, 64), ROW_BLOCK) / step * step;
        l.tiles = tern_ceil_div(m, kern->tile_rows);
        l.row_block = tern_round_up(tern_ceil_div(m, tern_ceil_div(m, fit)), step); /* even blocks */
        l.sum_tiles = w->density->matmul_panels_i8.fn ? DIRECT_TILES : l.row_block / kern->tile_rows;
        l.x = tern_bump_take(bump, l.tiles * kern->tile_rows, l.k_pad);
    } else {
        l.x = tern_bump_take(bump, m, l.k_pad);
    }
    if (l.way == WAY_GROUPS) l.group_sums = tern_bump_take(bump, m * w->groups, sizeof(int32_t));
    tern_bump one_lane = {0};
    lay_out_lane(&l, w, m, &one_lane);
    if (one_lane.overflow) bump->overflow = 1;
    l.lane_bytes = one_lane.used;
    l.lanes = tern_bump_take(bump, (size_t)threads, l.lane_bytes);
    return l;
}

size_t tern_product_i8_scratch(const tern_matrix *w, size_t m, int threads) {
    tern_bump bump = {0};
    lay_out(w, m, threads, &bump);
    return bump.overflow ? 0 : bump.used;
}

/* ---- activations ----------------------------------------------------------------------------------------------- */

/* Row i as int8, zero-padded, and its sum. */
static void take_row(const tern_product_i8 *p, const layout *l, size_t i, int8_t *row) {
    const tern_kernels *kern = p->w->kernels;
    const size_t k = p->w->inputs;
    if (p->x_f32) {
        l->inv_scale[i] = kern->quantize_row.fn(row, p->x_f32 + i * k, k);
    } else {
        memcpy(row, p->x_i8 + i * k, k);
        if (p->inv_scale) l->inv_scale[i] = p->inv_scale[i];
    }
    memset(row + k, 0, l->k_pad - k);
    l->x_sums[i] = kern->row_sum.fn(row, l->k_pad);
}

static void take_group_sums(const tern_product_i8 *p, const layout *l, size_t i) {
    const size_t group = p->w->group, k = p->w->inputs;
    const int8_t *row = l->x + i * l->k_pad;
    for (size_t g = 0; g < p->w->groups; g++) {
        int32_t sum = 0;
        for (size_t j = g * group; j < k && j < (g + 1) * group; j++) sum += row[j];
        l->group_sums[i * p->w->groups + g] = sum;
    }
}

/* Rows, split over the team. */
static void take_rows(const tern_product_i8 *p, const layout *l) {
    tern_range mine = tern_my_part(p->m, 1);
    for (size_t i = mine.begin; i < mine.end; i++) {
        take_row(p, l, i, l->x + i * l->k_pad);
        if (l->way == WAY_GROUPS) take_group_sums(p, l, i);
    }
}

static void take_tiles(const tern_product_i8 *p, const layout *l, const thread_lane *lane) {
    const tern_kernels *kern = p->w->kernels;
    tern_range mine = tern_my_part(l->tiles, 1);
    for (size_t t = mine.begin; t < mine.end; t++) {
        size_t first = t * kern->tile_rows, rows = tern_min_size(kern->tile_rows, p->m - first);
        for (size_t i = 0; i < rows; i++) take_row(p, l, first + i, lane->rows + i * l->k_pad);
        kern->tile_acts.fn(l->x + first * l->k_pad, lane->rows, l->k_pad, rows, l->k_pad, l->k_pad);
    }
}

/* ---- results --------------------------------------------------------------------------------------------------- */

/* Outputs [n0, n0 + n) of rows [i0, i0 + rows) from c; x_sums are subtracted where `corrected` is 0. */
static void put(const tern_product_i8 *p, const layout *l, const int32_t *c, size_t ld_c, size_t i0, size_t rows,
                size_t n0, size_t n, int corrected) {
    const size_t outputs = p->w->outputs;
    const int32_t *x_sums = corrected ? NULL : l->x_sums + i0;
    if (p->y) {
        p->w->kernels->epilogue.fn(p->y + i0 * outputs + n0, outputs, c, ld_c, rows, n, x_sums,
                                   (const float *)p->w->scale.data + n0, l->inv_scale + i0,
                                   p->bias ? p->bias + n0 : NULL);
        return;
    }
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < n; j++)
            p->sums[(i0 + i) * outputs + n0 + j] = c[i * ld_c + j] - (x_sums ? x_sums[i] : 0);
}

/* ---- the three ways -------------------------------------------------------------------------------------------- */

static void run_few(const tern_product_i8 *p, const layout *l, const thread_lane *lane) {
    const tern_matrix *w = p->w;
    const size_t panel_rows = w->density->layout.panel_rows, at_once = FEW_OUTPUTS / panel_rows;
    tern_range mine = tern_my_part(w->panels, 1);
    for (size_t i = 0; i < p->m; i += FEW_ROWS_AT_ONCE) {
        size_t rows = tern_min_size(FEW_ROWS_AT_ONCE, p->m - i);
        for (size_t panel = mine.begin; panel < mine.end; panel += at_once) {
            size_t panels = tern_min_size(at_once, mine.end - panel), n0 = panel * panel_rows;
            w->density->sums_i8.fn(lane->sums, FEW_OUTPUTS, (const uint8_t *)w->trits.data + panel * w->panel_bytes,
                                   w->panel_bytes, panels, w->inputs, l->x + i * l->k_pad, l->k_pad, l->x_sums + i,
                                   rows);
            put(p, l, lane->sums, FEW_OUTPUTS, i, rows, n0, tern_min_size(panels * panel_rows, w->outputs - n0), 1);
        }
    }
}

/* All columns of one panel group times some tiles, unpacked chunk by chunk. */
static void multiply_chunks(const tern_matrix *w, const layout *l, const thread_lane *lane, size_t panel, size_t tile,
                            size_t tiles) {
    const tern_kernels *kern = w->kernels;
    const size_t panel_rows = w->density->layout.panel_rows, quad_bytes = TERN_QUAD * panel_rows;
    const size_t codes_stride = CHUNK_COLUMNS * panel_rows, k_block = w->density->layout.k_block;
    for (size_t k0 = 0; k0 < w->inputs; k0 += CHUNK_COLUMNS) {
        const size_t columns = tern_min_size(CHUNK_COLUMNS, w->inputs - k0);
        const size_t quads = tern_ceil_div(columns, TERN_QUAD), blocks = tern_ceil_div(columns, k_block);
        for (size_t i = 0; i < kern->tile_panels; i++) {
            uint8_t *codes = lane->codes + i * codes_stride;
            if (panel + i >= w->panels)
                memset(codes, 0, quads * quad_bytes); /* outputs that nobody reads */
            else
                w->density->unpack.fn(codes,
                                      (const uint8_t *)w->trits.data + (panel + i) * w->panel_bytes +
                                          k0 / k_block * w->density->layout.block_bytes,
                                      blocks);
        }
        kern->matmul_i8.fn(lane->sums, lane->codes, codes_stride,
                           l->x + tile * kern->tile_rows * l->k_pad + k0 * kern->tile_rows,
                           kern->tile_rows * l->k_pad, tiles, quads, k0 > 0);
    }
}

/* One panel group times some tiles. In turn `turn` of `turns`, a share of the next group is brought into L2: where
 * the group would only be read from memory in the first turn, that turn waits. */
static void multiply_tiles(const tern_matrix *w, const layout *l, const thread_lane *lane, size_t panel, size_t tile,
                           size_t tiles, size_t turn, size_t turns) {
    const size_t tile_bytes = w->kernels->tile_rows * l->k_pad, group = w->kernels->tile_panels;
    const uint8_t *panels = (const uint8_t *)w->trits.data + panel * w->panel_bytes;
    if (!w->density->matmul_panels_i8.fn) {
        multiply_chunks(w, l, lane, panel, tile, tiles);
        return;
    }
    const uint8_t *soon = NULL;
    size_t share = 0;
    if (turns >= MIN_SHARES && panel + 2 * group <= w->panels) {
        share = group * w->panel_bytes / turns;
        soon = panels + group * w->panel_bytes + turn * share;
    }
    w->density->matmul_panels_i8.fn(lane->sums, panels, w->panel_bytes, tern_min_size(group, w->panels - panel),
                                    w->inputs, l->x + tile * tile_bytes, tile_bytes, tiles, soon, share);
}

/* Outputs that will be written soon start on their way into L2: written cold, each line would first be waited for. */
static void expect_outputs(const tern_product_i8 *p, size_t i0, size_t rows, size_t n0, size_t n) {
    enum { LINE_FLOATS = 16 };
    for (size_t i = i0; p->y && i < i0 + rows; i++)
        for (size_t j = n0; j < n0 + n; j += LINE_FLOATS) __builtin_prefetch(p->y + i * p->w->outputs + j, 1, 2);
}

/* One panel group times the tiles [tile, end). */
static void run_block(const tern_product_i8 *p, const layout *l, const thread_lane *lane, size_t panel, size_t tile,
                      size_t end) {
    const tern_matrix *w = p->w;
    const size_t panel_rows = w->density->layout.panel_rows, tile_rows = w->kernels->tile_rows;
    const size_t width = w->kernels->tile_panels * panel_rows;
    const size_t n0 = panel * panel_rows, n = tern_min_size(width, w->outputs - n0);
    const size_t turns = tern_ceil_div(end - tile, l->sum_tiles);
    for (size_t turn = 0; turn < turns; turn++, tile += l->sum_tiles) {
        const size_t tiles = tern_min_size(l->sum_tiles, end - tile), i0 = tile * tile_rows;
        const size_t rows = tern_min_size(tiles * tile_rows, p->m - i0);
        expect_outputs(p, i0, rows, n0, n);
        multiply_tiles(w, l, lane, panel, tile, tiles, turn, turns);
        put(p, l, lane->sums, width, i0, rows, n0, n, 0);
    }
}

static void run_many(const tern_product_i8 *p, const layout *l, const thread_lane *lane) {
    const size_t block_tiles = l->row_block / p->w->kernels->tile_rows, step = p->w->kernels->tile_panels;
    tern_range mine = tern_my_part(p->w->panels, step);
    for (size_t tile = 0; tile < l->tiles; tile += block_tiles)
        for (size_t panel = mine.begin; panel < mine.end; panel += step)
            run_block(p, l, lane, panel, tile, tern_min_size(tile + block_tiles, l->tiles));
}

static void run_groups(const tern_product_i8 *p, const layout *l, const thread_lane *lane) {
    const tern_matrix *w = p->w;
    const size_t panel_rows = w->density->layout.panel_rows;
    tern_range mine = tern_my_part(w->panels, 1);
    for (size_t panel = mine.begin; panel < mine.end; panel++) {
        const size_t n0 = panel * panel_rows, n = tern_min_size(panel_rows, w->outputs - n0);
        const int8_t *exponents = (const int8_t *)w->exponents.data + panel * w->groups * panel_rows;
        w->density->unpack.fn(lane->codes, (const uint8_t *)w->trits.data + panel * w->panel_bytes,
                              tern_ceil_div(w->inputs, w->density->layout.k_block));
        for (size_t i = 0; i < p->m; i++) {
            float acc[TERN_MAX_PANEL_ROWS];
            w->kernels->groups_i8.fn(acc, lane->codes, l->x + i * l->k_pad, l->group_sums + i * w->groups, w->inputs,
                                     w->group, exponents);
            for (size_t j = 0; j < n; j++) {
                float value = acc[j] * l->inv_scale[i];
                p->y[i * w->outputs + n0 + j] = p->bias ? value + p->bias[n0 + j] : value;
            }
        }
    }
}

void tern_product_i8_run(const tern_product_i8 *product, int threads, void *scratch) {
    tern_bump bump = {.base = scratch};
    const layout l = lay_out(product->w, product->m, threads, &bump);
#pragma omp parallel num_threads(threads)
    {
        tern_bump mine = {.base = l.lanes + (size_t)omp_get_thread_num() * l.lane_bytes};
        const thread_lane lane = lay_out_lane(&l, product->w, product->m, &mine);
        if (l.way == WAY_MANY)
            take_tiles(product, &l, &lane);
        else
            take_rows(product, &l);
#pragma omp barrier
        if (l.way == WAY_MANY)
            run_many(product, &l, &lane);
        else if (l.way == WAY_GROUPS && product->y)
            run_groups(product, &l, &lane);
        else
            run_few(product, &l, &lane);
    }
}
