/* Texts as tokens: code points of a vocabulary, or bytes. */
#ifndef TERN_IO_TEXT_TOKENS_H
#define TERN_IO_TEXT_TOKENS_H

#include <stddef.h>
#include <stdint.h>

#include "tern/status.h"

enum { TERN_CODE_POINTS = 0x110000, TERN_MAX_VOCABULARY = 1 << 16 };

/* The code point at *at, which is moved behind it; UINT32_MAX, and *at stays, where the bytes are not UTF-8 (cut off,
 * longer than needed, surrogates, past 10ffff). The caller knows that *at < bytes. */
uint32_t tern_utf8_next(const uint8_t *text, size_t bytes, size_t *at);

/* Writes 1 to 4 bytes and returns how many. */
size_t tern_utf8_put(uint8_t out[4], uint32_t code_point);

/* The distinct code points of a text in ascending order: malloc'ed, *size of them, at most 65536. *characters is how
 * many the text has with repetitions. */
tern_status tern_vocabulary_of(uint32_t **vocabulary, size_t *size, size_t *characters, const uint8_t *text,
                               size_t bytes, const char *path, tern_error *err);

/* The token of a code point; -1 if it is not in the vocabulary. */
int32_t tern_vocabulary_find(const uint32_t *vocabulary, size_t size, uint32_t code_point);

#endif
