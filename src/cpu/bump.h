/* One block of scratch, handed out piece by piece. With base NULL it only counts, so that the code that lays a block
 * out is also the code that says how large it is. */
#ifndef TERN_CPU_BUMP_H
#define TERN_CPU_BUMP_H

#include <stddef.h>
#include <stdint.h>

#include "base/checked.h"
#include "base/memory.h"

typedef struct tern_bump {
    uint8_t *base;
    size_t used;
    int overflow;
} tern_bump;

/* count * size bytes, 64-byte aligned. */
static inline void *tern_bump_take(tern_bump *bump, size_t count, size_t size) {
    size_t bytes = 0, end = 0;
    if (!tern_checked_mul(&bytes, count, size) || !tern_checked_add(&bytes, bytes, TERN_ALIGNMENT - 1) ||
        !tern_checked_add(&end, bump->used, bytes / TERN_ALIGNMENT * TERN_ALIGNMENT))
        bump->overflow = 1;
    void *piece = bump->base ? bump->base + bump->used : NULL;
    bump->used = bump->overflow ? bump->used : end;
    return piece;
}

#endif
