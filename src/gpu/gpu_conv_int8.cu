/* Convolutions of int8 activations with trits in training, of tiles that are gathered from images: the integers that
 * the packed product of patches has, and its epilogue. The trits are int8 here. */
#include "gpu/gpu_conv_int8.cuh"

#include "cuda/epilogue.cuh"
#include "gpu/gpu_conv_tiles.cuh"

#define SUMS_4(c, i) "+r"(c[i]), "+r"(c[i + 1]), "+r"(c[i + 2]), "+r"(c[i + 3])
#define SUMS_16(c, i) SUMS_4(c, i), SUMS_4(c, i + 4), SUMS_4(c, i + 8), SUMS_4(c, i + 12)

/* c[64][N] += a[64][32] b[N][32]^T of tiles in shared memory. */
__device__ static void multiply_tiles(int32_t (&c)[16], uint64_t a, uint64_t b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n32k32.s32.s8.s8 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, "
                 "%16, %17, 1;"
                 : SUMS_16(c, 0)
                 : "l"(a), "l"(b));
}
__device__ static void multiply_tiles(int32_t (&c)[32], uint64_t a, uint64_t b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k32.s32.s8.s8 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
                 "%32, %33, 1;"
                 : SUMS_16(c, 0), SUMS_16(c, 16)
                 : "l"(a), "l"(b));
}
__device__ static void multiply_tiles(int32_t (&c)[64], uint64_t a, uint64_t b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k32.s32.s8.s8 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
                 "%64, %65, 1;"
                 : SUMS_16(c, 0), SUMS_16(c, 16), SUMS_16(c, 32), SUMS_16(c, 48)
                 : "l"(a), "l"(b));
}
#undef SUMS_4
#undef SUMS_16

template <int COPY> struct int8_operand : operand_of<int8_t, COPY> {
    template <int TURNED, class Sums> __device__ static void multiply(Sums &c, uint64_t a, uint64_t b) {
        multiply_tiles(c, a, b);
    }
};

template <int COPY, class Block>
__global__ static void __launch_bounds__((Block::THREADS), (Block::BLOCKS))
    multiply_places(const __grid_constant__ place_product<int8_operand<COPY>> p, const gpu_conv_scales s) {
    const uint32_t n0 = first_output<Block>(p), first = first_place<Block>(p);
    int32_t c[Block::OUTPUTS / 2] = {};
    multiply_windows<int8_operand<COPY>, Block, filters<int8_operand<COPY>, Block>>(c, p, n0, first);
    float by_image[2];
#pragma unroll
    for (uint32_t half = 0; half < 2; half++) {
        uint32_t image = min(first + threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4 + half * 8, p.g.places - 1);
        gpu_split(&image, p.g.ow);
        gpu_split(&image, p.g.oh);
        by_image[half] = s.by_image[image];
    }
    write_places<Block>(p, n0, first, [&](uint32_t i, uint32_t half, uint32_t column) {
        const uint32_t n = min(n0 + column, p.n - 1);
        const float factor = __fmul_rn(s.by_output[s.one_output ? 0 : n], by_image[half]);
        return product_of(c[i], factor, s.bias ? s.bias[n] : -0.0f);
    });
}

/* ---- */

template <int COPY>
static tern_status choose(tern_gpu_plan *plan, size_t node, const gpu_conv *c, void *y, const int8_t *q,
                          const int8_t *trits, const gpu_conv_scales &s, tern_error *err) {
    typedef int8_operand<COPY> operand;
    place_product<operand> p = {};
    p.g = windows_over(c->images, c->h, c->w, c->c, c->oh, c->ow, c->kernel, c->padding, operand::WIDE);
    p.images = q;
    p.b = trits;
    p.y = (bf16 *)y;
    p.n = (uint32_t)c->outputs;
    p.ldb = p.g.k;
    return choose_block(plan, p, [&](auto block) {
        using Block = decltype(block);
        return run_places<Block>(plan, node, multiply_places<COPY, Block>, p, s, err);
    });
}

tern_status gpu_conv_int8_forward(tern_gpu_plan *plan, size_t node, const gpu_conv *conv, void *y, const int8_t *q,
                                  const int8_t *trits, const gpu_conv_scales *scales, tern_error *err) {
    return (conv->c % 16 ? choose<8> : choose<16>)(plan, node, conv, y, q, trits, *scales, err);
}

__global__ static void take_signs(int8_t *trits, const bf16 *weights, size_t n) {
    GPU_FOR(i, n / 8) {
        const gpu_pack<bf16> w = ((const gpu_pack<bf16> *)weights)[i];
        gpu_few<int8_t, 8> t;
#pragma unroll
        for (int j = 0; j < 8; j++) t.v[j] = (int8_t)((to_float(w.v[j]) > 0) - (to_float(w.v[j]) < 0));
        ((gpu_few<int8_t, 8> *)trits)[i] = t;
    }
}

tern_status gpu_conv_int8_trits(tern_gpu_plan *plan, size_t node, int8_t *trits, const void *weights, size_t n,
                                tern_error *err) {
    take_signs<<<gpu_blocks(plan, n, 8), GPU_THREADS, 0, plan->stream>>>(trits, (const bf16 *)weights, n);
    GPU_LAUNCHED(plan, node, err);
    return TERN_OK;
}
