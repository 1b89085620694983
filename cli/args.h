/* Command lines: a table of options, and what is no option in its order. */
#ifndef TERN_CLI_ARGS_H
#define TERN_CLI_ARGS_H

#include <stddef.h>
#include <stdint.h>

/* One option: a flag, a value, a whole number, or values that may stand more than once. */
typedef struct option {
    const char *name; /* "--out" */
    int *flag;
    const char **value;
    uint64_t *number;
    double *real;
    const char **values; /* room for MAX_VALUES */
    size_t *value_count;
} option;

enum { MAX_VALUES = 64 };

typedef struct args {
    const option *options;
    size_t option_count;
    const char **positional;
    size_t room, least, count; /* of positional arguments: at most, at least, given */
    const char *command;       /* for messages: "tern train" */
} args;

/* EXIT_DONE or EXIT_USAGE, complained about. argv[0] is the command's name. */
int parse_args(args *a, int argc, char **argv);

/* True when --help or -h stands among the arguments. */
int asks_for_help(int argc, char **argv);

/* Of a command whose one option is --json: -1 when it is to go on, with it where argc is 2; else the exit code, help
 * printed. */
int parse_json_only(int argc, char **argv, const char *help);

#endif
