/* Packed weights as int8. */
#ifndef TERN_GPU_GPU_UNPACK_TRITS_CUH
#define TERN_GPU_GPU_UNPACK_TRITS_CUH

#include "gpu/gpu_plan.cuh"

/* trits[rows][cols]. */
tern_status gpu_unpack_trits(tern_gpu_plan *plan, size_t node, int8_t *trits, const tern_cuda_weights &w,
                             tern_error *err);

#endif
