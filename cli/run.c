/* tern run: a model on the user's own input. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "args.h"
#include "cli.h"
#include "model_tools.h"

static void usage(FILE *to) {
    fputs("usage: tern run MODEL IMAGE ...   or   tern run MODEL [PROMPT]\n\n"
          "Classifies PNG and JPEG files of the model's size (the three likeliest classes of each), or goes on with "
          "a text.\n\n"
          "Options of texts:\n"
          "  --tokens N        how many to make (default 200)\n"
          "  --temperature X   0: always the likeliest (default 0.8)\n"
          "  --top-k N         only the N likeliest\n"
          "  --top-p X         only the likeliest that make up this share\n"
          "  --seed N          another text\n"
          "Of images:\n"
          "  --test N          instead of files: image N of the data set's test split\n"
          "  --data DIR        where that is\n"
          "  --json            one JSON object an image\n"
          "Of both:\n"
          "  --device NAME     cpu, cuda or cuda:N; default: the GPU that TERN_DEVICE names, else the CPU\n\n"
          "Examples:\n  tern run fashion.tern shoe.png\n  tern run shakespeare.tern 'ROMEO:' --tokens 300\n",
          to);
}

typedef struct run_options {
    const char *args[MAX_VALUES + 1], *data, *test, *device;
    uint64_t tokens, top_k, seed;
    double temperature, top_p;
    int json;
} run_options;

static int print_piece(void *context, const char *text, size_t bytes) {
    (void)context;
    fwrite(text, 1, bytes, stdout);
    fflush(stdout);
    return ferror(stdout);
}

static tern_status run_text(tern_model *model, const char *prompt, const run_options *o, tern_error *err) {
    tern_generate_options g = {
        .tokens = o->tokens, .temperature = o->temperature, .top_k = o->top_k, .top_p = o->top_p, .seed = o->seed};
    fputs(prompt, stdout);
    tern_status status = tern_model_generate(model, prompt, &g, print_piece, NULL, err);
    putchar('\n');
    return status;
}

/* Softmax in place. */
static void probabilities(float *x, size_t n) {
    float largest = x[0], sum = 0;
    for (size_t i = 1; i < n; i++) largest = x[i] > largest ? x[i] : largest;
    for (size_t i = 0; i < n; i++) sum += x[i] = expf(x[i] - largest);
    for (size_t i = 0; i < n; i++) x[i] /= sum;
}

static void print_classes(const tern_model *model, const char *name, float *p, size_t n, int json) {
    probabilities(p, n);
    json_t *list = json_array();
    if (!json) printf("%s:", name);
    for (int rank = 0; rank < 3 && (size_t)rank < n; rank++) {
        size_t best = 0;
        for (size_t i = 1; i < n; i++)
            if (p[i] > p[best]) best = i;
        if (json)
            json_array_append_new(
                list, json_pack("{s:s, s:f}", "class", tern_model_class_name(model, best), "share", (double)p[best]));
        else
            printf("%s %s %.1f %%", rank ? "," : "", tern_model_class_name(model, best), 100 * (double)p[best]);
        p[best] = -1;
    }
    if (json)
        print_json_line(json_pack("{s:s, s:o}", "image", name, "classes", list));
    else {
        json_decref(list);
        putchar('\n');
    }
}

static tern_status read_test_image(uint8_t *pixels, const tern_model *model, const run_options *o, size_t bytes,
                                   tern_error *err) {
    tern_dataset *test = NULL;
    tern_dataset_info info;
    tern_status status = open_test_data(&test, model, o->data, err);
    if (!status) status = tern_dataset_describe(&info, test, err);
    uint64_t n = strtoull(o->test, NULL, 10);
    if (!status && (n >= info.count || info.height * info.width * info.channels != bytes)) {
        snprintf(err->message, sizeof err->message, "the test split has %zu images, no number %llu", info.count,
                 (unsigned long long)n);
        status = err->status = TERN_E_ARGUMENT;
    }
    if (!status) memcpy(pixels, tern_dataset_images(test) + n * bytes, bytes);
    tern_dataset_close(&test);
    return status;
}

static tern_status classify(tern_model *model, const tern_model_info *info, const char *path, const run_options *o,
                            tern_error *err) {
    const size_t *d = info->input.dim;
    size_t bytes = d[0] * d[1] * d[2];
    uint8_t *pixels = malloc(bytes);
    float *x = malloc((bytes + tern_model_outputs(model)) * sizeof *x), *y = x + bytes;
    tern_status status = TERN_OK;
    if (!pixels || !x) {
        snprintf(err->message, sizeof err->message, "no memory for an image of %zu bytes", bytes);
        status = err->status = TERN_E_MEMORY;
    }
    if (!status)
        status = path ? tern_image_read(path, d[0], d[1], d[2], pixels, err)
                      : read_test_image(pixels, model, o, bytes, err);
    if (!status) status = tern_model_normalise(x, model, pixels, 1, err);
    if (!status) status = tern_model_run(y, model, x, 1, err);
    if (!status) print_classes(model, path ? path : o->test, y, info->classes, o->json);
    free(x);
    free(pixels);
    return status;
}

int command_run(int argc, char **argv) {
    run_options o = {.temperature = 0.8};
    const option options[] = {
        {.name = "--tokens", .number = &o.tokens}, {.name = "--temperature", .real = &o.temperature},
        {.name = "--top-k", .number = &o.top_k},   {.name = "--top-p", .real = &o.top_p},
        {.name = "--seed", .number = &o.seed},     {.name = "--data", .value = &o.data},
        {.name = "--test", .value = &o.test},      {.name = "--device", .value = &o.device},
        {.name = "--json", .flag = &o.json}};
    args a = {.options = options,
              .option_count = sizeof options / sizeof *options,
              .positional = o.args,
              .room = MAX_VALUES + 1,
              .least = 1,
              .command = "tern run"};
    if (asks_for_help(argc, argv)) {
        usage(stdout);
        return EXIT_DONE;
    }
    int code = parse_args(&a, argc, argv);
    if (code) return code;
    tern_model *model = NULL;
    tern_model_options on = {.batch = 1};
    tern_model_info info;
    tern_error err;
    int gpu;
    tern_status status = find_device(&gpu, o.device, &err);
    on.device = status ? NULL : device_name(gpu);
    if (!status) status = tern_model_open(&model, o.args[0], &on, &err);
    if (!status) status = tern_model_describe(&info, model, &err);
    if (!status && info.vocabulary) {
        status = run_text(model, a.count > 1 ? o.args[1] : "", &o, &err);
    } else if (!status) {
        if (o.test) status = classify(model, &info, NULL, &o, &err);
        for (size_t i = 1; !status && i < a.count; i++) status = classify(model, &info, o.args[i], &o, &err);
        if (a.count == 1 && !o.test) {
            complain("no image to classify; tern run --help");
            code = EXIT_USAGE;
        }
    }
    tern_model_close(&model);
    return status ? failed(&err) : code;
}
