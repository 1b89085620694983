#include "io/data_places.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/error.h"

static char *join(const char *folder, const char *name, const char *suffix) {
    size_t bytes = strlen(folder) + strlen(name) + strlen(suffix) + 2;
    char *path = malloc(bytes);
    if (path) snprintf(path, bytes, "%s/%s%s", folder, name, suffix);
    return path;
}

char *tern_find_packed(const char *folder, const char *name) {
    static const char *const suffixes[] = {"", ".gz", ".xz"};
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        char *path = join(folder, name, suffixes[i]);
        struct stat st;
        if (path && stat(path, &st) == 0 && !S_ISDIR(st.st_mode)) return path;
        free(path);
    }
    return NULL;
}

static int has_all(const char *folder, const char *const *names, size_t count) {
    for (size_t i = 0; i < count; i++) {
        char *path = tern_find_packed(folder, names[i]);
        free(path);
        if (!path) return 0;
    }
    return 1;
}

static const char *remedy(tern_data_kind kind) {
    switch (kind) {
    case TERN_DATA_FASHION_MNIST: return "`apt-get install dataset-fashion-mnist` installs it";
    case TERN_DATA_MNIST: return "`tern data mnist` fetches it";
    case TERN_DATA_CIFAR10: return "`tern data cifar-10` fetches it";
    case TERN_DATA_TEXT: return "`tern data text` fetches it";
    default: return "give its path";
    }
}

tern_status tern_find_place(char **folder, tern_data_kind kind, const char *under, const char *const *names,
                            size_t count, tern_error *err) {
    const char *environment = getenv("TERN_DATA");
    const char *const places[] = {environment, "data", "../shared/data", "/usr/share/datasets"};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        if (!places[i] || !*places[i]) continue;
        char *path = join(places[i], under, "");
        if (!path) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "memory for a path");
        if (has_all(path, names, count)) {
            *folder = path;
            return TERN_OK;
        }
        free(path);
    }
    return tern_fail(
        err, TERN_E_FILE, TERN_NO_PLACE,
        "no %s[.gz|.xz] in $TERN_DATA/%s (%.40s), data/%s, ../shared/data/%s, /usr/share/datasets/%s; %s", names[0],
        under, environment && *environment ? environment : "not set", under, under, under, remedy(kind));
}
