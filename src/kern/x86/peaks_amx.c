#include <immintrin.h>
#include <string.h>

#include "kern/x86/peaks_x86.h"
#include "kern/x86/tiles_amx.h"

double tern_peak_i8_amx(size_t rounds, volatile int *sink) {
    int32_t out[16 * 16];
    memset(out, 0, sizeof out);
    _tile_loadconfig(&tern_full_tiles_amx);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_loadd(4, out, 64);
    _tile_loadd(5, out, 64);
    for (size_t r = 0; r < rounds; r++) {
        _tile_dpbsud(0, 4, 5);
        _tile_dpbsud(1, 4, 5);
        _tile_dpbsud(2, 4, 5);
        _tile_dpbsud(3, 4, 5);
    }
    _tile_stored(0, out, 64);
    _tile_release();
    *sink = out[0];
    return (double)rounds * 4 * 16 * 16 * 64 * 2;
}
