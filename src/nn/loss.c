#include "nn/loss.h"

#include <math.h>

#include "base/clones.h"
#include "nn/parts.h"
#include "nn/vector_math.h"

enum { LOSS_PARTS = 64 };

/* to[j] = e^(x[j] - largest); returns the sum of them. */
TERN_CLONES static float exponentials(float *restrict to, const float *restrict x, size_t n, float largest) {
    float lane[16] = {0}, sum = 0;
    for (size_t j = 0; j < n; j++) {
        to[j] = tern_exp(x[j] - largest);
        lane[j % 16] += to[j];
    }
    for (size_t l = 0; l < 16; l++) sum += lane[l];
    return sum;
}

static float sum_of_exponentials(const float *x, size_t n, float largest) {
    float chunk[256], sum = 0;
    for (size_t j = 0; j < n; j += 256) sum += exponentials(chunk, x + j, tern_min_size(256, n - j), largest);
    return sum;
}

/* One row; its gradient, if any, holds the exponentials on the way. */
static double row_loss(float *grad, const float *x, int32_t label, size_t n, float smoothing, float factor,
                       size_t *correct) {
    size_t best = 0;
    double mean = 0;
    for (size_t j = 1; j < n; j++)
        if (x[j] > x[best]) best = j;
    if (smoothing > 0) {
        for (size_t j = 0; j < n; j++) mean += (double)x[j];
        mean /= (double)n;
    }
    *correct += best == (size_t)label;
    float sum = grad ? exponentials(grad, x, n, x[best]) : sum_of_exponentials(x, n, x[best]);
    if (grad) {
        float scale = factor / sum, rest = factor * smoothing / (float)n;
        for (size_t j = 0; j < n; j++) grad[j] = grad[j] * scale - rest;
        grad[label] -= factor * (1 - smoothing);
    }
    double target = (1 - (double)smoothing) * (double)x[label] + (double)smoothing * mean;
    return (double)x[best] + log((double)sum) - target;
}

tern_loss tern_cross_entropy(int threads, float *grad, const float *logits, const int32_t *label, size_t rows,
                             size_t classes, float smoothing, float factor) {
    double sums[LOSS_PARTS] = {0};
    size_t corrects[LOSS_PARTS] = {0};
    size_t length = tern_max_size(1, tern_ceil_div(rows, LOSS_PARTS));
    float each = factor / (float)tern_max_size(1, rows);
    TERN_FOR_PARTS(threads, rows, length, begin, end)
    for (size_t row = begin; row < end; row++)
        sums[begin / length] += row_loss(grad ? grad + row * classes : NULL, logits + row * classes, label[row],
                                         classes, smoothing, each, &corrects[begin / length]);
    tern_loss loss = {.rows = rows};
    for (size_t p = 0; p < LOSS_PARTS; p++) {
        loss.sum += sums[p];
        loss.correct += corrects[p];
    }
    return loss;
}
