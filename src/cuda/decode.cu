/* Few rows of activations, at the speed of memory: every packed byte is read once, with 16-byte loads, several in
 * flight, and goes from registers straight into the tensor cores. Their 8 columns are rows of activations, so that 8
 * rows take hardly longer than 1.
 *
 * A block has some rows of tiles; its warps share their columns (warp w takes the tiles w, w + warps, ...), add up in
 * shared memory in the order of the warps, and so the result does not depend on timing. Missing rows of activations
 * are read as the last one, columns past the end as the last ones: their products go nowhere, or meet zero trits.
 *
 * One row of int8 or halves has a kernel of its own: decode_row.cuh; so have 2 to 8 rows of int8, decode_rows.cuh, and
 * large shapes of int8, and of one row of halves, on Hopper: decode_ring.cu. */
#include "cuda/decode_half_row.cuh"
#include "cuda/decode_output.cuh"
#include "cuda/decode_row.cuh"
#include "cuda/decode_rows.cuh"
#include "cuda/unpack.cuh"

enum { AHEAD = 4 /* tiles that a warp has in flight, besides those that it works on */ };

/* ---- activations ------------------------------------------------------------------------------------------------ *
 * Of the activations that meet a tile, a lane reads the columns 4t .. 4t+3 of each chunk of one row: `part`, kept as
 * they are in memory. `Together` tiles have theirs on the way at once. */

template <class Part, class Value, class Density, bool Full>
__device__ static void load_parts(Part (&parts)[2 * Density::Chunks], const Value *x, int last) {
#pragma unroll
    for (int i = 0; i < 2 * Density::Chunks; i++) {
        const int column = i * TERN_TILE_CHUNK;
        parts[i] = *(const Part *)(x + (Full ? column : min(column, last)));
    }
}

struct int8_acts {
    typedef int8_t value;
    typedef uint32_t part;
    typedef int32_t sum_type;
    enum { Together = 4 };

    template <class Density> __device__ static void codes(const uint4 &tile, uint32_t (&a)[2][2][Density::Chunks]) {
        const uint32_t words[2][2] = {{tile.x, tile.y}, {tile.z, tile.w}};
#pragma unroll
        for (int i = 0; i < 4; i++)
            if constexpr (Density::T5)
                digits(words[i / 2][i % 2], a[i / 2][i % 2]);
            else
                int8_codes(Density(), words[i / 2][i % 2], a[i / 2][i % 2]);
    }

    /* c += tiles * x. Of t5 it is the sum of (trit + 1) * x, and `ones` gets that of x: one more product is cheaper
     * than taking 1 from each digit. */
    template <class Density, int R, int NT>
    __device__ static void add(int32_t (&c)[R][NT][4], int32_t (&ones)[NT][4], const uint4 (&tile)[R],
                               const part (&x)[NT][2 * Density::Chunks]) {
        enum { N = Density::Chunks };
        const uint32_t one = 0x01010101u;
        uint32_t a[R][2][2][N];
#pragma unroll
        for (int r = 0; r < R; r++) codes<Density>(tile[r], a[r]);
#pragma unroll
        for (int i = 0; i < 2 * N; i += 2)
#pragma unroll
            for (int t = 0; t < NT; t++) {
                if constexpr (Density::T5) mma_u8(ones[t], one, one, one, one, x[t][i], x[t][i + 1]);
#pragma unroll
                for (int r = 0; r < R; r++) {
                    const uint32_t a0 = a[r][i / N][0][i % N], a1 = a[r][i / N][1][i % N];
                    const uint32_t a2 = a[r][(i + 1) / N][0][(i + 1) % N], a3 = a[r][(i + 1) / N][1][(i + 1) % N];
                    if constexpr (Density::T5)
                        mma_u8(c[r][t], a0, a1, a2, a3, x[t][i], x[t][i + 1]);
                    else
                        mma_i8(c[r][t], a0, a1, a2, a3, x[t][i], x[t][i + 1]);
                }
            }
    }
    template <class Density> __device__ static int32_t finish(int32_t sum) { return Density::finish(sum); }
};

template <bool Bf16> struct half_acts {
    typedef uint16_t value;
    typedef uint2 part;
    typedef float sum_type;
    enum { Together = 2 };

    template <class Density, int R, int NT>
    __device__ static void add(float (&c)[R][NT][4], float (&)[NT][4], const uint4 (&tile)[R],
                               const part (&x)[NT][2 * Density::Chunks]) {
        enum { N = Density::Chunks };
#pragma unroll
        for (int h = 0; h < 2; h++)
#pragma unroll
            for (int r = 0; r < R; r++) {
                uint32_t a[2][N][2];
                half_codes<Bf16>(Density(), h ? tile[r].z : tile[r].x, a[0]);
                half_codes<Bf16>(Density(), h ? tile[r].w : tile[r].y, a[1]);
#pragma unroll
                for (int k = 0; k < N; k++)
#pragma unroll
                    for (int t = 0; t < NT; t++) {
                        const part v = x[t][h * N + k];
                        mma_half<Bf16>(c[r][t], a[0][k][0], a[1][k][0], a[0][k][1], a[1][k][1],
                                       __byte_perm(v.x, v.y, 0x5410), __byte_perm(v.x, v.y, 0x7632));
                    }
            }
    }
    template <class Density> __device__ static float finish(float sum) { return sum * half_scale(Density()); }
};

struct float_acts {
    typedef float value;
    typedef float4 part;
    typedef float sum_type;
    enum { Together = 1 };

    template <class Density, int R, int NT>
    __device__ static void add(float (&c)[R][NT][4], float (&)[NT][4], const uint4 (&tile)[R],
                               const part (&x)[NT][2 * Density::Chunks]) {
        enum { N = Density::Chunks };
#pragma unroll
        for (int h = 0; h < 2; h++) {
            uint32_t a[R][2][N][2];
#pragma unroll
            for (int r = 0; r < R; r++) {
                half_codes<true>(Density(), h ? tile[r].z : tile[r].x, a[r][0]);
                half_codes<true>(Density(), h ? tile[r].w : tile[r].y, a[r][1]);
            }
#pragma unroll
            for (int k = 0; k < N; k++)
#pragma unroll
                for (int t = 0; t < NT; t++) {
                    uint32_t bits[4][3];
                    split_float(x[t][h * N + k].x, bits[0]);
                    split_float(x[t][h * N + k].y, bits[1]);
                    split_float(x[t][h * N + k].z, bits[2]);
                    split_float(x[t][h * N + k].w, bits[3]);
#pragma unroll
                    for (int i = 0; i < 3; i++)
#pragma unroll
                        for (int r = 0; r < R; r++)
                            mma_half<true>(c[r][t], a[r][0][k][0], a[r][1][k][0], a[r][0][k][1], a[r][1][k][1],
                                           __byte_perm(bits[0][i], bits[2][i], 0x7632),
                                           __byte_perm(bits[1][i], bits[3][i], 0x7632));
                }
        }
    }
    template <class Density> __device__ static float finish(float sum) { return sum * half_scale(Density()); }
};

/* ---- a warp's share -------------------------------------------------------------------------------------------- */

/* The tiles k, k + step, ... below `end` of R rows of tiles: tile k of row r is at base + r * row_bytes + 512 k. */
template <int R> struct tile_run {
    const uint8_t *base;
    size_t row_bytes;
    int k, step, end, lane;
    int rows; /* the last block may have fewer than R: it then computes its first one again */

    template <int U> __device__ void load(uint4 (&tiles)[U][R], int from) const {
#pragma unroll
        for (int u = 0; u < U; u++)
            if (from + u * step < end)
#pragma unroll
                for (int r = 0; r < R; r++)
                    tiles[u][r] = load_tile_part(
                        base + (r < rows ? r * row_bytes : 0) + (size_t)(from + u * step) * TERN_TILE_BYTES, lane);
    }
};

template <class Density, class Acts, int R, int NT> struct decode_warp {
    enum { U = AHEAD / R, Asked = Acts::Together / NT, Together = Asked < 1 ? 1 : Asked < U ? Asked : U };
    typedef typename Acts::sum_type sum_type;
    typedef typename Acts::part part;
    typedef typename Acts::value value;

    const value *x[NT]; /* this lane's first column of its row of each eight */
    int last, full;     /* the offset of the last chunk of x, and the tiles that x has whole */

    __device__ decode_warp(const product &p, int m0, int lane) {
        last = p.ldx - TERN_TILE_CHUNK;
        full = p.w.cols / Density::Cols;
#pragma unroll
        for (int t = 0; t < NT; t++)
            x[t] =
                (const value *)p.x + (size_t)min(m0 + 8 * t + lane / 4, p.out.m - 1) * (size_t)p.ldx + lane % 4 * 4;
    }

    __device__ void load_acts(part (&parts)[NT][2 * Density::Chunks], int tile) const {
        const int begin = tile * Density::Cols;
#pragma unroll
        for (int t = 0; t < NT; t++)
            if (tile < full)
                load_parts<part, value, Density, true>(parts[t], x[t] + begin, 0);
            else
                load_parts<part, value, Density, false>(parts[t], x[t] + begin, last - begin);
    }

    /* c += the products of the run's tiles, of which the first U are in `next`. */
    __device__ void sum(sum_type (&c)[R][NT][4], uint4 (&next)[U][R], const tile_run<R> &run) const {
        sum_type ones[NT][4] = {};
        for (int k = run.k; k < run.end; k += U * run.step) {
            uint4 tiles[U][R];
#pragma unroll
            for (int u = 0; u < U; u++)
#pragma unroll
                for (int r = 0; r < R; r++) tiles[u][r] = next[u][r];
            run.load(next, k + U * run.step);
#pragma unroll
            for (int u = 0; u < U; u += Together) {
                part parts[Together][NT][2 * Density::Chunks];
#pragma unroll
                for (int i = 0; i < Together; i++)
                    if (k + (u + i) * run.step < run.end) load_acts(parts[i], k + (u + i) * run.step);
#pragma unroll
                for (int i = 0; i < Together; i++)
                    if (k + (u + i) * run.step < run.end)
                        Acts::template add<Density, R, NT>(c, ones, tiles[u + i], parts[i]);
            }
        }
#pragma unroll
        for (int i = 0; i < R * NT * 4; i++) c[i / 4 / NT][i / 4 % NT][i % 4] -= ones[i / 4 % NT][i % 4];
    }
};

/* ---- the kernel ------------------------------------------------------------------------------------------------ */

/* partial[warp][m][row] */
template <class Sum, int R, int NT>
__device__ static void leave_sums(Sum *partial, const Sum (&c)[R][NT][4], int m_count) {
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
        for (int t = 0; t < NT; t++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int m = 8 * t + lane % 4 * 2 + i % 2, row = r * TERN_TILE_ROWS + lane / 4 + i / 2 * 8;
                if (m < m_count) partial[(warp * m_count + m) * R * TERN_TILE_ROWS + row] = c[r][t][i];
            }
}

template <class Density, class Acts, int R, int NT>
__global__ void __launch_bounds__(512) tern_matmul_decode_cuda(product p) {
    typedef decode_warp<Density, Acts, R, NT> share;
    typedef typename Acts::sum_type sum_type;
    enum { ROWS = R * TERN_TILE_ROWS };
    extern __shared__ __align__(16) uint8_t shared[];
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, warps = (int)blockDim.x / 32;
    const int m0 = (int)blockIdx.y * 8 * NT, m_count = min(8 * NT, p.out.m - m0);
    const int row_tile = (int)blockIdx.x * R, n0 = row_tile * TERN_TILE_ROWS;
    const size_t row_bytes = (size_t)p.w.k_tiles * TERN_TILE_BYTES;
    const tile_run<R> run = {p.w.tiles + (size_t)row_tile * row_bytes,
                             row_bytes,
                             warp,
                             warps,
                             p.w.k_tiles,
                             lane,
                             p.w.row_tiles - row_tile};
    uint4 next[share::U][R];
    run.load(next, run.k);
    let_next_kernel_start();
    wait_for_last_kernel();

    /* What the first output of this thread takes is asked for long before it is needed. */
    const int mine = (int)threadIdx.x, first_n = min(n0 + mine % ROWS, p.w.rows - 1);
    const output_terms early = terms_of(p.out, sum_type(), min(m0 + mine / ROWS, p.out.m - 1), first_n);
    sum_type c[R][NT][4] = {};
    share(p, m0, lane).sum(c, next, run);
    sum_type *partial = (sum_type *)shared;
    leave_sums(partial, c, m_count);
    __syncthreads();
    const auto put = [&](int i, const output_terms &terms) {
        sum_type sum = 0;
        for (int v = 0; v < warps; v++) sum += partial[v * m_count * ROWS + i];
        if (n0 + i % ROWS < p.w.rows)
            put_sum(p.out, m0 + i / ROWS, n0 + i % ROWS, Acts::template finish<Density>(sum), terms);
    };
    if (mine < m_count * ROWS) put(mine, early);
    for (int i = mine + (int)blockDim.x; i < m_count * ROWS; i += (int)blockDim.x)
        put(i, terms_of(p.out, sum_type(), m0 + i / ROWS, min(n0 + i % ROWS, p.w.rows - 1)));
}

/* ---- launching ------------------------------------------------------------------------------------------------- */

static const tern_decode_shape shapes[TERN_DECODE_VARIANTS] = TERN_DECODE_SHAPES;

template <class Density, class Acts, int R, int NT>
static tern_status launch(tern_cuda_context *context, const product &p, int variant, tern_error *err) {
    const auto kernel = tern_matmul_decode_cuda<Density, Acts, R, NT>;
    const int shared = (int)tern_decode_shared_bytes(variant, (size_t)p.out.m);
    const dim3 grid((unsigned)ceil_div(p.w.row_tiles, R), (unsigned)ceil_div(p.out.m, 8 * NT));
    CUDA_TRY(tern_cuda_launch(context, kernel, grid, shapes[variant - 1].warps * 32, shared, 1, p), "cuda-decode",
             err);
    return TERN_OK;
}

template <class Density, class Acts, int R, int WARPS>
static tern_status launch_row(tern_cuda_context *context, const product &p, tern_error *err) {
    const auto kernel = tern_matmul_decode_row_cuda<Density, Acts, R, WARPS>;
    const dim3 grid((unsigned)ceil_div(p.w.row_tiles, R));
    CUDA_TRY(tern_cuda_launch(context, kernel, grid, WARPS * 32, 0, 1, p), "cuda-decode", err);
    return TERN_OK;
}

/* Of one row of tiles, two or three. */
template <class Density, class Acts>
static tern_status launch_one_row(tern_cuda_context *context, const product &p, int variant, tern_error *err) {
    if (shapes[variant - 1].row_tiles == 1) return launch_row<Density, Acts, 1, 8>(context, p, err);
    switch (shapes[variant - 1].warps) {
    case 2: return launch_row<Density, Acts, 2, 2>(context, p, err);
    case 4: return launch_row<Density, Acts, 2, 4>(context, p, err);
    case 8: return launch_row<Density, Acts, 2, 8>(context, p, err);
    case 12: return launch_row<Density, Acts, 3, 12>(context, p, err);
    default: return launch_row<Density, Acts, 2, 16>(context, p, err);
    }
}

template <class Density, int Warps, int R>
static tern_status launch_rows(tern_cuda_context *context, const product &p, int variant, tern_error *err) {
    const auto kernel = tern_matmul_decode_rows_cuda<Density, Warps, R>;
    const int shared = (int)tern_decode_rows_shared_bytes(variant, Density::T5);
    const dim3 grid((unsigned)ceil_div(p.w.row_tiles, R));
    CUDA_TRY(tern_cuda_launch(context, kernel, grid, Warps * 32, shared, 1, p), "cuda-decode", err);
    return TERN_OK;
}

template <class Density>
static tern_status launch_warps(tern_cuda_context *context, const product &p, int variant, tern_error *err) {
    switch (shapes[variant - 1].warps) {
    case 2: return launch_rows<Density, 2, 2>(context, p, variant, err);
    case 4: return launch_rows<Density, 4, 2>(context, p, variant, err);
    case 8: return launch_rows<Density, 8, 2>(context, p, variant, err);
    case 12: return launch_rows<Density, 12, 3>(context, p, variant, err);
    default: return launch_rows<Density, 16, 2>(context, p, variant, err);
    }
}

/* As many rows of tiles as the variant says, where registers allow it. */
template <class Density>
static tern_status launch_int8(tern_cuda_context *context, const product &p, int variant, tern_error *err) {
    const int row_tiles = shapes[variant - 1].row_tiles;
    if (tern_decode_has_rows(variant, TERN_I8, (size_t)p.out.m))
        return launch_warps<Density>(context, p, variant, err);
    if (p.out.m > 16)
        return row_tiles > 1 ? launch<Density, int8_acts, 2, 4>(context, p, variant, err)
                             : launch<Density, int8_acts, 1, 4>(context, p, variant, err);
    if (p.out.m > 8)
        return row_tiles > 1 ? launch<Density, int8_acts, 2, 2>(context, p, variant, err)
                             : launch<Density, int8_acts, 1, 2>(context, p, variant, err);
    return launch<Density, int8_acts, 1, 1>(context, p, variant, err);
}

template <class Density, class Acts>
static tern_status launch_float(tern_cuda_context *context, const product &p, int variant, tern_error *err) {
    if (p.out.m > 8) return launch<Density, Acts, 1, 2>(context, p, variant, err);
    return shapes[variant - 1].row_tiles > 1 ? launch<Density, Acts, 2, 1>(context, p, variant, err)
                                             : launch<Density, Acts, 1, 1>(context, p, variant, err);
}

template <class Density>
static tern_status launch_density(tern_cuda_context *context, const product &p, tern_dtype x_type, int variant,
                                  tern_error *err) {
    if (p.out.m == 1) {
        switch (x_type) {
        case TERN_I8: return launch_one_row<Density, int8_row>(context, p, variant, err);
        case TERN_BF16: return launch_one_row<Density, half_row<true, false>>(context, p, variant, err);
        case TERN_F16: return launch_one_row<Density, half_row<false, false>>(context, p, variant, err);
        default: break;
        }
    }
    switch (x_type) {
    case TERN_I8: return launch_int8<Density>(context, p, variant, err);
    case TERN_BF16: return launch_float<Density, half_acts<true>>(context, p, variant, err);
    case TERN_F16: return launch_float<Density, half_acts<false>>(context, p, variant, err);
    default: return launch_float<Density, float_acts>(context, p, variant, err);
    }
}

tern_status tern_cuda_decode(tern_cuda_context *context, const product &p, tern_dtype x_type, int variant,
                             tern_error *err) {
    if (shapes[variant - 1].splits) return tern_cuda_decode_ring(context, p, x_type, variant, err);
    return p.w.t5 ? launch_density<t5>(context, p, x_type, variant, err)
                  : launch_density<t2>(context, p, x_type, variant, err);
}
