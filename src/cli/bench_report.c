/* The roofs of this machine and the lines under them. */
#include "bench.h"
#include "phalanx/dist.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { ROOF_M = 1024, ROOF_OUT = 3072, ROOF_IN = 768 };

/* A library's other threads spin for some 30 ms after a product, in wait of more, and would slow what is measured next. */
static void rest(const px_bench *b)
{
    if (b->threads > 1) {
        nanosleep(&(struct timespec){.tv_nsec = 60000000}, NULL);
    }
}

double px_bench_library(const px_bench *b, px_dtype precision, int M, int out, int in)
{
    double rate = px_library_gemm(precision, (int)b->threads, M, out, in);
    rest(b);
    return rate;
}

double px_bench_products(px_bench *b, px_dtype precision)
{
    int p = precision == PX_BF16;
    const char *of;
    double rate = px_product_roof(precision, (int)b->threads, ROOF_M, ROOF_OUT, ROOF_IN, &of), before = b->products[p];
    rest(b);
    if (rate > before) {
        b->products[p] = rate;
        b->of[p] = of;
    }
    if (rate > 1.01 * before && !b->json && px_dist_rank() == 0) {
        printf("roof of %s products: %.1f GFLOP/s (%s, %dx%dx%d, %lld threads)\n", p ? "bf16" : "f32", rate, of, ROOF_M,
               ROOF_OUT, ROOF_IN, (long long)b->threads);
    }
    return b->products[p];
}

double px_bench_memory(px_bench *b, bool update)
{
    if (b->memory[update] == 0.0) {
        b->memory[update] = px_memory_rate((int)b->threads, update);
        if (!b->json && px_dist_rank() == 0) {
            printf("roof of memory: %.1f GB/s (%s)\n", b->memory[update],
                   update ? "two arrays read, one written" : "read alone");
        }
    }
    return b->memory[update];
}

static json_t *number_or_null(double x)
{
    return x > 0.0 ? json_real(x) : json_null();
}

static px_status print_json(px_bench *b, const px_bench_row *row, double roof, double share, const char *bound)
{
    return px_print_json(json_pack(
        "{s:s, s:s, s:s, s:I, s:f, s:o, s:f, s:o, s:s, s:o, s:o, s:o, s:o, s:s}", "what", row->what, "shape", row->shape,
        "precision", row->precision == PX_BF16 ? "bf16" : "f32", "threads", (json_int_t)b->threads, "ms", row->seconds * 1e3,
        "tok_s", number_or_null(row->tokens / row->seconds), "gflops", row->flops / row->seconds / 1e9,
        "roof_gflops", number_or_null(roof), "roof_of", b->of[row->precision == PX_BF16],
        "gb_s", number_or_null(row->bytes / row->seconds / 1e9), "roof_gb_s", number_or_null(row->bytes_roof),
        "library_gflops", number_or_null(row->library), "share", number_or_null(share), "bound", bound));
}

px_status px_bench_print(px_bench *b, const px_bench_row *row)
{
    if (px_stop_level() > 0) {
        return px_fail(PX_STOPPED, "stopped while measuring");
    }
    double roof = px_bench_products(b, row->precision);
    double multiplying = row->flops / roof / 1e9, moving = row->bytes_roof > 0.0 ? row->bytes / row->bytes_roof / 1e9 : 0.0;
    double share = fmax(multiplying, moving) / row->seconds;
    const char *medium = row->medium != NULL ? row->medium : "memory", *bound = moving > multiplying ? medium : "products";
    if (px_dist_rank() != 0) {
        return PX_OK;
    }
    if (b->json) {
        PX_TRY(print_json(b, row, roof, share, bound));
        return px_output_done();
    }
    char tokens[32] = "", bytes[32] = "", library[48] = "";
    if (row->tokens > 0.0) {
        snprintf(tokens, sizeof tokens, "%.0f tok/s", row->tokens / row->seconds);
    }
    if (row->bytes > 0.0) {
        snprintf(bytes, sizeof bytes, "%.1f GB/s", row->bytes / row->seconds / 1e9);
    }
    if (row->library > 0.0) {
        snprintf(library, sizeof library, "; library %.1f GFLOP/s", row->library);
    }
    printf("%-18s %-26s %-4s %9.2f ms %12s %7.1f GFLOP/s %10s %6.1f %% of %s%s\n", row->what, row->shape,
           row->precision == PX_BF16 ? "bf16" : "f32", row->seconds * 1e3, tokens, row->flops / row->seconds / 1e9, bytes,
           100.0 * share, bound, library);
    return px_output_done();
}

void px_bench_fill(px_real *x, size_t count)
{
    uint32_t state = 1;
    for (size_t i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        x[i] = (px_real)(state >> 8) / 16777216.0f - 0.5f;
    }
}

void px_bench_ids(const px_bench *b, int32_t *ids, size_t count)
{
    px_rng rng = px_rng_make(1, "bench", PX_RNG_NOISE);
    for (size_t i = 0; i < count; i++) {
        ids[i] = (int32_t)(px_rng_uniform(&rng, (uint32_t)i, 0, 0, 0) * b->model.config.vocab_size);
    }
}

px_status px_bench_weights(px_bench *b)
{
    if (b->model.weights != NULL) {
        return PX_OK;
    }
    PX_TRY(px_model_alloc(&b->model));
    px_model_init(&b->model, 1);
    return PX_OK;
}
