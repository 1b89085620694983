/* The arithmetic that the GPU's kernels take their rules from (gpu/gpu_trit_rules.h) against the library's rules, to
 * the bit. It is compiled for the host here; what is left for tests/gpu is how the kernels apply it. */
#include <float.h>

#include "base/random.h"
#include "gpu/gpu_trit_rules.h"
#include "quant/t5.h"
#include "quant/trit_groups.h"
#include "quant/trit_rules.h"
#include "testing.h"

enum { N = 1003, ROUNDS = 400 };

static uint64_t drawn;
static uint32_t draw(uint32_t below) { return (uint32_t)((uint64_t)tern_random_u32(91, drawn++) * below >> 32); }

static float draw_gradient(int exponent) {
    static const float ends[] = {0, -0.0f, FLT_MAX, -FLT_MAX, FLT_MIN, -FLT_MIN, FLT_TRUE_MIN, -FLT_TRUE_MIN, 1, -1};
    switch (draw(4)) {
    case 0: return ends[draw(sizeof ends / sizeof *ends)];
    case 1: return ldexpf((float)(int)draw(1 << 24) - (1 << 23), exponent - 16 - (int)draw(16));
    case 2: return ldexpf((float)(2 * (int)draw(200) - 199), exponent - 5 - (int)draw(12));
    default: return ldexpf(tern_random_normal(5, drawn++), exponent);
    }
}

typedef struct inputs {
    int8_t c[N], m[N], t[N];
    int16_t wide[N];
    float g[N];
    size_t first;
    tern_trit_step step;
} inputs;

static void draw_inputs(inputs *in, int32_t most_rate) {
    in->first = (size_t)draw(1000) * 8;
    in->step = (tern_trit_step){.key = (uint64_t)draw(UINT32_MAX) << 32 | draw(UINT32_MAX),
                                .step = draw(100000),
                                .rate = draw(8)   ? (int32_t)draw((uint32_t)most_rate + 1)
                                        : draw(2) ? most_rate
                                                  : 0,
                                .gradient_exp = (int)draw(201) - 100,
                                .threshold = draw(2) ? TERN_TRIT_THRESHOLD : TERN_VOTE_THRESHOLD};
    for (size_t i = 0; i < N; i++) {
        in->c[i] = (int8_t)((int)draw(255) - 127);
        in->m[i] = (int8_t)((int)draw(255) - 127);
        in->t[i] = (int8_t)((int)draw(3) - 1);
        in->wide[i] = (int16_t)((int)draw(65535) - 32767);
        in->g[i] = draw_gradient(in->step.gradient_exp);
    }
}

static int32_t bits_of(const inputs *in, size_t block, int j) {
    const tern_random4 r = tern_philox(in->step.key, block, in->step.step);
    return gpu_rule_bits(&r, j);
}

static size_t r1(inputs *in) {
    const float f = gpu_rule_factor(in->step.rate, in->step.gradient_exp, 16);
    size_t flips = 0;
    for (size_t i = 0; i < N; i++) {
        int old = in->c[i], now = gpu_rule_r1(old, in->g[i], f, bits_of(in, (in->first + i) / 8, (int)(i % 8)));
        flips += gpu_rule_trit(old, in->step.threshold) != gpu_rule_trit(now, in->step.threshold);
        in->c[i] = (int8_t)now;
    }
    return flips;
}

static size_t r2(inputs *in) {
    const float gain = gpu_rule_gain(in->step.gradient_exp);
    size_t flips = 0;
    for (size_t i = 0; i < N; i++) {
        const size_t block = (in->first + i) / 4;
        const int32_t next = gpu_rule_next_momentum(in->m[i], in->g[i], gain);
        int old = in->c[i], now = gpu_rule_r2(old, next, in->step.rate, bits_of(in, block, 2 * (int)(i % 4) + 1));
        flips += gpu_rule_trit(old, in->step.threshold) != gpu_rule_trit(now, in->step.threshold);
        in->c[i] = (int8_t)now;
        in->m[i] = (int8_t)gpu_rule_round_momentum(next, bits_of(in, block, 2 * (int)(i % 4)));
    }
    return flips;
}

static void momentum(inputs *in) {
    const float gain = gpu_rule_gain(in->step.gradient_exp);
    for (size_t i = 0; i < N; i++)
        in->m[i] = (int8_t)gpu_rule_round_momentum(gpu_rule_next_momentum(in->m[i], in->g[i], gain),
                                                   bits_of(in, (in->first + i) / 8, (int)(i % 8)));
}

static size_t vote(inputs *in) {
    const int32_t votes = gpu_rule_votes(in->step.rate);
    size_t flips = 0;
    for (size_t i = 0; i < N; i++) {
        int32_t v = in->c[i];
        int now = gpu_rule_hold(in->t[i] + gpu_rule_vote(&v, in->g[i], votes, in->step.threshold), 1);
        flips += now != in->t[i];
        in->t[i] = (int8_t)now;
        in->c[i] = (int8_t)v;
    }
    return flips;
}

static void fixed(inputs *in) {
    const float f = gpu_rule_factor(in->step.rate, in->step.gradient_exp, 12);
    for (size_t i = 0; i < N; i++)
        in->wide[i] =
            (int16_t)gpu_rule_fixed(in->wide[i], in->g[i], f, bits_of(in, (in->first + i) / 8, (int)(i % 8)));
}

static void same(const char *what, const inputs *got, const inputs *want) {
    for (size_t i = 0; i < N; i++)
        if (got->c[i] != want->c[i] || got->m[i] != want->m[i] || got->t[i] != want->t[i] ||
            got->wide[i] != want->wide[i])
            fail_msg("%s: weight %zu, gradient %a: (%d %d %d %d), should be (%d %d %d %d)", what, i,
                     (double)want->g[i], got->c[i], got->m[i], got->t[i], got->wide[i], want->c[i], want->m[i],
                     want->t[i], want->wide[i]);
}

static void test_rules(void **state) {
    (void)state;
    static inputs got, want;
    for (int round = 0; round < ROUNDS; round++) {
        draw_inputs(&want, TERN_RATE_MAX);
        got = want;
        assert_int_equal(r1(&got), tern_trit_r1(want.c, want.g, want.first, N, &want.step));
        same("r1", &got, &want);
        assert_int_equal(r2(&got), tern_trit_r2(want.c, want.m, want.g, want.first, N, &want.step));
        same("r2", &got, &want);
        momentum(&got);
        tern_trit_momentum(want.m, want.g, want.first, N, &want.step);
        same("momentum", &got, &want);
        assert_int_equal(vote(&got), tern_trit_vote(want.t, want.c, want.g, N, &want.step));
        same("vote", &got, &want);
        draw_inputs(&want, TERN_FIXED_RATE_MAX);
        got = want;
        fixed(&got);
        tern_fixed_step(want.wide, want.g, want.first, N, &want.step);
        same("fixed", &got, &want);
    }
}

static void check_exponent(double mean) { assert_int_equal(gpu_rule_exponent(mean), tern_gradient_exponent(mean)); }

static void test_exponents(void **state) {
    (void)state;
    for (int k = -330; k <= 330; k++) {
        const double one = ldexp(1, k);
        check_exponent(one);
        check_exponent(nextafter(one, 0));
        check_exponent(1.99 * one);
    }
    check_exponent(0);
    check_exponent(-1);
    check_exponent(DBL_TRUE_MIN);
    check_exponent(DBL_MAX);
    check_exponent(INFINITY);
    check_exponent(NAN);
    for (int e = -126; e <= 127; e++) assert_true(gpu_power(e) == ldexpf(1, e));
}

static void test_groups(void **state) {
    (void)state;
    enum { GROUP = 100 };
    for (int round = 0; round < 20 * ROUNDS; round++) {
        float g[GROUP], scaled[GROUP];
        int8_t k = (int8_t)((int)draw(9) - 4), c[GROUP];
        const int e = (int)draw(20) - 10, old = k;
        double squares = 0;
        for (size_t i = 0; i < GROUP; i++) {
            g[i] = scaled[i] = round % 7 ? ldexpf(tern_random_normal(6, drawn++), (int)draw(3) + e - 1) : 0;
            squares += (double)g[i] * (double)g[i];
            c[i] = (int8_t)((int)draw(255) - 127);
        }
        tern_group_rates_step(&k, scaled, GROUP, GROUP, e);
        assert_int_equal(gpu_rule_group_rate(old, gpu_rule_exponent(squares / GROUP), e), k);
        for (size_t i = 0; i < GROUP; i++) assert_true(scaled[i] == g[i] * gpu_power(old));

        uint8_t h = (uint8_t)(1 + draw(126));
        const int before = h, percent = 1 + (int)draw(99);
        int64_t zeros[3] = {0, 0, 0};
        for (size_t i = 0; i < GROUP; i++)
            for (int j = 0; j < 3; j++) zeros[j] += abs(c[i]) <= before - 1 + j;
        tern_group_thresholds_step(&h, c, GROUP, GROUP, percent);
        assert_int_equal(gpu_rule_group_threshold(before, zeros, GROUP, percent), h);
    }
}

static void test_t5(void **state) {
    (void)state;
    for (int byte = 0; byte < 243; byte++) {
        const uint8_t packed = (uint8_t)byte;
        int8_t trits[5];
        int own[5];
        tern_t5_unpack(trits, &packed, 0, 5);
        for (int j = 0; j < 5; j++) {
            own[j] = gpu_t5_trit(byte, j);
            assert_int_equal(own[j], trits[j]);
        }
        assert_int_equal(gpu_t5_byte(own), byte);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rules), cmocka_unit_test(test_exponents),
                                       cmocka_unit_test(test_groups), cmocka_unit_test(test_t5)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
