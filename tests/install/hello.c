/* The smallest user of an installed Tern: (1, -1, 0, 1) times (1, 2, 3, 4) is 3. */
#include <stdio.h>
#include <tern/tern.h>

int main(void) {
    const int8_t trits[4] = {1, -1, 0, 1};
    const float x[4] = {1, 2, 3, 4}, scale = 1;
    uint8_t packed[1];
    if (tern_pack(packed, sizeof packed, TERN_PACK_T2, trits, 1, 4, NULL)) return 1;
    tern_matrix_desc desc = {.rows = 1, .cols = 4, .packing = TERN_PACK_T2, .packed = packed, .packed_bytes = 1};
    desc.scale_kind = TERN_SCALE_TENSOR, desc.scales = &scale, desc.scale_count = 1;
    tern_matrix *w = NULL;
    float y = 0;
    tern_status status = tern_matrix_create(&w, &desc, NULL);
    if (!status) status = tern_matmul_quantized(&y, w, x, NULL, 1, NULL, NULL);
    tern_matrix_free(&w);
    printf("tern %s: %.2f\n", tern_version(), (double)y);
    return status != TERN_OK || !(y > 2.9f && y < 3.1f);
}
