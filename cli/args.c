#include "args.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

int asks_for_help(int argc, char **argv) {
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) return 1;
    return 0;
}

static int read_value(const args *a, const option *o, const char *value) {
    char *end = NULL;
    errno = 0;
    if (o->value) *o->value = value;
    if (o->number) *o->number = strtoull(value, &end, 10);
    if (o->real) *o->real = strtod(value, &end);
    if (end && (end == value || *end || errno || value[0] == '-')) {
        complain("%s takes a number, not '%s'; %s --help", o->name, value, a->command);
        return EXIT_USAGE;
    }
    if (o->values) {
        if (*o->value_count == MAX_VALUES) {
            complain("%s stands more than %d times", o->name, MAX_VALUES);
            return EXIT_USAGE;
        }
        o->values[(*o->value_count)++] = value;
    }
    return EXIT_DONE;
}

static const option *find_option(const args *a, const char *name) {
    for (size_t i = 0; i < a->option_count; i++)
        if (!strcmp(a->options[i].name, name)) return &a->options[i];
    return NULL;
}

int parse_args(args *a, int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        const option *o = find_option(a, argv[i]);
        if (!o && argv[i][0] == '-' && argv[i][1]) {
            complain("'%s' is no option; %s --help lists them", argv[i], a->command);
            return EXIT_USAGE;
        }
        if (!o) {
            if (a->count == a->room) {
                complain("'%s' is one argument too many; %s --help", argv[i], a->command);
                return EXIT_USAGE;
            }
            a->positional[a->count++] = argv[i];
        } else if (o->flag) {
            *o->flag = 1;
        } else if (i + 1 == argc) {
            complain("%s lacks its value; %s --help", o->name, a->command);
            return EXIT_USAGE;
        } else {
            int code = read_value(a, o, argv[++i]);
            if (code) return code;
        }
    }
    if (a->count >= a->least) return EXIT_DONE;
    complain("an argument is missing; %s --help", a->command);
    return EXIT_USAGE;
}

int parse_json_only(int argc, char **argv, const char *help) {
    int asked = argc == 2 && asks_for_help(argc, argv);
    if (argc == 1 || (argc == 2 && !strcmp(argv[1], "--json"))) return -1;
    fputs(help, asked ? stdout : stderr);
    return asked ? EXIT_DONE : EXIT_USAGE;
}
