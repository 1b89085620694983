#include "cuda/tuning_table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

/* ---- keys and buckets ------------------------------------------------------------------------------------------ */

/* `to` has `bytes`, the longest text fits but for its end. */
static void copy_printable(char *to, size_t bytes, const char *from) {
    size_t n = 0;
    while (*from == ' ') from++;
    for (; *from && n + 1 < bytes; from++) to[n++] = *from >= ' ' && *from <= '~' ? *from : '?';
    while (n && to[n - 1] == ' ') n--;
    to[n] = 0;
}

void tern_tuning_key_of(tern_tuning_key *key, const tern_device_info *info, const char *version) {
    *key = (tern_tuning_key){.major = info->major, .minor = info->minor, .multiprocessors = info->multiprocessors};
    copy_printable(key->name, sizeof key->name, info->name);
    copy_printable(key->version, sizeof key->version, version);
}

uint32_t tern_tuning_bucket(size_t m) {
    uint32_t most = 1;
    while (most < m && most < UINT32_C(1) << 31) most *= 2;
    return most;
}

/* ---- the table ------------------------------------------------------------------------------------------------- */

void tern_tuning_free(tern_tuning_table *table) {
    free(table->rows);
    *table = (tern_tuning_table){0};
}

static int compare(const tern_tuning_row *a, const tern_tuning_row *b) {
    if (a->rows != b->rows) return a->rows < b->rows ? -1 : 1;
    if (a->cols != b->cols) return a->cols < b->cols ? -1 : 1;
    if (a->t5 != b->t5) return a->t5 < b->t5 ? -1 : 1;
    if (a->group != b->group) return a->group < b->group ? -1 : 1;
    if (a->x_type != b->x_type) return a->x_type < b->x_type ? -1 : 1;
    return (a->m_most > b->m_most) - (a->m_most < b->m_most);
}

/* Where the row for the same products is or would be; *there says which. */
static size_t place_of(const tern_tuning_table *table, const tern_tuning_row *row, int *there) {
    size_t low = 0, high = table->count;
    *there = 0;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        const int order = compare(&table->rows[middle], row);
        if (order == 0) *there = 1;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static tern_status make_room(tern_tuning_table *table, tern_error *err) {
    if (table->count < table->room) return TERN_OK;
    if (table->count == TERN_TUNING_MAX_ROWS)
        return tern_fail(err, TERN_E_SIZE, TERN_NO_PLACE, "the table of measured kernels is full: %d rows",
                         TERN_TUNING_MAX_ROWS);
    const size_t room = table->room ? 2 * table->room : 64;
    tern_tuning_row *rows = realloc(table->rows, room * sizeof *rows);
    if (!rows)
        return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for a table of measured kernels: %zu bytes",
                         room * sizeof *rows);
    table->rows = rows;
    table->room = room;
    return TERN_OK;
}

tern_status tern_tuning_put(tern_tuning_table *table, const tern_tuning_row *row, tern_error *err) {
    int there;
    const size_t at = place_of(table, row, &there);
    if (!there) {
        TERN_TRY(make_room(table, err));
        memmove(table->rows + at + 1, table->rows + at, (table->count - at) * sizeof *table->rows);
        table->count++;
    }
    table->rows[at] = *row;
    return TERN_OK;
}

const tern_tuning_row *tern_tuning_find(const tern_tuning_table *table, const tern_cuda_weights *w, tern_dtype x_type,
                                        size_t m) {
    const tern_tuning_row wanted = {.t5 = w->t5 != 0,
                                    .rows = w->rows,
                                    .cols = w->cols,
                                    .group = w->exponents ? w->group : 0,
                                    .x_type = x_type,
                                    .m_most = tern_tuning_bucket(m)};
    int there;
    const size_t at = place_of(table, &wanted, &there);
    return there ? &table->rows[at] : NULL;
}

int tern_tuning_choose(tern_device_kernel *kernel, int *variant, const tern_tuning_table *table,
                       const tern_cuda_limits *limits, const tern_cuda_weights *w,
                       const tern_device_product *product) {
    char why[160];
    const tern_tuning_row *row = tern_tuning_find(table, w, product->x_type, product->m);
    if (!row || !tern_cuda_fits(row->kernel, row->variant, limits, w, product, why, sizeof why)) return 0;
    *kernel = row->kernel;
    *variant = row->variant;
    return 1;
}

int tern_tuning_choose_by(tern_device_kernel *kernel, int *variant, const void *table, const tern_cuda_limits *limits,
                          const tern_cuda_weights *w, const tern_device_product *product) {
    return tern_tuning_choose(kernel, variant, table, limits, w, product);
}

/* ---- reading text ---------------------------------------------------------------------------------------------- */

static const char *const type_names[] = {"f32", "bf16", "f16", "i8"}; /* by tern_dtype */

enum { TYPES = sizeof type_names / sizeof *type_names, HEADER_LINES = 5, FIELDS = 8 };

/* The next line, zero-terminated and without its end, in line[TERN_TUNING_LINE_BYTES]: its length, or -1 for one that
 * is too long or holds a zero. */
static int next_line(char *line, const char **text, const char *end) {
    const char *stop = memchr(*text, '\n', (size_t)(end - *text));
    if (!stop) stop = end;
    const size_t length = (size_t)(stop - *text);
    const int fine = length < TERN_TUNING_LINE_BYTES && !memchr(*text, 0, length);
    if (fine) memcpy(line, *text, length);
    line[fine ? length : 0] = 0;
    *text = stop < end ? stop + 1 : end;
    return fine ? (int)length : -1;
}

static int is_comment(const char *line) { return !line[0] || line[0] == '#'; }

static void format_header(char lines[HEADER_LINES][TERN_TUNING_LINE_BYTES], const tern_tuning_key *key) {
    snprintf(lines[0], sizeof lines[0], "tern-tuning 1");
    snprintf(lines[1], sizeof lines[1], "device %s", key->name);
    snprintf(lines[2], sizeof lines[2], "capability %d.%d", key->major, key->minor);
    snprintf(lines[3], sizeof lines[3], "multiprocessors %d", key->multiprocessors);
    snprintf(lines[4], sizeof lines[4], "version %s", key->version);
}

static tern_status check_header(const char **text, const char *end, const tern_tuning_key *key, size_t *number,
                                tern_error *err) {
    char wanted[HEADER_LINES][TERN_TUNING_LINE_BYTES], line[TERN_TUNING_LINE_BYTES];
    format_header(wanted, key);
    for (int i = 0; i < HEADER_LINES;) {
        const char *start = *text;
        if (start == end)
            return tern_fail(err, TERN_E_DATA, *number, "it ends where '%.60s' should stand", wanted[i]);
        ++*number;
        if (next_line(line, text, end) >= 0 && is_comment(line)) continue;
        if (strcmp(line, wanted[i]))
            return tern_fail(err, TERN_E_DATA, *number, "line %zu should be '%.60s'", *number, wanted[i]);
        i++;
    }
    return TERN_OK;
}

/* A whole number of digits alone, from 1 to most; 0 where the text is none. */
static uint64_t number_of(const char *text, uint64_t most) {
    uint64_t value = 0;
    for (; *text; text++) {
        if (*text < '0' || *text > '9') return 0;
        value = value * 10 + (uint64_t)(*text - '0');
        if (value > most) return 0;
    }
    return value;
}

/* Index in names, or -1. */
static int index_of(const char *text, const char *const *names, int count) {
    for (int i = 0; i < count; i++)
        if (!strcmp(text, names[i])) return i;
    return -1;
}

static int kernel_of(const char *text) {
    for (int k = TERN_DEVICE_KERNEL_PLAIN; k < TERN_DEVICE_KERNEL_COUNT; k++)
        if (!strcmp(text, tern_device_kernel_name((tern_device_kernel)k))) return k;
    return -1;
}

/* Microseconds with three digits behind the point, which no locale turns into a comma; 0 where the text is not
 * that. */
static uint64_t nanoseconds_of(char *text) {
    char *point = strchr(text, '.');
    if (!point || point == text || strlen(point + 1) != 3) return 0;
    memmove(point, point + 1, 4);
    return number_of(text, UINT64_C(1000000000000));
}

/* Splits at single spaces. Fewer or more fields, or an empty one, are none. */
static int split(char *fields[FIELDS], char *line) {
    for (int i = 0; i < FIELDS; i++) {
        char *space = strchr(line, ' ');
        if ((space != NULL) != (i + 1 < FIELDS)) return 0;
        if (space) *space = 0;
        if (!*line) return 0;
        fields[i] = line;
        if (space) line = space + 1;
    }
    return 1;
}

/* t2, t5/64, ...: nonzero where that is what stands there. */
static int read_packing(tern_tuning_row *row, char *text) {
    static const char *const packings[] = {"t2", "t5"};
    char *slash = strchr(text, '/');
    if (slash) *slash = 0;
    row->t5 = index_of(text, packings, 2);
    row->group = slash ? (int32_t)number_of(slash + 1, INT32_MAX) : 0;
    return row->t5 >= 0 && (!slash || row->group > 0);
}

/* NULL, or what is wrong with the line. */
static const char *read_row(tern_tuning_row *row, char *line) {
    char *field[FIELDS];
    if (!split(field, line)) return "it is not eight words with a space between";
    const int type = index_of(field[3], type_names, TYPES);
    const int kernel = kernel_of(field[5]);
    const uint64_t m_most = number_of(field[4], UINT32_C(1) << 31);
    *row = (tern_tuning_row){.rows = (int32_t)number_of(field[1], INT32_MAX),
                             .cols = (int32_t)number_of(field[2], INT32_MAX),
                             .x_type = (tern_dtype)type,
                             .m_most = (uint32_t)m_most};
    if (!read_packing(row, field[0])) return "its packing is not t2, t5, or one of them with a group as in t2/64";
    if (!row->rows || !row->cols) return "its weights have no such shape";
    if (type < 0) return "its activations have no such type";
    if (!m_most || (m_most & (m_most - 1))) return "its rows of activations are no power of two";
    if (kernel < 0) return "its kernel is none";
    row->kernel = (tern_device_kernel)kernel;
    row->variant = (int)number_of(field[6], (uint64_t)tern_cuda_variants(row->kernel));
    if (!row->variant) return "its kernel has no such variant";
    row->nanoseconds = nanoseconds_of(field[7]);
    return row->nanoseconds ? NULL : "its microseconds are no number such as 12.345";
}

tern_status tern_tuning_parse(tern_tuning_table *table, size_t *ignored, char *why, size_t why_bytes,
                              const tern_tuning_key *key, const char *text, size_t size, tern_error *err) {
    const char *end = text + size;
    char line[TERN_TUNING_LINE_BYTES];
    size_t number = 0;
    *ignored = 0;
    if (size > TERN_TUNING_MAX_BYTES)
        return tern_fail(err, TERN_E_SIZE, TERN_NO_PLACE, "it has %zu bytes, more than %d", size,
                         TERN_TUNING_MAX_BYTES);
    TERN_TRY(check_header(&text, end, key, &number, err));
    while (text < end) {
        tern_tuning_row row;
        tern_error full = {0};
        number++;
        const int length = next_line(line, &text, end);
        if (length >= 0 && is_comment(line)) continue;
        const char *wrong = length < 0 ? "it is too long, or holds a zero" : read_row(&row, line);
        if (!wrong && tern_tuning_put(table, &row, &full)) wrong = full.message;
        if (full.status == TERN_E_MEMORY) return tern_fail(err, full.status, full.place, "%s", full.message);
        if (wrong && !(*ignored)++) snprintf(why, why_bytes, "line %zu: %s", number, wrong);
    }
    return TERN_OK;
}

/* ---- writing it ------------------------------------------------------------------------------------------------ */

static int format_row(char *line, const tern_tuning_row *row) {
    char group[16] = "";
    if (row->group) snprintf(group, sizeof group, "/%d", (int)row->group);
    return snprintf(line, TERN_TUNING_LINE_BYTES, "%s%s %d %d %s %u %s %d %llu.%03llu\n", row->t5 ? "t5" : "t2",
                    group, (int)row->rows, (int)row->cols, type_names[row->x_type], (unsigned)row->m_most,
                    tern_device_kernel_name(row->kernel), row->variant, (unsigned long long)(row->nanoseconds / 1000),
                    (unsigned long long)(row->nanoseconds % 1000));
}

tern_status tern_tuning_format(char **text, size_t *size, const tern_tuning_table *table, const tern_tuning_key *key,
                               tern_error *err) {
    static const char comment[] = "# packing rows cols activations m_most kernel variant microseconds\n";
    char header[HEADER_LINES][TERN_TUNING_LINE_BYTES];
    const size_t room = sizeof comment + (HEADER_LINES + table->count) * TERN_TUNING_LINE_BYTES;
    char *out = malloc(room), *next = out;
    if (!out)
        return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory to write measured kernels: %zu bytes", room);
    format_header(header, key);
    for (int i = 0; i < HEADER_LINES; i++) next += sprintf(next, "%s\n", header[i]);
    next += sprintf(next, "%s", comment);
    for (size_t i = 0; i < table->count; i++) next += format_row(next, &table->rows[i]);
    *text = out;
    *size = (size_t)(next - out);
    return TERN_OK;
}
