/* Packing a panel and unpacking it again gives the codes, padding included. */
#include <stdlib.h>
#include <string.h>

#include "kern_test.h"
#include "panel_case.h"

static void check_shape(kern_test *t, const tern_density_kernels *kernels, size_t k, fill how) {
    const size_t rows = kernels->layout.panel_rows;
    panel_case c = make_panels(t, kernels, 1, k, how);
    const size_t bytes = c.blocks * kernels->layout.k_block * rows;
    uint8_t *codes = fenced((bytes + 63) / 64 * 64);
    CALL(t, (double)bytes, kernels->unpack.fn(codes, c.packed, c.blocks));
    for (size_t j = 0; j < c.blocks * kernels->layout.k_block; j++)
        for (size_t r = 0; r < rows; r++) {
            int want = j < k ? c.trits[r * k + j] + 1 : 1;
            int got = codes[(j / TERN_QUAD * rows + r) * TERN_QUAD + j % TERN_QUAD];
            if (got != want) {
                fail_kernel(t, "k %zu row %zu column %zu: code %d, should be %d", k, r, j, got, want);
                goto done;
            }
        }
done:
    unfence(codes, (bytes + 63) / 64 * 64);
    free_panels(&c);
}

void check_layouts(kern_test *t) {
    for (int d = 0; d < TERN_DENSITY_COUNT; d++) {
        const tern_density_kernels *kernels = &t->tier->density[d];
        if (!begin_kernel(t, kernels->unpack.name)) continue;
        if (t->bench) {
            check_shape(t, kernels, 2560, FILL_NOISE);
            continue;
        }
        for (int how = 0; how < FILL_COUNT; how++)
            for (size_t k = 1; k <= 100; k += 1 + (size_t)how) check_shape(t, kernels, k, (fill)how);
    }
}
