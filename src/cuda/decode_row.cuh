/* One row of activations: the 8 columns of a tensor core's product, which hold rows of activations elsewhere, hold
 * chunks of the one row here. So a lane reads a tile's activations with two loads, chunk g of either half, and not
 * with one a chunk.
 *
 * Chunk i of the weights, the lane's words masked, meets all chunks at once and has sums of its own, c[i]; column i
 * of them is what is wanted. Whatever the sums of a chunk are too large by is therefore put right once, at the
 * end. */
#ifndef TERN_CUDA_DECODE_ROW_CUH
#define TERN_CUDA_DECODE_ROW_CUH

#include "cuda/decode_output.cuh"
#include "cuda/unpack.cuh"

/* (a ^ b) & c: the compiler would share a ^ b. */
__device__ inline uint32_t xor_and(uint32_t a, uint32_t b, uint32_t c) { return lop3<0x28>(a, b, c); }

/* The operands that chunk i of a word is, and what they are: 4^i (trit + 2). */
__device__ inline void masked_codes(t2, uint32_t word, uint32_t (&codes)[4]) {
#pragma unroll
    for (int i = 0; i < 4; i++) codes[i] = xor_and(word, 0xaaaaaaaau, 0x03030303u << 2 * i);
}
/* The number that the digits trit + 1 of the chunks 0 .. i make. The first digit comes out of the number of two, d:
 * bits 5 and 6 of 11 d, in four bytes at once. */
__device__ inline void masked_codes(t5, uint32_t word, uint32_t (&codes)[5]) {
    const uint32_t even = word & 0x00ff00ffu, odd = __byte_perm(word, 0, 0x4341);
    uint32_t power = 9;
#pragma unroll
    for (int i = 1; i < 5; i++, power *= 3) codes[i] = __byte_perm(even * power, odd * power, 0x7351);
    codes[0] = codes[1] * 11 & 0x60606060u;
}

/* What codes and the sum over chunks make of a zero trit. */
__device__ inline int32_t zero_code(t2) { return 2; }
__device__ inline int32_t zero_code(t5) { return 1; }

/* The sum of (trit + zero_code) * x of chunk `i`, a constant: column i of its sums, and of those of the chunk
 * before. */
__device__ inline int32_t chunk_sum(t2, int i, int32_t sum, int32_t) { return sum >> 2 * i; }
__device__ inline int32_t chunk_sum(t5, int i, int32_t sum, int32_t before) {
    return i == 0 ? sum >> 5 : sum - 3 * (i == 1 ? before >> 5 : before);
}

/* Activations: not before the wait for the last kernel, which may be writing them. */
__device__ inline uint32_t load_part(const uint32_t *from) {
    uint32_t v;
    asm volatile("ld.global.u32 %0, [%1];" : "=r"(v) : "l"(from));
    return v;
}
__device__ inline uint2 load_part(const uint2 *from) {
    uint2 v;
    asm volatile("ld.global.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(from));
    return v;
}

struct int8_row {
    typedef int8_t value;
    typedef uint32_t part;
    typedef int32_t sum_type, total_type;
    template <class Density> static constexpr int Sums = Density::Chunks;

    /* total += the sum of what this lane alone has of x: several lanes have the last chunk. */
    template <class Density> __device__ static void count(int32_t &total, const part (&x)[2], int lane) {
        const int ones = lane < 4 * Density::Chunks ? 0x01010101 : 0;
        total = __dp4a((int)x[0], ones, __dp4a((int)x[1], ones, total));
    }
    template <class Density> __device__ static int32_t zeros(int32_t total) {
        return zero_code(Density()) * __reduce_add_sync(0xffffffffu, total);
    }
    template <class Density, int R>
    __device__ static void add(int32_t (&c)[R][Density::Chunks][4], const uint4 (&tile)[R], const part (&x)[2]) {
        enum { N = Density::Chunks };
#pragma unroll
        for (int r = 0; r < R; r++) {
            uint32_t a[4][N];
            masked_codes(Density(), tile[r].x, a[0]);
            masked_codes(Density(), tile[r].y, a[1]);
            masked_codes(Density(), tile[r].z, a[2]);
            masked_codes(Density(), tile[r].w, a[3]);
#pragma unroll
            for (int i = 0; i < N; i++) mma_u8(c[r][i], a[0][i], a[1][i], a[2][i], a[3][i], x[0], x[1]);
        }
    }
    template <class Density> __device__ static int32_t chunk(int i, const int32_t (&c)[Density::Chunks][4], int at) {
        return chunk_sum(Density(), i, c[i][at], i ? c[i - (i > 0)][at] : 0);
    }

    /* 16 bytes of x on their way to shared memory, and what they add to that which is taken away in the end. */
    __device__ static uint4 staged(const uint4 &x) { return x; }
    template <class Density> __device__ static int32_t staged_zeros(const uint4 &x, int) {
        const int ones = 0x01010101;
        return zero_code(Density()) *
               __dp4a((int)x.x, ones, __dp4a((int)x.y, ones, __dp4a((int)x.z, ones, __dp4a((int)x.w, ones, 0))));
    }
};

/* Of a lane's two rows of a tile, the sums over all chunks, in the first two lanes of the four that share them. */
template <class Density, class Acts, class Sum>
__device__ static void add_chunks(Sum (&rows)[2], const Sum (&c)[Acts::template Sums<Density>][4], int lane) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
        Sum sum = 0;
#pragma unroll
        for (int i = 0; i < Density::Chunks; i++) {
            const int at = i % 2 + 2 * half;
            const Sum part = Acts::template chunk<Density>(i, c, at);
            if (lane % 4 == i / 2) sum += part;
        }
        if (Density::Chunks > 4) sum += __shfl_xor_sync(0xffffffffu, sum, 2);
        rows[half] = sum + __shfl_xor_sync(0xffffffffu, sum, 1);
    }
}

/* How many tiles of each of its R rows a warp has on their way, and how many of them at once before the last kernel
 * has ended. Blocks of 16 warps are for matrices that leave multiprocessors idle; elsewhere what the last kernel still
 * reads, and its outputs, would wait behind all that this one asks for. */
template <class Density, class Acts, int R, int WARPS> struct row_shape {
    enum {
        Int8 = sizeof(typename Acts::value) == 1,
        Ahead = R == 1                               ? 8
                : WARPS == 8 && Int8 && !Density::T5 ? 5
                                                     : 4,
        AtOnce = R == 1 || WARPS == 16 ? Ahead
                 : Int8 && Density::T5 ? 3
                                       : 2
    };
};

/* A block has R rows of tiles, its warps share their columns as in tern_matmul_decode_cuda. Every warp has some tiles
 * of each row, and what of x meets them, on its way all the time. A block has no more outputs than threads. */
template <class Density, class Acts, int R, int WARPS>
__global__ void __launch_bounds__(WARPS * 32, 16 / WARPS) tern_matmul_decode_row_cuda(product p) {
    typedef typename Acts::sum_type sum_type;
    typedef typename Acts::part part;
    typedef row_shape<Density, Acts, R, WARPS> shape;
    enum { ROWS = R * TERN_TILE_ROWS, N = Density::Chunks, HALF = N * TERN_TILE_CHUNK, U = shape::Ahead };
    __shared__ sum_type partial[WARPS][ROWS];
    const int mine = (int)threadIdx.x, lane = (int)(threadIdx.x % 32), warp = (int)(threadIdx.x / 32);
    const int row_tile = (int)blockIdx.x * R, n0 = row_tile * TERN_TILE_ROWS, end = p.w.k_tiles;
    const size_t row_bytes = (size_t)end * TERN_TILE_BYTES;
    const uint8_t *tiles = p.w.tiles + (size_t)row_tile * row_bytes;
    const int rows = p.w.row_tiles - row_tile; /* the last block may have fewer than R: it computes its first again */
    const unsigned part_bytes = sizeof(typename Acts::value), own = lane % 4 * 4;
    const unsigned column = min(lane / 4, N - 1) * TERN_TILE_CHUNK + own, last = p.ldx - TERN_TILE_CHUNK + own;

    uint4 tile[U][R];
    part parts[U][2];
    const auto load_tiles = [&](uint4(&to)[R], int k) {
#pragma unroll
        for (int r = 0; r < R; r++)
            to[r] = load_tile_part(tiles + (r < rows ? r * row_bytes : 0) + (size_t)k * TERN_TILE_BYTES, lane);
    };
    const auto x_at = [&](int k, int h) {
        return (const part *)((const uint8_t *)p.x +
                              min((unsigned)k * Density::Cols + h * HALF + column, last) * part_bytes);
    };
#pragma unroll
    for (int u = 0; u < shape::AtOnce; u++)
        if (warp + u * WARPS < end) load_tiles(tile[u], warp + u * WARPS);
    /* Where the first activations are is known before they are there, and worked out while nobody waits for it. */
    const part *first[U][2];
#pragma unroll
    for (int i = 0; i < 2 * U; i++) {
        first[i / 2][i % 2] = x_at(warp + i / 2 * WARPS, i % 2);
        if (sizeof(part) == 4) asm volatile("" : "+l"(first[i / 2][i % 2])); /* halves: no registers to keep them */
    }
#pragma unroll
    for (int u = shape::AtOnce; u < U; u++) {
        /* Nothing is added, blockIdx.y is 0, but the compiler does not know and so waits for the tile. */
        tiles += tile[u - shape::AtOnce][R - 1].w & blockIdx.y;
        if (warp + u * WARPS < end) load_tiles(tile[u], warp + u * WARPS);
    }
    let_next_kernel_start();
    wait_for_last_kernel();
#pragma unroll
    for (int i = 0; i < 2 * U; i++) parts[i / 2][i % 2] = load_part(first[i / 2][i % 2]);
    const int n = n0 + mine % ROWS;
    const output_terms terms = terms_of(p.out, sum_type(), 0, min(n, p.w.rows - 1));

    sum_type c[R][Acts::template Sums<Density>][4] = {};
    typename Acts::total_type total = {};
    for (int k0 = warp; k0 < end; k0 += U * WARPS)
#pragma unroll
        for (int u = 0; u < U; u++) {
            const int k = k0 + u * WARPS, next = k + U * WARPS;
            if (k >= end) break;
            Acts::template count<Density>(total, parts[u], lane);
            Acts::template add<Density, R>(c, tile[u], parts[u]);
            if (next < end) {
                load_tiles(tile[u], next);
                parts[u][0] = load_part(x_at(next, 0));
                parts[u][1] = load_part(x_at(next, 1));
            }
        }

    const sum_type zeros = Acts::template zeros<Density>(total);
#pragma unroll
    for (int r = 0; r < R; r++) {
        sum_type sums[2];
        add_chunks<Density, Acts>(sums, c[r], lane);
        if (lane % 4 < 2)
            partial[warp][r * TERN_TILE_ROWS + lane % 4 * 8 + lane / 4] = (lane % 4 ? sums[1] : sums[0]) - zeros;
    }
    __syncthreads();
    if (mine >= ROWS || n >= p.w.rows) return;
    sum_type sum = 0;
#pragma unroll
    for (int v = 0; v < WARPS; v++) sum += partial[v][mine];
    put_sum(p.out, 0, n, sum, terms);
}

#endif
