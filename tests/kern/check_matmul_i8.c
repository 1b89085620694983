/* Tiling of activations and the product of tiles with unpacked panels, together: the tile form is theirs alone. */
#include <stdlib.h>
#include <string.h>

#include "kern_test.h"
#include "panel_case.h"

typedef struct blocks {
    size_t n_tiles, quads, tile_stride, codes_stride, c_count;
    int8_t *tiles;
    uint8_t *codes;
    int32_t *c;
} blocks;

static blocks make_blocks(kern_test *t, const panel_case *p, const acts_case *a) {
    const tern_kernels *kern = t->tier;
    const size_t rows = kern->tile_rows;
    blocks b = {.n_tiles = (a->m + rows - 1) / rows, .quads = a->ld / TERN_QUAD, .tile_stride = rows * a->ld};
    b.codes_stride = a->ld * p->kernels->layout.panel_rows;
    b.c_count = b.n_tiles * rows * kern->tile_panels * p->kernels->layout.panel_rows;
    b.tiles = fenced(b.n_tiles * b.tile_stride);
    memset(b.tiles, POISON, b.n_tiles * b.tile_stride);
    for (size_t i = 0; i < b.n_tiles; i++) {
        const size_t first = i * rows, left = a->m - first < rows ? a->m - first : rows;
        kern->tile_acts.fn(b.tiles + i * b.tile_stride, a->x + first * a->ld, a->ld, left, a->k, a->ld);
    }
    b.codes = fenced(kern->tile_panels * b.codes_stride);
    memset(b.codes, 1, kern->tile_panels * b.codes_stride);
    for (size_t i = 0; i < p->panels; i++)
        p->kernels->unpack.fn(b.codes + i * b.codes_stride, p->packed + i * p->panel_bytes, p->blocks);
    b.c = fenced(b.c_count * sizeof *b.c);
    memset(b.c, POISON, b.c_count * sizeof *b.c);
    return b;
}

static void free_blocks(const kern_test *t, blocks *b) {
    unfence(b->tiles, b->n_tiles * b->tile_stride);
    unfence(b->codes, t->tier->tile_panels * b->codes_stride);
    unfence(b->c, b->c_count * sizeof *b->c);
}

static void compare(kern_test *t, const panel_case *p, const acts_case *a, const blocks *b) {
    const size_t width = t->tier->tile_panels * p->kernels->layout.panel_rows;
    for (size_t i = 0; i < b->c_count / width; i++)
        for (size_t n = 0; n < p->rows; n++) {
            int32_t want = i < a->m ? exact_sum(p, n, a, i, 0, a->k) + a->sums[i] : 0, got = b->c[i * width + n];
            if (got == want) continue;
            fail_kernel(t, "m %zu of %zu, row %zu, k %zu: %d, should be %d", i, a->m, n, a->k, got, want);
            return;
        }
}

static void check_unpacked(kern_test *t, size_t m, size_t k, fill trits, fill acts) {
    const tern_kernels *kern = t->tier;
    panel_case p = make_panels(t, &kern->density[TERN_DENSITY_T2], kern->tile_panels, k, trits);
    acts_case a = make_acts(t, m, k, acts);
    blocks b = make_blocks(t, &p, &a);
    CALL(t, 2.0 * (double)(p.rows * m * b.quads * TERN_QUAD),
         kern->matmul_i8.fn(b.c, b.codes, b.codes_stride, b.tiles, b.tile_stride, b.n_tiles, b.quads, 0));
    compare(t, &p, &a, &b);
    if (!t->bench) { /* the same in two halves, the second added */
        const size_t half = b.quads / 2, panel_rows = p.kernels->layout.panel_rows;
        memset(b.c, POISON, b.c_count * sizeof *b.c);
        kern->matmul_i8.fn(b.c, b.codes, b.codes_stride, b.tiles, b.tile_stride, b.n_tiles, half, 0);
        kern->matmul_i8.fn(b.c, b.codes + half * TERN_QUAD * panel_rows, b.codes_stride,
                           b.tiles + half * TERN_QUAD * kern->tile_rows, b.tile_stride, b.n_tiles, b.quads - half, 1);
        compare(t, &p, &a, &b);
    }
    free_blocks(t, &b);
    free_acts(&a);
    free_panels(&p);
}

/* Straight from packed panels, also where the last group of panels is short. */
static void check_panels(kern_test *t, const tern_density_kernels *kernels, size_t m, size_t k, fill trits,
                         fill acts) {
    const tern_kernels *kern = t->tier;
    for (size_t panels = t->bench ? kern->tile_panels : 1; panels <= kern->tile_panels; panels++) {
        panel_case p = make_panels(t, kernels, panels, k, trits);
        acts_case a = make_acts(t, m, k, acts);
        blocks b = make_blocks(t, &p, &a);
        const size_t bytes = panels * p.panel_bytes;
        uint8_t *packed = fenced(bytes + TERN_PANEL_SLACK);
        memcpy(packed, p.packed, bytes);
        memset(packed + bytes, 0xff, TERN_PANEL_SLACK);
        const tern_matmul_panels_i8_fn multiply = kernels->matmul_panels_i8.fn;
        CALL(t, 2.0 * (double)(p.rows * m * k),
             multiply(b.c, packed, p.panel_bytes, panels, k, b.tiles, b.tile_stride, b.n_tiles, packed, bytes));
        compare(t, &p, &a, &b);
        unfence(packed, bytes + TERN_PANEL_SLACK);
        free_blocks(t, &b);
        free_acts(&a);
        free_panels(&p);
    }
}

typedef void (*shape_check)(kern_test *t, const tern_density_kernels *kernels, size_t m, size_t k, fill trits,
                            fill acts);

static void unpacked_shape(kern_test *t, const tern_density_kernels *kernels, size_t m, size_t k, fill trits,
                           fill acts) {
    (void)kernels;
    check_unpacked(t, m, k, trits, acts);
}

static void check_shapes(kern_test *t, const tern_density_kernels *kernels, shape_check check) {
    if (t->bench) {
        check(t, kernels, 128, 2560, FILL_NOISE, FILL_NOISE);
        return;
    }
    const size_t r = t->tier->tile_rows;
    const size_t ms[] = {1, r - 1, r, r + 1, 2 * r - 1, 2 * r, 2 * r + 1, 3 * r, 5 * r + 1};
    for (size_t i = 0; i < sizeof ms / sizeof *ms; i++)
        for (size_t k = 1; k < 700; k += 1 + draw(t) % 120)
            if (ms[i]) check(t, kernels, ms[i], k, FILL_NOISE, FILL_NOISE);
    for (int trits = 0; trits < FILL_COUNT; trits++)
        for (int acts = 0; acts < FILL_COUNT; acts++)
            check(t, kernels, 1 + draw(t) % 40, 1 + draw(t) % 2000, (fill)trits, (fill)acts);
}

void check_matmul_i8(kern_test *t) {
    const tern_kernels *kern = t->tier;
    if (kern->matmul_i8.fn && begin_kernel(t, kern->matmul_i8.name))
        check_shapes(t, &kern->density[TERN_DENSITY_T2], unpacked_shape);
    for (int d = 0; d < TERN_DENSITY_COUNT; d++) {
        const tern_density_kernels *kernels = &kern->density[d];
        if (kernels->matmul_panels_i8.fn && begin_kernel(t, kernels->matmul_panels_i8.name))
            check_shapes(t, kernels, check_panels);
    }
}
