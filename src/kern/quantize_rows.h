/* The vector versions of the activation quantizers (quant/activations.h holds the scalar ones). Each is there only
 * where its processor family is the target. */
#ifndef TERN_KERN_QUANTIZE_ROWS_H
#define TERN_KERN_QUANTIZE_ROWS_H

#include <stddef.h>
#include <stdint.h>

float tern_quantize_row_avx2(int8_t *q, const float *x, size_t cols);
float tern_quantize_row_rmsnorm_avx2(int8_t *q, const float *x, const float *gain, float epsilon, size_t cols);

float tern_quantize_row_avx512(int8_t *q, const float *x, size_t cols);
float tern_quantize_row_rmsnorm_avx512(int8_t *q, const float *x, const float *gain, float epsilon, size_t cols);

float tern_quantize_row_neon(int8_t *q, const float *x, size_t cols);
float tern_quantize_row_rmsnorm_neon(int8_t *q, const float *x, const float *gain, float epsilon, size_t cols);

#endif
