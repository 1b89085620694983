/* Quantizers that run with the kernels of the best tier: weights by absmean, activations to int8. */
#include "api/thread_limit.h"
#include "base/checked.h"
#include "base/error.h"
#include "base/half.h"
#include "cpu/quantize_weights.h"
#include "kern/kernels.h"
#include "quant/shape_checks.h"
#include "tern/matrix.h"
#include "tern/quant.h"

static tern_status choose_kernels(const tern_kernels **kernels, tern_error *err) {
    tern_tier tier;
    TERN_TRY(tern_tier_select(&tier, err));
    *kernels = tern_kernels_of(tier);
    if (!*kernels)
        return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE, "this machine cannot run the tier %s",
                         tern_tier_name(tier));
    return TERN_OK;
}

tern_status tern_quantize_weights(int8_t *trits, float *scales, const float *w, size_t rows, size_t cols,
                                  tern_center center, tern_granularity granularity, int threads, tern_error *err) {
    TERN_CHECK_ARGUMENT(center == TERN_MEAN || center == TERN_MEDIAN, err,
                        "center %d is neither TERN_MEAN nor TERN_MEDIAN", (int)center);
    TERN_TRY(tern_check_threads(threads, err));
    tern_weights weights = {.w = w, .center = center, .trits = trits, .scales = scales};
    TERN_TRY(tern_check_slices(&weights.slices, trits, scales, w, rows, cols, granularity, err));
    const tern_kernels *kernels;
    TERN_TRY(choose_kernels(&kernels, err));
    if (tern_cpu_quantize_absmean(kernels, &weights, threads)) return TERN_OK;
    return tern_check_weights(w, rows * cols, err); /* says which */
}

tern_status tern_quantize_absmean(int8_t *trits, float *scales, const float *w, size_t rows, size_t cols,
                                  tern_center center, tern_granularity granularity, tern_error *err) {
    return tern_quantize_weights(trits, scales, w, rows, cols, center, granularity, 0, err);
}

static tern_status check_rows(const int8_t *q, const float *inv_scale, const float *x, size_t rows, size_t cols,
                              tern_error *err) {
    TERN_CHECK_ARGUMENT(q, err, "q is NULL");
    TERN_CHECK_ARGUMENT(inv_scale, err, "inv_scale is NULL");
    TERN_CHECK_ARGUMENT(x, err, "x is NULL");
    size_t count, bytes;
    if (!tern_checked_mul(&count, rows, cols) || !tern_checked_mul(&bytes, count, sizeof *x))
        return tern_fail(err, TERN_E_SIZE, TERN_NO_PLACE, "%zu rows of %zu activations do not fit into memory", rows,
                         cols);
    return TERN_OK;
}

tern_status tern_quantize_activations(int8_t *q, float *inv_scale, const float *x, size_t rows, size_t cols,
                                      tern_error *err) {
    TERN_TRY(check_rows(q, inv_scale, x, rows, cols, err));
    const tern_kernels *kernels;
    TERN_TRY(choose_kernels(&kernels, err));
    for (size_t r = 0; r < rows; r++) inv_scale[r] = kernels->quantize_row.fn(q + r * cols, x + r * cols, cols);
    return TERN_OK;
}

tern_status tern_quantize_activations_rmsnorm(int8_t *q, float *inv_scale, const float *x, const float *gain,
                                              float epsilon, size_t rows, size_t cols, tern_error *err) {
    TERN_TRY(check_rows(q, inv_scale, x, rows, cols, err));
    TERN_CHECK_ARGUMENT(tern_f32_is_finite(epsilon) && epsilon >= 0, err,
                        "epsilon is %g; it must be finite and not negative", (double)epsilon);
    const tern_kernels *kernels;
    TERN_TRY(choose_kernels(&kernels, err));
    for (size_t r = 0; r < rows; r++)
        inv_scale[r] = kernels->quantize_row_rmsnorm.fn(q + r * cols, x + r * cols, gain, epsilon, cols);
    return TERN_OK;
}
