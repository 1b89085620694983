/* Places blocks that live for a span of time into one arena, so that blocks whose spans do not overlap may share
 * memory. */
#ifndef TERN_NN_ARENA_H
#define TERN_NN_ARENA_H

#include <stddef.h>

typedef struct tern_span {
    size_t bytes;
    size_t first, last; /* times, both included */
    size_t offset;      /* out: a multiple of 64 */
} tern_span;

/* First fit, largest block first. Returns the bytes of the arena; SIZE_MAX when there is no memory to plan in. */
size_t tern_arena_plan(tern_span *span, size_t count);

#endif
