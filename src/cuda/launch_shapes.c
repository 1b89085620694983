#include "cuda/launch_shapes.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/checked.h"
#include "cuda/few_plan.h"
#include "cuda/tiles.h"

static const tern_tiled_shape tiled_shapes[TERN_TILED_VARIANTS] = TERN_TILED_SHAPES;
static const tern_decode_shape decode_shapes[TERN_DECODE_VARIANTS] = TERN_DECODE_SHAPES;
static const tern_mma_shape mma_shapes[TERN_MMA_VARIANTS] = TERN_MMA_SHAPES;
static const tern_wgmma_half_shape wgmma_half_shapes[TERN_WGMMA_HALF_VARIANTS] = TERN_WGMMA_HALF_SHAPES;
static const tern_wgmma_shape wgmma_shapes[TERN_WGMMA_VARIANTS] = TERN_WGMMA_SHAPES;

static const char *const kernel_names[] = {"auto",     "cuda-plain", "cuda-tiled", "cuda-decode",
                                           "cuda-mma", "cuda-wgmma", "cuda-few"};
_Static_assert(sizeof kernel_names / sizeof *kernel_names == TERN_DEVICE_KERNEL_COUNT, "a name for each kernel");

const char *tern_cuda_kernel_name(tern_device_kernel kernel) {
    return (unsigned)kernel < TERN_DEVICE_KERNEL_COUNT ? kernel_names[kernel] : NULL;
}

int tern_cuda_variants(tern_device_kernel kernel) {
    switch (kernel) {
    case TERN_DEVICE_KERNEL_PLAIN: return 1;
    case TERN_DEVICE_KERNEL_TILED: return TERN_TILED_VARIANTS;
    case TERN_DEVICE_KERNEL_DECODE: return TERN_DECODE_VARIANTS;
    case TERN_DEVICE_KERNEL_MMA: return TERN_MMA_VARIANTS;
    case TERN_DEVICE_KERNEL_WGMMA: return TERN_WGMMA_VARIANTS;
    case TERN_DEVICE_KERNEL_FEW: return TERN_FEW_VARIANTS;
    default: return 0;
    }
}

/* ---- shared memory --------------------------------------------------------------------------------------------- */

/* One sum a warp, output and row of activations. */
size_t tern_decode_shared_bytes(int variant, size_t m) {
    const tern_decode_shape s = decode_shapes[variant - 1];
    return (size_t)(s.warps * s.row_tiles * TERN_TILE_ROWS) * tern_min_size(m, TERN_DECODE_MAX_M) * sizeof(int32_t);
}

int tern_decode_has_rows(int variant, tern_dtype x_type, size_t m) {
    const int row_tiles = decode_shapes[variant - 1].row_tiles;
    return x_type == TERN_I8 && m > 1 && m <= TERN_DECODE_ROWS_MAX_M && (row_tiles == 2 || row_tiles == 3);
}

/* A ring of activations a warp. */
size_t tern_decode_rows_shared_bytes(int variant, int t5) {
    const int warps = decode_shapes[variant - 1].warps;
    return (size_t)(warps * TERN_DECODE_ROWS_AHEAD(warps, t5) * TERN_DECODE_ROWS_MAX_M) *
           (tern_tile_cols(t5) + TERN_DECODE_ROWS_GAP);
}

/* Two blocks a multiprocessor, no more: where a kernel has one each, the next kernel's blocks spread as evenly. */
enum { RING_LEAST_BYTES = 78 << 10, RING_ALIGN = 128 };

static int up(int a, int b) { return (a + b - 1) / b; }
static int aligned(int bytes) { return up(bytes, RING_ALIGN) * RING_ALIGN; }

void tern_ring_plan_make(tern_ring_plan *plan, int variant, int multiprocessors, const tern_cuda_weights *w, size_t m,
                         int value_bytes) {
    const tern_decode_shape *s = &decode_shapes[variant - 1];
    const int most = multiprocessors * s->each / s->splits, groups = w->row_tiles < most ? w->row_tiles : most;
    const int row_units = up(up(w->k_tiles, TERN_RING_UNIT), s->splits), rows = up(w->row_tiles, groups);
    const int run = up(rows * row_units, TERN_RING_WARPS);
    const int sum_bytes = (m > 1 ? TERN_RING_MAX_M : 1) * TERN_TILE_ROWS * (int)sizeof(int32_t);
    tern_ring_plan p = {.groups = groups,
                        .splits = s->splits,
                        .rows = w->row_tiles / groups,
                        .more = w->row_tiles % groups,
                        .row_units = row_units,
                        .row_units_inverse = UINT32_MAX / (uint32_t)row_units + 1,
                        .touched = 1 + up(run - 1, row_units)};
    p.x_pitch = aligned(row_units * TERN_RING_UNIT * (int)tern_tile_cols(w->t5) * value_bytes) + TERN_RING_GAP;
    p.x = TERN_RING_WARPS * TERN_RING_UNITS * TERN_RING_UNIT * TERN_TILE_BYTES;
    p.x_sums = p.x + aligned((int)m * p.x_pitch);
    p.spans = p.x_sums + aligned(TERN_RING_WARPS * (int)sizeof(int32_t)); /* one a row, or a warp */
    p.partial = p.spans + aligned(rows * TERN_RING_SPAN_BYTES);
    p.inbox = p.partial + aligned(TERN_RING_WARPS * p.touched * sum_bytes);
    p.barrier = p.inbox + (s->splits > 1 ? aligned(rows * sum_bytes + s->splits * (int)sizeof(int32_t)) : 0);
    p.bytes = p.barrier + (int)sizeof(uint64_t);
    if (p.bytes < RING_LEAST_BYTES) p.bytes = RING_LEAST_BYTES;
    *plan = p;
}

/* Stages of activations, rows longer than a tile is wide so that they start in different banks. */
size_t tern_mma_shared_bytes(int variant, int t5, tern_dtype x_type) {
    const tern_mma_shape s = mma_shapes[variant - 1];
    const size_t rows = (size_t)(TERN_MMA_STAGES * s.warps_m * s.m_tiles * 8);
    switch (x_type) {
    case TERN_I8: return rows * (tern_tile_cols(t5) + TERN_MMA_GAP_I8);
    case TERN_F32: return rows * (tern_tile_cols(t5) * 4 + TERN_MMA_GAP_F32);
    default: return rows * (tern_tile_cols(t5) * 2 + TERN_MMA_GAP_HALF);
    }
}

/* 1024 bytes may be lost to alignment. The sums that the blocks of a cluster exchange take the place of the
 * stages. */
size_t tern_wgmma_shared_bytes(int variant, int t5) {
    const tern_wgmma_shape s = wgmma_shapes[variant - 1];
    const size_t around = 1024 + TERN_WGMMA_BARRIER_BYTES;
    if (s.ring)
        return around + (size_t)(TERN_WGMMA_SLOTS(s.m_tile, t5) * TERN_WGMMA_SLOT_BYTES(s.m_tile, t5) +
                                 TERN_WGMMA_OUTPUT_BYTES(s.m_tile));
    const size_t stages = (size_t)(TERN_WGMMA_STAGES * s.m_tile * TERN_WGMMA_SLOT_COLS);
    const size_t sums = s.splits > 1 ? (size_t)(TERN_WGMMA_SUM_PITCH * s.m_tile) * sizeof(int32_t) : 0;
    return around + tern_max_size(stages, sums);
}

/* Stages, a barrier pair each. */
size_t tern_wgmma_half_shared_bytes(int variant) {
    const int m_tile = wgmma_half_shapes[variant - 1].m_tile;
    return (size_t)(1024 + TERN_WGMMA_HALF_STAGES(m_tile) * (m_tile * 128 + 16));
}

static size_t ring_bytes(int variant, const tern_cuda_limits *limits, const tern_cuda_weights *w,
                         const tern_device_product *product) {
    tern_ring_plan plan;
    tern_ring_plan_make(&plan, variant, limits->multiprocessors, w, product->m, product->x_type == TERN_I8 ? 1 : 2);
    return (size_t)plan.bytes;
}

static size_t shared_bytes(tern_device_kernel kernel, int variant, const tern_cuda_limits *limits,
                           const tern_cuda_weights *w, const tern_device_product *product) {
    switch (kernel) {
    case TERN_DEVICE_KERNEL_TILED: return TERN_TILED_SHARED_BYTES;
    case TERN_DEVICE_KERNEL_DECODE:
        return decode_shapes[variant - 1].splits ? ring_bytes(variant, limits, w, product)
               : tern_decode_has_rows(variant, product->x_type, product->m)
                   ? tern_decode_rows_shared_bytes(variant, w->t5)
                   : tern_decode_shared_bytes(variant, product->m);
    case TERN_DEVICE_KERNEL_MMA: return tern_mma_shared_bytes(variant, w->t5, product->x_type);
    case TERN_DEVICE_KERNEL_WGMMA:
        return product->x_type == TERN_I8 ? tern_wgmma_shared_bytes(variant, w->t5)
                                          : tern_wgmma_half_shared_bytes(variant);
    default: return 0;
    }
}

/* ---- what a kernel can run ------------------------------------------------------------------------------------- */

__attribute__((format(printf, 3, 4))) static int refuse(char *why, size_t why_bytes, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(why, why_bytes, format, args);
    va_end(args);
    return 0;
}

static int device_fits(tern_device_kernel kernel, const tern_cuda_limits *limits, char *why, size_t why_bytes) {
    const int version = limits->major * 10 + limits->minor;
    const int least = kernel <= TERN_DEVICE_KERNEL_TILED ? 75 : 80;
    if ((kernel == TERN_DEVICE_KERNEL_WGMMA || kernel == TERN_DEVICE_KERNEL_FEW) && version != 90)
        return refuse(why, why_bytes, "it takes compute capability 9.0, this device has %d.%d", limits->major,
                      limits->minor);
    if (version < least)
        return refuse(why, why_bytes, "it takes compute capability %d.%d or newer, this device has %d.%d", least / 10,
                      least % 10, limits->major, limits->minor);
    return 1;
}

/* Shapes 4 and up make more of an unpacked weight than int8 needs; the first is too small for halves to be fast, and
 * the last two have no registers for the second sum that scales per group take. */
static int mma_has(int variant, tern_dtype x_type, int grouped) {
    if (x_type == TERN_I8) return variant <= 3;
    if (x_type == TERN_F32) return variant == 2 || variant == 3;
    return variant > 1 && (!grouped || variant <= 4);
}

/* What tiled_row.cuh adds up at a time. */
static int round_cols(const tern_cuda_weights *w) { return TERN_TILED_ROW_TILES * (int)tern_tile_cols(w->t5); }

static int row_fits(const tern_cuda_weights *w, size_t m) {
    return w->exponents && m <= TERN_TILED_ROW_MAX_M && w->group % 4 == 0 && round_cols(w) % w->group == 0;
}

/* The driver refuses tensor maps (cuTensorMapEncodeTiled, of cuda-wgmma and cuda-few) of more than 2^32 values a side,
 * of rows 2^40 bytes apart, or off 16 bytes. What fits below has none of these, so a chosen kernel is never refused:
 * rows are aligned before the launch (backend_table.cu), outputs that are not go without a map. */
_Static_assert((uint64_t)TERN_FAST_MAX_COLS * sizeof(float) < (uint64_t)1 << 40, "rows of activations");
_Static_assert((uint64_t)TERN_FAST_MAX_OUTPUTS * sizeof(float) < (uint64_t)1 << 40, "rows of outputs");
_Static_assert(TERN_FAST_MAX_ROWS < UINT32_MAX, "their number");

enum { BLOCK_RESERVED = 1 << 10 /* bytes of shared memory that a block takes beside its own */ };

static int ring_fits(int variant, const tern_cuda_limits *limits, const tern_cuda_weights *w,
                     const tern_device_product *product, char *why, size_t why_bytes) {
    const int splits = decode_shapes[variant - 1].splits;
    if (limits->major * 10 + limits->minor != 90)
        return refuse(why, why_bytes, "variant %d takes compute capability 9.0, this device has %d.%d", variant,
                      limits->major, limits->minor);
    if (product->x_type == TERN_F32 || product->m > (product->x_type == TERN_I8 ? TERN_RING_MAX_M : 1))
        return refuse(why, why_bytes, "variant %d takes up to %d rows of int8 activations, of halves one", variant,
                      TERN_RING_MAX_M);
    if (splits > w->k_tiles || splits > limits->multiprocessors)
        return refuse(why, why_bytes,
                      "variant %d has more blocks a cluster than this matrix has tiles a row, or the device "
                      "multiprocessors",
                      variant);
    const size_t bytes = ring_bytes(variant, limits, w, product);
    const int each = decode_shapes[variant - 1].each;
    if (bytes <= limits->shared_bytes &&
        (size_t)each * (bytes + BLOCK_RESERVED) > limits->shared_bytes + BLOCK_RESERVED)
        return refuse(why, why_bytes, "variant %d wants %d blocks a multiprocessor, which has no room for them",
                      variant, each);
    return 1;
}

static int few_fits(const tern_cuda_limits *limits, const tern_cuda_weights *w, size_t m, char *why,
                    size_t why_bytes) {
    tern_few_plan plan;
    if (m > TERN_FEW_MAX_M)
        return refuse(why, why_bytes, "it takes up to %d rows of activations, not %zu", TERN_FEW_MAX_M, m);
    if (!tern_few_plan_make(&plan, limits, w, m))
        return refuse(why, why_bytes, "%zu rows of activations and their sums do not fit into shared memory", m);
    return 1;
}

int tern_cuda_fits(tern_device_kernel kernel, int variant, const tern_cuda_limits *limits, const tern_cuda_weights *w,
                   const tern_device_product *product, char *why, size_t why_bytes) {
    if (!device_fits(kernel, limits, why, why_bytes)) return 0;
    if (kernel == TERN_DEVICE_KERNEL_PLAIN) return 1;
    if (product->m > TERN_FAST_MAX_ROWS)
        return refuse(why, why_bytes, "it takes up to %d rows of activations, not %zu", TERN_FAST_MAX_ROWS,
                      product->m);
    if (w->rows > TERN_FAST_MAX_OUTPUTS)
        return refuse(why, why_bytes, "it takes up to %d outputs, not %d", TERN_FAST_MAX_OUTPUTS, w->rows);
    if (w->exponents && kernel != TERN_DEVICE_KERNEL_TILED && kernel != TERN_DEVICE_KERNEL_MMA)
        return refuse(why, why_bytes, "scales per group are for cuda-plain, cuda-tiled and cuda-mma");
    if (w->exponents && kernel == TERN_DEVICE_KERNEL_MMA && w->group % 32)
        return refuse(why, why_bytes, "of scales per group it takes those of 32, 64, 96 ... columns");
    if (w->cols > TERN_FAST_MAX_COLS)
        return refuse(why, why_bytes, "its sums hold up to %d columns, this matrix has %d", TERN_FAST_MAX_COLS,
                      w->cols);
    if ((kernel == TERN_DEVICE_KERNEL_TILED || kernel == TERN_DEVICE_KERNEL_FEW) && product->x_type != TERN_I8)
        return refuse(why, why_bytes, "it takes int8 activations");
    if (kernel == TERN_DEVICE_KERNEL_WGMMA && product->x_type == TERN_F32)
        return refuse(why, why_bytes, "it takes activations in int8 and halves");
    if (kernel == TERN_DEVICE_KERNEL_WGMMA && product->x_type != TERN_I8 && variant > TERN_WGMMA_HALF_VARIANTS)
        return refuse(why, why_bytes, "variant %d is not for activations of this type", variant);
    if (kernel == TERN_DEVICE_KERNEL_MMA && !mma_has(variant, product->x_type, w->exponents != NULL))
        return refuse(why, why_bytes, "variant %d is not for activations of this type", variant);
    if (kernel == TERN_DEVICE_KERNEL_TILED && variant == TERN_TILED_ROW && !row_fits(w, product->m))
        return refuse(why, why_bytes,
                      "variant %d takes up to %d rows of activations, and scales of groups that divide %d columns",
                      variant, TERN_TILED_ROW_MAX_M, round_cols(w));
    if (kernel == TERN_DEVICE_KERNEL_FEW && !few_fits(limits, w, product->m, why, why_bytes)) return 0;
    if (kernel == TERN_DEVICE_KERNEL_DECODE && decode_shapes[variant - 1].splits &&
        !ring_fits(variant, limits, w, product, why, why_bytes))
        return 0;
    const size_t shared = shared_bytes(kernel, variant, limits, w, product);
    if (shared > limits->shared_bytes)
        return refuse(why, why_bytes, "variant %d takes %zu bytes of shared memory a block, this device has %zu",
                      variant, shared, limits->shared_bytes);
    return 1;
}

/* ---- the choice: what was fastest on an H200 (lab/cuda-decode.md, cuda-few.md, cuda-wgmma.md) ------------------ */

static int64_t blocks_of(size_t rows, int per_block) {
    return (int64_t)((rows + (size_t)per_block - 1) / (size_t)per_block);
}

/* The variant with these values. */
static int decode_variant(int warps, int row_tiles) {
    for (int v = 0; v < TERN_DECODE_VARIANTS; v++)
        if (decode_shapes[v].warps == warps && decode_shapes[v].row_tiles == row_tiles) return v + 1;
    return 1;
}

static int wgmma_variant(int m_tile, int splits, int ring) {
    for (int v = 0; v < TERN_WGMMA_VARIANTS; v++)
        if (wgmma_shapes[v].m_tile == m_tile && wgmma_shapes[v].splits == splits && wgmma_shapes[v].ring == ring)
            return v + 1;
    return 1;
}

static int ring_variant(int splits, int each) {
    for (int v = 0; v < TERN_DECODE_VARIANTS; v++)
        if (decode_shapes[v].splits == splits && decode_shapes[v].each == each) return v + 1;
    return 1;
}

enum { DEEP_TILES = 64 /* of a row */ };

/* One row of int8 or halves, up to 8 of int8: as many warps a block as it takes for every block to run at once and for
 * all of them to have enough of the weights on its way. Where multiprocessors would have one block or two of two rows
 * of tiles, they have one of three, if it works long enough for the difference to count. */
static int decode_row_wish(const tern_cuda_limits *limits, const tern_cuda_weights *w, int is_long) {
    const int sm = limits->multiprocessors;
    if (w->row_tiles < 2 * sm) return decode_variant(16, 2);
    if (w->row_tiles <= 3 * sm && (is_long || w->k_tiles >= DEEP_TILES)) return decode_variant(12, 3);
    return decode_variant(w->row_tiles <= 5 * sm ? 8 : w->row_tiles <= 10 * sm ? 4 : 2, 2);
}

/* The more blocks there are, the fewer warps each needs. */
static int decode_columns_wish(const tern_cuda_limits *limits, const tern_cuda_weights *w,
                               const tern_device_product *product) {
    const int sm = limits->multiprocessors, integer = product->x_type == TERN_I8;
    if (product->m == 1 && product->x_type != TERN_F32) return decode_row_wish(limits, w, !integer || w->t5);
    if (product->m <= TERN_DECODE_ROWS_MAX_M && integer) return decode_row_wish(limits, w, w->t5);
    if (w->row_tiles < 2 * sm) return decode_variant(16, 2);
    if (!integer) return decode_variant(w->row_tiles > 5 * sm ? 4 : 8, 2);
    return decode_variant(w->row_tiles > 16 * sm ? 4 : w->row_tiles > 4 * sm ? 8 : 16, 2);
}

enum { LARGE_TILES = 400 /* a multiprocessor */ };

/* Shares of one length (bench/results/cuda-decode-ring-h200.txt) win where they are long. 0: they do not. Columns are
 * split where rows of tiles are few: with one row of activations at t5 and of halves, whose blocks take longer to
 * multiply than to fetch, and with two, at t5 four; for more, blocks of three rows of tiles are faster. */
static int decode_ring_wish(const tern_cuda_limits *limits, const tern_cuda_weights *w, size_t m, int integer) {
    const int sm = limits->multiprocessors, few = w->row_tiles < 3 * sm;
    const int is_large = (int64_t)w->row_tiles * w->k_tiles >= (int64_t)LARGE_TILES * sm;
    if (!is_large || w->row_tiles < 2 * sm) return 0;
    if (m == 1) return w->t5 || !integer ? ring_variant(few ? 2 : 1, 1) : ring_variant(1, 2);
    if (few) return m <= (w->t5 ? 4 : 2) ? ring_variant(2, 1) : 0;
    return w->row_tiles > 10 * sm ? ring_variant(1, 1) : 0;
}

static int decode_wish(const tern_cuda_limits *limits, const tern_cuda_weights *w,
                       const tern_device_product *product) {
    char why[160];
    const int ring = decode_ring_wish(limits, w, product->m, product->x_type == TERN_I8);
    if (ring && tern_cuda_fits(TERN_DEVICE_KERNEL_DECODE, ring, limits, w, product, why, sizeof why)) return ring;
    return decode_columns_wish(limits, w, product);
}

/* The largest tile that gives every multiprocessor something to do, or the smallest that has all rows. */
static int tiled_wish(const tern_cuda_limits *limits, const tern_cuda_weights *w, size_t m) {
    if (row_fits(w, m)) return TERN_TILED_ROW;
    for (int v = 1; v < TERN_TILED_ROW - 1; v++)
        if (m > (size_t)tiled_shapes[v].rows &&
            blocks_of((size_t)w->rows, tiled_shapes[v - 1].outputs) * blocks_of(m, tiled_shapes[v - 1].rows) >=
                limits->multiprocessors)
            return v;
    return TERN_TILED_ROW - 1;
}

static int mma_float_wish(const tern_cuda_limits *limits, const tern_cuda_weights *w,
                          const tern_device_product *product) {
    const size_t m = product->m, n = (size_t)w->rows;
    const int sm = limits->multiprocessors;
    if (m <= 32) return 3;
    if (product->x_type == TERN_F32) return 2;
    if (w->exponents) return w->t5 ? 4 : 3;
    if (blocks_of(n, 256) * blocks_of(m, 128) >= 3 * sm) return 6;
    return blocks_of(n, 128) * blocks_of(m, 128) >= sm ? 5 : 4;
}

static int mma_wish(const tern_cuda_limits *limits, const tern_cuda_weights *w, const tern_device_product *product) {
    const size_t m = product->m;
    if (product->x_type != TERN_I8) return mma_float_wish(limits, w, product);
    return m <= 32 || blocks_of((size_t)w->rows, 128) * blocks_of(m, 128) < limits->multiprocessors / 2 ? 3 : 1;
}

/* Patches of images: many short rows for few outputs. Most of a block's time is its beginning and its end, which
 * other blocks of the multiprocessor fill (lab/cuda-training.md). */
static int is_short(const tern_cuda_weights *w, int n_blocks) { return w->k_tiles <= 18 && n_blocks <= 2; }

enum { LONG_TILES = 40, TILE_END = 32 };

/* How many rows of activations a multiprocessor takes one after another with tiles of m_tile, each of which costs as
 * much as TILE_END rows more. */
static int64_t turns(int n_blocks, size_t m, int m_tile, int sm) {
    return blocks_of((size_t)n_blocks * (size_t)blocks_of(m, m_tile), sm) * (m_tile + TILE_END);
}

/* Of `count` tiles that get smaller, the index of the one that takes the fewest rows. */
static int best_tile(const int *tiles, int count, int n_blocks, size_t m, int sm) {
    int best = 0;
    for (int i = 1; i < count; i++)
        if (turns(n_blocks, m, tiles[i], sm) < turns(n_blocks, m, tiles[best], sm)) best = i;
    return best;
}

/* Few outputs, whose columns a cluster shares: where all of it runs at once, or is long. */
static int is_shared(int sm, const tern_cuda_weights *w, size_t m, int64_t tiles_of_64) {
    const int pays = w->k_tiles >= LONG_TILES || (m > 32 && m <= 64);
    return 4 * tiles_of_64 <= sm || (pays && 8 * tiles_of_64 <= 3 * sm);
}

/* Up to 64 rows, and short ones, may take blocks without a ring: their columns are split as long as there are
 * multiprocessors without a block. */
static int wgmma_wish(const tern_cuda_limits *limits, const tern_cuda_weights *w, size_t m) {
    static const int tiles[] = {256, 160, 128, 96, 64};
    const int sm = limits->multiprocessors, n_blocks = (int)blocks_of((size_t)w->rows, 128);
    if (is_shared(sm, w, m, n_blocks * blocks_of(m, 64))) return wgmma_variant(64, 4, 1);
    if (m > 64 && !is_short(w, n_blocks)) return wgmma_variant(tiles[best_tile(tiles, 5, n_blocks, m, sm)], 1, 1);
    if (m <= 64 && n_blocks <= sm && 4 * n_blocks >= 3 * sm) return wgmma_variant(64, 1, 1);
    const int m_tile = m <= 32 ? 32 : 64, enough = m <= 32 ? 2 * sm : sm;
    const int64_t blocks = n_blocks * blocks_of(m, m_tile);
    int splits = 1;
    while (splits < 4 && splits * blocks < enough) splits *= 2;
    return wgmma_variant(m_tile, splits, 0);
}

static int wgmma_half_variant(int m_tile, int splits) {
    for (int v = 0; v < TERN_WGMMA_HALF_VARIANTS; v++)
        if (wgmma_half_shapes[v].m_tile == m_tile && wgmma_half_shapes[v].splits == splits) return v + 1;
    return 1;
}

/* Columns are split as long as all blocks run at once, two of a multiprocessor; by four, nine tenths of that, since
 * clusters of four do not use all of them, and of up to 32 rows at t2 three. Up to 64 rows are cut in half where the
 * halves' columns can be split by four at t2, or by two at t5. */
static int wgmma_half_wish(const tern_cuda_limits *limits, const tern_cuda_weights *w, size_t m) {
    static const int tiles[] = {256, 160, 128, 64};
    const int sm = limits->multiprocessors, n_blocks = (int)blocks_of((size_t)w->rows, 128);
    const int halved = m <= 64 && (w->t5 ? 2 * n_blocks <= sm : 9 * sm >= 40 * n_blocks);
    const int m_tile = m <= 32 || halved ? 32 : 64;
    const int at_once = m <= 32 && !w->t5 ? 3 : 2;
    const int64_t blocks = n_blocks * blocks_of(m, m_tile);
    if (blocks > sm && m > 32) return wgmma_half_variant(tiles[best_tile(tiles, 4, n_blocks, m, sm)], 1);
    return wgmma_half_variant(m_tile, 40 * blocks <= 9 * at_once * sm ? 4 : blocks <= sm ? 2 : 1);
}

int tern_cuda_choose_variant(tern_device_kernel kernel, const tern_cuda_limits *limits, const tern_cuda_weights *w,
                             const tern_device_product *product, char *why, size_t why_bytes) {
    const int wish = kernel == TERN_DEVICE_KERNEL_TILED    ? tiled_wish(limits, w, product->m)
                     : kernel == TERN_DEVICE_KERNEL_DECODE ? decode_wish(limits, w, product)
                     : kernel == TERN_DEVICE_KERNEL_MMA    ? mma_wish(limits, w, product)
                     : kernel != TERN_DEVICE_KERNEL_WGMMA  ? 1
                     : product->x_type == TERN_I8          ? wgmma_wish(limits, w, product->m)
                                                           : wgmma_half_wish(limits, w, product->m);
    if (tern_cuda_fits(kernel, wish, limits, w, product, why, why_bytes)) return wish;
    /* Shapes grow: the next smaller one that a small device has room for. */
    const int grow = kernel == TERN_DEVICE_KERNEL_MMA || kernel == TERN_DEVICE_KERNEL_DECODE;
    for (int v = wish - 1; v > 1 && grow; v--)
        if (tern_cuda_fits(kernel, v, limits, w, product, why, why_bytes)) return v;
    for (int v = 1; v <= tern_cuda_variants(kernel); v++)
        if (tern_cuda_fits(kernel, v, limits, w, product, why, why_bytes)) return v;
    return 0;
}

/* Up to so many rows cuda-decode is faster than cuda-mma: int8 has one more block for each 32 of them, halves for each
 * 16. */
static size_t decode_rows(tern_dtype x_type) { return x_type == TERN_I8 ? 8 : x_type == TERN_F32 ? 64 : 16; }

/* 9 to 64 rows of int8: where cuda-few was faster on an H200, of what was measured (lab/cuda-few.md). */
static int few_wins(const tern_cuda_limits *limits, const tern_cuda_weights *w, const tern_device_product *product) {
    const int sm = limits->multiprocessors;
    return product->x_type == TERN_I8 && product->m > 8 && w->row_tiles >= sm &&
           w->row_tiles <= (product->m <= 32 ? 8 : 2) * sm;
}

/* The digits of t5 take so long that cuda-decode keeps up to 16 rows of halves (lab/cuda-wgmma.md). */
static int suits_wgmma(const tern_cuda_weights *w, const tern_device_product *product) {
    return product->x_type != TERN_F32 && product->m > (product->x_type != TERN_I8 && w->t5 ? 16 : 8);
}

void tern_cuda_choose(tern_device_kernel *kernel, int *variant, const tern_cuda_limits *limits,
                      const tern_cuda_weights *w, const tern_device_product *product) {
    char why[160];
    tern_device_kernel order[5];
    int count = 0;
    const int is_decoded = product->x_type == TERN_I8 || !w->exponents; /* else what is left is cuda-plain */
    const int many = !is_decoded || product->m > decode_rows(product->x_type);
    if (few_wins(limits, w, product)) order[count++] = TERN_DEVICE_KERNEL_FEW;
    if (suits_wgmma(w, product)) order[count++] = TERN_DEVICE_KERNEL_WGMMA;
    if (many) order[count++] = TERN_DEVICE_KERNEL_MMA;
    order[count++] = TERN_DEVICE_KERNEL_DECODE;
    order[count++] = TERN_DEVICE_KERNEL_TILED;
    for (int i = 0; i < count; i++) {
        *kernel = order[i];
        *variant = tern_cuda_choose_variant(*kernel, limits, w, product, why, sizeof why);
        if (*variant) return;
    }
    *kernel = TERN_DEVICE_KERNEL_PLAIN;
    *variant = 1;
}

int tern_cuda_pick(tern_device_product *product, tern_device_kernel pinned, const tern_cuda_measured *measured,
                   const tern_cuda_limits *limits, const tern_cuda_weights *w, char *why, size_t why_bytes) {
    if (pinned != TERN_DEVICE_KERNEL_AUTO) {
        product->kernel = pinned;
        product->variant = tern_cuda_choose_variant(pinned, limits, w, product, why, why_bytes);
        return product->variant != 0;
    }
    const int was_measured =
        measured && measured->choose &&
        measured->choose(&product->kernel, &product->variant, measured->table, limits, w, product);
    if (!was_measured) tern_cuda_choose(&product->kernel, &product->variant, limits, w, product);
    return 1;
}
