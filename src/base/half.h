/* IEEE binary16 and bfloat16, by bit operations alone: the same result on every machine. */
#ifndef TERN_BASE_HALF_H
#define TERN_BASE_HALF_H

#include <stdint.h>
#include <string.h>

static inline uint32_t tern_f32_bits(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static inline float tern_f32_from_bits(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline int tern_f32_is_finite(float f) { return (tern_f32_bits(f) & 0x7f800000u) != 0x7f800000u; }

static inline float tern_bf16_to_f32(uint16_t h) { return tern_f32_from_bits((uint32_t)h << 16); }

/* Exact. */
static inline float tern_f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    uint32_t exponent = (h >> 10) & 31u, mantissa = h & 0x3ffu;
    if (exponent == 31) return tern_f32_from_bits(sign | 0x7f800000u | mantissa << 13);
    if (exponent) return tern_f32_from_bits(sign | (exponent + 112u) << 23 | mantissa << 13);
    float magnitude = (float)mantissa * 0x1p-24f;
    return sign ? -magnitude : magnitude;
}

/* 2^e for e in -149..127, exact; denormal below -126. */
static inline float tern_f32_exp2(int e) {
    return tern_f32_from_bits(e >= -126 ? (uint32_t)(e + 127) << 23 : 1u << (e + 149));
}

/* Round to nearest even; overflow gives Inf, NaN stays a (quiet) NaN. */
static inline uint16_t tern_f32_to_f16(float f) {
    uint32_t u = tern_f32_bits(f), sign = u >> 16 & 0x8000u, magnitude = u & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
    if (magnitude >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* 65520 and more round to Inf */
    if (magnitude < 0x38800000u) {
        /* Below 2^-14 the result is a multiple of 2^-24: adding 0.5 = 2^23 * 2^-24 rounds to just that. */
        uint32_t rounded = tern_f32_bits(tern_f32_from_bits(magnitude) + 0.5f);
        return (uint16_t)(sign | (rounded & 0x7fffu));
    }
    uint32_t odd = magnitude >> 13 & 1u;
    return (uint16_t)(sign | ((magnitude - 0x38000000u + 0xfffu + odd) >> 13));
}

/* Round to nearest even; NaN stays a quiet NaN. */
static inline uint16_t tern_f32_to_bf16(float f) {
    uint32_t u = tern_f32_bits(f);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(u >> 16 | 0x40u);
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}

#endif
