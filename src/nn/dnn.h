/* Dense float products, by oneDNN: matrix products and convolutions on fp32 or bf16 operands with fp32 sums.
 *
 * oneDNN runs sequentially inside a parallel region, and each call here cuts its work into parts that depend on the
 * shape alone, one oneDNN call a part: so the number of threads does not change a bit of the result. A failure inside
 * (memory, mostly) is remembered in the context: results are then undefined, and tern_dnn_check says why. */
#ifndef TERN_NN_DNN_H
#define TERN_NN_DNN_H

#include <stddef.h>

#include "tern/matrix.h"

typedef struct tern_dnn tern_dnn;

tern_status tern_dnn_create(tern_dnn **out, int threads, tern_error *err);
void tern_dnn_free(tern_dnn **dnn);
tern_status tern_dnn_check(const tern_dnn *dnn, tern_error *err);

/* True when bf16 products have matrix instructions here: otherwise fp32 is faster. */
int tern_dnn_bf16_is_fast(void);

/* c[m][n] (rows ldc apart) = a[m][k] b[k][n], added to c when `accumulate`. transpose_a: a is stored as [k][m]; and
 * transpose_b: b as [n][k]. dtype: of a and b. All row-major. */
typedef struct tern_gemm {
    tern_dtype dtype;
    int transpose_a, transpose_b, accumulate;
    size_t m, n, k;
    const void *a;
    size_t lda;
    const void *b;
    size_t ldb;
    float *c;
    size_t ldc;
} tern_gemm;

void tern_dnn_gemm(tern_dnn *dnn, const tern_gemm *gemm);

/* c = alpha a b + beta c in fp32, in the calling thread alone; 'T' or 'N' for each operand. Row-major. For the small
 * products of a task that is itself one of many. */
void tern_dnn_sgemm(char transpose_a, char transpose_b, size_t m, size_t n, size_t k, float alpha, const float *a,
                    size_t lda, const float *b, size_t ldb, float beta, float *c, size_t ldc);

/* A convolution of images [h][w][ci] to [oh][ow][co], weights [co][kernel][kernel][ci / groups]. */
typedef struct tern_conv_desc {
    tern_dtype dtype; /* of x, w and dy */
    size_t h, w, ci, oh, ow, co, kernel, stride, padding, groups;
} tern_conv_desc;

typedef struct tern_conv tern_conv;

tern_status tern_conv_create(tern_conv **out, tern_dnn *dnn, const tern_conv_desc *desc, tern_error *err);
void tern_conv_free(tern_conv **conv);

/* y: fp32. */
void tern_conv_forward(tern_conv *conv, size_t batch, float *y, const void *x, const void *w);
/* dx: fp32, overwritten. */
void tern_conv_backward_data(tern_conv *conv, size_t batch, float *dx, const void *dy, const void *w);
/* dw: fp32, added to. */
void tern_conv_backward_weights(tern_conv *conv, size_t batch, float *dw, const void *x, const void *dy);

#endif
