/* All operations that a GPU has. */
#include <string.h>

#include "gpu/gpu_plan.cuh"

extern const gpu_op gpu_op_linear, gpu_op_relu, gpu_op_relu2, gpu_op_gelu, gpu_op_silu;
extern const gpu_op gpu_op_bit_linear, gpu_op_bit_conv2d, gpu_op_ternary_linear, gpu_op_ternary_conv2d;
extern const gpu_op gpu_op_packed_linear, gpu_op_packed_conv2d;
extern const gpu_op gpu_op_trit_linear, gpu_op_trit_conv2d;

static const gpu_op *const ops[] = {
    &gpu_op_linear,        &gpu_op_relu,        &gpu_op_relu2,          &gpu_op_gelu,           &gpu_op_silu,
    &gpu_op_bit_linear,    &gpu_op_bit_conv2d,  &gpu_op_ternary_linear, &gpu_op_ternary_conv2d, &gpu_op_packed_linear,
    &gpu_op_packed_conv2d, &gpu_op_trit_linear, &gpu_op_trit_conv2d};

const gpu_op *gpu_op_find(const char *name) {
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        if (!strcmp(ops[i]->name, name)) return ops[i];
    return NULL;
}
