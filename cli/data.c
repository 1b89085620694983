/* tern data: fetches data sets, checks every byte of them, and puts them where they are looked for. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli.h"
#include "fetch.h"
#include "sha256.h"

static const char help[] =
    "usage: tern data NAME [--from URL] [--to FOLDER]\n\n"
    "Fetches a data set and puts its files, unpacked, into FOLDER/NAME. Their SHA-256 is built in, so it does not\n"
    "matter where they come from. Files that are there already are only checked.\n\n"
    "  NAME         mnist, fashion-mnist, cifar-10 or text (tinyshakespeare)\n"
    "  --from URL   another place that has the same files: http, https or file\n"
    "  --to FOLDER  default: $TERN_DATA, or data\n\n"
    "Example:\n  tern data cifar-10\n";

typedef struct content {
    const char *name, *sha256; /* of the file as it is kept, unpacked */
    const char *remote; /* the file of the source that has it; a .tar.gz may have several, one after the other */
} content;

typedef struct source {
    const char *name, *from;
    const content *files;
    size_t count;
} source;

static const content mnist[] = {
    {"train-images-idx3-ubyte", "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
     "train-images-idx3-ubyte.gz"},
    {"train-labels-idx1-ubyte", "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
     "train-labels-idx1-ubyte.gz"},
    {"t10k-images-idx3-ubyte", "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
     "t10k-images-idx3-ubyte.gz"},
    {"t10k-labels-idx1-ubyte", "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
     "t10k-labels-idx1-ubyte.gz"},
};
static const content fashion_mnist[] = {
    {"train-images-idx3-ubyte", "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
     "train-images-idx3-ubyte.gz"},
    {"train-labels-idx1-ubyte", "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
     "train-labels-idx1-ubyte.gz"},
    {"t10k-images-idx3-ubyte", "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
     "t10k-images-idx3-ubyte.gz"},
    {"t10k-labels-idx1-ubyte", "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
     "t10k-labels-idx1-ubyte.gz"},
};
static const char cifar_archive[] = "cifar-10-binary.tar.gz";
static const content cifar[] = {
    {"data_batch_1.bin", "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5", cifar_archive},
    {"data_batch_2.bin", "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed", cifar_archive},
    {"data_batch_3.bin", "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67", cifar_archive},
    {"data_batch_4.bin", "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48", cifar_archive},
    {"data_batch_5.bin", "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add", cifar_archive},
    {"test_batch.bin", "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b", cifar_archive},
};
static const content text[] = {
    {"tinyshakespeare.txt", "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed", "input.txt"},
};

static const source sources[] = {
    {"mnist", "https://ossci-datasets.s3.amazonaws.com/mnist", mnist, sizeof mnist / sizeof *mnist},
    {"fashion-mnist", "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com", fashion_mnist,
     sizeof fashion_mnist / sizeof *fashion_mnist},
    {"cifar-10", "https://www.cs.toronto.edu/~kriz", cifar, sizeof cifar / sizeof *cifar},
    {"text", "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare", text,
     sizeof text / sizeof *text},
};
enum { SOURCES = sizeof sources / sizeof *sources, MAX_PATH = 4000 };

/* ---- one remote file ------------------------------------------------------------------------------------------- */

static int ends_in(const char *name, const char *end) {
    size_t a = strlen(name), b = strlen(end);
    return a >= b && !strcmp(name + a - b, end);
}

static int is_right(const content *c, const uint8_t *data, size_t bytes) {
    char found[65];
    sha256_text(found, data, bytes);
    return !strcmp(found, c->sha256);
}

static int is_there(const char *folder, const content *c) {
    char path[MAX_PATH + 100];
    buffer file;
    snprintf(path, sizeof path, "%s/%s", folder, c->name);
    if (!read_whole(&file, path)) return 0;
    int right = is_right(c, file.data, file.size);
    free(file.data);
    return right;
}

static int keep(const char *folder, const content *c, const uint8_t *data, size_t bytes, const char *url) {
    char path[MAX_PATH + 100], found[65];
    if (!is_right(c, data, bytes)) {
        sha256_text(found, data, bytes);
        complain("%s: %s has the SHA-256 %s, expected %s; it was not kept", url, c->name, found, c->sha256);
        return 0;
    }
    snprintf(path, sizeof path, "%s/%s", folder, c->name);
    if (!write_whole(path, data, bytes)) return 0;
    printf("%s  %zu bytes\n", path, bytes);
    return 1;
}

/* All that one remote file has of `files`. */
static int unpack(const char *folder, const content *files, size_t count, const buffer *fetched, const char *url) {
    const int tar = ends_in(url, ".tar.gz");
    buffer plain = {0};
    if (ends_in(url, ".gz") && !gunzip(&plain, fetched, url)) return 0;
    const buffer *all = plain.data ? &plain : fetched;
    int ok = 1;
    for (size_t i = 0; i < count && ok; i++) {
        const uint8_t *data = all->data;
        size_t bytes = all->size;
        ok = (!tar || find_in_tar(&data, &bytes, all, files[i].name)) && keep(folder, &files[i], data, bytes, url);
    }
    free(plain.data);
    return ok;
}

static int get(const char *folder, const content *files, size_t count, const char *from) {
    size_t there = 0;
    for (size_t i = 0; i < count; i++) there += (size_t)is_there(folder, &files[i]);
    if (there == count) {
        for (size_t i = 0; i < count; i++) printf("%s/%s  is there already\n", folder, files[i].name);
        return 1;
    }
    char url[MAX_PATH + 100];
    buffer fetched;
    snprintf(url, sizeof url, "%s/%s", from, files[0].remote);
    if (!fetch(&fetched, url)) return 0;
    int ok = unpack(folder, files, count, &fetched, url);
    free(fetched.data);
    return ok;
}

/* ---- a data set ------------------------------------------------------------------------------------------------ */

/* The folder and those above it. */
static int make_folders(char *path) {
    for (char *p = path + 1;; p++) {
        if (*p && *p != '/') continue;
        char kept = *p;
        *p = 0;
        int failed_here = mkdir(path, 0777) && errno != EEXIST;
        if (failed_here) complain("%s: cannot be made: %s", path, strerror(errno));
        *p = kept;
        if (failed_here) return 0;
        if (!kept) return 1;
    }
}

static int get_all(const source *s, const char *from, const char *to) {
    char folder[MAX_PATH];
    if (strlen(from) >= MAX_PATH || snprintf(folder, sizeof folder, "%s/%s", to, s->name) >= (int)sizeof folder) {
        complain("too long a path");
        return EXIT_FAILED;
    }
    if (!make_folders(folder)) return EXIT_FAILED;
    for (size_t i = 0, count; i < s->count; i += count) {
        for (count = 1; i + count < s->count && !strcmp(s->files[i + count].remote, s->files[i].remote);) count++;
        if (!get(folder, s->files + i, count, from)) return EXIT_FAILED;
    }
    return EXIT_DONE;
}

static int usage(void) {
    fputs(help, stderr);
    return EXIT_USAGE;
}

int command_data(int argc, char **argv) {
    const char *name = NULL, *from = NULL, *to = getenv("TERN_DATA");
    if (!to || !*to) to = "data";
    for (int i = 1; i < argc; i++) {
        const char **value = !strcmp(argv[i], "--from") ? &from : !strcmp(argv[i], "--to") ? &to : NULL;
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            fputs(help, stdout);
            return EXIT_DONE;
        }
        if (value) {
            if (++i == argc || !*argv[i]) return usage();
            *value = argv[i];
        } else if (name || argv[i][0] == '-') {
            return usage();
        } else {
            name = argv[i];
        }
    }
    if (!name) return usage();
    for (size_t i = 0; i < SOURCES; i++)
        if (!strcmp(name, sources[i].name)) return get_all(&sources[i], from ? from : sources[i].from, to);
    complain("'%s' is no data set that can be fetched: mnist, fashion-mnist, cifar-10, text", name);
    return EXIT_USAGE;
}
