/* embedding: nn/op_embedding.c's formulas. For the gradient, places are sorted by their token (stably: places of a
 * token stay in order) and cut into chunks. A run of equal tokens within a chunk is added to the table's row at once;
 * of one that crosses chunks, each leaves the sum of its piece, and the chunk where it starts adds them in order. */
#include <cub/device/device_radix_sort.cuh>

#include "gpu/gpu_columns.cuh"

enum { CHUNK = 64, AHEAD = 8, GRADIENT_THREADS = 128 };

struct embedding_sizes {
    size_t places, width, rows, chunks;
    int bits; /* of a token */
};

static embedding_sizes sizes_of(const tern_gpu_plan *plan, size_t i, size_t batch) {
    const tern_node *node = gpu_graph_node(plan, i);
    embedding_sizes s = {};
    s.places = batch * node->rows;
    s.width = node->channels;
    s.rows = node->at.outputs;
    s.chunks = (s.places + CHUNK - 1) / CHUNK;
    s.bits = 1;
    while ((s.rows - 1) >> s.bits) s.bits++;
    return s;
}

/* ---- scratch of the backward pass */

struct embedding_scratch {
    uint32_t *token, *place, *unsorted; /* [places], sorted, sorted, 0, 1, ... */
    float *piece;                       /* [chunks][2][width]: of a run from an earlier chunk, into a later one */
    void *sort;
    size_t bytes;
};

static embedding_scratch scratch_of(void *scratch, const embedding_sizes &s) {
    const size_t places = gpu_round_up(s.places * sizeof(uint32_t), 256);
    char *at = (char *)scratch;
    embedding_scratch e = {};
    e.token = (uint32_t *)at;
    e.place = (uint32_t *)(at + places);
    e.unsorted = (uint32_t *)(at + 2 * places);
    e.piece = (float *)(at + 3 * places);
    e.bytes = 3 * places + gpu_round_up(s.chunks * 2 * s.width * sizeof(float), 256);
    e.sort = at + e.bytes;
    return e;
}

static cudaError_t sort(void *room, size_t *bytes, const embedding_scratch &e, const uint32_t *token,
                        const embedding_sizes &s, cudaStream_t stream) {
    return cub::DeviceRadixSort::SortPairs(room, *bytes, token, e.token, e.unsorted, e.place, (int)s.places, 0,
                                           s.bits, stream);
}

/* Room for the sort is kept as the op's state, since only CUB knows it. */
static tern_status prepare(tern_gpu_plan *plan, size_t i, tern_error *err) {
    const char *name = gpu_graph_node(plan, i)->name;
    const embedding_sizes s = sizes_of(plan, i, plan->batch_max);
    if (!plan->training) return TERN_OK;
    if (s.places > INT32_MAX)
        return tern_fail(err, TERN_E_ARGUMENT, TERN_NO_PLACE, "%s: %zu tokens in a batch; at most 2^31 - 1", name,
                         s.places);
    const embedding_scratch e = scratch_of(NULL, s);
    GPU_CHECK(gpu_state(plan, i, sizeof(size_t), err));
    size_t *room = (size_t *)plan->node[i].state;
    CUDA_TRY(sort(NULL, room, e, NULL, s, plan->stream), name, err);
    gpu_want_scratch(plan, e.bytes + *room);
    return TERN_OK;
}

/* ---- forward */

template <class T, int N>
__global__ static void __launch_bounds__(GPU_THREADS)
    take_rows(T *y, const float *table, const int32_t *token, gpu_columns m) {
    const unsigned pack = blockIdx.x * blockDim.x + threadIdx.x;
    const size_t step = (size_t)gridDim.y * blockDim.y;
    if (pack >= m.packs) return;
    for (size_t row = (size_t)blockIdx.y * blockDim.y + threadIdx.y; row < m.rows; row += step) {
        const size_t column = (size_t)pack * N;
        const auto from = *(const gpu_columns_pack<float, N> *)(table + (size_t)token[row] * m.columns + column);
        gpu_columns_pack<T, N> to;
#pragma unroll
        for (int j = 0; j < N; j++) to.v[j] = from_float<T>(from.v[j]);
        *(gpu_columns_pack<T, N> *)(y + row * m.columns + column) = to;
    }
}

static tern_status forward(tern_gpu_plan *plan, size_t i, tern_error *err) {
    const embedding_sizes s = sizes_of(plan, i, plan->batch);
    const float *table = gpu_node_param(plan, i, 0)->value;
    const int32_t *token = (const int32_t *)gpu_in(plan, i, 0);
    GPU_BY_TYPE(plan->type, GPU_BY_PACK(T, s.width, {
                    const gpu_columns m = gpu_columns_cut(s.places, s.width, N);
                    take_rows<T, N><<<dim3(m.tiles, gpu_columns_blocks(plan, m)), m.block, 0, plan->stream>>>(
                        (T *)plan->node[i].value, table, token, m);
                }));
    GPU_LAUNCHED(plan, i, err);
    return TERN_OK;
}

/* ---- backward */

__global__ static void count_up(uint32_t *place, size_t n) { GPU_FOR(i, n) place[i] = (uint32_t)i; }

/* What the kernels below read. */
struct runs {
    const uint32_t *token, *place;
    size_t places, width;
    __device__ bool starts(size_t at) const { return at == 0 || token[at - 1] != token[at]; }
    __device__ bool ends(size_t at) const { return at + 1 == places || token[at + 1] != token[at]; }
};

/* Where the sum of a run's piece goes: the table, or the chunk's piece of a run from an earlier one (0) or on into a
 * later one (1). */
template <int N> struct piece_target {
    float *table, *piece; /* [2][width] of the chunk; all at the thread's column */
    size_t width;
    __device__ void take(const runs &r, size_t first, size_t last, const float (&sum)[N]) const {
        const bool starts = r.starts(first), whole = starts && r.ends(last);
        float *to = whole ? table + (size_t)r.token[first] * width : piece + (starts ? width : 0);
#pragma unroll
        for (int j = 0; j < N; j++) to[j] = whole ? to[j] + sum[j] : sum[j];
    }
};

template <class T, int N>
__global__ static void __launch_bounds__(GRADIENT_THREADS)
    add_chunks(float *table, float *piece, const T *dy, runs r) {
    __shared__ uint32_t token[CHUNK], place[CHUNK];
    const size_t begin = (size_t)blockIdx.x * CHUNK;
    const int count = (int)(begin + CHUNK < r.places ? CHUNK : r.places - begin);
    for (int j = (int)threadIdx.x; j < count; j += (int)blockDim.x) {
        token[j] = r.token[begin + j];
        place[j] = r.place[begin + j];
    }
    __syncthreads();
    const size_t column = ((size_t)blockIdx.y * blockDim.x + threadIdx.x) * N;
    if (column >= r.width) return;
    const piece_target<N> target = {table + column, piece + blockIdx.x * 2 * r.width + column, r.width};
    float sum[N] = {};
    int first = 0;
    for (int at = 0; at < count; at += AHEAD) {
        gpu_columns_pack<T, N> g[AHEAD];
#pragma unroll
        for (int a = 0; a < AHEAD; a++)
            if (at + a < count) g[a] = *(const gpu_columns_pack<T, N> *)(dy + place[at + a] * r.width + column);
#pragma unroll
        for (int a = 0; a < AHEAD; a++) {
            if (at + a >= count) break;
#pragma unroll
            for (int j = 0; j < N; j++) sum[j] += to_float(g[a].v[j]);
            if (at + a + 1 < count && token[at + a + 1] == token[at + a]) continue;
            target.take(r, begin + first, begin + at + a, sum);
            first = at + a + 1;
#pragma unroll
            for (int j = 0; j < N; j++) sum[j] = 0;
        }
    }
}

/* The runs that start in this chunk and go on. */
__global__ static void __launch_bounds__(GRADIENT_THREADS) add_pieces(float *table, const float *piece, runs r) {
    const size_t last = ((size_t)blockIdx.x + 1) * CHUNK - 1, column = (size_t)blockIdx.y * blockDim.x + threadIdx.x;
    if (last + 1 >= r.places || r.ends(last) || column >= r.width) return;
    const uint32_t token = r.token[last];
    if (r.token[last + 1 - CHUNK] == token && !r.starts(last + 1 - CHUNK)) return;
    const float *next = piece + (size_t)blockIdx.x * 2 * r.width + column;
    float sum = next[r.width];
    for (size_t at = last + 1; at < r.places && r.token[at] == token; at += CHUNK) {
        next += 2 * r.width;
        sum += *next;
    }
    table[token * r.width + column] += sum;
}

template <class T>
static tern_status add_rows(tern_gpu_plan *plan, size_t i, const embedding_scratch &e, const embedding_sizes &s,
                            tern_error *err) {
    float *table = gpu_node_param(plan, i, 0)->grad;
    const T *dy = (const T *)plan->node[i].grad;
    const runs r = {e.token, e.place, s.places, s.width};
    GPU_BY_PACK(T, s.width, {
        const size_t packs = s.width / N,
                     threads = packs < GRADIENT_THREADS ? gpu_round_up(packs, 32) : (size_t)GRADIENT_THREADS;
        add_chunks<T, N><<<dim3((unsigned)s.chunks, (unsigned)((packs + threads - 1) / threads)), (unsigned)threads,
                           0, plan->stream>>>(table, e.piece, dy, r);
    });
    GPU_LAUNCHED(plan, i, err);
    const dim3 grid((unsigned)s.chunks, (unsigned)((s.width + GRADIENT_THREADS - 1) / GRADIENT_THREADS));
    add_pieces<<<grid, GRADIENT_THREADS, 0, plan->stream>>>(table, e.piece, r);
    GPU_LAUNCHED(plan, i, err);
    return TERN_OK;
}

static tern_status backward(tern_gpu_plan *plan, size_t i, tern_error *err) {
    const embedding_sizes s = sizes_of(plan, i, plan->batch);
    const embedding_scratch e = scratch_of(plan->scratch, s);
    size_t room = *(const size_t *)plan->node[i].state;
    if (!gpu_node_param(plan, i, 0)->grad) return TERN_OK;
    count_up<<<gpu_blocks(plan, s.places), GPU_THREADS, 0, plan->stream>>>(e.unsorted, s.places);
    GPU_LAUNCHED(plan, i, err);
    CUDA_TRY(sort(e.sort, &room, e, (const uint32_t *)gpu_in(plan, i, 0), s, plan->stream),
             gpu_graph_node(plan, i)->name, err);
    GPU_BY_TYPE(plan->type, return add_rows<T>(plan, i, e, s, err));
}

extern const gpu_op gpu_op_embedding = {"embedding", prepare, NULL, forward, backward};
