#include "fetch.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "cli.h"

static const size_t max_size = (size_t)1 << 30;

typedef struct growing {
    buffer bytes;
    size_t capacity;
    const char *trouble; /* why adding failed */
} growing;

static int add(growing *g, const void *data, size_t bytes) {
    if (bytes > max_size - g->bytes.size) {
        g->trouble = "it is larger than 1 GiB";
        return 0;
    }
    if (g->bytes.size + bytes > g->capacity) {
        size_t capacity = g->capacity + g->capacity / 2 + bytes;
        uint8_t *grown = realloc(g->bytes.data, capacity);
        if (!grown) {
            g->trouble = "out of memory";
            return 0;
        }
        g->bytes.data = grown;
        g->capacity = capacity;
    }
    if (bytes) memcpy(g->bytes.data + g->bytes.size, data, bytes);
    g->bytes.size += bytes;
    return 1;
}

/* ---- the net --------------------------------------------------------------------------------------------------- */

static size_t take(char *data, size_t one, size_t bytes, void *user) {
    growing *g = user;
    if (!add(g, data, one * bytes)) return 0;
    progress("%.1f MB", (double)g->bytes.size / 1e6);
    return bytes;
}

static CURLcode transfer(CURL *curl, const char *url, growing *g, char *message) {
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https,file");
    curl_easy_setopt(curl, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(curl, CURLOPT_MAXREDIRS, 8L);
    curl_easy_setopt(curl, CURLOPT_FAILONERROR, 1L);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, 30L);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 100L); /* bytes a second ... */
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, 60L);   /* ... for a minute: given up */
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, message);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, g);
    return curl_easy_perform(curl);
}

int fetch(buffer *out, const char *url) {
    char message[CURL_ERROR_SIZE] = "";
    growing g = {0};
    CURL *curl = curl_easy_init();
    CURLcode code = curl ? transfer(curl, url, &g, message) : CURLE_OUT_OF_MEMORY;
    curl_easy_cleanup(curl);
    progress("%s", "");
    if (code == CURLE_OK && g.bytes.data) {
        *out = g.bytes;
        return 1;
    }
    complain("%s: %s", url,
             g.trouble          ? g.trouble
             : code == CURLE_OK ? "it is empty"
             : *message         ? message
                                : curl_easy_strerror(code));
    free(g.bytes.data);
    return 0;
}

/* ---- files ----------------------------------------------------------------------------------------------------- */

int read_whole(buffer *out, const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) return 0;
    growing g = {0};
    uint8_t chunk[1 << 14];
    size_t got;
    int ok = 1;
    while (ok && (got = fread(chunk, 1, sizeof chunk, file)) > 0) ok = add(&g, chunk, got);
    ok = ok && !ferror(file) && g.bytes.data;
    fclose(file);
    if (ok)
        *out = g.bytes;
    else
        free(g.bytes.data);
    return ok;
}

int write_whole(const char *path, const uint8_t *data, size_t bytes) {
    char part[4096];
    if (snprintf(part, sizeof part, "%s.part", path) >= (int)sizeof part) {
        complain("%s: too long a path", path);
        return 0;
    }
    FILE *file = fopen(part, "wb");
    int ok = file && fwrite(data, 1, bytes, file) == bytes;
    if (file && fclose(file)) ok = 0;
    if (ok && rename(part, path) == 0) return 1;
    complain("%s: cannot be written: %s", path, strerror(errno));
    remove(part);
    return 0;
}

/* ---- what is packed -------------------------------------------------------------------------------------------- */

static int inflate_all(growing *g, z_stream *z) {
    uint8_t chunk[1 << 14];
    for (int code = Z_OK; code != Z_STREAM_END;) {
        z->next_out = chunk;
        z->avail_out = sizeof chunk;
        code = inflate(z, Z_NO_FLUSH);
        if (code != Z_OK && code != Z_STREAM_END) {
            g->trouble = code == Z_BUF_ERROR ? "the gzip file is cut off" : "not a valid gzip file";
            return 0;
        }
        if (!add(g, chunk, sizeof chunk - z->avail_out)) return 0;
    }
    return 1;
}

int gunzip(buffer *out, const buffer *packed, const char *name) {
    growing g = {0};
    z_stream z = {.next_in = packed->data, .avail_in = (uInt)packed->size};
    int ok = inflateInit2(&z, 15 + 16) == Z_OK; /* the largest window, a gzip header */
    if (ok) {
        ok = inflate_all(&g, &z);
        inflateEnd(&z);
    }
    if (ok) {
        *out = g.bytes;
        return 1;
    }
    complain("%s: %s", name, g.trouble ? g.trouble : "out of memory");
    free(g.bytes.data);
    return 0;
}

/* A number in octal digits, as tar's headers have it; SIZE_MAX if it is none. */
static size_t octal(const uint8_t *field, size_t digits) {
    size_t value = 0;
    for (size_t i = 0; i < digits && field[i] && field[i] != ' '; i++) {
        if (field[i] < '0' || field[i] > '7') return SIZE_MAX;
        value = value * 8 + (size_t)(field[i] - '0');
    }
    return value;
}

int find_in_tar(const uint8_t **data, size_t *bytes, const buffer *archive, const char *name) {
    enum { BLOCK = 512, NAME = 100, SIZE = 124, SIZE_DIGITS = 12, TYPE = 156 };
    for (size_t at = 0; archive->size - at >= BLOCK;) {
        const uint8_t *header = archive->data + at;
        size_t size = octal(header + SIZE, SIZE_DIGITS), left = archive->size - at - BLOCK;
        if (size > left) break;
        char path[NAME + 1] = {0};
        memcpy(path, header, NAME);
        const char *slash = strrchr(path, '/');
        if ((header[TYPE] == '0' || header[TYPE] == 0) && !strcmp(slash ? slash + 1 : path, name)) {
            *data = header + BLOCK;
            *bytes = size;
            return 1;
        }
        size_t padded = (size + BLOCK - 1) / BLOCK * BLOCK;
        if (padded > left) break;
        at += BLOCK + padded;
    }
    complain("the archive has no whole %s", name);
    return 0;
}
