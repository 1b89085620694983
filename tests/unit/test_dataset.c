/* Data sets: files that the test makes, whole, cut off and wrong; and the real ones where they are there. */
#include <lzma.h>
#include <zlib.h>

#include "io/idx.h"
#include "io/text_tokens.h"
#include "io/unpacked_file.h"
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

/* Packed copies of some bytes: malloc'ed. */
static uint8_t *gzipped(size_t *packed, const void *data, size_t bytes) {
    z_stream z = {0};
    if (deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK) abort();
    size_t room = deflateBound(&z, bytes) + 64;
    uint8_t *out = malloc(room);
    if (!out) abort();
    z.next_in = (Bytef *)(uintptr_t)data;
    z.avail_in = (uInt)bytes;
    z.next_out = out;
    z.avail_out = (uInt)room;
    if (deflate(&z, Z_FINISH) != Z_STREAM_END) abort();
    *packed = room - z.avail_out;
    deflateEnd(&z);
    return out;
}

static uint8_t *xzed(size_t *packed, const void *data, size_t bytes) {
    size_t room = lzma_stream_buffer_bound(bytes);
    uint8_t *out = malloc(room);
    *packed = 0;
    if (!out || lzma_easy_buffer_encode(0, LZMA_CHECK_CRC64, NULL, data, bytes, out, packed, room) != LZMA_OK)
        abort();
    return out;
}

/* Opens, closes, and gives the status; *err has the message. */
static tern_status try_open(const tern_dataset_desc *desc, tern_error *err) {
    tern_dataset *d = NULL;
    *err = (tern_error){0};
    tern_status status = tern_dataset_open(&d, desc, err);
    assert_int_equal(d != NULL, status == TERN_OK);
    if (status) assert_int_equal(err->status, status);
    tern_dataset_close(&d);
    assert_null(d);
    return status;
}

static void assert_says(const tern_error *err, const char *text) {
    if (!strstr(err->message, text)) fail_msg("\"%s\" does not say \"%s\"", err->message, text);
}

/* ---- idx ------------------------------------------------------------------------------------------------------- */

enum { IMAGES = 16 + 3 * 2 * 2, LABELS = 8 + 3 };
static const uint8_t idx_images[IMAGES] = {0, 0, 8, 3, 0, 0, 0,  3,  0,  0,  0,  2,  0,  0,
                                           0, 2, 1, 2, 3, 4, 11, 12, 13, 14, 21, 22, 23, 24};
static const uint8_t idx_labels[LABELS] = {0, 0, 8, 1, 0, 0, 0, 3, 9, 0, 5};
static const char *const images_name = "t10k-images-idx3-ubyte", *const labels_name = "t10k-labels-idx1-ubyte";

static tern_dataset_desc mnist_test(void) {
    return (tern_dataset_desc){.kind = TERN_DATA_MNIST, .split = TERN_SPLIT_TEST, .path = scratch.path};
}

static void check_tiny_mnist(void) {
    tern_dataset *d = NULL;
    tern_dataset_desc desc = mnist_test();
    tern_dataset_info info;
    assert_int_equal(tern_dataset_open(&d, &desc, NULL), TERN_OK);
    assert_int_equal(tern_dataset_describe(&info, d, NULL), TERN_OK);
    assert_int_equal(info.count, 3);
    assert_int_equal(info.height, 2);
    assert_int_equal(info.width, 2);
    assert_int_equal(info.channels, 1);
    assert_int_equal(info.classes, 10);
    assert_int_equal(info.tokens, 0);
    assert_memory_equal(tern_dataset_images(d), idx_images + 16, 12);
    assert_memory_equal(tern_dataset_labels(d), idx_labels + 8, 3);
    assert_null(tern_dataset_tokens(d));
    assert_null(tern_dataset_vocabulary(d));
    assert_string_equal(tern_dataset_class_name(d, 9), "9");
    assert_null(tern_dataset_class_name(d, 10));
    tern_dataset_close(&d);
}

static void test_idx_plain_and_packed(void **state) {
    (void)state;
    folder_put(&scratch, images_name, idx_images, IMAGES);
    folder_put(&scratch, labels_name, idx_labels, LABELS);
    check_tiny_mnist();
    size_t gz, xz;
    uint8_t *packed_gz = gzipped(&gz, idx_images, IMAGES), *packed_xz = xzed(&xz, idx_labels, LABELS);
    remove(folder_file(&scratch, images_name));
    remove(folder_file(&scratch, labels_name));
    folder_put(&scratch, "t10k-images-idx3-ubyte.gz", packed_gz, gz);
    folder_put(&scratch, "t10k-labels-idx1-ubyte.xz", packed_xz, xz);
    check_tiny_mnist();
    free(packed_gz);
    free(packed_xz);
    remove(folder_file(&scratch, "t10k-images-idx3-ubyte.gz"));
    remove(folder_file(&scratch, "t10k-labels-idx1-ubyte.xz"));
}

static void test_idx_cut_off(void **state) {
    (void)state;
    tern_dataset_desc desc = mnist_test();
    tern_error err;
    folder_put(&scratch, labels_name, idx_labels, LABELS);
    for (size_t length = 0; length < IMAGES; length++) {
        folder_put(&scratch, images_name, idx_images, length);
        assert_int_equal(try_open(&desc, &err), TERN_E_DATA);
        assert_says(&err, images_name);
        assert_int_equal(err.place, length);
    }
    folder_put(&scratch, images_name, idx_images, IMAGES);
    for (size_t length = 0; length < LABELS; length++) {
        folder_put(&scratch, labels_name, idx_labels, length);
        assert_int_equal(try_open(&desc, &err), TERN_E_DATA);
        assert_says(&err, labels_name);
    }
    uint8_t longer[LABELS + 1] = {0};
    memcpy(longer, idx_labels, LABELS);
    folder_put(&scratch, labels_name, longer, sizeof longer);
    assert_int_equal(try_open(&desc, &err), TERN_E_DATA);
    remove(folder_file(&scratch, images_name));
    remove(folder_file(&scratch, labels_name));
}

/* Every length and every flipped byte of a packed file. */
static void check_packed(const char *name, const uint8_t *packed, size_t bytes) {
    tern_dataset_desc desc = mnist_test();
    tern_error err;
    for (size_t length = 0; length < bytes; length++) {
        folder_put(&scratch, name, packed, length);
        assert_int_equal(try_open(&desc, &err), TERN_E_DATA);
        assert_says(&err, name);
        assert_true(err.place <= IMAGES);
    }
    uint8_t *damaged = malloc(bytes + 1);
    assert_non_null(damaged);
    for (size_t i = 0; i < bytes; i++) {
        memcpy(damaged, packed, bytes);
        damaged[i] ^= 0x5a;
        folder_put(&scratch, name, damaged, bytes);
        tern_status status =
            try_open(&desc, &err); /* gzip has bytes that nothing is read from: the time, the system */
        assert_true(status == TERN_OK || status == TERN_E_DATA || status == TERN_E_MEMORY);
    }
    memcpy(damaged, packed, bytes);
    damaged[bytes] = 1;
    folder_put(&scratch, name, damaged, bytes + 1);
    assert_int_equal(try_open(&desc, &err), TERN_E_DATA);
    free(damaged);
    remove(folder_file(&scratch, name));
}

static void test_packed_cut_off(void **state) {
    (void)state;
    size_t bytes;
    folder_put(&scratch, labels_name, idx_labels, LABELS);
    uint8_t *packed = gzipped(&bytes, idx_images, IMAGES);
    check_packed("t10k-images-idx3-ubyte.gz", packed, bytes);
    free(packed);
    packed = xzed(&bytes, idx_images, IMAGES);
    check_packed("t10k-images-idx3-ubyte.xz", packed, bytes);
    free(packed);
    remove(folder_file(&scratch, labels_name));
}

/* Two gzip members one after the other are one content, and so are two .xz streams. */
static void test_packed_twice(void **state) {
    (void)state;
    static const char *const names[2] = {"twice.gz", "twice.xz"};
    for (int i = 0; i < 2; i++) {
        size_t a, b;
        uint8_t *first = i ? xzed(&a, "tern ", 5) : gzipped(&a, "tern ", 5);
        uint8_t *second = i ? xzed(&b, "bird", 4) : gzipped(&b, "bird", 4);
        uint8_t *both = malloc(a + b);
        assert_non_null(both);
        memcpy(both, first, a);
        memcpy(both + a, second, b);
        folder_put(&scratch, names[i], both, a + b);
        tern_bytes content;
        assert_int_equal(tern_read_unpacked(&content, folder_file(&scratch, names[i]), NULL), TERN_OK);
        assert_int_equal(content.size, 9);
        assert_memory_equal(content.data, "tern bird", 9);
        tern_bytes_free(&content);
        free(first);
        free(second);
        free(both);
    }
}

/* Larger than every buffer on the way. */
static void test_packed_large(void **state) {
    (void)state;
    const size_t bytes = 3000001;
    uint8_t *data = malloc(bytes);
    assert_non_null(data);
    for (size_t i = 0; i < bytes; i++) data[i] = (uint8_t)(i * i >> 7 ^ i >> 3);
    size_t gz, xz;
    uint8_t *packed_gz = gzipped(&gz, data, bytes), *packed_xz = xzed(&xz, data, bytes);
    folder_put(&scratch, "large", data, bytes);
    folder_put(&scratch, "large.gz", packed_gz, gz);
    folder_put(&scratch, "large.xz", packed_xz, xz);
    static const char *const names[3] = {"large", "large.gz", "large.xz"};
    for (int i = 0; i < 3; i++) {
        tern_bytes content;
        assert_int_equal(tern_read_unpacked(&content, folder_file(&scratch, names[i]), NULL), TERN_OK);
        assert_int_equal(content.size, bytes);
        assert_memory_equal(content.data, data, bytes);
        tern_bytes_free(&content);
    }
    free(packed_gz);
    free(packed_xz);
    free(data);
}

static tern_status parse(uint8_t *content, size_t bytes, size_t dimensions, tern_error *err) {
    tern_idx idx;
    return tern_idx_parse(&idx, dimensions, content, bytes, "x", err);
}

static void test_idx_wrong(void **state) {
    (void)state;
    tern_error err;
    uint8_t bad[IMAGES];
    for (size_t i = 0; i < 16; i++) { /* any other header byte is an error */
        memcpy(bad, idx_images, IMAGES);
        bad[i] ^= 0x81;
        assert_int_not_equal(parse(bad, IMAGES, 3, &err), TERN_OK);
    }
    memcpy(bad, idx_images, IMAGES);
    bad[7] = 0; /* no images */
    assert_int_equal(parse(bad, IMAGES, 3, &err), TERN_E_DATA);
    assert_int_equal(err.place, 4);
    memset(bad + 4, 0xff, 12); /* 2^96 bytes */
    assert_int_equal(parse(bad, IMAGES, 3, &err), TERN_E_SIZE);
    memcpy(bad, idx_images, IMAGES);
    assert_int_equal(parse(bad, IMAGES, 1, &err), TERN_E_DATA); /* the wrong number of dimensions */
    assert_int_equal(err.place, 0);
    assert_says(&err, "00000801");
    assert_says(&err, "00000803");

    tern_dataset_desc desc = mnist_test();
    uint8_t labels[LABELS + 1] = {0, 0, 8, 1, 0, 0, 0, 3, 9, 0, 10};
    folder_put(&scratch, images_name, idx_images, IMAGES);
    folder_put(&scratch, labels_name, labels, LABELS);
    assert_int_equal(try_open(&desc, &err), TERN_E_DATA);
    assert_int_equal(err.place, 10);
    assert_says(&err, "label 10");
    labels[7] = 4;
    labels[10] = 1;
    folder_put(&scratch, labels_name, labels, LABELS + 1);
    assert_int_equal(try_open(&desc, &err), TERN_E_DATA);
    assert_says(&err, "4 labels");
    assert_says(&err, "3 images");
    remove(folder_file(&scratch, labels_name));
    assert_int_equal(try_open(&desc, &err), TERN_E_FILE);
    assert_says(&err, labels_name);
    remove(folder_file(&scratch, images_name));
}

/* ---- CIFAR-10 -------------------------------------------------------------------------------------------------- */

enum { RECORD = 3073 };

static void fill_record(uint8_t *record, uint8_t label) {
    record[0] = label;
    for (int i = 1; i < RECORD; i++) record[i] = (uint8_t)(i * 7 + label * 31 + (i >> 8));
}

static void test_cifar(void **state) {
    (void)state;
    uint8_t *records = malloc(2 * RECORD);
    assert_non_null(records);
    char name[32];
    for (int f = 0; f < 5; f++) {
        fill_record(records, (uint8_t)(2 * f));
        fill_record(records + RECORD, (uint8_t)(2 * f + 1));
        snprintf(name, sizeof name, "data_batch_%d.bin", f + 1);
        folder_put(&scratch, name, records, 2 * RECORD);
    }
    tern_dataset_desc desc = {.kind = TERN_DATA_CIFAR10, .path = scratch.path};
    tern_dataset *d = NULL;
    tern_dataset_info info;
    tern_error err;
    assert_int_equal(tern_dataset_open(&d, &desc, NULL), TERN_OK);
    tern_dataset_describe(&info, d, NULL);
    assert_int_equal(info.count, 10);
    assert_int_equal(info.height * info.width * info.channels, 3072);
    for (size_t i = 0; i < 10; i++) {
        fill_record(records, (uint8_t)i);
        assert_int_equal(tern_dataset_labels(d)[i], i);
        for (size_t p = 0; p < 1024; p++)
            for (size_t c = 0; c < 3; c++)
                assert_int_equal(tern_dataset_images(d)[(i * 1024 + p) * 3 + c], records[1 + c * 1024 + p]);
    }
    assert_string_equal(tern_dataset_class_name(d, 3), "cat");
    tern_dataset_close(&d);

    folder_put(&scratch, "data_batch_4.bin", records, RECORD); /* cut off between records */
    assert_int_equal(try_open(&desc, &err), TERN_E_DATA);
    assert_says(&err, "data_batch_4.bin");
    folder_put(&scratch, "data_batch_4.bin", records, 2 * RECORD - 1);
    assert_int_equal(try_open(&desc, &err), TERN_E_DATA);
    assert_int_equal(err.place, 2 * RECORD - 1);
    folder_put(&scratch, "data_batch_4.bin", records, 0);
    assert_int_equal(try_open(&desc, &err), TERN_E_DATA);
    fill_record(records, 1);
    fill_record(records + RECORD, 10);
    folder_put(&scratch, "data_batch_4.bin", records, 2 * RECORD);
    assert_int_equal(try_open(&desc, &err), TERN_E_DATA);
    assert_int_equal(err.place, RECORD);
    assert_says(&err, "label 10");
    remove(folder_file(&scratch, "data_batch_4.bin"));
    assert_int_equal(try_open(&desc, &err), TERN_E_FILE);
    assert_says(&err, "data_batch_4.bin");
    free(records);
}

/* ---- text ------------------------------------------------------------------------------------------------------ */

static const char story[] = "a\xc3\xa4\xe2\x82\xac\xf0\x9f\x90\xa6 b\naab"; /* a ä € 🐦 space b newline a a b */
static const uint32_t story_points[] = {'a', 0xe4, 0x20ac, 0x1f426, ' ', 'b', '\n', 'a', 'a', 'b'};
static const uint32_t story_vocabulary[] = {'\n', ' ', 'a', 'b', 0xe4, 0x20ac, 0x1f426};

static tern_dataset_desc story_desc(tern_split split, tern_text_unit unit, double share) {
    folder_put(&scratch, "story.txt", story, sizeof story - 1);
    return (tern_dataset_desc){.kind = TERN_DATA_TEXT,
                               .split = split,
                               .path = folder_file(&scratch, "story.txt"),
                               .unit = unit,
                               .train_share = share};
}

static void test_text_characters(void **state) {
    (void)state;
    tern_dataset *d = NULL;
    tern_dataset_info info;
    tern_dataset_desc desc = story_desc(TERN_SPLIT_TRAIN, TERN_TEXT_CHARACTERS, 1);
    assert_int_equal(tern_dataset_open(&d, &desc, NULL), TERN_OK);
    tern_dataset_describe(&info, d, NULL);
    assert_int_equal(info.tokens, 10);
    assert_int_equal(info.vocabulary, 7);
    assert_int_equal(info.count, 0);
    assert_memory_equal(tern_dataset_vocabulary(d), story_vocabulary, sizeof story_vocabulary);
    const uint16_t *tokens = tern_dataset_tokens(d);
    for (size_t i = 0; i < 10; i++) assert_int_equal(story_vocabulary[tokens[i]], story_points[i]);
    assert_null(tern_dataset_images(d));
    assert_null(tern_dataset_class_name(d, 0));

    char text[64];
    uint16_t again[16];
    size_t bytes, count;
    tern_error err;
    assert_int_equal(tern_dataset_decode(d, text, sizeof text, &bytes, tokens, 10, NULL), TERN_OK);
    assert_int_equal(bytes, sizeof story - 1);
    assert_string_equal(text, story);
    assert_int_equal(tern_dataset_encode(d, again, 16, &count, story, sizeof story - 1, NULL), TERN_OK);
    assert_int_equal(count, 10);
    assert_memory_equal(again, tokens, 20);
    assert_int_equal(tern_dataset_encode(d, again, 9, &count, story, sizeof story - 1, NULL), TERN_E_SIZE);
    assert_int_equal(count, 10);
    for (size_t room = 0; room < sizeof story; room++) {
        char *exact = malloc(room + 1); /* so that the sanitizer sees a byte too many */
        assert_non_null(exact);
        exact = realloc(exact, room ? room : 1);
        assert_int_equal(tern_dataset_decode(d, exact, room, &bytes, tokens, 10, NULL), TERN_E_SIZE);
        assert_int_equal(bytes, sizeof story - 1);
        free(exact);
    }
    assert_int_equal(tern_dataset_decode(d, text, sizeof story, &bytes, tokens, 10, NULL), TERN_OK);
    assert_int_equal(tern_dataset_encode(d, again, 16, &count, "aax", 3, &err), TERN_E_DATA);
    assert_int_equal(err.place, 2);
    assert_int_equal(tern_dataset_encode(d, again, 16, &count, "a\xc3", 2, &err), TERN_E_DATA);
    assert_int_equal(err.place, 1);
    again[0] = 7;
    assert_int_equal(tern_dataset_decode(d, text, sizeof text, &bytes, again, 1, &err), TERN_E_DATA);
    assert_int_equal(err.place, 0);
    tern_dataset_close(&d);
}

static void test_text_splits(void **state) {
    (void)state;
    tern_dataset *train = NULL, *test = NULL;
    tern_dataset_info a, b;
    tern_error err;
    tern_dataset_desc desc = story_desc(TERN_SPLIT_TRAIN, TERN_TEXT_CHARACTERS, 0); /* 0.9 */
    assert_int_equal(tern_dataset_open(&train, &desc, NULL), TERN_OK);
    desc.split = TERN_SPLIT_TEST;
    assert_int_equal(tern_dataset_open(&test, &desc, NULL), TERN_OK);
    tern_dataset_describe(&a, train, NULL);
    tern_dataset_describe(&b, test, NULL);
    assert_int_equal(a.tokens, 9);
    assert_int_equal(b.tokens, 1);
    assert_int_equal(a.vocabulary, b.vocabulary);
    assert_int_equal(tern_dataset_tokens(test)[0], 3); /* b */
    tern_dataset_close(&train);
    tern_dataset_close(&test);
    desc.train_share = 1;
    assert_int_equal(try_open(&desc, &err), TERN_E_DATA);
    desc.train_share = 1.5;
    assert_int_equal(try_open(&desc, &err), TERN_E_ARGUMENT);

    desc = story_desc(TERN_SPLIT_TEST, TERN_TEXT_BYTES, 0.5);
    assert_int_equal(tern_dataset_open(&test, &desc, NULL), TERN_OK);
    tern_dataset_describe(&b, test, NULL);
    assert_int_equal(b.vocabulary, 256);
    const size_t half = (sizeof story - 1) / 2;
    assert_int_equal(b.tokens, sizeof story - 1 - half);
    for (size_t i = 0; i < b.tokens; i++) assert_int_equal(tern_dataset_tokens(test)[i], (uint8_t)story[half + i]);
    assert_null(tern_dataset_vocabulary(test));
    tern_dataset_close(&test);
}

static void test_utf8(void **state) {
    (void)state;
    for (uint32_t c = 0; c < TERN_CODE_POINTS; c++) {
        uint8_t text[4];
        size_t length = tern_utf8_put(text, c), at = 0;
        uint32_t back = tern_utf8_next(text, length, &at);
        if (c >= 0xd800 && c < 0xe000) {
            assert_int_equal(back, UINT32_MAX);
            assert_int_equal(at, 0);
            continue;
        }
        assert_int_equal(back, c);
        assert_int_equal(at, length);
        at = 0;
        assert_int_equal(tern_utf8_next(text, length - 1 ? length - 1 : 1, &at), length == 1 ? c : UINT32_MAX);
    }
    static const char *const wrong[] = {"\x80",
                                        "\xc0\x80",
                                        "\xc1\xbf",
                                        "\xe0\x9f\xbf",
                                        "\xf0\x8f\xbf\xbf",
                                        "\xf4\x90\x80\x80",
                                        "\xff",
                                        "\xc3(",
                                        "\xf8\x88\x80\x80\x80"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        size_t at = 0;
        assert_int_equal(tern_utf8_next((const uint8_t *)wrong[i], strlen(wrong[i]), &at), UINT32_MAX);
    }
    tern_error err;
    folder_put(&scratch, "latin1.txt",
               "stra\xdf"
               "e",
               6);
    tern_dataset_desc desc = {.kind = TERN_DATA_TEXT, .path = folder_file(&scratch, "latin1.txt")};
    assert_int_equal(try_open(&desc, &err), TERN_E_DATA);
    assert_int_equal(err.place, 4);
    desc.unit = TERN_TEXT_BYTES;
    assert_int_equal(try_open(&desc, &err), TERN_OK);
    folder_put(&scratch, "empty.txt", "", 0);
    desc.path = folder_file(&scratch, "empty.txt");
    assert_int_equal(try_open(&desc, &err), TERN_E_DATA);
}

/* One distinct character more than a vocabulary holds. */
static void test_vocabulary_full(void **state) {
    (void)state;
    uint8_t *text = malloc(4 * (TERN_MAX_VOCABULARY + 1));
    assert_non_null(text);
    size_t bytes = 0, size, characters;
    uint32_t *vocabulary;
    for (uint32_t i = 0; i < TERN_MAX_VOCABULARY; i++) bytes += tern_utf8_put(text + bytes, 0x10000 + i);
    assert_int_equal(tern_vocabulary_of(&vocabulary, &size, &characters, text, bytes, "x", NULL), TERN_OK);
    assert_int_equal(size, TERN_MAX_VOCABULARY);
    assert_int_equal(tern_vocabulary_find(vocabulary, size, 0x1ffff), TERN_MAX_VOCABULARY - 1);
    assert_int_equal(tern_vocabulary_find(vocabulary, size, 'x'), -1);
    free(vocabulary);
    bytes += tern_utf8_put(text + bytes, 'x');
    assert_int_equal(tern_vocabulary_of(&vocabulary, &size, &characters, text, bytes, "x", NULL), TERN_E_SIZE);
    free(text);
}

/* ---- places and arguments -------------------------------------------------------------------------------------- */

static void test_places(void **state) {
    (void)state;
    tern_error err;
    tern_dataset_desc desc = {.kind = TERN_DATA_CIFAR10, .split = TERN_SPLIT_TEST};
    uint8_t record[RECORD];
    fill_record(record, 4);
    folder_mkdir(&scratch, "cifar-10");
    folder_put(&scratch, "cifar-10/test_batch.bin", record, RECORD);
    setenv("TERN_DATA", scratch.path, 1);
    tern_dataset *d = NULL;
    tern_dataset_info info;
    assert_int_equal(tern_dataset_open(&d, &desc, NULL), TERN_OK);
    tern_dataset_describe(&info, d, NULL);
    assert_int_equal(info.count, 1);
    tern_dataset_close(&d);

    char before[4096];
    assert_non_null(getcwd(before, sizeof before));
    assert_int_equal(chdir(scratch.path), 0); /* no data/ here, and no ../shared/data */
    unsetenv("TERN_DATA");
    assert_int_equal(try_open(&desc, &err), TERN_E_FILE);
    assert_says(&err, "test_batch.bin");
    assert_says(&err, "$TERN_DATA/cifar-10 (not set)");
    assert_says(&err, " data/cifar-10");
    assert_says(&err, "/usr/share/datasets/cifar-10");
    assert_says(&err, "tern data");
    folder_mkdir(&scratch, "data");
    assert_int_equal(rename("cifar-10", "data/cifar-10"), 0);
    assert_int_equal(try_open(&desc, &err), TERN_OK);
    desc.split = TERN_SPLIT_TRAIN;
    assert_int_equal(try_open(&desc, &err), TERN_E_FILE);
    assert_says(&err, "data_batch_1.bin");
    assert_int_equal(chdir(before), 0);
    desc.path = folder_file(&scratch, "nowhere");
    assert_int_equal(try_open(&desc, &err), TERN_E_FILE);
    assert_says(&err, "nowhere");
    desc.kind = TERN_DATA_TEXT;
    assert_int_equal(try_open(&desc, &err), TERN_E_FILE);
    desc.path = scratch.path; /* a folder */
    assert_int_equal(try_open(&desc, &err), TERN_E_FILE);
}

static void test_arguments(void **state) {
    (void)state;
    tern_error err;
    tern_dataset *d = NULL;
    tern_dataset_desc desc = {.kind = TERN_DATA_KIND_COUNT};
    assert_int_equal(tern_dataset_open(NULL, &desc, &err), TERN_E_ARGUMENT);
    assert_int_equal(tern_dataset_open(&d, NULL, &err), TERN_E_ARGUMENT);
    assert_int_equal(try_open(&desc, &err), TERN_E_ARGUMENT);
    desc = (tern_dataset_desc){.split = (tern_split)2};
    assert_int_equal(try_open(&desc, &err), TERN_E_ARGUMENT);
    desc = (tern_dataset_desc){.kind = TERN_DATA_IMAGES};
    assert_int_equal(try_open(&desc, &err), TERN_E_ARGUMENT);
    desc = (tern_dataset_desc){.kind = TERN_DATA_IMAGES, .path = scratch.path, .channels = 2};
    assert_int_equal(try_open(&desc, &err), TERN_E_ARGUMENT);
    desc = story_desc(TERN_SPLIT_TRAIN, (tern_text_unit)2, 0);
    assert_int_equal(try_open(&desc, &err), TERN_E_ARGUMENT);
    tern_dataset_close(NULL);
    tern_dataset_close(&d);
    assert_null(tern_dataset_images(NULL));
    assert_null(tern_dataset_labels(NULL));
    assert_null(tern_dataset_tokens(NULL));
    assert_null(tern_dataset_vocabulary(NULL));
    assert_null(tern_dataset_class_name(NULL, 0));
    tern_dataset_info info;
    float mean[4], std[4];
    assert_int_equal(tern_dataset_describe(&info, NULL, NULL), TERN_E_ARGUMENT);
    assert_int_equal(tern_dataset_moments(mean, std, NULL, NULL), TERN_E_ARGUMENT);
    desc = story_desc(TERN_SPLIT_TRAIN, TERN_TEXT_BYTES, 0);
    assert_int_equal(tern_dataset_open(&d, &desc, NULL), TERN_OK);
    assert_int_equal(tern_dataset_moments(mean, std, d, NULL), TERN_E_ARGUMENT);
    tern_dataset_close(&d);
    assert_string_equal(tern_data_kind_name(TERN_DATA_CIFAR10), "cifar-10");
    assert_null(tern_data_kind_name(TERN_DATA_KIND_COUNT));
}

/* ---- the real ones --------------------------------------------------------------------------------------------- */

typedef struct real {
    tern_data_kind kind;
    tern_split split;
    size_t count, height, channels;
    unsigned long first; /* CRC-32 of the first image */
    size_t label_count[10];
    float mean[3], std[3]; /* as everybody quotes them; 0: not checked */
} real;

static const real reals[] = {
    {TERN_DATA_MNIST,
     TERN_SPLIT_TRAIN,
     60000,
     28,
     1,
     0x90a92752,
     {5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949},
     {.1307f},
     {.3081f}},
    {TERN_DATA_MNIST,
     TERN_SPLIT_TEST,
     10000,
     28,
     1,
     0x7eb3cd06,
     {980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009},
     {0},
     {0}},
    {TERN_DATA_FASHION_MNIST,
     TERN_SPLIT_TRAIN,
     60000,
     28,
     1,
     0xf270beb5,
     {6000, 6000, 6000, 6000, 6000, 6000, 6000, 6000, 6000, 6000},
     {.2860f},
     {.3530f}},
    {TERN_DATA_FASHION_MNIST,
     TERN_SPLIT_TEST,
     10000,
     28,
     1,
     0x52830860,
     {1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000},
     {0},
     {0}},
    {TERN_DATA_CIFAR10,
     TERN_SPLIT_TRAIN,
     50000,
     32,
     3,
     0x154086ba,
     {5000, 5000, 5000, 5000, 5000, 5000, 5000, 5000, 5000, 5000},
     {.4914f, .4822f, .4465f},
     {.2470f, .2435f, .2616f}},
    {TERN_DATA_CIFAR10,
     TERN_SPLIT_TEST,
     10000,
     32,
     3,
     0x9b4c7e75,
     {1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000},
     {0},
     {0}},
};

/* The tests run somewhere below build/; the default places are seen from the root of the tree. */
static void go_to_root(char before[4096]) {
    assert_non_null(getcwd(before, 4096));
    char root[] = TERN_TEST_DATA; /* ROOT/tests/data */
    for (int i = 0; i < 2; i++) *strrchr(root, '/') = 0;
    assert_int_equal(chdir(root), 0);
    unsetenv("TERN_DATA");
}

static void check_real(const real *r, tern_dataset *d) {
    tern_dataset_info info;
    tern_dataset_describe(&info, d, NULL);
    assert_int_equal(info.count, r->count);
    assert_int_equal(info.height, r->height);
    assert_int_equal(info.width, r->height);
    assert_int_equal(info.channels, r->channels);
    size_t counts[10] = {0};
    for (size_t i = 0; i < info.count; i++) counts[tern_dataset_labels(d)[i]]++;
    assert_memory_equal(counts, r->label_count, sizeof counts);
    size_t bytes = info.height * info.width * info.channels;
    assert_int_equal(crc32(0, tern_dataset_images(d), (uInt)bytes), r->first);
    float mean[4], std[4];
    assert_int_equal(tern_dataset_moments(mean, std, d, NULL), TERN_OK);
    for (size_t c = 0; c < r->channels && r->mean[0] > 0; c++) {
        assert_true(mean[c] > r->mean[c] - 1e-4f && mean[c] < r->mean[c] + 1e-4f);
        assert_true(std[c] > r->std[c] - 1e-4f && std[c] < r->std[c] + 1e-4f);
    }
}

static void test_real_images(void **state) {
    (void)state;
    char before[4096];
    go_to_root(before);
    for (size_t i = 0; i < sizeof reals / sizeof *reals; i++) {
        tern_dataset *d = NULL;
        tern_error err;
        tern_status status =
            tern_dataset_open(&d, &(tern_dataset_desc){.kind = reals[i].kind, .split = reals[i].split}, &err);
        if (status == TERN_E_FILE) {
            print_message("skipped: %s\n", err.message);
            continue;
        }
        assert_int_equal(status, TERN_OK);
        check_real(&reals[i], d);
        tern_dataset_close(&d);
    }
    assert_int_equal(chdir(before), 0);
}

static void test_real_text(void **state) {
    (void)state;
    char before[4096];
    go_to_root(before);
    tern_dataset *d = NULL;
    tern_error err;
    tern_status status = tern_dataset_open(&d, &(tern_dataset_desc){.kind = TERN_DATA_TEXT}, &err);
    assert_int_equal(chdir(before), 0);
    if (status == TERN_E_FILE) {
        print_message("skipped: %s\n", err.message);
        return;
    }
    assert_int_equal(status, TERN_OK);
    tern_dataset_info info;
    tern_dataset_describe(&info, d, NULL);
    assert_int_equal(info.tokens, 1003854); /* as nanoGPT's data/shakespeare_char says */
    assert_int_equal(info.vocabulary, 65);
    char text[32];
    size_t bytes;
    assert_int_equal(tern_dataset_decode(d, text, sizeof text, &bytes, tern_dataset_tokens(d), 14, NULL), TERN_OK);
    assert_string_equal(text, "First Citizen:");
    tern_dataset_close(&d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_idx_plain_and_packed),
        cmocka_unit_test(test_idx_cut_off),
        cmocka_unit_test(test_packed_cut_off),
        cmocka_unit_test(test_packed_twice),
        cmocka_unit_test(test_packed_large),
        cmocka_unit_test(test_idx_wrong),
        cmocka_unit_test(test_cifar),
        cmocka_unit_test(test_text_characters),
        cmocka_unit_test(test_text_splits),
        cmocka_unit_test(test_utf8),
        cmocka_unit_test(test_vocabulary_full),
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_arguments),
        cmocka_unit_test(test_real_images),
        cmocka_unit_test(test_real_text),
    };
    return cmocka_run_group_tests(tests, open_scratch, close_scratch);
}
