/* What attention on tensor cores does with the results in registers, whichever instruction made them: of 16 rows a
 * warp, a lane has rows lane / 4 and + 8, and of every eight columns 2 (lane % 4) and + 1. */
#ifndef TERN_GPU_GPU_ATTENTION_ROWS_CUH
#define TERN_GPU_GPU_ATTENTION_ROWS_CUH

#include "gpu/gpu_attention.cuh"

/* Runs the statement with V = the type of 16-bit values. */
#define GPU_BY_HALF(type, ...)       \
    do {                             \
        if ((type) == TERN_BF16) {   \
            using V = __nv_bfloat16; \
            __VA_ARGS__;             \
        } else {                     \
            using V = __half;        \
            __VA_ARGS__;             \
        }                            \
    } while (0)

__device__ inline float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* Two values as one register has them, and back. */
template <class V> __device__ uint32_t two(float low, float high);
template <> __device__ inline uint32_t two<__nv_bfloat16>(float low, float high) {
    const __nv_bfloat162 v = __floats2bfloat162_rn(low, high);
    return *(const uint32_t *)&v;
}
template <> __device__ inline uint32_t two<__half>(float low, float high) {
    const __half2 v = __floats2half2_rn(low, high);
    return *(const uint32_t *)&v;
}
__device__ inline float2 both_of(__nv_bfloat16, uint32_t v) {
    return __bfloat1622float2(*(const __nv_bfloat162 *)&v);
}
__device__ inline float2 both_of(__half, uint32_t v) { return __half22float2(*(const __half2 *)&v); }

/* Of two rows' sums over the four lanes that share them. */
__device__ inline float quad_max(float v) {
    v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 1));
    return fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 2));
}
__device__ inline float quad_sum(float v) {
    v += __shfl_xor_sync(0xffffffffu, v, 1);
    return v + __shfl_xor_sync(0xffffffffu, v, 2);
}

/* A row's weights may grow to 2^so much before sums fade to a new largest score: then they seldom do. */
enum { GPU_ATTENTION_SLACK = 8 };

/* Scores become weights about what was the rows' largest, more or less; `sum`: of the thread's own. `row`: its
 * first. */
template <int D>
__device__ static void take_weights(float (&s)[GPU_ATTENTION_TILE / 8][4], float (&o)[D / 8][4], float (&largest)[2],
                                    float (&sum)[2], float scale2, bool diagonal, int row, int column) {
    float most[2];
    if (diagonal)
#pragma unroll
        for (int n = 0; n < GPU_ATTENTION_TILE / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                if (column + 8 * n + e % 2 > row + e / 2 * 8) s[n][e] = -INFINITY;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        most[half] = s[0][2 * half];
#pragma unroll
        for (int n = 0; n < GPU_ATTENTION_TILE / 8; n++)
#pragma unroll
            for (int e = 2 * half; e < 2 * half + 2; e++) most[half] = fmaxf(most[half], s[n][e]);
        most[half] = quad_max(most[half]) * scale2;
    }
    const bool grows[2] = {most[0] > largest[0] + GPU_ATTENTION_SLACK, most[1] > largest[1] + GPU_ATTENTION_SLACK};
    if (__any_sync(0xffffffffu, grows[0] || grows[1]))
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const float fade = grows[half] ? exp2_fast(largest[half] - most[half]) : 1.0f;
            if (grows[half]) largest[half] = most[half];
            sum[half] *= fade;
#pragma unroll
            for (int n = 0; n < D / 8; n++)
#pragma unroll
                for (int e = 2 * half; e < 2 * half + 2; e++) o[n][e] *= fade;
        }
#pragma unroll
    for (int n = 0; n < GPU_ATTENTION_TILE / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            s[n][e] = exp2_fast(fmaf(s[n][e], scale2, -largest[e / 2]));
            sum[e / 2] += s[n][e];
        }
}

template <class V, int D>
__device__ static void write_rows(const gpu_attention &a, const float (&o)[D / 8][4], const float (&largest)[2],
                                  const float (&sum)[2], size_t b, size_t h, size_t first, int column) {
    const float all[2] = {quad_sum(sum[0]), quad_sum(sum[1])};
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const size_t row = first + 8 * half, y = (b * a.t + row) * a.out + h * D + column;
        const float inverse = 1.0f / all[half];
        if (row >= a.t) return;
#pragma unroll
        for (int n = 0; n < D / 8; n++) {
            const uint32_t v = two<V>(o[n][2 * half] * inverse, o[n][2 * half + 1] * inverse);
            *(uint32_t *)((V *)a.y + y + 8 * n) = v;
        }
        if (a.lse && column == 0) a.lse[(b * a.h + h) * a.t + row] = largest[half] + log2f(all[half]);
    }
}

/* Angles of a lane's two rows: of the columns 8 n + column and + 1, for n below D / 16. */
template <int D> struct row_angles {
    float2 cosine[2][D / 16], sine[2][D / 16];
    /* All at once: it is one wait for memory. Rows past the end take the last one's. */
    __device__ row_angles(const gpu_attention &a, size_t first, int column) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const unsigned wanted = (unsigned)first + 8 * half, last = (unsigned)a.t - 1;
            const unsigned at = (wanted < last ? wanted : last) * (D / 2) + (unsigned)column;
#pragma unroll
            for (int n = 0; n < D / 16; n++) {
                cosine[half][n] = *(const float2 *)(a.cosine + at + 8 * n);
                sine[half][n] = *(const float2 *)(a.sine + at + 8 * n);
            }
        }
    }
};

/* Both rows' gradients turned back: elements j and j + D / 2. */
template <int D>
__device__ static void turn_back(const gpu_attention &a, float (&sum)[D / 8][4], size_t first, int column) {
    const row_angles<D> angles(a, first, column);
#pragma unroll
    for (int n = 0; n < D / 16; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const float2 cosine = angles.cosine[e / 2][n], sine = angles.sine[e / 2][n];
            attention_turn_back(e % 2 ? cosine.y : cosine.x, e % 2 ? sine.y : sine.x, &sum[n][e],
                                &sum[n + D / 16][e]);
        }
}

/* dx (+)= factor * sum at the thread's rows of slice `slice` of x; queries and keys turn back. */
template <class V, int D>
__device__ static void give(const gpu_attention &a, float (&sum)[D / 8][4], size_t b, size_t slice, size_t first,
                            int column, float factor, bool turned) {
#pragma unroll
    for (int n = 0; n < D / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) sum[n][e] *= factor;
    if (turned && a.cosine) turn_back<D>(a, sum, first, column);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const size_t row = first + 8 * half;
        if (row >= a.t) return;
        V *dx = (V *)a.dx + (b * a.t + row) * a.in + slice * D + column;
        if (a.add)
#pragma unroll
            for (int n = 0; n < D / 8; n++) {
                const float2 had = both_of(V(), *(const uint32_t *)(dx + 8 * n));
                sum[n][2 * half] += had.x;
                sum[n][2 * half + 1] += had.y;
            }
#pragma unroll
        for (int n = 0; n < D / 8; n++) *(uint32_t *)(dx + 8 * n) = two<V>(sum[n][2 * half], sum[n][2 * half + 1]);
    }
}

#endif
