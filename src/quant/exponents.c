/* Power-of-two scales per group of columns, and the way back from trits to floats. */
#include <float.h>
#include <math.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/half.h"
#include "quant/exponents.h"
#include "quant/shape_checks.h"
#include "tern/quant.h"

/* ---- groups -------------------------------------------------------------------------------------------------- */

/* group <= cols rounded up to 4, for a multiple of 4, is group - 4 < cols; that cannot overflow. */
int tern_group_is_valid(size_t group, size_t cols) {
    return group == 6 || (group >= 4 && group % 4 == 0 && group - 4 < cols);
}

size_t tern_groups_per_row(size_t group, size_t cols) { return group ? tern_ceil_div(cols, group) : 0; }

static tern_status check_group(const char *name, size_t group, size_t cols, tern_error *err) {
    TERN_CHECK_ARGUMENT(tern_group_is_valid(group, cols), err,
                        "%s %zu is neither 6 nor a multiple of 4 from 4 up to the row length %zu rounded up to 4",
                        name, group, cols);
    return TERN_OK;
}

/* ---- exponents ----------------------------------------------------------------------------------------------- */

/* With mean = f 2^e, 1/2 <= f < 1, the logarithm rounds to e
 * where f > sqrt(1/2) and to e - 1 below. The constant is the least double above the irrational sqrt(1/2), so >= it
 * decides exactly; there are no ties. */
int8_t tern_rounded_log2(double mean) {
    if (mean == 0) return 0;
    int e;
    double f = frexp(mean, &e);
    if (f < 0x1.6a09e667f3bcdp-1) e--;
    return (int8_t)(e < -128 ? -128 : e > 127 ? 127 : e);
}

/* The mean of |w| over the kept weights, or over all n where none is kept. trits may be NULL. */
static double mean_kept_weight(const float *w, const int8_t *trits, size_t n) {
    double all = 0, kept = 0;
    size_t n_kept = 0;
    for (size_t i = 0; i < n; i++) {
        double magnitude = (double)fabsf(w[i]);
        all += magnitude;
        if (!trits || !trits[i]) continue;
        kept += magnitude;
        n_kept++;
    }
    return n_kept ? kept / (double)n_kept : all / (double)n;
}

tern_status tern_group_exponents(int8_t *exponents, const float *w, const int8_t *trits, size_t rows, size_t cols,
                                 size_t group, tern_error *err) {
    TERN_CHECK_ARGUMENT(exponents, err, "exponents is NULL");
    TERN_CHECK_ARGUMENT(w, err, "w is NULL");
    TERN_TRY(check_group("group", group, cols, err));
    size_t count;
    TERN_TRY(tern_check_shape(&count, rows, cols, err));
    TERN_TRY(tern_check_weights(w, count, err));
    if (trits) TERN_TRY(tern_check_trits(trits, count, err));
    for (size_t r = 0; r < rows; r++) {
        for (size_t c = 0, n; c < cols; c += n) {
            n = tern_min_size(group, cols - c);
            size_t at = r * cols + c;
            double mean = mean_kept_weight(w + at, trits ? trits + at : NULL, n);
            *exponents++ = tern_rounded_log2(mean);
        }
    }
    return TERN_OK;
}

/* The mean 2^e over the kept weights of columns begin .. end, or over all where none is kept. `from` and `trits` are
 * whole rows. The sum of equal powers and its quotient are exact, hence so is splitting a group. */
static double mean_kept_scale(const int8_t *from, size_t from_group, const int8_t *trits, size_t begin, size_t end) {
    double all = 0, kept = 0;
    size_t n_kept = 0;
    for (size_t c = begin; c < end; c++) {
        double scale = ldexp(1, from[c / from_group]);
        all += scale;
        if (!trits[c]) continue;
        kept += scale;
        n_kept++;
    }
    return n_kept ? kept / (double)n_kept : all / (double)(end - begin);
}

tern_status tern_regroup_exponents(int8_t *to, size_t to_group, const int8_t *from, size_t from_group,
                                   const int8_t *trits, size_t rows, size_t cols, tern_error *err) {
    TERN_CHECK_ARGUMENT(to, err, "to is NULL");
    TERN_CHECK_ARGUMENT(from, err, "from is NULL");
    TERN_CHECK_ARGUMENT(trits, err, "trits is NULL");
    TERN_TRY(check_group("to_group", to_group, cols, err));
    TERN_TRY(check_group("from_group", from_group, cols, err));
    size_t count;
    TERN_TRY(tern_check_shape(&count, rows, cols, err));
    TERN_TRY(tern_check_trits(trits, count, err));
    const size_t from_groups = tern_groups_per_row(from_group, cols);
    for (size_t r = 0; r < rows; r++) {
        for (size_t c = 0, end; c < cols; c = end) {
            end = c + tern_min_size(to_group, cols - c);
            *to++ = tern_rounded_log2(mean_kept_scale(from + r * from_groups, from_group, trits + r * cols, c, end));
        }
    }
    return TERN_OK;
}

/* ---- back to floats ------------------------------------------------------------------------------------------ */

/* Exact for every int8: -128 and -127 are denormals. */
static float power_of_two(int8_t e) {
    return tern_f32_from_bits(e >= -126 ? (uint32_t)(e + 127) << 23 : (uint32_t)1 << (e + 149));
}

static void scale_trits(float *out, const int8_t *trits, size_t n, float scale) {
    for (size_t i = 0; i < n; i++) out[i] = (float)trits[i] * scale;
}

static tern_status check_scales(const float *scales, size_t count, tern_error *err) {
    for (size_t i = 0; i < count; i++) {
        if (scales[i] >= 0 && scales[i] <= FLT_MAX) continue; /* false for NaN */
        return tern_fail(err, TERN_E_DATA, i, "scale %zu is %g; scales must be finite and not negative", i,
                         (double)scales[i]);
    }
    return TERN_OK;
}

tern_status tern_dequantize(float *out, const int8_t *trits, const float *scales, size_t rows, size_t cols,
                            tern_granularity granularity, tern_error *err) {
    TERN_CHECK_ARGUMENT(out, err, "out is NULL");
    TERN_CHECK_ARGUMENT(trits, err, "trits is NULL");
    TERN_CHECK_ARGUMENT(scales, err, "scales is NULL");
    TERN_CHECK_ARGUMENT(granularity == TERN_PER_TENSOR || granularity == TERN_PER_ROW, err,
                        "granularity %d is neither TERN_PER_TENSOR nor TERN_PER_ROW", (int)granularity);
    size_t count;
    TERN_TRY(tern_check_shape(&count, rows, cols, err));
    TERN_TRY(tern_check_trits(trits, count, err));
    const int per_row = granularity == TERN_PER_ROW;
    TERN_TRY(check_scales(scales, per_row ? rows : 1, err));
    for (size_t r = 0; r < rows; r++) scale_trits(out + r * cols, trits + r * cols, cols, scales[per_row ? r : 0]);
    return TERN_OK;
}

tern_status tern_dequantize_groups(float *out, const int8_t *trits, const int8_t *exponents, size_t rows, size_t cols,
                                   size_t group, tern_error *err) {
    TERN_CHECK_ARGUMENT(out, err, "out is NULL");
    TERN_CHECK_ARGUMENT(trits, err, "trits is NULL");
    TERN_CHECK_ARGUMENT(exponents, err, "exponents is NULL");
    TERN_TRY(check_group("group", group, cols, err));
    size_t count;
    TERN_TRY(tern_check_shape(&count, rows, cols, err));
    TERN_TRY(tern_check_trits(trits, count, err));
    for (size_t r = 0; r < rows; r++) {
        for (size_t c = 0, n; c < cols; c += n) {
            n = tern_min_size(group, cols - c);
            scale_trits(out + r * cols + c, trits + r * cols + c, n, power_of_two(*exponents++));
        }
    }
    return TERN_OK;
}

double tern_sparsity(const int8_t *trits, size_t rows, size_t cols) {
    size_t count, zeros = 0;
    if (!trits || !tern_checked_mul(&count, rows, cols)) return (double)NAN;
    for (size_t i = 0; i < count; i++) zeros += trits[i] == 0;
    return count ? (double)zeros / (double)count : 0;
}
