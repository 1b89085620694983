/* Rows of floats that are quantized and multiplied by one kernel: wgmma_floats.cu. */
#ifndef TERN_CUDA_WGMMA_FLOATS_CUH
#define TERN_CUDA_WGMMA_FLOATS_CUH

#include "cuda/common.cuh"

/* RMSNorm in front, of rows or of the squares of what is above 0 in them; gain NULL: ones. */
struct tern_row_norm {
    int on, squares;
    float epsilon;
    const float *gain;
};

/* Whether the kernel takes the product, x being of product->x_type, fp32 or bf16, and whether it is worth while. */
bool tern_cuda_floats_fit(const tern_cuda_context *context, const tern_cuda_weights *w,
                          const tern_device_product *product, const tern_row_norm *norm);
/* y, to the bit what a norm of gpu_op_norm.cu, tern_cuda_quantize and a product of its int8 give. */
tern_status tern_cuda_multiply_floats(tern_cuda_context *context, const tern_cuda_weights *w,
                                      const tern_device_product *product, const tern_row_norm *norm, tern_error *err);

#endif
