/* Any description of a matrix: it is refused with a message, or it is made and multiplies on every tier alike. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tern/tern.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { HEADER = 6, MAX_SIDE = 70 };

static void multiply(int32_t *sums, const tern_matrix_desc *desc, tern_tier tier) {
    int8_t x[2 * MAX_SIDE];
    tern_matrix_desc d = *desc;
    tern_matrix *w = NULL;
    for (size_t i = 0; i < sizeof x; i++) x[i] = (int8_t)(i * 37);
    d.tier = tier;
    if (tern_matrix_create(&w, &d, NULL)) abort(); /* the reference tier took it */
    if (tern_matmul_sums(sums, w, x, 2, &(tern_exec){.threads = 1}, NULL)) abort();
    tern_matrix_free(&w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < HEADER) return 0;
    int8_t exponents[MAX_SIDE * MAX_SIDE] = {0};
    float scales[MAX_SIDE];
    uint8_t *packed = malloc(size - HEADER + 1);
    if (!packed) abort();
    memcpy(packed, data + HEADER, size - HEADER);
    for (size_t i = 0; i < MAX_SIDE; i++) scales[i] = (float)(int8_t)data[5];
    tern_matrix_desc desc = {.rows = data[1] % MAX_SIDE,
                             .cols = data[2] % MAX_SIDE,
                             .packing = (tern_packing)(data[0] % 5),
                             .packed = packed,
                             .packed_bytes = size - HEADER,
                             .scale_kind = (tern_scale_kind)(data[0] / 5 % 4),
                             .scales = scales,
                             .exponents = exponents,
                             .group = data[3],
                             .transposed = data[4] & 1,
                             .tier = TERN_TIER_SCALAR};
    desc.scale_count = desc.scale_kind == TERN_SCALE_TENSOR ? 1
                       : desc.scale_kind == TERN_SCALE_ROW
                           ? desc.rows
                           : desc.rows * tern_groups_per_row(desc.group ? desc.group : 1, desc.cols);
    if (desc.scale_count > sizeof exponents) desc.scale_count = 0;
    tern_error err = {0};
    tern_matrix *w = NULL;
    if (tern_matrix_create(&w, &desc, &err)) {
        if (w || !err.status || !err.message[0]) abort();
    } else {
        int32_t want[2 * MAX_SIDE], got[2 * MAX_SIDE];
        const size_t outputs = desc.transposed ? desc.cols : desc.rows;
        tern_matrix_free(&w);
        multiply(want, &desc, TERN_TIER_SCALAR);
        for (int t = TERN_TIER_AVX2; t < TERN_TIER_COUNT; t++) {
            if (!tern_tier_available((tern_tier)t)) continue;
            multiply(got, &desc, (tern_tier)t);
            if (memcmp(want, got, 2 * outputs * sizeof *got)) abort();
        }
    }
    free(packed);
    return 0;
}
