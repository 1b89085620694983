/* tern train: a preset in, a checkpoint out. */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "args.h"
#include "cli.h"

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal_number) {
    (void)signal_number;
    interrupted++;
}

static void usage(FILE *to) {
    fputs(
        "usage: tern train PRESET|config.json [--data DIR] [--out DIR] [--set key=value ...] [--resume] [--json]\n\n"
        "Trains a network, and leaves checkpoint.safetensors, metrics.jsonl and report.html in DIR (default: "
        "runs/PRESET).\n"
        "Interrupt it (Ctrl-C) and it saves and stops; --resume goes on to the same bits.\n\nPresets; -fp behind a "
        "name makes its full-precision twin,\n-trit the one that trains whole numbers alone, 8 or 16 bits a "
        "weight:\n",
        to);
    for (size_t i = 0; tern_preset_name(i); i++)
        fprintf(to, "  %-15s %s\n", tern_preset_name(i), tern_preset_summary(i));
    fputs("\nOptions:\n"
          "  --data DIR        the data set's folder or file; default: the usual places\n"
          "  --out DIR         where results go\n"
          "  --set KEY=VALUE   change a setting; may stand more than once\n"
          "  --twin            train the full-precision twin too, in DIR-fp, and print both results\n"
          "  --device NAME     cpu, cuda or cuda:N; default: a GPU where there is one (or what TERN_DEVICE says)\n"
          "  --resume          go on from DIR/checkpoint.safetensors\n"
          "  --stop-at STEP    save and stop after that many steps\n"
          "  --settings        list the settings of the preset and stop\n"
          "  --json            one JSON object at the end, nothing else on standard output\n\n"
          "Example:\n  tern train fashion-cnn --set epochs=3 --out runs/quick\n",
          to);
}

typedef struct train_options {
    const char *preset, *out, *data, *device;
    const char *pairs[MAX_VALUES]; /* of --set */
    size_t pair_count;
    int resume, json, settings, twin;
    uint64_t stop_at;
    tern_config *config;
} train_options;

/* ---- progress */

typedef struct screen {
    int terminal, json;
    int last_percent;
} screen;

static void print_time(char *out, size_t bytes, double seconds) {
    long s = (long)(seconds + 0.5);
    if (s >= 3600)
        snprintf(out, bytes, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(out, bytes, "%ld:%02ld", s / 60, s % 60);
}

static void draw_bar(const tern_progress *p) {
    char bar[25], left[32];
    int filled = (int)(p->step * 24 / (p->steps ? p->steps : 1));
    for (int i = 0; i < 24; i++) bar[i] = i < filled ? '=' : i == filled ? '>' : ' ';
    bar[24] = 0;
    print_time(left, sizeof left, p->seconds_left);
    if (isnan(p->val_loss))
        progress("[%s] %llu/%llu  loss %.4f  %.0f/s  %s left", bar, (unsigned long long)p->step,
                 (unsigned long long)p->steps, p->loss, p->samples_per_second, left);
    else
        progress("[%s] %llu/%llu  loss %.4f  val %.4f, %.2f %%  %.0f/s  %s left", bar, (unsigned long long)p->step,
                 (unsigned long long)p->steps, p->loss, p->val_loss, 100 * p->val_accuracy, p->samples_per_second,
                 left);
}

static int show(void *context, const tern_progress *p) {
    screen *s = context;
    FILE *to = s->json ? stderr : stdout;
    if (p->event == TERN_EVENT_SKIPPED || p->event == TERN_EVENT_NOTE) {
        progress(NULL);
        complain("%s", p->note);
    }
    if (p->event == TERN_EVENT_EVALUATED) {
        char time[32];
        print_time(time, sizeof time, p->seconds);
        progress(NULL);
        fprintf(to, "%6s  step %llu of %llu  loss %.4f  val loss %.4f  accuracy %.2f %%  %.0f samples/s\n", time,
                (unsigned long long)p->step, (unsigned long long)p->steps, p->loss, p->val_loss,
                100 * p->val_accuracy, p->samples_per_second);
        fflush(to);
    }
    if (p->event == TERN_EVENT_STEP && s->terminal) draw_bar(p);
    return interrupted != 0;
}

/* ---- command line */

static tern_status read_preset(train_options *o, tern_error *err) {
    size_t length = strlen(o->preset);
    int file = length > 5 && !strcmp(o->preset + length - 5, ".json");
    return file ? tern_config_read(&o->config, o->preset, err) : tern_config_create(&o->config, o->preset, err);
}

static tern_status set_pair(tern_config *config, const char *pair, tern_error *err) {
    char key[64];
    const char *equals = strchr(pair, '=');
    snprintf(key, sizeof key, "%.*s", (int)strcspn(pair, "="), pair);
    return tern_config_set(config, key, equals ? equals + 1 : "", err);
}

/* EXIT_DONE, or why not. */
static int parse(train_options *o, int argc, char **argv) {
    const option options[] = {{.name = "--data", .value = &o->data},
                              {.name = "--out", .value = &o->out},
                              {.name = "--device", .value = &o->device},
                              {.name = "--set", .values = o->pairs, .value_count = &o->pair_count},
                              {.name = "--stop-at", .number = &o->stop_at},
                              {.name = "--resume", .flag = &o->resume},
                              {.name = "--twin", .flag = &o->twin},
                              {.name = "--settings", .flag = &o->settings},
                              {.name = "--json", .flag = &o->json}};
    args a = {.options = options,
              .option_count = sizeof options / sizeof *options,
              .positional = &o->preset,
              .room = 1,
              .least = 1,
              .command = "tern train"};
    int code = parse_args(&a, argc, argv);
    if (code) return code;
    tern_error err;
    tern_status status = read_preset(o, &err);
    for (size_t i = 0; !status && i < o->pair_count; i++) status = set_pair(o->config, o->pairs[i], &err);
    if (!status && o->data) status = tern_config_set(o->config, "path", o->data, &err);
    if (!status) return EXIT_DONE;
    complain("%s", err.message);
    return EXIT_USAGE;
}

static void list_settings(const tern_config *config) {
    char value[512];
    for (size_t i = 0; tern_config_key(i); i++)
        if (!tern_config_get(config, tern_config_key(i), value, sizeof value, NULL))
            printf("%-15s %-14s %s\n", tern_config_key(i), value, tern_config_help(i));
}

/* runs/PRESET, in whose place a configuration file has its name without folder and ending. */
static void default_folder(char *out, size_t bytes, const char *preset) {
    const char *slash = strrchr(preset, '/'), *name = slash ? slash + 1 : preset, *dot = strrchr(name, '.');
    snprintf(out, bytes, "runs/%.*s", dot ? (int)(dot - name) : (int)strlen(name), name);
}

static void print_json(const tern_train_result *r, const char *out) {
    char path[4200];
    snprintf(path, sizeof path, "%s/checkpoint.safetensors", out);
    json_t *json = json_pack(
        "{s:I, s:b, s:f, s:f, s:f, s:f, s:f, s:I, s:I, s:I, s:f, s:I, s:I, s:s}", "steps", (json_int_t)r->steps,
        "finished", r->finished, "seconds", r->seconds, "train_seconds", r->train_seconds, "loss",
        isfinite(r->loss) ? r->loss : -1, "val_loss", isfinite(r->val_loss) ? r->val_loss : -1, "metric",
        isfinite(r->val_accuracy) ? r->val_accuracy : -1, "skipped", (json_int_t)r->skipped, "trained_weights",
        (json_int_t)r->trained_weights, "state_bytes", (json_int_t)r->state_bytes, "state_bits_per_weight",
        r->state_bits_per_weight, "peak_bytes", (json_int_t)r->peak_bytes, "device_bytes",
        (json_int_t)r->device_bytes, "checkpoint", path);
    if (json && r->loss_scale > 0) {
        json_object_set_new(json, "loss_scale", json_real(r->loss_scale));
        json_object_set_new(json, "overflow_steps", json_integer((json_int_t)r->overflowed));
    }
    json_dumpf(json, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(json);
}

/* One run, and what it left on the screen. */
static tern_status run_once(tern_train_result *result, const train_options *o, const tern_config *config,
                            const char *out, tern_error *err) {
    screen s = {.terminal = isatty(STDERR_FILENO), .json = o->json};
    tern_train_options options = {

        .out = out, .device = o->device, .resume = o->resume, .stop_at = o->stop_at, .progress = show, .context = &s};
    tern_status status = tern_train(result, config, &options, err);
    progress(NULL);
    if (status) return status;
    if (o->json)
        print_json(result, out);
    else if (result->finished)
        printf("done: %llu steps in %.1f s, val loss %.4f, accuracy %.2f %%\n  %s/checkpoint.safetensors\n",
               (unsigned long long)result->steps, result->seconds, result->val_loss, 100 * result->val_accuracy, out);
    else
        printf("stopped after %llu steps; go on with\n  tern train %s --out %s --resume\n",
               (unsigned long long)result->steps, o->preset, out);
    if (result->overflowed && !o->json)
        printf("%llu steps overflowed in fp16 and changed nothing; the loss's scale ends at %.0f\n",
               (unsigned long long)result->overflowed, result->loss_scale);
    return status;
}

static tern_status run_twin(const train_options *o, const tern_train_result *ternary, const char *out,
                            tern_error *err) {
    char folder[4096];
    tern_config *config = NULL;
    tern_train_result twin = {0};
    snprintf(folder, sizeof folder, "%s-fp", out);
    tern_status status = tern_config_twin(&config, o->config, err);
    if (!status) status = run_once(&twin, o, config, folder, err);
    if (!status && twin.finished && !o->json)
        printf("ternary: val loss %.4f, accuracy %.2f %%; its full-precision twin: %.4f, %.2f %%\n",
               ternary->val_loss, 100 * ternary->val_accuracy, twin.val_loss, 100 * twin.val_accuracy);
    tern_config_free(&config);
    return status;
}

static int train(const train_options *o) {
    char folder[256];
    default_folder(folder, sizeof folder, o->preset);
    const char *out = o->out ? o->out : folder;
    struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND}; /* a second one kills */
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    tern_train_result result = {0};
    tern_error err;
    tern_status status = run_once(&result, o, o->config, out, &err);
    if (!status && o->twin && result.finished) status = run_twin(o, &result, out, &err);
    return status ? failed(&err) : EXIT_DONE;
}

int command_train(int argc, char **argv) {
    if (asks_for_help(argc, argv)) {
        usage(stdout);
        return EXIT_DONE;
    }
    train_options o = {0};
    int code = parse(&o, argc, argv);
    if (!code && o.settings)
        list_settings(o.config);
    else if (!code)
        code = train(&o);
    tern_config_free(&o.config);
    return code;
}
