#include "io/image_decode.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "io/unpacked_file.h"

static tern_status decode_any(tern_image_info *info, uint8_t *out, const uint8_t *content, size_t bytes,
                              const char *path, tern_error *err) {
    static const uint8_t png[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'}, jpeg[3] = {0xff, 0xd8, 0xff};
    if (bytes >= sizeof png && memcmp(content, png, sizeof png) == 0)
        return tern_png_decode(info, out, content, bytes, path, err);
    if (bytes >= sizeof jpeg && memcmp(content, jpeg, sizeof jpeg) == 0)
        return tern_jpeg_decode(info, out, content, bytes, path, err);
    return tern_fail(err, TERN_E_DATA, 0, "%s: byte 0: begins neither as PNG nor as JPEG", tern_path_tail(path));
}

tern_status tern_image_parse(tern_image_info *info, const uint8_t *content, size_t bytes, const char *path,
                             tern_error *err) {
    tern_image_info found = {0};
    TERN_TRY(decode_any(&found, NULL, content, bytes, path, err));
    if (found.height > TERN_IMAGE_MAX_SIDE || found.width > TERN_IMAGE_MAX_SIDE)
        return tern_fail(err, TERN_E_SIZE, TERN_NO_PLACE, "%s: %zu x %zu pixels; up to %d are read on each side",
                         tern_path_tail(path), found.height, found.width, TERN_IMAGE_MAX_SIDE);
    *info = found;
    return TERN_OK;
}

/* From one to three channels: backwards, so that it works in place. */
static void spread_gray(uint8_t *pixels, size_t count) {
    for (size_t i = count; i-- > 0;) {
        uint8_t v = pixels[i];
        pixels[3 * i] = pixels[3 * i + 1] = pixels[3 * i + 2] = v;
    }
}

static void mix_gray(uint8_t *gray, const uint8_t *rgb, size_t count) {
    for (size_t i = 0; i < count; i++)
        gray[i] = (uint8_t)((19595u * rgb[3 * i] + 38470u * rgb[3 * i + 1] + 7471u * rgb[3 * i + 2] + 32768u) >> 16);
}

tern_status tern_image_decode(uint8_t *out, size_t height, size_t width, size_t channels, const uint8_t *content,
                              size_t bytes, const char *path, tern_error *err) {
    tern_image_info info;
    TERN_TRY(tern_image_parse(&info, content, bytes, path, err));
    if (info.height != height || info.width != width)
        return tern_fail(err, TERN_E_SIZE, TERN_NO_PLACE,
                         "%s: is %zu x %zu (height x width), expected %zu x %zu; resize it first",
                         tern_path_tail(path), info.height, info.width, height, width);
    size_t pixels = height * width; /* at most 2^30 by the check above */
    if (info.channels <= channels) {
        TERN_TRY(decode_any(&info, out, content, bytes, path, err));
        if (info.channels < channels) spread_gray(out, pixels);
        return TERN_OK;
    }
    uint8_t *rgb = malloc(3 * pixels);
    if (!rgb)
        return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "%s: %zu bytes for its pixels", tern_path_tail(path),
                         3 * pixels);
    tern_status status = decode_any(&info, rgb, content, bytes, path, err);
    if (!status) mix_gray(out, rgb, pixels);
    free(rgb);
    return status;
}

tern_status tern_image_describe(tern_image_info *info, const char *path, tern_error *err) {
    TERN_CHECK_ARGUMENT(info, err, "info is NULL");
    TERN_CHECK_ARGUMENT(path, err, "path is NULL");
    tern_bytes content;
    TERN_TRY(tern_read_unpacked(&content, path, err));
    tern_status status = tern_image_parse(info, content.data, content.size, path, err);
    tern_bytes_free(&content);
    return status;
}

tern_status tern_image_read(const char *path, size_t height, size_t width, size_t channels, uint8_t *out,
                            tern_error *err) {
    TERN_CHECK_ARGUMENT(path, err, "path is NULL");
    TERN_CHECK_ARGUMENT(out, err, "out is NULL");
    TERN_CHECK_ARGUMENT(channels == 1 || channels == 3, err, "channels = %zu; an image has 1 or 3", channels);
    tern_bytes content;
    TERN_TRY(tern_read_unpacked(&content, path, err));
    tern_status status = tern_image_decode(out, height, width, channels, content.data, content.size, path, err);
    tern_bytes_free(&content);
    return status;
}
