#include "gpu_case.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "base/random.h"

size_t bytes_of(tern_dtype type) { return type == TERN_F32 ? 4 : type == TERN_I8 ? 1 : 2; }

float value_of(const void *values, tern_dtype type, size_t i) {
    switch (type) {
    case TERN_I8: return ((const int8_t *)values)[i];
    case TERN_BF16: return tern_bf16_to_f32(((const uint16_t *)values)[i]);
    case TERN_F16: return tern_f16_to_f32(((const uint16_t *)values)[i]);
    default: return ((const float *)values)[i];
    }
}

void set_value(void *values, tern_dtype type, size_t i, float v) {
    switch (type) {
    case TERN_I8: ((int8_t *)values)[i] = (int8_t)v; break;
    case TERN_BF16: ((uint16_t *)values)[i] = tern_f32_to_bf16(v); break;
    case TERN_F16: ((uint16_t *)values)[i] = tern_f32_to_f16(v); break;
    default: ((float *)values)[i] = v;
    }
}

/* ---- drawing --------------------------------------------------------------------------------------------------- */

static int8_t draw_trit(const gpu_case *c, size_t i) {
    if (c->fill == FILL_ZERO) return 0;
    if (c->fill == FILL_EXTREME) return i / c->cols % 2 ? 1 : -1;
    return tern_random_trit(c->rows * 131 + c->cols, i);
}

static float draw_x(const gpu_case *c, size_t i) {
    if (c->x_type == TERN_I8)
        return c->fill == FILL_EXTREME ? (i / c->cols % 2 ? -128 : 127) : (int8_t)tern_random_u32(5, i);
    return c->fill == FILL_EXTREME ? (i % 3 ? 6.0e4f : 6.0e-5f) : tern_random_normal(7, i);
}

static int8_t draw_exponent(const gpu_case *c, size_t i) {
    const uint32_t drawn = tern_random_u32(3, i);
    return c->wide_exponents ? (int8_t)drawn : (int8_t)((int)(drawn % 12) - 8);
}

static void *alloc_values(size_t count, size_t size) { return calloc(count ? count : 1, size); }

static void draw(gpu_case *c) {
    const size_t n = c->rows, k = c->cols, m = c->m;
    for (size_t i = 0; i < n * k; i++) c->trits[i] = draw_trit(c, i);
    for (size_t i = 0; i < n * c->groups; i++) c->exponents[i] = draw_exponent(c, i);
    for (size_t i = 0; i < n; i++) c->scales[i] = 0.25f + (float)(i % 7) * 0.1f;
    for (size_t i = 0; i < m; i++) c->inv_scale[i] = 0.01f + 0.001f * (float)(i % 50);
    for (size_t i = 0; i < n; i++) c->bias[i] = tern_random_signed(6, i);
    for (size_t i = 0; i < m * k; i++) set_value(c->x, c->x_type, i, draw_x(c, i));
    for (size_t i = 0; i < m * n; i++) set_value(c->residual, c->y_type, i, tern_random_signed(8, i));
}

/* ---- what must come out ---------------------------------------------------------------------------------------- */

static float product_i8(const gpu_case *c, size_t i, size_t row) {
    const int8_t *t = c->trits + row * c->cols, *x = (const int8_t *)c->x + i * c->cols;
    if (c->scale_kind != TERN_SCALE_GROUP_EXP) {
        int32_t sum = 0;
        for (size_t k = 0; k < c->cols; k++) sum += t[k] * x[k];
        const float factor = c->scales[c->scale_kind == TERN_SCALE_ROW ? row : 0] * c->inv_scale[i];
        return (float)sum * factor;
    }
    float value = 0;
    for (size_t g = 0; g < c->groups; g++) {
        int32_t sum = 0;
        for (size_t k = g * c->group; k < c->cols && k < (g + 1) * c->group; k++) sum += t[k] * x[k];
        const float term = ldexpf((float)sum, c->exponents[row * c->groups + g]);
        value += term;
    }
    return value * c->inv_scale[i];
}

/* In double; *bound becomes the sum of magnitudes. */
static float product_float(const gpu_case *c, size_t i, size_t row, float *bound) {
    double sum = 0, magnitudes = 0;
    for (size_t k = 0; k < c->cols; k++) {
        const int8_t trit = c->trits[row * c->cols + k];
        double v = value_of(c->x, c->x_type, i * c->cols + k);
        v *= c->scale_kind == TERN_SCALE_GROUP_EXP ? ldexp(1, c->exponents[row * c->groups + k / c->group])
                                                   : c->scales[c->scale_kind == TERN_SCALE_ROW ? row : 0];
        sum += trit * v;
        magnitudes += fabs(v);
    }
    *bound = (float)magnitudes;
    return (float)sum;
}

static float activate(float v, tern_device_activation activation) {
    switch (activation) {
    case TERN_DEVICE_RELU: return v > 0 ? v : 0;
    case TERN_DEVICE_RELU2: return v > 0 ? v * v : 0;
    case TERN_DEVICE_GELU: return v / (1 + expf(-v * (1.5957691216f + 0.0713548162726f * (v * v))));
    case TERN_DEVICE_SILU: return v / (1 + expf(-v));
    default: return v;
    }
}

/* Products of int8 are exact, float sums are off by 2 (k + 32) 2^-24 of their magnitudes at most, and expf is not the
 * same function everywhere. */
static void compute(gpu_case *c, size_t i, size_t row) {
    const size_t at = i * c->rows + row;
    float bound = 0, v = c->x_type == TERN_I8 ? product_i8(c, i, row) : product_float(c, i, row, &bound);
    bound *= 2 * ((float)c->cols + 32) * 0x1p-24f;
    if (c->x_type != TERN_I8) bound += 4 * 0x1p-24f * fabsf(v);
    if (c->with_bias) v += c->bias[row];
    if (c->activation == TERN_DEVICE_RELU2) bound = 2 * fabsf(v) * bound + bound * bound;
    if (c->activation >= TERN_DEVICE_GELU) bound = 2 * bound + 8 * 0x1p-24f * fabsf(v);
    v = activate(v, c->activation);
    if (bound > 0 && c->with_bias) bound += 4 * 0x1p-24f * fabsf(v);
    if (c->with_residual) v += value_of(c->residual, c->y_type, at);
    c->want[at] = v;
    c->bound[at] = bound;
}

void make_case(gpu_case *c) {
    const size_t n = c->rows, k = c->cols, m = c->m;
    if (!c->group) c->group = 4;
    c->groups = tern_groups_per_row(c->group, k);
    c->trits = alloc_values(n * k, 1);
    c->exponents = alloc_values(n * c->groups, 1);
    c->scales = alloc_values(n, sizeof(float));
    c->inv_scale = alloc_values(m, sizeof(float));
    c->bias = alloc_values(n, sizeof(float));
    c->x = alloc_values(m * k, bytes_of(c->x_type));
    c->residual = alloc_values(m * n, bytes_of(c->y_type));
    c->want = alloc_values(m * n, sizeof(float));
    c->bound = alloc_values(m * n, sizeof(float));
    draw(c);
#pragma omp parallel for schedule(static)
    for (size_t at = 0; at < m * n; at++) compute(c, at / n, at % n);
}

void free_case(gpu_case *c) {
    free(c->trits);
    free(c->exponents);
    free(c->scales);
    free(c->inv_scale);
    free(c->bias);
    free(c->x);
    free(c->residual);
    free(c->want);
    free(c->bound);
}

tern_status make_device_matrix(tern_device_matrix **out, tern_device *device, const gpu_case *c, tern_error *err) {
    size_t bytes = 0;
    tern_status status = tern_packed_bytes(&bytes, c->packing, c->rows, c->cols, err);
    if (status) return status;
    uint8_t *packed = malloc(bytes);
    status = tern_pack(packed, bytes, c->packing, c->trits, c->rows, c->cols, err);
    const tern_matrix_desc desc = {
        .rows = c->rows,
        .cols = c->cols,
        .packing = c->packing,
        .packed = packed,
        .packed_bytes = bytes,
        .scale_kind = c->scale_kind,
        .scales = c->scales,
        .exponents = c->exponents,
        .scale_count = c->scale_kind == TERN_SCALE_TENSOR ? 1
                       : c->scale_kind == TERN_SCALE_ROW  ? c->rows
                                                          : c->rows * c->groups,
        .group = c->group,
    };
    if (!status) status = tern_device_matrix_create(out, device, &desc, err);
    free(packed);
    return status;
}
