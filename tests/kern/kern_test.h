/* The kernel test: every slot of every tier against the specification, written out naively here. It plays against the
 * kernel: extremes as well as noise, outputs in a poisoned rectangle, inputs that end at a guard page, crashes caught
 * and put down to the kernel. The same call sites are the benchmark (--bench). */
#ifndef TERN_TESTS_KERN_TEST_H
#define TERN_TESTS_KERN_TEST_H

#include <stddef.h>
#include <stdint.h>

#include "kern/kernels.h"

typedef struct kern_test {
    const tern_kernels *tier;
    uint64_t seed;
    uint64_t draws;     /* position in the random stream */
    int bench;          /* time the calls instead of trying many shapes */
    const char *wanted; /* part of a kernel name, or NULL for all */
    const char *kernel; /* the kernel under test, for messages */
    int failures, kernels_checked;
} kern_test;

/* A check walks the slots of one kind. */
typedef void (*kern_check)(kern_test *t);

void check_layouts(kern_test *t);
void check_sums_i8(kern_test *t);
void check_matmul_i8(kern_test *t);
void check_epilogue(kern_test *t);
void check_groups_i8(kern_test *t);
void check_floats(kern_test *t);
void check_quantizers(kern_test *t);
void check_pack(kern_test *t);
void check_weights(kern_test *t);

/* Names the kernel about to be tested. Zero when it is not wanted or was checked in a lower tier. */
int begin_kernel(kern_test *t, const char *name);

/* Reports a failure of the current kernel. */
__attribute__((format(printf, 2, 3))) void fail_kernel(kern_test *t, const char *format, ...);

/* ---- inputs and outputs ---------------------------------------------------------------------------------------- */

typedef enum fill { FILL_NOISE, FILL_MINUS, FILL_ZERO, FILL_PLUS, FILL_SPARSE, FILL_COUNT } fill;

/* A buffer of its own whose last byte is followed by a page that cannot be read. 64-byte aligned when bytes is a
 * multiple of 64. Zeroed. */
void *fenced(size_t bytes);
void unfence(void *buffer, size_t bytes);

uint32_t draw(kern_test *t);
void draw_trits(kern_test *t, int8_t *trits, size_t n, fill how);
/* int8 activations; for the extreme fills all -128 or all 127. */
void draw_acts(kern_test *t, int8_t *x, size_t n, fill how);
void draw_floats(kern_test *t, float *x, size_t n);

enum { POISON = 0x5a };

/* ---- timing ---------------------------------------------------------------------------------------------------- */

double seconds_now(void);
void report_time(const kern_test *t, double seconds, double operations);

/* Calls once; in benchmark mode also times the call, in batches, and prints the median. */
#define CALL(t, operations, ...)                                  \
    do {                                                          \
        __VA_ARGS__;                                              \
        if ((t)->bench) {                                         \
            double best_[15];                                     \
            for (int batch_ = 0; batch_ < 15; batch_++) {         \
                int calls_ = 0;                                   \
                double start_ = seconds_now(), now_;              \
                do {                                              \
                    __VA_ARGS__;                                  \
                    calls_++;                                     \
                } while ((now_ = seconds_now()) - start_ < 2e-3); \
                best_[batch_] = (now_ - start_) / calls_;         \
            }                                                     \
            report_time((t), median_of(best_, 15), (operations)); \
        }                                                         \
    } while (0)

double median_of(double *values, size_t n);

#endif
