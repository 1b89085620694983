/* The quantizers against worked examples and against a naive reference written from tern/quant.h alone. */
#include <float.h>

#include "base/half.h"
#include "base/random.h"
#include "tern/quant.h"
#include "testing.h"

enum { PATTERN = 0x5a, ROOM = 4096 };

#define LEAST 0x1p-149f

static void assert_bits(float got, float expected) { assert_int_equal(tern_f32_bits(got), tern_f32_bits(expected)); }

/* ---- "on failure nothing is written" ------------------------------------------------------------------------- */

typedef struct outputs {
    int8_t bytes[64];
    float floats[64];
} outputs;

static outputs untouched(void) {
    outputs o;
    memset(&o, PATTERN, sizeof o);
    return o;
}

static void assert_untouched(const outputs *o) {
    const unsigned char *p = (const unsigned char *)o;
    for (size_t i = 0; i < sizeof *o; i++) assert_int_equal(p[i], PATTERN);
}

/* Runs a call that writes to o.bytes or o.floats and reports to &err. */
#define ASSERT_FAILS(expected_status, expected_place, call)   \
    do {                                                      \
        outputs o = untouched();                              \
        tern_error err = {.message = ""};                     \
        assert_int_equal((call), (expected_status));          \
        assert_int_equal(err.status, (expected_status));      \
        assert_true(err.place == (uint64_t)(expected_place)); \
        assert_true(err.message[0] != '\0');                  \
        assert_untouched(&o);                                 \
    } while (0)

#define ASSERT_OK(call)                           \
    do {                                          \
        tern_error err = {.status = TERN_OK};     \
        tern_status status_ = (call);             \
        if (status_) fail_msg("%s", err.message); \
    } while (0)

/* ---- absmean ------------------------------------------------------------------------------------------------- */

static void absmean_rounds_ties_to_even(void **state) {
    (void)state;
    /* |w| sums to 8 over 8 weights: m = 1, so that w / m = w. */
    const float w[8] = {0.5f, -0.5f, 1.5f, -1.5f, 0.50000006f, -0.49999994f, 2.5f, -0.5f};
    int8_t t[8];
    float scale;
    ASSERT_OK(tern_quantize_absmean(t, &scale, w, 2, 4, TERN_MEAN, TERN_PER_TENSOR, &err));
    assert_bits(scale, 1);
    const int8_t expected[8] = {0, 0, 1, -1, 1, 0, 1, 0};
    assert_memory_equal(t, expected, sizeof t);
}

static void absmean_floors_the_centre(void **state) {
    (void)state;
    const float w[6] = {0, 0, 0, 1e-6f, -9e-6f, 4.9e-6f};
    int8_t t[6];
    float scales[2];
    ASSERT_OK(tern_quantize_absmean(t, scales, w, 2, 3, TERN_MEAN, TERN_PER_ROW, &err));
    assert_bits(scales[0], 1e-5f);
    assert_bits(scales[1], 1e-5f);
    const int8_t expected[6] = {0, 0, 0, 0, -1, 0};
    assert_memory_equal(t, expected, sizeof t);
    const float least[3] = {LEAST, -LEAST, 0};
    ASSERT_OK(tern_quantize_absmean(t, scales, least, 1, 3, TERN_MEDIAN, TERN_PER_TENSOR, &err));
    assert_bits(scales[0], 1e-5f);
    assert_memory_equal(t, "\0\0\0", 3);
}

static void absmean_of_one_and_of_none(void **state) {
    (void)state;
    int8_t t = 7;
    float scale, w = -3;
    for (tern_center center = TERN_MEAN; center <= TERN_MEDIAN; center++) {
        ASSERT_OK(tern_quantize_absmean(&t, &scale, &w, 1, 1, center, TERN_PER_ROW, &err));
        assert_int_equal(t, -1);
        assert_bits(scale, 3);
        ASSERT_OK(tern_quantize_absmean(&t, &scale, &w, 0, 5, center, TERN_PER_TENSOR, &err));
        assert_bits(scale, 1e-5f);
        assert_int_equal(t, -1);
    }
}

static void absmean_takes_huge_weights(void **state) {
    (void)state;
    /* The sum exceeds fp32; a median below the floor makes the quotient overflow to Inf, still a 1. */
    const float w[5] = {FLT_MAX, -FLT_MAX, FLT_MAX, FLT_MAX, FLT_MAX};
    const float peak[5] = {0, 0, -FLT_MAX, 0, FLT_MAX};
    int8_t t[5];
    float scale;
    ASSERT_OK(tern_quantize_absmean(t, &scale, w, 1, 5, TERN_MEAN, TERN_PER_TENSOR, &err));
    assert_bits(scale, FLT_MAX);
    assert_memory_equal(t, ((const int8_t[]){1, -1, 1, 1, 1}), 5);
    ASSERT_OK(tern_quantize_absmean(t, &scale, peak, 1, 5, TERN_MEDIAN, TERN_PER_TENSOR, &err));
    assert_bits(scale, 1e-5f);
    assert_memory_equal(t, ((const int8_t[]){0, 0, -1, 0, 1}), 5);
}

static void median_of_odd_and_even_counts(void **state) {
    (void)state;
    int8_t t[6];
    float scale;
    const float odd[5] = {5, -1, 4, -2, 3}, even[6] = {-6, 1, 5, -2, 4, -3}, equal[4] = {2, -2, 2, 7};
    ASSERT_OK(tern_quantize_absmean(t, &scale, odd, 1, 5, TERN_MEDIAN, TERN_PER_TENSOR, &err));
    assert_bits(scale, 3);
    assert_memory_equal(t, ((const int8_t[]){1, 0, 1, -1, 1}), 5);
    ASSERT_OK(tern_quantize_absmean(t, &scale, even, 1, 6, TERN_MEDIAN, TERN_PER_TENSOR, &err));
    assert_bits(scale, 3.5f);
    assert_memory_equal(t, ((const int8_t[]){-1, 0, 1, -1, 1, -1}), 6);
    ASSERT_OK(tern_quantize_absmean(t, &scale, equal, 2, 2, TERN_MEDIAN, TERN_PER_TENSOR, &err));
    assert_bits(scale, 2);
    const float huge[2] = {FLT_MAX, -FLT_MAX}; /* the mean of the two must not overflow */
    ASSERT_OK(tern_quantize_absmean(t, &scale, huge, 1, 2, TERN_MEDIAN, TERN_PER_TENSOR, &err));
    assert_bits(scale, FLT_MAX);
}

static void absmean_divides_in_fp32(void **state) {
    (void)state;
    /* A row whose median is m, with the neighbours of m / 2 in it. */
    for (uint64_t i = 0; i < 20000; i++) {
        const float m = 1 + 0.5f * (tern_random_signed(1, i) + 1);
        const float w[7] = {m / 2, -nextafterf(m / 2, 9), nextafterf(m / 2, 0), m, 3, 4, -5};
        int8_t t[7];
        float scale;
        ASSERT_OK(tern_quantize_absmean(t, &scale, w, 1, 7, TERN_MEDIAN, TERN_PER_TENSOR, &err));
        assert_bits(scale, m);
        for (size_t c = 0; c < 4; c++) assert_int_equal(t[c], (int)rintf(w[c] / m));
    }
}

/* ---- the naive reference ------------------------------------------------------------------------------------- */

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

typedef enum method { MEAN, MEDIAN, TWN, THRESHOLD } method;

/* One slice; the scale comes back. */
static float reference_slice(int8_t *t, const float *w, size_t n, method how, float delta) {
    static double magnitude[ROOM];
    double mean = 0, kept = 0;
    size_t n_kept = 0;
    /* The order of the sum is left to test_set_trits.c: of these weights it does not reach the scale. */
    for (size_t i = 0; i < n; i++) mean += magnitude[i] = fabs((double)w[i]);
    mean /= (double)n;
    double limit = how == TWN ? 0.7 * mean : (double)delta;
    for (size_t i = 0; how >= TWN && i < n; i++) {
        t[i] = magnitude[i] > limit ? (w[i] < 0 ? -1 : 1) : 0;
        if (t[i]) kept += magnitude[i], n_kept++;
    }
    if (how >= TWN) return n_kept ? (float)(kept / (double)n_kept) : 0;
    if (how == MEDIAN) {
        qsort(magnitude, n, sizeof *magnitude, ascending);
        mean = n % 2 ? magnitude[n / 2] : (magnitude[n / 2 - 1] + magnitude[n / 2]) / 2;
    }
    float m = (float)mean > 1e-5f ? (float)mean : 1e-5f;
    for (size_t i = 0; i < n; i++) {
        float v = rintf(w[i] / m);
        t[i] = (int8_t)(v > 1 ? 1 : v < -1 ? -1 : v);
    }
    return m;
}

static tern_status quantize(int8_t *t, float *scales, const float *w, size_t rows, size_t cols, method how,
                            float delta, tern_granularity granularity, tern_error *err) {
    if (how == TWN) return tern_quantize_twn(t, scales, w, rows, cols, granularity, err);
    if (how == THRESHOLD) return tern_quantize_threshold(t, scales, w, rows, cols, delta, granularity, err);
    return tern_quantize_absmean(t, scales, w, rows, cols, how == MEAN ? TERN_MEAN : TERN_MEDIAN, granularity, err);
}

static void compare_with_reference(const float *w, size_t rows, size_t cols, method how,
                                   tern_granularity granularity) {
    static int8_t t[ROOM], expected[ROOM];
    float scales[64];
    const size_t n = granularity == TERN_PER_ROW ? rows : 1, length = rows * cols / n;
    memset(t, PATTERN, sizeof t);
    ASSERT_OK(quantize(t, scales, w, rows, cols, how, 0.3f, granularity, &err));
    for (size_t i = 0; i < n; i++) {
        float scale = reference_slice(expected + i * length, w + i * length, length, how, 0.3f);
        assert_bits(scales[i], scale);
    }
    assert_memory_equal(t, expected, rows * cols);
    assert_int_equal(t[rows * cols], PATTERN);
}

static void weights_match_the_reference(void **state) {
    (void)state;
    static const size_t shapes[][2] = {{1, 1}, {1, 2}, {2, 1}, {3, 5}, {7, 64}, {1, 1001}, {33, 100}, {64, 61}};
    static float w[ROOM];
    for (uint64_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        const size_t rows = shapes[s][0], cols = shapes[s][1];
        for (uint64_t style = 0; style < 4; style++) {
            for (size_t i = 0; i < rows * cols; i++) {
                float v = tern_random_signed(10 * s + style, i);
                /* uniform; many equal values and ties; many octaves; mostly zero */
                w[i] = style == 0   ? v
                       : style == 1 ? rintf(4 * v) / 4
                       : style == 2 ? ldexpf(v, (int)(tern_random_u32(99, i) % 40) - 20)
                                    : fmaxf(v - 0.9f, 0);
            }
            for (method how = MEAN; how <= THRESHOLD; how++) {
                compare_with_reference(w, rows, cols, how, TERN_PER_TENSOR);
                compare_with_reference(w, rows, cols, how, TERN_PER_ROW);
            }
        }
    }
}

/* ---- TWN and thresholds -------------------------------------------------------------------------------------- */

static void twn_by_hand(void **state) {
    (void)state;
    /* mean 1, delta 0.7: keeps 2, -1 and 1.5, mean 1.5; the second row keeps nothing, as all are 0 */
    const float w[10] = {2, -1, 0.5f, 0, 1.5f, 0, 0, -0.0f, 0, 0};
    int8_t t[10];
    float scales[2];
    ASSERT_OK(tern_quantize_twn(t, scales, w, 2, 5, TERN_PER_ROW, &err));
    assert_memory_equal(t, ((const int8_t[]){1, -1, 0, 0, 1, 0, 0, 0, 0, 0}), 10);
    assert_bits(scales[0], 1.5f);
    assert_bits(scales[1], 0);
    const float least[2] = {LEAST, -LEAST}; /* 0.7 of it is no float, yet it is kept */
    ASSERT_OK(tern_quantize_twn(t, scales, least, 1, 2, TERN_PER_TENSOR, &err));
    assert_memory_equal(t, ((const int8_t[]){1, -1}), 2);
    assert_bits(scales[0], LEAST);
    const float huge[2] = {FLT_MAX, -FLT_MAX};
    ASSERT_OK(tern_quantize_twn(t, scales, huge, 1, 2, TERN_PER_TENSOR, &err));
    assert_bits(scales[0], FLT_MAX);
}

static void threshold_is_strict(void **state) {
    (void)state;
    const float w[5] = {0.5f, -0.5f, 0.50000006f, -0.0f, LEAST};
    int8_t t[5];
    float scale;
    ASSERT_OK(tern_quantize_threshold(t, &scale, w, 1, 5, 0.5f, TERN_PER_TENSOR, &err));
    assert_memory_equal(t, ((const int8_t[]){0, 0, 1, 0, 0}), 5);
    assert_bits(scale, 0.50000006f);
    ASSERT_OK(tern_quantize_threshold(t, &scale, w, 1, 5, 0, TERN_PER_TENSOR, &err));
    assert_memory_equal(t, ((const int8_t[]){1, -1, 1, 0, 1}), 5);
    ASSERT_OK(tern_quantize_threshold(t, &scale, w, 1, 5, FLT_MAX, TERN_PER_TENSOR, &err));
    assert_memory_equal(t, ((const int8_t[]){0, 0, 0, 0, 0}), 5);
    assert_bits(scale, 0);
}

static void weight_quantizers_refuse(void **state) {
    (void)state;
    const size_t large = SIZE_MAX / 2 + 1;
    float w[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    for (method how = MEAN; how <= THRESHOLD; how++) {
#define CALL(t, s, w, rows, cols, granularity) \
    quantize(t, s, w, rows, cols, how, 1, (tern_granularity)(granularity), &err)
        ASSERT_FAILS(TERN_E_ARGUMENT, TERN_NO_PLACE, CALL(NULL, o.floats, w, 2, 4, 0));
        ASSERT_FAILS(TERN_E_ARGUMENT, TERN_NO_PLACE, CALL(o.bytes, NULL, w, 2, 4, 0));
        ASSERT_FAILS(TERN_E_ARGUMENT, TERN_NO_PLACE, CALL(o.bytes, o.floats, NULL, 2, 4, 0));
        ASSERT_FAILS(TERN_E_ARGUMENT, TERN_NO_PLACE, CALL(o.bytes, o.floats, w, 2, 4, 2));
        ASSERT_FAILS(TERN_E_SIZE, TERN_NO_PLACE, CALL(o.bytes, o.floats, w, large, 2, 0));
        ASSERT_FAILS(TERN_E_SIZE, TERN_NO_PLACE, CALL(o.bytes, o.floats, w, 1, large, 1));
        for (size_t at = 0; at < 8; at++) {
            const float good = w[at];
            w[at] = at % 2 ? NAN : -INFINITY;
            ASSERT_FAILS(TERN_E_DATA, at, CALL(o.bytes, o.floats, w, 2, 4, at / 4));
            w[at] = good;
        }
#undef CALL
    }
    ASSERT_FAILS(TERN_E_ARGUMENT, TERN_NO_PLACE,
                 tern_quantize_absmean(o.bytes, o.floats, w, 2, 4, (tern_center)2, TERN_PER_ROW, &err));
    const float deltas[3] = {-LEAST, NAN, INFINITY};
    for (size_t i = 0; i < 3; i++)
        ASSERT_FAILS(TERN_E_ARGUMENT, TERN_NO_PLACE,
                     tern_quantize_threshold(o.bytes, o.floats, w, 2, 4, deltas[i], TERN_PER_ROW, &err));
    assert_int_equal(tern_quantize_twn(NULL, NULL, NULL, 1, 1, TERN_PER_ROW, NULL), TERN_E_ARGUMENT);
}

/* ---- exponents ----------------------------------------------------------------------------------------------- */

static void valid_groups(void **state) {
    (void)state;
    for (size_t cols = 0; cols < 40; cols++)
        for (size_t group = 0; group < 60; group++)
            assert_int_equal(tern_group_is_valid(group, cols),
                             group == 6 || (group >= 4 && group % 4 == 0 && group <= (cols + 3) / 4 * 4));
    assert_true(tern_group_is_valid(SIZE_MAX - 3, SIZE_MAX));
    assert_false(tern_group_is_valid(SIZE_MAX, SIZE_MAX));
    assert_int_equal(tern_groups_per_row(6, 13), 3);
    assert_int_equal(tern_groups_per_row(4, 12), 3);
    assert_int_equal(tern_groups_per_row(8, 0), 0);
    assert_int_equal(tern_groups_per_row(0, 8), 0);
    assert_int_equal(tern_groups_per_row(2, SIZE_MAX), SIZE_MAX / 2 + 1);
}

static int8_t exponent_of(float value) {
    const float w[4] = {value, -value, value, value};
    int8_t e;
    ASSERT_OK(tern_group_exponents(&e, w, NULL, 1, 4, 4, &err));
    return e;
}

static void exponents_round_at_sqrt2(void **state) {
    (void)state;
    /* sqrt(2) is between these two neighbouring floats. */
    const float below = 0x1.6a09e6p0f, above = 0x1.6a09e8p0f;
    for (int k = -125; k <= 126; k++) {
        assert_int_equal(exponent_of(ldexpf(1, k)), k);
        assert_int_equal(exponent_of(ldexpf(below, k)), k);
        assert_int_equal(exponent_of(ldexpf(above, k)), k + 1);
    }
    assert_int_equal(exponent_of(0x1p127f), 127);
    assert_int_equal(exponent_of(FLT_MAX), 127);
    assert_int_equal(exponent_of(0x1p-126f), -126);
    assert_int_equal(exponent_of(0x1p-128f), -128);
    assert_int_equal(exponent_of(0x1p-129f), -128);
    assert_int_equal(exponent_of(LEAST), -128);
    assert_int_equal(exponent_of(0), 0);
}

/* A mean of 53 bits, in three floats that sum to 4 means exactly. */
static void exponents_are_decided_in_double(void **state) {
    (void)state;
    const double means[2] = {0x1.6a09e667f3bccp0, 0x1.6a09e667f3bcdp0}; /* the doubles around sqrt(2) */
    for (int i = 0; i < 2; i++) {
        const double sum = 4 * means[i], high = floor(sum * 0x1p21) * 0x1p-21;
        const double middle = floor((sum - high) * 0x1p44) * 0x1p-44;
        const float w[4] = {(float)high, (float)middle, (float)(sum - high - middle), 0};
        int8_t e;
        ASSERT_OK(tern_group_exponents(&e, w, NULL, 1, 4, 4, &err));
        assert_int_equal(e, i);
    }
}

static void exponents_look_at_kept_weights(void **state) {
    (void)state;
    const float w[10] = {8, 0.01f, -8, 0, 1, 2, 3, 2, 0, 0};
    const int8_t trits[10] = {1, 0, -1, 0, 0, 0, 0, 0, 1, 0};
    int8_t e[3];
    ASSERT_OK(tern_group_exponents(e, w, trits, 1, 10, 4, &err));
    assert_memory_equal(e, ((const int8_t[]){3, 1, 0}), 3); /* kept: 8; none kept: mean 2; kept: 0 */
    ASSERT_OK(tern_group_exponents(e, w, NULL, 1, 10, 4, &err));
    assert_memory_equal(e, ((const int8_t[]){2, 1, 0}), 3); /* 4.0025 */
    ASSERT_OK(tern_group_exponents(e, w, NULL, 2, 5, 8, &err));
    assert_memory_equal(e, ((const int8_t[]){2, 0}), 2); /* rows of 5: 17.01 / 5 and 7 / 5 */
}

/* Too near to a tie for libm to be trusted, the reference says so instead of deciding. */
static int reference_exponent(const float *w, const int8_t *trits, size_t n, int *near_tie) {
    long double sum[2] = {0};
    size_t count[2] = {0};
    for (size_t i = 0; i < n; i++) {
        int kept = trits && trits[i];
        sum[kept] += fabsl((long double)w[i]);
        count[kept]++;
    }
    long double mean = count[1] ? sum[1] / (long double)count[1] : sum[0] / (long double)count[0];
    *near_tie = 0;
    if (mean == 0) return 0;
    long double l = log2l(mean);
    *near_tie = fabsl(fabsl(l - rintl(l)) - 0.5L) < 1e-9L;
    return (int)fmaxl(-128, fminl(127, rintl(l)));
}

static const size_t groups[] = {4, 6, 8, 12, 16, 32, 64, 96, 100};

static void random_group_matrix(float *w, int8_t *trits, size_t n, uint64_t key) {
    for (size_t i = 0; i < n; i++) {
        w[i] = ldexpf(tern_random_signed(key, i), (int)(tern_random_u32(key + 1, i) % 20) - 10);
        trits[i] = tern_random_u32(key + 2, i / 32) % 3 ? tern_random_trit(key + 3, i) : 0; /* some groups empty */
    }
}

static void exponents_match_the_reference(void **state) {
    (void)state;
    static float w[ROOM];
    static int8_t trits[ROOM], e[ROOM];
    const size_t rows = 5;
    static const size_t widths[] = {97, 98, 100, 128, 250, 300};
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        const size_t cols = widths[i];
        random_group_matrix(w, trits, rows * cols, 50 + i);
        for (size_t j = 0; j < 2 * sizeof groups / sizeof *groups; j++) {
            const size_t group = groups[j / 2], per_row = (cols + group - 1) / group;
            const int8_t *given = j % 2 ? trits : NULL;
            memset(e, PATTERN, sizeof e);
            ASSERT_OK(tern_group_exponents(e, w, given, rows, cols, group, &err));
            for (size_t g = 0; g < rows * per_row; g++) {
                const size_t c = g % per_row * group, at = g / per_row * cols + c;
                int near_tie, expected = reference_exponent(w + at, given ? given + at : NULL,
                                                            cols - c < group ? cols - c : group, &near_tie);
                if (!near_tie) assert_int_equal(e[g], expected);
            }
            assert_int_equal(e[rows * per_row], PATTERN);
        }
    }
}

static void group_functions_refuse(void **state) {
    (void)state;
    const size_t large = SIZE_MAX / 2 + 1;
    float w[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    int8_t t[8] = {0}, e[8] = {0};
#define EXPONENTS(e, w, t, rows, cols, group) tern_group_exponents(e, w, t, rows, cols, group, &err)
    ASSERT_FAILS(TERN_E_ARGUMENT, TERN_NO_PLACE, EXPONENTS(NULL, w, t, 2, 4, 4));
    ASSERT_FAILS(TERN_E_ARGUMENT, TERN_NO_PLACE, EXPONENTS(o.bytes, NULL, t, 2, 4, 4));
    ASSERT_FAILS(TERN_E_ARGUMENT, TERN_NO_PLACE, EXPONENTS(o.bytes, w, t, 2, 4, 0));
    ASSERT_FAILS(TERN_E_ARGUMENT, TERN_NO_PLACE, EXPONENTS(o.bytes, w, t, 2, 4, 5));
    ASSERT_FAILS(TERN_E_ARGUMENT, TERN_NO_PLACE, EXPONENTS(o.bytes, w, t, 2, 4, 8));
    ASSERT_FAILS(TERN_E_SIZE, TERN_NO_PLACE, EXPONENTS(o.bytes, w, t, large, 4, 4));
    ASSERT_FAILS(TERN_E_SIZE, TERN_NO_PLACE, EXPONENTS(o.bytes, w, t, 1, large, 4));
    w[5] = NAN;
    ASSERT_FAILS(TERN_E_DATA, 5, EXPONENTS(o.bytes, w, NULL, 2, 4, 4));
    w[5] = 0;
#define REGROUP(to, tg, from, fg, t, rows, cols) tern_regroup_exponents(to, tg, from, fg, t, rows, cols, &err)
    ASSERT_FAILS(TERN_E_ARGUMENT, TERN_NO_PLACE, REGROUP(NULL, 4, e, 4, t, 2, 4));
    ASSERT_FAILS(TERN_E_ARGUMENT, TERN_NO_PLACE, REGROUP(o.bytes, 4, NULL, 4, t, 2, 4));
    ASSERT_FAILS(TERN_E_ARGUMENT, TERN_NO_PLACE, REGROUP(o.bytes, 4, e, 4, NULL, 2, 4));
    ASSERT_FAILS(TERN_E_ARGUMENT, TERN_NO_PLACE, REGROUP(o.bytes, 5, e, 4, t, 2, 4));
    ASSERT_FAILS(TERN_E_ARGUMENT, TERN_NO_PLACE, REGROUP(o.bytes, 4, e, 0, t, 2, 4));
    ASSERT_FAILS(TERN_E_SIZE, TERN_NO_PLACE, REGROUP(o.bytes, 4, e, 4, t, 2, large));
#define FROM_GROUPS(out, t, e, rows, cols, group) tern_dequantize_groups(out, t, e, rows, cols, group, &err)
    ASSERT_FAILS(TERN_E_ARGUMENT, TERN_NO_PLACE, FROM_GROUPS(NULL, t, e, 2, 4, 4));
    ASSERT_FAILS(TERN_E_ARGUMENT, TERN_NO_PLACE, FROM_GROUPS(o.floats, NULL, e, 2, 4, 4));
    ASSERT_FAILS(TERN_E_ARGUMENT, TERN_NO_PLACE, FROM_GROUPS(o.floats, t, NULL, 2, 4, 4));
    ASSERT_FAILS(TERN_E_ARGUMENT, TERN_NO_PLACE, FROM_GROUPS(o.floats, t, e, 2, 4, 10));
    ASSERT_FAILS(TERN_E_SIZE, TERN_NO_PLACE, FROM_GROUPS(o.floats, t, e, large, 2, 4));
    t[6] = 2;
    ASSERT_FAILS(TERN_E_DATA, 6, EXPONENTS(o.bytes, w, t, 2, 4, 4));
    ASSERT_FAILS(TERN_E_DATA, 6, REGROUP(o.bytes, 4, e, 4, t, 2, 4));
    t[6] = -128;
    ASSERT_FAILS(TERN_E_DATA, 6, FROM_GROUPS(o.floats, t, e, 2, 4, 4));
}

/* ---- regrouping ---------------------------------------------------------------------------------------------- */

static void splitting_is_exact(void **state) {
    (void)state;
    static int8_t trits[ROOM], from[ROOM], to[ROOM];
    static float w[ROOM], before[ROOM], after[ROOM];
    static const size_t pairs[][2] = {{8, 4}, {12, 6}, {12, 4}, {64, 32}, {96, 6}, {96, 32}, {100, 4}, {100, 100}};
    const size_t rows = 3, cols = 203;
    for (size_t p = 0; p < sizeof pairs / sizeof *pairs; p++) {
        random_group_matrix(w, trits, rows * cols, 70 + p);
        const size_t n = rows * tern_groups_per_row(pairs[p][0], cols);
        for (size_t i = 0; i < n; i++) from[i] = (int8_t)((int)(tern_random_u32(p, i) % 256) - 128);
        ASSERT_OK(tern_regroup_exponents(to, pairs[p][1], from, pairs[p][0], trits, rows, cols, &err));
        for (size_t i = 0; i < rows * tern_groups_per_row(pairs[p][1], cols); i++) {
            const size_t per_row = tern_groups_per_row(pairs[p][1], cols);
            const size_t old = i % per_row * pairs[p][1] / pairs[p][0];
            assert_int_equal(to[i], from[i / per_row * tern_groups_per_row(pairs[p][0], cols) + old]);
        }
        ASSERT_OK(tern_dequantize_groups(before, trits, from, rows, cols, pairs[p][0], &err));
        ASSERT_OK(tern_dequantize_groups(after, trits, to, rows, cols, pairs[p][1], &err));
        assert_memory_equal(before, after, rows * cols * sizeof *before);
    }
}

static void merging_by_hand(void **state) {
    (void)state;
    const int8_t from[3] = {0, 2, -128};
    int8_t to[3];
    int8_t trits[12] = {1, 0, 0, 0, -1, 0, 0, 0, 0, 0, 0, 0};
    ASSERT_OK(tern_regroup_exponents(to, 8, from, 4, trits, 1, 12, &err));
    assert_memory_equal(to, ((const int8_t[]){1, -128}), 2); /* mean(1, 4) = 2.5 */
    trits[1] = trits[2] = trits[3] = 1;
    ASSERT_OK(tern_regroup_exponents(to, 8, from, 4, trits, 1, 12, &err));
    assert_int_equal(to[0], 1); /* mean(1, 1, 1, 1, 4) = 1.6 */
    trits[4] = 0;
    ASSERT_OK(tern_regroup_exponents(to, 8, from, 4, trits, 1, 12, &err));
    assert_int_equal(to[0], 0); /* the 4 is not kept any more */
    memset(trits, 0, sizeof trits);
    ASSERT_OK(tern_regroup_exponents(to, 8, from, 4, trits, 1, 12, &err));
    assert_memory_equal(to, ((const int8_t[]){1, -128}), 2); /* none kept: mean over all, 2.5 */
    ASSERT_OK(tern_regroup_exponents(to, 6, from, 4, trits, 1, 12, &err));
    assert_memory_equal(to, ((const int8_t[]){1, 0}), 2); /* (4 + 2 * 4) / 6 = 2; (2 * 4 + 4 * 2^-128) / 6 = 4/3 */
}

static void merging_equal_exponents_is_exact(void **state) {
    (void)state;
    static int8_t trits[ROOM], from[ROOM], to[ROOM];
    const size_t cols = 250;
    for (size_t i = 0; i < 4 * cols; i++) trits[i] = tern_random_trit(5, i);
    for (int e = -128; e <= 127; e++) {
        memset(from, e, sizeof from);
        for (size_t g = 0; g < sizeof groups / sizeof *groups; g++) {
            ASSERT_OK(tern_regroup_exponents(to, groups[g], from, 4, trits, 4, cols, &err));
            for (size_t i = 0; i < 4 * tern_groups_per_row(groups[g], cols); i++) assert_int_equal(to[i], e);
        }
    }
}

/* The new scale is within half an octave of the mean of the old ones. */
static void merging_errs_by_half_an_octave(void **state) {
    (void)state;
    for (uint64_t i = 0; i < 5000; i++) {
        int8_t from[2], trits[8], to;
        for (uint64_t j = 0; j < 2; j++) from[j] = (int8_t)((int)(tern_random_u32(6, 2 * i + j) % 250) - 125);
        if (i % 2) from[1] = (int8_t)(from[0] + (from[0] < 120 ? (int)(i / 2 % 5) : 0));
        double sum = 0;
        int kept = 0;
        for (uint64_t c = 0; c < 8; c++) {
            trits[c] = tern_random_trit(7, 8 * i + c);
            if (trits[c]) sum += ldexp(1, from[c / 4]), kept++;
        }
        if (!kept) continue;
        ASSERT_OK(tern_regroup_exponents(&to, 8, from, 4, trits, 1, 8, &err));
        assert_true(fabs(log2(sum / kept) - to) <= 0.5 + 1e-12);
    }
}

/* ---- back to floats, sparsity -------------------------------------------------------------------------------- */

static void dequantize_by_hand(void **state) {
    (void)state;
    const int8_t trits[6] = {1, -1, 0, -1, 0, 1};
    const float scales[2] = {0.75f, FLT_MAX};
    float out[6];
    ASSERT_OK(tern_dequantize(out, trits, scales, 2, 3, TERN_PER_ROW, &err));
    assert_memory_equal(out, ((const float[]){0.75f, -0.75f, 0, -FLT_MAX, 0, FLT_MAX}), sizeof out);
    ASSERT_OK(tern_dequantize(out, trits, scales, 2, 3, TERN_PER_TENSOR, &err));
    assert_memory_equal(out, ((const float[]){0.75f, -0.75f, 0, -0.75f, 0, 0.75f}), sizeof out);
    ASSERT_OK(tern_dequantize(out, trits, (const float[]){0}, 1, 3, TERN_PER_TENSOR, &err));
    for (size_t i = 0; i < 3; i++) assert_true(out[i] == 0);
}

static void dequantize_every_exponent(void **state) {
    (void)state;
    const int8_t trits[5] = {1, 0, -1, 1, -1};
    for (int e = -128; e <= 127; e++) {
        const int8_t exponents[2] = {(int8_t)e, (int8_t)(-1 - e)};
        const float s = ldexpf(1, e), last = ldexpf(1, -1 - e);
        float out[5];
        ASSERT_OK(tern_dequantize_groups(out, trits, exponents, 1, 5, 4, &err));
        assert_memory_equal(out, ((const float[]){s, 0, -s, s, -last}), sizeof out);
    }
}

static void dequantize_refuses(void **state) {
    (void)state;
    int8_t t[4] = {1, 0, -1, 0};
    float scales[2] = {1, 2};
#define DEQUANTIZE(out, t, s, rows, cols, granularity) \
    tern_dequantize(out, t, s, rows, cols, (tern_granularity)(granularity), &err)
    ASSERT_FAILS(TERN_E_ARGUMENT, TERN_NO_PLACE, DEQUANTIZE(NULL, t, scales, 2, 2, 0));
    ASSERT_FAILS(TERN_E_ARGUMENT, TERN_NO_PLACE, DEQUANTIZE(o.floats, NULL, scales, 2, 2, 0));
    ASSERT_FAILS(TERN_E_ARGUMENT, TERN_NO_PLACE, DEQUANTIZE(o.floats, t, NULL, 2, 2, 0));
    ASSERT_FAILS(TERN_E_ARGUMENT, TERN_NO_PLACE, DEQUANTIZE(o.floats, t, scales, 2, 2, 3));
    ASSERT_FAILS(TERN_E_SIZE, TERN_NO_PLACE, DEQUANTIZE(o.floats, t, scales, SIZE_MAX, 2, 0));
    const float bad[4] = {NAN, INFINITY, -INFINITY, -LEAST};
    for (size_t i = 0; i < 4; i++) {
        scales[1] = bad[i];
        ASSERT_FAILS(TERN_E_DATA, 1, DEQUANTIZE(o.floats, t, scales, 2, 2, 1));
        ASSERT_FAILS(TERN_E_DATA, 0, DEQUANTIZE(o.floats, t, bad + i, 2, 2, 0));
    }
    scales[1] = -0.0f;
    t[3] = -2;
    ASSERT_FAILS(TERN_E_DATA, 3, DEQUANTIZE(o.floats, t, scales, 2, 2, 1));
}

static void sparsity_counts_zeros(void **state) {
    (void)state;
    const int8_t trits[6] = {1, 0, -1, 0, 0, 1};
    assert_true(tern_sparsity(trits, 2, 3) == 0.5);
    assert_true(tern_sparsity(trits + 1, 1, 1) == 1);
    assert_true(tern_sparsity(trits, 0, 3) == 0);
    assert_true(isnan(tern_sparsity(NULL, 2, 3)));
    assert_true(isnan(tern_sparsity(trits, SIZE_MAX, 3)));
}

/* ---- activations --------------------------------------------------------------------------------------------- */

static void reference_row(int8_t *q, float *inv_scale, const float *v, size_t n) {
    float largest = 1e-5f;
    int finite = 1;
    for (size_t c = 0; c < n; c++) {
        finite &= isfinite(v[c]) != 0;
        if (fabsf(v[c]) > largest) largest = fabsf(v[c]);
    }
    const float s = 127.0f / largest;
    for (size_t c = 0; c < n; c++) q[c] = (int8_t)(finite ? rintf(v[c] * s) : 0);
    *inv_scale = finite ? 1.0f / s : NAN;
}

/* To the letter of tern/quant.h. */
static void reference_norm(float *v, const float *x, const float *gain, float epsilon, size_t n) {
    double sum = 0;
    for (size_t j = 0; j < 16; j++) {
        double partial = 0;
        for (size_t c = j; c < n; c += 16) partial += (double)x[c] * (double)x[c];
        sum += partial;
    }
    const double d = sum / (double)n + (double)epsilon;
    const float r = d == 0 ? 0 : (float)(1.0 / sqrt(d));
    for (size_t c = 0; c < n; c++) {
        v[c] = x[c] * r;
        if (gain) v[c] *= gain[c];
    }
}

static void assert_same_scale(float got, float expected) {
    if (isnan(expected))
        assert_true(isnan(got));
    else
        assert_bits(got, expected);
}

static void activations_by_hand(void **state) {
    (void)state;
    /* the largest is 127, so s = 1: ties to even */
    const float x[8] = {127, 0.5f, 1.5f, -0.5f, -1.5f, 2.5f, -126.5f, 0.50000006f};
    int8_t q[8];
    float inv;
    ASSERT_OK(tern_quantize_activations(q, &inv, x, 1, 8, &err));
    assert_memory_equal(q, ((const int8_t[]){127, 0, 2, 0, -2, 2, -126, 1}), 8);
    assert_bits(inv, 1);
    ASSERT_OK(tern_quantize_activations(q, &inv, (const float[]){-FLT_MAX, 1, LEAST}, 1, 3, &err));
    assert_memory_equal(q, ((const int8_t[]){-127, 0, 0}), 3);
    assert_true(isfinite(inv) && inv > 0);
    ASSERT_OK(tern_quantize_activations(q, &inv, (const float[]){5e-6f, -LEAST}, 1, 2, &err));
    assert_memory_equal(q, ((const int8_t[]){64, 0}), 2); /* under the floor: 63.5 to the even 64 */
}

static void activation_rows_are_independent(void **state) {
    (void)state;
    float x[6][5] = {{0},     {1, NAN, 2, 3, 4}, {1, 2, 3, 4, -INFINITY}, {INFINITY, 0, 0, 0, 0},
                     {-0.0f}, {1, 2, 3, 4, 5}};
    int8_t q[31];
    float inv[7] = {0};
    q[30] = PATTERN;
    inv[6] = 42;
    ASSERT_OK(tern_quantize_activations(q, inv, &x[0][0], 6, 5, &err));
    for (size_t i = 0; i < 25; i++) assert_int_equal(q[i], 0);
    assert_bits(inv[0], 1.0f / (127.0f / 1e-5f));
    for (size_t r = 1; r < 4; r++) assert_true(isnan(inv[r]));
    assert_bits(inv[4], inv[0]);
    assert_memory_equal(q + 25, ((const int8_t[]){25, 51, 76, 102, 127}), 5);
    assert_int_equal(q[30], PATTERN);
    assert_bits(inv[6], 42);
    ASSERT_OK(tern_quantize_activations(q, inv, &x[0][0], 0, 5, &err));
    ASSERT_OK(tern_quantize_activations(q, inv + 6, &x[0][0], 1, 0, &err));
    assert_bits(inv[6], inv[0]); /* a row without columns is a zero row */
}

static void rmsnorm_by_hand(void **state) {
    (void)state;
    /* mean of squares 16, r = 1/4; v = 1, -1, 1, -1, then gains 1, 2, 4, 127/8 */
    const float x[4] = {4, -4, 4, -4}, gain[4] = {1, 2, 4, 15.875f};
    int8_t q[4];
    float inv;
    ASSERT_OK(tern_quantize_activations_rmsnorm(q, &inv, x, NULL, 0, 1, 4, &err));
    assert_memory_equal(q, ((const int8_t[]){127, -127, 127, -127}), 4);
    assert_bits(inv, 1 / 127.0f);
    ASSERT_OK(tern_quantize_activations_rmsnorm(q, &inv, x, gain, 0, 1, 4, &err));
    assert_memory_equal(q, ((const int8_t[]){8, -16, 32, -127}), 4); /* s = 8 */
    assert_bits(inv, 0.125f);
    ASSERT_OK(tern_quantize_activations_rmsnorm(q, &inv, x, NULL, 48, 1, 4, &err)); /* r = 1/8 */
    assert_bits(inv, 1 / 254.0f);
    const float zero[4] = {0, -0.0f, 0, 0};
    ASSERT_OK(tern_quantize_activations_rmsnorm(q, &inv, zero, gain, 0, 1, 4, &err));
    assert_memory_equal(q, "\0\0\0\0", 4);
    assert_bits(inv, 1.0f / (127.0f / 1e-5f));
}

static void rmsnorm_that_is_not_finite(void **state) {
    (void)state;
    const float big_gain[3] = {1, FLT_MAX, 1}, nan_gain[3] = {NAN, 1, 1}, inf_gain[3] = {1, 1, INFINITY};
    const struct {
        float x[3];
        const float *gain;
    } rows[] = {{{1, NAN, 1}, NULL},   {{1, INFINITY, 1}, NULL}, {{0, 0, LEAST}, NULL}, /* r = Inf */
                {{0, 1, 0}, big_gain},                                                  /* v overflows */
                {{1, 1, 1}, nan_gain}, {{0, 0, 0}, inf_gain}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int8_t q[3] = {1, 1, 1};
        float inv = 0;
        ASSERT_OK(tern_quantize_activations_rmsnorm(q, &inv, rows[i].x, rows[i].gain, 0, 1, 3, &err));
        assert_memory_equal(q, "\0\0\0", 3);
        assert_true(isnan(inv));
    }
}

static void rmsnorm_takes_the_extremes(void **state) {
    (void)state;
    /* squares far outside fp32; r is a denormal, and then large */
    int8_t q[2];
    float inv;
    ASSERT_OK(tern_quantize_activations_rmsnorm(q, &inv, (const float[]){FLT_MAX, -FLT_MAX}, NULL, 1, 1, 2, &err));
    assert_memory_equal(q, ((const int8_t[]){127, -127}), 2);
    assert_true(fabsf(inv * 127 - 1) < 1e-5f);
    ASSERT_OK(tern_quantize_activations_rmsnorm(q, &inv, (const float[]){0x1p-126f, 0x1p-126f}, NULL, 0, 1, 2, &err));
    assert_memory_equal(q, ((const int8_t[]){127, 127}), 2);
    assert_bits(inv, 1 / 127.0f);
}

static void activations_match_the_reference(void **state) {
    (void)state;
    static float x[ROOM], gain[ROOM], v[ROOM];
    static int8_t q[ROOM], expected[ROOM];
    static const size_t widths[] = {1, 2, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 100, 127, 300, 1001};
    const size_t rows = 4;
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        const size_t cols = widths[i];
        for (size_t j = 0; j < rows * cols; j++) {
            x[j] = ldexpf(tern_random_signed(80 + i, j), (int)(j / cols * 20) - 30);
            gain[j] = 1 + tern_random_signed(8, j);
        }
        for (int mode = 0; mode < 3; mode++) { /* plain, norm, norm with gains */
            const float *g = mode == 2 ? gain : NULL;
            float inv[4], inv_expected;
            if (mode == 0)
                ASSERT_OK(tern_quantize_activations(q, inv, x, rows, cols, &err));
            else
                ASSERT_OK(tern_quantize_activations_rmsnorm(q, inv, x, g, 1e-6f, rows, cols, &err));
            for (size_t r = 0; r < rows; r++) {
                memcpy(v, x + r * cols, cols * sizeof *v);
                if (mode) reference_norm(v, x + r * cols, g, 1e-6f, cols);
                reference_row(expected, &inv_expected, v, cols);
                assert_memory_equal(q + r * cols, expected, cols);
                assert_same_scale(inv[r], inv_expected);
            }
        }
    }
}

static void activations_refuse(void **state) {
    (void)state;
    const float x[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    const size_t large = SIZE_MAX / 2 + 1;
#define PLAIN(q, s, x, rows, cols) tern_quantize_activations(q, s, x, rows, cols, &err)
#define NORM(q, s, x, epsilon, rows, cols) tern_quantize_activations_rmsnorm(q, s, x, x, epsilon, rows, cols, &err)
    ASSERT_FAILS(TERN_E_ARGUMENT, TERN_NO_PLACE, PLAIN(NULL, o.floats, x, 2, 4));
    ASSERT_FAILS(TERN_E_ARGUMENT, TERN_NO_PLACE, PLAIN(o.bytes, NULL, x, 2, 4));
    ASSERT_FAILS(TERN_E_ARGUMENT, TERN_NO_PLACE, PLAIN(o.bytes, o.floats, NULL, 2, 4));
    ASSERT_FAILS(TERN_E_SIZE, TERN_NO_PLACE, PLAIN(o.bytes, o.floats, x, large, 2));
    ASSERT_FAILS(TERN_E_SIZE, TERN_NO_PLACE, PLAIN(o.bytes, o.floats, x, 1, large));
    ASSERT_FAILS(TERN_E_ARGUMENT, TERN_NO_PLACE, NORM(NULL, o.floats, x, 0, 2, 4));
    ASSERT_FAILS(TERN_E_ARGUMENT, TERN_NO_PLACE, NORM(o.bytes, NULL, x, 0, 2, 4));
    ASSERT_FAILS(TERN_E_ARGUMENT, TERN_NO_PLACE, NORM(o.bytes, o.floats, NULL, 0, 2, 4));
    ASSERT_FAILS(TERN_E_SIZE, TERN_NO_PLACE, NORM(o.bytes, o.floats, x, 0, large, 2));
    ASSERT_FAILS(TERN_E_ARGUMENT, TERN_NO_PLACE, NORM(o.bytes, o.floats, x, -1e-5f, 2, 4));
    ASSERT_FAILS(TERN_E_ARGUMENT, TERN_NO_PLACE, NORM(o.bytes, o.floats, x, NAN, 2, 4));
    ASSERT_FAILS(TERN_E_ARGUMENT, TERN_NO_PLACE, NORM(o.bytes, o.floats, x, INFINITY, 2, 4));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(absmean_rounds_ties_to_even),
        cmocka_unit_test(absmean_floors_the_centre),
        cmocka_unit_test(absmean_of_one_and_of_none),
        cmocka_unit_test(absmean_takes_huge_weights),
        cmocka_unit_test(absmean_divides_in_fp32),
        cmocka_unit_test(median_of_odd_and_even_counts),
        cmocka_unit_test(weights_match_the_reference),
        cmocka_unit_test(twn_by_hand),
        cmocka_unit_test(threshold_is_strict),
        cmocka_unit_test(weight_quantizers_refuse),
        cmocka_unit_test(valid_groups),
        cmocka_unit_test(exponents_round_at_sqrt2),
        cmocka_unit_test(exponents_are_decided_in_double),
        cmocka_unit_test(exponents_look_at_kept_weights),
        cmocka_unit_test(exponents_match_the_reference),
        cmocka_unit_test(group_functions_refuse),
        cmocka_unit_test(splitting_is_exact),
        cmocka_unit_test(merging_by_hand),
        cmocka_unit_test(merging_equal_exponents_is_exact),
        cmocka_unit_test(merging_errs_by_half_an_octave),
        cmocka_unit_test(dequantize_by_hand),
        cmocka_unit_test(dequantize_every_exponent),
        cmocka_unit_test(dequantize_refuses),
        cmocka_unit_test(sparsity_counts_zeros),
        cmocka_unit_test(activations_by_hand),
        cmocka_unit_test(activation_rows_are_independent),
        cmocka_unit_test(rmsnorm_by_hand),
        cmocka_unit_test(rmsnorm_that_is_not_finite),
        cmocka_unit_test(rmsnorm_takes_the_extremes),
        cmocka_unit_test(activations_match_the_reference),
        cmocka_unit_test(activations_refuse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
