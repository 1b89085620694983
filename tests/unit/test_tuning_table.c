/* The table of measured kernels and its file: what is kept, what is refused, and whose rows survive. */
#define _GNU_SOURCE
#include <pthread.h>

#include "cuda/tuning_file.h"
#include "testing.h"

static const tern_device_info h200 = {.name = "NVIDIA H200", .major = 9, .minor = 0, .multiprocessors = 132},
                              a100 = {
                                  .name = "NVIDIA A100-SXM4-40GB", .major = 8, .minor = 0, .multiprocessors = 108};
static const tern_cuda_limits hopper = {9, 0, 132, 232448}, ampere = {8, 6, 84, 101376};

static const char header[] =
    "tern-tuning 1\ndevice NVIDIA H200\ncapability 9.0\nmultiprocessors 132\nversion 0.1.0-3\n";

static tern_tuning_key key_of(const tern_device_info *info) {
    tern_tuning_key key;
    tern_tuning_key_of(&key, info, "0.1.0-3");
    return key;
}

static tern_tuning_row row(int rows, int cols, uint32_t m_most, tern_device_kernel kernel, int variant) {
    return (tern_tuning_row){.rows = rows,
                             .cols = cols,
                             .x_type = TERN_I8,
                             .m_most = m_most,
                             .kernel = kernel,
                             .variant = variant,
                             .nanoseconds = 12345};
}

static tern_cuda_weights weights(int rows, int cols, int t5) {
    return (tern_cuda_weights){.rows = rows, .cols = cols, .t5 = t5};
}

static void put(tern_tuning_table *table, tern_tuning_row r) {
    tern_error err;
    OK(tern_tuning_put(table, &r, &err));
}

/* ---- the table ------------------------------------------------------------------------------------------------- */

static void test_buckets(void **state) {
    (void)state;
    static const size_t of[][2] = {{1, 1},
                                   {2, 2},
                                   {3, 4},
                                   {4, 4},
                                   {5, 8},
                                   {8, 8},
                                   {9, 16},
                                   {16, 16},
                                   {17, 32},
                                   {33, 64},
                                   {64, 64},
                                   {65, 128},
                                   {512, 512},
                                   {513, 1024},
                                   {1 << 30, 1 << 30},
                                   {(1 << 30) + 1, (size_t)1 << 31}};
    for (size_t i = 0; i < sizeof of / sizeof *of; i++) assert_int_equal(tern_tuning_bucket(of[i][0]), of[i][1]);
    assert_int_equal(tern_tuning_bucket(SIZE_MAX), (size_t)1 << 31);
}

static void test_find(void **state) {
    (void)state;
    tern_tuning_table table = {0};
    const tern_cuda_weights w = weights(2560, 6912, 0), other = weights(2560, 6912, 1), wide = weights(2560, 6913, 0);
    assert_null(tern_tuning_find(&table, &w, TERN_I8, 1));
    put(&table, row(2560, 6912, 16, TERN_DEVICE_KERNEL_WGMMA, 10));
    put(&table, row(2560, 6912, 1, TERN_DEVICE_KERNEL_DECODE, 5));
    put(&table, row(64, 64, 16, TERN_DEVICE_KERNEL_MMA, 1));
    put(&table, row(2560, 6912, 16, TERN_DEVICE_KERNEL_WGMMA, 11)); /* takes the place of the first */
    assert_int_equal(table.count, 3);
    for (size_t m = 9; m <= 16; m++) assert_int_equal(tern_tuning_find(&table, &w, TERN_I8, m)->variant, 11);
    assert_int_equal(tern_tuning_find(&table, &w, TERN_I8, 1)->variant, 5);
    assert_null(tern_tuning_find(&table, &w, TERN_I8, 2));
    assert_null(tern_tuning_find(&table, &w, TERN_I8, 8));
    assert_null(tern_tuning_find(&table, &w, TERN_I8, 17));
    assert_null(tern_tuning_find(&table, &w, TERN_F16, 16));
    assert_null(tern_tuning_find(&table, &other, TERN_I8, 16));
    assert_null(tern_tuning_find(&table, &wide, TERN_I8, 16));
    tern_tuning_free(&table);
}

/* What does not fit this device or this product is as good as not there. */
static void test_choose(void **state) {
    (void)state;
    tern_tuning_table table = {0};
    const tern_cuda_weights w = weights(2560, 6912, 0);
    tern_cuda_weights grouped = w;
    const int8_t exponent = 0;
    grouped.exponents = &exponent;
    tern_device_product p = {.x_type = TERN_I8, .m = 16};
    tern_device_kernel kernel = TERN_DEVICE_KERNEL_AUTO;
    int variant = 0;
    put(&table, row(2560, 6912, 16, TERN_DEVICE_KERNEL_WGMMA, 10));
    assert_true(tern_tuning_choose(&kernel, &variant, &table, &hopper, &w, &p));
    assert_int_equal(kernel, TERN_DEVICE_KERNEL_WGMMA);
    assert_int_equal(variant, 10);
    kernel = TERN_DEVICE_KERNEL_AUTO;
    assert_false(tern_tuning_choose(&kernel, &variant, &table, &ampere, &w, &p));
    assert_false(tern_tuning_choose(&kernel, &variant, &table, &hopper, &grouped, &p));
    p.m = 17;
    assert_false(tern_tuning_choose(&kernel, &variant, &table, &hopper, &w, &p));
    assert_int_equal(kernel, TERN_DEVICE_KERNEL_AUTO);
    tern_tuning_free(&table);
}

static void test_full(void **state) {
    (void)state;
    tern_tuning_table table = {0};
    tern_error err;
    for (int i = 1; i <= TERN_TUNING_MAX_ROWS; i++) put(&table, row(i * 7 % 8209 + 1, i, 1, 1, 1));
    tern_tuning_row more = row(1, TERN_TUNING_MAX_ROWS + 1, 1, 1, 1);
    REFUSED(tern_tuning_put(&table, &more, &err), TERN_E_SIZE, "full");
    more = table.rows[100];
    more.nanoseconds = 7;
    OK(tern_tuning_put(&table, &more, &err));
    assert_int_equal(table.rows[100].nanoseconds, 7);
    tern_tuning_free(&table);
}

/* ---- text ------------------------------------------------------------------------------------------------------ */

static void test_text(void **state) {
    (void)state;
    const tern_tuning_key key = key_of(&h200);
    tern_tuning_table table = {0}, again = {0};
    tern_error err;
    char *text, *second, why[160] = "";
    size_t size, second_size, ignored;
    tern_tuning_row r = row(2560, 6912, 16, TERN_DEVICE_KERNEL_WGMMA, 12);
    put(&table, r);
    r.t5 = 1, r.x_type = TERN_BF16, r.kernel = TERN_DEVICE_KERNEL_PLAIN, r.variant = 1, r.nanoseconds = 2000000007;
    put(&table, r);
    r.group = 64;
    put(&table, r);
    OK(tern_tuning_format(&text, &size, &table, &key, &err));
    assert_int_equal(strlen(text), size);
    assert_int_equal(strncmp(text, header, strlen(header)), 0);
    assert_non_null(strstr(text, "\nt2 2560 6912 i8 16 cuda-wgmma 12 12.345\n"));
    assert_non_null(strstr(text, "\nt5 2560 6912 bf16 16 cuda-plain 1 2000000.007\n"));
    assert_non_null(strstr(text, "\nt5/64 2560 6912 bf16 16 cuda-plain 1 2000000.007\n"));
    OK(tern_tuning_parse(&again, &ignored, why, sizeof why, &key, text, size, &err));
    assert_int_equal(ignored, 0);
    assert_int_equal(again.count, 3);
    OK(tern_tuning_format(&second, &second_size, &again, &key, &err));
    assert_string_equal(text, second);
    free(text);
    free(second);
    tern_tuning_free(&table);
    tern_tuning_free(&again);
}

static void check_header(const char *text, size_t size, tern_status status, const char *says) {
    const tern_tuning_key key = key_of(&h200);
    tern_tuning_table table = {0};
    tern_error err;
    char why[160] = "";
    size_t ignored;
    REFUSED(tern_tuning_parse(&table, &ignored, why, sizeof why, &key, text, size, &err), status, says);
    assert_int_equal(table.count, 0);
}

/* Of another device, another version, no table at all: nothing is taken. */
static void test_header(void **state) {
    (void)state;
    static const char *const wrong[][2] = {
        {"", "'tern-tuning 1'"},
        {"\n\n# comment\n", "'tern-tuning 1'"},
        {"tern-tuning 2\n", "line 1 should be 'tern-tuning 1'"},
        {"tern-tuning 1", "ends where 'device NVIDIA H200'"},
        {"tern-tuning 1\ndevice NVIDIA H100\n", "line 2 should be 'device NVIDIA H200'"},
        {"tern-tuning 1\ndevice NVIDIA H200 \n", "line 2"},
        {"tern-tuning 1\ndevice NVIDIA H200\r\n", "line 2"},
        {"tern-tuning 1\ndevice NVIDIA H200\ncapability 9.1\n", "'capability 9.0'"},
        {"tern-tuning 1\ndevice NVIDIA H200\ncapability 9.0\nmultiprocessors 114\n", "'multiprocessors 132'"},
        {"tern-tuning 1\ndevice NVIDIA H200\ncapability 9.0\nmultiprocessors 132\nversion 0.0.9-1\n"
         "t2 64 64 i8 1 cuda-plain 1 1.000\n",
         "line 5 should be 'version 0.1.0-3'"}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        check_header(wrong[i][0], strlen(wrong[i][0]), TERN_E_DATA, wrong[i][1]);
    check_header("\0tern-tuning 1\n", 15, TERN_E_DATA, "line 1");
    char *large = calloc(1, TERN_TUNING_MAX_BYTES + 1);
    assert_non_null(large);
    check_header(large, TERN_TUNING_MAX_BYTES + 1, TERN_E_SIZE, "more than");
    memset(large, 'x', TERN_TUNING_MAX_BYTES);
    check_header(large, TERN_TUNING_MAX_BYTES, TERN_E_DATA, "line 1");
    free(large);
}

/* Each between two good lines, which are kept. */
static void check_line(const char *line, const char *says) {
    const tern_tuning_key key = key_of(&h200);
    tern_tuning_table table = {0};
    tern_error err;
    char text[2048], why[160] = "";
    size_t ignored;
    const int size =
        snprintf(text, sizeof text,
                 "# one\n%st2 64 64 i8 1 cuda-plain 1 1.000\n%s\n\nt2 64 64 i8 2 cuda-plain 1 1.000", header, line);
    OK(tern_tuning_parse(&table, &ignored, why, sizeof why, &key, text, (size_t)size, &err));
    assert_int_equal(table.count, 2);
    assert_int_equal(ignored, 1);
    if (!strstr(why, "line 8: ") || !strstr(why, says)) fail_msg("'%s': %s; should say '%s'", line, why, says);
    tern_tuning_free(&table);
}

static void test_lines(void **state) {
    (void)state;
    static const char *const wrong[][2] = {{"t2", "eight words"},
                                           {"t2 64 64 i8 1 cuda-plain 1", "eight words"},
                                           {"t2 64 64 i8 1 cuda-plain 1 1.000 1", "eight words"},
                                           {"t2  64 64 i8 1 cuda-plain 1 1.000", "eight words"},
                                           {" t2 64 64 i8 1 cuda-plain 1 1.000", "eight words"},
                                           {"t2 64 64 i8 1 cuda-plain 1 1.000 ", "eight words"},
                                           {"t2\t64 64 i8 1 cuda-plain 1 1.000", "eight words"},
                                           {"t3 64 64 i8 1 cuda-plain 1 1.000", "packing"},
                                           {"t2/0 64 64 i8 1 cuda-plain 1 1.000", "packing"},
                                           {"t2/ 64 64 i8 1 cuda-plain 1 1.000", "packing"},
                                           {"t2/-4 64 64 i8 1 cuda-plain 1 1.000", "packing"},
                                           {"T2 64 64 i8 1 cuda-plain 1 1.000", "packing"},
                                           {"t2 0 64 i8 1 cuda-plain 1 1.000", "shape"},
                                           {"t2 -64 64 i8 1 cuda-plain 1 1.000", "shape"},
                                           {"t2 64 2147483648 i8 1 cuda-plain 1 1.000", "shape"},
                                           {"t2 64 99999999999999999999999999 i8 1 cuda-plain 1 1.000", "shape"},
                                           {"t2 64 0x40 i8 1 cuda-plain 1 1.000", "shape"},
                                           {"t2 64 64 i4 1 cuda-plain 1 1.000", "type"},
                                           {"t2 64 64 i8 0 cuda-plain 1 1.000", "power of two"},
                                           {"t2 64 64 i8 3 cuda-plain 1 1.000", "power of two"},
                                           {"t2 64 64 i8 4294967296 cuda-plain 1 1.000", "power of two"},
                                           {"t2 64 64 i8 1 auto 1 1.000", "kernel is none"},
                                           {"t2 64 64 i8 1 cuda-fast 1 1.000", "kernel is none"},
                                           {"t2 64 64 i8 1 cuda-plain 0 1.000", "variant"},
                                           {"t2 64 64 i8 1 cuda-plain 2 1.000", "variant"},
                                           {"t2 64 64 i8 1 cuda-decode 14 1.000", "variant"},
                                           {"t2 64 64 i8 1 cuda-decode -1 1.000", "variant"},
                                           {"t2 64 64 i8 1 cuda-plain 1 0.000", "microseconds"},
                                           {"t2 64 64 i8 1 cuda-plain 1 1", "microseconds"},
                                           {"t2 64 64 i8 1 cuda-plain 1 1,000", "microseconds"},
                                           {"t2 64 64 i8 1 cuda-plain 1 1.00", "microseconds"},
                                           {"t2 64 64 i8 1 cuda-plain 1 .500", "microseconds"},
                                           {"t2 64 64 i8 1 cuda-plain 1 nan", "microseconds"},
                                           {"t2 64 64 i8 1 cuda-plain 1 1e9.000", "microseconds"},
                                           {"t2 64 64 i8 1 cuda-plain 1 1.000\r", "microseconds"},
                                           {"t2 64 64 i8 1 cuda-plain 1 99999999999999.000", "microseconds"}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) check_line(wrong[i][0], wrong[i][1]);
    char large[512];
    memset(large, 'x', sizeof large);
    large[TERN_TUNING_LINE_BYTES] = 0;
    check_line(large, "too long");
    large[TERN_TUNING_LINE_BYTES - 1] = 0;
    check_line(large, "eight words");
}

/* A name that would break a line or the header is made fit for both. */
static void test_names(void **state) {
    (void)state;
    tern_device_info info = {.name = "  a\nb\x01\xc3\xa9 ", .major = 7, .minor = 5, .multiprocessors = 40};
    tern_tuning t = {.key = key_of(&info)};
    assert_string_equal(t.key.name, "a?b???");
    setenv("TERN_CACHE", "/tmp/c", 1);
    tern_tuning_find_path(&t);
    assert_string_equal(t.path, "/tmp/c/tuning-a-b-7.5-40.txt");
    memset(info.name, 'x', sizeof info.name - 1);
    t.key = key_of(&info);
    assert_int_equal(strlen(t.key.name), sizeof info.name - 1);
}

/* ---- the file -------------------------------------------------------------------------------------------------- */

static void load(tern_tuning *t, const tern_device_info *info) {
    tern_error err;
    *t = (tern_tuning){.key = key_of(info)};
    tern_tuning_find_path(t);
    OK(tern_tuning_load(t, &err));
}

static void store(tern_tuning *t, tern_tuning_row r) {
    tern_error err;
    OK(tern_tuning_store(t, &r, &err));
}

static void test_folders(void **state) {
    (void)state;
    tern_tuning t = {.key = key_of(&h200)};
    setenv("TERN_CACHE", "/tmp/own", 1);
    setenv("XDG_CACHE_HOME", "/tmp/xdg", 1);
    setenv("HOME", "/tmp/home", 1);
    tern_tuning_find_path(&t);
    assert_string_equal(t.path, "/tmp/own/tuning-nvidia-h200-9.0-132.txt");
    setenv("TERN_CACHE", "", 1);
    tern_tuning_find_path(&t);
    assert_string_equal(t.path, "/tmp/xdg/tern/tuning-nvidia-h200-9.0-132.txt");
    setenv("XDG_CACHE_HOME", "relative", 1); /* to be ignored, says its rule */
    tern_tuning_find_path(&t);
    assert_string_equal(t.path, "/tmp/home/.cache/tern/tuning-nvidia-h200-9.0-132.txt");
    assert_string_equal(t.note, "");
    unsetenv("HOME");
    tern_tuning_find_path(&t);
    assert_string_equal(t.path, "");
    assert_non_null(strstr(t.note, "HOME are not set"));
    setenv("TERN_CACHE", "off", 1);
    tern_tuning_find_path(&t);
    assert_string_equal(t.path, "");
    assert_non_null(strstr(t.note, "TERN_CACHE=off"));
    store(&t, row(64, 64, 1, TERN_DEVICE_KERNEL_PLAIN, 1)); /* for this process */
    assert_int_equal(t.table.count, 1);
    tern_tuning_free(&t.table);
    char large[2 * TERN_TUNING_PATH_BYTES];
    memset(large, 'x', sizeof large - 1);
    large[sizeof large - 1] = 0;
    setenv("TERN_CACHE", large, 1);
    tern_tuning_find_path(&t);
    assert_string_equal(t.path, "");
    assert_non_null(strstr(t.note, "too long"));
}

/* Folders are made; two processes that know nothing of each other both keep their rows. */
static void test_merge(void **state) {
    (void)state;
    temporary_folder folder;
    tern_tuning a, b, other, c;
    folder_create(&folder);
    setenv("TERN_CACHE", folder_file(&folder, "new/one"), 1);
    load(&a, &h200);
    load(&b, &h200);
    load(&other, &a100);
    assert_string_equal(a.note, "");
    store(&a, row(64, 64, 1, TERN_DEVICE_KERNEL_DECODE, 3));
    store(&a, row(64, 64, 2, TERN_DEVICE_KERNEL_DECODE, 3));
    store(&other, row(64, 64, 1, TERN_DEVICE_KERNEL_MMA, 1));
    store(&b, row(64, 64, 1, TERN_DEVICE_KERNEL_DECODE, 4)); /* the last one wins */
    store(&b, row(64, 64, 4, TERN_DEVICE_KERNEL_DECODE, 4));
    assert_int_equal(b.table.count, 3);
    store(&a, row(64, 64, 8, TERN_DEVICE_KERNEL_DECODE, 3));
    load(&c, &h200);
    assert_string_equal(c.note, "");
    assert_int_equal(c.table.count, 4);
    assert_int_equal(c.table.rows[1].variant, 3);
    assert_int_equal(c.table.rows[2].variant, 4);
    assert_int_equal(c.table.rows[2].nanoseconds, 12345);
    tern_tuning *const all[] = {&a, &b, &other, &c};
    for (int i = 0; i < 4; i++) tern_tuning_free(&all[i]->table);
    load(&c, &a100);
    assert_int_equal(c.table.count, 1);
    tern_tuning_free(&c.table);
    folder_remove(&folder);
}

enum { WRITERS = 4, ROWS_EACH = 25 };

static void *write_rows(void *number) {
    tern_tuning t;
    load(&t, &h200);
    for (int i = 1; i <= ROWS_EACH; i++) store(&t, row(*(const int *)number + 1, i, 1, TERN_DEVICE_KERNEL_PLAIN, 1));
    tern_tuning_free(&t.table);
    return NULL;
}

static void test_writers_at_once(void **state) {
    (void)state;
    temporary_folder folder;
    pthread_t threads[WRITERS];
    int number[WRITERS];
    tern_tuning t;
    folder_create(&folder);
    setenv("TERN_CACHE", folder.path, 1);
    for (int i = 0; i < WRITERS; i++) {
        number[i] = i;
        assert_int_equal(pthread_create(&threads[i], NULL, write_rows, &number[i]), 0);
    }
    for (int i = 0; i < WRITERS; i++) pthread_join(threads[i], NULL);
    load(&t, &h200);
    assert_int_equal(t.table.count, WRITERS * ROWS_EACH);
    assert_int_equal(folder_count(&folder), 1);
    tern_tuning_free(&t.table);
    folder_remove(&folder);
}

static void test_damaged(void **state) {
    (void)state;
    temporary_folder folder;
    tern_tuning t;
    folder_create(&folder);
    setenv("TERN_CACHE", folder.path, 1);
    const char *name = "tuning-nvidia-h200-9.0-132.txt";
    folder_put(&folder, name,
               "\x7f"
               "ELF",
               4);
    load(&t, &h200);
    assert_int_equal(t.table.count, 0);
    assert_non_null(strstr(t.note, "ignored: line 1 should be 'tern-tuning 1'"));
    store(&t, row(64, 64, 1, TERN_DEVICE_KERNEL_PLAIN, 1)); /* in its place */
    assert_string_equal(t.note, "");
    tern_tuning_free(&t.table);
    load(&t, &h200);
    assert_string_equal(t.note, "");
    assert_int_equal(t.table.count, 1);
    tern_tuning_free(&t.table);
    char text[512];
    const int size = snprintf(text, sizeof text, "%snonsense\nt2 64 64 i8 1 cuda-plain 1 1.000\n", header);
    folder_put(&folder, name, text, (size_t)size);
    load(&t, &h200);
    assert_int_equal(t.table.count, 1);
    assert_non_null(strstr(t.note, "not all of it is taken: line 6: it is not eight words"));
    tern_tuning_free(&t.table);
    char *large = calloc(1, TERN_TUNING_MAX_BYTES + 1);
    folder_put(&folder, name, large, TERN_TUNING_MAX_BYTES + 1);
    free(large);
    load(&t, &h200);
    assert_int_equal(t.table.count, 0);
    assert_non_null(strstr(t.note, "ignored: more than"));
    folder_remove(&folder);
}

/* A file in the place of the folder stands for one that cannot be written, to root as well. */
static void test_unwritable(void **state) {
    (void)state;
    temporary_folder folder;
    tern_tuning t;
    folder_create(&folder);
    folder_put(&folder, "file", "x", 1);
    setenv("TERN_CACHE", folder_file(&folder, "file/below"), 1);
    load(&t, &h200);
    assert_string_equal(t.note, "");
    store(&t, row(64, 64, 1, TERN_DEVICE_KERNEL_PLAIN, 1));
    assert_int_equal(t.table.count, 1);
    assert_non_null(strstr(t.note, "not stored: cannot make its folder: Not a directory"));
    setenv("TERN_CACHE", folder_file(&folder, "file"), 1);
    tern_tuning_find_path(&t);
    store(&t, row(64, 64, 2, TERN_DEVICE_KERNEL_PLAIN, 1));
    assert_int_equal(t.table.count, 2);
    assert_non_null(strstr(t.note, "not stored"));
    /* What is there at last gets all that was measured before. */
    setenv("TERN_CACHE", folder.path, 1);
    tern_tuning_find_path(&t);
    store(&t, row(64, 64, 4, TERN_DEVICE_KERNEL_PLAIN, 1));
    assert_string_equal(t.note, "");
    tern_tuning_free(&t.table);
    load(&t, &h200);
    assert_int_equal(t.table.count, 3);
    tern_tuning_free(&t.table);
    folder_remove(&folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buckets),
        cmocka_unit_test(test_find),
        cmocka_unit_test(test_choose),
        cmocka_unit_test(test_full),
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_header),
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_folders),
        cmocka_unit_test(test_merge),
        cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_unwritable),
        cmocka_unit_test(test_writers_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
