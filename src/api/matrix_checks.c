#include "api/matrix_checks.h"

#include "base/checked.h"
#include "base/error.h"
#include "base/half.h"
#include "kern/kernels.h"
#include "tern/quant.h"

tern_status tern_check_scale_values(tern_scale_kind kind, const float *scales, const int8_t *exponents, size_t count,
                                    tern_error *err) {
    if (kind == TERN_SCALE_GROUP_EXP) {
        TERN_CHECK_ARGUMENT(exponents, err, "exponents is NULL, but scale_kind is TERN_SCALE_GROUP_EXP");
        return TERN_OK;
    }
    TERN_CHECK_ARGUMENT(scales, err, "scales is NULL");
    for (size_t i = 0; i < count; i++)
        if (!tern_f32_is_finite(scales[i]) || scales[i] < 0)
            return tern_fail(err, TERN_E_DATA, i, "scales[%zu] = %g: a scale must be finite and not negative", i,
                             (double)scales[i]);
    return TERN_OK;
}

static tern_status check_scales(const tern_matrix_desc *d, tern_error *err) {
    size_t wanted = d->scale_kind == TERN_SCALE_TENSOR ? 1 : d->rows;
    if (d->scale_kind == TERN_SCALE_GROUP_EXP) {
        TERN_CHECK_ARGUMENT(tern_group_is_valid(d->group, d->cols), err,
                            "group = %zu: must be 6 or a multiple of 4 up to a row of %zu", d->group, d->cols);
        if (!tern_checked_mul(&wanted, d->rows, tern_groups_per_row(d->group, d->cols)))
            return tern_fail(err, TERN_E_SIZE, TERN_NO_PLACE, "rows * groups overflows");
    }
    if (d->scale_count != wanted)
        return tern_fail(err, TERN_E_SIZE, TERN_NO_PLACE, "scale_count = %zu, but this matrix has %zu scales",
                         d->scale_count, wanted);
    return tern_check_scale_values(d->scale_kind, d->scales, d->exponents, wanted, err);
}

tern_status tern_check_matrix_desc(const tern_matrix_desc *d, tern_error *err) {
    TERN_CHECK_ARGUMENT(d->rows && d->cols, err, "%s = 0: a matrix has at least one row and column",
                        d->rows ? "cols" : "rows");
    TERN_CHECK_ARGUMENT((unsigned)d->scale_kind <= TERN_SCALE_GROUP_EXP, err, "scale_kind = %d is none",
                        (int)d->scale_kind);
    size_t inputs = d->transposed ? d->rows : d->cols;
    if (inputs > TERN_MAX_COLS)
        return tern_fail(err, TERN_E_SIZE, TERN_NO_PLACE, "%s = %zu: int32 sums are exact up to %zu inputs only",
                         d->transposed ? "rows" : "cols", inputs, TERN_MAX_COLS);
    TERN_TRY(tern_validate(d->packing, d->packed, d->packed_bytes, d->rows, d->cols, err));
    return check_scales(d, err);
}
