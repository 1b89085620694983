/* The program: a table of subcommands, one file each. Exit codes: 0 done, 1 failed, 2 wrong usage. */
#ifndef TERN_CLI_CLI_H
#define TERN_CLI_CLI_H

#include "tern/tern.h"

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

typedef struct command {
    const char *name, *summary;
    int (*run)(int argc, char **argv); /* argv[0] is the command's name */
} command;

int command_bench(int argc, char **argv);
int command_data(int argc, char **argv); /* with networks only */
int command_devices(int argc, char **argv);
int command_machine(int argc, char **argv);
int command_train(int argc, char **argv);
int command_export(int argc, char **argv);
int command_import(int argc, char **argv);
int command_eval(int argc, char **argv);
int command_run(int argc, char **argv);
int command_parity(int argc, char **argv);
int command_inspect(int argc, char **argv);

/* Prints "tern: <format>" on standard error. */
__attribute__((format(printf, 1, 2))) void complain(const char *format, ...);

/* Complains with the status and message of err; returns EXIT_FAILED. */
int failed(const tern_error *err);

/* A transient line on standard error, where that is a terminal; NULL wipes it. */
__attribute__((format(printf, 1, 2))) void progress(const char *format, ...);

#endif
