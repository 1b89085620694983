/* What a network is trained on: a sum of components of its logits x, weighted by signed whole numbers. p is the
 * softmax of a row's logits, L = log sum exp x; each component is a mean over rows.
 *
 *   ce       softmax cross-entropy L - sum target x with label smoothing (Szegedy et al., arXiv:1512.00567): the target
 *            is 1 - smoothing on the label plus smoothing / classes on every class.    gradient p - target
 *   entropy  H = L - sum p x, that of the prediction: a negative weight pushes towards confidence.   -p (x - sum p x)
 *   z        L^2: a positive weight keeps logits from drifting.                                      2 L p
 *
 *   total    (w_ce ce + w_entropy entropy + w_z z) / 2^shift
 *
 * A component of weight 0 is not computed: the result has the bits of a sum that does not know it. Factors are whole
 * numbers below 2^7 over a power of two, hence exact. */
#ifndef TERN_NN_LOSS_H
#define TERN_NN_LOSS_H

#include <stddef.h>
#include <stdint.h>

#include "tern/status.h"

typedef struct tern_loss {
    double sum;     /* of the rows' losses, nats */
    size_t correct; /* rows whose largest logit, the first of equals, is the label's */
    size_t rows;
} tern_loss;

/* logits: [rows][classes]; label: [rows], each below `classes`. grad: [rows][classes] = d(mean loss over rows) /
 * d(logits) * factor, or NULL. Rows are cut by their number alone, and sums are taken in order. */
tern_loss tern_cross_entropy(int threads, float *grad, const float *logits, const int32_t *label, size_t rows,
                             size_t classes, float smoothing, float factor);

enum { TERN_LOSS_WEIGHT_MAX = 127, TERN_LOSS_SHIFT_MAX = 30 };

typedef struct tern_loss_weights {
    int ce, entropy, z; /* -TERN_LOSS_WEIGHT_MAX .. TERN_LOSS_WEIGHT_MAX; not all 0 */
    int shift;          /* 0 .. TERN_LOSS_SHIFT_MAX */
} tern_loss_weights;

tern_status tern_loss_weights_check(const tern_loss_weights *weights, tern_error *err);

/* As tern_cross_entropy, of the total. */
tern_loss tern_weighted_loss(int threads, float *grad, const float *logits, const int32_t *label, size_t rows,
                             size_t classes, float smoothing, const tern_loss_weights *weights, float factor);

#endif
