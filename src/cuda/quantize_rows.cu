/* Activations to int8, after RMSNorm where asked: tern/quant.h's rules to the bit. Rows of whole packs that take no
 * norm stay in the registers of a team of threads; all others are a block's, which reads them again.
 *
 * The mean of the squares is defined as sixteen interleaved sums, each in ascending order. So sixteen threads add,
 * each its own sum; the squares are exact in double, and the others have them ready in shared memory. */
#include "cuda/epilogue.cuh"
#include "cuda/quantize_row.cuh"

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

/* The largest of the values of WIDTH threads: a warp, or a block. */
template <int WIDTH> __device__ static unsigned team_largest(unsigned v) {
    v = warp_largest(v);
    if constexpr (WIDTH > 32) {
        __shared__ unsigned room[WIDTH / 32];
        if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = v;
        __syncthreads();
        v = warp_largest(room[threadIdx.x % (WIDTH / 32)]);
    }
    return v;
}

__global__ void __launch_bounds__(THREADS) tern_quantize_rows_cuda(tern_device_quantizer p) {
    const size_t row = (size_t)blockIdx.x * p.cols;
    const int cols = (int)p.cols;
    let_next_kernel_start();
    wait_for_last_kernel();
    rms_norm n = {p.norm != 0, 0, p.gain};
    if (n.on) n.r = rms_factor(sum_of_squares(p.x, p.x_type, row, cols), p.epsilon, cols);
    unsigned most = 0;
    for (int c = (int)threadIdx.x; c < cols; c += THREADS) most = max(most, magnitude_of(value_of(p, n, row, c)));
    const row_scale scale(team_largest<THREADS>(most));
    for (int c = (int)threadIdx.x; c < cols; c += THREADS)
        p.q[row + (size_t)c] = scale.finite ? (int8_t)quantized_bits(value_of(p, n, row, c), scale.s) : (int8_t)0;
    if (threadIdx.x == 0) p.inv_scale[blockIdx.x] = scale.inverse();
}

/* ---- rows in registers: WIDTH threads a row, at most PACKS packs each ------------------------------------------ */

#define TEAM_THREADS(WIDTH) ((WIDTH) < 128 ? 128 : (WIDTH))

template <class T, int WIDTH, int PACKS>
__global__ void __launch_bounds__(TEAM_THREADS(WIDTH)) tern_quantize_packs_cuda(tern_device_quantizer p) {
    enum { TEAMS = TEAM_THREADS(WIDTH) / WIDTH };
    const unsigned packs = (unsigned)(p.cols / row_pack<T>::N), first = threadIdx.x % WIDTH;
    const size_t row = (size_t)blockIdx.x * TEAMS + threadIdx.x / WIDTH;
    let_next_kernel_start();
    wait_for_last_kernel();
    if (row >= p.rows) return;
    const row_pack<T> *x = (const row_pack<T> *)p.x + row * packs;
    int8_pack<T> *q = (int8_pack<T> *)p.q + row * packs;
    row_pack<T> mine[PACKS];
#pragma unroll
    for (int k = 0; k < PACKS; k++)
        if (first + k * WIDTH < packs) mine[k] = x[first + k * WIDTH];
    unsigned most = 0;
#pragma unroll
    for (int k = 0; k < PACKS; k++)
        if (first + k * WIDTH < packs) most = max(most, largest_of(mine[k]));
    const row_scale scale(team_largest<WIDTH>(most));
#pragma unroll
    for (int k = 0; k < PACKS; k++)
        if (first + k * WIDTH < packs) q[first + k * WIDTH] = quantized(mine[k], scale);
    if (first == 0) p.inv_scale[row] = scale.inverse();
}

/* ---- launching ------------------------------------------------------------------------------------------------- */

enum { FEW_PACKS = 4, MOST_PACKS = 8, WIDEST = 512 };

template <class T, int WIDTH>
static cudaError_t launch_team(tern_cuda_context *context, const tern_device_quantizer &p, size_t packs) {
    const auto kernel = packs > FEW_PACKS * WIDTH ? tern_quantize_packs_cuda<T, WIDTH, MOST_PACKS>
                                                  : tern_quantize_packs_cuda<T, WIDTH, FEW_PACKS>;
    const unsigned teams = TEAM_THREADS(WIDTH) / WIDTH;
    return tern_cuda_launch(context, kernel, dim3((unsigned)((p.rows + teams - 1) / teams)), TEAM_THREADS(WIDTH), 0,
                            1, p);
}

/* Of many rows a thread has as many packs as it may; few are spread over more threads. */
template <class T> static cudaError_t launch_packs(tern_cuda_context *context, const tern_device_quantizer &p) {
    const size_t packs = p.cols / row_pack<T>::N;
    const size_t each = p.rows >= (size_t)(4 * context->multiprocessors) ? MOST_PACKS : 1;
    if (packs <= 32 * each) return launch_team<T, 32>(context, p, packs);
    return packs <= 128 * each ? launch_team<T, 128>(context, p, packs) : launch_team<T, WIDEST>(context, p, packs);
}

template <class T> static bool has_packs(const tern_device_quantizer &p) {
    enum { N = row_pack<T>::N };
    return !p.norm && p.cols % N == 0 && p.cols <= (size_t)WIDEST * MOST_PACKS * N && (uintptr_t)p.x % 16 == 0 &&
           (uintptr_t)p.q % N == 0;
}

template <class T> static cudaError_t launch_rows(tern_cuda_context *context, const tern_device_quantizer &p) {
    if (has_packs<T>(p)) return launch_packs<T>(context, p);
    return tern_cuda_launch(context, tern_quantize_rows_cuda, dim3((unsigned)p.rows), THREADS, 0, 1, p);
}

tern_status tern_cuda_quantize(tern_cuda_context *context, const tern_device_quantizer *quantizer, tern_error *err) {
    const tern_device_quantizer &p = *quantizer;
    CUDA_TRY(p.x_type == TERN_F32    ? launch_rows<float>(context, p)
             : p.x_type == TERN_BF16 ? launch_rows<__nv_bfloat16>(context, p)
                                     : launch_rows<__half>(context, p),
             "quantize", err);
    return TERN_OK;
}
