/* A layer: quantize random weights, make a ternary matrix, and compare y = x W^T with floats.
 *
 *   cc 02_matmul.c $(pkg-config --cflags --libs tern) -lm -o 02_matmul */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "tern/tern.h"

enum { TOKENS = 4, INPUTS = 512, OUTPUTS = 256 };

static int failed(tern_status status, const tern_error *err) {
    if (status != TERN_OK) fprintf(stderr, "%s: %s\n", tern_status_text(status), err->message);
    return status != TERN_OK;
}

/* Uniform in -1..1, the same in every run. */
static float noise(void) {
    static uint32_t state = 1;
    state = state * 1664525u + 1013904223u;
    return (float)(state >> 8) / 8388608.0f - 1.0f;
}

/* What the layer would compute in full precision with the weights that the trits stand for. */
static float float_product(const float *x, const float *w) {
    double sum = 0;
    for (size_t k = 0; k < INPUTS; k++) sum += (double)x[k] * (double)w[k];
    return (float)sum;
}

int main(void) {
    static float weights[OUTPUTS * INPUTS], x[TOKENS * INPUTS], y[TOKENS * OUTPUTS];
    static int8_t trits[OUTPUTS * INPUTS];
    static uint8_t packed[OUTPUTS * INPUTS / 4]; /* t2: four trits a byte */
    float scale;
    tern_error err;
    for (size_t i = 0; i < OUTPUTS * INPUTS; i++) weights[i] = noise();
    for (size_t i = 0; i < TOKENS * INPUTS; i++) x[i] = noise();

    if (failed(tern_quantize_absmean(trits, &scale, weights, OUTPUTS, INPUTS, TERN_MEAN, TERN_PER_TENSOR, &err),
               &err))
        return 1;
    if (failed(tern_pack(packed, sizeof packed, TERN_PACK_T2, trits, OUTPUTS, INPUTS, &err), &err)) return 1;

    /* Making the matrix checks the bytes and brings them into the layout of this machine's kernels. It keeps a copy:
     * packed and scale may go afterwards. What the description leaves zero means "choose for me". */
    const tern_matrix_desc desc = {.rows = OUTPUTS,
                                   .cols = INPUTS,
                                   .packing = TERN_PACK_T2,
                                   .packed = packed,
                                   .packed_bytes = sizeof packed,
                                   .scale_kind = TERN_SCALE_TENSOR,
                                   .scales = &scale,
                                   .scale_count = 1};
    tern_matrix *w = NULL;
    if (failed(tern_matrix_create(&w, &desc, &err), &err)) return 1;
    tern_matrix_info info;
    if (failed(tern_matrix_describe(&info, w, &err), &err)) return 1;
    printf("%d x %d on %s kernels: %zu bytes of trits, %zu as floats\n", OUTPUTS, INPUTS, tern_tier_name(info.tier),
           info.trit_bytes, sizeof weights);

    /* Quantizes each row of x to int8, sums exactly in integers, and scales back to floats. No bias; default
     * threads and scratch. */
    const tern_status status = tern_matmul_quantized(y, w, x, NULL, TOKENS, NULL, &err);
    tern_matrix_free(&w);
    if (failed(status, &err)) return 1;

    /* Against the same trits in floats only the int8 rounding of x is left to see. */
    if (failed(tern_dequantize(weights, trits, &scale, OUTPUTS, INPUTS, TERN_PER_TENSOR, &err), &err)) return 1;
    double error = 0, size = 0;
    for (size_t m = 0; m < TOKENS; m++) {
        for (size_t n = 0; n < OUTPUTS; n++) {
            const double exact = (double)float_product(x + m * INPUTS, weights + n * INPUTS);
            error += pow((double)y[m * OUTPUTS + n] - exact, 2);
            size += exact * exact;
        }
    }
    const double relative = sqrt(error / size);
    printf("first outputs %.3f %.3f %.3f; relative error against floats %.4f\n", (double)y[0], (double)y[1],
           (double)y[2], relative);
    return relative < 0.02 ? EXIT_SUCCESS : EXIT_FAILURE;
}
