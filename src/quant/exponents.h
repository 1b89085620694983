/* Powers of two nearest to a scale. */
#ifndef TERN_QUANT_EXPONENTS_H
#define TERN_QUANT_EXPONENTS_H

#include <stdint.h>

/* clamp(round(log2(mean)), -128, 127), exactly; 0 for a mean of 0. */
int8_t tern_rounded_log2(double mean);

#endif
