/* Usage: kern_test [--seed N] [--bench] [--function PART] [--tier NAME] */
#define _GNU_SOURCE
#include "kern_test.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/random.h"

static const struct {
    const char *name;
    kern_check run;
} checks[] = {
    {"layouts", check_layouts},       {"sums_i8", check_sums_i8},     {"matmul_i8", check_matmul_i8},
    {"epilogue", check_epilogue},     {"groups_i8", check_groups_i8}, {"floats", check_floats},
    {"quantizers", check_quantizers}, {"pack", check_pack},           {"weights", check_weights},
};

/* ---- kernels --------------------------------------------------------------------------------------------------- */

enum { MAX_SEEN = 256 };
static const char *seen[MAX_SEEN];
static size_t n_seen;

int begin_kernel(kern_test *t, const char *name) {
    if (t->wanted && !strstr(name, t->wanted)) return 0;
    for (size_t i = 0; i < n_seen; i++)
        if (!strcmp(seen[i], name)) return 0;
    if (n_seen < MAX_SEEN) seen[n_seen++] = name;
    t->kernel = name;
    t->kernels_checked++;
    return 1;
}

void fail_kernel(kern_test *t, const char *format, ...) {
    va_list args;
    if (t->failures++ > 20) return;
    printf("FAILED %s: ", t->kernel);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n");
}

/* ---- buffers --------------------------------------------------------------------------------------------------- */

static size_t pages_for(size_t bytes, size_t page) { return (bytes + page - 1) / page * page; }

void *fenced(size_t bytes) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), length = pages_for(bytes, page);
    uint8_t *base = mmap(NULL, length + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED || mprotect(base + length, page, PROT_NONE)) {
        fprintf(stderr, "kern_test: no memory for a fenced buffer of %zu bytes: %s\n", bytes, strerror(errno));
        exit(2);
    }
    return base + length - bytes;
}

void unfence(void *buffer, size_t bytes) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), length = pages_for(bytes, page);
    munmap((uint8_t *)buffer + bytes - length, length + page);
}

uint32_t draw(kern_test *t) { return tern_random_u32(t->seed, t->draws++); }

void draw_trits(kern_test *t, int8_t *trits, size_t n, fill how) {
    for (size_t i = 0; i < n; i++) switch (how) {
        case FILL_MINUS: trits[i] = -1; break;
        case FILL_ZERO: trits[i] = 0; break;
        case FILL_PLUS: trits[i] = 1; break;
        case FILL_SPARSE: trits[i] = (int8_t)(draw(t) % 16 ? 0 : (int)(draw(t) % 2) * 2 - 1); break;
        default: trits[i] = (int8_t)((int)(draw(t) % 3) - 1);
        }
}

void draw_acts(kern_test *t, int8_t *x, size_t n, fill how) {
    for (size_t i = 0; i < n; i++) switch (how) {
        case FILL_MINUS:
        case FILL_ZERO: x[i] = -128; break;
        case FILL_PLUS: x[i] = 127; break;
        default: x[i] = (int8_t)(uint8_t)draw(t);
        }
}

void draw_floats(kern_test *t, float *x, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] = (float)((int32_t)(draw(t) >> 8) - (1 << 23)) * 0x1p-22f;
}

/* ---- timing ---------------------------------------------------------------------------------------------------- */

double seconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double median_of(double *values, size_t n) {
    qsort(values, n, sizeof *values, ascending);
    return values[n / 2];
}

void report_time(const kern_test *t, double seconds, double operations) {
    printf("%-40s %10.3f us %9.2f G/s\n", t->kernel, seconds * 1e6, operations / seconds * 1e-9);
}

/* ---- runner ---------------------------------------------------------------------------------------------------- */

static sigjmp_buf crashed;

static void on_crash(int signal_number) { siglongjmp(crashed, signal_number); }

static void run_check(kern_test *t, kern_check check) {
    int signal_number = sigsetjmp(crashed, 1);
    if (!signal_number)
        check(t);
    else
        fail_kernel(t, "crashed with signal %d (%s)", signal_number, strsignal(signal_number));
}

static int usage(void) {
    fprintf(stderr, "usage: kern_test [--seed N] [--bench] [--function PART] [--tier NAME]\n");
    return 2;
}

int main(int argc, char **argv) {
    kern_test t = {.seed = (uint64_t)time(NULL)};
    const char *only_tier = NULL;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--bench"))
            t.bench = 1;
        else if (!strcmp(argv[i], "--seed") && i + 1 < argc)
            t.seed = strtoull(argv[++i], NULL, 0);
        else if (!strcmp(argv[i], "--function") && i + 1 < argc)
            t.wanted = argv[++i];
        else if (!strcmp(argv[i], "--tier") && i + 1 < argc)
            only_tier = argv[++i];
        else
            return usage();
    }
    static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        struct sigaction action = {.sa_handler = on_crash, .sa_flags = SA_NODEFER};
        sigaction(signals[i], &action, NULL);
    }
    printf("seed %llu\n", (unsigned long long)t.seed);
    for (int tier = TERN_TIER_SCALAR; tier < TERN_TIER_COUNT; tier++) {
        const char *name = tern_tier_name((tern_tier)tier);
        t.tier = tern_kernels_of((tern_tier)tier);
        if (!t.tier || (only_tier && strcmp(only_tier, name))) continue;
        t.kernels_checked = 0;
        for (size_t c = 0; c < sizeof checks / sizeof *checks; c++) {
            t.draws = 0; /* the same inputs for every tier */
            t.kernel = checks[c].name;
            run_check(&t, checks[c].run);
        }
        printf("%-8s %d kernels checked\n", name, t.kernels_checked);
    }
    if (t.failures) printf("%d failures; repeat with --seed %llu\n", t.failures, (unsigned long long)t.seed);
    return t.failures != 0;
}
