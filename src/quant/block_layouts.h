/* Where each trit of a foreign block lies. Code = trit + 1 throughout. Byte layouts: docs/formats.md. */
#ifndef TERN_QUANT_BLOCK_LAYOUTS_H
#define TERN_QUANT_BLOCK_LAYOUTS_H

#include <stddef.h>
#include <stdint.h>

#include "tern/pack.h"

/* How codes share a byte. */
typedef enum tern_code_base {
    TERN_CODES_2BIT, /* place.position = shift */
    TERN_CODES_BASE3 /* place.position = power of three; the byte is ceil(256 q / 243) of the number q */
} tern_code_base;

typedef enum tern_scale_place {
    TERN_SCALE_NONE,
    TERN_SCALE_BLOCK_FIRST, /* half, before a block's codes */
    TERN_SCALE_BLOCK_LAST,  /* half, after them */
    TERN_SCALE_ROW_HALF,    /* before a row */
    TERN_SCALE_ROW_FLOAT,
    TERN_SCALE_TENSOR_END /* float after all codes, then 28 zero bytes */
} tern_scale_place;

typedef struct tern_code_place {
    size_t byte;
    unsigned position;
} tern_code_place;

typedef struct tern_block_layout {
    tern_block_info info;
    size_t code_bytes; /* of a block, scale apart */
    tern_code_base base;
    tern_scale_place scale;
    tern_code_place (*place)(size_t element);
} tern_block_layout;

enum { TERN_MAX_BLOCK = 256, TERN_MAX_CODE_BYTES = 64 };

/* Not for TERN_BLOCK_HF_U8, whose bytes run along the output dimension. */
const tern_block_layout *tern_block_layout_of(tern_block_format format);

/* One block's codes (0, 1, 2) to bytes and back. Decoding returns the offset of the first byte that no codes give,
 * SIZE_MAX if all are right. */
void tern_block_encode_codes(uint8_t *bytes, const tern_block_layout *layout, const uint8_t *codes);
size_t tern_block_decode_codes(uint8_t *codes, const tern_block_layout *layout, const uint8_t *bytes);

#endif
