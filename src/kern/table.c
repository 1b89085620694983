#include <pthread.h>

#include "base/tiers.h"
#include "kern/kernels.h"
#include "kern/tiers_init.h"

static tern_kernels tables[TERN_TIER_COUNT];

typedef struct tier_step {
    tern_tier tier, from;
    void (*init)(tern_kernels *table);
} tier_step;

/* Slowest first: a tier starts from the table of the one it extends. */
static const tier_step steps[] = {
    {TERN_TIER_SCALAR, TERN_TIER_AUTO, tern_kernels_init_scalar},
#if defined(__x86_64__)
    {TERN_TIER_AVX2, TERN_TIER_SCALAR, tern_kernels_init_avx2},
    {TERN_TIER_AVX512, TERN_TIER_AVX2, tern_kernels_init_avx512},
    {TERN_TIER_AMX, TERN_TIER_AVX512, tern_kernels_init_amx},
#elif defined(__aarch64__)
    {TERN_TIER_NEON, TERN_TIER_SCALAR, tern_kernels_init_neon},
    {TERN_TIER_NEONDOT, TERN_TIER_NEON, tern_kernels_init_neondot},
#endif
};

static void fill_tables(void) {
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        const tier_step *s = &steps[i];
        if (!tern_machine_has(s->tier)) return;
        tables[s->tier] = tables[s->from];
        s->init(&tables[s->tier]);
        tables[s->tier].tier = s->tier;
    }
}

const tern_kernels *tern_kernels_of(tern_tier tier) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, fill_tables);
    if ((int)tier <= TERN_TIER_AUTO || tier >= TERN_TIER_COUNT || tables[tier].tier != tier) return NULL;
    return &tables[tier];
}
