/* Depthwise ternary convolutions, one filter a channel: too small for packed panels, so from trits laid out by place.
 *
 *     int8 activations    y = float(sum q t) * (a * (1/s)) + b, the sums and roundings of tern_matmul_i8
 *     float activations   y = (sum x t) a + b, summed over the window's rows, in each from left to right */
#ifndef TERN_NN_DEPTHWISE_H
#define TERN_NN_DEPTHWISE_H

#include "nn/dnn.h"
#include "nn/plan.h"
#include "nn/ternary_weights.h"

typedef struct tern_depthwise {
    tern_conv_desc d;
    int int8;
    void *weights; /* [kernel * kernel][channels], int16 for int8 activations, else fp32; NULL: not in use */
    float *scales; /* [channels] */
} tern_depthwise;

/* Uses it where the node is such a convolution; else *out stays zero. w: prepared. A plan pinned to the scalar tier
 * goes the way of all convolutions, so that parity compares two. */
tern_status tern_depthwise_prepare(tern_depthwise *out, tern_plan *plan, size_t node, const tern_ternary_weights *w,
                                   int int8, tern_error *err);

/* After the trits and scales of latent weights have changed. */
void tern_depthwise_refresh(tern_depthwise *out, const tern_ternary_weights *w);

/* y[batch][oh][ow][channels]. inv_scale: one an image, for int8 activations. bias may be NULL. */
void tern_depthwise_run(const tern_depthwise *dw, int threads, float *y, const void *x, const float *inv_scale,
                        const float *bias, size_t batch);

/* The integers behind it. */
void tern_depthwise_sums(const tern_depthwise *dw, int threads, int32_t *sums, const int8_t *q, size_t batch);

#endif
