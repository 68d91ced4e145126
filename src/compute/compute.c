/* The compute context, and the choice of kernels for this processor. */
#include <stdlib.h>
#include <string.h>
#include "kernels.h"

px_status px_compute_init(px_compute *ctx, int threads, size_t scratch_bytes) {
    if (threads < 1) return px_fail(PX_BUG, "px_compute_init: %d threads; valid is 1 or more", threads);
    *ctx = (px_compute){.threads = threads};
    px_kernels_get();
    return px_arena_init(&ctx->scratch, scratch_bytes, "compute scratch");
}

void px_compute_free(px_compute *ctx) {
    px_arena_free(&ctx->scratch);
    *ctx = (px_compute){0};
}

static const px_kernels *choose(void) {
    const char *wanted = getenv("PHALANX_ISA"); /* at most this instruction set */
#ifdef PX_KERNELS_X86
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                  __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
    if (wanted && strcmp(wanted, "generic") == 0) return &px_kernels_generic;
    if (wanted && strcmp(wanted, "avx2") == 0) avx512 = false;
    if (avx512) return &px_kernels_avx512;
    if (avx2) return &px_kernels_avx2;
#else
    (void)wanted;
#endif
    return &px_kernels_generic;
}

const px_kernels *px_kernels_get(void) {
    static const px_kernels *chosen; /* the same answer whoever asks first */
    const px_kernels *kernels = __atomic_load_n(&chosen, __ATOMIC_RELAXED);
    if (!kernels) {
        kernels = choose();
        __atomic_store_n(&chosen, kernels, __ATOMIC_RELAXED);
    }
    return kernels;
}

const char *px_compute_isa(void) { return px_kernels_get()->isa; }
