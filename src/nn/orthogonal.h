/* The nearest matrix with orthogonal rows (or columns), roughly: a few Newton-Schulz steps with Muon's coefficients
 * 3.4445, -4.7750, 2.0315 (Jordan et al. 2024), whose singular values end near 1. */
#ifndef TERN_NN_ORTHOGONAL_H
#define TERN_NN_ORTHOGONAL_H

#include "nn/dnn.h"

/* What multiplies: operands of its products are fp32 or rounded to bf16, which these steps forgive. */
typedef struct tern_newton {
    tern_dnn *dnn;
    int threads, steps;
    tern_dtype products;
} tern_newton;

/* Floats of room for a matrix. */
size_t tern_orthogonal_floats(size_t rows, size_t columns, tern_dtype products);

/* x [rows][columns] in place. Sums are taken in an order that the number of threads does not change. */
void tern_orthogonalise(const tern_newton *newton, float *x, float *room, size_t rows, size_t columns);

#endif
