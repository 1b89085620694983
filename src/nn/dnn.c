#include "nn/dnn.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "nn/dnn_context.h"
#include "nn/parts.h"

/* Matrix products that have been asked for, by everything that their primitive depends on. */
typedef struct gemm_key {
    int dtype, transpose_a, transpose_b, accumulate;
    size_t m, n, k, lda, ldb, ldc;
} gemm_key;

struct gemm_slot {
    gemm_key key;
    int used;
    tern_primitive p;
};

enum { GEMM_SLOTS = 4096 };

int tern_dnn_ok(tern_dnn *dnn, dnnl_status_t status) {
    if (status != dnnl_success && dnn->failed == dnnl_success) dnn->failed = status;
    return status == dnnl_success;
}

tern_status tern_dnn_check(const tern_dnn *dnn, tern_error *err) {
    switch (dnn->failed) {
    case dnnl_success: return TERN_OK;
    case dnnl_out_of_memory: return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "oneDNN ran out of memory");
    default:
        return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE, "oneDNN refused a product (its status %d)",
                         (int)dnn->failed);
    }
}

int tern_dnn_bf16_is_fast(void) {
    dnnl_cpu_isa_t isa = dnnl_get_effective_cpu_isa();
    return isa == dnnl_cpu_isa_avx512_core_amx || isa == dnnl_cpu_isa_all;
}

tern_status tern_dnn_create(tern_dnn **out, int threads, tern_error *err) {
    *out = NULL;
    tern_dnn *dnn = calloc(1, sizeof *dnn);
    if (!dnn) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for a oneDNN context");
    dnn->threads = threads;
    dnn->stream = calloc((size_t)threads, sizeof *dnn->stream);
    dnn->scratch = calloc((size_t)threads, sizeof *dnn->scratch);
    dnn->gemms = calloc(GEMM_SLOTS, sizeof *dnn->gemms);
    int ok = dnn->stream && dnn->scratch && dnn->gemms;
    if (!ok) dnn->failed = dnnl_out_of_memory;
    ok = ok && tern_dnn_ok(dnn, dnnl_engine_create(&dnn->engine, dnnl_cpu, 0));
    for (int t = 0; ok && t < threads; t++)
        ok = tern_dnn_ok(dnn, dnnl_stream_create(&dnn->stream[t], dnn->engine, dnnl_stream_default_flags));
    if (ok) {
        *out = dnn;
        return TERN_OK;
    }
    tern_status status = tern_dnn_check(dnn, err);
    tern_dnn_free(&dnn);
    return status;
}

void tern_dnn_free(tern_dnn **dnn) {
    tern_dnn *d = *dnn;
    if (!d) return;
    for (int i = 0; d->gemms && i < GEMM_SLOTS; i++)
        if (d->gemms[i].used) dnnl_primitive_destroy(d->gemms[i].p.primitive);
    for (int t = 0; t < d->threads; t++) {
        if (d->stream && d->stream[t]) dnnl_stream_destroy(d->stream[t]);
        if (d->scratch) tern_block_free(&d->scratch[t]);
    }
    if (d->engine) dnnl_engine_destroy(d->engine);
    free(d->stream);
    free(d->scratch);
    free(d->gemms);
    free(d);
    *dnn = NULL;
}

dnnl_primitive_attr_t tern_dnn_attr(tern_dnn *dnn, int accumulate) {
    dnnl_primitive_attr_t attr = NULL;
    dnnl_post_ops_t ops = NULL;
    if (!tern_dnn_ok(dnn, dnnl_primitive_attr_create(&attr))) return NULL;
    /* The library's own scratchpad belongs to the thread that made the primitive; ours runs it in any. */
    tern_dnn_ok(dnn, dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user));
    if (accumulate && tern_dnn_ok(dnn, dnnl_post_ops_create(&ops))) {
        tern_dnn_ok(dnn, dnnl_post_ops_append_sum(ops, 1.0f));
        tern_dnn_ok(dnn, dnnl_primitive_attr_set_post_ops(attr, ops));
        dnnl_post_ops_destroy(ops);
    }
    return attr;
}

void tern_dnn_finish(tern_dnn *dnn, tern_primitive *p, dnnl_primitive_desc_t pd) {
    p->scratch_md = *dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    size_t bytes = dnnl_memory_desc_get_size(&p->scratch_md);
    int ok = 1;
    for (int t = 0; ok && t < dnn->threads; t++) {
        if (dnn->scratch[t].bytes >= bytes) continue;
        tern_block_free(&dnn->scratch[t]);
        ok = tern_dnn_ok(dnn, tern_block_alloc(&dnn->scratch[t], bytes) ? dnnl_success : dnnl_out_of_memory);
    }
    if (ok) tern_dnn_ok(dnn, dnnl_primitive_create(&p->primitive, pd)); /* none that would run without its scratch */
    dnnl_primitive_desc_destroy(pd);
}

void tern_dnn_run(tern_dnn *dnn, const tern_primitive *p, const void *const data[3], int thread) {
    dnnl_exec_arg_t args[4];
    int made = 0, ok = 1;
    for (; ok && made < p->args; made++) {
        args[made].arg = p->arg[made];
        ok = dnnl_memory_create(&args[made].memory, &p->md[made], dnn->engine, (void *)data[made]) == dnnl_success;
    }
    if (ok) {
        args[made].arg = DNNL_ARG_SCRATCHPAD;
        ok = dnnl_memory_create(&args[made].memory, &p->scratch_md, dnn->engine, dnn->scratch[thread].data) ==
             dnnl_success;
        made++;
    }
    int threads = tern_dnn_one_thread();
    if (ok) ok = dnnl_primitive_execute(p->primitive, dnn->stream[thread], made, args) == dnnl_success;
    tern_dnn_restore_threads(threads);
    if (!ok) {
#pragma omp critical(tern_dnn_failure)
        tern_dnn_ok(dnn, dnnl_runtime_error);
    }
    for (int i = 0; i < made; i++) dnnl_memory_destroy(args[i].memory);
}

static void make_gemm(tern_dnn *dnn, tern_primitive *p, const gemm_key *key) {
    int threads = tern_dnn_one_thread();
    dnnl_data_type_t type = key->dtype == TERN_BF16 ? dnnl_bf16 : dnnl_f32;
    dnnl_dim_t m = (dnnl_dim_t)key->m, n = (dnnl_dim_t)key->n, k = (dnnl_dim_t)key->k;
    dnnl_dim_t lda = (dnnl_dim_t)key->lda, ldb = (dnnl_dim_t)key->ldb;
    dnnl_dims_t a = {m, k}, b = {k, n}, c = {m, n};
    dnnl_dims_t a_strides = {key->transpose_a ? 1 : lda, key->transpose_a ? lda : 1};
    dnnl_dims_t b_strides = {key->transpose_b ? 1 : ldb, key->transpose_b ? ldb : 1};
    dnnl_dims_t c_strides = {(dnnl_dim_t)key->ldc, 1};
    p->args = 3;
    p->arg[0] = DNNL_ARG_SRC;
    p->arg[1] = DNNL_ARG_WEIGHTS;
    p->arg[2] = DNNL_ARG_DST;
    dnnl_matmul_desc_t desc;
    dnnl_primitive_desc_t pd = NULL;
    dnnl_primitive_attr_t attr = tern_dnn_attr(dnn, key->accumulate);
    if (tern_dnn_ok(dnn, dnnl_memory_desc_init_by_strides(&p->md[0], 2, a, type, a_strides)) &&
        tern_dnn_ok(dnn, dnnl_memory_desc_init_by_strides(&p->md[1], 2, b, type, b_strides)) &&
        tern_dnn_ok(dnn, dnnl_memory_desc_init_by_strides(&p->md[2], 2, c, dnnl_f32, c_strides)) &&
        tern_dnn_ok(dnn, dnnl_matmul_desc_init(&desc, &p->md[0], &p->md[1], NULL, &p->md[2])) &&
        tern_dnn_ok(dnn, dnnl_primitive_desc_create(&pd, &desc, attr, dnn->engine, NULL)))
        tern_dnn_finish(dnn, p, pd);
    dnnl_primitive_attr_destroy(attr);
    tern_dnn_restore_threads(threads);
}

void tern_dnn_sgemm(char transpose_a, char transpose_b, size_t m, size_t n, size_t k, float alpha, const float *a,
                    size_t lda, const float *b, size_t ldb, float beta, float *c, size_t ldc) {
    int threads = tern_dnn_one_thread();
    dnnl_sgemm(transpose_a, transpose_b, (dnnl_dim_t)m, (dnnl_dim_t)n, (dnnl_dim_t)k, alpha, a, (dnnl_dim_t)lda, b,
               (dnnl_dim_t)ldb, beta, c, (dnnl_dim_t)ldc);
    tern_dnn_restore_threads(threads);
}

static gemm_key key_of(const tern_gemm *g) {
    gemm_key key;
    memset(&key, 0, sizeof key); /* padding too: keys are compared as bytes */
    key.dtype = (int)g->dtype;
    key.transpose_a = g->transpose_a;
    key.transpose_b = g->transpose_b;
    key.accumulate = g->accumulate;
    key.m = g->m, key.n = g->n, key.k = g->k;
    key.lda = g->lda, key.ldb = g->ldb, key.ldc = g->ldc;
    return key;
}

static const tern_primitive *find_gemm(tern_dnn *dnn, const gemm_key *key) {
    if (dnn->failed) return NULL; /* the scratch of what was made before may be gone */
    size_t hash = 0;
    const unsigned char *bytes = (const unsigned char *)key;
    for (size_t i = 0; i < sizeof *key; i++) hash = hash * 131 + bytes[i];
    for (size_t probe = 0; probe < GEMM_SLOTS; probe++) {
        struct gemm_slot *slot = &dnn->gemms[(hash + probe) % GEMM_SLOTS];
        if (!slot->used) {
            make_gemm(dnn, &slot->p, key);
            if (!slot->p.primitive) return NULL;
            slot->key = *key;
            slot->used = 1;
        }
        if (!memcmp(&slot->key, key, sizeof *key)) return &slot->p;
    }
    tern_dnn_ok(dnn, dnnl_out_of_memory);
    return NULL;
}

const tern_primitive *tern_dnn_find_gemm(tern_dnn *dnn, const tern_gemm *gemm) {
    gemm_key key = key_of(gemm);
    return find_gemm(dnn, &key);
}

/* The part length for a dimension: up to eight parts, none under 64, whole multiples of 64. */
static size_t part_length(size_t length) { return tern_round_up(tern_max_size(tern_ceil_div(length, 8), 64), 64); }

static const void *at(const void *base, size_t element, tern_dtype dtype) {
    return (const char *)base + element * (dtype == TERN_BF16 ? 2 : 4);
}

void tern_dnn_gemm(tern_dnn *dnn, const tern_gemm *g) {
    if (!g->m || !g->n) return;
    int by_rows = g->m >= g->n;
    size_t length = by_rows ? g->m : g->n, part = tern_min_size(part_length(length), length);
    size_t parts = tern_ceil_div(length, part), last = length - (parts - 1) * part;

    gemm_key key = key_of(g);
    size_t *cut = by_rows ? &key.m : &key.n;
    *cut = part;
    const tern_primitive *whole = find_gemm(dnn, &key);
    *cut = last;
    const tern_primitive *rest = find_gemm(dnn, &key);
    if (!whole || !rest) return;

#pragma omp parallel for schedule(static) num_threads(tern_team(dnn->threads, parts, 1))
    for (size_t i = 0; i < parts; i++) {
        size_t begin = i * part;
        size_t row = by_rows ? begin : 0, column = by_rows ? 0 : begin;
        const void *data[3] = {at(g->a, g->transpose_a ? row : row * g->lda, g->dtype),
                               at(g->b, g->transpose_b ? column * g->ldb : column, g->dtype),
                               g->c + row * g->ldc + column};
        tern_dnn_run(dnn, i + 1 < parts ? whole : rest, data, omp_get_thread_num());
    }
}
