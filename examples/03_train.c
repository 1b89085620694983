/* Trains a small ternary network on Fashion-MNIST, packs it, and proves that the packed model computes what was
 * trained. Debian's dataset-fashion-mnist has the data; without it the program says so and does nothing. */
#include <stdio.h>
#include <stdlib.h>

#include "tern/tern.h"

static tern_error err;

static void check(tern_status status) {
    if (!status) return;
    fprintf(stderr, "%s: %s\n", tern_status_text(status), err.message);
    exit(1);
}

static int show(void *context, const tern_progress *p) {
    (void)context;
    if (p->event == TERN_EVENT_EVALUATED)
        printf("step %llu of %llu: accuracy %.1f %%\n", (unsigned long long)p->step, (unsigned long long)p->steps,
               100 * p->val_accuracy);
    return 0; /* nonzero would stop the run */
}

int main(void) {
    /* The test split: to see whether the data is there, and for the proof at the end. */
    tern_dataset *test = NULL;
    tern_dataset_desc fashion = {.kind = TERN_DATA_FASHION_MNIST, .split = TERN_SPLIT_TEST};
    if (tern_dataset_open(&test, &fashion, &err)) {
        printf("skipped: %s\n", err.message);
        return 0;
    }

    /* A preset, made smaller; tern train PRESET --settings lists what can be set. */
    tern_config *config = NULL;
    check(tern_config_create(&config, "mnist-mlp", &err));
    check(tern_config_set(config, "data", "fashion-mnist", &err));
    check(tern_config_set(config, "width", "64", &err));
    check(tern_config_set(config, "steps", "100", &err));
    check(tern_config_set(config, "evaluate_every", "50", &err));
    tern_train_options options = {.out = "example-run", .progress = show};
    tern_train_result result;
    check(tern_train(&result, config, &options, &err));

    /* The checkpoint becomes a packed model: 1.6 bits a weight. */
    tern_model_options open = {.batch = 50};
    tern_model *trained = NULL, *packed = NULL;
    check(tern_model_open(&trained, "example-run/checkpoint.safetensors", &open, &err));
    check(
        tern_model_export(trained, "example-run/model.tern", &(tern_export_options){.packing = TERN_PACK_T5}, &err));
    check(tern_model_open(&packed, "example-run/model.tern", &open, &err));

    tern_model_info info;
    tern_parity_result parity;
    check(tern_model_describe(&info, packed, &err));
    check(tern_model_parity(&parity, trained, packed, test, 200, &err));
    printf("%zu bytes packed, %zu as fp32; %llu integers compared, %llu differ\n", info.packed_bytes,
           info.float_bytes, (unsigned long long)parity.integers, (unsigned long long)parity.int_mismatches);

    tern_model_close(&packed);
    tern_model_close(&trained);
    tern_config_free(&config);
    tern_dataset_close(&test);
    return !parity.ok;
}
