/* Text from a file or a caller, made fit for an error message. */
#ifndef TERN_BASE_PRINTABLE_H
#define TERN_BASE_PRINTABLE_H

#include <stddef.h>
#include <string.h>

/* Copies text to out: control characters become '?', and what does not fit is cut between characters and ends in
 * "...". Returns out. size: at least 4. */
static inline const char *tern_printable(char *out, size_t size, const char *text) {
    const size_t length = strlen(text);
    size_t n = length < size ? length : size - 4;
    if (n < length)
        while (n && ((unsigned char)text[n] & 0xc0u) == 0x80u) n--;
    for (size_t i = 0; i < n; i++) out[i] = (unsigned char)text[i] < 32 || text[i] == 127 ? '?' : text[i];
    memcpy(out + n, n < length ? "..." : "", n < length ? 4 : 1);
    return out;
}

/* As above for a path, of which the end says more: the front is cut. */
static inline const char *tern_printable_path(char *out, size_t size, const char *path) {
    const size_t length = strlen(path);
    if (length < size) return tern_printable(out, size, path);
    const char *tail = path + (length - (size - 4));
    while (((unsigned char)*tail & 0xc0u) == 0x80u) tail++;
    memcpy(out, "...", 3);
    tern_printable(out + 3, size - 3, tail);
    return out;
}

#endif
