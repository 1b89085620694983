/* The presets: what each changes of the defaults. */
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "model/configuration.h"
#include "model/nearest_name.h"

/* What every preset starts from, then what each changes. */
static const char defaults[] =
    "weights=ternary width=64 convolutions=2 depth=2 heads=4 context=64 batch=128 accumulate=1 seed=1 products=auto "
    "optimizer=adamw side_optimizer=adamw schedule=cosine warmup=0.02 momentum=0.9 beta2=0.99 loss_ce=1 zeros=45 "
    "log_every=20 max_skips=5";

typedef struct named_preset {
    const char *name, *summary, *settings;
    const char *trit; /* what its float-free twin changes; NULL: there is none */
} named_preset;

/* What every float-free preset starts from, behind its own: weights do not decay, and counters have no use for the
 * optimiser's other settings. */
static const char float_free[] =
    "weights=trit update=ortho lr=1 granularity=row schedule=cosine lr_final=0.02 warmup=0.02 "
    "weight_decay=0 decay_side=0 clip=0";

/* What the two sizes of airbench share. */
#define AIRBENCH                                                                                                   \
    "model=fast data=cifar-10 depth=3 batch=500 optimizer=muon side_optimizer=sgd lr=0.05 lr_side=26 lr_head=330 " \
    "schedule=linear warmup=0 momentum=0.75 smoothing=0.2 decay_side=2e-6 crop_fill=reflect flip=alternating "     \
    "views=six whiten_share=0.3 granularity=row"
#define AIRBENCH_TRIT "lr_side=1e-2 lr_head=2e-2 ends=fixed schedule=linear lr_final=0 warmup=0"

static const named_preset presets[] = {
    {"mnist-mlp", "MNIST, 784-512-512-10, W1.58A8",
     "model=mlp data=mnist width=512 depth=2 epochs=30 lr=2e-3 dropout=0.25 weight_decay=0.02",
     "update=r2 lr_side=2e-3"},
    {"mnist-cnn", "MNIST, a ternary CNN",
     "model=cnn data=mnist width=32 depth=2 epochs=15 lr=3e-3 dropout=0.3 weight_decay=0.02 crop=2", "lr_side=3e-3"},
    {"fashion-cnn", "Fashion-MNIST, a ternary CNN",
     "model=cnn data=fashion-mnist width=32 depth=2 epochs=12 lr=3e-3 dropout=0.3 weight_decay=0.02 crop=2 "
     "flip=random",
     "lr_side=3e-3"},
    {"cifar10-simple", "CIFAR-10, two float conv blocks and a ternary head (SimpleBitNetCNN)",
     "model=simple data=cifar-10 width=32 depth=2 epochs=15 lr=2e-3 dropout=0.25 weight_decay=0.02 crop=2 "
     "crop_fill=reflect flip=random",
     "lr_side=2e-3"},
    {"cifar10-fast", "CIFAR-10, the ternary version of airbench", "width=64 epochs=10 crop=2 " AIRBENCH,
     AIRBENCH_TRIT},
    {"cifar10-large", "the same with airbench96's sizes: twice as wide, blocks of three convolutions",
     "width=128 convolutions=3 epochs=30 crop=4 cutout=12 " AIRBENCH, AIRBENCH_TRIT},
    {"charlm", "characters of tiny Shakespeare, a small GPT for two cores; a minute",
     "model=gpt data=text width=128 depth=4 heads=4 context=64 steps=4000 batch=12 lr=3e-3 schedule=bitnet "
     "lr_final=0.01 warmup=0.05 weight_decay=0.1 clip=1 log_every=50",
     "lr=1.7 lr_side=3e-3 schedule=bitnet lr_final=0.01"},
    {"charlm-large", "the same with nanoGPT's sizes: 6 layers of 384, context 256",
     "model=gpt data=text width=384 depth=6 heads=6 context=256 steps=2000 batch=64 lr=2e-3 schedule=cosine "
     "lr_final=0.01 weight_decay=0.1 clip=1 dropout=0.2 dropout_embedding=0.2 dropout_inner=0.3 log_every=50",
     "lr=1.7 lr_side=2e-3 schedule=bitnet lr_final=0.01 steps=1200 dropout_embedding=0 dropout_inner=0"},
};
enum { PRESETS = sizeof presets / sizeof *presets };

const char *tern_preset_name(size_t i) { return i < PRESETS ? presets[i].name : NULL; }
const char *tern_preset_summary(size_t i) { return i < PRESETS ? presets[i].summary : NULL; }

/* "key=value key=value ..." of our own. */
static tern_status set_all(tern_config *config, const char *text, tern_error *err) {
    char key[32], value[64];
    int read;
    for (; sscanf(text, " %31[^=]=%63s%n", key, value, &read) == 2; text += read)
        TERN_TRY(tern_config_set(config, key, value, err));
    return TERN_OK;
}

tern_status tern_config_unset(tern_config *config, const char *key, tern_error *err) {
    struct tern_config start = {0};
    TERN_TRY(set_all(&start, defaults, err));
    return tern_config_copy(config, &start, key, err);
}

tern_status tern_config_preset(tern_config *config, const char *name, tern_error *err) {
    char plain[64];
    size_t length = strlen(name);
    int twin = length > 3 && !strcmp(name + length - 3, "-fp"),
        trit = length > 5 && !strcmp(name + length - 5, "-trit");
    snprintf(plain, sizeof plain, "%.*s", (int)(twin ? length - 3 : trit ? length - 5 : length), name);
    const char *names[PRESETS];
    for (size_t i = 0; i < PRESETS; i++) {
        names[i] = presets[i].name;
        if (strcmp(plain, names[i])) continue;
        memset(config, 0, sizeof *config);
        snprintf(config->preset, sizeof config->preset, "%s", name);
        TERN_TRY(set_all(config, defaults, err));
        TERN_TRY(set_all(config, presets[i].settings, err));
        if (trit) TERN_TRY(set_all(config, float_free, err));
        if (trit) TERN_TRY(set_all(config, presets[i].trit, err));
        return twin ? tern_config_set(config, "weights", "float", err) : TERN_OK;
    }
    return tern_unknown_name("preset", plain, names, PRESETS, "tern train --help lists them", err);
}
