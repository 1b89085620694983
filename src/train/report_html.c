#include "train/report_html.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

/* Bytes of the UTF-8 character at s, which ends in a NUL somewhere; 0 if it is none. */
static size_t character(uint32_t *code, const unsigned char *s) {
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    const size_t n = s[0] < 0x80             ? 1
                     : (s[0] & 0xe0) == 0xc0 ? 2
                     : (s[0] & 0xf0) == 0xe0 ? 3
                     : (s[0] & 0xf8) == 0xf0 ? 4
                                             : 0;
    if (n < 2) {
        *code = s[0];
        return n;
    }
    *code = s[0] & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80) return 0;
        *code = *code << 6 | (s[i] & 0x3f);
    }
    return *code < least[n] || *code > 0x10ffff || (*code >= 0xd800 && *code < 0xe000) ? 0 : n;
}

static int is_harmful(uint32_t code) {
    return (code < 32 && code != '\n' && code != '\t') || (code >= 0x7f && code < 0xa0) ||
           (code >= 0x202a && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069) || code >= 0xfffe;
}

void tern_html_text(FILE *out, const char *text) {
    const unsigned char *s = (const unsigned char *)(text ? text : "");
    while (*s) {
        uint32_t code;
        const size_t n = character(&code, s);
        if (!n || (is_harmful(code) && code < 0x10000))
            fputs("\xef\xbf\xbd", out);
        else if (code == '&')
            fputs("&amp;", out);
        else if (code == '<')
            fputs("&lt;", out);
        else if (code == '>')
            fputs("&gt;", out);
        else if (code == '"')
            fputs("&quot;", out);
        else if (code == '\'')
            fputs("&#39;", out);
        else
            fwrite(s, 1, n, out);
        s += n ? n : 1;
    }
}

/* Groups the digits of a whole number by threes. */
static void group_digits(char *text, size_t size) {
    const size_t length = strlen(text), first = text[0] == '-';
    const size_t commas = length > first ? (length - first - 1) / 3 : 0;
    if (length + commas >= size) return;
    text[length + commas] = 0;
    for (size_t i = length, to = length + commas, digits = 0; i > first; digits++) {
        if (digits && digits % 3 == 0) text[--to] = ',';
        text[--to] = text[--i];
    }
}

const char *tern_html_number(char *text, size_t size, double value) {
    const double magnitude = fabs(value);
    if (magnitude >= 1000 && magnitude < 1e15) {
        snprintf(text, size, "%.0f", value);
        group_digits(text, size);
    } else {
        snprintf(text, size, "%.4g", value);
        /* 1e-05 is 1e-5. */
        char *e = strchr(text, 'e');
        if (e && e[2] == '0') memmove(e + 2, e + 3, strlen(e + 2));
    }
    return text;
}

const char *tern_html_step(char *text, size_t size, double step) {
    static const char *const units[] = {"", "k", "M", "G", "T"};
    int unit = 0;
    for (; step >= 1000 && unit < 4; unit++) step /= 1000;
    snprintf(text, size, "%.4g%s", step, units[unit]);
    return text;
}
