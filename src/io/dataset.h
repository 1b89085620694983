/* What a data set holds. */
#ifndef TERN_IO_DATASET_H
#define TERN_IO_DATASET_H

#include "base/memory.h"
#include "tern/data.h"

enum { TERN_MAX_CLASSES = 256 };

struct tern_dataset {
    tern_dataset_info info;
    tern_block images;        /* [count][H][W][C] uint8 */
    tern_block labels;        /* [count] uint8 */
    tern_block tokens;        /* [tokens] uint16 */
    const char *const *names; /* [classes] */
    char **owned_names;       /* `names` where they were read, each malloc'ed; else NULL */
    uint32_t *vocabulary;     /* code points; NULL for bytes */
};

/* Room for info.count images of the size in info, and their labels. */
tern_status tern_dataset_allocate(tern_dataset *dataset, const char *path, tern_error *err);

#endif
