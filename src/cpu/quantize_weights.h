/* Absmean quantization with the kernels of a tier and threads. */
#ifndef TERN_CPU_QUANTIZE_WEIGHTS_H
#define TERN_CPU_QUANTIZE_WEIGHTS_H

#include "kern/kernels.h"
#include "quant/weights.h"

typedef struct tern_weights {
    const float *w;
    tern_slices slices;
    tern_center center;
    int8_t *trits; /* slices.n * slices.length */
    float *scales; /* slices.n */
} tern_weights;

/* Zero, and nothing written, when a weight is not finite. */
int tern_cpu_quantize_absmean(const tern_kernels *kernels, const tern_weights *weights, int threads);

#endif
