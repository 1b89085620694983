/* Activations to int8 and what products of them take. */
#ifndef TERN_GPU_GPU_QUANTIZE_CUH
#define TERN_GPU_GPU_QUANTIZE_CUH

#include "gpu/gpu_plan.cuh"

/* True for products whose input is quantised by the row. */
int gpu_takes_int8_rows(const tern_node *node);

/* q[scales][each] and inv_scale[scales] from x of the plan's type, by docs/numerics.md's rule: one scale for `each`
 * neighbouring values. repeated: NULL, or [scales][repeats] to be filled with them. Scratch of gpu_quantize_scratch
 * bytes. */
size_t gpu_quantize_scratch(size_t scales, size_t each);
tern_status gpu_quantize(tern_gpu_plan *plan, size_t node, int8_t *q, float *inv_scale, float *repeated,
                         size_t repeats, const void *x, size_t scales, size_t each, void *scratch, tern_error *err);

/* to[n] of `type` from int8, exact. */
tern_status gpu_from_int8(tern_gpu_plan *plan, size_t node, tern_dtype type, void *to, const int8_t *from, size_t n,
                          tern_error *err);
/* to[rows][columns] of `type` = from times its row's factor. */
tern_status gpu_from_int8_rows(tern_gpu_plan *plan, size_t node, tern_dtype type, void *to, const int8_t *from,
                               const float *factor, size_t rows, size_t columns, tern_error *err);
/* to[rows][ld] from dense rows, with zeros behind their columns; elements of 1, 2 or 4 bytes. */
tern_status gpu_pad_rows(tern_gpu_plan *plan, size_t node, size_t element_bytes, void *to, size_t ld,
                         const void *from, size_t rows, size_t columns, tern_error *err);
/* to[i] = from[i / each], n of them. */
tern_status gpu_repeat(tern_gpu_plan *plan, size_t node, float *to, const float *from, size_t each, size_t n,
                       tern_error *err);

#endif
