/* Text from a language model of a fixed window: the last tokens that fit are run, and the next one is drawn. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/random.h"
#include "model/open_model.h"
#include "model/sample.h"

/* One token as UTF-8 (or the byte it is); returns its length, at most 4. */
static size_t token_text(char out[5], const tern_model_input *input, size_t token) {
    uint32_t c = input->code_point ? input->code_point[token] : (uint32_t)token;
    size_t n;
    if (!input->code_point || c < 0x80) {
        out[0] = (char)c;
        n = 1;
    } else if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        n = 2;
    } else if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        n = 3;
    } else {
        out[0] = (char)(0xf0 | c >> 18);
        n = 4;
    }
    for (size_t i = 1; i < n; i++) out[i] = (char)(0x80 | (c >> 6 * (n - 1 - i) & 0x3f));
    out[n] = 0;
    return n;
}

/* The token whose text `text` begins with; SIZE_MAX when there is none. */
static size_t first_token(const tern_model_input *input, const char *text, size_t *length) {
    char piece[5];
    for (size_t t = 0; t < input->vocabulary; t++) {
        size_t n = token_text(piece, input, t);
        if (strncmp(text, piece, n)) continue;
        *length = n;
        return t;
    }
    return SIZE_MAX;
}

static tern_status encode(int32_t **tokens, size_t *count, const tern_model_input *input, const char *prompt,
                          size_t room, tern_error *err) {
    size_t length = strlen(prompt);
    *tokens = malloc((length + 1 + room) * sizeof **tokens);
    *count = 0;
    if (!*tokens) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for a prompt");
    for (size_t at = 0, n = 0; at < length; at += n) {
        size_t t = first_token(input, prompt + at, &n);
        if (t == SIZE_MAX)
            return tern_fail(err, TERN_E_DATA, at,
                             "prompt: byte %zu begins a character that is not in the vocabulary", at);
        (*tokens)[(*count)++] = (int32_t)t;
    }
    if (!*count) {
        size_t n, t = first_token(input, "\n", &n);
        (*tokens)[(*count)++] = t == SIZE_MAX ? 0 : (int32_t)t;
    }
    return TERN_OK;
}

typedef struct candidate {
    float logit;
    size_t token;
} candidate;

static int likelier_first(const void *a, const void *b) {
    const candidate *x = a, *y = b;
    if (x->logit != y->logit) return x->logit > y->logit ? -1 : 1;
    return x->token < y->token ? -1 : x->token > y->token;
}

/* Draws from the softmax of the first n logits over the temperature, cut to the top k and the top share p. */
static size_t draw(candidate *c, const float *logits, size_t n, const tern_generate_options *o, uint64_t step) {
    for (size_t i = 0; i < n; i++) c[i] = (candidate){logits[i], i};
    qsort(c, n, sizeof *c, likelier_first);
    if (o->temperature <= 0) return c[0].token;
    size_t kept = o->top_k && o->top_k < n ? o->top_k : n;
    double total = 0, largest = (double)c[0].logit;
    for (size_t i = 0; i < kept; i++) total += exp(((double)c[i].logit - largest) / o->temperature);
    if (o->top_p > 0 && o->top_p < 1) {
        double sum = 0;
        size_t i = 0;
        while (i < kept && sum < o->top_p * total) sum += exp(((double)c[i++].logit - largest) / o->temperature);
        kept = i;
        total = sum;
    }
    double u = (double)tern_random_uniform(o->seed, step) * total;
    for (size_t i = 0; i + 1 < kept; i++) {
        u -= exp(((double)c[i].logit - largest) / o->temperature);
        if (u < 0) return c[i].token;
    }
    return c[kept - 1].token;
}

/* One window is run for every token: the model's positions are those of its window, so nothing can be kept. */
static tern_status next_token(size_t *out, const tern_sampler *sampler, const int32_t *tokens, size_t count,
                              int32_t *window, candidate *candidates, const tern_generate_options *o, uint64_t step,
                              tern_error *err) {
    const tern_graph *graph = sampler->runner.graph;
    const tern_node *last = &graph->node[graph->nodes - 1];
    size_t t = graph->node[0].elements, used = tern_min_size(count, t);
    memset(window, 0, t * sizeof *window); /* what stands behind the last token does not reach it */
    memcpy(window, tokens + count - used, used * sizeof *window);
    const float *y;
    TERN_TRY(sampler->runner.run(sampler->runner.context, &y, window, 1, err));
    /* What a head has room for beyond the text's own tokens has no name. */
    *out = draw(candidates, y + (used - 1) * last->channels, sampler->input->vocabulary, o, step);
    return TERN_OK;
}

tern_status tern_sample(const tern_sampler *sampler, const char *prompt, const tern_generate_options *options,
                        int (*emit)(void *context, const char *text, size_t bytes), void *context, tern_error *err) {
    TERN_CHECK_ARGUMENT(options->temperature >= 0 && isfinite(options->temperature), err,
                        "temperature is %g; it must be finite and not negative", options->temperature);
    const tern_model_input *input = sampler->input;
    size_t wanted = options->tokens ? options->tokens : 200, count;
    int32_t *tokens = NULL;
    int32_t *window = calloc(sampler->runner.graph->node[0].elements, sizeof *window);
    candidate *candidates = calloc(input->vocabulary, sizeof *candidates);
    tern_status status =
        window && candidates ? TERN_OK : tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for a text");
    if (!status) status = encode(&tokens, &count, input, prompt, wanted, err);
    for (size_t i = 0; !status && i < wanted; i++) {
        size_t token;
        char text[5];
        status = next_token(&token, sampler, tokens, count, window, candidates, options, i, err);
        if (status) break;
        tokens[count++] = (int32_t)token;
        size_t bytes = token_text(text, input, token);
        if (emit(context, text, bytes)) break;
    }
    free(tokens);
    free(window);
    free(candidates);
    return status;
}

int tern_text_append(void *context, const char *text, size_t bytes) {
    tern_text *t = context;
    char *grown = realloc(t->bytes, t->length + bytes + 1);
    if (!grown) return 1;
    t->bytes = grown;
    memcpy(t->bytes + t->length, text, bytes);
    t->length += bytes;
    t->bytes[t->length] = 0;
    return 0;
}

tern_status tern_model_generate(tern_model *model, const char *prompt, const tern_generate_options *options,
                                int (*emit)(void *context, const char *text, size_t bytes), void *context,
                                tern_error *err) {
    TERN_CHECK_ARGUMENT(model && prompt && options && emit, err, "an argument is NULL");
    TERN_CHECK_ARGUMENT(model->file.graph->vocabulary, err, "the model makes no text");
    tern_sampler sampler = {.runner = tern_model_runner(model), .input = &model->file.input};
    return tern_sample(&sampler, prompt, options, emit, context, err);
}
