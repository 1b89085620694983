/* Packing rows and columns: each byte of every panel against the definition of its layout, the rest of the memory
 * between panels untouched, no byte read beyond the trits. */
#include <stdlib.h>
#include <string.h>

#include "kern_test.h"

typedef struct pack_case {
    const tern_layout *layout;
    int columns; /* the slot pack_columns */
    size_t rows, k, ld;
    const int8_t *trits;
} pack_case;

static unsigned code_at(const pack_case *c, size_t row, size_t column) {
    if (row >= c->rows || column >= c->k) return 1;
    return (unsigned)(c->trits[c->columns ? column * c->ld + row : row * c->ld + column] + 1);
}

/* Byte `at` of block `block` of panel `panel`, by the words of panel16.h and, for the scalar tier,
 * docs/formats.md. */
static unsigned wanted_byte(const pack_case *c, size_t panel, size_t block, size_t at) {
    const char *name = c->layout->name;
    unsigned d[5], q = 0;
    if (c->layout->panel_rows == 1) {
        const size_t digits = c->layout->k_block / c->layout->block_bytes;
        for (size_t i = 0; i < digits; i++) d[i] = code_at(c, panel, block * c->layout->k_block + at * digits + i);
        for (size_t i = digits; i-- > 0;) q = digits == 4 ? q << 2 | (d[i] + 2) % 3 : q * 3 + d[i];
        return q;
    }
    const size_t row = panel * 16 + at / 4;
    for (size_t g = 0; g < 5; g++) d[g] = code_at(c, row, block * c->layout->k_block + 4 * g + at % 4);
    if (!strcmp(name, "t2p16")) return d[0] | d[1] << 2 | d[2] << 4 | d[3] << 6;
    if (!strcmp(name, "t5p16-lut")) {
        unsigned r = d[2] + 3 * d[3] + 9 * d[4];
        return 7 * (d[0] + 3 * d[1]) + r / 4 + 64 * (r % 4);
    }
    while (q * 243 < 256 * (81 * d[0] + 27 * d[1] + 9 * d[2] + 3 * d[3] + d[4])) q++;
    return q;
}

static void compare(kern_test *t, const pack_case *c, const uint8_t *panels, size_t stride, size_t end) {
    const size_t bytes = tern_layout_panel_bytes(c->layout, c->k);
    for (size_t i = 0; i < end; i++) {
        const size_t panel = i / stride, at = i % stride;
        unsigned want = POISON;
        if (at < bytes) want = wanted_byte(c, panel, at / c->layout->block_bytes, at % c->layout->block_bytes);
        if (panels[i] == want) continue;
        fail_kernel(t, "rows %zu k %zu ld %zu panel %zu byte %zu: %u, should be %u", c->rows, c->k, c->ld, panel, at,
                    panels[i], want);
        return;
    }
}

static void check_shape(kern_test *t, tern_pack_fn pack, pack_case c, size_t gap, fill how) {
    const size_t lines = c.columns ? c.k : c.rows, length = c.columns ? c.rows : c.k;
    const size_t count = (lines - 1) * c.ld + length; /* the last line ends at the guard page */
    const size_t n_panels = (c.rows + c.layout->panel_rows - 1) / c.layout->panel_rows;
    const size_t bytes = tern_layout_panel_bytes(c.layout, c.k), stride = bytes + gap;
    const size_t end = (n_panels - 1) * stride + bytes;
    int8_t *trits = fenced(count), *copy = malloc(count);
    uint8_t *panels = fenced(end);
    draw_trits(t, trits, count, how);
    memcpy(copy, trits, count);
    memset(panels, POISON, end);
    c.trits = trits;
    CALL(t, (double)c.rows * (double)c.k, pack(panels, stride, trits, c.ld, c.rows, c.k));
    compare(t, &c, panels, stride, end);
    if (memcmp(copy, trits, count)) fail_kernel(t, "the trits were written to");
    unfence(panels, end);
    unfence(trits, count);
    free(copy);
}

static void check_slot(kern_test *t, const tern_layout *layout, tern_pack_fn pack, const char *name, int columns) {
    static const size_t sides[] = {1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 79, 80, 81, 129, 163};
    enum { SIDES = sizeof sides / sizeof *sides };
    if (!begin_kernel(t, name)) return;
    if (t->bench) {
        const size_t k = columns ? layout->k_block : 2560, rows = columns ? 2560 : layout->panel_rows;
        check_shape(t, pack, (pack_case){layout, columns, rows, k, 2560, NULL}, 0, FILL_NOISE);
        return;
    }
    for (size_t i = 0; i < SIDES; i++)
        for (size_t j = 0; j < SIDES; j++) {
            const size_t length = columns ? sides[i] : sides[j], pad = (i + j) % 3 ? draw(t) % 70 : 0;
            const fill how = draw(t) % 2 ? FILL_NOISE : (fill)(draw(t) % FILL_COUNT);
            check_shape(t, pack, (pack_case){layout, columns, sides[i], sides[j], length + pad, NULL},
                        draw(t) % 2 ? draw(t) % 100 : 0, how);
        }
}

void check_pack(kern_test *t) {
    for (int d = 0; d < TERN_DENSITY_COUNT; d++) {
        const tern_density_kernels *kernels = &t->tier->density[d];
        check_slot(t, &kernels->layout, kernels->pack_rows.fn, kernels->pack_rows.name, 0);
        check_slot(t, &kernels->layout, kernels->pack_columns.fn, kernels->pack_columns.name, 1);
    }
}
