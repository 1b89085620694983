/* One image from bytes to normalized floats, with random changes that are a pure function of (seed, epoch, image). */
#ifndef TERN_IO_AUGMENT_H
#define TERN_IO_AUGMENT_H

#include <stddef.h>
#include <stdint.h>

#include "base/random.h"
#include "tern/data.h"

/* What a random number is for; part of its Philox counter, so that no two uses share one. */
typedef enum tern_draw {
    TERN_DRAW_ORDER,
    TERN_DRAW_PLACE,
    TERN_DRAW_FLIP,
    TERN_DRAW_COLOR,
    TERN_DRAW_WINDOW
} tern_draw;

typedef struct tern_augmenter {
    tern_augment how;
    size_t height, width, channels;
    uint64_t seed;
    float table[4]
               [256];  /* per channel, what a byte becomes: normalized, or x / 255 where colours are changed first */
    uint32_t *columns; /* [W] scratch of tern_augment_image: which column of the source each one shows */
} tern_augmenter;

/* Whether anything but mean and std is asked for. */
int tern_augment_is_random(const tern_augment *how);

/* Everything in `how` is checked. `evaluate` refuses what is random. */
tern_status tern_augmenter_init(tern_augmenter *augmenter, const tern_augment *how, const tern_dataset_info *info,
                                uint64_t seed, int evaluate, tern_error *err);
void tern_augmenter_free(tern_augmenter *augmenter);

/* out: [H][W][C]. One thread at a time: the augmenter has scratch. */
void tern_augment_image(float *out, tern_augmenter *augmenter, const uint8_t *image, uint64_t epoch, uint64_t index);

/* The upper half of a Philox counter; the lower half is an image, a place of the order, or a window of the batch. */
TERN_RANDOM uint64_t tern_draw_counter(tern_draw draw, uint64_t epoch) { return epoch << 3 | (uint64_t)draw; }

#endif
