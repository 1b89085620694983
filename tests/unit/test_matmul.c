/* Products through the public API: every tier, packing, scale and direction against sums written out naively, any
 * number of threads, and every refusal. */
#include "base/half.h"
#include "base/random.h"
#include "tern/tern.h"
#include "testing.h"

/* A matrix as trits, with every kind of scale. */
typedef struct model {
    size_t rows, cols, group, groups;
    int8_t *trits, *exponents;
    float *row_scales;
} model;

static model make_model(size_t rows, size_t cols, size_t group) {
    model m = {rows, cols, group, tern_groups_per_row(group, cols), NULL, NULL, NULL};
    m.trits = malloc(rows * cols);
    m.exponents = malloc(rows * m.groups);
    m.row_scales = malloc(rows * sizeof(float));
    for (size_t i = 0; i < rows * cols; i++) m.trits[i] = tern_random_trit(rows * 131 + cols, i);
    for (size_t i = 0; i < rows * m.groups; i++) m.exponents[i] = (int8_t)((int)(tern_random_u32(3, i) % 12) - 8);
    for (size_t i = 0; i < rows; i++) m.row_scales[i] = 0.25f + (float)(i % 7) * 0.1f;
    return m;
}

static void free_model(model *m) {
    free(m->trits);
    free(m->exponents);
    free(m->row_scales);
}

static tern_matrix *make_matrix(const model *m, tern_packing packing, tern_scale_kind kind, int transposed,
                                tern_tier tier) {
    size_t bytes = 0;
    tern_error err = {0};
    tern_matrix *w = NULL;
    assert_int_equal(tern_packed_bytes(&bytes, packing, m->rows, m->cols, &err), TERN_OK);
    uint8_t *packed = malloc(bytes);
    assert_int_equal(tern_pack(packed, bytes, packing, m->trits, m->rows, m->cols, &err), TERN_OK);
    const tern_matrix_desc desc = {
        .rows = m->rows,
        .cols = m->cols,
        .packing = packing,
        .packed = packed,
        .packed_bytes = bytes,
        .scale_kind = kind,
        .scales = m->row_scales,
        .exponents = m->exponents,
        .scale_count = kind == TERN_SCALE_TENSOR ? 1
                       : kind == TERN_SCALE_ROW  ? m->rows
                                                 : m->rows * m->groups,
        .group = m->group,
        .transposed = transposed,
        .tier = tier,
    };
    if (tern_matrix_create(&w, &desc, &err)) fail_msg("%s", err.message);
    free(packed);
    return w;
}

static float scale_of(const model *m, tern_scale_kind kind, size_t row, size_t col) {
    switch (kind) {
    case TERN_SCALE_TENSOR: return m->row_scales[0];
    case TERN_SCALE_ROW: return m->row_scales[row];
    default: return ldexpf(1, m->exponents[row * m->groups + col / m->group]);
    }
}

/* ---- integer products ------------------------------------------------------------------------------------------ */

/* The written order of docs/numerics.md. */
static float expected_i8(const model *m, tern_scale_kind kind, const int8_t *x, float inv_scale, const float *bias,
                         size_t row) {
    const int8_t *t = m->trits + row * m->cols;
    float value = 0;
    if (kind == TERN_SCALE_GROUP_EXP) {
        for (size_t g = 0; g < m->groups; g++) {
            int32_t sum = 0;
            for (size_t k = g * m->group; k < m->cols && k < (g + 1) * m->group; k++) sum += t[k] * x[k];
            const float term = ldexpf((float)sum, m->exponents[row * m->groups + g]);
            value += term;
        }
        value *= inv_scale;
    } else {
        int32_t sum = 0;
        for (size_t k = 0; k < m->cols; k++) sum += t[k] * x[k];
        const float factor = scale_of(m, kind, row, 0) * inv_scale;
        value = (float)sum * factor;
    }
    return bias ? value + bias[row] : value;
}

static void check_i8(const model *m, tern_packing packing, tern_scale_kind kind, tern_tier tier, size_t rows,
                     int threads) {
    tern_matrix *w = make_matrix(m, packing, kind, 0, tier);
    int8_t *x = malloc(rows * m->cols);
    float *inv = malloc(rows * sizeof *inv), *bias = malloc(m->rows * sizeof *bias);
    float *y = malloc(rows * m->rows * sizeof *y);
    int32_t *sums = malloc(rows * m->rows * sizeof *sums);
    for (size_t i = 0; i < rows * m->cols; i++) x[i] = (int8_t)tern_random_u32(5, i);
    for (size_t i = 0; i < rows; i++) inv[i] = 0.01f + 0.001f * (float)i;
    for (size_t i = 0; i < m->rows; i++) bias[i] = tern_random_signed(6, i);
    const tern_exec exec = {.threads = threads};
    tern_error err = {0};
    const float *given = rows % 2 ? bias : NULL;
    if (tern_matmul_i8(y, w, x, inv, given, rows, &exec, &err)) fail_msg("%s", err.message);
    if (tern_matmul_sums(sums, w, x, rows, &exec, &err)) fail_msg("%s", err.message);
    for (size_t i = 0; i < rows; i++)
        for (size_t n = 0; n < m->rows; n++) {
            const float want = expected_i8(m, kind, x + i * m->cols, inv[i], given, n);
            int32_t sum = 0;
            for (size_t k = 0; k < m->cols; k++) sum += m->trits[n * m->cols + k] * x[i * m->cols + k];
            assert_memory_equal(&want, &y[i * m->rows + n], sizeof want);
            assert_int_equal(sum, sums[i * m->rows + n]);
        }
    free(sums);
    free(y);
    free(bias);
    free(inv);
    free(x);
    tern_matrix_free(&w);
}

static const struct {
    size_t rows, cols, group;
} shapes[] = {{1, 1, 4},    {1, 7, 4},     {17, 5, 4},    {3, 33, 6},
              {33, 64, 32}, {50, 321, 96}, {70, 130, 12}, {129, 700, 8}};

static void test_integer_products(void **state) {
    (void)state;
    static const size_t ms[] = {1, 2, 3, 9, 40};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        model m = make_model(shapes[s].rows, shapes[s].cols, shapes[s].group);
        for (int tier = TERN_TIER_AUTO; tier < TERN_TIER_COUNT; tier++) {
            if (tier && !tern_tier_available((tern_tier)tier)) continue;
            for (int packing = 0; packing < TERN_PACK_COUNT; packing++)
                for (int kind = 0; kind <= TERN_SCALE_GROUP_EXP; kind++)
                    for (size_t i = 0; i < sizeof ms / sizeof *ms; i++)
                        check_i8(&m, (tern_packing)packing, (tern_scale_kind)kind, (tern_tier)tier, ms[i], 1);
        }
        free_model(&m);
    }
}

/* Large enough to be split: the bits do not depend on the number of threads. */
static void test_threads(void **state) {
    (void)state;
    model m = make_model(700, 1300, 32);
    for (int kind = 0; kind <= TERN_SCALE_GROUP_EXP; kind++)
        for (int threads = 1; threads <= 3; threads++) {
            check_i8(&m, TERN_PACK_T2, (tern_scale_kind)kind, TERN_TIER_AUTO, 2, threads);
            check_i8(&m, TERN_PACK_T5, (tern_scale_kind)kind, TERN_TIER_AUTO, 21, threads);
        }
    free_model(&m);
}

/* Quantizing inside gives what quantizing first gives. */
static void test_quantized(void **state) {
    (void)state;
    enum { M = 37 };
    model m = make_model(90, 333, 32);
    tern_matrix *w = make_matrix(&m, TERN_PACK_T2, TERN_SCALE_ROW, 0, TERN_TIER_AUTO);
    float *x = malloc(M * m.cols * sizeof *x), inv[M];
    float *y = malloc(M * m.rows * sizeof *y), *want = malloc(M * m.rows * sizeof *want);
    int8_t *q = malloc(M * m.cols);
    for (size_t i = 0; i < M * m.cols; i++) x[i] = tern_random_signed(9, i);
    x[5 * m.cols + 7] = NAN;
    assert_int_equal(tern_quantize_activations(q, inv, x, M, m.cols, NULL), TERN_OK);
    assert_int_equal(tern_matmul_i8(want, w, q, inv, NULL, M, NULL, NULL), TERN_OK);
    assert_int_equal(tern_matmul_quantized(y, w, x, NULL, M, NULL, NULL), TERN_OK);
    for (size_t i = 0; i < M; i++)
        for (size_t n = 0; n < m.rows; n++) {
            if (i == 5)
                assert_true(isnan(y[i * m.rows + n]));
            else
                assert_memory_equal(&y[i * m.rows + n], &want[i * m.rows + n], sizeof *y);
        }
    free(q);
    free(want);
    free(y);
    free(x);
    tern_matrix_free(&w);
    free_model(&m);
}

/* ---- float products -------------------------------------------------------------------------------------------- */

static float read_act(const void *x, tern_dtype dtype, size_t i) {
    if (dtype == TERN_F32) return ((const float *)x)[i];
    const uint16_t half = ((const uint16_t *)x)[i];
    return dtype == TERN_BF16 ? tern_bf16_to_f32(half) : tern_f16_to_f32(half);
}

static void *draw_activations(tern_dtype dtype, size_t count) {
    float *f32 = malloc(count * sizeof *f32);
    uint16_t *half = malloc(count * sizeof *half);
    for (size_t i = 0; i < count; i++) {
        f32[i] = tern_random_signed(11, i);
        half[i] = dtype == TERN_BF16 ? tern_f32_to_bf16(f32[i]) : tern_f32_to_f16(f32[i]);
    }
    free(dtype == TERN_F32 ? (void *)half : (void *)f32);
    return dtype == TERN_F32 ? (void *)f32 : (void *)half;
}

static void check_float(const model *m, tern_packing packing, tern_scale_kind kind, int transposed, tern_tier tier,
                        tern_dtype dtype, size_t rows) {
    tern_matrix *w = make_matrix(m, packing, kind, transposed, tier);
    const size_t inputs = transposed ? m->rows : m->cols, outputs = transposed ? m->cols : m->rows;
    void *x = draw_activations(dtype, rows * inputs);
    float *y = malloc(rows * outputs * sizeof *y), *bias = malloc(outputs * sizeof *bias);
    tern_error err = {0};
    for (size_t i = 0; i < outputs; i++) bias[i] = tern_random_signed(6, i);
    if (tern_matmul_float(y, w, x, dtype, bias, rows, &(tern_exec){.threads = 2}, &err)) fail_msg("%s", err.message);
    for (size_t i = 0; i < rows; i++)
        for (size_t o = 0; o < outputs; o++) {
            double want = (double)bias[o], magnitude = fabs(want);
            for (size_t j = 0; j < inputs; j++) {
                const size_t r = transposed ? j : o, c = transposed ? o : j;
                const double term = (double)read_act(x, dtype, i * inputs + j) * (double)scale_of(m, kind, r, c);
                want += term * m->trits[r * m->cols + c];
                magnitude += fabs(term);
            }
            const double off = fabs((double)y[i * outputs + o] - want);
            assert_true(off <= (double)(inputs + 4) * 0x1p-24 * magnitude);
        }
    free(bias);
    free(y);
    free(x);
    tern_matrix_free(&w);
}

static void test_float_products(void **state) {
    (void)state;
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        model m = make_model(shapes[s].rows, shapes[s].cols, shapes[s].group);
        for (int tier = TERN_TIER_SCALAR; tier < TERN_TIER_COUNT; tier++) {
            if (!tern_tier_available((tern_tier)tier)) continue;
            for (int kind = 0; kind <= TERN_SCALE_GROUP_EXP; kind++)
                for (int transposed = 0; transposed < 2; transposed++)
                    for (int dtype = 0; dtype <= TERN_F16; dtype++)
                        check_float(&m, (tern_packing)(s % 3), (tern_scale_kind)kind, transposed, (tern_tier)tier,
                                    (tern_dtype)dtype, 1 + s % 3);
        }
        free_model(&m);
    }
}

static void test_transposed_integers(void **state) {
    (void)state;
    enum { M = 3 };
    model m = make_model(45, 61, 32);
    int8_t x[M * 45];
    int32_t sums[M * 61];
    for (size_t i = 0; i < sizeof x; i++) x[i] = (int8_t)tern_random_u32(5, i);
    for (int tier = TERN_TIER_SCALAR; tier < TERN_TIER_COUNT; tier++) {
        if (!tern_tier_available((tern_tier)tier)) continue;
        tern_matrix *w = make_matrix(&m, TERN_PACK_T5, TERN_SCALE_TENSOR, 1, (tern_tier)tier);
        assert_int_equal(tern_matmul_sums(sums, w, x, M, NULL, NULL), TERN_OK);
        for (size_t i = 0; i < M; i++)
            for (size_t k = 0; k < m.cols; k++) {
                int32_t want = 0;
                for (size_t n = 0; n < m.rows; n++) want += m.trits[n * m.cols + k] * x[i * m.rows + n];
                assert_int_equal(want, sums[i * m.cols + k]);
            }
        tern_matrix_free(&w);
    }
    free_model(&m);
}

/* ---- refusals, copies, scratch --------------------------------------------------------------------------------- */

static void test_bad_descriptions(void **state) {
    (void)state;
    tern_error err;
    float scales[2] = {1, 1};
    int8_t exponents[4] = {0};
    uint8_t packed[4] = {0};
    tern_matrix *w = NULL;
    const tern_matrix_desc good = {.rows = 2,
                                   .cols = 8,
                                   .packed = packed,
                                   .packed_bytes = 4,
                                   .scales = scales,
                                   .exponents = exponents,
                                   .scale_count = 1};
#define NOT_CREATED(want, ...)                                    \
    do {                                                          \
        tern_matrix_desc d = good;                                \
        __VA_ARGS__;                                              \
        err.message[0] = 0;                                       \
        assert_int_equal(tern_matrix_create(&w, &d, &err), want); \
        assert_null(w);                                           \
        assert_true(err.message[0]);                              \
    } while (0)
    NOT_CREATED(TERN_E_ARGUMENT, d.rows = 0);
    NOT_CREATED(TERN_E_ARGUMENT, d.cols = 0);
    NOT_CREATED(TERN_E_ARGUMENT, d.packed = NULL);
    NOT_CREATED(TERN_E_ARGUMENT, d.scales = NULL);
    NOT_CREATED(TERN_E_ARGUMENT, d.packing = (tern_packing)7);
    NOT_CREATED(TERN_E_ARGUMENT, d.scale_kind = (tern_scale_kind)5);
    NOT_CREATED(TERN_E_ARGUMENT, d.tier = (tern_tier)99);
    NOT_CREATED(TERN_E_SIZE, d.packed_bytes = 3);
    NOT_CREATED(TERN_E_SIZE, d.scale_count = 2);
    NOT_CREATED(TERN_E_SIZE, d.rows = SIZE_MAX / 4);
    NOT_CREATED(TERN_E_SIZE, d.cols = ((size_t)1 << 22) + 1; d.rows = 1);
    NOT_CREATED(TERN_E_DATA, scales[0] = NAN);
    NOT_CREATED(TERN_E_DATA, scales[0] = INFINITY);
    NOT_CREATED(TERN_E_DATA, scales[0] = -1);
    scales[0] = 1;
    NOT_CREATED(TERN_E_ARGUMENT, d.scale_kind = TERN_SCALE_GROUP_EXP; d.group = 5; d.scale_count = 4);
    NOT_CREATED(TERN_E_ARGUMENT, d.scale_kind = TERN_SCALE_GROUP_EXP; d.group = 0; d.scale_count = 4);
    NOT_CREATED(TERN_E_ARGUMENT, d.scale_kind = TERN_SCALE_GROUP_EXP; d.group = 4; d.scale_count = 4;
                d.exponents = NULL);
    packed[2] = 0x0c;
    NOT_CREATED(TERN_E_DATA, (void)0);
    assert_int_equal(err.place, 2);
#undef NOT_CREATED
    assert_int_equal(tern_matrix_create(NULL, &good, &err), TERN_E_ARGUMENT);
    assert_int_equal(tern_matrix_create(&w, NULL, &err), TERN_E_ARGUMENT);
}

static void test_bad_products(void **state) {
    (void)state;
    model m = make_model(20, 30, 6);
    tern_error err = {0};
    tern_matrix *w = make_matrix(&m, TERN_PACK_T2, TERN_SCALE_ROW, 0, TERN_TIER_AUTO);
    tern_matrix *wt = make_matrix(&m, TERN_PACK_T2, TERN_SCALE_ROW, 1, TERN_TIER_AUTO);
    int8_t x[30] = {0};
    float y[32], inv = 1, xf[30] = {0};
    uint8_t poison[sizeof y];
    memset(y, 0x5a, sizeof y);
    memcpy(poison, y, sizeof y);
    _Alignas(64) uint8_t scratch[64];
    float *odd = (float *)(void *)((uint8_t *)y + 1);
    assert_int_equal(tern_matmul_i8(NULL, w, x, &inv, NULL, 1, NULL, &err), TERN_E_ARGUMENT);
    assert_int_equal(tern_matmul_i8(y, NULL, x, &inv, NULL, 1, NULL, &err), TERN_E_ARGUMENT);
    assert_int_equal(tern_matmul_i8(y, w, NULL, &inv, NULL, 1, NULL, &err), TERN_E_ARGUMENT);
    assert_int_equal(tern_matmul_i8(y, w, x, NULL, NULL, 1, NULL, &err), TERN_E_ARGUMENT);
    assert_int_equal(tern_matmul_i8(odd, w, x, &inv, NULL, 1, NULL, &err), TERN_E_ARGUMENT);
    assert_int_equal(tern_matmul_i8(y, w, x, &inv, odd, 1, NULL, &err), TERN_E_ARGUMENT);
    assert_int_equal(tern_matmul_i8(y, w, x, &inv, NULL, SIZE_MAX / 8, NULL, &err), TERN_E_SIZE);
    assert_int_equal(tern_matmul_i8(y, w, x, &inv, NULL, 1, &(tern_exec){.threads = -1}, &err), TERN_E_ARGUMENT);
    assert_int_equal(
        tern_matmul_i8(y, w, x, &inv, NULL, 1, &(tern_exec){.scratch = scratch, .scratch_bytes = 64}, &err),
        TERN_E_SIZE);
    assert_int_equal(
        tern_matmul_i8(y, w, x, &inv, NULL, 1, &(tern_exec){.scratch = scratch + 1, .scratch_bytes = 1 << 20}, &err),
        TERN_E_ARGUMENT);
    assert_int_equal(tern_matmul_i8(y, wt, x, &inv, NULL, 1, NULL, &err), TERN_E_UNSUPPORTED);
    assert_int_equal(tern_matmul_float(y, w, xf, TERN_I8, NULL, 1, NULL, &err), TERN_E_ARGUMENT);
    assert_int_equal(tern_matmul_float(y, w, NULL, TERN_F32, NULL, 1, NULL, &err), TERN_E_ARGUMENT);
    assert_int_equal(tern_matmul_quantized(y, w, NULL, NULL, 1, NULL, &err), TERN_E_ARGUMENT);
    assert_memory_equal(y, poison, sizeof y);
    assert_int_equal(tern_matmul_i8(y, w, x, &inv, NULL, 0, NULL, &err), TERN_OK); /* no rows: nothing to do */
    assert_memory_equal(y, poison, sizeof y);
    tern_matrix_free(&wt);
    tern_matrix_free(&w);
    tern_matrix_free(&w);
    tern_matrix_free(NULL);
    free_model(&m);
}

static void test_clone_and_scratch(void **state) {
    (void)state;
    enum { M = 5 };
    model m = make_model(100, 900, 64);
    tern_matrix *w = make_matrix(&m, TERN_PACK_T5_FLAT, TERN_SCALE_GROUP_EXP, 0, TERN_TIER_AUTO), *copy = NULL;
    tern_matrix_info info;
    assert_int_equal(tern_matrix_clone(&copy, w, NULL), TERN_OK);
    assert_int_equal(tern_matrix_describe(&info, copy, NULL), TERN_OK);
    assert_int_equal(info.inputs, 900);
    assert_int_equal(info.outputs, 100);
    assert_int_equal(info.group, 64);
    assert_true((double)info.trit_bytes * 8 < 900 * 112 * 1.75); /* packed stays packed: 100 rows are 7 panels */
    int8_t *x = malloc(M * m.cols);
    float inv[M] = {1, 2, 3, 4, 5}, y[2][M * 100];
    for (size_t i = 0; i < M * m.cols; i++) x[i] = (int8_t)tern_random_u32(5, i);
    size_t bytes = 0;
    assert_int_equal(tern_matmul_scratch(&bytes, copy, M, TERN_I8, 2, NULL), TERN_OK);
    void *scratch = aligned_alloc(64, bytes);
    const tern_exec exec = {.threads = 2, .scratch = scratch, .scratch_bytes = bytes};
    assert_int_equal(tern_matmul_i8(y[0], w, x, inv, NULL, M, NULL, NULL), TERN_OK);
    tern_matrix_free(&w);
    assert_int_equal(tern_matmul_i8(y[1], copy, x, inv, NULL, M, &exec, NULL), TERN_OK);
    assert_memory_equal(y[0], y[1], sizeof y[0]);
    free(scratch);
    free(x);
    tern_matrix_free(&copy);
    free_model(&m);
}

static void test_tier_from_environment(void **state) {
    (void)state;
    const char *before = getenv("TERN_KERNEL");
    char *kept = before ? strdup(before) : NULL;
    tern_tier tier = TERN_TIER_AUTO;
    tern_error err;
    setenv("TERN_KERNEL", "scalar", 1);
    assert_int_equal(tern_tier_select(&tier, &err), TERN_OK);
    assert_int_equal(tier, TERN_TIER_SCALAR);
    setenv("TERN_KERNEL", "sse9", 1);
    assert_int_equal(tern_tier_select(&tier, &err), TERN_E_ARGUMENT);
    assert_non_null(strstr(err.message, "avx512"));
    for (int t = TERN_TIER_SCALAR; t < TERN_TIER_COUNT; t++) {
        setenv("TERN_KERNEL", tern_tier_name((tern_tier)t), 1);
        assert_int_equal(tern_tier_select(&tier, &err),
                         tern_tier_available((tern_tier)t) ? TERN_OK : TERN_E_UNSUPPORTED);
    }
    unsetenv("TERN_KERNEL");
    if (kept) setenv("TERN_KERNEL", kept, 1);
    free(kept);
}

static void test_peaks(void **state) {
    (void)state;
    double speed = 0;
    tern_error err;
    assert_int_equal(tern_measure_peak(&speed, TERN_PEAK_COUNT, 1, &err), TERN_E_ARGUMENT);
    assert_int_equal(tern_measure_peak(&speed, TERN_PEAK_F32, 0, &err), TERN_E_ARGUMENT);
    assert_int_equal(tern_measure_peak(NULL, TERN_PEAK_F32, 1, &err), TERN_E_ARGUMENT);
    assert_string_equal(tern_peak_name(TERN_PEAK_READ), "read");
    assert_true(tern_processors() >= 1);
    assert_non_null(tern_huge_pages());
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_integer_products),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_quantized),
        cmocka_unit_test(test_float_products),
        cmocka_unit_test(test_transposed_integers),
        cmocka_unit_test(test_bad_descriptions),
        cmocka_unit_test(test_bad_products),
        cmocka_unit_test(test_clone_and_scratch),
        cmocka_unit_test(test_tier_from_environment),
        cmocka_unit_test(test_peaks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
