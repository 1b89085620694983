#include "gpu/gpu_patches.cuh"

#include "gpu/gpu_divide.cuh"
#include "gpu/gpu_kernels.cuh"

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
    p.channels = p.c / node->at.groups;
    p.first_channel = group * p.channels;
    return p;
}

size_t gpu_patches_images(const gpu_patches *p, size_t k, size_t element_bytes, size_t batch) {
    const size_t fit = PATCHES / (p->oh * p->ow * k * element_bytes);
    return fit && batch ? least(fit, batch) : 1;
}

static tern_status too_large(const tern_gpu_plan *plan, size_t node, tern_error *err) {
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
        return too_large(plan, node, err);
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

/* ---- back to images: each element gathers, so that nothing is added by two threads */

struct giving {
    gpu_divisor packs, w, h, stride; /* packs of a group's channels */
    uint32_t oh, ow, kernel, padding;
    size_t c, channels;
};

template <class T, class V, int N>
__global__ static void give(T *__restrict__ dx, const V *__restrict__ patches, giving g, int add, size_t n) {
    using to_pack = gpu_few<T, N>;
    using from_pack = gpu_few<V, N>;
    GPU_FOR(i, n) {
        uint32_t left = (uint32_t)i;
        const uint32_t channel = gpu_split(&left, g.packs) * N;
        to_pack *at = (to_pack *)(dx + (size_t)left * g.c + channel);
        uint32_t last_ox = gpu_split(&left, g.w) + g.padding, oy = gpu_split(&left, g.h) + g.padding;
        /* The last window that begins at or before the pixel sees it as its first row or column of those that any does;
         * each window before it, a stride later. Windows' numbers wrap below 0, and then are too large. */
        const uint32_t first_ky = gpu_split(&oy, g.stride), first_kx = gpu_split(&last_ox, g.stride);
        float sum[N] = {};
        for (uint32_t ky = first_ky; ky < g.kernel; ky += g.stride.d, oy--) {
            if (oy >= g.oh) continue;
            uint32_t ox = last_ox;
            for (uint32_t kx = first_kx; kx < g.kernel; kx += g.stride.d, ox--) {
                if (ox >= g.ow) continue;
                const size_t place = ((size_t)left * g.oh + oy) * g.ow + ox;
                const from_pack v =
                    *(const from_pack *)(patches + ((place * g.kernel + ky) * g.kernel + kx) * g.channels + channel);
#pragma unroll
                for (int j = 0; j < N; j++) sum[j] += to_float(v.v[j]);
            }
        }
        to_pack out;
        if (add) out = *at;
#pragma unroll
        for (int j = 0; j < N; j++) out.v[j] = from_float<T>(add ? to_float(out.v[j]) + sum[j] : sum[j]);
        *at = out;
    }
}

template <class T, class V, int N>
static tern_status give_packs(tern_gpu_plan *plan, size_t node, const gpu_patches *p, T *dx, const V *patches,
                              size_t images, int add, tern_error *err) {
    const size_t packs = p->channels / N, image = p->h * p->w * packs;
    if (image > GPU_DIVIDE_MOST) return too_large(plan, node, err);
    const giving g = {gpu_divisor_of(packs),
                      gpu_divisor_of(p->w),
                      gpu_divisor_of(p->h),
                      gpu_divisor_of(p->stride),
                      (uint32_t)p->oh,
                      (uint32_t)p->ow,
                      (uint32_t)p->kernel,
                      (uint32_t)p->padding,
                      p->c,
                      p->channels};
    for (size_t done = 0, now; done < images; done += now) {
        now = least(images - done, GPU_DIVIDE_MOST / image);
        const size_t n = now * image;
        give<T, V, N><<<gpu_blocks(plan, n), GPU_THREADS, 0, plan->stream>>>(
            dx + done * p->h * p->w * p->c, patches + done * p->oh * p->ow * p->kernel * p->kernel * p->channels, g,
            add, n);
        GPU_LAUNCHED(plan, node, err);
    }
    return TERN_OK;
}

template <class T, class V>
static tern_status give_by(tern_gpu_plan *plan, size_t node, const gpu_patches *p, T *dx, const V *patches,
                           size_t images, int add, tern_error *err) {
    constexpr int N = 16 / sizeof(V);
    dx += p->first_channel;
    const bool whole = p->channels % N == 0 && p->c % N == 0 && (size_t)patches % sizeof(gpu_few<V, N>) == 0 &&
                       (size_t)dx % sizeof(gpu_few<T, N>) == 0;
    return whole ? give_packs<T, V, N>(plan, node, p, dx, patches, images, add, err)
                 : give_packs<T, V, 1>(plan, node, p, dx, patches, images, add, err);
}

tern_status gpu_patches_give(tern_gpu_plan *plan, size_t node, const gpu_patches *p, tern_dtype type, void *dx,
                             const void *patches, size_t first_image, size_t images, int add, tern_error *err) {
    const size_t first = first_image * p->h * p->w * p->c;
    GPU_BY_TYPE(
        plan->type, if (type == TERN_F32) return give_by(plan, node, p, (T *)dx + first, (const float *)patches,
                                                         images, add, err);
        else return give_by(plan, node, p, (T *)dx + first, (const __nv_bfloat16 *)patches, images, add, err));
}
