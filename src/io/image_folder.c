#include "io/image_folder.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "base/error.h"
#include "io/image_decode.h"
#include "io/unpacked_file.h"

/* ---- listing folders ------------------------------------------------------------------------------------------- */

typedef struct names {
    char **list;
    size_t count, capacity;
} names;

static void free_names(names *n) {
    for (size_t i = 0; i < n->count; i++) free(n->list[i]);
    free(n->list);
    *n = (names){0};
}

static int add_name(names *n, const char *name) {
    if (n->count == n->capacity) {
        size_t capacity = n->capacity ? 2 * n->capacity : 64;
        char **list = realloc(n->list, capacity * sizeof *list);
        if (!list) return 0;
        n->list = list;
        n->capacity = capacity;
    }
    n->list[n->count] = strdup(name);
    if (!n->list[n->count]) return 0;
    n->count++;
    return 1;
}

static int by_bytes(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static int is_image_name(const char *name) {
    const char *dot = strrchr(name, '.');
    return dot && (!strcasecmp(dot, ".png") || !strcasecmp(dot, ".jpg") || !strcasecmp(dot, ".jpeg"));
}

static char *join_path(const char *folder, const char *name) {
    size_t bytes = strlen(folder) + strlen(name) + 2;
    char *path = malloc(bytes);
    if (path) snprintf(path, bytes, "%s/%s", folder, name);
    return path;
}

static int is_folder(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static tern_status no_memory(tern_error *err) {
    return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "memory for the names of files");
}

/* The folders in a folder, or the images in it, sorted; hidden ones are left out. */
static tern_status list_folder(names *out, const char *folder, int folders, tern_error *err) {
    DIR *directory = opendir(folder);
    if (!directory)
        return tern_fail(err, TERN_E_FILE, TERN_NO_PLACE, "%s: cannot be listed: %s", tern_path_tail(folder),
                         strerror(errno));
    tern_status status = TERN_OK;
    for (struct dirent *entry; !status && (entry = readdir(directory));) {
        if (entry->d_name[0] == '.' || (!folders && !is_image_name(entry->d_name))) continue;
        char *path = join_path(folder, entry->d_name);
        if (!path || (is_folder(path) == folders && !add_name(out, entry->d_name))) status = no_memory(err);
        free(path);
    }
    closedir(directory);
    if (out->count) qsort(out->list, out->count, sizeof *out->list, by_bytes);
    return status;
}

/* ---- what is to be read ---------------------------------------------------------------------------------------- */

typedef struct listing {
    names classes;
    names files;  /* whole paths, class by class */
    size_t *ends; /* [classes]: files up to and with this class */
} listing;

static void free_listing(listing *l) {
    free_names(&l->classes);
    free_names(&l->files);
    free(l->ends);
}

static tern_status list_class(listing *l, const char *folder, size_t label, tern_error *err) {
    char *path = join_path(folder, l->classes.list[label]);
    if (!path) return no_memory(err);
    names images = {0};
    tern_status status = list_folder(&images, path, 0, err);
    if (!status && images.count == 0)
        status =
            tern_fail(err, TERN_E_DATA, TERN_NO_PLACE, "%s: has no .png, .jpg or .jpeg file", tern_path_tail(path));
    for (size_t i = 0; !status && i < images.count; i++) {
        char *file = join_path(path, images.list[i]);
        if (!file || !add_name(&l->files, file)) status = no_memory(err);
        free(file);
    }
    l->ends[label] = l->files.count;
    free_names(&images);
    free(path);
    return status;
}

static tern_status list_all(listing *l, const char *folder, tern_error *err) {
    TERN_TRY(list_folder(&l->classes, folder, 1, err));
    if (l->classes.count == 0 || l->classes.count > TERN_MAX_CLASSES)
        return tern_fail(err, TERN_E_DATA, TERN_NO_PLACE, "%s: has %zu folders; one per class was expected, 1 to %d",
                         tern_path_tail(folder), l->classes.count, TERN_MAX_CLASSES);
    l->ends = calloc(l->classes.count, sizeof *l->ends);
    if (!l->ends) return no_memory(err);
    for (size_t c = 0; c < l->classes.count; c++) TERN_TRY(list_class(l, folder, c, err));
    return TERN_OK;
}

/* PATH/train or PATH/test where there is one of them; else PATH itself is for training. */
static tern_status choose_folder(char **folder, const char *path, tern_split split, tern_error *err) {
    char *train = join_path(path, "train"), *test = join_path(path, "test");
    tern_status status = train && test ? TERN_OK : no_memory(err);
    *folder = NULL;
    if (!status) {
        char **wanted = split == TERN_SPLIT_TEST ? &test : &train;
        int splits = is_folder(train) || is_folder(test);
        if (is_folder(*wanted)) {
            *folder = *wanted;
            *wanted = NULL;
        } else if (splits || split == TERN_SPLIT_TEST) {
            status =
                tern_fail(err, TERN_E_FILE, TERN_NO_PLACE, "%s: there is no such folder", tern_path_tail(*wanted));
        } else if (!(*folder = strdup(path))) {
            status = no_memory(err);
        }
    }
    free(train);
    free(test);
    return status;
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

static tern_status choose_size(tern_dataset_info *info, const tern_dataset_desc *desc, const char *first,
                               tern_error *err) {
    tern_image_info image = {0};
    TERN_TRY(tern_image_describe(&image, first, err));
    info->height = desc->height ? desc->height : image.height;
    info->width = desc->width ? desc->width : image.width;
    info->channels = desc->channels ? desc->channels : image.channels;
    return TERN_OK;
}

static tern_status read_image(uint8_t *out, const tern_dataset_info *info, int convert, const char *path,
                              tern_error *err) {
    tern_bytes content;
    tern_image_info image;
    TERN_TRY(tern_read_unpacked(&content, path, err));
    tern_status status = tern_image_parse(&image, content.data, content.size, path, err);
    if (!status && !convert && image.channels != info->channels)
        status = tern_fail(err, TERN_E_DATA, TERN_NO_PLACE,
                           "%s: has %zu channels, the first image %zu; set channels to convert all of them",
                           tern_path_tail(path), image.channels, info->channels);
    if (!status)
        status =
            tern_image_decode(out, info->height, info->width, info->channels, content.data, content.size, path, err);
    tern_bytes_free(&content);
    return status;
}

/* The failure of the first file that has one, whichever thread met it when. */
typedef struct failure {
    size_t file;
    tern_status status;
    tern_error error;
} failure;

static void note_failure(failure *first, size_t file, tern_status status, const tern_error *error) {
#pragma omp critical(tern_image_folder_failure)
    if (file < first->file) *first = (failure){file, status, *error};
}

static tern_status read_all(tern_dataset *d, const listing *l, const tern_dataset_desc *desc, tern_error *err) {
    TERN_TRY(choose_size(&d->info, desc, l->files.list[0], err));
    d->info.count = l->files.count;
    TERN_TRY(tern_dataset_allocate(d, desc->path, err));
    const size_t count = d->info.count, bytes = d->info.height * d->info.width * d->info.channels;
    uint8_t *images = d->images.data, *labels = d->labels.data;
    for (size_t i = 0, label = 0; i < count; i++) {
        while (i >= l->ends[label]) label++;
        labels[i] = (uint8_t)label;
    }
    failure first = {.file = SIZE_MAX};
#pragma omp parallel for schedule(dynamic, 16)
    for (size_t i = 0; i < count; i++) {
        tern_error error;
        tern_status status = read_image(images + i * bytes, &d->info, desc->channels != 0, l->files.list[i], &error);
        if (status) note_failure(&first, i, status, &error);
    }
    if (first.status && err) *err = first.error;
    return first.status;
}

tern_status tern_image_folder_load(tern_dataset *dataset, const tern_dataset_desc *desc, tern_error *err) {
    char *folder;
    TERN_TRY(choose_folder(&folder, desc->path, desc->split, err));
    listing l = {0};
    tern_status status = list_all(&l, folder, err);
    if (!status) status = read_all(dataset, &l, desc, err);
    if (!status) { /* the data set takes the names over */
        dataset->info.classes = l.classes.count;
        dataset->owned_names = l.classes.list;
        dataset->names = (const char *const *)l.classes.list;
        l.classes = (names){0};
    }
    free_listing(&l);
    free(folder);
    return status;
}
