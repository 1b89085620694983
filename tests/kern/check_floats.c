/* Float activations: fp32 sums in an order of the kernel's own, within the bound that any order keeps. */
#include <math.h>
#include <string.h>

#include "kern_test.h"
#include "panel_case.h"

/* Any order of n additions is off by at most (n - 1) * 2^-24 * sum |x|, to first order. */
static int close_enough(double got, double want, double magnitude, size_t n) {
    return fabs(got - want) <= (double)(n + 2) * 0x1p-24 * magnitude + 1e-30;
}

static void check_sums(kern_test *t, const tern_density_kernels *kernels, size_t panels, size_t k, fill trits) {
    panel_case c = make_panels(t, kernels, panels, k, trits);
    const size_t prepared_bytes = kernels->prepare_f32_bytes.fn(k);
    float *x = fenced(k * sizeof *x), *sums = fenced(c.rows * sizeof *sums);
    void *prepared = fenced(prepared_bytes);
    if (prepared_bytes % 64) fail_kernel(t, "prepare_f32_bytes(%zu) = %zu is no multiple of 64", k, prepared_bytes);
    draw_floats(t, x, k);
    memset(sums, POISON, c.rows * sizeof *sums);
    kernels->prepare_f32.fn(prepared, x, k);
    CALL(t, 2.0 * (double)(c.rows * k), kernels->sums_f32.fn(sums, c.packed, c.panel_bytes, panels, k, prepared));
    for (size_t n = 0; n < c.rows; n++) {
        double want = 0, magnitude = 0;
        for (size_t j = 0; j < k; j++) {
            want += (double)x[j] * c.trits[n * k + j];
            magnitude += fabs((double)x[j]);
        }
        if (close_enough((double)sums[n], want, magnitude, k)) continue;
        fail_kernel(t, "k %zu row %zu of %zu: %g, should be %g", k, n, c.rows, (double)sums[n], want);
        break;
    }
    unfence(x, k * sizeof *x);
    unfence(sums, c.rows * sizeof *sums);
    unfence(prepared, prepared_bytes);
    free_panels(&c);
}

static void check_lanes(kern_test *t, size_t k, fill trits) {
    panel_case p = make_panels(t, &t->tier->density[TERN_DENSITY_T5], 1, k, trits);
    const size_t bytes = (p.blocks * p.kernels->layout.k_block * p.rows + 63) / 64 * 64;
    uint8_t *codes = fenced(bytes);
    float acc[TERN_MAX_PANEL_ROWS], *v = fenced(k * p.rows * sizeof *v);
    p.kernels->unpack.fn(codes, p.packed, p.blocks);
    draw_floats(t, v, k * p.rows);
    CALL(t, 2.0 * (double)(p.rows * k), t->tier->lanes_f32.fn(acc, codes, v, k));
    for (size_t n = 0; n < p.rows; n++) {
        double want = 0, magnitude = 0;
        for (size_t j = 0; j < k; j++) {
            want += (double)v[j * p.rows + n] * p.trits[n * k + j];
            magnitude += fabs((double)v[j * p.rows + n]);
        }
        if (!close_enough((double)acc[n], want, magnitude, k))
            fail_kernel(t, "k %zu row %zu: %g, should be %g", k, n, (double)acc[n], want);
    }
    unfence(codes, bytes);
    unfence(v, k * p.rows * sizeof *v);
    free_panels(&p);
}

void check_floats(kern_test *t) {
    for (int d = 0; d < TERN_DENSITY_COUNT; d++) {
        const tern_density_kernels *kernels = &t->tier->density[d];
        if (!begin_kernel(t, kernels->sums_f32.name)) continue;
        if (t->bench) {
            check_sums(t, kernels, 128 / kernels->layout.panel_rows, 2560, FILL_NOISE);
            continue;
        }
        for (size_t k = 1; k < 130; k++) check_sums(t, kernels, 1 + k % 6, k, (fill)(k % FILL_COUNT));
        for (size_t i = 0; i < 6; i++) check_sums(t, kernels, 1 + i, 1 + draw(t) % 3000, FILL_NOISE);
    }
    if (!begin_kernel(t, t->tier->lanes_f32.name)) return;
    for (size_t k = 1; k < 200 && !t->bench; k += 1 + k / 20) check_lanes(t, k, (fill)(k % FILL_COUNT));
    check_lanes(t, 2560, FILL_NOISE);
}
