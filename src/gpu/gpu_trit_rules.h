/* The rules of quant/trit_rules.h and quant/trit_groups.h for one weight or group, as the kernels compute them. Plain
 * C, so that a test without a GPU can hold them against the library's functions: each must give the same integer for
 * the same gradient, which takes nothing but one fp32 product and one rounding, both to nearest even, and
 * integers. */
#ifndef TERN_GPU_GPU_TRIT_RULES_H
#define TERN_GPU_GPU_TRIT_RULES_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "base/random.h"
#include "quant/trit_groups.h"
#include "quant/trit_rules.h"

enum {
    GPU_RULE_KEEP = 58982,      /* 0.9 in Q16 */
    GPU_RULE_GAIN = 331350,     /* 5.056 in Q16 */
    GPU_SUM_PART = 1 << 16,     /* gradients whose squares are summed as one part: nn/dense.c's tern_sum_of_squares */
    GPU_SUM_LANES = 16,         /* interleaved sums of a part */
    GPU_TILE_WEIGHTS = 1 << 18, /* of nn/trit_backward.c's tiles */
    GPU_EXPONENT_PERIOD = 1000  /* steps between those of slow exponents */
};

/* 2^e, -126 <= e <= 127. */
TERN_RANDOM float gpu_power(int e) {
    const uint32_t bits = (uint32_t)(e + 127) << 23;
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

/* The factor of g in d, in units of 2^-bits counts; exact, as the rate is below 2^24. */
TERN_RANDOM float gpu_rule_factor(int32_t rate, int gradient_exp, int bits) {
    return (float)rate * gpu_power(bits - 12 - gradient_exp);
}
/* The same of a gradient's part in the momentum. */
TERN_RANDOM float gpu_rule_gain(int gradient_exp) { return (float)GPU_RULE_GAIN * gpu_power(-gradient_exp); }

TERN_RANDOM int32_t gpu_rule_hold(int32_t v, int32_t most) { return v > most ? most : v < -most ? -most : v; }

/* d = clamp(round(g * f)), 2^30 in size at most. */
TERN_RANDOM int32_t gpu_rule_whole(float g, float f) {
    float v = g * f;
    v = v > 0x1p30f ? 0x1p30f : v < -0x1p30f ? -0x1p30f : v;
    return (int32_t)rintf(v);
}

/* Number j of the eight of 16 bits in a block. */
TERN_RANDOM int32_t gpu_rule_bits(const tern_random4 *r, int j) {
    return (int32_t)(r->v[j / 2] >> 16 * (j % 2) & 0xffff);
}

TERN_RANDOM int gpu_rule_trit(int c, int threshold) { return (c > threshold) - (c < -threshold); }

/* |c| 2^16 <= 2^23 and |d| <= 2^30. */
TERN_RANDOM int32_t gpu_rule_r1(int32_t c, float g, float f, int32_t u) {
    return gpu_rule_hold((c * 65536 - gpu_rule_whole(g, f) + u) >> 16, 127);
}

/* What the momentum becomes before it is rounded: |m| KEEP + |d| < 2^23 + 2^30, then held to 127 * 2^16. */
TERN_RANDOM int32_t gpu_rule_next_momentum(int32_t m, float g, float gain) {
    return gpu_rule_hold(m * GPU_RULE_KEEP + gpu_rule_whole(g, gain), 127 * 65536);
}
TERN_RANDOM int32_t gpu_rule_round_momentum(int32_t next, int32_t u) { return gpu_rule_hold((next + u) >> 16, 127); }

/* The counter of r2 by the momentum before it is rounded; (next >> 8) * rate is below 2^30. */
TERN_RANDOM int32_t gpu_rule_r2(int32_t c, int32_t next, int32_t rate, int32_t u) {
    const int32_t d = ((next >> 8) * rate + 128) >> 8;
    return gpu_rule_hold((c * 65536 - d + u) >> 16, 127);
}

/* Whole votes of a rate. */
TERN_RANDOM int32_t gpu_rule_votes(int32_t rate) {
    const int32_t counts = (rate + TERN_RATE_ONE / 2) / TERN_RATE_ONE;
    return rate && !counts ? 1 : counts;
}
TERN_RANDOM int gpu_rule_sign(float g) { return (g > 0) - (g < 0); }
/* The votes for a trit with one more gradient; the trit moves by what is returned. */
TERN_RANDOM int gpu_rule_vote(int32_t *v, float g, int32_t votes, int threshold) {
    const int32_t count = gpu_rule_hold(*v - gpu_rule_sign(g) * votes, 127);
    const int way = gpu_rule_trit(count, threshold);
    *v = count - way * threshold;
    return way;
}

/* |c| 2^12 <= 2^27 and |d| <= 2^30. u: 16 bits. */
TERN_RANDOM int32_t gpu_rule_fixed(int32_t c, float g, float f, int32_t u) {
    return gpu_rule_hold((c * 4096 - gpu_rule_whole(g, f) + (u >> 4)) >> 12, 32767);
}

/* tern_gradient_exponent. A mean of squares of floats that is not 0 is no subnormal double: its exponent is in its
 * bits. They change where the mean crosses an odd power of two (and at 0), so that a sum in another order could, once
 * in some 2^50 steps, come to another exponent. Sums are therefore taken in the CPU's order, and never do. */
TERN_RANDOM int gpu_rule_exponent(double mean) {
    uint64_t bits;
    if (!(mean > 0)) return TERN_NO_GRADIENT_EXP;
    if (mean > 0x1p200) return 100;
    memcpy(&bits, &mean, sizeof bits);
    const int k = (int)(bits >> 52) - 1023, e = k % 2 ? (k + 1) / 2 : k / 2;
    return e > 100 ? 100 : e < -100 ? -100 : e;
}

/* A weight's part in the gradient of its exponent, before its trit. */
TERN_RANDOM int32_t gpu_rule_fraction(float g, int gradient_exp) {
    return (int32_t)rintf(fminf(fmaxf(g * gpu_power(8 - gradient_exp), -0x1p18f), 0x1p18f));
}

/* The rate of a group after a step whose gradients in it had the exponent e. */
TERN_RANDOM int gpu_rule_group_rate(int k, int e, int gradient_exp) {
    if (e == TERN_NO_GRADIENT_EXP) return k;
    const int next = k + (gradient_exp - e > k) - (gradient_exp - e < k);
    return next > TERN_GROUP_RATE_MAX || next < -TERN_GROUP_RATE_MAX ? k : next;
}

/* The threshold of a group of n counters: zeros[j] of them are at most h - 1 + j in size, j = 0, 1, 2. */
TERN_RANDOM int gpu_rule_group_threshold(int h, const int64_t zeros[3], int64_t n, int percent) {
    const int64_t wanted = n * percent, off = 100 * zeros[1] - wanted;
    const int way = (off < 0) - (off > 0), next = h + way;
    if (next < 1 || next > 126) return h;
    const int64_t then = 100 * zeros[1 + way] - wanted;
    return then == off || (then < 0 ? -then : then) < (off < 0 ? -off : off) ? next : h;
}

/* Trit j of a byte of t5, and the byte of five trits. */
TERN_RANDOM int gpu_t5_trit(int byte, int j) {
    for (; j > 0; j--) byte /= 3;
    return byte % 3 - 1;
}
TERN_RANDOM int gpu_t5_byte(const int trits[5]) {
    return 121 + trits[0] + 3 * trits[1] + 9 * trits[2] + 27 * trits[3] + 81 * trits[4];
}

#endif
