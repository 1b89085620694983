/* report.html: a training run on one page, self-contained, without scripts: inline CSS and SVG, light or dark as the
 * reader's system is, and readable on a phone. */
#ifndef TERN_TRAIN_REPORT_H
#define TERN_TRAIN_REPORT_H

#include <stddef.h>
#include <stdint.h>

#include "tern/status.h"

typedef struct tern_report_pair {
    const char *key, *value;
} tern_report_pair;

typedef struct tern_report_confusion {
    size_t classes;           /* 0: none; at most 1000 */
    const uint64_t *counts;   /* classes x classes, a row is a true class, a column a predicted one */
    const char *const *names; /* classes of them, or NULL for numbers */
} tern_report_confusion;

/* Zeroed, it is an empty report. Strings are any bytes: they are escaped, and what is not UTF-8 is replaced. NULL
 * strings are empty. */
typedef struct tern_report_input {
    const char *title;
    const char *metrics_path; /* metrics.jsonl (train/metrics_log.h), or NULL. Lines that cannot be read are counted
                                 and said on the page; a cut last line and a file that is not there are fine */
    const tern_report_pair *config;
    size_t config_count;
    const tern_report_pair *results; /* the final table */
    size_t result_count;
    tern_report_confusion confusion;
    const char *sample; /* text the model made, or NULL */
} tern_report_input;

/* Writes the page atomically. The same input gives the same bytes. */
tern_status tern_report_write(const char *path, const tern_report_input *input, tern_error *err);

#endif
