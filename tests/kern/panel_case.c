#include "panel_case.h"

#include <stdlib.h>

panel_case make_panels(kern_test *t, const tern_density_kernels *kernels, size_t panels, size_t k, fill how) {
    const tern_layout *layout = &kernels->layout;
    panel_case c = {.kernels = kernels, .panels = panels, .k = k, .rows = panels * layout->panel_rows};
    c.panel_bytes = tern_layout_panel_bytes(layout, k);
    c.blocks = (k + layout->k_block - 1) / layout->k_block;
    c.trits = malloc(c.rows * k);
    draw_trits(t, c.trits, c.rows * k, how);
    c.packed = fenced(panels * c.panel_bytes);
    kernels->pack_rows.fn(c.packed, c.panel_bytes, c.trits, k, c.rows, k);
    return c;
}

void free_panels(panel_case *c) {
    unfence(c->packed, c->panels * c->panel_bytes);
    free(c->trits);
}

acts_case make_acts(kern_test *t, size_t m, size_t k, fill how) {
    acts_case a = {.m = m, .k = k, .ld = (k + TERN_K_ALIGN - 1) / TERN_K_ALIGN * TERN_K_ALIGN};
    a.x = fenced(m * a.ld);
    a.sums = calloc(m, sizeof *a.sums);
    for (size_t i = 0; i < m; i++) {
        draw_acts(t, a.x + i * a.ld, k, how);
        for (size_t j = 0; j < k; j++) a.sums[i] += a.x[i * a.ld + j];
    }
    return a;
}

void free_acts(acts_case *a) {
    unfence(a->x, a->m * a->ld);
    free(a->sums);
}

int32_t exact_sum(const panel_case *c, size_t row, const acts_case *a, size_t i, size_t begin, size_t end) {
    int64_t sum = 0;
    for (size_t j = begin; j < end; j++) sum += (int64_t)c->trits[row * c->k + j] * a->x[i * a->ld + j];
    return (int32_t)sum;
}
