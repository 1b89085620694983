/* A ternary matrix with everything that a product may take, on the host, and what the product must give: sums written
 * out naively, in the order of docs/numerics.md. */
#ifndef TERN_TESTS_GPU_CASE_H
#define TERN_TESTS_GPU_CASE_H

#include "tern/device.h"
#include "tern/tern.h"

typedef enum fill { FILL_RANDOM, FILL_ZERO, FILL_EXTREME } fill;

typedef struct gpu_case {
    size_t rows, cols, m, group, groups;
    tern_packing packing;
    tern_scale_kind scale_kind;
    fill fill;
    tern_dtype x_type, y_type;
    tern_device_activation activation;
    int with_bias, with_residual;
    int wide_exponents; /* of groups: all that an int8 holds, so that sums overflow and vanish */
    size_t x_shift;     /* values by which x is off its alignment */
    size_t y_shift;     /* the same of y */

    int8_t *trits, *exponents;
    float *scales, *inv_scale, *bias;
    void *x, *residual; /* x_type; y_type */
    float *want;        /* [m][rows], before it is rounded to y_type */
    float *bound;       /* how far a float product may be off */
} gpu_case;

size_t bytes_of(tern_dtype type);
float value_of(const void *values, tern_dtype type, size_t i);
void set_value(void *values, tern_dtype type, size_t i, float v);

/* Draws everything, and computes want and bound. The shape, kinds and types have been set. */
void make_case(gpu_case *c);
void free_case(gpu_case *c);

tern_status make_device_matrix(tern_device_matrix **out, tern_device *device, const gpu_case *c, tern_error *err);

#endif
