/* All operations, one line each. */
#include <string.h>

#include "nn/op.h"

#define TERN_OPS(X)                                                                                             \
    X(input)                                                                                                    \
    X(flatten)                                                                                                  \
    X(add)                                                                                                      \
    X(mul)                                                                                                      \
    X(scale)                                                                                                    \
    X(dropout)                                                                                                  \
    X(linear)                                                                                                   \
    X(conv2d)                                                                                                   \
    X(bit_linear)                                                                                               \
    X(bit_conv2d) X(ternary_linear) X(ternary_conv2d) X(packed_linear) X(packed_conv2d) X(embedding) X(rmsnorm) \
        X(layernorm) X(batch_norm) X(affine) X(relu) X(relu2) X(gelu) X(silu) X(max_pool) X(avg_pool) X(attention)

#define DECLARE(op) extern const tern_op tern_op_##op;
TERN_OPS(DECLARE)

#define POINT(op) &tern_op_##op,
static const tern_op *const ops[] = {TERN_OPS(POINT)};

enum { OPS = sizeof ops / sizeof *ops };

const tern_op *tern_op_find(const char *name) {
    for (size_t i = 0; i < OPS; i++)
        if (!strcmp(ops[i]->name, name)) return ops[i];
    return NULL;
}

const char *tern_op_name(size_t i) { return i < OPS ? ops[i]->name : NULL; }
