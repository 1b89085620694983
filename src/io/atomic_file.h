/* Files that are there whole or not at all.
 *
 * The bytes go to a temporary name in the folder of the file; commit flushes them to the disk, renames, and flushes
 * the folder. Whoever opens the path at any moment, a crash of the machine included, finds the old file or the new
 * one. A link is followed: what it points at is replaced. An old file passes its permissions on.
 *
 * A killed process leaves the temporary behind: .NAME.PID-N.tmp, safe to delete. */
#ifndef TERN_IO_ATOMIC_FILE_H
#define TERN_IO_ATOMIC_FILE_H

#include <stddef.h>

#include "tern/status.h"

typedef struct tern_atomic_file tern_atomic_file;

/* Creates the temporary. Folders are not made. */
tern_status tern_atomic_file_create(tern_atomic_file **out, const char *path, tern_error *err);

/* Appends. After a failure (a full disk, say) only free is of use. */
tern_status tern_atomic_file_write(tern_atomic_file *file, const void *bytes, size_t size, tern_error *err);

/* Makes the new file take the old one's place, frees and nulls *file whatever happens. On failure the old file is
 * as it was and the temporary is gone; the one exception says so: the rename is done but its flush failed. */
tern_status tern_atomic_file_commit(tern_atomic_file **file, tern_error *err);

/* Gives up: removes the temporary, frees and nulls. Accepts NULL and a NULL pointer. */
void tern_atomic_file_free(tern_atomic_file **file);

/* All of it in one: path holds exactly these bytes, or what it held before. */
tern_status tern_atomic_file_replace(const char *path, const void *bytes, size_t size, tern_error *err);

#endif
