#define _GNU_SOURCE
#include "base/memory.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

/* Below this a huge page would mostly be padding. */
static const size_t huge_page = (size_t)2 << 20;

static int map_block(tern_block *block, size_t bytes) {
    /* Over-map by one huge page, so that the data can start on a huge-page boundary, and give the ends back. */
    size_t length = (bytes + huge_page - 1) / huge_page * huge_page;
    if (length > SIZE_MAX - huge_page) return 0;
    uint8_t *base = mmap(NULL, length + huge_page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) return 0;
    size_t head = (huge_page - (uintptr_t)base % huge_page) % huge_page;
    if (head) munmap(base, head);
    if (huge_page - head) munmap(base + head + length, huge_page - head);
    block->data = base + head;
    block->mapped = length;
    block->huge_pages = madvise(block->data, length, MADV_HUGEPAGE) == 0;
    return 1;
}

int tern_block_alloc(tern_block *block, size_t bytes) {
    memset(block, 0, sizeof *block);
    if (bytes > SIZE_MAX / 2) return 0;
    block->bytes = bytes;
    if (bytes >= huge_page) return map_block(block, bytes);
    size_t length = bytes ? (bytes + TERN_ALIGNMENT - 1) / TERN_ALIGNMENT * TERN_ALIGNMENT : TERN_ALIGNMENT;
    block->data = aligned_alloc(TERN_ALIGNMENT, length);
    if (!block->data) return 0;
    memset(block->data, 0, length);
    return 1;
}

void tern_block_free(tern_block *block) {
    if (block->mapped)
        munmap(block->data, block->mapped);
    else
        free(block->data);
    memset(block, 0, sizeof *block);
}

size_t tern_peak_bytes(void) {
    struct rusage used;
    return getrusage(RUSAGE_SELF, &used) ? 0 : (size_t)used.ru_maxrss * 1024; /* ru_maxrss: KiB */
}
