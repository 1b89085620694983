/* include/tern/matrix.h: checks every argument, then calls the CPU back end. */
#include <stdlib.h>

#include "api/matrix_checks.h"
#include "api/thread_limit.h"
#include "base/checked.h"
#include "base/error.h"
#include "base/half.h"
#include "base/memory.h"
#include "cpu/product.h"
#include "cpu/ternary_matrix.h"
#include "quant/shape_checks.h"
#include "tern/quant.h"

/* ---- making a matrix ------------------------------------------------------------------------------------------- */

static tern_status resolve_tier(tern_tier *tier, tern_error *err) {
    if (*tier == TERN_TIER_AUTO) return tern_tier_select(tier, err);
    TERN_CHECK_ARGUMENT(tern_tier_name(*tier), err, "tier = %d is none", (int)*tier);
    if (!tern_kernels_of(*tier))
        return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE, "tier %s cannot run on this machine",
                         tern_tier_name(*tier));
    return TERN_OK;
}

tern_status tern_matrix_create(tern_matrix **out, const tern_matrix_desc *desc, tern_error *err) {
    TERN_CHECK_ARGUMENT(out, err, "out is NULL");
    TERN_CHECK_ARGUMENT(desc, err, "desc is NULL");
    tern_matrix_desc d = *desc;
    TERN_TRY(tern_check_matrix_desc(&d, err));
    TERN_TRY(resolve_tier(&d.tier, err));
    return tern_cpu_matrix_create(out, &d, err);
}

tern_status tern_matrix_clone(tern_matrix **out, const tern_matrix *matrix, tern_error *err) {
    TERN_CHECK_ARGUMENT(out, err, "out is NULL");
    TERN_CHECK_ARGUMENT(matrix, err, "matrix is NULL");
    return tern_cpu_matrix_clone(out, matrix, err);
}

tern_status tern_matrix_set_trits(tern_matrix *matrix, const int8_t *trits, const float *scales,
                                  const int8_t *exponents, int threads, tern_error *err) {
    TERN_CHECK_ARGUMENT(matrix, err, "matrix is NULL");
    TERN_CHECK_ARGUMENT(trits, err, "trits is NULL");
    TERN_TRY(tern_check_threads(threads, err));
    const size_t rows = matrix->transposed ? matrix->inputs : matrix->outputs;
    const size_t scale_count = matrix->scale_kind == TERN_SCALE_TENSOR ? 1 : rows;
    TERN_TRY(tern_check_scale_values(matrix->scale_kind, scales, exponents, scale_count, err));
    if (tern_cpu_matrix_set(matrix, trits, scales, exponents, threads)) return TERN_OK;
    return tern_check_trits(trits, matrix->inputs * matrix->outputs, err); /* says which */
}

void tern_matrix_free(tern_matrix **matrix) {
    if (!matrix || !*matrix) return;
    tern_cpu_matrix_free(*matrix);
    *matrix = NULL;
}

tern_status tern_matrix_describe(tern_matrix_info *info, const tern_matrix *w, tern_error *err) {
    TERN_CHECK_ARGUMENT(info, err, "info is NULL");
    TERN_CHECK_ARGUMENT(w, err, "matrix is NULL");
    *info = (tern_matrix_info){
        .inputs = w->inputs,
        .outputs = w->outputs,
        .packing = w->packing,
        .scale_kind = w->scale_kind,
        .group = w->group,
        .transposed = w->transposed,
        .tier = w->kernels->tier,
        .layout = w->density->layout.name,
        .trit_bytes = w->trits.bytes,
        .scale_bytes = w->scale.bytes + w->input_scale.bytes + w->exponents.bytes,
        .huge_pages = w->trits.huge_pages,
    };
    return TERN_OK;
}

/* ---- products -------------------------------------------------------------------------------------------------- */

static int aligned_for(const void *pointer, size_t alignment) { return (uintptr_t)pointer % alignment == 0; }

#define CHECK_ARRAY(pointer, type, err)                                                                      \
    do {                                                                                                     \
        TERN_CHECK_ARGUMENT(pointer, err, #pointer " is NULL");                                              \
        TERN_CHECK_ARGUMENT(aligned_for(pointer, sizeof(type)), err, #pointer " is not aligned for " #type); \
    } while (0)

/* m rows of inputs and of outputs must be addressable in the widest type. */
static tern_status check_sizes(const tern_matrix *w, size_t m, tern_error *err) {
    size_t widest = tern_max_size(w->inputs, w->outputs), values = 0, bytes = 0;
    if (!tern_checked_mul(&values, m, widest) || !tern_checked_mul(&bytes, values, sizeof(float)) ||
        bytes > PTRDIFF_MAX)
        return tern_fail(err, TERN_E_SIZE, TERN_NO_PLACE, "m = %zu rows of %zu values overflow", m, widest);
    return TERN_OK;
}

static tern_status scratch_bytes(size_t *bytes, const tern_matrix *w, size_t m, int integer, int threads,
                                 tern_error *err) {
    *bytes = integer ? tern_product_i8_scratch(w, m, threads) : tern_product_float_scratch(w, m, threads);
    if (!*bytes) return tern_fail(err, TERN_E_SIZE, TERN_NO_PLACE, "the scratch of %zu rows overflows", m);
    return TERN_OK;
}

tern_status tern_matmul_scratch(size_t *bytes, const tern_matrix *w, size_t m, tern_dtype acts, int threads,
                                tern_error *err) {
    TERN_CHECK_ARGUMENT(bytes, err, "bytes is NULL");
    TERN_CHECK_ARGUMENT(w, err, "w is NULL");
    TERN_CHECK_ARGUMENT((unsigned)acts <= TERN_I8, err, "acts = %d is no type", (int)acts);
    TERN_TRY(tern_check_threads(threads, err));
    TERN_TRY(check_sizes(w, m, err));
    size_t need = TERN_ALIGNMENT;
    if (m) TERN_TRY(scratch_bytes(&need, w, m, acts == TERN_I8, tern_product_threads(w, m, threads), err));
    *bytes = need;
    return TERN_OK;
}

/* What a product runs with: its threads, and scratch that it was given or that has to be freed. */
typedef struct run {
    int threads;
    void *scratch, *own;
} run;

static tern_status start_run(run *r, const tern_matrix *w, size_t m, int integer, const tern_exec *exec,
                             tern_error *err) {
    const tern_exec e = exec ? *exec : (tern_exec){0};
    TERN_TRY(tern_check_threads(e.threads, err));
    TERN_TRY(check_sizes(w, m, err));
    size_t need = 0;
    *r = (run){.threads = tern_product_threads(w, m, e.threads), .scratch = e.scratch};
    TERN_TRY(scratch_bytes(&need, w, m, integer, r->threads, err));
    if (!e.scratch) {
        r->scratch = r->own = aligned_alloc(TERN_ALIGNMENT, need);
        if (!r->own) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "out of memory: %zu bytes of scratch", need);
        return TERN_OK;
    }
    TERN_CHECK_ARGUMENT(aligned_for(e.scratch, TERN_ALIGNMENT), err, "scratch is not %d-byte aligned",
                        TERN_ALIGNMENT);
    if (e.scratch_bytes < need)
        return tern_fail(err, TERN_E_SIZE, TERN_NO_PLACE, "scratch_bytes = %zu, but this product takes %zu",
                         e.scratch_bytes, need);
    return TERN_OK;
}

static tern_status run_i8(const tern_product_i8 *p, const tern_exec *exec, tern_error *err) {
    const tern_matrix *w = p->w;
    if (p->y && w->transposed && w->scale_kind != TERN_SCALE_TENSOR)
        return tern_fail(
            err, TERN_E_UNSUPPORTED, TERN_NO_PLACE,
            "a transposed matrix has its scales along the sum: int8 activations need one scale per tensor; "
            "use tern_matmul_float");
    if (!p->m) return TERN_OK;
    run r;
    TERN_TRY(start_run(&r, w, p->m, 1, exec, err));
    tern_product_i8_run(p, r.threads, r.scratch);
    free(r.own);
    return TERN_OK;
}

tern_status tern_matmul_sums(int32_t *sums, const tern_matrix *w, const int8_t *x, size_t m, const tern_exec *exec,
                             tern_error *err) {
    CHECK_ARRAY(sums, int32_t, err);
    TERN_CHECK_ARGUMENT(w, err, "w is NULL");
    TERN_CHECK_ARGUMENT(x, err, "x is NULL");
    return run_i8(&(tern_product_i8){.w = w, .m = m, .x_i8 = x, .sums = sums}, exec, err);
}

tern_status tern_matmul_i8(float *y, const tern_matrix *w, const int8_t *x, const float *inv_scale, const float *bias,
                           size_t m, const tern_exec *exec, tern_error *err) {
    CHECK_ARRAY(y, float, err);
    TERN_CHECK_ARGUMENT(w, err, "w is NULL");
    TERN_CHECK_ARGUMENT(x, err, "x is NULL");
    CHECK_ARRAY(inv_scale, float, err);
    if (bias) CHECK_ARRAY(bias, float, err);
    return run_i8(&(tern_product_i8){.w = w, .m = m, .x_i8 = x, .inv_scale = inv_scale, .bias = bias, .y = y}, exec,
                  err);
}

tern_status tern_matmul_quantized(float *y, const tern_matrix *w, const float *x, const float *bias, size_t m,
                                  const tern_exec *exec, tern_error *err) {
    CHECK_ARRAY(y, float, err);
    TERN_CHECK_ARGUMENT(w, err, "w is NULL");
    CHECK_ARRAY(x, float, err);
    if (bias) CHECK_ARRAY(bias, float, err);
    return run_i8(&(tern_product_i8){.w = w, .m = m, .x_f32 = x, .bias = bias, .y = y}, exec, err);
}

tern_status tern_matmul_float(float *y, const tern_matrix *w, const void *x, tern_dtype dtype, const float *bias,
                              size_t m, const tern_exec *exec, tern_error *err) {
    CHECK_ARRAY(y, float, err);
    TERN_CHECK_ARGUMENT(w, err, "w is NULL");
    TERN_CHECK_ARGUMENT((unsigned)dtype <= TERN_F16, err, "dtype = %d: must be TERN_F32, TERN_BF16 or TERN_F16",
                        (int)dtype);
    if (dtype == TERN_F32)
        CHECK_ARRAY(x, float, err);
    else
        CHECK_ARRAY(x, uint16_t, err);
    if (bias) CHECK_ARRAY(bias, float, err);
    if (!m) return TERN_OK;
    run r;
    TERN_TRY(start_run(&r, w, m, 0, exec, err));
    tern_product_float_run(&(tern_product_float){.w = w, .m = m, .x = x, .dtype = dtype, .bias = bias, .y = y},
                           r.threads, r.scratch);
    free(r.own);
    return TERN_OK;
}
