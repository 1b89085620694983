/* What a device can do at most: int8 products by the tensor cores of values that never leave registers (and, on
 * Hopper, one small tile of shared memory), and bytes read from memory. */
#ifndef TERN_CUDA_PEAKS_CUH
#define TERN_CUDA_PEAKS_CUH

#include "cuda/common.cuh"

/* Operations/s; a multiply and an add are two. */
tern_status tern_cuda_measure_int8(double *per_second, tern_cuda_context *context, tern_error *err);

/* Bytes/s read from a buffer far past the L2 cache. */
tern_status tern_cuda_measure_read(double *per_second, tern_cuda_context *context, tern_error *err);

/* Puts one pass over `bytes` of memory, a multiple of 16, on the stream. */
tern_status tern_cuda_read(tern_cuda_context *context, const void *memory, size_t bytes, int blocks_each,
                           tern_error *err);

/* Launches the busiest loop that the device has, for Hopper and for the others; sets the operations that it does. */
tern_status tern_cuda_busy_wgmma(tern_cuda_context *context, int repeats, double *operations, tern_error *err);

#endif
