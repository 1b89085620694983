#define _GNU_SOURCE
#include "check_quantize.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/half.h"
#include "base/random.h"

/* ---- memory between guard pages ------------------------------------------------------------------------------ */

enum { LONGEST = 6913, CANARY = 0x5a };

typedef struct fence {
    uint8_t *map;
    size_t mapped;
    uint8_t *begin, *end; /* whole pages, a guard page on either side */
} fence;

static int fence_open(fence *f, size_t bytes) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t inside = tern_round_up(bytes, page);
    *f = (fence){.mapped = inside + 2 * page};
    void *map = mmap(NULL, f->mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) return 0;
    f->map = map;
    f->begin = f->map + page;
    f->end = f->begin + inside;
    return !mprotect(f->map, page, PROT_NONE) && !mprotect(f->end, page, PROT_NONE);
}

static void fence_close(fence *f) {
    if (f->map) munmap(f->map, f->mapped);
}

/* ---- inputs -------------------------------------------------------------------------------------------------- */

static float at_index(uint64_t key, size_t i) { return tern_random_signed(key, i); }

static void fill_uniform(float *x, size_t n, uint64_t key) {
    for (size_t i = 0; i < n; i++) x[i] = at_index(key, i);
}

static void fill_wide(float *x, size_t n, uint64_t key) {
    for (size_t i = 0; i < n; i++) x[i] = ldexpf(at_index(key, i), (int)(tern_random_u32(key + 1, i) % 200) - 100);
}

static void fill_value(float *x, size_t n, float value) {
    for (size_t i = 0; i < n; i++) x[i] = value;
}

static void fill_zero(float *x, size_t n, uint64_t key) { (void)key, fill_value(x, n, 0); }
static void fill_minus_zero(float *x, size_t n, uint64_t key) { (void)key, fill_value(x, n, -0.0f); }

static void fill_huge(float *x, size_t n, uint64_t key) {
    for (size_t i = 0; i < n; i++) x[i] = tern_random_u32(key, i) % 2 ? FLT_MAX : -FLT_MAX;
}

static void fill_below_floor(float *x, size_t n, uint64_t key) {
    for (size_t i = 0; i < n; i++) x[i] = 9.9e-6f * at_index(key, i);
}

static void fill_denormal(float *x, size_t n, uint64_t key) {
    for (size_t i = 0; i < n; i++) x[i] = tern_f32_from_bits(tern_random_u32(key, i) & 0x807fffffu);
}

/* With 127 in the row s is 1, so that every other value is a tie or a whole number. */
static void fill_ties(float *x, size_t n, uint64_t key) {
    for (size_t i = 0; i < n; i++) x[i] = (float)((int)(tern_random_u32(key, i) % 508) - 254) / 2;
    x[n / 3] = -127;
}

static void fill_one_huge(float *x, size_t n, uint64_t key) {
    fill_uniform(x, n, key);
    x[tern_random_u32(key + 1, 0) % n] = FLT_MAX;
}

/* With epsilon 0, r overflows. */
static void fill_one_least(float *x, size_t n, uint64_t key) {
    fill_zero(x, n, key);
    x[tern_random_u32(key, 0) % n] = tern_f32_from_bits(0x80000001u);
}

static void fill_nan_first(float *x, size_t n, uint64_t key) { fill_uniform(x, n, key), x[0] = NAN; }
static void fill_nan_middle(float *x, size_t n, uint64_t key) { fill_uniform(x, n, key), x[n / 2] = -NAN; }
static void fill_nan_last(float *x, size_t n, uint64_t key) { fill_uniform(x, n, key), x[n - 1] = NAN; }
static void fill_inf_first(float *x, size_t n, uint64_t key) { fill_uniform(x, n, key), x[0] = -INFINITY; }
static void fill_inf_middle(float *x, size_t n, uint64_t key) { fill_uniform(x, n, key), x[n / 2] = INFINITY; }
static void fill_inf_last(float *x, size_t n, uint64_t key) { fill_uniform(x, n, key), x[n - 1] = -INFINITY; }

typedef struct filling {
    const char *name;
    void (*fill)(float *x, size_t n, uint64_t key);
} filling;

static const filling inputs[] = {
    {"uniform", fill_uniform},       {"wide", fill_wide},           {"zero", fill_zero},
    {"minus zero", fill_minus_zero}, {"huge", fill_huge},           {"below the floor", fill_below_floor},
    {"denormal", fill_denormal},     {"ties", fill_ties},           {"one huge", fill_one_huge},
    {"one least", fill_one_least},   {"NaN first", fill_nan_first}, {"NaN middle", fill_nan_middle},
    {"NaN last", fill_nan_last},     {"Inf first", fill_inf_first}, {"Inf middle", fill_inf_middle},
    {"Inf last", fill_inf_last},
};

/* Gains and epsilon of an RMSNorm; the first line is the row without one. */
typedef struct norm {
    const char *name;
    void (*fill_gain)(float *x, size_t n, uint64_t key);
    float epsilon;
    int on;
} norm;

static const norm norms[] = {
    {"plain", NULL, 0, 0},
    {"no gain, epsilon 0", NULL, 0, 1},
    {"no gain", NULL, 1e-5f, 1},
    {"uniform gain", fill_uniform, 1e-6f, 1},
    {"huge gain, epsilon 0", fill_huge, 0, 1},
    {"zero gain, epsilon 0", fill_zero, 0, 1},
    {"NaN gain", fill_nan_last, 1e-5f, 1},
    {"denormal gain, huge epsilon", fill_denormal, FLT_MAX, 1},
};

/* ---- comparison ---------------------------------------------------------------------------------------------- */

typedef struct fixture {
    const tern_kernels *candidate, *scalar;
    fence x, gain, q;
    float x_copy[LONGEST], gain_copy[LONGEST];
    int8_t expected[LONGEST];
    uint64_t seed;
    char *message;
    size_t message_size;
} fixture;

typedef struct test_case {
    size_t cols;
    const filling *input;
    const norm *norm;
    size_t offset; /* elements from the start of the pages; SIZE_MAX: the row ends at the guard page */
} test_case;

static const char *kernel_name(const fixture *f, const test_case *t) {
    return t->norm->on ? f->candidate->quantize_row_rmsnorm.name : f->candidate->quantize_row.name;
}

static float run(const tern_kernels *kernels, const test_case *t, int8_t *q, const float *x, const float *gain) {
    if (!t->norm->on) return kernels->quantize_row.fn(q, x, t->cols);
    return kernels->quantize_row_rmsnorm.fn(q, x, t->norm->fill_gain ? gain : NULL, t->norm->epsilon, t->cols);
}

static int failed(const fixture *f, const test_case *t, const char *what, size_t at) {
    snprintf(f->message, f->message_size, "%s: %s at %zu; cols %zu, input %s, norm %s, offset %zd, seed %llu",
             kernel_name(f, t), what, at, t->cols, t->input->name, t->norm->name, (ssize_t)t->offset,
             (unsigned long long)f->seed);
    return 1;
}

static uint8_t *place(const fence *f, const test_case *t, size_t element) {
    return t->offset == SIZE_MAX ? f->end - t->cols * element : f->begin + t->offset * element;
}

static int compare(const fixture *f, const test_case *t, const int8_t *q, const float *x, const float *gain) {
    for (size_t c = 0; c < t->cols; c++)
        if (q[c] != f->expected[c]) return failed(f, t, "another value", c);
    for (const uint8_t *p = f->q.begin; p < f->q.end; p++) {
        int inside = p >= (const uint8_t *)q && p < (const uint8_t *)q + t->cols;
        if (!inside && *p != CANARY) return failed(f, t, "a write outside the row", (size_t)(p - f->q.begin));
    }
    if (memcmp(x, f->x_copy, t->cols * sizeof *x)) return failed(f, t, "a write to the input", 0);
    if (t->norm->fill_gain && memcmp(gain, f->gain_copy, t->cols * sizeof *gain))
        return failed(f, t, "a write to the gains", 0);
    return 0;
}

static int check_case(fixture *f, const test_case *t, uint64_t key) {
    float *x = (void *)place(&f->x, t, sizeof *x), *gain = (void *)place(&f->gain, t, sizeof *gain);
    int8_t *q = (void *)place(&f->q, t, 1);
    t->input->fill(f->x_copy, t->cols, key);
    memcpy(x, f->x_copy, t->cols * sizeof *x);
    if (t->norm->fill_gain) {
        t->norm->fill_gain(f->gain_copy, t->cols, key + 100);
        memcpy(gain, f->gain_copy, t->cols * sizeof *gain);
    }
    memset(f->expected, ~CANARY, t->cols); /* neither pattern may survive in both outputs */
    memset(f->q.begin, CANARY, (size_t)(f->q.end - f->q.begin));
    float expected = run(f->scalar, t, f->expected, f->x_copy, f->gain_copy);
    float got = run(f->candidate, t, q, x, gain);
    if (tern_f32_bits(got) != tern_f32_bits(expected)) return failed(f, t, "another 1/s", 0);
    return compare(f, t, q, x, gain);
}

/* Every input and norm at this length, at the guard page and at a start that varies. */
static int check_length(fixture *f, size_t cols) {
    uint64_t key = f->seed + cols * 1000003;
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++) {
        for (size_t j = 0; j < sizeof norms / sizeof *norms; j++, key += 1000) {
            size_t offset = tern_random_u32(key, 0) % 64;
            if (check_case(f, &(test_case){cols, &inputs[i], &norms[j], SIZE_MAX}, key)) return 1;
            if (check_case(f, &(test_case){cols, &inputs[i], &norms[j], offset}, key + 1)) return 1;
        }
    }
    return 0;
}

static int check_lengths(fixture *f) {
    for (size_t cols = 1; cols <= 130; cols++)
        if (check_length(f, cols)) return 1;
    return check_length(f, 2560) || check_length(f, LONGEST);
}

int tern_check_quantize(const tern_kernels *candidate, const tern_kernels *scalar, uint64_t seed, char *message,
                        size_t message_size) {
    fixture f = {.candidate = candidate, .scalar = scalar, .seed = seed};
    f.message = message;
    f.message_size = message_size;
    const size_t room = LONGEST + 64; /* the largest offset is 63 */
    int bad = 1;
    if (fence_open(&f.x, room * sizeof(float)) && fence_open(&f.gain, room * sizeof(float)) && fence_open(&f.q, room))
        bad = check_lengths(&f);
    else
        snprintf(message, message_size, "no memory for guard pages");
    fence_close(&f.x);
    fence_close(&f.gain);
    fence_close(&f.q);
    return bad;
}
