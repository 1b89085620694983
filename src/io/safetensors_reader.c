#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/printable.h"
#include "io/safetensors.h"
#include "io/safetensors_format.h"

enum { NAME_SHOWN = 48, LABEL_SHOWN = 80 };

typedef struct item {
    tern_safetensors_entry entry;
    size_t begin, end; /* in the data buffer */
    size_t key;        /* which key of the header, in the order of the text */
} item;

struct tern_safetensors {
    const uint8_t *bytes;
    size_t size;
    size_t header; /* bytes of JSON, from TERN_ST_LENGTH_BYTES on */
    void *map;     /* NULL where the bytes are the caller's */
    char label[LABEL_SHOWN];
    json_t *root; /* owns all names and strings */
    json_t *metadata;
    item *items; /* in the order of the data */
    const tern_safetensors_entry **by_name;
    size_t count;
};

static const char *header_text(const tern_safetensors *f) { return (const char *)f->bytes + TERN_ST_LENGTH_BYTES; }

__attribute__((format(printf, 5, 6))) static tern_status
refuse(const tern_safetensors *f, tern_error *err, tern_status status, uint64_t place, const char *format, ...) {
    char what[192];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    return tern_fail(err, status, place, "%s: byte %" PRIu64 ": %s", f->label, place, what);
}

/* ---- header ---------------------------------------------------------------------------------------------------- */

/* The byte of the file at which a key of the outermost object begins. jansson keeps no places, and the text is known
 * to be valid JSON here, so counting is enough. */
static uint64_t key_place(const tern_safetensors *f, size_t key) {
    const char *text = header_text(f);
    size_t depth = 0, seen = 0;
    int key_next = 0;
    for (size_t i = 0; i < f->header; i++) {
        switch (text[i]) {
        case '"':
            if (depth == 1 && key_next && seen++ == key) return TERN_ST_LENGTH_BYTES + i;
            key_next = 0;
            for (i++; i < f->header && text[i] != '"'; i++) i += text[i] == '\\';
            break;
        case '{':
        case '[': key_next = ++depth == 1; break;
        case '}':
        case ']': depth--; break;
        case ',': key_next = depth == 1; break;
        default: break;
        }
    }
    return TERN_ST_LENGTH_BYTES;
}

static tern_status refuse_item(const tern_safetensors *f, tern_error *err, tern_status status, const item *it,
                               const char *what) {
    char name[NAME_SHOWN];
    return refuse(f, err, status, key_place(f, it->key), "tensor \"%s\": %s",
                  tern_printable(name, sizeof name, it->entry.name), what);
}

static int size_of_json(size_t *out, const json_t *value) {
    if (!json_is_integer(value) || json_integer_value(value) < 0) return 0;
    *out = (size_t)json_integer_value(value);
    return 1;
}

static tern_status parse_dtype(const tern_safetensors *f, item *it, const json_t *value, tern_error *err) {
    const char *text = json_string_value(value);
    char what[96], found[NAME_SHOWN];
    if (!text) return refuse_item(f, err, TERN_E_DATA, it, "dtype is missing or not a string");
    for (int d = 0; d < TERN_ST_COUNT; d++) {
        if (strcmp(text, tern_safetensors_dtype_name((tern_safetensors_dtype)d))) continue;
        it->entry.dtype = (tern_safetensors_dtype)d;
        return TERN_OK;
    }
    snprintf(what, sizeof what, "unknown dtype \"%s\"", tern_printable(found, sizeof found, text));
    return refuse_item(f, err, TERN_E_DATA, it, what);
}

static tern_status parse_shape(const tern_safetensors *f, item *it, const json_t *value, tern_error *err) {
    char what[96];
    if (!json_is_array(value)) return refuse_item(f, err, TERN_E_DATA, it, "shape is missing or not an array");
    it->entry.rank = json_array_size(value);
    if (it->entry.rank > TERN_ST_MAX_RANK) {
        snprintf(what, sizeof what, "%zu dimensions, at most %d are read", it->entry.rank, TERN_ST_MAX_RANK);
        return refuse_item(f, err, TERN_E_UNSUPPORTED, it, what);
    }
    for (size_t i = 0; i < it->entry.rank; i++) {
        if (size_of_json(&it->entry.shape[i], json_array_get(value, i))) continue;
        snprintf(what, sizeof what, "dimension %zu of shape is not a whole number from 0 on", i);
        return refuse_item(f, err, TERN_E_DATA, it, what);
    }
    return TERN_OK;
}

/* What an entry says by itself; how entries lie beside each other is for check_layout. */
static tern_status parse_item(const tern_safetensors *f, item *it, const json_t *value, tern_error *err) {
    char what[144];
    size_t bytes = 0;
    if (!json_is_object(value)) return refuse_item(f, err, TERN_E_DATA, it, "its value is not an object");
    TERN_TRY(parse_dtype(f, it, json_object_get(value, "dtype"), err));
    TERN_TRY(parse_shape(f, it, json_object_get(value, "shape"), err));
    const json_t *offsets = json_object_get(value, "data_offsets");
    if (json_array_size(offsets) != 2 || !size_of_json(&it->begin, json_array_get(offsets, 0)) ||
        !size_of_json(&it->end, json_array_get(offsets, 1)))
        return refuse_item(f, err, TERN_E_DATA, it, "data_offsets is missing or not two whole numbers from 0 on");
    if (json_object_size(value) != 3)
        return refuse_item(f, err, TERN_E_DATA, it, "keys other than dtype, shape and data_offsets");
    if (it->end < it->begin) {
        snprintf(what, sizeof what, "data_offsets [%zu, %zu) end before they begin", it->begin, it->end);
        return refuse_item(f, err, TERN_E_DATA, it, what);
    }
    if (!tern_safetensors_bytes(&bytes, it->entry.dtype, it->entry.rank, it->entry.shape))
        return refuse_item(f, err, TERN_E_DATA, it, "its shape overflows or does not fill whole bytes");
    if (bytes != it->end - it->begin) {
        snprintf(what, sizeof what, "data_offsets [%zu, %zu) hold %zu bytes where dtype and shape need %zu",
                 it->begin, it->end, it->end - it->begin, bytes);
        return refuse_item(f, err, TERN_E_DATA, it, what);
    }
    it->entry.bytes = bytes;
    return TERN_OK;
}

static tern_status parse_metadata(tern_safetensors *f, json_t *value, size_t key, tern_error *err) {
    char name[NAME_SHOWN];
    const char *k;
    json_t *v;
    if (!json_is_object(value))
        return refuse(f, err, TERN_E_DATA, key_place(f, key), TERN_ST_METADATA " is not an object");
    json_object_foreach(value, k, v) {
        if (!json_is_string(v))
            return refuse(f, err, TERN_E_DATA, key_place(f, key), TERN_ST_METADATA ": \"%s\" is not a string",
                          tern_printable(name, sizeof name, k));
    }
    f->metadata = value;
    return TERN_OK;
}

/* jansson checks UTF-8, refuses duplicates and NUL characters, and limits the depth of nesting. */
static tern_status parse_json(tern_safetensors *f, tern_error *err) {
    json_error_t json;
    char what[100];
    uint64_t n = 0;
    for (unsigned i = 0; i < TERN_ST_LENGTH_BYTES && f->size >= TERN_ST_LENGTH_BYTES; i++)
        n |= (uint64_t)f->bytes[i] << 8 * i;
    if (f->size < TERN_ST_LENGTH_BYTES)
        return refuse(f, err, TERN_E_DATA, f->size, "the file ends here, before the 8 bytes of the header's length");
    if (n > TERN_ST_MAX_HEADER)
        return refuse(f, err, TERN_E_DATA, 0, "a header of %" PRIu64 " bytes, at most %d are allowed", n,
                      TERN_ST_MAX_HEADER);
    if (n > f->size - TERN_ST_LENGTH_BYTES)
        return refuse(f, err, TERN_E_DATA, 0, "a header of %" PRIu64 " bytes in a file of %zu", n, f->size);
    f->header = (size_t)n;
    f->root = json_loadb(header_text(f), f->header, JSON_REJECT_DUPLICATES, &json);
    if (!f->root)
        return refuse(f, err, json_error_code(&json) == json_error_out_of_memory ? TERN_E_MEMORY : TERN_E_DATA,
                      TERN_ST_LENGTH_BYTES + (uint64_t)(json.position > 0 ? json.position : 0), "header: %s",
                      tern_printable(what, sizeof what, json.text));
    if (!json_is_object(f->root))
        return refuse(f, err, TERN_E_DATA, TERN_ST_LENGTH_BYTES, "the header is not a JSON object");
    return TERN_OK;
}

static tern_status parse_entries(tern_safetensors *f, tern_error *err) {
    const size_t keys = json_object_size(f->root);
    const char *name;
    json_t *value;
    size_t key = 0;
    f->items = calloc(keys + 1, sizeof *f->items);
    f->by_name = calloc(keys + 1, sizeof *f->by_name);
    if (!f->items || !f->by_name)
        return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "%s: no memory for %zu entries", f->label, keys);
    json_object_foreach(f->root, name, value) {
        if (strcmp(name, TERN_ST_METADATA)) {
            item *it = &f->items[f->count++];
            it->entry.name = name;
            it->key = key;
            TERN_TRY(parse_item(f, it, value, err));
        } else {
            TERN_TRY(parse_metadata(f, value, key, err));
        }
        key++;
    }
    return TERN_OK;
}

/* ---- layout ---------------------------------------------------------------------------------------------------- */

static int compare_places(const void *a, const void *b) {
    const item *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    if (x->end != y->end) return x->end < y->end ? -1 : 1;
    return (x->key > y->key) - (x->key < y->key);
}

static int compare_names(const void *a, const void *b) {
    const tern_safetensors_entry *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

/* Sorted by their places, the entries cover the data buffer without a hole, an overlap or a rest. */
static tern_status check_layout(tern_safetensors *f, tern_error *err) {
    const uint8_t *data = f->bytes + TERN_ST_LENGTH_BYTES + f->header;
    const size_t buffer = f->size - TERN_ST_LENGTH_BYTES - f->header;
    char what[128];
    size_t end = 0;
    qsort(f->items, f->count, sizeof *f->items, compare_places);
    for (size_t i = 0; i < f->count; i++) {
        item *it = &f->items[i];
        if (it->begin != end) {
            snprintf(what, sizeof what, "its data begins at %zu, %s: the one before ends at %zu", it->begin,
                     it->begin < end ? "an overlap" : "a hole", end);
            return refuse_item(f, err, TERN_E_DATA, it, what);
        }
        if (it->end > buffer) {
            snprintf(what, sizeof what, "its data ends at %zu, the file has %zu bytes of data", it->end, buffer);
            return refuse_item(f, err, TERN_E_DATA, it, what);
        }
        it->entry.data = data + it->begin;
        end = it->end;
        f->by_name[i] = &it->entry;
    }
    if (end != buffer)
        return refuse(f, err, TERN_E_DATA, TERN_ST_LENGTH_BYTES + f->header + end,
                      "%zu bytes after the end of the last tensor", buffer - end);
    qsort(f->by_name, f->count, sizeof *f->by_name, compare_names);
    return TERN_OK;
}

/* ---- checksum -------------------------------------------------------------------------------------------------- */

static tern_status check_checksum(const tern_safetensors *f, tern_safetensors_checksum wanted, tern_error *err) {
    const char *method = tern_safetensors_metadata(f, TERN_ST_METHOD_KEY);
    const char *stored = tern_safetensors_metadata(f, TERN_ST_CRC_KEY);
    char digits[TERN_ST_DIGITS + 1], shown[NAME_SHOWN];
    if (!method && !stored) {
        if (wanted == TERN_ST_CHECKSUM_IF_PRESENT) return TERN_OK;
        return refuse(f, err, TERN_E_DATA, TERN_ST_LENGTH_BYTES, "no checksum (" TERN_ST_CRC_KEY " in the metadata)");
    }
    if (!method || !stored)
        return refuse(f, err, TERN_E_DATA, TERN_ST_LENGTH_BYTES, "damaged: the metadata has %s without %s",
                      method ? TERN_ST_METHOD_KEY : TERN_ST_CRC_KEY, method ? TERN_ST_CRC_KEY : TERN_ST_METHOD_KEY);
    if (strcmp(method, TERN_ST_METHOD))
        return refuse(f, err, TERN_E_DATA, TERN_ST_LENGTH_BYTES, "unknown checksum method \"%s\"",
                      tern_printable(shown, sizeof shown, method));
    const size_t in_header = tern_safetensors_digits_at(header_text(f), f->header);
    if (!in_header || strlen(stored) != TERN_ST_DIGITS)
        return refuse(f, err, TERN_E_DATA, TERN_ST_LENGTH_BYTES,
                      "damaged: " TERN_ST_CRC_KEY " is not in Tern's form");
    const size_t at = TERN_ST_LENGTH_BYTES + in_header, after = at + TERN_ST_DIGITS;
    uint32_t crc = tern_safetensors_crc(0, f->bytes, at);
    crc = tern_safetensors_crc(crc, TERN_ST_ZEROS, TERN_ST_DIGITS);
    crc = tern_safetensors_crc(crc, f->bytes + after, f->size - after);
    snprintf(digits, sizeof digits, "%08" PRIx32, crc);
    if (memcmp(digits, f->bytes + at, TERN_ST_DIGITS))
        return refuse(f, err, TERN_E_DATA, at, "damaged: the checksum says %s, the bytes of the file give %s",
                      tern_printable(shown, sizeof shown, stored), digits);
    return TERN_OK;
}

/* ---- the API --------------------------------------------------------------------------------------------------- */

static tern_status parse(tern_safetensors *f, tern_safetensors_checksum checksum, tern_error *err) {
    TERN_TRY(parse_json(f, err));
    TERN_TRY(parse_entries(f, err));
    TERN_TRY(check_layout(f, err));
    return check_checksum(f, checksum, err);
}

static tern_status map_file(tern_safetensors *f, const char *path, tern_error *err) {
    struct stat info;
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe without a writer would block */
    if (fd < 0) return tern_fail(err, TERN_E_FILE, TERN_NO_PLACE, "%s: cannot open: %s", f->label, strerror(errno));
    const int failed = fstat(fd, &info), number = errno;
    if (!failed && S_ISREG(info.st_mode)) {
        f->size = (size_t)info.st_size;
        void *map = f->size ? mmap(NULL, f->size, PROT_READ, MAP_PRIVATE, fd, 0) : NULL;
        const int map_number = errno;
        close(fd);
        if (map == MAP_FAILED)
            return tern_fail(err, TERN_E_FILE, TERN_NO_PLACE, "%s: cannot map %zu bytes: %s", f->label, f->size,
                             strerror(map_number));
        f->bytes = f->map = map;
        return TERN_OK;
    }
    close(fd);
    return tern_fail(err, TERN_E_FILE, TERN_NO_PLACE, "%s: %s", f->label,
                     failed ? strerror(number) : "not a regular file");
}

static tern_safetensors *new_file(const char *label) {
    tern_safetensors *f = calloc(1, sizeof *f);
    if (f) tern_printable_path(f->label, sizeof f->label, label);
    return f;
}

static tern_status finish(tern_safetensors **out, tern_safetensors *f, tern_status status) {
    if (status)
        tern_safetensors_close(&f);
    else
        *out = f;
    return status;
}

tern_status tern_safetensors_open(tern_safetensors **out, const char *path, tern_safetensors_checksum checksum,
                                  tern_error *err) {
    TERN_CHECK_ARGUMENT(out, err, "out is NULL");
    *out = NULL;
    TERN_CHECK_ARGUMENT(path, err, "path is NULL");
    tern_safetensors *f = new_file(path);
    if (!f) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for a file record");
    tern_status status = map_file(f, path, err);
    if (!status) status = parse(f, checksum, err);
    return finish(out, f, status);
}

tern_status tern_safetensors_open_memory(tern_safetensors **out, const void *bytes, size_t size, const char *label,
                                         tern_safetensors_checksum checksum, tern_error *err) {
    TERN_CHECK_ARGUMENT(out, err, "out is NULL");
    *out = NULL;
    TERN_CHECK_ARGUMENT((bytes || !size) && label, err, "bytes or label is NULL");
    tern_safetensors *f = new_file(label);
    if (!f) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for a file record");
    f->bytes = bytes;
    f->size = size;
    return finish(out, f, parse(f, checksum, err));
}

void tern_safetensors_close(tern_safetensors **file) {
    if (!file || !*file) return;
    tern_safetensors *f = *file;
    free(f->items);
    free(f->by_name);
    json_decref(f->root);
    if (f->map) munmap(f->map, f->size);
    free(f);
    *file = NULL;
}

size_t tern_safetensors_count(const tern_safetensors *file) { return file->count; }

const tern_safetensors_entry *tern_safetensors_at(const tern_safetensors *file, size_t i) {
    return i < file->count ? &file->items[i].entry : NULL;
}

const tern_safetensors_entry *tern_safetensors_find(const tern_safetensors *file, const char *name) {
    const tern_safetensors_entry key = {.name = name}, *const wanted = &key;
    const tern_safetensors_entry **found =
        bsearch(&wanted, file->by_name, file->count, sizeof *file->by_name, compare_names);
    return found ? *found : NULL;
}

const char *tern_safetensors_metadata(const tern_safetensors *file, const char *key) {
    return json_string_value(json_object_get(file->metadata, key));
}

size_t tern_safetensors_metadata_count(const tern_safetensors *file) { return json_object_size(file->metadata); }

const char *tern_safetensors_metadata_at(const tern_safetensors *file, size_t i, const char **value) {
    void *at = json_object_iter(file->metadata);
    for (; at && i; i--) at = json_object_iter_next(file->metadata, at);
    if (!at) return NULL;
    *value = json_string_value(json_object_iter_value(at));
    return json_object_iter_key(at);
}
