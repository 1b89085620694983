/* A ternary matrix in the layout of one tier's kernels. */
#ifndef TERN_CPU_TERNARY_MATRIX_H
#define TERN_CPU_TERNARY_MATRIX_H

#include "base/memory.h"
#include "kern/kernels.h"
#include "tern/matrix.h"

struct tern_matrix {
    size_t inputs, outputs; /* as the products see them: exchanged when transposed */
    tern_packing packing;
    tern_scale_kind scale_kind;
    size_t group, groups; /* columns of W a group, groups a row of W; 0 without groups */
    int transposed;
    const tern_kernels *kernels;
    const tern_density_kernels *density;
    size_t panels, panel_bytes;

    tern_block trits; /* [panels][panel_bytes] */

    /* scale[panels * panel_rows]: one factor an output, ones where the scale lies elsewhere; padding is zero. */
    tern_block scale;
    /* input_scale[inputs]: transposed with a scale a row of W, which multiplies the inputs; else empty. */
    tern_block input_scale;
    /* Exponents. Not transposed: [panels][groups][panel_rows], padding is zero. Transposed: [inputs][groups], as
     * given: row n of W is input n. */
    tern_block exponents;
};

/* Everything in *desc has been checked, desc->tier is a real tier. */
tern_status tern_cpu_matrix_create(tern_matrix **out, const tern_matrix_desc *desc, tern_error *err);
tern_status tern_cpu_matrix_clone(tern_matrix **out, const tern_matrix *matrix, tern_error *err);
/* New trits and scales for a matrix of the same shape and kind of scales; as given for W, also where it is held
 * transposed. Zero, and nothing written, when something in trits is none. */
int tern_cpu_matrix_set(tern_matrix *matrix, const int8_t *trits, const float *scales, const int8_t *exponents,
                        int threads);
void tern_cpu_matrix_free(tern_matrix *matrix);

#endif
