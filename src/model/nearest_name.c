#include "model/nearest_name.h"

#include <string.h>

#include "base/error.h"

/* Levenshtein's distance, at most `limit`; names are short. */
static size_t edits(const char *a, const char *b, size_t limit) {
    size_t la = strlen(a), lb = strlen(b), row[64];
    if (la > 60 || lb > 60) return limit;
    for (size_t j = 0; j <= lb; j++) row[j] = j;
    for (size_t i = 1; i <= la; i++) {
        size_t corner = row[0];
        row[0] = i;
        for (size_t j = 1; j <= lb; j++) {
            size_t replaced = corner + (a[i - 1] != b[j - 1]);
            corner = row[j];
            size_t best = row[j] < row[j - 1] ? row[j] + 1 : row[j - 1] + 1;
            row[j] = best < replaced ? best : replaced;
        }
    }
    return row[lb] < limit ? row[lb] : limit;
}

const char *tern_nearest_name(const char *wrong, const char *const *names, size_t count) {
    const char *best = NULL;
    size_t least = strlen(wrong) / 2 + 2;
    for (size_t i = 0; i < count; i++) {
        size_t n = edits(wrong, names[i], least);
        if (n < least) {
            least = n;
            best = names[i];
        }
    }
    return best;
}

tern_status tern_unknown_name(const char *what, const char *name, const char *const *names, size_t count,
                              const char *list, tern_error *err) {
    const char *near = tern_nearest_name(name, names, count);
    return near ? tern_fail(err, TERN_E_ARGUMENT, TERN_NO_PLACE, "there is no %s '%.60s'; did you mean '%s'?", what,
                            name, near)
                : tern_fail(err, TERN_E_ARGUMENT, TERN_NO_PLACE, "there is no %s '%.60s'; %s", what, name, list);
}
