/* Functions for loops that the compiler vectorises: straight code without calls, the same bits on every machine. */
#ifndef TERN_NN_VECTOR_MATH_H
#define TERN_NN_VECTOR_MATH_H

#include <stdint.h>
#include <string.h>

/* e^x to 2 units in the last place; 0 below -87.3, the largest finite value's neighbourhood above 88, a NaN of a NaN.
 * Cody and Waite's reduction by log 2 in two parts, then the Taylor polynomial of degree 6 on |r| <= log(2) / 2. */
static inline float tern_exp(float x) {
    float clipped = x < -87.3f ? -87.3f : x > 88.0f ? 88.0f : x;
    /* Adding and taking away 1.5 * 2^23 rounds to a whole number. */
    float whole = clipped * 1.44269504f + 12582912.0f - 12582912.0f;
    float r = clipped - whole * 0.693359375f + whole * 2.12194440e-4f;
    float p = 1.0f / 720.0f;
    p = p * r + 1.0f / 120.0f;
    p = p * r + 1.0f / 24.0f;
    p = p * r + 1.0f / 6.0f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    int32_t exponent = ((int32_t)(whole == whole ? whole : 0.0f) + 127) << 23; /* of a NaN, p is one */
    float power;
    memcpy(&power, &exponent, sizeof power);
    return x < -87.3f ? 0.0f : p * power;
}

static inline float tern_sigmoid(float x) { return 1.0f / (1.0f + tern_exp(-x)); }

static inline float tern_tanh(float x) { return 2.0f * tern_sigmoid(2.0f * x) - 1.0f; }

#endif
