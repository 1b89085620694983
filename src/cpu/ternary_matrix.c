#include "cpu/ternary_matrix.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "cpu/threads.h"
#include "quant/packing.h"
#include "quant/shape_checks.h"
#include "tern/quant.h"

static tern_status out_of_memory(size_t bytes, tern_error *err) {
    return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "out of memory: %zu bytes asked for a ternary matrix", bytes);
}

static tern_status alloc(tern_block *block, size_t count, size_t size, tern_error *err) {
    size_t bytes;
    if (!tern_checked_mul(&bytes, count, size))
        return tern_fail(err, TERN_E_SIZE, TERN_NO_PLACE, "size overflow: %zu values of %zu bytes", count, size);
    return tern_block_alloc(block, bytes) ? TERN_OK : out_of_memory(bytes, err);
}

/* ---- trits ----------------------------------------------------------------------------------------------------- */

/* W is packed in strips of rows: those of one panel or, transposed, of one block of every panel. */
static size_t strip_rows(const tern_matrix *w) {
    return w->transposed ? w->density->layout.k_block : w->density->layout.panel_rows;
}

static size_t rows_of(const tern_matrix *w) { return w->transposed ? w->inputs : w->outputs; }
static size_t cols_of(const tern_matrix *w) { return w->transposed ? w->outputs : w->inputs; }
static size_t strips_of(const tern_matrix *w) { return tern_ceil_div(rows_of(w), strip_rows(w)); }

static size_t rows_in_strip(const tern_matrix *w, size_t strip) {
    return tern_min_size(strip_rows(w), rows_of(w) - strip * strip_rows(w));
}

static void pack_strip(tern_matrix *w, size_t strip, const int8_t *trits) {
    const size_t rows = rows_in_strip(w, strip), cols = cols_of(w);
    uint8_t *panels = w->trits.data;
    if (w->transposed)
        w->density->pack_columns.fn(panels + strip * w->density->layout.block_bytes, w->panel_bytes, trits, cols,
                                    cols, rows);
    else
        w->density->pack_rows.fn(panels + strip * w->panel_bytes, w->panel_bytes, trits, cols, rows, cols);
}

static int pack_threads(const tern_matrix *w, int threads) {
    const double in_a_wake = 1e5; /* trits packed */
    return tern_worthwhile_threads((double)w->inputs * (double)w->outputs / in_a_wake, strips_of(w), threads);
}

static tern_status unpack_and_pack(tern_matrix *w, const tern_matrix_desc *desc, tern_error *err) {
    const int threads = pack_threads(w, omp_get_max_threads());
    size_t bytes = 0;
    tern_block trits;
    if (!tern_checked_mul(&bytes, strip_rows(w), desc->cols)) return out_of_memory(SIZE_MAX, err);
    TERN_TRY(alloc(&trits, (size_t)threads, bytes, err));
#pragma omp parallel for schedule(static) num_threads(threads)
    for (size_t strip = 0; strip < strips_of(w); strip++) {
        int8_t *rows = (int8_t *)trits.data + (size_t)omp_get_thread_num() * bytes;
        for (size_t r = 0; r < rows_in_strip(w, strip); r++)
            tern_unpack_row(rows + r * desc->cols, desc->packing, desc->packed, strip * strip_rows(w) + r,
                            desc->cols);
        pack_strip(w, strip, rows);
    }
    tern_block_free(&trits);
    return TERN_OK;
}

/* ---- scales ---------------------------------------------------------------------------------------------------- */

/* [rows][groups] as given -> [panels][groups][panel_rows]. */
static void interleave_exponents(tern_matrix *w, const int8_t *from) {
    const size_t rows = w->density->layout.panel_rows;
    int8_t *to = w->exponents.data;
    for (size_t n = 0; n < w->outputs; n++)
        for (size_t g = 0; g < w->groups; g++)
            to[(n / rows * w->groups + g) * rows + n % rows] = from[n * w->groups + g];
}

static tern_status alloc_scales(tern_matrix *w, tern_error *err) {
    const size_t padded = w->panels * w->density->layout.panel_rows;
    TERN_TRY(alloc(&w->scale, padded, sizeof(float), err));
    if (w->scale_kind == TERN_SCALE_ROW && w->transposed)
        TERN_TRY(alloc(&w->input_scale, w->inputs, sizeof(float), err));
    if (w->scale_kind == TERN_SCALE_GROUP_EXP)
        TERN_TRY(alloc(&w->exponents, w->transposed ? w->inputs : padded, w->groups, err));
    return TERN_OK;
}

static void set_scales(tern_matrix *w, const float *scales, const int8_t *exponents) {
    float *scale = w->scale.data;
    const int per_output = w->scale_kind == TERN_SCALE_ROW && !w->transposed;
    for (size_t n = 0; n < w->outputs; n++)
        scale[n] = per_output ? scales[n] : w->scale_kind == TERN_SCALE_TENSOR ? *scales : 1;
    if (w->scale_kind == TERN_SCALE_ROW && w->transposed)
        memcpy(w->input_scale.data, scales, w->inputs * sizeof(float));
    if (w->scale_kind != TERN_SCALE_GROUP_EXP) return;
    if (w->transposed)
        memcpy(w->exponents.data, exponents, w->inputs * w->groups);
    else
        interleave_exponents(w, exponents);
}

/* ---- the matrix ------------------------------------------------------------------------------------------------ */

static tern_status fill(tern_matrix *w, const tern_matrix_desc *desc, tern_error *err) {
    w->inputs = desc->transposed ? desc->rows : desc->cols;
    w->outputs = desc->transposed ? desc->cols : desc->rows;
    w->packing = desc->packing;
    w->scale_kind = desc->scale_kind;
    w->transposed = desc->transposed != 0;
    if (desc->scale_kind == TERN_SCALE_GROUP_EXP) {
        w->group = desc->group;
        w->groups = tern_groups_per_row(desc->group, desc->cols);
    }
    w->kernels = tern_kernels_of(desc->tier);
    w->density = &w->kernels->density[desc->packing == TERN_PACK_T2 ? TERN_DENSITY_T2 : TERN_DENSITY_T5];
    w->panels = tern_ceil_div(w->outputs, w->density->layout.panel_rows);
    w->panel_bytes = tern_layout_panel_bytes(&w->density->layout, w->inputs);
    size_t bytes = 0;
    if (!tern_checked_mul(&bytes, w->panels, w->panel_bytes) || !tern_checked_add(&bytes, bytes, TERN_PANEL_SLACK))
        return tern_fail(err, TERN_E_SIZE, TERN_NO_PLACE, "%zu panels of %zu bytes overflow", w->panels,
                         w->panel_bytes);
    TERN_TRY(alloc(&w->trits, bytes, 1, err));
    TERN_TRY(alloc_scales(w, err));
    set_scales(w, desc->scales, desc->exponents);
    return unpack_and_pack(w, desc, err);
}

tern_status tern_cpu_matrix_create(tern_matrix **out, const tern_matrix_desc *desc, tern_error *err) {
    tern_matrix *w = calloc(1, sizeof *w);
    if (!w) return out_of_memory(sizeof *w, err);
    tern_status status = fill(w, desc, err);
    if (status)
        tern_cpu_matrix_free(w);
    else
        *out = w;
    return status;
}

int tern_cpu_matrix_set(tern_matrix *w, const int8_t *trits, const float *scales, const int8_t *exponents,
                        int threads) {
    const size_t strips = strips_of(w), strip_trits = strip_rows(w) * cols_of(w);
    int valid = 1;
    threads = pack_threads(w, threads);
#pragma omp parallel for schedule(static) num_threads(threads) reduction(&& : valid)
    for (size_t s = 0; s < strips; s++)
        valid = valid && tern_are_trits(trits + s * strip_trits, rows_in_strip(w, s) * cols_of(w));
    if (!valid) return 0;
    set_scales(w, scales, exponents);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (size_t s = 0; s < strips; s++) pack_strip(w, s, trits + s * strip_trits);
    return 1;
}

static tern_status copy_block(tern_block *to, const tern_block *from, tern_error *err) {
    *to = (tern_block){0};
    if (!from->data) return TERN_OK;
    TERN_TRY(alloc(to, from->bytes, 1, err));
    memcpy(to->data, from->data, from->bytes);
    return TERN_OK;
}

static tern_status copy_blocks(tern_matrix *to, const tern_matrix *from, tern_error *err) {
    TERN_TRY(copy_block(&to->trits, &from->trits, err));
    TERN_TRY(copy_block(&to->scale, &from->scale, err));
    TERN_TRY(copy_block(&to->input_scale, &from->input_scale, err));
    return copy_block(&to->exponents, &from->exponents, err);
}

tern_status tern_cpu_matrix_clone(tern_matrix **out, const tern_matrix *matrix, tern_error *err) {
    tern_matrix *w = malloc(sizeof *w);
    if (!w) return out_of_memory(sizeof *w, err);
    *w = *matrix;
    w->trits = w->scale = w->input_scale = w->exponents = (tern_block){0};
    tern_status status = copy_blocks(w, matrix, err);
    if (status)
        tern_cpu_matrix_free(w);
    else
        *out = w;
    return status;
}

void tern_cpu_matrix_free(tern_matrix *matrix) {
    tern_block_free(&matrix->trits);
    tern_block_free(&matrix->scale);
    tern_block_free(&matrix->input_scale);
    tern_block_free(&matrix->exponents);
    free(matrix);
}
