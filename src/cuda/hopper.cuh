/* Hopper's warpgroup products, barriers and tensor copies, one function an instruction (9.0a only). */
#ifndef TERN_CUDA_HOPPER_CUH
#define TERN_CUDA_HOPPER_CUH

#include <cuda.h>
#include <stdint.h>

/* ---- barriers in shared memory: an address, and the parity of the phase that is waited for --------------------- */

__device__ inline void barrier_init(uint32_t barrier, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals));
}
/* What was initialised is seen by the copy engine and by the other blocks of the cluster. */
__device__ inline void barrier_init_fence() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

__device__ inline void barrier_arrive(uint32_t barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
__device__ inline void barrier_arrive_expecting(uint32_t barrier, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
__device__ inline void barrier_wait(uint32_t barrier, int parity) {
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@!done bra again;\n"
                 "}" ::"r"(barrier),
                 "r"(parity)
                 : "memory");
}

/* All blocks of the cluster have come here: their barriers are there, and what they initialised. */
__device__ inline void cluster_arrive() { asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory"); }
__device__ inline void cluster_wait() { asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); }

/* An address of this block's shared memory in that of block `rank` of the cluster. */
__device__ inline uint32_t address_at(uint32_t address, int rank) {
    uint32_t there;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
    return there;
}
/* Four bytes to another block; they arrive at its barrier. */
__device__ inline void send_word(uint32_t to, uint32_t word, uint32_t barrier) {
    asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.b32 [%0], %1, [%2];" ::"r"(to),
                 "r"(word), "r"(barrier)
                 : "memory");
}

/* ---- copies ---------------------------------------------------------------------------------------------------- */

/* The box of `map` at (column, row) to shared memory; its bytes arrive at the barrier. */
__device__ inline void copy_box(uint32_t to, const CUtensorMap *map, int column, int row, uint32_t barrier) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], "
        "[%4];" ::"r"(to),
        "l"(map), "r"(column), "r"(row), "r"(barrier)
        : "memory");
}

/* ---- products -------------------------------------------------------------------------------------------------- */

/* Rows of 128 bytes in the copy engine's 128-byte swizzle, groups of 8 rows 1024 bytes apart. */
__device__ inline uint64_t swizzled_rows(uint32_t address) {
    return (uint64_t)((address & 0x3ffff) >> 4) | (uint64_t)1 << 16 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}
/* Rows of 32 bytes in its 32-byte swizzle, groups of 8 rows 256 bytes apart. */
__device__ inline uint64_t swizzled_short_rows(uint32_t address) {
    return (uint64_t)((address & 0x3ffff) >> 4) | (uint64_t)1 << 16 | (uint64_t)(256 >> 4) << 32 | (uint64_t)3 << 62;
}

__device__ inline void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/* All but the `Pending` newest groups are done. */
template <int Pending = 0> __device__ inline void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Pending) : "memory");
}

/* Registers that warpgroup products use may not change between fence and wait, but the compiler does not see what an
 * instruction in flight reads: nothing that computes them moves past this. */
template <class Value, int N> __device__ inline void pin(Value (&values)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+r"(values[i])::"memory");
}
template <int N> __device__ inline void pin(float (&values)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+f"(values[i])::"memory");
}

/* c[64][N] += a[64][32] b[32][N], int8. A from registers: each warp has 16 rows, a lane what it has for mma
 * m16n8k32. */
#define SUMS_0 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define HALF_SUMS "%0, %1, %2, %3, %4, %5, %6, %7"
#define SUMS_16 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define SUMS_32 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define SUMS_48 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define SUMS_64 "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"
#define SUMS_80 "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define SUMS_96 "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111"
#define SUMS_112 "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define OF_4(c, i) "+r"(c[i]), "+r"(c[i + 1]), "+r"(c[i + 2]), "+r"(c[i + 3])
#define OF_16(c, i) OF_4(c, i), OF_4(c, i + 4), OF_4(c, i + 8), OF_4(c, i + 12)
#define WGMMA_I8(N, SUMS, A_AND_B, ...)                                                                 \
    __device__ inline void wgmma_i8(int32_t(&c)[N / 2], const uint32_t(&a)[4], uint64_t b) {            \
        asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k32.s32.s8.s8 {" SUMS "}, " A_AND_B ", 1;" \
                     : __VA_ARGS__                                                                      \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                             \
    }

WGMMA_I8(16, HALF_SUMS, "{%8, %9, %10, %11}, %12", OF_4(c, 0), OF_4(c, 4))
WGMMA_I8(32, SUMS_0, "{%16, %17, %18, %19}, %20", OF_16(c, 0))
WGMMA_I8(64, SUMS_0 ", " SUMS_16, "{%32, %33, %34, %35}, %36", OF_16(c, 0), OF_16(c, 16))
WGMMA_I8(128, SUMS_0 ", " SUMS_16 ", " SUMS_32 ", " SUMS_48, "{%64, %65, %66, %67}, %68", OF_16(c, 0), OF_16(c, 16),
         OF_16(c, 32), OF_16(c, 48))
WGMMA_I8(160, SUMS_0 ", " SUMS_16 ", " SUMS_32 ", " SUMS_48 ", " SUMS_64, "{%80, %81, %82, %83}, %84", OF_16(c, 0),
         OF_16(c, 16), OF_16(c, 32), OF_16(c, 48), OF_16(c, 64))
WGMMA_I8(256, SUMS_0 ", " SUMS_16 ", " SUMS_32 ", " SUMS_48 ", " SUMS_64 ", " SUMS_80 ", " SUMS_96 ", " SUMS_112,
         "{%128, %129, %130, %131}, %132", OF_16(c, 0), OF_16(c, 16), OF_16(c, 32), OF_16(c, 48), OF_16(c, 64),
         OF_16(c, 80), OF_16(c, 96), OF_16(c, 112))

#undef WGMMA_I8
#undef OF_16
#undef OF_4
#undef HALF_SUMS
#undef SUMS_0
#undef SUMS_16
#undef SUMS_32
#undef SUMS_48
#undef SUMS_64
#undef SUMS_80
#undef SUMS_96
#undef SUMS_112

#endif
