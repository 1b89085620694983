#include "nn/orthogonal.h"

#include <math.h>

#include "base/clones.h"
#include "nn/dense.h"
#include "nn/parts.h"

/* The work is on the side that is shorter: x [a][b], a <= b, and two a x a products; with bf16 an operand of each
 * shape besides. */
size_t tern_orthogonal_floats(size_t rows, size_t columns, tern_dtype products) {
    size_t a = tern_min_size(rows, columns), wide = tern_round_up(rows * columns, 16),
           square = tern_round_up(a * a, 16);
    return wide + 2 * square + (products == TERN_BF16 ? (wide + square) / 2 : 0);
}

static void transpose(float *to, const float *from, size_t rows, size_t columns) {
    for (size_t i = 0; i < rows; i += 16)
        for (size_t j = 0; j < columns; j += 16)
            for (size_t r = i; r < tern_min_size(i + 16, rows); r++)
                for (size_t c = j; c < tern_min_size(j + 16, columns); c++) to[c * rows + r] = from[r * columns + c];
}

/* c [m][n] = a [m][k] b, b [k][n] or, transposed, [n][k]. */
static void multiply(const tern_newton *t, float *c, const void *a, const void *b, size_t m, size_t n, size_t k,
                     int transpose_b) {
    tern_gemm g = {.dtype = t->products,
                   .transpose_b = transpose_b,
                   .m = m,
                   .n = n,
                   .k = k,
                   .a = a,
                   .lda = k,
                   .b = b,
                   .ldb = transpose_b ? k : n,
                   .c = c,
                   .ldc = n};
    tern_dnn_gemm(t->dnn, &g);
}

/* `x` as operand: itself, or rounded into `room`. */
static const void *operand(const tern_newton *t, void *room, const float *x, size_t n) {
    if (t->products != TERN_BF16) return x;
    tern_bf16_from_f32(t->threads, room, x, n);
    return room;
}

/* x = x * a + y * b. */
TERN_CLONES static void blend_into(float *restrict x, const float *restrict y, size_t n, float a, float b) {
    for (size_t i = 0; i < n; i++) x[i] = x[i] * a + y[i] * b;
}

/* x [a][b], a <= b: x = c0 x + (c1 s + c2 s^2) x, s = x x^T, from norm 1. next: [a][b]; then two of [a][a], and the
 * operands in bf16. */
static void newton_schulz(const tern_newton *t, float *x, float *next, float *s, size_t a, size_t b) {
    float *s2 = s + tern_round_up(a * a, 16), *operands = s2 + tern_round_up(a * a, 16);
    void *x_room = operands, *s_room = operands + tern_round_up(a * b, 16) / 2;
    float inverse = (float)(1.0 / (sqrt(tern_sum_of_squares(t->threads, x, a * b)) + 1e-7));
    TERN_FOR_PARTS(t->threads, a * b, TERN_PART, begin, end)
    for (size_t i = begin; i < end; i++) x[i] *= inverse;
    for (int step = 0; step < t->steps; step++) {
        const void *x_operand = operand(t, x_room, x, a * b);
        multiply(t, s, x_operand, x_operand, a, a, b, 1);
        const void *s_operand = operand(t, s_room, s, a * a);
        multiply(t, s2, s_operand, s_operand, a, a, a, 0);
        TERN_FOR_PARTS(t->threads, a * a, TERN_PART, begin, end)
        blend_into(s + begin, s2 + begin, end - begin, -4.7750f, 2.0315f);
        multiply(t, next, operand(t, s_room, s, a * a), x_operand, a, b, a, 0);
        TERN_FOR_PARTS(t->threads, a * b, TERN_PART, begin, end)
        blend_into(x + begin, next + begin, end - begin, 3.4445f, 1);
    }
}

void tern_orthogonalise(const tern_newton *t, float *x, float *room, size_t rows, size_t columns) {
    float *s = room + tern_round_up(rows * columns, 16);
    if (rows <= columns) {
        newton_schulz(t, x, room, s, rows, columns);
        return;
    }
    transpose(room, x, rows, columns);
    newton_schulz(t, room, x, s, columns, rows);
    transpose(x, room, columns, rows);
}
