/* Where data sets are looked for. */
#ifndef TERN_IO_DATA_PLACES_H
#define TERN_IO_DATA_PLACES_H

#include <stddef.h>

#include "tern/data.h"

/* *path: FOLDER/NAME, or the same with .gz or .xz, whichever is there: malloc'ed. NULL if none is. */
tern_status tern_find_packed(char **path, const char *folder, const char *name, tern_error *err);

/* The first default place in which all of `names` can be found (count of them): malloc'ed. TERN_E_FILE with the
 * places and the remedy in the message if there is none. `under` is the data set's folder below each place. */
tern_status tern_find_place(char **folder, tern_data_kind kind, const char *under, const char *const *names,
                            size_t count, tern_error *err);

#endif
