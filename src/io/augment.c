#include "io/augment.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/half.h"
#include "base/random.h"

enum { MAX_PAD = 1 << 15 };

/* ---- checks and tables ----------------------------------------------------------------------------------------- */

static tern_status check_colors(const tern_augment *how, size_t channels, tern_error *err) {
    const float strengths[] = {how->brightness, how->contrast, how->saturation};
    for (size_t i = 0; i < 3; i++)
        TERN_CHECK_ARGUMENT(strengths[i] >= 0 && strengths[i] <= 1, err, "augment.%s = %g is not in 0..1",
                            (const char *[]){"brightness", "contrast", "saturation"}[i], (double)strengths[i]);
    for (size_t c = 0; c < channels; c++) {
        TERN_CHECK_ARGUMENT(tern_f32_is_finite(how->mean[c]), err, "augment.mean[%zu] is not finite", c);
        TERN_CHECK_ARGUMENT(tern_f32_is_finite(how->std[c]) && how->std[c] >= 0, err,
                            "augment.std[%zu] = %g must be finite and not negative", c, (double)how->std[c]);
    }
    return TERN_OK;
}

static int changes_colors(const tern_augment *how) {
    return how->brightness > 0 || how->contrast > 0 || how->saturation > 0;
}

int tern_augment_is_random(const tern_augment *how) {
    return how->crop_pad || how->flip || how->cutout || changes_colors(how);
}

static tern_status check(const tern_augment *how, const tern_dataset_info *info, int evaluate, tern_error *err) {
    TERN_CHECK_ARGUMENT((unsigned)how->flip <= TERN_FLIP_ALTERNATING, err, "augment.flip = %d is none",
                        (int)how->flip);
    TERN_CHECK_ARGUMENT((unsigned)how->crop_padding <= TERN_PADDING_REFLECT, err, "augment.crop_padding = %d is none",
                        (int)how->crop_padding);
    TERN_CHECK_ARGUMENT(how->crop_pad <= MAX_PAD, err, "augment.crop_pad = %zu; at most %d", how->crop_pad, MAX_PAD);
    if (how->crop_padding == TERN_PADDING_REFLECT)
        TERN_CHECK_ARGUMENT(how->crop_pad < tern_min_size(info->height, info->width), err,
                            "augment.crop_pad = %zu: a mirrored edge must be less than %zu x %zu", how->crop_pad,
                            info->height, info->width);
    TERN_TRY(check_colors(how, info->channels, err));
    TERN_CHECK_ARGUMENT(!evaluate || !tern_augment_is_random(how), err,
                        "augment: evaluation takes mean and std only, nothing random");
    return TERN_OK;
}

static float std_of(const tern_augment *how, size_t c) { return how->std[c] == 0 ? 1 : how->std[c]; }

tern_status tern_augmenter_init(tern_augmenter *a, const tern_augment *how, const tern_dataset_info *info,
                                uint64_t seed, int evaluate, tern_error *err) {
    TERN_TRY(check(how, info, evaluate, err));
    *a = (tern_augmenter){
        .how = *how, .height = info->height, .width = info->width, .channels = info->channels, .seed = seed};
    a->columns = calloc(a->width, sizeof *a->columns);
    if (!a->columns) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "memory for rows of %zu", a->width);
    for (size_t c = 0; c < a->channels; c++)
        for (int v = 0; v < 256; v++) {
            double unit = v / 255.0;
            a->table[c][v] =
                changes_colors(how) ? (float)unit : (float)((unit - (double)how->mean[c]) / (double)std_of(how, c));
        }
    return TERN_OK;
}

void tern_augmenter_free(tern_augmenter *a) {
    free(a->columns);
    a->columns = NULL;
}

/* ---- place: crop and flip -------------------------------------------------------------------------------------- */

static size_t below(uint32_t random, size_t n) { return (size_t)((uint64_t)random * n >> 32); }

static int is_flipped(const tern_augmenter *a, uint64_t epoch, uint64_t index) {
    if (a->how.flip == TERN_FLIP_NONE) return 0;
    uint64_t coin = a->how.flip == TERN_FLIP_ALTERNATING ? 0 : epoch;
    int flipped = (int)(tern_philox(a->seed, index, tern_draw_counter(TERN_DRAW_FLIP, coin)).v[0] >> 31);
    return a->how.flip == TERN_FLIP_ALTERNATING ? flipped ^ (int)(epoch & 1) : flipped;
}

/* i counts from the edge of the padded image. What lies on the zero padding gives the nearest pixel. */
static size_t source_of(size_t i, size_t pad, size_t n, tern_padding padding) {
    int reflect = padding == TERN_PADDING_REFLECT;
    if (i < pad) return reflect ? pad - i : 0;
    if (i - pad >= n) return reflect ? 2 * (n - 1) - (i - pad) : n - 1;
    return i - pad;
}

static void show_row_3(float *out, const tern_augmenter *a, const uint8_t *row) {
    for (size_t x = 0; x < a->width; x++) {
        const uint8_t *pixel = row + (size_t)a->columns[x] * 3;
        out[3 * x] = a->table[0][pixel[0]];
        out[3 * x + 1] = a->table[1][pixel[1]];
        out[3 * x + 2] = a->table[2][pixel[2]];
    }
}

static void show_row_1(float *out, const tern_augmenter *a, const uint8_t *row) {
    for (size_t x = 0; x < a->width; x++) out[x] = a->table[0][row[a->columns[x]]];
}

static void black_pixels(float *out, const tern_augmenter *a, size_t count) {
    for (size_t x = 0; x < count; x++)
        for (size_t c = 0; c < a->channels; c++) out[x * a->channels + c] = a->table[c][0];
}

static void place(float *out, tern_augmenter *a, const uint8_t *image, uint64_t epoch, uint64_t index) {
    const size_t h = a->height, w = a->width, row = w * a->channels, pad = a->how.crop_pad;
    const tern_padding padding = a->how.crop_padding;
    size_t top = 0, left = 0;
    if (pad) {
        tern_random4 r = tern_philox(a->seed, index, tern_draw_counter(TERN_DRAW_PLACE, epoch));
        top = below(r.v[0], 2 * pad + 1);
        left = below(r.v[1], 2 * pad + 1);
    }
    const int flip = is_flipped(a, epoch, index);
    for (size_t x = 0; x < w; x++)
        a->columns[x] = (uint32_t)source_of(left + (flip ? w - 1 - x : x), pad, w, padding);
    /* Columns that lie on black padding: so many at the left and at the right of the result. */
    size_t black_left = 0, black_right = 0;
    if (padding == TERN_PADDING_ZERO) {
        black_left = tern_min_size(left < pad ? pad - left : 0, w);
        black_right = tern_min_size(left > pad ? left - pad : 0, w);
        if (flip) {
            size_t t = black_left;
            black_left = black_right;
            black_right = t;
        }
    }
    for (size_t y = 0; y < h; y++, out += row) {
        if (padding == TERN_PADDING_ZERO && (top + y < pad || top + y - pad >= h)) {
            black_pixels(out, a, w);
            continue;
        }
        const uint8_t *source = image + source_of(top + y, pad, h, padding) * row;
        if (a->channels == 3)
            show_row_3(out, a, source);
        else
            show_row_1(out, a, source);
        black_pixels(out, a, black_left);
        black_pixels(out + (w - black_right) * a->channels, a, black_right);
    }
}

/* ---- colour ---------------------------------------------------------------------------------------------------- */

static float clamp_unit(float v) { return v < 0 ? 0 : v > 1 ? 1 : v; }

static float gray_of(const float *pixel, size_t channels) {
    return channels == 3 ? 0.2989f * pixel[0] + 0.587f * pixel[1] + 0.114f * pixel[2] : pixel[0];
}

/* Uniform in [1 - s, 1 + s), 24 bits. */
static float factor(uint32_t random, float strength) {
    return 1 + strength * (float)((int32_t)(random >> 8) - (1 << 23)) * 0x1p-23f;
}

static void change_colors(float *image, const tern_augmenter *a, uint64_t epoch, uint64_t index) {
    const size_t pixels = a->height * a->width, channels = a->channels;
    tern_random4 r = tern_philox(a->seed, index, tern_draw_counter(TERN_DRAW_COLOR, epoch));
    if (a->how.brightness > 0) {
        float f = factor(r.v[0], a->how.brightness);
        for (size_t i = 0; i < pixels * channels; i++) image[i] = clamp_unit(f * image[i]);
    }
    if (a->how.contrast > 0) {
        float f = factor(r.v[1], a->how.contrast);
        double sum = 0;
        for (size_t i = 0; i < pixels; i++) sum += (double)gray_of(image + i * channels, channels);
        float rest = (1 - f) * (float)(sum / (double)pixels);
        for (size_t i = 0; i < pixels * channels; i++) image[i] = clamp_unit(f * image[i] + rest);
    }
    if (a->how.saturation > 0) {
        float f = factor(r.v[2], a->how.saturation);
        for (size_t i = 0; i < pixels; i++) {
            float *pixel = image + i * channels, rest = (1 - f) * gray_of(pixel, channels);
            for (size_t c = 0; c < channels; c++) pixel[c] = clamp_unit(f * pixel[c] + rest);
        }
    }
    for (size_t i = 0; i < pixels; i++)
        for (size_t c = 0; c < channels; c++)
            image[i * channels + c] = (image[i * channels + c] - a->how.mean[c]) / std_of(&a->how, c);
}

/* ---- cutout ---------------------------------------------------------------------------------------------------- */

static void cut_out(float *image, const tern_augmenter *a, uint64_t epoch, uint64_t index) {
    tern_random4 r = tern_philox(a->seed, index, tern_draw_counter(TERN_DRAW_PLACE, epoch));
    const size_t before = a->how.cutout / 2, after = a->how.cutout - before;
    const size_t y = below(r.v[2], a->height), x = below(r.v[3], a->width);
    const size_t top = y > before ? y - before : 0, bottom = after < a->height - y ? y + after : a->height;
    const size_t left = x > before ? x - before : 0, right = after < a->width - x ? x + after : a->width;
    for (size_t i = top; i < bottom; i++)
        memset(image + (i * a->width + left) * a->channels, 0, (right - left) * a->channels * sizeof *image);
}

void tern_augment_image(float *out, tern_augmenter *a, const uint8_t *image, uint64_t epoch, uint64_t index) {
    place(out, a, image, epoch, index);
    if (changes_colors(&a->how)) change_colors(out, a, epoch, index);
    if (a->how.cutout) cut_out(out, a, epoch, index);
}
