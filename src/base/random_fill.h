/* Many random numbers at once, for code that needs one an element. */
#ifndef TERN_BASE_RANDOM_FILL_H
#define TERN_BASE_RANDOM_FILL_H

#include <stddef.h>
#include <stdint.h>

/* out: the 4 * blocks words of tern_philox(key, first + b, high), b = 0 .. blocks - 1, in order. */
void tern_random_fill(uint32_t *out, uint64_t key, uint64_t first, uint64_t high, size_t blocks);

#endif
