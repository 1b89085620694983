#include "io/data_places.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/error.h"

static tern_status join(char **path, const char *folder, const char *name, const char *suffix, tern_error *err) {
    size_t bytes = strlen(folder) + strlen(name) + strlen(suffix) + 2;
    *path = malloc(bytes);
    if (!*path) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "memory for a path");
    snprintf(*path, bytes, "%s/%s%s", folder, name, suffix);
    return TERN_OK;
}

tern_status tern_find_packed(char **path, const char *folder, const char *name, tern_error *err) {
    static const char *const suffixes[] = {"", ".gz", ".xz"};
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        struct stat st;
        TERN_TRY(join(path, folder, name, suffixes[i], err));
        if (stat(*path, &st) == 0 && !S_ISDIR(st.st_mode)) return TERN_OK;
        free(*path);
        *path = NULL;
    }
    return TERN_OK;
}

static tern_status has_all(int *all, const char *folder, const char *const *names, size_t count, tern_error *err) {
    *all = 1;
    for (size_t i = 0; *all && i < count; i++) {
        char *path = NULL;
        TERN_TRY(tern_find_packed(&path, folder, names[i], err));
        *all = path != NULL;
        free(path);
    }
    return TERN_OK;
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
        int all = 0;
        TERN_TRY(join(folder, places[i], under, "", err));
        tern_status status = has_all(&all, *folder, names, count, err);
        if (!status && all) return TERN_OK;
        free(*folder);
        if (status) return status;
    }
    return tern_fail(
        err, TERN_E_FILE, TERN_NO_PLACE,
        "no %s[.gz|.xz] in $TERN_DATA/%s (%.40s), data/%s, ../shared/data/%s, /usr/share/datasets/%s; %s", names[0],
        under, environment && *environment ? environment : "not set", under, under, under, remedy(kind));
}
