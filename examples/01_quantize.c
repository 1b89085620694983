/* From floats to trits: quantize a small weight matrix with absmean, pack it, and look at what it costs.
 *
 *   cc 01_quantize.c $(pkg-config --cflags --libs tern) -o 01_quantize */
#include <stdio.h>

#include "tern/tern.h"

enum { ROWS = 3, COLS = 12 };

/* Every call says what went wrong in a status and, for people, in a message. */
static int failed(tern_status status, const tern_error *err) {
    if (status != TERN_OK) fprintf(stderr, "%s: %s\n", tern_status_text(status), err->message);
    return status != TERN_OK;
}

static int show_packing(tern_packing packing, const int8_t *trits, const float *scales) {
    tern_error err;
    size_t bytes = 0;
    uint8_t packed[64];

    /* Ask for the size first. Tern never allocates behind the back of a function that fills a buffer. */
    if (failed(tern_packed_bytes(&bytes, packing, ROWS, COLS, &err), &err)) return 1;
    if (bytes > sizeof packed) return 1;
    if (failed(tern_pack(packed, bytes, packing, trits, ROWS, COLS, &err), &err)) return 1;

    printf("%-8s %2zu bytes, %.2f bits per weight with its scale:", tern_packing_name(packing), bytes,
           tern_effective_bits_per_weight(bytes, sizeof *scales, ROWS, COLS));
    for (size_t i = 0; i < bytes; i++) printf(" %02x", packed[i]);
    printf("\n");

    /* The way back is exact, and refuses bytes that no trits pack to. */
    int8_t again[ROWS * COLS];
    if (failed(tern_unpack(again, packing, packed, bytes, ROWS, COLS, &err), &err)) return 1;
    for (size_t i = 0; i < ROWS * COLS; i++) {
        if (again[i] != trits[i]) return 1;
    }
    return 0;
}

int main(void) {
    /* 3 rows (outputs) of 12 columns (inputs), row-major. */
    static const float weights[ROWS * COLS] = {
        0.31f,  -0.02f, 0.75f, -0.66f, 0.10f, 0.04f,  -0.51f, 0.43f,  0.00f,  0.58f,  -0.37f, 0.12f,
        -0.45f, 0.62f,  0.08f, 0.01f,  0.39f, -0.70f, 0.27f,  -0.05f, 0.48f,  -0.33f, 0.06f,  0.55f,
        0.03f,  0.49f,  -0.2f, 0.81f,  -0.4f, 0.07f,  0.36f,  -0.64f, -0.09f, 0.11f,  0.52f,  -0.29f,
    };
    int8_t trits[ROWS * COLS]; /* -1, 0 or +1 */
    float scale;               /* weight is nearly trit * scale */
    tern_error err;

    /* The scale is the mean |w|; a weight becomes the nearest of -scale, 0 and +scale. */
    if (failed(tern_quantize_absmean(trits, &scale, weights, ROWS, COLS, TERN_MEAN, TERN_PER_TENSOR, &err), &err)) {
        return 1;
    }
    for (size_t r = 0; r < ROWS; r++) {
        for (size_t c = 0; c < COLS; c++) printf("%3d", trits[r * COLS + c]);
        printf("\n");
    }
    printf("scale %.4f, %.0f %% zeros\n", (double)scale, 100 * tern_sparsity(trits, ROWS, COLS));

    /* Two bits a trit decode fastest, five trits a byte are smallest; floats would take 32 bits. */
    for (int packing = 0; packing < TERN_PACK_COUNT; packing++) {
        if (show_packing((tern_packing)packing, trits, &scale)) return 1;
    }
    return 0;
}
