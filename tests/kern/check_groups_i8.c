#include <math.h>
#include <string.h>

#include "kern_test.h"
#include "panel_case.h"

/* The panel's quads and everything else that groups_i8 reads. */
typedef struct group_case {
    size_t group, groups, codes_bytes;
    uint8_t *codes;
    int32_t *group_sums;
    int8_t *exponents;
} group_case;

static group_case make_groups(kern_test *t, const panel_case *p, const acts_case *a, size_t group, int extreme) {
    const size_t rows = p->rows;
    group_case g = {.group = group, .groups = (p->k + group - 1) / group};
    g.codes_bytes = (p->blocks * p->kernels->layout.k_block * rows + 63) / 64 * 64;
    g.codes = fenced(g.codes_bytes);
    p->kernels->unpack.fn(g.codes, p->packed, p->blocks);
    g.group_sums = fenced(g.groups * sizeof(int32_t));
    for (size_t j = 0; j < p->k; j++) g.group_sums[j / group] += a->x[j];
    g.exponents = fenced(g.groups * rows);
    for (size_t i = 0; i < g.groups * rows; i++)
        g.exponents[i] = (int8_t)(extreme ? (draw(t) % 2 ? -128 + (int)(draw(t) % 9) : 100 + (int)(draw(t) % 9))
                                          : (int)(draw(t) % 30) - 20);
    return g;
}

static float expected(const panel_case *p, const acts_case *a, const group_case *g, size_t row) {
    float total = 0;
    for (size_t i = 0; i < g->groups; i++) {
        size_t end = (i + 1) * g->group < p->k ? (i + 1) * g->group : p->k;
        float term = ldexpf((float)exact_sum(p, row, a, 0, i * g->group, end), g->exponents[i * p->rows + row]);
        total += term;
    }
    return total;
}

static void check_shape(kern_test *t, size_t k, size_t group, int extreme, fill trits, fill acts) {
    panel_case p = make_panels(t, &t->tier->density[TERN_DENSITY_T2], 1, k, trits);
    acts_case a = make_acts(t, 1, k, acts);
    group_case g = make_groups(t, &p, &a, group, extreme);
    float acc[TERN_MAX_PANEL_ROWS + 1];
    memset(acc, POISON, sizeof acc);
    CALL(t, 2.0 * (double)(k * p.rows),
         t->tier->groups_i8.fn(acc, g.codes, a.x, g.group_sums, k, group, g.exponents));
    for (size_t row = 0; row <= p.rows; row++) {
        float want;
        if (row < p.rows)
            want = expected(&p, &a, &g, row);
        else
            memset(&want, POISON, sizeof want);
        if (memcmp(&want, &acc[row], sizeof want))
            fail_kernel(t, "k %zu group %zu row %zu: %a, should be %a", k, group, row, (double)acc[row],
                        (double)want);
    }
    unfence(g.codes, g.codes_bytes);
    unfence(g.group_sums, g.groups * sizeof(int32_t));
    unfence(g.exponents, g.groups * p.rows);
    free_acts(&a);
    free_panels(&p);
}

void check_groups_i8(kern_test *t) {
    static const size_t groups[] = {4, 6, 8, 12, 16, 20, 32, 64, 96, 2560};
    if (!begin_kernel(t, t->tier->groups_i8.name)) return;
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
        if (t->bench) {
            if (groups[i] == 32) check_shape(t, 2560, groups[i], 0, FILL_NOISE, FILL_NOISE);
            continue;
        }
        for (size_t k = 1; k < 400; k += 1 + draw(t) % 40) {
            check_shape(t, k, groups[i], 0, FILL_NOISE, FILL_NOISE);
            check_shape(t, k, groups[i], 1, FILL_NOISE, FILL_NOISE);
        }
        check_shape(t, 2560, groups[i], 0, FILL_MINUS, FILL_MINUS);
        check_shape(t, 1111, groups[i], 1, FILL_PLUS, FILL_PLUS);
    }
}
