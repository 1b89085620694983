/* Tuning with a GPU that is none: its memory is the host's, and what a kernel takes is what the test says. */
#include "cuda/device_matrix.h"
#include "cuda/few_plan.h"
#include "tern/tern.h"
#include "testing.h"

static struct fake {
    size_t free_bytes, used_bytes, l2_bytes, blocks;
    double seconds[TERN_DEVICE_KERNEL_COUNT][16]; /* by kernel and variant */
    double drift;                                 /* every measurement takes so many times the one before */
    size_t weights;                               /* of the last measurement */
    int timed, long_ones[TERN_DEVICE_KERNEL_COUNT];
    tern_device_kernel failing;
} fake;

static tern_status describe(tern_device_info *info, int device, tern_error *err) {
    (void)device, (void)err;
    *info = (tern_device_info){.l2_bytes = fake.l2_bytes, .memory_free = fake.free_bytes - fake.used_bytes};
    return TERN_OK;
}

static tern_status alloc(void **out, tern_cuda_context *context, size_t bytes, const char *op, tern_error *err) {
    (void)context, (void)op;
    if (fake.used_bytes + bytes > fake.free_bytes) {
        if (err) *err = (tern_error){TERN_E_MEMORY, TERN_NO_PLACE, "full"};
        return TERN_E_MEMORY;
    }
    fake.used_bytes += bytes;
    fake.blocks++;
    *out = malloc(bytes);
    return TERN_OK;
}

static void release(tern_cuda_context *context, void *memory) {
    (void)context;
    fake.blocks -= memory != NULL;
    free(memory);
}

static tern_status copy(tern_cuda_context *context, void *to, const void *from, size_t bytes, tern_error *err) {
    (void)context, (void)err;
    memcpy(to, from, bytes);
    return TERN_OK;
}

static tern_status time_products(double *seconds, tern_cuda_context *context, const tern_cuda_weights *weights,
                                 size_t count, const tern_device_product *p, int calls, int replays,
                                 tern_error *err) {
    (void)context, (void)weights, (void)replays;
    if (p->kernel == fake.failing) {
        *err = (tern_error){TERN_E_UNSUPPORTED, TERN_NO_PLACE, "broken"};
        return TERN_E_UNSUPPORTED;
    }
    *seconds = fake.seconds[p->kernel][p->variant];
    for (int k = 1; k < TERN_DEVICE_KERNEL_COUNT; k++)
        for (int v = 1; v < 16; v++) fake.seconds[k][v] *= fake.drift;
    fake.timed++;
    fake.long_ones[p->kernel] += calls > 1;
    fake.weights = count;
    return TERN_OK;
}

static const tern_cuda_backend backend = {.describe = describe,
                                          .alloc = alloc,
                                          .free = release,
                                          .upload = copy,
                                          .copy = copy,
                                          .time_products = time_products};

/* Everything takes 10 us, the plain kernel 10 ms. */
static void reset(void) {
    fake = (struct fake){.free_bytes = 1 << 24, .l2_bytes = 1 << 16, .drift = 1};
    for (int k = 1; k < TERN_DEVICE_KERNEL_COUNT; k++)
        for (int v = 1; v < 16; v++) fake.seconds[k][v] = k == TERN_DEVICE_KERNEL_PLAIN ? 1e-2 : 1e-5;
}

static void make_device(tern_device *d) {
    *d = (tern_device){.backend = &backend, .limits = {9, 0, 132, 232448}};
    reset();
}

static tern_device_matrix *make_matrix(tern_device *d, tern_scale_kind kind) {
    enum { ROWS = 64, COLS = 256 };
    static const uint8_t packed[ROWS * COLS / 4]; /* zeros */
    static const int8_t exponents[ROWS * COLS / 64];
    const float scale = 1;
    const tern_matrix_desc desc = {.rows = ROWS,
                                   .cols = COLS,
                                   .packing = TERN_PACK_T2,
                                   .packed = packed,
                                   .packed_bytes = sizeof packed,
                                   .scale_kind = kind,
                                   .scales = &scale,
                                   .exponents = exponents,
                                   .scale_count = kind == TERN_SCALE_GROUP_EXP ? sizeof exponents : 1,
                                   .group = 64};
    tern_device_matrix *w = NULL;
    tern_error err;
    OK(tern_device_matrix_create(&w, d, &desc, &err));
    return w;
}

static void free_all(tern_device *d, tern_device_matrix *w) {
    tern_device_matrix_free(&w);
    assert_int_equal(fake.blocks, 0);
    tern_tuning_free(&d->tuning.table);
}

static void check_chosen(const tern_device_matrix *w, size_t m, tern_device_kernel kernel, int variant) {
    static float anything[1];
    const tern_device_product p = {.x = anything, .x_type = TERN_I8, .inv_scale = anything, .m = m, .y = anything};
    tern_device_kernel got;
    int got_variant;
    tern_error err;
    OK(tern_device_choose(&got, &got_variant, w, &p, &err));
    assert_int_equal(got, kernel);
    assert_int_equal(got_variant, variant);
}

static void test_fastest(void **state) {
    (void)state;
    tern_device d;
    tern_error err;
    tern_device_tuned tuned;
    make_device(&d);
    tern_device_matrix *w = make_matrix(&d, TERN_SCALE_TENSOR);
    fake.seconds[TERN_DEVICE_KERNEL_MMA][2] = 8e-6;
    fake.seconds[TERN_DEVICE_KERNEL_DECODE][4] = 7e-6;
    OK(tern_device_tune(&tuned, w, TERN_I8, 12, &err));
    assert_int_equal(tuned.m_most, 16);
    assert_int_equal(tuned.by_rule.kernel, TERN_DEVICE_KERNEL_WGMMA);
    assert_int_equal(tuned.chosen.kernel, TERN_DEVICE_KERNEL_DECODE);
    assert_int_equal(tuned.chosen.variant, 4);
    assert_true(tuned.chosen.seconds == 7e-6 && tuned.by_rule.seconds == 1e-5);
    assert_int_equal(tuned.tried, 1 + (TERN_TILED_VARIANTS - 1) + TERN_DECODE_VARIANTS - TERN_RING_VARIANTS + 3 +
                                      TERN_WGMMA_VARIANTS + TERN_FEW_VARIANTS);
    assert_int_equal(fake.long_ones[TERN_DEVICE_KERNEL_PLAIN], 0); /* one call said enough */
    assert_int_equal(fake.long_ones[TERN_DEVICE_KERNEL_MMA], 3);   /* those of int8 */
    assert_true(tuned.cold);
    assert_true(fake.weights * 64 * 256 / 4 >= 3 * fake.l2_bytes);
    for (size_t m = 9; m <= 16; m++) check_chosen(w, m, TERN_DEVICE_KERNEL_DECODE, 4);
    d.pinned = TERN_DEVICE_KERNEL_PLAIN; /* TERN_KERNEL goes first */
    check_chosen(w, 12, TERN_DEVICE_KERNEL_PLAIN, 1);
    free_all(&d, w);
}

/* The rule stays unless it is beaten by 2 %, in the final too, while the clock drifts. */
static void test_margin(void **state) {
    (void)state;
    static const struct {
        double seconds, drift;
        int beaten;
    } cases[] = {{0.99e-5, 1, 0}, {0.981e-5, 1, 0}, {0.979e-5, 1, 1}, {1e-5, 0.999, 0}, {0.9e-5, 1.001, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tern_device d;
        tern_error err;
        tern_device_tuned tuned;
        make_device(&d);
        tern_device_matrix *w = make_matrix(&d, TERN_SCALE_TENSOR);
        fake.drift = cases[i].drift;
        fake.seconds[TERN_DEVICE_KERNEL_DECODE][1] = cases[i].seconds;
        OK(tern_device_tune(&tuned, w, TERN_I8, 64, &err));
        assert_int_equal(tuned.chosen.kernel == TERN_DEVICE_KERNEL_DECODE, cases[i].beaten);
        assert_true(tuned.chosen.seconds <= tuned.by_rule.seconds);
        check_chosen(w, 64, tuned.chosen.kernel, tuned.chosen.variant);
        free_all(&d, w);
    }
}

static void test_little_memory(void **state) {
    (void)state;
    tern_device d;
    tern_error err;
    tern_device_tuned tuned;
    make_device(&d);
    tern_device_matrix *w = make_matrix(&d, TERN_SCALE_TENSOR);
    fake.free_bytes = fake.used_bytes + 64 * 256 / 4 * 4; /* two copies and the activations of one row */
    OK(tern_device_tune(&tuned, w, TERN_I8, 1, &err));
    assert_false(tuned.cold);
    assert_in_range(fake.weights, 1, 3);
    fake.free_bytes = fake.used_bytes;
    REFUSED(tern_device_tune(&tuned, w, TERN_I8, 1, &err), TERN_E_MEMORY, "full");
    free_all(&d, w);
}

static void test_refusals(void **state) {
    (void)state;
    tern_device d;
    tern_error err;
    tern_device_tuned tuned = {.m = 99};
    make_device(&d);
    tern_device_matrix *w = make_matrix(&d, TERN_SCALE_TENSOR);
    REFUSED(tern_device_tune(&tuned, w, TERN_I8, 0, &err), TERN_E_ARGUMENT, "m = 0");
    REFUSED(tern_device_tune(&tuned, w, (tern_dtype)9, 1, &err), TERN_E_ARGUMENT, "x_type");
    REFUSED(tern_device_tune(&tuned, w, TERN_I8, SIZE_MAX, &err), TERN_E_SIZE, "too many");
    fake.failing = TERN_DEVICE_KERNEL_MMA;
    REFUSED(tern_device_tune(&tuned, w, TERN_I8, 64, &err), TERN_E_UNSUPPORTED, "broken");
    assert_int_equal(tuned.m, 99);
    assert_int_equal(d.tuning.table.count, 0);
    free_all(&d, w);
}

/* Matrices with scales per group have rows of their own. */
static void test_groups(void **state) {
    (void)state;
    tern_device d;
    tern_error err;
    tern_device_tuned tuned;
    make_device(&d);
    tern_device_matrix *w = make_matrix(&d, TERN_SCALE_GROUP_EXP), *whole = make_matrix(&d, TERN_SCALE_TENSOR);
    fake.seconds[TERN_DEVICE_KERNEL_TILED][2] = 8e-6;
    OK(tern_device_tune(&tuned, w, TERN_I8, 1, &err));
    assert_int_equal(tuned.tried, 1 + TERN_TILED_VARIANTS + 3); /* and those of cuda-mma for int8 */
    assert_int_equal(tuned.by_rule.variant, TERN_TILED_ROW);
    check_chosen(w, 1, TERN_DEVICE_KERNEL_TILED, 2);
    check_chosen(whole, 1, TERN_DEVICE_KERNEL_DECODE, 5);
    tern_device_matrix_free(&whole);
    free_all(&d, w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fastest),  cmocka_unit_test(test_margin), cmocka_unit_test(test_little_memory),
        cmocka_unit_test(test_refusals), cmocka_unit_test(test_groups),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
