#define _GNU_SOURCE
#include "io/safetensors_format.h"

#include <string.h>
#include <zlib.h>

#include "base/checked.h"
#include "io/safetensors.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "data is read and written as it lies in memory");

static const struct {
    const char *name;
    unsigned bits;
} dtypes[TERN_ST_COUNT] = {
    [TERN_ST_BOOL] = {"BOOL", 8},
    [TERN_ST_F4] = {"F4", 4},
    [TERN_ST_F6_E2M3] = {"F6_E2M3", 6},
    [TERN_ST_F6_E3M2] = {"F6_E3M2", 6},
    [TERN_ST_U8] = {"U8", 8},
    [TERN_ST_I8] = {"I8", 8},
    [TERN_ST_F8_E5M2] = {"F8_E5M2", 8},
    [TERN_ST_F8_E4M3] = {"F8_E4M3", 8},
    [TERN_ST_F8_E8M0] = {"F8_E8M0", 8},
    [TERN_ST_F8_E4M3FNUZ] = {"F8_E4M3FNUZ", 8},
    [TERN_ST_F8_E5M2FNUZ] = {"F8_E5M2FNUZ", 8},
    [TERN_ST_I16] = {"I16", 16},
    [TERN_ST_U16] = {"U16", 16},
    [TERN_ST_F16] = {"F16", 16},
    [TERN_ST_BF16] = {"BF16", 16},
    [TERN_ST_I32] = {"I32", 32},
    [TERN_ST_U32] = {"U32", 32},
    [TERN_ST_F32] = {"F32", 32},
    [TERN_ST_C64] = {"C64", 64},
    [TERN_ST_F64] = {"F64", 64},
    [TERN_ST_I64] = {"I64", 64},
    [TERN_ST_U64] = {"U64", 64},
};

const char *tern_safetensors_dtype_name(tern_safetensors_dtype dtype) {
    return (unsigned)dtype < TERN_ST_COUNT ? dtypes[dtype].name : NULL;
}

unsigned tern_safetensors_dtype_bits(tern_safetensors_dtype dtype) {
    return (unsigned)dtype < TERN_ST_COUNT ? dtypes[dtype].bits : 0;
}

int tern_safetensors_bytes(size_t *bytes, tern_safetensors_dtype dtype, size_t rank, const size_t *shape) {
    size_t bits = tern_safetensors_dtype_bits(dtype), elements = 1;
    if (!bits) return 0;
    for (size_t i = 0; i < rank; i++)
        if (!tern_checked_mul(&elements, elements, shape[i])) return 0;
    if (!tern_checked_mul(&bits, elements, bits) || bits % 8) return 0;
    *bytes = bits / 8;
    return 1;
}

size_t tern_safetensors_digits_at(const char *header, size_t size) {
    static const char before[] = "\"" TERN_ST_CRC_KEY "\":\"";
    const char *found = memmem(header, size, before, sizeof before - 1);
    if (!found) return 0;
    const size_t at = (size_t)(found - header) + sizeof before - 1;
    return size - at >= TERN_ST_DIGITS ? at : 0;
}

uint32_t tern_safetensors_crc(uint32_t crc, const void *bytes, size_t size) {
    enum { PARTS = 16, WORTH_SPLITTING = 1 << 20 };
    const uint8_t *p = bytes;
    if (!size) return crc; /* zlib takes NULL for a wish to start anew */
    if (size < WORTH_SPLITTING) return (uint32_t)crc32_z(crc, p, size);
    const size_t part = tern_ceil_div(size, PARTS);
    uLong crcs[PARTS];
#pragma omp parallel for schedule(static)
    for (int i = 0; i < PARTS; i++) {
        const size_t begin = tern_min_size((size_t)i * part, size);
        crcs[i] = crc32_z(0, p + begin, tern_min_size(part, size - begin));
    }
    for (int i = 0; i < PARTS; i++) {
        const size_t begin = tern_min_size((size_t)i * part, size);
        crc = (uint32_t)crc32_combine(crc, crcs[i], (z_off_t)tern_min_size(part, size - begin));
    }
    return crc;
}
