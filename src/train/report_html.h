/* Text of any origin in an HTML page. */
#ifndef TERN_TRAIN_REPORT_HTML_H
#define TERN_TRAIN_REPORT_HTML_H

#include <stddef.h>
#include <stdio.h>

/* Fit for element content and for quoted attributes: markup becomes entities; control characters and what is not
 * UTF-8 become U+FFFD, and so do the characters that turn the direction of what follows. NULL is empty. */
void tern_html_text(FILE *out, const char *text);

/* A number for people: 12,345 or 0.001234 or 1.2e-05, in at most `size` characters. Returns text. */
const char *tern_html_number(char *text, size_t size, double value);

/* A step on an axis: 800, 12k, 1.5M. */
const char *tern_html_step(char *text, size_t size, double step);

#endif
