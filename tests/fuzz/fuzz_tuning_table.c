/* Any bytes as a table of measured kernels: every row that is kept names a kernel and variant that exist, and what is
 * kept is written and read back as the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/tuning_table.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static tern_tuning_key make_key(void) {
    const tern_device_info info = {.name = "NVIDIA H200", .major = 9, .multiprocessors = 132};
    tern_tuning_key key;
    tern_tuning_key_of(&key, &info, "0.1.0-3");
    return key;
}

static void check_rows(const tern_tuning_table *t) {
    for (size_t i = 0; i < t->count; i++) {
        const tern_tuning_row *r = &t->rows[i];
        const int8_t exponent = 0;
        const tern_cuda_weights w = {.rows = r->rows,
                                     .cols = r->cols,
                                     .t5 = r->t5,
                                     .group = r->group,
                                     .exponents = r->group ? &exponent : NULL};
        if (r->rows < 1 || r->cols < 1 || (unsigned)r->x_type > TERN_I8 || tern_tuning_bucket(r->m_most) != r->m_most)
            abort();
        if (r->variant < 1 || r->variant > tern_cuda_variants(r->kernel)) abort();
        if (tern_tuning_find(t, &w, r->x_type, r->m_most) != r) abort();
    }
}

static void check_again(const tern_tuning_table *t, const tern_tuning_key *key) {
    tern_tuning_table again = {0};
    char *text, why[160];
    size_t size, ignored;
    if (tern_tuning_format(&text, &size, t, key, NULL)) abort();
    if (tern_tuning_parse(&again, &ignored, why, sizeof why, key, text, size, NULL) || ignored) abort();
    if (again.count != t->count) abort();
    for (size_t i = 0; i < t->count; i++)
        if (again.rows[i].variant != t->rows[i].variant || again.rows[i].nanoseconds != t->rows[i].nanoseconds)
            abort();
    free(text);
    tern_tuning_free(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const tern_tuning_key key = make_key();
    tern_tuning_table t = {0};
    tern_error err = {0};
    char why[160] = "", *text = malloc(size ? size : 1); /* its own block, so that an over-read is seen */
    size_t ignored = 0;
    if (!text) abort();
    if (size) memcpy(text, data, size);
    const tern_status status = tern_tuning_parse(&t, &ignored, why, sizeof why, &key, text, size, &err);
    if (status && (err.status != status || t.count)) abort();
    if (!ignored != !why[0]) abort();
    check_rows(&t);
    if (!status) check_again(&t, &key);
    tern_tuning_free(&t);
    free(text);
    return 0;
}
