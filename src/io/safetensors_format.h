/* What the reader and the writer of safetensors files share. */
#ifndef TERN_IO_SAFETENSORS_FORMAT_H
#define TERN_IO_SAFETENSORS_FORMAT_H

#include <stddef.h>
#include <stdint.h>

enum {
    TERN_ST_LENGTH_BYTES = 8,
    TERN_ST_MAX_HEADER = 100000000,
    TERN_ST_DATA_ALIGNMENT = 64,
    TERN_ST_DIGITS = 8,
};

#define TERN_ST_METADATA "__metadata__"
#define TERN_ST_METHOD_KEY "tern.checksum"
#define TERN_ST_METHOD "crc32"
#define TERN_ST_CRC_KEY "tern.crc32"
#define TERN_ST_ZEROS "00000000"

/* Where the digits stand in a header: TERN_ST_DIGITS bytes after this text; 0 if it is not there. A string cannot
 * hold the text by chance, because there its quotes would be escaped. */
size_t tern_safetensors_digits_at(const char *header, size_t size);

/* Continues a CRC-32 over size bytes, on all threads where it pays. */
uint32_t tern_safetensors_crc(uint32_t crc, const void *bytes, size_t size);

#endif
