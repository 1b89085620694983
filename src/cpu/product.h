/* Products of a ternary matrix: blocking, scratch and threads around the kernels. Arguments have been checked. */
#ifndef TERN_CPU_PRODUCT_H
#define TERN_CPU_PRODUCT_H

#include "cpu/bump.h"
#include "cpu/ternary_matrix.h"

/* One product with int8 activations. Exactly one of x_i8 and x_f32 is given, and exactly one of sums and y. */
typedef struct tern_product_i8 {
    const tern_matrix *w;
    size_t m;
    const int8_t *x_i8; /* [m][inputs], with inv_scale [m] unless only sums are wanted */
    const float *inv_scale;
    const float *x_f32; /* [m][inputs]: quantized here */
    const float *bias;  /* [outputs] or NULL */
    int32_t *sums;      /* [m][outputs] */
    float *y;           /* [m][outputs] */
} tern_product_i8;

typedef struct tern_product_float {
    const tern_matrix *w;
    size_t m;
    const void *x; /* [m][inputs] of dtype */
    tern_dtype dtype;
    const float *bias;
    float *y;
} tern_product_float;

/* Threads that a product of m rows is worth, at most `threads` (0: all processors). */
int tern_product_threads(const tern_matrix *w, size_t m, int threads);

/* Scratch of a product with `threads` threads; 0 on overflow. */
size_t tern_product_i8_scratch(const tern_matrix *w, size_t m, int threads);
size_t tern_product_float_scratch(const tern_matrix *w, size_t m, int threads);

/* scratch: 64-byte aligned, as large as the functions above say. */
void tern_product_i8_run(const tern_product_i8 *product, int threads, void *scratch);
void tern_product_float_run(const tern_product_float *product, int threads, void *scratch);

#endif
