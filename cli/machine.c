/* tern machine: what this machine offers. */
#include <jansson.h>
#include <stdio.h>

#include "args.h"
#include "cli.h"

static const char help[] = "usage: tern machine [--json]\n\n"
                           "Lists the kernel tiers of this build, which of them this machine can run, and which one\n"
                           "is used (TERN_KERNEL pins another).\n\nExample:\n  TERN_KERNEL=avx512 tern machine\n";

static void print_json(tern_tier used) {
    json_t *tiers = json_object();
    for (int t = TERN_TIER_SCALAR; t < TERN_TIER_COUNT; t++)
        json_object_set_new(tiers, tern_tier_name((tern_tier)t), json_boolean(tern_tier_available((tern_tier)t)));
    json_t *row = json_pack("{s:s, s:i, s:s, s:o, s:s}", "version", tern_version(), "processors", tern_processors(),
                            "huge_pages", tern_huge_pages(), "tiers", tiers, "tier", tern_tier_name(used));
    json_dumpf(row, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(row);
}

int command_machine(int argc, char **argv) {
    int json = argc > 1, code = parse_json_only(argc, argv, help);
    if (code >= 0) return code;
    tern_error err;
    tern_tier used;
    if (tern_tier_select(&used, &err)) return failed(&err);
    if (json) {
        print_json(used);
        return EXIT_DONE;
    }
    printf("processors  %d\nhuge pages  %s\ntiers\n", tern_processors(), tern_huge_pages());
    for (int t = TERN_TIER_SCALAR; t < TERN_TIER_COUNT; t++)
        printf("  %-9s %s\n", tern_tier_name((tern_tier)t),
               (tern_tier)t == used                ? "used"
               : tern_tier_available((tern_tier)t) ? "available"
                                                   : "not on this machine");
    return EXIT_DONE;
}
