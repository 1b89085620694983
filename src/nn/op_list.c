/* All operations. */
#include <string.h>

#include "nn/op.h"

extern const tern_op tern_op_input, tern_op_flatten, tern_op_add, tern_op_mul, tern_op_scale, tern_op_dropout;
extern const tern_op tern_op_linear, tern_op_conv2d, tern_op_bit_linear, tern_op_bit_conv2d, tern_op_ternary_linear;
extern const tern_op tern_op_ternary_conv2d, tern_op_packed_linear, tern_op_packed_conv2d, tern_op_embedding;
extern const tern_op tern_op_rmsnorm, tern_op_layernorm, tern_op_batch_norm, tern_op_affine, tern_op_relu;
extern const tern_op tern_op_relu2, tern_op_gelu, tern_op_silu, tern_op_max_pool, tern_op_avg_pool, tern_op_attention;
extern const tern_op tern_op_reshape;

extern const tern_op tern_op_trit_linear, tern_op_trit_conv2d, tern_op_trit_embedding, tern_op_packed_embedding,
    tern_op_trit_rmsnorm;

static const tern_op *const ops[] = {&tern_op_input,         &tern_op_flatten,        &tern_op_add,
                                     &tern_op_mul,           &tern_op_scale,          &tern_op_dropout,
                                     &tern_op_linear,        &tern_op_conv2d,         &tern_op_bit_linear,
                                     &tern_op_bit_conv2d,    &tern_op_ternary_linear, &tern_op_ternary_conv2d,
                                     &tern_op_packed_linear, &tern_op_packed_conv2d,  &tern_op_embedding,
                                     &tern_op_rmsnorm,       &tern_op_layernorm,      &tern_op_batch_norm,
                                     &tern_op_affine,        &tern_op_relu,           &tern_op_relu2,
                                     &tern_op_gelu,          &tern_op_silu,           &tern_op_max_pool,
                                     &tern_op_avg_pool,      &tern_op_attention,      &tern_op_trit_linear,
                                     &tern_op_trit_conv2d,   &tern_op_trit_embedding, &tern_op_packed_embedding,
                                     &tern_op_trit_rmsnorm,  &tern_op_reshape};

enum { OPS = sizeof ops / sizeof *ops };

const tern_op *tern_op_find(const char *name) {
    for (size_t i = 0; i < OPS; i++)
        if (!strcmp(ops[i]->name, name)) return ops[i];
    return NULL;
}

const char *tern_op_name(size_t i) { return i < OPS ? ops[i]->name : NULL; }
