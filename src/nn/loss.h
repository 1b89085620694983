/* Softmax cross-entropy with label smoothing (Szegedy et al., arXiv:1512.00567): the target is 1 - smoothing on the
 * label plus smoothing / classes on every class. */
#ifndef TERN_NN_LOSS_H
#define TERN_NN_LOSS_H

#include <stddef.h>
#include <stdint.h>

typedef struct tern_loss {
    double sum;     /* of the rows' losses, nats */
    size_t correct; /* rows whose largest logit, the first of equals, is the label's */
    size_t rows;
} tern_loss;

/* logits: [rows][classes]; label: [rows], each below `classes`. grad: [rows][classes] = d(mean loss over rows) /
 * d(logits) * factor, or NULL. Rows are cut by their number alone, and sums are taken in order. */
tern_loss tern_cross_entropy(int threads, float *grad, const float *logits, const int32_t *label, size_t rows,
                             size_t classes, float smoothing, float factor);

#endif
