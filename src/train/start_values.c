#include "train/start_values.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "nn/op.h"
#include "nn/op_weights.h"

enum { SIDE = 2, MAX_PATCH = SIDE * SIDE * 4, IMAGES = 5000 };

/* Covariance (about 0: the images are normalised) of all patches [SIDE][SIDE][c]. */
static void patch_covariance(double *cov, const tern_dataset *dataset, const tern_dataset_info *info,
                             const tern_model_input *input) {
    size_t h = info->height, w = info->width, c = info->channels, k = SIDE * SIDE * c, patches = 0;
    const uint8_t *image = tern_dataset_images(dataset);
    memset(cov, 0, k * k * sizeof *cov);
    for (size_t i = 0; i < tern_min_size(IMAGES, info->count); i++, image += h * w * c)
        for (size_t y = 0; y + SIDE <= h; y++)
            for (size_t x = 0; x + SIDE <= w; x++, patches++) {
                double v[MAX_PATCH] = {0};
                for (size_t j = 0; j < k; j++) {
                    size_t ch = j % c, px = j / c % SIDE, py = j / c / SIDE;
                    double pixel = (double)image[((y + py) * w + x + px) * c + ch] / 255;
                    v[j] = (pixel - (double)input->mean[ch]) / (double)input->std[ch];
                }
                for (size_t a = 0; a < k; a++)
                    for (size_t b = 0; b <= a; b++) cov[a * k + b] += v[a] * v[b];
            }
    for (size_t a = 0; a < k; a++)
        for (size_t b = 0; b <= a; b++) cov[b * k + a] = cov[a * k + b] /= (double)tern_max_size(1, patches);
}

/* One rotation of Jacobi's method: makes a[p][q] zero. v collects the eigenvectors, as columns. */
static void rotate(double *a, double *v, size_t n, size_t p, size_t q) {
    if (fabs(a[p * n + q]) < 1e-300) return;
    double theta = (a[q * n + q] - a[p * n + p]) / (2 * a[p * n + q]);
    double t = (theta >= 0 ? 1 : -1) / (fabs(theta) + sqrt(theta * theta + 1));
    double cosine = 1 / sqrt(t * t + 1), sine = t * cosine;
    for (size_t i = 0; i < n; i++) {
        double ip = a[i * n + p], iq = a[i * n + q];
        a[i * n + p] = cosine * ip - sine * iq;
        a[i * n + q] = sine * ip + cosine * iq;
    }
    for (size_t i = 0; i < n; i++) {
        double pi = a[p * n + i], qi = a[q * n + i];
        a[p * n + i] = cosine * pi - sine * qi;
        a[q * n + i] = sine * pi + cosine * qi;
    }
    for (size_t i = 0; i < n; i++) {
        double ip = v[i * n + p], iq = v[i * n + q];
        v[i * n + p] = cosine * ip - sine * iq;
        v[i * n + q] = sine * ip + cosine * iq;
    }
}

static void eigenvectors(double *a, double *v, size_t n) {
    for (size_t i = 0; i < n * n; i++) v[i] = i % (n + 1) == 0;
    for (int sweep = 0; sweep < 30; sweep++)
        for (size_t p = 0; p + 1 < n; p++)
            for (size_t q = p + 1; q < n; q++) rotate(a, v, n, p, q);
}

/* filters [2 k][k]: eigenvectors over the root of their eigenvalue, the largest first, then their negatives. */
static void whitening_filters(float *filters, double *cov, size_t k) {
    double v[MAX_PATCH * MAX_PATCH];
    eigenvectors(cov, v, k);
    char used[MAX_PATCH] = {0};
    for (size_t f = 0; f < k; f++) {
        size_t best = k;
        for (size_t e = 0; e < k; e++)
            if (!used[e] && (best == k || cov[e * k + e] > cov[best * k + best])) best = e;
        used[best] = 1;
        double inverse = 1 / sqrt(cov[best * k + best] + 5e-4);
        for (size_t j = 0; j < k; j++) {
            filters[f * k + j] = (float)(v[j * k + best] * inverse);
            filters[(k + f) * k + j] = -filters[f * k + j];
        }
    }
}

/* Filter o passes channel o on, for as many as there are channels. */
static void pass_through(tern_param *w) {
    size_t side = w->dim[1], ci = w->dim[3], centre = side / 2 * side + side / 2;
    for (size_t o = 0; o < tern_min_size(w->dim[0], ci); o++) {
        float *filter = w->value + o * side * side * ci;
        memset(filter, 0, side * side * ci * sizeof *filter);
        filter[centre * ci + o] = 1;
    }
}

/* The same of counters: the one trit is sure, the others wait at zero. Rules without counters behind their trits
 * begin with random ones. */
static void pass_counters_through(const tern_graph *graph, const tern_node *node) {
    const tern_param *counter = tern_node_find_param(graph, node, "counter");
    size_t side = node->at.kernel, k = tern_weight_columns(graph, node), ci = k / (side * side);
    size_t centre = side / 2 * side + side / 2;
    if (tern_node_find_param(graph, node, "trits")) return;
    for (size_t o = 0; o < tern_min_size(node->at.outputs, ci); o++) {
        int8_t *filter = (int8_t *)counter->integers + o * k;
        memset(filter, 0, k);
        filter[centre * ci + o] = 127;
    }
}

tern_status tern_start_values(tern_graph *graph, const tern_config *config, const tern_dataset *dataset,
                              const tern_model_input *input, tern_error *err) {
    if (config->model != TERN_MODEL_FAST) return TERN_OK;
    tern_dataset_info info;
    TERN_TRY(tern_dataset_describe(&info, dataset, err));
    tern_param *filters = tern_graph_find_param(graph, "whiten.weight");
    size_t k = SIDE * SIDE * info.channels;
    if (!filters || info.channels > 4 || filters->count != 2 * k * k)
        return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE, "model=fast: no whitening for %zu channels",
                         info.channels);
    double cov[MAX_PATCH * MAX_PATCH];
    patch_covariance(cov, dataset, &info, input);
    whitening_filters(filters->value, cov, k);
    if (filters->integers) tern_param_round(filters);
    for (size_t i = 1; i < graph->nodes; i++) {
        tern_node *node = &graph->node[i];
        if (!node->at.groups || node->at.frozen) continue;
        if (!strcmp(node->op->name, "trit_conv2d"))
            pass_counters_through(graph, node);
        else
            pass_through(&graph->param[node->param[0]]);
    }
    return TERN_OK;
}
