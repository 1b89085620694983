/* Activations to int8, 16 columns at a time; the last few by the scalar steps.
 *
 * The conversion rounds to nearest even by itself. |v * s| is at most 127 and a rounding error, so the saturating
 * narrowing only narrows. */
#include <arm_neon.h>

#include "kern/quantize_rows.h"
#include "quant/activations.h"

#define INLINE static inline __attribute__((always_inline))

/* Where the values of a row come from: v = x, or v = (x * r) * gain. Passed to inlined functions with a constant
 * `norm`, so that each caller gets its own loop. */
typedef struct row {
    const float *x, *gain;
    float r;
    int norm;
} row;

INLINE float32x4_t values(const row *in, size_t c) {
    float32x4_t v = vld1q_f32(in->x + c);
    if (in->norm) v = vmulq_f32(v, vdupq_n_f32(in->r));
    if (in->norm && in->gain) v = vmulq_f32(v, vld1q_f32(in->gain + c));
    return v;
}

INLINE float value(const row *in, size_t c) {
    return in->norm ? tern_rmsnorm_value(in->x[c], in->r, in->gain, c) : in->x[c];
}

INLINE uint32x4_t max_magnitude(uint32x4_t absmax, float32x4_t v) {
    return vmaxq_u32(absmax, vandq_u32(vreinterpretq_u32_f32(v), vdupq_n_u32(0x7fffffffu)));
}

INLINE uint32_t absmax_of(const row *in, size_t cols) {
    uint32x4_t m0 = vdupq_n_u32(0), m1 = m0, m2 = m0, m3 = m0;
    size_t c = 0;
    for (; cols - c >= 16; c += 16) {
        m0 = max_magnitude(m0, values(in, c));
        m1 = max_magnitude(m1, values(in, c + 4));
        m2 = max_magnitude(m2, values(in, c + 8));
        m3 = max_magnitude(m3, values(in, c + 12));
    }
    uint32_t absmax = vmaxvq_u32(vmaxq_u32(vmaxq_u32(m0, m1), vmaxq_u32(m2, m3)));
    for (; c < cols; c++) absmax = tern_max_magnitude(absmax, tern_magnitude(value(in, c)));
    return absmax;
}

INLINE int16x4_t rounded(float32x4_t v, float s) { return vqmovn_s32(vcvtnq_s32_f32(vmulq_n_f32(v, s))); }

INLINE void quantize_by(int8_t *q, const row *in, size_t cols, float s) {
    size_t c = 0;
    for (; cols - c >= 16; c += 16) {
        int16x8_t low = vcombine_s16(rounded(values(in, c), s), rounded(values(in, c + 4), s));
        int16x8_t high = vcombine_s16(rounded(values(in, c + 8), s), rounded(values(in, c + 12), s));
        vst1q_s8(q + c, vcombine_s8(vqmovn_s16(low), vqmovn_s16(high)));
    }
    for (; c < cols; c++) q[c] = tern_round_i8(value(in, c) * s);
}

INLINE float quantize(int8_t *q, const row *in, size_t cols) {
    const uint32_t absmax = absmax_of(in, cols);
    if (!tern_magnitude_is_finite(absmax)) return tern_quantize_row_not_finite(q, cols);
    const float s = tern_activation_scale(absmax);
    quantize_by(q, in, cols, s);
    return 1.0f / s;
}

float tern_quantize_row_neon(int8_t *q, const float *x, size_t cols) {
    const row in = {.x = x};
    return quantize(q, &in, cols);
}

/* Adds the squares of four columns to their partial sums. The square of a float is exact in double, so that a fused
 * multiply-add rounds as a multiply and an add do. */
INLINE void add_squares(float64x2_t sums[2], const float *x) {
    float32x4_t v = vld1q_f32(x);
    float64x2_t low = vcvt_f64_f32(vget_low_f32(v)), high = vcvt_high_f64_f32(v);
    sums[0] = vfmaq_f64(sums[0], low, low);
    sums[1] = vfmaq_f64(sums[1], high, high);
}

static float rms_factor(const float *x, float epsilon, size_t cols) {
    float64x2_t sums[8]; /* sums[i]: partial sums 2i and 2i + 1 */
    for (size_t i = 0; i < 8; i++) sums[i] = vdupq_n_f64(0);
    size_t c = 0;
    for (; cols - c >= 16; c += 16) {
        add_squares(sums, x + c);
        add_squares(sums + 2, x + c + 4);
        add_squares(sums + 4, x + c + 8);
        add_squares(sums + 6, x + c + 12);
    }
    double partials[TERN_RMS_PARTIALS];
    for (size_t i = 0; i < 8; i++) vst1q_f64(partials + 2 * i, sums[i]);
    for (; c < cols; c++) partials[c % TERN_RMS_PARTIALS] += (double)x[c] * (double)x[c];
    return tern_rms_factor(partials, epsilon, cols);
}

float tern_quantize_row_rmsnorm_neon(int8_t *q, const float *x, const float *gain, float epsilon, size_t cols) {
    const row in = {.x = x, .gain = gain, .r = rms_factor(x, epsilon, cols), .norm = 1};
    return quantize(q, &in, cols);
}
