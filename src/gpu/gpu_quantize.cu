#include "gpu/gpu_quantize.cuh"

#include "gpu/gpu_columns.cuh"

/* ---- to int8: a row by src/cuda's kernel; what shares a scale in an image by a block, or in parts */

enum { PART = 8192, ONE_ROW = 16384, IMAGE = 4096, ONE_IMAGE = 65536, IMAGE_THREADS = 512 };

static size_t parts_of(size_t each) { return (each + PART - 1) / PART; }

size_t gpu_quantize_scratch(size_t scales, size_t each) {
    return gpu_round_up(scales * parts_of(each) * sizeof(unsigned), 256);
}

/* Bits of |x| order as |x| does, with Inf and NaN on top. */
__device__ static unsigned magnitude(float x) { return __float_as_uint(x) & 0x7fffffffu; }

/* The largest of all threads' values, in all of them. */
__device__ static unsigned block_max(unsigned v) {
    __shared__ unsigned room[IMAGE_THREADS / 32];
    for (int step = 16; step; step /= 2) v = max(v, __shfl_xor_sync(0xffffffffu, v, step));
    if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = v;
    __syncthreads();
    v = room[0];
    for (unsigned i = 1; i < blockDim.x / 32; i++) v = max(v, room[i]);
    return v;
}

template <class T, int N>
__device__ static gpu_few<int8_t, N> quantized(const gpu_few<T, N> &v, float s, bool finite) {
    gpu_few<int8_t, N> to;
#pragma unroll
    for (int j = 0; j < N; j++) {
        const int r = finite ? __float2int_rn(__fmul_rn(to_float(v.v[j]), s)) : 0;
        to.v[j] = (int8_t)max(-128, min(127, r));
    }
    return to;
}

__device__ static float inverse(float s, bool finite) {
    return finite ? __fdiv_rn(1.0f, s) : __uint_as_float(0x7fc00000u);
}

/* N values at a time, as `each` is a multiple of N. */
template <class T, int N>
__global__ static void __launch_bounds__(GPU_THREADS)
    find_largest(unsigned *largest, const T *x, size_t each, unsigned parts) {
    const size_t image = blockIdx.x / parts, begin = (size_t)(blockIdx.x % parts) * PART;
    const size_t end = begin + PART < each ? begin + PART : each;
    unsigned most = 0;
    for (size_t i = begin + threadIdx.x * N; i < end; i += GPU_THREADS * N) {
        const gpu_few<T, N> v = *(const gpu_few<T, N> *)(x + image * each + i);
#pragma unroll
        for (int j = 0; j < N; j++) most = max(most, magnitude(to_float(v.v[j])));
    }
    most = block_max(most);
    if (threadIdx.x == 0) largest[blockIdx.x] = most;
}

template <class T, int N>
__global__ static void __launch_bounds__(GPU_THREADS)
    quantize_part(int8_t *q, float *inv_scale, const T *x, const unsigned *largest, size_t each, unsigned parts) {
    const size_t image = blockIdx.x / parts, part = blockIdx.x % parts, begin = part * PART;
    const size_t end = begin + PART < each ? begin + PART : each;
    unsigned most = 0;
    for (unsigned i = threadIdx.x; i < parts; i += GPU_THREADS) most = max(most, largest[image * parts + i]);
    most = block_max(most);
    const bool finite = most < 0x7f800000u;
    const float s = __fdiv_rn(127.0f, fmaxf(__uint_as_float(most), 1e-5f));
    for (size_t i = begin + threadIdx.x * N; i < end; i += GPU_THREADS * N) {
        const gpu_few<T, N> v = *(const gpu_few<T, N> *)(x + image * each + i);
        *(gpu_few<int8_t, N> *)(q + image * each + i) = quantized(v, s, finite);
    }
    if (part == 0 && threadIdx.x == 0) inv_scale[image] = inverse(s, finite);
}

/* An image a block, which reads it twice, the second time from a cache. */
template <class T>
__global__ static void __launch_bounds__(IMAGE_THREADS)
    quantize_image(int8_t *q, float *inv_scale, float *repeated, size_t repeats, const T *x, size_t each) {
    constexpr int N = gpu_pack<T>::N;
    const gpu_few<T, N> *from = (const gpu_few<T, N> *)(x + blockIdx.x * each);
    gpu_few<int8_t, N> *to = (gpu_few<int8_t, N> *)(q + blockIdx.x * each);
    unsigned most = 0;
#pragma unroll 4
    for (unsigned i = threadIdx.x; i < each / N; i += IMAGE_THREADS) {
        const gpu_few<T, N> v = from[i];
#pragma unroll
        for (int j = 0; j < N; j++) most = max(most, magnitude(to_float(v.v[j])));
    }
    most = block_max(most);
    const bool finite = most < 0x7f800000u;
    const float s = __fdiv_rn(127.0f, fmaxf(__uint_as_float(most), 1e-5f));
#pragma unroll 4
    for (unsigned i = threadIdx.x; i < each / N; i += IMAGE_THREADS) to[i] = quantized(from[i], s, finite);
    if (threadIdx.x == 0) inv_scale[blockIdx.x] = inverse(s, finite);
    if (!repeated) return;
    for (size_t i = threadIdx.x; i < repeats; i += IMAGE_THREADS)
        repeated[blockIdx.x * repeats + i] = inverse(s, finite);
}

template <class T, int N>
static tern_status quantize_parts(tern_gpu_plan *plan, size_t node, int8_t *q, float *inv_scale, const T *x,
                                  size_t scales, size_t each, unsigned *largest, tern_error *err) {
    const size_t parts = parts_of(each);
    const unsigned blocks = (unsigned)(scales * parts);
    find_largest<T, N><<<blocks, GPU_THREADS, 0, plan->stream>>>(largest, x, each, (unsigned)parts);
    GPU_LAUNCHED(plan, node, err);
    quantize_part<T, N><<<blocks, GPU_THREADS, 0, plan->stream>>>(q, inv_scale, x, largest, each, (unsigned)parts);
    GPU_LAUNCHED(plan, node, err);
    return TERN_OK;
}

__global__ static void repeat(float *to, const float *from, size_t each, size_t n) {
    GPU_FOR(i, n) to[i] = from[i / each];
}

tern_status gpu_repeat(tern_gpu_plan *plan, size_t node, float *to, const float *from, size_t each, size_t n,
                       tern_error *err) {
    repeat<<<gpu_blocks(plan, n, 4), GPU_THREADS, 0, plan->stream>>>(to, from, each, n);
    GPU_LAUNCHED(plan, node, err);
    return TERN_OK;
}

/* Of rows, or of images in parts. */
static tern_status quantize_rows(tern_gpu_plan *plan, size_t node, int8_t *q, float *inv_scale, const void *x,
                                 size_t scales, size_t each, void *scratch, tern_error *err) {
    unsigned *largest = (unsigned *)scratch;
    if (each <= ONE_ROW) {
        tern_device_quantizer d = {};
        d.q = q;
        d.inv_scale = inv_scale;
        d.x = x;
        d.x_type = plan->type;
        d.rows = scales;
        d.cols = each;
        return tern_cuda_quantize(plan->context, &d, err);
    }
    GPU_BY_TYPE(
        plan->type, constexpr int N = gpu_pack<T>::N;
        return each % N ? quantize_parts<T, 1>(plan, node, q, inv_scale, (const T *)x, scales, each, largest, err)
                        : quantize_parts<T, N>(plan, node, q, inv_scale, (const T *)x, scales, each, largest, err));
    return TERN_OK;
}

tern_status gpu_quantize(tern_gpu_plan *plan, size_t node, int8_t *q, float *inv_scale, float *repeated,
                         size_t repeats, const void *x, size_t scales, size_t each, void *scratch, tern_error *err) {
    const bool is_row = !repeated && each <= ONE_ROW;
    if (is_row || each < IMAGE || each > ONE_IMAGE || each % 8) {
        GPU_CHECK(quantize_rows(plan, node, q, inv_scale, x, scales, each, scratch, err));
        return repeated ? gpu_repeat(plan, node, repeated, inv_scale, repeats, scales * repeats, err) : TERN_OK;
    }
    GPU_BY_TYPE(plan->type, quantize_image<<<(unsigned)scales, IMAGE_THREADS, 0, plan->stream>>>(
                                q, inv_scale, repeated, repeats, (const T *)x, each));
    GPU_LAUNCHED(plan, node, err);
    return TERN_OK;
}

/* ---- steps around products */

template <class T> __global__ static void from_int8(T *to, const int8_t *from, size_t n) {
    constexpr int N = gpu_pack<T>::N;
    GPU_FOR(i, n / N) {
        const gpu_few<int8_t, N> v = ((const gpu_few<int8_t, N> *)from)[i];
        gpu_pack<T> out;
#pragma unroll
        for (int j = 0; j < N; j++) out.v[j] = from_float<T>((float)v.v[j]);
        ((gpu_pack<T> *)to)[i] = out;
    }
    if (blockIdx.x == 0 && threadIdx.x < n % N) {
        const size_t i = n / N * N + threadIdx.x;
        to[i] = from_float<T>((float)from[i]);
    }
}

tern_status gpu_from_int8(tern_gpu_plan *plan, size_t node, tern_dtype type, void *to, const int8_t *from, size_t n,
                          tern_error *err) {
    GPU_BY_TYPE(type,
                from_int8<<<gpu_blocks(plan, n, gpu_pack<T>::N), GPU_THREADS, 0, plan->stream>>>((T *)to, from, n));
    GPU_LAUNCHED(plan, node, err);
    return TERN_OK;
}

/* A thread keeps to its N columns; several rows are asked for before the first is looked at. */
template <class T, int N>
__global__ static void __launch_bounds__(GPU_THREADS)
    from_int8_rows(T *to, const int8_t *from, const float *factor, gpu_columns m) {
    const unsigned pack = blockIdx.x * blockDim.x + threadIdx.x;
    const size_t step = (size_t)gridDim.y * blockDim.y, column = (size_t)pack * N;
    if (pack >= m.packs) return;
    for (size_t row = (size_t)blockIdx.y * blockDim.y + threadIdx.y; row < m.rows; row += GPU_ROWS_AT_ONCE * step) {
        gpu_columns_pack<int8_t, N> v[GPU_ROWS_AT_ONCE];
        float by[GPU_ROWS_AT_ONCE];
#pragma unroll
        for (int r = 0; r < GPU_ROWS_AT_ONCE; r++) {
            const size_t own = row + r * step < m.rows ? row + r * step : row;
            v[r] = *(const gpu_columns_pack<int8_t, N> *)(from + own * m.columns + column);
            by[r] = factor[own];
        }
#pragma unroll
        for (int r = 0; r < GPU_ROWS_AT_ONCE; r++) {
            gpu_columns_pack<T, N> out;
#pragma unroll
            for (int j = 0; j < N; j++) out.v[j] = from_float<T>((float)v[r].v[j] * by[r]);
            if (row + r * step < m.rows)
                *(gpu_columns_pack<T, N> *)(to + (row + r * step) * m.columns + column) = out;
        }
    }
}

tern_status gpu_from_int8_rows(tern_gpu_plan *plan, size_t node, tern_dtype type, void *to, const int8_t *from,
                               const float *factor, size_t rows, size_t columns, tern_error *err) {
    GPU_BY_TYPE(type, GPU_BY_PACK(T, columns, {
                    const gpu_columns m = gpu_columns_cut(rows, columns, N);
                    const dim3 grid(m.tiles, gpu_columns_blocks(plan, m));
                    from_int8_rows<T, N><<<grid, m.block, 0, plan->stream>>>((T *)to, from, factor, m);
                }));
    GPU_LAUNCHED(plan, node, err);
    return TERN_OK;
}

template <class V> __global__ static void pad_rows(V *to, size_t ld, const V *from, size_t rows, size_t columns) {
    GPU_FOR(i, rows * ld) {
        const size_t row = i / ld, column = i - row * ld;
        to[i] = column < columns ? from[row * columns + column] : V(0);
    }
}

tern_status gpu_pad_rows(tern_gpu_plan *plan, size_t node, size_t element_bytes, void *to, size_t ld,
                         const void *from, size_t rows, size_t columns, tern_error *err) {
    const unsigned blocks = gpu_blocks(plan, rows * ld, 4);
    if (element_bytes == 1)
        pad_rows<<<blocks, GPU_THREADS, 0, plan->stream>>>((uint8_t *)to, ld, (const uint8_t *)from, rows, columns);
    else if (element_bytes == 2)
        pad_rows<<<blocks, GPU_THREADS, 0, plan->stream>>>((uint16_t *)to, ld, (const uint16_t *)from, rows, columns);
    else
        pad_rows<<<blocks, GPU_THREADS, 0, plan->stream>>>((uint32_t *)to, ld, (const uint32_t *)from, rows, columns);
    GPU_LAUNCHED(plan, node, err);
    return TERN_OK;
}
