/* The rules that train integers: what one step does to counters, given the gradient of the weights behind them.
 *
 * A gradient is a transient float; everything that persists is an integer. Each gradient g is turned into a whole
 * number once, d = clamp(round(g * f), +-2^30): the product is rounded to fp32, then to an integer, both to nearest
 * even; f is a whole number below 2^24 times a power of two, hence exact. From there on all arithmetic is on integers
 * of 32 bits, and the bits do not depend on the machine.
 *
 *   r            = 2^-gradient_exp; gradient_exp is the rounded log2 of the gradients' root mean square
 *   rate         counts a step, Q12 (4096 is one count)
 *   SR(x, u)     = floor(x + u), u uniform in [0, 1): stochastic rounding; SR of a whole number is that number
 *   u            16 bits of Philox4x32-10 with key `key`, of each word the lower half first: number i % 8 of the block
 *                i / 8 for weight i, but with r2 two of the block i / 4: 2 (i % 4) for m and the next for c. The counter's
 *                upper half is the step. fixed drops the lowest 4 of the 16 bits
 *
 *   r1     c = clamp(SR(c - rate g r), +-127)                        8 bits a weight
 *          d = rate g r in units of 2^-16
 *   r2     n = clamp(0.9 m + 0.1 * 50.56 g r, +-127);  m = SR(n);  c = clamp(SR(c - rate n / 16), +-127)      16 bits
 *          n, and the gradient's part d, in units of 2^-16, with 0.9 = 58982 / 2^16 and 5.056 = 331350 / 2^16; n is cut
 *          (floor) to 2^-8 before it meets the rate, and rate n / 16 is rounded to 2^-16, ties up
 *   ortho  m as r2's;  c = clamp(SR(c - rate o), +-127), o = m made orthogonal as a whole matrix (floats that live
 *   for
 *          the step), of root mean square near 1                      16 bits
 *   vote   v = clamp(v - sign(g) rate, +-127), where |v| > threshold: t one step towards v, v less the threshold
 *          (both signed); the rate in whole counts, ties up, one at least unless it is zero    8 bits and the trit
 *   corr   the seed's: k -= sum over the group of sign(g) t; its scale is 2^(e + 4 k / (steps group)), its trits rest
 *   fixed  c = clamp(SR(c - rate g r), +-32767) of 16 bits: gains, biases, dense weights
 *          d = rate g r in units of 2^-12
 *
 * With r1 and r2 the trit is (c > threshold) - (c < -threshold). R1 and R2: shared notes on float-free training;
 * stochastic rounding of an integer accumulator: Gupta et al., arXiv:1502.02551. */
#ifndef TERN_QUANT_TRIT_RULES_H
#define TERN_QUANT_TRIT_RULES_H

#include <stddef.h>
#include <stdint.h>

enum {
    TERN_TRIT_THRESHOLD = 42, /* of counters that start as round(50 N(0,1)): some 60 % zeros */
    TERN_TRIT_SPREAD = 50,    /* that deviation */
    TERN_VOTE_THRESHOLD = 40,
    TERN_RATE_ONE = 4096, /* Q12 */
    TERN_RATE_MAX = 32767,
    TERN_FIXED_RATE_MAX = (1 << 24) - 1, /* of `fixed` alone */
    TERN_NO_GRADIENT_EXP = -128          /* no gradient was measured yet */
};

typedef struct tern_trit_step {
    uint64_t key; /* of the random numbers: seed and tensor */
    uint64_t step;
    int32_t rate;     /* 0 .. TERN_RATE_MAX */
    int gradient_exp; /* -100 .. 100 */
    int threshold;    /* 1 .. 126 */
} tern_trit_step;

/* g[n] are the gradients of weights first .. first + n of the tensor, first a multiple of 8; the states are those of
 * the same weights. All return how many trits changed. */
size_t tern_trit_r1(int8_t *c, const float *g, size_t first, size_t n, const tern_trit_step *step);
size_t tern_trit_r2(int8_t *c, int8_t *m, const float *g, size_t first, size_t n, const tern_trit_step *step);
/* The momentum of ortho alone: no trit changes. */
void tern_trit_momentum(int8_t *m, const float *g, size_t first, size_t n, const tern_trit_step *step);
size_t tern_trit_vote(int8_t *trits, int8_t *votes, const float *g, size_t n, const tern_trit_step *step);

/* sum of sign(g) t: at most n in size, far from 2^63. */
int64_t tern_trit_correlation(const int8_t *trits, const float *g, size_t n);

void tern_fixed_step(int16_t *c, const float *g, size_t first, size_t n, const tern_trit_step *step);

/* trits = (c > threshold) - (c < -threshold). */
void tern_trits_of_counters(int8_t *trits, const int8_t *c, size_t n, int threshold);

/* round(log2(sqrt(mean))), ties up, within -100 .. 100; TERN_NO_GRADIENT_EXP for a mean of 0. */
int tern_gradient_exponent(double mean_of_squares);

#endif
