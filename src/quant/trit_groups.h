/* Integers of each scale group beside the rules r1 and r2 (quant/trit_rules.h); both kinds are off unless asked for.
 *
 *   rates       k, -4 .. 4, from 0. A step takes the group's gradients times 2^k. Then k moves by at most one towards
 *               round(log2(R / rms)), rms the root mean square of the group's gradients in this step before that, and R that
 *               of the whole tensor's as the step knows it, 2^gradient_exp: it is gradient_exp - round(log2 rms), all in
 *               integers. A gradient of zeros moves nothing.
 *   thresholds  h, 1 .. 126, from 42. t = (c > h) - (c < -h). Once in TERN_GROUP_PERIOD steps, with z of a group's n
 *               counters within h and p per cent of zeros wanted, h grows by one where 100 z < p n and falls by one where
 *               100 z > p n, unless that would overshoot to a share that is no nearer. Where it changes no trit it moves
 *               on all the same, towards counters that it will reach.
 *
 * Sums of squares are in double, a group's in the order of its columns. Groups are of `group` columns, the last of a
 * row may be shorter. */
#ifndef TERN_QUANT_TRIT_GROUPS_H
#define TERN_QUANT_TRIT_GROUPS_H

#include <stddef.h>
#include <stdint.h>

enum { TERN_GROUP_RATE_MAX = 4, TERN_GROUP_PERIOD = 1000, TERN_GROUP_ZEROS = 45 /* per cent, unless told */ };

/* One row: g[n] times the groups' 2^k, all finite; then their k moves. */
void tern_group_rates_step(int8_t *rates, float *g, size_t n, size_t group, int gradient_exp);

/* The groups of c[n]. percent: 1 .. 99. n < 2^50: 100 n fits. */
void tern_group_thresholds_step(uint8_t *thresholds, const int8_t *c, size_t n, size_t group, int percent);

/* One row of trits. */
void tern_group_trits(int8_t *trits, const int8_t *c, const uint8_t *thresholds, size_t n, size_t group);

#endif
