#include "tern/matrix.h"

static const char *const names[TERN_TIER_COUNT] = {"auto", "scalar", "avx2", "avx512", "amx", "neon", "neondot"};

const char *tern_tier_name(tern_tier tier) { return (unsigned)tier < TERN_TIER_COUNT ? names[tier] : NULL; }
