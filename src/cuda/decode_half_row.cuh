/* One row of halves for decode_row.cuh and decode_ring.cu: chunks of it in the columns of the product.
 *
 * A chunk of the weights has sums of its own, so that its trits need no common scale, and what they are too large by
 * is taken away with the sum of x. They may stay in their word, then, where a mask finds a number. Only the upper
 * bits of a half will do: the tensor cores align products by the exponents of their factors, cut them off some 24
 * bits below the largest, and take a subnormal number for one of 2^-14. */
#ifndef TERN_CUDA_DECODE_HALF_ROW_CUH
#define TERN_CUDA_DECODE_HALF_ROW_CUH

#include "cuda/unpack.cuh"

/* (a & b) ^ c: the compiler would share a ^ c. */
__device__ inline uint32_t and_xor(uint32_t a, uint32_t b, uint32_t c) { return lop3<0x6a>(a, b, c); }

/* The operands that a word's chunks are, `Sums` of them, each in two registers: columns 0 and 2 of the lane's four,
 * then 1 and 3. chunk() is the sum of a chunk, a constant, out of column `at` of their sums: of (trit + Bias) * x where
 * the chunk is one of the first `Biased`, else of trit * x. Staged: the sum of x costs nothing. */
template <class Density, bool Bf16, bool Staged> struct row_operands {
    enum { Sums = Density::Chunks, Biased = 0, Bias = 0 };
    __device__ static void make(uint32_t word, uint32_t (&a)[Sums][2]) { half_codes<Bf16>(Density(), word, a); }
    __device__ static float chunk(int i, const float (&c)[Sums][4], int at) {
        return c[i][at] * half_scale(Density());
    }
};

/* fp16 of t2, from the upper byte of every half. With the last bit turned over a trit is the number 1 - trit: in the
 * upper bits of a subnormal number's significand times 2^-16, in the last ones of the exponent 0, 2^-14 or 2^-13. The
 * others are +-2 as they are. */
template <> struct row_operands<t2, false, true> {
    enum { Sums = t2::Chunks, Biased = 2, Bias = -1 };
    __device__ static void make(uint32_t word, uint32_t (&a)[Sums][2]) {
#pragma unroll
        for (int j = 0; j < 2; j++) {
            const uint32_t upper = j ? word : word << 8;
            a[0][j] = and_xor(upper, 0x03000300u, 0x01000100u);
            a[1][j] = and_xor(upper, 0x0c000c00u, 0x04000400u);
            a[2][j] = upper << 2 & 0xc000c000u;
            a[3][j] = upper & 0xc000c000u;
        }
    }
    __device__ static float chunk(int i, const float (&c)[Sums][4], int at) {
        return c[i][at] * (i == 0 ? -0x1p16f : i == 1 ? -0x1p14f : 0.5f);
    }
};

/* fp16 of t5. A byte is a fraction in 256ths; of three times that, what is above 256 is the first digit, the rest the
 * next fraction. So a digit's sum is the difference of the sums of two fractions, which are subnormal numbers times
 * 2^-24, and only the last digit is an operand itself. */
template <bool Staged> struct row_operands<t5, false, Staged> {
    enum { N = t5::Chunks, Sums = N + 1, Biased = N, Bias = 1 };
    __device__ static void make(uint32_t word, uint32_t (&a)[Sums][2]) {
        a[0][0] = word & 0x00ff00ffu;
        a[0][1] = __byte_perm(word, 0, 0x4341);
#pragma unroll
        for (int i = 1; i <= N; i++)
#pragma unroll
            for (int j = 0; j < 2; j++) a[i][j] = 3 * a[i - 1][j] & (i < N ? 0x00ff00ffu : 0x03000300u);
    }
    __device__ static float chunk(int i, const float (&c)[Sums][4], int at) {
        return (i < N - 1 ? 3 * c[i][at] - c[i + 1][at] : c[N][at]) * 0x1p16f;
    }
};

/* Staged: activations in the order of the operands, and what is taken away known. */
template <bool Bf16, bool Staged> struct half_row {
    typedef uint16_t value;
    typedef uint2 part;
    typedef float sum_type;
    struct total_type {
        float c[4]; /* of every column of the product the sum of x */
    };
    template <class Density> using operands = row_operands<Density, Bf16, Staged>;
    template <class Density> static constexpr int Sums = operands<Density>::Sums;

    /* Columns 0 and 2 of four neighbours, then 1 and 3. */
    __device__ static uint2 in_order(uint2 x) {
        return make_uint2(__byte_perm(x.x, x.y, 0x5410), __byte_perm(x.x, x.y, 0x7632));
    }

    /* A row of ones times x. */
    template <class Density> __device__ static void count(total_type &total, const part (&x)[2], int) {
        const uint32_t ones = Bf16 ? 0x3f803f80u : 0x3c003c00u;
        if constexpr (operands<Density>::Biased)
#pragma unroll
            for (int h = 0; h < 2; h++) mma_half<Bf16>(total.c, ones, ones, ones, ones, x[h].x, x[h].y);
    }
    template <class Density> __device__ static float zeros(const total_type &total) {
        enum { Biased = operands<Density>::Biased };
        if constexpr (Biased == 0) return 0;
        const int column = (int)threadIdx.x % 4 * 2;
        float sum = (column < Biased ? total.c[0] : 0) + (column + 1 < Biased ? total.c[1] : 0);
        sum += __shfl_xor_sync(0xffffffffu, sum, 1);
        return operands<Density>::Bias * (sum + __shfl_xor_sync(0xffffffffu, sum, 2));
    }
    template <class Density, int R>
    __device__ static void add(float (&c)[R][Sums<Density>][4], const uint4 (&tile)[R], const part (&x)[2]) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const uint2 b = Staged ? x[h] : in_order(x[h]);
#pragma unroll
            for (int r = 0; r < R; r++) {
                uint32_t a[2][Sums<Density>][2];
                operands<Density>::make(h ? tile[r].z : tile[r].x, a[0]);
                operands<Density>::make(h ? tile[r].w : tile[r].y, a[1]);
#pragma unroll
                for (int i = 0; i < Sums<Density>; i++)
                    mma_half<Bf16>(c[r][i], a[0][i][0], a[1][i][0], a[0][i][1], a[1][i][1], b.x, b.y);
            }
        }
    }
    template <class Density> __device__ static float chunk(int i, const float (&c)[Sums<Density>][4], int at) {
        return operands<Density>::chunk(i, c, at);
    }

    /* 16 bytes of x on their way to shared memory, `at` bytes from the beginning of a tile's, and what they add to
     * that which is taken away in the end. */
    __device__ static uint4 staged(const uint4 &x) {
        const uint2 a = in_order(make_uint2(x.x, x.y)), b = in_order(make_uint2(x.z, x.w));
        return make_uint4(a.x, a.y, b.x, b.y);
    }
    template <class Density> __device__ static float staged_zeros(const uint4 &x, int at) {
        typedef operands<Density> of;
        if (Bf16 || at / (TERN_TILE_CHUNK * (int)sizeof(value)) % Density::Chunks >= of::Biased) return 0;
        const uint32_t words[4] = {x.x, x.y, x.z, x.w};
        float sum = 0;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float2 v = __half22float2(*(const __half2 *)&words[i]);
            sum += v.x + v.y;
        }
        return of::Bias * sum;
    }
};

#endif
