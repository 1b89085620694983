#include "nn/arena.h"

#include <stdint.h>
#include <stdlib.h>

#include "base/checked.h"

static int larger_first(const void *a, const void *b) {
    const tern_span *x = *(tern_span *const *)a, *y = *(tern_span *const *)b;
    if (x->bytes != y->bytes) return x->bytes > y->bytes ? -1 : 1;
    return x < y ? -1 : x > y; /* a total order: the same plan from every sort */
}

static int by_offset(const void *a, const void *b) {
    const tern_span *x = *(tern_span *const *)a, *y = *(tern_span *const *)b;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* The lowest offset at which `span` fits between the `placed` blocks that are alive with it. */
static size_t lowest_gap(const tern_span *span, tern_span *const *placed, size_t count, tern_span **alive) {
    size_t n = 0;
    for (size_t i = 0; i < count; i++)
        if (placed[i]->first <= span->last && span->first <= placed[i]->last) alive[n++] = placed[i];
    qsort(alive, n, sizeof *alive, by_offset);
    size_t offset = 0;
    for (size_t i = 0; i < n; i++) {
        if (alive[i]->offset >= offset + span->bytes) break;
        offset = tern_max_size(offset, alive[i]->offset + alive[i]->bytes);
    }
    return offset;
}

size_t tern_arena_plan(tern_span *span, size_t count) {
    tern_span **order = malloc(2 * (count + 1) * sizeof(tern_span *));
    if (!order) return SIZE_MAX;
    for (size_t i = 0; i < count; i++) {
        span[i].bytes = tern_round_up(span[i].bytes, 64);
        order[i] = &span[i];
    }
    qsort(order, count, sizeof *order, larger_first);
    size_t total = 0;
    for (size_t i = 0; i < count; i++) {
        order[i]->offset = lowest_gap(order[i], order, i, order + count);
        total = tern_max_size(total, order[i]->offset + order[i]->bytes);
    }
    free(order);
    return total;
}
