/* Attention for every type and head width. A block of 16 x 16 threads has a tile of 64 queries (or keys) and 64 of
 * the head's columns; scores are made in slices of 32 columns of the head, so that any width passes through the same
 * shared memory. Wider heads than 64 make their scores once for each 64 columns.
 *
 * A thread has rows 4 ty + 0 ... 3 and columns tx + 0, 16, 32, 48 of every 64 x 64 product. Of a head's columns a
 * block takes 32 from the first half and their partners in the second, so that rotary embedding turns within a
 * thread. */
#include "gpu/gpu_attention.cuh"

enum { TILE = GPU_ATTENTION_TILE, SLICE = 32, SIDE = 16, PLAIN_THREADS = SIDE * SIDE };

struct plain_room {
    union {
        struct {
            float a[TILE][SLICE + 1], b[TILE][SLICE + 1];
        };
        float p[TILE][TILE + 1];
    };
    float c[TILE][TILE];
};

typedef float square[4][4];

/* A block's place: which tile, which columns, which sample and head. */
struct plain_block {
    size_t first; /* token of the tile */
    size_t b, h;
    size_t part, half; /* columns 32 part ... of each half of the head */
    int tx, ty;

    __device__ plain_block(const gpu_attention &a, size_t heads, size_t tile) {
        const size_t parts = ((a.d + 1) / 2 + SLICE - 1) / SLICE;
        first = tile * TILE;
        half = (a.d + 1) / 2;
        part = blockIdx.x % parts;
        h = blockIdx.x / parts % heads;
        b = blockIdx.x / parts / heads;
        tx = (int)threadIdx.x % SIDE;
        ty = (int)threadIdx.x / SIDE;
    }
    /* The head's column behind column c of 64; d where there is none. */
    __device__ size_t column(int c, size_t d) const {
        const size_t j = part * SLICE + (size_t)(c % SLICE);
        return j >= half ? d : c < SLICE ? j : half + j < d ? half + j : d;
    }
};

/* s = 64 rows of a from a0 times 64 rows of b from b0, over the head's width; rows from t on are zeros. */
template <class T>
__device__ static void multiply_rows(square &s, plain_room &room, const plain_block &at, const T *a, size_t lda,
                                     size_t a0, const T *b, size_t ldb, size_t b0, size_t t, size_t d) {
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) s[i][j] = 0;
    for (size_t slice = 0; slice < d; slice += SLICE) {
        __syncthreads();
        for (int i = (int)threadIdx.x; i < TILE * SLICE; i += PLAIN_THREADS) {
            const int row = i / SLICE, c = i % SLICE;
            const bool inside = slice + c < d;
            room.a[row][c] = inside && a0 + row < t ? to_float(a[(a0 + row) * lda + slice + c]) : 0.0f;
            room.b[row][c] = inside && b0 + row < t ? to_float(b[(b0 + row) * ldb + slice + c]) : 0.0f;
        }
        __syncthreads();
#pragma unroll 8
        for (int c = 0; c < SLICE; c++) {
            float u[4], v[4];
#pragma unroll
            for (int i = 0; i < 4; i++) u[i] = room.a[4 * at.ty + i][c], v[i] = room.b[at.tx + SIDE * i][c];
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) s[i][j] = fmaf(u[i], v[j], s[i][j]);
        }
    }
}

/* room.p = p and room.c = the block's columns of 64 rows of x from x0. */
template <class T>
__device__ static void lay_out(plain_room &room, const plain_block &at, const square &p, const T *x, size_t ld,
                               size_t x0, size_t t, size_t d) {
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) room.p[4 * at.ty + i][at.tx + SIDE * j] = p[i][j];
    for (int i = (int)threadIdx.x; i < TILE * TILE; i += PLAIN_THREADS) {
        const int row = i / TILE, c = i % TILE;
        const size_t column = at.column(c, d);
        room.c[row][c] = column < d && x0 + row < t ? to_float(x[(x0 + row) * ld + column]) : 0.0f;
    }
    __syncthreads();
}

/* sum += p c, or p^T c. */
template <int TURNED> __device__ static void add_product(square &sum, const plain_room &room, const plain_block &at) {
#pragma unroll 8
    for (int k = 0; k < TILE; k++) {
        float u[4], v[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            u[i] = TURNED ? room.p[k][4 * at.ty + i] : room.p[4 * at.ty + i][k];
            v[i] = room.c[k][at.tx + SIDE * i];
        }
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < 4; j++) sum[i][j] = fmaf(u[i], v[j], sum[i][j]);
    }
}

/* Over the 16 threads of a row. */
__device__ static float row_max(float v) {
    for (int step = SIDE / 2; step; step /= 2) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, step));
    return v;
}
__device__ static float row_sum(float v) {
    for (int step = SIDE / 2; step; step /= 2) v += __shfl_xor_sync(0xffffffffu, v, step);
    return v;
}

/* A tile's scores become weights about the rows' largest so far; what there was is scaled to it. Every row has a key
 * in every tile: the one of its own tile's first token at least. */
__device__ static void take_weights(square &s, square &o, float (&largest)[4], float (&sum)[4],
                                    const gpu_attention &a, const plain_block &at, size_t key0) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const size_t row = at.first + 4 * at.ty + i;
        float most = largest[i], total = 0;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const size_t key = key0 + at.tx + SIDE * j;
            s[i][j] = key <= row && key < a.t ? s[i][j] * a.scale2 : -INFINITY;
            most = fmaxf(most, s[i][j]);
        }
        most = row_max(most);
        const float fade = exp2f(largest[i] - most);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            s[i][j] = exp2f(s[i][j] - most);
            total += s[i][j];
            o[i][j] *= fade;
        }
        sum[i] = sum[i] * fade + row_sum(total);
        largest[i] = most;
    }
}

template <class T> __global__ static void __launch_bounds__(PLAIN_THREADS) plain_forward(gpu_attention a) {
    __shared__ plain_room room;
    const plain_block at(a, a.h, gridDim.y - 1 - blockIdx.y);
    const T *q = attention_query<T>(a, at.b, at.h), *k = attention_key<T>(a, at.b, at.h / a.r);
    const T *v = attention_value<T>(a, at.b, at.h / a.r);
    square s, o = {};
    float largest[4] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY}, sum[4] = {};
    for (size_t key0 = 0; key0 <= at.first; key0 += TILE) {
        multiply_rows(s, room, at, q, a.ld, at.first, k, a.ld, key0, a.t, a.d);
        take_weights(s, o, largest, sum, a, at, key0);
        lay_out(room, at, s, v, a.in, key0, a.t, a.d);
        add_product<0>(o, room, at);
    }
    for (int i = 0; i < 4; i++) {
        const size_t row = at.first + 4 * at.ty + i, y = (at.b * a.t + row) * a.out + at.h * a.d;
        if (row >= a.t) break;
        for (int j = 0; j < 4; j++) {
            const size_t column = at.column(at.tx + SIDE * j, a.d);
            if (column >= a.d) continue;
            const T value = from_float<T>(o[i][j] / sum[i]);
            ((T *)a.y)[y + column] = value;
        }
        if (a.lse && at.part == 0 && at.tx == 0) a.lse[(at.b * a.h + at.h) * a.t + row] = largest[i] + log2f(sum[i]);
    }
}

/* ---- backward */

/* P of a tile of queries from q0 and keys from key0, in place of the scores; dS in place of dP. */
__device__ static void take_gradients(square &s, square &dp, const gpu_attention &a, const plain_block &at, size_t b,
                                      size_t h, size_t q0, size_t key0) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const size_t row = q0 + 4 * at.ty + i, number = (b * a.h + h) * a.t + row;
        const float lse = row < a.t ? a.lse[number] : 0, delta = row < a.t ? a.delta[number] : 0;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const size_t key = key0 + at.tx + SIDE * j;
            s[i][j] = key <= row && row < a.t ? exp2f(s[i][j] * a.scale2 - lse) : 0.0f;
            dp[i][j] = s[i][j] * (dp[i][j] - delta);
        }
    }
}

/* dx (+)= factor * sum, at the tile's rows of slice `slice` of x; queries and keys turn back. */
template <class T>
__device__ static void give(const gpu_attention &a, const plain_block &at, const square &sum, size_t slice,
                            float factor, bool turned) {
    for (int i = 0; i < 4; i++) {
        const size_t row = at.first + 4 * at.ty + i;
        if (row >= a.t) return;
        T *dx = (T *)a.dx + (at.b * a.t + row) * a.in + slice * a.d;
        for (int pair = 0; pair < 2; pair++) {
            float value[2] = {sum[i][pair] * factor, sum[i][pair + 2] * factor};
            const int c = at.tx + SIDE * pair;
            const size_t column[2] = {at.column(c, a.d), at.column(c + SLICE, a.d)};
            const size_t angle = row * (a.d / 2) + column[0];
            if (turned && a.cosine && column[0] < a.d)
                attention_turn_back(a.cosine[angle], a.sine[angle], &value[0], &value[1]);
            for (int j = 0; j < 2; j++)
                if (column[j] < a.d)
                    dx[column[j]] = from_float<T>(a.add ? to_float(dx[column[j]]) + value[j] : value[j]);
        }
    }
}

template <class T> __global__ static void __launch_bounds__(PLAIN_THREADS) plain_queries(gpu_attention a) {
    __shared__ plain_room room;
    const plain_block at(a, a.h, gridDim.y - 1 - blockIdx.y);
    const T *q = attention_query<T>(a, at.b, at.h), *k = attention_key<T>(a, at.b, at.h / a.r);
    const T *v = attention_value<T>(a, at.b, at.h / a.r);
    const T *dy = (const T *)a.dy + at.b * a.t * a.out + at.h * a.d;
    square s, dp, dq = {};
    for (size_t key0 = 0; key0 <= at.first; key0 += TILE) {
        multiply_rows(s, room, at, q, a.ld, at.first, k, a.ld, key0, a.t, a.d);
        multiply_rows(dp, room, at, dy, a.out, at.first, v, a.in, key0, a.t, a.d);
        take_gradients(s, dp, a, at, at.b, at.h, at.first, key0);
        lay_out(room, at, dp, k, a.ld, key0, a.t, a.d);
        add_product<0>(dq, room, at);
    }
    give<T>(a, at, dq, at.h, a.scale, true);
}

template <class T> __global__ static void __launch_bounds__(PLAIN_THREADS) plain_keys(gpu_attention a) {
    __shared__ plain_room room;
    const plain_block at(a, a.g, blockIdx.y);
    const T *k = attention_key<T>(a, at.b, at.h), *v = attention_value<T>(a, at.b, at.h);
    square s, dp, dk = {}, dv = {};
    for (size_t h = at.h * a.r; h < (at.h + 1) * a.r; h++) {
        const T *q = attention_query<T>(a, at.b, h), *dy = (const T *)a.dy + at.b * a.t * a.out + h * a.d;
        for (size_t q0 = at.first; q0 < a.t; q0 += TILE) {
            multiply_rows(s, room, at, q, a.ld, q0, k, a.ld, at.first, a.t, a.d);
            multiply_rows(dp, room, at, dy, a.out, q0, v, a.in, at.first, a.t, a.d);
            take_gradients(s, dp, a, at, at.b, h, q0, at.first);
            lay_out(room, at, s, dy, a.out, q0, a.t, a.d);
            add_product<1>(dv, room, at);
            lay_out(room, at, dp, q, a.ld, q0, a.t, a.d);
            add_product<1>(dk, room, at);
        }
    }
    give<T>(a, at, dk, a.h + at.h, a.scale, true);
    give<T>(a, at, dv, a.h + a.g + at.h, 1, false);
}

static dim3 plain_grid(const gpu_attention *a, size_t heads) {
    const size_t parts = ((a->d + 1) / 2 + SLICE - 1) / SLICE;
    return dim3((unsigned)(a->batch * heads * parts), gpu_attention_tiles(a));
}

tern_status gpu_attention_plain_forward(tern_gpu_plan *plan, size_t node, const gpu_attention *a, tern_error *err) {
    GPU_BY_TYPE(plan->type, plain_forward<T><<<plain_grid(a, a->h), PLAIN_THREADS, 0, plan->stream>>>(*a));
    GPU_LAUNCHED(plan, node, err);
    return TERN_OK;
}

tern_status gpu_attention_plain_backward(tern_gpu_plan *plan, size_t node, const gpu_attention *a, tern_error *err) {
    GPU_BY_TYPE(plan->type, plain_queries<T><<<plain_grid(a, a->h), PLAIN_THREADS, 0, plan->stream>>>(*a));
    GPU_LAUNCHED(plan, node, err);
    GPU_BY_TYPE(plan->type, plain_keys<T><<<plain_grid(a, a->g), PLAIN_THREADS, 0, plan->stream>>>(*a));
    GPU_LAUNCHED(plan, node, err);
    return TERN_OK;
}
