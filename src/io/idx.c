#include "io/idx.h"

#include "base/checked.h"
#include "base/error.h"
#include "io/unpacked_file.h"

static uint32_t big_endian(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

tern_status tern_idx_parse(tern_idx *out, size_t count, const uint8_t *content, size_t bytes, const char *path,
                           tern_error *err) {
    const char *name = tern_path_tail(path);
    size_t header = 4 + 4 * count;
    if (bytes < header)
        return tern_fail(err, TERN_E_DATA, bytes, "%s: ends at byte %zu; an idx header takes %zu", name, bytes,
                         header);
    uint32_t magic = 0x800u | (uint32_t)count, found = big_endian(content);
    if (found != magic)
        return tern_fail(err, TERN_E_DATA, 0,
                         "%s: byte 0: an idx file of bytes in %zu dimensions has %08x, found %08x", name, count,
                         magic, found);
    tern_idx idx = {{0}, content + header};
    size_t total = 1;
    for (size_t i = 0; i < count; i++) {
        idx.dimensions[i] = big_endian(content + 4 + 4 * i);
        if (idx.dimensions[i] == 0)
            return tern_fail(err, TERN_E_DATA, 4 + 4 * i, "%s: byte %zu: dimension %zu is 0", name, 4 + 4 * i, i);
        if (!tern_checked_mul(&total, total, idx.dimensions[i]))
            return tern_fail(err, TERN_E_SIZE, 4 + 4 * i, "%s: byte %zu: the dimensions overflow", name, 4 + 4 * i);
    }
    if (bytes - header != total)
        return tern_fail(err, TERN_E_DATA, bytes, "%s: the dimensions ask for %zu bytes from byte %zu, found %zu",
                         name, total, header, bytes - header);
    *out = idx;
    return TERN_OK;
}
