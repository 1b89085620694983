#include "gpu/gpu_patches.cuh"

#include "gpu/gpu_divide.cuh"
#include "gpu/gpu_kernels.cuh"
#include "gpu/gpu_windows.cuh"

static const size_t PATCHES = (size_t)128 << 20; /* bytes of a chunk */

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

gpu_patches gpu_patches_of(const tern_graph *graph, const tern_node *node, size_t group) {
    const tern_shape *in = &tern_node_input(graph, node, 0)->shape;
    gpu_patches p = {};
    p.h = in->dim[0];
    p.w = in->dim[1];
    p.c = in->dim[2];
    p.oh = node->shape.dim[0];
    p.ow = node->shape.dim[1];
    p.kernel = node->at.kernel;
    p.stride = least(node->at.stride, GPU_DIVIDE_MOST); /* a longer one has a single window too */
    p.padding = node->at.padding;
    p.channels = p.c / (node->at.groups ? node->at.groups : 1);
    p.first_channel = group * p.channels;
    return p;
}

size_t gpu_patches_images(const gpu_patches *p, size_t k, size_t element_bytes, size_t batch) {
    const size_t fit = PATCHES / (p->oh * p->ow * k * element_bytes);
    return fit && batch ? least(fit, batch) : 1;
}

tern_status gpu_patches_too_large(const tern_gpu_plan *plan, size_t node, tern_error *err) {
    return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE, "%s: the image or window is too large for a GPU",
                     gpu_graph_node(plan, node)->name);
}

/* ---- from images; channels are counted in units of 1 to 16 bytes, whatever their elements are */

struct taking {
    gpu_divisor units, kernel, ow, oh; /* units of a group's channels */
    uint32_t h, w, stride, padding;
    uint32_t first_unit;
    size_t pixel; /* units of all channels */
};

template <class U>
__global__ static void take(U *__restrict__ to, const U *__restrict__ images, taking t, uint32_t first, size_t n) {
    GPU_FOR(i, n) {
        uint32_t left = (uint32_t)i;
        const uint32_t unit = gpu_split(&left, t.units);
        const uint32_t kx = gpu_split(&left, t.kernel), ky = gpu_split(&left, t.kernel);
        left += first;
        const uint32_t ox = gpu_split(&left, t.ow), oy = gpu_split(&left, t.oh);
        const uint32_t x = ox * t.stride + kx - t.padding,
                       y = oy * t.stride + ky - t.padding; /* wrap where negative */
        U v = {};
        if (x < t.w && y < t.h) v = images[(((size_t)left * t.h + y) * t.w + x) * t.pixel + t.first_unit + unit];
        to[i] = v;
    }
}

template <class U>
static tern_status take_units(tern_gpu_plan *plan, size_t node, const gpu_patches *p, size_t element_bytes, void *to,
                              const void *images, size_t first, size_t rows, tern_error *err) {
    const size_t units = p->channels * element_bytes / sizeof(U), pixel = p->c * element_bytes / sizeof(U);
    const size_t row = p->kernel * p->kernel * units, places = p->oh * p->ow;
    if (row > GPU_DIVIDE_MOST || places > GPU_DIVIDE_MOST / 2 || p->h * p->w > GPU_DIVIDE_MOST)
        return gpu_patches_too_large(plan, node, err);
    const taking t = {gpu_divisor_of(units),
                      gpu_divisor_of(p->kernel),
                      gpu_divisor_of(p->ow),
                      gpu_divisor_of(p->oh),
                      (uint32_t)p->h,
                      (uint32_t)p->w,
                      (uint32_t)p->stride,
                      (uint32_t)p->padding,
                      (uint32_t)(p->first_channel * element_bytes / sizeof(U)),
                      pixel};
    for (size_t done = 0, now; done < rows; done += now) {
        const size_t image = (first + done) / places, before = (first + done) % places;
        now = least(least(rows - done, GPU_DIVIDE_MOST / row), GPU_DIVIDE_MOST - before);
        const size_t n = now * row;
        take<<<gpu_blocks(plan, n, 2), GPU_THREADS, 0, plan->stream>>>(
            (U *)to + done * row, (const U *)images + image * p->h * p->w * pixel, t, (uint32_t)before, n);
        GPU_LAUNCHED(plan, node, err);
    }
    return TERN_OK;
}

/* All that tells where an element lies is a multiple of `bytes`. */
static bool divides(size_t bytes, const gpu_patches *p, size_t element_bytes, const void *to, const void *images) {
    return p->channels * element_bytes % bytes == 0 && p->c * element_bytes % bytes == 0 && (size_t)to % bytes == 0 &&
           (size_t)images % bytes == 0;
}

tern_status gpu_patches_take(tern_gpu_plan *plan, size_t node, const gpu_patches *p, size_t element_bytes, void *to,
                             const void *images, size_t first, size_t rows, tern_error *err) {
    const auto take_by = divides(16, p, element_bytes, to, images)  ? take_units<uint4>
                         : divides(4, p, element_bytes, to, images) ? take_units<uint32_t>
                         : element_bytes == 2                       ? take_units<uint16_t>
                                                                    : take_units<uint8_t>;
    return take_by(plan, node, p, element_bytes, to, images, first, rows, err);
}

/* ---- back to images */

template <class T, class V, int N> struct giving {
    using seen = gpu_sums<N>;
    T *dx;
    const V *patches;
    size_t c, taps, channels;
    int add;
    __device__ void see(seen &s, size_t place, uint32_t tap, uint32_t channel) const {
        const auto v = *(const gpu_few<V, N> *)(patches + (place * taps + tap) * channels + channel);
#pragma unroll
        for (int j = 0; j < N; j++) s.v[j] += to_float(v.v[j]);
    }
    __device__ void give(const seen &s, size_t pixel, uint32_t channel) const {
        gpu_give_sums(dx + pixel * c + channel, s, add);
    }
};

template <class T, class V>
static tern_status give_by(tern_gpu_plan *plan, size_t node, const gpu_patches *p, T *dx, const V *patches,
                           size_t images, int add, tern_error *err) {
    constexpr int N = 16 / sizeof(V);
    const size_t taps = p->kernel * p->kernel;
    dx += p->first_channel;
    if (p->channels % N == 0 && p->c % N == 0 && (size_t)patches % sizeof(gpu_few<V, N>) == 0 &&
        (size_t)dx % alignof(gpu_few<T, N>) == 0) {
        const giving<T, V, N> f = {dx, patches, p->c, taps, p->channels, add};
        return gpu_windows_run<N, true>(plan, node, p, images, f, err);
    }
    const giving<T, V, 1> f = {dx, patches, p->c, taps, p->channels, add};
    return gpu_windows_run<1, true>(plan, node, p, images, f, err);
}

tern_status gpu_patches_give(tern_gpu_plan *plan, size_t node, const gpu_patches *p, tern_dtype type, void *dx,
                             const void *patches, size_t first_image, size_t images, int add, tern_error *err) {
    const size_t first = first_image * p->h * p->w * p->c;
    GPU_BY_TYPE(
        plan->type, if (type == TERN_F32) return give_by(plan, node, p, (T *)dx + first, (const float *)patches,
                                                         images, add, err);
        else return give_by(plan, node, p, (T *)dx + first, (const __nv_bfloat16 *)patches, images, add, err));
}
