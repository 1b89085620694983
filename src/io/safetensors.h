/* safetensors files: named arrays and a few strings, memory-mapped.
 *
 *     u64 N | N bytes of JSON | data
 *
 * The reader takes any file for hostile and makes every check of the reference reader, and refuses duplicate names
 * and unknown keys besides. Its errors name the file, the byte (which is also the place of the error) and what was
 * found there. The writer replaces a file atomically (io/atomic_file.h).
 *
 * Checksum. Files of Tern carry two metadata keys: "tern.checksum" names the method, "crc32", and "tern.crc32" is the
 * CRC-32 of zlib, in 8 lower-case hexadecimal digits, over the whole file with these 8 digits read as "00000000". So
 * any single damaged byte is found, wherever it is: in the data, in the header, in its padding, in the digits (they
 * disagree), or in one of the two keys (one without the other is an error). Who edits such a file with another tool
 * deletes both keys.
 *
 * Data is little-endian and row-major. In files of Tern it begins on a multiple of 64 bytes, and every array on a
 * multiple of its element's size; in others it may lie anywhere. */
#ifndef TERN_IO_SAFETENSORS_H
#define TERN_IO_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "tern/status.h"

/* In the order of the reference, by alignment: a file holds the last of these first. */
typedef enum tern_safetensors_dtype {
    TERN_ST_BOOL = 0,
    TERN_ST_F4,
    TERN_ST_F6_E2M3,
    TERN_ST_F6_E3M2,
    TERN_ST_U8,
    TERN_ST_I8,
    TERN_ST_F8_E5M2,
    TERN_ST_F8_E4M3,
    TERN_ST_F8_E8M0,
    TERN_ST_F8_E4M3FNUZ,
    TERN_ST_F8_E5M2FNUZ,
    TERN_ST_I16,
    TERN_ST_U16,
    TERN_ST_F16,
    TERN_ST_BF16,
    TERN_ST_I32,
    TERN_ST_U32,
    TERN_ST_F32,
    TERN_ST_C64,
    TERN_ST_F64,
    TERN_ST_I64,
    TERN_ST_U64,
    TERN_ST_COUNT
} tern_safetensors_dtype;

enum { TERN_ST_MAX_RANK = 8 };

/* The name in the file, such as "BF16", and bits per element; NULL and 0 for a value that is no dtype. */
const char *tern_safetensors_dtype_name(tern_safetensors_dtype dtype);
unsigned tern_safetensors_dtype_bits(tern_safetensors_dtype dtype);

/* Bytes of an array, every product checked. Fails (returns 0, leaves *bytes) on overflow and where sub-byte elements
 * do not fill their last byte. */
int tern_safetensors_bytes(size_t *bytes, tern_safetensors_dtype dtype, size_t rank, const size_t *shape);

/* ---- reading --------------------------------------------------------------------------------------------------- */

typedef struct tern_safetensors tern_safetensors;

/* A view: valid until the file is closed. */
typedef struct tern_safetensors_entry {
    const char *name;
    tern_safetensors_dtype dtype;
    size_t rank; /* 0: a single element */
    size_t shape[TERN_ST_MAX_RANK];
    const void *data; /* bytes of it, read-only; not aligned in foreign files */
    size_t bytes;
} tern_safetensors_entry;

typedef enum tern_safetensors_checksum {
    TERN_ST_CHECKSUM_IF_PRESENT = 0, /* verified where the file has one */
    TERN_ST_CHECKSUM_REQUIRED = 1    /* a file without one is TERN_E_DATA: for what only Tern writes */
} tern_safetensors_checksum;

/* Maps a file and checks all of it. The checksum reads every byte once, on all threads. The file must not be cut
 * short by others while it is open: touching data that is gone is a signal, not an error. Atomic replacement is
 * fine. */
tern_status tern_safetensors_open(tern_safetensors **out, const char *path, tern_safetensors_checksum checksum,
                                  tern_error *err);

/* The same for bytes in memory, which stay the caller's and must outlive *out. label stands for the path in
 * errors. */
tern_status tern_safetensors_open_memory(tern_safetensors **out, const void *bytes, size_t size, const char *label,
                                         tern_safetensors_checksum checksum, tern_error *err);

/* Unmaps, frees and nulls. Accepts NULL and a NULL pointer. */
void tern_safetensors_close(tern_safetensors **file);

size_t tern_safetensors_count(const tern_safetensors *file);

/* Entry i in the order of the data; NULL from count on. */
const tern_safetensors_entry *tern_safetensors_at(const tern_safetensors *file, size_t i);

/* NULL where there is none of this name. */
const tern_safetensors_entry *tern_safetensors_find(const tern_safetensors *file, const char *name);

/* A string of __metadata__; NULL where there is none. */
const char *tern_safetensors_metadata(const tern_safetensors *file, const char *key);

/* How many strings __metadata__ holds, and the i-th: its key, and its value to *value. NULL from the count on. */
size_t tern_safetensors_metadata_count(const tern_safetensors *file);
const char *tern_safetensors_metadata_at(const tern_safetensors *file, size_t i, const char **value);

/* ---- writing --------------------------------------------------------------------------------------------------- */

typedef struct tern_safetensors_writer tern_safetensors_writer;

tern_status tern_safetensors_writer_create(tern_safetensors_writer **out, tern_error *err);
void tern_safetensors_writer_free(tern_safetensors_writer **writer);

/* Adds an array; name and shape are copied, data is not: it must stay as it is until the file is written. Names are
 * UTF-8, not empty, each given once, and none is "__metadata__". data may be NULL where the array has no elements. */
tern_status tern_safetensors_writer_add(tern_safetensors_writer *writer, const char *name,
                                        tern_safetensors_dtype dtype, size_t rank, const size_t *shape,
                                        const void *data, tern_error *err);

/* Sets or replaces a string of __metadata__ (UTF-8, copied). The keys of the checksum are the writer's own. */
tern_status tern_safetensors_writer_metadata(tern_safetensors_writer *writer, const char *key, const char *value,
                                             tern_error *err);

/* Writes atomically: on failure a file that was there is still there, whole. The same content gives the same bytes,
 * in whatever order arrays were added; metadata keeps the order of its first setting. May be called again. */
tern_status tern_safetensors_writer_write(const tern_safetensors_writer *writer, const char *path, tern_error *err);

/* The same bytes to memory, to be freed with free(). */
tern_status tern_safetensors_writer_to_memory(const tern_safetensors_writer *writer, void **bytes, size_t *size,
                                              tern_error *err);

#endif
