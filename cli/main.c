#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

static const command commands[] = {
#ifdef TERN_NETWORKS
    {"train", "train a network from a preset", command_train},
    {"export", "make a checkpoint into a packed model", command_export},
    {"import", "make a model that others trained into a packed one", command_import},
    {"eval", "accuracy or loss of a model on a data set", command_eval},
    {"run", "classify images, or go on with a text", command_run},
    {"parity", "prove that the packed model computes what was trained", command_parity},
    {"inspect", "what a model file holds", command_inspect},
    {"data", "fetch a data set", command_data},
#endif
    {"bench", "measure the kernels against this machine's limits", command_bench},
    {"devices", "the GPUs of this machine, or why none is used", command_devices},
    {"machine", "what this machine offers: tiers, processors, huge pages", command_machine},
};
enum { COMMANDS = sizeof commands / sizeof *commands };

void complain(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fputs("tern: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
}

int failed(const tern_error *err) {
    complain("%s: %s", tern_status_text(err->status), err->message);
    return EXIT_FAILED;
}

void progress(const char *format, ...) {
    if (!isatty(STDERR_FILENO)) return;
    fputs("\r\033[K", stderr);
    if (format) {
        va_list args;
        va_start(args, format);
        vfprintf(stderr, format, args);
        va_end(args);
    }
    fflush(stderr);
}

static void print_usage(FILE *to) {
    fprintf(to, "usage: tern COMMAND [OPTIONS]\n\nTern %s: ternary (1.58-bit) neural networks.\n\nCommands:\n",
            tern_version());
    for (size_t i = 0; i < COMMANDS; i++) fprintf(to, "  %-9s %s\n", commands[i].name, commands[i].summary);
    fprintf(
        to,
        "\n  tern COMMAND --help   options and an example\n  tern --version\n\n"
        "Environment: TERN_KERNEL pins a kernel tier (see tern machine) or a GPU's kernel, TERN_DEVICE a device (see "
        "tern devices).\n");
}

/* OpenMP's threads wait for each other by spinning, GCC's for milliseconds. That starves whoever shares the
 * processors, and then themselves: on a busy machine steps took five times as long. So unless the user has chosen,
 * they spin for some 30 microseconds and then sleep. The run time reads its settings before main, hence the second
 * start. */
static void choose_wait_policy(char **argv) {
    if (getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT") || getenv("KMP_BLOCKTIME")) return;
    if (setenv("GOMP_SPINCOUNT", "10000", 1) || setenv("KMP_BLOCKTIME", "0", 1)) return;
    char self[4096]; /* the real path, so that the process keeps its name */
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    if (length <= 0) return;
    self[length] = 0;
    execv(self, argv); /* comes back only where it cannot */
}

int main(int argc, char **argv) {
    choose_wait_policy(argv);
    if (argc < 2) {
        print_usage(stderr);
        return EXIT_USAGE;
    }
    const char *name = argv[1];
    if (!strcmp(name, "--version")) {
        printf("tern %s\n", tern_version());
        return EXIT_DONE;
    }
    if (!strcmp(name, "--help") || !strcmp(name, "-h") || !strcmp(name, "help")) {
        print_usage(stdout);
        return EXIT_DONE;
    }
    for (size_t i = 0; i < COMMANDS; i++) {
        if (strcmp(name, commands[i].name)) continue;
        int code = commands[i].run(argc - 1, argv + 1);
        if (fflush(stdout) || ferror(stdout)) {
            complain("cannot write to standard output");
            return EXIT_FAILED;
        }
        return code;
    }
    complain("'%s' is no command; tern --help lists them", name);
    return EXIT_USAGE;
}
