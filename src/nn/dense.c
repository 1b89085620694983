#include "nn/dense.h"

#include <string.h>

#include "base/clones.h"
#include "base/half.h"
#include "nn/parts.h"

void tern_linear_forward(const tern_linear *l, float *y, const void *x, const void *w) {
    tern_gemm g = {.dtype = l->dtype, .transpose_b = 1, .m = l->rows, .n = l->n, .k = l->k};
    g.a = x, g.lda = l->k;
    g.b = w, g.ldb = l->k;
    g.c = y, g.ldc = l->n;
    tern_dnn_gemm(l->dnn, &g);
}

void tern_linear_input_gradient(const tern_linear *l, float *dx, const void *dy, const void *w, int add) {
    tern_gemm g = {.dtype = l->dtype, .accumulate = add, .m = l->rows, .n = l->k, .k = l->n};
    g.a = dy, g.lda = l->n;
    g.b = w, g.ldb = l->k;
    g.c = dx, g.ldc = l->k;
    tern_dnn_gemm(l->dnn, &g);
}

void tern_linear_weight_gradient(const tern_linear *l, float *dw, const void *dy, const void *x) {
    tern_gemm g = {.dtype = l->dtype, .transpose_a = 1, .accumulate = 1, .m = l->n, .n = l->k, .k = l->rows};
    g.a = dy, g.lda = l->n;
    g.b = x, g.ldb = l->k;
    g.c = dw, g.ldc = l->k;
    tern_dnn_gemm(l->dnn, &g);
}

TERN_CLONES static void row_to_bf16(uint16_t *restrict to, const float *restrict from, size_t n, float row,
                                    const float *restrict column, float all) {
    if (column)
        for (size_t c = 0; c < n; c++) to[c] = tern_f32_to_bf16(from[c] * row * column[c]);
    else
        for (size_t c = 0; c < n; c++) to[c] = tern_f32_to_bf16(from[c] * row * all);
}

TERN_CLONES static void row_to_f32(float *to, const float *from, size_t n, float row, const float *restrict column,
                                   float all) {
    if (column)
        for (size_t c = 0; c < n; c++) to[c] = from[c] * row * column[c];
    else
        for (size_t c = 0; c < n; c++) to[c] = from[c] * row * all;
}

void tern_operand_from_f32(int threads, const tern_operand *o, void *to, const float *from) {
    size_t n = o->columns, stride = o->stride ? o->stride : n;
    const float *column = o->column_scale && o->column_scales > 1 ? o->column_scale : NULL;
    float all = o->column_scale && !column ? o->column_scale[0] : 1;
    TERN_FOR_PARTS(threads, o->rows, tern_rows_a_part(n), begin, end)
    for (size_t row = begin; row < end; row++) {
        float r = o->row_scale ? o->row_scale[row / o->rows_per_scale] : 1;
        if (o->dtype == TERN_BF16)
            row_to_bf16((uint16_t *)to + row * n, from + row * stride, n, r, column, all);
        else
            row_to_f32((float *)to + row * n, from + row * stride, n, r, column, all);
    }
}

void tern_bf16_from_f32(int threads, void *to, const float *from, size_t count) {
    TERN_FOR_PARTS(threads, count, TERN_PART, begin, end)
    row_to_bf16((uint16_t *)to + begin, from + begin, end - begin, 1, NULL, 1);
}

/* Small whole numbers have all their digits in the upper half. */
TERN_CLONES static void i8_to_bf16(uint16_t *restrict to, const int8_t *restrict from, size_t n) {
    for (size_t i = 0; i < n; i++) to[i] = (uint16_t)(tern_f32_bits((float)from[i]) >> 16);
}

TERN_CLONES static void i8_to_f32(float *restrict to, const int8_t *restrict from, size_t n) {
    for (size_t i = 0; i < n; i++) to[i] = (float)from[i];
}

void tern_operand_from_i8(int threads, tern_dtype dtype, void *to, const int8_t *from, size_t count) {
    TERN_FOR_PARTS(threads, count, TERN_PART, begin, end) {
        if (dtype == TERN_BF16)
            i8_to_bf16((uint16_t *)to + begin, from + begin, end - begin);
        else
            i8_to_f32((float *)to + begin, from + begin, end - begin);
    }
}

TERN_CLONES static void scale_and_bias_row(float *restrict y, size_t n, float scale, const float *restrict bias) {
    if (bias)
        for (size_t c = 0; c < n; c++) y[c] = y[c] * scale + bias[c];
    else
        for (size_t c = 0; c < n; c++) y[c] = y[c] * scale;
}

void tern_scale_and_bias(int threads, float *y, size_t rows, size_t columns, const float *row_scale,
                         size_t rows_per_scale, const float *bias) {
    if (!row_scale && !bias) return;
    TERN_FOR_PARTS(threads, rows, tern_rows_a_part(columns), begin, end)
    for (size_t row = begin; row < end; row++)
        scale_and_bias_row(y + row * columns, columns, row_scale ? row_scale[row / rows_per_scale] : 1, bias);
}

enum { NORM_PART = 1 << 16 };

TERN_CLONES static double square_sum(const float *x, size_t n) {
    double lane[16] = {0}, sum = 0;
    size_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (size_t l = 0; l < 16; l++) lane[l] += (double)x[i + l] * (double)x[i + l];
    for (size_t l = 0; i < n; i++, l++) lane[l] += (double)x[i] * (double)x[i];
    for (size_t l = 0; l < 16; l++) sum += lane[l];
    return sum;
}

/* By parts of NORM_PART, 256 of them at a time. */
double tern_sum_of_squares(int threads, const float *x, size_t count) {
    double total = 0, part[256];
    for (size_t base = 0; base < count; base += 256 * NORM_PART) {
        size_t n = tern_min_size(256 * NORM_PART, count - base);
        TERN_FOR_PARTS(threads, n, NORM_PART, begin, end)
        part[begin / NORM_PART] = square_sum(x + base + begin, end - begin);
        for (size_t i = 0; i < tern_ceil_div(n, NORM_PART); i++) total += part[i];
    }
    return total;
}

enum { SUM_PARTS = 32 };

size_t tern_column_sums_scratch(size_t columns) { return SUM_PARTS * columns * sizeof(float); }

TERN_CLONES static void add_rows(float *restrict sum, const float *restrict x, size_t rows, size_t n) {
    for (size_t row = 0; row < rows; row++)
        for (size_t c = 0; c < n; c++) sum[c] += x[row * n + c];
}

void tern_column_sums(int threads, float *sum, const float *x, size_t rows, size_t columns, void *scratch) {
    float *parts = scratch;
    size_t length = tern_max_size(1, tern_ceil_div(rows, SUM_PARTS)), used = tern_ceil_div(rows, length);
    TERN_FOR_PARTS(threads, rows, length, begin, end) {
        float *part = parts + begin / length * columns;
        memset(part, 0, columns * sizeof *part);
        add_rows(part, x + begin * columns, end - begin, columns);
    }
    for (size_t p = 0; p < used; p++) add_rows(sum, parts + p * columns, 1, columns);
}

void tern_add_into(int threads, float *to, const float *from, size_t count) {
    TERN_FOR_PARTS(threads, count, TERN_PART, begin, end)
    for (size_t i = begin; i < end; i++) to[i] += from[i];
}

/* One row of one window: kernel places of an image's row, where they exist. */
static void take_row(const tern_patches *p, char *to, const char *image, size_t y, size_t ox) {
    size_t place = p->channels * p->bytes, stride = p->c * p->bytes;
    if (y < p->padding || y - p->padding >= p->h) {
        memset(to, 0, p->kernel * place);
        return;
    }
    const char *row = image + (y - p->padding) * p->w * stride + p->first_channel * p->bytes;
    size_t x = ox * p->stride;
    if (p->channels == p->c && x >= p->padding && x - p->padding + p->kernel <= p->w) {
        memcpy(to, row + (x - p->padding) * stride, p->kernel * place);
        return;
    }
    for (size_t kx = 0; kx < p->kernel; kx++, to += place) {
        if (x + kx < p->padding || x + kx - p->padding >= p->w)
            memset(to, 0, place);
        else
            memcpy(to, row + (x + kx - p->padding) * stride, place);
    }
}

void tern_patches_take(const tern_patches *p, void *to, const void *images, size_t first, size_t count) {
    size_t image_bytes = p->h * p->w * p->c * p->bytes, window_row = p->kernel * p->channels * p->bytes;
    char *out = to;
    size_t image = first / (p->oh * p->ow), oy = first / p->ow % p->oh, ox = first % p->ow;
    for (size_t i = 0; i < count; i++) {
        for (size_t ky = 0; ky < p->kernel; ky++, out += window_row)
            take_row(p, out, (const char *)images + image * image_bytes, oy * p->stride + ky, ox);
        if (++ox < p->ow) continue;
        ox = 0;
        if (++oy < p->oh) continue;
        oy = 0;
        image++;
    }
}
