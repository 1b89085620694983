#include "cpu/ternary_matrix.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "quant/packing.h"
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

/* ---- trits ------------------------------------------------------------------------------------------------------- */

/* Rows of one panel of W, `rows` x cols into strip. */
static void unpack_rows(int8_t *strip, const tern_matrix_desc *desc, size_t first, size_t rows) {
    for (size_t r = 0; r < rows; r++)
        tern_unpack_row(strip + r * desc->cols, desc->packing, desc->packed, first + r, desc->cols);
}

static tern_status pack_panels(tern_matrix *w, const tern_matrix_desc *desc, tern_error *err) {
    const tern_layout *layout = &w->density->layout;
    const size_t threads = (size_t)omp_get_max_threads();
    tern_block strips;
    size_t bytes = 0;
    if (!tern_checked_mul(&bytes, layout->panel_rows, desc->cols)) return out_of_memory(SIZE_MAX, err);
    TERN_TRY(alloc(&strips, threads, bytes, err));
#pragma omp parallel for schedule(static) num_threads((int)threads)
    for (size_t p = 0; p < w->panels; p++) {
        int8_t *strip = (int8_t *)strips.data + (size_t)omp_get_thread_num() * bytes;
        size_t first = p * layout->panel_rows, rows = tern_min_size(layout->panel_rows, w->outputs - first);
        unpack_rows(strip, desc, first, rows);
        layout->pack((uint8_t *)w->trits.data + p * w->panel_bytes, strip, desc->cols, rows, w->inputs);
    }
    tern_block_free(&strips);
    return TERN_OK;
}

/* W^T: the whole of W as trits, then panels of its columns. */
static tern_status pack_transposed_panels(tern_matrix *w, const tern_matrix_desc *desc, tern_error *err) {
    const tern_layout *layout = &w->density->layout;
    tern_block all, strips;
    TERN_TRY(alloc(&all, desc->rows, desc->cols, err));
    tern_status status = alloc(&strips, layout->panel_rows, desc->rows, err);
    if (status) {
        tern_block_free(&all);
        return status;
    }
    int8_t *trits = all.data, *strip = strips.data;
    unpack_rows(trits, desc, 0, desc->rows);
    for (size_t p = 0; p < w->panels; p++) {
        size_t first = p * layout->panel_rows, columns = tern_min_size(layout->panel_rows, w->outputs - first);
        for (size_t n = 0; n < desc->rows; n++)
            for (size_t c = 0; c < columns; c++) strip[c * desc->rows + n] = trits[n * desc->cols + first + c];
        layout->pack((uint8_t *)w->trits.data + p * w->panel_bytes, strip, desc->rows, columns, w->inputs);
    }
    tern_block_free(&strips);
    tern_block_free(&all);
    return TERN_OK;
}

/* ---- scales ------------------------------------------------------------------------------------------------------ */

/* [rows][groups] as given -> [panels][groups][panel_rows]. */
static tern_status interleave_exponents(tern_matrix *w, const int8_t *from, tern_error *err) {
    const size_t rows = w->density->layout.panel_rows;
    TERN_TRY(alloc(&w->exponents, w->panels * rows, w->groups, err));
    int8_t *to = w->exponents.data;
    for (size_t n = 0; n < w->outputs; n++)
        for (size_t g = 0; g < w->groups; g++)
            to[(n / rows * w->groups + g) * rows + n % rows] = from[n * w->groups + g];
    return TERN_OK;
}

static tern_status copy_scales(tern_matrix *w, const tern_matrix_desc *desc, tern_error *err) {
    TERN_TRY(alloc(&w->scale, w->panels * w->density->layout.panel_rows, sizeof(float), err));
    float *scale = w->scale.data;
    const int per_output = desc->scale_kind == TERN_SCALE_ROW && !desc->transposed;
    for (size_t n = 0; n < w->outputs; n++)
        scale[n] = per_output ? desc->scales[n] : desc->scale_kind == TERN_SCALE_TENSOR ? *desc->scales : 1;
    if (desc->scale_kind == TERN_SCALE_ROW && desc->transposed) {
        TERN_TRY(alloc(&w->input_scale, w->inputs, sizeof(float), err));
        memcpy(w->input_scale.data, desc->scales, w->inputs * sizeof(float));
    }
    if (desc->scale_kind != TERN_SCALE_GROUP_EXP) return TERN_OK;
    if (!desc->transposed) return interleave_exponents(w, desc->exponents, err);
    TERN_TRY(alloc(&w->exponents, desc->scale_count, 1, err));
    memcpy(w->exponents.data, desc->exponents, desc->scale_count);
    return TERN_OK;
}

/* ---- the matrix -------------------------------------------------------------------------------------------------- */

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
    TERN_TRY(copy_scales(w, desc, err));
    return w->transposed ? pack_transposed_panels(w, desc, err) : pack_panels(w, desc, err);
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
