#define _GNU_SOURCE
#include "io/atomic_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/printable.h"

/* One write call takes at most 2 GiB less a page on Linux. */
static const size_t write_most = (size_t)1 << 30;

enum { TEMPORARY_NAMES = 1000, BASE_SHOWN = 100 };

struct tern_atomic_file {
    char *path; /* with links followed */
    const char *base;
    int folder; /* -1 when closed, and so the next */
    int fd;
    uint64_t written;
    char temporary[BASE_SHOWN + 48]; /* empty while there is none */
};

static tern_status fail_errno(const tern_atomic_file *file, tern_error *err, const char *what, int number) {
    char path[96];
    return tern_fail(err, number == ENOMEM ? TERN_E_MEMORY : TERN_E_FILE, file->written, "%s: %s: %s",
                     tern_printable_path(path, sizeof path, file->path), what, strerror(number));
}

static int open_folder(const tern_atomic_file *file) {
    if (file->base == file->path) return open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    char *folder = strndup(file->path, (size_t)(file->base - file->path));
    if (!folder) return -1;
    const int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    free(folder);
    return fd;
}

/* The mode is left to the umask, which mkstemp would pass over and which cannot be read without being set. */
static int open_temporary(tern_atomic_file *file) {
    for (int i = 0; i < TEMPORARY_NAMES; i++) {
        snprintf(file->temporary, sizeof file->temporary, ".%.*s.%ld-%d.tmp", BASE_SHOWN, file->base, (long)getpid(),
                 i);
        file->fd = openat(file->folder, file->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (file->fd >= 0) return 1;
        if (errno != EEXIST) break;
    }
    file->temporary[0] = 0;
    return 0;
}

static tern_status prepare(tern_atomic_file *file, tern_error *err) {
    struct stat old;
    file->folder = open_folder(file);
    if (file->folder < 0) return fail_errno(file, err, "cannot open its folder", errno);
    if (!file->base[0]) return fail_errno(file, err, "cannot write a folder", EISDIR);
    const int exists = fstatat(file->folder, file->base, &old, 0) == 0;
    if (exists && !S_ISREG(old.st_mode))
        return tern_fail(err, TERN_E_FILE, TERN_NO_PLACE, "%s: not a regular file", file->path);
    if (!open_temporary(file)) return fail_errno(file, err, "cannot create a temporary beside it", errno);
    if (exists && fchmod(file->fd, old.st_mode & 07777))
        return fail_errno(file, err, "cannot pass on the permissions", errno);
    return TERN_OK;
}

tern_status tern_atomic_file_create(tern_atomic_file **out, const char *path, tern_error *err) {
    TERN_CHECK_ARGUMENT(out, err, "out is NULL");
    *out = NULL;
    TERN_CHECK_ARGUMENT(path && path[0], err, "path is NULL or empty");
    tern_atomic_file *file = calloc(1, sizeof *file);
    if (!file) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for a file record");
    file->folder = file->fd = -1;
    file->path = realpath(path, NULL);
    if (!file->path) file->path = strdup(path); /* not there yet */
    tern_status status = TERN_OK;
    if (!file->path)
        status = tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for a path of %zu bytes", strlen(path));
    if (!status) {
        const char *slash = strrchr(file->path, '/');
        file->base = slash ? slash + 1 : file->path;
        status = prepare(file, err);
    }
    if (status)
        tern_atomic_file_free(&file);
    else
        *out = file;
    return status;
}

tern_status tern_atomic_file_write(tern_atomic_file *file, const void *bytes, size_t size, tern_error *err) {
    TERN_CHECK_ARGUMENT(file && (bytes || !size), err, "file or bytes is NULL");
    const uint8_t *next = bytes;
    while (size) {
        const ssize_t n = write(file->fd, next, size < write_most ? size : write_most);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return fail_errno(file, err, "cannot write", errno);
        if (n == 0) return fail_errno(file, err, "cannot write", ENOSPC);
        next += n;
        size -= (size_t)n;
        file->written += (uint64_t)n;
    }
    return TERN_OK;
}

static tern_status finish(tern_atomic_file *file, tern_error *err) {
    if (fsync(file->fd)) return fail_errno(file, err, "cannot flush to the disk", errno);
    const int fd = file->fd;
    file->fd = -1;
    if (close(fd)) return fail_errno(file, err, "cannot close", errno);
    if (renameat(file->folder, file->temporary, file->folder, file->base))
        return fail_errno(file, err, "cannot rename the temporary to it", errno);
    file->temporary[0] = 0;
    /* Some file systems have no flush for folders and say EINVAL. */
    if (fsync(file->folder) && errno != EINVAL)
        return fail_errno(file, err, "written and renamed, but cannot flush its folder", errno);
    return TERN_OK;
}

tern_status tern_atomic_file_commit(tern_atomic_file **file, tern_error *err) {
    TERN_CHECK_ARGUMENT(file && *file, err, "file is NULL");
    const tern_status status = finish(*file, err);
    tern_atomic_file_free(file);
    return status;
}

void tern_atomic_file_free(tern_atomic_file **file) {
    if (!file || !*file) return;
    if ((*file)->fd >= 0) close((*file)->fd);
    if ((*file)->temporary[0]) unlinkat((*file)->folder, (*file)->temporary, 0);
    if ((*file)->folder >= 0) close((*file)->folder);
    free((*file)->path);
    free(*file);
    *file = NULL;
}

tern_status tern_atomic_file_replace(const char *path, const void *bytes, size_t size, tern_error *err) {
    tern_atomic_file *file = NULL;
    TERN_TRY(tern_atomic_file_create(&file, path, err));
    const tern_status status = tern_atomic_file_write(file, bytes, size, err);
    if (!status) return tern_atomic_file_commit(&file, err);
    tern_atomic_file_free(&file);
    return status;
}
