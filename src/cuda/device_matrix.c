#include "cuda/device_matrix.h"

#include <stdlib.h>

#include "base/checked.h"
#include "base/error.h"
#include "cuda/tiles.h"
#include "quant/packing.h"
#include "tern/quant.h"

static const char op[] = "a ternary matrix";

static tern_status no_memory(size_t bytes, tern_error *err) {
    return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "%s: out of memory: %zu bytes", op, bytes);
}

/* ---- packing on the host --------------------------------------------------------------------------------------- */

static void pack_row_tile(uint8_t *tiles, int8_t *trits, const tern_matrix_desc *desc, size_t row_tile, int t5) {
    const size_t first = row_tile * TERN_TILE_ROWS, rows = tern_min_size(TERN_TILE_ROWS, desc->rows - first);
    for (size_t r = 0; r < rows; r++)
        tern_unpack_row(trits + r * desc->cols, desc->packing, desc->packed, first + r, desc->cols);
    tern_tiles_pack(tiles, trits, desc->cols, rows, desc->cols, t5);
}

/* Zero where memory is short. */
static int pack_tiles(uint8_t *tiles, const tern_matrix_desc *desc, const tern_cuda_weights *w) {
    const size_t row_bytes = (size_t)w->k_tiles * TERN_TILE_BYTES, row_tiles = (size_t)w->row_tiles;
    int done = 1;
#pragma omp parallel reduction(&& : done)
    {
        int8_t *trits = malloc(TERN_TILE_ROWS * desc->cols);
        done = trits != NULL;
#pragma omp for schedule(static)
        for (size_t i = 0; i < row_tiles; i++)
            if (trits) pack_row_tile(tiles + i * row_bytes, trits, desc, i, w->t5);
        free(trits);
    }
    return done;
}

/* ---- the matrix on the device ---------------------------------------------------------------------------------- */

static tern_status send(void **out, tern_device *device, const void *from, size_t bytes, tern_error *err) {
    TERN_TRY(device->backend->alloc(out, device->context, bytes, op, err));
    return device->backend->upload(device->context, *out, from, bytes, err);
}

static tern_status send_tiles(tern_device_matrix *m, const tern_matrix_desc *desc, tern_error *err) {
    uint8_t *tiles = malloc(m->tile_bytes);
    if (!tiles) return no_memory(m->tile_bytes, err);
    tern_status status = TERN_OK;
    if (!pack_tiles(tiles, desc, &m->weights)) status = no_memory(TERN_TILE_ROWS * desc->cols, err);
    void *on_device = NULL;
    if (!status) status = send(&on_device, m->device, tiles, m->tile_bytes, err);
    m->weights.tiles = on_device;
    free(tiles);
    return status;
}

static tern_status send_scales(tern_device_matrix *m, const tern_matrix_desc *desc, tern_error *err) {
    const int groups = desc->scale_kind == TERN_SCALE_GROUP_EXP;
    const void *from = groups ? (const void *)desc->exponents : desc->scales;
    void *on_device = NULL;
    m->scale_bytes = desc->scale_count * (groups ? sizeof(int8_t) : sizeof(float));
    tern_status status = send(&on_device, m->device, from, m->scale_bytes, err);
    if (groups)
        m->weights.exponents = on_device;
    else
        m->weights.scale = on_device;
    return status;
}

static tern_status shape_up(tern_device_matrix *m, const tern_matrix_desc *desc, tern_error *err) {
    const int t5 = desc->packing != TERN_PACK_T2;
    const size_t row_tiles = tern_ceil_div(desc->rows, TERN_TILE_ROWS);
    const size_t k_tiles = tern_ceil_div(desc->cols, tern_tile_cols(t5));
    size_t tiles;
    if (desc->rows > INT32_MAX - TERN_TILE_ROWS || !tern_checked_mul(&tiles, row_tiles, k_tiles) ||
        !tern_checked_mul(&m->tile_bytes, tiles, TERN_TILE_BYTES))
        return tern_fail(err, TERN_E_SIZE, TERN_NO_PLACE, "%s: %zu x %zu are too many rows for a GPU", op, desc->rows,
                         desc->cols);
    m->weights = (tern_cuda_weights){.rows = (int32_t)desc->rows,
                                     .cols = (int32_t)desc->cols,
                                     .row_tiles = (int32_t)row_tiles,
                                     .k_tiles = (int32_t)k_tiles,
                                     .t5 = t5,
                                     .scale_per_row = desc->scale_kind == TERN_SCALE_ROW};
    if (desc->scale_kind == TERN_SCALE_GROUP_EXP) {
        m->weights.group = (int32_t)desc->group;
        m->weights.groups = (int32_t)tern_groups_per_row(desc->group, desc->cols);
    }
    return TERN_OK;
}

tern_status tern_cuda_matrix_create(tern_device_matrix **out, tern_device *device, const tern_matrix_desc *desc,
                                    tern_error *err) {
    tern_device_matrix *m = calloc(1, sizeof *m);
    if (!m) return no_memory(sizeof *m, err);
    m->device = device;
    tern_status status = shape_up(m, desc, err);
    if (!status) status = send_tiles(m, desc, err);
    if (!status) status = send_scales(m, desc, err);
    if (status)
        tern_cuda_matrix_free(m);
    else
        *out = m;
    return status;
}

static tern_status copy_part(void **out, tern_device *device, const void *from, size_t bytes, tern_error *err) {
    TERN_TRY(device->backend->alloc(out, device->context, bytes, op, err));
    return device->backend->copy(device->context, *out, from, bytes, err);
}

tern_status tern_cuda_matrix_clone(tern_device_matrix **out, const tern_device_matrix *matrix, tern_error *err) {
    tern_device_matrix *m = malloc(sizeof *m);
    if (!m) return no_memory(sizeof *m, err);
    *m = *matrix;
    void *tiles = NULL, *scale = NULL;
    tern_status status = copy_part(&tiles, m->device, matrix->weights.tiles, m->tile_bytes, err);
    const void *scales = matrix->weights.exponents ? (const void *)matrix->weights.exponents : matrix->weights.scale;
    if (!status) status = copy_part(&scale, m->device, scales, m->scale_bytes, err);
    m->weights.tiles = tiles;
    m->weights.scale = matrix->weights.exponents ? NULL : scale;
    m->weights.exponents = matrix->weights.exponents ? scale : NULL;
    if (status)
        tern_cuda_matrix_free(m);
    else
        *out = m;
    return status;
}

void tern_cuda_matrix_free(tern_device_matrix *matrix) {
    const tern_cuda_backend *backend = matrix->device->backend;
    backend->free(matrix->device->context, (void *)(uintptr_t)matrix->weights.tiles);
    backend->free(matrix->device->context, (void *)(uintptr_t)matrix->weights.scale);
    backend->free(matrix->device->context, (void *)(uintptr_t)matrix->weights.exponents);
    free(matrix);
}
