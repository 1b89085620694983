/* Loaders: what is in a batch against a naive search, and that a batch depends on its step alone. */
#include <zlib.h>

#include "base/memory.h"
#include "base/random.h"
#include "io/dataset.h"
#include "tern/data.h"
#include "testing.h"

/* ---- data sets without files ----------------------------------------------------------------------------------- */

static void make_dataset(tern_dataset *d, size_t count, size_t height, size_t width, size_t channels) {
    *d = (tern_dataset){.info = {.kind = TERN_DATA_IMAGES,
                                 .count = count,
                                 .height = height,
                                 .width = width,
                                 .channels = channels,
                                 .classes = 10}};
    assert_int_equal(tern_dataset_allocate(d, "x", NULL), TERN_OK);
    uint8_t *images = d->images.data, *labels = d->labels.data;
    for (size_t i = 0; i < d->images.bytes; i++) images[i] = (uint8_t)tern_random_u32(99, i);
    for (size_t i = 0; i < count; i++) labels[i] = (uint8_t)(i % 10);
}

/* Image i is i everywhere, so that a batch shows which ones it holds. */
static void make_numbered(tern_dataset *d, size_t count) {
    make_dataset(d, count, 1, 1, 1);
    uint8_t *images = d->images.data;
    for (size_t i = 0; i < count; i++) images[i] = (uint8_t)i;
}

static void make_text(tern_dataset *d, size_t tokens) {
    *d = (tern_dataset){.info = {.kind = TERN_DATA_TEXT, .tokens = tokens, .vocabulary = TERN_MAX_CLASSES * 256}};
    assert_true(tern_block_alloc(&d->tokens, tokens * sizeof(uint16_t)));
    uint16_t *t = d->tokens.data;
    for (size_t i = 0; i < tokens; i++) t[i] = (uint16_t)i;
}

static void free_dataset(tern_dataset *d) {
    tern_block_free(&d->images);
    tern_block_free(&d->labels);
    tern_block_free(&d->tokens);
}

static tern_loader *open_loader(const tern_loader_desc *desc) {
    tern_loader *l = NULL;
    tern_error err = {0};
    if (tern_loader_open(&l, desc, &err)) fail_msg("%s", err.message);
    return l;
}

static tern_batch next(tern_loader *l) {
    tern_batch b;
    assert_int_equal(tern_loader_next(l, &b, NULL), TERN_OK);
    return b;
}

static size_t number(const tern_batch *b, size_t i) { return (size_t)lrintf(b->x[i] * 255); }

/* ---- order ----------------------------------------------------------------------------------------------------- */

static void test_evaluation(void **state) {
    (void)state;
    tern_dataset d;
    make_numbered(&d, 10);
    tern_loader *l = open_loader(&(tern_loader_desc){.dataset = &d, .batch = 4, .evaluate = 1, .shuffle = 1});
    assert_int_equal(tern_loader_steps(l), 3);
    for (uint64_t pass = 0; pass < 3; pass++) {
        for (uint64_t s = 0; s < 4; s++) {
            static const size_t sizes[4] = {4, 4, 2, 0};
            tern_batch b = next(l);
            assert_int_equal(b.n, sizes[s]);
            assert_int_equal(b.epoch, pass);
            assert_int_equal(b.step, pass * 3 + s);
            for (size_t i = 0; i < b.n; i++) {
                assert_int_equal(number(&b, i), 4 * s + i);
                assert_int_equal(b.labels[i], (4 * s + i) % 10);
            }
        }
    }
    assert_int_equal(tern_loader_seek(l, 3, NULL), TERN_OK); /* the first batch of the second pass */
    tern_batch b = next(l);
    assert_int_equal(b.n, 4);
    assert_int_equal(b.step, 3);
    assert_int_equal(b.epoch, 1);
    assert_int_equal(tern_loader_seek(l, 2, NULL), TERN_OK);
    assert_int_equal(next(l).n, 2);
    assert_int_equal(next(l).n, 0);
    tern_loader_close(&l);
    assert_null(l);
    l = open_loader(&(tern_loader_desc){.dataset = &d, .batch = 4, .evaluate = 1, .drop_last = 1});
    assert_int_equal(next(l).n, 4);
    assert_int_equal(next(l).n, 4);
    assert_int_equal(next(l).n, 0);
    tern_loader_close(&l);
    free_dataset(&d);
}

static void test_shuffle(void **state) {
    (void)state;
    enum { COUNT = 200, BATCH = 32, EPOCHS = 40 };
    tern_dataset d;
    make_numbered(&d, COUNT);
    for (int drop = 0; drop < 2; drop++) {
        tern_loader *l = open_loader(
            &(tern_loader_desc){.dataset = &d, .batch = BATCH, .seed = 7, .shuffle = 1, .drop_last = drop});
        const uint64_t steps = tern_loader_steps(l);
        assert_int_equal(steps, drop ? COUNT / BATCH : COUNT / BATCH + 1);
        size_t orders[EPOCHS][COUNT], first_place = 0;
        for (uint64_t e = 0; e < EPOCHS; e++) {
            size_t seen[COUNT] = {0}, n = 0;
            for (uint64_t s = 0; s < steps; s++) {
                tern_batch b = next(l);
                assert_int_equal(b.epoch, e);
                assert_int_equal(b.step, e * steps + s);
                for (size_t i = 0; i < b.n; i++) {
                    size_t index = number(&b, i);
                    assert_int_equal(b.labels[i], index % 10);
                    assert_int_equal(seen[index]++, 0);
                    orders[e][n++] = index;
                }
            }
            assert_int_equal(n, drop ? COUNT / BATCH * BATCH : COUNT);
            if (e) assert_memory_not_equal(orders[e], orders[e - 1], n * sizeof **orders);
            first_place += orders[e][0];
        }
        /* The mean of 40 draws from 0..199 has a deviation of 9. */
        assert_in_range(first_place / EPOCHS, 60, 140);
        tern_loader_close(&l);
    }
    tern_loader *l = open_loader(&(tern_loader_desc){.dataset = &d, .batch = COUNT}); /* training in order */
    for (int e = 0; e < 3; e++) {
        tern_batch b = next(l);
        for (size_t i = 0; i < COUNT; i++) assert_int_equal(number(&b, i), i);
    }
    tern_loader_close(&l);
    free_dataset(&d);
}

/* ---- crop and flip --------------------------------------------------------------------------------------------- */

/* The pixel that a naive reader expects at (y, x): crop at (top, left) of the padded image, then flip. -1: black. */
static int expected(const uint8_t *image, const tern_dataset_info *info, const tern_augment *how, size_t top,
                    size_t left, int flip, size_t y, size_t x, size_t c) {
    const int h = (int)info->height, w = (int)info->width, pad = (int)how->crop_pad;
    int sy = (int)(top + y) - pad, sx = (int)(left + (flip ? info->width - 1 - x : x)) - pad;
    if (how->crop_padding == TERN_PADDING_REFLECT) {
        if (sy < 0) sy = -sy;
        if (sy >= h) sy = 2 * (h - 1) - sy;
        if (sx < 0) sx = -sx;
        if (sx >= w) sx = 2 * (w - 1) - sx;
    }
    if (sy < 0 || sy >= h || sx < 0 || sx >= w) return 0;
    return image[((size_t)sy * info->width + (size_t)sx) * info->channels + c];
}

static int matches(const float *x, const uint8_t *image, const tern_dataset_info *info, const tern_augment *how,
                   size_t top, size_t left, int flip) {
    for (size_t y = 0; y < info->height; y++)
        for (size_t col = 0; col < info->width; col++)
            for (size_t c = 0; c < info->channels; c++) {
                double std = how->std[c] == 0 ? 1 : (double)how->std[c];
                int v = expected(image, info, how, top, left, flip, y, col, c);
                if (*x++ != (float)((v / 255.0 - (double)how->mean[c]) / std)) return 0;
            }
    return 1;
}

typedef struct place {
    size_t top, left;
    int flip;
} place;

/* The one change of all possible ones that gives this image. (Mirrored edges wider than a third of the image would
 * make more than one do it.) */
static place find_place(const float *x, const uint8_t *image, const tern_dataset_info *info,
                        const tern_augment *how) {
    place found = {0};
    int count = 0;
    for (size_t top = 0; top <= 2 * how->crop_pad; top++)
        for (size_t left = 0; left <= 2 * how->crop_pad; left++)
            for (int flip = 0; flip < 2; flip++)
                if (matches(x, image, info, how, top, left, flip)) {
                    found = (place){top, left, flip};
                    count++;
                }
    assert_int_equal(count, 1);
    return found;
}

static void check_crop(size_t channels, size_t pad, tern_padding padding, tern_flip flip) {
    enum { COUNT = 300, HEIGHT = 7, WIDTH = 9, EPOCHS = 4 };
    tern_dataset d;
    make_dataset(&d, COUNT, HEIGHT, WIDTH, channels);
    const tern_augment how = {
        .mean = {.5f, .25f, .125f}, .std = {.3f, 0, .2f}, .crop_pad = pad, .crop_padding = padding, .flip = flip};
    tern_loader *l = open_loader(&(tern_loader_desc){.dataset = &d, .batch = COUNT, .seed = 3, .augment = how});
    size_t tops[2 * 16 + 1] = {0}, lefts[2 * 16 + 1] = {0}, flips = 0;
    int sides[EPOCHS][COUNT];
    const size_t size = HEIGHT * WIDTH * channels;
    for (size_t e = 0; e < EPOCHS; e++) {
        tern_batch b = next(l);
        assert_int_equal((uintptr_t)b.x % 64, 0);
        for (size_t i = 0; i < COUNT; i++) {
            place p = find_place(b.x + i * size, tern_dataset_images(&d) + i * size, &d.info, &how);
            tops[p.top]++;
            lefts[p.left]++;
            flips += (size_t)p.flip;
            sides[e][i] = p.flip;
            if (e && flip == TERN_FLIP_ALTERNATING) assert_int_equal(sides[e][i], !sides[e - 1][i]);
        }
        /* Half of 300, give or take 5 deviations of 8.7. */
        if (flip == TERN_FLIP_NONE) assert_int_equal(flips, 0);
        if (flip != TERN_FLIP_NONE && e == 0) assert_in_range(flips, 107, 193);
        if (flip == TERN_FLIP_RANDOM && e) assert_memory_not_equal(sides[e], sides[e - 1], sizeof sides[e]);
    }
    const size_t mean = EPOCHS * COUNT / (2 * pad + 1);
    for (size_t i = 0; i <= 2 * pad; i++) {
        assert_in_range(tops[i], mean / 2, mean * 2);
        assert_in_range(lefts[i], mean / 2, mean * 2);
    }
    tern_loader_close(&l);
    free_dataset(&d);
}

static void test_crop_and_flip(void **state) {
    (void)state;
    for (size_t channels = 1; channels <= 3; channels += 2) {
        check_crop(channels, 0, TERN_PADDING_ZERO, TERN_FLIP_NONE);
        check_crop(channels, 2, TERN_PADDING_ZERO, TERN_FLIP_NONE);
        check_crop(channels, 2, TERN_PADDING_REFLECT, TERN_FLIP_ALTERNATING);
        check_crop(channels, 4, TERN_PADDING_ZERO, TERN_FLIP_RANDOM);
        check_crop(channels, 3, TERN_PADDING_REFLECT, TERN_FLIP_RANDOM);
    }
}

/* A pad larger than the image: some windows are all black, and nothing is read outside. */
static void test_wide_padding(void **state) {
    (void)state;
    tern_dataset d;
    make_dataset(&d, 400, 3, 2, 3);
    const tern_augment how = {.crop_pad = 5, .flip = TERN_FLIP_RANDOM};
    tern_loader *l = open_loader(&(tern_loader_desc){.dataset = &d, .batch = 400, .augment = how});
    tern_batch b = next(l);
    size_t black = 0;
    for (size_t i = 0; i < 400; i++) {
        int any = 0, found = 0;
        for (size_t j = 0; j < 18; j++) any |= b.x[i * 18 + j] != 0;
        black += !any;
        for (size_t top = 0; top <= 10; top++)
            for (size_t left = 0; left <= 10; left++)
                for (int flip = 0; flip < 2; flip++)
                    found |= matches(b.x + i * 18, tern_dataset_images(&d) + i * 18, &d.info, &how, top, left, flip);
        assert_true(found);
    }
    assert_in_range(black, 100, 399);
    tern_loader_close(&l);
    free_dataset(&d);
}

/* ---- cutout and colours ---------------------------------------------------------------------------------------- */

static void test_cutout(void **state) {
    (void)state;
    enum { COUNT = 300, HEIGHT = 8, WIDTH = 11 };
    tern_dataset d;
    make_dataset(&d, COUNT, HEIGHT, WIDTH, 3);
    for (size_t side = 1; side <= 30; side += 3) {
        tern_augment how = {.mean = {.5f, .25f, .125f}, .std = {.3f, .2f, .2f}, .cutout = side};
        tern_loader *l = open_loader(&(tern_loader_desc){.dataset = &d, .batch = COUNT, .augment = how});
        tern_batch b = next(l);
        size_t corner = 0, area = 0;
        for (size_t i = 0; i < COUNT; i++) {
            size_t top = HEIGHT, bottom = 0, left = WIDTH, right = 0, cut = 0;
            for (size_t p = 0; p < HEIGHT * WIDTH; p++) {
                const float *x = b.x + (i * HEIGHT * WIDTH + p) * 3;
                const uint8_t *v = tern_dataset_images(&d) + (i * HEIGHT * WIDTH + p) * 3;
                if (x[0] == 0 && x[1] == 0 && x[2] == 0) {
                    size_t y = p / WIDTH, col = p % WIDTH;
                    top = y < top ? y : top;
                    left = col < left ? col : left;
                    bottom = y + 1 > bottom ? y + 1 : bottom;
                    right = col + 1 > right ? col + 1 : right;
                    cut++;
                    continue;
                }
                for (size_t c = 0; c < 3; c++)
                    assert_true(x[c] == (float)((v[c] / 255.0 - (double)how.mean[c]) / (double)how.std[c]));
            }
            assert_true(cut > 0);
            assert_int_equal(cut, (bottom - top) * (right - left)); /* a rectangle, whole */
            assert_true(bottom - top <= side && right - left <= side);
            assert_true(bottom - top == side || top == 0 || bottom == HEIGHT);
            assert_true(right - left == side || left == 0 || right == WIDTH);
            corner += top == 0 && left == 0;
            area += cut;
        }
        assert_true(corner > 0);
        if (side == 1) assert_int_equal(area, COUNT);
        if (side > 2 * WIDTH) assert_int_equal(area, COUNT * HEIGHT * WIDTH);
        tern_loader_close(&l);
    }
    free_dataset(&d);
}

static double clamp(double v) { return v < 0 ? 0 : v > 1 ? 1 : v; }

/* One of the three changes with factor f, in double. */
static double changed(int which, double f, const double *pixel, double mean, size_t c, size_t channels) {
    double gray = channels == 3 ? 0.2989 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2] : pixel[0];
    return clamp(f * pixel[c] + (1 - f) * (which == 0 ? 0 : which == 1 ? mean : gray));
}

/* Finds f from the pixel that says most about it, then checks that all of the image was changed with it. */
static double check_color(int which, const float *x, const uint8_t *image, size_t pixels, size_t channels) {
    double mean = 0, f = 1, best = 0, unit[3 * 64];
    for (size_t i = 0; i < pixels * channels; i++) unit[i] = image[i] / 255.0;
    for (size_t i = 0; i < pixels; i++) mean += changed(2, 0, unit + i * channels, 0, 0, channels) / (double)pixels;
    for (size_t i = 0; i < pixels * channels; i++) {
        double zero = changed(which, 0, unit + i / channels * channels, mean, i % channels, channels);
        double slope = unit[i] - zero, v = (double)x[i] * .5 + .25;
        if (v > 0.001 && v < 0.999 && fabs(slope) > best) {
            best = fabs(slope);
            f = (v - zero) / slope;
        }
    }
    for (size_t i = 0; i < pixels * channels; i++) {
        double v = changed(which, f, unit + i / channels * channels, mean, i % channels, channels);
        assert_true(fabs((double)x[i] - (v - .25) / .5) < 2e-5);
    }
    return f;
}

static void test_colors(void **state) {
    (void)state;
    enum { COUNT = 200, PIXELS = 64 };
    for (int which = 0; which < 3; which++)
        for (size_t channels = 1; channels <= 3; channels += 2) {
            if (which == 2 && channels == 1) continue; /* grey stays */
            tern_dataset d;
            make_dataset(&d, COUNT, 8, 8, channels);
            tern_augment how = {.mean = {.25f, .25f, .25f}, .std = {.5f, .5f, .5f}};
            (which == 0 ? &how.brightness : which == 1 ? &how.contrast : &how.saturation)[0] = 0.4f;
            tern_loader *l = open_loader(&(tern_loader_desc){.dataset = &d, .batch = COUNT, .augment = how});
            tern_batch b = next(l);
            double low = 2, high = 0;
            for (size_t i = 0; i < COUNT; i++) {
                double f = check_color(which, b.x + i * PIXELS * channels,
                                       tern_dataset_images(&d) + i * PIXELS * channels, PIXELS, channels);
                low = f < low ? f : low;
                high = f > high ? f : high;
            }
            assert_true(low > 0.599 && low < 0.64);
            assert_true(high > 1.36 && high < 1.401);
            tern_loader_close(&l);
            free_dataset(&d);
        }
}

/* ---- text ------------------------------------------------------------------------------------------------------ */

static void check_windows(const tern_batch *b, size_t window) {
    for (size_t i = 0; i < b->n; i++)
        for (size_t t = 0; t < window; t++) {
            assert_int_equal(b->tokens[i * window + t], b->tokens[i * window] + (int32_t)t);
            assert_int_equal(b->labels[i * window + t], b->tokens[i * window + t] + 1);
        }
}

static void test_text(void **state) {
    (void)state;
    enum { TOKENS = 101, WINDOW = 8, BATCH = 5 };
    tern_dataset d;
    make_text(&d, TOKENS);
    tern_loader_desc desc = {.dataset = &d, .batch = BATCH, .window = WINDOW, .seed = 5};
    tern_loader *l = open_loader(&desc);
    assert_int_equal(tern_loader_steps(l), 2); /* 12 windows are 2 whole batches */
    size_t starts[TOKENS - WINDOW] = {0};
    for (size_t s = 0; s < 2000; s++) {
        tern_batch b = next(l);
        assert_int_equal(b.n, BATCH);
        assert_int_equal(b.step, s);
        assert_int_equal(b.epoch, s / 2);
        assert_null(b.x);
        check_windows(&b, WINDOW);
        for (size_t i = 0; i < BATCH; i++) {
            assert_in_range(b.tokens[i * WINDOW], 0, TOKENS - WINDOW - 1);
            starts[b.tokens[i * WINDOW]]++;
        }
    }
    /* 10000 draws from 93 places: 107 each, deviation 10. */
    for (size_t i = 0; i < TOKENS - WINDOW; i++) assert_in_range(starts[i], 60, 160);
    tern_loader_close(&l);

    desc.evaluate = 1; /* 12 windows: 5, 5, 2, end */
    l = open_loader(&desc);
    for (int pass = 0; pass < 2; pass++) {
        size_t windows = 0;
        for (;;) {
            tern_batch b = next(l);
            if (b.n == 0) break;
            check_windows(&b, WINDOW);
            for (size_t i = 0; i < b.n; i++) assert_int_equal(b.tokens[i * WINDOW], windows++ * WINDOW);
        }
        assert_int_equal(windows, 12);
    }
    tern_loader_close(&l);

    desc.window = TOKENS - 1; /* the longest: one window */
    for (desc.evaluate = 0; desc.evaluate < 2; desc.evaluate++) {
        l = open_loader(&desc);
        assert_int_equal(tern_loader_steps(l), 1);
        tern_batch b = next(l);
        assert_int_equal(b.n, desc.evaluate ? 1 : BATCH);
        check_windows(&b, desc.window);
        assert_int_equal(b.tokens[0], 0);
        tern_loader_close(&l);
    }
    free_dataset(&d);
}

/* ---- the same whenever and however ----------------------------------------------------------------------------- */

static unsigned long sum_of(const tern_loader_desc *desc, const tern_batch *b) {
    const tern_dataset_info *info = &desc->dataset->info;
    const int text = info->kind == TERN_DATA_TEXT;
    const size_t sample = text ? desc->window : info->height * info->width * info->channels;
    unsigned long crc = crc32(0, (const Bytef *)&b->step, sizeof b->step);
    crc = crc32(crc, (const Bytef *)&b->epoch, sizeof b->epoch);
    crc = crc32(crc, (const Bytef *)&b->n, sizeof b->n);
    if (b->n == 0) return crc;
    crc = crc32(crc, text ? (const Bytef *)b->tokens : (const Bytef *)b->x, (uInt)(b->n * sample * 4));
    return crc32(crc, (const Bytef *)b->labels, (uInt)(b->n * (text ? sample : 1) * 4));
}

static void check_same(const tern_loader_desc *desc) {
    enum { STEPS = 40 };
    unsigned long sums[STEPS];
    tern_loader *l = open_loader(desc);
    for (size_t s = 0; s < STEPS;) {
        tern_batch b = next(l);
        if (b.n) sums[s++] = sum_of(desc, &b);
    }
    /* Any step, with some batches read after it or none. */
    for (uint32_t i = 0; i < 200; i++) {
        size_t step = tern_random_u32(1, 2 * i) % STEPS, more = tern_random_u32(1, 2 * i + 1) % 5;
        assert_int_equal(tern_loader_seek(l, step, NULL), TERN_OK);
        for (; more-- && step < STEPS;) {
            tern_batch b = next(l);
            if (b.n == 0) continue;
            assert_int_equal(b.step, step);
            assert_int_equal(sum_of(desc, &b), sums[step]);
            step++;
        }
    }
    tern_loader_close(&l);
    /* Another loader, that begins in the middle; and the seed matters, in training. */
    l = open_loader(desc);
    assert_int_equal(tern_loader_seek(l, STEPS / 2, NULL), TERN_OK);
    tern_batch b = next(l);
    assert_int_equal(sum_of(desc, &b), sums[STEPS / 2]);
    tern_loader_close(&l);
    tern_loader_desc other = *desc;
    other.seed++;
    l = open_loader(&other);
    b = next(l);
    assert_int_equal(sum_of(desc, &b) == sums[0], desc->evaluate);
    tern_loader_close(&l);
}

static void test_seek(void **state) {
    (void)state;
    tern_dataset images, text;
    make_dataset(&images, 50, 6, 6, 3);
    make_text(&text, 500);
    const tern_augment how = {.crop_pad = 2,
                              .crop_padding = TERN_PADDING_REFLECT,
                              .flip = TERN_FLIP_ALTERNATING,
                              .brightness = 0.2f,
                              .contrast = 0.2f,
                              .saturation = 0.2f,
                              .cutout = 2};
    check_same(&(tern_loader_desc){.dataset = &images, .batch = 16, .shuffle = 1, .augment = how});
    check_same(&(tern_loader_desc){.dataset = &images, .batch = 16, .shuffle = 1, .drop_last = 1, .augment = how});
    check_same(&(tern_loader_desc){.dataset = &images, .batch = 16, .evaluate = 1});
    check_same(&(tern_loader_desc){.dataset = &text, .batch = 4, .window = 16});
    check_same(&(tern_loader_desc){.dataset = &text, .batch = 4, .window = 16, .evaluate = 1});
    /* Far away, where no one has counted to. */
    tern_loader *l = open_loader(&(tern_loader_desc){.dataset = &images, .batch = 16, .shuffle = 1});
    const uint64_t far = ((uint64_t)1 << 60) - 1;
    assert_int_equal(tern_loader_seek(l, far, NULL), TERN_OK);
    assert_int_equal(next(l).step, far);
    assert_int_equal(tern_loader_seek(l, far + 1, NULL), TERN_E_ARGUMENT);
    tern_loader_close(&l);
    free_dataset(&images);
    free_dataset(&text);
}

/* A golden value: the batches of a seed are the same in every version and on every machine. */
static void test_golden(void **state) {
    (void)state;
    tern_dataset d;
    make_dataset(&d, 50, 6, 6, 3);
    const tern_augment how = {.mean = {.4914f, .4822f, .4465f},
                              .std = {.2470f, .2435f, .2616f},
                              .crop_pad = 2,
                              .crop_padding = TERN_PADDING_REFLECT,
                              .flip = TERN_FLIP_ALTERNATING,
                              .cutout = 2};
    tern_loader_desc desc = {.dataset = &d, .batch = 16, .seed = 42, .shuffle = 1, .drop_last = 1, .augment = how};
    tern_loader *l = open_loader(&desc);
    unsigned long crc = 0;
    for (int s = 0; s < 10; s++) {
        tern_batch b = next(l);
        unsigned long sum = sum_of(&desc, &b);
        crc = crc32(crc, (const Bytef *)&sum, 4);
    }
    assert_int_equal(crc, 0x6fb49128);
    tern_loader_close(&l);
    free_dataset(&d);
}

/* Opened and closed at any moment, several at once on one data set. */
static void test_threads(void **state) {
    (void)state;
    tern_dataset d;
    make_dataset(&d, 64, 8, 8, 3);
    for (int i = 0; i < 100; i++) {
        tern_loader *l[3];
        for (int j = 0; j < 3; j++)
            l[j] = open_loader(&(tern_loader_desc){.dataset = &d, .batch = 8, .seed = (uint64_t)j, .shuffle = 1});
        for (int k = 0; k < i % 7; k++) next(l[k % 3]);
        if (i % 2) tern_loader_seek(l[1], (uint64_t)i, NULL);
        for (int j = 0; j < 3; j++) tern_loader_close(&l[j]);
    }
    free_dataset(&d);
}

/* ---- refusals -------------------------------------------------------------------------------------------------- */

static void refuse(tern_loader_desc desc, tern_status wanted) {
    tern_loader *l = NULL;
    tern_error err = {0};
    assert_int_equal(tern_loader_open(&l, &desc, &err), wanted);
    assert_int_equal(err.status, wanted);
    assert_null(l);
}

static void refuse_augment(const tern_dataset *d, int evaluate, tern_augment how) {
    refuse((tern_loader_desc){.dataset = d, .batch = 2, .evaluate = evaluate, .augment = how}, TERN_E_ARGUMENT);
}

static void test_refusals(void **state) {
    (void)state;
    tern_dataset images, text;
    make_dataset(&images, 4, 6, 5, 3);
    make_text(&text, 10);
    tern_loader *l = NULL;
    tern_loader_desc ok = {.dataset = &images, .batch = 2};
    assert_int_equal(tern_loader_open(NULL, &ok, NULL), TERN_E_ARGUMENT);
    assert_int_equal(tern_loader_open(&l, NULL, NULL), TERN_E_ARGUMENT);
    refuse((tern_loader_desc){.batch = 2}, TERN_E_ARGUMENT);
    refuse((tern_loader_desc){.dataset = &images}, TERN_E_ARGUMENT);
    refuse((tern_loader_desc){.dataset = &images, .batch = 2, .window = 3}, TERN_E_ARGUMENT);
    refuse((tern_loader_desc){.dataset = &images, .batch = 5, .drop_last = 1}, TERN_E_ARGUMENT);
    refuse((tern_loader_desc){.dataset = &images, .batch = SIZE_MAX}, TERN_E_SIZE);
    refuse((tern_loader_desc){.dataset = &images, .batch = SIZE_MAX / 8}, TERN_E_SIZE);
    refuse((tern_loader_desc){.dataset = &text, .batch = 2}, TERN_E_ARGUMENT);
    refuse((tern_loader_desc){.dataset = &text, .batch = 2, .window = 10}, TERN_E_ARGUMENT);
    refuse((tern_loader_desc){.dataset = &text, .batch = 2, .window = SIZE_MAX}, TERN_E_ARGUMENT);
    refuse((tern_loader_desc){.dataset = &text, .batch = SIZE_MAX / 2, .window = 4}, TERN_E_SIZE);
    refuse((tern_loader_desc){.dataset = &text, .batch = 2, .window = 2, .augment.crop_pad = 1}, TERN_E_ARGUMENT);
    refuse_augment(&images, 0, (tern_augment){.flip = (tern_flip)3});
    refuse_augment(&images, 0, (tern_augment){.crop_padding = (tern_padding)2});
    refuse_augment(&images, 0, (tern_augment){.crop_pad = 5, .crop_padding = TERN_PADDING_REFLECT});
    refuse_augment(&images, 0, (tern_augment){.crop_pad = SIZE_MAX});
    refuse_augment(&images, 0, (tern_augment){.contrast = 1.5f});
    refuse_augment(&images, 0, (tern_augment){.saturation = NAN});
    refuse_augment(&images, 0, (tern_augment){.brightness = -1});
    refuse_augment(&images, 0, (tern_augment){.mean = {0, 0, INFINITY}});
    refuse_augment(&images, 0, (tern_augment){.std = {1, -1, 1}});
    refuse_augment(&images, 1, (tern_augment){.flip = TERN_FLIP_RANDOM});
    refuse_augment(&images, 1, (tern_augment){.crop_pad = 1});
    refuse_augment(&images, 1, (tern_augment){.cutout = 1});
    refuse_augment(&images, 1, (tern_augment){.brightness = 0.1f});
    tern_batch b;
    assert_int_equal(tern_loader_next(NULL, &b, NULL), TERN_E_ARGUMENT);
    assert_int_equal(tern_loader_seek(NULL, 0, NULL), TERN_E_ARGUMENT);
    assert_int_equal(tern_loader_steps(NULL), 0);
    l = open_loader(&ok);
    assert_int_equal(tern_loader_next(l, NULL, NULL), TERN_E_ARGUMENT);
    tern_loader_close(&l);
    tern_loader_close(&l);
    tern_loader_close(NULL);
    free_dataset(&images);
    free_dataset(&text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_evaluation),   cmocka_unit_test(test_shuffle),  cmocka_unit_test(test_crop_and_flip),
        cmocka_unit_test(test_wide_padding), cmocka_unit_test(test_cutout),   cmocka_unit_test(test_colors),
        cmocka_unit_test(test_text),         cmocka_unit_test(test_seek),     cmocka_unit_test(test_golden),
        cmocka_unit_test(test_threads),      cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
