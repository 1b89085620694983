/* A folder for the files that a test makes, gone when it is closed. */
#ifndef TERN_TEST_SCRATCH_FOLDER_H
#define TERN_TEST_SCRATCH_FOLDER_H

#include <ftw.h>
#include <lzma.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

typedef struct scratch_folder {
    char path[64];
} scratch_folder;

static inline void scratch_open(scratch_folder *s) {
    strcpy(s->path, "/tmp/tern_test_XXXXXX");
    if (!mkdtemp(s->path)) abort();
}

static inline int scratch_remove(const char *path, const struct stat *st, int flag, struct FTW *walk) {
    (void)st, (void)flag, (void)walk;
    return remove(path);
}

static inline void scratch_close(scratch_folder *s) { nftw(s->path, scratch_remove, 8, FTW_DEPTH | FTW_PHYS); }

/* FOLDER/NAME, in one of a few buffers that are used in turn. */
static inline const char *scratch_path(const scratch_folder *s, const char *name) {
    static char paths[8][512];
    static int turn;
    char *path = paths[turn++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", s->path, name);
    return path;
}

static inline void scratch_mkdir(const scratch_folder *s, const char *name) {
    if (mkdir(scratch_path(s, name), 0700)) abort();
}

static inline void scratch_write(const scratch_folder *s, const char *name, const void *data, size_t bytes) {
    FILE *f = fopen(scratch_path(s, name), "wb");
    if (!f || fwrite(data, 1, bytes, f) != bytes || fclose(f)) abort();
}

/* Packed copies of some bytes: malloc'ed. */
static inline uint8_t *scratch_gzip(size_t *packed, const void *data, size_t bytes) {
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

static inline uint8_t *scratch_xz(size_t *packed, const void *data, size_t bytes) {
    size_t room = lzma_stream_buffer_bound(bytes);
    uint8_t *out = malloc(room);
    *packed = 0;
    if (!out || lzma_easy_buffer_encode(0, LZMA_CHECK_CRC64, NULL, data, bytes, out, packed, room) != LZMA_OK)
        abort();
    return out;
}

#endif
