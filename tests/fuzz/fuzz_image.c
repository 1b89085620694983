/* PNG and JPEG: the header says what the pixels then are, and no content reads or writes outside. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "io/image_decode.h"

enum { MAX_PIXELS = 1 << 16 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void decode(const tern_image_info *info, size_t channels, const uint8_t *content, size_t bytes) {
    uint8_t *out = malloc(info->height * info->width * channels);
    tern_error err = {0};
    if (!out) abort();
    tern_status status = tern_image_decode(out, info->height, info->width, channels, content, bytes, "x", &err);
    if (status && err.status != status) abort();
    if (err.place != TERN_NO_PLACE && err.place > bytes) abort();
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t *copy = malloc(size ? size : 1);
    if (!copy) abort();
    memcpy(copy, data, size);
    tern_image_info info;
    tern_error err = {0};
    tern_status status = tern_image_parse(&info, copy, size, "x", &err);
    if (status && err.status != status) abort();
    if (!status) {
        if (info.channels != 1 && info.channels != 3) abort();
        if (info.height * info.width <= MAX_PIXELS)
            for (size_t channels = 1; channels <= 3; channels += 2) decode(&info, channels, copy, size);
        if (tern_image_decode(NULL, info.height + 1, info.width, 1, copy, size, "x", NULL) != TERN_E_SIZE) abort();
    }
    free(copy);
    return 0;
}
