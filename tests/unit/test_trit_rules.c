/* The integer rules, to the bit, against the mathematics of quant/trit_rules.h written down naively: every quantity
 * in
 * 64 bits, one weight at a time, its random number taken from the generator by itself. */
#include <float.h>

#include "base/random.h"
#include "base/random_fill.h"
#include "quant/trit_rules.h"
#include "testing.h"

/* ---- the reference */

/* round(v / 2^bits), to nearest even. */
static int64_t divide(int64_t v, int bits) {
    if (bits > 62) return 0; /* |v| < 2^48: less than a half */
    int64_t size = v < 0 ? -v : v, one = (int64_t)1 << bits, rest = size % one, q = size / one;
    if (2 * rest > one || (2 * rest == one && q % 2)) q++;
    return v < 0 ? -q : q;
}

static int64_t floor_divide(int64_t v, int64_t by) { return v / by - (v % by < 0); }
static int64_t hold(int64_t v, int64_t most) { return v > most ? most : v < -most ? -most : v; }

static int bits_of(int64_t v) {
    int bits = 0;
    for (uint64_t size = (uint64_t)(v < 0 ? -v : v); size; size >>= 1) bits++;
    return bits;
}

/* clamp(round(g * (whole * 2^exponent)), +-2^30), the product first rounded to the 24 bits of fp32. */
static int64_t d_of(float g, int64_t whole, int exponent) {
    int e;
    int64_t product = (int64_t)ldexp(frexp((double)g, &e), 24) * whole, most = (int64_t)1 << 30;
    e += exponent - 24;
    int extra = bits_of(product) - 24;
    if (extra > 0) {
        product = divide(product, extra);
        e += extra;
    }
    if (e <= 0) return hold(divide(product, -e), most);
    if (product && bits_of(product) + e > 31) return product < 0 ? -most : most;
    return hold(product * ((int64_t)1 << (product ? e : 0)), most);
}

/* 16 bits: number `half` of the eight of a block, the lower half of each word first. */
static int64_t u_of(const tern_trit_step *s, uint64_t block, int half) {
    uint32_t word = tern_philox(s->key, block, s->step).v[half / 2];
    return half % 2 ? word >> 16 : word & 0xffff;
}

static int trit_of(int64_t c, int threshold) { return c > threshold ? 1 : c < -threshold ? -1 : 0; }

static void reference_r1(int8_t *c, float g, uint64_t i, const tern_trit_step *s) {
    int64_t d = d_of(g, s->rate, 16 - 12 - s->gradient_exp);
    *c = (int8_t)hold(floor_divide(*c * (int64_t)65536 - d + u_of(s, i / 8, (int)(i % 8)), 65536), 127);
}

static void reference_r2(int8_t *c, int8_t *m, float g, uint64_t i, const tern_trit_step *s) {
    int64_t n = hold(*m * (int64_t)58982 + d_of(g, 331350, -s->gradient_exp), 127 * 65536);
    int64_t part = floor_divide(floor_divide(n, 256) * s->rate + 128, 256); /* 2^-8 by 2^-12, by 1/16, in 2^-16 */
    *m = (int8_t)floor_divide(n + u_of(s, i / 4, 2 * (int)(i % 4)), 65536);
    *c = (int8_t)hold(floor_divide(*c * (int64_t)65536 - part + u_of(s, i / 4, 2 * (int)(i % 4) + 1), 65536), 127);
}

static void reference_momentum(int8_t *m, float g, uint64_t i, const tern_trit_step *s) {
    int64_t n = hold(*m * (int64_t)58982 + d_of(g, 331350, -s->gradient_exp), 127 * 65536);
    *m = (int8_t)floor_divide(n + u_of(s, i / 8, (int)(i % 8)), 65536);
}

static void reference_vote(int8_t *t, int8_t *v, float g, const tern_trit_step *s) {
    int64_t votes = floor_divide(s->rate + 2048, 4096), count;
    if (s->rate && !votes) votes = 1;
    count = hold(*v - (g > 0 ? votes : g < 0 ? -votes : 0), 127);
    int way = trit_of(count, s->threshold);
    *t = (int8_t)hold(*t + way, 1);
    *v = (int8_t)(count - way * s->threshold);
}

static void reference_fixed(int16_t *c, float g, uint64_t i, const tern_trit_step *s) {
    int64_t d = d_of(g, s->rate, 12 - 12 - s->gradient_exp);
    *c = (int16_t)hold(floor_divide(*c * (int64_t)4096 - d + u_of(s, i / 8, (int)(i % 8)) / 16, 4096), 32767);
}

/* ---- inputs */

enum { MOST = 1100, FENCE = 16 };

typedef struct inputs {
    int8_t c[MOST + FENCE], m[MOST + FENCE], t[MOST + FENCE];
    int16_t wide[MOST + FENCE];
    float g[MOST];
    size_t first, n;
    tern_trit_step step;
} inputs;

static uint64_t drawn;
static uint32_t draw(uint32_t below) { return (uint32_t)((uint64_t)tern_random_u32(77, drawn++) * below >> 32); }

static int8_t draw_state(void) {
    static const int8_t ends[] = {127, -127, 126, -126, 42, 43, -42, -43, 0, 1, -1};
    return draw(2) ? ends[draw(sizeof ends)] : (int8_t)((int)draw(255) - 127);
}

/* Gradients as they are, ties of both roundings, and all that fp32 has at its ends. */
static float draw_gradient(int exponent) {
    static const float ends[] = {0, -0.0f, FLT_MAX, -FLT_MAX, FLT_MIN, -FLT_MIN, FLT_TRUE_MIN, -FLT_TRUE_MIN, 1, -1};
    switch (draw(4)) {
    case 0: return ends[draw(sizeof ends / sizeof *ends)];
    case 1: return ldexpf((float)(int)draw(1 << 24) - (1 << 23), exponent - 16 - (int)draw(16));
    case 2: return ldexpf((float)(2 * (int)draw(200) - 199), exponent - 5 - (int)draw(12));
    default: return ldexpf(tern_random_normal(5, drawn++), exponent);
    }
}

static tern_trit_step draw_step(void) {
    static const int32_t rates[] = {0, 1, 2047, 2048, 4095, 4096, 4097, 6143, 6144, TERN_RATE_MAX};
    static const int exponents[] = {-100, -99, -10, 0, 10, 99, 100}, thresholds[] = {1, 2, 40, 42, 125, 126};
    uint64_t high = (uint64_t)draw(UINT32_MAX) << 32;
    tern_trit_step s = {.key = high | draw(UINT32_MAX), .step = draw(2) ? draw(1000) : high + draw(1000)};
    s.rate = draw(2) ? rates[draw(sizeof rates / sizeof *rates)] : (int32_t)draw(TERN_RATE_MAX + 1);
    s.gradient_exp = draw(2) ? exponents[draw(sizeof exponents / sizeof *exponents)] : (int)draw(201) - 100;
    s.threshold = thresholds[draw(6)];
    return s;
}

/* Also over the end of the generator's lower 32 bits. */
static size_t draw_first(void) {
    static const size_t firsts[] = {0, 8, 256, 8000, ((size_t)1 << 34) - 512, ((size_t)1 << 35) - 512};
    return firsts[draw(sizeof firsts / sizeof *firsts)];
}

static inputs *make_inputs(size_t n) {
    inputs *in = malloc(sizeof *in);
    assert_non_null(in);
    in->n = n;
    in->first = draw_first();
    in->step = draw_step();
    for (size_t i = 0; i < MOST + FENCE; i++) {
        in->c[i] = draw_state();
        in->m[i] = draw_state();
        in->t[i] = (int8_t)((int)draw(3) - 1);
        in->wide[i] = (int16_t)(draw(4) ? (int)draw(65535) - 32767 : draw(2) ? 32767 : -32767);
    }
    for (size_t i = 0; i < MOST; i++) in->g[i] = draw_gradient(in->step.gradient_exp);
    return in;
}

static inputs *copy_inputs(const inputs *in) {
    inputs *copy = malloc(sizeof *copy);
    assert_non_null(copy);
    memcpy(copy, in, sizeof *copy);
    return copy;
}

/* ---- a rule in the library and in the reference: both return the flips */

typedef struct rule {
    const char *name;
    size_t (*step)(inputs *in, size_t at, size_t n);
    size_t (*reference)(inputs *in, size_t i);
} rule;

static size_t step_r1(inputs *in, size_t at, size_t n) {
    return tern_trit_r1(in->c + at, in->g + at, in->first + at, n, &in->step);
}
static size_t one_r1(inputs *in, size_t i) {
    int old = trit_of(in->c[i], in->step.threshold);
    reference_r1(&in->c[i], in->g[i], in->first + i, &in->step);
    return old != trit_of(in->c[i], in->step.threshold);
}
static size_t step_r2(inputs *in, size_t at, size_t n) {
    return tern_trit_r2(in->c + at, in->m + at, in->g + at, in->first + at, n, &in->step);
}
static size_t one_r2(inputs *in, size_t i) {
    int old = trit_of(in->c[i], in->step.threshold);
    reference_r2(&in->c[i], &in->m[i], in->g[i], in->first + i, &in->step);
    return old != trit_of(in->c[i], in->step.threshold);
}
static size_t step_momentum(inputs *in, size_t at, size_t n) {
    tern_trit_momentum(in->m + at, in->g + at, in->first + at, n, &in->step);
    return 0;
}
static size_t one_momentum(inputs *in, size_t i) {
    reference_momentum(&in->m[i], in->g[i], in->first + i, &in->step);
    return 0;
}
static size_t step_vote(inputs *in, size_t at, size_t n) {
    return tern_trit_vote(in->t + at, in->c + at, in->g + at, n, &in->step);
}
static size_t one_vote(inputs *in, size_t i) {
    int old = in->t[i];
    reference_vote(&in->t[i], &in->c[i], in->g[i], &in->step);
    return old != in->t[i];
}
static size_t step_fixed(inputs *in, size_t at, size_t n) {
    tern_fixed_step(in->wide + at, in->g + at, in->first + at, n, &in->step);
    return 0;
}
static size_t one_fixed(inputs *in, size_t i) {
    reference_fixed(&in->wide[i], in->g[i], in->first + i, &in->step);
    return 0;
}

static const rule rules[] = {{"r1", step_r1, one_r1},
                             {"r2", step_r2, one_r2},
                             {"momentum of ortho", step_momentum, one_momentum},
                             {"vote", step_vote, one_vote},
                             {"fixed", step_fixed, one_fixed}};
enum { RULES = sizeof rules / sizeof *rules };

static void check_same(const rule *r, const inputs *got, const inputs *want) {
    for (size_t i = 0; i < MOST + FENCE; i++)
        if (got->c[i] != want->c[i] || got->m[i] != want->m[i] || got->t[i] != want->t[i] ||
            got->wide[i] != want->wide[i])
            fail_msg(
                "%s: weight %zu of %zu + %zu, g %a, rate %d, exponent %d: (%d %d %d %d), should be (%d %d %d %d)",
                r->name, i, want->first, want->n, i < MOST ? (double)want->g[i] : 0, (int)want->step.rate,
                want->step.gradient_exp, got->c[i], got->m[i], got->t[i], got->wide[i], want->c[i], want->m[i],
                want->t[i], want->wide[i]);
}

/* The rule of n weights at once, and cut in two: what lies behind them stays. */
static void check_rule(const rule *r, size_t n) {
    inputs *want = make_inputs(n);
    if (r->step == step_fixed && draw(2)) want->step.rate = draw(2) ? TERN_FIXED_RATE_MAX : (int32_t)draw(1 << 24);
    inputs *whole = copy_inputs(want), *halves = copy_inputs(want);
    size_t flips = 0, cut = n ? draw((uint32_t)n) / 8 * 8 : 0;
    for (size_t i = 0; i < n; i++) flips += r->reference(want, i);
    assert_int_equal(r->step(whole, 0, n), flips);
    check_same(r, whole, want);
    assert_int_equal(r->step(halves, 0, cut) + r->step(halves, cut, n - cut), flips);
    check_same(r, halves, want);
    free(want);
    free(whole);
    free(halves);
}

static void test_rules(void **state) {
    (void)state;
    for (size_t r = 0; r < RULES; r++)
        for (size_t k = 0; k < 400; k++) check_rule(&rules[r], k < 80 ? k : draw(MOST + 1));
}

/* Every state with every other: all counters against gradients around them, at both ends of the rate. */
static void test_all_states(void **state) {
    (void)state;
    static const int32_t rates[] = {0, 1, TERN_RATE_ONE, TERN_RATE_MAX};
    for (size_t r = 0; r < RULES; r++)
        for (size_t rate = 0; rate < 4; rate++)
            for (int way = -2; way <= 2; way++) {
                inputs *in = make_inputs(255);
                in->step.rate = rates[rate];
                for (int i = 0; i < 255; i++) {
                    in->c[i] = (int8_t)(i - 127);
                    in->m[i] = (int8_t)((i * 7) % 255 - 127);
                    in->g[i] = ldexpf((float)way, in->step.gradient_exp);
                }
                inputs *want = copy_inputs(in);
                for (size_t i = 0; i < 255; i++) rules[r].reference(want, i);
                rules[r].step(in, 0, 255);
                check_same(&rules[r], in, want);
                free(in);
                free(want);
            }
}

/* ---- stochastic rounding */

enum { MANY = 1 << 16 };

/* The mean of many within five deviations of what was rounded; SR of v has the variance frac(v) (1 - frac(v)). */
static void check_mean(const char *what, double mean, double wanted, double unit) {
    double fraction = wanted - floor(wanted), room = 5 * sqrt(fraction * (1 - fraction) / MANY) + unit;
    if (!(fabs(mean - wanted) <= room)) fail_msg("%s: mean %g, should be %g +- %g", what, mean, wanted, room);
}

static void check_unbiased(float g) {
    static int8_t c[MANY], m[MANY];
    static int16_t wide[MANY];
    static float gradients[MANY];
    tern_trit_step s = {.key = 9, .step = 3, .rate = TERN_RATE_ONE, .threshold = TERN_TRIT_THRESHOLD};
    double sum = 0;
    for (size_t i = 0; i < MANY; i++) gradients[i] = g;
    memset(c, 0, sizeof c);
    tern_trit_r1(c, gradients, 0, MANY, &s);
    for (size_t i = 0; i < MANY; i++) sum += c[i];
    check_mean("r1", sum / MANY, -(double)g, 0x1p-16);
    memset(c, 0, sizeof c);
    memset(m, 0, sizeof m);
    tern_trit_r2(c, m, gradients, 0, MANY, &s);
    sum = 0;
    for (size_t i = 0; i < MANY; i++) sum += m[i];
    check_mean("r2, m", sum / MANY, 5.056 * (double)g, 0x1p-14);
    sum = 0;
    for (size_t i = 0; i < MANY; i++) sum += c[i];
    check_mean("r2, c", sum / MANY, -5.056 / 16 * (double)g, 0x1p-12);
    memset(wide, 0, sizeof wide);
    tern_fixed_step(wide, gradients, 0, MANY, &s);
    sum = 0;
    for (size_t i = 0; i < MANY; i++) sum += wide[i];
    check_mean("fixed", sum / MANY, -(double)g, 0x1p-12);
}

static void test_unbiased(void **state) {
    (void)state;
    static const float gradients[] = {0.3f, -0.3f, 0.0123f, -0.97f, 2.5f, -3.75f, 7.004f};
    for (size_t i = 0; i < sizeof gradients / sizeof *gradients; i++) check_unbiased(gradients[i]);
}

/* What is whole already is the same with every random number. */
static void test_whole(void **state) {
    (void)state;
    enum { N = 512 };
    int8_t c[N];
    int16_t wide[N];
    float g[N];
    for (uint64_t number = 0; number < 50; number++) {
        tern_trit_step s = {.key = 4, .step = number, .rate = 2 * TERN_RATE_ONE, .gradient_exp = 1, .threshold = 42};
        for (size_t i = 0; i < N; i++) {
            c[i] = (int8_t)((int)(i % 101) - 50);
            wide[i] = (int16_t)(37 * c[i]);
            g[i] = (float)((int)(i % 53) - 26);
        }
        tern_trit_r1(c, g, 0, N, &s);
        tern_fixed_step(wide, g, 0, N, &s);
        for (size_t i = 0; i < N; i++) {
            int old = (int)(i % 101) - 50, d = (int)(i % 53) - 26;
            assert_int_equal(c[i], old - d);
            assert_int_equal(wide[i], 37 * old - d);
        }
    }
}

/* ---- the rest */

static void test_correlation(void **state) {
    (void)state;
    for (size_t k = 0; k < 100; k++) {
        inputs *in = make_inputs(draw(MOST + 1));
        int64_t sum = 0;
        for (size_t i = 0; i < in->n; i++) sum += (in->g[i] > 0 ? 1 : in->g[i] < 0 ? -1 : 0) * (int64_t)in->t[i];
        assert_int_equal(tern_trit_correlation(in->t, in->g, in->n), sum);
        free(in);
    }
}

static void test_trits_of_counters(void **state) {
    (void)state;
    int8_t c[256], t[256];
    for (int i = 0; i < 256; i++) c[i] = (int8_t)(i - 128);
    for (int threshold = 1; threshold <= 126; threshold++) {
        tern_trits_of_counters(t, c, 256, threshold);
        for (size_t i = 0; i < 256; i++) assert_int_equal(t[i], trit_of(c[i], threshold));
    }
}

/* e where 2^(2e - 1) <= mean < 2^(2e + 1): half a binary digit below e, included, to half a digit above. */
static void test_gradient_exponent(void **state) {
    (void)state;
    for (int e = -100; e <= 100; e++) {
        double least = ldexp(1, 2 * e - 1), most = ldexp(1, 2 * e + 1);
        assert_int_equal(tern_gradient_exponent(least), e);
        assert_int_equal(tern_gradient_exponent(ldexp(1, 2 * e)), e);
        assert_int_equal(tern_gradient_exponent(ldexp(1.7, 2 * e)), e);
        assert_int_equal(tern_gradient_exponent(nextafter(most, 0)), e);
        if (e < 100) assert_int_equal(tern_gradient_exponent(most), e + 1);
    }
    static const double small[] = {DBL_TRUE_MIN, DBL_MIN, 0x1p-300}, large[] = {DBL_MAX, 0x1p203, INFINITY};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(tern_gradient_exponent(small[i]), -100);
        assert_int_equal(tern_gradient_exponent(large[i]), 100);
    }
    assert_int_equal(tern_gradient_exponent(0), TERN_NO_GRADIENT_EXP);
    assert_int_equal(tern_gradient_exponent(NAN), TERN_NO_GRADIENT_EXP);
}

/* Many at once are those that come one by one, over the end of each 32 bits of the counter. */
static void test_random_fill(void **state) {
    (void)state;
    static const uint64_t firsts[] = {0, 5, UINT32_MAX - 20, UINT32_MAX, (uint64_t)7 << 32, UINT64_MAX - 9};
    enum { BLOCKS = 41 };
    uint32_t out[4 * BLOCKS + 1];
    for (size_t f = 0; f < sizeof firsts / sizeof *firsts; f++)
        for (size_t blocks = 0; blocks <= BLOCKS; blocks++) {
            uint64_t key = UINT64_C(0x123456789abcdef0) * (f + 1), high = f * UINT64_C(0x100000001);
            out[4 * blocks] = 0xfeedbeef;
            tern_random_fill(out, key, firsts[f], high, blocks);
            for (size_t b = 0; b < blocks; b++) {
                tern_random4 want = tern_philox(key, firsts[f] + b, high);
                assert_memory_equal(out + 4 * b, want.v, sizeof want.v);
            }
            assert_int_equal(out[4 * blocks], 0xfeedbeef);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rules),
        cmocka_unit_test(test_all_states),
        cmocka_unit_test(test_unbiased),
        cmocka_unit_test(test_whole),
        cmocka_unit_test(test_correlation),
        cmocka_unit_test(test_trits_of_counters),
        cmocka_unit_test(test_gradient_exponent),
        cmocka_unit_test(test_random_fill),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
