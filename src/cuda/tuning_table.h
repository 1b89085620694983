/* Which kernel was fastest for which product, as measured on one kind of device: a sorted table, and its text.
 *
 *     tern-tuning 1
 *     device NVIDIA H200
 *     capability 9.0
 *     multiprocessors 132
 *     version 0.1.0-3
 *     t2 2560 6912 i8 16 cuda-wgmma 10 7.912
 *
 * After the five lines that say what it holds for, one line a choice: packing (t2/64: with an exponent for each 64
 * columns of a row), rows and columns of the weights, type of the activations, the most rows of them (a power of two;
 * from more than half of it), kernel, variant, microseconds.
 * Empty lines and those that begin with # are comments. Whatever text comes in, only what has been checked is
 * kept. */
#ifndef TERN_CUDA_TUNING_TABLE_H
#define TERN_CUDA_TUNING_TABLE_H

#include "cuda/launch_shapes.h"

enum {
    TERN_TUNING_MAX_ROWS = 8192,     /* of a table */
    TERN_TUNING_MAX_BYTES = 1 << 20, /* of a text: more than that many lines take */
    TERN_TUNING_LINE_BYTES = 128     /* of a line at most */
};

/* What a table holds for: one kind of device, one version of the kernels. */
typedef struct tern_tuning_key {
    char name[64]; /* printable ASCII, no spaces at its ends */
    int major, minor, multiprocessors;
    char version[32];
} tern_tuning_key;

typedef struct tern_tuning_row {
    int32_t t5, rows, cols, group; /* of the weights; group 0: no exponents */
    tern_dtype x_type;
    uint32_t m_most; /* tern_tuning_bucket of the rows of activations */
    /* what was chosen for those */
    tern_device_kernel kernel;
    int variant;
    uint64_t nanoseconds;
    int measured_here; /* by this process: what the file does not have yet, or has from us */
} tern_tuning_row;

typedef struct tern_tuning_table {
    tern_tuning_row *rows; /* ascending by the six values above `kernel` */
    size_t count, room;
} tern_tuning_table;

/* From a device's description; characters of its name that would not stand in a line become '?'. */
void tern_tuning_key_of(tern_tuning_key *key, const tern_device_info *info, const char *version);

/* The power of two that m, at least 1, is rounded up to: 1, 2, 4 for 3 and 4, 8 for 5 to 8 ... 2^31. */
uint32_t tern_tuning_bucket(size_t m);

void tern_tuning_free(tern_tuning_table *table);

/* Adds a row or replaces the one for the same products. TERN_E_SIZE when the table is full. */
tern_status tern_tuning_put(tern_tuning_table *table, const tern_tuning_row *row, tern_error *err);

/* NULL where nothing was measured. */
const tern_tuning_row *tern_tuning_find(const tern_tuning_table *table, const tern_cuda_weights *w, tern_dtype x_type,
                                        size_t m);

/* The kernel and variant of the table for this product; 0 where it has none, or one that does not fit. */
int tern_tuning_choose(tern_device_kernel *kernel, int *variant, const tern_tuning_table *table,
                       const tern_cuda_limits *limits, const tern_cuda_weights *w,
                       const tern_device_product *product);

/* The same as a tern_cuda_measured has it: table is a tern_tuning_table. */
int tern_tuning_choose_by(tern_device_kernel *kernel, int *variant, const void *table, const tern_cuda_limits *limits,
                          const tern_cuda_weights *w, const tern_device_product *product);

/* Puts the rows of `size` bytes of text into the table. A text that is not for this key is TERN_E_DATA, and nothing
 * of it is taken; a line that is damaged is left out, *ignored counts those, and the first reason is in `why`, which
 * is left alone where there is none. */
tern_status tern_tuning_parse(tern_tuning_table *table, size_t *ignored, char *why, size_t why_bytes,
                              const tern_tuning_key *key, const char *text, size_t size, tern_error *err);

/* *text: *size bytes, to be freed with free(). */
tern_status tern_tuning_format(char **text, size_t *size, const tern_tuning_table *table, const tern_tuning_key *key,
                               tern_error *err);

#endif
