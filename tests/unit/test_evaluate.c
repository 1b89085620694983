/* The views that evaluation averages, pixel by pixel: a network whose logits are its input shows them. */
#include "base/random.h"
#include "model/evaluate.h"
#include "testing.h"

static tern_error err;

static size_t mirrored(int i, int n) {
    if (n == 1) return 0;
    return (size_t)(i < 0 ? -i : i >= n ? 2 * n - 2 - i : i);
}

static float pixel(const float *x, int h, int w, int c, int y, int col, int ch, int flip, int shift) {
    size_t sy = mirrored(y + shift, h), sx = mirrored(col + shift, w);
    if (flip) sx = (size_t)w - 1 - sx;
    return x[(sy * (size_t)w + sx) * (size_t)c + (size_t)ch];
}

static void check_views(int h, int w, int c) {
    enum { N = 3 };
    tern_graph *g;
    tern_plan *plan;
    assert_int_equal(tern_graph_create(&g, &err), TERN_OK);
    tern_value v = tern_graph_input(g, (tern_shape){3, {(size_t)h, (size_t)w, (size_t)c}});
    v = tern_graph_add(g, "scale", "copy", v, &(tern_attrs){.factor = 1});
    tern_graph_add(g, "flatten", "logits", v, NULL);
    assert_int_equal(tern_graph_place(g, &err), TERN_OK);
    assert_int_equal(tern_plan_create(&plan, g, &(tern_plan_desc){.batch_max = N, .threads = 2}, &err), TERN_OK);
    size_t each = (size_t)(h * w * c), n = N * each;
    float *x = malloc(n * sizeof *x), *logits = malloc(n * sizeof *x), *room = malloc(3 * n * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = tern_random_normal(1, i);
    const tern_runner runner = tern_plan_runner(plan);
    for (int views = TERN_VIEWS_ONE; views <= TERN_VIEWS_SIX; views++) {
        OK(tern_view_logits(&runner, logits, x, N, (tern_views)views, room, &err));
        for (size_t i = 0; i < n; i++) {
            const float *image = x + i / each * each;
            int place = (int)(i % each), ch = place % c, col = place / c % w, y = place / c / w;
            double want = (double)x[i], flip = (double)pixel(image, h, w, c, y, col, ch, 1, 0), moved = 0;
            for (int k = 0; k < 4; k++) moved += (double)pixel(image, h, w, c, y, col, ch, k % 2, k / 2 ? 1 : -1);
            if (views == TERN_VIEWS_MIRROR) want = (want + flip) / 2;
            if (views == TERN_VIEWS_SIX) want = (want + flip) / 4 + moved / 8;
            if (!(fabs((double)logits[i] - want) < 1e-6))
                fail_msg("%d x %d x %d, views %d: %zu is %g, should be %g", h, w, c, views, i, (double)logits[i],
                         want);
        }
    }
    free(x);
    free(logits);
    free(room);
    tern_plan_free(&plan);
    tern_graph_free(&g);
}

static void test_views(void **state) {
    (void)state;
    check_views(5, 4, 3);
    check_views(2, 2, 1);
    check_views(1, 1, 2); /* nothing lies beside the only pixel */
    check_views(1, 6, 1);
    check_views(6, 1, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_views)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
