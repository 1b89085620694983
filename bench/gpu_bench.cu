/* Products on a GPU beside the limits of that GPU and beside cuBLAS, all measured in one run.
 *
 * Times are replays of CUDA graphs whose nodes take distinct matrices in turn, more of them than the L2 cache holds;
 * medians. Tern's weights stay packed; cuBLAS gets bf16 weights, cuBLASLt also int8 ones, both expanded beforehand,
 * and the fastest of its first eight heuristics. */
#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include "tern/device.h"
#include "tern/tern.h"

static const char help[] =
    "usage: tern_gpu_bench [OPTIONS]\n\n"
    "  --shape NxK,...    outputs x inputs\n"
    "  --m LIST           rows of activations\n"
    "  --packing LIST     t2, t5 (t2,t5)\n"
    "  --acts LIST        i8, f16, bf16, f32 (i8)\n"
    "  --outputs TYPE     f32, bf16, f16 (f32)\n"
    "  --kernel NAME      cuda-plain, cuda-tiled, cuda-decode, cuda-mma, cuda-wgmma, cuda-few (chosen by shape)\n"
    "  --group LIST       an exponent for each so many columns of a row; 0: one scale for all (0)\n"
    "  --variants         every launch shape of that kernel\n"
    "  --variant LIST     these launch shapes\n"
    "  --peers            cuBLAS bf16 and cuBLASLt int8 too\n"
    "  --serial           no kernel starts before the one before it has ended\n"
    "  --json             one object a line\n\n"
    "Example:\n  tern_gpu_bench --shape 8192x8192 --m 1,32,2048 --peers\n";

enum { COLD_BYTES = 256 << 20, REPLAYS = 15 };

struct shape {
    size_t n, k;
};

struct options {
    std::vector<shape> shapes = {{2560, 2560}, {3840, 2560},  {2560, 6912}, {13824, 2560},
                                 {8192, 8192}, {5120, 27648}, {55296, 5120}};
    std::vector<size_t> m = {1, 8, 32, 128, 512, 2048};
    std::vector<std::string> packings = {"t2", "t5"}, acts = {"i8"};
    std::string outputs = "f32";
    tern_device_kernel kernel = TERN_DEVICE_KERNEL_AUTO;
    std::vector<size_t> groups = {0}, chosen = {0}; /* of launch shapes; 0: by the rule */
    bool variants = false, peers = false, serial = false, json = false;
};

struct limits {
    double empty, read, int8; /* s, bytes/s, operations/s */
};

static tern_device *device;
static cudaStream_t stream;
static tern_device_info info;
static limits peak;
static options opt;

static void stop(const char *what, const char *why) {
    fprintf(stderr, "tern_gpu_bench: %s: %s\n", what, why);
    exit(1);
}

static void check(cudaError_t code, const char *what) {
    if (code != cudaSuccess) stop(what, cudaGetErrorString(code));
}

static void check(cublasStatus_t code, const char *what) {
    if (code != CUBLAS_STATUS_SUCCESS) stop(what, cublasLtGetStatusString(code));
}

static void *device_bytes(size_t bytes) {
    void *memory;
    check(cudaMalloc(&memory, bytes), "cudaMalloc");
    return memory;
}

/* ---- timing ---------------------------------------------------------------------------------------------------- */

/* Seconds of one call: a graph of `nodes` calls, replayed. call(i) puts call i on the stream. */
static double time_graph(int nodes, const std::function<void(int)> &call) {
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    cudaEvent_t begin, end;
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture");
    for (int i = 0; i < nodes; i++) call(i);
    check(cudaStreamEndCapture(stream, &graph), "capture");
    check(cudaGraphInstantiate(&exec, graph, 0), "instantiate");
    check(cudaEventCreate(&begin), "event");
    check(cudaEventCreate(&end), "event");
    std::vector<double> seconds;
    for (int i = 0; i < REPLAYS + 2; i++) {
        float ms;
        check(cudaEventRecord(begin, stream), "event");
        check(cudaGraphLaunch(exec, stream), "launch");
        check(cudaEventRecord(end, stream), "event");
        check(cudaEventSynchronize(end), "replay");
        check(cudaEventElapsedTime(&ms, begin, end), "event");
        if (i >= 2) seconds.push_back(ms * 1e-3 / nodes);
    }
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
    cudaGraphExecDestroy(exec);
    cudaGraphDestroy(graph);
    std::sort(seconds.begin(), seconds.end());
    return seconds[seconds.size() / 2];
}

/* Matrices so that the caches hold none of them when its turn comes again. */
static int copies_for(size_t bytes) {
    return (int)std::min<size_t>(std::max<size_t>(COLD_BYTES / bytes + 1, 2), 512);
}
/* Enough that the begin and the end of a graph do not count. */
static int nodes_for(int copies, size_t m) {
    return m >= 512 ? std::min(std::max(copies, 8), 20) : std::max(copies, 100);
}

/* ---- limits ---------------------------------------------------------------------------------------------------- */

__global__ void empty_kernel() {}

static double measure_read() {
    tern_error err;
    double per_second;
    if (tern_device_measure_read(&per_second, device, &err)) stop("reading memory", err.message);
    return per_second;
}

/* ---- cuBLAS ---------------------------------------------------------------------------------------------------- */

struct peer {
    const char *name;
    cudaDataType type, out;
    cublasComputeType_t compute;
    cudaDataType scale;
    size_t bytes, out_bytes;
};
static const peer peers[] = {
    {"cuBLAS bf16", CUDA_R_16BF, CUDA_R_16BF, CUBLAS_COMPUTE_32F, CUDA_R_32F, 2, 2},
    {"cuBLASLt int8", CUDA_R_8I, CUDA_R_32I, CUBLAS_COMPUTE_32I, CUDA_R_32I, 1, 4},
};

__global__ void fill_kernel(uint8_t *to, size_t count, int bf16) {
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < count; i += (size_t)gridDim.x * blockDim.x) {
        unsigned h = (unsigned)i * 2654435761u + 12345u;
        h ^= h >> 15;
        h *= 2246822519u;
        h ^= h >> 13;
        if (bf16)
            ((__nv_bfloat16 *)to)[i] = __float2bfloat16((float)(h & 0xffff) * (1.0f / 32768) - 1);
        else
            to[i] = (uint8_t)h;
    }
}

static void *filled(size_t count, size_t size) {
    uint8_t *p = (uint8_t *)device_bytes(count * size);
    fill_kernel<<<1024, 256, 0, stream>>>(p, count, size == 2);
    check(cudaStreamSynchronize(stream), "fill");
    return p;
}

/* y[m][n] = x[m][k] w[n][k]^T; 0 where cuBLASLt has no such product. */
static double time_peer(const peer &p, shape s, size_t m) {
    const size_t bytes = s.n * s.k * p.bytes;
    const int copies = copies_for(bytes), nodes = nodes_for(copies, m);
    uint8_t *w = (uint8_t *)filled(s.n * s.k * (size_t)copies, p.bytes);
    void *x = filled(m * s.k, p.bytes), *y = device_bytes(m * s.n * p.out_bytes);
    const size_t workspace_bytes = 64 << 20;
    void *workspace = device_bytes(workspace_bytes);
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulPreference_t preference;
    const cublasOperation_t transposed = CUBLAS_OP_T;
    check(cublasLtCreate(&handle), "cublasLt");
    check(cublasLtMatmulDescCreate(&desc, p.compute, p.scale), "cublasLt");
    check(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed),
          "cublasLt");
    check(cublasLtMatrixLayoutCreate(&a, p.type, s.k, s.n, (int64_t)s.k), "cublasLt");
    check(cublasLtMatrixLayoutCreate(&b, p.type, s.k, m, (int64_t)s.k), "cublasLt");
    check(cublasLtMatrixLayoutCreate(&c, p.out, s.n, m, (int64_t)s.n), "cublasLt");
    check(cublasLtMatmulPreferenceCreate(&preference), "cublasLt");
    check(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace_bytes,
                                               sizeof workspace_bytes),
          "cublasLt");
    cublasLtMatmulHeuristicResult_t found[8];
    int count = 0;
    if (cublasLtMatmulAlgoGetHeuristic(handle, desc, a, b, c, c, preference, 8, found, &count) !=
        CUBLAS_STATUS_SUCCESS)
        count = 0;
    const float one_f = 1, zero_f = 0;
    const int32_t one_i = 1, zero_i = 0;
    const void *one = p.scale == CUDA_R_32F ? (const void *)&one_f : &one_i;
    const void *zero = p.scale == CUDA_R_32F ? (const void *)&zero_f : &zero_i;
    double best = 0;
    for (int i = 0; i < count; i++) {
        const auto call = [&](int node) {
            return cublasLtMatmul(handle, desc, one, w + (size_t)(node % copies) * bytes, a, x, b, zero, y, c, y, c,
                                  &found[i].algo, workspace, workspace_bytes, stream);
        };
        if (call(0) != CUBLAS_STATUS_SUCCESS) continue;
        check(cudaStreamSynchronize(stream), p.name);
        const double seconds = time_graph(nodes, [&](int node) { check(call(node), p.name); });
        if (!best || seconds < best) best = seconds;
    }
    cublasLtMatmulPreferenceDestroy(preference);
    cublasLtMatrixLayoutDestroy(a);
    cublasLtMatrixLayoutDestroy(b);
    cublasLtMatrixLayoutDestroy(c);
    cublasLtMatmulDescDestroy(desc);
    cublasLtDestroy(handle);
    cudaFree(w);
    cudaFree(x);
    cudaFree(y);
    cudaFree(workspace);
    return best;
}

/* ---- output ---------------------------------------------------------------------------------------------------- */

struct row {
    const char *op, *weights, *acts, *kernel;
    int variant;
    shape s;
    size_t m, bytes;
    double seconds;
};

static void print_row(const row &r) {
    const double operations = 2.0 * (double)r.s.n * (double)r.s.k * (double)r.m;
    const bool memory = (double)r.bytes / peak.read >= operations / peak.int8;
    const double gbps = (double)r.bytes / r.seconds * 1e-9, gops = operations / r.seconds * 1e-9;
    const double share = memory ? gbps * 1e9 / peak.read : gops * 1e9 / peak.int8;
    if (opt.json)
        printf("{\"op\":\"%s\",\"weights\":\"%s\",\"acts\":\"%s\",\"tier\":\"%s\",\"variant\":%d,\"device\":\"%s\","
               "\"m\":%zu,\"n\":%zu,\"k\":%zu,\"seconds\":%.4g,\"gbps\":%.5g,\"gops\":%.6g,\"bound\":\"%s\","
               "\"peak\":%.5g,\"share\":%.4g}\n",
               r.op, r.weights, r.acts, r.kernel, r.variant, info.name, r.m, r.s.n, r.s.k, r.seconds, gbps, gops,
               memory ? "memory" : "compute", (memory ? peak.read : peak.int8) * 1e-9, share);
    else
        printf("%-4s %-4s %-13s %2d %6zu %6zu %6zu %10.2f us %9.1f GB/s %10.1f GOP/s  %-7s %5.1f%%\n", r.weights,
               r.acts, r.kernel, r.variant, r.m, r.s.n, r.s.k, r.seconds * 1e6, gbps, gops,
               memory ? "memory" : "compute", share * 100);
    fflush(stdout);
}

static void measure_limits() {
    peak.empty = time_graph(200, [](int) { empty_kernel<<<1, 32, 0, stream>>>(); });
    peak.read = measure_read();
    const shape s = {8192, 8192};
    const size_t m = 8192;
    const double lt = 2.0 * (double)(s.n * s.k * m) / time_peer(peers[1], s, m);
    tern_error err;
    if (tern_device_measure_int8(&peak.int8, device, &err)) stop("the int8 peak", err.message);
    if (opt.json)
        printf("{\"op\":\"peak\",\"device\":\"%s\",\"driver\":%d,\"runtime\":%d,\"empty_kernel\":%.4g,\"read_gbps\":%"
               ".5g,"
               "\"int8_gops\":%.6g,\"cublaslt_int8_8192_gops\":%.6g}\n",
               info.name, info.driver_version, info.runtime_version, peak.empty, peak.read * 1e-9, peak.int8 * 1e-9,
               lt * 1e-9);
    else
        printf("%s, driver %d, runtime %d\nempty kernel %.2f us, read %.1f GB/s, int8 from registers %.0f GOP/s, "
               "cuBLASLt int8 8192^3 %.0f GOP/s\n",
               info.name, info.driver_version, info.runtime_version, peak.empty * 1e6, peak.read * 1e-9,
               peak.int8 * 1e-9, lt * 1e-9);
    fflush(stdout);
}

/* ---- Tern ------------------------------------------------------------------------------------------------------ */

struct matrices {
    std::vector<tern_device_matrix *> all;
    size_t packed_bytes;
};

static void make_matrices(matrices *w, shape s, tern_packing packing, size_t group) {
    enum { DISTINCT = 64 }; /* rows; the others repeat them */
    tern_error err;
    std::vector<int8_t> trits(s.n * s.k);
    unsigned state = 1;
    for (size_t i = 0; i < trits.size(); i++) {
        if (i >= DISTINCT * s.k) {
            trits[i] = trits[i - DISTINCT * s.k];
            continue;
        }
        state = state * 1664525u + 1013904223u;
        trits[i] = (int8_t)((int)((state >> 16) % 3) - 1);
    }
    if (tern_packed_bytes(&w->packed_bytes, packing, s.n, s.k, &err)) stop("pack", err.message);
    std::vector<uint8_t> packed(w->packed_bytes);
    if (tern_pack(packed.data(), packed.size(), packing, trits.data(), s.n, s.k, &err)) stop("pack", err.message);
    const float scale = 0.02f;
    tern_matrix_desc desc = {};
    desc.rows = s.n;
    desc.cols = s.k;
    desc.packing = packing;
    desc.packed = packed.data();
    desc.packed_bytes = packed.size();
    desc.scales = &scale;
    desc.scale_count = 1;
    std::vector<int8_t> exponents(group ? s.n * tern_groups_per_row(group, s.k) : 0);
    if (group) {
        for (size_t i = 0; i < exponents.size(); i++) exponents[i] = (int8_t)(i % 12) - 8;
        desc.scale_kind = TERN_SCALE_GROUP_EXP;
        desc.exponents = exponents.data();
        desc.scale_count = exponents.size();
        desc.group = group;
        w->packed_bytes += exponents.size();
    }
    w->all.resize((size_t)copies_for(w->packed_bytes));
    if (tern_device_matrix_create(&w->all[0], device, &desc, &err)) stop("matrix", err.message);
    for (size_t i = 1; i < w->all.size(); i++)
        if (tern_device_matrix_clone(&w->all[i], w->all[0], &err)) stop("matrix", err.message);
}

static double time_product(const matrices &w, const tern_device_product &p, std::string *why) {
    tern_error err;
    if (tern_device_matmul(w.all[0], &p, &err)) {
        *why = err.message;
        return 0;
    }
    if (tern_device_synchronize(device, &err)) stop("matmul", err.message);
    return time_graph(nodes_for((int)w.all.size(), p.m), [&](int i) {
        tern_error e;
        if (tern_device_matmul(w.all[(size_t)i % w.all.size()], &p, &e)) stop("matmul", e.message);
    });
}

static tern_dtype type_of(const std::string &name) {
    return name == "i8" ? TERN_I8 : name == "f16" ? TERN_F16 : name == "bf16" ? TERN_BF16 : TERN_F32;
}

static void bench_products(const matrices &w, shape s, const std::string &packing, const std::string &acts,
                           size_t m) {
    const tern_dtype type = type_of(acts);
    tern_device_product p = {};
    p.x_type = type;
    p.m = m;
    p.x = type == TERN_F32 ? filled(m * s.k * 2, 2) : filled(m * s.k, type == TERN_I8 ? 1 : 2);
    p.inv_scale = (const float *)device_bytes(m * sizeof(float));
    check(cudaMemset((void *)p.inv_scale, 0x3c, m * sizeof(float)), "memset");
    p.y = device_bytes(m * s.n * sizeof(float));
    p.y_type = type_of(opt.outputs);
    p.kernel = opt.kernel;
    std::vector<size_t> variants = opt.chosen;
    if (opt.variants) {
        variants.resize((size_t)tern_device_variants(opt.kernel));
        std::iota(variants.begin(), variants.end(), 1);
    }
    for (size_t variant : variants) {
        p.variant = (int)variant;
        std::string why;
        const double seconds = time_product(w, p, &why);
        const row r = {"matmul",
                       packing.c_str(),
                       acts.c_str(),
                       opt.kernel ? tern_device_kernel_name(opt.kernel) : "auto",
                       p.variant,
                       s,
                       m,
                       w.packed_bytes,
                       seconds};
        if (seconds > 0)
            print_row(r);
        else if (!opt.json)
            printf("%s: %s\n", acts.c_str(), why.c_str());
    }
    cudaFree((void *)p.x);
    cudaFree((void *)p.inv_scale);
    cudaFree(p.y);
}

static void bench_shape(shape s) {
    if (opt.peers)
        for (const peer &p : peers)
            for (size_t m : opt.m) {
                const double seconds = time_peer(p, s, m);
                if (seconds > 0)
                    print_row({"peer", p.bytes == 2 ? "bf16" : "int8", p.bytes == 2 ? "bf16" : "i8", p.name, 0, s, m,
                               s.n * s.k * p.bytes, seconds});
            }
    for (const std::string &packing : opt.packings)
        for (size_t group : opt.groups) {
            matrices w;
            const std::string name = group ? packing + "/" + std::to_string(group) : packing;
            make_matrices(&w, s, packing == "t2" ? TERN_PACK_T2 : TERN_PACK_T5, group);
            for (const std::string &acts : opt.acts)
                for (size_t m : opt.m) bench_products(w, s, name, acts, m);
            for (tern_device_matrix *&one : w.all) tern_device_matrix_free(&one);
        }
}

/* ---- options --------------------------------------------------------------------------------------------------- */

static std::vector<std::string> split(const char *text) {
    std::vector<std::string> items;
    std::string item;
    for (; *text; text++)
        if (*text == ',') {
            items.push_back(item);
            item.clear();
        } else
            item += *text;
    items.push_back(item);
    return items;
}

static bool read_option(const std::string &name, const char *value) {
    if (name == "--shape") {
        opt.shapes.clear();
        for (const std::string &item : split(value)) {
            shape s;
            if (sscanf(item.c_str(), "%zux%zu", &s.n, &s.k) != 2 || !s.n || !s.k) return false;
            opt.shapes.push_back(s);
        }
    } else if (name == "--m") {
        opt.m.clear();
        for (const std::string &item : split(value)) opt.m.push_back(strtoull(item.c_str(), NULL, 10));
        return std::find(opt.m.begin(), opt.m.end(), 0) == opt.m.end();
    } else if (name == "--packing") {
        opt.packings = split(value);
    } else if (name == "--acts") {
        opt.acts = split(value);
    } else if (name == "--outputs") {
        opt.outputs = value;
        return opt.outputs == "f16" || opt.outputs == "bf16" || opt.outputs == "f32";
    } else if (name == "--variant") {
        opt.chosen.clear();
        for (const std::string &item : split(value)) opt.chosen.push_back(strtoull(item.c_str(), NULL, 10));
    } else if (name == "--group") {
        opt.groups.clear();
        for (const std::string &item : split(value)) {
            char *end;
            opt.groups.push_back(strtoull(item.c_str(), &end, 10));
            if (end == item.c_str() || *end) return false;
        }
    } else if (name == "--kernel") {
        for (int k = 1; k < TERN_DEVICE_KERNEL_COUNT; k++)
            if (!strcmp(value, tern_device_kernel_name((tern_device_kernel)k))) opt.kernel = (tern_device_kernel)k;
        return opt.kernel != TERN_DEVICE_KERNEL_AUTO;
    } else {
        return false;
    }
    return true;
}

static bool read_flag(const std::string &name) {
    bool *flag = name == "--variants" ? &opt.variants
                 : name == "--peers"  ? &opt.peers
                 : name == "--serial" ? &opt.serial
                 : name == "--json"   ? &opt.json
                                      : NULL;
    if (flag) *flag = true;
    return flag != NULL;
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            fputs(help, stdout);
            return 0;
        }
        if (read_flag(argv[i])) continue;
        if (i + 1 == argc || !read_option(argv[i], argv[i + 1])) {
            fprintf(stderr, "'%s' is not understood\n%s", argv[i], help);
            return 2;
        }
        i++;
    }
    tern_error err;
    tern_device_options options = {};
    options.serial = opt.serial;
    if (tern_device_open(&device, &options, &err)) stop("no GPU", err.message);
    if (tern_device_describe(&info, 0, &err)) stop("GPU", err.message);
    stream = (cudaStream_t)tern_device_stream(device);
    measure_limits();
    for (shape s : opt.shapes) bench_shape(s);
    tern_device_close(&device);
    return 0;
}
