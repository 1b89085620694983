#include "gpu/gpu_patches.cuh"

#include "gpu/gpu_divide.cuh"
#include "gpu/gpu_kernels.cuh"
#include "gpu/gpu_windows.cuh"

static const size_t PATCHES = (size_t)128 << 20; /* bytes of a chunk */

gpu_patches gpu_patches_of(const tern_graph *graph, const tern_node *node, size_t group) {
    const tern_shape *in = &tern_node_input(graph, node, 0)->shape;
    gpu_patches p = {};
    p.h = in->dim[0];
    p.w = in->dim[1];
    p.c = in->dim[2];
    p.oh = node->shape.dim[0];
    p.ow = node->shape.dim[1];
    p.kernel = node->at.kernel;
    p.stride = tern_min_size(node->at.stride, GPU_DIVIDE_MOST); /* a longer one has a single window too */
    p.padding = node->at.padding;
    p.channels = p.c / (node->at.groups ? node->at.groups : 1);
    p.first_channel = group * p.channels;
    return p;
}

size_t gpu_patches_images(const gpu_patches *p, size_t k, size_t element_bytes, size_t batch) {
    const size_t fit = PATCHES / (p->oh * p->ow * k * element_bytes);
    return fit && batch ? tern_min_size(fit, batch) : 1;
}

tern_status gpu_patches_too_large(const tern_gpu_plan *plan, size_t node, tern_error *err) {
    return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE, "%s: the image or window is too large for a GPU",
                     gpu_graph_node(plan, node)->name);
}

/* ---- from images; channels are counted in units of several elements, which are copied or become another type */

struct taking {
    gpu_divisor row, units, kernel, ow, oh; /* units of a row and its padding, and of a group's channels */
    uint32_t h, w, stride, padding;
    uint32_t first_unit;
    size_t pixel; /* units of all channels */
};

template <class U> struct copied {
    using from = U;
    using to = U;
    __device__ U operator()(const U &v, size_t) const { return v; }
};

/* q, or q / s with the image's own s. */
template <class T, int N> struct widened {
    using from = gpu_few<int8_t, N>;
    using to = gpu_few<T, N>;
    const float *inv_scale; /* of the first image; NULL: 1 */
    __device__ to operator()(const from &v, size_t image) const {
        const float factor = inv_scale ? inv_scale[image] : 1.0f;
        to out;
#pragma unroll
        for (int j = 0; j < N; j++) out.v[j] = from_float<T>((float)v.v[j] * factor);
        return out;
    }
};

template <class F>
__global__ static void take(typename F::to *__restrict__ to, const typename F::from *__restrict__ images, taking t,
                            uint32_t first, size_t n, F f) {
    GPU_FOR(i, n) {
        uint32_t place = (uint32_t)i, ky = gpu_split(&place, t.row);
        const uint32_t unit = gpu_split(&ky, t.units), kx = gpu_split(&ky, t.kernel);
        place += first;
        const uint32_t ox = gpu_split(&place, t.ow), oy = gpu_split(&place, t.oh);
        const uint32_t x = ox * t.stride + kx - t.padding,
                       y = oy * t.stride + ky - t.padding; /* wrap where negative */
        typename F::to v = {};
        if (ky < t.kernel.d && x < t.w && y < t.h)
            v = f(images[(((size_t)place * t.h + y) * t.w + x) * t.pixel + t.first_unit + unit], place);
        to[i] = v;
    }
}

/* Rows of `row` units, N elements a unit. */
static tern_status describe_taking(taking *t, const tern_gpu_plan *plan, size_t node, const gpu_patches *p,
                                   size_t row, size_t n, tern_error *err) {
    if (row > GPU_DIVIDE_MOST || p->oh * p->ow > GPU_DIVIDE_MOST / 2 || p->h * p->w > GPU_DIVIDE_MOST)
        return gpu_patches_too_large(plan, node, err);
    *t = {gpu_divisor_of(row),
          gpu_divisor_of(p->channels / n),
          gpu_divisor_of(p->kernel),
          gpu_divisor_of(p->ow),
          gpu_divisor_of(p->oh),
          (uint32_t)p->h,
          (uint32_t)p->w,
          (uint32_t)p->stride,
          (uint32_t)p->padding,
          (uint32_t)(p->first_channel / n),
          p->c / n};
    return TERN_OK;
}

/* f(first image): what makes units of it and the images behind it. */
template <int N, class Make>
static tern_status take_units(tern_gpu_plan *plan, size_t node, const gpu_patches *p, void *to, size_t ld,
                              const void *images, size_t first, size_t rows, Make make, tern_error *err) {
    using F = decltype(make((size_t)0));
    const size_t pixel = p->c / N, row = ld / N, places = p->oh * p->ow;
    taking t;
    GPU_CHECK(describe_taking(&t, plan, node, p, row, N, err));
    for (size_t done = 0, now; done < rows; done += now) {
        const size_t image = (first + done) / places, before = (first + done) % places;
        now = tern_min_size(tern_min_size(rows - done, GPU_DIVIDE_MOST / row), GPU_DIVIDE_MOST - before);
        const size_t n = now * row;
        take<F><<<gpu_blocks(plan, n, 2), GPU_THREADS, 0, plan->stream>>>(
            (typename F::to *)to + done * row, (const typename F::from *)images + image * p->h * p->w * pixel, t,
            (uint32_t)before, n, make(image));
        GPU_LAUNCHED(plan, node, err);
    }
    return TERN_OK;
}

/* Patches of a few values, as those of an image of three colours, whose pixels are no whole units: 16 bytes of a row
 * at a time, gathered by a table of what its values are. */
enum { MOST_SCATTERED = 256 };

template <class E>
__global__ static void __launch_bounds__(GPU_THREADS)
    take_scattered(E *__restrict__ to, const E *__restrict__ images, taking t, uint32_t channels, uint32_t values,
                   uint32_t first, size_t n) {
    constexpr uint32_t N = 16 / sizeof(E);
    __shared__ uint16_t where[MOST_SCATTERED][3]; /* y, x, channel */
    for (uint32_t j = threadIdx.x; j < values; j += GPU_THREADS) {
        where[j][0] = (uint16_t)(j / channels / t.kernel.d);
        where[j][1] = (uint16_t)(j / channels % t.kernel.d);
        where[j][2] = (uint16_t)(t.first_unit + j % channels);
    }
    __syncthreads();
    GPU_FOR(i, n) {
        uint32_t place = (uint32_t)i;
        const uint32_t begin = gpu_split(&place, t.row) * N;
        place += first;
        const uint32_t ox = gpu_split(&place, t.ow), oy = gpu_split(&place, t.oh);
        const uint32_t top = oy * t.stride - t.padding, left = ox * t.stride - t.padding; /* wrap where negative */
        const E *image = images + (size_t)place * t.h * t.w * t.pixel;
        gpu_few<E, N> out;
#pragma unroll
        for (uint32_t e = 0; e < N; e++) {
            const uint32_t j = begin + e, y = top + where[j < values ? j : 0][0],
                           x = left + where[j < values ? j : 0][1];
            const bool inside = j < values && y < t.h && x < t.w;
            out.v[e] = inside ? image[((size_t)y * t.w + x) * t.pixel + where[j][2]] : E(0);
        }
        ((gpu_few<E, N> *)to)[i] = out;
    }
}

static bool can_scatter(const gpu_patches *p, size_t ld, size_t bytes, const void *to) {
    return p->kernel * p->kernel * p->channels <= MOST_SCATTERED && p->c < UINT16_MAX && ld * bytes % 16 == 0 &&
           (size_t)to % 16 == 0;
}

template <class E>
static tern_status take_by_table(tern_gpu_plan *plan, size_t node, const gpu_patches *p, void *to, size_t ld,
                                 const void *images, size_t first, size_t rows, tern_error *err) {
    const size_t row = ld / (16 / sizeof(E)), places = p->oh * p->ow;
    taking t;
    GPU_CHECK(describe_taking(&t, plan, node, p, row, 1, err));
    for (size_t done = 0, now; done < rows; done += now) {
        const size_t image = (first + done) / places, before = (first + done) % places;
        now = tern_min_size(tern_min_size(rows - done, GPU_DIVIDE_MOST / row), GPU_DIVIDE_MOST - before);
        const size_t n = now * row;
        take_scattered<E><<<gpu_blocks(plan, n, 2), GPU_THREADS, 0, plan->stream>>>(
            (E *)to + done * ld, (const E *)images + image * p->h * p->w * p->c, t, (uint32_t)p->channels,
            (uint32_t)(p->kernel * p->kernel * p->channels), (uint32_t)before, n);
        GPU_LAUNCHED(plan, node, err);
    }
    return TERN_OK;
}

/* Units of N elements of `bytes` each begin where N * bytes divides. */
static bool divides(size_t n, const gpu_patches *p, size_t ld, size_t bytes, const void *array) {
    return p->channels % n == 0 && p->c % n == 0 && ld % n == 0 && (size_t)array % (n * bytes) == 0;
}

template <class E>
static tern_status copy_units(tern_gpu_plan *plan, size_t node, const gpu_patches *p, void *to, size_t ld,
                              const void *images, size_t first, size_t rows, tern_error *err) {
    const auto fits = [&](size_t n) {
        return divides(n, p, ld, sizeof(E), to) && divides(n, p, ld, sizeof(E), images);
    };
    if (fits(16 / sizeof(E)))
        return take_units<16 / sizeof(E)>(
            plan, node, p, to, ld, images, first, rows, [](size_t) { return copied<uint4>(); }, err);
    if (fits(8 / sizeof(E)))
        return take_units<8 / sizeof(E)>(
            plan, node, p, to, ld, images, first, rows, [](size_t) { return copied<uint2>(); }, err);
    if (fits(4 / sizeof(E)))
        return take_units<4 / sizeof(E)>(
            plan, node, p, to, ld, images, first, rows, [](size_t) { return copied<uint32_t>(); }, err);
    if (can_scatter(p, ld, sizeof(E), to)) return take_by_table<E>(plan, node, p, to, ld, images, first, rows, err);
    return take_units<1>(
        plan, node, p, to, ld, images, first, rows, [](size_t) { return copied<E>(); }, err);
}

tern_status gpu_patches_take(tern_gpu_plan *plan, size_t node, const gpu_patches *p, size_t element_bytes, void *to,
                             size_t ld, const void *images, size_t first, size_t rows, tern_error *err) {
    const auto take_by = element_bytes == 1   ? copy_units<uint8_t>
                         : element_bytes == 2 ? copy_units<uint16_t>
                                              : copy_units<uint32_t>;
    return take_by(plan, node, p, to, ld, images, first, rows, err);
}

template <class T, int N>
static tern_status widen_units(tern_gpu_plan *plan, size_t node, const gpu_patches *p, void *to, size_t ld,
                               const int8_t *q, const float *inv_scale, size_t first, size_t rows, tern_error *err) {
    const auto make = [=](size_t image) { return widened<T, N>{inv_scale ? inv_scale + image : NULL}; };
    return take_units<N>(plan, node, p, to, ld, q, first, rows, make, err);
}

tern_status gpu_patches_widen(tern_gpu_plan *plan, size_t node, const gpu_patches *p, tern_dtype type, void *to,
                              size_t ld, const int8_t *q, const float *inv_scale, size_t first, size_t rows,
                              tern_error *err) {
    GPU_BY_TYPE(type, constexpr int N = gpu_pack<T>::N;
                const bool whole = divides(N, p, ld, sizeof(T), to) && divides(N, p, ld, 1, q);
                return whole ? widen_units<T, N>(plan, node, p, to, ld, q, inv_scale, first, rows, err)
                             : widen_units<T, 1>(plan, node, p, to, ld, q, inv_scale, first, rows, err));
    return TERN_OK;
}

/* ---- back to images */

template <class T, int N> struct giving {
    using seen = gpu_sums<N>;
    T *dx;
    const T *patches;
    size_t c, taps, channels;
    int add;
    __device__ void see(seen &s, size_t place, uint32_t tap, uint32_t channel) const {
        const auto v = *(const gpu_few<T, N> *)(patches + (place * taps + tap) * channels + channel);
#pragma unroll
        for (int j = 0; j < N; j++) s.v[j] += to_float(v.v[j]);
    }
    __device__ void give(const seen &s, size_t pixel, uint32_t channel) const {
        gpu_give_sums(dx + pixel * c + channel, s, add);
    }
};

template <class T>
static tern_status give_by(tern_gpu_plan *plan, size_t node, const gpu_patches *p, T *dx, const T *patches,
                           size_t images, int add, tern_error *err) {
    constexpr int N = 16 / sizeof(T);
    const size_t taps = p->kernel * p->kernel;
    dx += p->first_channel;
    if (p->channels % N == 0 && p->c % N == 0 && (size_t)patches % sizeof(gpu_few<T, N>) == 0 &&
        (size_t)dx % alignof(gpu_few<T, N>) == 0) {
        const giving<T, N> f = {dx, patches, p->c, taps, p->channels, add};
        return gpu_windows_run<N, true>(plan, node, p, images, f, err);
    }
    const giving<T, 1> f = {dx, patches, p->c, taps, p->channels, add};
    return gpu_windows_run<1, true>(plan, node, p, images, f, err);
}

tern_status gpu_patches_give(tern_gpu_plan *plan, size_t node, const gpu_patches *p, void *dx, const void *patches,
                             size_t first_image, size_t images, int add, tern_error *err) {
    const size_t first = first_image * p->h * p->w * p->c;
    GPU_BY_TYPE(plan->type, return give_by(plan, node, p, (T *)dx + first, (const T *)patches, images, add, err));
}
