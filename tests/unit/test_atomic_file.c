/* Atomic files: the new content or the old, never a mixture, and nothing left beside it. */
#define _GNU_SOURCE
#include <signal.h>
#include <sys/resource.h>

#include "io/atomic_file.h"
#include "testing.h"

static void check_content(const char *path, const char *want) {
    char *text = file_text(path, NULL);
    assert_string_equal(text, want);
    free(text);
}

static void test_replace(void **state) {
    (void)state;
    temporary_folder folder;
    struct stat info;
    folder_create(&folder);
    const char *path = folder_file(&folder, "a");
    assert_int_equal(tern_atomic_file_replace(path, "old", 3, NULL), TERN_OK);
    check_content(path, "old");
    assert_int_equal(chmod(path, 0640), 0);
    assert_int_equal(tern_atomic_file_replace(path, "newer", 5, NULL), TERN_OK);
    check_content(path, "newer");
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 07777, 0640);
    assert_int_equal(tern_atomic_file_replace(path, NULL, 0, NULL), TERN_OK);
    check_content(path, "");
    assert_int_equal(folder_count(&folder), 1);
    folder_remove(&folder);
}

static void test_old_file_until_commit(void **state) {
    (void)state;
    temporary_folder folder;
    tern_atomic_file *file = NULL, *second = NULL;
    folder_create(&folder);
    const char *path = folder_file(&folder, "a");
    assert_int_equal(tern_atomic_file_replace(path, "old", 3, NULL), TERN_OK);
    assert_int_equal(tern_atomic_file_create(&file, path, NULL), TERN_OK);
    assert_int_equal(tern_atomic_file_create(&second, path, NULL), TERN_OK);
    assert_int_equal(tern_atomic_file_write(file, "ne", 2, NULL), TERN_OK);
    assert_int_equal(tern_atomic_file_write(second, "other", 5, NULL), TERN_OK);
    assert_int_equal(tern_atomic_file_write(file, "w", 1, NULL), TERN_OK);
    check_content(path, "old");
    assert_int_equal(folder_count(&folder), 3);
    tern_atomic_file_free(&second);
    assert_null(second);
    assert_int_equal(tern_atomic_file_commit(&file, NULL), TERN_OK);
    assert_null(file);
    check_content(path, "new");
    assert_int_equal(folder_count(&folder), 1);
    folder_remove(&folder);
}

static void test_link_is_followed(void **state) {
    (void)state;
    temporary_folder folder;
    struct stat info;
    char target[96];
    folder_create(&folder);
    snprintf(target, sizeof target, "%s", folder_file(&folder, "target"));
    file_put(target, "old", 3);
    const char *link = folder_file(&folder, "link");
    assert_int_equal(symlink("target", link), 0);
    assert_int_equal(tern_atomic_file_replace(link, "new", 3, NULL), TERN_OK);
    assert_int_equal(lstat(link, &info), 0);
    assert_true(S_ISLNK(info.st_mode));
    check_content(target, "new");
    folder_remove(&folder);
}

static void test_relative_path(void **state) {
    (void)state;
    temporary_folder folder;
    char before[4096];
    folder_create(&folder);
    assert_non_null(getcwd(before, sizeof before));
    assert_int_equal(chdir(folder.path), 0);
    assert_int_equal(tern_atomic_file_replace("plain", "x", 1, NULL), TERN_OK);
    assert_int_equal(chdir(before), 0);
    check_content(folder_file(&folder, "plain"), "x");
    folder_remove(&folder);
}

/* A limit on the size of files stands for a full disk: the write comes back short, then fails. */
static void test_full_disk(void **state) {
    (void)state;
    enum { SIZE = 1 << 20 };
    temporary_folder folder;
    struct rlimit limit, small;
    char *bytes = calloc(1, SIZE);
    tern_error err = {0};
    assert_non_null(bytes);
    folder_create(&folder);
    const char *path = folder_file(&folder, "a");
    assert_int_equal(tern_atomic_file_replace(path, "old", 3, NULL), TERN_OK);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    small = limit;
    small.rlim_cur = 10000;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    const tern_status status = tern_atomic_file_replace(path, bytes, SIZE, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    assert_int_equal(status, TERN_E_FILE);
    assert_int_equal(err.place, 10000);
    assert_non_null(strstr(err.message, "cannot write: File too large"));
    check_content(path, "old");
    assert_int_equal(folder_count(&folder), 1);
    folder_remove(&folder);
    free(bytes);
}

static void test_refusals(void **state) {
    (void)state;
    temporary_folder folder;
    tern_atomic_file *file = NULL;
    tern_error err = {0};
    char inner[96];
    folder_create(&folder);
    assert_int_equal(tern_atomic_file_create(&file, NULL, &err), TERN_E_ARGUMENT);
    assert_int_equal(tern_atomic_file_create(&file, "", &err), TERN_E_ARGUMENT);
    assert_int_equal(tern_atomic_file_create(&file, folder_file(&folder, "no/file"), &err), TERN_E_FILE);
    assert_non_null(strstr(err.message, "No such file or directory"));
    assert_int_equal(tern_atomic_file_create(&file, folder_file(&folder, "slash/"), &err), TERN_E_FILE);
    snprintf(inner, sizeof inner, "%s", folder_file(&folder, "inner"));
    assert_int_equal(mkdir(inner, 0777), 0);
    assert_int_equal(tern_atomic_file_create(&file, inner, &err), TERN_E_FILE);
    assert_non_null(strstr(err.message, "not a regular file"));
    assert_null(file);
    assert_int_equal(rmdir(inner), 0);
    /* A folder that takes the name after the file was begun: the rename fails. */
    assert_int_equal(tern_atomic_file_create(&file, inner, &err), TERN_OK);
    assert_int_equal(mkdir(inner, 0777), 0);
    assert_int_equal(tern_atomic_file_commit(&file, &err), TERN_E_FILE);
    assert_null(file);
    assert_int_equal(rmdir(inner), 0);
    assert_int_equal(folder_count(&folder), 0);
    tern_atomic_file_free(NULL);
    tern_atomic_file_free(&file);
    folder_remove(&folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replace),          cmocka_unit_test(test_old_file_until_commit),
        cmocka_unit_test(test_link_is_followed), cmocka_unit_test(test_relative_path),
        cmocka_unit_test(test_full_disk),        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
