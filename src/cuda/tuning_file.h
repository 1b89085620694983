/* The table of measured kernels of a device, and the file in the user's cache folder that keeps it.
 *
 * The folder is TERN_CACHE, else tern in XDG_CACHE_HOME, else .cache/tern in HOME; TERN_CACHE=off is none. It has one
 * file for each kind of device. No file, a damaged one or one that cannot be written is no failure: the table then
 * lives as long as the process, and `note` says why. */
#ifndef TERN_CUDA_TUNING_FILE_H
#define TERN_CUDA_TUNING_FILE_H

#include "cuda/tuning_table.h"

enum { TERN_TUNING_PATH_BYTES = 1024 };

typedef struct tern_tuning {
    tern_tuning_key key;
    tern_tuning_table table;
    char path[TERN_TUNING_PATH_BYTES]; /* empty: no file is read or written */
    char note[240];                    /* the last thing that went wrong with the file, or empty */
} tern_tuning;

/* The table for this kind of device, empty or what its file holds. files zero: of this device alone, `note` is to say
 * why. Fails for want of memory alone. */
tern_status tern_tuning_open(tern_tuning *tuning, const tern_device_info *info, int files, tern_error *err);

/* Fills in path, or leaves it empty with the reason in note. */
void tern_tuning_find_path(tern_tuning *tuning);

/* Reads the file at path, where there is one. Fails for want of memory alone. */
tern_status tern_tuning_load(tern_tuning *tuning, tern_error *err);

/* Puts a row that was just measured into the table, and into the file with all that were measured here and what other
 * processes have written meanwhile. Fails when the table cannot take the row; what concerns the file goes to note. */
tern_status tern_tuning_store(tern_tuning *tuning, const tern_tuning_row *row, tern_error *err);

#endif
