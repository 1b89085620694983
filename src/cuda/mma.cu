/* Many rows of activations on the tensor cores of 8.0 and newer. A block's activations pass through shared memory in
 * stages of one tile's columns; its weights go from packed words straight into registers, so they are unpacked once
 * for each of the block's warps beside one another. */
#include <type_traits>

#include "cuda/epilogue.cuh"
#include "cuda/group_float.cuh"
#include "cuda/unpack.cuh"

enum { STAGES = TERN_MMA_STAGES };

/* 16 bytes to shared memory, or zeros. */
__device__ static void copy_async(uint32_t to, const void *from, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(valid ? 16 : 0));
}
__device__ static void close_stage() { asm volatile("cp.async.commit_group;"); }
/* All but the `pending` newest stages have arrived. */
template <int Pending> __device__ static void wait_stages() {
    asm volatile("cp.async.wait_group %0;" ::"n"(Pending));
}

/* Four 8 x 16-byte matrices; lane l gives the address of row l % 8 of matrix l / 8. */
__device__ static void load_matrices(uint32_t (&v)[4], uint32_t at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3])
                 : "r"(at));
}

__device__ static uint2 load_8_bytes(uint32_t at) {
    uint2 v;
    asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "r"(at));
    return v;
}
__device__ static float4 load_4_floats(uint32_t at) {
    float4 v;
    asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "r"(at));
    return v;
}

/* ---- scales per group, of multiples of 32 columns -------------------------------------------------------------- */

/* One scale a row: sums go on to its end. */
template <class Density, class Sum, int R, int MT> struct whole_rows {
    enum { GROUPED = 0 };
    Sum c[R][MT][4] = {};

    __device__ whole_rows(const product &, int) {}
    __device__ void pass_32_columns() {}
    __device__ void finish() {}
    __device__ Sum result(int r, int i) const { return c[r][i / 4][i % 4]; }
};

/* What sums of a group begin with, and by how much they are too large. */
template <class Density> struct group_start {
    enum { SHIFT = Density::Shift };
    __device__ static int32_t of(int32_t, int group) { return float_start(group, SHIFT); }
};
template <class Density> struct half_group_start {
    enum { SHIFT = Density::HalfShift };
    __device__ static float of(float, int) { return 0; }
};

/* A lane has all columns of its outputs, in ascending order. */
template <class Density, class Sum, int R, int MT> struct group_rows {
    typedef std::conditional_t<std::is_same_v<Sum, float>, half_group_start<Density>, group_start<Density>> first;
    enum { GROUPED = 1 };
    Sum c[R][MT][4];
    float ended[R][MT][4] = {}; /* sums of the groups that have */
    float power[R][2];          /* 2^e of the open group, of rows g and g + 8 */
    const tern_cuda_weights &w;
    int row, open, left; /* the lane's first output; the open group; columns of it to come */
    Sum start;

    __device__ group_rows(const product &p, int first_row)
        : w(p.w), row(first_row), open(0), left(p.w.group), start(first::of(Sum(), p.w.group)) {
        for (int i = 0; i < R * MT * 4; i++) c[i / 4 / MT][i / 4 % MT][i % 4] = start;
        read_powers();
    }

    __device__ void read_powers() {
#pragma unroll
        for (int i = 0; i < 2 * R; i++)
            power[i / 2][i % 2] = group_power(w, min(row + i * 8, w.rows - 1), open, first::SHIFT);
    }
    __device__ void end_group() {
#pragma unroll
        for (int r = 0; r < R; r++)
#pragma unroll
            for (int i = 0; i < 4 * MT; i++) {
                Sum &sum = c[r][i / 4][i % 4];
                float &to = ended[r][i / 4][i % 4];
                to = __fadd_rn(to, __fmul_rn(float_of(sum, start), power[r][i / 2 % 2]));
                sum = start;
            }
        open++;
        left = w.group;
        read_powers();
    }
    __device__ void pass_32_columns() {
        if ((left -= 32) == 0) end_group();
    }
    __device__ void finish() {
        if (left < w.group) end_group();
    }
    __device__ float result(int r, int i) const { return ended[r][i / 4][i % 4]; }
};

/* ---- activations: how their rows lie in a stage, and what multiplies them --------------------------------------- *
 * Gap: bytes between two rows, which puts what a warp reads at once into different banks. place: of what a lane reads
 * first, in rows `pitch` bytes apart. multiply: sums += tiles * the rows behind `at`.
 * product_at: an output of such a sum. */

template <template <class, class, int, int> class Rows> struct int8_stage {
    typedef int8_t value;
    enum { Gap = TERN_MMA_GAP_I8 };

    __device__ static int place(int lane, int pitch) {
        return (lane / 16 * 8 + lane % 8) * pitch + lane / 8 % 2 * 16;
    }
    template <class Density>
    __device__ static float product_at(const epilogue &out, int32_t sum, int m, int n, float bias) {
        return product_of(Density::finish(sum), factor_of(out, sum, m, n), bias);
    }
    /* The scales of groups are in it. */
    template <class Density>
    __device__ static float product_at(const epilogue &out, float sum, int m, int, float bias) {
        return product_of(sum, out.inv_scale[m], bias);
    }

    template <class Density, int R, int MT> using rows = Rows<Density, int32_t, R, MT>;
    template <class Density, int R, int MT>
    __device__ static void multiply(rows<Density, R, MT> &sums, const uint4 (&tile)[R], uint32_t at) {
        enum { N = Density::Chunks, PITCH = Density::Cols + Gap };
        uint32_t a[R][2][2][N];
#pragma unroll
        for (int r = 0; r < R; r++) {
            int8_codes(Density(), tile[r].x, a[r][0][0]);
            int8_codes(Density(), tile[r].y, a[r][0][1]);
            int8_codes(Density(), tile[r].z, a[r][1][0]);
            int8_codes(Density(), tile[r].w, a[r][1][1]);
        }
#pragma unroll
        for (int k = 0; k < N; k++) {
            const int one = 2 * k, two = 2 * k + 1;
#pragma unroll
            for (int t = 0; t < MT; t += 2) {
                uint32_t b[4];
                load_matrices(b, at + (uint32_t)(t * 8 * PITCH + one * 16));
#pragma unroll
                for (int r = 0; r < R; r++)
#pragma unroll
                    for (int i = 0; i < 2; i++)
                        mma_i8(sums.c[r][t + i], a[r][one / N][0][one % N], a[r][one / N][1][one % N],
                               a[r][two / N][0][two % N], a[r][two / N][1][two % N], b[2 * i], b[2 * i + 1]);
            }
            sums.pass_32_columns();
        }
    }
};

/* Sums of what weights as halves and floating-point activations make. */
template <template <class, class, int, int> class Rows> struct float_sums {
    template <class Density, int R, int MT> using rows = Rows<Density, float, R, MT>;

    template <class Density>
    __device__ static float product_at(const epilogue &out, float sum, int m, int n, float bias) {
        if constexpr (rows<Density, 1, 1>::GROUPED) return __fadd_rn(sum, bias); /* their scales are in it */
        return product_of(sum * half_scale(Density()), factor_of(out, sum, m, n), bias);
    }
};

template <bool Bf16, template <class, class, int, int> class Rows> struct half_stage : float_sums<Rows> {
    template <class Density, int R, int MT> using rows = Rows<Density, float, R, MT>;
    typedef uint16_t value;
    enum { Gap = TERN_MMA_GAP_HALF };

    __device__ static int place(int lane, int pitch) { return lane / 4 * pitch + lane % 4 * 8; }
    template <class Density, int R, int MT>
    __device__ static void multiply(rows<Density, R, MT> &sums, const uint4 (&tile)[R], uint32_t at) {
        enum { N = Density::Chunks, PITCH = Density::Cols * 2 + Gap };
        half_weights<Density, Bf16, R> w;
#pragma unroll
        for (int k = 0; k < 2 * N; k++) {
            if (k % N == 0) w.open(tile, k / N);
            w.next(k % N);
#pragma unroll
            for (int t = 0; t < MT; t++) {
                const uint2 b = load_8_bytes(at + (uint32_t)(t * 8 * PITCH + k * 32));
#pragma unroll
                for (int r = 0; r < R; r++) w.multiply(sums.c[r][t], r, b.x, b.y);
            }
            if (k % 2) sums.pass_32_columns();
        }
    }
};

template <template <class, class, int, int> class Rows> struct float_stage : float_sums<Rows> {
    template <class Density, int R, int MT> using rows = Rows<Density, float, R, MT>;
    typedef float value;
    enum { Gap = TERN_MMA_GAP_F32 };

    __device__ static int place(int lane, int pitch) { return lane / 4 * pitch + lane % 4 * 16; }
    template <class Density, int R, int MT>
    __device__ static void multiply(rows<Density, R, MT> &sums, const uint4 (&tile)[R], uint32_t at) {
        enum { N = Density::Chunks, PITCH = Density::Cols * 4 + Gap };
        half_weights<Density, true, R> w;
#pragma unroll
        for (int k = 0; k < 2 * N; k++) {
            if (k % N == 0) w.open(tile, k / N);
            w.next(k % N);
#pragma unroll
            for (int t = 0; t < MT; t++) {
                const float4 v = load_4_floats(at + (uint32_t)(t * 8 * PITCH + k * 64));
                uint32_t bits[4][3];
                split_float(v.x, bits[0]);
                split_float(v.y, bits[1]);
                split_float(v.z, bits[2]);
                split_float(v.w, bits[3]);
#pragma unroll
                for (int i = 0; i < 3; i++)
#pragma unroll
                    for (int r = 0; r < R; r++)
                        w.multiply(sums.c[r][t], r, __byte_perm(bits[0][i], bits[1][i], 0x7632),
                                   __byte_perm(bits[2][i], bits[3][i], 0x7632));
            }
            if (k % 2) sums.pass_32_columns();
        }
    }
};

/* ---- a block --------------------------------------------------------------------------------------------------- */

template <class Density, class Stage, int WN, int WM, int R, int MT> struct mma_block {
    typedef typename Stage::value value;
    enum {
        THREADS = 32 * WN * WM,
        ROWS = 8 * MT * WM, /* of activations */
        BYTES = Density::Cols * sizeof(value),
        PITCH = BYTES + Stage::Gap, /* bytes from one of them to the next */
        STAGE_BYTES = ROWS * PITCH,
        PIECES = BYTES / 16, /* of a row */
        PIECE = 16 / sizeof(value)
    };

    /* The activations of tile k. */
    __device__ static void load_acts(uint32_t stage, const product &p, int m0, int k) {
        const value *x = (const value *)p.x;
        for (int i = (int)threadIdx.x; i < ROWS * PIECES; i += THREADS) {
            const int row = i / PIECES, column = k * Density::Cols + i % PIECES * PIECE;
            const bool valid = m0 + row < p.out.m && column < p.ldx;
            const size_t from = valid ? (size_t)(m0 + row) * (size_t)p.ldx + (size_t)column : 0;
            copy_async(stage + (uint32_t)(row * PITCH + i % PIECES * 16), x + from, valid);
        }
    }

    /* A lane's sums of one row of tiles: row n0 + 8 (i / 2 % 2), activations m0 + 8 (i / 4) + i % 2. */
    struct place {
        int m0, n0, m_end, n_end;
        __device__ int m(int i) const { return m0 + i / 4 * 8 + i % 2; }
        __device__ int n(int i) const { return n0 + i / 2 % 2 * 8; }
        __device__ bool valid(int i) const { return m(i) < m_end && n(i) < n_end; }
    };

    typedef typename Stage::template rows<Density, R, MT> rows;

    __device__ static void put(const rows &sums, const epilogue &out, int n0, int m0) {
        const int lane = (int)threadIdx.x % 32;
#pragma unroll
        for (int r = 0; r < R; r++) {
            const place at = {m0 + lane % 4 * 2, n0 + r * TERN_TILE_ROWS + lane / 4, out.m, out.rows};
            float v[4 * MT], bias[2];
            for (int i = 0; i < 2; i++) bias[i] = bias_of(out, min(at.n(2 * i), out.rows - 1));
#pragma unroll
            for (int i = 0; i < 4 * MT; i++) {
                const int m = min(at.m(i), out.m - 1), n = min(at.n(i), out.rows - 1);
                v[i] = Stage::template product_at<Density>(out, sums.result(r, i), m, n, bias[i / 2 % 2]);
            }
            put_products(v, out, at);
        }
    }
};

template <class Density, class Stage, int WN, int WM, int R, int MT>
__global__ void __launch_bounds__(32 * WN * WM) tern_matmul_mma_cuda(product p) {
    typedef mma_block<Density, Stage, WN, WM, R, MT> block;
    extern __shared__ __align__(16) uint8_t shared[];
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, warp_n = warp % WN, warp_m = warp / WN;
    const int m0 = (int)blockIdx.y * block::ROWS, row_tile = ((int)blockIdx.x * WN + warp_n) * R;
    const int k_tiles = p.w.k_tiles;
    const size_t row_bytes = (size_t)k_tiles * TERN_TILE_BYTES;
    const uint8_t *tiles[R]; /* rows of tiles past the end are read as the last one */
#pragma unroll
    for (int r = 0; r < R; r++) tiles[r] = p.w.tiles + (size_t)min(row_tile + r, p.w.row_tiles - 1) * row_bytes;
    const uint32_t stages = (uint32_t)__cvta_generic_to_shared(shared);
    const uint32_t in_stage = (uint32_t)(warp_m * 8 * MT * block::PITCH + Stage::place(lane, block::PITCH));

    uint4 next[R];
#pragma unroll
    for (int r = 0; r < R; r++) next[r] = load_tile_part(tiles[r], lane);
    let_next_kernel_start();
    wait_for_last_kernel();
    for (int s = 0; s < STAGES - 1; s++) {
        if (s < k_tiles) block::load_acts(stages + (uint32_t)(s * block::STAGE_BYTES), p, m0, s);
        close_stage();
    }
    typename block::rows sums(p, row_tile * TERN_TILE_ROWS + lane / 4);
    for (int k = 0; k < k_tiles; k++) {
        uint4 tile[R];
#pragma unroll
        for (int r = 0; r < R; r++) {
            tile[r] = next[r];
            if (k + 1 < k_tiles) next[r] = load_tile_part(tiles[r] + (size_t)(k + 1) * TERN_TILE_BYTES, lane);
        }
        wait_stages<STAGES - 2>();
        __syncthreads(); /* everybody's part of stage k is there, and nobody reads stage k - 1 any more */
        if (k + STAGES - 1 < k_tiles)
            block::load_acts(stages + (uint32_t)((k + STAGES - 1) % STAGES * block::STAGE_BYTES), p, m0,
                             k + STAGES - 1);
        close_stage();
        Stage::template multiply<Density, R, MT>(sums, tile,
                                                 stages + (uint32_t)(k % STAGES * block::STAGE_BYTES) + in_stage);
    }
    sums.finish();
    block::put(sums, p.out, row_tile * TERN_TILE_ROWS, m0 + warp_m * 8 * MT);
}

/* ---- launching ------------------------------------------------------------------------------------------------- */

template <class Density, class Stage, int WN, int WM, int R, int MT>
static tern_status launch(tern_cuda_context *context, const product &p, tern_error *err) {
    typedef mma_block<Density, Stage, WN, WM, R, MT> block;
    const auto kernel = tern_matmul_mma_cuda<Density, Stage, WN, WM, R, MT>;
    const int shared = STAGES * block::STAGE_BYTES;
    const dim3 grid((unsigned)ceil_div(p.w.row_tiles, WN * R), (unsigned)ceil_div(p.out.m, block::ROWS));
    CUDA_TRY(tern_cuda_launch(context, kernel, grid, block::THREADS, shared, 1, p), "cuda-mma", err);
    return TERN_OK;
}

/* In the order of TERN_MMA_SHAPES; which type has which of them, mma_has in launch_shapes.c says. */
template <class Density, template <class, class, int, int> class Rows>
static tern_status launch_int8(tern_cuda_context *context, const product &p, int variant, tern_error *err) {
    switch (variant) {
    case 1: return launch<Density, int8_stage<Rows>, 4, 2, 2, 8>(context, p, err);
    case 2: return launch<Density, int8_stage<Rows>, 2, 2, 2, 4>(context, p, err);
    default: return launch<Density, int8_stage<Rows>, 4, 1, 1, 4>(context, p, err);
    }
}

/* Shapes that scales per group have too: they keep two sums an output. */
template <class Density, class Stage>
static tern_status launch_small(tern_cuda_context *context, const product &p, int variant, tern_error *err) {
    return variant == 2 ? launch<Density, Stage, 2, 2, 2, 4>(context, p, err)
                        : launch<Density, Stage, 4, 1, 1, 4>(context, p, err);
}

template <class Density, bool Bf16>
static tern_status launch_half(tern_cuda_context *context, const product &p, int variant, tern_error *err) {
    typedef half_stage<Bf16, whole_rows> whole;
    typedef half_stage<Bf16, group_rows> groups;
    if (p.w.exponents)
        return variant == 4 ? launch<Density, groups, 4, 1, 1, 8>(context, p, err)
                            : launch_small<Density, groups>(context, p, variant, err);
    switch (variant) {
    case 4: return launch<Density, whole, 4, 1, 1, 8>(context, p, err);
    case 5: return launch<Density, whole, 4, 1, 2, 16>(context, p, err);
    case 6: return launch<Density, whole, 4, 2, 4, 8>(context, p, err);
    default: return launch_small<Density, whole>(context, p, variant, err);
    }
}

template <class Density>
static tern_status launch_float(tern_cuda_context *context, const product &p, int variant, tern_error *err) {
    return p.w.exponents ? launch_small<Density, float_stage<group_rows>>(context, p, variant, err)
                         : launch_small<Density, float_stage<whole_rows>>(context, p, variant, err);
}

template <class Density>
static tern_status launch_type(tern_cuda_context *context, const product &p, tern_dtype x_type, int variant,
                               tern_error *err) {
    switch (x_type) {
    case TERN_I8:
        return p.w.exponents ? launch_int8<Density, group_rows>(context, p, variant, err)
                             : launch_int8<Density, whole_rows>(context, p, variant, err);
    case TERN_BF16: return launch_half<Density, true>(context, p, variant, err);
    case TERN_F16: return launch_half<Density, false>(context, p, variant, err);
    default: return launch_float<Density>(context, p, variant, err);
    }
}

tern_status tern_cuda_mma(tern_cuda_context *context, const product &p, tern_dtype x_type, int variant,
                          tern_error *err) {
    return p.w.t5 ? launch_type<t5>(context, p, x_type, variant, err)
                  : launch_type<t2>(context, p, x_type, variant, err);
}
