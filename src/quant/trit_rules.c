#include "quant/trit_rules.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/checked.h"
#include "base/clones.h"
#include "base/random_fill.h"

enum { BLOCK = 256 }; /* weights whose random bits are drawn at once */

/* A debug build asserts the range of every accumulator; sum is written in 64 bits. */
#define ASSERT_I32(sum) assert((sum) >= INT32_MIN && (sum) <= INT32_MAX)

/* d = clamp(round(g * f)), 2^30 in size at most. */
static inline int32_t whole(float g, float f) {
    float v = g * f;
    v = v > 0x1p30f ? 0x1p30f : v < -0x1p30f ? -0x1p30f : v;
    return (int32_t)rintf(v);
}

static inline int32_t clamp(int32_t v, int32_t most) { return v > most ? most : v < -most ? -most : v; }

/* u: the 16-bit halves, lower first, of `blocks` Philox blocks from `first` on. */
static void draw(uint16_t *u, uint64_t key, uint64_t first, uint64_t high, size_t blocks) {
    uint32_t words[BLOCK];
    tern_random_fill(words, key, first, high, blocks);
    for (size_t i = 0; i < 4 * blocks; i++) {
        u[2 * i] = (uint16_t)words[i];
        u[2 * i + 1] = (uint16_t)(words[i] >> 16);
    }
}

/* The factor of g in d, in units of 2^-bits counts: scale * rate * r * 2^(bits - 12), exact. */
static float factor(int32_t rate, const tern_trit_step *s, int bits) {
    return ldexpf((float)rate, bits - 12 - s->gradient_exp);
}

static inline int trit(int c, int threshold) { return (c > threshold) - (c < -threshold); }

/* |c| 2^16 <= 2^23 and |d| <= 2^30: the sum stays below 2^31. flips: at most BLOCK. */
TERN_CLONES static size_t r1(int8_t *restrict c, const float *restrict g, const uint16_t *restrict u, size_t n,
                             float f, int threshold) {
    uint32_t flips = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t old = c[i], d = whole(g[i], f);
        ASSERT_I32((int64_t)old * 65536 - d + u[i]);
        int32_t new = clamp((old * 65536 - d + u[i]) >> 16, 127);
        flips += trit(old, threshold) != trit(new, threshold);
        c[i] = (int8_t) new;
    }
    return flips;
}

size_t tern_trit_r1(int8_t *c, const float *g, size_t first, size_t n, const tern_trit_step *s) {
    uint16_t u[BLOCK];
    float f = factor(s->rate, s, 16);
    size_t flips = 0;
    for (size_t i = 0, count; i < n; i += count) {
        count = tern_min_size(BLOCK, n - i);
        draw(u, s->key, (first + i) / 8, s->step, (count + 7) / 8);
        flips += r1(c + i, g + i, u, count, f, s->threshold);
    }
    return flips;
}

/* 0.9 in Q16, and 0.1 * 3.16 * 16 in Q16 times a rate of one: m is held in units of 1/16 of a normalised gradient. */
enum { KEEP = 58982, GAIN = 331350 };

/* mn: |m| KEEP + |d| < 2^23 + 2^30, then held to 127 * 2^16 < 2^23. mn >> 8 is below 2^15 and the rate too: their
 * product below 2^30, in Q24 with the division by 16; moved to Q16 it is d, below 2^22. Sums with u < 2^16 stay below
 * 2^24. */
TERN_CLONES static size_t r2(int8_t *restrict c, int8_t *restrict m, const float *restrict g,
                             const uint16_t *restrict u, size_t n, float f, int32_t rate, int threshold) {
    uint32_t flips = 0;
    for (size_t i = 0; i < n; i++) {
        ASSERT_I32((int64_t)m[i] * KEEP + whole(g[i], f));
        int32_t mn = clamp(m[i] * KEEP + whole(g[i], f), 127 * 65536);
        ASSERT_I32((int64_t)(mn >> 8) * rate + 128);
        int32_t d = ((mn >> 8) * rate + 128) >> 8;
        int32_t old = c[i], new = clamp((old * 65536 - d + u[2 * i + 1]) >> 16, 127);
        assert(d >= -(1 << 22) && d <= 1 << 22);
        flips += trit(old, threshold) != trit(new, threshold);
        m[i] = (int8_t)clamp((mn + u[2 * i]) >> 16, 127);
        c[i] = (int8_t) new;
    }
    return flips;
}

size_t tern_trit_r2(int8_t *c, int8_t *m, const float *g, size_t first, size_t n, const tern_trit_step *s) {
    uint16_t u[2 * BLOCK];
    float f = ldexpf((float)GAIN, -s->gradient_exp);
    size_t flips = 0;
    for (size_t i = 0, count; i < n; i += count) {
        count = tern_min_size(BLOCK, n - i);
        draw(u, s->key, (first + i) / 4, s->step, (count + 3) / 4);
        flips += r2(c + i, m + i, g + i, u, count, f, s->rate, s->threshold);
    }
    return flips;
}

/* As in r2: below 2^23 + 2^30, and below 2^24 with u. */
TERN_CLONES static void momentum(int8_t *restrict m, const float *restrict g, const uint16_t *restrict u, size_t n,
                                 float f) {
    for (size_t i = 0; i < n; i++) {
        ASSERT_I32((int64_t)m[i] * KEEP + whole(g[i], f));
        int32_t mn = clamp(m[i] * KEEP + whole(g[i], f), 127 * 65536);
        m[i] = (int8_t)clamp((mn + u[i]) >> 16, 127);
    }
}

void tern_trit_momentum(int8_t *m, const float *g, size_t first, size_t n, const tern_trit_step *s) {
    uint16_t u[BLOCK];
    float f = ldexpf((float)GAIN, -s->gradient_exp);
    for (size_t i = 0, count; i < n; i += count) {
        count = tern_min_size(BLOCK, n - i);
        draw(u, s->key, (first + i) / 8, s->step, (count + 7) / 8);
        momentum(m + i, g + i, u, count, f);
    }
}

/* |v| and votes are below 2^8, and so is what a vote of the threshold leaves. */
TERN_CLONES static size_t vote(int8_t *restrict t, int8_t *restrict v, const float *restrict g, size_t n, int votes,
                               int threshold) {
    uint32_t flips = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t count = clamp(v[i] - ((g[i] > 0) - (g[i] < 0)) * votes, 127);
        int way = trit(count, threshold), old = t[i], new = clamp(old + way, 1);
        flips += old != new;
        assert(count - way * threshold >= -127 && count - way * threshold <= 127);
        t[i] = (int8_t) new;
        v[i] = (int8_t)(count - way * threshold);
    }
    return flips;
}

size_t tern_trit_vote(int8_t *trits, int8_t *votes, const float *g, size_t n, const tern_trit_step *s) {
    int32_t counts = (s->rate + TERN_RATE_ONE / 2) / TERN_RATE_ONE;
    return vote(trits, votes, g, n, s->rate && !counts ? 1 : (int)counts, s->threshold);
}

int64_t tern_trit_correlation(const int8_t *trits, const float *g, size_t n) {
    int64_t sum = 0;
    for (size_t i = 0; i < n; i++) sum += ((g[i] > 0) - (g[i] < 0)) * trits[i];
    return sum;
}

/* |c| 2^12 <= 2^27 and |d| <= 2^30: the sum stays below 2^31. */
TERN_CLONES static void fixed(int16_t *restrict c, const float *restrict g, const uint16_t *restrict u, size_t n,
                              float f) {
    for (size_t i = 0; i < n; i++) {
        ASSERT_I32((int64_t)c[i] * 4096 - whole(g[i], f) + (u[i] >> 4));
        c[i] = (int16_t)clamp((c[i] * 4096 - whole(g[i], f) + (u[i] >> 4)) >> 12, 32767);
    }
}

void tern_fixed_step(int16_t *c, const float *g, size_t first, size_t n, const tern_trit_step *s) {
    uint16_t u[BLOCK];
    float f = factor(s->rate, s, 12);
    for (size_t i = 0, count; i < n; i += count) {
        count = tern_min_size(BLOCK, n - i);
        draw(u, s->key, (first + i) / 8, s->step, (count + 7) / 8);
        fixed(c + i, g + i, u, count, f);
    }
}

TERN_CLONES static void trits_of(int8_t *restrict t, const int8_t *restrict c, size_t n, int threshold) {
    for (size_t i = 0; i < n; i++) t[i] = (int8_t)((c[i] > threshold) - (c[i] < -threshold));
}

void tern_trits_of_counters(int8_t *trits, const int8_t *c, size_t n, int threshold) {
    trits_of(trits, c, n, threshold);
}

/* With 2^k <= mean < 2^(k+1), log2 of the root lies in k/2 .. (k+1)/2: an even k rounds to k/2, an odd one to
 * (k+1)/2. */
int tern_gradient_exponent(double mean) {
    if (!(mean > 0)) return TERN_NO_GRADIENT_EXP;
    if (mean > 0x1p200) return 100; /* an infinite one has no exponent */
    int k = ilogb(mean), e = k % 2 ? (k + 1) / 2 : k / 2;
    return e > 100 ? 100 : e < -100 ? -100 : e;
}
