#include "cpu/threads.h"

#include "cpu/product.h"

int tern_product_threads(const tern_matrix *w, size_t m, int threads) {
    /* Waking a thread costs a few microseconds, in which one thread does about this much. */
    const double worth = 5e5;
    int limit = threads > 0 ? threads : omp_get_num_procs();
    double work = (double)w->outputs * (double)w->inputs * (double)m / worth;
    size_t most = w->panels < 1 ? 1 : w->panels;
    if ((size_t)limit > most) limit = (int)most;
    return work < 2 ? 1 : work < limit ? (int)work : limit;
}
