#include "nn/loss.h"

#include <math.h>
#include <string.h>

#include "base/clones.h"
#include "base/error.h"
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

/* What one batch asks of every row. */
typedef struct components {
    float ce, entropy, z;    /* factors of the components in the total */
    float smoothing, factor; /* factor: of the gradients, over the number of rows */
} components;

/* Gradients of L and of p x behind those of the cross-entropy: grad += (z 2 L - entropy (x - sum p x)) p. */
static double row_extras(float *grad, const float *x, size_t n, const components *k) {
    float largest = x[0];
    for (size_t j = 1; j < n; j++) largest = x[j] > largest ? x[j] : largest;
    double sum = (double)sum_of_exponentials(x, n, largest), log_sum = (double)largest + log(sum), mean = 0;
    for (size_t j = 0; j < n; j++) mean += (double)tern_exp(x[j] - largest) * (double)x[j];
    mean /= sum;
    for (size_t j = 0; grad && j < n; j++) {
        double p = (double)tern_exp(x[j] - largest) / sum;
        double slope = (double)k->z * 2 * log_sum - (double)k->entropy * ((double)x[j] - mean);
        grad[j] += (float)((double)k->factor * slope * p);
    }
    return (double)k->entropy * (log_sum - mean) + (double)k->z * log_sum * log_sum;
}

static double row_total(float *grad, const float *x, int32_t label, size_t n, const components *k, size_t *correct) {
    float *ce_grad = k->ce != 0 ? grad : NULL;
    double ce = row_loss(ce_grad, x, label, n, k->smoothing, k->factor * k->ce, correct);
    if (grad && !ce_grad) memset(grad, 0, n * sizeof *grad);
    double total = k->ce != 0 ? (double)k->ce * ce : 0;
    return k->entropy != 0 || k->z != 0 ? total + row_extras(grad, x, n, k) : total;
}

static tern_loss all_rows(int threads, float *grad, const float *logits, const int32_t *label, size_t rows,
                          size_t classes, const components *k) {
    double sums[LOSS_PARTS] = {0};
    size_t corrects[LOSS_PARTS] = {0};
    size_t length = tern_max_size(1, tern_ceil_div(rows, LOSS_PARTS));
    TERN_FOR_PARTS(threads, rows, length, begin, end)
    for (size_t row = begin; row < end; row++)
        sums[begin / length] += row_total(grad ? grad + row * classes : NULL, logits + row * classes, label[row],
                                          classes, k, &corrects[begin / length]);
    tern_loss loss = {.rows = rows};
    for (size_t p = 0; p < LOSS_PARTS; p++) {
        loss.sum += sums[p];
        loss.correct += corrects[p];
    }
    return loss;
}

tern_status tern_loss_weights_check(const tern_loss_weights *w, tern_error *err) {
    const int most = TERN_LOSS_WEIGHT_MAX, weight[] = {w->ce, w->entropy, w->z};
    static const char *const name[] = {"loss_ce", "loss_entropy", "loss_z"};
    for (int i = 0; i < 3; i++)
        TERN_CHECK_ARGUMENT(weight[i] >= -most && weight[i] <= most, err, "%s is %d; %d to %d are possible", name[i],
                            weight[i], -most, most);
    TERN_CHECK_ARGUMENT(w->ce || w->entropy || w->z, err,
                        "loss_ce, loss_entropy and loss_z are all 0: there is nothing to train on");
    TERN_CHECK_ARGUMENT(w->shift >= 0 && w->shift <= TERN_LOSS_SHIFT_MAX, err,
                        "loss_shift is %d; 0 to %d are possible", w->shift, TERN_LOSS_SHIFT_MAX);
    return TERN_OK;
}

tern_loss tern_weighted_loss(int threads, float *grad, const float *logits, const int32_t *label, size_t rows,
                             size_t classes, float smoothing, const tern_loss_weights *w, float factor) {
    components k = {.ce = ldexpf((float)w->ce, -w->shift),
                    .entropy = ldexpf((float)w->entropy, -w->shift),
                    .z = ldexpf((float)w->z, -w->shift),
                    .smoothing = smoothing,
                    .factor = factor / (float)tern_max_size(1, rows)};
    return all_rows(threads, grad, logits, label, rows, classes, &k);
}

tern_loss tern_cross_entropy(int threads, float *grad, const float *logits, const int32_t *label, size_t rows,
                             size_t classes, float smoothing, float factor) {
    const tern_loss_weights plain = {.ce = 1};
    return tern_weighted_loss(threads, grad, logits, label, rows, classes, smoothing, &plain, factor);
}
