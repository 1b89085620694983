/* idx files, as MNIST has them: 00 00 08 (bytes) and the number of dimensions, then each dimension as a big-endian
 * uint32, then the bytes, the last dimension running fastest. */
#ifndef TERN_IO_IDX_H
#define TERN_IO_IDX_H

#include <stddef.h>
#include <stdint.h>

#include "tern/status.h"

enum { TERN_IDX_MAX_DIMENSIONS = 3 };

typedef struct tern_idx {
    size_t dimensions[TERN_IDX_MAX_DIMENSIONS];
    const uint8_t *data; /* into the content that was parsed */
} tern_idx;

/* `count` dimensions are wanted, 1 to 3. The content must be as long as they say, no shorter and no longer, and no
 * dimension may be 0. */
tern_status tern_idx_parse(tern_idx *out, size_t count, const uint8_t *content, size_t bytes, const char *path,
                           tern_error *err);

#endif
