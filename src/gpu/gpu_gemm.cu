#include "gpu/gpu_gemm.cuh"

#include <cublasLt.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu/gpu_kernels.cuh"

#include "cuda/device_memory.cuh"

/* ---- the library */

struct lt_functions {
    decltype(&cublasLtCreate) create;
    decltype(&cublasLtDestroy) destroy;
    decltype(&cublasLtMatmulDescCreate) desc_create;
    decltype(&cublasLtMatmulDescDestroy) desc_destroy;
    decltype(&cublasLtMatmulDescSetAttribute) desc_set;
    decltype(&cublasLtMatrixLayoutCreate) layout_create;
    decltype(&cublasLtMatrixLayoutDestroy) layout_destroy;
    decltype(&cublasLtMatrixLayoutSetAttribute) layout_set;
    decltype(&cublasLtMatmulPreferenceCreate) preference_create;
    decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy;
    decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set;
    decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic;
    decltype(&cublasLtMatmulAlgoConfigGetAttribute) algo_get;
    decltype(&cublasLtMatmul) matmul;
};

/* A product that has been prepared: what cuBLASLt wants to be told, and its choice. */
struct prepared {
    gpu_gemm key;
    uint32_t aligned[3]; /* bytes, of a, b and c; part of the key */
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulAlgo_t algo;
};

struct gpu_lt {
    lt_functions f;
    cublasLtHandle_t handle;
    void *workspace;
    const float *numbers; /* 0 and 1 on the device */
    int major;            /* of the GPU */
    size_t multiprocessors;
    prepared *list;
    size_t count, room;
};

#define LT_SONAME_(major) "libcublasLt.so." #major
#define LT_SONAME(major) LT_SONAME_(major)
static const char *const sonames[] = {
#if CUDART_VERSION >= 13000
    LT_SONAME(13),
#else
    LT_SONAME(12),
#endif
    "libcublasLt.so"};

static tern_status lt_missing(tern_error *err, const char *why, const char *function) {
    return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE,
                     "float products and training on a GPU take cuBLASLt, a part of the CUDA toolkit: %.160s%s", why,
                     function);
}

static tern_status load(lt_functions *f, tern_error *err) {
    static const char *const name[] = {"cublasLtCreate",
                                       "cublasLtDestroy",
                                       "cublasLtMatmulDescCreate",
                                       "cublasLtMatmulDescDestroy",
                                       "cublasLtMatmulDescSetAttribute",
                                       "cublasLtMatrixLayoutCreate",
                                       "cublasLtMatrixLayoutDestroy",
                                       "cublasLtMatrixLayoutSetAttribute",
                                       "cublasLtMatmulPreferenceCreate",
                                       "cublasLtMatmulPreferenceDestroy",
                                       "cublasLtMatmulPreferenceSetAttribute",
                                       "cublasLtMatmulAlgoGetHeuristic",
                                       "cublasLtMatmulAlgoConfigGetAttribute",
                                       "cublasLtMatmul"};
    static_assert(sizeof name / sizeof *name == sizeof *f / sizeof(void *), "a name for each function");
    void *library = NULL;
    for (size_t i = 0; !library && i < sizeof sonames / sizeof *sonames; i++)
        library = dlopen(sonames[i], RTLD_NOW | RTLD_LOCAL);
    if (!library) return lt_missing(err, dlerror(), "");
    for (size_t i = 0; i < sizeof name / sizeof *name; i++) {
        ((void **)f)[i] = dlsym(library, name[i]);
        if (!((void **)f)[i]) return lt_missing(err, "the one that is found has no ", name[i]);
    }
    return TERN_OK;
}

static tern_status lt_failed(tern_error *err, cublasStatus_t code, const char *what) {
    return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE, "%s: cuBLASLt's status %d", what, (int)code);
}

#define LT_TRY(call, what, err)                                                               \
    do {                                                                                      \
        const cublasStatus_t lt_try_code_ = (call);                                           \
        if (lt_try_code_ != CUBLAS_STATUS_SUCCESS) return lt_failed(err, lt_try_code_, what); \
    } while (0)

tern_status gpu_lt_create(tern_gpu_plan *plan, tern_error *err) {
    gpu_lt *lt = (gpu_lt *)calloc(1, sizeof *lt);
    if (!lt) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for a plan");
    plan->lt = lt;
    lt->major = plan->context->major;
    lt->multiprocessors = (size_t)plan->context->multiprocessors;
    GPU_CHECK(load(&lt->f, err));
    LT_TRY(lt->f.create(&lt->handle), "opening cuBLASLt", err);
    const float numbers[2] = {0, 1};
    void *memory;
    GPU_CHECK(gpu_keep(plan, &memory, sizeof numbers, "workspace", err));
    GPU_CHECK(tern_cuda_upload(plan->context, memory, numbers, sizeof numbers, err));
    lt->numbers = (const float *)memory;
    return gpu_keep(plan, &lt->workspace, GPU_LT_WORKSPACE, "workspace", err);
}

void *gpu_lt_workspace(tern_gpu_plan *plan, void *workspace) {
    void *before = plan->lt->workspace;
    plan->lt->workspace = workspace;
    return before;
}

static void forget(gpu_lt *lt, prepared *p) {
    if (p->a) lt->f.layout_destroy(p->a);
    if (p->b) lt->f.layout_destroy(p->b);
    if (p->c) lt->f.layout_destroy(p->c);
    if (p->desc) lt->f.desc_destroy(p->desc);
}

void gpu_lt_free(tern_gpu_plan *plan) {
    gpu_lt *lt = plan->lt;
    if (!lt) return;
    for (size_t i = 0; i < lt->count; i++) forget(lt, &lt->list[i]);
    if (lt->handle) lt->f.destroy(lt->handle);
    free(lt->list);
    free(lt);
    plan->lt = NULL;
}

/* ---- products: cuBLASLt thinks in columns, so that it computes C^T = B^T A^T */

static cudaDataType_t cuda_type(tern_dtype type) {
    return type == TERN_F32 ? CUDA_R_32F : type == TERN_BF16 ? CUDA_R_16BF : CUDA_R_16F;
}

static tern_status layout_of(gpu_lt *lt, cublasLtMatrixLayout_t *out, tern_dtype type, size_t rows, size_t columns,
                             size_t ld, size_t count, size_t stride, const char *what, tern_error *err) {
    LT_TRY(lt->f.layout_create(out, cuda_type(type), rows, columns, (int64_t)ld), what, err);
    if (count <= 1) return TERN_OK;
    const int32_t batches = (int32_t)count;
    const int64_t apart = (int64_t)stride;
    LT_TRY(lt->f.layout_set(*out, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batches, sizeof batches), what, err);
    LT_TRY(lt->f.layout_set(*out, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &apart, sizeof apart), what, err);
    return TERN_OK;
}

/* The tile of an algorithm, and into how many sums it splits k. */
struct algo_shape {
    uint32_t tile, splits;
};

static algo_shape shape_of(const gpu_lt *lt, const cublasLtMatmulAlgo_t *algo) {
    algo_shape s = {};
    size_t written;
    const cublasStatus_t tile = lt->f.algo_get(algo, CUBLASLT_ALGO_CONFIG_TILE_ID, &s.tile, sizeof s.tile, &written);
    const cublasStatus_t splits =
        lt->f.algo_get(algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &s.splits, sizeof s.splits, &written);
    if (tile != CUBLAS_STATUS_SUCCESS || splits != CUBLAS_STATUS_SUCCESS) s.tile = 0;
    return s;
}

/* What is faster than cuBLASLt's first proposal for the layers of a language model, many rows of at least BROAD
 * values, on an H200 (lab/cuda-training.md); tile 0: its own choice. A rule and no timing, so that a run has the same
 * bits again. */
static algo_shape preferred(const gpu_lt *lt, const gpu_gemm *g) {
    enum { BROAD = 768, VOCABULARY = 16384, MANY = 8192 };
    enum {
        TILE_128x128 = 20,
        TILE_128x160 = 29,
        TILE_176x128 = 201
    }; /* older headers have no names for all of them */
    const size_t tiles = tern_ceil_div(g->m, 128) * tern_ceil_div(g->n, 128);
    if (lt->major != 9 || g->operands != TERN_BF16 || g->m < BROAD || g->n < BROAD || g->k < BROAD) return {};
    if (g->a_turned) /* gradients of weights: one wave of tiles that need not be added up */
        return {g->k >= MANY && tiles <= lt->multiprocessors && 4 * tiles >= 3 * lt->multiprocessors
                    ? (uint32_t)TILE_128x128
                    : 0,
                1};
    if (g->m < MANY || g->result != TERN_BF16) return {};
    if (g->b_turned) return {g->n >= VOCABULARY ? (uint32_t)TILE_176x128 : 0, 1};
    if (g->k >= VOCABULARY) return {};
    return {(uint32_t)(g->n <= 2 * BROAD ? TILE_128x128 : TILE_128x160), 1};
}

/* The first proposal, or the first of the shape that is preferred. */
static cublasLtMatmulAlgo_t pick(const gpu_lt *lt, const gpu_gemm *g, const cublasLtMatmulHeuristicResult_t *found,
                                 int count) {
    const algo_shape wanted = preferred(lt, g);
    for (int i = 0; wanted.tile && i < count; i++) {
        if (found[i].state != CUBLAS_STATUS_SUCCESS) continue;
        const algo_shape s = shape_of(lt, &found[i].algo);
        if (s.tile == wanted.tile && s.splits <= wanted.splits) return found[i].algo;
    }
    return found[0].algo;
}

static tern_status choose(gpu_lt *lt, prepared *p, const char *what, tern_error *err) {
    enum { PROPOSALS = 8 };
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulHeuristicResult_t found[PROPOSALS];
    int count = 0;
    const size_t workspace = GPU_LT_WORKSPACE;
    LT_TRY(lt->f.preference_create(&preference), what, err);
    cublasStatus_t code =
        lt->f.preference_set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace);
    static const cublasLtMatmulPreferenceAttributes_t attribute[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    for (int i = 0; i < 4 && code == CUBLAS_STATUS_SUCCESS; i++)
        code = lt->f.preference_set(preference, attribute[i], &p->aligned[i < 3 ? i : 2], sizeof *p->aligned);
    if (code == CUBLAS_STATUS_SUCCESS)
        code = lt->f.heuristic(lt->handle, p->desc, p->b, p->a, p->c, p->c, preference, PROPOSALS, found, &count);
    lt->f.preference_destroy(preference);
    LT_TRY(code, what, err);
    if (!count)
        return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE, "%s: cuBLASLt has no product of %zu x %zu x %zu",
                         what, p->key.m, p->key.n, p->key.k);
    p->algo = pick(lt, &p->key, found, count);
    return TERN_OK;
}

static tern_status prepare(gpu_lt *lt, prepared *p, const char *what, tern_error *err) {
    const gpu_gemm *g = &p->key;
    const size_t lda = g->lda ? g->lda : g->a_turned ? g->m : g->k, ldb = g->ldb ? g->ldb : g->b_turned ? g->k : g->n;
    const cublasOperation_t first = g->b_turned ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t second = g->a_turned ? CUBLAS_OP_T : CUBLAS_OP_N;
    LT_TRY(lt->f.desc_create(&p->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F), what, err);
    LT_TRY(lt->f.desc_set(p->desc, CUBLASLT_MATMUL_DESC_TRANSA, &first, sizeof first), what, err);
    LT_TRY(lt->f.desc_set(p->desc, CUBLASLT_MATMUL_DESC_TRANSB, &second, sizeof second), what, err);
    const int32_t mode = CUBLASLT_POINTER_MODE_DEVICE;
    if (g->factor) LT_TRY(lt->f.desc_set(p->desc, CUBLASLT_MATMUL_DESC_POINTER_MODE, &mode, sizeof mode), what, err);
    GPU_CHECK(layout_of(lt, &p->b, g->operands, g->b_turned ? g->k : g->n, g->b_turned ? g->n : g->k, ldb, g->count,
                        g->stride_b, what, err));
    GPU_CHECK(layout_of(lt, &p->a, g->operands, g->a_turned ? g->m : g->k, g->a_turned ? g->k : g->m, lda, g->count,
                        g->stride_a, what, err));
    GPU_CHECK(layout_of(lt, &p->c, g->result, g->n, g->m, g->ldc ? g->ldc : g->n, g->count, g->stride_c, what, err));
    return choose(lt, p, what, err);
}

/* The product, prepared now if it is new. Which number a factor is makes no difference. */
static tern_status find(gpu_lt *lt, prepared **out, const gpu_gemm *gemm, const uint32_t aligned[3], const char *what,
                        tern_error *err) {
    for (size_t i = 0; i < lt->count; i++)
        if (!memcmp(&lt->list[i].key, gemm, sizeof *gemm) &&
            !memcmp(lt->list[i].aligned, aligned, sizeof lt->list[i].aligned)) {
            *out = &lt->list[i];
            return TERN_OK;
        }
    if (lt->count == lt->room) {
        const size_t room = lt->room ? 2 * lt->room : 64;
        prepared *grown = (prepared *)realloc(lt->list, room * sizeof *grown);
        if (!grown) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for a plan");
        lt->list = grown;
        lt->room = room;
    }
    prepared *p = &lt->list[lt->count];
    memset(p, 0, sizeof *p);
    memcpy(&p->key, gemm, sizeof *gemm);
    memcpy(p->aligned, aligned, sizeof p->aligned);
    const tern_status status = prepare(lt, p, what, err);
    if (status) {
        forget(lt, p);
        return status;
    }
    lt->count++;
    *out = p;
    return TERN_OK;
}

/* What cuBLASLt may assume of an address: the largest power of two, up to what allocations have, that divides it. */
static uint32_t alignment_of(const void *address) {
    const uintptr_t bits = (uintptr_t)address | 256;
    return (uint32_t)(bits & (~bits + 1));
}

tern_status gpu_multiply(tern_gpu_plan *plan, size_t node, const gpu_gemm *gemm, void *c, const void *a,
                         const void *b, tern_error *err) {
    const char *what = gpu_graph_node(plan, node)->name;
    const float numbers[2] = {0, 1}, *at = gemm->factor ? plan->lt->numbers : numbers;
    const float *alpha = gemm->factor ? gemm->factor : at + 1, *beta = at + (gemm->add ? 1 : 0);
    gpu_gemm key;
    memcpy(&key, gemm, sizeof key); /* whole, as it is compared */
    if (gemm->factor) key.factor = plan->lt->numbers;
    prepared *p = NULL;
    const uint32_t aligned[3] = {alignment_of(a), alignment_of(b), alignment_of(c)};
    GPU_CHECK(find(plan->lt, &p, &key, aligned, what, err));
    LT_TRY(plan->lt->f.matmul(plan->lt->handle, p->desc, alpha, b, p->b, a, p->a, beta, c, p->c, c, p->c, &p->algo,
                              plan->lt->workspace, GPU_LT_WORKSPACE, plan->stream),
           what, err);
    return TERN_OK;
}

/* ---- gradients of weights */

__global__ static void add_rows(float *to, const float *from, size_t columns, size_t ld, size_t n) {
    GPU_FOR(i, n) to[i] += from[i / columns * ld + i % columns];
}

/* Where rows of x are longer than k there are as many columns of sums, because cuBLASLt's fast kernels take rows of
 * whole packs, and those of k are added to dw. */
tern_status gpu_weight_product(tern_gpu_plan *plan, size_t node, float *dw, const void *dy, size_t ldy, const void *x,
                               size_t ldx, size_t n, size_t k, size_t rows, void *sums, tern_error *err) {
    gpu_gemm g = {};
    g.operands = plan->products;
    g.result = TERN_F32;
    g.a_turned = 1;
    g.add = ldx == k;
    g.m = n;
    g.n = ldx;
    g.k = rows;
    g.lda = ldy;
    GPU_CHECK(gpu_multiply(plan, node, &g, g.add ? (void *)dw : sums, dy, x, err));
    if (g.add) return TERN_OK;
    add_rows<<<gpu_blocks(plan, n * k), GPU_THREADS, 0, plan->stream>>>(dw, (const float *)sums, k, ldx, n * k);
    GPU_LAUNCHED(plan, node, err);
    return TERN_OK;
}
