/* Trits from words of a tile into operands of the tensor cores. */
#ifndef TERN_CUDA_UNPACK_CUH
#define TERN_CUDA_UNPACK_CUH

#include "cuda/common.cuh"
#include "cuda/mma_sync.cuh"

/* The bitwise function of three words whose values are Table, in one instruction: bit 4a + 2b + c of it is what bits a, b
 * and c become (PTX, lop3). */
template <int Table> __device__ inline uint32_t lop3(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t d;
    asm("lop3.b32 %0, %1, %2, %3, %4;" : "=r"(d) : "r"(a), "r"(b), "r"(c), "n"(Table));
    return d;
}

/* A density. `Chunks` registers come out of a word, one a chunk; int8_codes gives trits times 2^Shift, and `finish`
 * turns the sum of those, times x, into the sum of trit * x. As halves they are trits times 2^HalfShift. */
struct t2 {
    enum { Chunks = TERN_TILE_CHUNKS_T2, Cols = 2 * TERN_TILE_CHUNK * Chunks, T5 = 0, Shift = 6, HalfShift = 1 };
    __device__ static int32_t finish(int32_t sum) { return sum >> Shift; }
};
struct t5 {
    enum { Chunks = TERN_TILE_CHUNKS_T5, Cols = 2 * TERN_TILE_CHUNK * Chunks, T5 = 1, Shift = 0, HalfShift = 1 };
    __device__ static int32_t finish(int32_t sum) { return sum; }
};

/* Four int8 of 64 * trit for each chunk. */
__device__ inline void int8_codes(t2, uint32_t word, uint32_t (&codes)[4]) {
#pragma unroll
    for (int i = 0; i < 4; i++) codes[i] = word << (6 - 2 * i) & 0xc0c0c0c0u;
}

/* Four bytes of trit + 1 for each chunk. Two bytes at a time are multiplied by 3 and by 9: their upper halves are
 * then the number that the next one or two digits make, the lower halves the fraction that is left. Of two digits the
 * second is the number less three times the first; no byte borrows, every difference is 0, 1 or 2. */
__device__ inline void digits(uint32_t word, uint32_t (&d)[5]) {
    const uint32_t fraction = 0x00ff00ffu;
    uint32_t even = word & fraction, odd = word >> 8 & fraction;
#pragma unroll
    for (int i = 0; i < 5; i += 2) {
        d[i] = __byte_perm(even * 3, odd * 3, 0x7351);
        if (i == 4) break;
        even *= 9;
        odd *= 9;
        d[i + 1] = __byte_perm(even, odd, 0x7351) - 3 * d[i];
        even &= fraction;
        odd &= fraction;
    }
}

/* Four int8 of trit for each chunk: adding 127 to a digit never carries, and the upper bit is then wrong. */
__device__ inline void int8_codes(t5, uint32_t word, uint32_t (&codes)[5]) {
    digits(word, codes);
#pragma unroll
    for (int i = 0; i < 5; i++) codes[i] = (codes[i] + 0x7f7f7f7fu) ^ 0x80808080u;
}

/* A tile's words as the operands A of its products of 32 columns, each in four registers of every lane. */
template <class Density> __device__ inline void int8_operands(uint32_t (&a)[Density::Chunks][4], const uint4 &tile) {
    enum { N = Density::Chunks };
    uint32_t codes[2][2][N];
    int8_codes(Density(), tile.x, codes[0][0]);
    int8_codes(Density(), tile.y, codes[0][1]);
    int8_codes(Density(), tile.z, codes[1][0]);
    int8_codes(Density(), tile.w, codes[1][1]);
#pragma unroll
    for (int k = 0; k < N; k++)
#pragma unroll
        for (int i = 0; i < 4; i++) a[k][i] = codes[(2 * k + i / 2) / N][i % 2][(2 * k + i / 2) % N];
}

/* Halves of a chunk: columns 0 and 2 of the lane's four, then 1 and 3. `half_scale` times their products is right. */
template <bool Bf16> __device__ inline void half_codes(t2, uint32_t word, uint32_t (&codes)[4][2]) {
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 2; j++) codes[i][j] = word << (14 - 8 * j - 2 * i) & 0xc000c000u;
}
template <class Density> __device__ inline float half_scale(Density) { return 1.0f / (1 << Density::HalfShift); }

/* `rest` has a fraction of each of two bytes, in bits 6 to 13 of its halves. Three times that has the next digit in
 * bits 14 and 15; 3 more there makes of 0, 1, 2 the trit in t2's code, as a half twice the trit. What is carried into
 * the upper half lies below its fraction. */
__device__ inline uint32_t next_trits(uint32_t &rest) {
    const uint32_t digits = 3 * rest + 0xc000c000u;
    rest = digits & 0x3fc03fc0u;
    return digits & 0xc000c000u;
}
template <bool Bf16> __device__ inline void half_codes(t5, uint32_t word, uint32_t (&codes)[5][2]) {
    uint32_t rest[2] = {word << 6 & 0x3fc03fc0u, word >> 2 & 0x3fc03fc0u};
#pragma unroll
    for (int i = 0; i < 5; i++)
#pragma unroll
        for (int j = 0; j < 2; j++) codes[i][j] = next_trits(rest[j]);
}

/* Halves chunk by chunk, columns 0 and 1 of the lane's four, then 2 and 3: the order of activations in memory. What
 * is left of a word stays in two registers. */
__device__ inline void open_word(t2, uint32_t word, uint32_t (&rest)[2]) {
    rest[0] = __byte_perm(word, 0, 0x4140);
    rest[1] = __byte_perm(word, 0, 0x4342);
}
template <bool Bf16>
__device__ inline void next_half_codes(t2, int chunk, uint32_t (&rest)[2], uint32_t (&codes)[2]) {
#pragma unroll
    for (int j = 0; j < 2; j++) codes[j] = rest[j] << (14 - 2 * chunk) & 0xc000c000u;
}

__device__ inline void open_word(t5, uint32_t word, uint32_t (&rest)[2]) {
    rest[0] = __byte_perm(word, 0, 0x4140) << 6;
    rest[1] = __byte_perm(word, 0, 0x4342) << 6;
}
template <bool Bf16> __device__ inline void next_half_codes(t5, int, uint32_t (&rest)[2], uint32_t (&codes)[2]) {
#pragma unroll
    for (int j = 0; j < 2; j++) codes[j] = next_trits(rest[j]);
}

/* fp32 is the sum of three bf16, exactly: 8 bits of the significand in each. The parts are cut off, not rounded, so
 * that none overflows. */
__device__ inline void split_float(float v, uint32_t (&bits)[3]) {
#pragma unroll
    for (int i = 0; i < 3; i++) {
        bits[i] = __float_as_uint(v) & 0xffff0000u;
        v -= __uint_as_float(bits[i]);
    }
}

/* A word a lane of a tile, past the L1 cache: nobody else on this multiprocessor reads it. */
__device__ inline uint4 load_tile_part(const uint8_t *tile, int lane) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(tile + lane * 16));
    return v;
}

/* The left operands of R rows of tiles, in halves: words are opened half a tile at a time and give them chunk by
 * chunk. */
template <class Density, bool Bf16, int R> struct half_weights {
    uint32_t rest[R][2][2]; /* of rows g and g + 8 */
    uint32_t a[R][2][2];

    __device__ void open(const uint4 (&tile)[R], int half) {
#pragma unroll
        for (int r = 0; r < R; r++) {
            open_word(Density(), half ? tile[r].z : tile[r].x, rest[r][0]);
            open_word(Density(), half ? tile[r].w : tile[r].y, rest[r][1]);
        }
    }
    __device__ void next(int chunk) {
#pragma unroll
        for (int r = 0; r < R; r++)
#pragma unroll
            for (int i = 0; i < 2; i++) next_half_codes<Bf16>(Density(), chunk, rest[r][i], a[r][i]);
    }
    __device__ void multiply(float (&c)[4], int r, uint32_t b0, uint32_t b1) const {
        mma_half<Bf16>(c, a[r][0][0], a[r][1][0], a[r][0][1], a[r][1][1], b0, b1);
    }
};

#endif
