/* All operations that a GPU has. */
#include <string.h>

#include "gpu/gpu_plan.cuh"

extern const gpu_op gpu_op_linear, gpu_op_relu, gpu_op_relu2, gpu_op_gelu, gpu_op_silu;
extern const gpu_op gpu_op_batch_norm, gpu_op_affine, gpu_op_rmsnorm, gpu_op_layernorm;
extern const gpu_op gpu_op_add, gpu_op_mul, gpu_op_scale, gpu_op_dropout, gpu_op_embedding, gpu_op_attention;

static const gpu_op *const ops[] = {&gpu_op_linear,    &gpu_op_relu,       &gpu_op_relu2,    &gpu_op_gelu,
                                    &gpu_op_silu,      &gpu_op_batch_norm, &gpu_op_affine,   &gpu_op_rmsnorm,
                                    &gpu_op_layernorm, &gpu_op_add,        &gpu_op_mul,      &gpu_op_scale,
                                    &gpu_op_dropout,   &gpu_op_embedding,  &gpu_op_attention};

const gpu_op *gpu_op_find(const char *name) {
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        if (!strcmp(ops[i]->name, name)) return ops[i];
    return NULL;
}
