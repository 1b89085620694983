#include "io/text_tokens.h"

#include <stdlib.h>

#include "base/error.h"
#include "io/unpacked_file.h"

uint32_t tern_utf8_next(const uint8_t *text, size_t bytes, size_t *at) {
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    const uint8_t *p = text + *at;
    size_t length = p[0] < 0x80 ? 1 : p[0] >> 5 == 6 ? 2 : p[0] >> 4 == 14 ? 3 : p[0] >> 3 == 30 ? 4 : 0;
    if (length == 0 || length > bytes - *at) return UINT32_MAX;
    uint32_t c = length == 1 ? p[0] : p[0] & (0x7fu >> length);
    for (size_t i = 1; i < length; i++) {
        if (p[i] >> 6 != 2) return UINT32_MAX;
        c = c << 6 | (p[i] & 0x3fu);
    }
    if (c < least[length] || c >= TERN_CODE_POINTS || (c >= 0xd800 && c < 0xe000)) return UINT32_MAX;
    *at += length;
    return c;
}

size_t tern_utf8_put(uint8_t out[4], uint32_t c) {
    if (c < 0x80) {
        out[0] = (uint8_t)c;
        return 1;
    }
    size_t length = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = length - 1; i > 0; i--, c >>= 6) out[i] = (uint8_t)(0x80u | (c & 0x3fu));
    out[0] = (uint8_t)((0xf00u >> length & 0xffu) | c); /* as many leading ones as bytes */
    return length;
}

static tern_status mark_seen(uint8_t *seen, size_t *size, size_t *characters, const uint8_t *text, size_t bytes,
                             const char *path, tern_error *err) {
    for (size_t at = 0; at < bytes; ++*characters) {
        uint32_t c = tern_utf8_next(text, bytes, &at);
        if (c == UINT32_MAX)
            return tern_fail(err, TERN_E_DATA, at,
                             "%s: byte %zu: %02x is not UTF-8 here; TERN_TEXT_BYTES takes any file",
                             tern_path_tail(path), at, text[at]);
        *size += !seen[c];
        seen[c] = 1;
    }
    if (*size > TERN_MAX_VOCABULARY)
        return tern_fail(err, TERN_E_SIZE, TERN_NO_PLACE, "%s: %zu distinct characters; a vocabulary holds up to %d",
                         tern_path_tail(path), *size, TERN_MAX_VOCABULARY);
    return TERN_OK;
}

tern_status tern_vocabulary_of(uint32_t **vocabulary, size_t *size, size_t *characters, const uint8_t *text,
                               size_t bytes, const char *path, tern_error *err) {
    *size = *characters = 0;
    uint8_t *seen = calloc(TERN_CODE_POINTS, 1);
    if (!seen) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "%d bytes for a vocabulary", TERN_CODE_POINTS);
    tern_status status = mark_seen(seen, size, characters, text, bytes, path, err);
    uint32_t *list = status ? NULL : malloc((*size + 1) * sizeof *list);
    if (!status && !list)
        status = tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "memory for a vocabulary of %zu", *size);
    if (!status) {
        size_t n = 0;
        for (uint32_t c = 0; c < TERN_CODE_POINTS; c++)
            if (seen[c]) list[n++] = c;
        *vocabulary = list;
    }
    free(seen);
    return status;
}

int32_t tern_vocabulary_find(const uint32_t *vocabulary, size_t size, uint32_t code_point) {
    size_t low = 0, high = size;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (vocabulary[middle] < code_point)
            low = middle + 1;
        else
            high = middle;
    }
    return low < size && vocabulary[low] == code_point ? (int32_t)low : -1;
}
