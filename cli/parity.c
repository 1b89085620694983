/* tern parity: proves that a packed model computes what was trained. */
#include <stdio.h>

#include "args.h"
#include "cli.h"
#include "model_tools.h"

static void usage(FILE *to) {
    fputs("usage: tern parity CHECKPOINT MODEL [--data DIR] [--samples N] [--device NAME] [--json]\n\n"
          "Runs both on the test split and compares every int32 sum of every ternary product, the logits and the "
          "answers.\n"
          "The checkpoint's weights are quantized anew and multiplied in plain C, the model runs on the best kernels "
          "here.\n"
          "Exit code 1 when an integer or an answer differs.\n\n"
          "With --device cuda the model runs on a GPU, the checkpoint still in plain C. Where floats are summed in\n"
          "front of a ternary product (attention, float layers, gelu) a GPU may round an activation to the next\n"
          "integer, which changes sums behind it. So every sum is also compared with plain C's for the activations\n"
          "that the GPU had: exit code 1 when one of those is wrong, or more than one answer in 1000 differs.\n\n"
          "Options:\n"
          "  --data DIR    the data set's folder or file; default: the usual places\n"
          "  --samples N   only the first N samples (default 1000; 0: all)\n"
          "  --device NAME cpu, cuda or cuda:N; default: the GPU that TERN_DEVICE names, else the CPU\n"
          "  --json        one JSON object\n\n"
          "Example:\n  tern parity runs/fashion-cnn/checkpoint.safetensors fashion.tern\n",
          to);
}

static const char *verdict_of(const tern_parity_result *r) {
    if (!r->ok) return "no parity";
    return r->int_mismatches ? "parity but for roundings: trained is deployed" : "parity: trained is deployed";
}

static json_t *result_json(const tern_parity_result *r) {
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:I, s:I, s:s, s:b}", "samples", (json_int_t)r->samples,
                     "layers", (json_int_t)r->layers, "integers", (json_int_t)r->integers, "int_mismatches",
                     (json_int_t)r->int_mismatches, "int_far", (json_int_t)r->int_far, "int_wrong",
                     (json_int_t)r->int_wrong, "max_abs_diff", r->max_abs_diff, "answers", (json_int_t)r->answers,
                     "argmax_mismatches", (json_int_t)r->argmax_mismatches, "device", r->on_gpu ? "cuda" : "cpu",
                     "ok", r->ok);
}

static void print_result(const tern_parity_result *r) {
    printf("%zu samples, %zu ternary products, %llu integer sums compared\n"
           "  integers that differ        %llu%s%s\n",
           r->samples, r->layers, (unsigned long long)r->integers, (unsigned long long)r->int_mismatches,
           r->first_layer ? ", first in " : "", r->first_layer ? r->first_layer : "");
    if (r->on_gpu)
        printf("    by more than one step     %llu\n"
               "    of the same activations   %llu\n",
               (unsigned long long)r->int_far, (unsigned long long)r->int_wrong);
    printf("  largest logit difference    %g\n"
           "  answers that differ         %zu of %zu\n%s\n",
           r->max_abs_diff, r->argmax_mismatches, r->answers, verdict_of(r));
}

int command_parity(int argc, char **argv) {
    const char *paths[2] = {NULL, NULL}, *data = NULL, *device = NULL;
    uint64_t samples = 1000;
    int json = 0;
    const option options[] = {{.name = "--data", .value = &data},
                              {.name = "--samples", .number = &samples},
                              {.name = "--device", .value = &device},
                              {.name = "--json", .flag = &json}};
    args a = {.options = options,
              .option_count = sizeof options / sizeof *options,
              .positional = paths,
              .room = 2,
              .least = 2,
              .command = "tern parity"};
    if (asks_for_help(argc, argv)) {
        usage(stdout);
        return EXIT_DONE;
    }
    int code = parse_args(&a, argc, argv);
    if (code) return code;
    tern_model_options o = {.batch = 50};
    int gpu;
    tern_model *trained = NULL, *deployed = NULL;
    tern_dataset *test = NULL;
    tern_parity_result result;
    tern_error err;
    tern_status status = find_device(&gpu, device, &err);
    if (!status) status = tern_model_open(&trained, paths[0], &o, &err);
    if (!status) o.device = device_name(gpu);
    if (!status) status = tern_model_open(&deployed, paths[1], &o, &err);
    if (!status) status = open_test_data(&test, trained, data, &err);
    if (!status) status = tern_model_parity(&result, trained, deployed, test, samples, &err);
    if (!status && json) print_json_line(result_json(&result));
    if (!status && !json) print_result(&result);
    tern_dataset_close(&test);
    tern_model_close(&deployed);
    tern_model_close(&trained);
    if (status) return failed(&err);
    return result.ok ? EXIT_DONE : EXIT_FAILED;
}
