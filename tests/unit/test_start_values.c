/* Initial values of model=fast: filters that whiten the patches of the data, and convolutions that pass their input
 * on; and batch norm's statistics taken anew when training has ended. References are written naively. */
#include "base/random.h"
#include "io/dataset.h"
#include "model/networks.h"
#include "nn/op.h"
#include "synthetic_data.h"
#include "train/start_values.h"
#include "train/trainer.h"

static tern_error err;

enum { SIDE = 9, SEEN = 5000, COUNT = SEEN + 20, MAX_K = 12 };

/* Images whose neighbours are alike, in places and in channels. Those past the first SEEN are black: were they seen,
 * the covariance would show it. */
static tern_dataset noise_images(size_t channels) {
    tern_dataset d = {.info = {.kind = TERN_DATA_IMAGES,
                               .count = COUNT,
                               .height = SIDE,
                               .width = SIDE,
                               .channels = channels,
                               .classes = 10}};
    OK(tern_dataset_allocate(&d, "noise", &err));
    uint8_t *pixel = d.images.data;
    size_t row = SIDE * channels;
    for (size_t i = 0; i < SEEN * SIDE * row; i++) {
        int own = (int)(tern_random_u32(3, i) % 100), left = i % row >= channels ? pixel[i - channels] : 128;
        int above = i / row % SIDE ? pixel[i - row] : 128, other = i % channels ? pixel[i - 1] : 100;
        pixel[i] = (uint8_t)(own + (left + above + other) / 5);
    }
    return d;
}

static void free_images(tern_dataset *d) {
    tern_block_free(&d->images);
    tern_block_free(&d->labels);
}

static tern_graph *network(const char *preset, size_t channels, tern_config **config) {
    tern_graph *graph;
    OK(tern_config_create(config, preset, &err));
    OK(tern_config_set(*config, "width", "8", &err));
    OK(tern_config_set(*config, "depth", "1", &err));
    OK(tern_network_build(&graph, *config, &(tern_data_shape){SIDE, SIDE, channels, 10, 0}, &err));
    OK(tern_graph_place(graph, &err));
    tern_graph_initialise(graph, 5, 0);
    return graph;
}

/* Patch element j = [row][column][channel] of the patch at (y, x). */
static double patch_at(const tern_dataset *d, const tern_model_input *in, size_t image, size_t y, size_t x,
                       size_t j) {
    size_t c = d->info.channels, ch = j % c, col = x + j / c % 2, row = y + j / c / 2;
    const uint8_t *pixels = d->images.data;
    double v = pixels[((image * SIDE + row) * SIDE + col) * c + ch] / 255.0;
    return (v - (double)in->mean[ch]) / (double)in->std[ch];
}

/* Mean of p p^T over the patches p of every image that counts. */
static void naive_covariance(double cov[MAX_K][MAX_K], const tern_dataset *d, const tern_model_input *in, size_t k) {
    double count = 0;
    memset(cov, 0, MAX_K * MAX_K * sizeof(double));
    for (size_t i = 0; i < SEEN; i++)
        for (size_t place = 0; place < (SIDE - 1) * (SIDE - 1); place++, count++) {
            double p[MAX_K];
            for (size_t j = 0; j < k; j++) p[j] = patch_at(d, in, i, place / (SIDE - 1), place % (SIDE - 1), j);
            for (size_t a = 0; a < k; a++)
                for (size_t b = 0; b < k; b++) cov[a][b] += p[a] * p[b];
        }
    for (size_t a = 0; a < k; a++)
        for (size_t b = 0; b < k; b++) cov[a][b] /= count;
}

/* f (cov + epsilon I) g */
static double along(const float *f, double cov[MAX_K][MAX_K], const float *g, size_t k, double epsilon) {
    double sum = 0;
    for (size_t a = 0; a < k; a++)
        for (size_t b = 0; b < k; b++) sum += (double)f[a] * (cov[a][b] + (a == b ? epsilon : 0)) * (double)g[b];
    return sum;
}

static void check_whitening(size_t channels) {
    static double cov[MAX_K][MAX_K];
    const size_t k = 4 * channels;
    tern_dataset d = noise_images(channels);
    tern_model_input in = {.mean = {0.5f, 0.4f, 0.6f}, .std = {0.2f, 0.25f, 0.3f}};
    tern_config *config;
    tern_graph *graph = network("cifar10-fast", channels, &config);
    OK(tern_start_values(graph, config, &d, &in, &err));
    const tern_param *w = tern_graph_find_param(graph, "whiten.weight");
    assert_int_equal(w->count, 2 * k * k);
    naive_covariance(cov, &d, &in, k);
    double before = HUGE_VAL;
    for (size_t a = 0; a < k; a++) {
        const float *f = w->value + a * k;
        for (size_t j = 0; j < k; j++) assert_true(f[j] == -w->value[(k + a) * k + j]);
        for (size_t b = 0; b < k; b++) {
            double with = along(f, cov, w->value + b * k, k, 5e-4), without = along(f, cov, w->value + b * k, k, 0);
            if (!(fabs(with - (a == b)) < 1e-5) || !(fabs(without - (a == b)) < 0.05))
                fail_msg("%zu channels: outputs %zu and %zu have the covariance %g, with epsilon %g", channels, a, b,
                         without, with);
        }
        /* The largest variance first: a filter is as long as the root of what it divides by is small. */
        double length = 0;
        for (size_t j = 0; j < k; j++) length += (double)f[j] * (double)f[j];
        assert_true(1 / length <= before);
        before = 1 / length;
    }
    tern_graph_free(&graph);
    tern_config_free(&config);
    free_images(&d);
}

static void test_whitening(void **state) {
    (void)state;
    check_whitening(1);
    check_whitening(3);
}

/* Filters that pass a channel on; all others as they were drawn. */
static void test_dirac(void **state) {
    (void)state;
    tern_dataset d = noise_images(1);
    tern_model_input in = {.std = {1}};
    tern_config *config, *other;
    tern_graph *graph = network("cifar10-fast", 1, &config), *drawn = network("cifar10-fast", 1, &other);
    OK(tern_start_values(graph, config, &d, &in, &err));
    int dirac = 0;
    for (size_t p = 0; p < graph->params; p++) {
        const tern_param *w = &graph->param[p];
        if (!strcmp(w->name, "whiten.weight")) continue;
        for (size_t i = 0; i < w->count; i++) {
            float want = drawn->param[p].value[i];
            if (w->rank == 4) {
                size_t ci = w->dim[3], c = i % ci, x = i / ci % 3, y = i / ci / 3 % 3, o = i / ci / 9;
                if (o < ci) want = x == 1 && y == 1 && c == o;
                dirac += want == 1;
            }
            if (!(w->value[i] == want))
                fail_msg("%s[%zu] is %g, not %g", w->name, i, (double)w->value[i], (double)want);
        }
    }
    assert_int_equal(dirac, 8 + 8); /* two convolutions of 8 channels */
    tern_graph_free(&graph);
    tern_graph_free(&drawn);
    tern_config_free(&config);
    tern_config_free(&other);
    free_images(&d);
}

static void test_other_models(void **state) {
    (void)state;
    tern_dataset d = noise_images(1);
    tern_model_input in = {.std = {1}};
    tern_config *config, *fast;
    tern_graph *graph = network("mnist-cnn", 1, &config), *wide = network("cifar10-fast", 3, &fast);
    float *kept = malloc(graph->values.bytes);
    memcpy(kept, graph->values.data, graph->values.bytes);
    OK(tern_start_values(graph, config, &d, &in, &err));
    assert_memory_equal(graph->values.data, kept, graph->values.bytes);
    REFUSED(tern_start_values(wide, fast, &d, &in, &err), TERN_E_UNSUPPORTED, "no whitening for 1 channels");
    free(kept);
    tern_graph_free(&graph);
    tern_graph_free(&wide);
    tern_config_free(&config);
    tern_config_free(&fast);
    free_images(&d);
}

/* ---- statistics anew */

enum { BATCH = 8, BATCHES = 3, STEPS = 2 };

static tern_trainer *trained(const temporary_folder *folder) {
    static const char *const settings[][2] = {{"data", "mnist"}, {"width", "6"},       {"depth", "2"},
                                              {"batch", "8"},    {"steps", "10"},      {"crop", "1"},
                                              {"threads", "2"},  {"recalibrate", "3"}, {"dropout", "0"}};
    tern_config *config;
    tern_trainer *t;
    OK(tern_config_create(&config, "mnist-cnn", &err));
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        OK(tern_config_set(config, settings[i][0], settings[i][1], &err));
    snprintf(config->path, sizeof config->path, "%s", folder->path);
    OK(tern_trainer_create(&t, config, TERN_DEVICE_CPU, &err));
    for (int i = 0; i < STEPS; i++) OK(tern_trainer_step(t, 1, &err));
    tern_config_free(&config);
    return t;
}

/* Adds the mean and the unbiased variance of a batch norm's input, of the pass that has just been. */
static void add_moments(double *mean, double *variance, const tern_plan *plan, size_t node) {
    const tern_node *n = &plan->graph->node[node];
    const float *x = plan->node[n->input[0]].value;
    size_t c = n->channels, rows = BATCH * n->rows;
    for (size_t j = 0; j < c; j++) {
        double sum = 0, square = 0;
        for (size_t row = 0; row < rows; row++) sum += (double)x[row * c + j];
        double m = sum / (double)rows;
        for (size_t row = 0; row < rows; row++) square += ((double)x[row * c + j] - m) * ((double)x[row * c + j] - m);
        mean[j] += m / BATCHES;
        variance[j] += square / (double)(rows - 1) / BATCHES;
    }
}

static void check_statistic(const tern_graph *g, size_t node, int which, const double *want) {
    const tern_param *p = &g->param[g->node[node].param[which]];
    for (size_t j = 0; j < p->count; j++)
        if (!(fabs((double)p->value[j] - want[j]) <= 1e-5 * (fabs(want[j]) + 1)))
            fail_msg("%s[%zu] is %g, not %g", p->name, j, (double)p->value[j], want[j]);
}

/* Means over the next batches of the training data, whatever the running statistics were; nothing else moves. */
static void test_recalibration(void **state) {
    (void)state;
    static double want[64][2][32];
    temporary_folder folder;
    folder_create(&folder);
    put_mnist(&folder, 60, 10);
    tern_trainer *t = trained(&folder), *naive = trained(&folder);
    for (int i = 0; i < BATCHES; i++) {
        tern_batch batch;
        OK(tern_loader_next(naive->loader, &batch, &err));
        naive->plan->train_mode = 1;
        tern_plan_forward(naive->plan, batch.x, batch.n);
        for (size_t n = 1; n < naive->graph->nodes; n++)
            if (!strcmp(naive->graph->node[n].op->name, "batch_norm"))
                add_moments(want[n][0], want[n][1], naive->plan, n);
    }
    for (size_t p = 0; p < t->graph->params; p++)
        if (t->graph->param[p].role == TERN_ROLE_STATISTIC)
            for (size_t i = 0; i < t->graph->param[p].count; i++) t->graph->param[p].value[i] = 1e6f;
    OK(tern_trainer_recalibrate(t, &err));
    size_t norms = 0;
    for (size_t n = 1; n < t->graph->nodes; n++) {
        if (strcmp(t->graph->node[n].op->name, "batch_norm")) continue;
        norms++;
        for (int which = 0; which < 2; which++) check_statistic(t->graph, n, which, want[n][which]);
    }
    assert_int_equal(norms, 5);
    for (size_t p = 0; p < t->graph->params; p++)
        if (t->graph->param[p].role != TERN_ROLE_STATISTIC)
            assert_memory_equal(t->graph->param[p].value, naive->graph->param[p].value,
                                t->graph->param[p].count * sizeof(float));
    assert_int_equal(t->plan->recalibrating, 0);
    tern_trainer_free(&t);
    tern_trainer_free(&naive);
    folder_remove(&folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whitening),
        cmocka_unit_test(test_dirac),
        cmocka_unit_test(test_other_models),
        cmocka_unit_test(test_recalibration),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
