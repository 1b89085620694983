#include "cuda/tuning_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/printable.h"
#include "io/atomic_file.h"
#include "io/read_file.h"
#include "tern/tern.h"

/* ---- where it lies --------------------------------------------------------------------------------------------- */

static const char *variable(const char *name) {
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

/* The folder of all files; 0 with the reason where there is none, or none that fits. */
static int find_folder(char *folder, size_t bytes, char *why, size_t why_bytes) {
    const char *own = variable("TERN_CACHE"), *cache = variable("XDG_CACHE_HOME"), *home = variable("HOME");
    int length;
    if (cache && cache[0] != '/') cache = NULL; /* the rule for that variable */
    if (own && !strcmp(own, "off")) {
        snprintf(why, why_bytes, "TERN_CACHE=off");
        return 0;
    }
    if (!own && !cache && !home) {
        snprintf(why, why_bytes, "there is no cache folder: TERN_CACHE, XDG_CACHE_HOME and HOME are not set");
        return 0;
    }
    if (own)
        length = snprintf(folder, bytes, "%s", own);
    else if (cache)
        length = snprintf(folder, bytes, "%s/tern", cache);
    else
        length = snprintf(folder, bytes, "%s/.cache/tern", home);
    if (length >= 0 && (size_t)length < bytes) return 1;
    snprintf(why, why_bytes, "the path of the cache folder is too long");
    return 0;
}

/* "NVIDIA H200" as "nvidia-h200". */
static void slug(char *to, const char *name) {
    size_t n = 0;
    for (; *name; name++) {
        const int digit = *name >= '0' && *name <= '9', upper = *name >= 'A' && *name <= 'Z';
        if (digit || upper || (*name >= 'a' && *name <= 'z'))
            to[n++] = (char)(upper ? *name - 'A' + 'a' : *name);
        else if (n && to[n - 1] != '-')
            to[n++] = '-';
    }
    while (n && to[n - 1] == '-') n--;
    to[n] = 0;
}

void tern_tuning_find_path(tern_tuning *tuning) {
    enum { NAME_BYTES = 160 };
    char folder[TERN_TUNING_PATH_BYTES - NAME_BYTES], name[sizeof tuning->key.name];
    const tern_tuning_key *key = &tuning->key;
    tuning->path[0] = 0;
    if (!find_folder(folder, sizeof folder, tuning->note, sizeof tuning->note)) return;
    slug(name, key->name);
    snprintf(tuning->path, sizeof tuning->path, "%s/tuning-%s-%d.%d-%d.txt", folder, name, key->major, key->minor,
             key->multiprocessors);
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

static void say(tern_tuning *tuning, const char *what, const char *why) {
    char shown[72];
    snprintf(tuning->note, sizeof tuning->note, "%s: %s: %.140s",
             tern_printable_path(shown, sizeof shown, tuning->path), what, why);
}

/* *text stays NULL where there is no file. */
static tern_status read_text(char **text, size_t *size, const char *path, tern_error *err) {
    struct stat info;
    *text = NULL;
    const int there = !stat(path, &info);
    if (!there && (errno == ENOENT || errno == ENOTDIR)) return TERN_OK;
    if (there && info.st_size > TERN_TUNING_MAX_BYTES)
        return tern_fail(err, TERN_E_SIZE, TERN_NO_PLACE, "more than %d bytes", TERN_TUNING_MAX_BYTES);
    return tern_file_read(text, size, path, err);
}

/* What the file holds for this device, into an empty table. */
static tern_status read_table(tern_tuning_table *table, tern_tuning *tuning, tern_error *err) {
    char *text = NULL, why[160] = "";
    size_t size = 0, ignored = 0;
    tern_error wrong = {0};
    tern_status status = read_text(&text, &size, tuning->path, &wrong);
    if (!status && text)
        status = tern_tuning_parse(table, &ignored, why, sizeof why, &tuning->key, text, size, &wrong);
    free(text);
    if (status == TERN_E_MEMORY) return tern_fail(err, status, TERN_NO_PLACE, "%s", wrong.message);
    if (status) say(tuning, "ignored", wrong.message);
    if (ignored) say(tuning, "not all of it is taken", why);
    return TERN_OK;
}

tern_status tern_tuning_load(tern_tuning *tuning, tern_error *err) {
    return tuning->path[0] ? read_table(&tuning->table, tuning, err) : TERN_OK;
}

tern_status tern_tuning_open(tern_tuning *tuning, const tern_device_info *info, int files, tern_error *err) {
    char version[48];
    snprintf(version, sizeof version, "%s-%d", tern_version(), TERN_CUDA_BACKEND_VERSION);
    tern_tuning_key_of(&tuning->key, info, version);
    if (files) tern_tuning_find_path(tuning);
    return tern_tuning_load(tuning, err);
}

/* ---- writing --------------------------------------------------------------------------------------------------- */

/* The folder of the file and those above it; nobody else need see what is in them. */
static int make_folders(char *path) {
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        const int made = !mkdir(path, 0700) || errno == EEXIST || errno == EISDIR;
        *slash = '/';
        if (!made && !strchr(slash + 1, '/')) return 0; /* one above may be there and closed to us */
    }
    return 1;
}

/* So that no row is lost when two processes read, add and write at once: whoever holds the folder's lock does all
 * three. Some file systems have no locks; then the last one wins, and what is lost is a measurement. */
static int lock_folder(char *path) {
    char *slash = strrchr(path, '/');
    *slash = 0;
    const int folder = open(*path ? path : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    *slash = '/';
    if (folder >= 0)
        while (flock(folder, LOCK_EX) && errno == EINTR) continue;
    return folder;
}

static tern_status add_measured(tern_tuning_table *table, const tern_tuning_table *from, tern_error *err) {
    for (size_t i = 0; i < from->count; i++)
        if (from->rows[i].measured_here) TERN_TRY(tern_tuning_put(table, &from->rows[i], err));
    return TERN_OK;
}

/* fresh: what the file holds now, and all that was measured here. */
static tern_status write_table(const tern_tuning_table *fresh, const tern_tuning *tuning, tern_error *err) {
    char *text;
    size_t size;
    TERN_TRY(tern_tuning_format(&text, &size, fresh, &tuning->key, err));
    const tern_status status = tern_atomic_file_replace(tuning->path, text, size, err);
    free(text);
    return status;
}

static tern_status merge_file(tern_tuning *tuning, tern_error *err) {
    tern_tuning_table fresh = {0};
    tern_status status = read_table(&fresh, tuning, err);
    if (!status) status = add_measured(&fresh, &tuning->table, err);
    if (!status) status = write_table(&fresh, tuning, err);
    if (status) {
        tern_tuning_free(&fresh);
        return status;
    }
    tern_tuning_free(&tuning->table);
    tuning->table = fresh;
    return TERN_OK;
}

tern_status tern_tuning_store(tern_tuning *tuning, const tern_tuning_row *row, tern_error *err) {
    tern_tuning_row measured = *row;
    tern_error wrong = {0};
    measured.measured_here = 1;
    TERN_TRY(tern_tuning_put(&tuning->table, &measured, err));
    if (!tuning->path[0]) return TERN_OK;
    if (!make_folders(tuning->path)) {
        say(tuning, "not stored: cannot make its folder", strerror(errno));
        return TERN_OK;
    }
    const int folder = lock_folder(tuning->path);
    const tern_status status = merge_file(tuning, &wrong);
    if (folder >= 0) close(folder);
    tuning->note[0] = 0; /* what was damaged has been written anew */
    if (status) say(tuning, "not stored", wrong.message);
    return TERN_OK;
}
