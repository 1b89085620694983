/* PNG and JPEG made through libpng and libjpeg, whole, cut off and damaged, and folders of them. */
#include <stdio.h>

#include <jpeglib.h>
#include <png.h>

#include "io/image_decode.h"
#include "tern/data.h"
#include "testing.h"

static temporary_folder scratch;

static int open_scratch(void **state) {
    (void)state;
    folder_create(&scratch);
    return 0;
}

static int close_scratch(void **state) {
    (void)state;
    folder_remove(&scratch);
    return 0;
}

/* ---- making files ---------------------------------------------------------------------------------------------- */

typedef struct file {
    uint8_t bytes[1 << 16];
    size_t size;
} file;

static void write_png(png_structp png, png_bytep data, size_t bytes) {
    file *f = png_get_io_ptr(png);
    assert_true(f->size + bytes <= sizeof f->bytes);
    memcpy(f->bytes + f->size, data, bytes);
    f->size += bytes;
}

/* rows: height rows of whatever a row of this type and depth takes. */
static void make_png(file *f, const uint8_t *rows, size_t row_bytes, uint32_t height, uint32_t width, int type,
                     int depth, int interlace) {
    static const png_color palette[4] = {{10, 20, 30}, {200, 100, 50}, {1, 2, 3}, {255, 255, 255}};
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    const uint8_t *row_of[64];
    assert_true(height <= 64);
    for (uint32_t y = 0; y < height; y++) row_of[y] = rows + y * row_bytes;
    f->size = 0;
    if (setjmp(png_jmpbuf(png))) fail();
    png_set_write_fn(png, f, write_png, NULL);
    png_set_IHDR(png, info, width, height, depth, type, interlace, PNG_COMPRESSION_TYPE_DEFAULT,
                 PNG_FILTER_TYPE_DEFAULT);
    if (type == PNG_COLOR_TYPE_PALETTE) png_set_PLTE(png, info, palette, 4);
    png_set_rows(png, info, (png_bytepp)(uintptr_t)row_of);
    png_write_png(png, info, PNG_TRANSFORM_IDENTITY, NULL);
    png_destroy_write_struct(&png, &info);
}

static void make_jpeg(file *f, const uint8_t *pixels, uint32_t height, uint32_t width, int channels,
                      int progressive) {
    struct jpeg_compress_struct jpeg;
    struct jpeg_error_mgr trouble;
    unsigned char *out = NULL;
    unsigned long size = 0;
    jpeg.err = jpeg_std_error(&trouble);
    jpeg_create_compress(&jpeg);
    jpeg_mem_dest(&jpeg, &out, &size);
    jpeg.image_height = height;
    jpeg.image_width = width;
    jpeg.input_components = channels;
    jpeg.in_color_space = channels == 1 ? JCS_GRAYSCALE : channels == 3 ? JCS_RGB : JCS_CMYK;
    jpeg_set_defaults(&jpeg);
    jpeg_set_quality(&jpeg, 95, TRUE);
    if (progressive) jpeg_simple_progression(&jpeg);
    jpeg_start_compress(&jpeg, TRUE);
    for (uint32_t y = 0; y < height; y++) {
        JSAMPROW row = (JSAMPROW)(uintptr_t)(pixels + y * width * (uint32_t)channels);
        jpeg_write_scanlines(&jpeg, &row, 1);
    }
    jpeg_finish_compress(&jpeg);
    jpeg_destroy_compress(&jpeg);
    assert_true(size <= sizeof f->bytes);
    memcpy(f->bytes, out, size);
    f->size = size;
    free(out);
}

static void keep(const file *f, const char *name) { folder_put(&scratch, name, f->bytes, f->size); }

enum { H = 9, W = 13 };

/* Smooth, so that JPEG keeps it nearly; every pixel and channel different enough to see an exchange. */
static void fill(uint8_t *pixels, size_t channels) {
    for (size_t y = 0; y < H; y++)
        for (size_t x = 0; x < W; x++)
            for (size_t c = 0; c < channels; c++)
                pixels[(y * W + x) * channels + c] = (uint8_t)(40 + 9 * y + 4 * x * (c + 1) / 2 + 30 * c);
}

static uint8_t gray_of(const uint8_t *p) {
    return (uint8_t)((19595u * p[0] + 38470u * p[1] + 7471u * p[2] + 32768u) >> 16);
}

/* Exactly as large as it must be, so that the sanitizer sees a byte too many. */
static tern_status decode(uint8_t **out, const file *f, size_t height, size_t width, size_t channels,
                          tern_error *err) {
    uint8_t *copy = malloc(f->size ? f->size : 1);
    *out = malloc(height * width * channels);
    assert_non_null(copy);
    assert_non_null(*out);
    memcpy(copy, f->bytes, f->size);
    tern_status status = tern_image_decode(*out, height, width, channels, copy, f->size, "x", err);
    free(copy);
    return status;
}

static void assert_pixels(const file *f, const uint8_t *wanted, size_t channels) {
    uint8_t *out;
    assert_int_equal(decode(&out, f, H, W, channels, NULL), TERN_OK);
    assert_memory_equal(out, wanted, H * W * channels);
    free(out);
}

/* ---- PNG ------------------------------------------------------------------------------------------------------- */

static void test_png_kinds(void **state) {
    (void)state;
    static file f;
    uint8_t rgb[H * W * 3], gray[H * W], wanted[H * W * 3], other[H * W * 8];
    fill(rgb, 3);
    fill(gray, 1);
    for (int interlace = 0; interlace < 2; interlace++) {
        make_png(&f, rgb, W * 3, H, W, PNG_COLOR_TYPE_RGB, 8, interlace);
        assert_pixels(&f, rgb, 3);
        for (size_t i = 0; i < H * W; i++) wanted[i] = gray_of(rgb + 3 * i);
        assert_pixels(&f, wanted, 1);

        make_png(&f, gray, W, H, W, PNG_COLOR_TYPE_GRAY, 8, interlace);
        assert_pixels(&f, gray, 1);
        for (size_t i = 0; i < H * W * 3; i++) wanted[i] = gray[i / 3];
        assert_pixels(&f, wanted, 3);

        for (size_t i = 0; i < H * W; i++) { /* alpha is dropped, whatever it is */
            memcpy(other + 4 * i, rgb + 3 * i, 3);
            other[4 * i + 3] = (uint8_t)(i * 37);
        }
        make_png(&f, other, W * 4, H, W, PNG_COLOR_TYPE_RGB_ALPHA, 8, interlace);
        assert_pixels(&f, rgb, 3);
        for (size_t i = 0; i < H * W * 3; i++) { /* 16 bits: v 257 is exactly v */
            other[2 * i] = other[2 * i + 1] = rgb[i];
        }
        make_png(&f, other, W * 6, H, W, PNG_COLOR_TYPE_RGB, 16, interlace);
        assert_pixels(&f, rgb, 3);

        static const uint8_t colors[4][3] = {{10, 20, 30}, {200, 100, 50}, {1, 2, 3}, {255, 255, 255}};
        for (size_t y = 0; y < H; y++) /* four pixels a byte */
            for (size_t x = 0; x < 4; x++) other[y * 4 + x] = (uint8_t)(0x1b + 17 * y * x);
        for (size_t y = 0; y < H; y++)
            for (size_t x = 0; x < W; x++)
                memcpy(wanted + (y * W + x) * 3, colors[other[y * 4 + x / 4] >> (6 - x % 4 * 2) & 3], 3);
        make_png(&f, other, 4, H, W, PNG_COLOR_TYPE_PALETTE, 2, interlace);
        assert_pixels(&f, wanted, 3);
        for (size_t y = 0; y < H; y++) /* black and white */
            for (size_t x = 0; x < W; x++) wanted[y * W + x] = other[y * 2 + x / 8] >> (7 - x % 8) & 1 ? 255 : 0;
        make_png(&f, other, 2, H, W, PNG_COLOR_TYPE_GRAY, 1, interlace);
        assert_pixels(&f, wanted, 1);
    }
}

/* ---- JPEG ------------------------------------------------------------------------------------------------------ */

static void test_jpeg_kinds(void **state) {
    (void)state;
    static file f;
    uint8_t pixels[H * W * 4], *out, *gray;
    tern_error err;
    for (int progressive = 0; progressive < 2; progressive++)
        for (size_t channels = 1; channels <= 3; channels += 2) {
            fill(pixels, channels);
            make_jpeg(&f, pixels, H, W, (int)channels, progressive);
            assert_int_equal(decode(&out, &f, H, W, channels, NULL), TERN_OK);
            for (size_t i = 0; i < H * W * channels; i++) assert_in_range(out[i] + 24, pixels[i], pixels[i] + 48);
            if (channels == 3) {
                assert_int_equal(decode(&gray, &f, H, W, 1, NULL), TERN_OK);
                for (size_t i = 0; i < H * W; i++) assert_int_equal(gray[i], gray_of(out + 3 * i));
                free(gray);
            }
            free(out);
        }
    fill(pixels, 4);
    make_jpeg(&f, pixels, H, W, 4, 0); /* four colours of ink */
    assert_int_equal(decode(&out, &f, H, W, 3, &err), TERN_E_DATA);
    free(out);
}

/* ---- cut off and damaged --------------------------------------------------------------------------------------- */

static void check_cut_off(const file *whole, size_t channels) {
    static file f;
    uint8_t *out;
    tern_error err;
    for (size_t length = 0; length < whole->size; length++) {
        memcpy(f.bytes, whole->bytes, length);
        f.size = length;
        err = (tern_error){0};
        assert_int_equal(decode(&out, &f, H, W, channels, &err), TERN_E_DATA);
        assert_int_equal(err.status, TERN_E_DATA);
        assert_true(err.place <= length);
        free(out);
    }
    for (size_t i = 0; i < whole->size * 8; i++) { /* every bit: it may be read or refused, nothing worse */
        f = *whole;
        f.bytes[i / 8] ^= (uint8_t)(1 << i % 8);
        decode(&out, &f, H, W, channels, &err);
        free(out);
    }
}

static void test_cut_off(void **state) {
    (void)state;
    static file f;
    uint8_t pixels[H * W * 3];
    fill(pixels, 3);
    for (int i = 0; i < 2; i++) {
        make_png(&f, pixels, W * 3, H, W, PNG_COLOR_TYPE_RGB, 8, i);
        check_cut_off(&f, 3);
        make_jpeg(&f, pixels, H, W, 3, i);
        check_cut_off(&f, 1);
    }
}

static void test_image_files(void **state) {
    (void)state;
    static file f;
    uint8_t rgb[H * W * 3], out[H * W * 3];
    tern_image_info info;
    tern_error err;
    fill(rgb, 3);
    make_png(&f, rgb, W * 3, H, W, PNG_COLOR_TYPE_RGB, 8, 0);
    keep(&f, "picture.jpg"); /* the content decides */
    const char *path = folder_file(&scratch, "picture.jpg");
    assert_int_equal(tern_image_describe(&info, path, NULL), TERN_OK);
    assert_int_equal(info.height, H);
    assert_int_equal(info.width, W);
    assert_int_equal(info.channels, 3);
    assert_int_equal(tern_image_read(path, H, W, 3, out, NULL), TERN_OK);
    assert_memory_equal(out, rgb, sizeof rgb);
    assert_int_equal(tern_image_read(path, W, H, 3, out, &err), TERN_E_SIZE);
    assert_non_null(strstr(err.message, "picture.jpg: is 9 x 13"));
    assert_non_null(strstr(err.message, "expected 13 x 9"));
    assert_int_equal(tern_image_read(path, H, W, 2, out, &err), TERN_E_ARGUMENT);
    assert_int_equal(tern_image_read(path, H, W, 3, NULL, &err), TERN_E_ARGUMENT);
    assert_int_equal(tern_image_read(NULL, H, W, 3, out, &err), TERN_E_ARGUMENT);
    assert_int_equal(tern_image_describe(NULL, path, &err), TERN_E_ARGUMENT);
    assert_int_equal(tern_image_describe(&info, NULL, &err), TERN_E_ARGUMENT);
    assert_int_equal(tern_image_read(folder_file(&scratch, "none.png"), H, W, 3, out, &err), TERN_E_FILE);
    folder_put(&scratch, "words.png", "words", 5);
    assert_int_equal(tern_image_read(folder_file(&scratch, "words.png"), H, W, 3, out, &err), TERN_E_DATA);
}

/* ---- folders --------------------------------------------------------------------------------------------------- */

static tern_status try_folder(const tern_dataset_desc *desc, tern_error *err) {
    tern_dataset *d = NULL;
    tern_status status = tern_dataset_open(&d, desc, err);
    tern_dataset_close(&d);
    return status;
}

static void test_folder(void **state) {
    (void)state;
    static file f;
    uint8_t pixels[H * W * 3], first;
    tern_error err;
    folder_mkdir(&scratch, "set");
    tern_dataset_desc desc = {.kind = TERN_DATA_IMAGES};
    char root[512];
    strcpy(root, folder_file(&scratch, "set"));
    desc.path = root;
    assert_int_equal(try_folder(&desc, &err), TERN_E_DATA); /* no class */
    folder_mkdir(&scratch, "set/zebra");
    folder_mkdir(&scratch, "set/Ant");
    folder_mkdir(&scratch, "set/.hidden");
    folder_mkdir(&scratch, "set/ant.png"); /* a class, in spite of its name */
    static const char *const names[] = {"set/zebra/b.png", "set/zebra/a.PNG", "set/Ant/10.jpeg", "set/Ant/9.png",
                                        "set/ant.png/x.png"};
    for (int i = 0; i < 5; i++) {
        fill(pixels, 3);
        pixels[0] = (uint8_t)i;
        if (i == 2)
            make_jpeg(&f, pixels, H, W, 3, 0);
        else
            make_png(&f, pixels, W * 3, H, W, PNG_COLOR_TYPE_RGB, 8, 0);
        keep(&f, names[i]);
    }
    folder_put(&scratch, "set/zebra/notes.txt", "x", 1);
    folder_put(&scratch, "set/zebra/.b.png", "x", 1);
    tern_dataset *d = NULL;
    tern_dataset_info info;
    assert_int_equal(tern_dataset_open(&d, &desc, NULL), TERN_OK);
    tern_dataset_describe(&info, d, NULL);
    assert_int_equal(info.count, 5);
    assert_int_equal(info.classes, 3);
    assert_int_equal(info.height, H);
    assert_int_equal(info.width, W);
    assert_int_equal(info.channels, 3);
    assert_string_equal(tern_dataset_class_name(d, 0), "Ant");
    assert_string_equal(tern_dataset_class_name(d, 1), "ant.png");
    assert_string_equal(tern_dataset_class_name(d, 2), "zebra");
    assert_null(tern_dataset_class_name(d, 3));
    assert_memory_equal(tern_dataset_labels(d), ((uint8_t[]){0, 0, 1, 2, 2}), 5);
    static const int order[5] = {2, 3, 4, 1, 0}; /* 10.jpeg, 9.png, x.png, a.PNG, b.png */
    for (size_t i = 1; i < 5; i++) {
        first = tern_dataset_images(d)[i * H * W * 3];
        assert_int_equal(first, order[i]);
    }
    tern_dataset_close(&d);

    desc.channels = 1;
    assert_int_equal(tern_dataset_open(&d, &desc, NULL), TERN_OK);
    tern_dataset_describe(&info, d, NULL);
    assert_int_equal(info.channels, 1);
    tern_dataset_close(&d);
    desc.channels = 0;
    desc.height = H + 1;
    assert_int_equal(try_folder(&desc, &err), TERN_E_SIZE);
    desc.height = 0;
    desc.split = TERN_SPLIT_TEST;
    assert_int_equal(try_folder(&desc, &err), TERN_E_FILE);
    assert_non_null(strstr(err.message, "set/test"));
    desc.split = TERN_SPLIT_TRAIN;

    fill(pixels, 1); /* a grey one among colours: only when conversion is asked for */
    make_png(&f, pixels, W, H, W, PNG_COLOR_TYPE_GRAY, 8, 0);
    keep(&f, "set/zebra/c.png");
    assert_int_equal(try_folder(&desc, &err), TERN_E_DATA);
    assert_non_null(strstr(err.message, "zebra/c.png"));
    desc.channels = 3;
    assert_int_equal(try_folder(&desc, &err), TERN_OK);
    desc.channels = 0;
    fill(pixels, 3); /* another size */
    make_png(&f, pixels, (W - 1) * 3, H, W - 1, PNG_COLOR_TYPE_RGB, 8, 0);
    keep(&f, "set/zebra/c.png");
    assert_int_equal(try_folder(&desc, &err), TERN_E_SIZE);
    assert_non_null(strstr(err.message, "zebra/c.png: is 9 x 12"));
    assert_non_null(strstr(err.message, "9 x 13"));
    remove(folder_file(&scratch, "set/zebra/c.png"));
    folder_mkdir(&scratch, "set/empty");
    assert_int_equal(try_folder(&desc, &err), TERN_E_DATA);
    assert_non_null(strstr(err.message, "set/empty"));

    /* splits */
    folder_mkdir(&scratch, "split");
    folder_mkdir(&scratch, "split/test");
    folder_mkdir(&scratch, "split/test/one");
    make_png(&f, pixels, W * 3, H, W, PNG_COLOR_TYPE_RGB, 8, 0);
    keep(&f, "split/test/one/a.png");
    strcpy(root, folder_file(&scratch, "split"));
    assert_int_equal(try_folder(&desc, &err), TERN_E_FILE);
    assert_non_null(strstr(err.message, "split/train"));
    desc.split = TERN_SPLIT_TEST;
    assert_int_equal(try_folder(&desc, &err), TERN_OK);
    strcpy(root, folder_file(&scratch, "nowhere"));
    desc.split = TERN_SPLIT_TRAIN;
    assert_int_equal(try_folder(&desc, &err), TERN_E_FILE);
}

/* A header that promises more than the memory for it may be: 20000 x 20000 pixels, as coefficients. */
static void test_large_promise(void **state) {
    (void)state;
    static file f;
    uint8_t pixels[H * W * 3];
    tern_error err;
    fill(pixels, 3);
    make_jpeg(&f, pixels, H, W, 3, 1);
    for (size_t i = 0; i + 9 < f.size; i++)
        if (f.bytes[i] == 0xff && f.bytes[i + 1] == 0xc2)
            memcpy(f.bytes + i + 5, (uint8_t[]){20000 >> 8, 20000 & 255, 20000 >> 8, 20000 & 255}, 4);
    folder_mkdir(&scratch, "large");
    folder_mkdir(&scratch, "large/one");
    keep(&f, "large/one/a.jpg");
    tern_dataset_desc desc = {.kind = TERN_DATA_IMAGES, .path = folder_file(&scratch, "large")};
    assert_int_equal(try_folder(&desc, &err), TERN_E_MEMORY);
    assert_non_null(strstr(err.message, "20000 x 20000"));
    assert_int_equal(err.place, TERN_NO_PLACE);
}

/* Many files, several of them wrong: the message is always about the first. */
static void test_first_failure(void **state) {
    (void)state;
    enum { FILES = 200 };
    static file f;
    uint8_t pixels[H * W * 3];
    char name[64], root[512];
    tern_error err;
    folder_mkdir(&scratch, "many");
    folder_mkdir(&scratch, "many/one");
    fill(pixels, 3);
    for (int i = 0; i < FILES; i++) {
        pixels[0] = (uint8_t)i;
        make_png(&f, pixels, W * 3, H, W, PNG_COLOR_TYPE_RGB, 8, 0);
        snprintf(name, sizeof name, "many/one/%03d.png", i);
        keep(&f, name);
    }
    strcpy(root, folder_file(&scratch, "many"));
    tern_dataset_desc desc = {.kind = TERN_DATA_IMAGES, .path = root};
    tern_dataset *d = NULL;
    assert_int_equal(tern_dataset_open(&d, &desc, NULL), TERN_OK);
    for (size_t i = 0; i < FILES; i++) assert_int_equal(tern_dataset_images(d)[i * H * W * 3], i);
    tern_dataset_close(&d);
    for (int i = 57; i < FILES; i += 3) {
        snprintf(name, sizeof name, "many/one/%03d.png", i);
        folder_put(&scratch, name, f.bytes, 40);
    }
    for (int i = 0; i < 20; i++) {
        assert_int_equal(try_folder(&desc, &err), TERN_E_DATA);
        assert_non_null(strstr(err.message, "one/057.png"));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_png_kinds),     cmocka_unit_test(test_jpeg_kinds), cmocka_unit_test(test_cut_off),
        cmocka_unit_test(test_image_files),   cmocka_unit_test(test_folder),     cmocka_unit_test(test_first_failure),
        cmocka_unit_test(test_large_promise),
    };
    return cmocka_run_group_tests(tests, open_scratch, close_scratch);
}
