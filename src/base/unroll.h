/* TERN_UNROLL before a loop of few, constant rounds: unrolls it whole, and early enough that an array indexed by it
 * lives in registers. */
#ifndef TERN_BASE_UNROLL_H
#define TERN_BASE_UNROLL_H

#if defined(__clang__)
#define TERN_UNROLL _Pragma("unroll")
#else
#define TERN_UNROLL _Pragma("GCC unroll 32")
#endif

#endif
