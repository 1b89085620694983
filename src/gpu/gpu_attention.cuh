/* Attention on a GPU: what the op and its two sets of kernels share. Names as in nn/op_attention.c: B batch, T
 * tokens, H heads, G key and value heads, D head width, R = H / G; x [B][T][(H + 2 G) D], y [B][T][H D].
 *
 * Neither S nor P is ever in memory: tiles of keys stream past a tile of queries, and the backward pass makes P again
 * from each row's log-sum-exp. dq is summed by tiles of queries, dk and dv by tiles of keys, which take the R heads
 * of a key in their order: every sum has one owner. Both make scores for themselves, but on Hopper the one leaves dS
 * in memory for the other. */
#ifndef TERN_GPU_GPU_ATTENTION_CUH
#define TERN_GPU_GPU_ATTENTION_CUH

#include "gpu/gpu_kernels.cuh"

enum { GPU_ATTENTION_TILE = 64 }; /* queries or keys of a block */

struct gpu_attention {
    size_t batch, t, h, g, d, r;
    size_t in, out;     /* row lengths of x and y */
    const void *turned; /* queries, then keys, after rotary embedding; without: x */
    size_t ld;          /* row length of it */
    const void *x, *dy;
    void *y;
    void *dx;
    int add;                    /* dx += */
    float *lse, *delta;         /* [B][H][T]: log2 of a row's sum of 2^(s scale2); sum of dy y. lse NULL: not kept */
    const float *cosine, *sine; /* [T][D/2]; NULL without rotary embedding */
    float scale, scale2;        /* 1 / sqrt(D), and times log2(e) */
};

__host__ __device__ static inline unsigned gpu_attention_tiles(const gpu_attention *a) {
    return (unsigned)((a->t + GPU_ATTENTION_TILE - 1) / GPU_ATTENTION_TILE);
}

/* Heads within a sample's token: where head `head` of x, of `turned` or of y begins. */
template <class T> __device__ inline const T *attention_query(const gpu_attention &a, size_t b, size_t h) {
    return (const T *)a.turned + b * a.t * a.ld + h * a.d;
}
template <class T> __device__ inline const T *attention_key(const gpu_attention &a, size_t b, size_t g) {
    return (const T *)a.turned + b * a.t * a.ld + (a.h + g) * a.d;
}
template <class T> __device__ inline const T *attention_value(const gpu_attention &a, size_t b, size_t g) {
    return (const T *)a.x + b * a.t * a.in + (a.h + a.g + g) * a.d;
}

/* The gradient (u, v) of elements j and j + D/2 turned back. */
__device__ inline void attention_turn_back(float cosine, float sine, float *u, float *v) {
    const float from_u = *u, from_v = *v;
    *u = from_u * cosine + from_v * sine;
    *v = from_v * cosine - from_u * sine;
}

/* In prepare, of a node behind attention `node` that will leave delta in its backward pass: where. */
tern_status gpu_attention_take_delta(tern_gpu_plan *plan, size_t node, float **delta, tern_error *err);

/* Tensor cores: 16-bit values, D = 32, 64 or 128, 8.0 and newer. */
int gpu_attention_has_mma(const tern_gpu_plan *plan, size_t d);
/* Lets the kernels have the shared memory that they take. */
tern_status gpu_attention_mma_prepare(tern_gpu_plan *plan, size_t node, size_t d, tern_error *err);
tern_status gpu_attention_mma_forward(tern_gpu_plan *plan, size_t node, const gpu_attention *a, tern_error *err);
tern_status gpu_attention_mma_backward(tern_gpu_plan *plan, size_t node, const gpu_attention *a, tern_error *err);

/* Hopper's own: D = 64 on 9.0. */
int gpu_attention_has_wgmma(const tern_gpu_plan *plan, size_t d);
tern_status gpu_attention_wgmma_prepare(tern_gpu_plan *plan, size_t node, tern_error *err);
tern_status gpu_attention_wgmma_forward(tern_gpu_plan *plan, size_t node, const gpu_attention *a, tern_error *err);
/* Where there are gradients. A pass goes by units, whose scores are in memory, in launches of `each` of them, to the
 * same bits for any number: as many as the memory has room for that is free, 0 where it has none for one. `room` is
 * scratch of so many bytes. */
tern_status gpu_attention_wgmma_prepare_backward(tern_gpu_plan *plan, size_t node, tern_error *err);
size_t gpu_attention_wgmma_units(const gpu_attention *a, size_t free_bytes);
size_t gpu_attention_wgmma_room(const gpu_attention *a, size_t each);
tern_status gpu_attention_wgmma_backward(tern_gpu_plan *plan, size_t node, const gpu_attention *a, size_t each,
                                         void *room, tern_error *err);

/* fp32 products of values of any type and width. */
tern_status gpu_attention_plain_forward(tern_gpu_plan *plan, size_t node, const gpu_attention *a, tern_error *err);
tern_status gpu_attention_plain_backward(tern_gpu_plan *plan, size_t node, const gpu_attention *a, tern_error *err);

#endif
