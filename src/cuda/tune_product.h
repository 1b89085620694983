/* Measures which kernel and variant is fastest for one product. */
#ifndef TERN_CUDA_TUNE_PRODUCT_H
#define TERN_CUDA_TUNE_PRODUCT_H

#include "cuda/device_matrix.h"

/* Every kernel and variant that fits, on copies of w that the L2 cache does not hold, with m rows of x_type. Nothing
 * is stored. The arguments have been checked. */
tern_status tern_tune_product(tern_device_tuned *tuned, const tern_device_matrix *w, tern_dtype x_type, size_t m,
                              tern_error *err);

#endif
