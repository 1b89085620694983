/* What the kernels of operations share: values of either type as fp32, sums of a block, loops over elements. */
#ifndef TERN_GPU_GPU_KERNELS_CUH
#define TERN_GPU_GPU_KERNELS_CUH

#include "gpu/gpu_plan.cuh"

__device__ inline float to_float(float v) { return v; }
__device__ inline float to_float(__nv_bfloat16 v) { return __bfloat162float(v); }
__device__ inline float to_float(__half v) { return __half2float(v); }
template <class T> __device__ inline T from_float(float v);
template <> __device__ inline float from_float<float>(float v) { return v; }
template <> __device__ inline __nv_bfloat16 from_float<__nv_bfloat16>(float v) { return __float2bfloat16_rn(v); }
template <> __device__ inline __half from_float<__half>(float v) { return __float2half_rn(v); }

/* v as an operand of that type has it, in fp32. */
__device__ inline float rounded_to(tern_dtype type, float v) {
    if (type == TERN_BF16) return to_float(from_float<__nv_bfloat16>(v));
    return type == TERN_F16 ? to_float(from_float<__half>(v)) : v;
}

/* 16 bytes of values. */
template <class T> struct alignas(16) gpu_pack {
    enum { N = 16 / sizeof(T) };
    T v[N];
};

/* N values, a power of two, in as few accesses as can be. */
template <class T, int N> struct alignas(N * sizeof(T) < 16 ? N * sizeof(T) : 16) gpu_few { T v[N]; };

/* A warp's sum, the same in all lanes, and a block's of up to 1024 threads (all must come; `room` is free
 * afterwards). */
template <class V> __device__ inline V warp_sum(V v) {
    for (int step = 16; step; step /= 2) v += __shfl_xor_sync(0xffffffffu, v, step);
    return v;
}
template <class V> __device__ inline V block_sum(V v) {
    __shared__ V room[33];
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, warps = ((int)blockDim.x + 31) / 32;
    v = warp_sum(v);
    __syncthreads();
    if (lane == 0) room[warp] = v;
    __syncthreads();
    if (warp == 0) {
        V w = lane < warps ? room[lane] : V(0);
        w = warp_sum(w);
        if (lane == 0) room[32] = w;
    }
    __syncthreads();
    return room[32];
}
__device__ inline float warp_max(float v) {
    for (int step = 16; step; step /= 2) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, step));
    return v;
}

enum { GPU_THREADS = 256 };

/* Blocks for n things, `each` a thread, and not so many that starting them is the work. */
static inline unsigned gpu_blocks(const tern_gpu_plan *plan, size_t n, size_t each = 1) {
    const size_t wanted = (n + GPU_THREADS * each - 1) / (GPU_THREADS * each);
    const size_t most = (size_t)plan->context->multiprocessors * 32;
    return (unsigned)(wanted < 1 ? 1 : wanted < most ? wanted : most);
}

#define GPU_FOR(i, n)                                                                                           \
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x, i##_stride = (size_t)gridDim.x * blockDim.x; \
         i < (n); i += i##_stride)

/* y[i] = f(i, x[i] ...) over n elements, 16 bytes at a time; F has `float operator()(float...)`. add: y += .
 * Null inputs are not read and arrive as 0. Arrays are 16-byte aligned. */
template <class T, class F>
__global__ static void gpu_map_kernel(T *y, const T *a, const T *b, size_t n, int add, F f) {
    using P = gpu_pack<T>;
    const size_t packs = n / P::N;
    GPU_FOR(i, packs) {
        P pa, pb, py;
        if (a) pa = ((const P *)a)[i];
        if (b) pb = ((const P *)b)[i];
        if (add) py = ((const P *)y)[i];
#pragma unroll
        for (int j = 0; j < P::N; j++) {
            const float v = f(a ? to_float(pa.v[j]) : 0.0f, b ? to_float(pb.v[j]) : 0.0f);
            py.v[j] = from_float<T>(add ? to_float(py.v[j]) + v : v);
        }
        ((P *)y)[i] = py;
    }
    if (blockIdx.x == 0 && threadIdx.x < n % P::N) {
        const size_t i = packs * P::N + threadIdx.x;
        const float v = f(a ? to_float(a[i]) : 0.0f, b ? to_float(b[i]) : 0.0f);
        y[i] = from_float<T>(add ? to_float(y[i]) + v : v);
    }
}

template <class F>
static tern_status gpu_map(tern_gpu_plan *plan, size_t node, void *y, const void *a, const void *b, size_t n, int add,
                           F f, tern_error *err) {
    GPU_BY_TYPE(plan->type, gpu_map_kernel<T><<<gpu_blocks(plan, n, 16 / sizeof(T)), GPU_THREADS, 0, plan->stream>>>(
                                (T *)y, (const T *)a, (const T *)b, n, add, f));
    GPU_LAUNCHED(plan, node, err);
    return TERN_OK;
}

#endif
