/* Opening data sets, and what can be asked of them. */
#include "io/dataset.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "io/cifar.h"
#include "io/data_places.h"
#include "io/idx.h"
#include "io/image_folder.h"
#include "io/text_tokens.h"
#include "io/unpacked_file.h"

static const char *const kind_names[TERN_DATA_KIND_COUNT] = {"mnist", "fashion-mnist", "cifar-10", "images", "text"};
static const char *const digits[10] = {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"};
static const char *const clothes[10] = {"t-shirt/top", "trouser", "pullover", "dress", "coat",
                                        "sandal",      "shirt",   "sneaker",  "bag",   "ankle boot"};
static const char *const things[10] = {"airplane", "automobile", "bird",  "cat",  "deer",
                                       "dog",      "frog",       "horse", "ship", "truck"};

const char *tern_data_kind_name(tern_data_kind kind) {
    return (unsigned)kind < TERN_DATA_KIND_COUNT ? kind_names[kind] : NULL;
}

tern_status tern_dataset_allocate(tern_dataset *d, const char *path, tern_error *err) {
    size_t bytes = d->info.count;
    if (!tern_checked_mul(&bytes, bytes, d->info.height) || !tern_checked_mul(&bytes, bytes, d->info.width) ||
        !tern_checked_mul(&bytes, bytes, d->info.channels))
        return tern_fail(err, TERN_E_SIZE, TERN_NO_PLACE, "%s: the size of all its images overflows",
                         tern_path_tail(path));
    if (!tern_block_alloc(&d->images, bytes) || !tern_block_alloc(&d->labels, d->info.count))
        return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "%s: %zu bytes for its images", tern_path_tail(path),
                         bytes);
    return TERN_OK;
}

/* ---- files of a folder ----------------------------------------------------------------------------------------- */

/* The folder that the descriptor names, or the default place that has the files: malloc'ed. */
static tern_status find_folder(char **folder, const tern_dataset_desc *desc, const char *const *names, size_t count,
                               tern_error *err) {
    if (!desc->path) return tern_find_place(folder, desc->kind, kind_names[desc->kind], names, count, err);
    *folder = strdup(desc->path);
    if (!*folder) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "memory for a path");
    return TERN_OK;
}

/* One file of a folder, with the path that was found: malloc'ed. */
static tern_status read_file(tern_bytes *content, char **path, const char *folder, const char *name,
                             tern_error *err) {
    TERN_TRY(tern_find_packed(path, folder, name, err));
    if (!*path)
        return tern_fail(err, TERN_E_FILE, TERN_NO_PLACE, "%s: has no %s, plain, .gz or .xz", tern_path_tail(folder),
                         name);
    return tern_read_unpacked(content, *path, err);
}

/* ---- MNIST and its like ---------------------------------------------------------------------------------------- */

typedef struct idx_file {
    char *path;
    tern_bytes content;
    tern_idx idx;
} idx_file;

static tern_status read_idx(idx_file *f, const char *folder, const char *name, size_t dimensions, tern_error *err) {
    TERN_TRY(read_file(&f->content, &f->path, folder, name, err));
    return tern_idx_parse(&f->idx, dimensions, f->content.data, f->content.size, f->path, err);
}

static tern_status check_labels(const idx_file *labels, size_t count, tern_error *err) {
    enum { HEADER = 8, CLASSES = 10 };
    const char *name = tern_path_tail(labels->path);
    if (labels->idx.dimensions[0] != count)
        return tern_fail(err, TERN_E_DATA, 4, "%s: byte 4: %zu labels, but there are %zu images", name,
                         labels->idx.dimensions[0], count);
    for (size_t i = 0; i < count; i++)
        if (labels->idx.data[i] >= CLASSES)
            return tern_fail(err, TERN_E_DATA, HEADER + i, "%s: byte %zu: label %d; there are %d classes", name,
                             HEADER + i, labels->idx.data[i], CLASSES);
    return TERN_OK;
}

static tern_status take_idx(tern_dataset *d, const idx_file *images, const idx_file *labels, tern_error *err) {
    const size_t *dimensions = images->idx.dimensions;
    TERN_TRY(check_labels(labels, dimensions[0], err));
    d->info.count = dimensions[0];
    d->info.height = dimensions[1];
    d->info.width = dimensions[2];
    d->info.channels = 1;
    TERN_TRY(tern_dataset_allocate(d, images->path, err));
    memcpy(d->images.data, images->idx.data, d->images.bytes);
    memcpy(d->labels.data, labels->idx.data, d->labels.bytes);
    return TERN_OK;
}

static tern_status load_mnist(tern_dataset *d, const tern_dataset_desc *desc, tern_error *err) {
    static const char *const names[2][2] = {{"train-images-idx3-ubyte", "train-labels-idx1-ubyte"},
                                            {"t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"}};
    const char *const *wanted = names[desc->split];
    char *folder;
    TERN_TRY(find_folder(&folder, desc, wanted, 2, err));
    idx_file images = {0}, labels = {0};
    tern_status status = read_idx(&images, folder, wanted[0], 3, err);
    if (!status) status = read_idx(&labels, folder, wanted[1], 1, err);
    if (!status) status = take_idx(d, &images, &labels, err);
    tern_bytes_free(&images.content);
    tern_bytes_free(&labels.content);
    free(images.path);
    free(labels.path);
    free(folder);
    d->info.classes = 10;
    d->names = desc->kind == TERN_DATA_MNIST ? digits : clothes;
    return status;
}

/* ---- CIFAR-10 -------------------------------------------------------------------------------------------------- */

enum { CIFAR_FILES = 5 };

typedef struct cifar_file {
    char *path;
    tern_bytes content;
    tern_status status;
    tern_error error; /* its own: the files are read side by side */
} cifar_file;

static tern_status take_cifar(tern_dataset *d, const cifar_file *files, size_t count, tern_error *err) {
    size_t records = 0;
    for (size_t i = 0; i < count; i++) {
        size_t found;
        TERN_TRY(tern_cifar_count(&found, files[i].content.size, files[i].path, err));
        if (i && found != records) /* a file that was cut off between two records */
            return tern_fail(err, TERN_E_DATA, files[i].content.size, "%s: has %zu records, the first file %zu",
                             tern_path_tail(files[i].path), found, records);
        records = found;
    }
    d->info.count = count * records;
    d->info.height = d->info.width = TERN_CIFAR_SIDE;
    d->info.channels = 3;
    TERN_TRY(tern_dataset_allocate(d, files[0].path, err));
    uint8_t *images = d->images.data, *labels = d->labels.data;
    for (size_t i = 0; i < count; i++)
        TERN_TRY(tern_cifar_parse(images + i * records * TERN_CIFAR_PIXELS * 3, labels + i * records,
                                  files[i].content.data, records, files[i].path, err));
    return TERN_OK;
}

static tern_status load_cifar(tern_dataset *d, const tern_dataset_desc *desc, tern_error *err) {
    static const char *const train[CIFAR_FILES] = {"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin",
                                                   "data_batch_4.bin", "data_batch_5.bin"};
    static const char *const test[1] = {"test_batch.bin"};
    const char *const *names = desc->split == TERN_SPLIT_TRAIN ? train : test;
    const int count = desc->split == TERN_SPLIT_TRAIN ? CIFAR_FILES : 1;
    char *folder;
    TERN_TRY(find_folder(&folder, desc, names, (size_t)count, err));
    cifar_file files[CIFAR_FILES] = {{0}};
/* Unpacking .xz is most of the time. */
#pragma omp parallel for schedule(dynamic, 1)
    for (int i = 0; i < count; i++)
        files[i].status = read_file(&files[i].content, &files[i].path, folder, names[i], &files[i].error);
    tern_status status = TERN_OK;
    for (int i = 0; i < count && !status; i++) {
        status = files[i].status;
        if (status && err) *err = files[i].error;
    }
    if (!status) status = take_cifar(d, files, (size_t)count, err);
    for (int i = 0; i < count; i++) {
        tern_bytes_free(&files[i].content);
        free(files[i].path);
    }
    free(folder);
    d->info.classes = TERN_CIFAR_CLASSES;
    d->names = things;
    return status;
}

/* ---- text ------------------------------------------------------------------------------------------------------ */

static tern_status find_text(char **path, const tern_dataset_desc *desc, tern_error *err) {
    static const char *const name = "tinyshakespeare.txt";
    char *folder;
    if (desc->path) {
        *path = strdup(desc->path);
        return *path ? TERN_OK : tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "memory for a path");
    }
    TERN_TRY(tern_find_place(&folder, TERN_DATA_TEXT, kind_names[TERN_DATA_TEXT], &name, 1, err));
    tern_status status = tern_find_packed(path, folder, name, err);
    free(folder);
    if (!status && !*path) /* it was there a moment ago */
        return tern_fail(err, TERN_E_FILE, TERN_NO_PLACE, "%s is gone", name);
    return status;
}

/* Tokens first to first + count of a text that is known to be UTF-8 and of this vocabulary. */
static void tokenize(uint16_t *out, const tern_dataset *d, const uint8_t *text, size_t bytes, size_t first) {
    size_t count = d->info.tokens, at = 0;
    if (!d->vocabulary) {
        for (size_t i = 0; i < count; i++) out[i] = text[first + i];
        return;
    }
    for (size_t i = 0; i < first; i++) tern_utf8_next(text, bytes, &at);
    for (size_t i = 0; i < count; i++)
        out[i] = (uint16_t)tern_vocabulary_find(d->vocabulary, d->info.vocabulary, tern_utf8_next(text, bytes, &at));
}

static tern_status take_text(tern_dataset *d, const tern_dataset_desc *desc, const tern_bytes *text, const char *path,
                             tern_error *err) {
    size_t total = text->size;
    d->info.vocabulary = 256;
    if (desc->unit == TERN_TEXT_CHARACTERS)
        TERN_TRY(tern_vocabulary_of(&d->vocabulary, &d->info.vocabulary, &total, text->data, text->size, path, err));
    double share = desc->train_share == 0 ? 0.9 : desc->train_share;
    size_t train = (size_t)((double)total * share);
    d->info.tokens = desc->split == TERN_SPLIT_TRAIN ? train : total - train;
    if (d->info.tokens == 0)
        return tern_fail(err, TERN_E_DATA, TERN_NO_PLACE,
                         "%s: %zu tokens, none of them for this split at a share of %g", tern_path_tail(path), total,
                         share);
    if (!tern_block_alloc(&d->tokens, d->info.tokens * sizeof(uint16_t))) /* below 2^33 bytes */
        return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "%s: memory for %zu tokens", tern_path_tail(path),
                         d->info.tokens);
    tokenize(d->tokens.data, d, text->data, text->size, desc->split == TERN_SPLIT_TRAIN ? 0 : train);
    return TERN_OK;
}

static tern_status load_text(tern_dataset *d, const tern_dataset_desc *desc, tern_error *err) {
    TERN_CHECK_ARGUMENT(desc->train_share >= 0 && desc->train_share <= 1, err, "train_share = %g is not in 0..1",
                        desc->train_share);
    TERN_CHECK_ARGUMENT((unsigned)desc->unit <= TERN_TEXT_BYTES, err, "unit = %d is none", (int)desc->unit);
    char *path = NULL;
    tern_bytes text = {0};
    TERN_TRY(find_text(&path, desc, err));
    tern_status status = tern_read_unpacked(&text, path, err);
    if (!status) status = take_text(d, desc, &text, path, err);
    tern_bytes_free(&text);
    free(path);
    return status;
}

/* ---- opening and closing --------------------------------------------------------------------------------------- */

static tern_status load_images(tern_dataset *d, const tern_dataset_desc *desc, tern_error *err) {
    TERN_CHECK_ARGUMENT(desc->path, err, "path is NULL: a folder of images has no default place");
    TERN_CHECK_ARGUMENT(desc->channels == 0 || desc->channels == 1 || desc->channels == 3, err,
                        "channels = %zu; an image has 1 or 3, and 0 takes those of the first", desc->channels);
    return tern_image_folder_load(d, desc, err);
}

static tern_status load(tern_dataset *d, const tern_dataset_desc *desc, tern_error *err) {
    switch (desc->kind) {
    case TERN_DATA_MNIST:
    case TERN_DATA_FASHION_MNIST: return load_mnist(d, desc, err);
    case TERN_DATA_CIFAR10: return load_cifar(d, desc, err);
    case TERN_DATA_IMAGES: return load_images(d, desc, err);
    default: return load_text(d, desc, err);
    }
}

tern_status tern_dataset_open(tern_dataset **out, const tern_dataset_desc *desc, tern_error *err) {
    TERN_CHECK_ARGUMENT(out, err, "out is NULL");
    TERN_CHECK_ARGUMENT(desc, err, "desc is NULL");
    TERN_CHECK_ARGUMENT(tern_data_kind_name(desc->kind), err, "kind = %d is none", (int)desc->kind);
    TERN_CHECK_ARGUMENT((unsigned)desc->split <= TERN_SPLIT_TEST, err, "split = %d is none", (int)desc->split);
    tern_dataset *d = calloc(1, sizeof *d);
    if (!d) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "%zu bytes for a data set", sizeof *d);
    d->info.kind = desc->kind;
    d->info.split = desc->split;
    tern_status status = load(d, desc, err);
    if (status)
        tern_dataset_close(&d);
    else
        *out = d;
    return status;
}

void tern_dataset_close(tern_dataset **dataset) {
    if (!dataset || !*dataset) return;
    tern_dataset *d = *dataset;
    tern_block_free(&d->images);
    tern_block_free(&d->labels);
    tern_block_free(&d->tokens);
    for (size_t i = 0; d->owned_names && i < d->info.classes; i++) free(d->owned_names[i]);
    free(d->owned_names);
    free(d->vocabulary);
    free(d);
    *dataset = NULL;
}

/* ---- asking ---------------------------------------------------------------------------------------------------- */

tern_status tern_dataset_describe(tern_dataset_info *info, const tern_dataset *dataset, tern_error *err) {
    TERN_CHECK_ARGUMENT(info, err, "info is NULL");
    TERN_CHECK_ARGUMENT(dataset, err, "dataset is NULL");
    *info = dataset->info;
    return TERN_OK;
}

const uint8_t *tern_dataset_images(const tern_dataset *d) { return d ? d->images.data : NULL; }
const uint8_t *tern_dataset_labels(const tern_dataset *d) { return d ? d->labels.data : NULL; }
const uint16_t *tern_dataset_tokens(const tern_dataset *d) { return d ? d->tokens.data : NULL; }
const uint32_t *tern_dataset_vocabulary(const tern_dataset *d) { return d ? d->vocabulary : NULL; }

const char *tern_dataset_class_name(const tern_dataset *d, size_t label) {
    return d && d->names && label < d->info.classes ? d->names[label] : NULL;
}

tern_status tern_dataset_moments(float *mean, float *std, const tern_dataset *d, tern_error *err) {
    TERN_CHECK_ARGUMENT(mean, err, "mean is NULL");
    TERN_CHECK_ARGUMENT(std, err, "std is NULL");
    TERN_CHECK_ARGUMENT(d && d->images.data, err, "dataset %s", d ? "has no images" : "is NULL");
    const size_t channels = d->info.channels, pixels = d->images.bytes / channels;
    const uint8_t *images = d->images.data;
    for (size_t c = 0; c < channels; c++) {
        uint64_t histogram[256] = {0};
        for (size_t i = 0; i < pixels; i++) histogram[images[i * channels + c]]++;
        double sum = 0, squares = 0;
        for (int v = 0; v < 256; v++) sum += (double)histogram[v] * v;
        double centre = sum / (double)pixels;
        for (int v = 0; v < 256; v++) squares += (double)histogram[v] * (v - centre) * (v - centre);
        double deviation = sqrt(squares / (double)pixels);
        mean[c] = (float)(centre / 255);
        std[c] = deviation > 0 ? (float)(deviation / 255) : 1;
    }
    return TERN_OK;
}

/* ---- text and tokens ------------------------------------------------------------------------------------------- */

static tern_status check_text(const tern_dataset *d, tern_error *err) {
    TERN_CHECK_ARGUMENT(d, err, "dataset is NULL");
    TERN_CHECK_ARGUMENT(d->info.kind == TERN_DATA_TEXT, err, "dataset is not a text");
    return TERN_OK;
}

static tern_status next_token(int32_t *token, const tern_dataset *d, const uint8_t *text, size_t bytes, size_t *at,
                              tern_error *err) {
    if (!d->vocabulary) {
        *token = text[(*at)++];
        return TERN_OK;
    }
    size_t before = *at;
    uint32_t c = tern_utf8_next(text, bytes, at);
    if (c == UINT32_MAX) return tern_fail(err, TERN_E_DATA, before, "byte %zu: the text is not UTF-8", before);
    *token = tern_vocabulary_find(d->vocabulary, d->info.vocabulary, c);
    if (*token < 0)
        return tern_fail(err, TERN_E_DATA, before, "byte %zu: U+%04X is not in the vocabulary of %zu characters",
                         before, c, d->info.vocabulary);
    return TERN_OK;
}

tern_status tern_dataset_encode(const tern_dataset *d, uint16_t *tokens, size_t capacity, size_t *count,
                                const char *text, size_t bytes, tern_error *err) {
    TERN_TRY(check_text(d, err));
    TERN_CHECK_ARGUMENT(count, err, "count is NULL");
    TERN_CHECK_ARGUMENT(tokens || capacity == 0, err, "tokens is NULL");
    TERN_CHECK_ARGUMENT(text || bytes == 0, err, "text is NULL");
    size_t n = 0;
    for (size_t at = 0; at < bytes; n++) {
        int32_t token = 0;
        TERN_TRY(next_token(&token, d, (const uint8_t *)text, bytes, &at, err));
        if (n < capacity) tokens[n] = (uint16_t)token;
    }
    *count = n;
    if (n > capacity)
        return tern_fail(err, TERN_E_SIZE, TERN_NO_PLACE, "%zu tokens; there is room for %zu", n, capacity);
    return TERN_OK;
}

tern_status tern_dataset_decode(const tern_dataset *d, char *text, size_t capacity, size_t *bytes,
                                const uint16_t *tokens, size_t count, tern_error *err) {
    TERN_TRY(check_text(d, err));
    TERN_CHECK_ARGUMENT(bytes, err, "bytes is NULL");
    TERN_CHECK_ARGUMENT(text || capacity == 0, err, "text is NULL");
    TERN_CHECK_ARGUMENT(tokens || count == 0, err, "tokens is NULL");
    size_t n = 0;
    for (size_t i = 0; i < count; i++) {
        if (tokens[i] >= d->info.vocabulary)
            return tern_fail(err, TERN_E_DATA, i, "tokens[%zu] = %d; the vocabulary has %zu", i, tokens[i],
                             d->info.vocabulary);
        uint8_t out[4] = {(uint8_t)tokens[i]};
        size_t length = d->vocabulary ? tern_utf8_put(out, d->vocabulary[tokens[i]]) : 1;
        if (n + length < capacity) memcpy(text + n, out, length);
        n += length;
    }
    *bytes = n;
    if (n >= capacity)
        return tern_fail(err, TERN_E_SIZE, TERN_NO_PLACE, "%zu bytes and a zero; there is room for %zu", n, capacity);
    text[n] = 0;
    return TERN_OK;
}
