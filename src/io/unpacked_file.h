/* Whole files in memory, unpacked on the way where their name ends in .gz or .xz. */
#ifndef TERN_IO_UNPACKED_FILE_H
#define TERN_IO_UNPACKED_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "tern/status.h"

typedef struct tern_bytes {
    uint8_t *data; /* free with tern_bytes_free; never NULL after success */
    size_t size;
} tern_bytes;

/* Content of more than 4 GiB is refused, so that a small hostile file cannot fill the memory without end. */
tern_status tern_read_unpacked(tern_bytes *out, const char *path, tern_error *err);

void tern_bytes_free(tern_bytes *bytes);

/* The end of a path, for messages: they are short, and it is the end that tells files apart. */
const char *tern_path_tail(const char *path);

#endif
