/* SHA-256 (FIPS 180-4) of bytes in memory. */
#ifndef TERN_CLI_SHA256_H
#define TERN_CLI_SHA256_H

#include <stddef.h>
#include <stdint.h>

/* 64 hexadecimal digits and a zero. */
void sha256_text(char text[65], const uint8_t *data, size_t bytes);

#endif
