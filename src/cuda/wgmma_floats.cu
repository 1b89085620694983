/* Rows of floats, after RMSNorm where asked, quantized and multiplied by one kernel on Hopper's warpgroup tensor
 * cores. A block has MTile rows of activations: its warps bring them to int8, whole rows of them into shared memory,
 * where they stay while the block takes one tile of outputs after another. Beside a quantizer of its own this saves a
 * launch and the int8 activations' way through memory, as long as few blocks quantize the same rows.
 *
 * The weights go from packed words into registers and from there into the tensor cores, as in wgmma.cu. */
#include "cuda/wgmma_floats.cuh"

#include "cuda/quantize_row.cuh"
#include "cuda/wgmma_common.cuh"

enum {
    THREADS = MULTIPLIERS,
    WARPS = THREADS / 32,
    GROUP_THREADS = 128,
    GROUP_ROWS = 64,
    SLOT_COLS = 128, /* of activations, in rows that are swizzled whole */
    SLOT_STEPS = SLOT_COLS / 32,
    UNIT_TILES = 4, /* of weights that are on their way; a unit begins with a slot, for t2 and for t5 */
    OUTPUT_PITCH = GROUP_ROWS + OUTPUT_PACK,
    MOST_COLS = 1280,     /* so that two blocks of 64 rows share a multiprocessor */
    MOST_NORM_COLS = 768, /* of rows that gpu_norm.cuh gives to warps */
};

/* Where the 16 bytes of `column` of a row are in a slot of the 128-byte swizzle, slots of m_tile rows. */
__device__ static int swizzled(int row, int column, int m_tile) {
    const int chunk = column % SLOT_COLS / 16 ^ row % 8;
    return column / SLOT_COLS * m_tile * SLOT_COLS + row * SLOT_COLS + chunk * 16 + column % 16;
}

static size_t slots_of(const tern_cuda_weights *w) {
    return ((size_t)w->k_tiles * tern_tile_cols(w->t5) + SLOT_COLS - 1) / SLOT_COLS;
}

/* ---- activations ----------------------------------------------------------------------------------------------- */

enum { PACKS_AT_ONCE = 16 /* of a lane, or all of a row */ };

/* A warp's packs of Rows rows from `first` on; behind the last row comes that one again. */
template <class T, int Rows, int Packs>
__device__ static void load_rows(row_pack<T> (&mine)[Rows][Packs], const product &p, int first, int packs) {
    const int lane = (int)threadIdx.x % 32;
#pragma unroll
    for (int r = 0; r < Rows; r++) {
        const row_pack<T> *x = (const row_pack<T> *)p.x + (size_t)min(first + r, p.out.m - 1) * packs;
#pragma unroll
        for (int k = 0; k < Packs; k++)
            if (lane + k * 32 < packs) mine[r][k] = x[lane + k * 32];
    }
}

/* A warp's rows of the block, a few at once so that their packs are on their way together. */
template <class T, int MTile, int Packs>
__device__ static void quantize_some(uint8_t *acts, float *inv_scale, const product &p, int m0) {
    enum {
        N = row_pack<T>::N,
        EACH = MTile / WARPS,
        WISH = Packs < PACKS_AT_ONCE ? PACKS_AT_ONCE / Packs : 1,
        AT_ONCE = WISH < EACH ? WISH : EACH
    };
    static_assert(EACH % AT_ONCE == 0, "a warp's last rows are its own");
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, packs = p.w.cols / N;
    for (int first = warp * EACH; first < (warp + 1) * EACH; first += AT_ONCE) {
        row_pack<T> mine[AT_ONCE][Packs];
        load_rows(mine, p, m0 + first, packs);
#pragma unroll
        for (int r = 0; r < AT_ONCE; r++) {
            unsigned most = 0;
#pragma unroll
            for (int k = 0; k < Packs; k++)
                if (lane + k * 32 < packs) most = max(most, largest_of(mine[r][k]));
            const row_scale scale(warp_largest(most));
#pragma unroll
            for (int k = 0; k < Packs; k++)
                if (lane + k * 32 < packs)
                    *(int8_pack<T> *)(acts + swizzled(first + r, (lane + k * 32) * N, MTile)) =
                        quantized(mine[r][k], scale);
            if (lane == 0) inv_scale[first + r] = scale.inverse();
        }
    }
}

/* What a norm's rows are of. */
struct of_values {
    __device__ static float of(float v) { return v; }
};
struct of_squares {
    __device__ static float of(float v) {
        const float most = fmaxf(v, 0.0f);
        return most * most;
    }
};

__device__ static float warp_sum(float v) {
    for (int step = 16; step; step /= 2) v += __shfl_xor_sync(0xffffffffu, v, step);
    return v;
}

/* The same behind a norm, with gpu_norm_forward.cu's sums in its order: lanes have the columns that they have there. */
template <class R, class T, int MTile, int Packs>
__device__ static void normalise_some(uint8_t *acts, float *inv_scale, const product &p, const tern_row_norm &norm,
                                      int m0) {
    enum { N = row_pack<T>::N, EACH = MTile / WARPS, AT_ONCE = Packs < 8 ? 2 : 1 };
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, packs = p.w.cols / N;
    for (int first = warp * EACH; first < (warp + 1) * EACH; first += AT_ONCE) {
        row_pack<T> mine[AT_ONCE][Packs];
        load_rows(mine, p, m0 + first, packs);
#pragma unroll
        for (int r = 0; r < AT_ONCE; r++) {
            float v[Packs][N], square = 0;
#pragma unroll
            for (int k = 0; k < Packs; k++)
                if (lane + k * 32 < packs)
#pragma unroll
                    for (int j = 0; j < N; j++) {
                        v[k][j] = R::of(value_at(mine[r][k], j));
                        square = fmaf(v[k][j], v[k][j], square);
                    }
            const float factor = 1.0f / sqrtf(warp_sum(square) / (float)p.w.cols + norm.epsilon);
            unsigned most = 0;
#pragma unroll
            for (int k = 0; k < Packs; k++)
                if (lane + k * 32 < packs) {
                    float4 gain[N / 4];
#pragma unroll
                    for (int j = 0; j < N / 4; j++)
                        gain[j] = norm.gain ? __ldg((const float4 *)norm.gain + (lane + k * 32) * (N / 4) + j)
                                            : make_float4(1, 1, 1, 1);
#pragma unroll
                    for (int j = 0; j < N; j++) {
                        v[k][j] = v[k][j] * factor * (&gain[j / 4].x)[j % 4];
                        most = max(most, magnitude_of(v[k][j]));
                    }
                }
            const row_scale scale(warp_largest(most));
#pragma unroll
            for (int k = 0; k < Packs; k++)
                if (lane + k * 32 < packs) {
                    int8_pack<T> q;
#pragma unroll
                    for (int j = 0; j < N; j += 4)
                        q.word[j / 4] = four_quantized(v[k][j], v[k][j + 1], v[k][j + 2], v[k][j + 3], scale);
                    *(int8_pack<T> *)(acts + swizzled(first + r, (lane + k * 32) * N, MTile)) = q;
                }
            if (lane == 0) inv_scale[first + r] = scale.inverse();
        }
    }
}

template <class R, class T, int MTile>
__device__ static void normalise_rows(uint8_t *acts, float *inv_scale, const product &p, const tern_row_norm &norm,
                                      int m0) {
    enum { LANES_COLS = 32 * row_pack<T>::N };
    if (p.w.cols <= 2 * LANES_COLS)
        normalise_some<R, T, MTile, 2>(acts, inv_scale, p, norm, m0);
    else
        normalise_some<R, T, MTile, MOST_NORM_COLS / LANES_COLS>(acts, inv_scale, p, norm, m0);
}

template <class T, int MTile>
__device__ static void quantize_rows(uint8_t *acts, float *inv_scale, const product &p, const tern_row_norm &norm,
                                     int m0) {
    enum { LANES_COLS = 32 * row_pack<T>::N, MOST = MOST_COLS > 8 * LANES_COLS ? MOST_COLS / LANES_COLS : 8 };
    if (norm.on && norm.squares)
        normalise_rows<of_squares, T, MTile>(acts, inv_scale, p, norm, m0);
    else if (norm.on)
        normalise_rows<of_values, T, MTile>(acts, inv_scale, p, norm, m0);
    else if (p.w.cols <= 4 * LANES_COLS)
        quantize_some<T, MTile, 4>(acts, inv_scale, p, m0);
    else if (p.w.cols <= 8 * LANES_COLS)
        quantize_some<T, MTile, 8>(acts, inv_scale, p, m0);
    else
        quantize_some<T, MTile, MOST>(acts, inv_scale, p, m0);
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); /* the tensor cores read by another way */
}

/* ---- products -------------------------------------------------------------------------------------------------- */

/* A warp's tiles of one row of tiles, the first UNIT_TILES of what is left on their way. */
struct tiles_ahead {
    uint4 part[UNIT_TILES];

    __device__ void ask(int i, const uint8_t *tiles, int t, int end) {
        if (t < end) part[i] = load_tile_part(tiles + (size_t)t * TERN_TILE_BYTES, (int)threadIdx.x % 32);
    }
    __device__ void begin(const uint8_t *tiles, int end) {
#pragma unroll
        for (int i = 0; i < UNIT_TILES; i++) ask(i, tiles, i, end);
    }
};

/* One tile: `step` is its first 32 columns' number in the row, Tile its own in the unit. */
template <class Density, int MTile, int Sums>
__device__ static void multiply_tile(int32_t (&c)[Sums], const uint4 &tile, uint32_t acts, int step) {
    enum { N = Density::Chunks };
    uint32_t a[N][4];
    int8_operands<Density>(a, tile);
#pragma unroll
    for (int k = 0; k < N; k++) pin(a[k]);
    pin(c);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < N; k++) {
        const int at = step + k;
        const uint32_t slot = acts + (uint32_t)(at / SLOT_STEPS * MTile * SLOT_COLS);
        wgmma_i8(c, a[k], swizzled_rows(slot) + (uint64_t)(at % SLOT_STEPS * 32 >> 4));
    }
    wgmma_commit();
    wgmma_wait();
    pin(c);
}

/* c += a row of tiles times the activations. */
template <class Density, int MTile, int Sums>
__device__ static void multiply_row(int32_t (&c)[Sums], tiles_ahead &ahead, const uint8_t *tiles, int end,
                                    uint32_t acts) {
    for (int t = 0; t < end; t += UNIT_TILES) {
#pragma unroll
        for (int i = 0; i < UNIT_TILES; i++) {
            if (t + i >= end) break;
            const uint4 tile = ahead.part[i];
            ahead.ask(i, tiles, t + i + UNIT_TILES, end);
            multiply_tile<Density, MTile>(c, tile, acts, (t + i) * Density::Chunks);
        }
    }
}

/* ---- outputs --------------------------------------------------------------------------------------------------- */

/* Barrier 0 is __syncthreads. */
__device__ static void sync_group() {
    asm volatile("bar.sync %0, %1;" ::"r"(1 + threadIdx.x / GROUP_THREADS), "n"((int)GROUP_THREADS) : "memory");
}

/* Four matrices of 8 x 8 halves, turned: lanes 8i ... 8i + 7 say where the rows of matrix i go. */
__device__ static void store_turned(const uint16_t *to, const uint32_t (&words)[4]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(
                     (uint32_t)__cvta_generic_to_shared(to)),
                 "r"(words[0]), "r"(words[1]), "r"(words[2]), "r"(words[3])
                 : "memory");
}

/* Outputs of two bytes go by shared memory, a warpgroup's [MTile][OUTPUT_PITCH], and leave it in rows. Of a lane's
 * sums, pairs belong to two rows of activations and one output: what a turned matrix has. */
template <int Sums>
__device__ static void store_staged(const float (&v)[Sums], const epilogue &out, uint16_t *room, int n0, int m0) {
    enum { PACKS = GROUP_ROWS / OUTPUT_PACK, MATRICES = 4, IN_ROOM = 2 * MATRICES };
    const int thread = (int)threadIdx.x % GROUP_THREADS, lane = thread % 32;
    const int row = lane / 16 * 8 + lane % 8, column = thread / 32 * TERN_TILE_ROWS + lane / 8 % 2 * 8;
    sync_group(); /* the last tile's outputs have been read */
#pragma unroll
    for (int i = 0; i < Sums; i += IN_ROOM) {
        uint32_t words[MATRICES];
#pragma unroll
        for (int k = 0; k < MATRICES; k++)
            words[k] = half_of(v[i + 2 * k], out.y_type) | (uint32_t)half_of(v[i + 2 * k + 1], out.y_type) << 16;
        store_turned(room + (i * 2 + row) * OUTPUT_PITCH + column, words);
    }
    sync_group();
#pragma unroll 4
    for (int i = thread; i < 2 * Sums * PACKS; i += GROUP_THREADS) {
        const int m = i / PACKS, n = i % PACKS * OUTPUT_PACK;
        if (m0 + m >= out.m || n0 + n >= out.rows) continue;
        uint16_t *to = (uint16_t *)out.y + (size_t)(m0 + m) * (size_t)out.rows + (size_t)(n0 + n);
        *(uint4 *)to = *(const uint4 *)(room + m * OUTPUT_PITCH + n);
    }
}

template <class Density, int Sums>
__device__ static void put_all(const int32_t (&c)[Sums], const epilogue &out, const float *inv_scale, uint16_t *rooms,
                               int n0, int m0) {
    const int group = (int)threadIdx.x / GROUP_THREADS;
    const place at = my_place(out, n0, m0);
    float v[Sums], scale[2], bias[2];
    for (int i = 0; i < 2; i++) {
        scale[i] = scale_of(out, min(at.n(2 * i), out.rows - 1));
        bias[i] = bias_of(out, min(at.n(2 * i), out.rows - 1));
    }
#pragma unroll
    for (int i = 0; i < Sums; i++)
        v[i] =
            product_of(Density::finish(c[i]), __fmul_rn(scale[i / 2 % 2], inv_scale[at.m(i) - m0]), bias[i / 2 % 2]);
    activate(v, out.activation);
    add_residual(v, out, at);
    if (can_stage(out))
        store_staged(v, out, rooms + group * 2 * Sums * OUTPUT_PITCH, n0 + group * GROUP_ROWS, m0);
    else
        store_values(v, out, at);
}

/* ---- the kernel ------------------------------------------------------------------------------------------------ */

/* Bytes of shared memory: activations, outputs on their way, 1/s. 1024 may be lost to alignment. */
static int acts_bytes(const tern_cuda_weights *w, int m_tile) { return (int)slots_of(w) * m_tile * SLOT_COLS; }
static int shared_bytes(const tern_cuda_weights *w, int m_tile) {
    return 1024 + acts_bytes(w, m_tile) + 2 * m_tile * OUTPUT_PITCH * 2 + m_tile * 4;
}

/* Blocks along y have `share` tiles of 128 outputs each. */
template <class Density, class T, int MTile>
__global__ void __launch_bounds__(THREADS, 2)
    tern_matmul_wgmma_floats_cuda(product p, tern_row_norm norm, int share, int room_offset) {
    extern __shared__ uint8_t shared[];
    const uint32_t base = (uint32_t)__cvta_generic_to_shared(shared), acts = (base + 1023) / 1024 * 1024;
    uint8_t *const acts_room = shared + (acts - base);
    uint16_t *const rooms = (uint16_t *)(acts_room + room_offset);
    float *const inv_scale = (float *)(rooms + 2 * MTile * OUTPUT_PITCH);
    const int m0 = (int)blockIdx.x * MTile, warp = (int)threadIdx.x / 32, end = p.w.k_tiles;
    const int first = (int)blockIdx.y * share * BLOCK_ROWS, last = min(first + share * BLOCK_ROWS, p.w.rows);
    /* Rows of tiles past the end are read as the last one. */
    const auto tiles_of = [&](int n0) {
        const int row_tile = min(n0 / TERN_TILE_ROWS + warp, p.w.row_tiles - 1);
        return p.w.tiles + (size_t)row_tile * (size_t)end * TERN_TILE_BYTES;
    };
    tiles_ahead ahead;
    ahead.begin(tiles_of(first), end);
    let_next_kernel_start();
    wait_for_last_kernel();
    quantize_rows<T, MTile>(acts_room, inv_scale, p, norm, m0);
    __syncthreads();
    for (int n0 = first; n0 < last; n0 += BLOCK_ROWS) {
        int32_t c[MTile / 2] = {};
        multiply_row<Density, MTile>(c, ahead, tiles_of(n0), end, acts);
        if (n0 + BLOCK_ROWS < last) ahead.begin(tiles_of(n0 + BLOCK_ROWS), end);
        put_all<Density>(c, p.out, inv_scale, rooms, n0, m0);
    }
}

/* ---- launching ------------------------------------------------------------------------------------------------- */

static const char op[] = "cuda-wgmma of floats";

/* How a product is cut: rows of activations and tiles of outputs of a block. */
struct cut {
    int m_tile, share;
};

/* The least time, in products of a tile of outputs, of which quantizing a block's rows takes about three and starting
 * one more: rows are cut as small as it takes to fill the device, then as few blocks as can be share any. */
static cut cut_of(const tern_cuda_context *context, const tern_cuda_weights *w, size_t m) {
    enum { QUANTIZE = 4, AT_ONCE = 2 };
    const int n_blocks = ceil_div(w->rows, BLOCK_ROWS), sm = context->multiprocessors;
    cut best = {64, 1};
    while (best.m_tile > 16 && ceil_div((int)m, best.m_tile) * n_blocks < sm) best.m_tile /= 2;
    int64_t least = INT64_MAX;
    for (int share = 1; share <= n_blocks; share++) {
        const int64_t blocks = (int64_t)ceil_div((int)m, best.m_tile) * ceil_div(n_blocks, share);
        const int64_t time = (blocks + AT_ONCE * sm - 1) / (AT_ONCE * sm) * (QUANTIZE + share);
        if (time < least) {
            least = time;
            best.share = share;
        }
    }
    return best;
}

template <class Density, class T, int MTile>
static tern_status launch(tern_cuda_context *context, const product &p, const tern_row_norm &norm, int share,
                          tern_error *err) {
    const auto kernel = tern_matmul_wgmma_floats_cuda<Density, T, MTile>;
    const int shared = shared_bytes(&p.w, MTile);
    const dim3 grid((unsigned)ceil_div(p.out.m, MTile), (unsigned)ceil_div(ceil_div(p.w.rows, BLOCK_ROWS), share));
    CUDA_TRY(tern_cuda_launch(context, kernel, grid, THREADS, shared, 1, p, norm, share, acts_bytes(&p.w, MTile)), op,
             err);
    return TERN_OK;
}

template <class Density, class T>
static tern_status launch_cut(tern_cuda_context *context, const product &p, const tern_row_norm &norm, const cut &c,
                              tern_error *err) {
    return c.m_tile == 16   ? launch<Density, T, 16>(context, p, norm, c.share, err)
           : c.m_tile == 32 ? launch<Density, T, 32>(context, p, norm, c.share, err)
                            : launch<Density, T, 64>(context, p, norm, c.share, err);
}

/* Fewer rows are cuda-decode's. More columns would leave no room for a second block, many more outputs pay for a
 * quantizer of their own. */
bool tern_cuda_floats_fit(const tern_cuda_context *context, const tern_cuda_weights *w, const tern_device_product *d,
                          const tern_row_norm *norm) {
    if (norm->on && w->cols > MOST_NORM_COLS) return false;
    enum { LEAST_ROWS = 16, MOST_OUTPUTS = 4096 };
    const size_t value = d->x_type == TERN_F32 ? 4 : 2;
    return context->major == 9 && context->minor == 0 && d->x_type != TERN_F16 && !w->exponents &&
           d->m >= LEAST_ROWS && d->m <= TERN_FAST_MAX_ROWS && w->rows <= MOST_OUTPUTS && w->cols <= MOST_COLS &&
           (size_t)w->cols * value % 16 == 0 && (uintptr_t)d->x % 16 == 0 &&
           (size_t)shared_bytes(w, 64) <= context->shared_bytes;
}

tern_status tern_cuda_multiply_floats(tern_cuda_context *context, const tern_cuda_weights *w,
                                      const tern_device_product *product_, const tern_row_norm *norm,
                                      tern_error *err) {
    const tern_device_product &d = *product_;
    const product p = {
        *w,
        {w->scale, w->scale_per_row, NULL, d.bias, d.residual, d.y, d.y_type, d.activation, w->rows, (int)d.m},
        d.x,
        w->cols};
    const cut c = cut_of(context, w, d.m);
    if (d.x_type == TERN_F32)
        return w->t5 ? launch_cut<t5, float>(context, p, *norm, c, err)
                     : launch_cut<t2, float>(context, p, *norm, c, err);
    return w->t5 ? launch_cut<t5, __nv_bfloat16>(context, p, *norm, c, err)
                 : launch_cut<t2, __nv_bfloat16>(context, p, *norm, c, err);
}
