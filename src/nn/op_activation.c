/* relu     y = max(x, 0)                                 dx = dy where x > 0
 * relu2    y = max(x, 0)^2                               dx = dy * 2 max(x, 0)
 * gelu     y = x s(x), the tanh form: s = (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2 (Hendrycks and Gimpel,
 *          arXiv:1606.08415), written as the sigmoid of twice the argument
 * silu     y = x sigmoid(x)
 * A NaN passes through all of them but relu and relu2, which give 0 for it in the forward pass. */
#include "base/clones.h"
#include "nn/op.h"
#include "nn/op_shapes.h"
#include "nn/parts.h"
#include "nn/vector_math.h"

typedef void (*forward_fn)(float *y, const float *x, size_t n);
typedef void (*backward_fn)(float *dx, const float *dy, const float *x, size_t n, int add);

static void run_forward(tern_plan *plan, size_t i, forward_fn fn) {
    size_t count = plan->batch * tern_plan_graph_node(plan, i)->elements;
    const float *x = tern_plan_in(plan, i, 0);
    float *y = plan->node[i].value;
    TERN_FOR_PARTS(plan->threads, count, TERN_PART, begin, end) fn(y + begin, x + begin, end - begin);
}

static void run_backward(tern_plan *plan, size_t i, backward_fn fn) {
    float *dx = tern_plan_in_grad(plan, i, 0);
    if (!dx) return;
    size_t count = plan->batch * tern_plan_graph_node(plan, i)->elements;
    const float *x = tern_plan_in(plan, i, 0), *dy = plan->node[i].grad;
    int add = plan->node[i].add_to[0];
    TERN_FOR_PARTS(plan->threads, count, TERN_PART, begin, end)
    fn(dx + begin, dy + begin, x + begin, end - begin, add);
}

static inline float relu(float x) { return x > 0 ? x : 0; }
static inline float relu_slope(float x) { return x > 0 ? 1.0f : 0.0f; }
static inline float relu2(float x) { return relu(x) * relu(x); }
static inline float relu2_slope(float x) { return 2 * relu(x); }

/* sqrt(8 / pi) and 0.044715 times it: the argument of the sigmoid is x (a + b x^2). */
#define GELU_A 1.5957691216f
#define GELU_B 0.0713548162726f
static inline float gelu(float x) { return x * tern_sigmoid(x * (GELU_A + GELU_B * (x * x))); }
static inline float gelu_slope(float x) {
    float s = tern_sigmoid(x * (GELU_A + GELU_B * (x * x)));
    return s + x * s * (1 - s) * (GELU_A + 3 * GELU_B * (x * x));
}

static inline float silu(float x) { return x * tern_sigmoid(x); }
static inline float silu_slope(float x) {
    float s = tern_sigmoid(x);
    return s + x * s * (1 - s);
}

#define ACTIVATION(f)                                                                                            \
    TERN_CLONES static void f##_values(float *restrict y, const float *restrict x, size_t n) {                   \
        for (size_t i = 0; i < n; i++) y[i] = f(x[i]);                                                           \
    }                                                                                                            \
    TERN_CLONES static void f##_gradients(float *restrict dx, const float *restrict dy, const float *restrict x, \
                                          size_t n, int add) {                                                   \
        if (add)                                                                                                 \
            for (size_t i = 0; i < n; i++) dx[i] += dy[i] * f##_slope(x[i]);                                     \
        else                                                                                                     \
            for (size_t i = 0; i < n; i++) dx[i] = dy[i] * f##_slope(x[i]);                                      \
    }                                                                                                            \
    static void f##_forward(tern_plan *plan, size_t i) { run_forward(plan, i, f##_values); }                     \
    static void f##_backward(tern_plan *plan, size_t i) { run_backward(plan, i, f##_gradients); }                \
    const tern_op tern_op_##f = {.name = #f,                                                                     \
                                 .inputs = 1,                                                                    \
                                 .shape = tern_shape_of_input,                                                   \
                                 .needs_input = 1,                                                               \
                                 .forward = f##_forward,                                                         \
                                 .backward = f##_backward}

ACTIVATION(relu);
ACTIVATION(relu2);
ACTIVATION(gelu);
ACTIVATION(silu);
