#include "nn/orthogonal.h"

#include <math.h>

#include "base/clones.h"
#include "nn/dense.h"
#include "nn/parts.h"

/* The work is on the side that is shorter: x [a][b], a <= b, and two a x a products. */
size_t tern_orthogonal_floats(size_t rows, size_t columns) {
    size_t a = tern_min_size(rows, columns);
    return tern_round_up(rows * columns, 16) + 2 * tern_round_up(a * a, 16);
}

static void transpose(float *to, const float *from, size_t rows, size_t columns) {
    for (size_t i = 0; i < rows; i += 16)
        for (size_t j = 0; j < columns; j += 16)
            for (size_t r = i; r < tern_min_size(i + 16, rows); r++)
                for (size_t c = j; c < tern_min_size(j + 16, columns); c++) to[c * rows + r] = from[r * columns + c];
}

static void multiply(tern_dnn *dnn, float *c, const float *a, const float *b, size_t m, size_t n, size_t k,
                     int transpose_b) {
    tern_gemm g = {.transpose_b = transpose_b,
                   .m = m,
                   .n = n,
                   .k = k,
                   .a = a,
                   .lda = k,
                   .b = b,
                   .ldb = transpose_b ? k : n,
                   .c = c,
                   .ldc = n};
    tern_dnn_gemm(dnn, &g);
}

/* x = x * a + y * b. */
TERN_CLONES static void blend(float *restrict x, const float *restrict y, size_t n, float a, float b) {
    for (size_t i = 0; i < n; i++) x[i] = x[i] * a + y[i] * b;
}

/* x [a][b], a <= b: x = c0 x + (c1 s + c2 s^2) x, s = x x^T, from norm 1. next: [a][b]; s: two of [a][a]. */
static void newton_schulz(tern_dnn *dnn, int threads, float *x, float *next, float *s, size_t a, size_t b,
                          int steps) {
    float *s2 = s + tern_round_up(a * a, 16);
    float inverse = (float)(1.0 / (sqrt(tern_sum_of_squares(threads, x, a * b)) + 1e-7));
    TERN_FOR_PARTS(threads, a * b, TERN_PART, begin, end)
    for (size_t i = begin; i < end; i++) x[i] *= inverse;
    for (int step = 0; step < steps; step++) {
        multiply(dnn, s, x, x, a, a, b, 1);
        multiply(dnn, s2, s, s, a, a, a, 0);
        TERN_FOR_PARTS(threads, a * a, TERN_PART, begin, end)
        blend(s + begin, s2 + begin, end - begin, -4.7750f, 2.0315f);
        multiply(dnn, next, s, x, a, b, a, 0);
        TERN_FOR_PARTS(threads, a * b, TERN_PART, begin, end)
        blend(x + begin, next + begin, end - begin, 3.4445f, 1);
    }
}

void tern_orthogonalise(tern_dnn *dnn, int threads, float *x, float *room, size_t rows, size_t columns, int steps) {
    float *s = room + tern_round_up(rows * columns, 16);
    if (rows <= columns) {
        newton_schulz(dnn, threads, x, room, s, rows, columns, steps);
        return;
    }
    transpose(room, x, rows, columns);
    newton_schulz(dnn, threads, room, x, s, columns, rows, steps);
    transpose(x, room, columns, rows);
}
