/* Batches made on the device from a data set that lies there: images changed as io/augment.c changes them, from the
 * same random numbers by the same fp32 operations, and windows of a text.
 *
 * The mean grey of contrast is a double sum over pixels. All greys of an image are multiples of one factor and the
 * smallest but 0 is no less than 2^-12 of the largest, so that up to 2^16 pixels the sum is exact in any order, and
 * to the bit the CPU's. */
#include "gpu/gpu_kernels.cuh"
#include "gpu/gpu_trainer.cuh"

extern "C" {
#include "io/augment.h"
}

/* ---- images */

/* How one image is shown: where the window begins in the padded one, and which rectangle is cut out. */
struct view {
    int top, left, flip;
    int cut_top, cut_bottom, cut_left, cut_right;
    float bright, contrast, saturation; /* factors */
};

__device__ static uint32_t below(uint32_t random, uint32_t n) { return (uint32_t)((uint64_t)random * n >> 32); }

__device__ static bool is_flipped(const gpu_image_set &s, uint64_t epoch, uint64_t index) {
    if (s.flip == TERN_FLIP_NONE) return false;
    const bool alternating = s.flip == TERN_FLIP_ALTERNATING;
    const uint64_t counter = tern_draw_counter(TERN_DRAW_FLIP, alternating ? 0 : epoch);
    const bool flipped = tern_philox(s.seed, index, counter).v[0] >> 31;
    return alternating ? flipped != (bool)(epoch & 1) : flipped;
}

__device__ static void place_cutout(view &v, const gpu_image_set &s, const tern_random4 &place) {
    const uint64_t before = s.cutout / 2, after = s.cutout - before, h = (uint64_t)s.height, w = (uint64_t)s.width;
    const uint64_t y = below(place.v[2], (uint32_t)h), x = below(place.v[3], (uint32_t)w);
    v.cut_top = (int)(y > before ? y - before : 0);
    v.cut_bottom = (int)(after < h - y ? y + after : h);
    v.cut_left = (int)(x > before ? x - before : 0);
    v.cut_right = (int)(after < w - x ? x + after : w);
}

/* Uniform in [1 - s, 1 + s), 24 bits. */
__device__ static float color_factor(uint32_t random, float strength) {
    return 1 + strength * (float)((int32_t)(random >> 8) - (1 << 23)) * 0x1p-23f;
}

__device__ static view view_of(const gpu_image_set &s, uint64_t epoch, uint64_t index) {
    view v = {};
    const tern_random4 place = tern_philox(s.seed, index, tern_draw_counter(TERN_DRAW_PLACE, epoch));
    if (s.pad) {
        v.top = (int)below(place.v[0], 2 * (uint32_t)s.pad + 1);
        v.left = (int)below(place.v[1], 2 * (uint32_t)s.pad + 1);
    }
    v.flip = is_flipped(s, epoch, index);
    if (s.cutout) place_cutout(v, s, place);
    if (s.colors) {
        const tern_random4 color = tern_philox(s.seed, index, tern_draw_counter(TERN_DRAW_COLOR, epoch));
        v.bright = color_factor(color.v[0], s.brightness);
        v.contrast = color_factor(color.v[1], s.contrast);
        v.saturation = color_factor(color.v[2], s.saturation);
    }
    return v;
}

/* i counts from the edge of the padded image; -1: black. */
__device__ static int source_of(int i, int pad, int n, int reflect) {
    if (i < pad) return reflect ? pad - i : -1;
    if (i - pad >= n) return reflect ? 2 * (n - 1) - (i - pad) : -1;
    return i - pad;
}

__device__ static float clamp_unit(float v) { return v < 0 ? 0 : v > 1 ? 1 : v; }

template <int C> __device__ static float gray_of(const float *pixel) {
    if constexpr (C == 3)
        return 0.2989f * pixel[0] + 0.587f * pixel[1] + 0.114f * pixel[2];
    else
        return pixel[0];
}

/* Pixel number p of the result, after crop, flip and brightness. */
template <int C>
__device__ static void show_pixel(float *pixel, const gpu_image_set &s, const view &v, const uint8_t *image, int p) {
    const int y = p / s.width, x = p - y * s.width;
    const int row = source_of(v.top + y, s.pad, s.height, s.reflect);
    const int column = source_of(v.left + (v.flip ? s.width - 1 - x : x), s.pad, s.width, s.reflect);
    const bool black = row < 0 || column < 0;
    const uint8_t *from = image + ((size_t)(black ? 0 : row) * s.width + (black ? 0 : column)) * C;
#pragma unroll
    for (int c = 0; c < C; c++) {
        pixel[c] = s.table[c * 256 + (black ? 0 : from[c])];
        if (s.brightness > 0) pixel[c] = clamp_unit(v.bright * pixel[c]);
    }
}

/* What contrast adds; all threads of the block come. */
template <int C> __device__ static float gray_rest(const gpu_image_set &s, const view &v, const uint8_t *image) {
    const int pixels = s.height * s.width;
    float pixel[C];
    double sum = 0;
    for (int p = (int)threadIdx.x; p < pixels; p += (int)blockDim.x) {
        show_pixel<C>(pixel, s, v, image, p);
        sum += (double)gray_of<C>(pixel);
    }
    return (1 - v.contrast) * (float)(block_sum(sum) / (double)pixels);
}

template <int C>
__device__ static void change_colors(float *pixel, const gpu_image_set &s, const view &v, float gray) {
    if (s.contrast > 0)
        for (int c = 0; c < C; c++) pixel[c] = clamp_unit(v.contrast * pixel[c] + gray);
    if (s.saturation > 0) {
        const float rest = (1 - v.saturation) * gray_of<C>(pixel);
        for (int c = 0; c < C; c++) pixel[c] = clamp_unit(v.saturation * pixel[c] + rest);
    }
    for (int c = 0; c < C; c++) pixel[c] = (pixel[c] - s.mean[c]) / s.std[c];
}

/* A block an image. The first one also says which pass this is. */
template <int C, class T>
__global__ static void gather_images(T *out, int32_t *label, gpu_now *now, gpu_image_set s, const int64_t *sample,
                                     const uint64_t *epoch, const gpu_now *this_now) {
    __shared__ view shared_view;
    const uint64_t index = (uint64_t)sample[blockIdx.x];
    const int pixels = s.height * s.width;
    if (threadIdx.x == 0) {
        shared_view = view_of(s, *epoch, index);
        label[blockIdx.x] = s.label[index];
        if (blockIdx.x == 0) *now = *this_now;
    }
    __syncthreads();
    const view v = shared_view;
    const size_t size = (size_t)pixels * C;
    const uint8_t *image = s.image + index * size;
    const float gray = s.contrast > 0 ? gray_rest<C>(s, v, image) : 0;
    out += blockIdx.x * size;
    for (int p = (int)threadIdx.x; p < pixels; p += (int)blockDim.x) {
        float pixel[C] = {};
        const int y = p / s.width, x = p - y * s.width;
        if (y < v.cut_top || y >= v.cut_bottom || x < v.cut_left || x >= v.cut_right) {
            show_pixel<C>(pixel, s, v, image, p);
            if (s.colors) change_colors<C>(pixel, s, v, gray);
        }
#pragma unroll
        for (int c = 0; c < C; c++) out[(size_t)p * C + c] = from_float<T>(pixel[c]);
    }
}

template <int C, class T> static void launch_images(tern_gpu_plan *plan, const int64_t *sample, size_t part) {
    const gpu_trainer *t = plan->trainer;
    gather_images<C><<<(unsigned)plan->batch, GPU_THREADS, 0, plan->stream>>>(
        (T *)plan->input, t->label, plan->now, t->images, sample, t->block.epoch + part, t->block.now + part);
}

static tern_status make_table(tern_gpu_plan *plan, gpu_image_set *s, const tern_gpu_images *d, tern_error *err) {
    float table[3 * 256];
    void *memory;
    for (size_t c = 0; c < d->channels; c++)
        for (int b = 0; b < 256; b++) {
            const double unit = b / 255.0;
            table[c * 256 + b] = s->colors ? (float)unit : (float)((unit - (double)s->mean[c]) / (double)s->std[c]);
        }
    GPU_CHECK(gpu_keep_copy(plan, &memory, table, d->channels * 256 * sizeof(float), "images", err));
    s->table = (const float *)memory;
    return TERN_OK;
}

static tern_status check_images(const tern_gpu_plan *plan, const tern_gpu_images *d, tern_error *err) {
    const tern_node *in = gpu_graph_node(plan, 0), *out = gpu_graph_node(plan, plan->graph->nodes - 1);
    const size_t elements = d->height * d->width * d->channels;
    TERN_CHECK_ARGUMENT((d->channels == 1 || d->channels == 3) && elements == in->elements && elements <= INT32_MAX,
                        err, "images of %zu x %zu x %zu are no input of %zu elements", d->height, d->width,
                        d->channels, in->elements);
    TERN_CHECK_ARGUMENT(out->rows == 1, err, "a label an image, but the output has %zu rows", out->rows);
    for (size_t i = 0; i < d->count; i++)
        TERN_CHECK_ARGUMENT(d->labels[i] >= 0 && (size_t)d->labels[i] < out->channels, err,
                            "image %zu: label %d of %zu", i, (int)d->labels[i], out->channels);
    return TERN_OK;
}

tern_status gpu_trainer_images(tern_gpu_plan *plan, const tern_gpu_images *d, tern_error *err) {
    gpu_trainer *t;
    void *memory;
    gpu_image_set s = {};
    GPU_CHECK(gpu_trainer_of(&t, plan, err));
    GPU_CHECK(check_images(plan, d, err));
    s.seed = d->seed;
    s.height = (int32_t)d->height;
    s.width = (int32_t)d->width;
    s.channels = (int32_t)d->channels;
    s.pad = (int32_t)d->crop_pad;
    s.reflect = d->crop_reflect;
    s.flip = d->flip;
    s.colors = d->brightness > 0 || d->contrast > 0 || d->saturation > 0;
    s.brightness = d->brightness;
    s.contrast = d->contrast;
    s.saturation = d->saturation;
    s.cutout = d->cutout;
    for (size_t c = 0; c < d->channels; c++) {
        s.mean[c] = d->mean[c];
        s.std[c] = d->std[c] == 0 ? 1 : d->std[c];
    }
    GPU_CHECK(make_table(plan, &s, d, err));
    GPU_CHECK(gpu_keep_copy(plan, &memory, d->images, d->count * d->height * d->width * d->channels, "images", err));
    s.image = (const uint8_t *)memory;
    GPU_CHECK(gpu_keep_copy(plan, &memory, d->labels, d->count * sizeof(int32_t), "labels", err));
    s.label = (const int32_t *)memory;
    t->images = s;
    t->token = NULL;
    gpu_trainer_forget_captured(t);
    return TERN_OK;
}

/* ---- texts */

/* Windows of `window` tokens; labels are the tokens behind each. */
__global__ static void gather_windows(int32_t *out, int32_t *label, gpu_now *now, const int32_t *token,
                                      const int64_t *sample, size_t batch, size_t window, const gpu_now *this_now) {
    if (blockIdx.x == 0 && threadIdx.x == 0) *now = *this_now;
    GPU_FOR(i, batch * window) {
        const int32_t *at = token + sample[i / window] + i % window;
        out[i] = at[0];
        label[i] = at[1];
    }
}

tern_status gpu_trainer_tokens(tern_gpu_plan *plan, const int32_t *token, size_t count, tern_error *err) {
    gpu_trainer *t;
    void *memory;
    const tern_node *in = gpu_graph_node(plan, 0), *out = gpu_graph_node(plan, plan->graph->nodes - 1);
    GPU_CHECK(gpu_trainer_of(&t, plan, err));
    TERN_CHECK_ARGUMENT(plan->graph->vocabulary, err, "the graph's input is no text");
    TERN_CHECK_ARGUMENT(in->elements < count && in->elements == out->rows, err,
                        "%zu tokens, windows of %zu, %zu rows of output", count, in->elements, out->rows);
    for (size_t i = 0; i < count; i++)
        TERN_CHECK_ARGUMENT(token[i] >= 0 && (size_t)token[i] < plan->graph->vocabulary &&
                                (size_t)token[i] < out->channels,
                            err, "token %zu is %d, of a vocabulary of %zu", i, (int)token[i], out->channels);
    GPU_CHECK(gpu_keep_copy(plan, &memory, token, count * sizeof *token, "tokens", err));
    t->token = (const int32_t *)memory;
    t->images.image = NULL;
    gpu_trainer_forget_captured(t);
    return TERN_OK;
}

/* ---- both */

tern_status gpu_gather(tern_gpu_plan *plan, size_t part, tern_error *err) {
    const gpu_trainer *t = plan->trainer;
    const gpu_step_block *b = &t->block;
    const int64_t *sample = b->sample + part * plan->batch;
    if (t->token) {
        const size_t window = gpu_graph_node(plan, 0)->elements;
        gather_windows<<<gpu_blocks(plan, plan->batch * window), GPU_THREADS, 0, plan->stream>>>(
            (int32_t *)plan->input, t->label, plan->now, t->token, sample, plan->batch, window, b->now + part);
    } else if (t->images.channels == 3) {
        GPU_BY_TYPE(plan->type, launch_images<3, T>(plan, sample, part));
    } else {
        GPU_BY_TYPE(plan->type, launch_images<1, T>(plan, sample, part));
    }
    CUDA_TRY(cudaGetLastError(), "a batch", err);
    return TERN_OK;
}
