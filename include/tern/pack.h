/* Packings of ternary matrices: Tern's own (t2, t5) and those of other projects.
 *
 * A trit is an int8_t of value -1, 0 or +1; matrices are row-major rows x cols. Buffers are the caller's and must not
 * overlap; `packed_bytes` is what the caller really has. Byte layouts: docs/formats.md.
 * On failure nothing is written; a reserved code is TERN_E_DATA with its byte offset as the place. */
#ifndef TERN_PACK_H
#define TERN_PACK_H

#include <stddef.h>
#include <stdint.h>

#include "tern/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tern_packing {
    TERN_PACK_T2 = 0,      /* 2 bits a trit: 00 = 0, 01 = +1, 10 = -1, 11 reserved; rows padded to a byte */
    TERN_PACK_T5 = 1,      /* base 3, 5 trits a byte, first trit least significant, each row starts on a byte */
    TERN_PACK_T5_FLAT = 2, /* the same, rows run on: trit r*cols + c stands at byte (r*cols + c) / 5 */
    TERN_PACK_COUNT
} tern_packing;

/* "t2", "t5", "t5-flat"; NULL for a value that is none. */
TERN_API const char *tern_packing_name(tern_packing packing);

/* Bytes that a rows x cols matrix takes, into *bytes. TERN_E_SIZE when it overflows. */
TERN_API tern_status tern_packed_bytes(size_t *bytes, tern_packing packing, size_t rows, size_t cols,
                                       tern_error *err);

/* trits[rows*cols] -> packed. A value outside -1..1 is TERN_E_DATA with its index as the place. */
TERN_API tern_status tern_pack(uint8_t *packed, size_t packed_bytes, tern_packing packing, const int8_t *trits,
                               size_t rows, size_t cols, tern_error *err);

/* packed -> trits[rows*cols]. Validates first: reserved codes, and padding that is not zero. */
TERN_API tern_status tern_unpack(int8_t *trits, tern_packing packing, const uint8_t *packed, size_t packed_bytes,
                                 size_t rows, size_t cols, tern_error *err);

TERN_API tern_status tern_validate(tern_packing packing, const uint8_t *packed, size_t packed_bytes, size_t rows,
                                   size_t cols, tern_error *err);

/* Bits per weight of a stored matrix, scales included: 8 * (packed_bytes + scale_bytes) / (rows * cols).
 * 0 for an empty matrix. */
TERN_API double tern_effective_bits_per_weight(size_t packed_bytes, size_t scale_bytes, size_t rows, size_t cols);

/* ---- blocks of other projects ---------------------------------------------------------------------------------- */

typedef enum tern_block_format {
    TERN_BLOCK_TQ1_0 = 0,    /* ggml: 256 trits in 54 bytes, half scale a block */
    TERN_BLOCK_TQ2_0 = 1,    /* ggml: 256 trits in 66 bytes, half scale a block */
    TERN_BLOCK_Q2_0 = 2,     /* llama.cpp: 64 trits in 18 bytes, half scale a block */
    TERN_BLOCK_PQ2_0 = 3,    /* the same with blocks of 128 in 34 bytes */
    TERN_BLOCK_PTQ1_0 = 4,   /* 128 trits in 28 bytes, half scale a block */
    TERN_BLOCK_IQ1_BN = 5,   /* ik_llama.cpp: a half scale a row, then 64 trits in 13 bytes */
    TERN_BLOCK_IQ2_BN = 6,   /* ik_llama.cpp: a float scale a row, then 64 trits in 16 bytes */
    TERN_BLOCK_I2_S = 7,     /* bitnet.cpp: 128 trits in 32 bytes, one float scale a tensor at its end */
    TERN_BLOCK_I2_S_ARM = 8, /* the same with blocks of 64 in 16 bytes, as bitnet.cpp's ARM builds write it */
    TERN_BLOCK_HF_U8 = 9,    /* Hugging Face "bitnet": 4 rows a byte along the output dimension; scales stand apart */
    TERN_BLOCK_COUNT
} tern_block_format;

typedef struct tern_block_info {
    const char *name; /* "TQ1_0", ... */
    size_t block;     /* columns per block; cols must be a multiple (1 for HF_U8) */
    size_t scales;    /* columns per scale: the block, 0 = one a row, SIZE_MAX = one a tensor or none */
    int stores_scale; /* 0 for HF_U8: the scale is another tensor */
} tern_block_info;

/* NULL for a value that is none. */
TERN_API const tern_block_info *tern_block_format_info(tern_block_format format);

/* Bytes of a rows x cols tensor, into *bytes, and the number of scales it carries, into *scales (either may be
 * NULL). */
TERN_API tern_status tern_block_bytes(size_t *bytes, size_t *scales, tern_block_format format, size_t rows,
                                      size_t cols, tern_error *err);

/* Decodes a tensor: trits[rows*cols] and its scales (as many as tern_block_bytes says, row-major by block; may be
 * NULL). A code that stands for no trit, a scale that is NaN, Inf or negative, or non-zero padding where the format
 * demands zeros is TERN_E_DATA with the byte offset as the place. */
TERN_API tern_status tern_block_decode(int8_t *trits, float *scales, tern_block_format format, const uint8_t *packed,
                                       size_t packed_bytes, size_t rows, size_t cols, tern_error *err);

/* Encodes a tensor from trits and scales. Half scales are rounded to nearest even; a scale that half cannot hold
 * (overflow) is TERN_E_DATA. scales may be NULL where the format stores none. */
TERN_API tern_status tern_block_encode(uint8_t *packed, size_t packed_bytes, tern_block_format format,
                                       const int8_t *trits, const float *scales, size_t rows, size_t cols,
                                       tern_error *err);

#ifdef __cplusplus
}
#endif
#endif
