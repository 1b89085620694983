#include <string.h>

#include "kern_test.h"

static void check_row_sum(kern_test *t) {
    for (size_t n = 64; n <= 6400; n = n * 3 / 64 * 64 + 64)
        for (int how = 0; how < FILL_COUNT; how++) {
            int8_t *x = fenced(n);
            int32_t want = 0, got = 0;
            draw_acts(t, x, n, (fill)how);
            for (size_t i = 0; i < n; i++) want += x[i];
            if (t->bench && (n < 2000 || how)) {
                unfence(x, n);
                continue;
            }
            CALL(t, (double)n, got = t->tier->row_sum.fn(x, n));
            if (got != want) fail_kernel(t, "n %zu: %d, should be %d", n, got, want);
            unfence(x, n);
        }
}

typedef struct epilogue_case {
    size_t m, n, ld_c, ldy;
    int with_sums, with_bias;
} epilogue_case;

static float expected(int32_t c, int32_t x_sum, float scale, float inv_scale, const float *bias) {
    float value = (float)(c - x_sum) * (scale * inv_scale);
    return bias ? value + *bias : value;
}

static void check_shape(kern_test *t, epilogue_case e) {
    const size_t c_bytes = e.m * e.ld_c * 4, y_bytes = ((e.m - 1) * e.ldy + e.n) * 4;
    int32_t *c = fenced(c_bytes), *x_sums = fenced(e.m * 4);
    float *y = fenced(y_bytes), *scale = fenced(e.n * 4), *inv = fenced(e.m * 4), *bias = fenced(e.n * 4);
    for (size_t i = 0; i < e.m * e.ld_c; i++) c[i] = (int32_t)draw(t) >> (draw(t) % 20);
    for (size_t i = 0; i < e.m; i++) x_sums[i] = (int32_t)draw(t) >> 16;
    for (size_t i = 0; i < e.m * e.ld_c; i++) c[i] /= 2; /* c - x_sum fits */
    draw_floats(t, scale, e.n);
    draw_floats(t, inv, e.m);
    draw_floats(t, bias, e.n);
    memset(y, POISON, y_bytes);
    CALL(t, (double)(e.m * e.n),
         t->tier->epilogue.fn(y, e.ldy, c, e.ld_c, e.m, e.n, e.with_sums ? x_sums : NULL, scale, inv,
                              e.with_bias ? bias : NULL));
    for (size_t i = 0; i < e.m; i++)
        for (size_t j = 0; j < e.ldy && i * e.ldy + j < y_bytes / 4; j++) {
            float want;
            if (j < e.n)
                want = expected(c[i * e.ld_c + j], e.with_sums ? x_sums[i] : 0, scale[j], inv[i],
                                e.with_bias ? bias + j : NULL);
            else
                memset(&want, POISON, sizeof want);
            if (!memcmp(&want, &y[i * e.ldy + j], sizeof want)) continue;
            fail_kernel(t, "m %zu n %zu of %zu: %a, should be %a", i, j, e.n, (double)y[i * e.ldy + j], (double)want);
            goto done;
        }
done:
    unfence(c, c_bytes);
    unfence(x_sums, e.m * 4);
    unfence(y, y_bytes);
    unfence(scale, e.n * 4);
    unfence(inv, e.m * 4);
    unfence(bias, e.n * 4);
}

void check_epilogue(kern_test *t) {
    if (begin_kernel(t, t->tier->row_sum.name)) check_row_sum(t);
    if (!begin_kernel(t, t->tier->epilogue.name)) return;
    if (t->bench) {
        check_shape(t, (epilogue_case){.m = 128, .n = 48, .ld_c = 48, .ldy = 2560, .with_sums = 1});
        return;
    }
    for (size_t n = 1; n <= 70; n++)
        for (int flags = 0; flags < 4; flags++)
            check_shape(t, (epilogue_case){.m = 1 + n % 5,
                                           .n = n,
                                           .ld_c = n + (n * 7) % 16,
                                           .ldy = n + n % 3,
                                           .with_sums = flags & 1,
                                           .with_bias = flags >> 1});
}
