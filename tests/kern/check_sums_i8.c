#include <string.h>

#include "kern_test.h"
#include "panel_case.h"

static void check_shape(kern_test *t, const tern_density_kernels *kernels, size_t panels, size_t m, size_t k,
                        fill trits, fill acts) {
    panel_case c = make_panels(t, kernels, panels, k, trits);
    acts_case a = make_acts(t, m, k, acts);
    const size_t ld = c.rows + 5, bytes = ((m - 1) * ld + c.rows) * sizeof(int32_t);
    int32_t *sums = fenced(bytes);
    memset(sums, POISON, bytes);
    CALL(t, 2.0 * (double)(c.rows * k * m),
         kernels->sums_i8.fn(sums, ld, c.packed, c.panel_bytes, panels, k, a.x, a.ld, a.sums, m));
    for (size_t i = 0; i < m; i++)
        for (size_t n = 0; n < ld && i * ld + n < bytes / sizeof *sums; n++) {
            int32_t want, got = sums[i * ld + n];
            if (n < c.rows)
                want = exact_sum(&c, n, &a, i, 0, k);
            else
                memset(&want, POISON, sizeof want);
            if (got == want) continue;
            fail_kernel(t, "m %zu of %zu, row %zu of %zu, k %zu: %d, should be %d", i, m, n, c.rows, k, got, want);
            goto done;
        }
done:
    unfence(sums, bytes);
    free_acts(&a);
    free_panels(&c);
}

static void check_density(kern_test *t, const tern_density_kernels *kernels) {
    static const size_t ks[] = {1, 2, 3, 4, 5, 15, 16, 17, 19, 20, 21, 63, 64, 65, 127, 319, 320, 321, 641, 2560};
    if (t->bench) {
        for (size_t m = 1; m <= 8; m *= 2) check_shape(t, kernels, 128 / kernels->layout.panel_rows, m, 2560, 0, 0);
        return;
    }
    for (size_t i = 0; i < sizeof ks / sizeof *ks; i++)
        for (size_t m = 1; m <= 10; m += ks[i] > 400 ? 2 : 1)
            check_shape(t, kernels, 1 + draw(t) % 4, m, ks[i], FILL_NOISE, FILL_NOISE);
    for (int trits = 0; trits < FILL_COUNT; trits++)
        for (int acts = 0; acts < FILL_COUNT; acts++)
            check_shape(t, kernels, 2, 1 + draw(t) % 4, 1 + draw(t) % 3000, (fill)trits, (fill)acts);
    check_shape(t, kernels, 1, 1, 600001, FILL_PLUS, FILL_MINUS); /* past what scaled accumulators hold */
    check_shape(t, kernels, 1, 2, 300007, FILL_MINUS, FILL_MINUS);
}

void check_sums_i8(kern_test *t) {
    for (int d = 0; d < TERN_DENSITY_COUNT; d++)
        if (begin_kernel(t, t->tier->density[d].sums_i8.name)) check_density(t, &t->tier->density[d]);
}
