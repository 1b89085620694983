/* safetensors: round trips, every refusal of hostile files, and every damaged byte. */
#define _GNU_SOURCE
#include <signal.h>
#include <sys/resource.h>

#include "io/safetensors.h"
#include "testing.h"

/* A place that is jansson's to choose. */
#define IN_THE_TEXT (UINT64_MAX - 1)

/* ---- files made by hand ---------------------------------------------------------------------------------------- */

/* u64 length | header | data, every byte of which is 7; to be freed. Its own block, so that an over-read is seen. */
static uint8_t *make_file(size_t *size, uint64_t length, const char *header, size_t header_bytes, size_t data) {
    uint8_t *file = malloc(8 + header_bytes + data);
    assert_non_null(file);
    for (int i = 0; i < 8; i++) file[i] = (uint8_t)(length >> 8 * i);
    memcpy(file + 8, header, header_bytes);
    memset(file + 8 + header_bytes, 7, data);
    *size = 8 + header_bytes + data;
    return file;
}

static void check_refused_bytes(const uint8_t *file, size_t size, tern_status want, uint64_t place,
                                const char *message) {
    tern_safetensors *f = (tern_safetensors *)(uintptr_t)1;
    tern_error err = {0};
    const tern_status got = tern_safetensors_open_memory(&f, file, size, "x.bin", TERN_ST_CHECKSUM_IF_PRESENT, &err);
    if (got != want || !strstr(err.message, message)) print_error("%s\n  wanted: %s\n", err.message, message);
    assert_int_equal(got, want);
    assert_null(f);
    assert_non_null(strstr(err.message, message));
    assert_int_equal(strncmp(err.message, "x.bin: byte ", 12), 0);
    if (place == IN_THE_TEXT)
        assert_in_range(err.place, 8, size);
    else
        assert_int_equal(err.place, place);
}

typedef struct header_case {
    const char *header;
    size_t data;
    tern_status status;
    const char *message; /* NULL: accepted */
    uint64_t place;
} header_case;

static void check_header(const header_case *c) {
    size_t size = 0;
    const size_t n = strlen(c->header);
    uint8_t *file = make_file(&size, n, c->header, n, c->data);
    if (c->message) {
        check_refused_bytes(file, size, c->status, c->place, c->message);
    } else {
        tern_safetensors *f = NULL;
        tern_error err = {0};
        if (tern_safetensors_open_memory(&f, file, size, "x.bin", TERN_ST_CHECKSUM_IF_PRESENT, &err))
            fail_msg("%s: %s", c->header, err.message);
        tern_safetensors_close(&f);
        assert_int_equal(tern_safetensors_open_memory(&f, file, size, "x.bin", TERN_ST_CHECKSUM_REQUIRED, &err),
                         TERN_E_DATA);
        assert_non_null(strstr(err.message, "no checksum"));
    }
    free(file);
}

static void check_headers(const header_case *cases, size_t count) {
    for (size_t i = 0; i < count; i++) check_header(&cases[i]);
}

#define CHECK_HEADERS(...)                                  \
    do {                                                    \
        static const header_case cases[] = {__VA_ARGS__};   \
        check_headers(cases, sizeof cases / sizeof *cases); \
    } while (0)
#define U8(name, n, begin, end) \
    "\"" name "\":{\"dtype\":\"U8\",\"shape\":[" #n "],\"data_offsets\":[" #begin "," #end "]}"

static void test_shorter_than_a_length(void **state) {
    (void)state;
    static const uint8_t zeros[8];
    for (size_t size = 0; size < 8; size++) {
        uint8_t *bytes = malloc(size + 1);
        memcpy(bytes, zeros, size);
        check_refused_bytes(bytes, size, TERN_E_DATA, size, "the file ends here");
        free(bytes);
    }
}

static void test_header_length(void **state) {
    (void)state;
    static const struct {
        uint64_t length;
        const char *message;
    } cases[] = {{3, "a header of 3 bytes in a file of 10"},
                 {100000000, "a header of 100000000 bytes in a file of 10"},
                 {100000001, "a header of 100000001 bytes, at most 100000000"},
                 {INT64_MAX, "at most 100000000"},
                 {UINT64_MAX - 7, "at most 100000000"},
                 {UINT64_MAX, "a header of 18446744073709551615 bytes, at most"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t size = 0;
        uint8_t *file = make_file(&size, cases[i].length, "{}", 2, 0);
        check_refused_bytes(file, size, TERN_E_DATA, 0, cases[i].message);
        free(file);
    }
}

static void test_json(void **state) {
    (void)state;
    CHECK_HEADERS({"", 0, TERN_E_DATA, "header: ", IN_THE_TEXT}, {"{", 0, TERN_E_DATA, "header: ", IN_THE_TEXT},
                  {"{}}", 0, TERN_E_DATA, "header: ", IN_THE_TEXT}, {"{}{}", 0, TERN_E_DATA, "header: ", IN_THE_TEXT},
                  {"[]", 0, TERN_E_DATA, "not a JSON object", IN_THE_TEXT},
                  {"{'a':1}", 0, TERN_E_DATA, "header: ", IN_THE_TEXT},
                  {"{\"a\":NaN}", 0, TERN_E_DATA, "header: ", IN_THE_TEXT},
                  {"{\"a\\u0000\":1}", 0, TERN_E_DATA, "header: ", IN_THE_TEXT},
                  {"{\"\xff\":1}", 0, TERN_E_DATA, "unable to decode byte 0x", IN_THE_TEXT},
                  {"{\"\xc0\xaf\":1}", 0, TERN_E_DATA, "unable to decode byte 0x", IN_THE_TEXT},
                  {"{\"\xed\xa0\x80\":1}", 0, TERN_E_DATA, "unable to decode byte 0x", IN_THE_TEXT},
                  {"{}\x0b", 0, TERN_E_DATA, "header: ", IN_THE_TEXT},
                  {"{\"a\":1e999}", 0, TERN_E_DATA, "header: ", IN_THE_TEXT});
    /* NUL after the header's end, and nesting without end. */
    size_t size = 0;
    uint8_t *file = make_file(&size, 3, "{}\0", 3, 0);
    check_refused_bytes(file, size, TERN_E_DATA, IN_THE_TEXT, "header: ");
    free(file);
    char *deep = malloc(100000);
    memset(deep, '[', 100000);
    file = make_file(&size, 100000, deep, 100000, 0);
    check_refused_bytes(file, size, TERN_E_DATA, IN_THE_TEXT, "header: ");
    free(file);
    free(deep);
}

static void test_white_space(void **state) {
    (void)state;
    CHECK_HEADERS({"{}", 0, 0, NULL, 0}, {"{}      ", 0, 0, NULL, 0}, {" \t\r\n{ }\n", 0, 0, NULL, 0});
}

static void test_duplicate_names(void **state) {
    (void)state;
    CHECK_HEADERS({"{" U8("a", 1, 0, 1) "," U8("a", 1, 1, 2) "}", 2, TERN_E_DATA, "duplicate", IN_THE_TEXT},
                  {"{" U8("a", 1, 0, 1) "," U8("\\u0061", 1, 1, 2) "}", 2, TERN_E_DATA, "duplicate", IN_THE_TEXT},
                  {"{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"}}", 0, TERN_E_DATA, "duplicate", IN_THE_TEXT},
                  {"{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, TERN_E_DATA,
                   "duplicate", IN_THE_TEXT});
}

static void test_metadata(void **state) {
    (void)state;
    CHECK_HEADERS({"{\"__metadata__\":{}}", 0, 0, NULL, 0}, {"{\"__metadata__\":{\"k\":\"v\"}}", 0, 0, NULL, 0},
                  {"{\"__metadata__\":7}", 0, TERN_E_DATA, "__metadata__ is not an object", 9},
                  {"{\"__metadata__\":null}", 0, TERN_E_DATA, "__metadata__ is not an object", 9},
                  {"{\"__metadata__\":{\"k\":1}}", 0, TERN_E_DATA, "\"k\" is not a string", 9},
                  {"{\"__metadata__\":{\"k\":{\"l\":\"m\"}}}", 0, TERN_E_DATA, "\"k\" is not a string", 9});
}

static void test_entry_form(void **state) {
    (void)state;
    CHECK_HEADERS(
        {"{\"a\":1}", 0, TERN_E_DATA, "tensor \"a\": its value is not an object", 9},
        {"{\"a\":{}}", 0, TERN_E_DATA, "dtype is missing", 9},
        {"{\"a\":{\"dtype\":8,\"shape\":[1],\"data_offsets\":[0,1]}}", 1, TERN_E_DATA, "dtype is missing", 9},
        {"{\"a\":{\"dtype\":\"u8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, TERN_E_DATA, "unknown dtype \"u8\"",
         9},
        {"{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1, TERN_E_DATA, "shape is missing", 9},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":1,\"data_offsets\":[0,1]}}", 1, TERN_E_DATA, "shape is missing", 9},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1.0],\"data_offsets\":[0,1]}}", 1, TERN_E_DATA, "dimension 0", 9},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1,-1],\"data_offsets\":[0,1]}}", 1, TERN_E_DATA, "dimension 1", 9},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[\"1\"],\"data_offsets\":[0,1]}}", 1, TERN_E_DATA, "dimension 0", 9},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1, TERN_E_DATA, "data_offsets is missing", 9},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1]}}", 1, TERN_E_DATA, "not two whole numbers", 9},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1,1]}}", 1, TERN_E_DATA, "not two whole", 9},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[-1,0]}}", 1, TERN_E_DATA, "not two whole", 9},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1.0]}}", 1, TERN_E_DATA, "not two whole", 9},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"strides\":[1]}}", 1, TERN_E_DATA,
         "keys other", 9},
        /* The second entry's place in the file, past a name and metadata that look like structure. */
        {"{\"__metadata__\":{\"k\":\"},{\\\"\"}," U8("{[,", 1, 0, 1) ", \"b\":[]}", 1, TERN_E_DATA,
         "tensor \"b\": its value is not an object", 8 + 85});
}

static void test_shape_against_offsets(void **state) {
    (void)state;
    CHECK_HEADERS(
        {"{" U8("a", 2, 0, 1) "}", 1, TERN_E_DATA, "hold 1 bytes where dtype and shape need 2", 9},
        {"{" U8("a", 1, 0, 2) "}", 2, TERN_E_DATA, "hold 2 bytes where dtype and shape need 1", 9},
        {"{" U8("a", 0, 1, 0) "}", 1, TERN_E_DATA, "[1, 0) end before they begin", 9},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,12]}}", 12, TERN_E_DATA, "need 16", 9},
        {"{\"a\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,2]}}", 2, TERN_E_DATA, "fill whole bytes", 9},
        {"{\"a\":{\"dtype\":\"F6_E2M3\",\"shape\":[2],\"data_offsets\":[0,2]}}", 2, TERN_E_DATA, "fill whole bytes",
         9},
        {"{\"a\":{\"dtype\":\"F6_E3M2\",\"shape\":[4],\"data_offsets\":[0,3]}}", 3, 0, NULL, 0});
}

static void test_overflows(void **state) {
    (void)state;
    CHECK_HEADERS(
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", 0, TERN_E_DATA,
         "its shape overflows", 9},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4294967296,4294967296,0],\"data_offsets\":[0,0]}}", 0, TERN_E_DATA,
         "its shape overflows", 9},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[576460752303423488],\"data_offsets\":[0,0]}}", 0, TERN_E_DATA,
         "its shape overflows", 9},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[9223372036854775808],\"data_offsets\":[0,0]}}", 0, TERN_E_DATA,
         "too big", IN_THE_TEXT},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[9223372036854775807,0]}}", 1, TERN_E_DATA,
         "end before they begin", 9},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[9223372036854775807],\"data_offsets\":[0,9223372036854775807]}}", 1,
         TERN_E_DATA, "its shape overflows", 9},
        {"{" U8("a", 1000000000000, 0, 1000000000000) "}", 1, TERN_E_DATA, "the file has 1 bytes of data", 9},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]}}", 1, TERN_E_UNSUPPORTED,
         "9 dimensions", 9});
}

static void test_layout(void **state) {
    (void)state;
    CHECK_HEADERS({"{" U8("a", 1, 1, 2) "}", 2, TERN_E_DATA, "begins at 1, a hole: the one before ends at 0", 9},
                  {"{" U8("a", 1, 0, 1) "," U8("b", 1, 2, 3) "}", 3, TERN_E_DATA,
                   "\"b\": its data begins at 2, a hole", 8 + 53},
                  {"{" U8("a", 2, 0, 2) "," U8("b", 2, 1, 3) "}", 3, TERN_E_DATA, "begins at 1, an overlap", 8 + 53},
                  {"{" U8("a", 2, 0, 2) "," U8("b", 2, 0, 2) "}", 2, TERN_E_DATA, "begins at 0, an overlap", 8 + 53},
                  {"{" U8("a", 2, 0, 2) "}", 1, TERN_E_DATA, "ends at 2, the file has 1 bytes", 9},
                  {"{" U8("a", 2, 0, 2) "}", 3, TERN_E_DATA, "1 bytes after the end of the last", 8 + 53 + 2},
                  {"{}", 1, TERN_E_DATA, "1 bytes after the end", 10},
                  {"{" U8("z", 1, 1, 2) "," U8("b", 1, 0, 1) "}", 2, 0, NULL, 0},
                  {"{" U8("e", 0, 1, 1) "," U8("a", 1, 0, 1) "," U8("s", 0, 0, 0) "}", 1, 0, NULL, 0});
}

static void test_foreign_checksum(void **state) {
    (void)state;
    CHECK_HEADERS({"{\"__metadata__\":{\"tern.crc32\":\"00000000\"}}", 0, TERN_E_DATA, "without tern.checksum", 8},
                  {"{\"__metadata__\":{\"tern.checksum\":\"crc32\"}}", 0, TERN_E_DATA, "without tern.crc32", 8},
                  {"{\"__metadata__\":{\"tern.checksum\":\"md5\",\"tern.crc32\":\"00000000\"}}", 0, TERN_E_DATA,
                   "unknown checksum method \"md5\"", 8},
                  {"{\"__metadata__\":{\"tern.checksum\":\"crc32\",\"tern.crc32\": \"00000000\"}}", 0, TERN_E_DATA,
                   "not in Tern's form", 8},
                  {"{\"__metadata__\":{\"tern.checksum\":\"crc32\",\"tern.crc32\":\"0\"}}", 0, TERN_E_DATA,
                   "not in Tern's form", 8},
                  {"{\"__metadata__\":{\"tern.checksum\":\"crc32\",\"tern.crc32\":\"00000000\"}}", 0, TERN_E_DATA,
                   "the checksum says 00000000, the bytes of the file give ", 8 + 55});
}

/* Long and hostile names stay one short line of UTF-8. */
static void test_names_in_errors(void **state) {
    (void)state;
    char name[400], header[600], label[200];
    size_t size = 0;
    tern_error err = {0};
    tern_safetensors *f = NULL;
    for (size_t i = 0; i < 398; i += 2) memcpy(name + i, "\xc3\xa9", 3);
    memcpy(name, "\\n\\u001b", 8);
    snprintf(header, sizeof header, "{\"%s\":1}", name);
    memset(label, 'p', sizeof label);
    memcpy(label + sizeof label - 5, "/end", 5);
    uint8_t *file = make_file(&size, strlen(header), header, strlen(header), 0);
    assert_int_equal(tern_safetensors_open_memory(&f, file, size, label, TERN_ST_CHECKSUM_IF_PRESENT, &err),
                     TERN_E_DATA);
    assert_non_null(strstr(err.message, "p/end: byte 9: tensor \"??\xc3\xa9"));
    assert_non_null(strstr(err.message, "\xc3\xa9...\": its value is not an object"));
    free(file);
}

/* ---- what the writer makes ------------------------------------------------------------------------------------- */

static const float floats[6] = {1.5f, -2, 0, 3e-39f, 5, 6};
static const uint8_t bytes5[5] = {1, 2, 3, 4, 255};
static const int64_t scalar = -42;

static tern_safetensors_writer *small_writer(int reverse) {
    tern_safetensors_writer *w = NULL;
    assert_int_equal(tern_safetensors_writer_create(&w, NULL), TERN_OK);
    for (int i = 0; i < 5; i++) {
        tern_status s = TERN_OK;
        switch (reverse ? 4 - i : i) {
        case 0: s = tern_safetensors_writer_add(w, "w.packed", TERN_ST_U8, 1, (size_t[]){5}, bytes5, NULL); break;
        case 1: s = tern_safetensors_writer_add(w, "b", TERN_ST_F32, 2, (size_t[]){2, 3}, floats, NULL); break;
        case 2: s = tern_safetensors_writer_add(w, "step", TERN_ST_I64, 0, NULL, &scalar, NULL); break;
        case 3: s = tern_safetensors_writer_add(w, "none", TERN_ST_BF16, 2, (size_t[]){0, 7}, NULL, NULL); break;
        default: s = tern_safetensors_writer_add(w, "a\"\n\xc3\xa9", TERN_ST_F32, 1, (size_t[]){1}, floats, NULL);
        }
        assert_int_equal(s, TERN_OK);
    }
    assert_int_equal(tern_safetensors_writer_metadata(w, "config", "will be replaced", NULL), TERN_OK);
    assert_int_equal(tern_safetensors_writer_metadata(w, "note", "\"tern.crc32\":\"12345678\"", NULL), TERN_OK);
    assert_int_equal(tern_safetensors_writer_metadata(w, "config", "{\"lr\":0.1}", NULL), TERN_OK);
    return w;
}

static void check_small(const tern_safetensors *f) {
    static const char *const order[] = {"step", "a\"\n\xc3\xa9", "b", "none", "w.packed"};
    const char *value = NULL;
    assert_int_equal(tern_safetensors_count(f), 5);
    for (size_t i = 0; i < 5; i++) {
        const tern_safetensors_entry *e = tern_safetensors_at(f, i);
        assert_string_equal(e->name, order[i]);
        assert_ptr_equal(tern_safetensors_find(f, order[i]), e);
        assert_int_equal((uintptr_t)e->data % (tern_safetensors_dtype_bits(e->dtype) / 8), 0);
    }
    assert_null(tern_safetensors_at(f, 5));
    assert_null(tern_safetensors_find(f, "nothing"));
    const tern_safetensors_entry *b = tern_safetensors_find(f, "b"), *step = tern_safetensors_at(f, 0);
    assert_int_equal(b->rank, 2);
    assert_int_equal(b->shape[1], 3);
    assert_int_equal(b->bytes, sizeof floats);
    assert_memory_equal(b->data, floats, sizeof floats);
    assert_int_equal(step->rank, 0);
    assert_memory_equal(step->data, &scalar, sizeof scalar);
    assert_int_equal(tern_safetensors_find(f, "none")->bytes, 0);
    assert_memory_equal(tern_safetensors_find(f, "w.packed")->data, bytes5, sizeof bytes5);
    assert_string_equal(tern_safetensors_metadata(f, "config"), "{\"lr\":0.1}");
    assert_null(tern_safetensors_metadata(f, "absent"));
    assert_int_equal(tern_safetensors_metadata_count(f), 4);
    assert_string_equal(tern_safetensors_metadata_at(f, 2, &value), "config");
    assert_string_equal(value, "{\"lr\":0.1}");
    assert_null(tern_safetensors_metadata_at(f, 4, &value));
}

static void test_round_trip(void **state) {
    (void)state;
    temporary_folder folder;
    tern_safetensors *f = NULL;
    void *memory = NULL, *reversed = NULL;
    size_t size = 0, reversed_size = 0, written = 0;
    tern_error err = {0};
    folder_create(&folder);
    const char *path = folder_file(&folder, "small.safetensors");
    tern_safetensors_writer *w = small_writer(0), *r = small_writer(1);
    assert_int_equal(tern_safetensors_writer_write(w, path, NULL), TERN_OK);
    assert_int_equal(tern_safetensors_writer_to_memory(w, &memory, &size, NULL), TERN_OK);
    assert_int_equal(tern_safetensors_writer_to_memory(r, &reversed, &reversed_size, NULL), TERN_OK);
    assert_int_equal(size, reversed_size);
    assert_memory_equal(memory, reversed, size);
    char *file = file_text(path, &written);
    assert_int_equal(written, size);
    assert_memory_equal(file, memory, size);
    uint64_t header = 0;
    memcpy(&header, file, sizeof header);
    assert_int_equal(header % 8, 0);
    assert_int_equal((8 + header) % 64, 0);
    if (tern_safetensors_open(&f, path, TERN_ST_CHECKSUM_REQUIRED, &err)) fail_msg("%s", err.message);
    check_small(f);
    tern_safetensors_close(&f);
    assert_null(f);
    tern_safetensors_close(&f);
    tern_safetensors_close(NULL);
    folder_remove(&folder);
    tern_safetensors_writer_free(&w);
    tern_safetensors_writer_free(&r);
    free(reversed);
    free(memory);
    free(file);
}

/* Nothing at all is a file too; and one large enough that the checksum is split. */
static void test_empty_and_large(void **state) {
    (void)state;
    const size_t n = ((size_t)1 << 21) + 13;
    tern_safetensors_writer *w = NULL;
    tern_safetensors *f = NULL;
    void *memory = NULL;
    size_t size = 0;
    tern_error err = {0};
    uint8_t *data = malloc(n);
    for (size_t i = 0; i < n; i++) data[i] = (uint8_t)(i * 2654435761u >> 13);
    assert_int_equal(tern_safetensors_writer_create(&w, NULL), TERN_OK);
    for (int large = 0; large < 2; large++) {
        if (large) assert_int_equal(tern_safetensors_writer_add(w, "x", TERN_ST_I8, 1, &n, data, NULL), TERN_OK);
        assert_int_equal(tern_safetensors_writer_to_memory(w, &memory, &size, NULL), TERN_OK);
        assert_int_equal(tern_safetensors_open_memory(&f, memory, size, "m", TERN_ST_CHECKSUM_REQUIRED, &err),
                         TERN_OK);
        assert_int_equal(tern_safetensors_count(f), large);
        tern_safetensors_close(&f);
        ((uint8_t *)memory)[size - 7] ^= 16;
        assert_int_equal(tern_safetensors_open_memory(&f, memory, size, "m", TERN_ST_CHECKSUM_REQUIRED, &err),
                         TERN_E_DATA);
        free(memory);
    }
    tern_safetensors_writer_free(&w);
    free(data);
}

/* Every byte of the file, with every bit of it turned, a few other values, and every shorter or longer file. */
static void test_every_damaged_byte(void **state) {
    (void)state;
    static const uint8_t masks[] = {1, 2, 4, 8, 16, 32, 64, 128, 255, 0x29, 0x5a};
    tern_safetensors_writer *w = small_writer(0);
    tern_safetensors *f = NULL;
    void *memory = NULL;
    size_t size = 0;
    assert_int_equal(tern_safetensors_writer_to_memory(w, &memory, &size, NULL), TERN_OK);
    uint8_t *bytes = memory, *longer = malloc(size + 1);
    for (size_t i = 0; i < size; i++) {
        for (size_t m = 0; m < sizeof masks; m++) {
            tern_error err = {0};
            bytes[i] ^= masks[m];
            if (!tern_safetensors_open_memory(&f, bytes, size, "m", TERN_ST_CHECKSUM_IF_PRESENT, &err))
                fail_msg("byte %zu xor %02x was not seen", i, masks[m]);
            assert_int_equal(err.status, TERN_E_DATA);
            bytes[i] ^= masks[m];
        }
        assert_int_equal(tern_safetensors_open_memory(&f, bytes, i, "m", TERN_ST_CHECKSUM_IF_PRESENT, NULL),
                         TERN_E_DATA);
    }
    memcpy(longer, bytes, size);
    longer[size] = 0;
    assert_int_equal(tern_safetensors_open_memory(&f, longer, size + 1, "m", TERN_ST_CHECKSUM_IF_PRESENT, NULL),
                     TERN_E_DATA);
    assert_int_equal(tern_safetensors_open_memory(&f, bytes, size, "m", TERN_ST_CHECKSUM_REQUIRED, NULL), TERN_OK);
    tern_safetensors_close(&f);
    tern_safetensors_writer_free(&w);
    free(longer);
    free(memory);
}

static void test_dtypes(void **state) {
    (void)state;
    for (int d = 0; d < TERN_ST_COUNT; d++) {
        char header[160];
        snprintf(header, sizeof header, "{\"a\":{\"dtype\":\"%s\",\"shape\":[4],\"data_offsets\":[0,%u]}}",
                 tern_safetensors_dtype_name((tern_safetensors_dtype)d),
                 tern_safetensors_dtype_bits((tern_safetensors_dtype)d) / 2);
        check_header(&(header_case){header, tern_safetensors_dtype_bits((tern_safetensors_dtype)d) / 2, 0, NULL, 0});
    }
    assert_null(tern_safetensors_dtype_name(TERN_ST_COUNT));
    assert_int_equal(tern_safetensors_dtype_bits((tern_safetensors_dtype)-1), 0);
}

static void test_writer_refusals(void **state) {
    (void)state;
    tern_safetensors_writer *w = NULL;
    const size_t one = 1, huge = SIZE_MAX;
    tern_error err = {0};
    assert_int_equal(tern_safetensors_writer_create(&w, NULL), TERN_OK);
    assert_int_equal(tern_safetensors_writer_add(w, "a", TERN_ST_U8, 1, &one, bytes5, NULL), TERN_OK);
    assert_int_equal(tern_safetensors_writer_add(w, "a", TERN_ST_U8, 1, &one, bytes5, &err), TERN_E_ARGUMENT);
    assert_string_equal(err.message, "tensor \"a\" is given twice");
    assert_int_equal(tern_safetensors_writer_add(w, "", TERN_ST_U8, 1, &one, bytes5, NULL), TERN_E_ARGUMENT);
    assert_int_equal(tern_safetensors_writer_add(w, "\xff", TERN_ST_U8, 1, &one, bytes5, NULL), TERN_E_ARGUMENT);
    assert_int_equal(tern_safetensors_writer_add(w, "__metadata__", TERN_ST_U8, 1, &one, bytes5, NULL),
                     TERN_E_ARGUMENT);
    assert_int_equal(tern_safetensors_writer_add(w, "b", TERN_ST_COUNT, 1, &one, bytes5, NULL), TERN_E_ARGUMENT);
    assert_int_equal(tern_safetensors_writer_add(w, "b", TERN_ST_U8, 9, &one, bytes5, NULL), TERN_E_ARGUMENT);
    assert_int_equal(tern_safetensors_writer_add(w, "b", TERN_ST_U8, 1, &one, NULL, NULL), TERN_E_ARGUMENT);
    assert_int_equal(tern_safetensors_writer_add(w, "b", TERN_ST_U8, 1, NULL, bytes5, NULL), TERN_E_ARGUMENT);
    assert_int_equal(tern_safetensors_writer_add(w, "b", TERN_ST_F4, 1, &one, bytes5, NULL), TERN_E_SIZE);
    assert_int_equal(tern_safetensors_writer_add(w, "b", TERN_ST_U8, 1, &huge, bytes5, NULL), TERN_E_SIZE);
    assert_int_equal(tern_safetensors_writer_add(w, "b", TERN_ST_U8, 2, (size_t[]){huge, 0}, NULL, NULL),
                     TERN_E_SIZE);
    assert_int_equal(tern_safetensors_writer_metadata(w, "tern.crc32", "00000000", NULL), TERN_E_ARGUMENT);
    assert_int_equal(tern_safetensors_writer_metadata(w, "tern.checksum", "", NULL), TERN_E_ARGUMENT);
    assert_int_equal(tern_safetensors_writer_metadata(w, "k", "\xff", NULL), TERN_E_ARGUMENT);
    assert_int_equal(tern_safetensors_writer_metadata(w, "\xff", "v", NULL), TERN_E_ARGUMENT);
    tern_safetensors_writer_free(&w);
    tern_safetensors_writer_free(&w);
    tern_safetensors_writer_free(NULL);
}

/* ---- files ----------------------------------------------------------------------------------------------------- */

/* A checkpoint that does not fit leaves the one before it whole. */
static void test_full_disk(void **state) {
    (void)state;
    const size_t n = 100000;
    temporary_folder folder;
    tern_safetensors *f = NULL;
    struct rlimit limit, small;
    tern_error err = {0};
    uint8_t *data = calloc(1, n);
    assert_non_null(data);
    folder_create(&folder);
    const char *path = folder_file(&folder, "checkpoint");
    tern_safetensors_writer *w = small_writer(0);
    assert_int_equal(tern_safetensors_writer_write(w, path, NULL), TERN_OK);
    assert_int_equal(tern_safetensors_writer_add(w, "large", TERN_ST_U8, 1, &n, data, NULL), TERN_OK);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    small = limit;
    small.rlim_cur = 4096;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    const tern_status status = tern_safetensors_writer_write(w, path, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    assert_int_equal(status, TERN_E_FILE);
    assert_non_null(strstr(err.message, "checkpoint: cannot write"));
    assert_int_equal(folder_count(&folder), 1);
    assert_int_equal(tern_safetensors_open(&f, path, TERN_ST_CHECKSUM_REQUIRED, NULL), TERN_OK);
    check_small(f);
    /* Replacing a file that is open does not disturb who reads it. */
    assert_int_equal(tern_safetensors_writer_write(w, path, &err), TERN_OK);
    check_small(f);
    tern_safetensors_close(&f);
    assert_int_equal(tern_safetensors_open(&f, path, TERN_ST_CHECKSUM_REQUIRED, NULL), TERN_OK);
    assert_int_equal(tern_safetensors_count(f), 6);
    tern_safetensors_close(&f);
    folder_remove(&folder);
    tern_safetensors_writer_free(&w);
    free(data);
}

static void test_files_that_are_none(void **state) {
    (void)state;
    temporary_folder folder;
    tern_safetensors *f = NULL;
    tern_error err = {0};
    folder_create(&folder);
    const char *path = folder_file(&folder, "absent");
    assert_int_equal(tern_safetensors_open(&f, path, TERN_ST_CHECKSUM_IF_PRESENT, &err), TERN_E_FILE);
    assert_non_null(strstr(err.message, "/absent: cannot open: No such file or directory"));
    assert_int_equal(tern_safetensors_open(&f, folder.path, TERN_ST_CHECKSUM_IF_PRESENT, &err), TERN_E_FILE);
    assert_non_null(strstr(err.message, "not a regular file"));
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(tern_safetensors_open(&f, path, TERN_ST_CHECKSUM_IF_PRESENT, &err), TERN_E_FILE);
    assert_int_equal(unlink(path), 0);
    file_put(path, "", 0);
    assert_int_equal(tern_safetensors_open(&f, path, TERN_ST_CHECKSUM_IF_PRESENT, &err), TERN_E_DATA);
    assert_int_equal(err.place, 0);
    assert_int_equal(tern_safetensors_open(&f, NULL, TERN_ST_CHECKSUM_IF_PRESENT, &err), TERN_E_ARGUMENT);
    assert_int_equal(tern_safetensors_open_memory(&f, NULL, 9, "m", TERN_ST_CHECKSUM_IF_PRESENT, &err),
                     TERN_E_ARGUMENT);
    folder_remove(&folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shorter_than_a_length),
        cmocka_unit_test(test_header_length),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_white_space),
        cmocka_unit_test(test_duplicate_names),
        cmocka_unit_test(test_metadata),
        cmocka_unit_test(test_entry_form),
        cmocka_unit_test(test_shape_against_offsets),
        cmocka_unit_test(test_overflows),
        cmocka_unit_test(test_layout),
        cmocka_unit_test(test_foreign_checksum),
        cmocka_unit_test(test_names_in_errors),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_empty_and_large),
        cmocka_unit_test(test_every_damaged_byte),
        cmocka_unit_test(test_dtypes),
        cmocka_unit_test(test_writer_refusals),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_files_that_are_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
