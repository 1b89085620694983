/* include/tern/device.h: checks every argument, then calls the table of libtern_cuda.so. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/matrix_checks.h"
#include "base/checked.h"
#include "base/error.h"
#include "base/half.h"
#include "cuda/device_matrix.h"
#include "cuda/load_backend.h"
#include "cuda/pinned_kernel.h"
#include "cuda/select_device.h"
#include "cuda/tune_product.h"
#include "tern/device.h"
#include "tern/tern.h"

/* ---- what is there --------------------------------------------------------------------------------------------- */

tern_status tern_device_count(int *count, tern_error *err) {
    const tern_cuda_backend *backend;
    TERN_CHECK_ARGUMENT(count, err, "count is NULL");
    TERN_TRY(tern_cuda_load(&backend, err));
    return backend->count(count, err);
}

tern_status tern_device_describe(tern_device_info *info, int device, tern_error *err) {
    const tern_cuda_backend *backend;
    TERN_CHECK_ARGUMENT(info, err, "info is NULL");
    TERN_TRY(tern_cuda_load(&backend, err));
    return backend->describe(info, device, err);
}

tern_status tern_device_select(int *device, tern_error *err) {
    TERN_CHECK_ARGUMENT(device, err, "device is NULL");
    return tern_cuda_select(device, NULL, err);
}

tern_status tern_device_find(int *device, const char *name, tern_error *err) {
    TERN_CHECK_ARGUMENT(device, err, "device is NULL");
    return tern_cuda_select(device, name, err);
}

/* ---- a device in use ------------------------------------------------------------------------------------------- */

/* What was measured with other limits, or with other starts of kernels, is not for everybody. */
static tern_status load_tuning(tern_tuning *tuning, const tern_device_info *info, const tern_device_options *options,
                               tern_error *err) {
    const int own = options->serial || options->shared_limit;
    if (own) snprintf(tuning->note, sizeof tuning->note, "a device with `serial` or a `shared_limit` has no file");
    return tern_tuning_open(tuning, info, !own, err);
}

static tern_status set_up(tern_device *d, const tern_device_options *options, tern_error *err) {
    tern_device_info info;
    TERN_TRY(d->backend->describe(&info, options->device, err));
    TERN_TRY(tern_cuda_check_device(&info, options->device, err));
    d->number = options->device;
    d->limits = (tern_cuda_limits){info.major, info.minor, info.multiprocessors, info.shared_bytes};
    if (options->shared_limit) d->limits.shared_bytes = tern_min_size(options->shared_limit, info.shared_bytes);
    TERN_TRY(load_tuning(&d->tuning, &info, options, err));
    return d->backend->open(&d->context, options->device, options->serial, err);
}

tern_status tern_device_open(tern_device **out, const tern_device_options *options, tern_error *err) {
    static const tern_device_options first = {0};
    TERN_CHECK_ARGUMENT(out, err, "out is NULL");
    if (!options) options = &first;
    tern_device *d = calloc(1, sizeof *d);
    if (!d) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "out of memory: %zu bytes", sizeof *d);
    tern_status status = tern_pinned_device_kernel(&d->pinned, err);
    if (!status) status = tern_cuda_load(&d->backend, err);
    if (!status) status = set_up(d, options, err);
    if (status) {
        tern_tuning_free(&d->tuning.table);
        free(d);
        return status;
    }
    *out = d;
    return TERN_OK;
}

void tern_device_close(tern_device **device) {
    if (!device || !*device) return;
    (*device)->backend->close((*device)->context);
    tern_tuning_free(&(*device)->tuning.table);
    free(*device);
    *device = NULL;
}

void *tern_device_stream(tern_device *device) { return device ? device->backend->stream(device->context) : NULL; }

tern_status tern_device_synchronize(tern_device *device, tern_error *err) {
    TERN_CHECK_ARGUMENT(device, err, "device is NULL");
    return device->backend->synchronize(device->context, err);
}

tern_status tern_device_reserve(tern_device *device, size_t bytes, tern_error *err) {
    TERN_CHECK_ARGUMENT(device, err, "device is NULL");
    return device->backend->reserve(device->context, bytes, err);
}

tern_status tern_device_alloc(void **out, tern_device *device, size_t bytes, tern_error *err) {
    TERN_CHECK_ARGUMENT(out, err, "out is NULL");
    TERN_CHECK_ARGUMENT(device, err, "device is NULL");
    return device->backend->alloc(out, device->context, bytes, "device memory", err);
}

void tern_device_free(tern_device *device, void *memory) {
    if (device && memory) device->backend->free(device->context, memory);
}

static tern_status check_copy(tern_device *device, const void *to, const void *from, tern_error *err) {
    TERN_CHECK_ARGUMENT(device, err, "device is NULL");
    TERN_CHECK_ARGUMENT(to, err, "to is NULL");
    TERN_CHECK_ARGUMENT(from, err, "from is NULL");
    return TERN_OK;
}

tern_status tern_device_upload(tern_device *device, void *to, const void *from, size_t bytes, tern_error *err) {
    TERN_TRY(check_copy(device, to, from, err));
    return device->backend->upload(device->context, to, from, bytes, err);
}

tern_status tern_device_download(tern_device *device, void *to, const void *from, size_t bytes, tern_error *err) {
    TERN_TRY(check_copy(device, to, from, err));
    return device->backend->download(device->context, to, from, bytes, err);
}

/* ---- matrices -------------------------------------------------------------------------------------------------- */

tern_status tern_device_matrix_create(tern_device_matrix **out, tern_device *device, const tern_matrix_desc *desc,
                                      tern_error *err) {
    TERN_CHECK_ARGUMENT(out, err, "out is NULL");
    TERN_CHECK_ARGUMENT(device, err, "device is NULL");
    TERN_CHECK_ARGUMENT(desc, err, "desc is NULL");
    if (desc->transposed)
        return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE, "a GPU has no transposed ternary matrices yet");
    TERN_TRY(tern_check_matrix_desc(desc, err));
    return tern_cuda_matrix_create(out, device, desc, err);
}

tern_status tern_device_matrix_clone(tern_device_matrix **out, const tern_device_matrix *matrix, tern_error *err) {
    TERN_CHECK_ARGUMENT(out, err, "out is NULL");
    TERN_CHECK_ARGUMENT(matrix, err, "matrix is NULL");
    return tern_cuda_matrix_clone(out, matrix, err);
}

void tern_device_matrix_free(tern_device_matrix **matrix) {
    if (!matrix || !*matrix) return;
    tern_cuda_matrix_free(*matrix);
    *matrix = NULL;
}

size_t tern_device_matrix_bytes(const tern_device_matrix *matrix) {
    return matrix ? matrix->tile_bytes + matrix->scale_bytes : 0;
}

/* ---- products -------------------------------------------------------------------------------------------------- */

static size_t bytes_of(tern_dtype type) { return type == TERN_F32 ? 4 : type == TERN_I8 ? 1 : 2; }

static tern_status check_array(const void *array, const char *name, size_t alignment, tern_error *err) {
    TERN_CHECK_ARGUMENT(array, err, "%s is NULL", name);
    TERN_CHECK_ARGUMENT((uintptr_t)array % alignment == 0, err, "%s is not aligned for values of %zu bytes", name,
                        alignment);
    return TERN_OK;
}

static tern_status check_arrays(const tern_device_product *p, tern_error *err) {
    TERN_TRY(check_array(p->x, "x", bytes_of(p->x_type), err));
    TERN_TRY(check_array(p->y, "y", bytes_of(p->y_type), err));
    if (p->x_type == TERN_I8) TERN_TRY(check_array(p->inv_scale, "inv_scale", sizeof(float), err));
    if (p->bias) TERN_TRY(check_array(p->bias, "bias", sizeof(float), err));
    if (p->residual) TERN_TRY(check_array(p->residual, "residual", bytes_of(p->y_type), err));
    return TERN_OK;
}

static tern_status check_input(const tern_device_matrix *w, tern_dtype x_type, size_t m, tern_error *err) {
    TERN_CHECK_ARGUMENT((unsigned)x_type <= TERN_I8, err, "x_type = %d is no type", (int)x_type);
    size_t values, bytes, widest = tern_max_size((size_t)w->weights.cols, (size_t)w->weights.rows);
    if (m > INT32_MAX / 2 || !tern_checked_mul(&values, m, widest) ||
        !tern_checked_mul(&bytes, values, sizeof(float)))
        return tern_fail(err, TERN_E_SIZE, TERN_NO_PLACE, "m = %zu rows of %zu values are too many", m, widest);
    return TERN_OK;
}

static tern_status check_product(const tern_device_matrix *w, const tern_device_product *p, tern_error *err) {
    TERN_CHECK_ARGUMENT((unsigned)p->y_type <= TERN_F16, err,
                        "y_type = %d: outputs are TERN_F32, TERN_BF16 or TERN_F16", (int)p->y_type);
    TERN_CHECK_ARGUMENT((unsigned)p->activation <= TERN_DEVICE_SILU, err, "activation = %d is none",
                        (int)p->activation);
    TERN_CHECK_ARGUMENT((unsigned)p->kernel < TERN_DEVICE_KERNEL_COUNT, err, "kernel = %d is none", (int)p->kernel);
    TERN_TRY(check_input(w, p->x_type, p->m, err));
    return p->m ? check_arrays(p, err) : TERN_OK;
}

static tern_status cannot_run(const char *by, tern_device_kernel kernel, const char *why, tern_error *err) {
    return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE, "%s%s cannot run this product: %s", by,
                     tern_device_kernel_name(kernel), why);
}

/* Fills in kernel and variant. */
static tern_status choose(tern_device_product *p, const tern_device_matrix *w, tern_error *err) {
    const tern_cuda_limits *limits = &w->device->limits;
    char why[160] = "";
    if (p->kernel == TERN_DEVICE_KERNEL_AUTO) {
        const tern_cuda_measured measured = {tern_tuning_choose_by, &w->device->tuning.table};
        TERN_CHECK_ARGUMENT(!p->variant, err, "variant = %d of no kernel: name one", p->variant);
        if (tern_cuda_pick(p, w->device->pinned, &measured, limits, &w->weights, why, sizeof why)) return TERN_OK;
        return cannot_run("TERN_KERNEL=", w->device->pinned, why, err);
    }
    TERN_CHECK_ARGUMENT(p->variant >= 0 && p->variant <= tern_cuda_variants(p->kernel), err,
                        "variant = %d: %s has 1 to %d", p->variant, tern_device_kernel_name(p->kernel),
                        tern_cuda_variants(p->kernel));
    const int fits =
        p->variant ? tern_cuda_fits(p->kernel, p->variant, limits, &w->weights, p, why, sizeof why)
                   : (p->variant = tern_cuda_choose_variant(p->kernel, limits, &w->weights, p, why, sizeof why)) != 0;
    return fits ? TERN_OK : cannot_run("", p->kernel, why, err);
}

tern_status tern_device_matmul(const tern_device_matrix *w, const tern_device_product *product, tern_error *err) {
    TERN_CHECK_ARGUMENT(w, err, "w is NULL");
    TERN_CHECK_ARGUMENT(product, err, "product is NULL");
    tern_device_product p = *product;
    TERN_TRY(check_product(w, &p, err));
    if (!p.m) return TERN_OK;
    TERN_TRY(choose(&p, w, err));
    return w->device->backend->multiply(w->device->context, &w->weights, &p, err);
}

int tern_device_variants(tern_device_kernel kernel) { return tern_cuda_variants(kernel); }

tern_status tern_device_choose(tern_device_kernel *kernel, int *variant, const tern_device_matrix *w,
                               const tern_device_product *product, tern_error *err) {
    TERN_CHECK_ARGUMENT(kernel && variant, err, "kernel or variant is NULL");
    TERN_CHECK_ARGUMENT(w, err, "w is NULL");
    TERN_CHECK_ARGUMENT(product && product->m, err, "product is NULL, or its m is 0");
    tern_device_product p = *product;
    TERN_TRY(check_product(w, &p, err));
    TERN_TRY(choose(&p, w, err));
    *kernel = p.kernel;
    *variant = p.variant;
    return TERN_OK;
}

/* ---- tuning ---------------------------------------------------------------------------------------------------- */

static tern_tuning_row row_of(const tern_device_tuned *tuned, const tern_device_matrix *w, tern_dtype x_type) {
    const double nanoseconds = tuned->chosen.seconds * 1e9;
    return (tern_tuning_row){.t5 = w->weights.t5 != 0,
                             .rows = w->weights.rows,
                             .cols = w->weights.cols,
                             .group = w->weights.exponents ? w->weights.group : 0,
                             .x_type = x_type,
                             .m_most = (uint32_t)tuned->m_most,
                             .kernel = tuned->chosen.kernel,
                             .variant = tuned->chosen.variant,
                             .nanoseconds = nanoseconds > 1 ? (uint64_t)(nanoseconds + 0.5) : 1};
}

tern_status tern_device_tune(tern_device_tuned *tuned, const tern_device_matrix *w, tern_dtype x_type, size_t m,
                             tern_error *err) {
    TERN_CHECK_ARGUMENT(tuned, err, "tuned is NULL");
    TERN_CHECK_ARGUMENT(w, err, "w is NULL");
    TERN_CHECK_ARGUMENT(m, err, "m = 0");
    TERN_TRY(check_input(w, x_type, m, err));
    tern_device_tuned found;
    TERN_TRY(tern_tune_product(&found, w, x_type, m, err));
    const tern_tuning_row row = row_of(&found, w, x_type);
    TERN_TRY(tern_tuning_store(&w->device->tuning, &row, err));
    *tuned = found;
    return TERN_OK;
}

tern_status tern_device_tuning_describe(tern_device_tuning_info *info, const tern_device *device, tern_error *err) {
    TERN_CHECK_ARGUMENT(info, err, "info is NULL");
    TERN_CHECK_ARGUMENT(device, err, "device is NULL");
    const tern_tuning *t = &device->tuning;
    *info = (tern_device_tuning_info){.choices = t->table.count};
    memcpy(info->path, t->path, sizeof info->path);
    memcpy(info->note, t->note, sizeof info->note);
    return TERN_OK;
}

/* ---- activations ----------------------------------------------------------------------------------------------- */

tern_status tern_device_quantize(tern_device *device, const tern_device_quantizer *quantizer, tern_error *err) {
    TERN_CHECK_ARGUMENT(device, err, "device is NULL");
    TERN_CHECK_ARGUMENT(quantizer, err, "quantizer is NULL");
    const tern_device_quantizer *q = quantizer;
    TERN_CHECK_ARGUMENT((unsigned)q->x_type <= TERN_F16, err, "x_type = %d: must be TERN_F32, TERN_BF16 or TERN_F16",
                        (int)q->x_type);
    TERN_CHECK_ARGUMENT(q->cols, err, "cols = 0");
    TERN_CHECK_ARGUMENT(!q->norm || (tern_f32_is_finite(q->epsilon) && q->epsilon >= 0), err,
                        "epsilon is %g; it must be finite and not negative", (double)q->epsilon);
    if (q->rows > INT32_MAX || q->cols > INT32_MAX / 2)
        return tern_fail(err, TERN_E_SIZE, TERN_NO_PLACE, "%zu rows of %zu activations are too many", q->rows,
                         q->cols);
    if (!q->rows) return TERN_OK;
    TERN_CHECK_ARGUMENT(q->q, err, "q is NULL");
    TERN_TRY(check_array(q->inv_scale, "inv_scale", sizeof(float), err));
    TERN_TRY(check_array(q->x, "x", bytes_of(q->x_type), err));
    if (q->norm && q->gain) TERN_TRY(check_array(q->gain, "gain", sizeof(float), err));
    return device->backend->quantize(device->context, q, err);
}

tern_status tern_device_measure_int8(double *per_second, tern_device *device, tern_error *err) {
    TERN_CHECK_ARGUMENT(per_second, err, "per_second is NULL");
    TERN_CHECK_ARGUMENT(device, err, "device is NULL");
    return device->backend->measure_int8(per_second, device->context, err);
}

tern_status tern_device_measure_read(double *per_second, tern_device *device, tern_error *err) {
    TERN_CHECK_ARGUMENT(per_second, err, "per_second is NULL");
    TERN_CHECK_ARGUMENT(device, err, "device is NULL");
    return device->backend->measure_read(per_second, device->context, err);
}
