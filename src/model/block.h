/* What engine and generator share: the family's switches, the sizes of a block, one block forward and backward, and the
 * carving of one planned allocation. */
#ifndef PHALANX_MODEL_BLOCK_H
#define PHALANX_MODEL_BLOCK_H

#include "family.h"

/* Frequencies [rotary_dim / 2] and the factor on cosine and sine. */
void px_rope_frequencies(const px_rope *rope, double *frequency, double *magnitude);

/* ---- planned memory -------------------------------------------------------------------------------------------------
 * The same layout function runs twice: with base NULL it counts, with the allocation it hands out pointers. */
typedef struct px_layout {
    char *base;
    size_t used; /* bytes */
} px_layout;
void *px_layout_take(px_layout *layout, size_t count, size_t size); /* 64-byte aligned; NULL while counting */

/* ---- block ------------------------------------------------------------------------------------------------------- */
typedef struct px_shape {
    px_model_config config;
    px_traits traits;
    int q, kv, qkv; /* columns: heads * D, kv_heads * D, and all three */
    int up;         /* columns of the first MLP product: I, or 2I when gated */
    int mlp_rows;   /* rows that go through the MLP at once, so that its wide rows stay in cache */
    px_rotary rotary;       /* tables of `positions` rows; NULL without rotary positions */
    px_dtype precision;     /* of the matrix products */
    char *packed;             /* all matrices packed; NULL: none are */
    bool packed_twice;        /* for backward too */
    bool packed_halves;       /* as px_weight.halves */
    const px_real *packed_of; /* the weights and their version that packed holds; NULL: nothing yet */
    uint64_t packed_version;
} px_shape;
void px_shape_init(px_shape *shape, const px_model_config *config);
/* Space for the rotary tables of `positions` positions. */
void px_shape_layout(px_shape *shape, px_layout *layout, int positions);
/* A learned table of positions has an end. */
px_status px_positions_check(const px_model_config *config, int length);
px_status px_shape_tables(px_shape *shape, int positions); /* fills them */
px_heads px_shape_heads(const px_shape *shape, px_real *qkv); /* of rows [M, qkv], or their gradients */
/* The matrices of a block, and the head. */
typedef enum px_matrix { PX_QKV, PX_OUT, PX_UP, PX_DOWN, PX_LM_HEAD } px_matrix;
px_weight px_shape_weight(const px_shape *shape, const px_model *model, int layer, px_matrix matrix);
/* Space for packed matrices, for who runs rows through the same weights many times. */
void px_packed_layout(px_shape *shape, px_layout *layout, bool backward);
bool px_packed_holds(const px_shape *shape, const px_model *model); /* are these weights packed? */
void px_packed_refresh(px_shape *shape, px_compute *compute, const px_model *model); /* when the weights are others */
/* Scratch bytes of every kernel that a forward (and backward) over M rows uses. */
size_t px_shape_scratch(const px_shape *shape, int M, int max_sequence, int head_rows, int threads, bool train);

/* Activations of one block over M rows. Training keeps one set a layer (but norm, which is recomputed), or x and
 * out alone; inference runs all layers through one set where x and out are the same memory, and up and act hold mlp_rows
 * rows. */
typedef struct px_activations {
    px_real *x;             /* [M, C] input */
    px_real *norm;          /* [M, C] output of either norm, shared by all layers */
    px_real *mean1, *rstd1; /* [M], NULL in inference */
    px_real *qkv;           /* [M, qkv], q and k normed and rotated */
    px_real *qk, *qk_rstd;  /* [M, q + kv] q and k before their norm, [M, heads + kv_heads]; NULL: none, or not kept */
    px_real *lse;           /* [M, heads], NULL in inference */
    px_real *attention;     /* [M, q] */
    px_real *mid;           /* [M, C] x + attention branch */
    px_real *mean2, *rstd2; /* [M], NULL in inference */
    px_real *up, *act;      /* [M, up], [M, I] */
    px_real *out;           /* [M, C] mid + MLP branch */
    bool keep;              /* a set a layer */
} px_activations;

/* Gradients that a block's backward passes through; shared by all layers. */
typedef struct px_gradients {
    px_real *dx;         /* [M, C] in: of the block's output; out: of its input */
    px_real *dnorm;      /* [M, C] */
    px_real *dqkv;       /* [M, qkv] */
    px_real *dattention; /* [M, q] */
    px_real *dup, *dact; /* [M, up], [M, I]; the same memory when not gated */
    px_real *dside;      /* [M, C] of the MLP branch's input when it is the block's; NULL: it is mid */
    bool add;            /* products add to the weights' gradients, or write them */
} px_gradients;

/* Embedding of tokens and positions; backward adds into grads. */
void px_embed_forward(px_compute *compute, const px_model *model, px_real *x, const int32_t *ids,
                      const int32_t *positions, int M);
void px_embed_backward(px_compute *compute, const px_model *model, px_real *grads, const int32_t *ids,
                       const int32_t *positions, const px_real *dx, int M);
void px_norm_forward(px_compute *compute, const px_shape *shape, px_real *y, px_real *mean, px_real *rstd,
                     px_real *x, const px_real *residual, const px_real *w, const px_real *b, int M);
void px_norm_backward(px_compute *compute, const px_shape *shape, px_real *dx, px_real *dw, px_real *db,
                      const px_real *dy, const px_real *x, const px_real *mean, const px_real *rstd, const px_real *w,
                      int M, bool accumulate);
/* Rows of a batch that go on after attention, one run of each sequence that has any, close together: the queries, and from
 * there on all activations, have `count` rows; x, keys and values all M. */
typedef struct px_tail {
    px_span *spans;       /* [span_count] over the close rows; */
    const int32_t *first; /* and where each lies in the batch */
    int span_count, count;
} px_tail;
/* The spans' kv are this layer's. tail NULL: all rows go on. */
void px_block_forward(px_compute *compute, const px_shape *shape, const px_model *model, int layer,
                      const px_activations *a, const px_span *spans, int span_count, int M, const px_tail *tail);
/* In: d->dx of the rows that went on. Out: of all. */
void px_block_backward(px_compute *compute, const px_shape *shape, const px_model *model, int layer,
                       const px_activations *a, const px_gradients *d, px_real *grads, const px_span *spans,
                       int span_count, const int32_t *positions, int M, const px_tail *tail);
/* The tail's rows close together in `to` (row stride ld), which may be `from` itself; and back, the other rows of M zero. */
void px_tail_gather(const px_tail *tail, px_real *to, const px_real *from, size_t ld, size_t width);
void px_tail_scatter(const px_tail *tail, px_real *rows, size_t ld, size_t width, int M);
/* logits[M, V] of M rows of final hidden states. */
void px_head_logits(px_compute *compute, const px_shape *shape, const px_model *model, px_real *logits,
                    const px_real *hidden, int M);

/* ---- sampling ---------------------------------------------------------------------------------------------------- */
/* Chooses a token and gives its log-probability; weights[V] is scratch. generated: tokens of the completion so far, for
 * min_new_tokens. */
int px_sample_token(px_row_stats *stats, const px_real *logits, int V, const px_sampling *sampling,
                    const int32_t *history, int history_length, int generated, double uniform, double *weights);

#endif
