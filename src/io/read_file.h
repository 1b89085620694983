/* A whole file in memory. */
#ifndef TERN_IO_READ_FILE_H
#define TERN_IO_READ_FILE_H

#include <stddef.h>

#include "tern/status.h"

/* *text: *size bytes and a NUL after them, to be freed with free(). Regular files only. */
tern_status tern_file_read(char **text, size_t *size, const char *path, tern_error *err);

#endif
