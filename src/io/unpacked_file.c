#include "io/unpacked_file.h"

#include <errno.h>
#include <lzma.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>

#include "base/error.h"

enum { CHUNK = 1 << 18, XZ_MEMORY = 1 << 30, TAIL = 100 };
static const uint64_t max_content = (uint64_t)4 << 30;

const char *tern_path_tail(const char *path) {
    size_t length = strlen(path);
    if (length <= TAIL) return path;
    const char *tail = path + length - TAIL;
    while (((unsigned char)*tail & 0xc0) == 0x80) tail++; /* not into the middle of a UTF-8 character */
    return tail;
}

void tern_bytes_free(tern_bytes *bytes) {
    free(bytes->data);
    *bytes = (tern_bytes){0};
}

/* ---- what the content is collected in -------------------------------------------------------------------------- */

typedef struct content {
    tern_bytes bytes;
    size_t capacity;
} content;

/* Room for `more` bytes behind what is there. */
static tern_status reserve(content *c, size_t more, const char *path, tern_error *err) {
    if (more > max_content || c->bytes.size > max_content - more)
        return tern_fail(err, TERN_E_SIZE, c->bytes.size, "%s: more than 4 GiB of content", tern_path_tail(path));
    size_t need = c->bytes.size + more;
    if (c->bytes.data && need <= c->capacity) return TERN_OK;
    size_t capacity = c->capacity + c->capacity / 2;
    if (capacity < need) capacity = need;
    uint8_t *data = realloc(c->bytes.data, capacity ? capacity : 1);
    if (!data)
        return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "%s: %zu bytes of memory for its content",
                         tern_path_tail(path), capacity);
    c->bytes.data = data;
    c->capacity = capacity;
    return TERN_OK;
}

static tern_status read_chunk(size_t *got, void *chunk, size_t bytes, FILE *file, const char *path, tern_error *err) {
    *got = fread(chunk, 1, bytes, file);
    if (*got < bytes && ferror(file))
        return tern_fail(err, TERN_E_FILE, TERN_NO_PLACE, "%s: cannot be read: %s", tern_path_tail(path),
                         strerror(errno));
    return TERN_OK;
}

/* ---- plain ----------------------------------------------------------------------------------------------------- */

static tern_status read_plain(content *c, FILE *file, const char *path, tern_error *err) {
    struct stat st;
    if (fstat(fileno(file), &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0)
        TERN_TRY(reserve(c, (size_t)st.st_size + 1, path, err)); /* a byte more, so that the end is seen at once */
    for (;;) {
        if (c->capacity == c->bytes.size) TERN_TRY(reserve(c, CHUNK, path, err));
        size_t got, room = c->capacity - c->bytes.size;
        TERN_TRY(read_chunk(&got, c->bytes.data + c->bytes.size, room, file, path, err));
        c->bytes.size += got;
        if (got < room) return TERN_OK;
    }
}

/* ---- gzip ------------------------------------------------------------------------------------------------------ */

static tern_status inflate_file(content *c, z_stream *z, uint8_t *chunk, FILE *file, const char *path,
                                tern_error *err) {
    int ended = 0; /* between two members: where the file may end */
    uint64_t packed = 0;
    for (;;) {
        if (z->avail_in == 0) {
            size_t got;
            TERN_TRY(read_chunk(&got, chunk, CHUNK, file, path, err));
            packed += got;
            z->next_in = chunk;
            z->avail_in = (uInt)got;
            if (got == 0 && ended) return TERN_OK;
            if (got == 0)
                return tern_fail(err, TERN_E_DATA, c->bytes.size,
                                 "%s: the gzip file is cut off at its byte %llu, after %zu bytes of content",
                                 tern_path_tail(path), (unsigned long long)packed, c->bytes.size);
        }
        if (ended) inflateReset(z);
        TERN_TRY(reserve(c, CHUNK, path, err));
        z->next_out = c->bytes.data + c->bytes.size;
        z->avail_out = CHUNK;
        int code = inflate(z, Z_NO_FLUSH);
        c->bytes.size += CHUNK - z->avail_out;
        ended = code == Z_STREAM_END;
        if (code == Z_MEM_ERROR)
            return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "%s: memory for zlib", tern_path_tail(path));
        if (code != Z_OK && code != Z_STREAM_END && code != Z_BUF_ERROR)
            return tern_fail(err, TERN_E_DATA, c->bytes.size, "%s: not a valid gzip file at its byte %llu: %s",
                             tern_path_tail(path), (unsigned long long)(packed - z->avail_in),
                             z->msg ? z->msg : "a dictionary is asked for");
    }
}

static tern_status read_gzip(content *c, FILE *file, const char *path, tern_error *err) {
    z_stream z = {0};
    uint8_t *chunk = malloc(CHUNK);
    if (!chunk || inflateInit2(&z, 15 + 16) != Z_OK) { /* the largest window, a gzip header */
        free(chunk);
        return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "%s: memory for zlib", tern_path_tail(path));
    }
    tern_status status = inflate_file(c, &z, chunk, file, path, err);
    inflateEnd(&z);
    free(chunk);
    return status;
}

/* ---- xz -------------------------------------------------------------------------------------------------------- */

static const char *lzma_trouble(lzma_ret code) {
    switch (code) {
    case LZMA_FORMAT_ERROR: return "it does not begin as one";
    case LZMA_OPTIONS_ERROR: return "made with options that this liblzma does not know";
    case LZMA_MEMLIMIT_ERROR: return "unpacking it would take more than 1 GiB of memory";
    case LZMA_BUF_ERROR: return "cut off";
    default: return "damaged";
    }
}

static tern_status unpack_xz(content *c, lzma_stream *z, uint8_t *chunk, FILE *file, const char *path,
                             tern_error *err) {
    uint64_t packed = 0;
    lzma_action action = LZMA_RUN;
    for (;;) {
        if (z->avail_in == 0 && action == LZMA_RUN) {
            size_t got;
            TERN_TRY(read_chunk(&got, chunk, CHUNK, file, path, err));
            packed += got;
            z->next_in = chunk;
            z->avail_in = got;
            if (got < CHUNK) action = LZMA_FINISH;
        }
        TERN_TRY(reserve(c, CHUNK, path, err));
        z->next_out = c->bytes.data + c->bytes.size;
        z->avail_out = CHUNK;
        lzma_ret code = lzma_code(z, action);
        c->bytes.size += CHUNK - z->avail_out;
        if (code == LZMA_STREAM_END) return TERN_OK;
        if (code == LZMA_MEM_ERROR)
            return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "%s: memory for liblzma", tern_path_tail(path));
        if (code != LZMA_OK)
            return tern_fail(err, TERN_E_DATA, c->bytes.size, "%s: not a valid xz file at its byte %llu: %s",
                             tern_path_tail(path), (unsigned long long)(packed - z->avail_in), lzma_trouble(code));
    }
}

static tern_status read_xz(content *c, FILE *file, const char *path, tern_error *err) {
    lzma_stream z = LZMA_STREAM_INIT;
    uint8_t *chunk = malloc(CHUNK);
    if (!chunk || lzma_stream_decoder(&z, XZ_MEMORY, LZMA_CONCATENATED) != LZMA_OK) {
        free(chunk);
        return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "%s: memory for liblzma", tern_path_tail(path));
    }
    tern_status status = unpack_xz(c, &z, chunk, file, path, err);
    lzma_end(&z);
    free(chunk);
    return status;
}

/* ---- all ------------------------------------------------------------------------------------------------------- */

static int ends_in(const char *path, const char *end) {
    size_t a = strlen(path), b = strlen(end);
    return a >= b && memcmp(path + a - b, end, b) == 0;
}

tern_status tern_read_unpacked(tern_bytes *out, const char *path, tern_error *err) {
    FILE *file = fopen(path, "rb");
    if (!file)
        return tern_fail(err, TERN_E_FILE, TERN_NO_PLACE, "%s: cannot be opened: %s", tern_path_tail(path),
                         strerror(errno));
    content c = {0};
    tern_status status = ends_in(path, ".gz")   ? read_gzip(&c, file, path, err)
                         : ends_in(path, ".xz") ? read_xz(&c, file, path, err)
                                                : read_plain(&c, file, path, err);
    fclose(file);
    if (status)
        tern_bytes_free(&c.bytes);
    else
        *out = c.bytes;
    return status;
}
