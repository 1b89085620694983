/* PNG through libpng: 8 bits, grey or colour, without alpha or gamma. */
#include <png.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "io/image_decode.h"
#include "io/unpacked_file.h"

enum { MAX_CHUNK = 1 << 24 };

typedef struct source {
    const uint8_t *content;
    size_t bytes, at;
    char message[96]; /* of the error that was jumped out with */
} source;

static void read_source(png_structp png, png_bytep out, size_t count) {
    source *s = png_get_io_ptr(png);
    if (count > s->bytes - s->at) png_error(png, "the file is cut off");
    memcpy(out, s->content + s->at, count);
    s->at += count;
}

__attribute__((noreturn)) static void on_error(png_structp png, png_const_charp message) {
    source *s = png_get_error_ptr(png);
    snprintf(s->message, sizeof s->message, "%s", message);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp message) {
    (void)png;
    (void)message;
}

/* Nonzero on success; else the source's message says why not. `rows` is the caller's, so that it can be freed. */
static int read_picture(png_structp png, png_infop png_info, tern_image_info *info, png_bytep *rows, uint8_t *out) {
    if (setjmp(png_jmpbuf(png))) return 0;
    png_set_user_limits(png, TERN_IMAGE_MAX_SIDE, TERN_IMAGE_MAX_SIDE);
    png_set_chunk_malloc_max(png, MAX_CHUNK);
    png_read_info(png, png_info);
    info->height = png_get_image_height(png, png_info);
    info->width = png_get_image_width(png, png_info);
    info->channels = png_get_color_type(png, png_info) & PNG_COLOR_MASK_COLOR ? 3 : 1;
    if (!out) return 1;
    png_set_expand(png); /* palettes, and fewer than 8 bits */
    png_set_scale_16(png);
    png_set_strip_alpha(png);
    png_set_interlace_handling(png);
    png_read_update_info(png, png_info);
    size_t row = info->width * info->channels;
    if (png_get_rowbytes(png, png_info) != row) png_error(png, "an unknown kind of pixels");
    for (size_t y = 0; y < info->height; y++) rows[y] = out + y * row;
    png_read_image(png, rows);
    png_read_end(png, NULL);
    return 1;
}

tern_status tern_png_decode(tern_image_info *info, uint8_t *out, const uint8_t *content, size_t bytes,
                            const char *path, tern_error *err) {
    source s = {content, bytes, 0, ""};
    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &s, on_error, on_warning);
    png_infop png_info = png ? png_create_info_struct(png) : NULL;
    png_bytep *rows = out ? malloc(info->height * sizeof *rows) : NULL;
    tern_status status = TERN_OK;
    if (png) png_set_read_fn(png, &s, read_source);
    if (!png_info || (out && !rows))
        status = tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "%s: memory for libpng", tern_path_tail(path));
    else if (!read_picture(png, png_info, info, rows, out))
        status = tern_fail(err, TERN_E_DATA, s.at, "%s: byte %zu: not a valid PNG: %s", tern_path_tail(path), s.at,
                           s.message);
    free(rows);
    png_destroy_read_struct(&png, &png_info, NULL);
    return status;
}
