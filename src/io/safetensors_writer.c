#define _GNU_SOURCE
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/printable.h"
#include "io/atomic_file.h"
#include "io/safetensors.h"
#include "io/safetensors_format.h"

enum { NAME_SHOWN = 80 };

struct tern_safetensors_writer {
    tern_safetensors_entry *entries; /* names are the writer's own */
    size_t count, room;
    json_t *names; /* name -> true: finds duplicates, checks UTF-8 */
    json_t *metadata;
};

/* A file about to be written: everything before the data, and the order of the data. */
typedef struct plan {
    const tern_safetensors_entry **order;
    uint8_t *head; /* length, header, padding */
    size_t head_bytes;
    size_t total;
} plan;

static tern_status no_memory(tern_error *err) {
    return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for the header of a safetensors file");
}

tern_status tern_safetensors_writer_create(tern_safetensors_writer **out, tern_error *err) {
    TERN_CHECK_ARGUMENT(out, err, "out is NULL");
    *out = NULL;
    tern_safetensors_writer *w = calloc(1, sizeof *w);
    if (!w) return no_memory(err);
    w->names = json_object();
    w->metadata = json_object();
    if (!w->names || !w->metadata) {
        tern_safetensors_writer_free(&w);
        return no_memory(err);
    }
    *out = w;
    return TERN_OK;
}

void tern_safetensors_writer_free(tern_safetensors_writer **writer) {
    if (!writer || !*writer) return;
    for (size_t i = 0; i < (*writer)->count; i++) free((char *)(uintptr_t)(*writer)->entries[i].name);
    free((*writer)->entries);
    json_decref((*writer)->names);
    json_decref((*writer)->metadata);
    free(*writer);
    *writer = NULL;
}

static int is_utf8(const char *text) {
    json_t *string = json_string(text);
    const int valid = string != NULL;
    json_decref(string);
    return valid;
}

static int make_room(tern_safetensors_writer *w) {
    if (w->count < w->room) return 1;
    const size_t room = w->room ? 2 * w->room : 16;
    tern_safetensors_entry *entries = reallocarray(w->entries, room, sizeof *entries);
    if (!entries) return 0;
    w->entries = entries;
    w->room = room;
    return 1;
}

tern_status tern_safetensors_writer_add(tern_safetensors_writer *writer, const char *name,
                                        tern_safetensors_dtype dtype, size_t rank, const size_t *shape,
                                        const void *data, tern_error *err) {
    char shown[NAME_SHOWN];
    TERN_CHECK_ARGUMENT(writer && name, err, "writer or name is NULL");
    TERN_CHECK_ARGUMENT(name[0] && is_utf8(name), err, "a tensor's name is empty or not UTF-8");
    tern_printable(shown, sizeof shown, name);
    TERN_CHECK_ARGUMENT(strcmp(name, TERN_ST_METADATA), err, "a tensor cannot be named \"%s\"", shown);
    TERN_CHECK_ARGUMENT(!json_object_get(writer->names, name), err, "tensor \"%s\" is given twice", shown);
    TERN_CHECK_ARGUMENT((unsigned)dtype < TERN_ST_COUNT, err, "tensor \"%s\": dtype %d does not exist", shown,
                        (int)dtype);
    TERN_CHECK_ARGUMENT(rank <= TERN_ST_MAX_RANK, err, "tensor \"%s\": %zu dimensions, at most %d", shown, rank,
                        TERN_ST_MAX_RANK);
    TERN_CHECK_ARGUMENT(shape || !rank, err, "tensor \"%s\": shape is NULL", shown);
    tern_safetensors_entry entry = {.dtype = dtype, .rank = rank, .data = data};
    /* JSON's numbers are int64 here, and a huge dimension beside a zero passes every product. */
    int fits = tern_safetensors_bytes(&entry.bytes, dtype, rank, shape) && entry.bytes <= INT64_MAX;
    for (size_t i = 0; i < rank; i++) fits = fits && shape[i] <= INT64_MAX;
    if (!fits)
        return tern_fail(err, TERN_E_SIZE, TERN_NO_PLACE,
                         "tensor \"%s\": its size overflows or does not fill whole bytes", shown);
    TERN_CHECK_ARGUMENT(data || !entry.bytes, err, "tensor \"%s\": data is NULL", shown);
    if (rank) memcpy(entry.shape, shape, rank * sizeof *shape);
    if (!make_room(writer)) return no_memory(err);
    char *copy = strdup(name);
    if (!copy || json_object_set_new(writer->names, name, json_true())) {
        free(copy);
        return no_memory(err);
    }
    entry.name = copy;
    writer->entries[writer->count++] = entry;
    return TERN_OK;
}

tern_status tern_safetensors_writer_metadata(tern_safetensors_writer *writer, const char *key, const char *value,
                                             tern_error *err) {
    char shown[NAME_SHOWN];
    TERN_CHECK_ARGUMENT(writer && key && value, err, "writer, key or value is NULL");
    TERN_CHECK_ARGUMENT(is_utf8(key), err, "a metadata key is not UTF-8");
    tern_printable(shown, sizeof shown, key);
    TERN_CHECK_ARGUMENT(strcmp(key, TERN_ST_METHOD_KEY) && strcmp(key, TERN_ST_CRC_KEY), err,
                        "metadata \"%s\" is the writer's own", shown);
    TERN_CHECK_ARGUMENT(is_utf8(value), err, "the value of metadata \"%s\" is not UTF-8", shown);
    if (json_object_set_new(writer->metadata, key, json_string(value))) return no_memory(err);
    return TERN_OK;
}

/* ---- header ---------------------------------------------------------------------------------------------------- */

/* Widest alignment first, then by name: every array is aligned to its element. */
static int compare_entries(const void *a, const void *b) {
    const tern_safetensors_entry *const *x = a, *const *y = b;
    if ((*x)->dtype != (*y)->dtype) return (*x)->dtype > (*y)->dtype ? -1 : 1;
    return strcmp((*x)->name, (*y)->name);
}

static json_t *entry_json(const tern_safetensors_entry *e, size_t begin, size_t end) {
    json_t *shape = json_array();
    for (size_t i = 0; i < e->rank; i++)
        if (json_array_append_new(shape, json_integer((json_int_t)e->shape[i]))) {
            json_decref(shape);
            return NULL;
        }
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", tern_safetensors_dtype_name(e->dtype), "shape", shape,
                     "data_offsets", (json_int_t)begin, (json_int_t)end);
}

static json_t *metadata_json(const tern_safetensors_writer *w) {
    json_t *metadata = json_pack("{s:s, s:s}", TERN_ST_METHOD_KEY, TERN_ST_METHOD, TERN_ST_CRC_KEY, TERN_ST_ZEROS);
    if (metadata && json_object_update(metadata, w->metadata)) {
        json_decref(metadata);
        return NULL;
    }
    return metadata;
}

/* The JSON of a plan whose order is known; *data becomes the bytes of all arrays. NULL: no memory. */
static char *header_json(const tern_safetensors_writer *w, const plan *p, size_t *data) {
    json_t *root = json_object();
    int failed = json_object_set_new(root, TERN_ST_METADATA, metadata_json(w));
    size_t end = 0;
    for (size_t i = 0; i < w->count && !failed; i++) {
        const size_t begin = end;
        end += p->order[i]->bytes; /* the caller checked the sum */
        failed = json_object_set_new(root, p->order[i]->name, entry_json(p->order[i], begin, end));
    }
    char *text = failed ? NULL : json_dumps(root, JSON_COMPACT);
    json_decref(root);
    *data = end;
    return text;
}

static void put_checksum(const tern_safetensors_writer *w, plan *p) {
    const size_t header = p->head_bytes - TERN_ST_LENGTH_BYTES;
    const size_t at =
        TERN_ST_LENGTH_BYTES + tern_safetensors_digits_at((const char *)p->head + TERN_ST_LENGTH_BYTES, header);
    char digits[TERN_ST_DIGITS + 1];
    uint32_t crc = tern_safetensors_crc(0, p->head, p->head_bytes);
    for (size_t i = 0; i < w->count; i++) crc = tern_safetensors_crc(crc, p->order[i]->data, p->order[i]->bytes);
    snprintf(digits, sizeof digits, "%08" PRIx32, crc);
    memcpy(p->head + at, digits, TERN_ST_DIGITS);
}

static void plan_free(plan *p) {
    free(p->order);
    free(p->head);
}

static tern_status fill_plan(plan *p, const tern_safetensors_writer *w, tern_error *err) {
    size_t data = 0;
    p->order = calloc(w->count + 1, sizeof *p->order);
    if (!p->order) return no_memory(err);
    for (size_t i = 0; i < w->count; i++) {
        p->order[i] = &w->entries[i];
        if (!tern_checked_add(&data, data, w->entries[i].bytes) || data > INT64_MAX / 2)
            return tern_fail(err, TERN_E_SIZE, TERN_NO_PLACE, "the tensors are larger together than a file can be");
    }
    qsort(p->order, w->count, sizeof *p->order, compare_entries);
    char *text = header_json(w, p, &data);
    if (!text) return no_memory(err);
    const size_t length = strlen(text);
    p->head_bytes = tern_round_up(TERN_ST_LENGTH_BYTES + length, TERN_ST_DATA_ALIGNMENT);
    const uint64_t n = p->head_bytes - TERN_ST_LENGTH_BYTES;
    p->total = p->head_bytes + data;
    if (n > TERN_ST_MAX_HEADER) {
        free(text);
        return tern_fail(err, TERN_E_SIZE, TERN_NO_PLACE, "a header of %" PRIu64 " bytes, at most %d are allowed", n,
                         TERN_ST_MAX_HEADER);
    }
    p->head = malloc(p->head_bytes);
    if (!p->head) {
        free(text);
        return no_memory(err);
    }
    for (unsigned i = 0; i < TERN_ST_LENGTH_BYTES; i++) p->head[i] = (uint8_t)(n >> 8 * i);
    memcpy(p->head + TERN_ST_LENGTH_BYTES, text, length);
    memset(p->head + TERN_ST_LENGTH_BYTES + length, ' ', (size_t)n - length);
    free(text);
    put_checksum(w, p);
    return TERN_OK;
}

/* ---- output ---------------------------------------------------------------------------------------------------- */

static tern_status write_plan(const plan *p, size_t count, const char *path, tern_error *err) {
    tern_atomic_file *file = NULL;
    TERN_TRY(tern_atomic_file_create(&file, path, err));
    tern_status status = tern_atomic_file_write(file, p->head, p->head_bytes, err);
    for (size_t i = 0; i < count && !status; i++)
        status = tern_atomic_file_write(file, p->order[i]->data, p->order[i]->bytes, err);
    if (!status) return tern_atomic_file_commit(&file, err);
    tern_atomic_file_free(&file);
    return status;
}

tern_status tern_safetensors_writer_write(const tern_safetensors_writer *writer, const char *path, tern_error *err) {
    TERN_CHECK_ARGUMENT(writer && path, err, "writer or path is NULL");
    plan p = {0};
    tern_status status = fill_plan(&p, writer, err);
    if (!status) status = write_plan(&p, writer->count, path, err);
    plan_free(&p);
    return status;
}

static tern_status copy_plan(const plan *p, size_t count, void **bytes, size_t *size, tern_error *err) {
    uint8_t *out = malloc(p->total);
    if (!out) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for a file of %zu bytes", p->total);
    memcpy(out, p->head, p->head_bytes);
    size_t at = p->head_bytes;
    for (size_t i = 0; i < count; i++) {
        if (p->order[i]->bytes) memcpy(out + at, p->order[i]->data, p->order[i]->bytes);
        at += p->order[i]->bytes;
    }
    *bytes = out;
    *size = p->total;
    return TERN_OK;
}

tern_status tern_safetensors_writer_to_memory(const tern_safetensors_writer *writer, void **bytes, size_t *size,
                                              tern_error *err) {
    TERN_CHECK_ARGUMENT(writer && bytes && size, err, "writer, bytes or size is NULL");
    plan p = {0};
    tern_status status = fill_plan(&p, writer, err);
    if (!status) status = copy_plan(&p, writer->count, bytes, size, err);
    plan_free(&p);
    return status;
}
