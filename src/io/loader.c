/* Batches made ahead by one thread.
 *
 * A position counts what tern_loader_next returns: batches, and in evaluation the end after each pass. What stands at
 * a position is a pure function of it, so seeking is setting a number. The thread is the only one that writes into
 * slots and the caller the only one that reads them; the mutex guards the counters that say whose a slot is:
 *
 *     released        filled          released + SLOTS
 *        | held | ready | being filled |
 */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/random.h"
#include "io/augment.h"
#include "io/dataset.h"

enum { SLOTS = 3 };
static const uint64_t max_step = (uint64_t)1 << 60; /* three bits of a counter say what a number is for */

typedef struct slot {
    tern_block x;      /* [B][H][W][C] float, or [B][T] int32; with desc.numbers [B] int64 */
    tern_block labels; /* [B] or [B][T] int32; none with desc.numbers */
    tern_batch batch;
} slot;

struct tern_loader {
    tern_loader_desc desc;
    tern_dataset_info info;
    uint64_t samples; /* images or windows of an epoch */
    uint64_t steps;   /* batches of an epoch */
    slot slots[SLOTS];

    /* the thread's own */
    tern_augmenter augmenter;
    uint32_t *order;      /* [samples] of order_epoch; NULL where the order is the data set's */
    uint64_t order_epoch; /* UINT64_MAX: none yet */

    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t has_room, has_batch;
    /* guarded by the mutex */
    uint64_t position;         /* that the thread makes next */
    uint64_t filled, released; /* slots, counted since the last seek */
    uint64_t generation;       /* of seeks: what was begun before the last one is thrown away */
    int held, stop;
};

/* ---- what stands at a position --------------------------------------------------------------------------------- */

/* Fisher-Yates. */
static void make_order(tern_loader *l, uint64_t epoch) {
    if (!l->order || l->order_epoch == epoch) return;
    const uint32_t n = (uint32_t)l->info.count;
    for (uint32_t i = 0; i < n; i++) l->order[i] = i;
    tern_random4 r = {{0}};
    for (uint32_t i = 0; i + 1 < n; i++) {
        if (i % 4 == 0) r = tern_philox(l->desc.seed, i / 4, tern_draw_counter(TERN_DRAW_ORDER, epoch));
        uint32_t j = i + (uint32_t)((uint64_t)r.v[i % 4] * (n - i) >> 32), t = l->order[i];
        l->order[i] = l->order[j];
        l->order[j] = t;
    }
    l->order_epoch = epoch;
}

/* The image, or the first token of the window, that is sample i of a batch which begins with sample `first`. */
static size_t sample_of(const tern_loader *l, const slot *s, uint64_t first, size_t i) {
    if (l->info.kind != TERN_DATA_TEXT) return l->order ? l->order[first + i] : first + i;
    if (l->desc.evaluate) return (first + i) * l->desc.window;
    tern_random4 r = tern_philox(l->desc.seed, i, tern_draw_counter(TERN_DRAW_WINDOW, s->batch.step));
    return ((uint64_t)r.v[1] << 32 | r.v[0]) % (l->info.tokens - l->desc.window);
}

static void make_numbers(const tern_loader *l, slot *s, uint64_t first) {
    int64_t *number = s->x.data;
    for (size_t i = 0; i < s->batch.n; i++) number[i] = (int64_t)sample_of(l, s, first, i);
    s->batch.numbers = number;
}

static void make_images(tern_loader *l, slot *s, uint64_t first) {
    const size_t size = l->info.height * l->info.width * l->info.channels;
    const uint8_t *images = tern_dataset_images(l->desc.dataset), *classes = tern_dataset_labels(l->desc.dataset);
    float *x = s->x.data;
    int32_t *labels = s->labels.data;
    for (size_t i = 0; i < s->batch.n; i++) {
        const size_t index = sample_of(l, s, first, i);
        tern_augment_image(x + i * size, &l->augmenter, images + index * size, s->batch.epoch, index);
        labels[i] = classes[index];
    }
    s->batch.x = x;
    s->batch.labels = labels;
}

static void make_windows(const tern_loader *l, slot *s, uint64_t first) {
    const size_t window = l->desc.window;
    const uint16_t *text = tern_dataset_tokens(l->desc.dataset);
    int32_t *tokens = s->x.data, *targets = s->labels.data;
    for (size_t i = 0; i < s->batch.n; i++) {
        const size_t start = sample_of(l, s, first, i);
        for (size_t t = 0; t < window; t++) {
            tokens[i * window + t] = text[start + t];
            targets[i * window + t] = text[start + t + 1];
        }
    }
    s->batch.tokens = tokens;
    s->batch.labels = targets;
}

static void make_batch(tern_loader *l, slot *s, uint64_t position) {
    const uint64_t period = l->steps + (l->desc.evaluate != 0), in_epoch = position % period;
    s->batch = (tern_batch){.epoch = position / period};
    s->batch.step = s->batch.epoch * l->steps + in_epoch;
    if (in_epoch == l->steps) return; /* the end of a pass */
    const uint64_t first = in_epoch * l->desc.batch, left = l->samples - first;
    s->batch.n = left < l->desc.batch ? (size_t)left : l->desc.batch;
    make_order(l, s->batch.epoch);
    if (l->desc.numbers)
        make_numbers(l, s, first);
    else if (l->info.kind == TERN_DATA_TEXT)
        make_windows(l, s, first);
    else
        make_images(l, s, first);
}

/* ---- the thread ------------------------------------------------------------------------------------------------ */

static void *make_batches(void *argument) {
    tern_loader *l = argument;
    pthread_mutex_lock(&l->mutex);
    for (;;) {
        while (!l->stop && l->filled - l->released == SLOTS) pthread_cond_wait(&l->has_room, &l->mutex);
        if (l->stop) break;
        const uint64_t generation = l->generation, position = l->position;
        slot *s = &l->slots[l->filled % SLOTS];
        pthread_mutex_unlock(&l->mutex);
        make_batch(l, s, position);
        pthread_mutex_lock(&l->mutex);
        if (generation != l->generation) continue;
        l->position++;
        l->filled++;
        pthread_cond_signal(&l->has_batch);
    }
    pthread_mutex_unlock(&l->mutex);
    return NULL;
}

/* Signals are for the threads of the program. */
static int start_thread(tern_loader *l) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&l->thread, NULL, make_batches, l);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return !failed;
}

/* ---- opening and closing --------------------------------------------------------------------------------------- */

static tern_status count_samples(tern_loader *l, tern_error *err) {
    const tern_loader_desc *d = &l->desc;
    if (l->info.kind != TERN_DATA_TEXT) {
        TERN_CHECK_ARGUMENT(d->window == 0, err, "window = %zu, but the data set has images", d->window);
        TERN_CHECK_ARGUMENT(l->info.count <= UINT32_MAX, err, "%zu images; at most 2^32 - 1", l->info.count);
        l->samples = l->info.count;
        return TERN_OK;
    }
    TERN_CHECK_ARGUMENT(!tern_augment_is_random(&d->augment), err,
                        "augment is for images, but the data set is a text");
    TERN_CHECK_ARGUMENT(d->window, err, "window = 0: a text needs the number of tokens of a window");
    TERN_CHECK_ARGUMENT(d->window < l->info.tokens, err, "window = %zu, but this split has %zu tokens", d->window,
                        l->info.tokens);
    if (d->evaluate) {
        l->samples = (l->info.tokens - 1) / d->window;
    } else {
        l->samples = l->info.tokens / d->window / d->batch * d->batch;
        if (l->samples == 0) l->samples = d->batch;
    }
    return TERN_OK;
}

static tern_status count_steps(tern_loader *l, tern_error *err) {
    TERN_CHECK_ARGUMENT(l->desc.batch, err, "batch = 0");
    TERN_TRY(count_samples(l, err));
    l->steps = l->samples / l->desc.batch + (!l->desc.drop_last && l->samples % l->desc.batch);
    TERN_CHECK_ARGUMENT(l->steps, err, "batch = %zu: with drop_last none is left of %llu samples", l->desc.batch,
                        (unsigned long long)l->samples);
    return TERN_OK;
}

static tern_status allocate(tern_loader *l, tern_error *err) {
    const int text = l->info.kind == TERN_DATA_TEXT;
    const size_t values = text ? l->desc.window : l->info.height * l->info.width * l->info.channels;
    const size_t sample = l->desc.numbers ? 1 : values, bytes = l->desc.numbers ? sizeof(int64_t) : sizeof(float);
    size_t x = l->desc.batch, labels;
    if (!tern_checked_mul(&x, x, sample) || !tern_checked_mul(&x, x, bytes))
        return tern_fail(err, TERN_E_SIZE, TERN_NO_PLACE, "a batch of %zu x %zu numbers overflows", l->desc.batch,
                         sample);
    labels = l->desc.numbers ? 0 : text ? x : l->desc.batch * sizeof(int32_t);
    for (int i = 0; i < SLOTS; i++)
        if (!tern_block_alloc(&l->slots[i].x, x) || !tern_block_alloc(&l->slots[i].labels, labels))
            return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "%d batches of %zu bytes", SLOTS, x + labels);
    if (text || !l->desc.shuffle || l->desc.evaluate) return TERN_OK;
    l->order_epoch = UINT64_MAX;
    l->order = calloc(l->info.count, sizeof *l->order);
    return l->order ? TERN_OK : tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "memory for %zu places", l->info.count);
}

static tern_status prepare(tern_loader *l, tern_error *err) {
    l->info = l->desc.dataset->info;
    TERN_TRY(count_steps(l, err));
    if (l->info.kind != TERN_DATA_TEXT)
        TERN_TRY(tern_augmenter_init(&l->augmenter, &l->desc.augment, &l->info, l->desc.seed, l->desc.evaluate, err));
    return allocate(l, err);
}

static void free_loader(tern_loader *l) {
    for (int i = 0; i < SLOTS; i++) {
        tern_block_free(&l->slots[i].x);
        tern_block_free(&l->slots[i].labels);
    }
    tern_augmenter_free(&l->augmenter);
    free(l->order);
    pthread_cond_destroy(&l->has_room);
    pthread_cond_destroy(&l->has_batch);
    pthread_mutex_destroy(&l->mutex);
    free(l);
}

tern_status tern_loader_open(tern_loader **out, const tern_loader_desc *desc, tern_error *err) {
    TERN_CHECK_ARGUMENT(out, err, "out is NULL");
    TERN_CHECK_ARGUMENT(desc, err, "desc is NULL");
    TERN_CHECK_ARGUMENT(desc->dataset, err, "desc.dataset is NULL");
    tern_loader *l = calloc(1, sizeof *l);
    if (!l) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "%zu bytes for a loader", sizeof *l);
    l->desc = *desc;
    pthread_mutex_init(&l->mutex, NULL); /* with default attributes these cannot fail on Linux */
    pthread_cond_init(&l->has_room, NULL);
    pthread_cond_init(&l->has_batch, NULL);
    tern_status status = prepare(l, err);
    if (!status && !start_thread(l))
        status = tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "the system gave no thread for a loader");
    if (status)
        free_loader(l);
    else
        *out = l;
    return status;
}

void tern_loader_close(tern_loader **loader) {
    if (!loader || !*loader) return;
    tern_loader *l = *loader;
    pthread_mutex_lock(&l->mutex);
    l->stop = 1;
    pthread_cond_signal(&l->has_room);
    pthread_mutex_unlock(&l->mutex);
    pthread_join(l->thread, NULL);
    free_loader(l);
    *loader = NULL;
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

tern_status tern_loader_next(tern_loader *l, tern_batch *out, tern_error *err) {
    TERN_CHECK_ARGUMENT(l, err, "loader is NULL");
    TERN_CHECK_ARGUMENT(out, err, "out is NULL");
    pthread_mutex_lock(&l->mutex);
    if (l->held) {
        l->released++;
        pthread_cond_signal(&l->has_room);
    }
    while (l->filled == l->released) pthread_cond_wait(&l->has_batch, &l->mutex);
    *out = l->slots[l->released % SLOTS].batch;
    l->held = 1;
    pthread_mutex_unlock(&l->mutex);
    return TERN_OK;
}

uint64_t tern_loader_steps(const tern_loader *l) { return l ? l->steps : 0; }

tern_status tern_loader_seek(tern_loader *l, uint64_t step, tern_error *err) {
    TERN_CHECK_ARGUMENT(l, err, "loader is NULL");
    TERN_CHECK_ARGUMENT(step < max_step, err, "step = %llu; at most 2^60 - 1", (unsigned long long)step);
    pthread_mutex_lock(&l->mutex);
    l->position = l->desc.evaluate ? step + step / l->steps : step;
    l->filled = l->released = 0;
    l->generation++;
    l->held = 0;
    pthread_cond_signal(&l->has_room);
    pthread_mutex_unlock(&l->mutex);
    return TERN_OK;
}
