/* attention  causal self-attention with grouped heads (Vaswani et al., arXiv:1706.03762; Ainslie et al.,
 *            arXiv:2305.13245) and rotary embedding (Su et al., arXiv:2104.09864).
 *
 * B batch, T tokens, H heads, G key and value heads (H a multiple of G), D head width, R = H / G.
 * x [B][T][(H + 2 G) D]: queries of H heads, keys of G, values of G;  y [B][T][H D].
 * Rotary: in a head, elements j and j + D/2 turn by the angle t * base^(-2j/D) at token t (split halves).
 *     S = q k^T / sqrt(D), -infinity where a key is later than the query;  P = softmax(S);  y = P v
 *     dv = P^T dy;  dP = dy v^T;  dS = P (dP - rowsum(dP P));  dq = dS k / sqrt(D);  dk = dS^T q / sqrt(D)
 * A task is one group of heads of one sample: the R heads that share a key add to its gradient in their order. */
#include <math.h>
#include <omp.h>

#include "base/clones.h"
#include "base/error.h"
#include "nn/dense.h"
#include "nn/op.h"
#include "nn/parts.h"
#include "nn/vector_math.h"

enum { MAX_TOKENS = 65536 };

static tern_status attention_shape(tern_graph *graph, tern_node *node, tern_error *err) {
    const tern_node *in = tern_node_input(graph, node, 0);
    tern_attrs *at = &node->at;
    TERN_CHECK_ARGUMENT(in->shape.rank == 2, err,
                        "%s: the input has %d dimensions; a sequence has 2 (tokens, channels)", node->name,
                        in->shape.rank);
    /* Its memory grows with their square. */
    TERN_CHECK_ARGUMENT(in->shape.dim[0] <= MAX_TOKENS, err, "%s: %zu tokens; at most %d are possible", node->name,
                        in->shape.dim[0], MAX_TOKENS);
    TERN_CHECK_ARGUMENT(at->heads, err, "%s: heads is 0", node->name);
    if (!at->kv_heads) at->kv_heads = at->heads;
    TERN_CHECK_ARGUMENT(at->heads <= 4096 && at->kv_heads <= at->heads && at->heads % at->kv_heads == 0, err,
                        "%s: %zu heads are no multiple of %zu key and value heads", node->name, at->heads,
                        at->kv_heads);
    size_t slices = at->heads + 2 * at->kv_heads, d = in->channels / slices;
    TERN_CHECK_ARGUMENT(d && d * slices == in->channels, err,
                        "%s: %zu channels are no multiple of heads + 2 kv_heads = %zu", node->name, in->channels,
                        slices);
    TERN_CHECK_ARGUMENT(at->rope_base >= 0 && (at->rope_base == 0 || d % 2 == 0), err,
                        "%s: rotary embedding needs an even head width, not %zu, and a positive base", node->name, d);
    return tern_node_set_shape(node, 2, in->shape.dim[0], at->heads * d, 0, err);
}

typedef struct attention {
    size_t t, h, g, d, r;
    size_t in, out;   /* row lengths of x and y */
    float *cosine;    /* [T][D/2], then the sines; NULL without rotary embedding */
    float *turned;    /* [B][T][(H + G) D]: queries and keys after rotary embedding */
    float *p;         /* [B][H][T][T] */
    float *thread_dp; /* scratch: [threads][T][T] */
    float scale;      /* 1 / sqrt(D) */
} attention;

typedef struct attention_state {
    float *cosine, *turned, *p;
} attention_state;

static attention attention_of(const tern_plan *plan, size_t i) {
    const tern_node *node = tern_plan_graph_node(plan, i);
    attention a = {.t = node->shape.dim[0], .h = node->at.heads, .g = node->at.kv_heads};
    a.d = node->channels / a.h;
    a.r = a.h / a.g;
    a.in = (a.h + 2 * a.g) * a.d;
    a.out = a.h * a.d;
    a.scale = (float)(1.0 / sqrt((double)a.d));
    a.thread_dp = plan->scratch.data;
    const attention_state *state = plan->node[i].state;
    if (state) a.cosine = state->cosine, a.turned = state->turned, a.p = state->p;
    return a;
}

static tern_status attention_prepare(tern_plan *plan, size_t i, tern_error *err) {
    const tern_node *node = tern_plan_graph_node(plan, i);
    attention a = attention_of(plan, i);
    attention_state *state;
    void *memory;
    TERN_TRY(tern_plan_keep(plan, &memory, sizeof *state, err));
    plan->node[i].state = state = memory;
    TERN_TRY(tern_plan_keep(plan, &memory, plan->batch_max * a.t * (a.h + a.g) * a.d * sizeof(float), err));
    state->turned = memory;
    TERN_TRY(tern_plan_keep(plan, &memory, plan->batch_max * a.h * a.t * a.t * sizeof(float), err));
    state->p = memory;
    size_t added = plan->node[i].add_to[0] ? plan->batch_max * a.t * a.in : 0;
    tern_plan_want_scratch(plan, ((size_t)plan->threads * a.t * a.t + added) * sizeof(float));
    if (node->at.rope_base == 0) return TERN_OK;
    TERN_TRY(tern_plan_keep(plan, &memory, a.t * a.d * sizeof(float), err));
    state->cosine = memory;
    for (size_t t = 0; t < a.t; t++)
        for (size_t j = 0; j < a.d / 2; j++) {
            double angle = (double)t * pow((double)node->at.rope_base, -2.0 * (double)j / (double)a.d);
            state->cosine[t * (a.d / 2) + j] = (float)cos(angle);
            state->cosine[(a.t + t) * (a.d / 2) + j] = (float)sin(angle);
        }
    return TERN_OK;
}

/* to = one head of `from` at all tokens, turned forward (direction 1) or back (-1); rows apart as given. */
static void turn(const attention *a, float *to, size_t ld_to, const float *from, size_t ld_from, float direction) {
    size_t half = a->d / 2;
    for (size_t t = 0; t < a->t; t++) {
        const float *x = from + t * ld_from;
        float *y = to + t * ld_to;
        if (!a->cosine) {
            for (size_t j = 0; j < a->d; j++) y[j] = x[j];
            continue;
        }
        const float *cosine = a->cosine + t * half, *sine = a->cosine + (a->t + t) * half;
        for (size_t j = 0; j < half; j++) {
            float u = x[j], v = x[j + half], s = sine[j] * direction;
            y[j] = u * cosine[j] - v * s;
            y[j + half] = v * cosine[j] + u * s;
        }
    }
}

/* Row t of S becomes row t of P. */
TERN_CLONES static void softmax_causal(float *s, size_t t, size_t length, float scale) {
    float largest = s[0];
    for (size_t j = 1; j <= t; j++) largest = s[j] > largest ? s[j] : largest;
    for (size_t j = 0; j <= t; j++) s[j] = tern_exp((s[j] - largest) * scale);
    float lane[16] = {0}, sum = 0;
    for (size_t j = 0; j <= t; j++) lane[j % 16] += s[j];
    for (size_t l = 0; l < 16; l++) sum += lane[l];
    float inverse = 1.0f / sum;
    for (size_t j = 0; j <= t; j++) s[j] *= inverse;
    for (size_t j = t + 1; j < length; j++) s[j] = 0;
}

static void forward_group(const attention *a, size_t b, size_t g, const float *x, float *y) {
    size_t ld = (a->h + a->g) * a->d, t = a->t, d = a->d;
    const float *in = x + b * t * a->in, *v = in + (a->h + a->g + g) * d;
    float *turned = a->turned + b * t * ld, *k = turned + (a->h + g) * d;
    turn(a, k, ld, in + (a->h + g) * d, a->in, 1);
    for (size_t h = g * a->r; h < (g + 1) * a->r; h++) {
        float *q = turned + h * d, *p = a->p + (b * a->h + h) * t * t;
        turn(a, q, ld, in + h * d, a->in, 1);
        tern_dnn_sgemm('N', 'T', t, t, d, 1, q, ld, k, ld, 0, p, t);
        for (size_t row = 0; row < t; row++) softmax_causal(p + row * t, row, t, a->scale);
        tern_dnn_sgemm('N', 'N', t, d, t, 1, p, t, v, a->in, 0, y + b * t * a->out + h * d, a->out);
    }
}

static void attention_forward(tern_plan *plan, size_t i) {
    attention a = attention_of(plan, i);
    const float *x = tern_plan_in(plan, i, 0);
    float *y = plan->node[i].value;
#pragma omp parallel for schedule(static) num_threads(tern_team(plan->threads, plan->batch *a.g, 1))
    for (size_t task = 0; task < plan->batch * a.g; task++) forward_group(&a, task / a.g, task % a.g, x, y);
}

/* dP of one row becomes dS. */
TERN_CLONES static void softmax_gradient(float *restrict dp, const float *restrict p, size_t n) {
    float lane[16] = {0}, sum = 0;
    for (size_t j = 0; j < n; j++) lane[j % 16] += dp[j] * p[j];
    for (size_t l = 0; l < 16; l++) sum += lane[l];
    for (size_t j = 0; j < n; j++) dp[j] = p[j] * (dp[j] - sum);
}

/* dx holds the gradients of the turned queries and keys until the end, which turns them back in place. */
static void backward_group(const attention *a, size_t b, size_t g, const float *x, const float *dy, float *dx,
                           float *dp) {
    size_t ld = (a->h + a->g) * a->d, t = a->t, d = a->d;
    const float *v = x + b * t * a->in + (a->h + a->g + g) * d;
    const float *turned = a->turned + b * t * ld, *k = turned + (a->h + g) * d;
    float *to = dx + b * t * a->in, *dk = to + (a->h + g) * d, *dv = to + (a->h + a->g + g) * d;
    for (size_t h = g * a->r; h < (g + 1) * a->r; h++) {
        float beta = h > g * a->r;
        const float *q = turned + h * d, *p = a->p + (b * a->h + h) * t * t, *dout = dy + b * t * a->out + h * d;
        float *dq = to + h * d;
        tern_dnn_sgemm('T', 'N', t, d, t, 1, p, t, dout, a->out, beta, dv, a->in);
        tern_dnn_sgemm('N', 'T', t, t, d, 1, dout, a->out, v, a->in, 0, dp, t);
        for (size_t row = 0; row < t; row++) softmax_gradient(dp + row * t, p + row * t, t);
        tern_dnn_sgemm('N', 'N', t, d, t, a->scale, dp, t, k, ld, 0, dq, a->in);
        tern_dnn_sgemm('T', 'N', t, d, t, a->scale, dp, t, q, ld, beta, dk, a->in);
        turn(a, dq, a->in, dq, a->in, -1);
    }
    turn(a, dk, a->in, dk, a->in, -1);
}

static void attention_backward(tern_plan *plan, size_t i) {
    attention a = attention_of(plan, i);
    const float *x = tern_plan_in(plan, i, 0), *dy = plan->node[i].grad;
    float *dx = tern_plan_in_grad(plan, i, 0);
    if (!dx) return;
    /* Where others use the input too: apart, since what is turned back in place must be attention's alone. */
    int add = plan->node[i].add_to[0];
    float *to = add ? a.thread_dp + (size_t)plan->threads * a.t * a.t : dx;
#pragma omp parallel for schedule(static) num_threads(tern_team(plan->threads, plan->batch *a.g, 1))
    for (size_t task = 0; task < plan->batch * a.g; task++)
        backward_group(&a, task / a.g, task % a.g, x, dy, to, a.thread_dp + (size_t)omp_get_thread_num() * a.t * a.t);
    if (add) tern_add_into(plan->threads, dx, to, plan->batch * a.t * a.in);
}

const tern_op tern_op_attention = {.name = "attention",
                                   .inputs = 1,
                                   .shape = attention_shape,
                                   .needs_input = 1,
                                   .needs_output = 1, /* on a GPU: the row sums of dP P are those of dy y */
                                   .prepare = attention_prepare,
                                   .forward = attention_forward,
                                   .backward = attention_backward};
