/* Windows over images, one thread for some channels of a place: what a pool or a small convolution does, and its
 * gradient, gathered by each pixel from the windows that saw it, so that no two threads add to the same number. */
#ifndef TERN_GPU_GPU_WINDOWS_CUH
#define TERN_GPU_GPU_WINDOWS_CUH

#include "gpu/gpu_divide.cuh"
#include "gpu/gpu_kernels.cuh"
#include "gpu/gpu_patches.cuh"

struct gpu_windows {
    gpu_divisor packs, w, h, ow, oh, stride; /* packs of N channels */
    uint32_t kernel, padding;
};

static inline gpu_windows gpu_windows_of(const gpu_patches *p, size_t packs) {
    return {gpu_divisor_of(packs), gpu_divisor_of(p->w),      gpu_divisor_of(p->h), gpu_divisor_of(p->ow),
            gpu_divisor_of(p->oh), gpu_divisor_of(p->stride), (uint32_t)p->kernel,  (uint32_t)p->padding};
}

/* f(pixel, tap): the pixels in the window of place (oy, ox), with their numbers in all images and in the window. */
template <class F>
__device__ inline void gpu_pixels_of(const gpu_windows &g, size_t image, uint32_t oy, uint32_t ox, F f) {
    const uint32_t top = oy * g.stride.d - g.padding, left = ox * g.stride.d - g.padding; /* wrap where negative */
    for (uint32_t ky = 0; ky < g.kernel; ky++) {
        const uint32_t y = top + ky;
        if (y >= g.h.d) continue;
        for (uint32_t kx = 0; kx < g.kernel; kx++) {
            const uint32_t x = left + kx;
            if (x < g.w.d) f((image * g.h.d + y) * g.w.d + x, ky * g.kernel + kx);
        }
    }
}

/* f(place, tap): the windows that saw pixel (y, x), in ascending taps. */
template <class F>
__device__ inline void gpu_places_of(const gpu_windows &g, size_t image, uint32_t y, uint32_t x, F f) {
    /* The last window that begins at or before the pixel has it in the first row and column of any; each window
     * before that a stride later. Windows' numbers wrap below 0, and then are too large. */
    uint32_t oy = y + g.padding, last_ox = x + g.padding;
    const uint32_t first_ky = gpu_split(&oy, g.stride), first_kx = gpu_split(&last_ox, g.stride);
    for (uint32_t ky = first_ky; ky < g.kernel; ky += g.stride.d, oy--) {
        if (oy >= g.oh.d) continue;
        uint32_t ox = last_ox;
        for (uint32_t kx = first_kx; kx < g.kernel; kx += g.stride.d, ox--)
            if (ox < g.ow.d) f((image * g.oh.d + oy) * g.ow.d + ox, ky * g.kernel + kx);
    }
}

/* For every place (with BACK: pixel) and pack of channels: f.see(seen, pixel, tap, channel) for what its window has
 * (with BACK: place, for the windows that saw it), then f.give(seen, place, channel). */
template <int N, bool BACK, class F>
__global__ static void gpu_windows_kernel(gpu_windows g, size_t first, size_t n, F f) {
    GPU_FOR(i, n) {
        uint32_t left = (uint32_t)i;
        const uint32_t channel = gpu_split(&left, g.packs) * N;
        const gpu_divisor &wide = BACK ? g.w : g.ow, &high = BACK ? g.h : g.oh;
        const uint32_t x = gpu_split(&left, wide), y = gpu_split(&left, high);
        const size_t image = first + left;
        typename F::seen seen = {};
        const auto see = [&](size_t from, uint32_t tap) { f.see(seen, from, tap, channel); };
        if (BACK)
            gpu_places_of(g, image, y, x, see);
        else
            gpu_pixels_of(g, image, y, x, see);
        f.give(seen, (image * high.d + y) * wide.d + x, channel);
    }
}

/* Over p->channels of `images` images, N at a time, which must divide them. */
template <int N, bool BACK, class F>
static tern_status gpu_windows_run(tern_gpu_plan *plan, size_t node, const gpu_patches *p, size_t images, F f,
                                   tern_error *err) {
    const size_t packs = p->channels / N, largest = p->h * p->w > p->oh * p->ow ? p->h * p->w : p->oh * p->ow;
    if (largest > GPU_DIVIDE_MOST / packs) return gpu_patches_too_large(plan, node, err);
    const size_t image = (BACK ? p->h * p->w : p->oh * p->ow) * packs, most = GPU_DIVIDE_MOST / image;
    const gpu_windows g = gpu_windows_of(p, packs);
    for (size_t first = 0; first < images; first += most) {
        const size_t n = (images - first < most ? images - first : most) * image;
        gpu_windows_kernel<N, BACK><<<gpu_blocks(plan, n), GPU_THREADS, 0, plan->stream>>>(g, first, n, f);
        GPU_LAUNCHED(plan, node, err);
    }
    return TERN_OK;
}

/* N channels that a functor sums, added to or set. */
template <int N> struct gpu_sums { float v[N]; };
template <class T, int N> __device__ inline void gpu_give_sums(T *to, const gpu_sums<N> &sums, int add) {
    gpu_few<T, N> out;
    if (add) out = *(const gpu_few<T, N> *)to;
#pragma unroll
    for (int j = 0; j < N; j++) out.v[j] = from_float<T>(add ? to_float(out.v[j]) + sums.v[j] : sums.v[j]);
    *(gpu_few<T, N> *)to = out;
}

#endif
