/* Packings: golden vectors, round trips, exhaustive bytes, and every refusal. */
#include <zlib.h>

#include "base/random.h"
#include "tern/pack.h"
#include "testing.h"

enum { POISON = 0x5a };

/* ---- golden vectors -------------------------------------------------------------------------------------------- */

static void golden_trits(int8_t trits[256]) {
    uint32_t s = 12345;
    for (int i = 0; i < 256; i++) {
        s = (s * 1103515245u + 12345u) & 0x7fffffffu;
        trits[i] = (int8_t)((int)((s >> 16) % 3) - 1);
    }
}

typedef struct golden {
    tern_block_format format;
    size_t rows, cols, bytes;
    unsigned long crc;
    uint8_t first[8];
} golden;

static const golden goldens[] = {
    {TERN_BLOCK_TQ1_0, 1, 256, 54, 0xee35fe64, {0x2b, 0x96, 0x60, 0x2f, 0x65, 0x81, 0x8d, 0xdb}},
    {TERN_BLOCK_TQ2_0, 1, 256, 66, 0x7f677708, {0x54, 0x89, 0x11, 0x94, 0x51, 0x55, 0xa5, 0x26}},
    {TERN_BLOCK_Q2_0, 1, 256, 72, 0x2669c6c3, {0x00, 0x38, 0x14, 0x95, 0x51, 0x42, 0x09, 0xa5}},
    {TERN_BLOCK_PQ2_0, 1, 256, 68, 0x2bb55b3c, {0x00, 0x38, 0x14, 0x95, 0x51, 0x42, 0x09, 0xa5}},
    {TERN_BLOCK_PTQ1_0, 1, 256, 56, 0xed5f8455, {0x2b, 0xa8, 0x5d, 0x0b, 0x73, 0x80, 0xa1, 0xf6}},
    {TERN_BLOCK_IQ1_BN, 1, 256, 54, 0x6970c8df, {0x00, 0x38, 0x62, 0x34, 0x18, 0x5d, 0xa9, 0xcc}},
    {TERN_BLOCK_IQ2_BN, 1, 256, 68, 0x526430c6, {0x00, 0x00, 0x00, 0x3f, 0x54, 0xa9, 0x81, 0x10}},
    {TERN_BLOCK_I2_S, 1, 256, 96, 0x88d7c979, {0x15, 0x62, 0x44, 0x16, 0x45, 0x55, 0x5a, 0x98}},
    {TERN_BLOCK_I2_S_ARM, 1, 256, 96, 0x2a2a5ad1, {0x15, 0x6a, 0x42, 0x04, 0x50, 0x55, 0x66, 0xa6}},
    {TERN_BLOCK_HF_U8, 8, 32, 64, 0xe877b017, {0x94, 0x91, 0x55, 0x24, 0xa5, 0xa5, 0x59, 0x0a}},
};

static void test_golden_blocks(void **state) {
    (void)state;
    int8_t trits[256], decoded[256];
    float half[16], read[16];
    golden_trits(trits);
    for (int i = 0; i < 16; i++) half[i] = 0.5f;
    for (size_t g = 0; g < sizeof goldens / sizeof *goldens; g++) {
        const golden *v = &goldens[g];
        uint8_t packed[96];
        size_t bytes = 0, scales = 0;
        assert_int_equal(tern_block_bytes(&bytes, &scales, v->format, v->rows, v->cols, NULL), TERN_OK);
        assert_int_equal(bytes, v->bytes);
        assert_int_equal(tern_block_encode(packed, bytes, v->format, trits, half, v->rows, v->cols, NULL), TERN_OK);
        assert_memory_equal(packed, v->first, sizeof v->first);
        assert_int_equal(crc32(0, packed, (unsigned)bytes), v->crc);
        memset(decoded, POISON, sizeof decoded);
        assert_int_equal(tern_block_decode(decoded, read, v->format, packed, bytes, v->rows, v->cols, NULL), TERN_OK);
        assert_memory_equal(decoded, trits, sizeof trits);
        for (size_t i = 0; i < scales; i++) assert_true(read[i] == 0.5f);
    }
}

/* The two packed rows of the format's own worked example. */
static void test_hf_example(void **state) {
    (void)state;
    static const uint8_t packed[] = {0xa1, 0x18, 0x90, 0x0a};
    static const int8_t column0[] = {0, -1, -1, -1, 1, 0, 1, 1}, column1[] = {-1, 1, 1, 1, 0, -1, -1, -1};
    int8_t trits[16];
    assert_int_equal(tern_block_decode(trits, NULL, TERN_BLOCK_HF_U8, packed, 4, 8, 2, NULL), TERN_OK);
    for (int r = 0; r < 8; r++) {
        assert_int_equal(trits[2 * r], column0[r]);
        assert_int_equal(trits[2 * r + 1], column1[r]);
    }
}

/* ---- t2 and t5 ------------------------------------------------------------------------------------------------- */

/* The bit diagrams, spelled out again. */
static int naive_trit(tern_packing packing, const uint8_t *packed, size_t r, size_t c, size_t cols) {
    static const int of_code[] = {0, 1, -1, 99};
    if (packing == TERN_PACK_T2) return of_code[packed[r * ((cols + 3) / 4) + c / 4] >> 2 * (c % 4) & 3];
    size_t i = packing == TERN_PACK_T5_FLAT ? r * cols + c : c;
    unsigned value = packed[(packing == TERN_PACK_T5_FLAT ? 0 : r * ((cols + 4) / 5)) + i / 5];
    for (size_t j = 0; j < i % 5; j++) value /= 3;
    return (int)(value % 3) - 1;
}

static void round_trip(tern_packing packing, size_t rows, size_t cols) {
    int8_t *trits = malloc(rows * cols), *again = malloc(rows * cols);
    size_t bytes = 0;
    assert_int_equal(tern_packed_bytes(&bytes, packing, rows, cols, NULL), TERN_OK);
    uint8_t *packed = malloc(bytes);
    for (size_t i = 0; i < rows * cols; i++) trits[i] = tern_random_trit(rows, i);
    assert_int_equal(tern_pack(packed, bytes, packing, trits, rows, cols, NULL), TERN_OK);
    assert_int_equal(tern_validate(packing, packed, bytes, rows, cols, NULL), TERN_OK);
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < cols; c++)
            assert_int_equal(naive_trit(packing, packed, r, c, cols), trits[r * cols + c]);
    assert_int_equal(tern_unpack(again, packing, packed, bytes, rows, cols, NULL), TERN_OK);
    assert_memory_equal(again, trits, rows * cols);
    free(packed);
    free(again);
    free(trits);
}

static void test_round_trips(void **state) {
    (void)state;
    for (int p = 0; p < TERN_PACK_COUNT; p++)
        for (size_t rows = 1; rows <= 7; rows += 2)
            for (size_t cols = 1; cols <= 67; cols++) round_trip((tern_packing)p, rows, cols);
}

static void test_known_bytes(void **state) {
    (void)state;
    static const int8_t trits[] = {0, 1, -1, 0, 1, -1};
    uint8_t packed[4];
    assert_int_equal(tern_pack(packed, 2, TERN_PACK_T2, trits, 1, 6, NULL), TERN_OK);
    assert_int_equal(packed[0], 0x24); /* 00 10 01 00 */
    assert_int_equal(packed[1], 0x09); /* 00 00 10 01 */
    assert_int_equal(tern_pack(packed, 2, TERN_PACK_T5, trits, 1, 6, NULL), TERN_OK);
    assert_int_equal(packed[0], 1 + 3 * 2 + 9 * 0 + 27 * 1 + 81 * 2);
    assert_int_equal(packed[1], 0 + 3 * 1 + 9 * 1 + 27 * 1 + 81 * 1);
    assert_int_equal(tern_pack(packed, 2, TERN_PACK_T5_FLAT, trits, 2, 3, NULL), TERN_OK);
    assert_int_equal(packed[0], 1 + 3 * 2 + 9 * 0 + 27 * 1 + 81 * 2);
}

static void test_every_byte(void **state) {
    (void)state;
    for (unsigned b = 0; b < 256; b++) {
        uint8_t byte = (uint8_t)b;
        int reserved2 = 0;
        for (int i = 0; i < 4; i++) reserved2 |= (b >> 2 * i & 3) == 3;
        assert_int_equal(tern_validate(TERN_PACK_T2, &byte, 1, 1, 4, NULL), reserved2 ? TERN_E_DATA : TERN_OK);
        assert_int_equal(tern_validate(TERN_PACK_T5, &byte, 1, 1, 5, NULL), b > 242 ? TERN_E_DATA : TERN_OK);
        assert_int_equal(tern_validate(TERN_PACK_T2, &byte, 1, 1, 3, NULL),
                         reserved2 || b > 63 ? TERN_E_DATA : TERN_OK);
        assert_int_equal(tern_validate(TERN_PACK_T5, &byte, 1, 1, 4, NULL),
                         b > 242 || b / 81 != 1 ? TERN_E_DATA : TERN_OK);
    }
}

/* ---- refusals -------------------------------------------------------------------------------------------------- */

/* A failure says so, names the place, and leaves the output alone. */
static void refused(tern_status got, tern_status want, const tern_error *err, uint64_t place, const void *output,
                    size_t bytes) {
    assert_int_equal(got, want);
    assert_int_equal(err->status, want);
    assert_int_equal(err->place, place);
    assert_true(err->message[0]);
    for (size_t i = 0; i < bytes; i++) assert_int_equal(((const uint8_t *)output)[i], POISON);
}

static void test_bad_packings(void **state) {
    (void)state;
    tern_error err;
    int8_t trits[20], out[20];
    uint8_t packed[8], good[8];
    size_t bytes = 7;
    memset(trits, 0, sizeof trits);
    memset(out, POISON, sizeof out);
    memset(packed, POISON, sizeof packed);
    for (int p = 0; p < TERN_PACK_COUNT; p++) {
        const tern_packing packing = (tern_packing)p;
        size_t need = 0;
        tern_packed_bytes(&need, packing, 2, 10, NULL);
        refused(tern_pack(NULL, 8, packing, trits, 2, 10, &err), TERN_E_ARGUMENT, &err, TERN_NO_PLACE, NULL, 0);
        refused(tern_pack(packed, 8, packing, NULL, 2, 10, &err), TERN_E_ARGUMENT, &err, TERN_NO_PLACE, packed, 8);
        refused(tern_pack(packed, need - 1, packing, trits, 2, 10, &err), TERN_E_SIZE, &err, TERN_NO_PLACE, packed,
                8);
        refused(tern_pack(packed, 8, packing, trits, SIZE_MAX / 2, 3, &err), TERN_E_SIZE, &err, TERN_NO_PLACE, packed,
                8);
        trits[13] = 2;
        refused(tern_pack(packed, 8, packing, trits, 2, 10, &err), TERN_E_DATA, &err, 13, packed, 8);
        trits[13] = 0;
        assert_int_equal(tern_pack(good, 8, packing, trits, 2, 10, NULL), TERN_OK);
        good[need - 1] = 0xff;
        refused(tern_unpack(out, packing, good, need, 2, 10, &err), TERN_E_DATA, &err, need - 1, out, sizeof out);
        refused(tern_unpack(out, packing, good, need - 1, 2, 10, &err), TERN_E_SIZE, &err, TERN_NO_PLACE, out,
                sizeof out);
        refused(tern_unpack(NULL, packing, good, need, 2, 10, &err), TERN_E_ARGUMENT, &err, TERN_NO_PLACE, NULL, 0);
        refused(tern_unpack(out, packing, NULL, need, 2, 10, &err), TERN_E_ARGUMENT, &err, TERN_NO_PLACE, out,
                sizeof out);
    }
    refused(tern_packed_bytes(&bytes, (tern_packing)9, 1, 1, &err), TERN_E_ARGUMENT, &err, TERN_NO_PLACE, NULL, 0);
    refused(tern_packed_bytes(NULL, TERN_PACK_T2, 1, 1, &err), TERN_E_ARGUMENT, &err, TERN_NO_PLACE, NULL, 0);
    assert_int_equal(bytes, 7);
    assert_null(tern_packing_name((tern_packing)-1));
    assert_string_equal(tern_packing_name(TERN_PACK_T5_FLAT), "t5-flat");
}

static size_t scale_place(tern_block_format format) {
    switch (format) {
    case TERN_BLOCK_TQ1_0: return 52;
    case TERN_BLOCK_TQ2_0: return 64;
    case TERN_BLOCK_PTQ1_0: return 26;
    case TERN_BLOCK_I2_S:
    case TERN_BLOCK_I2_S_ARM: return 64;
    default: return 0;
    }
}

static void test_bad_blocks(void **state) {
    (void)state;
    tern_error err;
    int8_t trits[256] = {0}, out[256];
    float scales[16] = {0}, nan_scales[16], big[16];
    for (int i = 0; i < 16; i++) scales[i] = 1, nan_scales[i] = NAN, big[i] = 1e6f;
    memset(out, POISON, sizeof out);
    for (int f = 0; f < TERN_BLOCK_COUNT; f++) {
        const tern_block_format format = (tern_block_format)f;
        const tern_block_info *info = tern_block_format_info(format);
        uint8_t packed[256], poisoned[256];
        size_t bytes = 0;
        memset(poisoned, POISON, sizeof poisoned);
        tern_block_bytes(&bytes, NULL, format, 1, 256, NULL);
        if (info->block > 1)
            refused(tern_block_encode(poisoned, 128, format, trits, scales, 1, info->block + 1, &err),
                    TERN_E_ARGUMENT, &err, TERN_NO_PLACE, poisoned, 128);
        refused(tern_block_encode(poisoned, bytes - 1, format, trits, scales, 1, 256, &err), TERN_E_SIZE, &err,
                TERN_NO_PLACE, poisoned, 128);
        refused(tern_block_encode(poisoned, 128, format, NULL, scales, 1, 256, &err), TERN_E_ARGUMENT, &err,
                TERN_NO_PLACE, poisoned, 128);
        trits[200] = -2;
        refused(tern_block_encode(poisoned, bytes, format, trits, scales, 1, 256, &err), TERN_E_DATA, &err, 200,
                poisoned, 128);
        trits[200] = 0;
        assert_int_equal(tern_block_bytes(&bytes, NULL, format, SIZE_MAX / 256, 256, &err), TERN_E_SIZE);
        tern_block_bytes(&bytes, NULL, format, 1, 256, NULL);
        if (format == TERN_BLOCK_HF_U8) continue; /* 256 bytes a row, no scale: its codes are tested below */
        refused(tern_block_encode(poisoned, 128, format, trits, NULL, 1, 256, &err), TERN_E_ARGUMENT, &err,
                TERN_NO_PLACE, poisoned, 128);
        refused(tern_block_encode(poisoned, 128, format, trits, nan_scales, 1, 256, &err), TERN_E_DATA, &err, 0,
                poisoned, 128);
        const int is_float =
            format == TERN_BLOCK_IQ2_BN || format == TERN_BLOCK_I2_S || format == TERN_BLOCK_I2_S_ARM;
        if (!is_float)
            refused(tern_block_encode(poisoned, 128, format, trits, big, 1, 256, &err), TERN_E_DATA, &err, 0,
                    poisoned, 128);
        assert_int_equal(tern_block_encode(packed, bytes, format, trits, scales, 1, 256, NULL), TERN_OK);
        refused(tern_block_decode(out, NULL, format, packed, bytes - 1, 1, 256, &err), TERN_E_SIZE, &err,
                TERN_NO_PLACE, out, sizeof out);
        const size_t sign = scale_place(format) + (is_float ? 3 : 1);
        packed[sign] ^= 0x80;
        refused(tern_block_decode(out, NULL, format, packed, bytes, 1, 256, &err), TERN_E_DATA, &err,
                scale_place(format), out, sizeof out);
        packed[sign] ^= 0x80;
        const size_t code = format == TERN_BLOCK_IQ2_BN ? 7 : 3;
        const int base3 = format == TERN_BLOCK_TQ1_0 || format == TERN_BLOCK_PTQ1_0 || format == TERN_BLOCK_IQ1_BN;
        packed[code] = base3 ? 0x01 : 0xff; /* ceil(256 q / 243) is never 1; 0xff is four codes of 3 */
        refused(tern_block_decode(out, NULL, format, packed, bytes, 1, 256, &err), TERN_E_DATA, &err, code, out,
                sizeof out);
    }
    uint8_t hf[4] = {0x55, 0x55, 0x75, 0x55};
    refused(tern_block_decode(out, NULL, TERN_BLOCK_HF_U8, hf, 4, 4, 4, &err), TERN_E_DATA, &err, 2, out, sizeof out);
    assert_null(tern_block_format_info(TERN_BLOCK_COUNT));
}

static void test_trailer(void **state) {
    (void)state;
    tern_error err;
    int8_t trits[128] = {0};
    float scale = 2;
    uint8_t packed[64];
    assert_int_equal(tern_block_encode(packed, 64, TERN_BLOCK_I2_S, trits, &scale, 1, 128, NULL), TERN_OK);
    packed[50] = 1;
    assert_int_equal(tern_block_decode(trits, NULL, TERN_BLOCK_I2_S, packed, 64, 1, 128, &err), TERN_E_DATA);
    assert_int_equal(err.place, 50);
}

static void test_block_round_trips(void **state) {
    (void)state;
    enum { ROWS = 5, COLS = 768 };
    static int8_t trits[ROWS * COLS], again[ROWS * COLS];
    static float scales[ROWS * COLS], read[ROWS * COLS];
    for (size_t i = 0; i < ROWS * COLS; i++) {
        trits[i] = tern_random_trit(7, i);
        scales[i] = (float)(1 + i % 100) / 64; /* exact in half */
    }
    for (int f = 0; f < TERN_BLOCK_COUNT; f++) {
        size_t bytes = 0, count = 0;
        assert_int_equal(tern_block_bytes(&bytes, &count, (tern_block_format)f, ROWS, COLS, NULL), TERN_OK);
        uint8_t *packed = malloc(bytes);
        assert_int_equal(tern_block_encode(packed, bytes, (tern_block_format)f, trits, scales, ROWS, COLS, NULL), 0);
        assert_int_equal(tern_block_decode(again, read, (tern_block_format)f, packed, bytes, ROWS, COLS, NULL), 0);
        assert_memory_equal(again, trits, sizeof trits);
        assert_memory_equal(read, scales, count * sizeof *read);
        free(packed);
    }
}

static void test_bits_per_weight(void **state) {
    (void)state;
    assert_true(tern_effective_bits_per_weight(16, 0, 8, 8) == 2.0);
    assert_true(tern_effective_bits_per_weight(64, 4, 1, 256) == 2.125);
    assert_true(tern_effective_bits_per_weight(64, 4, 0, 256) == 0.0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_blocks),     cmocka_unit_test(test_hf_example),
        cmocka_unit_test(test_round_trips),       cmocka_unit_test(test_known_bytes),
        cmocka_unit_test(test_every_byte),        cmocka_unit_test(test_bad_packings),
        cmocka_unit_test(test_bad_blocks),        cmocka_unit_test(test_trailer),
        cmocka_unit_test(test_block_round_trips), cmocka_unit_test(test_bits_per_weight),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
