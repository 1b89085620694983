#include "quant/block_layouts.h"

#include <string.h>

static const unsigned power[5] = {1, 3, 9, 27, 81};

/* ---- places ---------------------------------------------------------------------------------------------------- */

/* `count` elements over `bytes` bytes from `first` on, element i in byte i % bytes, most significant digit first. */
static tern_code_place stage(size_t i, size_t first, size_t bytes) {
    return (tern_code_place){first + i % bytes, 4 - (unsigned)(i / bytes)};
}

static tern_code_place place_tq1_0(size_t e) {
    return e < 160 ? stage(e, 0, 32) : e < 240 ? stage(e - 160, 32, 16) : stage(e - 240, 48, 4);
}

static tern_code_place place_ptq1_0(size_t e) {
    return e < 80 ? stage(e, 0, 16) : e < 120 ? stage(e - 80, 16, 8) : stage(e - 120, 24, 2);
}

/* Groups of 16: fifteen in three bytes, the sixteenth of every group in the last byte; least significant first. */
static tern_code_place place_iq1_bn(size_t e) {
    const size_t group = e / 16, i = e % 16;
    return i == 15 ? (tern_code_place){12, (unsigned)group} : (tern_code_place){3 * group + i / 5, (unsigned)(i % 5)};
}

static tern_code_place place_tq2_0(size_t e) {
    return (tern_code_place){e / 128 * 32 + e % 32, (unsigned)(e % 128 / 32 * 2)};
}

static tern_code_place place_q2_0(size_t e) { return (tern_code_place){e / 4, (unsigned)(e % 4 * 2)}; }

static tern_code_place place_iq2_bn(size_t e) { return (tern_code_place){e % 16, (unsigned)(e / 16 * 2)}; }

static tern_code_place place_i2_s(size_t e) { return (tern_code_place){e % 32, 6 - (unsigned)(e / 32 * 2)}; }

static tern_code_place place_i2_s_arm(size_t e) { return (tern_code_place){e % 16, 6 - (unsigned)(e / 16 * 2)}; }

/* ---- the table ------------------------------------------------------------------------------------------------- */

static const tern_block_layout layouts[TERN_BLOCK_COUNT] = {
    [TERN_BLOCK_TQ1_0] = {{"TQ1_0", 256, 256, 1}, 52, TERN_CODES_BASE3, TERN_SCALE_BLOCK_LAST, place_tq1_0},
    [TERN_BLOCK_TQ2_0] = {{"TQ2_0", 256, 256, 1}, 64, TERN_CODES_2BIT, TERN_SCALE_BLOCK_LAST, place_tq2_0},
    [TERN_BLOCK_Q2_0] = {{"Q2_0", 64, 64, 1}, 16, TERN_CODES_2BIT, TERN_SCALE_BLOCK_FIRST, place_q2_0},
    [TERN_BLOCK_PQ2_0] = {{"PQ2_0", 128, 128, 1}, 32, TERN_CODES_2BIT, TERN_SCALE_BLOCK_FIRST, place_q2_0},
    [TERN_BLOCK_PTQ1_0] = {{"PTQ1_0", 128, 128, 1}, 26, TERN_CODES_BASE3, TERN_SCALE_BLOCK_LAST, place_ptq1_0},
    [TERN_BLOCK_IQ1_BN] = {{"IQ1_BN", 64, 0, 1}, 13, TERN_CODES_BASE3, TERN_SCALE_ROW_HALF, place_iq1_bn},
    [TERN_BLOCK_IQ2_BN] = {{"IQ2_BN", 64, 0, 1}, 16, TERN_CODES_2BIT, TERN_SCALE_ROW_FLOAT, place_iq2_bn},
    [TERN_BLOCK_I2_S] = {{"I2_S", 128, SIZE_MAX, 1}, 32, TERN_CODES_2BIT, TERN_SCALE_TENSOR_END, place_i2_s},
    [TERN_BLOCK_I2_S_ARM] =
        {{"I2_S_ARM", 64, SIZE_MAX, 1}, 16, TERN_CODES_2BIT, TERN_SCALE_TENSOR_END, place_i2_s_arm},
    [TERN_BLOCK_HF_U8] = {{"HF_U8", 1, SIZE_MAX, 0}, 0, TERN_CODES_2BIT, TERN_SCALE_NONE, NULL},
};

const tern_block_layout *tern_block_layout_of(tern_block_format format) { return &layouts[format]; }

const tern_block_info *tern_block_format_info(tern_block_format format) {
    return (unsigned)format < TERN_BLOCK_COUNT ? &layouts[format].info : NULL;
}

/* ---- codes ----------------------------------------------------------------------------------------------------- */

void tern_block_encode_codes(uint8_t *bytes, const tern_block_layout *layout, const uint8_t *codes) {
    unsigned value[TERN_MAX_CODE_BYTES] = {0};
    for (size_t e = 0; e < layout->info.block; e++) {
        const tern_code_place p = layout->place(e);
        value[p.byte] +=
            layout->base == TERN_CODES_2BIT ? (unsigned)codes[e] << p.position : codes[e] * power[p.position];
    }
    for (size_t b = 0; b < layout->code_bytes; b++)
        bytes[b] = (uint8_t)(layout->base == TERN_CODES_2BIT ? value[b] : (256 * value[b] + 242) / 243);
}

static uint8_t read_code(const tern_block_layout *layout, const uint8_t *bytes, size_t element) {
    const tern_code_place p = layout->place(element);
    if (layout->base == TERN_CODES_2BIT) return bytes[p.byte] >> p.position & 3;
    return (uint8_t)(bytes[p.byte] * 243u / 256 / power[p.position] % 3);
}

/* A byte is right when the codes read from it give it back: that also refuses base-3 bytes that stand for no number,
 * and digits that must be zero. */
size_t tern_block_decode_codes(uint8_t *codes, const tern_block_layout *layout, const uint8_t *bytes) {
    uint8_t again[TERN_MAX_CODE_BYTES];
    size_t fault = SIZE_MAX;
    for (size_t e = 0; e < layout->info.block; e++) {
        codes[e] = read_code(layout, bytes, e);
        if (codes[e] == 3 && layout->place(e).byte < fault) fault = layout->place(e).byte;
    }
    tern_block_encode_codes(again, layout, codes);
    for (size_t b = 0; b < layout->code_bytes; b++)
        if (again[b] != bytes[b] && b < fault) fault = b;
    return fault;
}
