/* Inside the command bench: its options, the roofs of this machine, and the lines that stand under them. */
#ifndef PHALANX_BENCH_H
#define PHALANX_BENCH_H

#include "cli.h"

typedef struct px_bench {
    const char *dir, *shape;
    px_dtype dtype;      /* of the products of everything but the gemm lines */
    bool both;           /* gemm lines in float32 and, where it can be had, in bf16 */
    int64_t batch, seq, prompt, new_tokens, threads, trials;
    bool json;
    px_model model;      /* weights NULL until px_bench_weights */
    double products[2];  /* GFLOP/s by precision; 0: not measured yet */
    const char *of[2];   /* what they were measured of */
    double memory[2];    /* GB/s of reading, of updating; 0: not measured yet */
} px_bench;

/* One line: what was done in `seconds`, and what bounds it from below: its products by the roof of products, its bytes by
 * the roof of what moves them. */
typedef struct px_bench_row {
    const char *what, *shape;
    px_dtype precision;
    double seconds;
    double tokens;        /* 0: none */
    double flops, bytes;  /* bytes: the least that memory has to move, 0: what fits into caches */
    double bytes_roof;    /* GB/s */
    double library;       /* GFLOP/s of a library's product of the same shape; 0: none */
    const char *medium;   /* that moves the bytes; NULL: memory */
} px_bench_row;

/* bench_report.c */
/* GFLOP/s, the best of what every call measures: what ran beside one of them says nothing of the machine. */
double px_bench_products(px_bench *bench, px_dtype precision);
double px_bench_memory(px_bench *bench, bool update); /* GB/s, measured at the first call */
/* GFLOP/s of a library's product of this shape; 0: none is here. */
double px_bench_library(const px_bench *bench, px_dtype precision, int M, int out, int in);
px_status px_bench_print(px_bench *bench, const px_bench_row *row);
void px_bench_fill(px_real *x, size_t count); /* [-1/2, 1/2), none denormal */
void px_bench_ids(const px_bench *bench, int32_t *ids, size_t count);
px_status px_bench_weights(px_bench *bench);  /* the model's, if they are not there yet */

/* bench_gemm.c, bench_attention.c, bench_train.c, bench_sample.c, bench_ranks.c */
px_status px_bench_gemm(px_bench *bench);
px_status px_bench_attention(px_bench *bench); /* one layer, forward and backward */
px_status px_bench_train(px_bench *bench);     /* the whole step */
px_status px_bench_head(px_bench *bench);      /* LM head, loss and their backward */
px_status px_bench_adamw(px_bench *bench);
px_status px_bench_sample(px_bench *bench);    /* prompts and completions */
px_status px_bench_decode(px_bench *bench);    /* one step of it: a token for each sequence, and for one alone */
px_status px_bench_allreduce(px_bench *bench); /* collective */

#endif
