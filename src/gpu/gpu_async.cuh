/* Copies from global to shared memory that a thread starts and later waits for, 16 bytes each: what brings a row
 * while another one is worked at. A thread sees its own copies behind the wait, all see them behind a barrier after
 * that. GPUs before 8.0 have no such copies: there they are done where they are started. */
#ifndef TERN_GPU_GPU_ASYNC_CUH
#define TERN_GPU_GPU_ASYNC_CUH

#include <stdint.h>

__device__ inline void gpu_copy_async(void *shared, const void *global) {
#if __CUDA_ARCH__ >= 800
    const uint32_t to = (uint32_t)__cvta_generic_to_shared(shared);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
#else
    *(uint4 *)shared = *(const uint4 *)global;
#endif
}

/* Ends a group of the thread's copies. */
__device__ inline void gpu_copies_commit() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

/* All but the thread's last N groups are there. */
template <int N> __device__ inline void gpu_copies_wait() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}

#endif
