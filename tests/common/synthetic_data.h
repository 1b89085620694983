/* Small data sets of noise, in files as MNIST has them. */
#ifndef TERN_TEST_SYNTHETIC_DATA_H
#define TERN_TEST_SYNTHETIC_DATA_H

#include "base/random.h"
#include "testing.h"

/* One split: images [count][side][side] of noise, labels 0 to 9 in turn. */
static inline void put_idx_split(const temporary_folder *folder, const char *split, uint8_t count, uint8_t side) {
    char name[64];
    size_t pixels = (size_t)count * side * side;
    uint8_t *images = malloc(16 + pixels), *labels = malloc(8 + (size_t)count);
    assert_non_null(images);
    assert_non_null(labels);
    memcpy(images, (const uint8_t[16]){0, 0, 8, 3, 0, 0, 0, count, 0, 0, 0, side, 0, 0, 0, side}, 16);
    memcpy(labels, (const uint8_t[8]){0, 0, 8, 1, 0, 0, 0, count}, 8);
    for (size_t i = 0; i < pixels; i++) images[16 + i] = (uint8_t)tern_random_u32(11, i);
    for (size_t i = 0; i < count; i++) labels[8 + i] = (uint8_t)(i % 10);
    snprintf(name, sizeof name, "%s-images-idx3-ubyte", split);
    folder_put(folder, name, images, 16 + pixels);
    snprintf(name, sizeof name, "%s-labels-idx1-ubyte", split);
    folder_put(folder, name, labels, 8 + (size_t)count);
    free(images);
    free(labels);
}

static inline void put_mnist(const temporary_folder *folder, uint8_t count, uint8_t side) {
    put_idx_split(folder, "train", count, side);
    put_idx_split(folder, "t10k", count, side);
}

#endif
