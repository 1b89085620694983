/* What the tests share: cmocka with the headers it needs, checks of a status, and a folder for the files of a
 * test. */
#ifndef TERN_TESTING_H
#define TERN_TESTING_H

#include <dirent.h>
#include <ftw.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h> /* needs some of the headers above */

#include "tern/status.h"

/* For calls that report to an `err` of the test. */
#define OK(call)                                                                            \
    do {                                                                                    \
        tern_status status_ = (call);                                                       \
        if (status_) fail_msg("%s: %s: %s", #call, tern_status_text(status_), err.message); \
    } while (0)

#define REFUSED(call, wanted, text)                                                                       \
    do {                                                                                                  \
        err = (tern_error){0};                                                                            \
        tern_status status_ = (call);                                                                     \
        if (status_ != (wanted) || !strstr(err.message, text))                                            \
            fail_msg("%s: %s: %s; should say '%s'", #call, tern_status_text(status_), err.message, text); \
    } while (0)

/* ---- files */

typedef struct temporary_folder {
    char path[64];
} temporary_folder;

static inline void folder_create(temporary_folder *folder) {
    strcpy(folder->path, "/tmp/tern-test-XXXXXX");
    assert_non_null(mkdtemp(folder->path));
}

static inline int folder_remove_one(const char *path, const struct stat *st, int flag, struct FTW *walk) {
    (void)st, (void)flag, (void)walk;
    return remove(path);
}

/* With all that is in it. */
static inline void folder_remove(const temporary_folder *folder) {
    assert_int_equal(nftw(folder->path, folder_remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
}

/* FOLDER/NAME, in one of a few buffers that are used in turn. */
static inline const char *folder_file(const temporary_folder *folder, const char *name) {
    static char paths[8][512];
    static int turn;
    char *path = paths[turn++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", folder->path, name);
    return path;
}

static inline void folder_mkdir(const temporary_folder *folder, const char *name) {
    assert_int_equal(mkdir(folder_file(folder, name), 0700), 0);
}

/* How many files lie in it. */
static inline int folder_count(const temporary_folder *folder) {
    DIR *dir = opendir(folder->path);
    int count = 0;
    assert_non_null(dir);
    for (struct dirent *e = readdir(dir); e; e = readdir(dir))
        count += strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
    closedir(dir);
    return count;
}

/* The whole of a file, zero-terminated, to be freed. */
static inline char *file_text(const char *path, size_t *size) {
    FILE *in = fopen(path, "rb");
    assert_non_null(in);
    char *text = NULL;
    size_t n = 0, got = 0;
    do {
        text = realloc(text, n + 4097);
        assert_non_null(text);
        got = fread(text + n, 1, 4096, in);
        n += got;
    } while (got);
    fclose(in);
    text[n] = 0;
    if (size) *size = n;
    return text;
}

static inline void file_put(const char *path, const void *bytes, size_t size) {
    FILE *out = fopen(path, "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(bytes, 1, size, out), size);
    assert_int_equal(fclose(out), 0);
}

static inline void folder_put(const temporary_folder *folder, const char *name, const void *bytes, size_t size) {
    file_put(folder_file(folder, name), bytes, size);
}

#endif
