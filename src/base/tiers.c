#define _GNU_SOURCE
#include "base/tiers.h"

#if defined(__x86_64__)

#include <cpuid.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { ARCH_REQ_XCOMP_PERM_ = 0x1023, XFEATURE_XTILEDATA_ = 18 }; /* asm/prctl.h of Linux 5.16 */

static int has_avx2, has_avx512, has_amx;

static int all_set(uint32_t word, uint32_t bits) { return (word & bits) == bits; }

static uint64_t os_saved_state(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

static void detect(void) {
    uint32_t a, b1, c1, d1, b7, c7, d7;
    if (!__get_cpuid(1, &a, &b1, &c1, &d1) || !all_set(c1, bit_OSXSAVE)) return;
    if (!__get_cpuid_count(7, 0, &a, &b7, &c7, &d7)) return;
    uint64_t saved = os_saved_state();
    has_avx2 = (saved & 0x6) == 0x6 && all_set(c1, bit_AVX | bit_FMA | bit_F16C) && all_set(b7, bit_AVX2);
    const uint32_t f_dq_bw_vl = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31, vbmi_vnni = 1u << 1 | 1u << 11;
    has_avx512 = has_avx2 && (saved & 0xe6) == 0xe6 && all_set(b7, f_dq_bw_vl) && all_set(c7, vbmi_vnni);
    const uint32_t amx_tile_int8 = 1u << 24 | 1u << 25;
    has_amx = has_avx512 && (saved & 0x60000) == 0x60000 && all_set(d7, amx_tile_int8) &&
              syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM_, XFEATURE_XTILEDATA_) == 0;
}

int tern_machine_has(tern_tier tier) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, detect);
    switch (tier) {
    case TERN_TIER_SCALAR: return 1;
    case TERN_TIER_AVX2: return has_avx2;
    case TERN_TIER_AVX512: return has_avx512;
    case TERN_TIER_AMX: return has_amx;
    default: return 0;
    }
}

#elif defined(__aarch64__)

#include <sys/auxv.h>

enum { HWCAP_ASIMD_ = 1 << 1, HWCAP_ASIMDDP_ = 1 << 20 };

int tern_machine_has(tern_tier tier) {
    unsigned long caps = getauxval(AT_HWCAP);
    switch (tier) {
    case TERN_TIER_SCALAR: return 1;
    case TERN_TIER_NEON: return (caps & HWCAP_ASIMD_) != 0;
    case TERN_TIER_NEONDOT: return (caps & HWCAP_ASIMD_) && (caps & HWCAP_ASIMDDP_);
    default: return 0;
    }
}

#else

int tern_machine_has(tern_tier tier) { return tier == TERN_TIER_SCALAR; }

#endif
