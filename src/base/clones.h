/* TERN_CLONES before a function: compiled once for each of a few instruction sets, and the best that the machine has
 * is bound when the program starts. For plain loops that the compiler vectorises. Contraction is off in the whole
 * tree, so all of them compute the same bits. Sanitizers do not take part: they are not yet awake when the choice is
 * made. */
#ifndef TERN_BASE_CLONES_H
#define TERN_BASE_CLONES_H

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define TERN_SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define TERN_SANITIZED 1
#endif

#if defined(__x86_64__) && !defined(TERN_SANITIZED)
#define TERN_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define TERN_CLONES
#endif

#endif
