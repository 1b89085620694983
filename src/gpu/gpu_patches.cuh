/* Windows over images as rows of a matrix, and back: convolutions as products. Images are [n][h][w][c]; a place is an
 * output pixel, counted through all images: place = (image * oh + oy) * ow + ox. */
#ifndef TERN_GPU_GPU_PATCHES_CUH
#define TERN_GPU_GPU_PATCHES_CUH

#include "gpu/gpu_plan.cuh"

struct gpu_patches {
    size_t h, w, c, oh, ow, kernel, stride, padding;
    size_t first_channel, channels; /* those of one group */
};

/* Of a convolution's group, or of a pool: group 0. */
gpu_patches gpu_patches_of(const tern_graph *graph, const tern_node *node, size_t group);

/* Elements between rows of patches of k elements: with zeros behind them, so that every row begins at 16 bytes. */
static inline size_t gpu_patches_row(size_t k, size_t element_bytes) {
    return gpu_round_up(k * element_bytes, 16) / element_bytes;
}

/* to[rows][ld], of which [kernel][kernel][channels] are the patch of a place, for places first ... + rows; elements
 * of 1, 2 or 4 bytes; outside of images and behind the patch zeros. */
tern_status gpu_patches_take(tern_gpu_plan *plan, size_t node, const gpu_patches *p, size_t element_bytes, void *to,
                             size_t ld, const void *images, size_t first, size_t rows, tern_error *err);
/* The same from int8 as `type`, times inv_scale[image] unless that is NULL. */
tern_status gpu_patches_widen(tern_gpu_plan *plan, size_t node, const gpu_patches *p, tern_dtype type, void *to,
                              size_t ld, const int8_t *q, const float *inv_scale, size_t first, size_t rows,
                              tern_error *err);

/* The gradient of images first_image ... + images, of the plan's type, from that of all their patches
 * [images * oh * ow][kernel][kernel][channels]: each element sums the windows that saw it, in ascending (ky, kx),
 * fp32. Only the group's channels are touched. dx is the whole batch's. */
tern_status gpu_patches_give(tern_gpu_plan *plan, size_t node, const gpu_patches *p, void *dx, const void *patches,
                             size_t first_image, size_t images, int add, tern_error *err);

/* Images whose patches of k elements of element_bytes each are made at once: as many as fit into some 128 MiB, at
 * least one, at most `batch`. */
size_t gpu_patches_images(const gpu_patches *p, size_t k, size_t element_bytes, size_t batch);

/* Kernels count what one image has in 31 bits. */
tern_status gpu_patches_too_large(const tern_gpu_plan *plan, size_t node, tern_error *err);

#endif
