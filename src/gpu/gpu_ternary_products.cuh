/* The two products of a ternary node: trits by int8 or float activations on the kernels of src/cuda, and float
 * operands on cuBLASLt. A convolution is a product of patches, made for a chunk of images at a time. */
#ifndef TERN_GPU_GPU_TERNARY_PRODUCTS_CUH
#define TERN_GPU_GPU_TERNARY_PRODUCTS_CUH

#include "gpu/gpu_ternary.cuh"

/* ---- of trits: gpu_ternary_packed.cu */

/* Rows of x as the fast kernels want them: whole chunks, 16 bytes of int8. */
static inline size_t gpu_padded_row(size_t k) { return gpu_round_up(k, TERN_TILE_CHUNK); }
static_assert(TERN_TILE_CHUNK % 16 == 0, "rows of patches begin at 16 bytes");

/* Rows that one product takes: what all kernels of src/cuda do, a multiple of 16. */
static const size_t GPU_PRODUCT_ROWS = TERN_FAST_MAX_ROWS / 16 * 16;

/* A product of trits: y[m][n] from rows of x. */
struct gpu_packed_rows {
    tern_cuda_weights w;
    tern_dtype type; /* of x */
    size_t ldx;
    const float *inv_scale, *bias;
    void *room; /* for rows of x in whole chunks, where ldx is not of such */
    char *y;    /* of all rows */
    bool bare;  /* y is the sum: all scales are 1 */
    bool add;   /* y += */
};

/* y[m][n] from m rows of x, of any number of them: as many launches as that takes. */
tern_status gpu_packed_multiply(tern_gpu_plan *plan, size_t node, const gpu_packed_rows &p, void *y, const void *x,
                                size_t m, tern_error *err);

/* In prepare: whether the kernel that is pinned, if one is, can run the product of so many rows and those of fewer. */
tern_status gpu_packed_check(tern_gpu_plan *plan, size_t node, const tern_cuda_weights &w, tern_dtype type,
                             size_t rows, tern_error *err);

/* Bytes that gpu_packed_product and what stands in front of it (gpu_op_ternary.cu) take. */
size_t gpu_packed_scratch(const tern_gpu_plan *plan, const gpu_ternary *state, const gpu_ternary_sizes &s);
/* The node's y. inv_scale: of rows; NULL of float activations. bare: the sums, to where they are kept. */
tern_status gpu_packed_product(tern_gpu_plan *plan, size_t node, const gpu_ternary_sizes &s, const void *x,
                               const float *inv_scale, char *room, bool bare, tern_error *err);

/* Whether one kernel brings the node's input to int8 and multiplies it (cuda/wgmma_floats.cuh), and that. */
bool gpu_quantizes_within(const tern_gpu_plan *plan, size_t node, const gpu_ternary_sizes &s);
tern_status gpu_packed_of_floats(tern_gpu_plan *plan, size_t node, const gpu_ternary_sizes &s, tern_error *err);

/* ---- of floats: gpu_ternary_float.cu */

/* What a float product multiplies: values of products' type, or of int8 activations q, times inv_scale unless
 * NULL. */
struct gpu_float_rows {
    const void *x; /* NULL: patches are made of q */
    const float *inv_scale;
    size_t ld; /* of patches, or of x where it has no windows */
};

/* Takes room unless x is such values already or its patches are made of q; `whole`: they are not. */
tern_status gpu_float_activations(tern_gpu_plan *plan, size_t node, const gpu_ternary_sizes &s, bool scaled,
                                  bool whole, gpu_float_rows *f, char **room, tern_error *err);
/* Those of a group, for output rows first ... + rows. */
tern_status gpu_float_patches(tern_gpu_plan *plan, size_t node, const gpu_float_rows &f, size_t group, char *patches,
                              size_t first, size_t rows, tern_error *err);
/* y by a float product: weights mixed with their latents, or float activations in training. */
tern_status gpu_float_product(tern_gpu_plan *plan, size_t node, const gpu_ternary_sizes &s, tern_error *err);

/* A group's of the weights as operand. */
static inline const void *gpu_ternary_operand(const tern_gpu_plan *plan, const void *w, const gpu_ternary_sizes &s,
                                              size_t g) {
    return (const char *)w + g * s.n * s.k * gpu_bytes(plan->products);
}

/* Calls f(group, patches, first row, rows) for every chunk and group of a convolution, or once where it has no
 * windows. */
template <class F>
static tern_status gpu_for_patches(tern_gpu_plan *plan, size_t i, const gpu_ternary_sizes &s, const gpu_float_rows &x,
                                   char *patches, F f, tern_error *err) {
    const gpu_ternary *state = gpu_ternary_of(plan, i);
    if (!state->windows) return f((size_t)0, x.x, (size_t)0, s.rows);
    for (size_t first = 0; first < plan->batch; first += state->float_images) {
        const size_t begin = first * s.places,
                     rows = tern_min_size(state->float_images, plan->batch - first) * s.places;
        for (size_t g = 0; g < s.groups; g++) {
            GPU_CHECK(gpu_float_patches(plan, i, x, g, patches, begin, rows, err));
            GPU_CHECK(f(g, (const void *)patches, begin, rows));
        }
    }
    return TERN_OK;
}

#endif
