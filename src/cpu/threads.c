#include "cpu/threads.h"

#include "cpu/product.h"

int tern_worthwhile_threads(double wakes, size_t parts, int threads) {
    int limit = threads > 0 ? threads : omp_get_num_procs();
    if (parts < 1) parts = 1;
    if ((size_t)limit > parts) limit = (int)parts;
    return wakes < 2 ? 1 : wakes < limit ? (int)wakes : limit;
}

int tern_product_threads(const tern_matrix *w, size_t m, int threads) {
    const double in_a_wake = 5e5; /* multiplications */
    double work = (double)w->outputs * (double)w->inputs * (double)m;
    return tern_worthwhile_threads(work / in_a_wake, w->panels, threads);
}
