/* What a description of a ternary matrix must fulfil, wherever the matrix will live. */
#ifndef TERN_API_MATRIX_CHECKS_H
#define TERN_API_MATRIX_CHECKS_H

#include "tern/matrix.h"

/* `count` scales of one kind. */
tern_status tern_check_scale_values(tern_scale_kind kind, const float *scales, const int8_t *exponents, size_t count,
                                    tern_error *err);

/* Everything but the tier. */
tern_status tern_check_matrix_desc(const tern_matrix_desc *desc, tern_error *err);

#endif
