#define _GNU_SOURCE
#include "io/read_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/printable.h"

static tern_status fail_errno(tern_error *err, const char *path, int number) {
    char shown[96];
    return tern_fail(err, number == ENOMEM ? TERN_E_MEMORY : TERN_E_FILE, TERN_NO_PLACE, "%s: cannot read: %s",
                     tern_printable_path(shown, sizeof shown, path), strerror(number));
}

/* Reads to the end or to `most`, whichever is first: a log may grow meanwhile. */
static int read_all(int fd, char *text, size_t most, size_t *got) {
    *got = 0;
    while (*got < most) {
        const ssize_t n = read(fd, text + *got, most - *got);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return 0;
        if (n == 0) break;
        *got += (size_t)n;
    }
    text[*got] = 0;
    return 1;
}

tern_status tern_file_read(char **text, size_t *size, const char *path, tern_error *err) {
    TERN_CHECK_ARGUMENT(text && size && path, err, "text, size or path is NULL");
    struct stat info;
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return fail_errno(err, path, errno);
    char *out = NULL;
    int number = 0;
    if (fstat(fd, &info))
        number = errno;
    else if (!S_ISREG(info.st_mode))
        number = S_ISDIR(info.st_mode) ? EISDIR : EINVAL;
    else if (!(out = malloc((size_t)info.st_size + 1)))
        number = ENOMEM;
    else if (!read_all(fd, out, (size_t)info.st_size, size))
        number = errno;
    close(fd);
    if (number) {
        free(out);
        return fail_errno(err, path, number);
    }
    *text = out;
    return TERN_OK;
}
