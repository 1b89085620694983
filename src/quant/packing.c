/* The public functions of tern/pack.h for t2 and t5. A packing is a run of lines that are packed alone: its rows, or,
 * for the flat form, the whole matrix as one. */
#include "quant/packing.h"

#include "base/checked.h"
#include "base/error.h"
#include "quant/shape_checks.h"
#include "quant/t2.h"
#include "quant/t5.h"

typedef struct packing_row {
    const char *name;
    int flat;
    size_t (*line_bytes)(size_t count);
    void (*pack)(uint8_t *packed, const int8_t *trits, size_t count);
    void (*unpack)(int8_t *trits, const uint8_t *packed, size_t first, size_t count);
    size_t (*first_fault)(const uint8_t *packed, size_t count);
    const char *reserved; /* for messages */
} packing_row;

static void t2_unpack(int8_t *trits, const uint8_t *packed, size_t first, size_t count) {
    (void)first; /* t2 lines are rows: always from the start */
    tern_t2_unpack_row(trits, packed, count);
}

static const packing_row packings[TERN_PACK_COUNT] = {
    {"t2", 0, tern_t2_row_bytes, tern_t2_pack_row, t2_unpack, tern_t2_first_fault, "11"},
    {"t5", 0, tern_t5_bytes, tern_t5_pack, tern_t5_unpack, tern_t5_first_fault, "243 .. 255"},
    {"t5-flat", 1, tern_t5_bytes, tern_t5_pack, tern_t5_unpack, tern_t5_first_fault, "243 .. 255"},
};

/* A matrix as lines. */
typedef struct lines {
    const packing_row *p;
    size_t count, trits, bytes; /* lines; trits and bytes of one */
} lines;

static tern_status make_lines(lines *l, size_t *total_bytes, tern_packing packing, size_t rows, size_t cols,
                              tern_error *err) {
    size_t count = 0;
    TERN_CHECK_ARGUMENT((unsigned)packing < TERN_PACK_COUNT, err, "packing = %d is none", (int)packing);
    TERN_TRY(tern_check_shape(&count, rows, cols, err));
    l->p = &packings[packing];
    l->count = l->p->flat ? count != 0 : rows;
    l->trits = l->p->flat ? count : cols;
    l->bytes = l->p->line_bytes(l->trits);
    *total_bytes = l->count * l->bytes; /* fits: no more than one byte a trit */
    return TERN_OK;
}

const char *tern_packing_name(tern_packing packing) {
    return (unsigned)packing < TERN_PACK_COUNT ? packings[packing].name : NULL;
}

tern_status tern_packed_bytes(size_t *bytes, tern_packing packing, size_t rows, size_t cols, tern_error *err) {
    lines l;
    size_t total = 0;
    TERN_CHECK_ARGUMENT(bytes, err, "bytes is NULL");
    TERN_TRY(make_lines(&l, &total, packing, rows, cols, err));
    *bytes = total;
    return TERN_OK;
}

static tern_status check_buffer(lines *l, const uint8_t *packed, size_t packed_bytes, tern_packing packing,
                                size_t rows, size_t cols, tern_error *err) {
    size_t need = 0;
    TERN_CHECK_ARGUMENT(packed, err, "packed is NULL");
    TERN_TRY(make_lines(l, &need, packing, rows, cols, err));
    if (packed_bytes < need)
        return tern_fail(err, TERN_E_SIZE, TERN_NO_PLACE, "packed_bytes = %zu: a %zu x %zu %s matrix takes %zu",
                         packed_bytes, rows, cols, l->p->name, need);
    return TERN_OK;
}

tern_status tern_pack(uint8_t *packed, size_t packed_bytes, tern_packing packing, const int8_t *trits, size_t rows,
                      size_t cols, tern_error *err) {
    lines l;
    TERN_CHECK_ARGUMENT(trits, err, "trits is NULL");
    TERN_TRY(check_buffer(&l, packed, packed_bytes, packing, rows, cols, err));
    TERN_TRY(tern_check_trits(trits, l.count * l.trits, err));
    for (size_t i = 0; i < l.count; i++) l.p->pack(packed + i * l.bytes, trits + i * l.trits, l.trits);
    return TERN_OK;
}

static tern_status check_lines(const lines *l, const uint8_t *packed, tern_error *err) {
    for (size_t i = 0; i < l->count && l->trits; i++) {
        size_t fault = l->p->first_fault(packed + i * l->bytes, l->trits);
        if (fault != SIZE_MAX)
            return tern_fail(err, TERN_E_DATA, i * l->bytes + fault,
                             "byte %zu is %u: %s is reserved and padding must be zero trits", i * l->bytes + fault,
                             packed[i * l->bytes + fault], l->p->reserved);
    }
    return TERN_OK;
}

tern_status tern_validate(tern_packing packing, const uint8_t *packed, size_t packed_bytes, size_t rows, size_t cols,
                          tern_error *err) {
    lines l;
    TERN_TRY(check_buffer(&l, packed, packed_bytes, packing, rows, cols, err));
    return check_lines(&l, packed, err);
}

tern_status tern_unpack(int8_t *trits, tern_packing packing, const uint8_t *packed, size_t packed_bytes, size_t rows,
                        size_t cols, tern_error *err) {
    lines l;
    TERN_CHECK_ARGUMENT(trits, err, "trits is NULL");
    TERN_TRY(check_buffer(&l, packed, packed_bytes, packing, rows, cols, err));
    TERN_TRY(check_lines(&l, packed, err));
    for (size_t i = 0; i < l.count; i++) l.p->unpack(trits + i * l.trits, packed + i * l.bytes, 0, l.trits);
    return TERN_OK;
}

void tern_unpack_row(int8_t *trits, tern_packing packing, const uint8_t *packed, size_t row, size_t cols) {
    const packing_row *p = &packings[packing];
    if (p->flat)
        p->unpack(trits, packed, row * cols, cols);
    else
        p->unpack(trits, packed + row * p->line_bytes(cols), 0, cols);
}

double tern_effective_bits_per_weight(size_t packed_bytes, size_t scale_bytes, size_t rows, size_t cols) {
    double weights = (double)rows * (double)cols;
    return weights > 0 ? 8 * ((double)packed_bytes + (double)scale_bytes) / weights : 0;
}
