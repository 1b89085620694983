/* tern eval: accuracy or loss of a model on the test split of its data. */
#include <math.h>
#include <stdio.h>

#include "args.h"
#include "cli.h"
#include "model_tools.h"

static void usage(FILE *to) {
    fputs("usage: tern eval MODEL|CHECKPOINT [--data DIR] [--samples N] [--threads N] [--device NAME] [--json]\n\n"
          "Runs the test split of the data that the model was made for.\n\n"
          "Options:\n"
          "  --data DIR    the data set's folder or file; default: the usual places\n"
          "  --samples N   only the first N samples\n"
          "  --threads N   default: all processors\n"
          "  --device NAME cpu, cuda or cuda:N; default: the GPU that TERN_DEVICE names, else the CPU\n"
          "  --json        {\"loss\", \"accuracy\", \"samples\"}\n\n"
          "Example:\n  tern eval fashion.tern\n",
          to);
}

int command_eval(int argc, char **argv) {
    const char *path = NULL, *data = NULL, *device = NULL;
    uint64_t samples = 0, threads = 0;
    int json = 0;
    const option options[] = {{.name = "--data", .value = &data},
                              {.name = "--samples", .number = &samples},
                              {.name = "--threads", .number = &threads},
                              {.name = "--device", .value = &device},
                              {.name = "--json", .flag = &json}};
    args a = {.options = options,
              .option_count = sizeof options / sizeof *options,
              .positional = &path,
              .room = 1,
              .least = 1,
              .command = "tern eval"};
    if (asks_for_help(argc, argv)) {
        usage(stdout);
        return EXIT_DONE;
    }
    int code = parse_args(&a, argc, argv);
    if (code) return code;
    tern_model_options o = {.batch = 100, .threads = (int)threads};
    int gpu;
    tern_model *model = NULL;
    tern_dataset *test = NULL;
    tern_accuracy accuracy;
    tern_model_info info;
    tern_error err;
    tern_status status = find_device(&gpu, device, &err);
    o.device = status ? NULL : device_name(gpu);
    if (!status) status = tern_model_open(&model, path, &o, &err);
    if (!status) status = tern_model_describe(&info, model, &err);
    if (!status) status = open_test_data(&test, model, data, &err);
    if (!status) status = tern_model_evaluate(&accuracy, model, test, samples, NULL, &err);
    if (!status && json)
        print_json_line(json_pack("{s:f, s:f, s:I}", "loss", accuracy.loss, "accuracy", accuracy.accuracy, "samples",
                                  (json_int_t)accuracy.samples));
    else if (!status)
        printf("loss %.4f, accuracy %.2f %% of %zu %s\n", accuracy.loss, 100 * accuracy.accuracy, accuracy.samples,
               info.vocabulary ? "tokens" : "images");
    tern_dataset_close(&test);
    tern_model_close(&model);
    return status ? failed(&err) : EXIT_DONE;
}
