/* All operations that a GPU has. */
#include <string.h>

#include "gpu/gpu_plan.cuh"

/* clang-format off */
#define OPS(op) \
    op(linear) op(conv2d) \
    op(bit_linear) op(bit_conv2d) op(ternary_linear) op(ternary_conv2d) op(packed_linear) op(packed_conv2d) \
    op(trit_linear) op(trit_conv2d) op(trit_rmsnorm) op(trit_embedding) \
    op(batch_norm) op(batch_norm_pool) op(affine) op(rmsnorm) op(layernorm) \
    op(relu) op(relu2) op(gelu) op(silu) \
    op(max_pool) op(avg_pool) \
    op(add) op(mul) op(scale) op(dropout) \
    op(embedding) op(packed_embedding) op(attention)
/* clang-format on */

#define DECLARE(name) extern const gpu_op gpu_op_##name;
#define LIST(name) &gpu_op_##name,
OPS(DECLARE)
static const gpu_op *const ops[] = {OPS(LIST)};

const gpu_op *gpu_op_find(const char *name) {
    for (const gpu_op *op : ops)
        if (!strcmp(op->name, name)) return op;
    return NULL;
}
