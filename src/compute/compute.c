/* The compute context, and the choice of kernels for this processor. */
#include <stdlib.h>
#include <string.h>
#ifdef PX_KERNELS_X86
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif
#include "openblas.h"

static bool wants_openblas(void)
{
    const char *wanted = getenv("PHALANX_GEMM"); /* whose products in float32 */
    return wanted && strcmp(wanted, "openblas") == 0;
}

/* `words`: the valid ones, NULL at the end; `valid`: the same to be read. */
static px_status check_variable(const char *name, const char *const *words, const char *valid)
{
    const char *value = getenv(name);
    for (; value && *words; words++) {
        if (strcmp(value, *words) == 0) return PX_OK;
    }
    return value ? px_fail(PX_CONFIG, "the environment's %s is '%s'; valid are %s", name, value, valid) : PX_OK;
}

static px_status check_environment(void)
{
    static const char *const isas[] = {"generic", "avx2", "avx512", "amx", NULL}, *const gemms[] = {"own", "openblas", NULL};
    PX_TRY(check_variable("PHALANX_ISA", isas, "generic, avx2, avx512, amx"));
    PX_TRY(check_variable("PHALANX_GEMM", gemms, "own, openblas"));
    if (wants_openblas() && !px_products_openblas())
        return px_fail(PX_CONFIG, "the environment's PHALANX_GEMM is openblas; libopenblas.so.0 cannot be opened here");
    return PX_OK;
}

px_status px_compute_init(px_compute *ctx, int threads, size_t scratch_bytes)
{
    if (threads < 1) return px_fail(PX_BUG, "px_compute_init: %d threads; valid is 1 or more", threads);
    *ctx = (px_compute){.threads = threads};
    PX_TRY(check_environment());
    return px_arena_init(&ctx->scratch, scratch_bytes, "compute scratch");
}

void px_compute_free(px_compute *ctx)
{
    px_arena_free(&ctx->scratch);
    *ctx = (px_compute){0};
}

enum { GENERIC, AVX2, AVX512, AVX512_BF16, AMX };
static int limit = AMX;

#ifdef PX_KERNELS_X86
/* Tiles: the processor has them, and the system lets this process use them (Linux: a request, once). */
static bool has_amx(void)
{
    enum { TILE_AND_BF16 = 1 << 24 | 1 << 22, REQUEST = 0x1023, TILE_DATA = 18 }; /* ARCH_REQ_XCOMP_PERM */
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & TILE_AND_BF16) != TILE_AND_BF16) return false;
#ifdef SYS_arch_prctl
    return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
#else
    return false;
#endif
}

/* Intel's vdpbf16ps is slower than its multiply-adds in float32 (Sapphire Rapids: 96 against 272 GFLOP/s); AMD's is not. */
static bool slow_pairs(void) { return __builtin_cpu_is("intel"); }
#endif

static int find_level(void)
{
#ifdef PX_KERNELS_X86
    const char *wanted = getenv("PHALANX_ISA"); /* at most this instruction set */
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                  __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
    if (!avx2 || (wanted && strcmp(wanted, "generic") == 0)) return GENERIC;
    if (!avx512 || (wanted && strcmp(wanted, "avx2") == 0)) return AVX2;
    if (!__builtin_cpu_supports("avx512bf16")) return AVX512;
    if (!(wanted && strcmp(wanted, "avx512") == 0) && has_amx()) return AMX;
    return slow_pairs() ? AVX512 : AVX512_BF16;
#else
    return GENERIC;
#endif
}

static int level_here(void)
{
    static int here = -1; /* the same answer whoever asks first */
    int level = __atomic_load_n(&here, __ATOMIC_RELAXED);
    if (level < 0) {
        level = find_level();
        __atomic_store_n(&here, level, __ATOMIC_RELAXED);
    }
    return level;
}

int px_compute_level(void)
{
    int level = level_here();
    return level < limit ? level : limit;
}

const char *px_compute_level_name(int level)
{
    static const char *const names[] = {"generic", "avx2", "avx512", "avx512 with bf16", "avx512 with amx"};
    return names[level];
}

static const px_kernels *chosen_kernels; /* the same answer whoever asks first */
static const px_products *chosen_products;

void px_compute_limit(int level)
{
    limit = level;
    chosen_kernels = NULL;
    chosen_products = NULL;
}

static const px_kernels *choose(void)
{
#ifdef PX_KERNELS_X86
    if (px_compute_level() >= AVX512) return &px_kernels_avx512;
    if (px_compute_level() == AVX2) return &px_kernels_avx2;
#endif
    return &px_kernels_generic;
}

const px_kernels *px_kernels_get(void)
{
    const px_kernels *kernels = __atomic_load_n(&chosen_kernels, __ATOMIC_RELAXED);
    if (!kernels) {
        kernels = choose();
        __atomic_store_n(&chosen_kernels, kernels, __ATOMIC_RELAXED);
    }
    return kernels;
}

const char *px_compute_no_bf16(void)
{
#if defined(PX_KERNELS_X86) && !defined(PX_DOUBLE)
    if (px_compute_level() >= AVX512_BF16) return NULL;
    if (level_here() >= AVX512_BF16) return "the processor of another rank has none";
    if (level_here() < AVX512) return "the instruction set in use is below AVX-512";
    return __builtin_cpu_supports("avx512bf16") ? "without AMX this processor is slower in bf16 than in float32"
                                                : "this processor has no AVX512-BF16";
#else
    return "this build has no kernels for it";
#endif
}

const char *px_compute_bf16(void)
{
    return px_compute_no_bf16() ? NULL : px_products_get(PX_BF16)->name;
}

px_dtype px_compute_precision(bool bf16)
{
    static bool said;
    if (!bf16 || !px_compute_no_bf16()) return bf16 ? PX_BF16 : PX_F32;
    if (!said) px_log(PX_NOTE, "precision bf16 is wanted, float32 is used: %s", px_compute_no_bf16());
    said = true;
    return PX_F32;
}

const px_products *px_products_get(px_dtype precision)
{
#if defined(PX_KERNELS_X86) && !defined(PX_DOUBLE)
    if (precision == PX_BF16) return px_compute_level() == AMX ? &px_products_amx : &px_products_bf16;
#endif
    PX_CHECK(precision == PX_F32);
    const px_products *products = __atomic_load_n(&chosen_products, __ATOMIC_RELAXED);
    if (!products) {
        products = wants_openblas() ? px_products_openblas() : NULL;
        if (!products) products = &px_kernels_get()->products;
        __atomic_store_n(&chosen_products, products, __ATOMIC_RELAXED);
    }
    return products;
}

const char *px_compute_blas(void)
{
    return px_products_get(PX_F32) == &px_kernels_get()->products ? "none (own products)" : px_openblas_name();
}

int px_compute_blas_threads(void)
{
    return px_products_get(PX_F32) == &px_kernels_get()->products ? 0 : px_openblas_threads();
}

const char *px_compute_isa(void) { return px_kernels_get()->isa; }
