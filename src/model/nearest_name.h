/* What somebody may have meant. */
#ifndef TERN_MODEL_NEAREST_NAME_H
#define TERN_MODEL_NEAREST_NAME_H

#include <stddef.h>

#include "tern/status.h"

/* Among `count` names the one that takes the fewest edits to reach from `wrong`; NULL when none is near. */
const char *tern_nearest_name(const char *wrong, const char *const *names, size_t count);

/* TERN_E_ARGUMENT: there is no `what` of this name, with the nearest, or without one `list`, which says where they
 * are listed. */
tern_status tern_unknown_name(const char *what, const char *name, const char *const *names, size_t count,
                              const char *list, tern_error *err);

#endif
