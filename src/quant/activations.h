/* Quantizing one row of activations to int8: the scalar specification, and the steps that every vector version takes
 * from it so that all agree to the bit. The rules stand in tern/quant.h.
 *
 * Everything here assumes what C starts a thread with: rounding to nearest even, denormals kept. */
#ifndef TERN_QUANT_ACTIVATIONS_H
#define TERN_QUANT_ACTIVATIONS_H

#include <stddef.h>
#include <stdint.h>

#include "base/half.h"

/* Returns 1/s. */
float tern_quantize_row_scalar(int8_t *q, const float *x, size_t cols);
/* gain: cols floats, or NULL for ones. */
float tern_quantize_row_rmsnorm_scalar(int8_t *q, const float *x, const float *gain, float epsilon, size_t cols);

enum { TERN_RMS_PARTIALS = 16 };

/* r from the partial sums of x^2; 0 where mean + epsilon is 0. */
float tern_rms_factor(const double partials[TERN_RMS_PARTIALS], float epsilon, size_t cols);

/* The result of a row with a NaN or an Inf: zeros, and NaN for 1/s. */
float tern_quantize_row_not_finite(int8_t *q, size_t cols);

/* The bits of |x|. They order as |x| does, with Inf and then every NaN on top, so that one maximum finds both the
 * largest magnitude and whether the row is finite. */
static inline uint32_t tern_magnitude(float x) { return tern_f32_bits(x) & 0x7fffffffu; }
static inline uint32_t tern_max_magnitude(uint32_t a, uint32_t b) { return a > b ? a : b; }
static inline int tern_magnitude_is_finite(uint32_t bits) { return bits < 0x7f800000u; }

/* s; a normal number for every finite absmax. */
static inline float tern_activation_scale(uint32_t absmax) {
    float m = tern_f32_from_bits(absmax);
    return 127.0f / (m > 1e-5f ? m : 1e-5f);
}

/* clamp(round(v), -128, 127), ties to even. |v| < 2^24. */
static inline int8_t tern_round_i8(float v) {
    int32_t whole = (int32_t)v;    /* towards zero */
    float rest = v - (float)whole; /* exact */
    int32_t odd = whole & 1;
    whole += (rest > 0.5f) | ((rest == 0.5f) & odd);
    whole -= (rest < -0.5f) | ((rest == -0.5f) & odd);
    return (int8_t)(whole < -128 ? -128 : whole > 127 ? 127 : whole);
}

/* One value after RMSNorm. */
static inline float tern_rmsnorm_value(float x, float r, const float *gain, size_t c) {
    float v = x * r;
    return gain ? v * gain[c] : v;
}

#endif
