/* Data: sets of images and texts held in memory, and loaders that make batches of them.
 *
 * Letters: B batch, H height, W width, C channels (1 grey, 3 red green blue), T tokens of a window. Pixels are bytes,
 * rows from the top, channels last: [.][H][W][C].
 *
 * Files are not trusted: every count in them is checked before it is used. An error of theirs names the file; its
 * place is a byte of the content (of the unpacked content, where the file is packed). A name that ends in .gz or .xz
 * says that the file is packed so; it is unpacked in memory. */
#ifndef TERN_DATA_H
#define TERN_DATA_H

#include <stddef.h>
#include <stdint.h>

#include "tern/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- data sets ------------------------------------------------------------------------------------------------- */

typedef enum tern_data_kind {
    TERN_DATA_MNIST = 0, /* folder: {train,t10k}-images-idx3-ubyte, {train,t10k}-labels-idx1-ubyte, or .gz, .xz */
    TERN_DATA_FASHION_MNIST = 1, /* the same names */
    TERN_DATA_CIFAR10 = 2,       /* folder: data_batch_1.bin to data_batch_5.bin, test_batch.bin, or .gz, .xz */
    TERN_DATA_IMAGES = 3,        /* folder of folders of PNG and JPEG files, see below */
    TERN_DATA_TEXT = 4,          /* one file, plain or .gz or .xz */
    TERN_DATA_KIND_COUNT
} tern_data_kind;

/* "mnist", "fashion-mnist", "cifar-10", "images", "text"; NULL for a value that is none. */
TERN_API const char *tern_data_kind_name(tern_data_kind kind);

typedef enum tern_split {
    TERN_SPLIT_TRAIN = 0,
    TERN_SPLIT_TEST = 1 /* of a text: the last part, which training does not see */
} tern_split;

typedef enum tern_text_unit {
    TERN_TEXT_CHARACTERS = 0, /* a token is a code point; the vocabulary is those of the whole file, ascending */
    TERN_TEXT_BYTES = 1       /* a token is a byte; the vocabulary is 256 */
} tern_text_unit;

/* Zero bytes mean: choose for me. */
typedef struct tern_dataset_desc {
    tern_data_kind kind;
    tern_split split;
    const char *path; /* the folder, or the file of a text. NULL: the first place that has what is needed of
                         $TERN_DATA/NAME, data/NAME, ../shared/data/NAME, /usr/share/datasets/NAME, where NAME is the
                         kind's name, for texts text/tinyshakespeare.txt; TERN_DATA_IMAGES has no default place */
    size_t height, width, channels; /* IMAGES: the size all images must have; 0: that of the first */
    tern_text_unit unit;            /* TEXT */
    double train_share;             /* TEXT: floor(share * tokens) are TRAIN, the rest TEST; 0 means 0.9 */
} tern_dataset_desc;

/* An immutable data set; any number of threads and loaders may use it at once. */
typedef struct tern_dataset tern_dataset;

/* Reads and checks everything. TERN_DATA_IMAGES: `path` has one folder per class (at most 256), classes in ascending
 * order of the bytes of their names, and so are the files in a class. Names that end in .png, .jpg or .jpeg, in
 * capitals or not, are images; others and hidden ones are ignored. Where `path` has folders named train or test, they
 * are the splits; else all of it is TRAIN and asking for TEST is an error. All images have one size. With channels
 * 1 or 3 every image is converted (see tern_image_read); with 0 they must all have the channels of the first. */
TERN_API tern_status tern_dataset_open(tern_dataset **out, const tern_dataset_desc *desc, tern_error *err);

/* Frees and nulls; NULL and a pointer to NULL are accepted. No loader may still use it. */
TERN_API void tern_dataset_close(tern_dataset **dataset);

typedef struct tern_dataset_info {
    tern_data_kind kind;
    tern_split split;
    size_t count;                   /* images; 0 for a text */
    size_t height, width, channels; /* 0 for a text */
    size_t classes;                 /* 0 for a text */
    size_t tokens;                  /* of this split; 0 for images */
    size_t vocabulary;              /* distinct tokens; 0 for images */
} tern_dataset_info;

TERN_API tern_status tern_dataset_describe(tern_dataset_info *info, const tern_dataset *dataset, tern_error *err);

/* What follows belongs to the data set, and is NULL where it has no such thing, for NULL too. */
TERN_API const uint8_t *tern_dataset_images(const tern_dataset *dataset);  /* [count][H][W][C] */
TERN_API const uint8_t *tern_dataset_labels(const tern_dataset *dataset);  /* [count], each below `classes` */
TERN_API const uint16_t *tern_dataset_tokens(const tern_dataset *dataset); /* [tokens], each below `vocabulary` */
TERN_API const char *tern_dataset_class_name(const tern_dataset *dataset, size_t label);
TERN_API const uint32_t *tern_dataset_vocabulary(const tern_dataset *dataset); /* code point of each token; NULL for
                                                                                  bytes */

/* Mean and standard deviation of each channel over all pixels, in units of 0..1: mean[C], std[C]; a channel of one
 * value has std 1. */
TERN_API tern_status tern_dataset_moments(float *mean, float *std, const tern_dataset *dataset, tern_error *err);

/* Text to tokens: *count is how many; at most `capacity` are written, and needing more is TERN_E_SIZE. A character
 * outside the vocabulary, or bytes that are not UTF-8, are TERN_E_DATA with the byte as the place. */
TERN_API tern_status tern_dataset_encode(const tern_dataset *dataset, uint16_t *tokens, size_t capacity,
                                         size_t *count, const char *text, size_t bytes, tern_error *err);

/* Tokens to UTF-8 (bytes as they are): *bytes is how many, without the zero that ends them; at most `capacity` bytes
 * are written, that zero included, and needing more is TERN_E_SIZE. A token takes at most 4 bytes. */
TERN_API tern_status tern_dataset_decode(const tern_dataset *dataset, char *text, size_t capacity, size_t *bytes,
                                         const uint16_t *tokens, size_t count, tern_error *err);

/* ---- one image ------------------------------------------------------------------------------------------------- */

typedef struct tern_image_info {
    size_t height, width, channels; /* channels: 1 or 3, as the file has them without its alpha */
} tern_image_info;

/* Size of a PNG or JPEG file, from its header. The content decides which it is, not the name. */
TERN_API tern_status tern_image_describe(tern_image_info *info, const char *path, tern_error *err);

/* The pixels of a PNG or JPEG file: out[H][W][C], C = 1 or 3. Another height or width is TERN_E_SIZE with both sizes
 * in the message; nothing is resized. Grey becomes colour by repeating it; colour becomes grey as
 * (19595 R + 38470 G + 7471 B + 32768) >> 16. Palettes are looked up, 16 bits scaled to 8; alpha, gamma, colour
 * profiles and a camera's orientation are ignored. A file that is damaged or cut off is an error even if some of it
 * can be seen. */
TERN_API tern_status tern_image_read(const char *path, size_t height, size_t width, size_t channels, uint8_t *out,
                                     tern_error *err);

/* ---- loaders --------------------------------------------------------------------------------------------------- */

typedef enum tern_flip {
    TERN_FLIP_NONE = 0,
    TERN_FLIP_RANDOM = 1,     /* left to right, each image with probability 1/2 in every epoch */
    TERN_FLIP_ALTERNATING = 2 /* the same coin in epoch 0; from then on each image is flipped back and forth, so that
                                 two epochs in a row show both sides of all of them (airbench) */
} tern_flip;

typedef enum tern_padding {
    TERN_PADDING_ZERO = 0,   /* black */
    TERN_PADDING_REFLECT = 1 /* mirrored without repeating the edge; the pad must be less than H and W */
} tern_padding;

/* What is done to an image, in this order. Zero bytes mean: only x / 255. */
typedef struct tern_augment {
    size_t crop_pad; /* pad all four sides by this much, and cut an H x W window at a random place */
    tern_padding crop_padding;
    tern_flip flip;
    float brightness, contrast, saturation; /* strengths s, 0 to 1: a factor f uniform in [1 - s, 1 + s) each, then
                                               v f; f v + (1 - f) mean grey of the image; f v + (1 - f) grey of the
                                               pixel; each clamped to 0..1 */
    float mean[4], std[4];                  /* per channel, in units of 0..1: (v - mean) / std; std = 0 means 1 */
    size_t cutout; /* a square of this side around a random pixel becomes the mean (0 after normalizing); what
                              lies outside the image is cut off */
} tern_augment;

/* Zero bytes mean: choose for me, where that is possible. */
typedef struct tern_loader_desc {
    const tern_dataset *dataset; /* must outlive the loader */
    size_t batch;                /* B: images or windows of a batch */
    size_t window;               /* T: tokens of a window; TEXT only */
    uint64_t seed;
    int evaluate; /* 0: training, batches without end. Nonzero: in the order of the data set, each image or window
                     once; then a batch with n = 0, and after it from the beginning again */
    int shuffle; /* IMAGES, training only: a new order in every epoch. A text has random windows in training always */
    int drop_last;        /* leave out a last batch of less than B; training a text does so always */
    tern_augment augment; /* IMAGES; when evaluating only mean and std */
    int numbers; /* nonzero: batches only say which samples they are made of; for who has the data elsewhere */
} tern_loader_desc;

typedef struct tern_loader tern_loader;

typedef struct tern_batch {
    const float *x;         /* images: [n][H][W][C], 64-byte aligned; else NULL */
    const int32_t *tokens;  /* text: [n][T]; else NULL */
    const int32_t *labels;  /* images: [n]; text: [n][T], the token after each */
    const int64_t *numbers; /* desc.numbers: [n] the image, or the first token of the window; x, tokens and labels are
                               NULL then. Else NULL */
    size_t n;               /* B, or less in a last batch; 0: a pass of evaluation has ended */
    uint64_t epoch;         /* passes before this one */
    uint64_t step;          /* batches before this one, over all epochs */
} tern_batch;

/* Starts one thread that makes the next batches while the last is being used. What a batch holds depends on the
 * descriptor and its step alone: never on timing, the machine, or what was read before.
 *
 * Training a text: window i of a batch starts at a place drawn uniformly from all that have T tokens and one more to
 * predict; an epoch is tokens / T / B batches, at least one. Evaluating: the windows follow each other without
 * overlap; fewer than T + 1 tokens at the end are left out. */
TERN_API tern_status tern_loader_open(tern_loader **out, const tern_loader_desc *desc, tern_error *err);

/* The next batch. Its arrays belong to the loader and hold until the next call of it. One thread at a time. */
TERN_API tern_status tern_loader_next(tern_loader *loader, tern_batch *out, tern_error *err);

/* Batches of an epoch. */
TERN_API uint64_t tern_loader_steps(const tern_loader *loader);

/* Makes `step` the next batch, to the bit as if all before it had been read. */
TERN_API tern_status tern_loader_seek(tern_loader *loader, uint64_t step, tern_error *err);

/* Ends the thread, frees and nulls; NULL and a pointer to NULL are accepted. */
TERN_API void tern_loader_close(tern_loader **loader);

#ifdef __cplusplus
}
#endif
#endif
