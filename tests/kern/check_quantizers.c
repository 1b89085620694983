/* The two quantizer slots: correctness is a comparison with scalar to the bit (check_quantize.c), so here they are
 * only named, and timed. */
#include "check_quantize.h"
#include "kern_test.h"

enum { COLUMNS = 2560 };

static void time_rows(kern_test *t) {
    float *x = fenced(COLUMNS * sizeof *x), sink = 0;
    int8_t *q = fenced(COLUMNS);
    draw_floats(t, x, COLUMNS);
    t->kernel = t->tier->quantize_row.name;
    CALL(t, COLUMNS, sink += t->tier->quantize_row.fn(q, x, COLUMNS));
    t->kernel = t->tier->quantize_row_rmsnorm.name;
    CALL(t, COLUMNS, sink += t->tier->quantize_row_rmsnorm.fn(q, x, NULL, 1e-5f, COLUMNS));
    if (sink == 0) fail_kernel(t, "the scales are zero");
    unfence(x, COLUMNS * sizeof *x);
    unfence(q, COLUMNS);
}

void check_quantizers(kern_test *t) {
    char message[256] = "";
    int wanted = begin_kernel(t, t->tier->quantize_row.name);
    wanted |= begin_kernel(t, t->tier->quantize_row_rmsnorm.name);
    if (!wanted) return;
    if (t->bench)
        time_rows(t);
    else if (tern_check_quantize(t->tier, tern_kernels_of(TERN_TIER_SCALAR), t->seed, message, sizeof message))
        fail_kernel(t, "%s", message);
}
