/* Any bytes as metrics, and as every string of a report: the page is made, and holds no markup but its own. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "train/report.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char folder[32];

static void remove_folder(void) { rmdir(folder); }

/* In memory where the system has a place for that. */
static void make_folder(void) {
    if (folder[0]) return;
    strcpy(folder, "/dev/shm/tern-fuzz-XXXXXX");
    if (!mkdtemp(folder)) {
        strcpy(folder, "/tmp/tern-fuzz-XXXXXX");
        if (!mkdtemp(folder)) abort();
    }
    atexit(remove_folder);
}

static void check_page(const char *path) {
    static char page[1 << 16];
    FILE *in = fopen(path, "rb");
    if (!in) abort();
    const size_t n = fread(page, 1, sizeof page - 1, in);
    page[n] = 0;
    fclose(in);
    static const char *const never[] = {"<script", "\x1b",    " d=\"Mnan", " d=\"M-nan",
                                        "x=\"nan", "y=\"nan", "y=\"-nan"};
    if (strlen(page) != n) abort();
    for (size_t i = 0; i < sizeof never / sizeof *never; i++)
        if (strstr(page, never[i])) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char metrics[64], path[64];
    uint64_t counts[4] = {0};
    make_folder();
    char *text = malloc(size + 1);
    const int fd = memfd_create("metrics", MFD_CLOEXEC);
    if (!text || fd < 0 || write(fd, data, size) != (ssize_t)size) abort();
    if (size) memcpy(text, data, size);
    text[size] = 0;
    memcpy(counts, text, size < sizeof counts ? size : sizeof counts);
    snprintf(metrics, sizeof metrics, "/proc/self/fd/%d", fd);
    snprintf(path, sizeof path, "%s/r.html", folder);
    const tern_report_pair pair = {text, text};
    const char *const names[] = {text, NULL};
    const tern_report_input input = {.title = text,
                                     .metrics_path = metrics,
                                     .config = &pair,
                                     .config_count = 1,
                                     .confusion = {2, counts, names},
                                     .sample = text};
    if (tern_report_write(path, &input, NULL)) abort();
    check_page(path);
    unlink(path);
    close(fd);
    free(text);
    return 0;
}
