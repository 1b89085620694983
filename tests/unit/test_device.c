/* What GPUs need of the host, tested where there is none: the layout of tiles, which kernel takes a product, loading,
 * and every refusal. What runs on a GPU: tests/gpu. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h> /* needs the headers above */

#include "base/random.h"
#include "cuda/few_plan.h"
#include "cuda/launch_shapes.h"
#include "cuda/load_backend.h"
#include "cuda/pinned_kernel.h"
#include "cuda/tiles.h"
#include "tern/tern.h"

/* ---- layout ---------------------------------------------------------------------------------------------------- */

static void check_tiles(size_t rows, size_t cols, int t5) {
    const size_t tiles = (cols + tern_tile_cols(t5) - 1) / tern_tile_cols(t5), padded = tiles * tern_tile_cols(t5);
    int8_t *trits = malloc(rows * cols);
    uint8_t *packed = malloc(tiles * TERN_TILE_BYTES);
    for (size_t i = 0; i < rows * cols; i++) trits[i] = tern_random_trit(rows + cols, i);
    tern_tiles_pack(packed, trits, cols, rows, cols, t5);
    for (size_t r = 0; r < TERN_TILE_ROWS; r++)
        for (size_t c = 0; c < padded; c++)
            assert_int_equal(tern_tiles_trit(packed, r, c, t5), r < rows && c < cols ? trits[r * cols + c] : 0);
    free(packed);
    free(trits);
}

static void test_tiles(void **state) {
    (void)state;
    static const size_t cols[] = {1, 3, 16, 127, 128, 129, 160, 161, 500};
    for (size_t i = 0; i < sizeof cols / sizeof *cols; i++)
        for (size_t rows = 1; rows <= TERN_TILE_ROWS; rows += 5)
            for (int t5 = 0; t5 < 2; t5++) check_tiles(rows, cols[i], t5);
}

/* The layouts are as dense as the packings, but for padding. */
static void test_density(void **state) {
    (void)state;
    assert_int_equal(tern_tile_cols(0) * TERN_TILE_ROWS / 4, TERN_TILE_BYTES);
    assert_int_equal(tern_tile_cols(1) * TERN_TILE_ROWS / 5, TERN_TILE_BYTES);
}

/* ---- which kernel ---------------------------------------------------------------------------------------------- */

static const tern_cuda_limits hopper = {9, 0, 132, 232448}, ampere = {8, 6, 84, 101376}, turing = {7, 5, 40, 65536},
                              blackwell = {12, 0, 170, 101376}, orin = {8, 7, 16, 48 << 10};

static tern_cuda_weights weights(int rows, int cols, int t5) {
    const int tile_cols = (int)tern_tile_cols(t5);
    return (tern_cuda_weights){.rows = rows,
                               .cols = cols,
                               .row_tiles = (rows + 15) / 16,
                               .k_tiles = (cols + tile_cols - 1) / tile_cols,
                               .t5 = t5};
}

static tern_device_kernel chosen(const tern_cuda_limits *limits, const tern_cuda_weights *w, tern_dtype type,
                                 size_t m) {
    const tern_device_product p = {.x_type = type, .m = m};
    tern_device_kernel kernel;
    int variant;
    char why[160];
    tern_cuda_choose(&kernel, &variant, limits, w, &p);
    if (!tern_cuda_fits(kernel, variant, limits, w, &p, why, sizeof why)) fail_msg("chosen, but: %s", why);
    return kernel;
}

static void test_choice(void **state) {
    (void)state;
    const tern_cuda_weights w = weights(2560, 6912, 0), t5 = weights(2560, 6912, 1);
    assert_int_equal(chosen(&hopper, &w, TERN_I8, 1), TERN_DEVICE_KERNEL_DECODE);
    assert_int_equal(chosen(&hopper, &w, TERN_I8, 9), TERN_DEVICE_KERNEL_FEW);
    assert_int_equal(chosen(&hopper, &w, TERN_I8, 65), TERN_DEVICE_KERNEL_WGMMA);
    assert_int_equal(chosen(&hopper, &w, TERN_F16, 8), TERN_DEVICE_KERNEL_DECODE);
    assert_int_equal(chosen(&hopper, &w, TERN_F16, 9), TERN_DEVICE_KERNEL_WGMMA);
    assert_int_equal(chosen(&hopper, &t5, TERN_BF16, 16), TERN_DEVICE_KERNEL_DECODE);
    assert_int_equal(chosen(&hopper, &t5, TERN_BF16, 17), TERN_DEVICE_KERNEL_WGMMA);
    assert_int_equal(chosen(&hopper, &w, TERN_F16, 600), TERN_DEVICE_KERNEL_WGMMA);
    assert_int_equal(chosen(&ampere, &w, TERN_F16, 9), TERN_DEVICE_KERNEL_DECODE);
    assert_int_equal(chosen(&ampere, &w, TERN_F16, 600), TERN_DEVICE_KERNEL_MMA);
    assert_int_equal(chosen(&hopper, &w, TERN_F32, 33), TERN_DEVICE_KERNEL_DECODE);
    assert_int_equal(chosen(&hopper, &w, TERN_F32, 300), TERN_DEVICE_KERNEL_MMA);
    assert_int_equal(chosen(&ampere, &w, TERN_F16, 300), TERN_DEVICE_KERNEL_MMA);
    assert_int_equal(chosen(&ampere, &w, TERN_I8, 300), TERN_DEVICE_KERNEL_MMA);
    assert_int_equal(chosen(&blackwell, &w, TERN_I8, 300), TERN_DEVICE_KERNEL_MMA);
    assert_int_equal(chosen(&turing, &w, TERN_I8, 300), TERN_DEVICE_KERNEL_TILED);
    assert_int_equal(chosen(&turing, &w, TERN_F16, 1), TERN_DEVICE_KERNEL_PLAIN);
    assert_int_equal(chosen(&orin, &w, TERN_I8, 8), TERN_DEVICE_KERNEL_DECODE);
}

/* Halves on Hopper: tiles that fill the device, columns split as long as all blocks run at once. */
static void test_shapes_of_halves(void **state) {
    static const tern_wgmma_half_shape shapes[] = TERN_WGMMA_HALF_SHAPES;
    static const struct {
        int rows, cols, t5, m, m_tile, splits;
    } wanted[] = {{2560, 2560, 0, 32, 32, 4},  {13824, 2560, 0, 32, 32, 2},   {8192, 8192, 0, 32, 32, 4},
                  {8192, 8192, 1, 32, 32, 2},  {2560, 2560, 0, 64, 32, 4},    {3840, 2560, 0, 64, 64, 4},
                  {13824, 2560, 0, 64, 64, 2}, {2560, 2560, 1, 64, 32, 4},    {8192, 8192, 1, 64, 32, 2},
                  {13824, 2560, 1, 64, 64, 2}, {13824, 2560, 0, 128, 128, 1}, {8192, 8192, 0, 128, 64, 2},
                  {2560, 2560, 0, 256, 64, 2}, {8192, 8192, 0, 512, 256, 1},  {2560, 2560, 0, 2048, 160, 1}};
    (void)state;
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        const tern_cuda_weights w = weights(wanted[i].rows, wanted[i].cols, wanted[i].t5);
        const tern_device_product p = {.x_type = TERN_BF16, .m = (size_t)wanted[i].m};
        char why[160];
        const int v = tern_cuda_choose_variant(TERN_DEVICE_KERNEL_WGMMA, &hopper, &w, &p, why, sizeof why);
        assert_in_range(v, 1, TERN_WGMMA_HALF_VARIANTS);
        assert_int_equal(shapes[v - 1].m_tile, wanted[i].m_tile);
        assert_int_equal(shapes[v - 1].splits, wanted[i].splits);
    }
}

/* Float activations with scales per group: the tensor cores from one row on, where groups are whole steps of theirs. */
static void test_choice_of_groups(void **state) {
    (void)state;
    static const int8_t exponent;
    tern_cuda_weights w = weights(2560, 6912, 0);
    w.exponents = &exponent;
    for (w.group = 4; w.group <= 320; w.group += 4) {
        const tern_device_kernel floats = w.group % 32 ? TERN_DEVICE_KERNEL_PLAIN : TERN_DEVICE_KERNEL_MMA;
        w.groups = (w.cols + w.group - 1) / w.group;
        for (size_t m = 1; m <= 1000; m += 37)
            for (int type = TERN_F32; type <= TERN_F16; type++) {
                assert_int_equal(chosen(&hopper, &w, (tern_dtype)type, m), floats);
                assert_int_equal(chosen(&ampere, &w, (tern_dtype)type, m), floats);
                assert_int_equal(chosen(&turing, &w, (tern_dtype)type, m), TERN_DEVICE_KERNEL_PLAIN);
            }
        assert_int_equal(chosen(&hopper, &w, TERN_I8, 1), TERN_DEVICE_KERNEL_TILED);
    }
}

/* Whatever the shape, what is chosen fits: `chosen` looks. */
static void test_choice_always_fits(void **state) {
    (void)state;
    static const int sizes[] = {1, 15, 16, 129, 2560, 55296, 131072, 1 << 21};
    static const size_t ms[] = {1, 8, 9, 32, 64, 129, 2048, 8 * 65535 + 1, 1000000000};
    static const tern_dtype types[] = {TERN_I8, TERN_F16, TERN_BF16, TERN_F32};
    const tern_cuda_limits all[] = {
        hopper, ampere, turing, blackwell, orin, {9, 0, 132, 16 << 10}, {8, 0, 108, 166912}, {9, 0, 16, 232448}};
    for (size_t l = 0; l < sizeof all / sizeof *all; l++)
        for (int r = 0; r < 8; r++)
            for (int c = 0; c < 8; c++)
                for (int t5 = 0; t5 < 2; t5++)
                    for (size_t m = 0; m < sizeof ms / sizeof *ms; m++)
                        for (int t = 0; t < 4; t++) {
                            const tern_cuda_weights w = weights(sizes[r], sizes[c], t5);
                            chosen(&all[l], &w, types[t], ms[m]);
                        }
}

static int measured_tiled(tern_device_kernel *kernel, int *variant, const void *table, const tern_cuda_limits *limits,
                          const tern_cuda_weights *w, const tern_device_product *product) {
    (void)table, (void)limits, (void)w;
    *kernel = TERN_DEVICE_KERNEL_TILED;
    *variant = 2;
    return product->m == 7;
}

/* A pinned kernel goes before what was measured, that before the rule; and it is refused, never replaced. */
static void test_pick(void **state) {
    (void)state;
    const tern_cuda_measured measured = {measured_tiled, NULL}, none = {NULL, NULL};
    const tern_cuda_weights w = weights(300, 200, 0);
    tern_device_product p = {.x_type = TERN_I8, .m = 7};
    char why[160] = "";
    assert_true(tern_cuda_pick(&p, TERN_DEVICE_KERNEL_PLAIN, &measured, &hopper, &w, why, sizeof why));
    assert_int_equal(p.kernel, TERN_DEVICE_KERNEL_PLAIN);
    assert_int_equal(p.variant, 1);
    assert_true(tern_cuda_pick(&p, TERN_DEVICE_KERNEL_AUTO, &measured, &hopper, &w, why, sizeof why));
    assert_int_equal(p.kernel, TERN_DEVICE_KERNEL_TILED);
    assert_int_equal(p.variant, 2);
    assert_true(tern_cuda_pick(&p, TERN_DEVICE_KERNEL_AUTO, &none, &hopper, &w, why, sizeof why));
    assert_int_equal(p.kernel, chosen(&hopper, &w, TERN_I8, 7));
    p.m = 8; /* of which the table has nothing */
    assert_true(tern_cuda_pick(&p, TERN_DEVICE_KERNEL_AUTO, &measured, &hopper, &w, why, sizeof why));
    assert_int_equal(p.kernel, chosen(&hopper, &w, TERN_I8, 8));
    assert_false(tern_cuda_pick(&p, TERN_DEVICE_KERNEL_WGMMA, &measured, &ampere, &w, why, sizeof why));
    assert_non_null(strstr(why, "takes compute capability 9.0, this device has 8.6"));
    p.x_type = TERN_F32;
    assert_false(tern_cuda_pick(&p, TERN_DEVICE_KERNEL_WGMMA, NULL, &hopper, &w, why, sizeof why));
    assert_non_null(strstr(why, "it takes activations in int8 and halves"));
}

/* A graph is looked at with the most rows that it is made for; passes of fewer find a variant too. */
static void test_pinned_fits_fewer_rows(void **state) {
    (void)state;
    static const int sizes[] = {1, 129, 2560, 131072};
    const tern_cuda_limits all[] = {hopper, ampere, turing, orin, {9, 0, 16, 232448}};
    for (size_t l = 0; l < sizeof all / sizeof *all; l++)
        for (int c = 0; c < 32; c++)
            for (int type = 0; type < 4; type++)
                for (int k = 1; k < TERN_DEVICE_KERNEL_COUNT; k++) {
                    const tern_cuda_weights w = weights(sizes[c % 4], sizes[c / 4 % 4], c / 16);
                    int fits = 0;
                    for (size_t m = 8 * 65535; m; m /= 2) {
                        tern_device_product p = {.x_type = (tern_dtype)type, .m = m};
                        char why[160] = "";
                        const int now = tern_cuda_pick(&p, (tern_device_kernel)k, NULL, &all[l], &w, why, sizeof why);
                        if (fits && !now)
                            fail_msg("%s fits more rows than %zu: %s", tern_cuda_kernel_name(p.kernel), m, why);
                        fits = now;
                    }
                }
}

/* ---- how decode_ring.cu cuts a product ------------------------------------------------------------------------- */

/* The units of one block, warp by warp as the kernel walks them: each is counted in units[row][unit], and the tiles
 * that a warp sums for a row are found again where `total` of the kernel looks. */
static void walk_block(const tern_ring_plan *p, int rows, uint8_t *units) {
    const int all = rows * p->row_units, run = (all + TERN_RING_WARPS - 1) / TERN_RING_WARPS;
    int *sums = calloc((size_t)(TERN_RING_WARPS * p->touched), sizeof *sums);
    for (int warp = 0; warp < TERN_RING_WARPS; warp++) {
        const int first = warp * run < all ? warp * run : all;
        const int row = p->row_units > 1 ? (int)((uint64_t)first * p->row_units_inverse >> 32) : first;
        assert_int_equal(row, first / p->row_units);
        for (int i = first; i < first + run && i < all; i++) {
            const int touched = i / p->row_units - row;
            assert_true(touched < p->touched);
            units[i]++;
            sums[warp * p->touched + touched]++;
        }
    }
    for (int row = 0; row < rows; row++) {
        const int first = row * p->row_units / run, last = ((row + 1) * p->row_units - 1) / run;
        int sum = sums[first * p->touched + row - first * run / p->row_units];
        for (int warp = first + 1; warp <= last; warp++) sum += sums[warp * p->touched];
        assert_int_equal(sum, p->row_units);
    }
    free(sums);
}

static void check_plan(int row_tiles, int k_tiles, int t5, int variant, size_t m, int value_bytes) {
    const tern_cuda_weights w = {.row_tiles = row_tiles, .k_tiles = k_tiles, .t5 = t5};
    tern_ring_plan p;
    tern_ring_plan_make(&p, variant, 132, &w, m, value_bytes);
    assert_int_equal(p.groups * p.rows + p.more, row_tiles);
    assert_true(p.splits * p.row_units * TERN_RING_UNIT >= k_tiles && p.rows > 0);
    assert_true(p.x_pitch >= p.row_units * TERN_RING_UNIT * (int)tern_tile_cols(t5) * value_bytes + TERN_RING_GAP);
    assert_true(p.spans - p.x_sums >= 4 * (value_bytes > 1 ? TERN_RING_WARPS : (int)m));
    assert_int_equal(p.x_pitch % 128, TERN_RING_GAP);
    assert_true(p.x % 16 == 0 && p.spans % 16 == 0 && p.barrier % 8 == 0 && p.bytes >= p.barrier + 8);
    for (int rows = p.rows; rows <= p.rows + (p.more > 0); rows++) {
        uint8_t *units = calloc((size_t)(rows * p.row_units), 1);
        walk_block(&p, rows, units);
        for (int i = 0; i < rows * p.row_units; i++) assert_int_equal(units[i], 1);
        free(units);
        const int outputs = rows * TERN_TILE_ROWS * (m > 1 ? TERN_RING_MAX_M : 1),
                  each = (outputs + p.splits - 1) / p.splits;
        assert_true(rows * TERN_RING_SPAN_BYTES <= p.partial - p.spans);
        assert_true(p.splits == 1 || p.splits * each * 4 <= p.barrier - p.inbox);
    }
}

static void test_ring_plan(void **state) {
    (void)state;
    static const int rows[] = {1, 2, 131, 132, 133, 160, 320, 512, 864, 3456},
                     cols[] = {1, 2, 3, 4, 5, 20, 52, 54, 173, 216};
    for (int r = 0; r < 10; r++)
        for (int c = 0; c < 10; c++)
            for (int v = TERN_DECODE_VARIANTS - TERN_RING_VARIANTS + 1; v <= TERN_DECODE_VARIANTS; v++)
                for (int i = 0; i < 3; i++)
                    check_plan(rows[r], cols[c], (r + c) % 2, v, i == 2 ? TERN_RING_MAX_M : 1, 1 + i % 2);
}

/* Which launch shape a product gets on Hopper: the last ones where they were faster. */
static int variant_for(int rows, int cols, int t5, tern_dtype x_type, size_t m) {
    const tern_cuda_weights w = weights(rows, cols, t5);
    const tern_device_product p = {.x_type = x_type, .m = m};
    char why[160];
    return tern_cuda_choose_variant(TERN_DEVICE_KERNEL_DECODE, &hopper, &w, &p, why, sizeof why);
}

static int variant_of(int rows, int cols, int t5, size_t m) { return variant_for(rows, cols, t5, TERN_I8, m); }

/* A block of 12 warps has no room in 48 KB: the next smaller one that has. */
static void test_small_device_decodes(void **state) {
    (void)state;
    const tern_cuda_limits small = {9, 0, 132, 48 << 10};
    const tern_cuda_weights w = weights(5120, 5120, 1);
    const tern_device_product p = {.x_type = TERN_I8, .m = 8};
    char why[160];
    assert_int_equal(tern_cuda_choose_variant(TERN_DEVICE_KERNEL_DECODE, &small, &w, &p, why, sizeof why), 4);
}

static void test_ring_choice(void **state) {
    (void)state;
    const int first = TERN_DECODE_VARIANTS - TERN_RING_VARIANTS + 1;
    assert_true(variant_of(2560, 2560, 0, 1) < first);
    assert_true(variant_of(8192, 8192, 0, 1) < first);
    assert_int_equal(variant_of(5120, 27648, 0, 1), first + 2);
    assert_int_equal(variant_of(5120, 27648, 1, 1), first + 1);
    assert_int_equal(variant_of(55296, 5120, 1, 1), first);
    assert_int_equal(variant_of(2560, 2560, 0, 8), 5); /* two rows of tiles, 16 warps */
    assert_int_equal(variant_of(5120, 27648, 0, 2), first + 1);
    assert_int_equal(variant_of(5120, 27648, 0, 8), 6); /* three, 12 warps */
    assert_int_equal(variant_of(5120, 27648, 1, 4), first + 1);
    assert_int_equal(variant_of(5120, 27648, 1, 8), 6);
    assert_int_equal(variant_of(5120, 13824, 0, 1), 6);
    assert_int_equal(variant_of(5120, 5120, 0, 1), 4);
    assert_int_equal(variant_of(5120, 5120, 1, 1), 6);
    assert_int_equal(variant_of(4208, 5120, 1, 1), 5);
    assert_int_equal(variant_of(4224, 5120, 1, 1), 6);
    assert_int_equal(variant_for(6336, 5120, 0, TERN_F16, 1), 6);
    assert_int_equal(variant_for(6352, 5120, 0, TERN_F16, 1), 4);
    assert_int_equal(variant_of(13824, 2560, 0, 2), 3);
    assert_int_equal(variant_of(8192, 8192, 0, 8), 4);
    assert_int_equal(variant_of(55296, 5120, 0, 8), first);
    assert_true(variant_of(55296, 131072, 0, 8) < first); /* their activations do not fit */
    assert_true(variant_of(2560, 2560, 0, 9) < first);
    assert_true(variant_for(8192, 8192, 0, TERN_F16, 1) < first);
    assert_int_equal(variant_for(5120, 27648, 0, TERN_F16, 1), first + 1);
    assert_int_equal(variant_for(55296, 5120, 1, TERN_BF16, 1), first);
    assert_true(variant_for(55296, 5120, 0, TERN_F16, 2) < first);
    assert_true(variant_for(55296, 5120, 0, TERN_F32, 1) < first);
    assert_true(variant_for(55296, 131072, 0, TERN_F16, 1) < first);
}

/* ---- how few.cu cuts a product ---------------------------------------------------------------------------------- */

/* The tiles of a block, warp by warp as the kernel walks them: each is counted in tiles[row][column]. */
static void walk_few_block(const tern_few_plan *p, int rows, int cols, uint8_t *tiles) {
    const int sets = TERN_FEW_WARPS / TERN_FEW_TEAM >> p->parts_log2, parts = 1 << p->parts_log2;
    for (int warp = 0; warp < TERN_FEW_WARPS; warp++) {
        const int team = warp / TERN_FEW_TEAM, set = team >> p->parts_log2, units = (rows + 3) / TERN_FEW_TEAM;
        const int rounds = (units - set + sets - 1) / sets;
        assert_true(rounds <= 1 || !p->meet);
        for (int round = 0; round < rounds; round++) {
            const int row = (set + round * sets) * TERN_FEW_TEAM + warp % TERN_FEW_TEAM;
            for (int k = team & (parts - 1); k < cols && row < rows; k += parts) tiles[row * cols + k]++;
        }
    }
}

static int check_few_plan(int row_tiles, int k_tiles, int t5, int m) {
    const tern_cuda_weights w = {.row_tiles = row_tiles, .k_tiles = k_tiles, .t5 = t5};
    const int pieces = m <= 8 ? 1 : m <= 16 ? 2 : m <= 32 ? 4 : 8;
    tern_few_plan p;
    if (!tern_few_plan_make(&p, &hopper, &w, (size_t)m)) return 0;
    const int most = p.rows + (p.more > 0), steps = t5 ? 5 : 4;
    assert_int_equal(p.groups * p.rows + p.more, row_tiles);
    assert_true(p.rows > 0 && p.more < p.groups && TERN_FEW_BLOCKS * p.groups <= hopper.multiprocessors);
    assert_true((p.depth == 4 || p.depth == 5 || p.depth == 8) && p.slots * TERN_FEW_BLOCKS >= most * pieces);
    const int inbox_bytes = (TERN_FEW_BLOCKS << p.parts_log2) * p.slots * 512;
    assert_true(p.x >= TERN_FEW_WARPS * p.depth * TERN_TILE_BYTES && p.x % 1024 == 0 && p.inbox % 16 == 0);
    assert_true(p.barriers >= p.inbox + inbox_bytes && p.barriers % 8 == 0);
    assert_true(p.bytes >= p.barriers + 2 * 8 && (size_t)p.bytes <= hopper.shared_bytes);
    for (int split = 0; split < TERN_FEW_BLOCKS; split++) {
        const int first = k_tiles * split / TERN_FEW_BLOCKS, cols = k_tiles * (split + 1) / TERN_FEW_BLOCKS - first;
        const int boxes = (first * steps % 4 + cols * steps + 3) / 4, x_end = p.x + boxes * 1024 * pieces;
        assert_true(x_end <= p.barriers && (p.meet ? p.inbox == 0 : p.inbox >= x_end));
        for (int rows = p.rows; rows <= most; rows++) {
            uint8_t *tiles = calloc((size_t)(rows * cols + 1), 1);
            walk_few_block(&p, rows, cols, tiles);
            for (int i = 0; i < rows * cols; i++) assert_int_equal(tiles[i], 1);
            free(tiles);
        }
    }
    return 1;
}

static void test_few_plan(void **state) {
    (void)state;
    static const int rows[] = {1, 2, 3, 5, 131, 132, 133, 160, 240, 320, 512, 864, 3456},
                     cols[] = {1, 2, 3, 4, 5, 16, 20, 52, 54, 64, 173, 216};
    int fit = 0;
    for (int r = 0; r < 13; r++)
        for (int c = 0; c < 12; c++)
            for (int m = 2; m <= TERN_FEW_MAX_M; m += 3) fit += check_few_plan(rows[r], cols[c], (r + c + m) % 2, m);
    assert_true(fit > 1000);
    assert_true(check_few_plan(512, 64, 0, 32) && !check_few_plan(512, 64, 0, 33));
}

/* Where it was faster, and its shared memory has room. */
static void test_few_choice(void **state) {
    (void)state;
    const tern_cuda_weights square = weights(8192, 8192, 0), dense = weights(8192, 8192, 1),
                            wide = weights(55296, 5120, 0), deep = weights(5120, 27648, 0);
    assert_int_equal(chosen(&hopper, &square, TERN_I8, 4), TERN_DEVICE_KERNEL_DECODE);
    assert_int_equal(chosen(&hopper, &square, TERN_I8, 8), TERN_DEVICE_KERNEL_DECODE);
    assert_int_equal(chosen(&hopper, &square, TERN_I8, 9), TERN_DEVICE_KERNEL_FEW);
    assert_int_equal(chosen(&hopper, &dense, TERN_I8, 8), TERN_DEVICE_KERNEL_DECODE);
    assert_int_equal(chosen(&hopper, &square, TERN_I8, 32), TERN_DEVICE_KERNEL_FEW);
    assert_int_equal(chosen(&hopper, &dense, TERN_I8, 32), TERN_DEVICE_KERNEL_FEW);
    assert_int_equal(chosen(&hopper, &square, TERN_I8, 33), TERN_DEVICE_KERNEL_WGMMA);
    assert_int_equal(chosen(&hopper, &wide, TERN_I8, 8), TERN_DEVICE_KERNEL_DECODE);
    assert_int_equal(chosen(&hopper, &deep, TERN_I8, 8), TERN_DEVICE_KERNEL_DECODE);
    assert_int_equal(chosen(&hopper, &deep, TERN_I8, 32), TERN_DEVICE_KERNEL_WGMMA);
    assert_int_equal(chosen(&ampere, &square, TERN_I8, 8), TERN_DEVICE_KERNEL_DECODE);
    assert_int_equal(chosen(&hopper, &square, TERN_F16, 8), TERN_DEVICE_KERNEL_DECODE);
}

static void test_reasons(void **state) {
    (void)state;
    char why[160];
    tern_cuda_weights w = weights(64, 256, 0);
    tern_device_product p = {.x_type = TERN_I8, .m = 64};
    assert_false(tern_cuda_fits(TERN_DEVICE_KERNEL_WGMMA, 1, &ampere, &w, &p, why, sizeof why));
    assert_non_null(strstr(why, "9.0"));
    assert_false(tern_cuda_fits(TERN_DEVICE_KERNEL_FEW, 1, &ampere, &w, &p, why, sizeof why));
    assert_non_null(strstr(why, "9.0"));
    p.m = 65;
    assert_false(tern_cuda_fits(TERN_DEVICE_KERNEL_FEW, 1, &hopper, &w, &p, why, sizeof why));
    assert_non_null(strstr(why, "up to 64 rows"));
    p.m = 64;
    assert_false(tern_cuda_fits(TERN_DEVICE_KERNEL_DECODE, 1, &turing, &w, &p, why, sizeof why));
    assert_non_null(strstr(why, "8.0 or newer, this device has 7.5"));
    assert_false(tern_cuda_fits(TERN_DEVICE_KERNEL_MMA, 1, &orin, &w, &p, why, sizeof why));
    assert_non_null(strstr(why, "shared memory"));
    assert_false(tern_cuda_fits(TERN_DEVICE_KERNEL_MMA, 4, &ampere, &w, &p, why, sizeof why));
    assert_non_null(strstr(why, "this type"));
    p.x_type = TERN_F16;
    assert_true(tern_cuda_fits(TERN_DEVICE_KERNEL_MMA, 4, &ampere, &w, &p, why, sizeof why));
    assert_true(tern_cuda_fits(TERN_DEVICE_KERNEL_WGMMA, TERN_WGMMA_HALF_VARIANTS, &hopper, &w, &p, why, sizeof why));
    assert_false(
        tern_cuda_fits(TERN_DEVICE_KERNEL_WGMMA, TERN_WGMMA_HALF_VARIANTS + 1, &hopper, &w, &p, why, sizeof why));
    assert_non_null(strstr(why, "this type"));
    p.x_type = TERN_F32;
    assert_false(tern_cuda_fits(TERN_DEVICE_KERNEL_WGMMA, 1, &hopper, &w, &p, why, sizeof why));
    assert_non_null(strstr(why, "halves"));
    p.x_type = TERN_F16;
    assert_false(tern_cuda_fits(TERN_DEVICE_KERNEL_TILED, 1, &turing, &w, &p, why, sizeof why));
    assert_non_null(strstr(why, "int8"));
    p.x_type = TERN_I8;
    const int8_t exponent = 0;
    w.exponents = &exponent;
    assert_false(tern_cuda_fits(TERN_DEVICE_KERNEL_DECODE, 1, &ampere, &w, &p, why, sizeof why));
    assert_non_null(strstr(why, "cuda-tiled"));
    assert_true(tern_cuda_fits(TERN_DEVICE_KERNEL_PLAIN, 1, &turing, &w, &p, why, sizeof why));
    w.group = 48;
    assert_false(tern_cuda_fits(TERN_DEVICE_KERNEL_MMA, 2, &ampere, &w, &p, why, sizeof why));
    assert_non_null(strstr(why, "32, 64"));
    w.group = 64;
    assert_true(tern_cuda_fits(TERN_DEVICE_KERNEL_MMA, 2, &ampere, &w, &p, why, sizeof why));
    assert_true(tern_cuda_fits(TERN_DEVICE_KERNEL_TILED, 1, &turing, &w, &p, why, sizeof why));
    assert_false(tern_cuda_fits(TERN_DEVICE_KERNEL_TILED, TERN_TILED_ROW, &turing, &w, &p, why, sizeof why));
    assert_non_null(strstr(why, "up to 8 rows"));
    p.m = 8;
    assert_true(tern_cuda_fits(TERN_DEVICE_KERNEL_TILED, TERN_TILED_ROW, &turing, &w, &p, why, sizeof why));
    w.group = 96;
    assert_false(tern_cuda_fits(TERN_DEVICE_KERNEL_TILED, TERN_TILED_ROW, &turing, &w, &p, why, sizeof why));
}

/* ---- loading --------------------------------------------------------------------------------------------------- */

static void test_no_library(void **state) {
    (void)state;
    const tern_cuda_backend *table = NULL;
    tern_error err;
    assert_int_equal(tern_cuda_load_from(&table, "/nonexistent/libtern_cuda.so", &err), TERN_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "no GPU: /nonexistent/libtern_cuda.so"));
    /* a library, but none of ours */
    assert_int_equal(tern_cuda_load_from(&table, "libm.so.6", &err), TERN_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "is not the GPU library of this version"));
    assert_null(table);
}

/* ---- the environment, and refusals that take no GPU ------------------------------------------------------------ */

/* TERN_KERNEL names a kernel of a GPU: neither products nor quantizers nor devices go on without it. */
static void check_pinned_without_gpu(void) {
    static const char *const devices[] = {"auto", "cpu", "cuda"};
    const uint8_t packed[1] = {0};
    const float scale = 1, x = 1;
    const tern_matrix_desc desc = {.rows = 1,
                                   .cols = 1,
                                   .packing = TERN_PACK_T2,
                                   .packed = packed,
                                   .packed_bytes = 1,
                                   .scales = &scale,
                                   .scale_count = 1};
    tern_matrix *matrix = NULL;
    tern_error err;
    int8_t q;
    float inv_scale;
    int device;
    setenv("TERN_KERNEL", "cuda-mma", 1);
    assert_int_equal(tern_matrix_create(&matrix, &desc, &err), TERN_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "TERN_KERNEL=cuda-mma is a kernel of a GPU: no GPU: "));
    assert_non_null(strstr(err.message, "; unset it to run on the CPU"));
    assert_int_equal(tern_quantize_activations(&q, &inv_scale, &x, 1, 1, &err), TERN_E_UNSUPPORTED);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(tern_device_find(&device, devices[i], &err), TERN_E_UNSUPPORTED);
        assert_non_null(strstr(err.message, "TERN_KERNEL=cuda-mma"));
    }
    unsetenv("TERN_KERNEL");
    assert_int_equal(tern_matrix_create(&matrix, &desc, &err), TERN_OK);
    tern_matrix_free(&matrix);
}

static void test_environment(void **state) {
    (void)state;
    tern_error err;
    tern_tier tier;
    int device = 7;
    setenv("TERN_DEVICE", "cpu", 1);
    assert_int_equal(tern_device_select(&device, &err), TERN_OK);
    assert_int_equal(device, TERN_DEVICE_CPU);
    static const char *const wrong[] = {"gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:99999999999999999999"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        setenv("TERN_DEVICE", wrong[i], 1);
        assert_int_equal(tern_device_select(&device, &err), TERN_E_ARGUMENT);
        assert_non_null(strstr(err.message, "auto, cpu, cuda, cuda:N"));
    }
    setenv("TERN_DEVICE", "cuda:1023", 1);
    assert_int_equal(tern_device_select(&device, &err), TERN_E_UNSUPPORTED);
    unsetenv("TERN_DEVICE");
    assert_int_equal(tern_device_select(&device, &err), TERN_OK);

    tern_device_kernel kernel;
    int count;
    const int has_gpu = tern_device_count(&count, &err) == TERN_OK;
    for (int k = 0; k < TERN_DEVICE_KERNEL_COUNT; k++) { /* leaves the tier free */
        setenv("TERN_KERNEL", tern_device_kernel_name((tern_device_kernel)k), 1);
        assert_int_equal(tern_pinned_device_kernel(&kernel, &err), TERN_OK);
        assert_int_equal(kernel, k);
        assert_int_equal(tern_tier_select(&tier, &err), has_gpu || !k ? TERN_OK : TERN_E_UNSUPPORTED);
    }
    if (!has_gpu) check_pinned_without_gpu();
    setenv("TERN_KERNEL", "scalar", 1); /* leaves the kernel free */
    assert_int_equal(tern_pinned_device_kernel(&kernel, &err), TERN_OK);
    assert_int_equal(kernel, TERN_DEVICE_KERNEL_AUTO);
    setenv("TERN_KERNEL", "cuda-fast", 1);
    assert_int_equal(tern_tier_select(&tier, &err), TERN_E_ARGUMENT);
    const char *valid = strstr(err.message, "TERN_KERNEL=cuda-fast is unknown; valid: auto, scalar, avx2, ");
    assert_non_null(valid);
    assert_non_null(strstr(valid, ", neondot, cuda-plain, "));
    const char *last = tern_device_kernel_name((tern_device_kernel)(TERN_DEVICE_KERNEL_COUNT - 1));
    assert_string_equal(valid + strlen(valid) - strlen(last), last);
    tern_device *opened = NULL;
    assert_int_equal(tern_device_open(&opened, NULL, &err), TERN_E_ARGUMENT);
    unsetenv("TERN_KERNEL");
}

static void test_arguments(void **state) {
    (void)state;
    tern_error err;
    tern_device *device = NULL;
    tern_device_matrix *matrix = NULL;
    const tern_device_product product = {.m = 1};
    assert_int_equal(tern_device_count(NULL, &err), TERN_E_ARGUMENT);
    assert_int_equal(tern_device_describe(NULL, 0, &err), TERN_E_ARGUMENT);
    assert_int_equal(tern_device_open(NULL, NULL, &err), TERN_E_ARGUMENT);
    assert_int_equal(tern_device_matmul(NULL, &product, &err), TERN_E_ARGUMENT);
    assert_int_equal(tern_device_matrix_create(&matrix, NULL, NULL, &err), TERN_E_ARGUMENT);
    assert_int_equal(tern_device_quantize(NULL, NULL, &err), TERN_E_ARGUMENT);
    assert_int_equal(tern_device_synchronize(NULL, &err), TERN_E_ARGUMENT);
    tern_device_tuned tuned;
    tern_device_tuning_info info;
    tern_device_kernel kernel;
    int variant;
    assert_int_equal(tern_device_choose(&kernel, &variant, NULL, &product, &err), TERN_E_ARGUMENT);
    assert_int_equal(tern_device_tune(NULL, NULL, TERN_I8, 1, &err), TERN_E_ARGUMENT);
    assert_int_equal(tern_device_tune(&tuned, NULL, TERN_I8, 1, &err), TERN_E_ARGUMENT);
    assert_int_equal(tern_device_tuning_describe(&info, NULL, &err), TERN_E_ARGUMENT);
    tern_device_close(NULL);
    tern_device_close(&device);
    tern_device_matrix_free(NULL);
    tern_device_matrix_free(&matrix);
    tern_device_free(NULL, NULL);
    assert_int_equal(tern_device_matrix_bytes(NULL), 0);
    assert_string_equal(tern_device_kernel_name(TERN_DEVICE_KERNEL_WGMMA), "cuda-wgmma");
    assert_null(tern_device_kernel_name(TERN_DEVICE_KERNEL_COUNT));
    assert_int_equal(tern_device_variants(TERN_DEVICE_KERNEL_PLAIN), 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tiles),
        cmocka_unit_test(test_density),
        cmocka_unit_test(test_choice),
        cmocka_unit_test(test_shapes_of_halves),
        cmocka_unit_test(test_choice_always_fits),
        cmocka_unit_test(test_choice_of_groups),
        cmocka_unit_test(test_pick),
        cmocka_unit_test(test_pinned_fits_fewer_rows),
        cmocka_unit_test(test_ring_plan),
        cmocka_unit_test(test_ring_choice),
        cmocka_unit_test(test_small_device_decodes),
        cmocka_unit_test(test_few_plan),
        cmocka_unit_test(test_few_choice),
        cmocka_unit_test(test_reasons),
        cmocka_unit_test(test_no_library),
        cmocka_unit_test(test_environment),
        cmocka_unit_test(test_arguments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
