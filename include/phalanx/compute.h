/* compute: the arithmetic of a transformer on plain arrays, forward and backward. Its matrix products
 * are its own: measured faster than OpenBLAS here, and row-invariant on every instruction set.
 *
 * Rows are tokens of a ragged batch: [M, C] row-major, no padding. Every forward kernel is row-invariant: the bits of a
 * row depend on that row (and, in attention, on the keys before it) alone, never on M, the thread count or the place in
 * the batch. So a token's log-probability has the same bits decoded alone, in a batch of 64, prefilled, or recomputed
 * by the learner. Backward kernels add into dw/db (+=) and write dx, unless a line says otherwise. Sums over rows are
 * the only place where the result depends on the split; see learners.gradient_leaf_tokens.
 *
 * No function allocates: scratch comes from the context's arena, planned with the px_*_scratch functions. */
#ifndef PHALANX_COMPUTE_H
#define PHALANX_COMPUTE_H

#include <string.h>

#include "phalanx/base.h"

#ifdef PX_DOUBLE /* the same sources once more, for finite differences in double */
typedef double px_real;
#else
typedef float px_real;
#endif

typedef struct px_compute {
    int threads;        /* OpenMP threads a kernel may use; BLAS itself runs on one, the split is ours */
    px_dtype precision; /* of the operands of linear layers and of attention's gradients: PX_F32 (from init), or PX_BF16 where it
                         * can be had */
    px_arena scratch;   /* per process; kernels mark and release */
} px_compute;
px_status px_compute_init(px_compute *ctx, int threads, size_t scratch_bytes);
void px_compute_free(px_compute *ctx);
/* Instruction set of our kernels: "avx512", "avx2", "generic". The environment's PHALANX_ISA sets the most to use:
 * generic, avx2, avx512 (no AMX) or amx. */
const char *px_compute_isa(void);
/* What can be used here, each level with all below: 0 generic, 1 AVX2, 2 AVX-512, 3 AVX-512 with BF16,
 * 4 and AMX. */
int px_compute_level(void);
const char *px_compute_level_name(int level);
/* From now on at most this level is used, so that ranks of different processors compute the same numbers. Before anything is
 * computed. */
void px_compute_limit(int level);
/* Threads that a BLAS in use has started beside ours; 0: none is in use. */
int px_compute_blas_threads(void);
/* Name, version and kernels of the BLAS that multiplies float32, or "none (own products)": the default. The environment's
 * PHALANX_GEMM=openblas chooses OpenBLAS, whose products need not be row-invariant. */
const char *px_compute_blas(void);
/* Why products in bf16 cannot be had here; NULL: they can. They round both operands to bf16 and sum in float32. */
const char *px_compute_no_bf16(void);
const char *px_compute_bf16(void); /* what does them: "AMX", "AVX512-BF16"; NULL: nothing */
px_dtype px_compute_precision(bool bf16); /* what is used when bf16 is wanted or not; the log says once where it is not had */
/* Floating-point operations of linear layers and attention that this process has done, a multiply-add counted as two. */
double px_compute_flops(void);
/* Measured once per process: are the products in use row-invariant here, in every precision that can be had? */
bool px_compute_row_invariant(void);
px_status px_compute_measure(void); /* does so now, where a failure (of memory) can still be told */
/* GFLOP/s of a library's product c[M, out] = a[M, in] w[out, in]^T, best of several: OpenBLAS in float32, oneDNN in bf16
 * with w laid out beforehand. 0: the library is not here. */
double px_library_gemm(px_dtype precision, int threads, int M, int out, int in);
const char *px_compute_onednn(void); /* name and version, or "none (...)" with the reason */
/* The roof of products in that precision: px_library_gemm, or where there is no library as many multiply-adds as the
 * arithmetic units do. *of: the library's name, or of what it is. PX_BF16 only where px_compute_no_bf16() is NULL. */
double px_product_roof(px_dtype precision, int threads, int M, int out, int in, const char **of);
/* GB/s of passes over memory far larger than the caches: of reading it, or (update) of x += s y, two arrays read and one
 * written. 0: there is not as much memory. */
double px_memory_rate(int threads, bool update);

/* ---- linear layers -------------------------------------------------------------------------------------------
 * A weight handle, never a bare pointer: a back end may keep a packed form beside the raw one. [out, in] row-major. */
static inline float px_from_bf16(uint16_t h) /* bfloat16 is the upper half of a float */
{
    uint32_t bits = (uint32_t)h << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
typedef struct px_rows16 { /* [out, in] as it lies in files: bf16, in up to three pieces, one below the other */
    const uint16_t *piece[3];
    int rows[3];
} px_rows16;
typedef struct px_weight {
    const px_real *raw;
    const px_rows16 *bf16;         /* in place of raw; NULL: raw. Forward alone, and only where px_compute_reads_bf16() */
    int out, in;
    const void *packed;            /* the same matrix as px_weight_pack lays it out for forward; NULL: raw only */
    const void *packed_transposed; /* and for backward_input */
    bool halves;                   /* all elements are bf16 exactly, and the packed forms keep 16 bits of them */
} px_weight;
/* The packed form, in the context's precision, saves packing in each product, which is most of the work when rows are
 * few. Same bits either way. Transposed it takes px_weight_packed(precision, in, out). */
size_t px_weight_packed(px_dtype precision, int out, int in); /* bytes */
void px_weight_pack(px_compute *ctx, void *packed, const px_weight *w, bool transposed);
bool px_weights_halve(px_compute *ctx, const px_real *weights, size_t count); /* can px_weight.halves be set for them? */
bool px_compute_reads_bf16(void); /* our own products do, with the bits of the same weights in px_real; a library's do not */
/* y[M,out] = x[M,in] w^T + bias[out] (bias NULL: none). ldy, ldx: row strides in elements. */
void px_linear_forward(px_compute *ctx, px_real *y, int ldy, const px_real *x, int ldx, const px_weight *w,
                       const px_real *bias, int M);
/* dx[M,in] = (or +=) dy[M,out] w */
void px_linear_backward_input(px_compute *ctx, px_real *dx, int lddx, const px_real *dy, int lddy, const px_weight *w,
                              int M, bool accumulate);
/* dw[out,in] = (or +=, accumulate) dy^T x, db[out] += column sums of dy (db NULL: none). M >= 1. */
void px_linear_backward_weight(px_compute *ctx, px_real *dw, px_real *db, const px_real *dy, int lddy, const px_real *x,
                               int ldx, int M, int out, int in, bool accumulate);
size_t px_linear_scratch(int M, int out, int in, int threads);

/* ---- norms ------------------------------------------------------------------------------------------------------
 * Saved for backward: mean[M], rstd[M] (LayerNorm), rstd[M] (RMSNorm); NULL in inference. w_offset: 0, or 1 for
 * Gemma's (1 + w). forward: of x, or in the same pass of x += residual (NULL: none). backward: dx = (or +=, accumulate)
 * ..., dw, db +=. */
void px_layernorm_forward(px_compute *ctx, px_real *y, px_real *mean, px_real *rstd, px_real *x, const px_real *residual,
                          const px_real *w, const px_real *b, int M, int C, double eps);
void px_layernorm_backward(px_compute *ctx, px_real *dx, px_real *dw, px_real *db, const px_real *dy, const px_real *x,
                           const px_real *mean, const px_real *rstd, const px_real *w, int M, int C, bool accumulate);
void px_rmsnorm_forward(px_compute *ctx, px_real *y, px_real *rstd, px_real *x, const px_real *residual, const px_real *w,
                        int M, int C, double eps, double w_offset);
void px_rmsnorm_backward(px_compute *ctx, px_real *dx, px_real *dw, const px_real *dy, const px_real *x,
                         const px_real *rstd, const px_real *w, int M, int C, double w_offset, bool accumulate);
/* RMSNorm in place of each of `heads` heads of D that start at x in every row (row stride ldx), with one weight [D].
 * rstd[M, heads], row stride ldrstd; NULL in inference. backward: x are the heads as they were (row stride ldx), dy
 * becomes dx in place (row stride lddy), dw[D] +=. */
void px_rmsnorm_heads(px_compute *ctx, px_real *x, int ldx, px_real *rstd, int ldrstd, const px_real *w, int M,
                      int heads, int D, double eps, double w_offset);
void px_rmsnorm_heads_backward(px_compute *ctx, px_real *dy, int lddy, px_real *dw, const px_real *x, int ldx,
                               const px_real *rstd, int ldrstd, const px_real *w, int M, int heads, int D,
                               double w_offset);
/* x[M,C] += y[M,C] */
void px_add(px_compute *ctx, px_real *x, const px_real *y, size_t count);

/* ---- activations ------------------------------------------------------------------------------------------------- */
typedef enum px_activation { PX_GELU_TANH, PX_GELU_ERF, PX_SILU, PX_RELU } px_activation;
void px_activation_forward(px_compute *ctx, px_activation kind, px_real *y, const px_real *x, size_t count);
void px_activation_backward(px_compute *ctx, px_activation kind, px_real *dx, const px_real *dy, const px_real *x,
                            size_t count); /* dx may be dy */
/* gate_up[M, 2I]: gate in the first I columns, up in the last. h[M,I] = act(gate) * up. */
void px_gated_forward(px_compute *ctx, px_activation kind, px_real *h, const px_real *gate_up, int M, int I);
void px_gated_backward(px_compute *ctx, px_activation kind, px_real *dgate_up, const px_real *dh,
                       const px_real *gate_up, int M, int I);

/* ---- positions ----------------------------------------------------------------------------------------------------
 * cosine/sine[max_positions, rotary_dim/2] in px_real from frequencies in double. */
void px_rope_table(px_real *cosine, px_real *sine, const double *frequency, int max_positions, int rotary_dim,
                   double magnitude);
typedef struct px_rotary {
    px_real *cosine, *sine; /* [max_positions, dim / 2]; NULL: no rotation */
    int dim;                /* rotary_dim */
} px_rotary;
/* Rotates in place (rotate-half pairs (j, j + rotary_dim/2)) the first rotary_dim dims of each of `heads` heads of D
 * dims that start at x, row stride ldx. positions[M]. inverse: the backward rotation. */
void px_rope_apply(px_compute *ctx, px_real *x, int ldx, const int32_t *positions, const px_rotary *rotary, int M,
                   int heads, int D, bool inverse);

/* ---- attention ----------------------------------------------------------------------------------------------------
 * One sequence's keys and values of one layer, in the form that one kernel reads in training, prefill and decode:
 * keys in blocks of PX_KEY_BLOCK tokens, each block transposed, so that vector lanes run over keys.
 *   k: [kv_heads][capacity / PX_KEY_BLOCK][D][PX_KEY_BLOCK]     v: [kv_heads][capacity][D] */
#define PX_KEY_BLOCK 16
#define PX_MAX_HEAD_DIM 1024 /* D at most */
typedef struct px_kv {
    void *k, *v; /* px_real, or with halves the upper 16 bits of float */
    int kv_heads, D;
    int capacity; /* tokens, a multiple of PX_KEY_BLOCK */
    bool rounded; /* keys and values are rounded to bf16, in the rows too */
    bool halves;  /* rounded ones, of which half the memory is kept and read; the same results */
} px_kv;
/* Bytes of k (and of v) for `tokens` tokens: kv_heads * D * round_up(tokens, PX_KEY_BLOCK) elements. */
size_t px_kv_bytes(bool halves, int kv_heads, int D, int tokens);
/* A run of query rows of one sequence at consecutive positions: rows [row, row + rows) stand at positions
 * position .. position + rows - 1 and attend to keys 0 .. own position of kv (window > 0: the last `window` of them).
 * Decode is a span of one row; training and prefill are spans of a whole sequence or chunk. */
typedef struct px_span {
    int row, rows, position;
    int key_row; /* for px_attention_backward: the row whose k and v position 0 has; the next positions follow */
    px_kv kv;
} px_span;
/* Queries, keys and values of rows, or their gradients: each one's first head of row 0. Query head h reads kv head
 * h / (heads / kv_heads). */
typedef struct px_heads {
    px_real *q, *k, *v;
    size_t ld; /* row stride of all three */
    int heads; /* query heads */
} px_heads;
/* Rotates the rows' q and k in place (and rounds k and v where asked) and writes keys and values at their positions, in one pass. */
void px_kv_store(px_compute *ctx, const px_span *spans, int count, const px_heads *rows, const px_rotary *rotary);
/* out[M, heads*D] (stride ldout) = causal softmax(q k^T * scale) v with an online softmax over key blocks from 0: memory
 * linear in length. lse[M, heads]: log of the softmax denominator (with the maximum), NULL in inference. fresh: what
 * px_kv_store does with these rows is still to be done, and a decoding row's is where it is attended; NULL: it is. */
void px_attention_forward(px_compute *ctx, px_real *out, int ldout, px_real *lse, const px_heads *rows,
                          const px_rotary *fresh, const px_span *spans, int count, double scale, int window);
/* Gradients (written, not added) of q, k and v, rotated as they are, for keys from position 0 to a span's last; the spans'
 * kv is not read. P is recomputed from lse; delta = rowsum(dout * out) is taken inside. */
void px_attention_backward(px_compute *ctx, const px_heads *gradients, const px_real *dout, const px_real *out, int ldout,
                           const px_real *lse, const px_heads *rows, const px_span *spans, int count, double scale,
                           int window);
size_t px_attention_scratch(int max_tokens, int max_sequence, int heads, int kv_heads, int D, int threads);

/* ---- embedding ----------------------------------------------------------------------------------------------------
 * x[M,C] = scale * table[ids] (+ positional[positions + offset], NULL: none). table16, where it is not NULL: in place of table, in
 * bf16. */
void px_embedding_forward(px_compute *ctx, px_real *x, const int32_t *ids, const px_real *table, const uint16_t *table16,
                          const int32_t *positions, const px_real *positional, int offset, int M, int C, double scale);
/* dtable[ids] += scale * dx, in row order for each id whatever the threads; dpositional likewise. */
void px_embedding_backward(px_compute *ctx, px_real *dtable, const int32_t *ids, px_real *dpositional,
                           const int32_t *positions, int offset, const px_real *dx, int M, int C, double scale);

/* ---- softmax over the vocabulary ------------------------------------------------------------------------------------
 * Rows of logits z[M,V], read in chunks by the caller; all on softmax(z / temperature). */
typedef struct px_row_stats {
    double logprob; /* of the target, nats */
    double entropy; /* nats; NaN unless wanted */
    double lse;     /* log sum exp of z / temperature */
} px_row_stats;
void px_softmax_rows(px_compute *ctx, px_row_stats *stats, const px_real *z, int ldz, const int32_t *targets, int M, int V,
                     double temperature, bool want_entropy);
/* A token of one row, in one pass: the first in id order at which the running sum of the softmax exceeds uniform (0 to
 * below 1); temperature 0: the first largest, with the statistics at temperature 1. stats have the bits that
 * px_softmax_rows gives for that token. mass: scratch for a double a PX_SOFTMAX_CHUNK begun. -1, and no stats: the row
 * has a NaN or an infinite maximum. */
#define PX_SOFTMAX_CHUNK 1024
int px_softmax_draw(px_row_stats *stats, const px_real *z, int V, double temperature, double uniform, double *mass);
/* z becomes dz: (g/T)(onehot(target) - p) - (h/T) p (ln p + entropy), with g = dlogprob[m], h = dentropy[m] (NULL: 0). */
void px_softmax_rows_backward(px_compute *ctx, px_real *z, int ldz, const px_row_stats *stats, const int32_t *targets,
                              const double *dlogprob, const double *dentropy, int M, int V, double temperature);

#endif
