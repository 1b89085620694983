/* A folder of its own for a test that writes files, and what lies in it. Include after cmocka.h. */
#ifndef TERN_TEST_TEMPORARY_FOLDER_H
#define TERN_TEST_TEMPORARY_FOLDER_H

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct temporary_folder {
    char path[64];
    char file[96]; /* the last name asked for */
} temporary_folder;

static inline void folder_create(temporary_folder *folder) {
    snprintf(folder->path, sizeof folder->path, "/tmp/tern-test-XXXXXX");
    assert_non_null(mkdtemp(folder->path));
}

static inline const char *folder_file(temporary_folder *folder, const char *name) {
    snprintf(folder->file, sizeof folder->file, "%s/%s", folder->path, name);
    return folder->file;
}

/* How many files lie in it; each is removed where asked. */
static inline int folder_count(const temporary_folder *folder, int remove_them) {
    DIR *dir = opendir(folder->path);
    int count = 0;
    assert_non_null(dir);
    for (struct dirent *e = readdir(dir); e; e = readdir(dir)) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        count++;
        if (remove_them) unlinkat(dirfd(dir), e->d_name, 0);
    }
    closedir(dir);
    return count;
}

static inline void folder_remove(temporary_folder *folder) {
    folder_count(folder, 1);
    assert_int_equal(rmdir(folder->path), 0);
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

#endif
