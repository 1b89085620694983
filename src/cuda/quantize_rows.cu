/* Activations to int8, a block a row, after RMSNorm where asked: tern/quant.h's rules to the bit.
 *
 * The mean of the squares is defined as sixteen interleaved sums, each in ascending order. So sixteen threads add,
 * each its own sum; the squares are exact in double, and the others have them ready in shared memory. */
#include "cuda/epilogue.cuh"

enum { THREADS = 256, PARTIALS = 16, SQUARES = 2048 /* columns at a time, a multiple of PARTIALS */ };

__device__ static double sum_of_squares(const void *x, tern_dtype type, size_t row, int cols) {
    __shared__ double squares[SQUARES];
    __shared__ double partial[PARTIALS];
    double sum = 0;
    for (int begin = 0; begin < cols; begin += SQUARES) {
        const int count = min(SQUARES, cols - begin);
        for (int c = (int)threadIdx.x; c < count; c += THREADS) {
            const double v = load_value(x, type, row + (size_t)(begin + c));
            squares[c] = __dmul_rn(v, v);
        }
        __syncthreads();
        if (threadIdx.x < PARTIALS) {
#pragma unroll 8
            for (int c = (int)threadIdx.x; c < count; c += PARTIALS) sum = __dadd_rn(sum, squares[c]);
        }
        __syncthreads();
    }
    if (threadIdx.x < PARTIALS) partial[threadIdx.x] = sum;
    __syncthreads();
    double total = partial[0];
    for (int j = 1; j < PARTIALS; j++) total = __dadd_rn(total, partial[j]);
    return total;
}

/* r; 0 where mean + epsilon is 0. */
__device__ static float rms_factor(double sum, float epsilon, int cols) {
    const double d = __dadd_rn(__ddiv_rn(sum, (double)cols), (double)epsilon);
    return d == 0 ? 0 : __double2float_rn(__ddiv_rn(1.0, __dsqrt_rn(d)));
}

struct rms_norm {
    bool on;
    float r;
    const float *gain;
};

__device__ static float value_of(const tern_device_quantizer &p, const rms_norm &n, size_t row, int c) {
    float v = load_value(p.x, p.x_type, row + (size_t)c);
    if (!n.on) return v;
    v = __fmul_rn(v, n.r);
    return n.gain ? __fmul_rn(v, n.gain[c]) : v;
}

/* The largest of all threads' values; the bits of |x| order as |x| does, with Inf and NaN on top. */
__device__ static unsigned block_max(unsigned v) {
    __shared__ unsigned warp_max[THREADS / 32];
    for (int step = 16; step; step /= 2) v = max(v, __shfl_xor_sync(0xffffffffu, v, step));
    if (threadIdx.x % 32 == 0) warp_max[threadIdx.x / 32] = v;
    __syncthreads();
    v = warp_max[0];
    for (int i = 1; i < THREADS / 32; i++) v = max(v, warp_max[i]);
    return v;
}

__global__ void __launch_bounds__(THREADS) tern_quantize_rows_cuda(tern_device_quantizer p) {
    const size_t row = (size_t)blockIdx.x * p.cols;
    const int cols = (int)p.cols;
    let_next_kernel_start();
    wait_for_last_kernel();
    rms_norm n = {p.norm != 0, 0, p.gain};
    if (n.on) n.r = rms_factor(sum_of_squares(p.x, p.x_type, row, cols), p.epsilon, cols);
    unsigned absmax = 0;
    for (int c = (int)threadIdx.x; c < cols; c += THREADS)
        absmax = max(absmax, __float_as_uint(value_of(p, n, row, c)) & 0x7fffffffu);
    absmax = block_max(absmax);
    const bool finite = absmax < 0x7f800000u;
    const float s = __fdiv_rn(127.0f, fmaxf(__uint_as_float(absmax), 1e-5f));
    for (int c = (int)threadIdx.x; c < cols; c += THREADS) {
        const int q = finite ? __float2int_rn(__fmul_rn(value_of(p, n, row, c), s)) : 0;
        p.q[row + (size_t)c] = (int8_t)max(-128, min(127, q));
    }
    if (threadIdx.x == 0) p.inv_scale[blockIdx.x] = finite ? __fdiv_rn(1.0f, s) : __uint_as_float(0x7fc00000u);
}

tern_status tern_cuda_quantize(tern_cuda_context *context, const tern_device_quantizer *quantizer, tern_error *err) {
    CUDA_TRY(tern_cuda_launch(context, tern_quantize_rows_cuda, dim3((unsigned)quantizer->rows), THREADS, 0, 1,
                              *quantizer),
             "quantize", err);
    return TERN_OK;
}
