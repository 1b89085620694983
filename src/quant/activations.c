#include "quant/activations.h"

#include <math.h>
#include <string.h>

float tern_quantize_row_not_finite(int8_t *q, size_t cols) {
    memset(q, 0, cols);
    return tern_f32_from_bits(0x7fc00000u);
}

float tern_quantize_row_scalar(int8_t *q, const float *x, size_t cols) {
    uint32_t absmax = 0;
    for (size_t c = 0; c < cols; c++) absmax = tern_max_magnitude(absmax, tern_magnitude(x[c]));
    if (!tern_magnitude_is_finite(absmax)) return tern_quantize_row_not_finite(q, cols);
    const float s = tern_activation_scale(absmax);
    for (size_t c = 0; c < cols; c++) q[c] = tern_round_i8(x[c] * s);
    return 1.0f / s;
}

/* The conversion to float is the one rounding of r to fp32; a huge 1/sqrt becomes Inf, which makes v not finite. */
float tern_rms_factor(const double partials[TERN_RMS_PARTIALS], float epsilon, size_t cols) {
    double sum = partials[0];
    for (size_t j = 1; j < TERN_RMS_PARTIALS; j++) sum += partials[j];
    double d = sum / (double)cols + (double)epsilon;
    return d == 0 ? 0 : (float)(1 / sqrt(d));
}

/* A NaN or Inf in x needs no test of its own: it makes r NaN or 0, and then v, NaN * 0 or Inf * 0, is NaN. */
float tern_quantize_row_rmsnorm_scalar(int8_t *q, const float *x, const float *gain, float epsilon, size_t cols) {
    double partials[TERN_RMS_PARTIALS] = {0};
    for (size_t c = 0; c < cols; c++) partials[c % TERN_RMS_PARTIALS] += (double)x[c] * (double)x[c];
    const float r = tern_rms_factor(partials, epsilon, cols);

    uint32_t absmax = 0;
    for (size_t c = 0; c < cols; c++)
        absmax = tern_max_magnitude(absmax, tern_magnitude(tern_rmsnorm_value(x[c], r, gain, c)));
    if (!tern_magnitude_is_finite(absmax)) return tern_quantize_row_not_finite(q, cols);
    const float s = tern_activation_scale(absmax);
    for (size_t c = 0; c < cols; c++) q[c] = tern_round_i8(tern_rmsnorm_value(x[c], r, gain, c) * s);
    return 1.0f / s;
}
