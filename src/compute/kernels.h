/* The inner loops, compiled once per instruction set (kernels_*.c) and chosen at run time. None of them knows threads
 * or allocates; the files of the room split the work and call them. */
#ifndef PX_COMPUTE_KERNELS_H
#define PX_COMPUTE_KERNELS_H

#include "phalanx/compute.h"

/* A matrix operand: element (i, k) stands at data[i * row + k * column]; one of the strides is 1. */
typedef struct px_operand {
    const px_real *data;
    size_t row, column;
} px_operand;
/* c[rows, columns] = (or +=, add) a[rows, depth] b[columns, depth]^T + bias[columns] (NULL: none). Each element is summed in
 * the order of depth alone, so its bits depend on neither rows nor columns. */
typedef struct px_product {
    px_real *c;
    size_t ldc;
    px_operand a, b;
    const px_real *packed; /* b in panels, for each block of depth one after another; NULL: packed on the way */
    bool halves;           /* packed has the upper 16 bits of each word, at the beginning of the panel's room */
    const px_rows16 *b16;  /* b as bf16, its columns from `first` on; NULL: b */
    size_t packed_columns; /* of all of packed, whole panels */
    int first;             /* column of packed and b16 that is column 0 of c, a multiple of PX_PANEL */
    const px_real *bias;
    int rows, columns, depth;
    bool add;
} px_product;

/* Rows of a that are contiguous in the depth are read in place, unless words are made of them, or a panel's rows lie so that
 * all of them fall on the same few lines of the first-level cache. */
static inline bool px_product_in_place(const px_product *job, int step)
{
    bool crowded = job->a.row * sizeof(px_real) % 4096 == 0 && job->rows > 1;
    return step == 1 && job->a.column == 1 && !crowded;
}

/* Query rows that read one kv head: one head's rows at consecutive positions, or all heads' at one; see attention.c. */
typedef struct px_head_job {
    const px_real *q;   /* row 0 */
    const void *k, *v;  /* the kv head's blocks */
    bool halves;        /* k and v have the upper 16 bits of floats */
    px_real *out, *lse;       /* lse NULL: not wanted */
    size_t ldq, ldout, ldlse;
    int position, advance; /* of row 0; from row to row, 1 or 0 */
    int D, window;
    px_real scale;
} px_head_job;

/* Matrix products of one precision. Packed operands are words of sizeof(px_real): an element of the depth, or in bf16 a
 * pair of them. */
typedef struct px_products {
    const char *name;
    int tile_rows; /* of the register tile */
    int step;      /* elements of the depth in a word */
    void (*product)(const px_product *job, px_real *pack_a, px_real *pack_b);
    /* panels of PX_PANEL rows; NULL: operands are never packed ahead */
    void (*pack_b)(px_real *to, px_operand from, int rows, int depth);
    /* the same of `rows` rows of bf16 from `first` on, which have `in` elements each, [k, k + depth) of them */
    void (*pack_b16)(px_real *to, const px_rows16 *from, size_t in, int first, int rows, int k, int depth);
    double (*peak)(px_real *seed, long steps); /* multiply-adds on registers, see kernel_peak.h; NULL: a library's */
    /* keeps the upper 16 bits of the words of packed panels; NULL: words are always whole */
    void (*halve)(px_real *packed, int panels, int depth);
} px_products;

typedef struct px_kernels {
    const char *isa;
    px_products products; /* in px_real */
    /* norms of x += residual (NULL: of x) */
    void (*layernorm)(px_real *y, px_real *mean, px_real *rstd, px_real *x, const px_real *residual, const px_real *w,
                      const px_real *b, int rows, int C, double eps);
    void (*layernorm_backward)(px_real *dx, const px_real *dy, const px_real *x, const px_real *mean,
                               const px_real *rstd, const px_real *w, int rows, int C, bool accumulate);
    void (*rmsnorm)(px_real *y, px_real *rstd, px_real *x, const px_real *residual, const px_real *w, int rows, int C,
                    double eps, double w_offset);
    void (*rmsnorm_backward)(px_real *dx, const px_real *dy, const px_real *x, const px_real *rstd, const px_real *w,
                             int rows, int C, double w_offset, bool accumulate);
    /* Sums over all rows for columns [begin, end): dw += dy * (x - mean) * rstd, db += dy. mean, db may be NULL; x NULL:
     * db alone. */
    void (*column_sums)(px_real *dw, px_real *db, const px_real *dy, size_t lddy, const px_real *x, const px_real *mean,
                        const px_real *rstd, int rows, int C, int begin, int end);
    void (*add)(px_real *x, const px_real *y, size_t count);
    /* y = act(x) * up (up NULL: act(x)) */
    void (*activation)(px_activation kind, px_real *y, const px_real *x, const px_real *up, size_t count);
    /* dx = dy * up * act'(x), dup = dy * act(x); up and dup both NULL: dx = dy * act'(x) */
    void (*activation_backward)(px_activation kind, px_real *dx, px_real *dup, const px_real *dy, const px_real *x,
                                const px_real *up, size_t count);
    void (*softmax_row)(px_row_stats *stats, const px_real *z, int target, int V, double temperature, bool want_entropy);
    int (*softmax_draw)(px_row_stats *stats, const px_real *z, int V, double temperature, double uniform, double *mass);
    void (*softmax_row_backward)(px_real *z, const px_row_stats *stats, int target, double g, double h, int V,
                                 double temperature);
    void (*attention_rows)(const px_head_job *job, int begin, int end, px_real *work); /* query rows [begin, end) */
    /* a whole key block of one head: to[D][PX_KEY_BLOCK] from as many rows of k, row stride ld */
    void (*key_block)(void *to, bool halves, const px_real *k, size_t ld, int D);
    void (*round_bf16)(px_real *x, size_t count); /* in place, to nearest, ties to even; a NaN stays one */
    void (*narrow)(uint16_t *to, const px_real *x, size_t count); /* the upper 16 bits, of floats */
    /* dots[r] = a[r, D] . b[r, D], row stride ld */
    void (*row_dots)(px_real *dots, const px_real *a, const px_real *b, size_t ld, int rows, int D);
    /* p[rows, columns] = exp(p * scale - lse) where the key may be seen, else 0; ds in place = p * (ds - delta) * scale */
    void (*attention_scores)(px_real *p, px_real *ds, size_t ld, const px_real *lse, size_t ldlse, const px_real *delta,
                             int rows, int columns, int position, int key, int window, px_real scale);
} px_kernels;

/* Blocking of a product: depth (in steps) and columns of the packed block of b, rows of that of a. Sums pass through c between
 * depth blocks without loss, so these numbers are free to change. */
enum { PX_DEPTH_BLOCK = 384, PX_COLUMN_BLOCK = 320, PX_ROW_BLOCK = 1008, PX_PANEL = 32 };
enum { PX_QUERY_TILE = 4, PX_KEY_GROUP = 64 };
size_t px_product_pack_a(int rows, int depth);    /* words */
size_t px_product_pack_b(int columns, int depth); /* words */
#define PX_ATTENTION_WORK (PX_QUERY_TILE * (2 * PX_MAX_HEAD_DIM + PX_KEY_GROUP)) /* elements */

const px_kernels *px_kernels_get(void);
const px_products *px_products_get(px_dtype precision); /* PX_F32, PX_BF16 */
extern const px_kernels px_kernels_generic;
#ifdef PX_KERNELS_X86
extern const px_kernels px_kernels_avx2, px_kernels_avx512;
extern const px_products px_products_bf16, px_products_amx; /* AVX-512 with BF16, and tiles beside it */
#endif

/* Adds to px_compute_flops; from the thread that calls a kernel, not from those it starts. */
void px_flops_add(double count);

/* px_rope_apply of one row. */
void px_rope_row(px_real *x, int position, const px_rotary *rotary, int heads, int D, bool inverse);

/* Keys that the rows of a span read, summed over rows. window 0: none. */
double px_span_keys(const px_span *span, int window);

#endif
