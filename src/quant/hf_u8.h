/* The uint8 layout of Hugging Face "bitnet" checkpoints: four rows a byte, along the output dimension.
 *
 * A rows x cols matrix becomes R = ceil(rows / 4) packed rows of cols bytes; byte (r, c) holds column c of rows
 * r, R + r, 2R + r, 3R + r at bits 0, 2, 4, 6; code = trit + 1, 3 refused. Rows past the end are zero trits (code 1);
 * any of the three codes is accepted there. */
#ifndef TERN_QUANT_HF_U8_H
#define TERN_QUANT_HF_U8_H

#include <stddef.h>
#include <stdint.h>

void tern_hf_u8_encode(uint8_t *packed, const int8_t *trits, size_t rows, size_t cols);
void tern_hf_u8_decode(int8_t *trits, const uint8_t *packed, size_t rows, size_t cols);

/* Offset of the first byte with a code of 3; SIZE_MAX if there is none. */
size_t tern_hf_u8_first_fault(const uint8_t *packed, size_t bytes);

#endif
