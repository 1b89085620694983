/* Steps around dense products: operand conversion, bias, column sums, patches of images. */
#ifndef TERN_NN_DENSE_H
#define TERN_NN_DENSE_H

#include "nn/plan.h"

/* Bytes of one element of a product's operands. */
static inline size_t tern_operand_bytes(tern_dtype dtype) { return dtype == TERN_BF16 ? 2 : 4; }

/* The three products of a linear layer, x [rows][k], w [n][k], y [rows][n]; operands of type `dtype`. */
typedef struct tern_linear {
    tern_dnn *dnn;
    tern_dtype dtype;
    size_t rows, n, k;
} tern_linear;

void tern_linear_forward(const tern_linear *l, float *y, const void *x, const void *w); /* y = x w^T */
void tern_linear_input_gradient(const tern_linear *l, float *dx, const void *dy, const void *w, int add); /* dy w */
void tern_linear_weight_gradient(const tern_linear *l, float *dw, const void *dy, const void *x); /* dw += dy^T x */

/* to[row][c] = from[row][c] * row_scale[row / rows_per_scale] * column_scale[c], as dtype. Either scale may be NULL
 * for ones; column_scales 1: one value for all columns. */
typedef struct tern_operand {
    tern_dtype dtype;
    size_t rows, columns;
    size_t stride; /* elements between rows of `from`; 0: columns */
    const float *row_scale;
    size_t rows_per_scale;
    const float *column_scale;
    size_t column_scales;
} tern_operand;

void tern_operand_from_f32(int threads, const tern_operand *o, void *to, const float *from);
void tern_bf16_from_f32(int threads, void *to, const float *from, size_t count);
/* Exact in both types. */
void tern_operand_from_i8(int threads, tern_dtype dtype, void *to, const int8_t *from, size_t count);

/* y[row][c] = y[row][c] * row_scale[row / rows_per_scale] + bias[c]; either may be NULL. */
void tern_scale_and_bias(int threads, float *y, size_t rows, size_t columns, const float *row_scale,
                         size_t rows_per_scale, const float *bias);

/* The sum of squares, in double, over parts in order. */
double tern_sum_of_squares(int threads, const float *x, size_t count);

/* sum[c] += the sum of column c. Scratch of tern_column_sums_scratch() bytes. */
size_t tern_column_sums_scratch(size_t columns);
void tern_column_sums(int threads, float *sum, const float *x, size_t rows, size_t columns, void *scratch);

/* to += from. */
void tern_add_into(int threads, float *to, const float *from, size_t count);

/* A sliding window over images [h][w][c] of elements of `bytes` bytes, channels first_channel ... + channels. */
typedef struct tern_patches {
    size_t bytes, h, w, c, oh, ow, kernel, stride, padding, first_channel, channels;
} tern_patches;

/* to[row][kernel][kernel][channels] for output places first .. first + count, counted through all images
 * (place = (image * oh + oy) * ow + ox). Outside the image: zeros. */
void tern_patches_take(const tern_patches *p, void *to, const void *images, size_t first, size_t count);

#endif
