#include "io/cifar.h"

#include "base/error.h"
#include "io/unpacked_file.h"

tern_status tern_cifar_count(size_t *records, size_t bytes, const char *path, tern_error *err) {
    if (bytes == 0 || bytes % TERN_CIFAR_RECORD)
        return tern_fail(err, TERN_E_DATA, bytes,
                         "%s: has %zu bytes; whole records of %d were expected (10000 of them in the original)",
                         tern_path_tail(path), bytes, TERN_CIFAR_RECORD);
    *records = bytes / TERN_CIFAR_RECORD;
    return TERN_OK;
}

tern_status tern_cifar_parse(uint8_t *images, uint8_t *labels, const uint8_t *content, size_t records,
                             const char *path, tern_error *err) {
    for (size_t i = 0; i < records; i++) {
        const uint8_t *record = content + i * TERN_CIFAR_RECORD, *planes = record + 1;
        uint8_t *image = images + i * TERN_CIFAR_PIXELS * 3;
        if (record[0] >= TERN_CIFAR_CLASSES)
            return tern_fail(err, TERN_E_DATA, i * TERN_CIFAR_RECORD, "%s: byte %zu: label %d; there are %d classes",
                             tern_path_tail(path), i * TERN_CIFAR_RECORD, record[0], TERN_CIFAR_CLASSES);
        labels[i] = record[0];
        for (size_t p = 0; p < TERN_CIFAR_PIXELS; p++)
            for (size_t c = 0; c < 3; c++) image[3 * p + c] = planes[c * TERN_CIFAR_PIXELS + p];
    }
    return TERN_OK;
}
