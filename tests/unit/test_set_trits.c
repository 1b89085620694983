/* What a training step does with its weights: quantize them on several threads, and give the trits to matrices that
 * exist. Both must be what one thread, and a new matrix, would give. */
#include "base/half.h"
#include "base/random.h"
#include "cpu/ternary_matrix.h"
#include "tern/tern.h"
#include "testing.h"

/* ---- quantizing ------------------------------------------------------------------------------------------------ */

/* Of many octaves. */
static float *make_weights(size_t count) {
    float *w = malloc(count * sizeof *w);
    for (size_t i = 0; i < count; i++)
        w[i] = ldexpf(tern_random_signed(5, i), (int)(tern_random_u32(6, i) % 64) - 60);
    return w;
}

/* The order of the sum is seen in a_tie_shows_the_order, and in the kernel test. */
static float reference_scale(const float *w, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += fabs((double)w[i]);
    return fmaxf((float)(sum / (double)n), 1e-5f);
}

static void check_quantized(const float *w, size_t rows, size_t cols, tern_granularity granularity, int threads) {
    const size_t n = granularity == TERN_PER_ROW ? rows : 1, length = rows * cols / n;
    int8_t *trits = malloc(rows * cols);
    float *scales = malloc(n * sizeof *scales);
    tern_error err;
    if (tern_quantize_weights(trits, scales, w, rows, cols, TERN_MEAN, granularity, threads, &err))
        fail_msg("%s", err.message);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(tern_f32_bits(scales[i]), tern_f32_bits(reference_scale(w + i * length, length)));
    size_t wrong = 0;
    for (size_t i = 0; i < rows * cols; i++) {
        float v = rintf(w[i] / scales[i / length]);
        wrong += trits[i] != (v > 1 ? 1 : v < -1 ? -1 : (int)v);
    }
    assert_int_equal(wrong, 0);
    free(scales);
    free(trits);
}

static void every_tier_quantizes_alike(void **state) {
    (void)state;
    static const size_t shapes[][2] = {{1, 1}, {3, 17}, {2, 1 << 14}, {5, (1 << 14) + 1}, {300, 1000}, {1, 400000}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        const size_t rows = shapes[s][0], cols = shapes[s][1];
        float *w = make_weights(rows * cols);
        for (int tier = TERN_TIER_SCALAR; tier < TERN_TIER_COUNT; tier++) {
            if (!tern_tier_available((tern_tier)tier)) continue;
            setenv("TERN_KERNEL", tern_tier_name((tern_tier)tier), 1);
            for (int threads = 1; threads <= 4; threads += 3) {
                check_quantized(w, rows, cols, TERN_PER_TENSOR, threads);
                check_quantized(w, rows, cols, TERN_PER_ROW, threads);
            }
        }
        unsetenv("TERN_KERNEL");
        free(w);
    }
}

/* A sum n (1 + 2^-24) lies in the middle between two scales, of which the even one, 1, is the lower. Four weights of
 * n 2^-54 decide: each alone is lost in the sum, together they lift it. */
static void a_tie_shows_the_order(void **state) {
    (void)state;
    enum { N = 1 << 23, BLOCK = 1 << 14, MANY = 300 * BLOCK };
    static const struct {
        size_t at[4];
        int lifted;
    } cases[] = {
        {{32, 48, 64, 80}, 0},                                         /* one after the other to the large partial */
        {{1, 17, 33, 49}, 1},                                          /* in a partial of their own */
        {{1, 2, 3, 4}, 0},                                             /* partials are added one after the other */
        {{BLOCK, BLOCK + 1, BLOCK + 2, BLOCK + 16}, 1},                /* in a block of their own */
        {{BLOCK, 2 * BLOCK, 3 * BLOCK, 4 * BLOCK}, 0},                 /* so are blocks */
        {{MANY, MANY + BLOCK, MANY + 2 * BLOCK, MANY + 3 * BLOCK}, 0}, /* also those of another round of threads */
    };
    float *w = calloc(2 * (size_t)N, sizeof *w), scale[2];
    int8_t *trits = malloc(2 * (size_t)N);
    w[0] = N;
    w[16] = N * 0x1p-24f;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
        for (int threads = 1; threads <= 3; threads++) {
            const size_t rows = threads == 2 ? 2 : 1; /* two: each is summed by one thread */
            for (size_t i = 0; i < 4; i++) w[cases[c].at[i]] = N * 0x1p-54f;
            assert_int_equal(tern_quantize_weights(trits, scale, w, rows, N, TERN_MEAN, TERN_PER_ROW, threads, NULL),
                             TERN_OK);
            assert_int_equal(tern_f32_bits(scale[0]), tern_f32_bits(cases[c].lifted ? 1 + 0x1p-23f : 1));
            for (size_t i = 0; i < 4; i++) w[cases[c].at[i]] = 0;
        }
    free(trits);
    free(w);
}

static void a_weight_that_is_not_finite_is_found(void **state) {
    (void)state;
    enum { ROWS = 40, COLS = 1000 };
    static const float wrong[3] = {NAN, INFINITY, -INFINITY};
    float *w = make_weights(ROWS * COLS), scales[ROWS];
    int8_t *trits = malloc(ROWS * COLS);
    for (size_t i = 0; i < 12; i++) {
        const size_t at = i < 3 ? 0 : i < 6 ? ROWS * COLS - 1 : tern_random_u32(8, i) % (ROWS * COLS);
        const float kept = w[at];
        tern_error err = {0};
        w[at] = wrong[i % 3];
        memset(trits, 0x5a, ROWS * COLS);
        memset(scales, 0x5a, sizeof scales);
        for (tern_granularity g = TERN_PER_TENSOR; g <= TERN_PER_ROW; g++)
            assert_int_equal(tern_quantize_weights(trits, scales, w, ROWS, COLS, TERN_MEAN, g, 2, &err), TERN_E_DATA);
        assert_int_equal(err.place, at);
        w[at] = kept;
        for (size_t j = 0; j < ROWS * COLS; j += 7) assert_int_equal(trits[j], 0x5a);
        for (size_t j = 0; j < sizeof scales; j++) assert_int_equal(((const uint8_t *)scales)[j], 0x5a);
    }
    assert_int_equal(tern_quantize_weights(trits, scales, w, 1, 1, TERN_MEAN, TERN_PER_ROW, -1, NULL),
                     TERN_E_ARGUMENT);
    free(trits);
    free(w);
}

/* ---- matrices -------------------------------------------------------------------------------------------------- */

enum { GROUP = 12 };

/* Trits and every kind of scale, drawn anew for every key. */
typedef struct contents {
    size_t rows, cols, groups;
    int8_t *trits, *exponents;
    float *scales;
} contents;

static contents draw_contents(size_t rows, size_t cols, uint64_t key) {
    contents c = {.rows = rows, .cols = cols, .groups = tern_groups_per_row(GROUP, cols)};
    c.trits = malloc(rows * cols);
    c.exponents = malloc(rows * c.groups);
    c.scales = malloc(rows * sizeof *c.scales);
    for (size_t i = 0; i < rows * cols; i++) c.trits[i] = tern_random_trit(key, i);
    for (size_t i = 0; i < rows * c.groups; i++) c.exponents[i] = (int8_t)tern_random_u32(key + 1, i);
    for (size_t i = 0; i < rows; i++) c.scales[i] = tern_random_signed(key + 2, i) + 1;
    return c;
}

static void free_contents(contents *c) {
    free(c->trits);
    free(c->exponents);
    free(c->scales);
}

static tern_matrix *make_matrix(const contents *c, tern_matrix_desc desc) {
    tern_matrix *w = NULL;
    tern_error err;
    assert_int_equal(tern_packed_bytes(&desc.packed_bytes, desc.packing, c->rows, c->cols, NULL), TERN_OK);
    uint8_t *packed = malloc(desc.packed_bytes);
    assert_int_equal(tern_pack(packed, desc.packed_bytes, desc.packing, c->trits, c->rows, c->cols, NULL), TERN_OK);
    desc.packed = packed;
    desc.rows = c->rows;
    desc.cols = c->cols;
    desc.scales = c->scales;
    desc.exponents = c->exponents;
    desc.group = GROUP;
    desc.scale_count = desc.scale_kind == TERN_SCALE_TENSOR ? 1
                       : desc.scale_kind == TERN_SCALE_ROW  ? c->rows
                                                            : c->rows * c->groups;
    if (tern_matrix_create(&w, &desc, &err)) fail_msg("%s", err.message);
    free(packed);
    return w;
}

static void assert_same_block(const tern_block *a, const tern_block *b) {
    assert_int_equal(a->bytes, b->bytes);
    if (a->bytes) assert_memory_equal(a->data, b->data, a->bytes);
}

static void assert_same_matrix(const tern_matrix *a, const tern_matrix *b) {
    assert_same_block(&a->trits, &b->trits);
    assert_same_block(&a->scale, &b->scale);
    assert_same_block(&a->input_scale, &b->input_scale);
    assert_same_block(&a->exponents, &b->exponents);
}

static void check_set(contents *before, const contents *after, tern_matrix_desc desc) {
    const size_t last = before->rows * before->cols - 1;
    const int8_t kept = before->trits[last];
    tern_matrix *w = make_matrix(before, desc), *fresh = make_matrix(after, desc);
    tern_error err;
    for (int threads = 1; threads <= 3; threads++) {
        const contents *c = threads == 2 ? before : after;
        if (tern_matrix_set_trits(w, c->trits, c->scales, c->exponents, threads, &err)) fail_msg("%s", err.message);
    }
    assert_same_matrix(w, fresh);
    before->trits[last] = 2;
    assert_int_equal(tern_matrix_set_trits(w, before->trits, before->scales, before->exponents, 2, &err),
                     TERN_E_DATA);
    before->trits[last] = kept;
    assert_int_equal(err.place, last);
    assert_same_matrix(w, fresh);
    tern_matrix_free(&w);
    tern_matrix_free(&fresh);
}

static void set_equals_create(void **state) {
    (void)state;
    static const size_t shapes[][2] = {{1, 12}, {17, 33}, {100, 77}, {710, 300}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        contents before = draw_contents(shapes[s][0], shapes[s][1], 10);
        contents after = draw_contents(shapes[s][0], shapes[s][1], 20);
        for (int tier = TERN_TIER_SCALAR; tier < TERN_TIER_COUNT; tier++)
            for (tern_scale_kind kind = TERN_SCALE_TENSOR; kind <= TERN_SCALE_GROUP_EXP; kind++)
                for (int form = 0; form < 2 * TERN_PACK_COUNT; form++) {
                    if (!tern_tier_available((tern_tier)tier)) continue;
                    const tern_matrix_desc desc = {.packing = (tern_packing)(form / 2),
                                                   .scale_kind = kind,
                                                   .transposed = form % 2,
                                                   .tier = (tern_tier)tier};
                    check_set(&before, &after, desc);
                }
        free_contents(&before);
        free_contents(&after);
    }
}

static void set_refuses(void **state) {
    (void)state;
    contents c = draw_contents(20, 24, 1);
    tern_matrix *w = make_matrix(&c, (tern_matrix_desc){.scale_kind = TERN_SCALE_ROW}),
                *kept = make_matrix(&c, (tern_matrix_desc){.scale_kind = TERN_SCALE_ROW}),
                *groups = make_matrix(&c, (tern_matrix_desc){.scale_kind = TERN_SCALE_GROUP_EXP});
    tern_error err;
    assert_int_equal(tern_matrix_set_trits(NULL, c.trits, c.scales, NULL, 1, &err), TERN_E_ARGUMENT);
    assert_int_equal(tern_matrix_set_trits(w, NULL, c.scales, NULL, 1, &err), TERN_E_ARGUMENT);
    assert_int_equal(tern_matrix_set_trits(w, c.trits, NULL, c.exponents, 1, &err), TERN_E_ARGUMENT);
    assert_int_equal(tern_matrix_set_trits(groups, c.trits, c.scales, NULL, 1, &err), TERN_E_ARGUMENT);
    assert_int_equal(tern_matrix_set_trits(w, c.trits, c.scales, NULL, -1, &err), TERN_E_ARGUMENT);
    assert_int_equal(tern_matrix_set_trits(groups, c.trits, NULL, c.exponents, 1, &err), TERN_OK);
    c.scales[19] = -1;
    c.trits[0] = 0;
    assert_int_equal(tern_matrix_set_trits(w, c.trits, c.scales, NULL, 1, &err), TERN_E_DATA);
    assert_int_equal(err.place, 19);
    assert_same_matrix(w, kept);
    tern_matrix_free(&w);
    tern_matrix_free(&kept);
    tern_matrix_free(&groups);
    free_contents(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_tier_quantizes_alike),
        cmocka_unit_test(a_tie_shows_the_order),
        cmocka_unit_test(a_weight_that_is_not_finite_is_found),
        cmocka_unit_test(set_equals_create),
        cmocka_unit_test(set_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
