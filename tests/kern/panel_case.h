/* A random ternary matrix in a tier's layout, with its trits beside it. */
#ifndef TERN_TESTS_PANEL_CASE_H
#define TERN_TESTS_PANEL_CASE_H

#include "kern_test.h"

typedef struct panel_case {
    const tern_density_kernels *kernels;
    size_t rows, k, panels, panel_bytes, blocks; /* rows is a whole number of panels */
    int8_t *trits;                               /* [rows][k] */
    uint8_t *packed;                             /* [panels][panel_bytes], fenced */
} panel_case;

panel_case make_panels(kern_test *t, const tern_density_kernels *kernels, size_t panels, size_t k, fill how);
void free_panels(panel_case *c);

/* m rows of activations, zero-padded and fenced as the contract says. */
typedef struct acts_case {
    size_t m, k, ld;
    int8_t *x;
    int32_t *sums;
} acts_case;

acts_case make_acts(kern_test *t, size_t m, size_t k, fill how);
void free_acts(acts_case *a);

/* sum of trit * x over columns [begin, end) */
int32_t exact_sum(const panel_case *c, size_t row, const acts_case *a, size_t i, size_t begin, size_t end);

#endif
