/* PNG and JPEG from memory. The size is read first and the pixels only when the caller agrees to it, so that a small
 * hostile file cannot ask for a large picture. */
#ifndef TERN_IO_IMAGE_DECODE_H
#define TERN_IO_IMAGE_DECODE_H

#include <stddef.h>
#include <stdint.h>

#include "tern/data.h"

enum { TERN_IMAGE_MAX_SIDE = 1 << 15 };

tern_status tern_image_parse(tern_image_info *info, const uint8_t *content, size_t bytes, const char *path,
                             tern_error *err);

/* As tern_image_read. */
tern_status tern_image_decode(uint8_t *out, size_t height, size_t width, size_t channels, const uint8_t *content,
                              size_t bytes, const char *path, tern_error *err);

/* One format each. With out = NULL only the header is read; else *info says what it held, and out takes
 * [height][width][channels] as it says. */
tern_status tern_png_decode(tern_image_info *info, uint8_t *out, const uint8_t *content, size_t bytes,
                            const char *path, tern_error *err);
tern_status tern_jpeg_decode(tern_image_info *info, uint8_t *out, const uint8_t *content, size_t bytes,
                             const char *path, tern_error *err);

#endif
