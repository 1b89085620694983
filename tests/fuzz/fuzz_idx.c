/* idx, CIFAR and UTF-8 content: what parses lies inside the bytes that were given. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "io/cifar.h"
#include "io/idx.h"
#include "io/text_tokens.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_idx(const uint8_t *content, size_t bytes, size_t dimensions) {
    tern_idx idx;
    tern_error err = {0};
    tern_status status = tern_idx_parse(&idx, dimensions, content, bytes, "x", &err);
    if (status && (err.status != status || err.place > bytes)) abort();
    if (status) return;
    size_t total = 1;
    for (size_t i = 0; i < dimensions; i++) total *= idx.dimensions[i];
    if (idx.data + total != content + bytes) abort();
}

static void fuzz_cifar(const uint8_t *content, size_t bytes) {
    size_t records;
    if (tern_cifar_count(&records, bytes, "x", NULL)) return;
    uint8_t *images = malloc(records * 3072), *labels = malloc(records);
    if (!images || !labels) abort();
    if (!tern_cifar_parse(images, labels, content, records, "x", NULL))
        for (size_t i = 0; i < records; i++)
            if (labels[i] >= TERN_CIFAR_CLASSES) abort();
    free(images);
    free(labels);
}

/* What is valid is written back as the same bytes. */
static void fuzz_text(const uint8_t *content, size_t bytes) {
    uint32_t *vocabulary;
    size_t size, characters, at = 0, written = 0;
    if (bytes > 4096 || tern_vocabulary_of(&vocabulary, &size, &characters, content, bytes, "x", NULL)) return;
    for (size_t i = 0; i < characters; i++) {
        uint32_t c = tern_utf8_next(content, bytes, &at);
        int32_t token = tern_vocabulary_find(vocabulary, size, c);
        uint8_t out[4];
        if (token < 0 || (size_t)token >= size || vocabulary[token] != c) abort();
        size_t length = tern_utf8_put(out, c);
        if (memcmp(content + written, out, length)) abort();
        written += length;
    }
    if (at != bytes || written != bytes) abort();
    free(vocabulary);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1) return 0;
    uint8_t *copy = malloc(size); /* its own block, so that an over-read is seen */
    if (!copy) abort();
    memcpy(copy, data + 1, size - 1);
    copy = realloc(copy, size - 1 ? size - 1 : 1);
    switch (data[0] % 5) {
    case 3: fuzz_cifar(copy, size - 1); break;
    case 4: fuzz_text(copy, size - 1); break;
    default: fuzz_idx(copy, size - 1, 1u + data[0] % 5);
    }
    free(copy);
    return 0;
}
