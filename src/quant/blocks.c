/* The public functions of tern/pack.h for blocks of other projects. Everything is checked before anything is written:
 * both directions walk the tensor twice. */
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/half.h"
#include "quant/block_layouts.h"
#include "quant/hf_u8.h"
#include "quant/shape_checks.h"

enum { TENSOR_TRAILER = 32 }; /* a float and 28 zero bytes */

/* A tensor's sizes, all checked. */
typedef struct tensor {
    const tern_block_layout *layout;
    tern_block_format format;
    size_t rows, cols;
    size_t blocks, head, stride; /* blocks a row, bytes before a row's first block, bytes of a row */
    size_t block_bytes;          /* with a scale of its own */
    size_t bytes, scales;
} tensor;

static size_t scale_bytes(tern_scale_place place) {
    return place == TERN_SCALE_BLOCK_FIRST || place == TERN_SCALE_BLOCK_LAST ? 2 : 0;
}

static size_t row_head(tern_scale_place place) {
    return place == TERN_SCALE_ROW_HALF ? 2 : place == TERN_SCALE_ROW_FLOAT ? 4 : 0;
}

static size_t scale_count(const tensor *t) {
    switch (t->layout->scale) {
    case TERN_SCALE_NONE: return 0;
    case TERN_SCALE_TENSOR_END: return 1;
    case TERN_SCALE_ROW_HALF:
    case TERN_SCALE_ROW_FLOAT: return t->rows;
    default: return t->rows * t->blocks;
    }
}

static tern_status describe(tensor *t, tern_block_format format, size_t rows, size_t cols, tern_error *err) {
    size_t count;
    TERN_CHECK_ARGUMENT((unsigned)format < TERN_BLOCK_COUNT, err, "format = %d is none", (int)format);
    TERN_TRY(tern_check_shape(&count, rows, cols, err));
    const tern_block_layout *layout = tern_block_layout_of(format);
    TERN_CHECK_ARGUMENT(cols % layout->info.block == 0, err, "cols = %zu is no multiple of the %zu of a %s block",
                        cols, layout->info.block, layout->info.name);
    *t = (tensor){.layout = layout, .format = format, .rows = rows, .cols = cols};
    if (format == TERN_BLOCK_HF_U8) {
        t->bytes = tern_ceil_div(rows, 4) * cols;
        return TERN_OK;
    }
    t->blocks = cols / layout->info.block;
    t->block_bytes = layout->code_bytes + scale_bytes(layout->scale);
    t->head = row_head(layout->scale);
    t->stride = t->head + t->blocks * t->block_bytes;
    const size_t trailer = layout->scale == TERN_SCALE_TENSOR_END ? TENSOR_TRAILER : 0;
    if (!tern_checked_mul(&t->bytes, rows, t->stride) || !tern_checked_add(&t->bytes, t->bytes, trailer))
        return tern_fail(err, TERN_E_SIZE, TERN_NO_PLACE, "rows = %zu of %zu bytes overflow", rows, t->stride);
    t->scales = scale_count(t);
    return TERN_OK;
}

tern_status tern_block_bytes(size_t *bytes, size_t *scales, tern_block_format format, size_t rows, size_t cols,
                             tern_error *err) {
    tensor t;
    TERN_TRY(describe(&t, format, rows, cols, err));
    if (bytes) *bytes = t.bytes;
    if (scales) *scales = t.scales;
    return TERN_OK;
}

/* ---- places in the bytes --------------------------------------------------------------------------------------- */

static size_t block_offset(const tensor *t, size_t row, size_t block) {
    return row * t->stride + t->head + block * t->block_bytes;
}

static size_t codes_offset(const tensor *t, size_t row, size_t block) {
    return block_offset(t, row, block) + (t->layout->scale == TERN_SCALE_BLOCK_FIRST ? 2 : 0);
}

static int scale_is_float(const tensor *t) {
    return t->layout->scale == TERN_SCALE_ROW_FLOAT || t->layout->scale == TERN_SCALE_TENSOR_END;
}

static size_t scale_offset(const tensor *t, size_t i) {
    switch (t->layout->scale) {
    case TERN_SCALE_TENSOR_END: return t->bytes - TENSOR_TRAILER;
    case TERN_SCALE_ROW_HALF:
    case TERN_SCALE_ROW_FLOAT: return i * t->stride;
    default:
        return block_offset(t, i / t->blocks, i % t->blocks) +
               (t->layout->scale == TERN_SCALE_BLOCK_LAST ? t->layout->code_bytes : 0);
    }
}

/* Files are little-endian, and so is every machine that Tern runs on. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "scales are read as they lie");

static float read_scale(const tensor *t, const uint8_t *packed, size_t i) {
    uint16_t half;
    float single;
    memcpy(&half, packed + scale_offset(t, i), sizeof half);
    if (!scale_is_float(t)) return tern_f16_to_f32(half);
    memcpy(&single, packed + scale_offset(t, i), sizeof single);
    return single;
}

static void write_scale(const tensor *t, uint8_t *packed, size_t i, float scale) {
    uint16_t half = tern_f32_to_f16(scale);
    if (scale_is_float(t))
        memcpy(packed + scale_offset(t, i), &scale, sizeof scale);
    else
        memcpy(packed + scale_offset(t, i), &half, sizeof half);
}

/* ---- decode ---------------------------------------------------------------------------------------------------- */

static tern_status check_scales(const tensor *t, const uint8_t *packed, tern_error *err) {
    for (size_t i = 0; i < t->scales; i++) {
        float scale = read_scale(t, packed, i);
        if (!tern_f32_is_finite(scale) || scale < 0)
            return tern_fail(err, TERN_E_DATA, scale_offset(t, i),
                             "scale %zu at byte %zu is %g: it must be finite and not negative", i, scale_offset(t, i),
                             (double)scale);
    }
    if (t->layout->scale != TERN_SCALE_TENSOR_END) return TERN_OK;
    for (size_t b = t->bytes - TENSOR_TRAILER + 4; b < t->bytes; b++)
        if (packed[b]) return tern_fail(err, TERN_E_DATA, b, "byte %zu after the scale is not zero", b);
    return TERN_OK;
}

static tern_status bad_code(size_t place, uint8_t byte, const char *name, tern_error *err) {
    return tern_fail(err, TERN_E_DATA, place, "byte %zu is 0x%02x, which stands for no trits in %s", place, byte,
                     name);
}

static tern_status check_codes(const tensor *t, const uint8_t *packed, tern_error *err) {
    uint8_t codes[TERN_MAX_BLOCK];
    if (t->format == TERN_BLOCK_HF_U8) {
        size_t fault = tern_hf_u8_first_fault(packed, t->bytes);
        return fault == SIZE_MAX ? TERN_OK : bad_code(fault, packed[fault], "HF_U8", err);
    }
    for (size_t r = 0; r < t->rows; r++)
        for (size_t b = 0; b < t->blocks; b++) {
            const size_t at = codes_offset(t, r, b), fault = tern_block_decode_codes(codes, t->layout, packed + at);
            if (fault != SIZE_MAX) return bad_code(at + fault, packed[at + fault], t->layout->info.name, err);
        }
    return TERN_OK;
}

static tern_status check_packed_size(const tensor *t, size_t packed_bytes, tern_error *err) {
    if (packed_bytes < t->bytes)
        return tern_fail(err, TERN_E_SIZE, TERN_NO_PLACE, "packed_bytes = %zu: a %zu x %zu %s tensor takes %zu",
                         packed_bytes, t->rows, t->cols, t->layout->info.name, t->bytes);
    return TERN_OK;
}

tern_status tern_block_decode(int8_t *trits, float *scales, tern_block_format format, const uint8_t *packed,
                              size_t packed_bytes, size_t rows, size_t cols, tern_error *err) {
    tensor t;
    uint8_t codes[TERN_MAX_BLOCK];
    TERN_CHECK_ARGUMENT(trits, err, "trits is NULL");
    TERN_CHECK_ARGUMENT(packed, err, "packed is NULL");
    TERN_TRY(describe(&t, format, rows, cols, err));
    TERN_TRY(check_packed_size(&t, packed_bytes, err));
    TERN_TRY(check_scales(&t, packed, err));
    TERN_TRY(check_codes(&t, packed, err));
    if (format == TERN_BLOCK_HF_U8) tern_hf_u8_decode(trits, packed, rows, cols);
    for (size_t r = 0; r < rows; r++)
        for (size_t b = 0; b < t.blocks; b++) {
            tern_block_decode_codes(codes, t.layout, packed + codes_offset(&t, r, b));
            int8_t *to = trits + r * cols + b * t.layout->info.block;
            for (size_t e = 0; e < t.layout->info.block; e++) to[e] = (int8_t)(codes[e] - 1);
        }
    for (size_t i = 0; scales && i < t.scales; i++) scales[i] = read_scale(&t, packed, i);
    return TERN_OK;
}

/* ---- encode ---------------------------------------------------------------------------------------------------- */

static tern_status check_given_scales(const tensor *t, const float *scales, tern_error *err) {
    for (size_t i = 0; i < t->scales; i++) {
        if (!tern_f32_is_finite(scales[i]) || scales[i] < 0)
            return tern_fail(err, TERN_E_DATA, i, "scales[%zu] = %g: a scale must be finite and not negative", i,
                             (double)scales[i]);
        if (!scale_is_float(t) && !tern_f32_is_finite(tern_f16_to_f32(tern_f32_to_f16(scales[i]))))
            return tern_fail(err, TERN_E_DATA, i, "scales[%zu] = %g does not fit the half float of %s", i,
                             (double)scales[i], t->layout->info.name);
    }
    return TERN_OK;
}

tern_status tern_block_encode(uint8_t *packed, size_t packed_bytes, tern_block_format format, const int8_t *trits,
                              const float *scales, size_t rows, size_t cols, tern_error *err) {
    tensor t;
    uint8_t codes[TERN_MAX_BLOCK];
    TERN_CHECK_ARGUMENT(packed, err, "packed is NULL");
    TERN_CHECK_ARGUMENT(trits, err, "trits is NULL");
    TERN_TRY(describe(&t, format, rows, cols, err));
    TERN_CHECK_ARGUMENT(scales || !t.scales, err, "scales is NULL, but %s stores %zu", t.layout->info.name, t.scales);
    TERN_TRY(check_packed_size(&t, packed_bytes, err));
    TERN_TRY(tern_check_trits(trits, rows * cols, err));
    TERN_TRY(check_given_scales(&t, scales, err));
    memset(packed, 0, t.bytes);
    if (format == TERN_BLOCK_HF_U8) tern_hf_u8_encode(packed, trits, rows, cols);
    for (size_t r = 0; r < rows; r++)
        for (size_t b = 0; b < t.blocks; b++) {
            const int8_t *from = trits + r * cols + b * t.layout->info.block;
            for (size_t e = 0; e < t.layout->info.block; e++) codes[e] = (uint8_t)(from[e] + 1);
            tern_block_encode_codes(packed + codes_offset(&t, r, b), t.layout, codes);
        }
    for (size_t i = 0; i < t.scales; i++) write_scale(&t, packed, i, scales[i]);
    return TERN_OK;
}
