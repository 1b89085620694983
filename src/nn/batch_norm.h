/* Batch norm as a scale and a shift per channel. */
#ifndef TERN_NN_BATCH_NORM_H
#define TERN_NN_BATCH_NORM_H

#include <stddef.h>

/* scale = gain / sqrt(variance + epsilon), shift = bias - mean * scale, each rounded once. gain may be NULL for
 * ones. */
void tern_batch_norm_fold(float *scale, float *shift, const float *mean, const float *variance, const float *gain,
                          const float *bias, float epsilon, size_t channels);

#endif
