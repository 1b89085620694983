#include "quant/shape_checks.h"

#include "base/checked.h"
#include "base/error.h"
#include "base/half.h"

tern_status tern_check_shape(size_t *count, size_t rows, size_t cols, tern_error *err) {
    size_t bytes;
    if (!tern_checked_mul(count, rows, cols) || !tern_checked_mul(&bytes, *count, sizeof(float)))
        return tern_fail(err, TERN_E_SIZE, TERN_NO_PLACE, "a matrix of %zu x %zu does not fit into memory", rows,
                         cols);
    return TERN_OK;
}

static uint32_t magnitude_bits(float f) { return tern_f32_bits(f) & 0x7fffffffu; }

/* The first pass has no early exit so that it vectorises; the second runs only on failure. */
tern_status tern_check_weights(const float *w, size_t count, tern_error *err) {
    uint32_t largest = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t u = magnitude_bits(w[i]);
        largest = u > largest ? u : largest;
    }
    if (largest < 0x7f800000u) return TERN_OK;
    size_t at = 0;
    while (tern_f32_is_finite(w[at])) at++;
    return tern_fail(err, TERN_E_DATA, at, "weight %zu is NaN or Inf; weights must be finite", at);
}

/* In bytes and with no early exit, so that it vectorises. */
int tern_are_trits(const int8_t *trits, size_t count) {
    uint8_t wrong = 0;
    for (size_t i = 0; i < count; i++) wrong |= (uint8_t)(trits[i] + 1) > 2;
    return !wrong;
}

tern_status tern_check_trits(const int8_t *trits, size_t count, tern_error *err) {
    if (tern_are_trits(trits, count)) return TERN_OK;
    size_t at = 0;
    while (trits[at] >= -1 && trits[at] <= 1) at++;
    return tern_fail(err, TERN_E_DATA, at, "trit %zu is %d; a trit is -1, 0 or 1", at, trits[at]);
}
