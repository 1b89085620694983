/* Products of int8 on every device: the four-way dot products of 7.5 and newer in place of tensor cores, at most 48
 * KB of shared memory, scales of every kind.
 *
 * A block of 128 threads computes a rectangle of outputs x rows of activations, a tile's columns at a time: weights
 * are unpacked to bytes once for all of the block, both operands lie in shared memory as rows of bytes, and a thread
 * has NT x MT sums, of outputs TN and rows TM apart, so that a warp reads without bank conflicts.
 *
 * With an exponent per group a thread walks its outputs' columns in ascending order and adds float(sum) * 2^e at the
 * end of each group: one thread an output, so that the order is that of docs/numerics.md. One row of activations has
 * too few outputs for that: tiled_row.cuh. */
#include "cuda/epilogue.cuh"
#include "cuda/group_float.cuh"
#include "cuda/tiled_row.cuh"
#include "cuda/unpack.cuh"

enum { THREADS = 128, WARPS = THREADS / 32 };

/* ---- when a group ends ----------------------------------------------------------------------------------------- */

/* No groups: sums of int32 to the end. */
struct whole_rows {
    enum { Groups = 0, Six = 0 };
};
/* Groups end with four columns. */
struct quads {
    enum { Groups = 1, Six = 0 };
};
/* Groups of 6: every other one ends amid four columns. */
struct sixes {
    enum { Groups = 1, Six = 1 };
};

template <class Density, class Ends, int TN, int TM, int NT, int MT> struct tiled_block {
    enum {
        OUTPUTS = TN * NT,
        ROWS = TM * MT, /* of activations */
        CHUNKS = Density::Cols / TERN_TILE_CHUNK,
        PITCH = Density::Cols + 16,            /* bytes from one row to the next, which starts in other banks */
        PARTS = OUTPUTS / TERN_TILE_ROWS * 32, /* 16-byte parts of tiles */
        PIECES = (ROWS * CHUNKS + THREADS - 1) / THREADS,
        MOST_GROUPS = Ends::Groups ? Density::Cols / 4 : 1, /* that one tile's columns touch: groups of 4, or of 6 */
        POWER_PITCH = OUTPUTS + 1,
        LINES = OUTPUTS / WARPS
    };

    struct memory {
        __align__(16) uint8_t w[OUTPUTS][PITCH];
        __align__(16) uint8_t x[ROWS][PITCH];
        float power[MOST_GROUPS][POWER_PITCH]; /* 2^e of the groups that the columns touch */
    };

    /* What comes next, on its way in registers. */
    struct fetched {
        uint4 part, piece[PIECES];
        int exponent[Ends::Groups ? LINES : 1];
    };

    __device__ static void fetch(fetched &f, const product &p, int n0, int m0, int k) {
        const int thread = (int)threadIdx.x, row_tile = min(n0 / TERN_TILE_ROWS + thread / 32, p.w.row_tiles - 1);
        if (thread < PARTS)
            f.part = load_tile_part(
                p.w.tiles + ((size_t)row_tile * (size_t)p.w.k_tiles + (size_t)k) * TERN_TILE_BYTES, thread % 32);
#pragma unroll
        for (int i = 0; i < PIECES; i++) {
            const int at = thread + i * THREADS, row = min(m0 + at / CHUNKS, p.out.m - 1);
            const int column = min(k * Density::Cols + at % CHUNKS * TERN_TILE_CHUNK, p.ldx - TERN_TILE_CHUNK);
            f.piece[i] = *(const uint4 *)((const int8_t *)p.x + (size_t)row * (size_t)p.ldx + column);
        }
        if (Ends::Groups) fetch_exponents(f, p, n0, k);
    }

    /* A warp asks for those of its lines of outputs together, a lane for a group. */
    __device__ static void fetch_exponents(fetched &f, const product &p, int n0, int k) {
        const int group = k * Density::Cols / p.w.group + (int)threadIdx.x % 32;
        if (group >= p.w.groups) return;
#pragma unroll
        for (int i = 0; i < LINES; i++) {
            const int row = min(n0 + (int)threadIdx.x / 32 + i * WARPS, p.w.rows - 1);
            f.exponent[i] = __ldg(p.w.exponents + (size_t)row * (size_t)p.w.groups + group);
        }
    }

    __device__ static void put_codes(memory &s, const uint4 &part) {
        enum { N = Density::Chunks };
        const int lane = (int)threadIdx.x % 32, row = (int)threadIdx.x / 32 * TERN_TILE_ROWS + lane / 4;
        const uint32_t words[4] = {part.x, part.y, part.z, part.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            uint32_t codes[N];
            int8_codes(Density(), words[i], codes);
#pragma unroll
            for (int c = 0; c < N; c++)
                *(uint32_t *)&s.w[row + i % 2 * 8][(i / 2 * N + c) * TERN_TILE_CHUNK + lane % 4 * 4] = codes[c];
        }
    }

    __device__ static void put(memory &s, const fetched &f) {
        if ((int)threadIdx.x < PARTS) put_codes(s, f.part);
#pragma unroll
        for (int i = 0; i < PIECES; i++) {
            const int at = (int)threadIdx.x + i * THREADS;
            if (at < ROWS * CHUNKS) *(uint4 *)&s.x[at / CHUNKS][at % CHUNKS * TERN_TILE_CHUNK] = f.piece[i];
        }
    }

    /* 2^e of the groups that the tile's columns touch; only groups of 4 and t5 have more than a warp has lanes. */
    __device__ static void put_powers(memory &s, const fetched &f, const product &p, int n0, int k) {
        const int first = k * Density::Cols / p.w.group,
                  count = ((k + 1) * Density::Cols - 1) / p.w.group - first + 1;
        const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
        if (lane < count)
#pragma unroll
            for (int i = 0; i < LINES; i++)
                s.power[lane][warp + i * WARPS] =
                    first + lane < p.w.groups ? exp2_of(f.exponent[i] - Density::Shift) : 0.0f;
        for (int g = 32 + lane; g < count; g += 32)
            for (int n = warp; n < OUTPUTS; n += WARPS)
                s.power[g][n] = group_power(p.w, min(n0 + n, p.w.rows - 1), first + g, Density::Shift);
    }

    /* ---- a thread's sums ---- */

    int32_t sum[NT][MT];
    float value[Ends::Groups ? NT : 1][Ends::Groups ? MT : 1]; /* of the groups that have ended */
    int tn, tm, group, left, ended; /* columns of a group, and of the open one to come; groups ended in this tile */
    int32_t start;                  /* of a sum */

    __device__ explicit tiled_block(const product &p) : sum(), value() {
        tn = (int)threadIdx.x % TN;
        tm = (int)threadIdx.x / TN;
        group = left = p.w.group;
        start = Ends::Groups ? float_start(group, Density::Shift) : 0;
        for (int i = 0; i < NT * MT; i++) sum[i / MT][i % MT] = start;
    }

    __device__ void end_group(const memory &s) {
#pragma unroll
        for (int n = 0; n < NT; n++) {
            const float power = s.power[ended][tn + n * TN];
#pragma unroll
            for (int m = 0; m < MT; m++) {
                value[n][m] = __fadd_rn(value[n][m], __fmul_rn(float_of(sum[n][m], start), power));
                sum[n][m] = start;
            }
        }
        ended++;
        left = group;
    }

    __device__ void add(const uint32_t (&w)[NT], const uint32_t (&x)[MT], uint32_t mask) {
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
            for (int m = 0; m < MT; m++) sum[n][m] = __dp4a((int)(w[n] & mask), (int)x[m], sum[n][m]);
    }

    __device__ void add_quad(const memory &s, const uint32_t (&w)[NT], const uint32_t (&x)[MT]) {
        if (Ends::Six && left == 2) {
            add(w, x, 0x0000ffffu);
            end_group(s);
            add(w, x, 0xffff0000u);
            left -= 2;
            return;
        }
        add(w, x, 0xffffffffu);
        if (Ends::Groups && (left -= 4) == 0) end_group(s);
    }

    __device__ void add_tile(const memory &s) {
        ended = 0;
#pragma unroll 1
        for (int chunk = 0; chunk < CHUNKS; chunk++) {
            uint4 w[NT], x[MT];
#pragma unroll
            for (int n = 0; n < NT; n++) w[n] = *(const uint4 *)&s.w[tn + n * TN][chunk * TERN_TILE_CHUNK];
#pragma unroll
            for (int m = 0; m < MT; m++) x[m] = *(const uint4 *)&s.x[tm + m * TM][chunk * TERN_TILE_CHUNK];
#pragma unroll
            for (int q = 0; q < 4; q++) {
                uint32_t wq[NT], xq[MT];
#pragma unroll
                for (int n = 0; n < NT; n++) wq[n] = q < 2 ? (q ? w[n].y : w[n].x) : (q > 2 ? w[n].w : w[n].z);
#pragma unroll
                for (int m = 0; m < MT; m++) xq[m] = q < 2 ? (q ? x[m].y : x[m].x) : (q > 2 ? x[m].w : x[m].z);
                add_quad(s, wq, xq);
            }
        }
    }

    /* ---- outputs ---- */

    struct place {
        int m0, n0, m_end, n_end;
        __device__ int m(int i) const { return m0 + i / NT * TM; }
        __device__ int n(int i) const { return n0 + i % NT * TN; }
        __device__ bool valid(int i) const { return m(i) < m_end && n(i) < n_end; }
    };

    __device__ void put_outputs(const epilogue &out, int n0, int m0) const {
        const place at = {m0 + tm, n0 + tn, out.m, out.rows};
        float v[NT * MT];
#pragma unroll
        for (int i = 0; i < NT * MT; i++) {
            const int m = min(at.m(i), out.m - 1), n = min(at.n(i), out.rows - 1);
            if constexpr (Ends::Groups)
                v[i] = product_of(value[i % NT][i / NT], out.inv_scale[m], bias_of(out, n));
            else
                v[i] = product_of(Density::finish(sum[i % NT][i / NT]), factor_of(out, 0, m, n), bias_of(out, n));
        }
        put_products(v, out, at);
    }
};

template <class Density, class Ends, int TN, int TM, int NT, int MT>
__global__ void __launch_bounds__(THREADS) tern_matmul_tiled_cuda(product p) {
    typedef tiled_block<Density, Ends, TN, TM, NT, MT> block;
    __shared__ typename block::memory shared;
    const int n0 = (int)blockIdx.x * block::OUTPUTS, m0 = (int)blockIdx.y * block::ROWS;
    let_next_kernel_start();
    wait_for_last_kernel();
    typename block::fetched next;
    block::fetch(next, p, n0, m0, 0);
    block mine(p);
    for (int k = 0; k < p.w.k_tiles; k++) {
        __syncthreads(); /* nobody reads the tile before any more */
        block::put(shared, next);
        if (Ends::Groups) block::put_powers(shared, next, p, n0, k);
        if (k + 1 < p.w.k_tiles) block::fetch(next, p, n0, m0, k + 1);
        __syncthreads();
        mine.add_tile(shared);
    }
    if (Ends::Groups && mine.left < mine.group) mine.end_group(shared);
    mine.put_outputs(p.out, n0, m0);
}

/* ---- launching ------------------------------------------------------------------------------------------------- */

static const char op[] = "cuda-tiled";

template <class Density, class Ends, int TN, int TM, int NT, int MT>
static tern_status launch(tern_cuda_context *context, const product &p, tern_error *err) {
    typedef tiled_block<Density, Ends, TN, TM, NT, MT> block;
    const auto kernel = tern_matmul_tiled_cuda<Density, Ends, TN, TM, NT, MT>;
    const dim3 grid((unsigned)ceil_div(p.w.rows, block::OUTPUTS), (unsigned)ceil_div(p.out.m, block::ROWS));
    static_assert(sizeof(typename block::memory) <= TERN_TILED_SHARED_BYTES, "it runs everywhere");
    CUDA_TRY(tern_cuda_launch(context, kernel, grid, THREADS, 0, 1, p), op, err);
    return TERN_OK;
}

template <class Density, int Unit>
static tern_status launch_row(tern_cuda_context *context, const product &p, tern_error *err) {
    const auto kernel = tern_matmul_tiled_row_cuda<Density, Unit>;
    static_assert(sizeof(typename tiled_row<Density, Unit>::memory) <= TERN_TILED_SHARED_BYTES, "it runs everywhere");
    CUDA_TRY(tern_cuda_launch(context, kernel, dim3((unsigned)p.w.row_tiles), TILED_ROW_THREADS, 0, 1, p), op, err);
    return TERN_OK;
}

/* In the order of TERN_TILED_SHAPES. */
template <class Density, class Ends>
static tern_status launch_variant(tern_cuda_context *context, const product &p, int variant, tern_error *err) {
    switch (variant) {
    case 1: return launch<Density, Ends, 16, 8, 4, 8>(context, p, err);
    case 2: return launch<Density, Ends, 16, 8, 4, 4>(context, p, err);
    case 3: return launch<Density, Ends, 16, 8, 2, 2>(context, p, err);
    case 4: return launch<Density, Ends, 16, 8, 2, 1>(context, p, err);
    default:
        return p.w.group % 16 ? launch_row<Density, 4>(context, p, err) : launch_row<Density, 16>(context, p, err);
    }
}

template <class Density>
static tern_status launch_ends(tern_cuda_context *context, const product &p, int variant, tern_error *err) {
    if (!p.w.exponents) return launch_variant<Density, whole_rows>(context, p, variant, err);
    return p.w.group == 6 ? launch_variant<Density, sixes>(context, p, variant, err)
                          : launch_variant<Density, quads>(context, p, variant, err);
}

tern_status tern_cuda_tiled(tern_cuda_context *context, const product &p, tern_dtype, int variant, tern_error *err) {
    return p.w.t5 ? launch_ends<t5>(context, p, variant, err) : launch_ends<t2>(context, p, variant, err);
}
