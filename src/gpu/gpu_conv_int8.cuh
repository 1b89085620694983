/* Outputs of convolutions of int8 activations with trits, without patches, on Hopper: where gpu_conv_fits. Sums are
 * the integers of every other kernel, and outputs round as theirs do. */
#ifndef TERN_GPU_GPU_CONV_INT8_CUH
#define TERN_GPU_GPU_CONV_INT8_CUH

#include "gpu/gpu_conv_wgmma.cuh"

/* y = sum (by_output by_image) + bias */
struct gpu_conv_scales {
    const float *by_output; /* [outputs], or one */
    int one_output;
    const float *by_image; /* 1/s of its activations */
    const float *bias;     /* may be NULL */
};

/* y [images][oh][ow][outputs] bf16, q [images][h][w][c], trits [outputs][kernel][kernel][c]. */
tern_status gpu_conv_int8_forward(tern_gpu_plan *plan, size_t node, const gpu_conv *conv, void *y, const int8_t *q,
                                  const int8_t *trits, const gpu_conv_scales *scales, tern_error *err);
/* The signs of n weights, trits times their scales in bf16; n is a multiple of 8. */
tern_status gpu_conv_int8_trits(tern_gpu_plan *plan, size_t node, int8_t *trits, const void *weights, size_t n,
                                tern_error *err);

#endif
