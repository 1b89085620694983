/* The functions of vector_math.h against libm's. */
#include "nn/vector_math.h"
#include "testing.h"

static void check_exp(float x, double ulps) {
    double want = exp((double)x), got = (double)tern_exp(x);
    if (!(fabs(got - want) <= ulps * want * 0x1p-23))
        fail_msg("e^%.9g is %.9g, should be %.9g", (double)x, got, want);
}

static void test_exp(void **state) {
    (void)state;
    for (int i = -87000; i < 88000; i += 7) check_exp((float)i * 1e-3f, 2);
    check_exp(0, 0);
    check_exp(1e-30f, 0.5);
    check_exp(-87.3f, 2);
    assert_true(tern_exp(-87.31f) == 0 && tern_exp(-1e30f) == 0 && tern_exp(-INFINITY) == 0);
    assert_true(tern_exp(1e30f) == tern_exp(88) && tern_exp(INFINITY) == tern_exp(88));
}

/* A NaN is passed on, so that a step that makes one is seen and skipped. */
static void test_nan(void **state) {
    (void)state;
    assert_true(isnan(tern_exp(NAN)) && isnan(tern_exp(-NAN)));
    assert_true(isnan(tern_sigmoid(NAN)) && isnan(tern_tanh(NAN)));
}

static void test_sigmoid_and_tanh(void **state) {
    (void)state;
    for (int i = -2000; i <= 2000; i++) {
        float x = (float)i * 0.05f;
        assert_true(fabs((double)tern_sigmoid(x) - 1 / (1 + exp(-(double)x))) < 3e-7);
        assert_true(fabs((double)tern_tanh(x) - tanh((double)x)) < 6e-7);
    }
    assert_true(tern_sigmoid(0) == 0.5f && tern_tanh(0) == 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exp),
        cmocka_unit_test(test_nan),
        cmocka_unit_test(test_sigmoid_and_tanh),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
