/* Convolutions of bf16 without patches, on Hopper's warpgroup tensor cores: the products that gpu_patches.cuh's rows
 * would enter, and both of its gradients. Windows of 2 x 2 to 5 x 5 pixels, padded by less than that, that go a pixel
 * at a time, one group, whole packs of 8 channels. Sums are fp32; their order follows from shapes and the number of
 * multiprocessors. */
#ifndef TERN_GPU_GPU_CONV_WGMMA_CUH
#define TERN_GPU_GPU_CONV_WGMMA_CUH

#include "gpu/gpu_plan.cuh"

struct gpu_conv {
    size_t images, h, w, c, oh, ow, outputs, kernel, padding;
};

/* A convolution's of this pass, or of the largest batch. */
gpu_conv gpu_conv_of(const tern_gpu_plan *plan, size_t node, size_t batch);
/* Of a convolution's node whose values and products are bf16; the same for every batch. */
bool gpu_conv_fits(const tern_gpu_plan *plan, size_t node);
/* y = conv(x, w): x [images][h][w][c], w [outputs][kernel][kernel][c], y [images][oh][ow][outputs]. */
tern_status gpu_conv_forward(tern_gpu_plan *plan, size_t node, const gpu_conv *conv, void *y, const void *x,
                             const void *w, tern_error *err);
/* dx (+)= factor times the gradient that dy leaves there; factor: one number in the device's memory, or NULL. */
tern_status gpu_conv_input_gradient(tern_gpu_plan *plan, size_t node, const gpu_conv *conv, void *dx, int add,
                                    const void *dy, const void *w, const float *factor, tern_error *err);
/* dw[outputs][kernel][kernel][c] += , with scratch of gpu_conv_weight_scratch bytes for the largest batch. */
size_t gpu_conv_weight_scratch(const tern_gpu_plan *plan, const gpu_conv *conv);
tern_status gpu_conv_weight_gradient(tern_gpu_plan *plan, size_t node, const gpu_conv *conv, float *dw,
                                     const void *dy, const void *x, void *scratch, tern_error *err);

#endif
