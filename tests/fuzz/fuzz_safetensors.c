/* Any bytes as a safetensors file: refused with a message and a place, or every entry lies inside the file, is found
 * by its name, and is written again and read back the same. Run a second time as a header alone, whose length is put
 * in front, so that mutations need not guess it; what follows its first NUL is the data. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "io/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int same(const tern_safetensors_entry *a, const tern_safetensors_entry *b) {
    return !strcmp(a->name, b->name) && a->dtype == b->dtype && a->rank == b->rank && a->bytes == b->bytes &&
           !memcmp(a->shape, b->shape, a->rank * sizeof *a->shape) &&
           (!a->bytes || !memcmp(a->data, b->data, a->bytes));
}

static void write_again(const tern_safetensors *f) {
    tern_safetensors_writer *w = NULL;
    tern_safetensors *again = NULL;
    void *bytes = NULL;
    size_t size = 0;
    const char *value = NULL;
    if (tern_safetensors_writer_create(&w, NULL)) abort();
    for (size_t i = 0; i < tern_safetensors_count(f); i++) {
        const tern_safetensors_entry *e = tern_safetensors_at(f, i);
        if (tern_safetensors_writer_add(w, e->name, e->dtype, e->rank, e->shape, e->data, NULL) && e->name[0])
            abort();
    }
    for (size_t i = 0; i < tern_safetensors_metadata_count(f); i++) {
        const char *key = tern_safetensors_metadata_at(f, i, &value);
        tern_safetensors_writer_metadata(w, key, value, NULL); /* the checksum's keys are refused */
    }
    if (tern_safetensors_writer_to_memory(w, &bytes, &size, NULL)) abort();
    if (tern_safetensors_open_memory(&again, bytes, size, "again", TERN_ST_CHECKSUM_REQUIRED, NULL)) abort();
    for (size_t i = 0; i < tern_safetensors_count(again); i++) {
        const tern_safetensors_entry *e = tern_safetensors_at(again, i);
        if (!same(e, tern_safetensors_find(f, e->name))) abort();
    }
    tern_safetensors_close(&again);
    tern_safetensors_writer_free(&w);
    free(bytes);
}

static void check_entries(const tern_safetensors *f, const uint8_t *bytes, size_t size) {
    for (size_t i = 0; i < tern_safetensors_count(f); i++) {
        const tern_safetensors_entry *e = tern_safetensors_at(f, i);
        const uint8_t *p = e->data;
        if (p < bytes || p > bytes + size || e->bytes > (size_t)(bytes + size - p)) abort();
        if (tern_safetensors_find(f, e->name) != e) abort();
    }
}

static void try(const uint8_t *bytes, size_t size) {
    tern_safetensors *f = NULL;
    tern_error err = {0};
    if (tern_safetensors_open_memory(&f, bytes, size, "fuzz", TERN_ST_CHECKSUM_IF_PRESENT, &err)) {
        if (f || !err.status || !err.message[0] || err.place > size) abort();
        return;
    }
    check_entries(f, bytes, size);
    write_again(f);
    tern_safetensors_close(&f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t *copy = malloc(size + 8); /* its own block, so that an over-read is seen */
    const uint8_t *nul = size ? memchr(data, 0, size) : NULL;
    const size_t header = nul ? (size_t)(nul - data) : size;
    if (!copy) abort();
    if (size) memcpy(copy, data, size);
    try(copy, size);
    for (int i = 0; i < 8; i++) copy[i] = (uint8_t)(header >> 8 * i);
    if (size) memcpy(copy + 8, data, header);
    if (nul) memcpy(copy + 8 + header, nul + 1, size - header - 1);
    try(copy, 8 + header + (nul ? size - header - 1 : 0));
    free(copy);
    return 0;
}
