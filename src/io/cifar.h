/* CIFAR-10's binary files: records of one label byte, then 1024 red, 1024 green and 1024 blue, rows from the top. */
#ifndef TERN_IO_CIFAR_H
#define TERN_IO_CIFAR_H

#include <stddef.h>
#include <stdint.h>

#include "tern/status.h"

enum { TERN_CIFAR_SIDE = 32, TERN_CIFAR_CLASSES = 10, TERN_CIFAR_PIXELS = 1024, TERN_CIFAR_RECORD = 3073 };

/* Records in a file; an empty one and one that ends inside a record are errors. */
tern_status tern_cifar_count(size_t *records, size_t bytes, const char *path, tern_error *err);

/* images: [records][32][32][3], labels: [records]. */
tern_status tern_cifar_parse(uint8_t *images, uint8_t *labels, const uint8_t *content, size_t records,
                             const char *path, tern_error *err);

#endif
