#include "cuda/load_backend.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"

#define LIBRARY "libtern_cuda.so"

static const tern_cuda_backend *loaded;
static tern_error reason;

tern_status tern_cuda_load_from(const tern_cuda_backend **table, const char *path, tern_error *err) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE, "no GPU: %.200s", dlerror());
    tern_cuda_backend_fn get;
    *(void **)&get = dlsym(library, TERN_CUDA_BACKEND_SYMBOL);
    *table = get ? get(TERN_CUDA_BACKEND_VERSION) : NULL;
    if (*table) return TERN_OK;
    dlclose(library);
    return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE,
                     "no GPU: %.120s is not the GPU library of this version of Tern", path);
}

/* Where this very code lies, so that a moved installation still finds its own. */
static int beside_us(char *path, size_t bytes) {
    Dl_info info;
    if (!dladdr((void *)&loaded, &info) || !info.dli_fname) return 0;
    const char *slash = strrchr(info.dli_fname, '/');
    if (!slash) return 0;
    const int length = snprintf(path, bytes, "%.*s/" LIBRARY, (int)(slash - info.dli_fname), info.dli_fname);
    FILE *f = length > 0 && (size_t)length < bytes ? fopen(path, "rb") : NULL;
    if (f) fclose(f);
    return f != NULL;
}

static void load_once(void) {
    char path[4096];
    if (tern_cuda_load_from(&loaded, beside_us(path, sizeof path) ? path : LIBRARY, &reason)) loaded = NULL;
}

tern_status tern_cuda_load(const tern_cuda_backend **table, tern_error *err) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, load_once);
    *table = loaded;
    if (loaded) return TERN_OK;
    return tern_fail(err, reason.status, TERN_NO_PLACE, "%s", reason.message);
}
