/* The compute context, and the choice of kernels for this processor. */
#include <stdlib.h>
#include <string.h>
#if defined(PX_KERNELS_X86) && !defined(PX_DOUBLE)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif
#include "openblas.h"

static bool wants_openblas(void) {
    const char *wanted = getenv("PHALANX_GEMM"); /* whose products in float32 */
    return wanted && strcmp(wanted, "openblas") == 0;
}

static px_status check_products(void) {
    const char *wanted = getenv("PHALANX_GEMM");
    if (wanted && strcmp(wanted, "own") != 0 && strcmp(wanted, "openblas") != 0)
        return px_fail(PX_CONFIG, "the environment's PHALANX_GEMM is '%s'; valid are own, openblas", wanted);
    if (wants_openblas() && !px_products_openblas())
        return px_fail(PX_CONFIG, "the environment's PHALANX_GEMM is openblas; libopenblas.so.0 cannot be opened here");
    return PX_OK;
}

px_status px_compute_init(px_compute *ctx, int threads, size_t scratch_bytes) {
    if (threads < 1) return px_fail(PX_BUG, "px_compute_init: %d threads; valid is 1 or more", threads);
    *ctx = (px_compute){.threads = threads};
    PX_TRY(check_products());
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

#if defined(PX_KERNELS_X86) && !defined(PX_DOUBLE)
/* Tiles: the processor has them, and the system lets this process use them (Linux: a request, once). */
static bool has_amx(void) {
    enum { TILE_AND_BF16 = 1 << 24 | 1 << 22, REQUEST = 0x1023, TILE_DATA = 18 }; /* ARCH_REQ_XCOMP_PERM */
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & TILE_AND_BF16) != TILE_AND_BF16) return false;
#ifdef SYS_arch_prctl
    return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
#else
    return false;
#endif
}

typedef struct bf16_choice {
    const px_products *products;
    const char *missing; /* why there are none */
} bf16_choice;

/* Intel's vdpbf16ps is slower than its multiply-adds in float32 (Sapphire Rapids: 96 against 272 GFLOP/s); AMD's is not. */
static const bf16_choice *choose_bf16(void) {
    static const bf16_choice tiles = {.products = &px_products_amx}, pairs = {.products = &px_products_bf16};
    static const bf16_choice low = {.missing = "the instruction set in use is below AVX-512"};
    static const bf16_choice none = {.missing = "this processor has no AVX512-BF16"};
    static const bf16_choice slow = {.missing = "without AMX this processor is slower in bf16 than in float32"};
    const char *wanted = getenv("PHALANX_ISA");
    if (px_kernels_get() != &px_kernels_avx512) return &low;
    if (!__builtin_cpu_supports("avx512bf16")) return &none;
    if (!(wanted && strcmp(wanted, "avx512") == 0) && has_amx()) return &tiles;
    return __builtin_cpu_is("intel") ? &slow : &pairs;
}

static const bf16_choice *bf16(void) {
    static const bf16_choice *chosen; /* the same answer whoever asks first */
    const bf16_choice *choice = __atomic_load_n(&chosen, __ATOMIC_RELAXED);
    if (!choice) {
        choice = choose_bf16();
        __atomic_store_n(&chosen, choice, __ATOMIC_RELAXED);
    }
    return choice;
}

const char *px_compute_no_bf16(void) { return bf16()->missing; }
const char *px_compute_bf16(void) { return bf16()->products ? bf16()->products->name : NULL; }
#else
const char *px_compute_no_bf16(void) { return "this build has no kernels for it"; }
const char *px_compute_bf16(void) { return NULL; }
#endif

px_dtype px_compute_precision(bool bf16) {
    static bool said;
    if (!bf16 || !px_compute_no_bf16()) return bf16 ? PX_BF16 : PX_F32;
    if (!said) px_log(PX_NOTE, "precision bf16 is wanted, float32 is used: %s", px_compute_no_bf16());
    said = true;
    return PX_F32;
}

const px_products *px_products_get(px_dtype precision) {
#if defined(PX_KERNELS_X86) && !defined(PX_DOUBLE)
    if (precision == PX_BF16) return bf16()->products;
#endif
    PX_CHECK(precision == PX_F32);
    static const px_products *chosen; /* the same answer whoever asks first */
    const px_products *products = __atomic_load_n(&chosen, __ATOMIC_RELAXED);
    if (!products) {
        products = wants_openblas() ? px_products_openblas() : NULL;
        if (!products) products = &px_kernels_get()->products;
        __atomic_store_n(&chosen, products, __ATOMIC_RELAXED);
    }
    return products;
}

const char *px_compute_blas(void) {
    return px_products_get(PX_F32) == &px_kernels_get()->products ? "none (own products)" : px_openblas_name();
}

const char *px_compute_isa(void) { return px_kernels_get()->isa; }
