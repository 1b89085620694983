/* Size arithmetic that says when it overflows. Each returns nonzero on success and leaves *out alone otherwise. */
#ifndef TERN_BASE_CHECKED_H
#define TERN_BASE_CHECKED_H

#include <stddef.h>
#include <stdint.h>

static inline int tern_checked_mul(size_t *out, size_t a, size_t b) {
    size_t r;
    if (__builtin_mul_overflow(a, b, &r)) return 0;
    *out = r;
    return 1;
}

static inline int tern_checked_add(size_t *out, size_t a, size_t b) {
    size_t r;
    if (__builtin_add_overflow(a, b, &r)) return 0;
    *out = r;
    return 1;
}

static inline size_t tern_ceil_div(size_t a, size_t b) { return a / b + (a % b != 0); }

/* a rounded up to a multiple of b; the caller knows that it fits. */
static inline size_t tern_round_up(size_t a, size_t b) { return tern_ceil_div(a, b) * b; }

static inline size_t tern_min_size(size_t a, size_t b) { return a < b ? a : b; }
static inline size_t tern_max_size(size_t a, size_t b) { return a > b ? a : b; }

#endif
