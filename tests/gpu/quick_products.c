#include "quick_products.h"

/* The next bits, one for each of `count` kinds: that of `kind` is set. */
static void add(uint64_t *bits, int *at, int count, int kind) {
    *bits |= (uint64_t)1 << (*at + kind);
    *at += count;
}

/* Less than a tile, whole tiles, tiles and a rest. */
static int edge(size_t n, size_t tile) { return n < tile ? 0 : n % tile ? 2 : 1; }

/* Up to 1, 2, 4 .. 64 rows, and more. */
static int log2_rows(size_t m) {
    int log2 = 0;
    while (log2 < 7 && (size_t)1 << log2 < m) log2++;
    return log2;
}

static uint64_t kinds_of(const gpu_case *c) {
    uint64_t bits = 0;
    int at = 0;
    add(&bits, &at, 3, (int)c->scale_kind);
    add(&bits, &at, 3, (int)c->y_type);
    add(&bits, &at, 5, (int)c->activation);
    add(&bits, &at, 2, c->with_bias);
    add(&bits, &at, 2, c->with_residual);
    add(&bits, &at, 2, c->x_shift != 0);
    add(&bits, &at, 2, c->y_shift != 0);
    add(&bits, &at, 3, edge(c->rows, 16));  /* a tile of weights */
    add(&bits, &at, 3, edge(c->rows, 128)); /* a block of the kernels for many rows */
    add(&bits, &at, 3, edge(c->cols, 160)); /* of both packings, tile and rest */
    add(&bits, &at, 2, c->cols > 1024);     /* rings go round */
    add(&bits, &at, 8, log2_rows(c->m));
    add(&bits, &at, 2, c->m % 8 == 0);
    add(&bits, &at, 3, c->group % 32 == 0 ? 0 : c->group % 8 == 0 ? 1 : 2);
    return bits;
}

static uint64_t *met(quick_products *q, const gpu_case *c, tern_device_kernel kernel, int variant) {
    return &q->met[kernel][variant][c->x_type][c->packing == TERN_PACK_T5][c->scale_kind == TERN_SCALE_GROUP_EXP];
}

int quick_is_new(quick_products *q, const gpu_case *c, tern_device_kernel kernel, int variant) {
    return (kinds_of(c) & ~*met(q, c, kernel, variant)) != 0;
}

void quick_meet(quick_products *q, const gpu_case *c, tern_device_kernel kernel, int variant) {
    *met(q, c, kernel, variant) |= kinds_of(c);
}
