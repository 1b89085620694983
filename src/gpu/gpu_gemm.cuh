/* Dense products by cuBLASLt, which is opened when a plan has any: who runs packed layers alone needs none. */
#ifndef TERN_GPU_GPU_GEMM_CUH
#define TERN_GPU_GPU_GEMM_CUH

#include "gpu/gpu_plan.cuh"

/* C[m][n] = beta C + factor A B, row-major; A is [m][k], or [k][m] with a_turned; B [k][n], or [n][k] with b_turned.
 * Sums are fp32, with fp32 operands exact ones (no TF32). count > 1: so many products, the matrices `stride_`
 * elements apart. */
struct gpu_gemm {
    tern_dtype operands; /* of A and B: TERN_F32, TERN_BF16 or TERN_F16 */
    tern_dtype result;   /* of C, likewise */
    int a_turned, b_turned;
    size_t m, n, k;
    size_t lda, ldb, ldc; /* elements between rows; 0: dense */
    int add;              /* beta = 1, else 0 */
    const float *factor;  /* one number in the device's memory; NULL: 1 */
    size_t count;         /* 0 and 1: one */
    size_t stride_a, stride_b, stride_c;
};

enum { GPU_LT_WORKSPACE = 32 << 20 }; /* bytes */

tern_status gpu_lt_create(tern_gpu_plan *plan, tern_error *err);
void gpu_lt_free(tern_gpu_plan *plan);
/* Products from now on work there, as those on another stream do; returns where they did. */
void *gpu_lt_workspace(tern_gpu_plan *plan, void *workspace);
/* `node` is for messages. The first product of a shape chooses its algorithm: not inside a capture. */
tern_status gpu_multiply(tern_gpu_plan *plan, size_t node, const gpu_gemm *gemm, void *c, const void *a,
                         const void *b, tern_error *err);

/* to[row][c] = from[row][c] * row_scale[row / rows_per_scale] * column_scale[c], as nn/dense.h's tern_operand; `from`
 * of the plan's type, `to` of `type`. */
struct gpu_operand {
    tern_dtype type;
    size_t rows, columns;
    const float *row_scale;
    size_t rows_per_scale;
    const float *column_scale;
    int one_column_scale;
};
tern_status gpu_make_operand(tern_gpu_plan *plan, size_t node, const gpu_operand *o, void *to, const void *from,
                             tern_error *err);
/* fp32 parameters to the products' type. */
tern_status gpu_convert(tern_gpu_plan *plan, size_t node, tern_dtype type, void *to, const float *from, size_t n,
                        tern_error *err);

/* Operands of this pass's `type` (gpu_operands, or plan->products): *to is `from`, or the node's first parameter,
 * where it is of that type already. Else it is made in scratch at *room, which moves on by at most what _room
 * says. */
size_t gpu_value_room(const tern_gpu_plan *plan, size_t elements);
size_t gpu_weight_room(const tern_gpu_plan *plan, size_t elements);
tern_status gpu_value_operand(tern_gpu_plan *plan, size_t node, const void **to, char **room, tern_dtype type,
                              const void *from, size_t rows, size_t columns, tern_error *err);
tern_status gpu_weight_operand(tern_gpu_plan *plan, size_t node, const void **to, char **room, tern_dtype type,
                               size_t n, tern_error *err);

/* In prepare and refresh of an op whose first parameter is such an operand: where passes of all kinds take it, it is
 * made once behind a step, not in every pass. */
tern_status gpu_weight_prepare(tern_gpu_plan *plan, size_t node, size_t n, tern_error *err);
tern_status gpu_weight_refresh(tern_gpu_plan *plan, size_t node, tern_error *err);
/* dw[n][k] += dy^T x over `rows` rows, operands of plan->products: dy with ldy elements between rows, x with ldx.
 * Rows of x longer than k hold zeros behind it (gpu_patches_row); then `sums` is scratch of n * ldx floats. */
tern_status gpu_weight_product(tern_gpu_plan *plan, size_t node, float *dw, const void *dy, size_t ldy, const void *x,
                               size_t ldx, size_t n, size_t k, size_t rows, void *sums, tern_error *err);

/* sum[c] += the sum of column c of x, of the plan's type. Scratch of gpu_column_sums_scratch bytes. */
size_t gpu_column_sums_scratch(const tern_gpu_plan *plan, size_t columns);
tern_status gpu_column_sums(tern_gpu_plan *plan, size_t node, float *sum, const void *x, size_t rows, size_t columns,
                            void *scratch, tern_error *err);
/* y[row][c] = y[row][c] * column_scale[c] * row_scale[row / rows_per_scale] + bias[c], in nn/op_ternary.c's order;
 * each may be NULL. y of the plan's type. */
struct gpu_epilogue {
    size_t rows, columns;
    const float *column_scale;
    int one_column_scale;
    const float *row_scale;
    size_t rows_per_scale;
    const float *bias;
};
tern_status gpu_finish(tern_gpu_plan *plan, size_t node, const gpu_epilogue *e, void *y, tern_error *err);

/* y[row][c] += bias[c]. */
tern_status gpu_add_bias(tern_gpu_plan *plan, size_t node, void *y, const float *bias, size_t rows, size_t columns,
                         tern_error *err);

#endif
