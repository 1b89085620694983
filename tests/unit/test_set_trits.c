/* What a training step does with its trits: give them to matrices that exist. These must be what new ones would be. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h> /* needs the headers above */

#include "base/random.h"
#include "cpu/ternary_matrix.h"
#include "tern/tern.h"

/* ---- matrices ---------------------------------------------------------------------------------------------------- */

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
        cmocka_unit_test(set_equals_create),
        cmocka_unit_test(set_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
