/* Aligned memory for weights and scratch. */
#ifndef TERN_BASE_MEMORY_H
#define TERN_BASE_MEMORY_H

#include <stddef.h>

enum { TERN_ALIGNMENT = 64 };

/* A block of its own: 64-byte aligned, zeroed, on huge pages where it is large and the system gives them. */
typedef struct tern_block {
    void *data;
    size_t bytes;   /* as asked for */
    size_t mapped;  /* bytes really mapped; 0 when it came from the heap */
    int huge_pages; /* madvise accepted it */
} tern_block;

/* Nonzero on success. bytes = 0 gives a valid block of no bytes. */
int tern_block_alloc(tern_block *block, size_t bytes);

/* Accepts a zeroed block; zeroes it again. */
void tern_block_free(tern_block *block);

/* The most memory that this process has held at once, in bytes; 0 where the system does not say. */
size_t tern_peak_bytes(void);

#endif
